//! The client and the wait against a small server that speaks the contract.

use super::super::args::{CaptureType, FilterV1Args, StartArgs};
use super::super::request;
use super::super::wait::{self, Display};
use super::*;
use crate::job::{CaptureId, Ledger, Status};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

const ID: &str = "0123456789abcdef0123456789abcdef";

/// What the server has seen, and how often it still says `running`.
#[derive(Default)]
struct Seen {
    create: Option<Value>,
    credentials: Vec<(String, String)>,
    is_stopped: bool,
    polls: u32,
    polls_until_end: u32,
    failures_left: u32,
}

type Shared = Arc<Mutex<Seen>>;

fn envelope(result: impl serde::Serialize) -> Response {
    Json(json!({"result": result, "success": true, "errors": [], "messages": []})).into_response()
}

fn refusal(status: StatusCode, code: i64, message: &str) -> Response {
    let body = json!({"result": null, "success": false, "errors": [{"code": code, "message": message}], "messages": []});
    (status, Json(body)).into_response()
}

fn shown(status: Status) -> Value {
    json!({"id": ID, "type": "full", "status": status, "system": "magic-transit", "time_limit": 5})
}

async fn create(State(seen): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let mut seen = seen.lock().unwrap();
    for name in ["authorization", "x-auth-email", "x-auth-key"] {
        if let Some(value) = headers.get(name) {
            seen.credentials.push((name.to_owned(), value.to_str().unwrap().to_owned()));
        }
    }
    seen.create = Some(body);
    envelope(shown(Status::Pending))
}

async fn show(UrlPath((_, id)): UrlPath<(String, String)>) -> Response {
    if id == ID {
        envelope(shown(Status::Success))
    } else {
        refusal(StatusCode::NOT_FOUND, 1001, "pcap not found")
    }
}

async fn stop(State(seen): State<Shared>, headers: HeaderMap) -> Response {
    assert!(!headers.contains_key("content-type"));
    seen.lock().unwrap().is_stopped = true;
    StatusCode::NO_CONTENT.into_response()
}

async fn progress(State(seen): State<Shared>) -> Response {
    let mut seen = seen.lock().unwrap();
    if seen.failures_left > 0 {
        seen.failures_left -= 1;
        return refusal(StatusCode::SERVICE_UNAVAILABLE, 1000, "starting");
    }
    seen.polls += 1;
    let ended = seen.is_stopped || seen.polls > seen.polls_until_end;
    envelope(Progress {
        id: CaptureId::parse(ID).unwrap(),
        status: if ended { Status::Success } else { Status::Running },
        stop_reason: None,
        ledger: Ledger {
            offered: 3,
            rx: 3,
            matched: 3,
            captured: 3,
            captured_bytes: 180,
            ..Ledger::default()
        },
        seconds_left: 1.0,
        packet_limit: None,
        byte_limit: None,
        objects: Vec::new(),
        warnings: Vec::new(),
        sample_one_in: None,
        clock_steps: None,
        started: None,
        ended: None,
        delivered: Default::default(),
        spool: None,
    })
}

/// A server, and its base URL.
async fn server(seen: Seen) -> (Shared, String) {
    let seen = Arc::new(Mutex::new(seen));
    let app = Router::new()
        .route(
            "/client/v4/accounts/{a}/pcaps",
            get(|| async { envelope([shown(Status::Running)]) }).post(create),
        )
        .route("/client/v4/accounts/{a}/pcaps/{id}", get(show))
        .route("/client/v4/accounts/{a}/pcaps/{id}/stop", put(stop))
        .route("/client/v4/accounts/{a}/pcaps/{id}/progress", get(progress))
        .with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/client/v4/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (seen, url)
}

fn args(url: &str) -> ServerArgs {
    ServerArgs {
        url: url.to_owned(),
        account: Some("acc1".to_owned()),
        token_file: None,
        email: None,
        key_file: None,
        json: false,
    }
}

fn token(name: &str) -> Option<String> {
    (name == "TRAWL_TOKEN").then(|| "tok".to_owned())
}

fn client(url: &str) -> Client {
    // As main does; a second install in the same process is refused, which is fine.
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    Client::new(&args(url), token).unwrap()
}

fn body() -> Body {
    request::body(&StartArgs {
        wait: true,
        kind: CaptureType::Full,
        filter: FilterV1Args::default(),
        time_limit: 5.0,
        packet_limit: None,
        byte_limit: None,
        colo_name: Some("ORD".to_owned()),
        destination_conf: Some("file:///x".to_owned()),
        offset_time: None,
        format: None,
        compression: None,
    })
    .unwrap()
}

#[tokio::test]
async fn every_call_speaks_the_contract() {
    let (seen, url) = server(Seen::default()).await;
    let client = client(&url);
    assert_eq!(client.create(&body()).await.unwrap()["id"], ID);
    assert_eq!(client.list().await.unwrap().len(), 1);
    assert_eq!(client.get(ID).await.unwrap()["status"], "success");
    assert_eq!(client.progress(ID).await.unwrap().ledger.captured, 3);
    client.stop(ID).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.is_stopped);
    assert_eq!(seen.create.as_ref().unwrap()["colo_name"], "ORD");
    assert_eq!(seen.credentials, [("authorization".to_owned(), "Bearer tok".to_owned())]);
}

