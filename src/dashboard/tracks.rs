//! What the host counted in the past quarter of an hour, second by second. Owns the ring; not the counts.
//!
//! Invariant: every track has as many points as the ring, at most [`POINTS_MAX`]; a second without a reading is a gap, and a count
//! that fell, because what counts began again, is one too.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};

/// 15 minutes.
const POINTS_MAX: usize = 900;
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
    /// Seconds since the last reading.
    unread: usize,
    points: VecDeque<Option<u64>>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Tracks {
    to_ns: u64,
    len: usize,
    tracks: BTreeMap<(String, &'static str), Track>,
}

impl Tracks {
    /// Adds a second.
    pub fn add(&mut self, now_ns: u64, measures: Vec<Measure>) {
        self.to_ns = now_ns;
        self.len = (self.len + 1).min(POINTS_MAX);
        let len = self.len;
        for track in self.tracks.values_mut() {
            track.points.push_back(None);
            if track.points.len() > POINTS_MAX {
                track.points.pop_front();
            }
            track.unread += 1;
        }
        for (of, name, reading) in measures {
            let key = (of, name);
            if self.tracks.len() >= TRACKS_MAX && !self.tracks.contains_key(&key) && !self.forget_one() {
                continue;
            }
            let track = self.tracks.entry(key).or_default();
            track.points.resize(len, None);
            track.unread = 0;
            let point = match reading {
                Reading::Level(level) => Some(level),
                Reading::Count(count) | Reading::FromZero(count) => {
                    let base = matches!(reading, Reading::FromZero(_)).then_some(0);
                    let grown = track.last.or(base).and_then(|last| count.checked_sub(last));
                    track.last = Some(count);
                    grown
                }
            };
            if let Some(newest) = track.points.back_mut() {
                *newest = point;
            }
        }
        self.tracks.retain(|_, track| track.unread < POINTS_MAX);
    }

    /// Makes room by the track that was not read for the longest time; false if all were read in this second.
    fn forget_one(&mut self) -> bool {
        let oldest = self.tracks.iter().max_by_key(|(_, track)| track.unread);
        let oldest = oldest.filter(|(_, track)| track.unread > 0).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.tracks.remove(&key).is_some())
    }

    /// The last `seconds` as the API answers them: an object for each thing, an array for each of its values.
    #[must_use]
    pub fn value(&self, seconds: usize) -> Value {
        let len = self.len.min(seconds.max(1));
        let mut things: Map<String, Value> = Map::new();
        for ((of, name), track) in &self.tracks {
            let (group, thing) = of.split_once('/').unwrap_or((of, ""));
            let points = track.points.iter().skip(track.points.len().saturating_sub(len));
            let points = Value::from_iter(points.copied());
            let group = things.entry(group.to_owned()).or_insert_with(|| json!({}));
            let thing = if thing.is_empty() { Some(group) } else { entry(group, thing) };
            if let Some(Value::Object(thing)) = thing {
                thing.insert((*name).to_owned(), points);
            }
        }
        let span = (len as u64).saturating_sub(1) * SECOND_NS;
        things.insert("from_ns".to_owned(), self.to_ns.saturating_sub(span).into());
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

    #[test]
    fn the_ring_has_the_last_quarter_of_an_hour_with_gaps_as_gaps_and_no_spike_of_a_reset() {
        let mut tracks = Tracks::default();
        for second in 0..2_000_u64 {
            let mut measures = vec![("spool".to_owned(), "used", Reading::Level(second))];
            // The port is away for a while, and counts from zero after that.
            if !(1_500..1_600).contains(&second) {
                let count = if second < 1_500 { 10 * second } else { 3 * (second - 1_600) };
                measures.push(("ports/net0".to_owned(), "imissed", Reading::Count(count)));
            }
            tracks.add(second * SECOND_NS, measures);
        }
        let value = tracks.value(900);
        let missed = value["ports"]["net0"]["imissed"].as_array().unwrap();
        assert_eq!((missed.len(), value["spool"]["used"].as_array().unwrap().len()), (900, 900));
        assert_eq!(value["from_ns"], 1_100 * SECOND_NS);
        // 1100 is the first; 1500 to 1599 are away, 1600 is the first count of the new series.
        let at = |second: usize| &missed[second - 1_100];
        assert_eq!(
            (at(1_499), at(1_500), at(1_600), at(1_601)),
            (&json!(10), &json!(null), &json!(null), &json!(3))
        );
        assert_eq!(tracks.value(5)["spool"]["used"], json!([1995, 1996, 1997, 1998, 1999]));
    }

    #[test]
    fn tracks_that_come_and_go_are_bounded_and_end() {
        for reading in [Reading::Level(1), Reading::Count(1), Reading::FromZero(1)] {
            let mut tracks = Tracks::default();
            let of = |n: usize| (0..n).map(|n| (format!("captures/{n}"), "io", reading)).collect::<Vec<_>>();
            tracks.add(1, of(2 * TRACKS_MAX));
            assert_eq!(tracks.tracks.len(), TRACKS_MAX);
            for second in 0..POINTS_MAX as u64 {
                tracks.add(second, Vec::new());
            }
            assert!(tracks.tracks.is_empty(), "{reading:?}");
        }
    }

    #[test]
    fn what_is_new_is_seen_however_many_there_were_and_has_its_first_count() {
        let mut tracks = Tracks::default();
        for n in 0..2 * TRACKS_MAX as u64 {
            tracks.add(n * SECOND_NS, vec![(format!("captures/{n}"), "io", Reading::FromZero(7))]);
            assert_eq!(tracks.value(1)["captures"][n.to_string()]["io"], json!([7]));
        }
        assert!(tracks.tracks.len() <= TRACKS_MAX);
    }
}
