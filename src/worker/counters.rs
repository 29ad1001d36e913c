//! The counters of one queue: kept by its worker in plain memory, published between bursts. Owns their layout and the
//! two views of them.
//!
//! Invariant: in every published state `rx = unmatched + matched`, and for each slot
//! `matched = captured + no_block + limit + share + sampled`.

use super::sequence::Words;
use crate::limits::{CAPTURES_MAX, PUBLISH_BURSTS};

const QUEUE_WORDS: usize = 4;
const SLOT_WORDS: usize = 10;
const WORDS: usize = QUEUE_WORDS + CAPTURES_MAX * SLOT_WORDS;

/// What a queue delivered. Counts are frames unless named otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTotals {
    /// Received.
    pub rx: u64,
    /// Bytes of those, without FCS.
    pub rx_bytes: u64,
    /// Taken by no capture.
    pub unmatched: u64,
    /// Taken by at least one.
    pub matched: u64,
}

impl QueueTotals {
    /// Adds a burst of so many frames and bytes, of which captures took `matched`.
    #[inline]
    pub(super) fn add(&mut self, frames: u64, bytes: u64, matched: u64) {
        self.rx += frames;
        self.rx_bytes += bytes;
        self.matched += matched;
        self.unmatched += frames - matched;
    }
}

/// What a queue did for one capture. Counts are frames unless named otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotTotals {
    /// The capture's number; zero: the slot was never used.
    pub serial: u64,
    /// Received while the capture was attached.
    pub rx: u64,
    /// Of those, taken by its filter.
    pub matched: u64,
    /// Of those, appended.
    pub captured: u64,
    /// Frame bytes appended.
    pub captured_bytes: u64,
    /// Of `matched`: no free block.
    pub no_block: u64,
    /// Of `matched`: beyond the capture's limit.
    pub limit: u64,
    /// Of `matched`: beyond this host's share of a limit of several hosts.
    pub share: u64,
    /// Of `matched`: left out by sampling.
    pub sampled: u64,
}

/// The published counters of one queue.
#[derive(Debug, Default)]
pub struct QueueCounters {
    words: Words<WORDS>,
}

impl QueueCounters {
    /// The queue's totals.
    #[must_use]
    pub fn totals(&self) -> QueueTotals {
        self.words.read(|get| QueueTotals {
            rx: get(0),
            rx_bytes: get(1),
            unmatched: get(2),
            matched: get(3),
        })
    }

    /// What stands in a capture's slot. A capture that is attached sees every frame received up to this moment.
    #[must_use]
    pub fn slot(&self, slot: usize) -> SlotTotals {
        let base = QUEUE_WORDS + slot * SLOT_WORDS;
        self.words.read(|get| {
            let (from, to) = (get(base + 1), get(base + 2));
            SlotTotals {
                serial: get(base),
                rx: if to == u64::MAX { get(0) } else { to } - from,
                matched: get(base + 3),
                captured: get(base + 4),
                captured_bytes: get(base + 5),
                no_block: get(base + 6),
                limit: get(base + 7),
                sampled: get(base + 8),
                share: get(base + 9),
            }
        })
    }
}

/// One slot as its worker keeps it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub serial: u64,
    pub rx_from: u64,
    /// `u64::MAX` while attached.
    pub rx_to: u64,
    pub matched: u64,
    pub captured: u64,
    pub captured_bytes: u64,
    pub no_block: u64,
    pub limit: u64,
    pub share: u64,
    pub sampled: u64,
}

/// The counters as their worker keeps them.
#[derive(Debug)]
pub(super) struct LocalCounters {
    pub queue: QueueTotals,
    pub slots: [Slot; CAPTURES_MAX],
    /// Slots that changed since the last publication.
    changed: u64,
    /// Bursts since then.
    bursts: u32,
}

impl LocalCounters {
    pub fn new() -> Self {
        Self { queue: QueueTotals::default(), slots: [Slot::default(); CAPTURES_MAX], changed: 0, bursts: 0 }
    }

    /// A burst was counted, in the slots in the bit mask `changed`. Whether it is time to publish, which is so every
    /// [`PUBLISH_BURSTS`]th time.
    #[inline]
    pub fn counted(&mut self, changed: u64) -> bool {
        self.changed |= changed;
        self.bursts += 1;
        self.bursts >= PUBLISH_BURSTS
    }

    /// Whether everything counted is published.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.bursts == 0
    }

    /// Publishes the queue's totals, the slots in the bit mask `changed`, and those that were not published yet.
    pub fn publish(&mut self, to: &QueueCounters, changed: u64) {
        let mut touched = self.changed | changed;
        (self.changed, self.bursts) = (0, 0);
        to.words.publish(|p| {
            p.set(0, self.queue.rx);
            p.set(1, self.queue.rx_bytes);
            p.set(2, self.queue.unmatched);
            p.set(3, self.queue.matched);
            while touched != 0 {
                let index = touched.trailing_zeros() as usize;
                touched &= touched - 1;
                let (base, slot) = (QUEUE_WORDS + index * SLOT_WORDS, &self.slots[index]);
                let words = [
                    slot.serial,
                    slot.rx_from,
                    slot.rx_to,
                    slot.matched,
                    slot.captured,
                    slot.captured_bytes,
                    slot.no_block,
                    slot.limit,
                    slot.sampled,
                    slot.share,
                ];
                for (offset, word) in words.into_iter().enumerate() {
                    p.set(base + offset, word);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_published_when_bursts_are_many_and_when_none_comes() {
        let (mut local, published) = (LocalCounters::new(), QueueCounters::default());
        local.slots[5] = Slot { serial: 9, rx_to: u64::MAX, ..Slot::default() };
        for burst in 1..=u64::from(PUBLISH_BURSTS) + 1 {
            local.queue.rx = burst;
            local.slots[5].matched = burst;
            if local.counted(1 << 5) {
                local.publish(&published, 0);
            }
            let seen = published.slot(5);
            assert_eq!((seen.rx, seen.matched), (published.totals().rx, published.totals().rx));
            let whole = burst - burst % u64::from(PUBLISH_BURSTS);
            assert_eq!(seen.matched, whole, "after {burst} bursts");
        }
        assert!(!local.is_settled());
        local.publish(&published, 0);
        assert!(local.is_settled());
        assert_eq!((published.totals().rx, published.slot(5).matched), (local.queue.rx, local.queue.rx));
    }

    #[test]
    fn an_attached_slot_sees_every_frame_and_a_detached_one_no_more() {
        let (mut local, published) = (LocalCounters::new(), QueueCounters::default());
        local.queue.rx = 10;
        local.slots[3] = Slot { serial: 7, rx_from: 10, rx_to: u64::MAX, ..Slot::default() };
        local.publish(&published, 1 << 3);
        local.queue.rx = 25;
        local.publish(&published, 0);
        assert_eq!((published.slot(3).serial, published.slot(3).rx), (7, 15));
        local.slots[3].rx_to = 25;
        local.publish(&published, 1 << 3);
        local.queue.rx = 99;
        local.publish(&published, 0);
        assert_eq!((published.slot(3).rx, published.totals().rx), (15, 99));
    }
}
