//! A log line that strangers or customers can cause. Owns how often it may come; not what it says.
//!
//! Invariant: at most one line in [`PAUSE`], of each account where there is one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(60);
/// Accounts that are remembered. A host has fewer.
const ACCOUNTS_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

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

/// The same for each account.
#[derive(Debug, Default)]
pub(crate) struct SeldomOfEach(Mutex<BTreeMap<String, Instant>>);

impl SeldomOfEach {
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Whether a line of `account` may be written now; then its next one has to wait. It may not while too many others wait.
    pub fn may(&self, account: &str, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.get(account).is_some_and(|last| now.duration_since(*last) < PAUSE) {
            return false;
        }
        if last.len() >= ACCOUNTS_MAX {
            last.retain(|_, last| now.duration_since(*last) < PAUSE);
        }
        let may = last.len() < ACCOUNTS_MAX;
        if may {
            last.insert(account.to_owned(), now);
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

    #[test]
    fn each_account_has_its_line_a_minute_and_memory_is_bounded() {
        let (seldom, start) = (SeldomOfEach::default(), Instant::now());
        assert!(seldom.may("a", start) && seldom.may("b", start) && !seldom.may("a", start));
        let later = start + PAUSE;
        let may = (0..2 * ACCOUNTS_MAX).filter(|n| seldom.may(&n.to_string(), later)).count();
        assert_eq!((may, seldom.0.lock().unwrap().len()), (ACCOUNTS_MAX, ACCOUNTS_MAX));
        assert!(seldom.may("a", later + PAUSE), "the old ones make room");
    }
}
