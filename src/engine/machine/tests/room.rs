//! What one account may have of the spool, and what a disk that is full or fails costs.

use super::*;
use crate::spool::Holding;

/// A spool of 1000 bytes, two accounts, half of it for each.
pub(super) fn shared() -> Config {
    Config { account: AccountBounds { waiting: 3, ..AccountBounds::of(1000, 60, 2) }, ..config() }
}

fn held(a: u64, b: u64) -> Input {
    let account = |name: &str| AccountId(name.to_owned());
    Input::Tick {
        held: a + b,
        of_accounts: vec![(account("a"), Holding::all(a)), (account("b"), Holding::all(b))],
    }
}

#[test]
fn a_full_spool_costs_the_account_with_the_most_first_its_captures_and_then_data_that_waits() {
    let mut bench = Bench::new(shared());
    let (of_a, waits, runs) = (bench.running("a"), bench.drained("b"), bench.running("b"));
    bench.step(Input::Delivery {
        serial: waits,
        report: Report::Trouble(Words::alike("403"), Duration::from_secs(7)),
    });
    assert_eq!(bench.step(held(410, 550)), ["weigh"]);
    let captured = vec![(of_a, 700), (runs, 1)];
    let effects = bench.step(Input::Weighed { captured });
    assert_eq!(effects[..2], ["refuse writes", "end budget Revoked"]);
    assert_eq!(
        bench.job(runs).stop_reason,
        Some(StopReason::SpoolFull),
        "the larger one is of the other account"
    );
    bench.step(detached(runs, 0));
    assert_eq!(bench.step(held(430, 555)), ["weigh"]);
    let effects = bench.step(Input::Weighed { captured: vec![(of_a, 700)] });
    let expected = [format!("give up {waits}"), "record ConversionRunning".to_owned()];
    assert_eq!(effects, expected, "the one whose upload fails goes first");
    assert_eq!(bench.job(of_a).stop_reason, None);
    bench.delivered(waits, Outcome::Failed(Words::alike("given up for room")));
    bench.assert_says(waits, &["given up for room", "removed from the host"]);
    assert_eq!(bench.recorded(waits), ["discard"]);
}

#[test]
fn data_is_never_taken_from_an_account_within_its_part_nor_for_its_own_captures() {
    let mut bench = Bench::new(shared());
    let (waits, runs) = (bench.drained("b"), bench.running("b"));
    assert_eq!(bench.step(held(0, 575)), ["weigh"], "its own mark");
    bench.step(Input::Weighed { captured: vec![(runs, 1)] });
    assert_eq!(bench.job(runs).stop_reason, Some(StopReason::SpoolFull));
    bench.step(held(0, 960));
    assert!(bench.step(Input::Weighed { captured: Vec::new() }).is_empty(), "nobody else needs the room");
    assert_eq!(bench.machine.capture(waits).unwrap().job.given_up, None);
    let mut bench = Bench::new(shared());
    let (waits, runs) = (bench.drained("b"), bench.running("a"));
    bench.step(held(560, 470));
    bench.step(Input::Weighed { captured: vec![(runs, 1)] });
    assert_eq!(bench.job(runs).stop_reason, Some(StopReason::SpoolFull), "it is the greedy one itself");
    assert_eq!(bench.machine.capture(waits).unwrap().job.given_up, None);
}

#[test]
fn an_account_at_its_mark_or_above_its_part_of_a_full_spool_begins_nothing() {
    let mut bench = Bench::new(shared());
    bench.step(held(0, 575));
    assert_eq!(bench.create(request("b", Kind::Full)), ["refused ShareFull"]);
    assert_eq!(bench.create(request("a", Kind::Full)), ["try destination"]);
    bench.step(held(400, 560));
    assert_eq!(bench.create(request("b", Kind::Simple)), ["refused ShareFull"], "the spool is full");
    assert_eq!(bench.create(request("a", Kind::Simple)), ["try destination"], "within its part");
    bench.step(held(0, 560));
    assert_eq!(bench.create(request("b", Kind::Simple)), ["try destination"]);
}

/// As [`held`], in a spool of two directories, of which `fullest` is what the fullest one has and `most` what `b` has in the other.
fn held_in_two(fullest: (u64, u64), most: u64) -> Input {
    let account = |name: &str| AccountId(name.to_owned());
    let (a, b) = fullest;
    let of_b = Holding { total: b + most, most: b.max(most), on_fullest: b };
    Input::Tick { held: a + b, of_accounts: vec![(account("a"), Holding::all(a)), (account("b"), of_b)] }
}

