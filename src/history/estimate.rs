//! How many packets a filter would have taken in the last seconds, from the sample of them. Owns the window, the bound on what is
//! read, and the interval; not who may ask, nor how often (`engine`).
//!
//! A packet is in the history with probability 1/N, independent of all others (`worker::Sampler`). Of n packets k are seen,
//! which is binomial, so n is about kN. The interval is Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, 209–212)
//! with a continuity correction (R. G. Newcombe, Statistics in Medicine 17, 1998, 857–872), solved for n. With q = 1 - 1/N:
//!
//! ```text
//! N (x + z²q/2 ± z √(q (x + z²q/4))),   x = k - 1/2 below and k + 1/2 above,   z = 1.96
//! ```
//!
//! It has the true n in at least 95 of 100 samples. Where nothing was seen there is an upper bound alone, at 95 %: ln 0.05 / ln q, which
//! is about 3N (J. A. Hanley, A. Lippman-Hand, JAMA 249, 1983, 1743–1745). If n is between 3N and 3.7N, so that both of these may fail,
//! it is 92 of 100. At N = 1 all packets are there and the interval is the count.
//!
//! Where segments have different N, the squares of the distances to the bounds add up (G. Y. Zou, A. Donner, Statistics in
//! Medicine 27, 2008, 1693–1702).
//!
//! Invariant: what is read is bounded, and the window is one in which the ring has every segment.

use super::query::Stream;
use super::{Entry, History, HistoryError, Now, ns};
use crate::limits::ESTIMATE_BYTES_MAX;
use crate::matcher::{Filter, Hits, Program};
use crate::packet::Key;
use std::collections::BTreeMap;
use std::time::Duration;

/// 97.5 % of the normal distribution lie below.
const Z: f64 = 1.959_964;
/// Of an upper bound alone.
const MISSED: f64 = 0.05;
/// Records between two looks at whether somebody still waits.
const RECORDS_PER_LOOK: u64 = 1024;
/// Readings of a window in which a segment was deleted meanwhile.
const TRIES: u32 = 3;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Recent {
    /// Which packets.
    pub filter: Filter,
    /// Of the last so many seconds that are in the ring.
    pub window: Duration,
}

/// How many packets there were, and between which bounds that lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// First moment of the window, ns since the UNIX epoch.
    pub from_ns: u64,
    /// Last moment of it.
    pub to_ns: u64,
    /// The likeliest number.
    pub packets: u64,
    /// Lower bound.
    pub packets_low: u64,
    /// Upper bound.
    pub packets_high: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// One in so many packets was looked at: the coarsest rate of all segments.
    pub sample_one_in: u32,
}

/// Records of one rate: how many, and their bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    packets: u64,
    bytes: u64,
}

/// Why a window was not counted.
enum Stop {
    /// A segment is gone.
    Trimmed,
    /// Nobody waits any more.
    Gone,
    Failed(HistoryError),
}

