//! What one host keeps of a simple capture: which packets, at which level. Owns thinning; the packets lie in the spool.
//!
//! Invariant: after [`Kept::settle`] the level is the lowest one at which the host keeps at most the cap, or the last one, whatever
//! the order and time in which packets came, because what is kept at a level only grows.

use super::{Counts, LEVEL_MAX, choose, mix};
use crate::fleet::Host;
use serde::{Deserialize, Serialize};

/// Random bits of a packet.
pub trait Tags {
    /// Of the packet with this number in this stream.
    fn bits(&self, stream: u16, sequence: u64) -> u64;
    /// Levels that the bits are good for.
    fn level_max(&self) -> u8 {
        LEVEL_MAX
    }
}

/// Tags by hash: the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashed {
    /// Of the capture.
    pub seed: u64,
    /// Whose packets they are.
    pub host: Host,
}

impl Tags for Hashed {
    fn bits(&self, stream: u16, sequence: u64) -> u64 {
        mix(&[self.seed, u64::from(self.host), u64::from(stream), sequence])
    }
}

/// Packets of one stream, one after another, that the data plane sampled at one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The queue.
    pub stream: u16,
    /// One in 2^level was kept, so that many bits of each tag are zero.
    pub level: u8,
    /// Number of the first one.
    pub first: u64,
    /// How many.
    pub packets: u64,
}

/// A packet of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Packet {
    /// The queue.
    pub stream: u16,
    /// Its number there, of those that the data plane kept.
    pub sequence: u64,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept<T = Hashed> {
    tags: T,
    cap: u64,
    /// The data plane cannot sample at a higher level.
    level_max: u8,
    level: u8,
    /// Kept at this level.
    count: u64,
    segments: Vec<Segment>,
}

impl<T: Tags> Kept<T> {
    /// Nothing yet.
    #[must_use]
    pub fn new(tags: T, cap: u64, level_max: u8) -> Self {
        let level_max = level_max.min(tags.level_max());
        Self { tags, cap, level_max, level: 0, count: 0, segments: Vec::new() }
    }

    /// The level that the data plane should sample at.
    #[must_use]
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The data plane kept so many more packets of a stream, sampled at this level. Workers hear of a new level a little later, so
    /// it may be one that was left. It is one above only after a crash that took more of one queue than of another: what was sampled
    /// at a level says nothing of those below, so the host goes there.
    pub fn took(&mut self, stream: u16, level: u8, packets: u64) {
        if packets == 0 {
            return;
        }
        let last = self.segments.iter_mut().rev().find(|segment| segment.stream == stream);
        let first = last.as_ref().map_or(0, |segment| segment.first + segment.packets);
        match last {
            Some(segment) if segment.level == level => segment.packets += packets,
            _ => self.segments.push(Segment { stream, level, first, packets }),
        }
        if level > self.level {
            self.level = level;
            self.recount();
            return;
        }
        let new = Segment { stream, level, first, packets };
        self.count += self.survivors(&new, self.level);
    }

    /// Whether a packet that was sampled at one level is there at another one.
    fn survives(&self, stream: u16, sequence: u64, from: u8, to: u8) -> bool {
        let wanted = (1u64 << to) - (1u64 << from.min(to));
        self.tags.bits(stream, sequence) & wanted == 0
    }

    fn survivors(&self, segment: &Segment, level: u8) -> u64 {
        if segment.level >= level {
            return segment.packets;
        }
        let numbers = segment.first..segment.first + segment.packets;
        numbers.filter(|number| self.survives(segment.stream, *number, segment.level, level)).count() as u64
    }

    /// Raises the level while too much is kept; whether it was.
    pub fn settle(&mut self) -> bool {
        let before = self.level;
        while self.count > self.cap && self.level < self.level_max {
            self.level += 1;
            self.recount();
        }
        self.level > before
    }

    fn recount(&mut self) {
        self.count = self.segments.iter().map(|segment| self.survivors(segment, self.level)).sum();
    }

    /// The packets that are there at this level, which is not below that of any segment.
    pub(super) fn at(&self, level: u8) -> impl Iterator<Item = Packet> + '_ {
        self.segments.iter().flat_map(move |segment| {
            (segment.first..segment.first + segment.packets)
                .filter(move |sequence| self.survives(segment.stream, *sequence, segment.level, level))
                .map(|sequence| Packet { stream: segment.stream, sequence })
        })
    }

    /// How many packets there are at each level from the host's own, after [`Self::settle`].
    #[must_use]
    pub fn counts(&self, matched: u64) -> Counts {
        let mut kept = vec![0; usize::from(self.tags.level_max() - self.level) + 1];
        for packet in self.at(self.level) {
            let zeros = (self.tags.bits(packet.stream, packet.sequence) >> self.level).trailing_zeros();
            let top = (zeros as usize).min(kept.len() - 1);
            kept[top] += 1;
        }
        for level in (0..kept.len() - 1).rev() {
            kept[level] += kept[level + 1];
        }
        while kept.last() == Some(&0) {
            kept.pop();
        }
        Counts { level: self.level, matched, kept }
    }

    /// `quota` of the packets of a level, each set equally likely.
    #[must_use]
    pub fn pick(&self, dice: &mut impl super::Dice, level: u8, quota: u64) -> Vec<Packet> {
        let all: Vec<Packet> = self.at(level).collect();
        choose(dice, all.len() as u64, quota).into_iter().map(|at| all[at as usize]).collect()
    }
}
