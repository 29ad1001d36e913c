//! A server, a bucket and a directory of strangers: what they say does nothing to the terminal, and nobody else gets what is theirs.

use super::{run, trawl};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use trawl::deliver::SigningKey;

/// It sets the terminal's title, clears it, writes over the line, and turns the direction of writing around.
const RAW: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}31m\u{202e}\u{200b}";

/// What of it a terminal must not get.
const HARMFUL: [char; 6] = ['\u{1b}', '\u{7}', '\r', '\u{9b}', '\u{202e}', '\u{200b}'];

/// A server with one answer to everything; its URL, and the head of each request.
fn server(status: &str, headers: &str, body: &str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}");
    let (seen, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let _test_has_ended = seen.send(head.join("\n"));
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    (url, requests)
}

fn envelope(result: &Value, errors: &Value) -> String {
    let notes = json!([{"code": 1103, "message": RAW}]);
    json!({"result": result, "success": errors.as_array().unwrap().is_empty(), "errors": errors, "messages": notes})
        .to_string()
}

#[track_caller]
fn assert_harmless(text: &str) {
    let harmful = text.chars().find(|c| HARMFUL.contains(c));
    assert!(harmful.is_none() && text.contains("owned"), "{harmful:?} in {text:?}");
}

#[test]
fn what_a_server_says_does_nothing_to_the_terminal() {
    let capture =
        json!({"id": RAW, "type": RAW, "status": RAW, "submitted": RAW, "error_message": RAW, RAW: RAW});
    let bucket = json!([{"id": RAW, "status": RAW, "destination_conf": RAW, "filename": RAW, RAW: RAW}]);
    let refused = envelope(&Value::Null, &json!([{"code": 1001, "message": RAW}]));
    for (body, status, command) in [
        (envelope(&json!([capture]), &json!([])), "200 OK", &["capture", "list"][..]),
        (envelope(&json!([capture]), &json!([])), "200 OK", &["capture", "list", "--json"]),
        (envelope(&bucket, &json!([])), "200 OK", &["bucket", "list"]),
        (refused.clone(), "400 Bad Request", &["capture", "list"]),
        (refused, "400 Bad Request", &["capture", "stop", "0123456789abcdef0123456789abcdef"]),
        (
            envelope(&capture, &json!([])),
            "200 OK",
            &["capture", "start", "--time-limit", "1", "--colo-name", "x", "--destination-conf", "file:///x"],
        ),
        (
            envelope(&bucket, &json!([])).replacen(
                "\"destination_conf\":",
                "\"destination_conf\":\"file:///x\",\"was\":",
                1,
            ),
            "200 OK",
            &["bucket", "prove", "file:///x"],
        ),
    ] {
        let (url, _requests) = server(status, "content-type: application/json\r\n", &body);
        let arguments = [command, &["--account", "a", "--url", &url]].concat();
        let (_, out, error) = run(trawl(&arguments).env("TRAWL_TOKEN", "t"));
        assert_harmless(&format!("{out}{error}"));
        if arguments.contains(&"--json") {
            assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), json!([capture]));
        }
    }
}

#[test]
fn what_a_server_says_beside_a_capture_is_told_once_by_show_and_watch() {
    // A capture and its progress in one, for both questions.
    let of_manifest: Value = serde_json::from_str(&manifest(&"0".repeat(32))).unwrap();
    let both = json!({
        "id": "0".repeat(32), "type": "full", "status": "success", "stop_reason": "time_limit", "time_limit": 1,
        "ledger": of_manifest["ledger"], "seconds_left": 0.0, "objects": [],
    });
    let (url, _requests) =
        server("200 OK", "content-type: application/json\r\n", &envelope(&both, &json!([])));
    for command in ["show", "watch"] {
        let id = "0".repeat(32);
        let arguments = ["capture", command, &id, "--json", "--account", "a", "--url", &url];
        let (code, out, error) = run(trawl(&arguments).env("TRAWL_TOKEN", "t"));
        assert_eq!(code, 0, "{out}{error}");
        assert_eq!(error.matches("note 1103: ").count(), 1, "{error}");
        assert_harmless(&error);
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(out["capture"]["id"], json!(id), "standard output is the result alone");
    }
}

#[test]
fn a_redirect_is_not_followed_and_its_host_is_named() {
    let (other, seen_by_other) = server("200 OK", "", &envelope(&json!([]), &json!([])));
    let other = other.replace("127.0.0.1", "localhost");
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let (url, seen) = server(status, &format!("location: {other}/x\r\n"), "");
        for command in [&["capture", "list"][..], &["capture", "download", &"0".repeat(32)]] {
            let arguments = [command, &["--account", "a", "--url", &url]].concat();
            let mut command = trawl(&arguments);
            let (code, _, error) = run(command.env("TRAWL_EMAIL", "a@b").env("TRAWL_KEY", "hush"));
            assert!(
                code == 1 && error.contains("http://localhost") && error.contains(&status[..3]),
                "{error}"
            );
            assert!(seen.recv().unwrap().contains("hush"));
        }
    }
    assert!(seen_by_other.try_recv().is_err(), "the other host saw nothing");
}

