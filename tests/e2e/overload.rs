//! More than the host can take: a second process sends faster than frames can be written, and every one is accounted for.

use crate::format::assert_counts;
use crate::frames;
use crate::outcome::Outcome;
use crate::trawl::Setup;
use serde_json::json;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use trawl::job::Status;

/// `dpdk-testpmd` at its prompt: it sends when it is told to.
struct Testpmd {
    process: Child,
    output: ChildStdout,
}

/// What testpmd says of its transmissions.
#[derive(Debug)]
struct Sent {
    packets: u64,
    /// The guest's ring was full.
    dropped: u64,
}

impl Testpmd {
    fn start(socket: &Path) -> Self {
        let mut process = Command::new("dpdk-testpmd")
            .args(["--no-pci", "--no-huge", "-m", "256", "--no-shconf", "--no-telemetry", "--lcores=0@0,1@0"])
            .arg(format!("--vdev=net_vhost0,iface={},queues=1,client=0", socket.display()))
            .args(["--", "-i", "--forward-mode=txonly", "--txpkts=1400", "--total-num-mbufs=8192"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dpdk-testpmd is installed with DPDK");
        let output = process.stdout.take().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "testpmd made no socket");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, output }
    }

    fn say(&mut self, command: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    /// Ends it. Its output comes whole at its end, because it goes into a pipe.
    fn quit(&mut self) -> Sent {
        self.say("quit");
        let mut output = String::new();
        self.output.read_to_string(&mut output).unwrap();
        let (_, counts) =
            output.split_once("TX-packets:").unwrap_or_else(|| panic!("no statistics in {output}"));
        let counts: Vec<u64> =
            counts.split_whitespace().filter_map(|word| word.parse().ok()).take(2).collect();
        Sent { packets: counts[0], dropped: counts[1] }
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

#[test]
fn what_testpmd_offers_is_captured_plus_every_counted_drop_to_the_packet() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vhost");
    let mut testpmd = Testpmd::start(&socket);
    let device = format!("net_virtio_user0,path={},queues=1,queue_size=1024", socket.display());
    // What was lost stands in the file too.
    let capture = "format = \"pcapng\"";
    let setup = Setup { device, blocks_bytes: "8MiB", spool_bytes_max: "8GiB", capture, ..Setup::replay() };
    let trawl = setup.start();
    let id = trawl.create(&trawl.request(json!({})));
    trawl.until(&id, Duration::from_secs(20), |progress| progress.status == Status::Running);
    testpmd.say("start");
    trawl.until(&id, Duration::from_secs(30), |progress| progress.ledger.rx > 20_000);
    std::thread::sleep(Duration::from_secs(2));
    testpmd.say("stop");
    // Whatever is still in the ring is received before the sender goes.
    let (mut last, mut quiet_since) = (0, Instant::now());
    let progress = trawl.until(&id, Duration::from_secs(30), |progress| {
        let received = progress.ledger.rx;
        if std::mem::replace(&mut last, received) != received {
            quiet_since = Instant::now();
        }
        quiet_since.elapsed() > Duration::from_millis(500)
    });
    let sent = testpmd.quit();
    assert_eq!(progress.ledger.rx, sent.packets, "received is what was put into the ring");
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    let ledger = trawl.ended(&id).ledger;
    let outcome = Outcome::read(&trawl.bucket(), &id);
    assert_eq!(outcome.manifest.ledger, ledger);
    let last = outcome.manifest.objects.last().unwrap();
    assert_counts(&frames::describe(&trawl.bucket().join(&last.name)).1, &ledger);
    let offered = sent.packets + sent.dropped;
    assert_eq!(offered, ledger.captured + ledger.dropped.total() + sent.dropped, "{sent:?} {ledger:?}");
    assert!(
        ledger.dropped.no_block + sent.dropped > 0,
        "this was not more than it can take: {sent:?} {ledger:?}"
    );
    println!("offered {offered}: {sent:?}, {ledger:?}");
    trawl.finish();
}
