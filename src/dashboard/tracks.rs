//! What the host counted in the past quarter of an hour, second by second. Owns the ring; not the counts.
//!
//! A host under load is looked at late: what a count grew by is spread evenly over the time since its last reading. The second that
//! is under way is kept and not yet shown.
//!
//! Invariant: every track has as many points as the ring, at most [`POINTS_MAX`] that are shown; their sum is what was counted. A time
//! after which nothing was read is a gap, and one in which a count fell, because what counts began again, is one too.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

/// 15 minutes, and the second that is under way.
const POINTS_MAX: usize = 901;
/// More tracks than a host has ports, queues and stages.
const TRACKS_MAX: usize = 4096;
const SECOND_NS: u64 = 1_000_000_000;

/// One reading of one track: what it is about (`ports/net_pcap0`), the name of its value, the value.
pub type Measure = (String, &'static str, Reading);

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Only grows; shown as what it grew by.
    Count(u64),
    /// The same of what counts from 0 since its track began, as a capture does: its first reading is shown too.
    FromZero(u64),
    /// Shown as it is.
    Level(u64),
}

#[derive(Clone, Debug, Default)]
struct Track {
    last: Option<u64>,
    /// When it was read last.
    read_at: Duration,
    points: VecDeque<Option<u64>>,
}

impl Track {
    /// Puts `grown` into the seconds from its last reading to `now`, or what of them the ring has. `newest` is the second of the
    /// last point.
    fn spread(&mut self, from: Duration, now: Duration, newest: u64, grown: u64) {
        let whole = now.saturating_sub(from).as_secs_f64().max(1e-9);
        let until = |end: Duration| {
            let part = end.saturating_sub(from).as_secs_f64() / whole;
            ((grown as f64 * part).round() as u64).min(grown)
        };
        let seconds = self.seconds(from, now, newest);
        let mut given = until(Duration::from_secs(*seconds.start()));
        for second in seconds.clone() {
            // The last one has the rest, so that no rounding loses any.
            let is_last = second == *seconds.end();
            let due = if is_last { grown } else { until(Duration::from_secs(second + 1)) };
            self.put(newest, second, |point| point + due.saturating_sub(given));
            given = due;
        }
    }

    /// The seconds from `from` to `now` that the ring has.
    fn seconds(&self, from: Duration, now: Duration, newest: u64) -> RangeInclusive<u64> {
        let oldest = (newest + 1).saturating_sub(self.points.len() as u64);
        let first = from.as_secs().max(oldest);
        // One that begins with the look has nothing yet.
        first..=now.saturating_sub(Duration::from_nanos(1)).as_secs().max(first)
    }

