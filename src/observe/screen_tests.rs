//! What operators see of a capture: its counts in this process, and nothing that its account named.

use super::*;
use crate::dashboard::Tracks;
use crate::job::{AccountId, CaptureId, Kind, Ledger, Status};
use std::time::Duration;

fn capture(no_block: u64, is_inherited: bool) -> CaptureView {
    let mut ledger = Ledger::default();
    ledger.dropped.no_block = no_block;
    CaptureView {
        id: CaptureId::random(),
        account: AccountId("a".to_owned()),
        kind: Kind::Full,
        status: Status::ConversionRunning,
        ledger,
        objects: 0,
        object_bytes: 0,
        seconds_left: 0.0,
        waiting_bytes: 1,
        stopped: None,
        warnings: Vec::new(),
        last_error: None,
        is_inherited,
        next_try_seconds: None,
    }
}

#[test]
fn what_a_capture_lost_in_another_process_is_in_no_point_of_this_one() {
    let points = |is_inherited: bool| {
        let mut tracks = Tracks::default();
        let mut view = capture(0, is_inherited);
        for (second, lost) in [(1, 5000), (2, 5000), (3, 5007)] {
            view.ledger.dropped.no_block = lost;
            tracks.add(second * 1_000_000_000, Duration::from_secs(second), losses(&view));
        }
        tracks.value(10)["captures"][view.id.as_str()]["no_block"].clone()
    };
    assert_eq!(points(true), json!([null, 0, 7]));
    assert_eq!(points(false), json!([5000, 0, 7]), "and one of this process has its first second");
    // The first loss of an inherited capture is seen although there was none before.
    let mut tracks = Tracks::default();
    let mut view = capture(0, true);
    tracks.add(1, Duration::from_secs(1), losses(&view));
    view.ledger.dropped.no_block = 3;
    tracks.add(2, Duration::from_secs(2), losses(&view));
    assert_eq!(tracks.value(10)["captures"][view.id.as_str()]["no_block"], json!([null, 3]));
}

#[test]
fn the_screen_has_the_kind_of_a_failure_and_none_of_the_words_for_its_account() {
    let place = "s3://secret-bucket/secret-folder";
    let mut view = capture(0, false);
    view.warnings = vec![format!("the store refuses s3:PutObject on {place} (host secret.example)")];
    view.last_error = Some("the store refuses it");
    let engine = crate::engine::Overview { captures: vec![view], ..Default::default() };
    let snapshot = Snapshot { engine: Some(engine), ..crate::observe::metrics::tests::snapshot() };
    let shown = json!({"captures": captures(&snapshot), "upload": upload(&snapshot)});
    assert!(!shown.to_string().contains("secret"), "{shown}");
    assert_eq!(shown["upload"]["last_error"], "the store refuses it");
    assert_eq!(shown["captures"][0]["last_error"], "the store refuses it");
}
