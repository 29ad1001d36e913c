//! From the cycle counter to UTC and to the monotonic clock. Owns the fit and its steering; not the reading of the clocks
//! (`time`).
//!
//! The cycle counter's rate is constant but not known exactly, and UTC is steered by NTP; a single fit at the start
//! drifts by tens of ms a day. So the fit is renewed several times a second, and each renewal removes what the last one
//! missed by changing the rate for the next stretch. A wall clock that is off by more than [`JUMP_NS`] was set, not steered: the
//! fit follows it at once, and says by how much.
//!
//! The rate is measured against the monotonic clock, which NTP steers like UTC and nobody sets. Each worker has a fit of its
//! own from its own cycle counter, so nothing here needs the counters of two cores to agree.
//!
//! Invariant: `ns` never decreases for increasing cycles, except across a `refit` that tells of a step back.

use super::time::{Sample, Time};
use std::time::{Duration, Instant};

/// The largest change of rate that steering may use.
const STEER_MAX: f64 = 0.05;
/// A wall clock this far off, ahead or back, was set and not steered.
pub(super) const JUMP_NS: u64 = 500_000_000;
/// A measured rate that differs more from the last ones is a disturbed sample. NTP steers by 10 % at most (chronyd's
/// `maxslewrate`).
const RATE_CHANGE_MAX: f64 = 0.2;

/// The fit.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// The last sample. What it says of the monotonic clock is taken as it is.
    sample: Sample,
    /// UTC by this clock at the last sample.
    base_ns: u64,
    ns_per_cycle: f64,
    /// Rate by measurement, without steering.
    measured: f64,
}

impl Clock {
    /// A fit from two samples, taken some ms apart.
    pub fn new(first: Sample, second: Sample) -> Self {
        let rate = rate(first, second).unwrap_or(1.0);
        Self { sample: second, base_ns: second.wall_ns, ns_per_cycle: rate, measured: rate }
    }

    /// A fit of this host's clocks. Takes about 20 ms.
    pub fn start(time: &impl Time) -> Self {
        let first = Sample::take(time);
        std::thread::sleep(Duration::from_millis(20));
        Self::new(first, Sample::take(time))
    }

    /// UTC in ns since the UNIX epoch at this count of cycles.
    #[inline]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn ns(&self, cycles: u64) -> u64 {
        // Between two refits the product stays far below 2^53, so a double is exact to well under 1 ns.
        self.base_ns + (cycles.saturating_sub(self.sample.cycles) as f64 * self.ns_per_cycle) as u64
    }

    /// UTC in ns since the UNIX epoch at a moment that may also lie before the last sample. Without the steering, so exact to
    /// what steering changes in between.
    pub fn ns_at(&self, moment: Instant) -> u64 {
        let after = moment.saturating_duration_since(self.sample.moment);
        let before = self.sample.moment.saturating_duration_since(moment);
        (self.base_ns + nanoseconds(after)).saturating_sub(nanoseconds(before))
    }

    /// The monotonic clock at this count of cycles.
    #[inline]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn moment(&self, cycles: u64) -> Instant {
        let since = cycles.saturating_sub(self.sample.cycles) as f64 * self.measured;
        self.sample.moment + Duration::from_nanos(since as u64)
    }

    /// The count of cycles at a moment, or at the last sample if the moment lies before that.
    #[inline]
    pub fn cycles_at(&self, moment: Instant) -> u64 {
        let after = moment.saturating_duration_since(self.sample.moment);
        self.sample.cycles.saturating_add(self.cycles_in(nanoseconds(after)))
    }

    /// Renews the fit; `interval_cycles` is when the next sample will come. Returns by how many ns the wall clock was set since
    /// the last one, if it was: less than zero when it was set back.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_wrap)]
    pub fn refit(&mut self, now: Sample, interval_cycles: u64) -> Option<i64> {
        if now.cycles <= self.sample.cycles {
            return None;
        }
        let fitted_ns = self.ns(now.cycles);
        let behind_ns = now.wall_ns as i64 - fitted_ns as i64;
        if let Some(measured) = rate(self.sample, now)
            && (measured / self.measured - 1.0).abs() < RATE_CHANGE_MAX
        {
            // A moving average keeps one late sample from bending the rate.
            self.measured += (measured - self.measured) / 8.0;
        }
        self.sample = now;
        if behind_ns.unsigned_abs() > JUMP_NS {
            (self.base_ns, self.ns_per_cycle) = (now.wall_ns, self.measured);
            return Some(behind_ns);
        }
        self.base_ns = fitted_ns;
        let expected_ns = interval_cycles as f64 * self.measured;
        let steer = behind_ns as f64 / expected_ns.max(1.0);
        self.ns_per_cycle = self.measured * (1.0 + steer.clamp(-STEER_MAX, STEER_MAX));
        None
    }

    /// Cycles that pass in `ns`.
    #[inline]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn cycles_in(&self, ns: u64) -> u64 {
        (ns as f64 / self.measured) as u64
    }
}

