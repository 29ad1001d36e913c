//! A spool that fills up. Owns the alarm, and when somebody has to make room; who that is, `share` says. The quota itself is
//! the spool's.
//!
//! Invariant: while more than one capture takes packets, somebody makes room before the quota is used up, so that no other is
//! refused because of it.

use crate::limits::{SPOOL_END_PERCENT, SPOOL_RELIEF_PAUSE};
use std::time::Duration;

/// Share of the spool, in percent, down to which room is made.
const RELIEF_PERCENT: u64 = 90;

/// Where the alarm and the next ending are.
#[derive(Debug)]
pub(in super::super) struct Pressure {
    bytes_max: u64,
    alarm_at: u64,
    end_at: u64,
    /// Beyond this, only accounts within their part write.
    common: u64,
    /// When somebody last made room.
    relieved_at: Duration,
    /// Bytes in use at the last look.
    used: u64,
    alarmed: bool,
    /// A capture was ended for room since the alarm was raised.
    short: bool,
    alarms: u64,
}

impl Pressure {
    pub(super) fn new(bytes_max: u64, common: u64, high_water_percent: u64) -> Self {
        let share = |percent: u64| bytes_max / 100 * percent;
        Self {
            bytes_max,
            alarm_at: share(high_water_percent),
            end_at: share(SPOOL_END_PERCENT),
            common,
            relieved_at: Duration::ZERO,
            used: 0,
            alarmed: false,
            short: false,
            alarms: 0,
        }
    }

    /// Beyond this, only accounts within their part write from now on.
    pub(super) fn set_common(&mut self, common: u64) {
        self.common = common;
    }

    /// Takes note of the bytes in use; whether a capture has to end.
    pub(super) fn look(&mut self, now: Duration, used: u64) -> bool {
        self.used = used;
        if used < self.alarm_at {
            (self.alarmed, self.short) = (false, false);
            self.end_at = self.bytes_max / 100 * SPOOL_END_PERCENT;
        } else if !self.alarmed {
            self.alarmed = true;
            self.alarms += 1;
            tracing::warn!(
                used,
                max = self.bytes_max,
                "the spool fills up: uploads are slower than captures"
            );
        }
        let is_owed = used > self.common && now >= self.relieved_at + SPOOL_RELIEF_PAUSE;
        if used < self.end_at && !is_owed {
            return false;
        }
        self.relieved_at = now;
        // What is ended still waits for its upload: the others go on in half of what is left.
        self.end_at = used + self.bytes_max.saturating_sub(used).div_ceil(2);
        self.short = true;
        true
    }

    /// Whether the last capture that was ended for room has not yet left the others enough of it.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Whether the alarm is raised, and how often it was.
    pub fn alarms(&self) -> (bool, u64) {
        (self.alarmed, self.alarms)
    }

    /// Bytes that have to go.
    pub(super) fn excess(&self) -> u64 {
        self.used.saturating_sub(self.bytes_max / 100 * RELIEF_PERCENT)
    }

    /// Bytes in use at the last look, and the maximum.
    pub(super) fn level(&self) -> (u64, u64) {
        (self.used, self.bytes_max)
    }

    /// For people who look at a capture.
    pub fn warning(&self, used: u64) -> Option<String> {
        let percent = used.saturating_mul(100) / self.bytes_max.max(1);
        self.alarmed
            .then(|| format!("the spool is {percent} % full; at its limit the largest capture of the account with the most bytes ends first"))
    }
}

/// Of captures with these bytes in the spool and these numbers: the largest, of equal ones the newest.
pub(super) fn first_to_end(captures: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
    captures.max().map(|(_, serial)| serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_ends_and_of_equal_ones_the_newest() {
        assert_eq!(first_to_end([(5, 1), (7, 2), (6, 3)].into_iter()), Some(2));
        assert_eq!(first_to_end([(7, 1), (7, 2), (6, 3)].into_iter()), Some(2));
        assert_eq!(first_to_end(std::iter::empty()), None);
    }

    #[test]
    fn after_one_ending_the_others_have_half_of_what_is_left_before_the_next() {
        let mut pressure = Pressure::new(1000, 1000, 80);
        let look = |pressure: &mut Pressure, used| pressure.look(Duration::ZERO, used);
        assert!(!look(&mut pressure, 799) && pressure.warning(799).is_none());
        assert!(!look(&mut pressure, 940) && pressure.warning(940).is_some());
        assert!(look(&mut pressure, 950) && !look(&mut pressure, 974) && look(&mut pressure, 975));
        assert_eq!(pressure.alarms(), (true, 1));
        assert!(
            pressure.is_short() && !look(&mut pressure, 800) && pressure.is_short(),
            "not before the alarm is over"
        );
        assert!(!look(&mut pressure, 700) && !pressure.is_short());
        assert!(look(&mut pressure, 950), "begins again once there is room");
        assert_eq!(pressure.alarms(), (true, 2));
    }
    #[test]
    fn beyond_what_is_for_all_room_is_made_again_and_again_until_it_is_there() {
        let mut pressure = Pressure::new(1000, 970, 80);
        let at = Duration::from_millis;
        assert!(pressure.look(at(0), 960) && !pressure.look(at(200), 960));
        assert!(pressure.look(at(200), 975), "half of what was left is used");
        assert!(!pressure.look(at(299), 975) && pressure.look(at(300), 975) && !pressure.look(at(310), 975));
        assert!(!pressure.look(at(900), 970));
    }
}
