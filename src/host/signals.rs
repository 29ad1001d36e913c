//! The signals that the process hears. Owns what each one means; not what is done at the end.
//!
//! | signal | meaning |
//! |---|---|
//! | TERM, INT, QUIT, PWR | end: captures stop and are uploaded; a second one ends at once |
//! | HUP | what [`Signals::take`] is told: `host::reload` reads the config again |
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

/// Has the process outlive the signals that mean nothing to it from now on, before there is anybody who could log them. Those
/// that end the host end a start at once.
///
/// # Errors
/// When the system refuses one.
pub(super) fn outlive() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    let hang_up = SignalKind::hangup().as_raw_value();
    for number in IGNORED.into_iter().map(|(_, number)| number).chain(REAL_TIME).chain([hang_up]) {
        // Once it is caught it stays so, also when nobody listens.
        drop(signal(SignalKind::from_raw(number))?);
    }
    Ok(())
}

/// The signals of the process, from [`Signals::take`] on.
pub(super) struct Signals {
    ends: mpsc::Receiver<&'static str>,
}

impl Signals {
    /// Hears every signal that would end the process. `hang_up` is told of each SIGHUP; several at once may be one.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn take(hang_up: Arc<Notify>) -> io::Result<Self> {
        let (told, ends) = mpsc::channel(8);
        for (name, number) in ENDS {
            let (mut heard, told) = (signal(SignalKind::from_raw(number))?, told.clone());
            tokio::spawn(async move {
                while heard.recv().await.is_some() {
                    let _more_than_are_looked_at = told.try_send(name);
                }
            });
        }
        let mut heard = signal(SignalKind::hangup())?;
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