#[test]
fn of_two_directories_the_fullest_says_who_gives_way_and_the_accounts_own_fullest_who_begins_nothing() {
    let mut bench = Bench::new(shared());
    let (of_a, of_b) = (bench.running("a"), bench.running("b"));
    assert_eq!(bench.step(held_in_two((560, 400), 420)), ["weigh"]);
    let effects = bench.step(Input::Weighed { captured: vec![(of_a, 1), (of_b, 700)] });
    assert_eq!(effects[..2], ["refuse writes", "end budget Revoked"]);
    let account = |name: &str| AccountId(name.to_owned());
    assert_eq!(bench.job(of_a).stop_reason, Some(StopReason::SpoolFull), "b has most, but not there");
    assert_eq!(bench.machine.held_by(&account("b")), 820);
    let mut bench = Bench::new(shared());
    bench.step(held_in_two((300, 200), 575));
    assert_eq!(bench.create(request("b", Kind::Full)), ["refused ShareFull"], "its share of the other one");
    assert_eq!(bench.create(request("a", Kind::Full)), ["try destination"]);
}

fn ended_by(serial: Serial, lost: u64, failure: Option<Failure>) -> Input {
    let lost = Lost { packets: lost, frame_bytes: lost * 100 };
    Input::StreamEnded { serial, lost, unpublished: 0, failure }
}

#[test]
fn a_queue_that_is_lost_with_its_disk_is_named_and_booked_as_what_it_was_and_the_capture_goes_on() {
    let (io, full) = (Failure::Io("EIO".to_owned()), Failure::Full("ENOSPC".to_owned()));
    for (first, second, io_and_room) in
        [(Some(io.clone()), None, (4, 0)), (Some(full.clone()), None, (0, 4)), (Some(io), Some(full), (4, 3))]
    {
        let mut bench = Bench::new(config());
        let serial = bench.running("a");
        for (queue, failure) in [(1, &first), (1, &first), (0, &second)] {
            let Some(failure) = failure.clone() else { continue };
            bench.step(Input::StreamFailed { serial, queue, failure });
        }
        assert!(bench.machine.capture(serial).unwrap().takes_packets());
        let warnings = bench.machine.capture(serial).unwrap().warnings(&Ledger::default());
        assert!(warnings.iter().any(|text| text.contains("a part is missing")), "{warnings:?}");
        bench.step(Input::Stop { serial, reply: None });
        bench.step(detached(serial, 10));
        bench.step(ended_by(serial, 4, first.clone()));
        bench.step(ended_by(serial, io_and_room.1 * u64::from(second.is_some()), second.clone()));
        bench.step(Input::Noted { serial });
        bench.delivered(serial, Outcome::Done);
        let ledger = bench.job(serial).ledger;
        let (by_disk, for_room) = io_and_room;
        assert_eq!((ledger.dropped.io, ledger.dropped.spool), (by_disk, for_room), "{first:?} {second:?}");
        assert_eq!((ledger.captured, ledger.check()), (10 - by_disk - for_room, Ok(())));
        let manifest = bench.machine.capture(serial).unwrap().manifest("h", "c");
        let queues: Vec<_> = manifest.lost_streams.iter().map(|lost| lost.queue).collect();
        assert_eq!(
            (queues.len(), queues[0], manifest.complete),
            (1 + usize::from(second.is_some()), 1, false)
        );
        assert_eq!(
            Manifest::parse(&manifest.to_json().unwrap()).unwrap().lost_streams,
            manifest.lost_streams
        );
        assert_eq!(manifest.stop_reason, Some(StopReason::StopRequested));
        bench.step(Input::Closed { serial, outcome: Outcome::Done });
        assert_eq!(bench.job(serial).status, Status::Success);
        bench.assert_says(serial, &["of 2 queues", "a part is missing"]);
    }
}

#[test]
fn what_ends_a_whole_capture_is_not_said_of_its_queues_too() {
    let mut bench = Bench::new(config());
    let serial = bench.running("a");
    bench.step(Input::SpoolFailed { serial, failure: Failure::Io("EIO".to_owned()) });
    bench.step(Input::StreamFailed { serial, queue: 1, failure: Failure::Io("EIO".to_owned()) });
    assert!(bench.job(serial).lost_streams.is_empty());
}
