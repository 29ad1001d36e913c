//! The last warnings of the log and the audit trail, for operators. Owns the rings of lines; not the log itself.
//!
//! One static: what writes to the log has no value that could be handed down to it.
//!
//! Invariant: the rings are bounded, in lines and in their length; a writer waits for a look through one of them at most.
//! Warnings of the host, of accounts and of strangers have a ring each, and so have the audit trail and failed logins. In a ring
//! of accounts the one with the most lines loses its oldest. So what an account or a stranger does again and again pushes out
//! nothing of others.

use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines that a ring keeps.
const LINES_MAX: usize = 500;
/// Those of a ring that strangers fill.
const STRANGERS_LINES_MAX: usize = 100;
/// How long the same line again counts as the one before.
const AGAIN_NS: u64 = 60_000_000_000;
/// Characters of an account's id.
const ACCOUNT_CHARS_MAX: usize = 32;
/// Characters of one line.
const CHARS_MAX: usize = 1000;

static JOURNAL: Journal = Journal { lines: Mutex::new(Lines::EMPTY) };

/// Who caused a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The host itself, or nobody that is named.
    Host,
    /// An account.
    Account(String),
    /// Somebody without a right credential.
    Stranger,
}

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
    /// Whose account it concerns, if it is one's.
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

#[derive(Debug)]
struct Lines {
    last: u64,
    of_host: VecDeque<Line>,
    of_accounts: VecDeque<Line>,
    of_strangers: VecDeque<Line>,
    trail: VecDeque<Line>,
    failures: VecDeque<Line>,
}

impl Default for Lines {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Lines {
    const EMPTY: Self = Self {
        last: 0,
        of_host: VecDeque::new(),
        of_accounts: VecDeque::new(),
        of_strangers: VecDeque::new(),
        trail: VecDeque::new(),
        failures: VecDeque::new(),
    };
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
    pub fn warn(&self, is_error: bool, message: &str, cause: Cause) {
        let line = line(if is_error { "error" } else { "warning" }, message);
        let lines = &mut *self.lines();
        lines.last += 1;
        match cause {
            Cause::Host => push(&mut lines.of_host, lines.last, line, LINES_MAX),
            Cause::Stranger => push(&mut lines.of_strangers, lines.last, line, STRANGERS_LINES_MAX),
            Cause::Account(account) => {
                let account = Some(account.chars().take(ACCOUNT_CHARS_MAX).collect());
                push(&mut lines.of_accounts, lines.last, Line { account, ..line }, LINES_MAX);
            }
        }
    }

    /// A failed login. Its account is a stranger's word, so such lines make room for each other alone.
    pub fn failure(&self, message: &str, account: &str, peer: String) {
        let account = Some(account.chars().take(ACCOUNT_CHARS_MAX).collect());
        let line = Line { account, peer: Some(peer), ..line("audit", message) };
        let lines = &mut *self.lines();
        lines.last += 1;
        let times = take_again(&mut lines.failures, &line);
        if lines.failures.len() >= STRANGERS_LINES_MAX {
            lines.failures.pop_front();
        }
        lines.failures.push_back(Line { seq: lines.last, times, ..line });
    }

    /// What somebody did. `message` has no secret.
    pub fn audit(&self, message: &str, account: Option<&str>, peer: Option<String>) {
        let account = account.map(|account| account.chars().take(ACCOUNT_CHARS_MAX).collect());
        let line = Line { account, peer, ..line("audit", message) };
        let lines = &mut *self.lines();
        lines.last += 1;
        push(&mut lines.trail, lines.last, line, LINES_MAX);
    }

