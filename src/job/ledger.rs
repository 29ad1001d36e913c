//! The counts of one capture and the equations that they must obey. Owns the arithmetic; the counters live in `worker`.
//!
//! Invariant: [`Ledger::check`] holds at every moment that a ledger is read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Frames that the ports lost before a worker could see them, over the time that the capture was attached, as far as their drivers
/// can vouch for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDrops {
    /// No free RX descriptor (`rte_eth_stats.imissed`).
    pub imissed: u64,
    /// No free mbuf (`rte_eth_stats.rx_nombuf`), of drivers that lose a frame by that.
    pub rx_nombuf: u64,
    /// Frames received with an error (`rte_eth_stats.ierrors`), of drivers that deliver no such frame.
    pub ierrors: u64,
    /// Lost by other counters of the driver.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub discarded: u64,
    /// What the drivers count beside; in no sum.
    #[serde(default, skip_serializing_if = "Unclear::is_zero")]
    pub unclear: Unclear,
    /// Times that a port's device was gone or reset. What came meanwhile is in no count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gaps: u64,
    /// How long that was, all of it and of all ports.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gap_ms: u64,
    /// A port does not count all that it loses, was away, or could not be read: more frames may be lost than are counted here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
}

/// Counts of drivers for which they are not, or not only, lost frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unclear {
    /// Times that no mbuf was free to refill a queue with.
    pub rx_nombuf: u64,
    /// Frames that the driver calls damaged, of which some may have been delivered.
    pub ierrors: u64,
}

impl Unclear {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// Matching frames that are not in the files, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// No free block: the writers did not keep up.
    pub no_block: u64,
    /// The capture's own time, packet or byte limit.
    pub limit: u64,
    /// A fleet's limit was not reached, and this host's share of it was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub share: u64,
    /// Left out by sampling.
    pub sampled: u64,
    /// The spool's quota was used up or the disk was full.
    pub spool: u64,
    /// A disk error.
    pub io: u64,
    /// Captured, and not yet on the disk when the process died.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interrupted: u64,
}

impl PortDrops {
    /// The sum of all causes.
    #[must_use]
    pub fn total(&self) -> u64 {
        sum(&[self.imissed, self.rx_nombuf, self.ierrors, self.discarded])
    }

    /// What was lost since an earlier reading.
    #[must_use]
    pub fn since(self, then: Self) -> Self {
        Self {
            imissed: self.imissed.saturating_sub(then.imissed),
            rx_nombuf: self.rx_nombuf.saturating_sub(then.rx_nombuf),
            ierrors: self.ierrors.saturating_sub(then.ierrors),
            discarded: self.discarded.saturating_sub(then.discarded),
            unclear: Unclear {
                rx_nombuf: self.unclear.rx_nombuf.saturating_sub(then.unclear.rx_nombuf),
                ierrors: self.unclear.ierrors.saturating_sub(then.unclear.ierrors),
            },
            gaps: self.gaps.saturating_sub(then.gaps),
            gap_ms: self.gap_ms.saturating_sub(then.gap_ms),
            uncounted: self.uncounted || then.uncounted || self.gaps > then.gaps,
        }
    }

    /// What the owner of a capture must know of its ports.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (self.gap_ms > 0 || self.gaps > 0).then(|| {
            format!(
                "a port of this host was away for {:.1} s while this capture ran: what came meanwhile is missing and in no count",
                self.gap_ms as f64 / 1e3
            )
        })
    }
}

impl Dropped {
    /// The causes, by their names in the API.
    pub const CAUSES: [&'static str; 7] =
        ["no_block", "limit", "sampled", "spool", "io", "interrupted", "share"];

    /// The count of each cause, in the order of [`Self::CAUSES`].
    #[must_use]
    pub fn counts(&self) -> [u64; Self::CAUSES.len()] {
        let Self { no_block, limit, sampled, spool, io, interrupted, share } = *self;
        [no_block, limit, sampled, spool, io, interrupted, share]
    }

    /// The sum of all causes.
    #[must_use]
    pub fn total(&self) -> u64 {
        sum(&self.counts())
    }

    /// The sum of the causes that are against the customer's will: all but limits and sampling.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let Self { no_block, spool, io, interrupted, share, limit: _, sampled: _ } = *self;
        sum(&[no_block, spool, io, interrupted, share])
    }
}

