//! What a service manager hears of the real binary: sd_notify(3) over a real socket. systemd itself runs in
//! `scripts/test-package.sh`.

use crate::held::Held;
use crate::http;
use crate::skip::skip;
use crate::trawl::{Setup, Trawl, free_address};
use rustix::process::Signal;
use serde_json::json;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// The socket of a service manager, and the value of NOTIFY_SOCKET.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _dir: tempfile::TempDir,
}

impl Manager {
    fn of_path() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        Self { socket: UnixDatagram::bind(&path).unwrap(), name: path.display().to_string(), _dir: dir }
    }

    fn abstract_one() -> Self {
        let name = format!("trawl-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Self { socket, name: format!("@{name}"), _dir: tempfile::tempdir().unwrap() }
    }

    /// The next message, if one comes in this time.
    fn next_within(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    /// Takes messages until one has these words.
    #[track_caller]
    fn until(&self, words: &str) -> String {
        let (deadline, mut heard) = (Instant::now() + SOON, Vec::new());
        while Instant::now() < deadline {
            if let Some(message) = self.next_within(Duration::from_secs(1)) {
                if message.contains(words) {
                    return message;
                }
                heard.push(message);
            }
        }
        panic!("no {words:?} in {heard:?}");
    }

    /// Takes what has come.
    fn drain(&self) {
        while self.next_within(Duration::from_millis(1)).is_some() {}
    }

    fn setup(&self, more: &[(&str, &str)]) -> Setup {
        let mut environment = vec![("NOTIFY_SOCKET".to_owned(), self.name.clone())];
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Setup { environment, ..Setup::replay() }
    }
}

#[test]
fn a_service_manager_hears_when_captures_are_accepted_what_runs_and_that_the_end_takes_its_time() {
    let manager = Manager::of_path();
    let mut trawl = manager.setup(&[]).launch(|config, _| config);
    let ready = manager.until("READY=1");
    assert!(
        ready.contains("\nSTATUS=0 captures run, 0 are not delivered yet; spool 0 % of 1 GiB"),
        "{ready}"
    );
    // Without a wait: it said so.
    let id = trawl.create(&trawl.request(json!({"protocol": 17, "destination_port": 53})));
    manager.until("STATUS=1 captures run");
    trawl.signal(Signal::HUP);
    manager.until("RELOADING=1");
    manager.until("READY=1");
    let status = manager.until("; config reloaded at ");
    assert!(status.contains("nothing changed"), "{status}");
    trawl.signal(Signal::TERM);
    let ending = manager.until("STOPPING=1");
    assert!(
        ending.contains("STATUS=ends: SIGTERM") && ending.contains("EXTEND_TIMEOUT_USEC=60000000"),
        "{ending}"
    );
    manager.until("EXTEND_TIMEOUT_USEC=90000000");
    assert!(trawl.wait(SOON).success(), "{}", trawl.log());
    crate::outcome::Outcome::read(&trawl.bucket(), &id).assert_lossless();
}

/// A service manager of which the process hears nothing: no socket, no thread, no word.
#[test]
fn a_process_without_a_service_manager_tells_nobody_anything() {
    let environment = vec![("WATCHDOG_USEC".to_owned(), "1000000".to_owned())];
    let trawl = Setup { environment, ..Setup::replay() }.start();
    assert!(!threads(&trawl).contains(&"notify".to_owned()), "{:?}", threads(&trawl));
    let unix = std::fs::read_to_string(format!("/proc/{}/net/unix", trawl.id())).unwrap();
    let rows: Vec<_> = unix.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    let datagrams = rows.iter().filter(|row| row.get(4) == Some(&"0002")).map(|row| row[6]);
    let inodes: Vec<_> = datagrams.map(|inode| format!("socket:[{inode}]")).collect();
    for file in std::fs::read_dir(format!("/proc/{}/fd", trawl.id())).unwrap() {
        let target = std::fs::read_link(file.unwrap().path()).map(|path| path.display().to_string());
        assert!(target.as_ref().is_ok_and(|target| !inodes.contains(target)), "{target:?}");
    }
    assert!(!trawl.log().contains("service manager"), "{}", trawl.log());
    trawl.finish();
}

fn threads(trawl: &Trawl) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", trawl.id())).unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        let comm = std::fs::read_to_string(task.unwrap().path().join("comm"));
        comm.unwrap_or_default().trim().to_owned()
    };
    tasks.map(name).collect()
}

/// Over an abstract socket. It is killed where it says nothing for WATCHDOG_USEC, so a thread that only waits for its disk must
/// not silence it.
#[test]
fn a_worker_that_hangs_silences_the_watchdog_s_messages_and_a_writer_that_waits_does_not() {
    const INTERVAL: Duration = Duration::from_secs(2);
    let manager = Manager::abstract_one();
    let observe = free_address();
    let micros = (INTERVAL * 3).as_micros().to_string();
    let setup = manager.setup(&[("WATCHDOG_USEC", &micros)]);
    let trawl = setup.start_with(|config, _| {
        config + &format!("[observe]\nlisten = \"{observe}\"\nwatchdog_seconds = 2\n")
    });
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
    let stalled = |stage: &str| {
        let deadline = Instant::now() + SOON;
        loop {
            let answer = http::ask(observe, "GET", "/healthz", &[], &[]).unwrap();
            if answer.status == 503
                && answer.body.to_string().contains(&format!("\"name\":\"{stage}\",\"ok\":false"))
            {
                return;
            }
            assert!(Instant::now() < deadline, "{stage} does not stall: {answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for stage in ["writer0", "publisher"] {
        let held = match Held::hold(trawl.thread(stage)) {
            Ok(held) => held,
            Err(reason) => return skip("ptrace", reason),
        };
        stalled(stage);
        manager.drain();
        // One of these may have been sent before it stalled; the other was not.
        manager.until("WATCHDOG=1");
        manager.until("WATCHDOG=1");
        drop(held);
    }
    let held = Held::hold(trawl.thread("worker0")).unwrap();
    trawl.until_log("does not hear any more that trawl is alive", SOON);
    manager.drain();
    let until = Instant::now() + 2 * INTERVAL;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        let said = manager.next_within(left).unwrap_or_default();
        assert!(!said.contains("WATCHDOG=1"), "{said}: {}", trawl.log());
    }
    drop(held);
    manager.until("WATCHDOG=1");
    trawl.until_log("hears again that trawl is alive", SOON);
    trawl.finish();
}
