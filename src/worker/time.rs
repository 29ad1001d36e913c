//! The clocks of a host: cycle counter, UTC, monotonic clock. Owns their reading; not what is made of it (`clock`).
//!
//! Invariant: nothing else in a worker asks what time it is, so a test can give it any time.

use crate::block::cycles;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Clocks that can be read.
pub(super) trait Time {
    /// The cycle counter of the core that asks.
    fn cycles(&self) -> u64;
    /// UTC, ns since the UNIX epoch; zero before that. It can be set, ahead and back.
    fn wall_ns(&self) -> u64;
    /// The monotonic clock, which cannot be set.
    fn moment(&self) -> Instant;
}

/// This host's.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostTime;

impl Time for HostTime {
    #[inline]
    fn cycles(&self) -> u64 {
        cycles()
    }

    fn wall_ns(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)
    }

    fn moment(&self) -> Instant {
        Instant::now()
    }
}

/// All clocks at nearly the same moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub cycles: u64,
    pub wall_ns: u64,
    pub moment: Instant,
}

impl Sample {
    /// Of three tries the one whose reads were closest together.
    pub fn take(time: &impl Time) -> Self {
        let once = || {
            let before = time.cycles();
            let (wall_ns, moment) = (time.wall_ns(), time.moment());
            let gap = time.cycles().saturating_sub(before);
            (gap, Self { cycles: before + gap / 2, wall_ns, moment })
        };
        let first = once();
        [once(), once()].into_iter().fold(first, |best, next| if next.0 < best.0 { next } else { best }).1
    }
}
