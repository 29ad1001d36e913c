//! From every host's counts to how many packets each of them gives. Owns the fleet's level and the draw.
//!
//! Invariant: the quotas add up to what was asked for, or to all that is there if that is less.

use super::{Dice, LEVEL_MAX, choose};
use serde::{Deserialize, Serialize};

/// How many packets a host keeps, by level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Its own level.
    pub level: u8,
    /// Packets that matched, kept or not.
    pub matched: u64,
    /// At its own level, at the next one, and so on until there are none.
    pub kept: Vec<u64>,
}

impl Counts {
    /// Whether they can be true: what is kept falls from level to level, and was matched.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let levels = usize::from(LEVEL_MAX.saturating_sub(self.level)) + 1;
        let falls = self.kept.windows(2).all(|pair| pair[0] >= pair[1]);
        let is_matched = self.kept.first().is_none_or(|kept| *kept <= self.matched);
        self.level <= LEVEL_MAX && self.kept.len() <= levels && falls && is_matched
    }

    /// At this level, which is not below its own.
    #[must_use]
    pub fn at(&self, level: u8) -> u64 {
        let above = usize::from(level.saturating_sub(self.level));
        self.kept.get(above).copied().unwrap_or(0)
    }
}

/// The lowest level at which all together keep at most `cap`, the same that each host settled by.
#[must_use]
pub fn common_level<'a>(counts: impl Iterator<Item = &'a Counts> + Clone, cap: u64) -> u8 {
    let lowest = counts.clone().map(|counts| counts.level).max().unwrap_or(0);
    let all = |level: u8| counts.clone().map(|counts| counts.at(level)).fold(0, u64::saturating_add);
    (lowest..LEVEL_MAX).find(|level| all(*level) <= cap).unwrap_or(LEVEL_MAX)
}

/// Draws `packets` of all that these hosts have without replacement; how many fall on each (multivariate hypergeometric).
pub fn draw(dice: &mut impl Dice, of: &[u64], packets: u64) -> Vec<u64> {
    let mut quotas = vec![0; of.len()];
    let (mut host, mut end) = (0, of.first().copied().unwrap_or(0));
    for chosen in choose(dice, of.iter().copied().fold(0, u64::saturating_add), packets) {
        while chosen >= end {
            host += 1;
            end = end.saturating_add(of[host]);
        }
        quotas[host] += 1;
    }
    quotas
}
