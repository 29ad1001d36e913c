//! The last warnings of the log and the audit trail, for operators. Owns the ring of lines; not the log itself.
//!
//! One static: what writes to the log has no value that could be handed down to it.
//!
//! Invariant: the ring is bounded, in lines and in their length; a writer waits for a copy of a line at most.

use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines that are kept.
const LINES_MAX: usize = 1000;
/// Characters of one line.
const CHARS_MAX: usize = 1000;

static JOURNAL: Journal = Journal { lines: Mutex::new((0, VecDeque::new())) };

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number, from 1.
    pub seq: u64,
    /// When, in ns since the UNIX epoch.
    pub at_ns: u64,
    /// `warning`, `error` or `audit`.
    pub kind: &'static str,
    /// What happened.
    pub message: String,
    /// Whose account it concerns; of the audit trail alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// From where; of the audit trail alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Journal {
    lines: Mutex<(u64, VecDeque<Line>)>,
}

/// The process's.
pub fn journal() -> &'static Journal {
    &JOURNAL
}

impl Journal {
    fn lines(&self) -> MutexGuard<'_, (u64, VecDeque<Line>)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, kind: &'static str, message: &str, account: Option<&str>, peer: Option<String>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let message = message.chars().take(CHARS_MAX).collect();
        let account = account.map(|account| account.chars().take(32).collect());
        let (last, lines) = &mut *self.lines();
        *last += 1;
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(Line { seq: *last, at_ns, kind, message, account, peer });
    }

    /// A warning or an error of the log.
    pub fn warn(&self, is_error: bool, message: &str) {
        self.push(if is_error { "error" } else { "warning" }, message, None, None);
    }

    /// What somebody did. `message` has no secret.
    pub fn audit(&self, message: &str, account: Option<&str>, peer: Option<String>) {
        self.push("audit", message, account, peer);
    }

    /// The lines behind number `after`, oldest first.
    #[must_use]
    pub fn after(&self, after: u64) -> Vec<Line> {
        self.lines().1.iter().filter(|line| line.seq > after).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_keeps_its_last_lines_and_gives_those_behind_a_number() {
        let journal = Journal::default();
        for n in 0..3 * LINES_MAX {
            journal.audit(&format!("start {n}"), Some("a"), None);
        }
        let lines = journal.after(0);
        assert_eq!((lines.len(), lines[0].seq), (LINES_MAX, 2 * LINES_MAX as u64 + 1));
        let behind = journal.after(3 * LINES_MAX as u64 - 1);
        assert_eq!(behind.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["start 2999"]);
        journal.warn(true, &"x".repeat(1 << 20));
        let last = journal.after(3 * LINES_MAX as u64).remove(0);
        assert_eq!((last.kind, last.message.len()), ("error", CHARS_MAX));
    }
}
