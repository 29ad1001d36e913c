//! The record of a limit: who was granted what. Owns the bookkeeping of a lead (the whole limit) and of a branch (what its data
//! center was granted); not the decision who gets how much.
//!
//! Invariant: [`Pool::check`] holds at every revision, because a grant is cut to what is free.

use super::{Amount, Holder, Reached, Report};
use crate::fleet::Epoch;
use crate::fleet::held::Owned;
use serde::{Deserialize, Serialize};

/// What one holder was granted and what came back, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Of that, what was dealt before anybody asked. It stands in assignments, so it is read and never worked out a second time.
    pub first: Amount,
    /// Rights handed out.
    pub granted: Amount,
    /// Rights that it gave back.
    pub returned: Amount,
    /// Captured, as far as it told.
    pub used: Amount,
    /// It uses no more.
    pub is_final: bool,
}

impl Share {
    /// What it may have captured and may still capture.
    #[must_use]
    pub fn outstanding(&self) -> Amount {
        self.granted.minus(self.returned)
    }

    /// Of that, what it did not tell to have captured.
    #[must_use]
    pub fn unused(&self) -> Amount {
        self.outstanding().minus(self.used)
    }

    fn report(&mut self, report: &Report) {
        if self.is_final {
            return;
        }
        if report.is_final {
            // After a crash fewer packets may be in the files than were told: those count.
            // What was given back before is another's by now.
            self.used = report.used.min(self.outstanding());
            self.returned = self.granted.minus(self.used);
            self.is_final = true;
        } else {
            self.used = self.used.max(report.used).min(self.granted);
            self.returned = self.returned.max(report.returned.min(self.granted));
        }
    }
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Of the writer.
    pub epoch: Epoch,
    /// From above, cumulative; the whole limit where nothing is above.
    pub received: Amount,
    /// Returned above, cumulative. Lowered here before it is told.
    pub given_back: Amount,
    /// By place.
    pub holders: Vec<Share>,
    /// The limit is reached: nothing is granted any more.
    pub reached: Option<Reached>,
}

impl Owned for Pool {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn in_epoch(self, epoch: Epoch) -> Self {
        Self { epoch, ..self }
    }
}

impl Pool {
    /// A pool of which `1/divisor` is dealt in proportion to the holders' weights, so that nobody's first packet waits for an answer;
    /// one packet at least for each that weighs one, while that is not more than half.
    #[must_use]
    pub fn dealt(received: Amount, weights: &[u64], divisor: u64) -> Self {
        let whole: u64 = weights.iter().sum::<u64>().saturating_mul(divisor);
        let mut pool = Self {
            epoch: 0,
            received,
            given_back: Amount::NONE,
            holders: vec![Share::default(); weights.len()],
            reached: None,
        };
        let mut left = received.part(1, divisor.min(2)).packets;
        for (holder, weight) in weights.iter().enumerate() {
            let part = received.part(*weight, whole);
            let packets = part.packets.max(*weight).min(left);
            left -= packets;
            pool.grant_of(holder as Holder, Amount::new(packets, part.bytes));
        }
        pool.holders.iter_mut().for_each(|share| share.first = share.granted);
        pool
    }

    /// In place of a record that is lost. Nobody knows any more what was granted, so nothing is.
    #[must_use]
    pub fn lost(received: Amount, holders: usize) -> Self {
        let holders = vec![Share::default(); holders];
        Self { holders, reached: Some(Reached::Forgotten), ..Self::dealt(received, &[], 1) }
    }

    /// What nobody was granted.
    #[must_use]
    pub fn free(&self) -> Amount {
        if self.reached == Some(Reached::Forgotten) {
            return Amount::NONE;
        }
        let out: Amount = self.holders.iter().map(Share::outstanding).sum();
        self.received.minus(self.given_back).minus(out)
    }

    /// Grants what the caller knows to be free.
    pub(super) fn grant_of(&mut self, holder: Holder, given: Amount) {
        if let Some(share) = self.holders.get_mut(holder as usize)
            && !share.is_final
        {
            share.granted = share.granted.plus(given);
        }
    }

    /// Takes what a holder says.
    pub fn report(&mut self, holder: Holder, report: &Report) {
        // A holder that knows of a grant that is not here: an old record was read, or brought back. What it has is not free; a holder
        // that lies leaves nothing to grant, and no more.
        let free = self.free();
        if let Some(share) = self.holders.get_mut(holder as usize) {
            if !share.is_final {
                share.granted = share.granted.plus(report.granted.minus(share.granted).min(free));
            }
            share.report(report);
        }
    }

    /// All that is known to be captured.
    #[must_use]
    pub fn used(&self) -> Amount {
        self.holders.iter().map(|share| share.used).sum()
    }

    /// Whether what is out is at most what came in.
    #[must_use]
    pub fn check(&self) -> bool {
        let out: Amount = self.holders.iter().map(Share::outstanding).sum();
        out.plus(self.given_back).fits(self.received)
    }
}
