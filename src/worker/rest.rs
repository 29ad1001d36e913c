//! Sleep between polls while no packets come. Owns when and how long; not the sleeping.
//!
//! Invariant: a poll that brought a frame is followed by another one at once, and no pause is longer than [`PAUSE_MAX`].

use std::time::Duration;

/// What a worker does while no packets come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenIdle {
    /// It polls.
    #[default]
    Spin,
    /// It sleeps between polls, for hosts that share their cores.
    Sleep,
}

/// Ticks in a row without a frame before the first pause: about a tenth of a millisecond.
const EMPTY_TICKS: u32 = 1000;
const PAUSE_MIN: Duration = Duration::from_micros(50);
/// How long a frame waits at most for the poll that takes it, beside what the kernel's timer adds (50 µs by default). A queue holds
/// what comes meanwhile: 1024 descriptors are enough for a million frames a second.
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Frames that were received by the last tick.
    received: u64,
    empty: u32,
    pause: Duration,
}

impl Rest {
    /// How long to sleep after a tick by which so many frames were received altogether.
    pub fn after(&mut self, received: u64) -> Option<Duration> {
        if received != std::mem::replace(&mut self.received, received) {
            (self.empty, self.pause) = (0, Duration::ZERO);
            return None;
        }
        if self.empty < EMPTY_TICKS {
            self.empty += 1;
            return None;
        }
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        Some(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_a_frame_ends_them() {
        let mut rest = Rest::default();
        for received in [0, 5] {
            // The tick that brought the frames is none of the empty ones.
            let empty = if received == 0 { EMPTY_TICKS } else { EMPTY_TICKS + 1 };
            assert!((0..empty).all(|_| rest.after(received).is_none()));
            let pauses: Vec<_> = (0..8).map(|_| rest.after(received).unwrap().as_micros()).collect();
            assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        }
        assert_eq!(PAUSE_MAX, Duration::from_millis(1));
        assert_eq!(rest.after(6), None);
    }
}
