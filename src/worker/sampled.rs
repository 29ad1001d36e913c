//! The slots of one queue that keep a sample of every packet, such as the history's. Owns how many frames all of them pass over;
//! not which frames a slot keeps.
//!
//! Until one of these slots keeps a frame, a burst costs all of them one subtraction, whatever the burst holds. Their samplers
//! and counters learn what was passed over when a frame is kept, and before counters are published.
//!
//! Invariant: `rest` is at most what the sampler of any of these slots passes over, less what it was not told yet.

use super::counters::LocalCounters;
use super::stream::Stream;
use crate::limits::CAPTURES_MAX;
use crate::matcher::Bits;

#[derive(Debug)]
pub(super) struct SampledSlots {
    /// The slots, without those whose capture is over.
    slots: u64,
    /// Frames that none of them keeps from here on.
    rest: u64,
    /// Frames passed over, of which samplers and counters do not know yet.
    passed: u64,
}

impl SampledSlots {
    pub fn none() -> Self {
        Self { slots: 0, rest: u64::MAX, passed: 0 }
    }

    pub fn slots(&self) -> u64 {
        self.slots
    }

    /// Passes over so many frames, if none of the slots keeps one of them.
    #[inline]
    pub fn pass_over(&mut self, frames: u64) -> bool {
        let passes = frames <= self.rest;
        if passes {
            self.rest -= frames;
            self.passed += frames;
        }
        passes
    }

    /// Tells samplers and counters what was passed over; returns the slots whose counters changed.
    #[inline]
    pub fn settle(&mut self, streams: &mut [Stream; CAPTURES_MAX], counters: &mut LocalCounters) -> u64 {
        let passed = std::mem::take(&mut self.passed);
        if passed == 0 {
            return 0;
        }
        for slot in Bits(self.slots) {
            if let Some(sampler) = &mut streams[slot].sampler {
                sampler.pass_over(passed);
            }
            let counts = &mut counters.slots[slot];
            counts.matched += passed;
            counts.sampled += passed;
        }
        self.slots
    }

    /// From here on these are the sampled slots. What was passed over is settled.
    pub fn set(&mut self, slots: u64, streams: &[Stream; CAPTURES_MAX]) {
        let rests =
            Bits(slots).map(|slot| streams[slot].sampler.as_ref().map_or(0, |sampler| sampler.rest()));
        *self = Self { slots, rest: rests.min().unwrap_or(u64::MAX), passed: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::super::sample::Sampler;
    use super::*;
    use crate::limits::BURST;
    use proptest::prelude::*;

    fn stream(one_in: u32, seed: u64) -> Stream {
        let mut stream = Stream::idle();
        stream.begin(
            1,
            crate::worker::Payer::HOST,
            None,
            Sample::new(one_in).map(|sample| Sampler::new(sample, seed)),
        );
        stream
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 100 }))]

        /// Against samplers that are asked for every burst.
        #[test]
        fn bursts_that_are_passed_over_keep_what_they_would_have_kept_and_are_counted(
            rates in prop::collection::vec(2_u32..2000, 0..4),
            seed: u64,
            bursts in prop::collection::vec((1..=BURST, any::<bool>()), 1..400),
        ) {
            let mut streams: [Stream; CAPTURES_MAX] = std::array::from_fn(|_| Stream::idle());
            let mut asked = Vec::new();
            for (slot, &one_in) in rates.iter().enumerate() {
                streams[slot] = stream(one_in, seed ^ slot as u64);
                asked.push(stream(one_in, seed ^ slot as u64));
            }
            let (mut counters, mut sampled) = (LocalCounters::new(), SampledSlots::none());
            let slots = (1 << rates.len()) - 1;
            sampled.set(slots, &streams);
            let mut frames = 0;
            for (burst, is_published) in bursts {
                let all = u64::MAX >> (BURST - burst);
                frames += burst as u64;
                let kept: Vec<u64> = asked.iter_mut().map(|s| s.sampler.as_mut().unwrap().keep(all)).collect();
                if sampled.pass_over(burst as u64) {
                    prop_assert!(kept.iter().all(|&kept| kept == 0));
                } else {
                    sampled.settle(&mut streams, &mut counters);
                    for (slot, kept) in kept.into_iter().enumerate() {
                        prop_assert_eq!(streams[slot].sampler.as_mut().unwrap().keep(all), kept);
                        counters.slots[slot].matched += burst as u64;
                    }
                    sampled.set(slots, &streams);
                }
                if is_published {
                    sampled.settle(&mut streams, &mut counters);
                    prop_assert!((0..rates.len()).all(|slot| counters.slots[slot].matched == frames));
                }
            }
        }
    }
}
