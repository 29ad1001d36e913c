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

#[derive(Clone, Copy)]
struct Asked {
    /// Until when its requests have used up its rate.
    due: Instant,
    refused: u64,
}

/// See the module. Its accounts are those of the config, so they are few.
pub(super) struct Rates {
    step: Duration,
    ahead_max: Duration,
    due: Mutex<HashMap<AccountId, Asked>>,
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
        let asked = due.entry(account.clone()).or_insert(Asked { due: now, refused: 0 });
        let at = asked.due.max(now);
        if at > now + self.ahead_max {
            asked.refused += 1;
            return false;
        }
        asked.due = at + self.step;
        true
    }

    /// How many requests of an account were refused since the process started.
    pub(super) fn refused(&self, account: &AccountId) -> u64 {
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.get(account).map_or(0, |asked| asked.refused)
    }

    /// The same rate, with what the accounts that are there still were counted before it.
    pub(super) fn after(self, before: &Self, ids: &[AccountId]) -> Self {
        let mut due = before.due.lock().unwrap_or_else(PoisonError::into_inner).clone();
        due.retain(|account, _| ids.contains(account));
        Self { due: Mutex::new(due), ..self }
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
        assert_eq!((rates.refused(&a), rates.refused(&b)), (980, 0));
        assert_eq!(asked(&b, 0), 20, "on its own account");
        // A flood gets the rate and no more: what was refused costs nothing.
        assert_eq!((1..=50).map(|tenth| asked(&a, tenth * 100)).sum::<usize>(), 50);
        assert_eq!(asked(&a, 60_000), 20, "no more is saved up");
        let refused = rates.refused(&a);
        // Another rate does not forgive what is owed by the one before.
        let rates = Rates::new(Some(5)).after(&rates, std::slice::from_ref(&a));
        assert!(!rates.may(&a, start + Duration::from_secs(60)));
        assert_eq!((rates.refused(&a), rates.refused(&b)), (refused + 1, 0));
        assert!((0..10_000).all(|_| Rates::new(None).may(&a, start)), "no rate");
    }
}
