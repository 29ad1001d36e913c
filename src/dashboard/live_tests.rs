//! What readers of the live answers are told of captures that end, however many do at once.

use super::*;
use crate::job::{ColoStyle, Ledger, Request, Status};
use std::collections::BTreeSet;

const SECOND_NS: u64 = 1_000_000_000;

fn account() -> AccountId {
    AccountId("a".to_owned())
}

fn id(n: usize) -> CaptureId {
    CaptureId::parse(&format!("{n:032x}")).unwrap()
}

fn runs(n: usize) -> CaptureView {
    CaptureView {
        id: id(n),
        account: account(),
        kind: Kind::Simple,
        status: Status::Running,
        ledger: Ledger::default(),
        objects: 0,
        object_bytes: 0,
        seconds_left: 1.0,
        waiting_bytes: 0,
        stopped: None,
        warnings: Vec::new(),
        last_error: None,
        is_inherited: false,
        next_try_seconds: None,
    }
}

fn ended(n: usize) -> Job {
    let request = Request {
        account: account(),
        kind: Kind::Simple,
        filter: Default::default(),
        time_limit: 1.0,
        packet_limit: Some(1),
        byte_limit: None,
        colo: None,
        colo_style: ColoStyle::ColoName,
        destination: None,
        offset_time: None,
        format: None,
        compression: None,
    };
    Job { id: id(n), status: Status::Success, ..Job::accepted(request, None) }
}

fn at(second: u64, running: std::ops::Range<usize>, over: std::ops::Range<usize>) -> Snapshot {
    let overview = Overview { captures: running.map(runs).collect(), ..Overview::default() };
    Snapshot {
        now_ns: second * SECOND_NS,
        overview: Some(overview),
        ended: over.map(ended).collect(),
        ..Snapshot::default()
    }
}

/// A reader that keeps what it was told, as the page does.
#[derive(Default)]
struct Reader {
    revision: Option<u64>,
    /// Ids with their status.
    shown: BTreeSet<(String, String)>,
}

impl Reader {
    fn read(&mut self, live: &Live) -> bool {
        let Captures { revision, is_whole, text } = live.captures(&account(), self.revision);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(self.revision != Some(revision) || answer["captures"] == json!([]), "a 304 would hide it");
        if is_whole {
            self.shown.clear();
        }
        for capture in answer["captures"].as_array().unwrap() {
            let of = |name: &str| capture[name].as_str().unwrap().to_owned();
            self.shown.retain(|(id, _)| *id != of("id"));
            self.shown.insert((of("id"), of("status")));
        }
        self.revision = Some(revision);
        is_whole
    }

    fn of(&self, status: &str) -> usize {
        self.shown.iter().filter(|(_, found)| found == status).count()
    }
}

#[test]
fn captures_that_end_at_one_moment_are_kept_or_gone_and_never_shown_as_running() {
    for count in [1, ENDED_MAX - 1, ENDED_MAX, ENDED_MAX + 1, 3 * ENDED_MAX] {
        let live = Live::new(0);
        let mut reader = Reader::default();
        live.take(at(1, 0..count, 0..0));
        reader.read(&live);
        assert_eq!(reader.of("running"), count);
        live.take(at(2, 0..0, 0..count));
        let is_whole = reader.read(&live);
        assert_eq!((reader.of("success"), reader.of("running")), (count.min(ENDED_MAX), 0), "{count}");
        assert_eq!(is_whole, count > ENDED_MAX, "what was forgotten is in no change");
        // The same for a reader that begins now, and for one second after another.
        let mut newcomer = Reader::default();
        newcomer.read(&live);
        assert_eq!(newcomer.shown, reader.shown);
        live.take(at(3, 0..0, 0..0));
        assert!(!reader.read(&live));
        assert_eq!(newcomer.shown, reader.shown);
    }
}

#[test]
fn what_is_forgotten_by_its_age_or_without_an_end_is_a_new_revision() {
    let live = Live::new(0);
    let mut reader = Reader::default();
    live.take(at(1, 0..3, 0..0));
    live.take(at(2, 1..3, 0..1));
    reader.read(&live);
    assert_eq!((reader.of("success"), reader.of("running")), (1, 2));
    // One is gone, and that it ended was missed.
    live.take(at(3, 2..3, 0..0));
    assert!(reader.read(&live));
    assert_eq!((reader.of("success"), reader.of("running")), (1, 1));
    live.take(at(2 + ENDED_NS_MAX / SECOND_NS, 2..3, 0..0));
    assert!(reader.read(&live));
    assert_eq!((reader.of("success"), reader.of("running")), (0, 1));
}
