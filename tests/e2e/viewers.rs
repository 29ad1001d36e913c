//! The dashboard's server side on the real binary: streams, series, estimates, the host's screen, and strangers on every route.

use crate::http::Answer;
use crate::trawl::{ACCOUNT, OTHER_ACCOUNT, OTHER_TOKEN, Setup, TOKEN, Trawl};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use trawl::job::Status;

const OPERATOR: &str = "looks-after-the-host";
const LONG: Duration = Duration::from_secs(60);

/// A host with an operator.
fn start(setup: Setup) -> Trawl {
    let hash = Sha256::digest(OPERATOR).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    Setup { more: format!("[[operator]]\ntoken_sha256 = \"{hash}\"\n"), ..setup }.start()
}

fn ask(trawl: &Trawl, token: &str, method: &str, path: &str) -> Answer {
    let body: &[u8] = if method == "POST" { b"{}" } else { &[] };
    let bearer = format!("Bearer {token}");
    trawl.send(method, path, &[("Authorization", &bearer)], body).unwrap()
}

/// What the host screen shows; one that starts has none until its ports were read for the first time.
fn screen(trawl: &Trawl) -> Value {
    until("no screen", trawl, || {
        Some(ask(trawl, OPERATOR, "GET", "/ui/host").result()).filter(|screen| !screen.is_null())
    })
}

fn until<T>(what: &str, trawl: &Trawl, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Of a few of the recorded frames, which come again and again.
fn limited(trawl: &Trawl, packets: u64) -> Value {
    let mut request = trawl.request(json!({"protocol": 17, "destination_port": 53}));
    request["packet_limit"] = json!(packets);
    request
}

#[test]
fn the_screen_names_the_dpdk_that_is_loaded_and_the_next_try_of_an_upload() {
    let trawl =
        start(Setup { upload: "retry_seconds_max = 1\nretry_pause_ms_max = 5000", ..Setup::replay() });
    let host = screen(&trawl);
    let dpdk = host["dpdk"].as_str().unwrap();
    assert!(dpdk.starts_with("DPDK ") && dpdk.chars().any(|c| c.is_ascii_digit()), "{dpdk}");
    assert_eq!(
        (&host["upload"]["next_try_seconds"], &host["upload"]["last_error"]),
        (&json!(null), &json!(null))
    );
    // Nothing can be written into what is no directory any more.
    let place = trawl.folder().join("taken");
    std::fs::create_dir_all(&place).unwrap();
    let mut request = limited(&trawl, 1000);
    request["destination_conf"] = json!(format!("file://{}", place.display()));
    request["time_limit"] = json!(1);
    let id = trawl.create(&request);
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::write(&place, "no directory").unwrap();
    let upload = until("no next try", &trawl, || {
        let upload = screen(&trawl)["upload"].clone();
        upload["next_try_seconds"].is_u64().then_some(upload)
    });
    assert!(
        upload["next_try_seconds"].as_u64().unwrap() <= 5 && upload["last_error"].is_string(),
        "{upload}"
    );
    let row = screen(&trawl)["captures"].as_array().unwrap().iter().find(|row| row["id"] == *id).cloned();
    assert!(row.is_some_and(|row| row["last_error"].is_string()));
    // Which place it is, is its account's alone.
    let host = screen(&trawl).to_string();
    assert!(!host.contains("taken") && !host.contains("file://"), "{host}");
    let told = trawl.progress(&id).warnings;
    assert!(told.iter().any(|warning| warning.contains("taken")), "{told:?}");
    // A directory that went away may be a disk that is not mounted: the host makes none of its own.
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    assert_eq!(trawl.ended(&id).status, Status::Success, "{}", trawl.log());
    until("it still waits", &trawl, || screen(&trawl)["upload"]["next_try_seconds"].is_null().then_some(()));
    trawl.finish();
}

#[test]
fn an_estimate_holds_what_the_history_saw_and_a_series_outlives_the_process() {
    let mut trawl = start(Setup { history_sample: Some(1000), ..Setup::replay() });
    let estimate = |body: Value| trawl.ask("POST", "/estimate", body.to_string().as_bytes());
    let found = until("no estimate", &trawl, || {
        let answer = estimate(json!({"seconds": 2}));
        (answer.status == 200).then(|| answer.result())
    });
    let number = |name: &str| found[name].as_u64().unwrap();
    assert_eq!(number("sample_one_in"), 1000);
    let (low, packets, high) = (number("packets_low"), number("packets"), number("packets_high"));
    assert!(low <= packets && packets <= high && low > 0 && number("bytes") > 14 * packets, "{found}");
    let none = until("no second estimate", &trawl, || {
        let answer = estimate(json!({"seconds": 2, "filter_v1": {"source_address": "203.0.113.254/32"}}));
        (answer.status == 200).then(|| answer.result())
    });
    assert_eq!((&none["packets"], &none["packets_low"]), (&json!(0), &json!(0)));
    assert!((2990..=3000).contains(&none["packets_high"].as_u64().unwrap()), "{none}");

    let mut request = limited(&trawl, 1 << 50);
    request["time_limit"] = json!(2);
    let id = trawl.create(&request);
    let ended = trawl.ended(&id);
    let path = format!("/{id}/series");
    let series = trawl.ask("GET", &path, &[]).result();
    let sum = |name: &str| series[name].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("matched"), sum("captured")), (ended.ledger.matched, ended.ledger.captured));
    assert_eq!(sum("bytes"), ended.ledger.captured_bytes);
    trawl.signal(rustix::process::Signal::TERM);
    assert!(trawl.wait(LONG).success());
    trawl.restart();
    assert_eq!(trawl.ask("GET", &path, &[]).result(), series);
    trawl.finish();
}

