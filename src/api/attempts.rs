//! Failed authentications, limited for each pair of peer and account. Owns their count; not what a failure is.
//!
//! A pair is refused before its credential is looked at, so guessing slows down also for who guesses right; other peers
//! and other accounts do not notice. A failure costs [`SECONDS_PER_FAILURE`], and a configured number of them may be owed.
//!
//! Invariant: memory is bounded, whatever peers and accounts are named.

use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one failure counts; also the `Retry-After` of a refusal.
const SECONDS_PER_FAILURE: u64 = 10;

/// Pairs of one generation; with two generations of about 100 bytes a pair, 2 MiB.
const PAIRS_MAX: usize = 8192;

/// An IPv6 customer has a whole /64, so that is one peer. An account is whatever stands in the path, hence its hash.
type Pair = (IpAddr, [u8; 32]);

fn pair(peer: IpAddr, account: &str) -> Pair {
    let peer = match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    };
    (peer, Sha256::digest(account).into())
}

/// Until when each pair owes. When the newer generation is full it becomes the older one, which is forgotten.
#[derive(Default)]
struct Owed {
    newer: HashMap<Pair, Instant>,
    older: HashMap<Pair, Instant>,
}

/// See the module.
pub(super) struct Attempts {
    owed: Mutex<Owed>,
    /// How far ahead of now a pair may owe and still try.
    room: Duration,
}

impl Attempts {
    /// Of one pair, `failures_max` failures in a row are looked at; at least one.
    pub(super) fn new(failures_max: u32) -> Self {
        let room = Duration::from_secs(SECONDS_PER_FAILURE) * failures_max.saturating_sub(1);
        Self { owed: Mutex::default(), room }
    }

    /// Whether the peer may try again.
    pub(super) fn may_try(&self, peer: IpAddr, account: &str, now: Instant) -> bool {
        let owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = pair(peer, account);
        let until = owed.newer.get(&pair).or_else(|| owed.older.get(&pair));
        until.is_none_or(|until| *until <= now + self.room)
    }

    /// Counts a failure.
    pub(super) fn failed(&self, peer: IpAddr, account: &str, now: Instant) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = pair(peer, account);
        let until = owed.newer.get(&pair).or_else(|| owed.older.get(&pair)).copied();
        if owed.newer.len() >= PAIRS_MAX && !owed.newer.contains_key(&pair) {
            owed.older = std::mem::take(&mut owed.newer);
        }
        let until = until.map_or(now, |until| until.max(now)) + Duration::from_secs(SECONDS_PER_FAILURE);
        owed.newer.insert(pair, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURES_MAX: u32 = 10;

    #[test]
    fn a_pair_has_its_failures_then_one_for_each_period_and_no_other_pair_notices() {
        let (attempts, start) = (Attempts::new(FAILURES_MAX), Instant::now());
        let (peer, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        for _ in 0..FAILURES_MAX {
            assert!(attempts.may_try(peer, "a", start));
            attempts.failed(peer, "a", start);
        }
        assert!(!attempts.may_try(peer, "a", start));
        assert!(!attempts.may_try("::ffff:192.0.2.1".parse().unwrap(), "a", start));
        assert!(attempts.may_try(other, "a", start) && attempts.may_try(peer, "b", start));
        let later = start + Duration::from_secs(SECONDS_PER_FAILURE);
        assert!(attempts.may_try(peer, "a", later));
        attempts.failed(peer, "a", later);
        assert!(!attempts.may_try(peer, "a", later));
    }

    #[test]
    fn one_ipv6_network_is_one_peer_and_memory_is_bounded() {
        let (attempts, start) = (Attempts::new(FAILURES_MAX), Instant::now());
        for host in 0..10_u128 {
            let peer = (0x2001_0db8_u128 << 96 | host).to_be_bytes();
            attempts.failed(peer.into(), "a", start);
        }
        assert!(!attempts.may_try("2001:db8::ffff".parse().unwrap(), "a", start));
        for account in 0..3 * PAIRS_MAX {
            attempts.failed([192, 0, 2, 1].into(), &account.to_string(), start);
        }
        let owed = attempts.owed.lock().unwrap();
        assert!(owed.newer.len() <= PAIRS_MAX && owed.older.len() <= PAIRS_MAX);
    }
}
