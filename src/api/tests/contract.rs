//! The wire contract: what the SDKs and the documentation's curl send, and what they must get.

use super::*;
use crate::job::{Job, Status};

const PAGE_FULL: &str = r#"{"filter_v1": {}, "time_limit": 300, "packet_limit": 10000, "byte_limit": 100000000,
    "type": "full", "colo": "ORD", "system": "magic-transit", "destination_conf": "s3://pcaps-bucket?region=us-east-1"}"#;

/// Bodies as the SDKs were seen to send them.
const ACCEPTED: [(&str, &str); 8] = [
    (
        "simple, Python",
        r#"{"packet_limit":10000,"system":"magic-transit","time_limit":300,"type":"simple","filter_v1":{"source_address":"1.2.3.4","source_port":123,"destination_address":"5.6.7.8","destination_port":80,"protocol":6}}"#,
    ),
    (
        "simple, Python with floats",
        r#"{"packet_limit":100.0,"system":"magic-transit","time_limit":60.0,"type":"simple","filter_v1":{"destination_port":80.0,"protocol":17.0}}"#,
    ),
    (
        "simple, null is absent",
        r#"{"packet_limit":1,"system":"magic-transit","time_limit":1.5,"type":"simple","filter_v1":{"protocol":null},"colo_name":null}"#,
    ),
    (
        "full, Python",
        r#"{"packet_limit":10000,"system":"magic-transit","time_limit":300,"type":"full","filter_v1":{},"colo_name":"ORD","destination_conf":"s3://pcaps-bucket/py?region=us-east-1","byte_limit":100000000}"#,
    ),
    (
        "full, more than Cloudflare's limits",
        r#"{"packet_limit":123456789.0,"system":"magic-transit","time_limit":86400,"type":"full","colo_name":"ord02","destination_conf":"s3://pcaps-bucket?region=us-east-1","byte_limit":1e12}"#,
    ),
    ("full, the page's curl", PAGE_FULL),
    (
        "full, colo without limits",
        r#"{"system":"magic-transit","time_limit":300,"type":"full","colo":"ord","destination_conf":"s3://pcaps-bucket?region=us-east-1"}"#,
    ),
    (
        "full, colo and colo_name",
        r#"{"system":"magic-transit","time_limit":300,"type":"full","colo":"ord","colo_name":"ORD","packet_limit":5,"destination_conf":"s3://pcaps-bucket?region=us-east-1"}"#,
    ),
];

#[tokio::test]
async fn what_the_sdks_and_the_page_send_is_answered_in_their_style() {
    let mut all = String::new();
    for (name, body) in ACCEPTED {
        let answer = Host::start().create(body).await;
        all.push_str(&format!("# {name}\n{}\n", answer.text()));
    }
    insta::assert_snapshot!(all);
}

/// A job in each state, by way of what the engine does to it.
fn state(name: &str, job: &mut Job) {
    let ledger = &mut job.ledger;
    match name {
        "pending" => {}
        "running" => {
            job.status = Status::Running;
            (ledger.captured, ledger.matched, ledger.rx, ledger.offered) = (40, 40, 40, 40);
        }
        "conversion_running" => {
            job.status = Status::ConversionRunning;
            job.stop_reason = Some(crate::job::StopReason::PacketLimit);
            (ledger.captured, ledger.matched, ledger.rx, ledger.offered) = (40, 40, 40, 40);
        }
        _ => {
            job.status = Status::Failed;
            job.error_message = Some("No packets matched the filter in the time limit given.".to_owned());
        }
    }
}

#[tokio::test]
async fn a_job_shows_what_its_type_and_state_have_and_nothing_else() {
    let mut all = String::new();
    for (kind, body) in [("simple", SIMPLE), ("full", FULL), ("full with colo", PAGE_FULL)] {
        for name in ["pending", "running", "conversion_running", "failed"] {
            let host = Host::start();
            host.create(body).await;
            state(name, &mut host.engine.jobs.lock().unwrap()[0]);
            let answer = host.ask("GET", &format!("/{}", id(0)), "").await;
            all.push_str(&format!("# {kind}, {name}\n{}\n", answer.text()));
        }
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn what_threatens_a_capture_stands_beside_its_result_until_it_ends() {
    for body in [SIMPLE, FULL] {
        let host = Host::start();
        host.create(body).await;
        let path = format!("/{}", id(0));
        let calm = host.ask("GET", &path, "").await.json();
        assert_eq!(calm["messages"], serde_json::json!([]));
        host.engine.warnings.lock().unwrap().push("the spool is 81 % full".to_owned());
        let threatened = host.ask("GET", &path, "").await.json();
        let message = serde_json::json!([{"code": 1102, "message": "the spool is 81 % full"}]);
        assert_eq!(threatened["messages"], message);
        assert_eq!(threatened["result"], calm["result"], "the SDKs see no member more");
        host.ask("PUT", &format!("{path}/stop"), "").await;
        assert_eq!(host.ask("GET", &path, "").await.json()["messages"], serde_json::json!([]));
    }
}

#[tokio::test]
async fn a_stop_has_neither_body_nor_content_type_and_may_be_repeated() {
    let host = Host::start();
    host.create(FULL).await;
    // What the three SDKs send.
    for headers in [
        &[("content-type", "application/json"), ("content-length", "0")][..],
        &[("content-length", "0")],
        &[],
    ] {
        let mut request = request::Builder::new()
            .method("PUT")
            .uri(format!("{PREFIX}/accounts/{A}/pcaps/{}/stop", id(0)))
            .header("authorization", "Bearer a-token")
            .header("accept", "*/*");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = host.send(request, Body::empty()).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::NO_CONTENT, ""));
        assert!(!answer.headers.contains_key("content-type"));
    }
    insta::assert_snapshot!(host.ask("GET", &format!("/{}", id(0)), "").await.text());
}