#[test]
fn counts_of_a_process_that_was_killed_are_said_to_be_gone_and_are_in_no_point_of_the_next_one() {
    let mut trawl =
        start(Setup { upload: "retry_seconds_max = 1\nretry_pause_ms_max = 500", ..Setup::replay() });
    let place = trawl.folder().join("taken");
    std::fs::create_dir_all(&place).unwrap();
    let mut request = limited(&trawl, 1 << 50);
    request["destination_conf"] = json!(format!("file://{}", place.display()));
    request["time_limit"] = json!(2);
    let id = trawl.create(&request);
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::write(&place, "no directory").unwrap();
    until("it does not wait", &trawl, || {
        (trawl.progress(&id).status == Status::ConversionRunning).then_some(())
    });
    trawl.signal(rustix::process::Signal::KILL);
    trawl.wait(LONG);
    trawl.restart();
    let series = || trawl.ask("GET", &format!("/{id}/series"), &[]);
    let gone = until("it is not taken up", &trawl, || Some(series()).filter(|answer| answer.status != 404));
    assert_eq!((gone.status, &gone.body["errors"][0]["code"]), (410, &json!(1068)), "{gone:?}");
    // What it lost before is in no point of the host's series.
    until("it is not on the screen", &trawl, || {
        screen(&trawl)["captures"].as_array().unwrap().iter().any(|row| row["id"] == *id).then_some(())
    });
    let points = ask(&trawl, OPERATOR, "GET", "/ui/host/series").result();
    let first = |name: &str| {
        points["captures"][&id][name]
            .as_array()
            .and_then(|all| all.iter().find(|one| !one.is_null()).cloned())
    };
    for name in ["no_block", "spool", "io"] {
        assert!(first(name).is_none_or(|first| first == 0), "{name}: {points}");
    }
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    trawl.ended(&id);
    assert_eq!(series().status, 410);
    trawl.finish();
}

#[test]
fn a_stream_outlives_the_time_of_a_request_and_ends_with_the_host() {
    let mut trawl = start(Setup { request_timeout_seconds: 1, ..Setup::replay() });
    let id = trawl.create(&limited(&trawl, 1 << 50));
    let mut stream = TcpStream::connect(trawl.listen()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let path = format!("/client/v4/accounts/{ACCOUNT}/pcaps/events");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
        trawl.listen()
    )
    .unwrap();
    let mut lines = BufReader::new(stream).lines();
    let begun = Instant::now();
    let mut captured = 0;
    // The capture's counts change every second.
    while begun.elapsed() < Duration::from_secs(4) {
        let line = lines.next().unwrap().unwrap();
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let data: Value = serde_json::from_str(data).unwrap();
        let Some(row) = data["captures"].as_array().unwrap().iter().find(|row| row["id"] == *id) else {
            continue;
        };
        let now = row["ledger"]["captured"].as_u64().unwrap();
        assert!(now >= captured, "{data}");
        captured = now;
    }
    assert!(captured > 0);
    trawl.signal(rustix::process::Signal::TERM);
    // What comes until then are the capture's last changes.
    lines.take_while(Result::is_ok).for_each(drop);
    assert!(trawl.wait(LONG).success(), "{}", trawl.log());
}

#[test]
fn what_is_anothers_is_on_every_route_of_the_document_as_what_is_nobodys() {
    // So that each refusal is the first of its kind.
    let trawl = start(Setup { failed_authentications_max: 1_000_000, ..Setup::replay() });
    let ended = trawl.create(&limited(&trawl, 10));
    assert_eq!(trawl.ended(&ended).status, Status::Success);
    let running = trawl.create(&limited(&trawl, 1 << 50));
    let document = ask(&trawl, TOKEN, "GET", "/openapi.json").body;
    let nobodys = "0".repeat(32);
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let at = |account: &str, id: &str| {
                path.replace("{account}", account).replace("{id}", id).replace("{n}", "0")
            };
            let same = |one: &Answer, other: &Answer| (one.status, &one.body) == (other.status, &other.body);
            if path.contains("{id}") {
                for id in [&ended, &running] {
                    asked += 1;
                    let theirs = ask(&trawl, OTHER_TOKEN, &method, &at(OTHER_ACCOUNT, id));
                    let none = ask(&trawl, OTHER_TOKEN, &method, &at(OTHER_ACCOUNT, &nobodys));
                    assert!(
                        theirs.status == 404 && same(&theirs, &none),
                        "{method} {path}: {theirs:?} {none:?}"
                    );
                }
            }
            if path.contains("{account}") {
                let theirs = ask(&trawl, OTHER_TOKEN, &method, &at(ACCOUNT, &running));
                let none = ask(&trawl, OTHER_TOKEN, &method, &at("f00", &running));
                assert!(theirs.status == 401 && same(&theirs, &none), "{method} {path}: {theirs:?} {none:?}");
            }
            if path.starts_with("/ui/host") {
                let refused = ask(&trawl, TOKEN, &method, path);
                assert_eq!(refused.status, 401, "{method} {path}: {refused:?}");
            }
        }
    }
    assert!(asked >= 16, "{asked}");
    assert!(!trawl.progress(&running).status.ended(), "nobody stopped it");
    trawl.finish();
}
