//! When somebody ends a capture or the process: what was captured is kept, and nothing hangs.

use crate::outcome::Outcome;
use crate::trawl::{Setup, Trawl};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;
use trawl::job::{Status, StopReason};

const SOON: Duration = Duration::from_secs(20);

/// A capture without a limit that matters, of few enough packets to fit any spool.
fn open_ended(trawl: &Trawl) -> String {
    let id = trawl.create(&trawl.request(json!({"protocol": 17, "destination_port": 53})));
    trawl.until(&id, SOON, |progress| progress.ledger.captured > 100);
    id
}

#[test]
fn a_stopped_capture_keeps_what_it_has_and_says_when_it_was_stopped() {
    let trawl = Setup::replay().start();
    let id = open_ended(&trawl);
    for _twice_is_harmless in 0..2 {
        let answer = trawl.ask("PUT", &format!("/{id}/stop"), &[]);
        assert_eq!((answer.status, answer.body), (204, Value::Null));
    }
    let progress = trawl.ended(&id);
    assert_eq!((progress.status, progress.stop_reason), (Status::Success, Some(StopReason::StopRequested)));
    let outcome = Outcome::read(&trawl.bucket(), &id);
    outcome.assert_lossless();
    let shown = trawl.ask("GET", &format!("/{id}"), &[]).result();
    assert_eq!(shown["status"], "success");
    assert_eq!(shown["packets_captured"], json!(outcome.manifest.ledger.captured));
    assert!(shown["stop_requested"].is_string(), "{shown}");
    trawl.finish();
}

#[test]
fn sigterm_ends_captures_uploads_them_and_exits_with_0() {
    let mut trawl = Setup::replay().start();
    let id = open_ended(&trawl);
    trawl.signal(Signal::TERM);
    let status = trawl.wait(Duration::from_secs(60));
    assert!(status.success(), "{status}: {}", trawl.log());
    let outcome = Outcome::read(&trawl.bucket(), &id);
    outcome.assert_lossless();
    assert_eq!(outcome.manifest.stop_reason, Some(StopReason::Shutdown));
    assert!(outcome.manifest.ledger.captured > 100);
}

#[test]
fn a_second_signal_exits_at_once_although_an_upload_hangs() {
    let endpoint = silent_store();
    let environment =
        [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_EC2_METADATA_DISABLED", "true")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let setup = Setup { endpoint: Some(endpoint), environment: environment.into(), ..Setup::replay() };
    let mut trawl = setup.start();
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(100);
    request["destination_conf"] = json!("s3://silent?region=us-east-1");
    let id = trawl.create(&request);
    trawl.until(&id, SOON, |progress| progress.ledger.captured == 100);
    trawl.signal(Signal::TERM);
    trawl.until_log("a second signal ends at once", SOON);
    trawl.signal(Signal::TERM);
    let status = trawl.wait(Duration::from_secs(5));
    assert!(!status.success(), "an upload was left behind, which is no success");
    assert!(!trawl.log().contains("panicked"), "{}", trawl.log());
}

/// A store that lets the probe before a capture begin and end, and is silent to everything after.
fn silent_store() -> String {
    const BEGUN: &str =
        "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
    const NO_SUCH_PART: &str = "<Error><Code>InvalidPart</Code><Message>no such part</Message></Error>";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the test's process.
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..length]);
            let (status, body) = match head.split_once(' ') {
                Some(("POST", rest)) if rest.contains("/trawl-probe-") && rest.contains("uploadId=") => {
                    let mut sent = head.to_string();
                    let mut more = [0; 4096];
                    while !sent.contains("</CompleteMultipartUpload>") {
                        let length = stream.read(&mut more).unwrap();
                        assert!(length > 0, "a request was cut: {sent}");
                        sent += &String::from_utf8_lossy(&more[..length]);
                    }
                    ("400 Bad Request", NO_SUCH_PART)
                }
                Some(("POST", rest)) if rest.contains("/trawl-probe-") => ("200 OK", BEGUN),
                Some(("DELETE", rest)) if rest.contains("/trawl-probe-") => ("204 No Content", ""),
                _ => {
                    silent.push(stream);
                    continue;
                }
            };
            let length = body.len();
            let close = "Connection: close\r\n\r\n";
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{close}{body}").unwrap();
        }
    });
    endpoint
}

#[test]
fn a_destination_that_refuses_fails_the_capture_with_a_reason_and_nothing_else() {
    let trawl = Setup::replay().start();
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(100);
    // A file stands where the folder should be.
    let blocked = trawl.bucket().join("blocked");
    std::fs::write(&blocked, "").unwrap();
    request["destination_conf"] = json!(format!("file://{}", blocked.display()));
    let answer = trawl.ask("POST", "", request.to_string().as_bytes());
    // Either is a clear answer: refused at once, or failed with the reason when it came to writing.
    if answer.status == 200 {
        let id = answer.result()["id"].as_str().unwrap().to_owned();
        let progress = trawl.until(&id, Duration::from_secs(60), |progress| progress.status.ended());
        assert_eq!(progress.status, Status::Failed);
        let shown = trawl.ask("GET", &format!("/{id}"), &[]).result();
        assert!(!shown["error_message"].as_str().unwrap().is_empty());
    } else {
        answer.refusal();
    }
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(100);
    let id = trawl.create(&request);
    assert_eq!(trawl.ended(&id).status, Status::Success);
    Outcome::read(&trawl.bucket(), &id);
    trawl.finish();
}