#[tokio::test]
async fn progress_shows_the_ledger() {
    let host = Host::start();
    host.create(PAGE_FULL).await;
    let mut all = host.ask("GET", &format!("/{}/progress", id(0)), "").await.text();
    host.ask("PUT", &format!("/{}/stop", id(0)), "").await;
    host.engine.jobs.lock().unwrap()[0].objects.push(crate::job::ObjectInfo {
        name: "pcap_1.pcap".to_owned(),
        bytes: 24,
        packets: 0,
        first_ns: 0,
        last_ns: 0,
        sha256: "0".repeat(64),
        ..Default::default()
    });
    all.push('\n');
    all.push_str(&host.ask("GET", &format!("/{}/progress", id(0)), "").await.text());
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn an_empty_list_is_an_empty_array_and_a_long_one_is_newest_first_and_bounded() {
    let host = Host::start();
    let empty = r#"{"result":[],"success":true,"errors":[],"messages":[]}"#;
    assert_eq!(host.ask("GET", "", "").await.body, empty);
    for _ in 0..51 {
        host.create(SIMPLE).await;
    }
    let list = host.ask("GET", "", "").await.json();
    let list = list["result"].as_array().unwrap();
    assert_eq!(list.len(), crate::limits::LIST_CAPTURES_MAX);
    assert_eq!((list[0]["id"].as_str().unwrap(), list[49]["id"].as_str().unwrap()), (&*id(50), &*id(1)));
}

#[tokio::test]
async fn every_path_is_served_with_and_without_the_prefix() {
    let host = Host::start();
    host.create(SIMPLE).await;
    for path in ["".to_owned(), format!("/{}", id(0)), format!("/{}/progress", id(0))] {
        let mut answers = Vec::new();
        for prefix in ["", PREFIX] {
            let request = request::Builder::new()
                .uri(format!("{prefix}/accounts/{A}/pcaps{path}"))
                .header("authorization", "Bearer a-token");
            answers.push(host.send(request, Body::empty()).await.text());
        }
        assert!(answers[0].starts_with("200"), "{}", answers[0]);
        assert_eq!(answers[0], answers[1]);
    }
}

#[tokio::test]
async fn a_hosts_bounds_hold_also_when_no_limit_is_sent() {
    let host = Host::with(Rules {
        time_limit_seconds_max: 600,
        packet_limit_max: Some(1000),
        byte_limit_max: Some(5000),
        allow_file: true,
        require_file_validation: false,
        ..ord02()
    });
    let answer = host
        .create(&FULL.replace("300", "601").replace("{\"", "{\"packet_limit\":1001,\"byte_limit\":5001,\""))
        .await;
    insta::assert_snapshot!(answer.text());
    let file = FULL.replace("s3://pcaps-bucket?region=us-east-1", "file:///srv/pcaps");
    let created = host.create(&file).await.json();
    assert_eq!(created["result"]["byte_limit"], 5000);
    assert_eq!(created["result"]["destination_conf"], "file:///srv/pcaps");
    assert_eq!(host.engine.jobs.lock().unwrap()[0].request.packet_limit, Some(1000));
}

#[tokio::test]
async fn a_look_back_echoes_its_offset_time_and_is_bound_to_what_the_host_keeps() {
    let hour = std::time::Duration::from_secs(3600);
    let host = Host::with(Rules { history: Some(hour), ..ord02() });
    let now = jiff::Timestamp::now();
    let with = |offset: &str| SIMPLE.replacen('{', &format!("{{\"offset_time\":\"{offset}\","), 1);
    for sent in [now.to_string(), format!("{}", now - 3590 * jiff::Span::new().seconds(1))] {
        let sent = sent.replace('Z', "+00:00");
        let created = host.create(&with(&sent)).await.json();
        assert_eq!(created["result"]["offset_time"], sent, "{created}");
        assert_eq!(created["result"]["status"], "pending");
    }
    let early = (now - 3700 * jiff::Span::new().seconds(1)).to_string();
    let late = (now + 60 * jiff::Span::new().seconds(1)).to_string();
    for sent in [&early, &late, "yesterday", ""] {
        let answer = host.create(&with(sent)).await.json();
        let error = &answer["errors"][0];
        assert_eq!(
            (&error["code"], &error["source"]["pointer"]),
            (&1005.into(), &"/offset_time".into()),
            "{answer}"
        );
        assert!(error["message"].as_str().unwrap().contains("within the 1 hours before now"), "{answer}");
    }
}
