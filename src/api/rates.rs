//! Requests a second of each account. Owns who has had how many; not what a request costs.
//!
//! The generic cell rate algorithm (ITU-T I.371): an account may be [`BURST_SECONDS`] ahead of its rate, so that a dashboard that
//! opens or a script that pages is not held up, and one that goes on faster is refused until it has fallen back.
//!
//! Invariant: what one account asks is on its own account alone, and a refused request costs it nothing.

use crate::job::AccountId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far ahead of its rate an account may be.
const BURST_SECONDS: u32 = 2;

/// See the module. Its accounts are those of the config, so they are few.
pub(super) struct Rates {
    step: Duration,
    ahead_max: Duration,
    due: Mutex<HashMap<AccountId, Instant>>,
}

impl Rates {
    /// So many a second for each account; as many as they like if none.
    pub(super) fn new(per_second: Option<u32>) -> Self {
        let step = per_second.map_or(Duration::ZERO, |count| Duration::from_secs(1) / count.max(1));
        let ahead_max = Duration::from_secs(u64::from(BURST_SECONDS)).saturating_sub(step);
        Self { step, ahead_max, due: Mutex::default() }
    }

    /// Counts a request whose credential was right; false if the account has asked too many.
    pub(super) fn may(&self, account: &AccountId, now: Instant) -> bool {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let at = due.get(account).copied().map_or(now, |at| at.max(now));
        if at > now + self.ahead_max {
            return false;
        }
        due.insert(account.clone(), at + self.step);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_may_ask_its_rate_and_a_burst_whatever_others_ask() {
        let (rates, start) = (Rates::new(Some(10)), Instant::now());
        let (a, b) = (AccountId("a".to_owned()), AccountId("b".to_owned()));
        let asked = |account: &AccountId, ms: u64| {
            (0..1000).filter(|_| rates.may(account, start + Duration::from_millis(ms))).count()
        };
        assert_eq!(asked(&a, 0), 20, "two seconds of it at once");
        assert_eq!(asked(&b, 0), 20, "on its own account");
        // A flood gets the rate and no more: what was refused costs nothing.
        assert_eq!((1..=50).map(|tenth| asked(&a, tenth * 100)).sum::<usize>(), 50);
        assert_eq!(asked(&a, 60_000), 20, "no more is saved up");
        assert!((0..10_000).all(|_| Rates::new(None).may(&a, start)), "no rate");
    }
}
