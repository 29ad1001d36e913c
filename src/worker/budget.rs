//! What a capture may still take, shared by all workers. Owns the exactness of limits; not the decision to end a
//! capture, which is the engine's.
//!
//! Invariant: the packets and bytes granted over all workers never exceed the limits, and everything granted is used.

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

/// The shared budget of one capture.
///
/// Packets are reserved before bytes. A worker whose reserved packets the byte limit refuses gives them back to nobody: the capture
/// ends with that. So bytes are taken by frames that are appended alone, and `unused` falls to zero only when every packet of
/// the limit is appended: which of the two limits ended the capture does not depend on who looks first.
#[derive(Debug)]
pub struct Budget {
    /// Packets that nobody has reserved.
    packets: AtomicU64,
    /// Bytes that nobody has taken.
    bytes: AtomicU64,
    /// Of the packet limit, what is not appended. Kept if bytes are limited too; otherwise what is reserved is appended.
    unused: AtomicU64,
    ended: AtomicU64,
    limits: Limits,
}

/// What needs to be booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limits {
    None,
    Packets,
    Bytes,
    Both,
}

impl Budget {
    /// A budget of so many packets and captured frame bytes; `None` is without limit.
    #[must_use]
    pub fn new(packets: Option<u64>, bytes: Option<u64>) -> Self {
        Self {
            packets: AtomicU64::new(packets.unwrap_or(u64::MAX)),
            bytes: AtomicU64::new(bytes.unwrap_or(u64::MAX)),
            unused: AtomicU64::new(packets.unwrap_or(u64::MAX)),
            ended: AtomicU64::new(0),
            limits: match (packets, bytes) {
                (None, None) => Limits::None,
                (Some(_), None) => Limits::Packets,
                (None, Some(_)) => Limits::Bytes,
                (Some(_), Some(_)) => Limits::Both,
            },
        }
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

    fn take_limited(&self, asked: usize, lengths: impl Iterator<Item = u32> + Clone) -> usize {
        match self.limits {
            Limits::None => asked,
            Limits::Packets => self.take_packets(asked),
            Limits::Bytes => self.take_bytes(lengths.take(asked)),
            Limits::Both => {
                let packets = self.reserve_packets(asked).0;
                let frames = self.take_bytes(lengths.take(packets));
                if frames == packets
                    && self.unused.fetch_sub(frames as u64, Ordering::AcqRel) == frames as u64
                {
                    self.end(Ended::Packets);
                }
                frames
            }
        }
    }

    fn take_packets(&self, asked: usize) -> usize {
        let (packets, last) = self.reserve_packets(asked);
        if last || packets < asked {
            self.end(Ended::Packets);
        }
        packets
    }

    /// Reserves at most so many packets; returns how many, and whether none is left.
    fn reserve_packets(&self, asked: usize) -> (usize, bool) {
        let (packets, last) =
            take_from(&self.packets, |left| asked.min(usize::try_from(left).unwrap_or(asked)) as u64);
        (usize::try_from(packets).unwrap_or(0), last)
    }

    /// Takes the bytes of the first frames that fit; returns how many those are. One that does not fit ends the capture.
    fn take_bytes(&self, lengths: impl Iterator<Item = u32> + Clone) -> usize {
        let (mut frames, mut refused) = (0, false);
        take_from(&self.bytes, |left| {
            let mut sum = 0;
            (frames, refused) = (0, false);
            for length in lengths.clone() {
                let next = sum + u64::from(length);
                refused = next > left;
                if refused {
                    break;
                }
                sum = next;
                frames += 1;
            }
            sum
        });
        if refused {
            self.end(Ended::Bytes);
        }
        frames
    }
}

/// Takes `amount(left)` (at most `left`) in one update; returns it and whether nothing is left.
fn take_from(left: &AtomicU64, mut amount: impl FnMut(u64) -> u64) -> (u64, bool) {
    let mut seen = left.load(Ordering::Acquire);
    loop {
        let taken = amount(seen);
        match left.compare_exchange_weak(seen, seen - taken, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return (taken, seen == taken),
            Err(now) => seen = now,
        }
    }
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
