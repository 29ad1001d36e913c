//! Ports that stay with the kernel, on a veth pair: what is in the files and what the ledger calls lost is what was sent.

use crate::netns::{PAIR, alone_in_netns};
use crate::odd::odd_frames;
use crate::outcome::Outcome;
use crate::trawl::{Setup, Trawl};
use rustix::process::Signal;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;
use trawl::job::Status;

const PATIENCE: Duration = Duration::from_secs(60);

/// Every kind of port that `trawl check` accepts of an interface, and its queues.
const EXACT: [(&str, u16); 4] = [
    ("interface:trawl0", 1),
    ("interface:trawl0,outgoing=1", 2),
    ("net_pcap0,rx_iface=trawl0", 1),
    ("net_pcap0,rx_iface_in=trawl0", 1),
];

fn setup(device: &str, queues: u16) -> Setup {
    Setup { device: device.to_owned(), queues, ..Setup::replay() }
}

fn send(frames: &[Vec<u8>]) {
    let mut socket = pcap::Capture::from_device("peer0").unwrap().immediate_mode(true).open().unwrap();
    frames.iter().for_each(|frame| socket.sendpacket(frame.as_slice()).unwrap());
}

fn running(trawl: &Trawl) -> String {
    let id = trawl.create(&trawl.request(json!({})));
    trawl.until(&id, PATIENCE, |progress| progress.status == Status::Running);
    id
}

/// Ends a capture once all that was sent has been received or counted as lost.
fn outcome(trawl: Trawl, id: &str, sent: u64) -> Outcome {
    let progress = trawl.until(id, PATIENCE, |progress| {
        assert!(progress.ledger.offered <= sent, "more than was sent: {:?}", progress.ledger);
        progress.ledger.offered == sent
    });
    assert_eq!(progress.ledger.offered, sent, "a loss that nothing counts");
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    trawl.ended(id);
    let outcome = Outcome::read(&trawl.bucket(), id);
    trawl.finish();
    outcome
}

#[test]
fn every_port_of_the_kernel_that_check_accepts_delivers_odd_frames_as_they_were_sent() {
    alone_in_netns(PAIR, || {
        for (device, queues) in EXACT {
            let trawl = setup(device, queues).start();
            let id = running(&trawl);
            let frames: Vec<_> = (0..100).flat_map(odd_frames).collect();
            let mut sent = 0;
            // Less at once than the smallest ring holds, however late the worker comes.
            for part in frames.chunks(500) {
                send(part);
                sent += part.len() as u64;
                trawl.until(&id, PATIENCE, |progress| progress.ledger.offered >= sent);
            }
            let outcome = outcome(trawl, &id, frames.len() as u64);
            outcome.assert_lossless();
            let (mut received, mut sent): (Vec<_>, Vec<_>) =
                (outcome.frames().map(<[u8]>::to_vec).collect(), frames);
            if queues > 1 {
                received.sort();
                sent.sort();
            }
            assert_eq!(received.len(), sent.len(), "{device}");
            let differing = received.iter().zip(&sent).filter(|(received, sent)| received != sent).count();
            assert_eq!(differing, 0, "{device}: of {}", sent.len());
        }
    });
}

/// The process stands still for most of the time in which frames come.
#[test]
fn what_a_port_of_the_kernel_cannot_take_at_ten_times_its_rate_is_in_the_ledger() {
    alone_in_netns(PAIR, || {
        for (device, queues) in [("interface:trawl0,ring_mib=1", 2), EXACT[2], EXACT[3]] {
            let trawl = setup(device, queues).start();
            let id = running(&trawl);
            let frames: Vec<_> = (0..100).flat_map(odd_frames).collect();
            let mut sent = 0;
            for _ in 0..3 {
                trawl.signal(Signal::STOP);
                for _ in 0..10 {
                    send(&frames);
                    sent += frames.len() as u64;
                }
                trawl.signal(Signal::CONT);
                trawl.until(&id, PATIENCE, |progress| progress.ledger.offered == sent);
            }
            let outcome = outcome(trawl, &id, sent);
            let ledger = &outcome.manifest.ledger;
            println!("{device}: sent {sent}: {ledger:?}");
            assert_eq!(ledger.captured + ledger.dropped.total() + ledger.port.imissed, sent);
            assert!(ledger.port.imissed > sent / 2, "{device}: this was not too much: {ledger:?}");
            assert!(outcome.frames().all(|frame| frames.iter().any(|sent| sent == frame)), "{device}");
        }
    });
}

