//! The one snapshot a second that all viewers share. Owns what was seen of every capture, by account and revision, the series of
//! the host, and the end of all streams; not who reads it.
//!
//! Invariant: viewers read what was taken and ask nobody; what is kept of captures that ended is bounded, and a reader that may have
//! missed the end of one that is no longer kept gets all of the others.

use super::tracks::{Measure, Tracks};
use crate::engine::{CaptureView, Overview};
use crate::job::{AccountId, CaptureId, Job, Kind};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Captures of one account that ended and are still shown.
const ENDED_MAX: usize = 64;
/// How long they are.
const ENDED_NS_MAX: u64 = 900 * 1_000_000_000;

/// What one second brought.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// When, in ns since the UNIX epoch.
    pub now_ns: u64,
    /// The same since the looks began, by a clock that nobody sets.
    pub elapsed: Duration,
    /// What the engine says; none if it did not answer, and then captures stay as they were.
    pub overview: Option<Overview>,
    /// Captures that ended since the last one.
    pub ended: Vec<Job>,
    /// What operators see of the host.
    pub host: Value,
    /// What is added to the host's series.
    pub measures: Vec<Measure>,
}

/// Captures of an account, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captures {
    /// Where the account stands.
    pub revision: u64,
    /// Whether these are all; otherwise those that are not here are as they were.
    pub is_whole: bool,
    /// The answer.
    pub text: String,
}

struct Seen {
    /// The revision in which it changed last.
    changed: u64,
    text: String,
    ended_ns: Option<u64>,
}

#[derive(Default)]
struct OfAccount {
    revision: u64,
    /// The revision in which a capture was forgotten last.
    forgot: u64,
    captures: BTreeMap<CaptureId, Seen>,
}

struct State {
    first: u64,
    now_ns: u64,
    accounts: HashMap<AccountId, OfAccount>,
    host: Arc<str>,
    tracks: Tracks,
}

/// See the module.
pub struct Live {
    state: Mutex<State>,
    /// Counts snapshots; closed streams see the largest number.
    turns: watch::Sender<u64>,
}

/// After the last snapshot.
const OVER: u64 = u64::MAX;

impl Live {
    /// Nothing seen yet. Revisions count from `now_ns`, so that none of an earlier process is taken for one of this.
    #[must_use]
    pub fn new(now_ns: u64) -> Self {
        let state = State {
            first: now_ns / 1_000_000,
            now_ns,
            accounts: HashMap::new(),
            host: "null".into(),
            tracks: Tracks::default(),
        };
        Self { state: Mutex::new(state), turns: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a snapshot and wakes all streams.
    pub fn take(&self, snapshot: Snapshot) {
        let mut state = self.state();
        state.now_ns = snapshot.now_ns;
        if let Some(overview) = &snapshot.overview {
            for view in overview.captures.iter().chain(&overview.look_backs) {
                state.see(&view.account, &view.id, &value(view), None);
            }
        }
        for job in &snapshot.ended {
            let account = &job.request.account;
            state.see(account, &job.id, &ended_value(job), Some(snapshot.now_ns));
        }
        state.forget(snapshot.overview.as_ref());
        state.tracks.add(snapshot.now_ns, snapshot.elapsed, snapshot.measures);
        state.host = snapshot.host.to_string().into();
        drop(state);
        self.turns.send_modify(|turns| *turns = turns.saturating_add(1).min(OVER - 1));
    }

    /// Ends all streams.
    pub fn end(&self) {
        self.turns.send_replace(OVER);
    }

    /// Wakes at each snapshot; [`Live::is_over`] tells the end.
    #[must_use]
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }

    /// Whether that turn is the end.
    #[must_use]
    pub fn is_over(turn: u64) -> bool {
        turn == OVER
    }

    /// An account's captures: those that changed after the revision `since`, or all.
    #[must_use]
    pub fn captures(&self, account: &AccountId, since: Option<u64>) -> Captures {
        let state = self.state();
        let none = OfAccount { revision: state.first, ..OfAccount::default() };
        let OfAccount { revision, forgot, captures } = state.accounts.get(account).unwrap_or(&none);
        let since = since.filter(|since| since >= forgot);
        let mut text = format!("{{\"revision\":{revision},\"now_ns\":{},\"captures\":[", state.now_ns);
        let changed = captures.values().filter(|seen| since.is_none_or(|since| seen.changed > since));
        for (n, seen) in changed.enumerate() {
            // Writing to a string cannot fail.
            let _never = write!(text, "{}{}", if n == 0 { "" } else { "," }, seen.text);
        }
        text.push_str("]}");
        Captures { revision: *revision, is_whole: since.is_none(), text }
    }

    /// What operators see of the host, as JSON.
    #[must_use]
    pub fn host(&self) -> Arc<str> {
        Arc::clone(&self.state().host)
    }

    /// The host's series of the last seconds.
    #[must_use]
    pub fn host_series(&self, seconds: usize) -> Value {
        // A copy, so that nobody waits for what is made of it.
        let tracks = self.state().tracks.clone();
        tracks.value(seconds)
    }
}

impl State {
    fn see(&mut self, account: &AccountId, id: &CaptureId, value: &Value, ended_ns: Option<u64>) {
        let text = value.to_string();
        let first = self.first;
        let of_account = self
            .accounts
            .entry(account.clone())
            .or_insert_with(|| OfAccount { revision: first, ..OfAccount::default() });
        if of_account.captures.get(id).is_some_and(|seen| seen.text == text || seen.ended_ns.is_some()) {
            return;
        }
        of_account.revision += 1;
        let changed = of_account.revision;
        of_account.captures.insert(id.clone(), Seen { changed, text, ended_ns });
    }

    /// Forgets captures that ended a while ago, or that are gone and were never told to have ended.
    fn forget(&mut self, overview: Option<&Overview>) {
        let now_ns = self.now_ns;
        let runs = |id: &CaptureId| {
            overview.is_none_or(|all| all.captures.iter().chain(&all.look_backs).any(|view| view.id == *id))
        };
        for of_account in self.accounts.values_mut() {
            let ended = of_account.captures.iter().filter_map(|(id, seen)| Some((seen.ended_ns?, id)));
            let mut ended: Vec<_> = ended.collect();
            // Of those that ended at one moment the ids decide.
            ended.sort_unstable_by(|a, b| b.cmp(a));
            let oldest = ended.get(ENDED_MAX - 1).map(|(at, id)| (*at, (*id).clone()));
            let since = now_ns.saturating_sub(ENDED_NS_MAX);
            let before = of_account.captures.len();
            of_account.captures.retain(|id, seen| match seen.ended_ns {
                Some(at) => at > since && oldest.as_ref().is_none_or(|(ns, last)| (at, id) >= (*ns, last)),
                None => runs(id),
            });
            if of_account.captures.len() < before {
                of_account.revision += 1;
                of_account.forgot = of_account.revision;
            }
        }
    }
}

fn value(view: &CaptureView) -> Value {
    json!({"id": view.id, "status": view.status, "ledger": view.ledger,
        "seconds_left": (view.seconds_left * 10.0).round() / 10.0, "objects": view.objects,
        "object_bytes": view.object_bytes,
        "upload_waiting_bytes": if view.kind == Kind::Full { view.waiting_bytes } else { 0 },
        "warnings": view.warnings})
}

fn ended_value(job: &Job) -> Value {
    let sums = job.object_sums();
    json!({"id": job.id, "status": job.status, "ledger": job.ledger, "seconds_left": 0.0,
        "objects": sums.objects, "object_bytes": sums.bytes,
        "upload_waiting_bytes": 0, "warnings": []})
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
