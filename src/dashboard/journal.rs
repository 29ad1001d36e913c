//! The last warnings of the log and the audit trail, for operators. Owns the rings of lines; not the log itself.
//!
//! One static: what writes to the log has no value that could be handed down to it.
//!
//! Invariant: the rings are bounded, in lines and in their length; a writer waits for a look through one of them at most. Warnings and
//! the audit trail have a ring each, and the account with the most lines of the trail loses its oldest: what one account does again
//! and again pushes out nothing of the others.

use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines that are kept of the log, and as many of the audit trail.
const LINES_MAX: usize = 500;
/// How long the same line again counts as the one before.
const AGAIN_NS: u64 = 60_000_000_000;
/// Characters of one line.
const CHARS_MAX: usize = 1000;

static JOURNAL: Journal =
    Journal { lines: Mutex::new(Lines { last: 0, log: VecDeque::new(), trail: VecDeque::new() }) };

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
    /// How often it happened within a minute, this time the last; once if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Journal {
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    last: u64,
    log: VecDeque<Line>,
    trail: VecDeque<Line>,
}

/// The process's.
pub fn journal() -> &'static Journal {
    &JOURNAL
}

impl Journal {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A warning or an error of the log.
    pub fn warn(&self, is_error: bool, message: &str) {
        let line = line(if is_error { "error" } else { "warning" }, message);
        let lines = &mut *self.lines();
        lines.last += 1;
        if lines.log.len() >= LINES_MAX {
            lines.log.pop_front();
        }
        lines.log.push_back(Line { seq: lines.last, ..line });
    }

    /// What somebody did. `message` has no secret.
    pub fn audit(&self, message: &str, account: Option<&str>, peer: Option<String>) {
        let account = account.map(|account| account.chars().take(32).collect());
        let line = Line { account, peer, ..line("audit", message) };
        let lines = &mut *self.lines();
        lines.last += 1;
        let is_again = |old: &Line| {
            (&old.message, &old.account, &old.peer) == (&line.message, &line.account, &line.peer)
                && line.at_ns.saturating_sub(old.at_ns) < AGAIN_NS
        };
        let before = lines.trail.iter().rposition(is_again).and_then(|at| lines.trail.remove(at));
        if lines.trail.len() >= LINES_MAX {
            forget_one(&mut lines.trail);
        }
        let times = before.map(|before| before.times.unwrap_or(1) + 1);
        lines.trail.push_back(Line { seq: lines.last, times, ..line });
    }

    /// The lines behind number `after`, oldest first.
    #[must_use]
    pub fn after(&self, after: u64) -> Vec<Line> {
        let lines = self.lines();
        let behind = lines.log.iter().chain(&lines.trail).filter(|line| line.seq > after);
        let mut behind: Vec<_> = behind.cloned().collect();
        drop(lines);
        behind.sort_unstable_by_key(|line| line.seq);
        behind
    }
}

fn line(kind: &'static str, message: &str) -> Line {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let message = message.chars().take(CHARS_MAX).collect();
    Line { seq: 0, at_ns, kind, message, account: None, peer: None, times: None }
}

/// Removes the oldest line of the account that has the most.
fn forget_one(trail: &mut VecDeque<Line>) {
    let mut counts: HashMap<Option<&str>, usize> = HashMap::new();
    for line in trail.iter() {
        *counts.entry(line.account.as_deref()).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0);
    let of_most = |line: &Line| counts.get(&line.account.as_deref()) == Some(&most);
    if let Some(at) = trail.iter().position(of_most) {
        trail.remove(at);
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
        assert_eq!(behind.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["start 1499"]);
        journal.warn(true, &"x".repeat(1 << 20));
        let last = journal.after(3 * LINES_MAX as u64).remove(0);
        assert_eq!((last.kind, last.message.len()), ("error", CHARS_MAX));
    }

    #[test]
    fn what_one_account_does_again_and_again_pushes_out_nothing_of_others() {
        let journal = Journal::default();
        journal.warn(false, "the spool fills up");
        journal.audit("authentication failed", Some("b"), None);
        for n in 0..3 * LINES_MAX {
            journal.audit(&format!("view of {n}"), Some("a"), None);
            journal.audit("stop of 7", Some("a"), None);
        }
        let lines = journal.after(0);
        let first: Vec<_> = lines.iter().take(2).map(|line| line.message.as_str()).collect();
        assert_eq!(first, ["the spool fills up", "authentication failed"]);
        let again: Vec<_> = lines.iter().filter(|line| line.message == "stop of 7").collect();
        assert_eq!(again.len(), 1, "the same line again is one");
        assert_eq!((again[0].times, again[0].seq), (Some(3 * LINES_MAX as u64), 6 * LINES_MAX as u64 + 2));
        assert!(lines.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    }
}