    /// The lines behind number `after`, oldest first.
    #[must_use]
    pub fn after(&self, after: u64) -> Vec<Line> {
        let lines = self.lines();
        let log = lines.of_host.iter().chain(&lines.of_accounts).chain(&lines.of_strangers);
        let behind = log.chain(&lines.trail).chain(&lines.failures).filter(|line| line.seq > after);
        let mut behind: Vec<_> = behind.cloned().collect();
        drop(lines);
        behind.sort_unstable_by_key(|line| line.seq);
        behind
    }
}

/// Adds a line; the account with the most lines makes room for it.
fn push(ring: &mut VecDeque<Line>, seq: u64, line: Line, lines_max: usize) {
    let times = take_again(ring, &line);
    if ring.len() >= lines_max {
        forget_one(ring);
    }
    ring.push_back(Line { seq, times, ..line });
}

fn line(kind: &'static str, message: &str) -> Line {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let message = message.chars().take(CHARS_MAX).collect();
    Line { seq: 0, at_ns, kind, message, account: None, peer: None, times: None }
}

/// Takes the same line of the last minute out, and says how often it came with this one.
fn take_again(lines: &mut VecDeque<Line>, line: &Line) -> Option<u64> {
    let is_again = |old: &Line| {
        (old.kind, &old.message, &old.account, &old.peer)
            == (line.kind, &line.message, &line.account, &line.peer)
            && line.at_ns.saturating_sub(old.at_ns) < AGAIN_NS
    };
    let before = lines.iter().rposition(is_again).and_then(|at| lines.remove(at))?;
    Some(before.times.unwrap_or(1) + 1)
}

/// Removes the oldest line of the account that has the most.
fn forget_one(ring: &mut VecDeque<Line>) {
    let mut counts: HashMap<Option<&str>, usize> = HashMap::new();
    for line in ring.iter() {
        *counts.entry(line.account.as_deref()).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0);
    let of_most = |line: &Line| counts.get(&line.account.as_deref()) == Some(&most);
    if let Some(at) = ring.iter().position(of_most) {
        ring.remove(at);
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
        journal.warn(true, &"x".repeat(1 << 20), Cause::Host);
        let last = journal.after(3 * LINES_MAX as u64).remove(0);
        assert_eq!((last.kind, last.message.len()), ("error", CHARS_MAX));
    }

    #[test]
    fn what_accounts_and_strangers_cause_pushes_out_no_warning_of_the_host_nor_of_others() {
        let journal = Journal::default();
        let account = |id: &str| Cause::Account(id.to_owned());
        journal.warn(false, "the spool fills up", Cause::Host);
        journal.warn(false, "wrong answer, bucket 7", account("victim"));
        journal.audit("login", Some("victim"), None);
        journal.audit("stop of 7", Some("victim"), None);
        for n in 0..3 * LINES_MAX {
            journal.warn(false, &format!("wrong answer, bucket {n}"), account("other"));
            journal.warn(false, &format!("authentication failed, peer {n}"), Cause::Stranger);
            journal.failure("authentication failed", &format!("invented {n}"), n.to_string());
        }
        let lines = journal.after(0);
        let first: Vec<_> = lines.iter().take(4).map(|line| line.message.as_str()).collect();
        assert_eq!(first, ["the spool fills up", "wrong answer, bucket 7", "login", "stop of 7"]);
        assert_eq!(lines.len(), 3 + LINES_MAX + 2 * STRANGERS_LINES_MAX);
    }

    #[test]
    fn what_one_account_does_again_and_again_pushes_out_nothing_of_others() {
        let journal = Journal::default();
        journal.warn(false, "the spool fills up", Cause::Host);
        for _ in 0..3 * LINES_MAX {
            journal.warn(false, "the upload of 7 failed and is tried again", Cause::Host);
        }
        journal.audit("authentication failed", Some("b"), None);
        for n in 0..3 * LINES_MAX {
            journal.audit(&format!("view of {n}"), Some("a"), None);
            journal.audit("stop of 7", Some("a"), None);
        }
        let lines = journal.after(0);
        let first: Vec<_> = lines.iter().take(3).map(|line| line.message.as_str()).collect();
        let expected =
            ["the spool fills up", "the upload of 7 failed and is tried again", "authentication failed"];
        assert_eq!(first, expected);
        let again: Vec<_> = lines.iter().filter(|line| line.message == "stop of 7").collect();
        assert_eq!(again.len(), 1, "the same line again is one");
        assert_eq!((again[0].times, again[0].seq), (Some(3 * LINES_MAX as u64), 9 * LINES_MAX as u64 + 2));
        assert!(lines.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    }
}
