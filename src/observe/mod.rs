//! What operators see: the log, health, metrics. Owns the log's form and where it goes, the watchdog over threads, and the
//! list of metrics; not what is written to the log, nor the counters, which live where things are counted.
//!
//! Invariant: the log goes to standard error, so that standard output stays a command's result; looking at health and
//! metrics makes no thread of the data plane wait.

mod health;
mod metric;
mod metrics;
mod requests;
mod server;
mod sources;
mod table;
mod watchdog;

pub use requests::{Requests, counted};
pub use server::{bounds, router};
pub use sources::{PortCounters, PortReading, QueueSource, Sources};
pub use watchdog::{Verdicts, Watchdog};

use crate::config::{LogFormat, LogPlan};
use std::io::IsTerminal as _;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Replaces `log.level`.
pub const ENV_LEVEL: &str = "TRAWL_LOG";

/// Replaces `log.format`.
pub const ENV_FORMAT: &str = "TRAWL_LOG_FORMAT";

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a filter.
    #[error(
        "{name} = {value:?}: write error, warn, info, debug or trace, or directives such as \"info,trawl::spool=debug\""
    )]
    Level {
        /// The key or variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Not a format.
    #[error("{ENV_FORMAT} = {0:?}: write \"text\" or \"json\"")]
    Format(String),
    /// Somebody else was first.
    #[error("the log is set up already; call init once")]
    Twice,
}

/// Whether `text` is a level or a list of filter directives. A lone word that is no level would be taken for a target
/// by [`EnvFilter`], so a mistyped level would silence everything; it is refused.
pub(crate) fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let stands = |word: &str| word.contains('=') || is_level(word.trim());
    !text.is_empty() && text.split(',').all(stands) && EnvFilter::try_new(text).is_ok()
}

/// Sends the log of the whole process to standard error: `plan`'s form, unless the environment ([`ENV_LEVEL`],
/// [`ENV_FORMAT`]) says otherwise. Lines for people are coloured on a terminal.
///
/// # Errors
/// A value of the environment that is not one, or a log that is set up already.
pub fn init(plan: &LogPlan) -> Result<(), Error> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let (format, filter) = choose(plan, variable(ENV_FORMAT), variable(ENV_LEVEL))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    set.map_err(|_| Error::Twice)
}

fn choose(
    plan: &LogPlan,
    format: Option<String>,
    level: Option<String>,
) -> Result<(LogFormat, EnvFilter), Error> {
    let format = match format.as_deref() {
        None => plan.format,
        Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => return Err(Error::Format(other.to_owned())),
    };
    let (name, value) = match level {
        Some(level) => (ENV_LEVEL, level),
        None => ("log.level", plan.level.clone()),
    };
    if !is_filter(&value) {
        return Err(Error::Level { name, value });
    }
    Ok((format, EnvFilter::new(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> LogPlan {
        LogPlan { format: LogFormat::Text, level: "info".to_owned() }
    }

    #[test]
    fn the_environment_outranks_the_config() {
        let (format, filter) = choose(&plan(), Some("json".to_owned()), Some("debug".to_owned())).unwrap();
        assert_eq!((format, filter.to_string().as_str()), (LogFormat::Json, "debug"));
        let (format, filter) = choose(&plan(), None, None).unwrap();
        assert_eq!((format, filter.to_string().as_str()), (LogFormat::Text, "info"));
    }

    #[test]
    fn a_value_that_is_none_is_named() {
        let error = choose(&plan(), Some("xml".to_owned()), None).unwrap_err();
        assert!(error.to_string().contains("\"xml\""), "{error}");
        let error = choose(&plan(), None, Some("loud".to_owned())).unwrap_err();
        assert!(error.to_string().starts_with("TRAWL_LOG = "), "{error}");
    }
}
