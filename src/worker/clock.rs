//! From the cycle counter to UTC. Owns the fit and its steering; not the reading of either clock.
//!
//! The cycle counter's rate is constant but not known exactly, and UTC is steered by NTP; a single fit at the start
//! drifts by tens of ms a day. So the fit is renewed several times a second, and each renewal removes what the last one
//! missed by changing the rate for the next stretch, never by a step back.
//!
//! Invariant: `ns` never decreases for increasing cycles, across every `refit`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The largest change of rate that steering may use. A wall clock that is set back by more than that can remove is
/// followed by time that runs slowly, never backwards.
const STEER_MAX: f64 = 0.05;
/// A wall clock this far ahead was set, not steered: follow at once.
const JUMP_NS: i64 = 500_000_000;

/// The fit.
#[derive(Clone, Debug)]
pub struct Clock {
    base_cycles: u64,
    base_ns: u64,
    ns_per_cycle: f64,
    /// Rate by measurement, without steering.
    measured: f64,
    /// Where the measurement began.
    sample: (u64, u64),
}

impl Clock {
    /// A fit from two samples of (cycles, ns since the UNIX epoch), taken some ms apart.
    #[must_use]
    pub fn new(first: (u64, u64), second: (u64, u64)) -> Self {
        let rate = rate(first, second).unwrap_or(1.0);
        Self { base_cycles: second.0, base_ns: second.1, ns_per_cycle: rate, measured: rate, sample: second }
    }

    /// A fit of this host's clocks. Takes about 20 ms.
    #[must_use]
    pub fn start(cycles: impl Fn() -> u64) -> Self {
        let first = sample(&cycles);
        std::thread::sleep(Duration::from_millis(20));
        Self::new(first, sample(&cycles))
    }

    /// UTC in ns since the UNIX epoch at this count of cycles.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn ns(&self, cycles: u64) -> u64 {
        // Between two refits the product stays far below 2^53, so a double is exact to well under 1 ns.
        self.base_ns + (cycles.saturating_sub(self.base_cycles) as f64 * self.ns_per_cycle) as u64
    }

    /// Renews the fit with a sample of both clocks; `interval_cycles` is when the next one will come.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_wrap)]
    pub fn refit(&mut self, now: (u64, u64), interval_cycles: u64) {
        let (cycles, wall_ns) = now;
        if cycles <= self.base_cycles {
            return;
        }
        let fitted_ns = self.ns(cycles);
        let behind_ns = wall_ns as i64 - fitted_ns as i64;
        if let Some(measured) = rate(self.sample, now)
            && (measured / self.measured - 1.0).abs() < 0.01
        {
            // A moving average keeps one late sample from bending the rate.
            self.measured += (measured - self.measured) / 8.0;
        }
        self.sample = now;
        self.base_cycles = cycles;
        self.base_ns = if behind_ns > JUMP_NS { wall_ns } else { fitted_ns };
        let expected_ns = interval_cycles as f64 * self.measured;
        let steer = if behind_ns > JUMP_NS { 0.0 } else { behind_ns as f64 / expected_ns.max(1.0) };
        self.ns_per_cycle = self.measured * (1.0 + steer.clamp(-STEER_MAX, STEER_MAX));
    }

    /// Renews the fit from this host's clocks.
    pub fn refit_from(&mut self, cycles: impl Fn() -> u64, interval_cycles: u64) {
        self.refit(sample(&cycles), interval_cycles);
    }

    /// Cycles that pass in `ns`.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn cycles_in(&self, ns: u64) -> u64 {
        (ns as f64 / self.measured) as u64
    }
}

#[allow(clippy::cast_precision_loss)]
fn rate(from: (u64, u64), to: (u64, u64)) -> Option<f64> {
    let (cycles, ns) = (to.0.checked_sub(from.0)?, to.1.checked_sub(from.1)?);
    (cycles > 0 && ns > 0).then(|| ns as f64 / cycles as f64)
}

/// Both clocks at nearly the same moment: of three tries the one whose reads were closest together.
fn sample(cycles: &impl Fn() -> u64) -> (u64, u64) {
    let mut best = (u64::MAX, (0, 0));
    for _ in 0..3 {
        let before = cycles();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let gap = cycles().saturating_sub(before);
        if gap < best.0 {
            best = (gap, (before + gap / 2, u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter of 2.45 GHz.
    fn at(ms: u64) -> u64 {
        ms * 2_450_000
    }
    const EPOCH: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn it_follows_a_steered_wall_clock_within_a_microsecond() {
        // The wall clock runs 200 ppm fast, which the first fit (20 ms, one sample 1 us late) cannot know.
        let wall = |ms: u64| EPOCH + ms * 1_000_200;
        let mut clock = Clock::new((at(0), wall(0)), (at(20), wall(20) + 1000));
        for ms in (120..10_000).step_by(100) {
            clock.refit((at(ms), wall(ms)), at(100));
        }
        let error = clock.ns(at(10_000)).abs_diff(wall(10_000));
        assert!(error < 1000, "off by {error} ns");
    }

    #[test]
    fn it_never_runs_backwards_even_when_the_wall_clock_is_set_back() {
        let mut clock = Clock::new((at(0), EPOCH), (at(20), EPOCH + 20_000_000));
        let mut last = 0;
        for ms in 21..5_000 {
            let wall = EPOCH + ms * 1_000_000 - if ms > 1_000 { 30_000_000 } else { 0 };
            if ms % 100 == 0 {
                clock.refit((at(ms), wall), at(100));
            }
            let ns = clock.ns(at(ms));
            assert!(ns >= last, "{last} then {ns} at {ms} ms");
            last = ns;
        }
        let settled = EPOCH + 4_999 * 1_000_000 - 30_000_000;
        assert!(last.abs_diff(settled) < 100_000, "off by {}", last.abs_diff(settled));
    }

    #[test]
    fn a_wall_clock_that_is_set_ahead_is_followed_at_once() {
        let mut clock = Clock::new((at(0), EPOCH), (at(20), EPOCH + 20_000_000));
        clock.refit((at(100), EPOCH + 3_600_000_000_000), at(100));
        assert!(clock.ns(at(101)) > EPOCH + 3_600_000_000_000);
    }

    #[test]
    fn the_host_clock_agrees_with_the_system_time() {
        let clock = Clock::start(crate::block::cycles);
        let ns = clock.ns(crate::block::cycles());
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let off = wall.abs_diff(u128::from(ns));
        assert!(off < 50_000_000, "off by {off} ns");
    }
}
