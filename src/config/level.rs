//! What may stand in `log.level`. Owns telling it from a mistyped word; the log itself is `observe`'s.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Whether `text` is a level or a list of filter directives. [`EnvFilter`] would take a lone word that is no level for a
/// target, so a mistyped level would silence everything; it is refused.
pub(crate) fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let stands = |word: &str| word.contains('=') || is_level(word.trim());
    !text.is_empty() && text.split(',').all(stands) && EnvFilter::try_new(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_filters_and_a_mistyped_level_is_none() {
        for text in ["info", "WARN", "off", "trawl=debug,info", "trawl::engine=trace"] {
            assert!(is_filter(text), "{text}");
        }
        for text in ["", "inof", "trawl", "info,debg", "trawl=loud"] {
            assert!(!is_filter(text), "{text}");
        }
    }
}
