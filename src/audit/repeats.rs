//! What comes again and again within a minute: a viewer that reads an object in a hundred ranges, a client that is refused in a loop.
//! Owns the counts; not the lines that tell of them.
//!
//! The first time has a line. The same again is counted, and told in one line at the end of the minute. An account has a bounded number
//! of such lines a minute; what is beyond is counted too. So nobody who may only read can fill the log and push old lines out of it.
//!
//! Invariant: memory is bounded; whatever is not a line of its own is in a count of a later line.

use super::entry::Entry;
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// From the first line to those that tell how often it came again.
const MINUTE: Duration = Duration::from_secs(60);
/// Lines of one account in that time.
const KINDS_PER_ACCOUNT_MAX: usize = 600;
/// Lines of all.
const KINDS_MAX: usize = 8192;

/// See the module.
#[derive(Default)]
pub(super) struct Repeats {
    kinds: HashMap<String, (Entry, u64)>,
    accounts: HashMap<Option<String>, Account>,
    began: Option<Instant>,
}

#[derive(Default)]
struct Account {
    kinds: usize,
    beyond: u64,
}

impl Repeats {
    /// Whether an entry is a line of its own. If not, it has been counted.
    pub fn is_line(&mut self, entry: &Entry, now: Instant) -> bool {
        if !entry.may_repeat {
            return true;
        }
        let Ok(key) = serde_json::to_string(entry) else { return true };
        self.began.get_or_insert(now);
        if let Some((_, times)) = self.kinds.get_mut(&key) {
            *times += 1;
            return false;
        }
        let all = self.kinds.len();
        let account = self.accounts.entry(entry.account.clone()).or_default();
        if account.kinds >= KINDS_PER_ACCOUNT_MAX || all >= KINDS_MAX {
            account.beyond += 1;
            return false;
        }
        account.kinds += 1;
        self.kinds.insert(key, (entry.clone(), 0));
        true
    }

    /// What tells of the last minute, once it is over or at the end; nothing if nothing came again.
    pub fn told(&mut self, now: Instant, is_end: bool) -> Vec<Entry> {
        let is_over = self.began.is_some_and(|began| now.duration_since(began) >= MINUTE);
        if !is_over && !is_end {
            return Vec::new();
        }
        let Self { kinds, accounts, .. } = std::mem::take(self);
        let again = kinds.into_values().filter(|(_, times)| *times > 0);
        let again = again.map(|(entry, times)| Entry { times: Some(times), may_repeat: false, ..entry });
        let beyond = accounts.into_iter().filter(|(_, account)| account.beyond > 0);
        let beyond = beyond.map(|(account, Account { beyond, .. })| {
            Entry { account, ..Entry::new("audit.more") }.with(json!({"entries": beyond}))
        });
        again.chain(beyond).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(account: &str, n: usize) -> Entry {
        let account = Some(account.to_owned());
        Entry { account, id: Some(n.to_string()), may_repeat: true, ..Entry::new("object.read") }
    }

    #[test]
    fn the_same_again_is_counted_and_told_at_the_end_of_its_minute() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        assert!(repeats.is_line(&read("a", 1), start));
        assert!((0..99).all(|_| !repeats.is_line(&read("a", 1), start)));
        assert!(repeats.is_line(&read("a", 2), start) && repeats.is_line(&read("b", 1), start));
        let change = Entry::new("capture.create");
        assert!(repeats.is_line(&change, start) && repeats.is_line(&change, start), "each is one");
        assert!(repeats.told(start + MINUTE / 2, false).is_empty());
        let told = repeats.told(start + MINUTE, false);
        assert_eq!(told, [Entry { times: Some(99), may_repeat: false, ..read("a", 1) }]);
        assert!(repeats.is_line(&read("a", 1), start + MINUTE), "a new minute");
        assert!(repeats.told(start + 3 * MINUTE, true).is_empty());
    }

    #[test]
    fn an_account_has_a_bounded_number_of_lines_a_minute_and_what_is_beyond_is_counted() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let lines = (0..10_000).filter(|n| repeats.is_line(&read("a", *n), start)).count();
        assert_eq!(lines, KINDS_PER_ACCOUNT_MAX);
        assert!(repeats.is_line(&read("b", 1), start), "another one has its own");
        let told = repeats.told(start, true);
        assert_eq!((told.len(), told[0].action), (1, "audit.more"));
        assert_eq!(told[0].about, Some(json!({"entries": 10_000 - KINDS_PER_ACCOUNT_MAX})));
    }
}
