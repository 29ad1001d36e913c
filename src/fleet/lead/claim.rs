//! Who leads a partition or speaks for a data center. Owns claiming, renewing and taking over by compare-and-set; not what the
//! holder does with it.
//!
//! A claim that was seen unchanged for long is taken over, measured by the watcher's own monotonic clock, so no two clocks need to
//! agree. Two nodes may believe at once that they hold it; everything that they write carries the epoch and is held against the
//! revision, so that does no harm.
//!
//! Invariant: each epoch belongs to one life of one node, and it acts in it without a break.

use crate::fleet::held::{Answer, Op, Revision};
use crate::fleet::record::{Claim, Record, any, one};
use crate::fleet::settings::Settings;
use crate::fleet::{Epoch, Now};
use std::time::Duration;

/// A node that would hold a claim.
#[derive(Clone, Debug)]
pub struct Contender {
    settings: Settings,
    /// The node, and which of its lives.
    me: (u32, Epoch),
    /// How much longer than others it waits: the first choice waits least.
    patience: Duration,
    /// What was seen last.
    revision: Revision,
    seen: Option<Claim>,
    seen_at: Option<Duration>,
    writing: Option<Claim>,
    is_busy: bool,
    /// A write failed, so what was seen is not the newest.
    must_read: bool,
    next: Duration,
    /// The claim that it holds, and since when it is known to be durable.
    held: Option<(Claim, Duration)>,
    /// When it last asked for a claim or a renewal.
    asked_at: Duration,
    /// The last epoch in which it stopped acting. It never acts in one again: what it forgot then, such as numbers of rounds, must
    /// not come a second time.
    lapsed: Epoch,
    /// Records are written in this epoch already, so a claim in it or below leads nothing.
    least: Epoch,
    /// Since when reads show nothing or an older claim than is known.
    older_since: Option<Duration>,
}

impl Contender {
    /// Of a node in one of its lives, which no other life of any node is named by.
    #[must_use]
    pub fn new(me: (u32, Epoch), patience: Duration, settings: Settings) -> Self {
        Self {
            settings,
            me,
            patience,
            revision: Revision::default(),
            seen: None,
            seen_at: None,
            writing: None,
            is_busy: false,
            must_read: false,
            next: Duration::ZERO,
            held: None,
            asked_at: Duration::ZERO,
            lapsed: 0,
            least: 0,
            older_since: None,
        }
    }

    /// The epoch that it acts in. It stops acting when it could not renew for as long as others wait, because that is pointless
    /// then, not because it would be wrong.
    #[must_use]
    pub fn holds(&self, now: Now) -> Option<Epoch> {
        let (claim, since) = self.held?;
        (now.mono < since + self.settings.takeover).then_some(claim.epoch)
    }

    /// A record was written in this epoch. Claims of that epoch or below are of use to nobody: the store has lost a later one.
    pub fn at_least(&mut self, epoch: Epoch) {
        self.least = self.least.max(epoch);
        if self.held.is_some_and(|(claim, _)| claim.epoch <= self.least) {
            self.lapse();
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) -> Option<Op<Record>> {
        if self.is_busy || now.mono < self.next {
            return None;
        }
        self.is_busy = true;
        self.check(now);
        if self.must_read {
            return Some(Op::Read);
        }
        if let Some((claim, _)) = self.held {
            let beat = self.seen.map_or(claim.beat, |seen| seen.beat).wrapping_add(1);
            return Some(self.write(Claim { beat, ..claim }, now));
        }
        let seen_at = *self.seen_at.get_or_insert(now.mono);
        // Its own claim that it gave up is nobody's.
        let others = self.seen.filter(|claim| claim.holder != self.me);
        let wait = others.map_or(self.patience, |_| self.settings.takeover + self.patience);
        if now.mono >= seen_at + wait {
            // After the last epoch that there is, nobody can take over any more.
            let last = self.seen.map_or(0, |claim| claim.epoch).max(self.least);
            if let Some(epoch) = last.checked_add(1) {
                return Some(self.write(Claim { epoch, holder: self.me, beat: 0 }, now));
            }
        }
        Some(Op::Read)
    }

    /// A claim that was not renewed in time is given up, also if the renewal succeeds later.
    fn check(&mut self, now: Now) {
        if self.held.is_some() && self.holds(now).is_none() {
            self.lapse();
        }
    }

    fn lapse(&mut self) {
        if let Some((claim, _)) = self.held.take() {
            self.lapsed = claim.epoch;
            self.must_read = true;
        }
    }

    fn write(&mut self, claim: Claim, now: Now) -> Op<Record> {
        self.writing = Some(claim);
        self.asked_at = now.mono;
        any(Op::Write { expected: self.revision, value: claim })
    }

    /// The store answers.
    pub fn answered(&mut self, answer: Answer<Record>, now: Now) {
        self.check(now);
        self.is_busy = false;
        let writing = self.writing.take();
        self.next = now.mono + self.settings.takeover / 10;
        match (one::<Claim>(answer), writing) {
            (Answer::Wrote(revision), Some(claim)) => {
                self.see(revision, Some(claim), now);
                if claim.epoch > self.lapsed {
                    self.held = Some((claim, now.mono));
                }
                self.next = now.mono + self.settings.renew;
            }
            (Answer::Read(revision, found), _) => self.see(revision, found, now),
            // Somebody else wrote, or this write may have landed: only reading the own name says which.
            _ => {
                self.must_read = true;
                self.next = now.mono + self.settings.backoff;
            }
        }
    }

    fn see(&mut self, revision: Revision, found: Option<Claim>, now: Now) {
        if revision < self.revision {
            // No server is behind for so long: the store was brought back to an older state. The next write says so for sure.
            let since = *self.older_since.get_or_insert(now.mono);
            if now.mono < since + 2 * self.settings.takeover {
                return;
            }
        }
        self.older_since = None;
        self.must_read = false;
        if let Some(before) = self.seen
            && found.is_none_or(|claim| claim.epoch < before.epoch)
        {
            // Claims were lost. What was written in their epochs is not.
            self.least = self.least.max(before.epoch);
        }
        if self.seen != found {
            self.seen = found;
            self.seen_at = Some(now.mono);
        }
        self.revision = revision;
        let Some(claim) = found else { return };
        let is_renewed = self.held.is_none_or(|(held, _)| claim.beat != held.beat);
        if claim.holder != self.me {
            self.lapse();
        } else if claim.epoch > self.lapsed && is_renewed {
            // A renewal whose answer was lost counts from when it was asked for.
            self.held = Some((claim, self.asked_at));
        }
    }
}
