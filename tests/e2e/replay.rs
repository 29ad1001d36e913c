//! What is captured: the frames that the filter names, all of them, unchanged, in order, and no other.

use crate::frames::{read, real_pcap, select, tally, write};
use crate::outcome::{Outcome, files_below};
use crate::trawl::Setup;
use serde_json::{Value, json};
use std::path::Path;
use trawl::job::{Status, StopReason};

/// Times that the recording is captured.
const ROUNDS: u64 = 20;

/// Captures [`ROUNDS`] rounds of what `display_filter` selects in a file that is being replayed, and holds the files to it.
///
/// A capture begins anywhere in the file; whole rounds hold each frame equally often all the same.
#[track_caller]
fn assert_captures(trawl: &crate::trawl::Trawl, source: &Path, filter: Value, display_filter: &str) {
    let expected = select(source, display_filter);
    assert!(!expected.is_empty(), "{display_filter} selects nothing");
    let packets = ROUNDS * expected.len() as u64;
    let mut request = trawl.request(filter);
    request["packet_limit"] = json!(packets);
    let id = trawl.create(&request);
    let progress = trawl.ended(&id);
    assert_eq!((progress.status, progress.stop_reason), (Status::Success, Some(StopReason::PacketLimit)));
    let outcome = Outcome::read(&trawl.bucket(), &id);
    outcome.assert_lossless();
    assert_eq!(outcome.manifest.ledger, progress.ledger, "manifest and API agree to the packet");
    let rounds = |(frame, count)| (frame, count * ROUNDS);
    let expected: std::collections::HashMap<_, _> =
        tally(expected.iter().map(Vec::as_slice)).into_iter().map(rounds).collect();
    assert!(tally(outcome.frames()) == expected, "{display_filter}: other frames than tshark selects");
}

#[test]
fn a_filtered_capture_holds_exactly_the_frames_that_tshark_selects() {
    let trawl = Setup::replay().start();
    for (filter, display_filter) in [
        (json!({}), "frame"),
        (json!({"protocol": 17, "destination_port": 53}), "udp.dstport == 53"),
        (json!({"protocol": 6.0, "source_port": 80.0}), "tcp.srcport == 80"),
        (json!({"source_address": "2001:db8:1::1"}), "ipv6.src == 2001:db8:1::1"),
        (json!({"destination_address": "192.0.2.128/25"}), "ip.dst == 192.0.2.128/25"),
        (json!({"protocol": 1, "source_address": "192.0.2.1"}), "ip.proto == 1 and ip.src == 192.0.2.1"),
    ] {
        assert_captures(&trawl, &real_pcap(), filter, display_filter);
    }
    trawl.finish();
}

#[test]
fn both_ways_to_write_give_the_same_files() {
    for way in ["direct", "mapped"] {
        let trawl = Setup { write: way, ..Setup::replay() }.start();
        assert_captures(&trawl, &real_pcap(), json!({"protocol": 6}), "tcp");
        trawl.finish();
    }
}

#[test]
fn what_a_bench_has_thrown_away_is_counted_to_the_packet() {
    for way in ["discard", "discard-in-worker"] {
        let trawl = Setup { write: way, ..Setup::replay() }.start();
        let mut request = trawl.request(json!({}));
        request["packet_limit"] = json!(500_000);
        let progress = trawl.ended(&trawl.create(&request));
        assert_eq!((progress.ledger.captured, progress.ledger.dropped.spool), (0, 500_000), "{way}");
        trawl.finish();
    }
}

#[test]
fn a_finished_capture_leaves_nothing_in_the_spool() {
    let trawl = Setup::replay().start();
    assert_captures(&trawl, &real_pcap(), json!({"protocol": 17}), "udp");
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(10);
    let id = trawl.create(&request);
    trawl.ended(&id);
    let pcaps: Vec<_> = files_below(&trawl.spool())
        .into_iter()
        .filter(|path| {
            path.to_string_lossy().contains(&id) && path.metadata().is_ok_and(|file| file.len() > 0)
        })
        .collect();
    assert!(pcaps.is_empty(), "{pcaps:?}");
    trawl.finish();
}

#[test]
fn malformed_frames_are_captured_and_counted_like_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("malformed.pcap");
    let frames = malformed();
    write(&path, frames.iter().map(Vec::as_slice));
    let trawl = Setup::of_pcaps(&[&path]).start();
    assert_captures(&trawl, &path, json!({}), "frame");
    // A filter makes the worker look into them; what it takes is not the point here, that it counts all is.
    let mut request = trawl.request(json!({"protocol": 6, "destination_port": 443}));
    request["time_limit"] = json!(1);
    let ledger = trawl.ended(&trawl.create(&request)).ledger;
    assert!(ledger.rx > frames.len() as u64, "{ledger:?}");
    trawl.finish();
}

/// Every recorded frame cut at several places, and copies with lengths and types overwritten.
fn malformed() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (number, (_, frame)) in read(&real_pcap()).into_iter().enumerate() {
        for cut in [14, 17, 19, 33, 40, 53] {
            frames.push(frame[..cut.min(frame.len())].to_vec());
        }
        let mut bent = frame;
        // Where versions, header lengths, total lengths, fragment offsets and next headers stand.
        for place in [12, 14, 16, 20, 23] {
            bent[place] = [0x00, 0xff, 0x81, 0x4f, 0x60][(number + place) % 5];
        }
        frames.push(bent);
    }
    frames
}
