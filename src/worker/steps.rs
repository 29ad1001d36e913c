//! Steps of the wall clock, from the worker that sees them to everybody who wants to know. Owns the account of them; what is
//! done about them is the reader's.
//!
//! A step is told once, by one worker of the host, within about 0.1 s. Captures that run at that time keep the time in which
//! they began; what begins after it has the new one. The engine asks [`ClockReading::since`] at each tick and notes the answer
//! in every capture that runs.
//!
//! Invariant: one writer; a reader sees the state after some step, whole.

use super::sequence::Words;

/// Steps of the wall clock since the process started.
#[derive(Debug, Default)]
pub struct ClockSteps {
    words: Words<4>,
}

/// A state of [`ClockSteps`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReading {
    /// How often the wall clock was set by more than half a second.
    pub count: u64,
    /// By how many ns the last time; less than zero: back.
    pub last_ns: i64,
    /// By how many ns all times together.
    pub total_ns: i64,
    /// UTC when the last step was seen, by the clock after it, ns since the UNIX epoch.
    pub at_ns: u64,
}

impl ClockReading {
    /// What happened after an earlier reading: how many steps, and by how many ns they moved the clock together. None: nothing.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<(u64, i64)> {
        let count = self.count.wrapping_sub(earlier.count);
        (count > 0).then(|| (count, self.total_ns.wrapping_sub(earlier.total_ns)))
    }
}

impl ClockSteps {
    /// The state after the last step.
    #[must_use]
    pub fn read(&self) -> ClockReading {
        self.words.read(|get| ClockReading {
            count: get(0),
            last_ns: get(1).cast_signed(),
            total_ns: get(2).cast_signed(),
            at_ns: get(3),
        })
    }

    /// Adds a step of so many ns, seen at `at_ns`. Only ever called by the one writer.
    pub(super) fn add(&self, step_ns: i64, at_ns: u64) {
        let last = self.read();
        self.words.publish(|words| {
            words.set(0, last.count.wrapping_add(1));
            words.set(1, step_ns.cast_unsigned());
            words.set(2, last.total_ns.wrapping_add(step_ns).cast_unsigned());
            words.set(3, at_ns);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_and_what_lies_between_two_readings_is_their_difference() {
        let steps = ClockSteps::default();
        assert_eq!(steps.read(), ClockReading::default());
        steps.add(-300, 7);
        let between = steps.read();
        assert_eq!(between, ClockReading { count: 1, last_ns: -300, total_ns: -300, at_ns: 7 });
        steps.add(1000, 8);
        steps.add(-1, 9);
        let after = steps.read();
        assert_eq!(after, ClockReading { count: 3, last_ns: -1, total_ns: 699, at_ns: 9 });
        assert_eq!((after.since(&between), after.since(&after)), (Some((2, 999)), None));
    }
}
