//! Which frames a sampled capture keeps. Owns the skip counts; not what is done with a frame that is kept.
//!
//! A frame is kept with probability 1/N, independent of all others. Instead of asking chance for each frame, the number
//! of frames to pass over until the next one that is kept is drawn, which is geometrically distributed; so a burst
//! without a kept frame costs one subtraction. Rejected: every Nth frame, which keeps or misses the same packets of
//! periodic traffic.
//!
//! Invariant: each queue of each capture has its own counts, so uneven queues do not bias each other.

use std::num::NonZeroU32;

/// 1 in N frames is kept; N is at least 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(NonZeroU32);

impl Sample {
    /// One in `one_in` frames; none when that is every frame.
    #[must_use]
    pub fn new(one_in: u32) -> Option<Self> {
        NonZeroU32::new(one_in).filter(|n| n.get() > 1).map(Self)
    }

    /// N.
    #[must_use]
    pub fn one_in(self) -> u32 {
        self.0.get()
    }
}

/// The skip counts of one queue's stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    /// State of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    state: u64,
    /// Frames to pass over before the next one that is kept.
    skip: u64,
    /// `1 / ln(1 - 1/N)`.
    scale: f64,
}

impl Sampler {
    pub fn new(sample: Sample, seed: u64) -> Self {
        let scale = 1.0 / (-1.0 / f64::from(sample.one_in())).ln_1p();
        let mut sampler = Self { state: seed, skip: 0, scale };
        sampler.skip = sampler.draw();
        sampler
    }

    /// How many frames from here on are not kept.
    #[inline]
    pub fn rest(&self) -> u64 {
        self.skip
    }

    /// Passes over so many frames, at most [`Self::rest`].
    #[inline]
    pub fn pass_over(&mut self, frames: u64) {
        self.skip -= frames;
    }

    /// The frames of `hits` that are kept.
    #[inline]
    pub fn keep(&mut self, hits: u64) -> u64 {
        let frames = u64::from(hits.count_ones());
        if self.skip >= frames {
            self.skip -= frames;
            return 0;
        }
        self.keep_some(hits)
    }

    fn keep_some(&mut self, hits: u64) -> u64 {
        let (mut left, mut kept) = (hits, 0);
        while self.skip < u64::from(left.count_ones()) {
            for _ in 0..self.skip {
                left &= left - 1;
            }
            kept |= left & left.wrapping_neg();
            left &= left - 1;
            self.skip = self.draw();
        }
        self.skip -= u64::from(left.count_ones());
        kept
    }

    /// A geometrically distributed number of frames, by inversion.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        // In (0, 1], so that the logarithm is finite.
        let uniform = ((word >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        (uniform.ln() * self.scale) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampler(one_in: u32, seed: u64) -> Sampler {
        Sampler::new(Sample::new(one_in).unwrap(), seed)
    }

    #[test]
    fn one_in_one_is_no_sampling() {
        assert_eq!((Sample::new(0), Sample::new(1)), (None, None));
        assert_eq!(Sample::new(2).unwrap().one_in(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Against one frame at a time.
        #[test]
        fn what_is_kept_does_not_depend_on_how_frames_fall_into_bursts(
            one_in in 2_u32..100, seed: u64, bursts in prop::collection::vec(any::<u64>(), 1..200),
        ) {
            let (mut whole, mut single) = (sampler(one_in, seed), sampler(one_in, seed));
            for hits in bursts {
                let kept = whole.keep(hits);
                prop_assert_eq!(kept & !hits, 0);
                let one_by_one = (0..64).map(|i| single.keep(hits & 1 << i)).fold(0, |all, one| all | one);
                prop_assert_eq!(kept, one_by_one);
            }
        }

        /// The bounds are six standard deviations of the binomial distribution: far less than one run in 10^5 fails by
        /// chance.
        #[test]
        fn the_rate_is_one_in_n_at_every_place_of_a_burst(one_in in prop_oneof![2_u32..20, 20_u32..2000], seed: u64) {
            let mut sampler = sampler(one_in, seed);
            let bursts = 20_000_u32;
            let mut kept_at = [0_u32; 64];
            for _ in 0..bursts {
                let kept = sampler.keep(u64::MAX);
                for (i, at) in kept_at.iter_mut().enumerate() {
                    *at += u32::from(kept >> i & 1 == 1);
                }
            }
            let p = 1.0 / f64::from(one_in);
            let bound = |frames: f64| 6.0 * (frames * p * (1.0 - p)).sqrt() + 6.0;
            let frames = f64::from(bursts);
            for at in kept_at {
                prop_assert!((f64::from(at) - frames * p).abs() <= bound(frames), "{at} of {frames}");
            }
            let total = f64::from(kept_at.iter().sum::<u32>());
            prop_assert!((total - 64.0 * frames * p).abs() <= bound(64.0 * frames), "{total}");
        }
    }

    #[test]
    fn period_in_the_traffic_is_not_period_in_the_sample() {
        let mut sampler = sampler(10, 1);
        let kept: u32 =
            (0..100_000).map(|frame| sampler.keep(1).count_ones() * u32::from(frame % 10 == 3)).sum();
        assert!((800..1200).contains(&kept), "{kept} of 10000 frames of one phase");
    }
}
