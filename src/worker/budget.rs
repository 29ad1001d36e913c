//! What a capture may still take, shared by all workers. Owns the exactness of limits; not the decision to end a
//! capture, which is the engine's.
//!
//! A limit of several hosts is dealt in shares. A budget that is a share can be raised and lowered while workers take from it. One that
//! is used up is dry, not ended: frames find no share until more is granted, or until the engine ends it.
//!
//! Invariant: the packets and bytes given to all workers never exceed the limits, and everything given is used. Of a share, what was
//! granted is always what was given, what is left and what was reclaimed.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a budget gives nothing any more. The first reason stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Ended {
    /// The time limit is reached.
    Time = 1,
    /// The packet limit is reached.
    Packets = 2,
    /// The next frame would have passed the byte limit.
    Bytes = 3,
    /// The engine or the spool ended it.
    Revoked = 4,
}

impl Ended {
    fn from_word(word: u64) -> Option<Self> {
        [Self::Time, Self::Packets, Self::Bytes, Self::Revoked].into_iter().find(|&e| e as u64 == word)
    }
}

/// Bits of a word of bytes that belong to the bytes where packets are limited too; the bits above count appended packets. Packets
/// that are reserved and not yet appended are fewer than these can tell apart: at most a burst of each worker.
#[cfg(not(loom))]
pub(super) const BYTES_BITS: u32 = 50;
/// Few for the count, so that loom's small budgets let it come round.
#[cfg(loom)]
const BYTES_BITS: u32 = 62;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

/// The shared budget of one capture.
///
/// Packets are reserved before bytes. A worker whose reserved packets the byte limit refuses gives them back to nobody: the capture
/// ends with that. So bytes are taken by frames that are appended alone, and the packet limit is the reason only if every packet of
/// it is appended, in whatever order workers look. With both limits the word of the bytes also counts the appended packets: one update
/// takes bytes, counts, and shows whether it was the last.
#[derive(Debug)]
pub struct Budget {
    /// Packets that nobody has reserved.
    packets: AtomicU64,
    /// Bytes that nobody has taken; with both limits in the lower [`BYTES_BITS`] bits, and above them the count of appended packets,
    /// which comes to zero with the last packet of the limit.
    bytes: AtomicU64,
    ended: AtomicU64,
    /// Of a share: length of the smallest frame that found none, and one more; zero if each found some.
    refused: AtomicU64,
    limits: Limits,
}

/// Packets and captured frame bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What needs to be booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limits {
    None,
    Packets,
    Bytes,
    Both,
    /// A share of limits, in which each word is plain.
    Share,
}

impl Budget {
    /// A budget of so many packets and captured frame bytes; `None` is without limit. Beside a packet limit 1 PiB and more are
    /// no limit: a port of 100 Gbit/s does not deliver that in a day.
    #[must_use]
    pub fn new(packets: Option<u64>, bytes: Option<u64>) -> Self {
        let bytes = bytes.filter(|bytes| packets.is_none() || *bytes <= BYTES_MASK);
        let (limits, word) = match (packets, bytes) {
            (None, None) => (Limits::None, 0),
            (Some(_), None) => (Limits::Packets, 0),
            (None, Some(bytes)) => (Limits::Bytes, bytes),
            (Some(packets), Some(bytes)) => (Limits::Both, packets.wrapping_neg() << BYTES_BITS | bytes),
        };
        Self {
            packets: AtomicU64::new(packets.unwrap_or(u64::MAX)),
            bytes: AtomicU64::new(word),
            ended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            limits,
        }
    }

    /// A share of the limits of several hosts, with what is granted first.
    #[must_use]
    pub fn share(first: Share) -> Self {
        Self {
            packets: AtomicU64::new(first.packets),
            bytes: AtomicU64::new(first.bytes),
            ended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            limits: Limits::Share,
        }
    }

