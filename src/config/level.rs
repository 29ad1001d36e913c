//! The log's level and format as an operator writes them, in the config or in the environment. Owns what counts as one and which
//! holds; not what is done with it (`observe::log`).
//!
//! Invariant: a mistyped level is never taken for a filter.

use super::plan::{LogFormat, LogPlan};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Replaces `log.level`.
pub const ENV_LEVEL: &str = "TRAWL_LOG";

/// Replaces `log.format`.
pub const ENV_FORMAT: &str = "TRAWL_LOG_FORMAT";

/// Why a log cannot be as the environment wants it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a filter.
    #[error("{name} = {value:?}: {LEVEL_ADVICE}")]
    Level {
        /// The key or variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Not a format.
    #[error("{ENV_FORMAT} = {0:?}: write \"text\" or \"json\"")]
    Format(String),
}

/// What to write instead of a value that is refused.
pub(crate) const LEVEL_ADVICE: &str =
    "write error, warn, info, debug or trace, or directives such as \"info,trawl::spool=debug\"";

/// Whether `text` is a level or a list of filter directives. A lone word that is no level would be taken for a target
/// by [`EnvFilter`], so a mistyped level would silence everything; it is refused.
pub(crate) fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let stands = |word: &str| word.contains('=') || is_level(word.trim());
    !text.is_empty() && text.split(',').all(stands) && EnvFilter::try_new(text).is_ok()
}

/// Format and filter of the log: what the environment says ([`ENV_FORMAT`], [`ENV_LEVEL`]), otherwise `plan`.
///
/// # Errors
/// A value of the environment that is not one.
pub fn chosen(plan: &LogPlan) -> Result<(LogFormat, String), LogError> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    choose(plan, variable(ENV_FORMAT), variable(ENV_LEVEL))
}

fn choose(
    plan: &LogPlan,
    format: Option<String>,
    level: Option<String>,
) -> Result<(LogFormat, String), LogError> {
    let format = match format.as_deref() {
        None => plan.format,
        Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => return Err(LogError::Format(other.to_owned())),
    };
    let (name, value) = match level {
        Some(level) => (ENV_LEVEL, level),
        None => ("log.level", plan.level.clone()),
    };
    if !is_filter(&value) {
        return Err(LogError::Level { name, value });
    }
    Ok((format, value))
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
        assert_eq!((format, filter.as_str()), (LogFormat::Json, "debug"));
        let (format, filter) = choose(&plan(), None, None).unwrap();
        assert_eq!((format, filter.as_str()), (LogFormat::Text, "info"));
    }

    #[test]
    fn a_value_that_is_none_is_named() {
        let error = choose(&plan(), Some("xml".to_owned()), None).unwrap_err();
        assert!(error.to_string().contains("\"xml\""), "{error}");
        let error = choose(&plan(), None, Some("loud".to_owned())).unwrap_err();
        assert!(error.to_string().starts_with("TRAWL_LOG = "), "{error}");
    }
}
