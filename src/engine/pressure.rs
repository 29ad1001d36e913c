//! A spool that fills up. Owns the alarm, and the choice of the capture that ends first; the quota itself is the spool's.
//!
//! Invariant: while more than one capture takes packets, the one with the most bytes ends before the quota is used up, so
//! that no other is refused because of it.

use super::Engine;
use super::active::Active;
use crate::job::StopReason;
use crate::limits::SPOOL_END_PERCENT;
use crate::spool::Failure;

/// Where the alarm and the next ending are.
#[derive(Debug)]
pub(super) struct Pressure {
    bytes_max: u64,
    alarm_at: u64,
    end_at: u64,
    alarmed: bool,
    /// A capture was ended for room since the alarm was raised.
    short: bool,
    alarms: u64,
}

impl Pressure {
    pub fn new(bytes_max: u64, high_water_percent: u64) -> Self {
        let share = |percent: u64| bytes_max / 100 * percent;
        Self {
            bytes_max,
            alarm_at: share(high_water_percent),
            end_at: share(SPOOL_END_PERCENT),
            alarmed: false,
            short: false,
            alarms: 0,
        }
    }

    /// Takes note of the bytes in use; whether a capture has to end.
    fn look(&mut self, used: u64) -> bool {
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
        if used < self.end_at {
            return false;
        }
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

    /// For people who look at a capture.
    pub fn warning(&self, used: u64) -> Option<String> {
        let percent = used.saturating_mul(100) / self.bytes_max.max(1);
        self.alarmed
            .then(|| format!("the spool is {percent} % full; at its limit the largest capture ends first"))
    }
}

impl Engine {
    /// Ends the largest capture, of equal ones the newest, if the spool is at its limit.
    pub(super) fn relieve(&mut self) {
        let used = self.planes.spool.held_bytes();
        if !self.pressure.look(used) {
            return;
        }
        let waiting = |a: &Active| {
            let captured = a.ledger(&self.planes.queues, &self.planes.ports).captured_bytes;
            captured.saturating_sub(a.job.objects.iter().map(|object| object.bytes).sum())
        };
        let takes = |a: &&Active| a.counted.is_none() && !a.stopping();
        let captures = self.active.values().filter(takes).map(|a| (waiting(a), a.serial));
        let Some(serial) = first_to_end(captures) else { return };
        let max = self.planes.spool.quota().bytes_max();
        let message = format!(
            "the spool holds {used} of spool.bytes_max {max} bytes and this capture had the most of them; raise it or let uploads finish"
        );
        if let Some(active) = self.active.get_mut(&serial) {
            tracing::warn!(capture = %active.job.id, used, max, "the largest capture ends because the spool is full");
            let failure = active.failure.get_or_insert(Failure::Full(message)).clone();
            // What waits in its blocks may be more than the room that the others have left.
            self.planes.spool.refuse(serial, failure);
        }
        self.end(serial, StopReason::SpoolFull);
    }
}

/// Of captures with these bytes in the spool and these numbers, given in the order of their beginning: the largest, of equal
/// ones the newest.
fn first_to_end(captures: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
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
        let mut pressure = Pressure::new(1000, 80);
        assert!(!pressure.look(799) && pressure.warning(799).is_none());
        assert!(!pressure.look(940) && pressure.warning(940).is_some());
        assert!(pressure.look(950) && !pressure.look(974) && pressure.look(975));
        assert_eq!(pressure.alarms(), (true, 1));
        assert!(
            pressure.is_short() && !pressure.look(800) && pressure.is_short(),
            "not before the alarm is over"
        );
        assert!(!pressure.look(700) && !pressure.is_short());
        assert!(pressure.look(950), "begins anew once there is room");
        assert_eq!(pressure.alarms(), (true, 2));
    }
}