/// A sum that stays at the largest number: a damaged record or a foreign manifest may claim any counts.
fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Everything that was counted for one capture. Counts are frames unless named otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Frames that the ports vouch for: `rx` and what `port` counts as lost. More came if `port.uncounted`.
    pub offered: u64,
    /// Lost in the ports.
    pub port: PortDrops,
    /// Frames that the workers received while the capture was attached.
    pub rx: u64,
    /// Of `rx`: not taken by the filter.
    pub unmatched: u64,
    /// Of `rx`: taken by the filter.
    pub matched: u64,
    /// Of `matched`: in the files.
    pub captured: u64,
    /// Frame bytes in the files, without pcap headers.
    pub captured_bytes: u64,
    /// Of `matched`: not in the files.
    pub dropped: Dropped,
}

/// An equation that does not hold: a bug of ours, never the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the counters do not agree: {equation}: {left} is not {right}")]
pub struct Imbalance {
    /// The equation, in words.
    pub equation: &'static str,
    /// Its left side.
    pub left: u64,
    /// Its right side, which may be more than a count can be.
    pub right: u128,
}

impl Ledger {
    /// The ledger of a capture whose process died: its last known counts, held against `packets` of `bytes` frame bytes
    /// that are in the files. What was counted and is not there is lost; what is there and was not counted was received. What
    /// came after the last count and was lost with the memory is in no count, so `dropped.interrupted` is at least as much.
    ///
    /// What the disk did not let the dead process keep was counted as lost, and may be there all the same: a segment that it
    /// gave up is published by the recovery. So what is there beyond the count comes out of what was lost to the disk first,
    /// and no packet is counted twice.
    #[must_use]
    pub fn recovered(mut self, packets: u64, bytes: u64) -> Self {
        let (mut more, fewer) =
            (packets.saturating_sub(self.captured), self.captured.saturating_sub(packets));
        for lost in [&mut self.dropped.io, &mut self.dropped.spool] {
            let back = more.min(*lost);
            *lost -= back;
            more -= back;
        }
        for count in [&mut self.offered, &mut self.rx, &mut self.matched] {
            *count = count.saturating_add(more);
        }
        self.dropped.interrupted = self.dropped.interrupted.saturating_add(fewer);
        (self.captured, self.captured_bytes) = (packets, bytes);
        self
    }

    /// Frames that were lost against the customer's will: in ports, or for any cause but limits and sampling.
    #[must_use]
    pub fn lost(&self) -> u64 {
        sum(&[self.port.total(), self.dropped.lost()])
    }

    /// Whether it is known that nothing was lost.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lost() == 0 && !self.port.uncounted
    }

    /// The counts of two hosts. Sums of ledgers that balance balance too.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (port, more) = (self.port, other.port);
        let (dropped, also) = (self.dropped, other.dropped);
        let add = u64::saturating_add;
        Self {
            offered: add(self.offered, other.offered),
            port: PortDrops {
                imissed: add(port.imissed, more.imissed),
                rx_nombuf: add(port.rx_nombuf, more.rx_nombuf),
                ierrors: add(port.ierrors, more.ierrors),
                discarded: add(port.discarded, more.discarded),
                unclear: Unclear {
                    rx_nombuf: add(port.unclear.rx_nombuf, more.unclear.rx_nombuf),
                    ierrors: add(port.unclear.ierrors, more.unclear.ierrors),
                },
                gaps: add(port.gaps, more.gaps),
                gap_ms: add(port.gap_ms, more.gap_ms),
                uncounted: port.uncounted || more.uncounted,
            },
            rx: add(self.rx, other.rx),
            unmatched: add(self.unmatched, other.unmatched),
            matched: add(self.matched, other.matched),
            captured: add(self.captured, other.captured),
            captured_bytes: add(self.captured_bytes, other.captured_bytes),
            dropped: Dropped {
                no_block: add(dropped.no_block, also.no_block),
                limit: add(dropped.limit, also.limit),
                share: add(dropped.share, also.share),
                sampled: add(dropped.sampled, also.sampled),
                spool: add(dropped.spool, also.spool),
                io: add(dropped.io, also.io),
                interrupted: add(dropped.interrupted, also.interrupted),
            },
        }
    }

    /// Holds the ledger against its equations.
    ///
    /// # Errors
    /// The first equation that does not hold, with both sides.
    pub fn check(&self) -> Result<(), Imbalance> {
        // Wider than a count: a foreign manifest's may not agree by overflowing.
        let sum = |counts: &[u64]| counts.iter().copied().map(u128::from).sum::<u128>();
        let PortDrops { imissed, rx_nombuf, ierrors, discarded, .. } = self.port;
        let dropped = sum(&self.dropped.counts());
        for (equation, left, right) in [
            (
                "offered = rx + imissed + rx_nombuf + ierrors + discarded",
                self.offered,
                sum(&[self.rx, imissed, rx_nombuf, ierrors, discarded]),
            ),
            ("rx = unmatched + matched", self.rx, sum(&[self.unmatched, self.matched])),
            ("matched = captured + dropped", self.matched, sum(&[self.captured]) + dropped),
        ] {
            if u128::from(left) != right {
                return Err(Imbalance { equation, left, right });
            }
        }
        Ok(())
    }
}

