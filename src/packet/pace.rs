//! A bound on the frames that a queue gives in a second. Owns the arithmetic; not the queue.
//!
//! Invariant: over any time, no more frames than the rate gives in it, and one burst.

use std::time::{Duration, Instant};

/// Of one queue of a software device, which would give as many frames as a worker can take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    ns_per_frame: u64,
    /// Before that nothing more is taken.
    next: Instant,
}

impl Pace {
    /// At most so many frames a second from now on; none for as many as there are.
    #[must_use]
    pub fn new(frames_per_second: u64, now: Instant) -> Option<Self> {
        let ns_per_frame = 1_000_000_000_u64.checked_div(frames_per_second)?;
        Some(Self { ns_per_frame, next: now })
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
    use crate::limits::BURST;
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
