//! A bound on the frames that a queue gives in a second. Owns the arithmetic; not the queue.
//!
//! A slow queue gives its frames in small bursts, so that ten frames a second come one by one and not as 64 each six seconds.
//!
//! Invariant: over any time, no more frames than the rate gives in it, and one burst.

use crate::limits::BURST;
use std::time::{Duration, Instant};

/// A queue that is slower than this many whole bursts gives smaller ones, as often.
const BURSTS_PER_SECOND: u64 = 64;

/// Of one queue of a software device, which would give as many frames as a worker can take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    ns_per_frame: u64,
    burst_max: usize,
    /// Before that nothing more is taken.
    next: Instant,
}

impl Pace {
    /// At most so many frames a second from now on; none for as many as there are.
    #[must_use]
    pub fn new(frames_per_second: u64, now: Instant) -> Option<Self> {
        let ns_per_frame = 1_000_000_000_u64.checked_div(frames_per_second)?;
        let burst_max = (frames_per_second / BURSTS_PER_SECOND).clamp(1, BURST as u64) as usize;
        Some(Self { ns_per_frame, burst_max, next: now })
    }

    /// The most frames that one poll takes.
    #[must_use]
    pub fn burst_max(&self) -> usize {
        self.burst_max
    }

    /// Whether the queue may be polled.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Notes what a poll brought. A pause is not made up for afterwards.
    pub fn took(&mut self, frames: usize, now: Instant) {
        let time = Duration::from_nanos(self.ns_per_frame.saturating_mul(frames as u64));
        self.next = self.next.max(now) + time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_more_frames_are_taken_than_the_rate_gives_and_one_burst(
            rate in 1_u64..200_000, polls in prop::collection::vec((0_u64..5_000_000, 0..=BURST), 1..300),
        ) {
            let began = Instant::now();
            let (mut pace, mut now, mut taken) = (Pace::new(rate, began).unwrap(), began, 0);
            for (passed_ns, there) in polls {
                now += Duration::from_nanos(passed_ns);
                if pace.is_due(now) {
                    pace.took(there, now);
                    taken += there as u64;
                }
                // Whole nanoseconds between frames make the rate a little higher than asked for.
                let given = (now - began).as_nanos() as u64 / (1_000_000_000 / rate);
                prop_assert!(taken <= given + BURST as u64, "{taken} of {given}");
            }
        }
    }

    #[test]
    fn a_slow_queue_gives_its_frames_one_after_another_and_a_fast_one_whole_bursts() {
        let began = Instant::now();
        for (rate, burst_max) in [(1, 1), (10, 1), (127, 1), (640, 10), (4096, BURST), (100_000_000, BURST)] {
            assert_eq!(Pace::new(rate, began).unwrap().burst_max(), burst_max, "{rate}");
        }
        let (mut pace, mut times) = (Pace::new(10, began).unwrap(), Vec::new());
        for ms in 0..3000 {
            let now = began + Duration::from_millis(ms);
            if pace.is_due(now) {
                pace.took(pace.burst_max(), now);
                times.push(ms);
            }
        }
        let apart: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(times.len() == 30 && apart.iter().all(|ms| *ms == 100), "{times:?}");
    }

    #[test]
    fn a_queue_that_is_polled_often_gives_nearly_its_rate() {
        let began = Instant::now();
        let (mut pace, mut taken) = (Pace::new(50_000, began).unwrap(), 0_u64);
        for us in 0..1_000_000 {
            let now = began + Duration::from_micros(us);
            if pace.is_due(now) {
                pace.took(BURST, now);
                taken += BURST as u64;
            }
        }
        assert!((49_000..=50_064).contains(&taken), "{taken}");
        assert!(Pace::new(0, began).is_none());
    }
}
