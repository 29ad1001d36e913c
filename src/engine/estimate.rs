//! Estimates: how many packets a capture would have had. Owns how many an account and the host may ask for; not the counting
//! (`history`), nor captures (`machine`).
//!
//! Invariant: an estimate is made on a thread that may wait for the disk, so many at once, and ends when nobody waits for it.

use super::handle::Asked;
use super::{Engine, Refusal};
use crate::history::{Estimate, Recent};
use crate::job::AccountId;
use crate::limits::{ESTIMATE_INTERVAL, ESTIMATES_MAX, ESTIMATES_PER_ACCOUNT_MAX};
use crate::matcher::Filter;
use crate::packet::Key;
use crate::turns::Turns;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// Who asked lately.
#[derive(Debug)]
pub(super) struct Estimates {
    /// Until when the estimates that each account asked for would take at their rate.
    until: HashMap<AccountId, Duration>,
    /// The one that each account waits for.
    waiting: HashMap<AccountId, Weak<()>>,
    /// Places at the disk.
    reading: Arc<Turns>,
}

impl Default for Estimates {
    fn default() -> Self {
        Self {
            until: HashMap::new(),
            waiting: HashMap::new(),
            reading: Turns::new(ESTIMATES_MAX, ESTIMATES_MAX),
        }
    }
}

impl Estimates {
    /// Counts an estimate against its account's rate, and gives what it holds while it is under way.
    fn admit(&mut self, mono: Duration, account: &AccountId) -> Result<Arc<()>, Refusal> {
        if self.waiting.get(account).is_some_and(|one| one.strong_count() > 0) {
            return Err(Refusal::EstimateTooSoon { seconds_left: 1 });
        }
        let until = self.until.get(account).map_or(mono, |until| mono.max(*until)) + ESTIMATE_INTERVAL;
        let ahead = until.saturating_sub(mono);
        if let Some(left) =
            ahead.checked_sub(ESTIMATE_INTERVAL * ESTIMATES_PER_ACCOUNT_MAX).filter(|left| !left.is_zero())
        {
            // Rounded up: after that many seconds the next one is admitted.
            return Err(Refusal::EstimateTooSoon { seconds_left: left.as_secs() + 1 });
        }
        self.until.insert(account.clone(), until);
        let held = Arc::new(());
        self.waiting.insert(account.clone(), Arc::downgrade(&held));
        Ok(held)
    }
}

impl Engine {
    pub(super) fn estimate(
        &mut self,
        account: &AccountId,
        asked: Asked,
        reply: oneshot::Sender<Result<Estimate, Refusal>>,
    ) {
        match self.begin_estimate(account, asked) {
            Ok((held, recent)) => {
                let visible = self.visible(account);
                self.spawn_estimate(account.clone(), recent, visible, held, reply);
            }
            // A caller that went away needs no answer.
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    fn begin_estimate(&mut self, account: &AccountId, asked: Asked) -> Result<(Arc<()>, Recent), Refusal> {
        let now = self.now();
        if !self.machine.standing(now, account).is_accepting {
            return Err(Refusal::ShuttingDown);
        }
        if self.recording.is_none() {
            return Err(Refusal::NoEstimate("this host keeps no past packets"));
        }
        let filter = Filter::try_from(&asked.filter).map_err(|error| Refusal::Filter(error.to_string()))?;
        let held = self.estimates.admit(now.mono, account)?;
        Ok((held, Recent { filter, window: asked.window }))
    }

    fn spawn_estimate(
        &self,
        account: AccountId,
        recent: Recent,
        visible: impl Fn(&Key) -> bool + Send + Sync + 'static,
        held: Arc<()>,
        mut reply: oneshot::Sender<Result<Estimate, Refusal>>,
    ) {
        let Some(history) = self.recording.as_ref().map(|recorder| Arc::clone(&recorder.history)) else {
            return;
        };
        let reading = Arc::clone(&self.estimates.reading);
        tokio::spawn(async move {
            let place = tokio::select! {
                place = reading.take(&account) => place,
                () = reply.closed() => return,
            };
            let count = move || {
                let found = history.estimate(&recent, &visible, &|| reply.is_closed());
                drop((place, held));
                let found = match found {
                    Ok(Some(found)) => Ok(found),
                    Ok(None) => Err(Refusal::NoEstimate(
                        "this host has no past packets of the last seconds yet, or too many to count; try again in a minute, \
                         or with fewer seconds",
                    )),
                    Err(error) => Err(Refusal::Store(error.to_string())),
                };
                let _caller_gone = reply.send(found);
            };
            // One that panics drops the reply, which its caller sees.
            let _said_in_the_log = tokio::task::spawn_blocking(count).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(admitted: &Result<Arc<()>, Refusal>) -> Option<u64> {
        match admitted {
            Ok(_) => None,
            Err(Refusal::EstimateTooSoon { seconds_left }) => Some(*seconds_left),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn an_account_has_one_estimate_at_a_time_so_many_at_once_and_then_one_in_each_interval() {
        let mut estimates = Estimates::default();
        let (a, b) = (AccountId("a".to_owned()), AccountId("b".to_owned()));
        let at = Duration::from_secs;
        let first = estimates.admit(at(100), &a);
        assert_eq!(left(&estimates.admit(at(100), &a)), Some(1), "the first is under way");
        assert_eq!(left(&estimates.admit(at(100), &b)), None, "and is not b's");
        drop(first);
        for _ in 1..ESTIMATES_PER_ACCOUNT_MAX {
            assert_eq!(left(&estimates.admit(at(100), &a)), None);
        }
        let wait = left(&estimates.admit(at(100), &a)).unwrap();
        assert_eq!(wait, ESTIMATE_INTERVAL.as_secs() + 1);
        assert_eq!(left(&estimates.admit(at(100 + wait), &a)), None);
        assert!(left(&estimates.admit(at(100 + wait), &a)).is_some());
    }
}
