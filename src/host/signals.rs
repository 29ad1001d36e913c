//! The signals that the process hears. Owns what each one means; not what is done at the end.
//!
//! | signal | meaning |
//! |---|---|
//! | TERM, INT, QUIT, PWR | end: captures stop and are uploaded; a second one ends at once |
//! | HUP | what [`Signals::take`] is told: `host::reload` reads the config again; one that comes during the start, after it |
//! | USR1, USR2, ALRM, VTALRM, PROF, IO, STKFLT, XCPU, XFSZ, real-time | ignored, with a line in the log |
//! | PIPE | ignored in silence: it comes with every reader that goes away, the log's own too |
//! | KILL, STOP, TSTP, TTIN, TTOU, CONT | the kernel's own |
//! | SEGV, BUS, ILL, FPE, TRAP, SYS, ABRT | a fault: the process dies, and the next one takes up what it left |
//!
//! Invariant: from [`outlive`] on no signal of the second to fourth row ends the process, and from [`Signals::take`] on none of
//! the first ends it without its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};

/// Ends the host.
const ENDS: [(&str, i32); 4] = [("SIGTERM", 15), ("SIGINT", 2), ("SIGQUIT", 3), ("SIGPWR", 30)];

/// By the kernel's numbers (signal(7), as on x86 and ARM), each of which ends a process that does not handle it.
const IGNORED: [(&str, i32); 9] = [
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGALRM", 14),
    ("SIGSTKFLT", 16),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGIO", 29),
];

/// Between two lines about one signal: XFSZ may come of the log's own growth, and must not make it grow faster.
const PAUSE: Duration = Duration::from_secs(1);

/// SIGRTMIN and SIGRTMAX of glibc, which keeps 32 and 33 to itself.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// What was heard since the process began, and is carried out once the host is up.
#[derive(Debug)]
pub struct Heard {
    hang_up: Signal,
}

/// Has the process outlive the signals that mean nothing to it from now on, before there is anybody who could log them, and notes a
/// SIGHUP for later. Those that end the host end a start at once. For the beginning of the process: before it, SIGHUP ends it.
///
/// # Errors
/// When the system refuses one.
pub fn outlive() -> io::Result<Heard> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    for number in IGNORED.into_iter().map(|(_, number)| number).chain(REAL_TIME) {
        // Once it is caught it stays so, also when nobody listens.
        drop(signal(SignalKind::from_raw(number))?);
    }
    // It outlives this runtime: what the process hears before the next one is told to it there.
    Ok(Heard { hang_up: signal(SignalKind::hangup())? })
}

/// The signals of the process, from [`Signals::take`] on.
pub(super) struct Signals {
    ends: mpsc::Receiver<&'static str>,
}

impl Signals {
    /// Hears every signal that would end the process. `hang_up` is told of each SIGHUP, also of one that was heard before; several at
    /// once may be one.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn take(Heard { hang_up: mut heard }: Heard, hang_up: Arc<Notify>) -> io::Result<Self> {
        let (told, ends) = mpsc::channel(8);
        for (name, number) in ENDS {
            let (mut end, told) = (signal(SignalKind::from_raw(number))?, told.clone());
            tokio::spawn(async move {
                while end.recv().await.is_some() {
                    let _more_than_are_looked_at = told.try_send(name);
                }
            });
        }
        tokio::spawn(async move {
            while heard.recv().await.is_some() {
                hang_up.notify_one();
            }
        });
        let real_time = REAL_TIME.map(|number| ("a real-time signal", number));
        for (name, number) in IGNORED.into_iter().chain(real_time) {
            tokio::spawn(ignore(name, number, signal(SignalKind::from_raw(number))?));
        }
        Ok(Self { ends })
    }

    /// The next signal that ends the host.
    pub async fn end(&mut self) -> &'static str {
        match self.ends.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

async fn ignore(name: &'static str, number: i32, mut heard: Signal) {
    while heard.recv().await.is_some() {
        tracing::warn!(signal = name, number, "ignored: it means nothing to trawl");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Number, getpid, kill_process};

    #[test]
    fn a_hang_up_during_the_start_is_told_once_the_host_is_up() {
        let heard = outlive().unwrap();
        kill_process(getpid(), Number::HUP).unwrap();
        // The start goes on, and makes a runtime long before it takes the signals.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        std::thread::sleep(Duration::from_millis(200));
        runtime.block_on(async {
            let hang_up = Arc::new(Notify::new());
            let _signals = Signals::take(heard, Arc::clone(&hang_up)).unwrap();
            let told = |hang_up: Arc<Notify>| async move { hang_up.notified().await };
            let soon = Duration::from_secs(10);
            tokio::time::timeout(soon, told(Arc::clone(&hang_up)))
                .await
                .expect("the first one is remembered");
            kill_process(getpid(), Number::HUP).unwrap();
            tokio::time::timeout(soon, told(hang_up)).await.expect("and later ones are heard");
        });
    }
}
