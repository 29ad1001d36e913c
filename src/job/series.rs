//! A capture's counts over time. Owns the points, their thinning, and their form in the record; not the counts, nor the clock.
//!
//! Each point is what was counted in its step, so the sum of all points is the last count. A host under load reads the counts late:
//! what was counted between two readings is spread evenly over the time between them. Where there are too many points, two become
//! one and a step is twice as long. The last step ends with the last reading, so that it may be a part of a step.
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
    /// When the counts were read last, after the beginning of the first step.
    read_at: Duration,
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
        Self { from_ns, step: STEP, points: Vec::new(), last: [0; COUNTS], read_at: Duration::ZERO }
    }

    /// Adds packets whose times are known, each as long after the beginning, with its bytes; the series ends at `until`.
    pub fn put(&mut self, until: Duration, packets: impl Iterator<Item = (Duration, u64)>) {
        let last = self.reach(until);
        for (at, bytes) in packets {
            let at = self.step_at(at).min(last);
            let mut packet = [0; COUNTS];
            packet[..NAMES.len()].copy_from_slice(&[1, 1, i64::try_from(bytes).unwrap_or(i64::MAX)]);
            self.points[at] = plus(packet, &self.points[at]);
            self.last = plus(packet, &self.last);
        }
        self.read_at = self.read_at.max(until);
    }

    /// Makes room for what was counted up to `to`, in a step whose number is the answer.
    fn reach(&mut self, to: Duration) -> usize {
        // A step that begins then has nothing yet.
        let last_moment = to.saturating_sub(Duration::from_nanos(1));
        while self.step_at(last_moment) >= POINTS_MAX {
            let pairs = self.points.chunks(2);
            self.points = pairs.map(|pair| pair.iter().fold([0; COUNTS], plus)).collect();
            self.step = self.step.saturating_mul(2);
        }
        let last = self.step_at(last_moment);
        self.points.resize(self.points.len().max(last + 1), [0; COUNTS]);
        last
    }

    /// Adds what was counted since the last call, by a reading so long after the first step began.
    pub fn add(&mut self, elapsed: Duration, ledger: &Ledger) {
        let (from, to) = (self.read_at, elapsed);
        if to <= from {
            return self.settle(ledger);
        }
        let last = self.reach(to);
        let first = self.step_at(from).min(last);
        let counts = counts(ledger);
        let moved: Counts = std::array::from_fn(|name| counts[name] - self.last[name]);
        let mut given = [0; COUNTS];
        for at in first..=last {
            let end = self.step.saturating_mul(u32::try_from(at + 1).unwrap_or(u32::MAX)).min(to);
            let share = (end - from).as_secs_f64() / (to - from).as_secs_f64();
            for (name, moved) in moved.iter().enumerate() {
                // The last one has the rest, so that no rounding loses any.
                let due = if at == last { *moved } else { (*moved as f64 * share).round() as i64 };
                self.points[at][name] += due - given[name];
                given[name] = due;
            }
        }
        (self.last, self.read_at) = (counts, to);
    }

    /// Adds what was counted since to the last point: what a disk loses after the last packet moves between counts. Of a count
    /// that fell the last points lose it, and none falls below zero.
    pub fn settle(&mut self, ledger: &Ledger) {
        let counts = counts(ledger);
        if self.points.is_empty() && counts != self.last {
            self.points.push([0; COUNTS]);
        }
        let Some(last) = self.points.len().checked_sub(1) else { return };
        for (name, count) in counts.iter().enumerate() {
            let mut moved = count - self.last[name];
            for point in self.points.iter_mut().rev() {
                if moved >= 0 {
                    break;
                }
                let taken = point[name].min(-moved).max(0);
                point[name] -= taken;
                moved += taken;
            }
            self.points[last][name] += moved;
        }
        self.last = counts;
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
            step_ns: ns(self.step),
            to_ns: Some(self.from_ns.saturating_add(ns(self.read_at))).filter(|_| !self.read_at.is_zero()),
            points: self.points.len() as u64,
            columns: (0..COUNTS).filter_map(column).collect(),
        }
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
    /// When the last step ended, which may be before its length has passed; none of an older version's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ns: Option<u64>,
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
        let whole = self.step_ns.saturating_mul(points as u64);
        let to_ns = self.to_ns.unwrap_or_else(|| self.from_ns.saturating_add(whole));
        // A host alone deals no shares.
        let has = |cause: &&str| *cause != "share" || self.columns.contains_key(*cause);
        let causes = Dropped::CAUSES.iter().filter(|cause| has(cause));
        let dropped: Map<_, _> = causes.map(|cause| ((*cause).to_owned(), of(cause))).collect();
        json!({"from_ns": self.from_ns, "to_ns": to_ns, "step_ns": self.step_ns, "matched": of(NAMES[0]),
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
        for second in 1..=5_000 {
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
        series.add(seconds(3), &ledger);
        (ledger.captured, ledger.dropped.spool) = (5, 4);
        series.settle(&ledger);
        let value = series.kept().value();
        assert_eq!(value["captured"], json!([3, 2, 0]));
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

    /// Readings at these milliseconds of a capture that counts one packet a millisecond.
    fn one_a_millisecond(readings: &[u64]) -> Value {
        let mut series = Series::new(1_000_000_000);
        for &at in readings {
            let ledger = Ledger { matched: at, captured: at, ..Ledger::default() };
            series.add(Duration::from_millis(at), &ledger);
        }
        series.kept().value()
    }

    #[test]
    fn readings_that_come_late_change_no_rate() {
        for readings in [
            &[1000, 2000, 3000, 4000, 5000, 6000][..],
            // As a loaded host reads them: a turn late, two close together, one for three seconds.
            &[1050, 1990, 3080, 3995, 5100, 6000],
            &[999, 1001, 1002, 4500, 4501, 6000],
            &[6000],
        ] {
            let value = one_a_millisecond(readings);
            assert_eq!(value["matched"], json!([1000, 1000, 1000, 1000, 1000, 1000]), "{readings:?}");
            assert_eq!(
                (&value["from_ns"], &value["to_ns"]),
                (&json!(1_000_000_000_u64), &json!(7_000_000_000_u64))
            );
        }
    }

    #[test]
    fn packets_of_known_times_are_in_their_steps_and_those_left_out_before_them() {
        let packets = [(0, 10), (999, 20), (1_000, 30), (2_499, 40), (9_000, 50)];
        let packets = packets.map(|(at, bytes)| (Duration::from_millis(at), bytes));
        // Three more had passed before the first of them, and had no room.
        let left_out =
            Ledger { matched: 3, dropped: Dropped { limit: 3, ..Dropped::default() }, ..Ledger::default() };
        let mut series = Series::new(7);
        series.add(Duration::from_millis(500), &left_out);
        series.put(Duration::from_millis(2_500), packets.into_iter());
        let value = series.kept().value();
        assert_eq!((&value["captured"], &value["bytes"]), (&json!([2, 1, 2]), &json!([30, 30, 90])));
        assert_eq!((&value["matched"], &value["dropped"]["limit"]), (&json!([5, 1, 2]), &json!([3, 0, 0])));
        assert_eq!(value["to_ns"], 2_500_000_007_u64);
        let mut day = Series::new(0);
        day.put(Duration::from_secs(86_400), std::iter::empty());
        assert!(day.kept().value()["matched"].as_array().unwrap().len() <= POINTS_MAX);
    }

    #[test]
    fn the_last_step_ends_with_the_last_reading() {
        let value = one_a_millisecond(&[1000, 2000, 2300]);
        assert_eq!(
            (&value["matched"], &value["to_ns"]),
            (&json!([1000, 1000, 300]), &json!(3_300_000_000_u64))
        );
        let value = one_a_millisecond(&[70]);
        assert_eq!((&value["matched"], &value["to_ns"]), (&json!([70]), &json!(1_070_000_000_u64)));
        // A reading that comes no later than the one before is the end of that step.
        let value = one_a_millisecond(&[2000, 2000]);
        assert_eq!(value["matched"], json!([1000, 1000]));
        // A record of a version that did not write its end down.
        let old: KeptSeries =
            serde_json::from_str(r#"{"from_ns":5,"step_ns":10,"points":3,"matched":"1*3"}"#).unwrap();
        assert_eq!(old.value()["to_ns"], 35);
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
