//! Failed authentications, limited and told by peer. Owns their count, how a peer pays for them, and what the log says of them;
//! not what a failure is.
//!
//! Only failures are limited. A right credential passes whatever its peer's other requests did, because many clients may share an
//! address. A failure costs [`SECONDS_PER_FAILURE`], whatever account it named, and a configured number of them may be owed. A
//! peer that owes more waits [`PENALTY`] for each answer, and has a bounded number of connections to wait on.
//!
//! The first failure of a peer is a line of the log, at most [`LINES_MAX`] of them a minute. Everything else of that minute is one
//! line, with how often each account of the config was named: names that were made up do not hide it. Each failure does the same work
//! for every account, so its time does not tell which there are.
//!
//! Invariant: memory is bounded, whatever peers come, and the peers that are forgotten first are those that owe least.

use crate::http::Peer;
use crate::job::AccountId;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// How long one failure counts; also the `Retry-After` of a refusal.
const SECONDS_PER_FAILURE: u64 = 10;

/// What a failure waits for its answer once its peer owes too much: a loop gets ten a second. It bounds nobody who does not wait
/// for answers, because a right credential is answered at once; what keeps guesses out is that secrets are random.
pub(super) const PENALTY: Duration = Duration::from_millis(100);

/// Peers that are remembered, of some 50 bytes each.
const PEERS_MAX: usize = 8192;

/// Lines of a minute that tell one failure each.
const LINES_MAX: u32 = 10;

/// From the first failure to the line that tells of all of them.
pub(super) const SUMMARY_AFTER: Duration = Duration::from_secs(60);

static COUNTS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Failed authentications since the process started, by how they were answered.
#[must_use]
pub fn authentication_failures() -> [(&'static str, u64); 2] {
    [("denied", COUNTS[0].load(Relaxed)), ("limited", COUNTS[1].load(Relaxed))]
}

/// What becomes of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Its peer owes too much: the answer waits, and says so.
    pub is_limited: bool,
    /// It is told in a line of its own.
    pub is_told: bool,
    /// It is the first since the last summary: the next one is due in [`SUMMARY_AFTER`].
    pub begins: bool,
}

/// The failures since the last summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// All of them.
    pub failures: u64,
    /// Those whose peer owed too much.
    pub limited: u64,
    /// Those that had a line of their own.
    pub told: u32,
    /// A peer of the last one.
    pub last_peer: Option<IpAddr>,
    /// How often each account of the config was named, those that were not left out.
    pub named: Vec<(AccountId, u64)>,
}

/// An account of the config, and how often a failure named it since the last summary.
#[derive(Debug)]
struct Named {
    id: AccountId,
    sha256: [u8; 32],
    times: u64,
}

#[derive(Default)]
struct State {
    /// Until when each peer owes.
    owed: HashMap<IpAddr, Instant>,
    summary: Summary,
    named: Vec<Named>,
}

/// See the module.
pub(super) struct Attempts {
    state: Mutex<State>,
    /// How far ahead of now a peer may owe before it is limited.
    room: Duration,
}

impl Attempts {
    /// Of one peer, `failures_max` failures in a row are not limited; at least one.
    pub(super) fn new(failures_max: u32) -> Self {
        let room = Duration::from_secs(SECONDS_PER_FAILURE) * failures_max.saturating_sub(1);
        Self { state: Mutex::default(), room }
    }

    /// These are the accounts of the config from now on. Those that were and stay keep their counts.
    pub(super) fn count_for(&self, accounts: impl IntoIterator<Item = AccountId>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut state.named);
        let times =
            |id: &AccountId| before.iter().find(|named| named.id == *id).map_or(0, |named| named.times);
        state.named = accounts
            .into_iter()
            .map(|id| Named { times: times(&id), sha256: Sha256::digest(&id.0).into(), id })
            .collect();
    }

    /// Counts a failure that named `account`.
    pub(super) fn failed(&self, peer: Peer, account: &str, now: Instant) -> Verdict {
        let account: [u8; 32] = Sha256::digest(account).into();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for named in &mut state.named {
            named.times += u64::from(named.sha256.ct_eq(&account).unwrap_u8());
        }
        let network = peer.network();
        let until = state.owed.get(&network).copied().filter(|until| *until > now);
        let is_limited = until.is_some_and(|until| until > now + self.room);
        if !is_limited {
            state.owe(network, until.unwrap_or(now) + Duration::from_secs(SECONDS_PER_FAILURE), now);
        }
        let summary = &mut state.summary;
        let is_told = until.is_none() && summary.told < LINES_MAX;
        let begins = summary.failures == 0;
        summary.failures += 1;
        summary.limited += u64::from(is_limited);
        summary.told += u32::from(is_told);
        summary.last_peer = Some(peer.0);
        COUNTS[usize::from(is_limited)].fetch_add(1, Relaxed);
        Verdict { is_limited, is_told, begins }
    }

    /// What to tell of the failures since the last summary; nothing if each had a line of its own.
    pub(super) fn summary(&self) -> Option<Summary> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut summary = std::mem::take(&mut state.summary);
        let named = state.named.iter_mut().filter(|named| named.times > 0);
        summary.named = named.map(|named| (named.id.clone(), std::mem::take(&mut named.times))).collect();
        (summary.failures > u64::from(summary.told)).then_some(summary)
    }
}

