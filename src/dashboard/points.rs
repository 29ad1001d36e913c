//! A capture's counts over time. Owns the points and their thinning; not the counts.
//!
//! Each point is what was counted in its step, so the sum of all points is the last count. Where there are too many, two become one
//! and a step is twice as long.
//!
//! Invariant: there are never more than [`POINTS_MAX`] points, and their sum is what was counted.

use crate::job::Ledger;
use serde_json::{Value, json};

/// Points of one capture.
const POINTS_MAX: usize = 600;
const SECOND_NS: u64 = 1_000_000_000;
/// Names of the counts, in the order of a point; those behind the third are causes of drops.
const NAMES: [&str; 9] =
    ["matched", "captured", "bytes", "no_block", "limit", "sampled", "spool", "io", "interrupted"];

type Counts = [i64; NAMES.len()];

/// See the module.
#[derive(Clone, Debug)]
pub struct Points {
    from_ns: u64,
    step_ns: u64,
    points: Vec<Counts>,
    last: Counts,
}

fn counts(ledger: &Ledger) -> Counts {
    let dropped = &ledger.dropped;
    [
        ledger.matched,
        ledger.captured,
        ledger.captured_bytes,
        dropped.no_block,
        dropped.limit,
        dropped.sampled,
        dropped.spool,
        dropped.io,
        dropped.interrupted,
    ]
    .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

impl Points {
    /// None yet; the first step begins now.
    #[must_use]
    pub fn new(now_ns: u64) -> Self {
        Self { from_ns: now_ns, step_ns: SECOND_NS, points: Vec::new(), last: [0; NAMES.len()] }
    }

    /// Adds what was counted since the last call. A clock that was set back adds to the last point.
    pub fn add(&mut self, now_ns: u64, ledger: &Ledger) {
        let counts = counts(ledger);
        let mut at = (now_ns.saturating_sub(self.from_ns) / self.step_ns) as usize;
        while at >= POINTS_MAX && !self.points.is_empty() {
            let pairs = self.points.chunks(2);
            self.points = pairs.map(|pair| pair.iter().fold([0; NAMES.len()], plus)).collect();
            self.step_ns = self.step_ns.saturating_mul(2);
            at = (now_ns.saturating_sub(self.from_ns) / self.step_ns) as usize;
        }
        let at = at.min(POINTS_MAX - 1).max(self.points.len().saturating_sub(1));
        self.points.resize(at + 1, [0; NAMES.len()]);
        for (name, count) in counts.iter().enumerate() {
            self.points[at][name] += count - self.last[name];
        }
        self.last = counts;
    }

    /// As the API answers it.
    #[must_use]
    pub fn value(&self) -> Value {
        let of = |name: usize| Value::from(self.points.iter().map(|point| point[name]).collect::<Vec<_>>());
        let dropped: serde_json::Map<_, _> =
            (3..NAMES.len()).map(|name| (NAMES[name].to_owned(), of(name))).collect();
        json!({"from_ns": self.from_ns, "step_ns": self.step_ns, "matched": of(0), "captured": of(1),
            "bytes": of(2), "dropped": dropped})
    }
}

fn plus(sum: Counts, point: &Counts) -> Counts {
    std::array::from_fn(|name| sum[name] + point[name])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Dropped;

    #[test]
    fn points_are_bounded_by_longer_steps_and_their_sum_is_the_last_count() {
        let mut points = Points::new(1000);
        let mut ledger = Ledger::default();
        for second in 0..5_000_u64 {
            ledger.matched += 7;
            ledger.captured += 5;
            ledger.dropped.no_block += 2;
            // What a disk loses later moves from one count to another.
            if second == 4_000 {
                ledger.captured -= 100;
                ledger.dropped.io += 100;
            }
            points.add(1000 + second * SECOND_NS, &ledger);
        }
        let value = points.value();
        let sum = |list: &Value| list.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).sum::<i64>();
        assert!(
            value["matched"].as_array().unwrap().len() <= POINTS_MAX && value["step_ns"] == 16 * SECOND_NS
        );
        assert_eq!(sum(&value["matched"]), 35_000);
        assert_eq!(sum(&value["captured"]), 24_900);
        let Dropped { no_block, io, .. } = ledger.dropped;
        assert_eq!(
            (sum(&value["dropped"]["no_block"]), sum(&value["dropped"]["io"])),
            (no_block as i64, io as i64)
        );
    }

    #[test]
    fn a_clock_that_goes_back_or_far_ahead_leaves_the_sum_right() {
        let mut points = Points::new(100 * SECOND_NS);
        let mut ledger = Ledger::default();
        for now in [101, 50, 102, u64::MAX / SECOND_NS, 103] {
            ledger.matched += 1;
            points.add(now * SECOND_NS, &ledger);
        }
        let value = points.value();
        let list = value["matched"].as_array().unwrap();
        assert!(list.len() <= POINTS_MAX);
        assert_eq!(list.iter().map(|v| v.as_i64().unwrap()).sum::<i64>(), 5);
    }
}