impl History {
    /// Counts the packets of the last seconds that `visible` and the filter admit. None if the ring has nothing of that time
    /// yet, if there is more of it than [`ESTIMATE_BYTES_MAX`], or if `is_gone` said that nobody waits. Blocks.
    ///
    /// # Errors
    /// [`HistoryError::Segment`].
    pub fn estimate(
        &self,
        asked: &Recent,
        visible: &dyn Fn(&Key) -> bool,
        is_gone: &dyn Fn() -> bool,
    ) -> Result<Option<Estimate>, HistoryError> {
        for _ in 0..TRIES {
            let Some((from_ns, to_ns, entries)) = self.recent(asked.window, Now::get()) else {
                return Ok(None);
            };
            match self.count(asked, (from_ns, to_ns), &entries, visible, is_gone) {
                Ok(seen) => {
                    let one_in = self.config.sample.map_or(1, crate::worker::Sample::one_in);
                    return Ok(Some(estimate(from_ns, to_ns, &seen, one_in)));
                }
                Err(Stop::Trimmed) => {}
                Err(Stop::Gone) => return Ok(None),
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The newest window that is wholly in the ring, at most so long, and its segments.
    fn recent(&self, window: Duration, now: Now) -> Option<(u64, u64, Vec<Entry>)> {
        // Without a recording there is nothing, whatever the ring has.
        if self.opened().is_empty() {
            return None;
        }
        let to_ns = now.wall_ns.checked_sub(ns(self.settled()))?;
        let (since_ns, mut entries) = {
            let mut ring = self.ring();
            ring.trim(now);
            (ring.since_ns()?, ring.between(to_ns.saturating_sub(ns(window)), to_ns))
        };
        let gap_ns = self.gap_before(to_ns).map_or(0, |last| last.saturating_add(1));
        let mut from_ns = to_ns.saturating_sub(ns(window)).max(since_ns).max(gap_ns);
        // The newest of what may be read.
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.last_ns));
        let mut bytes = 0_u64;
        let fits = |entry: &Entry| {
            bytes = bytes.saturating_add(entry.bytes);
            bytes <= ESTIMATE_BYTES_MAX
        };
        let count = entries.iter().map(fits).take_while(|fits| *fits).count();
        if let Some(first_left) = entries.get(count) {
            from_ns = from_ns.max(first_left.last_ns.saturating_add(1));
            entries.truncate(count);
        }
        (from_ns < to_ns).then_some((from_ns, to_ns, entries))
    }

    fn count(
        &self,
        asked: &Recent,
        (from_ns, to_ns): (u64, u64),
        entries: &[Entry],
        visible: &dyn Fn(&Key) -> bool,
        is_gone: &dyn Fn() -> bool,
    ) -> Result<BTreeMap<u32, Seen>, Stop> {
        let program = Program::compile(&[(0, &asked.filter, None)]);
        let (mut hits, mut counted) = (Hits::default(), BTreeMap::<u32, Seen>::new());
        let mut records = 0_u64;
        for entry in entries {
            let mut stream = Stream { path: self.dir.join(entry.name()), head: None };
            let failed =
                |source| Stop::Failed(HistoryError::Segment { path: self.dir.join(entry.name()), source });
            if !stream.open_again(from_ns).map_err(failed)? {
                return Err(Stop::Trimmed);
            }
            let of_rate = counted.entry(entry.one_in).or_default();
            let Some((mut reader, mut place)) = stream.head else { continue };
            while place.ns <= to_ns {
                if records.is_multiple_of(RECORDS_PER_LOOK) && is_gone() {
                    return Err(Stop::Gone);
                }
                records += 1;
                let key = Key::parse(reader.data(&place), place.wire_len);
                if visible(&key) {
                    program.evaluate(&[key], &mut hits);
                    if hits.packets() != 0 {
                        of_rate.packets += 1;
                        of_rate.bytes += u64::from(place.wire_len);
                    }
                }
                let Some(next) = reader.advance().map_err(failed)? else { break };
                place = next;
            }
        }
        Ok(counted)
    }
}

/// What was seen, made whole. `one_in`: the rate where nothing was seen.
fn estimate(from_ns: u64, to_ns: u64, seen: &BTreeMap<u32, Seen>, one_in: u32) -> Estimate {
    let (mut packets, mut bytes, mut below, mut above) = (0.0, 0.0, 0.0, 0.0);
    let rates = if seen.is_empty() { BTreeMap::from([(one_in, Seen::default())]) } else { seen.clone() };
    for (one_in, seen) in &rates {
        let (found, (low, high)) =
            (seen.packets as f64 * f64::from(*one_in), interval(seen.packets, *one_in));
        packets += found;
        bytes += seen.bytes as f64 * f64::from(*one_in);
        below += (found - low).powi(2);
        above += (high - found).powi(2);
    }
    let least: u64 = rates.values().map(|seen| seen.packets).sum();
    Estimate {
        from_ns,
        to_ns,
        packets: packets as u64,
        packets_low: ((packets - below.sqrt()).floor() as u64).max(least),
        packets_high: (packets + above.sqrt()).ceil() as u64,
        bytes: bytes as u64,
        sample_one_in: rates.keys().copied().max().unwrap_or(one_in),
    }
}

/// See the module.
fn interval(seen: u64, one_in: u32) -> (f64, f64) {
    let (k, n) = (seen as f64, f64::from(one_in));
    if one_in <= 1 {
        return (k, k);
    }
    let q = 1.0 - 1.0 / n;
    if seen == 0 {
        return (0.0, MISSED.ln() / q.ln());
    }
    let at = |x: f64, side: f64| n * (x + Z * Z * q / 2.0 + side * Z * (q * (x + Z * Z * q / 4.0)).sqrt());
    (at(k - 0.5, -1.0).max(k), at(k + 0.5, 1.0))
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
