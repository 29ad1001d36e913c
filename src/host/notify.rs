//! What the service manager is told: ready, how it stands, alive, ending, more time (sd_notify(3)). Owns the messages, their socket
//! and the thread that sends "alive"; not what is well, which `observe` judges.
//!
//! A message is a datagram of lines to the socket that NOTIFY_SOCKET names, so this needs the standard library alone: a crate would
//! add the same lines and no rule of ours. Each message names the address again, so a manager that was started again hears the next.
//!
//! Invariant: without NOTIFY_SOCKET nothing is sent. Nothing waits for the manager longer than [`SEND_TIME_MAX`], and that it
//! cannot be told something ends nothing.

use crate::observe::{Alive, Standing, Status};
use crate::upload::upload_counts;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SEND_TIME_MAX: Duration = Duration::from_secs(1);
/// How long the start waits for what makes the host ready, such as a link, before it counts as started all the same.
const READY_WAIT_MAX: Duration = Duration::from_secs(10);
const READY_TURN: Duration = Duration::from_millis(200);
/// Between two looks at how the host stands.
const STATUS_TURN: Duration = Duration::from_secs(5);
/// The same while it ends.
const ENDING_TURN: Duration = Duration::from_secs(1);
/// What one message asks for. The next one comes long before it is over.
const MORE_TIME: Duration = Duration::from_secs(60);
/// After the last upload: tasks, threads and files end.
const LAST_TIME: Duration = Duration::from_secs(90);

/// The service manager, or nobody.
#[derive(Debug, Default)]
pub(super) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    is_deaf: AtomicBool,
    /// Whether it was told that the host is ready.
    is_ready: AtomicBool,
}

impl Manager {
    /// The one that started this process, if it wants to be told.
    pub fn of_this_process() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let opened = name.map(|name| (open(&name), name));
        let socket = opened.and_then(|(opened, name)| {
            let refused = |error| {
                tracing::warn!(socket = %name.display(), %error, "the service manager cannot be told anything: NOTIFY_SOCKET");
            };
            opened.map_err(refused).ok()
        });
        Self { socket, is_deaf: AtomicBool::new(false), is_ready: AtomicBool::new(false) }
    }

    /// Whether somebody wants to be told.
    pub fn listens(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether it was told, or nobody wants to be.
    pub fn tell(&self, message: &str) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        let sent = socket.send_to_addr(message.as_bytes(), address);
        let was_deaf = self.is_deaf.swap(sent.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (&sent, was_deaf) {
            tracing::warn!(%error, message, "the service manager does not take a message");
        }
        sent.is_ok()
    }

    /// The config is read again. Before the host is ready this is part of its start.
    pub fn reloading(&self) {
        if self.is_ready.load(Ordering::Relaxed) {
            self.tell("RELOADING=1");
        }
    }

    /// It was read.
    pub fn reloaded(&self) {
        if self.is_ready.load(Ordering::Relaxed) {
            self.tell("READY=1");
        }
    }

    /// The end begins: it may take as long as uploads get further.
    pub fn ending(&self, signal: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS=ends: {signal}\n{}", more_time(MORE_TIME)));
    }

    /// Uploads have ended, and what is left takes a bounded time.
    pub fn nearly_ended(&self) {
        self.tell(&more_time(LAST_TIME));
    }
}

/// A path, or an abstract name, which begins with @.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither an absolute path nor a name behind @",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIME_MAX))?;
    Ok((socket, address))
}

fn more_time(time: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", time.as_micros())
}

/// How often the manager wants to hear that this process is alive, if it does (sd_watchdog_enabled(3)).
pub(super) fn watchdog_time() -> Option<Duration> {
    watchdog_of(&|name| std::env::var(name).ok(), std::process::id())
}

fn watchdog_of(get: &dyn Fn(&str) -> Option<String>, process: u32) -> Option<Duration> {
    let micros: u64 = get("WATCHDOG_USEC")?.parse().ok().filter(|micros| *micros > 0)?;
    let is_ours = get("WATCHDOG_PID").is_none_or(|id| id.parse() == Ok(process));
    is_ours.then(|| Duration::from_micros(micros))
}

/// Tells the manager on a thread of its own, until the process ends, that it is alive: three times in `time`, and not while
/// `alive` says no.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn keep_alive(manager: Arc<Manager>, time: Duration, mut alive: Alive) -> io::Result<()> {
    let run = move || {
        super::privileges::on_runtime_thread();
        let mut was_alive = true;
        loop {
            std::thread::sleep(time / 3);
            let is_alive = alive.look();
            match (was_alive, is_alive) {
                (true, false) => tracing::error!(
                    seconds = time.as_secs(),
                    "the service manager does not hear any more that trawl is alive; it starts it again after this time"
                ),
                (false, true) => tracing::warn!("the service manager hears again that trawl is alive"),
                _ => {}
            }
            was_alive = is_alive;
            if is_alive {
                manager.tell("WATCHDOG=1");
            }
        }
    };
    std::thread::Builder::new().name("notify".to_owned()).spawn(run).map(drop)
}