#[tokio::test]
async fn an_email_and_its_key_go_in_their_headers() {
    let (seen, url) = server(Seen::default()).await;
    let _for_the_provider = client(&url);
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "k3y\n").unwrap();
    let args = ServerArgs {
        email: Some("user@example.com".to_owned()),
        key_file: Some(key.path().to_owned()),
        ..args(&url)
    };
    Client::new(&args, token).unwrap().create(&body()).await.unwrap();
    let expected = [("x-auth-email", "user@example.com"), ("x-auth-key", "k3y")];
    assert_eq!(seen.lock().unwrap().credentials, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

#[tokio::test]
async fn a_refusal_is_shown_with_code_and_message() {
    let (_, url) = server(Seen::default()).await;
    let error = client(&url).get("ffffffffffffffffffffffffffffffff").await.unwrap_err();
    assert_eq!(error.to_string(), "the server refused (404): pcap not found (code 1001)");
    assert!(!error.is_transient() && !error.is_usage());
}

#[tokio::test]
async fn a_server_that_is_not_there_or_not_ours_is_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&url).list().await.unwrap_err().to_string();
    assert!(error.contains("no server at") && error.contains("trawl serve --config"), "{error}");
    let (_, url) = server(Seen::default()).await;
    let error = client(&url.replace("/client/v4", "/elsewhere")).list().await.unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("/client/v4"), "{error}");
}

#[tokio::test]
async fn a_wait_ends_with_the_capture_and_outlives_a_short_absence() {
    let (seen, url) = server(Seen { failures_left: 1, ..Seen::default() }).await;
    let (_pressed, interrupts) = mpsc::channel(2);
    let progress = wait::follow(&client(&url), ID, &Display::Lines, interrupts).await.unwrap();
    assert_eq!((progress.status, seen.lock().unwrap().failures_left), (Status::Success, 0));
}

#[tokio::test]
async fn the_first_interrupt_stops_the_capture_and_the_wait_goes_on() {
    let (seen, url) = server(Seen { polls_until_end: u32::MAX, ..Seen::default() }).await;
    let (pressed, interrupts) = mpsc::channel(2);
    pressed.send(()).await.unwrap();
    let progress = wait::follow(&client(&url), ID, &Display::Lines, interrupts).await.unwrap();
    assert!(progress.status.ended() && seen.lock().unwrap().is_stopped);
}

#[tokio::test]
async fn the_second_interrupt_leaves_at_once() {
    // Nothing answers here, so only leaving can end the wait.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (pressed, interrupts) = mpsc::channel(2);
    pressed.send(()).await.unwrap();
    pressed.send(()).await.unwrap();
    let left = wait::follow(&client(&url), ID, &Display::Lines, interrupts).await.unwrap_err();
    assert!(left.to_string().contains(&format!("trawl capture show {ID}")), "{left}");
}

#[test]
fn what_is_missing_is_said_before_anything_is_sent() {
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    let none = |_: &str| None;
    let message = |args: &ServerArgs| Client::new(args, none).unwrap_err().to_string();
    let whole = args("http://127.0.0.1:1");
    assert!(message(&ServerArgs { account: None, ..whole.clone() }).contains("TRAWL_ACCOUNT"));
    assert!(
        message(&ServerArgs { account: Some("a/b".to_owned()), ..whole.clone() })
            .contains("--account \"a/b\"")
    );
    assert!(message(&whole).contains("TRAWL_TOKEN"));
    assert!(message(&ServerArgs { email: Some("a@b".to_owned()), ..whole.clone() }).contains("TRAWL_KEY"));
    assert!(message(&ServerArgs { url: "127.0.0.1:8080".to_owned(), ..whole.clone() }).contains("--url"));
    let error = message(&ServerArgs { url: "http://u:secret@h/".to_owned(), ..whole });
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_client_shows_no_secret() {
    assert!(!format!("{:?}", client("http://127.0.0.1:1")).contains("tok"));
    let error =
        Client::new(&args("http://127.0.0.1:1"), |_| Some("two words".to_owned())).unwrap_err().to_string();
    assert!(!error.contains("words"), "{error}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for status in ["200 OK", "403 Forbidden"] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/client/v4", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut asked, _) = listener.accept().await.unwrap();
            let _the_head_is_enough = asked.read(&mut [0; 4096]).await.unwrap();
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
            asked.write_all(head.as_bytes()).await.unwrap();
            let (piece, mut sent) = (vec![b' '; 1 << 20], 0);
            while sent < 2 * ANSWER_BYTES_MAX && asked.write_all(&piece).await.is_ok() {
                sent += piece.len();
            }
            sent
        });
        let error = client(&url).list().await.unwrap_err();
        assert!(matches!(error, Error::TooLong { .. }), "{status}: {error}");
        let sent = server.await.unwrap();
        assert!(sent < 2 * ANSWER_BYTES_MAX, "{status}: {sent} bytes were read");
    }
}