    fn put(&mut self, newest: u64, second: u64, change: impl FnOnce(u64) -> u64) {
        let behind = usize::try_from(newest.saturating_sub(second)).unwrap_or(usize::MAX);
        let at = self.points.len().checked_sub(behind.saturating_add(1));
        if let Some(point) = at.and_then(|at| self.points.get_mut(at)) {
            *point = Some(change(point.unwrap_or(0)));
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Tracks {
    /// The last look: UTC, and since the beginning.
    now_ns: u64,
    looked_at: Option<Duration>,
    len: usize,
    tracks: BTreeMap<(String, &'static str), Track>,
}

impl Tracks {
    /// Adds a look at `now_ns` (UTC), which is so long after the beginning.
    pub fn add(&mut self, now_ns: u64, now: Duration, measures: Vec<Measure>) {
        let before = self.looked_at.unwrap_or_else(|| now.saturating_sub(Duration::from_secs(1)));
        let now = now.max(before);
        // The first look makes the second that it ends, and the one that is under way.
        let passed = if self.looked_at.is_some() {
            now.as_secs() - before.as_secs()
        } else {
            now.as_secs().saturating_add(1).min(2)
        };
        let passed = usize::try_from(passed).unwrap_or(usize::MAX).min(POINTS_MAX);
        (self.now_ns, self.looked_at) = (now_ns, Some(now));
        self.len = (self.len + passed).min(POINTS_MAX);
        let (len, newest) = (self.len, now.as_secs());
        for track in self.tracks.values_mut() {
            for _ in 0..passed {
                if track.points.len() >= POINTS_MAX {
                    track.points.pop_front();
                }
                track.points.push_back(None);
            }
        }
        for (of, name, reading) in measures {
            let key = (of, name);
            if self.tracks.len() >= TRACKS_MAX && !self.tracks.contains_key(&key) && !self.forget_one(now) {
                continue;
            }
            let new =
                || Track { read_at: before, points: VecDeque::from(vec![None; len]), ..Track::default() };
            let track = self.tracks.entry(key).or_insert_with(new);
            let from = std::mem::replace(&mut track.read_at, now);
            match reading {
                Reading::Level(level) => {
                    for second in track.seconds(before, now, newest) {
                        track.put(newest, second, |_| level);
                    }
                }
                Reading::Count(count) | Reading::FromZero(count) => {
                    let base = matches!(reading, Reading::FromZero(_)).then_some(0);
                    let grown = track.last.or(base).and_then(|last| count.checked_sub(last));
                    track.last = Some(count);
                    if let Some(grown) = grown {
                        track.spread(from, now, newest, grown);
                    }
                }
            }
        }
        let kept = Duration::from_secs(POINTS_MAX as u64);
        self.tracks.retain(|_, track| now.saturating_sub(track.read_at) < kept);
    }

    /// Makes room by the track that was not read for the longest time; false if all were read in this look.
    fn forget_one(&mut self, now: Duration) -> bool {
        let oldest = self.tracks.iter().min_by_key(|(_, track)| track.read_at);
        let oldest = oldest.filter(|(_, track)| track.read_at < now).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.tracks.remove(&key).is_some())
    }

    /// The last `seconds` as the API answers them: an object for each thing, an array for each of its values.
    #[must_use]
    pub fn value(&self, seconds: usize) -> Value {
        // The second that is under way has not all that will be counted in it.
        let whole = self.len.saturating_sub(1);
        let len = whole.min(seconds.max(1));
        let mut things: Map<String, Value> = Map::new();
        for ((of, name), track) in &self.tracks {
            let (group, thing) = of.split_once('/').unwrap_or((of, ""));
            let points = track.points.iter().take(whole).skip(whole - len);
            let points = Value::from_iter(points.copied());
            let group = things.entry(group.to_owned()).or_insert_with(|| json!({}));
            let thing = if thing.is_empty() { Some(group) } else { entry(group, thing) };
            if let Some(Value::Object(thing)) = thing {
                thing.insert((*name).to_owned(), points);
            }
        }
        let under_way = u64::from(self.looked_at.unwrap_or_default().subsec_nanos());
        let span = under_way + len as u64 * SECOND_NS;
        things.insert("from_ns".to_owned(), self.now_ns.saturating_sub(span).into());
        things.insert("step_ns".to_owned(), SECOND_NS.into());
        Value::Object(things)
    }
}

fn entry<'a>(group: &'a mut Value, thing: &str) -> Option<&'a mut Value> {
    Some(group.as_object_mut()?.entry(thing.to_owned()).or_insert_with(|| json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look so many ms after the beginning.
    fn look(tracks: &mut Tracks, ms: u64, measures: Vec<Measure>) {
        tracks.add(SECOND_NS * 1_000_000 + ms * 1_000_000, Duration::from_millis(ms), measures);
    }

    fn of(group: &str, name: &'static str, reading: Reading) -> Measure {
        (group.to_owned(), name, reading)
    }

    #[test]
    fn the_ring_has_the_last_quarter_of_an_hour_with_gaps_as_gaps_and_no_spike_of_a_reset() {
        let mut tracks = Tracks::default();
        for second in 1..=2_000_u64 {
            let mut measures = vec![of("spool", "used", Reading::Level(second))];
            // The port is away for a while, and counts from zero after that.
            if !(1_500..1_600).contains(&second) {
                let count = if second < 1_500 { 10 * second } else { 3 * (second - 1_600) };
                measures.push(of("ports/net0", "imissed", Reading::Count(count)));
            }
            look(&mut tracks, 1_000 * second, measures);
        }
        let value = tracks.value(900);
        let missed = value["ports"]["net0"]["imissed"].as_array().unwrap();
        assert_eq!((missed.len(), value["spool"]["used"].as_array().unwrap().len()), (900, 900));
        assert_eq!(value["from_ns"], (1_000_000 + 1_100) * SECOND_NS);
        // The first is the second that ends at 1101; the look at 1600 is the first of the new series.
        let at = |second: usize| &missed[second - 1_101];
        assert_eq!(
            (at(1_499), at(1_500), at(1_600), at(1_601)),
            (&json!(10), &json!(null), &json!(null), &json!(3))
        );
        assert_eq!(tracks.value(5)["spool"]["used"], json!([1996, 1997, 1998, 1999, 2000]));
    }

    #[test]
    fn looks_that_come_late_change_no_rate_and_leave_no_gap() {
        for looks in [
            &[1000, 2000, 3000, 4000, 5000, 6000, 7000][..],
            // As a loaded host has them: a turn late, two close together, one after three seconds.
            &[1000, 2050, 2990, 4080, 4995, 6100, 7000],
            &[1000, 1999, 2001, 2002, 5500, 5501, 7200],
        ] {
            let mut tracks = Tracks::default();
            for &at in looks {
                let measures =
                    vec![of("ports/a", "rx", Reading::Count(at)), of("spool", "used", Reading::Level(7))];
                look(&mut tracks, at, measures);
            }
            let value = tracks.value(900);
            let expected = json!([null, 1000, 1000, 1000, 1000, 1000, 1000]);
            assert_eq!(value["ports"]["a"]["rx"], expected, "{looks:?}");
            assert_eq!(value["spool"]["used"], json!([7, 7, 7, 7, 7, 7, 7]), "{looks:?}");
            assert_eq!(value["from_ns"], 1_000_000 * SECOND_NS, "{looks:?}");
        }
    }

    #[test]
    fn a_clock_that_was_set_moves_the_times_and_no_count() {
        let mut tracks = Tracks::default();
        for (second, wall) in [(1, 1_000), (2, 1_001), (3, 50), (4, 51)] {
            let measures = vec![of("ports/a", "rx", Reading::Count(5 * second))];
            tracks.add(wall * SECOND_NS, Duration::from_secs(second), measures);
        }
        let value = tracks.value(900);
        assert_eq!(
            (&value["ports"]["a"]["rx"], &value["from_ns"]),
            (&json!([null, 5, 5, 5]), &json!(47 * SECOND_NS))
        );
        // A host that was stopped for a day has no more than its ring.
        tracks.add(SECOND_NS, Duration::from_secs(86_400), vec![of("ports/a", "rx", Reading::Count(86_420))]);
        let points = tracks.value(900)["ports"]["a"]["rx"].as_array().unwrap().len();
        assert_eq!(points, 900);
    }

    #[test]
    fn tracks_that_come_and_go_are_bounded_and_end() {
        for reading in [Reading::Level(1), Reading::Count(1), Reading::FromZero(1)] {
            let mut tracks = Tracks::default();
            let many =
                |n: usize| (0..n).map(|n| (format!("captures/{n}"), "io", reading)).collect::<Vec<_>>();
            look(&mut tracks, 1_000, many(2 * TRACKS_MAX));
            assert_eq!(tracks.tracks.len(), TRACKS_MAX);
            for second in 0..POINTS_MAX as u64 {
                look(&mut tracks, 2_000 + 1_000 * second, Vec::new());
            }
            assert!(tracks.tracks.is_empty(), "{reading:?}");
        }
    }

    #[test]
    fn what_is_new_is_seen_however_many_there_were_and_has_its_first_count() {
        let mut tracks = Tracks::default();
        for n in 1..=2 * TRACKS_MAX as u64 {
            look(&mut tracks, 1_000 * n, vec![(format!("captures/{n}"), "io", Reading::FromZero(7))]);
            assert_eq!(tracks.value(1)["captures"][n.to_string()]["io"], json!([7]));
        }
        assert!(tracks.tracks.len() <= TRACKS_MAX);
    }
}