#[test]
fn an_interface_that_joins_frames_is_refused_until_the_line_that_check_prints_was_run() {
    alone_in_netns(PAIR, || {
        let run = |line: &str| assert!(Command::new("sh").args(["-ec", line]).status().unwrap().success());
        run("ethtool -K trawl0 gro on");
        let (checks, serves, said) = setup("interface:trawl0", 1).judged(|config, _| config);
        assert!(!checks && !serves && said.contains("trawl0 joins received frames"), "{said}");
        let line = said.lines().find_map(|line| Some(&line[line.find("ethtool -K trawl0")?..])).unwrap();
        run(line.trim());
        let (checks, serves, said) = setup("interface:trawl0", 1).judged(|config, _| config);
        assert!(checks && serves, "{said}");
    });
}

#[test]
fn ports_that_change_frames_or_leave_queues_out_are_refused_by_check_and_serve() {
    alone_in_netns(PAIR, || {
        let added = Command::new("ip")
            .args([
                "link",
                "add",
                "many0",
                "numrxqueues",
                "4",
                "numtxqueues",
                "4",
                "type",
                "veth",
                "peer",
                "many1",
            ])
            .status();
        assert!(added.unwrap().success());
        for (device, words) in [
            ("net_af_packet0,iface=trawl0", "interface:trawl0"),
            ("net_af_xdp0,iface=many0", "ethtool -L many0 combined 1"),
        ] {
            let (checks, serves, said) = setup(device, 1).judged(|config, _| config);
            assert!(!checks && !serves && said.contains(words), "{device}: {said}");
        }
    });
}

/// The kernel tells of every change to an interface, also of one that is taken back.
#[test]
fn check_changes_nothing_on_an_interface() {
    alone_in_netns(PAIR, || {
        let mut monitor =
            Command::new("ip").args(["monitor", "link"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut changes = BufReader::new(monitor.stdout.take().unwrap()).lines();
        let touch = |interface: &str| {
            let status = Command::new("ip").args(["link", "set", interface, "mtu", "1400"]).status();
            assert!(status.unwrap().success());
        };
        let mut until = |interface: &str| {
            let mut seen = Vec::new();
            loop {
                let line = changes.next().unwrap().unwrap();
                if line.contains(interface) {
                    return seen;
                }
                seen.push(line);
            }
        };
        // It listens once it has told of this.
        std::thread::scope(|scope| {
            let told = scope.spawn(|| until("lo"));
            while !told.is_finished() {
                touch("lo");
                let status = Command::new("ip").args(["link", "set", "lo", "mtu", "65536"]).status();
                assert!(status.unwrap().success());
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for (device, queues) in EXACT.into_iter().chain([("net_af_xdp0,iface=trawl0", 1)]) {
            let dir = tempfile::tempdir().unwrap();
            let config = setup(device, queues).config(dir.path(), crate::trawl::free_address());
            let path = dir.path().join("trawl.toml");
            std::fs::create_dir(dir.path().join("spool")).unwrap();
            std::fs::write(&path, config).unwrap();
            let check =
                Command::new(env!("CARGO_BIN_EXE_trawl")).arg("check").arg("--config").arg(&path).output();
            let check = check.unwrap();
            assert!(check.status.success(), "{device}: {}", String::from_utf8_lossy(&check.stdout));
        }
        touch("peer0");
        let seen = until("peer0");
        let seen: Vec<_> = seen.iter().filter(|line| line.contains("trawl0")).collect();
        assert!(seen.is_empty(), "{seen:#?}");
        monitor.kill().unwrap();
        monitor.wait().unwrap();
    });
}
