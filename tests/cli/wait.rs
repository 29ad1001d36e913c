//! `capture start --wait` as a process: real signals, exit codes, what goes to which stream.

use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// A server whose capture runs until it is stopped, or fails by itself.
struct Server {
    url: String,
    polls: Arc<AtomicU32>,
    stops: Arc<AtomicU32>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    StopsWhenAsked,
    NeverAnswersStop,
    FailsAtOnce,
}

fn envelope(result: &Value) -> Json<Value> {
    Json(json!({"result": result, "success": true, "errors": [], "messages": []}))
}

impl Server {
    fn start(manner: Manner) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (polls, stops) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let capture = move || async move {
            match manner {
                Manner::FailsAtOnce => {
                    envelope(&json!({"id": ID, "status": "failed", "error_message": "the disk is full"}))
                }
                _ => envelope(&json!({"id": ID, "status": "success"})),
            }
        };
        let (polled, stopped_too) = (polls.clone(), stops.clone());
        let progress = move || async move {
            polled.fetch_add(1, SeqCst);
            let status = match manner {
                Manner::FailsAtOnce => "failed",
                _ if stopped_too.load(SeqCst) > 0 => "success",
                _ => "running",
            };
            envelope(&json!({
                "id": ID, "status": status, "seconds_left": 9.5, "objects": [],
                "ledger": {
                    "offered": 7, "port": {"imissed": 0, "rx_nombuf": 0, "ierrors": 0}, "rx": 7, "unmatched": 2,
                    "matched": 5, "captured": 5, "captured_bytes": 300,
                    "dropped": {"no_block": 0, "limit": 0, "sampled": 0, "spool": 0, "io": 0},
                },
            }))
        };
        let stopped = stops.clone();
        let stop = move || async move {
            if manner == Manner::NeverAnswersStop {
                stopped.fetch_add(1, SeqCst);
                std::future::pending::<()>().await;
            }
            stopped.fetch_add(1, SeqCst);
            StatusCode::NO_CONTENT
        };
        let app = Router::new()
            .route("/accounts/a/pcaps", get(capture).post(capture))
            .route(&format!("/accounts/a/pcaps/{ID}"), get(capture))
            .route(&format!("/accounts/a/pcaps/{ID}/progress"), get(progress))
            .route(&format!("/accounts/a/pcaps/{ID}/stop"), put(stop));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { url, polls, stops, _runtime: runtime }
    }

    fn follow(&self, more: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_trawl"))
            .args(["capture", "start", "--wait", "--time-limit", "10", "--colo-name", "x"])
            .args(["--destination-conf", "file:///x", "--account", "a", "--url", &self.url])
            .args(more)
            .env_remove("TRAWL_EMAIL")
            .env("TRAWL_TOKEN", "t")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

fn end(child: Child) -> (i32, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn an_interrupt_stops_the_capture_and_its_ledger_is_printed() {
    let server = Server::start(Manner::StopsWhenAsked);
    let child = server.follow(&[]);
    until("a poll", || server.polls.load(SeqCst) > 0);
    interrupt(&child);
    let (code, out, error) = end(child);
    assert_eq!((code, server.stops.load(SeqCst)), (0, 1), "{out}{error}");
    for part in ["success", "rx 7 = unmatched 2 + matched 5", "the counts agree"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(error.contains("running, 10 s left: 5 packets, 300 B"), "{error}");
}

#[test]
fn a_second_interrupt_leaves_at_once() {
    let server = Server::start(Manner::NeverAnswersStop);
    let child = server.follow(&[]);
    until("a poll", || server.polls.load(SeqCst) > 0);
    interrupt(&child);
    until("a stop", || server.stops.load(SeqCst) > 0);
    interrupt(&child);
    let (code, out, error) = end(child);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(error.contains(&format!("trawl capture show {ID}")), "{error}");
}

#[test]
fn a_failed_capture_is_exit_code_1_with_its_reason() {
    let server = Server::start(Manner::FailsAtOnce);
    let (code, out, _) = end(server.follow(&[]));
    assert_eq!(code, 1);
    assert!(out.contains("failed: the disk is full"), "{out}");
    let (code, out, _) = end(server.follow(&["--json"]));
    let whole: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &whole["progress"]["ledger"]["captured"], &whole["balanced"]),
        (1, &json!(5), &json!(true))
    );
}
