//! A log line that strangers can cause. Owns how often it may come; not what it says.
//!
//! Invariant: at most one line in [`PAUSE`].

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether a line may be written now; then the next one has to wait.
    pub fn may(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| now.duration_since(last) >= PAUSE);
        if may {
            *last = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_line_a_minute() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let seconds = [0, 1, 59, 60, 61, 119, 120];
        let may = seconds.map(|seconds| seldom.may(start + Duration::from_secs(seconds)));
        assert_eq!(may, [true, false, false, true, false, false, true]);
    }
}
