//! A worker's assignment: the program and the attached captures. Owns the data; the engine makes it, the worker runs it.
//!
//! Invariant: the attached slots are exactly those that the program evaluates, and the sampled ones.

use super::time::{HostTime, Time};
use super::{Budget, Ended, Sample};
use crate::block::Payer;
use crate::limits::CAPTURES_MAX;
use crate::matcher::{Bits, Filter, PrefixSet, Program};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From when to when a capture takes packets, by the monotonic clock; and what the wall clock said at its beginning. All its
/// queues stamp its packets in that time: their stamps agree with each other, and never go back when the
/// wall clock is set.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub(super) began: Instant,
    pub(super) began_ns: u64,
    ends: Option<Instant>,
}

impl Window {
    /// From now on for so long; without an end if `limit` is none.
    #[must_use]
    pub fn open(limit: Option<Duration>) -> Self {
        Self::opened_by(&HostTime, limit)
    }

    pub(super) fn opened_by(time: &impl Time, limit: Option<Duration>) -> Self {
        let (began, began_ns) = (time.moment(), time.wall_ns());
        Self { began, began_ns, ends: limit.and_then(|limit| began.checked_add(limit)) }
    }

    /// Its end, if it has one: frames received at or after this moment are beyond the time limit.
    #[must_use]
    pub fn ends(&self) -> Option<Instant> {
        self.ends
    }
}

/// One capture's part in the work.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Number of the capture in this process's life; never reused, never zero.
    pub serial: u64,
    /// Whose blocks it takes.
    pub payer: Payer,
    /// Bytes kept of each frame.
    pub snaplen: u32,
    /// When its packets are taken.
    pub window: Window,
    /// Its remaining packets and bytes.
    pub budget: Arc<Budget>,
    /// Keeps one in so many matching frames; all when none.
    pub sample: Option<Sample>,
    /// Age at which its segments are cut; the common one if none.
    pub rotate: Option<Duration>,
}

/// A capture in its slot, as the engine wants it.
#[derive(Clone, Debug)]
pub struct Assigned<'a> {
    /// Below [`CAPTURES_MAX`], and unique.
    pub slot: usize,
    /// Its filter.
    pub filter: &'a Filter,
    /// The prefixes that its account may see; every packet if none.
    pub scope: Option<&'a Arc<PrefixSet>>,
    /// The rest of it.
    pub attachment: Attachment,
}

/// One worker's work, whole: a new one replaces the old one between two bursts and the old one goes back to the engine.
#[derive(Debug)]
pub struct Work {
    /// Counts up with every change, and identifies the work when it comes back.
    pub generation: u64,
    /// The filters of all but the sampled slots.
    pub(super) program: Program,
    /// The serial in each slot.
    pub(super) attachments: [Option<Attachment>; CAPTURES_MAX],
    /// All attached slots.
    attached: u64,
    /// Slots of captures that sample all packets. A packet is skipped without looking at it, so these are not in the program.
    pub(super) sampled: u64,
    /// Accounts over which the worker deals its blocks; as many as before if none.
    pub(super) accounts: Option<usize>,
}

impl Work {
    /// No capture.
    #[must_use]
    pub fn idle(generation: u64) -> Self {
        Self::new(generation, Vec::new())
    }

    /// These captures.
    ///
    /// # Panics
    /// If a slot is not below [`CAPTURES_MAX`] or is given twice: only a bug of the caller does that.
    #[must_use]
    pub fn new(generation: u64, captures: Vec<Assigned<'_>>) -> Self {
        let (mut filters, mut attached, mut sampled) = (Vec::new(), 0_u64, 0_u64);
        let mut attachments = [const { None }; CAPTURES_MAX];
        for Assigned { slot, filter, scope, attachment } in captures {
            assert!(attached & 1 << slot == 0, "slot {slot} is given twice");
            attached |= 1 << slot;
            if filter.takes_everything() && scope.is_none() && attachment.sample.is_some() {
                sampled |= 1 << slot;
            } else {
                filters.push((slot, filter, scope));
            }
            attachments[slot] = Some(attachment);
        }
        Self {
            generation,
            program: Program::compile(&filters),
            attachments,
            attached,
            sampled,
            accounts: None,
        }
    }

    /// The same on a host of so many accounts.
    #[must_use]
    pub fn for_accounts(self, accounts: usize) -> Self {
        Self { accounts: Some(accounts), ..self }
    }

    /// All attached slots, ascending.
    pub(super) fn slots(&self) -> Bits {
        Bits(self.attached)
    }

    /// The slots, one bit each, whose captures are over at this moment, and when the time of the next one ends. A capture whose
    /// time has come is ended.
    pub(super) fn over(&self, now: Instant) -> (u64, Option<Instant>) {
        let (mut over, mut next_end) = (0, None);
        for slot in self.slots() {
            let Some(attachment) = &self.attachments[slot] else { continue };
            let end = attachment.window.ends;
            if end.is_some_and(|end| now >= end) {
                attachment.budget.end(Ended::Time);
            }
            if attachment.budget.ended().is_some() {
                over |= 1 << slot;
            } else {
                next_end = [next_end, end].into_iter().flatten().min();
            }
        }
        (over, next_end)
    }

    /// What is kept of a slot's packets; none: all of them.
    pub(super) fn sample(&self, slot: usize) -> Option<Sample> {
        self.attachments[slot].as_ref().and_then(|a| a.sample)
    }

    /// The snap length of a slot, if its frames are neither sampled nor limited in number or bytes.
    pub(super) fn plain(&self, slot: usize) -> Option<u32> {
        let attachment = self.attachments[slot].as_ref();
        attachment.filter(|a| a.sample.is_none() && !a.budget.is_limited()).map(|a| a.snaplen)
    }

    /// The number in a slot, zero if it is empty.
    #[must_use]
    pub fn serial(&self, slot: usize) -> u64 {
        self.attachments[slot].as_ref().map_or(0, |a| a.serial)
    }
}
