//! From a complete delivery to nothing left. Owns the order of manifest, outcome and removal.
//!
//! Invariant: manifest, then the durable outcome, then the removal of the directory; nothing is removed that is not in the
//! bucket, but what was given up by decision, which the outcome says.

use super::capture::{Delivered, Phase};
use super::{Effect, Kept, Machine, Now, Serial, promise};
use crate::deliver::Outcome;
use crate::engine::handle::Refusal;
use std::time::Duration;

impl Machine {
    pub(super) fn publish(&mut self, serial: Serial, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        capture.phase = Phase::Closing;
        let manifest = Box::new(capture.manifest(&self.config.host, &self.config.colo));
        out.push(Effect::Publish { serial, manifest });
    }

    pub(super) fn closed(&mut self, now: Now, serial: Serial, outcome: Outcome, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial).filter(|capture| capture.phase == Phase::Closing)
        else {
            return;
        };
        match outcome {
            Outcome::Done => self.conclude(now, serial, out),
            Outcome::Failed(error) | Outcome::Gone(error) => {
                tracing::error!(capture = %capture.job.id, account = %capture.job.request.account, %error, "the manifest of a capture cannot be published");
                capture.delivered = Some(match capture.job.given_up {
                    Some(_) => Delivered::GivenUp(error.into_customer()),
                    None => Delivered::ManifestFailed(error.into_customer()),
                });
                self.conclude(now, serial, out);
            }
            Outcome::Left => self.leave(now, serial, out),
        }
    }

    /// Has the outcome recorded.
    pub(super) fn conclude(&mut self, now: Now, serial: Serial, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        if let Err(imbalance) = capture.job.ledger.check() {
            tracing::error!(capture = %capture.job.id, account = %capture.job.request.account, %imbalance, "ledger does not balance");
        }
        (capture.job.status, capture.job.error_message) = capture.verdict();
        self.conclude_as_is(now, serial, out);
    }

    /// Has the outcome that stands in the job recorded.
    pub(super) fn conclude_as_is(&mut self, now: Now, serial: Serial, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        (capture.job.keys, capture.job.proof, capture.trouble) = (None, None, None);
        self.ended.count(capture.job.status);
        let version = capture.record(out);
        let remove = capture.is_delivered();
        capture.wait_in(now, Phase::Ending { version, remove });
    }

    /// Has the state recorded with which the next process goes on.
    pub(super) fn leave(&mut self, now: Now, serial: Serial, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        tracing::warn!(capture = %capture.job.id, account = %capture.job.request.account, "not delivered yet; the next start goes on with it");
        let version = capture.record(out);
        capture.wait_in(now, Phase::Leaving { version });
    }

    /// What had to be durable is, or a shutdown waits no longer for it: the place in the spool is given up.
    pub(super) fn release(&mut self, _now: Now, serial: Serial, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        if capture.notes.in_flight {
            return;
        }
        let remove = matches!(capture.phase, Phase::Ending { remove: true, .. });
        if let Phase::Ending { .. } = capture.phase {
            let (job, ledger) = (&capture.job, &capture.job.ledger);
            tracing::info!(
                capture = %job.id, status = ?job.status, reason = ?job.stop_reason, offered = ledger.offered,
                rx = ledger.rx, matched = ledger.matched, captured = ledger.captured,
                dropped = ledger.dropped.total(), objects = capture.delivered_sums.objects, "capture ended"
            );
        }
        capture.is_recorded = matches!(capture.phase, Phase::Ending { .. });
        capture.phase = Phase::Removing;
        out.push(match &capture.delivered {
            _ if remove => Effect::Remove { serial },
            Some(Delivered::GivenUp(_)) if capture.is_recorded => Effect::Discard { serial },
            _ => Effect::Forget { serial },
        });
    }

    pub(super) fn removed(
        &mut self,
        now: Now,
        serial: Serial,
        result: Result<(), String>,
        kept: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(capture) = self.captures.get_mut(&serial).filter(|capture| capture.phase == Phase::Removing)
        else {
            return;
        };
        let (id, account) = (capture.job.id.clone(), capture.job.request.account.clone());
        let left = capture.is_recorded.then(|| Kept::new(id.clone(), account.clone(), kept, Duration::ZERO));
        if let Err(error) = result {
            tracing::warn!(
                capture = %id, error,
                "a delivered capture's directory could not be removed; the next start removes it"
            );
        }
        let drops = std::mem::take(&mut capture.drops);
        capture.break_promises(|_| true, &Refusal::ShuttingDown, out);
        self.captures.remove(&serial);
        let is_kept = left.is_some();
        if let Some(left) = left {
            self.keep(now, left);
        }
        match is_kept && !self.is_ending() {
            true => drops.into_iter().for_each(|reply| self.drop_kept(now, &account, &id, reply, out)),
            // The next process has it, and knows nothing of who waits.
            false => promise::answer(drops.into_iter().flatten(), &Err(Refusal::ShuttingDown), out),
        }
        out.push(Effect::Drop { serial });
    }
}
