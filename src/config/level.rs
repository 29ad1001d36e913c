//! The log's filter as an operator writes it. Owns what counts as one; not what is done with it (`observe::log`).
//!
//! Invariant: a mistyped level is never taken for a filter.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

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
