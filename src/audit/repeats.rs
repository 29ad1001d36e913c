//! What comes again and again within a minute: a viewer that reads an object in a hundred ranges, a client that is refused in a loop.
//! Owns the counts; not the lines that tell of them.
//!
//! The first time has a line. The same again is counted, and told in one line at the end of the minute. Of what comes to nothing an
//! account has few lines a minute, whatever other accounts do; what is beyond is counted too. So who can only be refused takes months
//! to push old lines out of the log. What was done has its line however much was refused before: no refusal hides it.
//!
//! Invariant: memory is bounded; whatever is not a line of its own is in a count of a later line of this process.

use super::entry::{Entry, Room};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// From the first line to those that tell how often it came again.
const MINUTE: Duration = Duration::from_secs(60);
/// Lines of one account in that time about what came to nothing.
const FEW: usize = 20;
/// What was done and is remembered in that time, to be counted if it comes again: some MiB.
const DONE_MAX: usize = 8192;

/// See the module.
#[derive(Default)]
pub(super) struct Repeats {
    kinds: HashMap<String, (Entry, u64)>,
    /// Those of what was done.
    done: usize,
    accounts: HashMap<Option<String>, Account>,
    began: Option<Instant>,
}

#[derive(Default)]
struct Account {
    few: usize,
    /// How often which action had no line.
    beyond: BTreeMap<&'static str, u64>,
}

impl Repeats {
    /// Whether an entry is a line of its own. If not, it has been counted.
    pub fn is_line(&mut self, entry: &Entry, now: Instant) -> bool {
        if entry.room == Room::Each {
            return true;
        }
        let Ok(key) = serde_json::to_string(entry) else { return true };
        self.began.get_or_insert(now);
        if let Some((_, times)) = self.kinds.get_mut(&key) {
            *times += 1;
            return false;
        }
        if entry.room == Room::Few {
            let account = self.accounts.entry(entry.account.clone()).or_default();
            if account.few >= FEW {
                *account.beyond.entry(entry.action).or_default() += 1;
                return false;
            }
            account.few += 1;
        } else if self.done >= DONE_MAX {
            // Its next time is a line too.
            return true;
        } else {
            self.done += 1;
        }
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
        let again = again.map(|(entry, times)| Entry { times: Some(times), room: Room::Each, ..entry });
        let beyond = accounts.into_iter().filter(|(_, account)| !account.beyond.is_empty());
        let beyond = beyond.map(|(account, Account { beyond, .. })| {
            let entries: u64 = beyond.values().sum();
            let about = json!({"entries": entries, "actions": beyond});
            Entry { account, ..Entry::new("audit.more") }.with(about)
        });
        again.chain(beyond).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(account: &str, n: usize) -> Entry {
        let account = Some(account.to_owned());
        Entry { account, id: Some(n.to_string()), room: Room::First, ..Entry::new("object.read") }
    }

    fn refused(account: &str, n: usize) -> Entry {
        Entry { result: crate::audit::Outcome::Refused, room: Room::Few, ..read(account, n) }
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
        assert_eq!(told, [Entry { times: Some(99), room: Room::Each, ..read("a", 1) }]);
        assert!(repeats.is_line(&read("a", 1), start + MINUTE), "a new minute");
        assert!(repeats.told(start + 3 * MINUTE, true).is_empty());
    }

    #[test]
    fn an_account_has_few_lines_a_minute_about_what_came_to_nothing_and_what_is_beyond_is_counted() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let lines = (0..10_000).filter(|n| repeats.is_line(&refused("a", *n), start)).count();
        assert_eq!(lines, FEW);
        let beyond = 10_000 - FEW;
        let told = repeats.told(start, true);
        assert_eq!((told.len(), told[0].action), (1, "audit.more"));
        assert_eq!(told[0].about, Some(json!({"entries": beyond, "actions": {"object.read": beyond}})));
    }

    #[test]
    fn what_was_done_has_its_line_whatever_was_refused_before_and_however_much_others_do() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        for account in 0..1000 {
            for n in 0..FEW + 1 {
                repeats.is_line(&refused(&account.to_string(), n), start);
            }
        }
        assert!((0..2 * DONE_MAX).all(|n| repeats.is_line(&read("7", n), start)), "each is another one");
        assert!(repeats.is_line(&refused("innocent", 1), start), "another account has room of its own");
        assert!(repeats.kinds.len() <= DONE_MAX + 1001 * FEW, "what is remembered is bounded");
    }
}