/// A running or ended capture's view for people: what `GET …/progress` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The capture.
    pub id: super::CaptureId,
    /// Its state.
    pub status: super::Status,
    /// Why it stopped taking packets, once it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<super::StopReason>,
    /// Its counts up to now.
    pub ledger: Ledger,
    /// Seconds until the time limit; zero once the capture stopped.
    pub seconds_left: f64,
    /// The packet limit, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet_limit: Option<u64>,
    /// The byte limit, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte_limit: Option<u64>,
    /// When it began to take packets. Of a look back: where its window begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it took no more packets. Of a look back: where its window ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Objects that are complete in the bucket; those of the range that was asked for.
    pub objects: Vec<super::ObjectInfo>,
    /// All objects that are complete in the bucket.
    #[serde(default)]
    pub delivered: ObjectSums,
    /// What an operator should know: an upload that is being tried again, a spool that fills up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// One in so many packets is considered; every one if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_one_in: Option<u32>,
    /// Steps of the wall clock while it took packets, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_steps: Option<super::ClockSteps>,
    /// What of it and of its account is on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<OnSpool>,
}

/// A capture's complete objects, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectSums {
    /// How many they are.
    pub objects: u64,
    /// Their sizes.
    pub bytes: u64,
    /// The packets in them.
    pub packets: u64,
}

impl ObjectSums {
    /// These objects.
    #[must_use]
    pub fn of(objects: &[super::ObjectInfo]) -> Self {
        let mut sums = Self::default();
        objects.iter().for_each(|object| sums.add(object));
        sums
    }

    /// Adds one more.
    pub fn add(&mut self, object: &super::ObjectInfo) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(object.bytes);
        self.packets = self.packets.saturating_add(object.packets);
    }
}

/// Which of a capture's objects a progress lists: a capture of a day may have hundreds of thousands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRange {
    /// The number of the first one, from 0.
    pub from: usize,
    /// At most so many.
    pub count_max: usize,
}

impl ObjectRange {
    /// All of them.
    pub const ALL: Self = Self { from: 0, count_max: usize::MAX };

    /// Those of `objects` that are in the range.
    #[must_use]
    pub fn of<'a>(&self, objects: &'a [super::ObjectInfo]) -> &'a [super::ObjectInfo] {
        let rest = objects.get(self.from..).unwrap_or_default();
        rest.get(..self.count_max).unwrap_or(rest)
    }
}

