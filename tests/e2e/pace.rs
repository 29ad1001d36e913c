//! Captures that press and deliveries beside them. Owns that the latter stand back, get on all the same, and arrive.

use crate::http;
use crate::openmetrics;
use crate::outcome::Outcome;
use crate::trawl::{Setup, free_address};
use serde_json::json;
use std::time::Duration;
use trawl::job::Status;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_delivery_stands_back_for_a_capture_gets_on_and_arrives() {
    let observe = free_address();
    let mut setup = Setup { segment_bytes: "4MiB", spool_bytes_max: "8GiB", ..Setup::replay() };
    setup.more = format!("[observe]\nlisten = \"{observe}\"\n");
    let trawl = setup.start();
    let metric = |name: &str| {
        let text = http::get_text(observe, "/metrics").unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        openmetrics::parse(body).unwrap().sum(name, &[])
    };
    // Its source never runs dry, and few frames match: the worker presses, and the spool does not fill.
    let id = trawl.create(&trawl.request(json!({"protocol": 1})));
    trawl.until(&id, SOON, |progress| {
        progress.status == Status::Running && metric("trawl_delivery_stood_back_milliseconds") >= 500
    });
    let had = trawl.progress(&id).objects.len();
    trawl.until(&id, SOON, |progress| progress.objects.len() > had + 1);
    let health = http::get_text(observe, "/healthz").unwrap();
    assert!(health.starts_with("HTTP/1.1 200"), "one that stands back is not one that hangs: {health}");
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    assert_eq!(trawl.ended(&id).status, Status::Success);
    Outcome::read(&trawl.bucket(), &id).assert_lossless();
    assert_eq!(metric("trawl_deliveries_standing_back"), 0);
    trawl.finish();
}
