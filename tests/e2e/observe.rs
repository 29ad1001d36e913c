//! Health and metrics of the real binary: what is scraped agrees with the ledger, and a host that is not well says so.

use crate::held::Held;
use crate::http;
use crate::openmetrics::{self, Families};
use crate::skip::skip;
use crate::trawl::{Setup, Trawl, free_address};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use trawl::job::{Ledger, Status};

/// A host and where it shows itself.
fn start(setup: Setup, more: &str) -> (Trawl, SocketAddr) {
    let listen = free_address();
    let observe = format!("[observe]\nlisten = \"{listen}\"\n{more}");
    (setup.start_with(|config, _| config + &observe), listen)
}

fn scrape(from: SocketAddr) -> Families {
    let text = http::get_text(from, "/metrics").unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    for secret in ["@", crate::trawl::TOKEN, crate::trawl::KEY, crate::trawl::ACCOUNT] {
        assert!(!body.contains(secret), "{secret} is in the metrics");
    }
    openmetrics::parse(body).unwrap_or_else(|error| panic!("{error}\n{body}"))
}

/// The status of a report, and the reason of each check that failed.
fn report(from: SocketAddr, path: &str) -> (u16, Vec<(String, String)>) {
    let answer = http::ask(from, "GET", path, &[], &[]).unwrap();
    assert_eq!(answer.body["ok"], Value::Bool(answer.status == 200), "{answer:?}");
    let checks = answer.body["checks"].as_array().unwrap();
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let failed = checks.iter().filter(|check| check["ok"] != Value::Bool(true));
    (answer.status, failed.map(|check| (text(check, "name"), text(check, "reason"))).collect())
}

#[track_caller]
fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A capture's ledger as it was scraped.
fn scraped(families: &Families, id: &str) -> Ledger {
    let one = |name: &str| families.sum(name, &[("capture", id), ("kind", "full")]);
    let by = |name: &str, reason: &str| families.sum(name, &[("capture", id), ("reason", reason)]);
    let mut ledger = Ledger {
        offered: one("trawl_capture_offered_packets"),
        rx: one("trawl_capture_rx_packets"),
        unmatched: one("trawl_capture_unmatched_packets"),
        matched: one("trawl_capture_matched_packets"),
        captured: one("trawl_capture_captured_packets"),
        captured_bytes: one("trawl_capture_captured_bytes"),
        ..Ledger::default()
    };
    ledger.port.imissed = by("trawl_capture_lost_in_port_packets", "imissed");
    ledger.port.rx_nombuf = by("trawl_capture_lost_in_port_packets", "rx_nombuf");
    ledger.port.ierrors = by("trawl_capture_lost_in_port_packets", "ierrors");
    ledger.port.discarded = by("trawl_capture_lost_in_port_packets", "discarded");
    let dropped = |reason| by("trawl_capture_dropped_packets", reason);
    ledger.dropped.no_block = dropped("no_block");
    ledger.dropped.limit = dropped("limit");
    ledger.dropped.sampled = dropped("sampled");
    ledger.dropped.spool = dropped("spool");
    ledger.dropped.io = dropped("io");
    ledger.dropped.interrupted = dropped("interrupted");
    ledger.dropped.share = dropped("share");
    ledger
}