/// How long the end may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// While stores confirm nothing.
    pub turn: Duration,
    /// Whatever they confirm: the engine ends all uploads then.
    pub whole: Duration,
}

/// Tells the manager when captures are accepted and how the host stands, and asks for time while it ends.
pub(super) async fn keep_telling(manager: Arc<Manager>, status: Status, patience: Patience) {
    let (began, mut is_ready, mut told) = (Instant::now(), false, String::new());
    let mut end = None;
    loop {
        let Standing { ready, line, ending } = status.look().await;
        if !is_ready && (ready || began.elapsed() >= READY_WAIT_MAX) && !ending {
            is_ready = manager.tell(&format!("READY=1\nSTATUS={line}"));
            manager.is_ready.store(is_ready, Ordering::Relaxed);
            told = line;
        } else if line != told && manager.tell(&format!("STATUS={line}")) {
            told = line;
        }
        if ending {
            let now = Instant::now();
            let end = end.get_or_insert_with(|| Uploads::new(now, confirmations()));
            if end.get_further(now, confirmations(), patience) {
                manager.tell(&more_time(MORE_TIME));
            }
        }
        let turn = if ending { ENDING_TURN } else { STATUS_TURN };
        tokio::time::sleep(if is_ready { turn } else { READY_TURN }).await;
    }
}

fn confirmations() -> u64 {
    upload_counts().confirmations
}

/// Uploads at the end of the process.
struct Uploads {
    began: Instant,
    confirmed: u64,
    moved: Instant,
}

impl Uploads {
    fn new(now: Instant, confirmed: u64) -> Self {
        Self { began: now, confirmed, moved: now }
    }

    /// Whether a store confirmed something within `patience`, and there is time left. Those of which none does are taken up by the
    /// next process.
    fn get_further(&mut self, now: Instant, confirmed: u64, patience: Patience) -> bool {
        if confirmed != self.confirmed {
            (self.confirmed, self.moved) = (confirmed, now);
        }
        // What follows the last upload asks for its own time.
        now.duration_since(self.moved) < patience.turn && now.duration_since(self.began) < patience.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("trawl-notify-{}", std::process::id());
        let listening = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            ),
        ];
        for (address, socket) in listening {
            let manager = Manager { socket: Some(open(&address).unwrap()), ..Manager::default() };
            assert!(manager.tell("READY=1"));
            let mut message = [0; 16];
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1");
            drop(socket);
            std::fs::remove_file(&path).ok();
            assert!(!manager.tell("READY=1"), "nobody listens");
        }
        assert!(open(OsStr::new("vsock:2:1")).is_err() && open(OsStr::new("notify")).is_err());
    }

    #[test]
    fn a_watchdog_of_another_process_or_of_no_time_is_none() {
        let of = |usec: Option<&str>, pid: Option<&str>| {
            let get = |name: &str| if name == "WATCHDOG_USEC" { usec } else { pid }.map(str::to_owned);
            watchdog_of(&get, 7)
        };
        assert_eq!(of(Some("30000000"), None), Some(Duration::from_secs(30)));
        assert_eq!(of(Some("30000000"), Some("7")), Some(Duration::from_secs(30)));
        assert_eq!([of(Some("30000000"), Some("8")), of(Some("0"), None), of(None, Some("7"))], [None; 3]);
    }

    #[test]
    fn time_is_asked_for_while_stores_confirm_and_a_while_longer() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let patience = Patience { turn: Duration::from_secs(90), whole: Duration::from_secs(1100) };
        let mut uploads = Uploads::new(began, 5);
        let asked = [(1, 5), (80, 5), (85, 6), (174, 6), (176, 6), (1000, 6), (1001, 7)]
            .map(|(seconds, confirmed)| uploads.get_further(at(seconds), confirmed, patience));
        assert_eq!(asked, [true, true, true, true, false, false, true]);
    }

    #[test]
    fn a_store_that_confirms_a_little_for_ever_gets_no_more_time_than_the_operator_says() {
        let began = Instant::now();
        let patience = Patience { turn: Duration::from_secs(90), whole: Duration::from_secs(600) };
        let mut uploads = Uploads::new(began, 0);
        let asked: Vec<_> = (0..700_u64)
            .filter(|second| uploads.get_further(began + Duration::from_secs(*second), *second, patience))
            .collect();
        assert_eq!(asked, (0..600).collect::<Vec<_>>());
    }
}