#[allow(clippy::cast_precision_loss)]
fn rate(from: Sample, to: Sample) -> Option<f64> {
    let cycles = to.cycles.checked_sub(from.cycles)?;
    let ns = nanoseconds(to.moment.saturating_duration_since(from.moment));
    (cycles > 0 && ns > 0).then(|| ns as f64 / cycles as f64)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::time::HostTime;
    use super::*;

    /// A counter of 2.45 GHz.
    fn at(ms: u64) -> u64 {
        ms * 2_450_000
    }
    const EPOCH: u64 = 1_700_000_000_000_000_000;
    const SECOND: u64 = 1_000_000_000;

    /// A sample at so many ms of the monotonic clock, which began with `start`.
    fn sample(start: Instant, ms: u64, wall_ns: u64) -> Sample {
        Sample { cycles: at(ms), wall_ns, moment: start + Duration::from_millis(ms) }
    }

    /// A fit whose last sample is at 20 ms.
    fn clock(start: Instant) -> Clock {
        Clock::new(sample(start, 0, EPOCH), sample(start, 20, EPOCH + 20_000_000))
    }

    #[test]
    fn it_follows_a_steered_wall_clock_within_a_microsecond() {
        // Both clocks run 200 ppm fast, which the first fit (20 ms, one sample 1 us late) cannot know.
        let start = Instant::now();
        let steered = |ms: u64| ms * 1_000_200;
        let sample = |ms: u64, late_ns: u64| Sample {
            cycles: at(ms),
            wall_ns: EPOCH + steered(ms) + late_ns,
            moment: start + Duration::from_nanos(steered(ms) + late_ns),
        };
        let mut clock = Clock::new(sample(0, 0), sample(20, 1000));
        for ms in (120..10_000).step_by(100) {
            assert_eq!(clock.refit(sample(ms, 0), at(100)), None);
        }
        let error = clock.ns(at(10_000)).abs_diff(EPOCH + steered(10_000));
        assert!(error < 1000, "off by {error} ns");
        let moment = clock.moment(at(10_000)).duration_since(start).as_nanos();
        assert!(moment.abs_diff(u128::from(steered(10_000))) < 1000, "off: {moment}");
    }

    #[test]
    fn it_follows_a_wall_clock_that_is_slewed_as_fast_as_ntp_ever_does_without_calling_it_a_step() {
        let start = Instant::now();
        // From the second on 8.3333 % fast: chronyd's largest rate.
        let slewed = |ms: u64| ms * 1_000_000 + ms.saturating_sub(1000) * 83_333;
        let sample = |ms: u64| Sample {
            cycles: at(ms),
            wall_ns: EPOCH + slewed(ms),
            moment: start + Duration::from_nanos(slewed(ms)),
        };
        let mut clock = Clock::new(sample(0), sample(20));
        for ms in (120..60_000).step_by(100) {
            assert_eq!(clock.refit(sample(ms), at(100)), None, "at {ms} ms");
        }
        let error = clock.ns(at(60_000)).abs_diff(EPOCH + slewed(60_000));
        assert!(error < 1_000_000, "off by {error} ns");
    }

    #[test]
    fn it_never_runs_backwards_when_the_wall_clock_is_a_little_ahead() {
        let start = Instant::now();
        let mut clock = clock(start);
        let mut last = 0;
        for ms in 21..5_000 {
            let wall = EPOCH + ms * 1_000_000 - if ms > 1_000 { 30_000_000 } else { 0 };
            if ms % 100 == 0 {
                assert_eq!(clock.refit(sample(start, ms, wall), at(100)), None);
            }
            let ns = clock.ns(at(ms));
            assert!(ns >= last, "{last} then {ns} at {ms} ms");
            last = ns;
        }
        let settled = EPOCH + 4_999 * 1_000_000 - 30_000_000;
        assert!(last.abs_diff(settled) < 100_000, "off by {}", last.abs_diff(settled));
    }

    #[test]
    fn a_wall_clock_that_is_set_is_followed_at_once_and_told_and_no_duration_changes() {
        for step in [SECOND, 300 * SECOND, 3600 * SECOND, 365 * 86_400 * SECOND] {
            for is_back in [false, true] {
                let start = Instant::now();
                let mut clock = clock(start);
                let signed = i64::try_from(step).unwrap() * if is_back { -1 } else { 1 };
                let wall = |ms: u64| (EPOCH + ms * 1_000_000).wrapping_add_signed(signed);
                let told = clock.refit(sample(start, 120, wall(120)), at(100)).unwrap();
                assert!(told.abs_diff(signed) < 1000, "{told} of {signed}");
                for ms in (220..3_000).step_by(100) {
                    let off = clock.ns(at(ms - 1)).abs_diff(wall(ms - 1));
                    assert!(off < 1000, "off by {off} ns at {ms} ms");
                    assert_eq!(clock.refit(sample(start, ms, wall(ms)), at(100)), None, "told twice");
                    let passed = clock.moment(at(ms)).duration_since(start).as_nanos();
                    assert!(passed.abs_diff(u128::from(ms) * 1_000_000) < 1000, "{passed} ns at {ms} ms");
                }
            }
        }
    }

    #[test]
    fn moments_and_cycles_are_each_others_inverse() {
        let start = Instant::now();
        let clock = clock(start);
        let later = start + Duration::from_secs(86_400);
        let cycles = clock.cycles_at(later);
        assert!(
            clock.moment(cycles).duration_since(start).abs_diff(Duration::from_secs(86_400))
                < Duration::from_micros(1)
        );
        assert_eq!(clock.cycles_at(start), at(20), "what lies before the sample is there at once");
        assert_eq!(clock.ns_at(start), EPOCH);
        assert_eq!(clock.ns_at(start + Duration::from_millis(30)), EPOCH + 30_000_000);
    }

    #[test]
    fn the_host_clock_agrees_with_the_system_time() {
        let clock = Clock::start(&HostTime);
        let (ns, wall) = (clock.ns(HostTime.cycles()), HostTime.wall_ns());
        assert!(wall.abs_diff(ns) < 50_000_000, "off by {} ns", wall.abs_diff(ns));
    }
}
