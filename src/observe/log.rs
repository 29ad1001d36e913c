//! The log: its form, its filter, and that a panic is a line of it. Owns the set-up; not what is written to it, nor the way of
//! a line to standard error (`lines.rs`).
//!
//! Invariant: the log goes to standard error, so that standard output stays a command's result; no thread waits for it, and
//! a log that cannot be written harms nobody.

use super::lines::{Lines, Stderr};
use super::warnings::Warnings;
use crate::config::level::{LogError, chosen};
use crate::config::{LogFormat, LogPlan};
use std::io::{IsTerminal as _, Write as _};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How long the last lines may take before the process ends.
const LAST_LINES_TIME_MAX: Duration = Duration::from_secs(1);

static LINES: OnceLock<Lines> = OnceLock::new();

/// Replaces the filter of the log.
type Refilter = Box<dyn Fn(EnvFilter) + Send + Sync>;
static REFILTER: OnceLock<Refilter> = OnceLock::new();

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the environment says.
    #[error(transparent)]
    Wanted(#[from] LogError),
    /// Somebody else was first.
    #[error("the log is set up already; call init once")]
    Twice,
    /// No thread that writes.
    #[error("cannot start the log's thread: {0}; look at the limits on processes (ulimit -u)")]
    Thread(std::io::Error),
}

/// Sends the log of the whole process, panics included, to standard error: `plan`'s form, unless the environment
/// (`TRAWL_LOG`, `TRAWL_LOG_FORMAT`) says otherwise. Lines for people are coloured on a terminal. The thread that writes runs on
/// `cores`.
///
/// # Errors
/// A value of the environment that is not one, a log that is set up already, or no thread for it.
pub fn init(plan: &LogPlan, cores: &[usize]) -> Result<(), Error> {
    let (format, filter) = chosen(plan)?;
    let lines = Lines::start(Stderr, cores).map_err(Error::Thread)?;
    let writer = lines.clone();
    // What the log itself fails at is counted; its default is to print it, and to panic where that fails.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .log_internal_errors(false)
        .with_writer(move || writer.clone());
    let (set, refilter): (_, Refilter) = match format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            // It fails only where the log is gone.
            (builder.finish().with(Warnings).try_init(), Box::new(move |filter| drop(handle.reload(filter))))
        }
        LogFormat::Text => {
            let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.finish().with(Warnings).try_init(), Box::new(move |filter| drop(handle.reload(filter))))
        }
    };
    set.map_err(|_| Error::Twice)?;
    REFILTER.set(refilter).map_err(|_| Error::Twice)?;
    LINES.set(lines).map_err(|_| Error::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Has the log take the lines that `plan` wants from now on, unless the environment says otherwise. Its form stays.
///
/// # Errors
/// A value of the environment that is not one.
pub fn refilter(plan: &LogPlan) -> Result<(), Error> {
    let (_, filter) = chosen(plan)?;
    if let Some(refilter) = REFILTER.get() {
        refilter(EnvFilter::new(filter));
    }
    Ok(())
}

/// Waits for the lines that are on their way, a second at most: before the process ends.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.drain(LAST_LINES_TIME_MAX);
    }
}

/// Writes `text` behind the log's lines, also where there is no log: the last words of a command, which standard error may refuse.
pub fn say(text: &str) {
    match LINES.get() {
        Some(lines) => {
            let _never_fails = lines.clone().write_all(text.as_bytes());
            flush();
        }
        None => {
            let _nobody_listens = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

/// Replaces the default hook, which writes to standard error itself and so can block on a reader that stands still.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let (place, thread) = (panic.location().map(ToString::to_string), thread.name().unwrap_or("unnamed"));
    let said = panic.payload_as_str().unwrap_or("no text");
    let trace = std::backtrace::Backtrace::capture();
    match trace.status() {
        std::backtrace::BacktraceStatus::Captured => {
            tracing::error!(said, place, thread, %trace, "a thread panicked");
        }
        _ => tracing::error!(said, place, thread, "a thread panicked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_a_line_of_the_log_with_its_words_place_and_thread() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            std::panic::set_hook(Box::new(log_panic));
            let _panicked = std::panic::catch_unwind(|| panic!("slot {} is taken", 3));
            drop(std::panic::take_hook());
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("a thread panicked") && text.contains("slot 3 is taken"), "{text}");
        assert!(text.contains("log.rs:") && text.contains("a_panic_is_a_line"), "{text}");
    }
}
