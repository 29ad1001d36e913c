//! Signals that end a command: SIGINT, SIGTERM, SIGHUP. Owns waiting for them, and what is removed before the process ends.
//!
//! Invariant: a command that was ended so leaves no half file, and exits with 128 plus the signal's number, as in a shell.

use super::out;
use crate::merge::discard_parts;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a process that a signal ended.
#[must_use]
pub fn exit_code(kind: SignalKind) -> u8 {
    128_u8.saturating_add(u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX))
}

/// What ends a command, caught from here on.
#[derive(Debug)]
pub struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Ending {
    /// Catches the signals; they no longer end the process by themselves.
    ///
    /// # Errors
    /// When they cannot be caught.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
        }
    }
}

/// Ends the process when a signal comes, after its unfinished files are removed. For commands that wait for files and not
/// for signals.
///
/// # Errors
/// When the signals cannot be caught.
pub fn end_process() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut ending = {
        let _entered = runtime.enter();
        Ending::catch()?
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let kind = runtime.block_on(ending.next());
        discard_parts();
        out::note("trawl: interrupted; nothing was written");
        std::process::exit(i32::from(exit_code(kind)));
    })?;
    Ok(())
}
