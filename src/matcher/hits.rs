//! What the packets of one burst matched. Owns the row of match bits, by slot.
//!
//! Invariant: the word of a slot is zero unless its bit is set in `slots`, so that a burst costs what it hits, not what is
//! attached.

use super::Bits;
use crate::limits::CAPTURES_MAX;

/// From so many words on the whole row is cleared, which is a few wide stores.
const FEW: u32 = 8;

/// By slot, the packets of the latest burst that match; made once and used for every burst.
#[derive(Clone, Debug)]
pub struct Hits {
    /// Slots whose words may be other than zero.
    pub(super) slots: u64,
    by_slot: [u64; CAPTURES_MAX],
}

impl Default for Hits {
    fn default() -> Self {
        Self { slots: 0, by_slot: [0; CAPTURES_MAX] }
    }
}

impl Hits {
    /// One bit for each packet that matches the filter in this slot.
    #[inline]
    #[must_use]
    pub fn of(&self, slot: usize) -> u64 {
        self.by_slot[slot]
    }

    /// Every slot that a packet matches, with its packets; ascending.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        Bits(self.slots).map(|slot| (slot, self.by_slot[slot])).filter(|(_, packets)| *packets != 0)
    }

    /// The packets that match at least one filter.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.iter().fold(0, |all, (_, packets)| all | packets)
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        if self.slots.count_ones() > FEW {
            self.by_slot.fill(0);
        } else {
            for slot in Bits(self.slots) {
                self.by_slot[slot] = 0;
            }
        }
        self.slots = 0;
    }

    #[inline]
    pub(super) fn add(&mut self, slot: usize, packets: u64) {
        self.slots |= 1 << slot;
        self.by_slot[slot] |= packets;
    }

    /// Leaves a slot those of its packets that are in `admitted` too.
    pub(super) fn keep(&mut self, slot: usize, admitted: u64) {
        self.by_slot[slot] &= admitted;
    }
}
