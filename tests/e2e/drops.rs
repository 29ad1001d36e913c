//! What its owner does with what a capture left on the host, and nobody else does: notes, dropping, and the end of records.

use crate::http::Answer;
use crate::trawl::{ACCOUNT, OTHER_TOKEN, Setup, TOKEN, Trawl};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use trawl::job::Status;

const READER_TOKEN: &str = "reads-only";

/// A host whose first account also has a credential that may only read.
fn start(setup: Setup) -> Trawl {
    let hash = Sha256::digest(READER_TOKEN).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    let reader = format!("[[account.credential]]\ntoken_sha256 = \"{hash}\"\nrole = \"read\"\n[[account]]\n");
    setup.start_with(|config, _| {
        let (first, second) = config.rsplit_once("[[account]]\n").unwrap();
        format!("{first}{reader}{second}")
    })
}

/// A capture whose delivery fails, because what stood for its directory is none any more.
fn undeliverable(trawl: &Trawl, packets: u64) -> String {
    let place = trawl.folder().join("taken");
    std::fs::create_dir_all(&place).unwrap();
    let mut request = trawl.request(json!({}));
    request["destination_conf"] = json!(format!("file://{}", place.display()));
    request["packet_limit"] = json!(packets);
    request["time_limit"] = json!(1);
    // It begins with a filter that nothing meets soon, so that nothing is delivered before the directory is gone.
    request["filter_v1"] = json!({"protocol": 17, "destination_port": 53});
    let id = trawl.create(&request);
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::write(&place, "no directory").unwrap();
    id
}

fn delete(trawl: &Trawl, account: &str, token: &str, id: &str) -> Answer {
    let path = format!("/client/v4/accounts/{account}/pcaps/{id}");
    trawl.send("DELETE", &path, &[("Authorization", &format!("Bearer {token}"))], &[]).unwrap()
}

fn run(trawl: &Trawl, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trawl"));
    command.args(arguments).env("TRAWL_URL", format!("{}/client/v4", trawl.url()));
    let output = command.env("TRAWL_ACCOUNT", ACCOUNT).env("TRAWL_TOKEN", TOKEN).output().unwrap();
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    (output, text)
}

#[test]
fn a_capture_that_waits_is_dropped_by_a_writer_of_its_account_alone() {
    let setup = Setup { upload: "retry_seconds_max = 1\nretry_pause_ms_max = 100", ..Setup::replay() };
    let trawl = start(setup);
    let id = undeliverable(&trawl, 1000);
    let ended = |status: &Status| matches!(status, Status::Running | Status::Pending);
    trawl.until(&id, Duration::from_secs(30), |progress| {
        !ended(&progress.status) && progress.spool.is_some_and(|spool| spool.held_bytes > 0)
    });
    let (output, text) = run(&trawl, &["capture", "list"]);
    assert!(output.status.success() && text.contains(&format!("note 1103: {id} has ")), "{text}");
    let (output, _) = run(&trawl, &["capture", "list", "--json"]);
    assert!(serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout).is_ok(), "{output:?}");

    let refused = delete(&trawl, ACCOUNT, READER_TOKEN, &id);
    assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (403, &json!(1015)), "{refused:?}");
    let other = crate::trawl::OTHER_ACCOUNT;
    let alien = delete(&trawl, other, OTHER_TOKEN, &id);
    assert_eq!((alien.status, &alien.body["errors"][0]["code"]), (404, &json!(1001)), "{alien:?}");
    assert_eq!(delete(&trawl, ACCOUNT, OTHER_TOKEN, &id).status, 401);
    assert!(trawl.spool().join(&id).exists(), "nobody of them dropped it");

    let (output, text) = run(&trawl, &["capture", "drop", &id]);
    assert!(output.status.success() && text.contains(&id), "{text}");
    trawl.until(&id, Duration::from_secs(30), |progress| progress.status == Status::Failed);
    let deadline = Instant::now() + Duration::from_secs(30);
    while trawl.spool().join(&id).exists() {
        assert!(Instant::now() < deadline, "{}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, text) = run(&trawl, &["capture", "list"]);
    assert!(!text.contains("note 1103"), "{text}");
    trawl.finish();
}

#[test]
fn old_records_are_forgotten_but_for_those_of_packets_on_the_host() {
    let setup = Setup {
        upload: "retention_seconds = 1\nretry_seconds_max = 1\nretry_pause_ms_max = 100",
        ..Setup::replay()
    };
    let mut trawl =
        setup.start_with(|config, _| config.replacen("[store]\n", "[store]\njobs_per_account_max = 50\n", 1));
    let kept = undeliverable(&trawl, 1000);
    trawl.until(&kept, Duration::from_secs(60), |progress| progress.status == Status::Failed);
    assert!(trawl.spool().join(&kept).exists());
    let mut ids = Vec::new();
    for _ in 0..53 {
        let mut request = trawl.request(json!({}));
        request["packet_limit"] = json!(1);
        let id = trawl.create(&request);
        assert_eq!(trawl.ended(&id).status, Status::Success);
        ids.push(id);
    }
    let status = |trawl: &Trawl, id: &str| trawl.ask("GET", &format!("/{id}"), &[]).status;
    assert_eq!((status(&trawl, &kept), status(&trawl, &ids[0])), (200, 200));
    // The first turn comes with the start.
    trawl.signal(rustix::process::Signal::TERM);
    assert!(trawl.wait(Duration::from_secs(60)).success());
    trawl.restart();
    trawl.until_log("records of old captures were removed", Duration::from_secs(30));
    let there = ids.iter().filter(|id| status(&trawl, id) == 200).count();
    assert!((49..=50).contains(&there), "{there} of {}", ids.len());
    assert_eq!(status(&trawl, &ids[0]), 404, "the oldest goes first");
    assert_eq!((status(&trawl, &kept), status(&trawl, ids.last().unwrap())), (200, 200));
    trawl.finish();
}

#[test]
fn a_server_that_a_test_starts_inherits_no_file_of_the_tests_caller() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock of a caller");
    // Without the flag that std sets, as a shell opens its files.
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR;
    let _held = rustix::fs::open(&lock, flags, rustix::fs::Mode::RUSR).unwrap();
    let trawl = Setup::replay().start();
    let links = std::fs::read_dir(format!("/proc/{}/fd", trawl.id())).unwrap();
    let held: Vec<_> = links
        .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
        .filter(|to| *to == lock)
        .collect();
    assert!(held.is_empty(), "{held:?}");
    trawl.finish();
}