impl State {
    fn owe(&mut self, peer: IpAddr, until: Instant, now: Instant) {
        if self.owed.len() >= PEERS_MAX && !self.owed.contains_key(&peer) {
            self.owed.retain(|_, until| *until > now);
            if self.owed.len() >= PEERS_MAX
                && let Some(least) = self.owed.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
            {
                self.owed.remove(&least);
            }
        }
        self.owed.insert(peer, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURES_MAX: u32 = 10;

    fn peer(text: &str) -> Peer {
        Peer(text.parse().unwrap())
    }

    #[test]
    fn a_peer_has_its_failures_then_one_for_each_period_and_no_other_peer_notices() {
        let (attempts, start) = (Attempts::new(FAILURES_MAX), Instant::now());
        let limited = |text: &str, now| attempts.failed(peer(text), "a", now).is_limited;
        for _ in 0..FAILURES_MAX {
            assert!(!limited("192.0.2.1", start));
        }
        assert!(limited("192.0.2.1", start) && limited("::ffff:192.0.2.1", start));
        assert!(!limited("192.0.2.2", start));
        let later = start + Duration::from_secs(SECONDS_PER_FAILURE);
        assert!(!limited("192.0.2.1", later) && limited("192.0.2.1", later));
    }

    #[test]
    fn peers_that_come_and_go_do_not_make_one_forgotten_that_owes_more_and_memory_is_bounded() {
        let (attempts, start) = (Attempts::new(FAILURES_MAX), Instant::now());
        for host in 0..10_u128 {
            let host = (0x2001_0db8_u128 << 96 | host).to_be_bytes();
            attempts.failed(Peer(host.into()), "a", start);
        }
        for network in 0..3 * PEERS_MAX as u128 {
            let host = (0x2001_0db9_u128 << 96 | network << 64).to_be_bytes();
            assert!(!attempts.failed(Peer(host.into()), "a", start).is_limited);
        }
        assert!(attempts.failed(peer("2001:db8::ffff"), "a", start).is_limited, "an IPv6 /64 is one peer");
        assert!(attempts.state.lock().unwrap().owed.len() <= PEERS_MAX);
        let later = start + Duration::from_secs(3600);
        attempts.failed(peer("192.0.2.1"), "a", later);
        assert_eq!(attempts.state.lock().unwrap().owed.len(), 1, "what nobody owes any more goes");
    }

    #[test]
    fn the_first_failure_of_a_peer_is_told_and_the_others_are_one_line_a_minute() {
        let (attempts, start) = (Attempts::new(FAILURES_MAX), Instant::now());
        let first = attempts.failed(peer("192.0.2.1"), "a", start);
        assert_eq!(first, Verdict { is_limited: false, is_told: true, begins: true });
        for _ in 0..50_000 {
            let next = attempts.failed(peer("192.0.2.1"), "a", start);
            assert!(!next.is_told && !next.begins);
        }
        let told: u32 = (0..100)
            .map(|host| u32::from(attempts.failed(peer(&format!("192.0.3.{host}")), "a", start).is_told))
            .sum();
        assert_eq!(told, LINES_MAX - 1);
        let summary = attempts.summary().unwrap();
        assert_eq!((summary.failures, summary.told), (50_101, LINES_MAX));
        assert_eq!(summary.limited, 50_001 - u64::from(FAILURES_MAX));
        assert_eq!(attempts.summary(), None);
        assert!(attempts.failed(peer("192.0.2.200"), "a", start).begins);
        assert_eq!(attempts.summary(), None, "it had a line of its own");
    }

    #[test]
    fn names_that_are_made_up_do_not_hide_the_account_that_is_guessed_at() {
        let (attempts, start) = (Attempts::new(FAILURES_MAX), Instant::now());
        let ids = ["acme", "other"].map(|id| AccountId(id.to_owned()));
        attempts.count_for(ids.clone());
        for host in 0..100 {
            let account = if host == 50 { "acme".to_owned() } else { format!("invented{host}") };
            attempts.failed(peer(&format!("192.0.2.{host}")), &account, start);
        }
        // A reload in between forgets nothing.
        attempts.count_for(ids.clone());
        attempts.failed(peer("192.0.2.1"), "acme", start);
        assert_eq!(attempts.summary().unwrap().named, [(ids[0].clone(), 2)]);
        attempts.failed(peer("192.0.2.1"), "other", start);
        assert_eq!(attempts.summary().unwrap().named, [(ids[1].clone(), 1)], "counted once");
    }
}
