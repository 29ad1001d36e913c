//! How a capture is accepted: one compare-and-set of its account's record with the whole intent in it. Owns the rules of accounts; the
//! capture's own record follows from this one.
//!
//! Invariant: of any number of creates at any number of nodes at once, an account gets as many captures as it may have.

use super::{Front, PAUSE, TRIES, away};
use crate::bus::Table;
use crate::engine::Refusal;
use crate::fleet::held::{Answer, Revision};
use crate::fleet::wire::Wire;
use crate::job::Kind;
use crate::limits::LIST_CAPTURES_MAX;
use crate::node::keys::account_key;
use crate::node::wire::{AccountRecord, Active, JobRecord};
use jiff::Timestamp;
use std::time::Duration;

/// How long until an account may start its next simple capture. A clock that was set back does not make it longer than the interval.
pub(super) fn simple_wait(record: &AccountRecord, interval: Duration, now: Timestamp) -> Duration {
    let Some(last) = record.simple_at else { return Duration::ZERO };
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    interval.saturating_sub(passed)
}

impl Front {
    /// Writes the intent. `Ok`: it is durable, and with it the capture is accepted.
    pub(super) async fn accept(&self, intent: &JobRecord) -> Result<(), Refusal> {
        let account = &intent.capture.request.account;
        let key = account_key(account);
        for tries in 1..=TRIES {
            let known = self.account(account).await?;
            let (revision, wire) =
                known.unwrap_or_else(|| (Revision::default(), Wire::new(AccountRecord::default())));
            // A write whose answer was lost has landed.
            if wire.value().recent.contains(&intent.capture.id) {
                return Ok(());
            }
            let next = self.with(wire.value(), intent).await?;
            let json = wire.with(next).to_json().map_err(|error| Refusal::Store(error.to_string()))?;
            match self.bus.write(Table::Accounts, &key, revision, json).await {
                Answer::Wrote(_) => return Ok(()),
                Answer::Unavailable => return Err(away("nothing can be recorded")),
                // Another one came before, or this one may have landed: only the own id in it says which.
                _ => tokio::time::sleep(PAUSE * tries).await,
            }
        }
        let known = self.account(account).await?;
        match known.is_some_and(|(_, wire)| wire.value().recent.contains(&intent.capture.id)) {
            true => Ok(()),
            false => Err(away("too many requests of this account at once, or its records are slow")),
        }
    }

    /// The account's record with one more capture, if it may have it.
    async fn with(&self, record: &AccountRecord, intent: &JobRecord) -> Result<AccountRecord, Refusal> {
        let capture = &intent.capture;
        let mut next = record.clone();
        match capture.request.kind {
            Kind::Full => {
                next.full = self.active(&capture.request.account, record).await?;
                let is_all = next.full.len() >= self.config().full_per_account;
                if let Some((active, _)) = next.full.first_key_value().filter(|_| is_all) {
                    return Err(Refusal::FullCaptureActive(active.clone()));
                }
                next.full.insert(capture.id.clone(), Active { since: capture.submitted });
            }
            Kind::Simple => {
                let interval = self.config().simple_interval;
                let left = simple_wait(record, interval, capture.submitted);
                if !left.is_zero() {
                    return Err(Refusal::SimpleTooSoon {
                        interval_seconds: interval.as_secs(),
                        seconds_left: left.as_secs().max(1),
                    });
                }
                next.simple_at = Some(capture.submitted);
            }
        }
        next.recent.insert(0, capture.id.clone());
        next.recent.truncate(LIST_CAPTURES_MAX);
        next.intents.insert(capture.id.clone(), intent.clone());
        Ok(next)
    }
}
