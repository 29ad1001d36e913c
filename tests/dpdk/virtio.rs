//! `net_virtio_user` against `dpdk-testpmd` with `net_vhost` in another process, and the other way round.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use trawl::{
    dpdk::{Eal, PortConfig, RxQueue, StartedPort},
    packet::{Burst, Source},
};

use crate::support::{PATIENCE, alone, eal, start_with};

/// testpmd in `txonly` mode on a vhost socket or as its guest.
struct Testpmd(Child);

impl Testpmd {
    fn start(vdev: &str, more: &[&str]) -> Self {
        let cpus = std::thread::available_parallelism().unwrap().get();
        let child = Command::new("dpdk-testpmd")
            .args(["--no-pci", "--no-huge", "-m", "256", "--no-shconf", "--no-telemetry"])
            .arg(format!("--lcores=0@0,1@{}", 1.min(cpus - 1)))
            .arg(format!("--vdev={vdev}"))
            .args(["--", "--forward-mode=txonly", "--auto-start", "--total-num-mbufs=8192"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dpdk-testpmd is installed with DPDK");
        Self(child)
    }

    /// Ends it as a user would, by Enter; it then prints what it sent.
    fn ask_to_stop(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn sent(mut self) -> u64 {
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        println!("{text}");
        let all = text.rsplit("Accumulated forward statistics").next().unwrap();
        let (_, after) = all.split_once("TX-packets:").unwrap();
        after.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Receives for a second, then asks testpmd to stop and receives until it is gone. Returns the number of frames.
fn receive_until_it_stops(
    port: &StartedPort,
    queue: &mut RxQueue,
    testpmd: &mut Testpmd,
    frame_bytes: usize,
) -> u64 {
    let (mut received, mut wrong) = (0_u64, 0_u64);
    let (start, mut flowing, mut stopping) = (Instant::now(), Instant::now(), None);
    let mut is_gone = false;
    loop {
        let burst = queue.receive();
        received += burst.len() as u64;
        wrong += (0..burst.len()).filter(|&i| burst.wire_len(i) as usize != frame_bytes).count() as u64;
        let empty = burst.is_empty();
        drop(burst);
        match stopping {
            None if received == 0 => {
                assert!(start.elapsed() < 4 * PATIENCE, "nothing comes");
                flowing = Instant::now();
            }
            None if flowing.elapsed() > Duration::from_secs(1) => {
                testpmd.ask_to_stop();
                stopping = Some(Instant::now());
            }
            // What it sent last may have come after the look that found nothing.
            Some(since) if empty && is_gone => break println!("stopped in {:?}", since.elapsed()),
            Some(_) if empty && testpmd.has_ended() => is_gone = true,
            Some(since) => assert!(since.elapsed() < 4 * PATIENCE, "testpmd does not end"),
            None => {}
        }
    }
    assert!(received > 1000, "{received} frames only");
    let stats = port.stats().unwrap();
    assert_eq!((wrong, stats.ipackets, stats.ierrors), (0, received, 0));
    received
}

fn receives_what_testpmd_sends(eal: &Eal, more: &[&str], frame_bytes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vhost");
    let mut testpmd =
        Testpmd::start(&format!("net_vhost0,iface={},queues=1,client=0", socket.display()), more);
    let end = Instant::now() + PATIENCE;
    while !socket.exists() {
        assert!(Instant::now() < end, "testpmd made no socket");
        std::thread::sleep(Duration::from_millis(20));
    }
    let device = format!("net_virtio_user0,path={},queues=1,queue_size=1024", socket.display());
    let (port, mut queues) = start_with(eal, &PortConfig::new(device, 1));
    let received = receive_until_it_stops(&port, &mut queues[0], &mut testpmd, frame_bytes);
    assert_eq!(received, testpmd.sent());
}

#[test]
fn virtio_user_counts_what_testpmd_says_it_sent_without_hugepages() {
    alone(|| {
        let eal = eal(&["--no-huge", "-m", "256"]);
        receives_what_testpmd_sends(&eal, &["--txpkts=64"], 64);
    });
}

#[test]
fn virtio_user_counts_what_testpmd_says_it_sent_with_hugepages() {
    alone(|| {
        let eal = eal(&["--in-memory", "--single-file-segments", "-m", "64"]);
        receives_what_testpmd_sends(&eal, &["--txpkts=1400"], 1400);
    });
}

#[test]
fn vhost_receives_what_a_guest_sends() {
    alone(|| {
        let eal = eal(&["--no-huge", "-m", "256"]);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("vhost");
        let (port, mut queues) =
            start_with(&eal, &PortConfig::new(format!("net_vhost0,iface={},queues=1", socket.display()), 1));
        let guest = format!("net_virtio_user0,path={},queues=1,queue_size=1024", socket.display());
        let mut testpmd = Testpmd::start(&guest, &["--txpkts=200"]);
        let received = receive_until_it_stops(&port, &mut queues[0], &mut testpmd, 200);
        // What it put into the ring as the last may go with the ring.
        let lost = testpmd.sent() - received;
        assert!(lost <= 1024, "{lost}");
    });
}