/// Of a capture without packets.
fn manifest(id: &str) -> String {
    json!({
        "version": 1, "id": id, "account": "acc1", "host": "cap1", "colo": "ord02", "kind": "full", "filter_v1": {},
        "limits": {"time_limit": 1, "packet_limit": null, "byte_limit": null}, "submitted": "2026-11-24T06:00:00Z",
        "started": "2026-11-24T06:00:01Z", "ended": "2026-11-24T06:00:02Z", "stop_reason": "time_limit", "complete": true,
        "snaplen": 262_144, "objects": [], "queues": 1,
        "ledger": {
            "offered": 0, "port": {"imissed": 0, "rx_nombuf": 0, "ierrors": 0}, "rx": 0, "unmatched": 0, "matched": 0,
            "captured": 0, "captured_bytes": 0,
            "dropped": {"no_block": 0, "limit": 0, "sampled": 0, "spool": 0, "io": 0, "interrupted": 0},
        },
    })
    .to_string()
}

fn verify(dir: &Path, name: &str, more: &[&str]) -> (i32, String) {
    let path = dir.join(name);
    let key = dir.join("public.pem");
    let arguments =
        [&["verify", path.to_str().unwrap(), "--public-key", key.to_str().unwrap()][..], more].concat();
    let (code, out, error) = run(&mut trawl(&arguments));
    (code, out + &error)
}

fn is_verified(said: &str) -> bool {
    said.lines().any(|line| line.starts_with("verified: "))
}

#[test]
fn a_signed_manifest_counts_for_its_own_name_its_account_and_its_host_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = ("ab".repeat(16), "cd".repeat(16));
    let key = SigningKey::create(&dir.path().join("secret.pem")).unwrap();
    fs::write(dir.path().join("public.pem"), key.public().to_pem()).unwrap();
    let [genuine, substitute] = [&ours, &theirs].map(|id| format!("pcap_{id}.json"));
    let json = manifest(&ours);
    for name in [&genuine, &substitute] {
        fs::write(dir.path().join(name), &json).unwrap();
        fs::write(dir.path().join(format!("{name}.sig")), key.sign(json.as_bytes())).unwrap();
    }
    let (code, said) = verify(dir.path(), &genuine, &[]);
    assert_eq!(code, 0, "{said}");
    for part in [
        "verified: 0 objects",
        &ours,
        "account acc1",
        "host cap1",
        "2026-11-24T06:00:01Z to 2026-11-24T06:00:02Z",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, said) = verify(dir.path(), &substitute, &[]);
    assert!(code == 1 && !is_verified(&said) && said.contains(&ours) && said.contains(&genuine), "{said}");

    assert_eq!(verify(dir.path(), &genuine, &["--account", "acc1", "--host", "cap1"]).0, 0);
    for (arguments, part) in [(["--account", "acc2"], "not of acc2"), (["--host", "cap2"], "not of cap2")] {
        let (code, said) = verify(dir.path(), &genuine, &arguments);
        assert!(code == 1 && said.contains(part) && !is_verified(&said), "{said}");
    }
}

#[test]
fn names_in_a_directory_do_nothing_to_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let id = "ab".repeat(16);
    let path = dir.path().join(format!("pcap_{id}.json"));
    fs::write(&path, manifest(&id)).unwrap();
    fs::write(dir.path().join(format!("pcap_{id}_{RAW}\n")), "").unwrap();
    let (code, out, error) = run(&mut trawl(&["verify", path.to_str().unwrap()]));
    assert_eq!(code, 1);
    assert_harmless(&format!("{out}{error}"));
    assert_eq!(out.lines().filter(|line| line.starts_with("finding: ")).count(), 1, "{out}");
    fs::write(&path, manifest(&id).replace("\"host\":", &format!("{}:", json!(RAW)))).unwrap();
    let (code, out, error) = run(&mut trawl(&["verify", path.to_str().unwrap()]));
    assert_eq!(code, 1, "{out}");
    assert!(!error.contains(HARMFUL), "{error:?}");
    fs::write(&path, manifest(&id).replace("\"cap1\"", &json!(RAW).to_string())).unwrap();
    fs::remove_file(dir.path().join(format!("pcap_{id}_{RAW}\n"))).unwrap();
    let (code, out, error) = run(&mut trawl(&["verify", path.to_str().unwrap()]));
    assert_eq!(code, 0, "{error}");
    assert_harmless(&out);
}
