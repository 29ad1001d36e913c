//! What is refused, and how: everything in the envelope, with the member, the value and what would be right.

use super::*;
use crate::engine::{Action, Handle, Refusal};
use crate::job::CaptureId;
use axum::routing::get;

/// A valid body with some members changed; `null` takes one away.
fn changed(body: &str, changes: &str) -> String {
    let mut body: serde_json::Map<_, _> = serde_json::from_str(body).unwrap();
    let changes: serde_json::Map<_, _> = serde_json::from_str(changes).unwrap();
    body.extend(changes);
    serde_json::to_string(&body).unwrap()
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once_with_member_and_value() {
    let cases = [
        (SIMPLE, r#"{"system":null,"type":null,"time_limit":null}"#),
        (SIMPLE, r#"{"system":"magic-firewall","type":"sample"}"#),
        (SIMPLE, r#"{"time_limit":null,"packet_limit":null}"#),
        (SIMPLE, r#"{"time_limit":300.5,"packet_limit":10001}"#),
        (SIMPLE, r#"{"time_limit":0,"packet_limit":0.0}"#),
        (SIMPLE, r#"{"time_limit":"60","packet_limit":99.5}"#),
        (SIMPLE, r#"{"time_limit":-1,"packet_limit":-1}"#),
        (SIMPLE, r#"{"time_limit":[],"packet_limit":{}}"#),
        (SIMPLE, r#"{"byte_limit":1,"colo_name":"ORD","colo":"ORD","destination_conf":"gs://x"}"#),
        (SIMPLE, r#"{"offset_time":"2026-01-02T03:04:05Z"}"#),
        (SIMPLE, r#"{"packet_limits":5,"a/b~c":1}"#),
        (SIMPLE, r#"{"filter_v1":[]}"#),
        (SIMPLE, r#"{"filter_v1":{"src":"1.2.3.4","protocol":"tcp","source_port":80.5,"source_address":7}}"#),
        (SIMPLE, r#"{"filter_v1":{"source_address":"1.2.3","destination_address":"::g","protocol":256}}"#),
        (SIMPLE, r#"{"filter_v1":{"source_address":"1.2.3.4","destination_address":"2001:db8::1"}}"#),
        (FULL, r#"{"colo_name":null,"destination_conf":null}"#),
        (FULL, r#"{"time_limit":86401,"packet_limit":0,"byte_limit":9007199254740992}"#),
        (FULL, r#"{"colo_name":"ord01"}"#),
        (FULL, r#"{"colo_name":"","colo":7}"#),
        (FULL, r#"{"colo_name":"ORD","colo":"ord02"}"#),
        (FULL, r#"{"destination_conf":"file:///etc"}"#),
        (FULL, r#"{"destination_conf":"r2://b?account-id=1&access-key-id=k&secret-access-key=SECRET"}"#),
        (FULL, r#"{"offset_time":"2026-01-02T03:04:05Z"}"#),
        (SIMPLE, r#"{"format":"pcapng","compression":"zstd"}"#),
        (FULL, r#"{"format":"erf","compression":9}"#),
    ];
    let host = Host::start();
    let mut all = String::new();
    for (body, changes) in cases {
        let answer = host.create(&changed(body, changes)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{changes}");
        assert!(!answer.body.contains("SECRET"));
        all.push_str(&format!("# {changes}\n{}\n", answer.text()));
    }
    insta::assert_snapshot!(all);
    assert!(host.engine.jobs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let host = Host::start();
    let deep = "[".repeat(10_000);
    let mut all = String::new();
    for body in ["", "  ", "{", "[]", "null", "\"x\"", "{} {}", r#"{"type":"full","type":"simple"}"#, &deep] {
        let answer = host.create(body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        all.push_str(&format!("# {:.40}\n{}\n", body, answer.text()));
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn an_answer_to_long_values_and_to_many_unknown_members_is_short() {
    let host = Host::start();
    let many: Vec<String> = (0..1000).map(|n| format!("\"{n}\":0")).collect();
    let many = host.create(&format!("{{{0},\"filter_v1\":{{{0}}}}}", many.join(","))).await;
    assert_eq!(many.status, StatusCode::BAD_REQUEST);
    assert!(many.body.len() < 4000, "{}", many.body.len());
    let filter = format!(r#"{{"filter_v1":{{"protocol":"{0}","source_address":"{0}"}}}}"#, "x".repeat(5000));
    let filter = host.create(&changed(SIMPLE, &filter)).await;
    assert_eq!(filter.status, StatusCode::BAD_REQUEST);
    assert!(filter.body.len() < 800, "{}", filter.body);
    let answer =
        host.create(&changed(SIMPLE, &format!(r#"{{"system":"{0}","{0}":1}}"#, "x".repeat(5000)))).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body.len() < 800, "{}", answer.body.len());
}

#[tokio::test]
async fn a_body_over_the_hosts_bound_is_413() {
    let host = Host::start();
    insta::assert_snapshot!(host.create(&" ".repeat(REQUEST_BYTES_MAX + 1)).await.text());
    assert_eq!(host.create(&" ".repeat(REQUEST_BYTES_MAX)).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn paths_methods_and_ids_that_are_none_are_answered_in_the_envelope() {
    let host = Host::start();
    let mut all = String::new();
    for (method, path) in [
        ("GET", "/nothing/here".to_owned()),
        ("DELETE", String::new()),
        ("PUT", format!("/{}", id(0))),
        ("GET", format!("/{}/stop", id(0))),
        ("GET", format!("/{}", id(0))),
        ("PUT", format!("/{}/stop", id(0))),
        ("GET", format!("/{}/progress", id(0))),
        ("GET", "/0".to_owned()),
        ("GET", "/%ff".to_owned()),
        ("GET", format!("/{}", id(0).to_uppercase())),
    ] {
        let answer = host.ask(method, &path, "").await;
        all.push_str(&format!("# {method} {path}\n{}\n", answer.text()));
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn a_second_full_capture_is_a_conflict_that_no_sdk_retries() {
    let host = Host::start();
    host.create(FULL).await;
    insta::assert_snapshot!(host.create(FULL).await.text());
    assert_eq!(host.create(SIMPLE).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_the_engine_refuses_is_said_without_the_hosts_secrets() {
    let mut all = String::new();
    for refusal in [
        Refusal::NoSlot(64),
        Refusal::NoBlocks(12),
        Refusal::SlotsKept { slots: 64, kept: 3 },
        Refusal::SimpleTooSoon { interval_seconds: 60, seconds_left: 17 },
        Refusal::TooManyLookBacks { max: 8, seconds_left: 10 },
        Refusal::LookBackTooSoon { interval_seconds: 7.5, seconds_left: 8 },
        Refusal::TooManyWaiting { max: 16, oldest: CaptureId::parse(&"7".repeat(32)).unwrap() },
        Refusal::ShareFull { held: 96, max: 95, is_short: false },
        Refusal::ShareFull { held: 96, max: 47, is_short: true },
        Refusal::Filter("no".to_owned()),
        Refusal::Destination("not there".to_owned()),
        Refusal::ShuttingDown,
        Refusal::AccountGone,
        Refusal::Undurable,
        Refusal::Store("/var/lib/x: no space".to_owned()),
    ] {
        let (captures, mut queue) = Handle::channel(1);
        let said = refusal.clone();
        tokio::spawn(async move {
            if let Some(Action::Create(_, reply)) = queue.recv().await {
                drop(reply.send(Err(said)));
            }
        });
        let dir = TempDir::new().unwrap();
        let host = Host::of(state(captures, ord02(), dir.path()), Engine::start(), dir);
        let answer = host.create(SIMPLE).await;
        assert!(!answer.body.contains("/var"));
        all.push_str(&format!("# {refusal:?}\n{}\n", answer.text()));
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn a_dead_engine_is_a_host_that_shuts_down() {
    let host = Host::start();
    host.engine.handle.shutdown().await;
    assert_eq!(host.ask("GET", "", "").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

async fn never() -> &'static str {
    std::future::pending().await
}

async fn panics() -> &'static str {
    panic!("a test")
}

#[tokio::test]
async fn a_handler_that_hangs_or_panics_is_answered_in_the_envelope() {
    let routes = Router::new().route("/never", get(never)).route("/panics", get(panics));
    let mut host = Host::start();
    host.router = guarded(routes, Duration::from_millis(20));
    let mut all = String::new();
    for path in ["/never", "/panics"] {
        all.push_str(&host.send(request::Builder::new().uri(path), Body::empty()).await.text());
        all.push('\n');
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn counts_that_nobody_kept_are_told_from_none_yet() {
    let host = Host::start();
    host.create(FULL).await;
    let path = format!("/{}/series", id(0));
    let none_yet = host.ask("GET", &path, "").await;
    assert_eq!(
        (none_yet.status, &none_yet.json()["result"]["matched"]),
        (StatusCode::OK, &serde_json::json!([]))
    );
    assert_eq!(host.ask("GET", &path, "").await.body, none_yet.body, "it begins when it was asked for");
    // As after a process that died while it counted.
    host.ask("PUT", &format!("/{}/stop", id(0)), "").await;
    let gone = host.ask("GET", &path, "").await;
    assert!(gone.status == StatusCode::GONE && gone.body.contains("1068"), "{}", gone.text());
}

#[tokio::test]
async fn a_value_of_a_body_is_in_no_answer_whatever_it_was_sent_as() {
    let host = Host::start();
    for (path, body) in [
        ("", r#""hush-hush""#),
        ("", "4711471147114711"),
        ("", r#"["hush-hush"]"#),
        ("", r#"{"type":"hush-hush","type":4711471147114711}"#),
        ("", r#"{"filter_v1":{"protocol":6,"protocol":4711471147114711}}"#),
        ("/ownership", r#"{"destination_conf":4711471147114711}"#),
        ("/ownership", r#"{"destination_conf":["hush-hush"]}"#),
        ("/ownership", r#"{"destination_conf":{"hush-hush":1}}"#),
        ("/ownership", r#"{"destination_conf":"hush-hush","destination_conf":"hush-hush"}"#),
        (
            "/ownership/validate",
            r#"{"destination_conf":"s3://b?region=x","ownership_challenge":4711471147114711}"#,
        ),
        (
            "/ownership/validate",
            r#"{"destination_conf":"s3://b?region=x","ownership_challenge":["hush-hush"]}"#,
        ),
        ("/estimate", r#""hush-hush""#),
    ] {
        let answer = host.ask("POST", path, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert!(
            !answer.body.contains("hush") && !answer.body.contains("4711"),
            "{path} {body}: {}",
            answer.body
        );
    }
    for query in ["?limit=hush", "?before=hush", "?status=hush", "?type=hush", "?hush=1", "/live?since=hush"]
    {
        let answer = host.ask("GET", query, "").await;
        assert!(answer.status == StatusCode::BAD_REQUEST && !answer.body.contains("hush"), "{query}");
    }
}

#[tokio::test]
async fn a_member_that_is_there_twice_is_refused_at_any_depth() {
    let host = Host::start();
    for body in [
        changed(SIMPLE, "{}").replacen('{', r#"{"type":"simple","#, 1),
        changed(SIMPLE, r#"{"filter_v1":{"protocol":6}}"#)
            .replace(r#""protocol":6"#, r#""protocol":6,"protocol":17"#),
    ] {
        let answer = host.create(&body).await;
        assert!(answer.status == StatusCode::BAD_REQUEST && answer.body.contains("1002"), "{body}");
    }
    assert!(host.engine.jobs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_number_in_a_path_or_query_has_one_form_and_a_query_no_member_twice() {
    let host = Host::start();
    host.create(FULL).await;
    for n in ["+0", "-0", "00", "0x0", "", "%30%30"] {
        let answer = host.ask("GET", &format!("/{}/objects/{n}", id(0)), "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{n}");
    }
    for query in
        ["/live?since=1&since=1", "/live?since=+1", "/live?sinc=1", "?limit=1&limit=2", "?limit=%2B1"]
    {
        assert_eq!(host.ask("GET", query, "").await.status, StatusCode::BAD_REQUEST, "{query}");
    }
}
