//! A capture's counts over time. Owns the points, their thinning, and their form in the record; not the counts, nor the clock.
//!
//! Each point is what was counted in its step, so the sum of all points is the last count. Where there are too many, two become one
//! and a step is twice as long.
//!
//! Invariant: there are never more than [`POINTS_MAX`] points, their sum is what was counted, and none begins after the last packet.

use super::{Dropped, Ledger};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Points of one capture.
pub const POINTS_MAX: usize = 600;
/// The first step.
const STEP: Duration = Duration::from_secs(1);
/// Names of the counts that stand first in a point; those of the causes of drops follow.
const NAMES: [&str; 3] = ["matched", "captured", "bytes"];
/// Counts of a point.
const COUNTS: usize = NAMES.len() + Dropped::CAUSES.len();

type Counts = [i64; COUNTS];

/// See the module.
#[derive(Clone, Debug)]
pub struct Series {
    from_ns: u64,
    step: Duration,
    points: Vec<Counts>,
    last: Counts,
}

fn counts(ledger: &Ledger) -> Counts {
    let (first, drops) = ([ledger.matched, ledger.captured, ledger.captured_bytes], ledger.dropped.counts());
    let count = |name: usize| first.get(name).copied().unwrap_or_else(|| drops[name - first.len()]);
    std::array::from_fn(|name| i64::try_from(count(name)).unwrap_or(i64::MAX))
}

fn name(count: usize) -> &'static str {
    NAMES.get(count).copied().unwrap_or_else(|| Dropped::CAUSES[count - NAMES.len()])
}

impl Series {
    /// None yet; the first step begins then, in ns since the UNIX epoch.
    #[must_use]
    pub fn new(from_ns: u64) -> Self {
        Self { from_ns, step: STEP, points: Vec::new(), last: [0; COUNTS] }
    }

    /// Adds what was counted since the last call, at a moment so long after the first step began.
    pub fn add(&mut self, elapsed: Duration, ledger: &Ledger) {
        let mut at = self.step_at(elapsed);
        while at >= POINTS_MAX && !self.points.is_empty() {
            let pairs = self.points.chunks(2);
            self.points = pairs.map(|pair| pair.iter().fold([0; COUNTS], plus)).collect();
            self.step = self.step.saturating_mul(2);
            at = self.step_at(elapsed);
        }
        let at = at.min(POINTS_MAX - 1).max(self.points.len().saturating_sub(1));
        self.points.resize(at + 1, [0; COUNTS]);
        self.settle(ledger);
    }

    /// Adds what was counted since to the last point: what a disk loses after the last packet moves between counts.
    pub fn settle(&mut self, ledger: &Ledger) {
        let counts = counts(ledger);
        if self.points.is_empty() && counts != self.last {
            self.points.push([0; COUNTS]);
        }
        if let Some(point) = self.points.last_mut() {
            for (name, count) in counts.iter().enumerate() {
                point[name] += count - self.last[name];
            }
            self.last = counts;
        }
    }

    fn step_at(&self, elapsed: Duration) -> usize {
        usize::try_from(elapsed.as_nanos() / self.step.as_nanos().max(1)).unwrap_or(usize::MAX)
    }

    /// As it is recorded.
    #[must_use]
    pub fn kept(&self) -> KeptSeries {
        let column = |count: usize| {
            let points = self.points.iter().map(move |point| point[count]);
            (points.clone().any(|count| count != 0)).then(|| (name(count).to_owned(), written(points).into()))
        };
        KeptSeries {
            from_ns: self.from_ns,
            step_ns: u64::try_from(self.step.as_nanos()).unwrap_or(u64::MAX),
            points: self.points.len() as u64,
            columns: (0..COUNTS).filter_map(column).collect(),
        }
    }
}

fn plus(sum: Counts, point: &Counts) -> Counts {
    std::array::from_fn(|name| sum[name] + point[name])
}

/// A series in a record: each count is one text, such as `7 0*58 12` for 7, 58 zeros and 12, so that reading a list of jobs does
/// not read every point of each. A count that stayed zero has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptSeries {
    /// When the first step began, in ns since the UNIX epoch.
    pub from_ns: u64,
    /// Length of a step.
    pub step_ns: u64,
    points: u64,
    /// By name. Those that a newer version wrote are kept.
    #[serde(flatten)]
    columns: Map<String, Value>,
}

impl KeptSeries {
    /// One without points.
    #[must_use]
    pub fn none(from_ns: u64) -> Self {
        Series::new(from_ns).kept()
    }

    /// As the API answers it.
    #[must_use]
    pub fn value(&self) -> Value {
        let points = usize::try_from(self.points).unwrap_or(POINTS_MAX).min(POINTS_MAX);
        let of = |name: &str| {
            let text = self.columns.get(name).and_then(Value::as_str).unwrap_or("");
            let mut counts = read(text);
            counts.resize(points, 0);
            Value::from(counts)
        };
        // A host alone deals no shares.
        let has = |cause: &&str| *cause != "share" || self.columns.contains_key(*cause);
        let causes = Dropped::CAUSES.iter().filter(|cause| has(cause));
        let dropped: Map<_, _> = causes.map(|cause| ((*cause).to_owned(), of(cause))).collect();
        json!({"from_ns": self.from_ns, "step_ns": self.step_ns, "matched": of(NAMES[0]),
            "captured": of(NAMES[1]), "bytes": of(NAMES[2]), "dropped": dropped})
    }
}