    /// Raises a share.
    pub fn grant(&self, more: Share) {
        for (word, more) in [(&self.packets, more.packets), (&self.bytes, more.bytes)] {
            let _always_some = word
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| Some(left.saturating_add(more)));
        }
    }

    /// Lowers a share to at most `keep`; returns by how much. What workers have reserved at this moment and do not use comes back to the
    /// share afterwards.
    #[must_use]
    pub fn reclaim(&self, keep: Share) -> Share {
        let lower = |word: &AtomicU64, keep: u64| {
            let lowered =
                word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| (left > keep).then_some(keep));
            lowered.map_or(0, |left| left - keep)
        };
        Share { packets: lower(&self.packets, keep.packets), bytes: lower(&self.bytes, keep.bytes) }
    }

    /// What is left of a share.
    #[must_use]
    pub fn left(&self) -> Share {
        Share { packets: self.packets.load(Ordering::Acquire), bytes: self.bytes.load(Ordering::Acquire) }
    }

    /// Captured length of the smallest frame that found no share since this was last asked, if one did not.
    #[must_use]
    pub fn refused(&self) -> Option<u64> {
        self.refused.swap(0, Ordering::AcqRel).checked_sub(1)
    }

    /// Whether a frame that it refuses now lacks a share, instead of being beyond a limit.
    #[must_use]
    pub fn lacks_share(&self) -> bool {
        self.limits == Limits::Share && self.ended().is_none()
    }

    /// Why it ended, once it has.
    #[inline]
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        match self.ended.load(Ordering::Acquire) {
            0 => None,
            word => Ended::from_word(word),
        }
    }

    /// Whether it ends by being used up.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limits != Limits::None
    }

    /// Ends it; only the first reason counts.
    pub fn end(&self, why: Ended) {
        let _an_earlier_reason_stays =
            self.ended.compare_exchange(0, why as u64, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Takes `asked` frames with these captured lengths from the budget, as many of the first ones as it still has;
    /// returns how many. The caller appends exactly those.
    #[inline]
    pub fn take(&self, asked: usize, lengths: impl Iterator<Item = u32> + Clone) -> usize {
        if self.ended().is_some() {
            0
        } else if self.limits == Limits::None {
            asked
        } else {
            self.take_limited(asked, lengths)
        }
    }

    #[inline]
    fn take_limited(&self, asked: usize, lengths: impl Iterator<Item = u32> + Clone) -> usize {
        match self.limits {
            Limits::None => asked,
            Limits::Packets => self.take_packets(asked),
            Limits::Bytes => self.take_bytes(lengths.take(asked)),
            Limits::Both => self.take_both(asked, lengths),
            Limits::Share => self.take_share(asked, lengths),
        }
    }

    #[inline]
    fn take_packets(&self, asked: usize) -> usize {
        let (packets, last) = self.reserve_packets(asked);
        if last || packets < asked {
            self.end(Ended::Packets);
        }
        packets
    }

    /// Reserves at most so many packets; returns how many, and whether none is left.
    #[inline]
    fn reserve_packets(&self, asked: usize) -> (usize, bool) {
        let mut seen = self.packets.load(Ordering::Acquire);
        loop {
            let taken = asked.min(usize::try_from(seen).unwrap_or(asked));
            let left = seen - taken as u64;
            match self.packets.compare_exchange_weak(seen, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (taken, left == 0),
                Err(now) => seen = now,
            }
        }
    }

    /// Takes the bytes of the first frames that fit; returns how many those are. One that does not fit ends the capture.
    #[inline]
    fn take_bytes(&self, lengths: impl Iterator<Item = u32> + Clone) -> usize {
        let (taken, whole) = self.reserve_bytes(lengths);
        if taken < whole {
            self.end(Ended::Bytes);
        }
        taken as usize
    }

    /// Takes the bytes of the first frames that fit; returns how many those are, and how many there were.
    #[inline]
    fn reserve_bytes(&self, lengths: impl Iterator<Item = u32> + Clone) -> (u64, u64) {
        let whole = sum(lengths.clone());
        let mut seen = self.bytes.load(Ordering::Acquire);
        loop {
            let taken = if whole.bytes <= seen { whole } else { fitting(lengths.clone(), seen) };
            let left = seen - taken.bytes;
            match self.bytes.compare_exchange_weak(seen, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (taken.frames, whole.frames),
                Err(now) => seen = now,
            }
        }
    }

    /// Takes the first frames that find a share. Packets whose bytes find none come back to the share, because it may be raised.
    fn take_share(&self, asked: usize, lengths: impl Iterator<Item = u32> + Clone) -> usize {
        let reserved = self.reserve_packets(asked).0;
        let taken = self.reserve_bytes(lengths.clone().take(reserved)).0 as usize;
        if taken < reserved {
            self.packets.fetch_add((reserved - taken) as u64, Ordering::AcqRel);
        }
        if taken < asked {
            self.refuse(lengths.skip(taken).min().unwrap_or_default());
        }
        taken
    }

    /// Notes that a frame of this length found no share.
    #[cold]
    fn refuse(&self, length: u32) {
        let noted = u64::from(length) + 1;
        let smaller = |before: u64| (before == 0 || noted < before).then_some(noted);
        let _a_smaller_one_stays = self.refused.fetch_update(Ordering::AcqRel, Ordering::Acquire, smaller);
    }

    /// Reserves packets, and takes the bytes of the first of them that fit.
    #[inline]
    fn take_both(&self, asked: usize, lengths: impl Iterator<Item = u32> + Clone) -> usize {
        let reserved = self.reserve_packets(asked).0;
        let lengths = lengths.take(reserved);
        let whole = sum(lengths.clone());
        let mut seen = self.bytes.load(Ordering::Acquire);
        let (taken, is_last) = loop {
            let left = seen & BYTES_MASK;
            let taken = if whole.bytes <= left { whole } else { fitting(lengths.clone(), left) };
            let word = seen.wrapping_add(taken.frames << BYTES_BITS) - taken.bytes;
            // Read before the update: were all packets reserved by then, only those of bursts that are under way are not appended,
            // and the count tells their number from none. Read after it, others might have reserved the last ones in between.
            let is_last = word >> BYTES_BITS == 0 && self.packets.load(Ordering::Acquire) == 0;
            match self.bytes.compare_exchange_weak(seen, word, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break (taken, is_last),
                Err(now) => seen = now,
            }
        };
        if taken.frames < whole.frames {
            self.end(Ended::Bytes);
        } else if is_last {
            self.end(Ended::Packets);
        }
        taken.frames as usize
    }
}

/// Frames and their captured bytes.
#[derive(Clone, Copy, Default)]
struct Sum {
    frames: u64,
    bytes: u64,
}

impl Sum {
    fn and(self, length: u32) -> Self {
        Self { frames: self.frames + 1, bytes: self.bytes + u64::from(length) }
    }
}

#[inline]
fn sum(lengths: impl Iterator<Item = u32>) -> Sum {
    lengths.fold(Sum::default(), Sum::and)
}

/// The first frames that fit into so many bytes.
#[cold]
fn fitting(mut lengths: impl Iterator<Item = u32>, bytes: u64) -> Sum {
    let fits = |sum: Sum, length| Some(sum.and(length)).filter(|more| more.bytes <= bytes).ok_or(sum);
    lengths.try_fold(Sum::default(), fits).unwrap_or_else(|sum| sum)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn take(budget: &Budget, lengths: &[u32]) -> usize {
        budget.take(lengths.len(), lengths.iter().copied())
    }

    #[test]
    fn the_last_packet_ends_it_and_no_more_is_given() {
        let budget = Budget::new(Some(5), None);
        assert_eq!(take(&budget, &[60; 3]), 3);
        assert_eq!(budget.ended(), None);
        assert_eq!(take(&budget, &[60; 3]), 2);
        assert_eq!(budget.ended(), Some(Ended::Packets));
        assert_eq!(take(&budget, &[60]), 0);
    }

    #[test]
    fn an_exactly_used_packet_limit_ends_it_at_once() {
        let budget = Budget::new(Some(3), Some(1 << 40));
        assert_eq!(take(&budget, &[60; 3]), 3);
        assert_eq!(budget.ended(), Some(Ended::Packets));
    }

    #[test]
    fn the_first_frame_that_does_not_fit_the_bytes_ends_it() {
        let budget = Budget::new(None, Some(250));
        assert_eq!(take(&budget, &[100, 100]), 2);
        assert_eq!(take(&budget, &[60, 10]), 0, "60 does not fit, so 10 comes too late");
        assert_eq!(budget.ended(), Some(Ended::Bytes));
    }

    #[test]
    fn with_both_limits_the_one_that_is_reached_is_the_reason() {
        let packets = Budget::new(Some(3), Some(240));
        assert_eq!(take(&packets, &[60; 5]), 3);
        assert_eq!(packets.ended(), Some(Ended::Packets));
        let bytes = Budget::new(Some(5), Some(239));
        assert_eq!((take(&bytes, &[60; 2]), bytes.ended()), (2, None));
        assert_eq!(take(&bytes, &[60; 5]), 1);
        assert_eq!(bytes.ended(), Some(Ended::Bytes));
        let none = Budget::new(Some(0), Some(100));
        assert_eq!((take(&none, &[60]), none.ended()), (0, Some(Ended::Packets)));
    }

    #[test]
    fn beside_a_packet_limit_the_largest_byte_limit_counts_exactly_and_one_beyond_it_is_none() {
        let largest = BYTES_MASK;
        let budget = Budget::new(Some(10), Some(largest));
        assert_eq!((take(&budget, &[u32::MAX; 3]), budget.ended()), (3, None));
        assert_eq!(budget.bytes.load(Ordering::Relaxed) & BYTES_MASK, largest - 3 * u64::from(u32::MAX));
        for bytes in [largest + 1, u64::MAX] {
            let budget = Budget::new(Some(3), Some(bytes));
            assert_eq!((take(&budget, &[u32::MAX; 4]), budget.ended()), (3, Some(Ended::Packets)));
        }
    }

    #[test]
    fn the_count_of_appended_packets_comes_round_and_the_last_one_still_ends_it() {
        let round = 1 << (u64::BITS - BYTES_BITS);
        for limit in [round, 3 * round + 5] {
            let budget = Budget::new(Some(limit), Some(limit * 60));
            let mut taken = 0;
            while budget.ended().is_none() {
                taken += take(&budget, &[60; 7]) as u64;
                assert!(budget.ended().is_none() || taken == limit, "{taken} of {limit}");
            }
            assert_eq!((taken, budget.ended()), (limit, Some(Ended::Packets)));
        }
    }

    #[test]
    fn many_workers_together_end_with_the_limit_that_stopped_them() {
        let rounds = if cfg!(miri) { 3 } else { 2000 };
        for round in 0..rounds {
            // By turns the last frame is the last packet, or one more would be, but does not fit.
            let fits = round % 2 == 0;
            let budget = Arc::new(Budget::new(Some(24), Some(if fits { 24 * 60 } else { 24 * 60 - 1 })));
            let threads: Vec<_> = (1..=3_usize)
                .map(|burst| {
                    let budget = Arc::clone(&budget);
                    std::thread::spawn(move || {
                        let mut mine = 0;
                        while budget.ended().is_none() {
                            mine += take(&budget, &vec![60; burst * 3]);
                        }
                        mine
                    })
                })
                .collect();
            let taken = threads.into_iter().map(|t| t.join().unwrap()).sum::<usize>();
            let expected = if fits { (24, Ended::Packets) } else { (23, Ended::Bytes) };
            assert_eq!((taken, budget.ended()), (expected.0, Some(expected.1)), "round {round}");
        }
    }

    #[test]
    fn without_limits_only_an_end_refuses() {
        let budget = Budget::new(None, None);
        assert_eq!(take(&budget, &[9000; 64]), 64);
        budget.end(Ended::Revoked);
        budget.end(Ended::Time);
        assert_eq!((take(&budget, &[1]), budget.ended()), (0, Some(Ended::Revoked)));
    }

    #[test]
    fn a_share_that_is_used_up_is_dry_until_more_is_granted_and_ends_only_when_told() {
        let budget = Budget::share(Share { packets: 3, bytes: 150 });
        assert_eq!((take(&budget, &[60; 2]), budget.refused()), (2, None));
        assert_eq!(take(&budget, &[60, 40]), 0, "30 bytes are left");
        assert_eq!(budget.left(), Share { packets: 1, bytes: 30 }, "the packet came back");
        assert_eq!((budget.refused(), budget.refused()), (Some(40), None));
        assert!(budget.ended().is_none() && budget.lacks_share());
        budget.grant(Share { packets: 0, bytes: 100 });
        assert_eq!((take(&budget, &[60, 10]), budget.refused()), (1, Some(10)), "one packet was left");
        budget.grant(Share { packets: u64::MAX, bytes: u64::MAX });
        assert_eq!(take(&budget, &[60; 4]), 4);
        budget.end(Ended::Packets);
        assert_eq!((take(&budget, &[60]), budget.ended()), (0, Some(Ended::Packets)));
        assert!(!budget.lacks_share(), "beyond the limit of all");
    }

    #[test]
    fn what_is_reclaimed_is_what_is_more_than_may_stay() {
        let budget = Budget::share(Share { packets: 10, bytes: 1000 });
        let lowered = budget.reclaim(Share { packets: 4, bytes: 2000 });
        assert_eq!(
            (lowered, budget.left()),
            (Share { packets: 6, bytes: 0 }, Share { packets: 4, bytes: 1000 })
        );
        assert_eq!(budget.reclaim(Share::default()), Share { packets: 4, bytes: 1000 });
        assert_eq!((take(&budget, &[0]), budget.refused()), (0, Some(0)));
    }

    #[test]
    fn many_workers_and_who_grants_and_reclaims_account_for_everything() {
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        let budget = Arc::new(Budget::share(Share::default()));
        let workers: Vec<_> = (1..=3_usize)
            .map(|burst| {
                let budget = Arc::clone(&budget);
                std::thread::spawn(move || {
                    let mut used = Share::default();
                    while budget.ended().is_none() {
                        let frames = take(&budget, &vec![60; burst * 3]) as u64;
                        used = Share { packets: used.packets + frames, bytes: used.bytes + 60 * frames };
                    }
                    used
                })
            })
            .collect();
        let (mut granted, mut returned) = (Share::default(), Share::default());
        let add = |to: &mut Share, more: Share| {
            *to = Share { packets: to.packets + more.packets, bytes: to.bytes + more.bytes };
        };
        for round in 0..rounds {
            let more = Share { packets: round % 7, bytes: (round % 11) * 50 };
            add(&mut granted, more);
            budget.grant(more);
            if round % 5 == 0 {
                add(&mut returned, budget.reclaim(Share { packets: round % 3, bytes: 100 }));
            }
        }
        budget.end(Ended::Revoked);
        for worker in workers {
            add(&mut returned, worker.join().unwrap());
        }
        add(&mut returned, budget.left());
        assert_eq!(granted, returned);
    }

    #[test]
    fn many_workers_together_take_exactly_the_limit() {
        let limit = if cfg!(miri) { 100 } else { 100_000 };
        let budget = Arc::new(Budget::new(Some(limit), None));
        let threads: Vec<_> = (1..=4_usize)
            .map(|burst| {
                let budget = Arc::clone(&budget);
                std::thread::spawn(move || {
                    let mut mine = 0;
                    while budget.ended().is_none() {
                        mine += take(&budget, &vec![60; burst * 7]) as u64;
                    }
                    mine
                })
            })
            .collect();
        assert_eq!(threads.into_iter().map(|t| t.join().unwrap()).sum::<u64>(), limit);
    }
}
