//! When a capture ends by itself: exactly at its limits, with its reason, and with what it has.

use crate::frames::{read, real_pcap, tally};
use crate::outcome::Outcome;
use crate::trawl::Setup;
use serde_json::json;
use std::time::Duration;
use trawl::job::{Status, StopReason};

const LONGEST_FRAME: u64 = 1518;

#[test]
fn a_packet_limit_is_exact_over_two_queues() {
    let real = real_pcap();
    let trawl = Setup::of_pcaps(&[&real, &real]).start();
    for packets in [1, 10_000, 12_345] {
        let mut request = trawl.request(json!({}));
        request["packet_limit"] = json!(packets);
        let id = trawl.create(&request);
        let progress = trawl.ended(&id);
        assert_eq!((progress.status, progress.stop_reason), (Status::Success, Some(StopReason::PacketLimit)));
        assert_eq!(progress.ledger.captured, packets);
        let outcome = Outcome::read(&trawl.bucket(), &id);
        assert_eq!(outcome.manifest.queues, 2);
        let known = tally(read(&real).iter().map(|(_, frame)| frame.as_slice()));
        assert!(
            outcome.frames().all(|frame| known.contains_key(frame)),
            "every frame is one of the source's"
        );
    }
    trawl.finish();
}

#[test]
fn a_byte_limit_is_never_passed_and_is_used_up_to_the_last_frame() {
    let trawl = Setup::replay().start();
    let limit = 5_000_000;
    let mut request = trawl.request(json!({}));
    request["byte_limit"] = json!(limit);
    let id = trawl.create(&request);
    let progress = trawl.ended(&id);
    assert_eq!((progress.status, progress.stop_reason), (Status::Success, Some(StopReason::ByteLimit)));
    let bytes = Outcome::read(&trawl.bucket(), &id).manifest.ledger.captured_bytes;
    assert!(bytes <= limit && bytes > limit - LONGEST_FRAME, "{bytes}");
    trawl.finish();
}

#[test]
fn a_time_limit_ends_a_capture_within_a_tenth_of_a_second() {
    let trawl = Setup::replay().start();
    let mut request = trawl.request(json!({"protocol": 17, "destination_port": 53}));
    request["time_limit"] = json!(2);
    let id = trawl.create(&request);
    let progress = trawl.ended(&id);
    assert_eq!((progress.status, progress.stop_reason), (Status::Success, Some(StopReason::TimeLimit)));
    let outcome = Outcome::read(&trawl.bucket(), &id);
    outcome.assert_lossless();
    let (first, last) = (outcome.frames[0].0, outcome.frames[outcome.frames.len() - 1].0);
    let seconds = Duration::from_nanos(last - first).as_secs_f64();
    assert!((1.7..=2.1).contains(&seconds), "{seconds} s between the first and the last packet");
    trawl.finish();
}

#[test]
fn a_capture_that_outgrows_a_segment_becomes_several_objects_in_order() {
    let trawl = Setup { segment_bytes: "4MiB", ..Setup::replay() }.start();
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(50_000);
    let id = trawl.create(&request);
    assert_eq!(trawl.ended(&id).status, Status::Success);
    let outcome = Outcome::read(&trawl.bucket(), &id);
    assert_eq!(outcome.frames.len(), 50_000);
    let names: Vec<_> = outcome.manifest.objects.iter().map(|object| object.name.clone()).collect();
    assert!(names.len() >= 4, "{names:?}");
    assert_eq!(names[..2], [format!("pcap_{id}.pcap"), format!("pcap_{id}_0001.pcap")]);
    trawl.finish();
}

#[test]
fn a_spool_quota_ends_the_capture_with_its_reason_and_keeps_what_it_has() {
    let trawl =
        Setup { spool_bytes_max: "64MiB", segment_bytes: "16MiB", pool_bytes: "0B", ..Setup::replay() }
            .start();
    let id = trawl.create(&trawl.request(json!({})));
    let progress = trawl.ended(&id);
    assert_eq!(progress.stop_reason, Some(StopReason::SpoolFull), "{progress:?}");
    let outcome = Outcome::read(&trawl.bucket(), &id);
    assert!(outcome.manifest.ledger.captured_bytes > 1_000_000, "{:?}", outcome.manifest.ledger);
    assert!(!outcome.manifest.complete || outcome.manifest.ledger.dropped.spool == 0);

    // The process goes on, and the room is free again.
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(1000);
    let id = trawl.create(&request);
    assert_eq!(trawl.ended(&id).status, Status::Success);
    assert_eq!(Outcome::read(&trawl.bucket(), &id).frames.len(), 1000);
    trawl.finish();
}
