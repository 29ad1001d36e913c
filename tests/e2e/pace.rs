//! Captures that need the whole disk, and deliveries beside them. Owns that the latter stand back, get on all the same, and arrive.

use crate::disk::Disk;
use crate::http;
use crate::openmetrics;
use crate::outcome::Outcome;
use crate::skip::skip;
use crate::trawl::{Setup, free_address};
use serde_json::json;
use std::time::{Duration, Instant};
use trawl::job::Status;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_delivery_stands_back_for_an_endless_capture_gets_on_and_arrives() {
    let Some(disk) = Disk::new(2048) else { return };
    if let Err(reason) = disk.slow(24 << 20) {
        return skip("a slow disk", reason);
    }
    let observe = free_address();
    let mut setup = Setup {
        spool_dir: Some(disk.spool()),
        write: "direct",
        segment_bytes: "4MiB",
        spool_bytes_max: "8GiB",
        ..Setup::replay()
    };
    setup.more = format!("[observe]\nlisten = \"{observe}\"\n");
    let trawl = setup.start();
    let metric = |name: &str| {
        let text = http::get_text(observe, "/metrics").unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        openmetrics::parse(body).unwrap().sum(name, &[])
    };
    // Its source never runs dry and the disk is slow, so its blocks always wait.
    let endless = trawl.create(&trawl.request(json!({})));
    trawl.until(&endless, SOON, |progress| {
        progress.status == Status::Running && metric("trawl_delivery_stood_back_seconds") >= 1
    });
    let mut request = trawl.request(json!({"protocol": 17}));
    request["byte_limit"] = json!(6 << 20);
    let answer = trawl.ask_as_other("POST", "", request.to_string().as_bytes()).result();
    let finite = answer["id"].as_str().unwrap().to_owned();
    let had = trawl.progress(&endless).objects.len();
    let deadline = Instant::now() + SOON;
    while !trawl.progress_of_other(&finite).status.ended() {
        assert!(Instant::now() < deadline, "another customer's capture starves: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(trawl.progress_of_other(&finite).status, Status::Success);
    let progress = trawl.until(&endless, SOON, |progress| {
        progress.objects.len() > had + 1 && metric("trawl_worker_blocks_waiting") > 0
    });
    assert_eq!(progress.status, Status::Running, "it presses still");
    let health = http::get_text(observe, "/healthz").unwrap();
    assert!(health.starts_with("HTTP/1.1 200"), "one that stands back is not one that hangs: {health}");
    assert_eq!(trawl.ask("PUT", &format!("/{endless}/stop"), &[]).status, 204);
    assert_eq!(trawl.ended(&endless).status, Status::Success);
    for id in [&endless, &finite] {
        assert!(!Outcome::read(&trawl.bucket(), id).manifest.objects.is_empty());
    }
    assert_eq!(metric("trawl_deliveries_standing_back"), 0);
    trawl.finish();
}
