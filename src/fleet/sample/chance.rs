//! Random numbers that a seed names, and drawing without replacement. Owns no source of randomness: seeds are arguments.
//!
//! Invariant: the same seed draws the same, so a new lead and a restarted host repeat what the last one drew.

use std::collections::BTreeSet;

/// Numbers below a bound, all equally likely.
pub trait Dice {
    /// The next one below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64;
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 bits that depend on all of these words.
#[must_use]
pub fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0, |state, word| finish((state ^ finish(word.wrapping_add(STEP))).wrapping_add(STEP)))
}

impl Chance {
    /// A sequence of its own for each list of words.
    #[must_use]
    pub fn new(words: &[u64]) -> Self {
        Self(mix(words))
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        finish(self.0)
    }
}

impl Dice for Chance {
    /// Lemire: Fast random integer generation in an interval, 2019; without bias.
    fn below(&mut self, bound: u64) -> u64 {
        let bound = bound.max(1);
        let mut product = u128::from(self.next()) * u128::from(bound);
        if (product as u64) < bound {
            let least = bound.wrapping_neg() % bound;
            while (product as u64) < least {
                product = u128::from(self.next()) * u128::from(bound);
            }
        }
        (product >> 64) as u64
    }
}

/// `count` different numbers below `of`, each set of them equally likely (Floyd: Bentley, Programming Pearls, 1987); all if fewer.
pub fn choose(dice: &mut impl Dice, of: u64, count: u64) -> BTreeSet<u64> {
    let mut chosen = BTreeSet::new();
    for last in of.saturating_sub(count)..of {
        let drawn = dice.below(last + 1);
        if !chosen.insert(drawn) {
            chosen.insert(last);
        }
    }
    chosen
}