#[test]
fn what_is_scraped_while_a_capture_runs_is_what_its_ledger_says() {
    let real = crate::frames::real_pcap();
    let (trawl, observe) = start(Setup::of_pcaps(&[&real, &real]), "");
    let id = trawl.create(&trawl.request(json!({"protocol": 17})));
    trawl.until(&id, Duration::from_secs(20), |p| p.status == Status::Running && p.ledger.captured > 0);
    for _ in 0..20 {
        let before = trawl.progress(&id).ledger;
        let families = scrape(observe);
        let after = trawl.progress(&id).ledger;
        let now = scraped(&families, &id);
        now.check().unwrap();
        assert!(before.rx <= now.rx && now.rx <= after.rx, "{before:?} {now:?} {after:?}");
        assert!(before.matched <= now.matched && now.matched <= after.matched);
        let queues = |what: &str| families.sum(&format!("trawl_queue_{what}_packets"), &[]);
        assert_eq!(families.count("trawl_queue_rx_packets"), 2);
        assert_eq!(queues("rx"), queues("matched") + queues("unmatched"), "every queue is of one moment");
        assert!(queues("rx") >= now.rx);
    }
    let rx = trawl.progress(&id).ledger.rx;
    // A port is read four times a second.
    let is_read = || scrape(observe).sum("trawl_port_rx_packets", &[]) >= rx;
    until("the port's own count", Duration::from_secs(20), is_read);
    let families = scrape(observe);
    assert_eq!(families.sum("trawl_captures", &[("state", "running")]), 1);
    assert_eq!(families.sum("trawl_engine_up", &[]) + families.sum("trawl_port_link_up", &[]), 2);
    assert!(families.sum("trawl_worker_blocks", &[]) > 0);
    let written = || scrape(observe).sum("trawl_writer_written_bytes", &[]) > 0;
    until("bytes on the disk", Duration::from_secs(20), written);
    let progress =
        [("route", "/accounts/{account}/pcaps/{id}/progress"), ("method", "GET"), ("status", "200")];
    assert!(families.sum("trawl_api_requests", &progress) >= 40, "{:?}", families.0["trawl_api_requests"]);
    assert_eq!((report(observe, "/healthz"), report(observe, "/readyz")), ((200, vec![]), (200, vec![])));

    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    let ended = trawl.ended(&id);
    // Its end is told before the last of it is removed from the host.
    let is_gone = || scrape(observe).count("trawl_capture_rx_packets") == 0;
    until("an ended capture has no series", Duration::from_secs(20), is_gone);
    let families = scrape(observe);
    assert_eq!(families.sum("trawl_captures_ended", &[("status", "success")]), 1);
    assert_eq!(families.sum("trawl_upload_objects", &[]), ended.objects.len() as u64);
    let bytes: u64 = ended.objects.iter().map(|object| object.bytes).sum();
    assert_eq!(
        (families.sum("trawl_upload_bytes", &[]), families.sum("trawl_merge_bytes", &[])),
        (bytes, bytes)
    );
    trawl.finish();
}

#[test]
fn promtool_has_nothing_to_say_of_the_metrics() {
    let (trawl, observe) = start(Setup { history_sample: Some(10), ..Setup::replay() }, "");
    let id = trawl.create(&trawl.request(json!({"protocol": 17})));
    trawl.until(&id, Duration::from_secs(20), |p| p.ledger.captured > 0);
    // As curl asks.
    let mut stream = TcpStream::connect(observe).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return skip("promtool", "scripts/install-deps.sh brings it");
    };
    Write::write_all(&mut promtool.stdin.take().unwrap(), body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    trawl.finish();
}