/// What is on a host's spool, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnSpool {
    /// Of this capture, in whole segments: written, and not yet free again.
    pub held_bytes: u64,
    /// Of its account.
    pub account_held_bytes: u64,
    /// The most that an account may have.
    pub account_bytes_max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovered_ledger_balances_whether_more_or_fewer_packets_are_found_than_were_counted() {
        let known = Ledger { offered: 9, rx: 9, unmatched: 4, matched: 5, captured: 5, ..Ledger::default() };
        for packets in [0, 3, 5, 8] {
            let ledger = known.recovered(packets, 100);
            assert_eq!(ledger.check(), Ok(()));
            assert_eq!(
                (ledger.captured, ledger.dropped.interrupted),
                (packets, 5_u64.saturating_sub(packets))
            );
        }
    }

    #[test]
    fn what_came_after_the_last_count_and_was_lost_in_memory_is_in_no_count() {
        let counted = Ledger { offered: 5000, rx: 5000, matched: 5000, captured: 5000, ..Ledger::default() };
        // Eight more came; then the process died with 648 in memory.
        let (after, in_memory) = (8, 648);
        let ledger = counted.recovered(5000 + after - in_memory, 0);
        assert_eq!((ledger.check(), ledger.dropped.interrupted), (Ok(()), in_memory - after));
    }

    #[test]
    fn what_was_counted_as_lost_and_is_there_all_the_same_is_counted_once() {
        let mut known =
            Ledger { offered: 9, rx: 9, unmatched: 1, matched: 8, captured: 3, ..Ledger::default() };
        (known.dropped.io, known.dropped.spool, known.dropped.no_block) = (2, 2, 1);
        // Found; lost to the disk, and received beyond the count.
        for (found, io, spool, more) in [(3, 2, 2, 0), (4, 1, 2, 0), (6, 0, 1, 0), (7, 0, 0, 0), (9, 0, 0, 2)]
        {
            let ledger = known.recovered(found, 0);
            assert_eq!(ledger.check(), Ok(()));
            let counts = (ledger.captured, ledger.dropped.io, ledger.dropped.spool, ledger.matched - 8);
            assert_eq!(counts, (found, io, spool, more), "{found} found");
            assert_eq!((ledger.dropped.no_block, ledger.dropped.interrupted), (1, 0));
        }
    }

    #[test]
    fn counts_that_nobody_can_have_counted_are_an_imbalance_and_no_overflow() {
        let all = u64::MAX;
        let dropped = Dropped {
            no_block: all,
            limit: all,
            share: all,
            sampled: all,
            spool: all,
            io: all,
            interrupted: all,
        };
        let port = PortDrops { imissed: all, rx_nombuf: all, ierrors: all, ..PortDrops::default() };
        let largest = Ledger {
            offered: all,
            port,
            rx: all,
            unmatched: all,
            matched: all,
            captured: all,
            captured_bytes: all,
            dropped,
        };
        let imbalance = largest.check().unwrap_err();
        assert_eq!((imbalance.left, imbalance.right), (all, 4 * u128::from(all)));
        // Each of these would agree in 64 bits.
        let port_wraps = PortDrops { imissed: all, rx_nombuf: 1, ..PortDrops::default() };
        let dropped_wraps = Dropped { io: all, spool: 1, ..Dropped::default() };
        assert!(Ledger { port: port_wraps, ..Ledger::default() }.check().is_err());
        assert!(Ledger { dropped: dropped_wraps, ..Ledger::default() }.check().is_err());
        assert_eq!((largest.lost(), dropped.total(), port.total()), (all, all, all));
        for packets in [0, all] {
            let _no_overflow = (largest.recovered(packets, all), Ledger::default().recovered(packets, 0));
        }
    }

    #[test]
    fn a_port_that_does_not_count_its_losses_makes_no_ledger_whole() {
        let mut ledger = Ledger { offered: 9, rx: 9, matched: 9, captured: 9, ..Ledger::default() };
        assert!(ledger.is_whole());
        ledger.port.uncounted = true;
        assert_eq!((ledger.check(), ledger.lost(), ledger.is_whole()), (Ok(()), 0, false));
        // Also after the process died: it is a count like others.
        assert!(!ledger.recovered(9, 0).is_whole());
        let json = serde_json::to_string(&ledger.port).unwrap();
        assert!(serde_json::from_str::<PortDrops>(&json).unwrap().uncounted);
    }

    #[test]
    fn what_a_driver_counts_without_losing_it_is_told_and_in_no_sum() {
        let unclear = Unclear { rx_nombuf: 32, ierrors: 4 };
        let port = PortDrops { unclear, discarded: 3, ..PortDrops::default() };
        let ledger = Ledger { offered: 12, rx: 9, matched: 9, captured: 9, port, ..Ledger::default() };
        assert_eq!((ledger.check(), ledger.lost()), (Ok(()), 3));
        let earlier = PortDrops { discarded: 1, uncounted: true, ..PortDrops::default() };
        let since = port.since(earlier);
        assert_eq!((since.total(), since.unclear, since.uncounted), (2, unclear, true));
    }

    #[test]
    fn a_lost_packet_is_named_with_its_equation() {
        let mut ledger =
            Ledger { offered: 10, rx: 9, unmatched: 4, matched: 5, captured: 5, ..Ledger::default() };
        ledger.port.imissed = 1;
        assert_eq!(ledger.check(), Ok(()));
        ledger.captured = 4;
        let imbalance = ledger.check().unwrap_err();
        assert_eq!((imbalance.left, imbalance.right), (5, 4));
        ledger.dropped.no_block = 1;
        assert_eq!(ledger.check(), Ok(()));
    }
}
