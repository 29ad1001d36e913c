//! Skips: a test that lacks something on this machine says so and passes, or fails where everything must be there
//! (`TRAWL_REQUIRE_ALL=1`, as in continuous integration). Owns both; what may be missing all the same stands in `.config/may-lack`.
//!
//! Invariant: no other place prints `SKIPPED` (a test of `house` holds it), so none can pass in silence.

use std::fmt::Display;

const MAY_LACK: &str = include_str!("../../.config/may-lack");

/// A test cannot run here for want of `what`; its caller returns. Panics where all must be there.
#[track_caller]
pub fn skip(what: &str, reason: impl Display) {
    let requires_all = std::env::var_os("TRAWL_REQUIRE_ALL").is_some_and(|value| !value.is_empty());
    match verdict(requires_all, what, &reason.to_string()) {
        Ok(words) => println!("{words}"),
        Err(words) => panic!("{words}"),
    }
}

/// What is printed, or why it is a failure.
pub fn verdict(requires_all: bool, what: &str, reason: &str) -> Result<String, String> {
    let is_listed = MAY_LACK.lines().any(|line| line.split_once(':').is_some_and(|(name, _)| name == what));
    match requires_all && !is_listed {
        true => Err(format!("TRAWL_REQUIRE_ALL is set and this machine lacks {what}: {reason}")),
        false => Ok(format!("SKIPPED: {what}: {reason}")),
    }
}