/// Counts as a text: equal neighbours once, with how many they are.
fn written(counts: impl Iterator<Item = i64>) -> String {
    let mut runs: Vec<(i64, usize)> = Vec::new();
    for count in counts {
        match runs.last_mut() {
            Some((last, times)) if *last == count => *times += 1,
            _ => runs.push((count, 1)),
        }
    }
    let run = |(count, times): &(i64, usize)| {
        if *times == 1 { count.to_string() } else { format!("{count}*{times}") }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(" ")
}

/// At most [`POINTS_MAX`] of them; what is no count is a zero.
fn read(text: &str) -> Vec<i64> {
    let runs = text.split(' ').filter(|run| !run.is_empty()).flat_map(|run| {
        let (count, times) = run.split_once('*').unwrap_or((run, "1"));
        std::iter::repeat_n(count.parse().unwrap_or(0), times.parse().unwrap_or(0).min(POINTS_MAX))
    });
    runs.take(POINTS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Dropped;
    use proptest::prelude::*;

    fn sum(list: &Value) -> i64 {
        list.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).sum()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn points_are_bounded_by_longer_steps_and_their_sum_is_the_last_count() {
        let mut series = Series::new(1000);
        let mut ledger = Ledger::default();
        for second in 0..5_000 {
            ledger.matched += 7;
            ledger.captured += 5;
            ledger.dropped.no_block += 2;
            // What a disk loses later moves from one count to another.
            if second == 4_000 {
                ledger.captured -= 100;
                ledger.dropped.io += 100;
            }
            series.add(seconds(second), &ledger);
        }
        let value = series.kept().value();
        let points = value["matched"].as_array().unwrap().len();
        assert!(points <= POINTS_MAX && value["step_ns"] == 16_000_000_000_u64, "{points}");
        assert_eq!((sum(&value["matched"]), sum(&value["captured"])), (35_000, 24_900));
        let Dropped { no_block, io, .. } = ledger.dropped;
        assert_eq!(
            (sum(&value["dropped"]["no_block"]), sum(&value["dropped"]["io"])),
            (no_block as i64, io as i64)
        );
    }

    #[test]
    fn what_moves_after_the_last_packet_is_in_the_last_point_and_makes_no_new_one() {
        let mut series = Series::new(0);
        let mut ledger = Ledger { matched: 9, captured: 9, ..Ledger::default() };
        series.add(seconds(2), &ledger);
        (ledger.captured, ledger.dropped.spool) = (5, 4);
        series.settle(&ledger);
        let value = series.kept().value();
        assert_eq!(value["captured"], json!([0, 0, 5]));
        assert_eq!(
            (&value["dropped"]["spool"], &value["dropped"]["io"]),
            (&json!([0, 0, 4]), &json!([0, 0, 0]))
        );
        // One that took no second has its packets all the same.
        let mut short = Series::new(0);
        short.settle(&ledger);
        assert_eq!(short.kept().value()["captured"], json!([5]));
        assert_eq!(KeptSeries::none(5).value()["captured"], json!([]));
    }

    #[test]
    fn a_moment_far_ahead_leaves_the_sum_right() {
        let mut series = Series::new(100);
        let mut ledger = Ledger::default();
        for second in [1, 0, 2, u64::MAX / 4, 3] {
            ledger.matched += 1;
            series.add(seconds(second), &ledger);
        }
        let value = series.kept().value();
        assert!(value["matched"].as_array().unwrap().len() <= POINTS_MAX);
        assert_eq!(sum(&value["matched"]), 5);
    }

    proptest! {
        #[test]
        fn a_record_has_the_points_that_were_written(counts in prop::collection::vec((-3_i64..3, 0_u64..3), 0..80)) {
            let (mut series, mut ledger, mut at) = (Series::new(7), Ledger::default(), 0);
            for (moved, later) in counts {
                at += later;
                ledger.matched += 3;
                ledger.captured = ledger.captured.saturating_add_signed(moved);
                series.add(seconds(at), &ledger);
            }
            let kept = series.kept();
            let again: KeptSeries = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
            prop_assert_eq!(again.value(), kept.value());
            let plain: Vec<_> = series.points.iter().map(|point| point[1]).collect();
            prop_assert_eq!(&kept.value()["captured"], &json!(plain));
        }
    }

    #[test]
    fn a_record_that_says_anything_is_read_within_bounds() {
        let text = r#"{"from_ns":1,"step_ns":2,"points":18446744073709551615,
            "matched":"7*99999999999 x 3*-1 9","captured":5,"of_tomorrow":[1]}"#;
        let kept: KeptSeries = serde_json::from_str(text).unwrap();
        assert_eq!(kept.value()["matched"].as_array().unwrap().len(), POINTS_MAX);
        assert_eq!(serde_json::to_value(&kept).unwrap()["of_tomorrow"], json!([1]));
    }
}