/// Its bucket is taken away, so the capture stays with all that it has: its counts are final and the spool is full.
#[test]
fn a_full_spool_is_not_ready_and_its_capture_s_metrics_are_its_ledger_to_the_packet() {
    let setup = Setup {
        spool_bytes_max: "64MiB",
        spool: "account_percent = 100",
        segment_bytes: "16MiB",
        pool_bytes: "0B",
        ..Setup::replay()
    };
    let (trawl, observe) = start(setup, "");
    assert_eq!(report(observe, "/readyz"), (200, vec![]));
    let id = trawl.create(&trawl.request(json!({})));
    std::fs::rename(trawl.bucket(), trawl.bucket().with_extension("away")).unwrap();
    std::fs::write(trawl.bucket(), "in the way").unwrap();
    trawl.until(&id, Duration::from_secs(60), |p| p.status == Status::ConversionRunning);
    let families = scrape(observe);
    assert_eq!(scraped(&families, &id), trawl.progress(&id).ledger);
    assert!(families.sum("trawl_spool_held_bytes", &[]) <= families.sum("trawl_spool_limit_bytes", &[]));
    assert_eq!((families.sum("trawl_spool_alarm", &[]), families.sum("trawl_spool_alarms", &[])), (1, 1));
    assert!(trawl.log().contains("the spool fills up"), "{}", trawl.log());
    let (status, failed) = report(observe, "/readyz");
    assert_eq!((status, failed[0].0.as_str(), failed.len()), (503, "spool", 1), "{failed:?}");
    assert!(failed[0].1.contains("spool.bytes_max 67108864"), "{failed:?}");
    assert_eq!(report(observe, "/healthz"), (200, vec![]), "the process is well");
    until("a failed upload", Duration::from_secs(30), || {
        scrape(observe).sum("trawl_upload_failures", &[]) > 0
    });

    std::fs::remove_file(trawl.bucket()).unwrap();
    std::fs::rename(trawl.bucket().with_extension("away"), trawl.bucket()).unwrap();
    trawl.ended(&id);
    until("ready again", Duration::from_secs(30), || report(observe, "/readyz").0 == 200);
    assert_eq!(scrape(observe).sum("trawl_spool_alarm", &[]), 0);
    crate::outcome::Outcome::read(&trawl.bucket(), &id);
    trawl.finish();
}

#[test]
fn a_host_that_ends_says_that_it_is_not_ready_until_it_has_ended() {
    let (mut trawl, observe) = start(Setup { segment_bytes: "512MiB", ..Setup::replay() }, "");
    let id = trawl.create(&trawl.request(json!({})));
    // All of it is one segment, which is merged only after the signal: the end lasts long enough to be seen.
    trawl.until(&id, Duration::from_secs(60), |p| p.ledger.captured_bytes > 200_000_000);
    assert_eq!(report(observe, "/readyz").0, 200);
    trawl.signal(Signal::TERM);
    let mut seen = None;
    while seen.is_none() {
        // No answer any more: it has ended before it was seen.
        let answer = http::ask(observe, "GET", "/readyz", &[], &[]).unwrap();
        seen = (answer.status == 503).then_some(answer);
    }
    let checks = &seen.unwrap().body["checks"];
    assert_eq!(checks[0], json!({"name": "engine", "ok": false, "reason": "the host is shutting down"}));
    // For a hang: an unoptimised build merges half a gigabyte, on a busy machine in minutes.
    assert!(trawl.wait(Duration::from_secs(180)).success());
}

#[test]
fn a_thread_that_hangs_is_named_by_healthz_and_in_the_log_until_it_goes_on() {
    let (trawl, observe) = start(Setup::replay(), "watchdog_seconds = 2\n");
    assert_eq!(report(observe, "/healthz"), (200, vec![]));
    for stage in ["worker0", "writer0", "publisher"] {
        let held = match Held::hold(trawl.thread(stage)) {
            Ok(held) => held,
            Err(reason) => return skip("ptrace", reason),
        };
        until(stage, Duration::from_secs(20), || report(observe, "/healthz").0 == 503);
        let (_, failed) = report(observe, "/healthz");
        assert_eq!((failed[0].0.as_str(), failed.len()), (stage, 1), "{failed:?}");
        assert!(failed[0].1.contains("has not moved for"), "{failed:?}");
        assert_eq!(scrape(observe).sum("trawl_stage_stalled", &[("stage", stage)]), 1);
        let (status, failed) = report(observe, "/readyz");
        assert_eq!((status, failed[0].0.as_str()), (503, "stages"), "{failed:?}");
        drop(held);
        until("it goes on", Duration::from_secs(20), || report(observe, "/healthz").0 == 200);
        let log = trawl.log();
        assert!(log.contains("a stage stands still") && log.contains("stood still goes on"), "{log}");
        assert!(log.contains(stage), "{log}");
    }
    trawl.finish();
}
