//! A spool whose host is gone for good, and one that somebody uses.

use crate::outcome::{Outcome, files_below};
use crate::trawl::{Setup, Trawl};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use trawl::job::StopReason;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trawl")).args(arguments).output().unwrap()
}

/// `trawl recover`, which must end well.
#[track_caller]
pub fn recover(spool: &Path, more: &[&str]) -> Value {
    recover_all(&[spool], more)
}

/// The same of a spool of several directories.
#[track_caller]
pub fn recover_all(spools: &[&Path], more: &[&str]) -> Value {
    let spools: Vec<_> = spools.iter().map(|spool| spool.to_str().unwrap()).collect();
    let output = run(&[&["recover", "--json"], more, &spools[..]].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn of_captures(trawl: &Trawl) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = files_below(&trawl.spool())
        .into_iter()
        .filter(|path| !path.ends_with(".lock"))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn a_dead_hosts_spool_becomes_files(write: &'static str, capture: &'static str) {
    let mut trawl = Setup { write, capture, segment_bytes: "4MiB", ..Setup::replay() }.start();
    // Some of it is delivered before the host dies.
    let id = trawl.create(&trawl.request(json!({"protocol": 17})));
    trawl.until(&id, Duration::from_secs(20), |progress| progress.objects.len() >= 2);
    // Between two segments there is a moment in which none is open.
    trawl.kill_with_an_open_segment(&id);
    let before = of_captures(&trawl);

    let dry = recover(&trawl.spool(), &["--dry-run"]);
    let found = &dry[0]["found"];
    assert_eq!(dry[0]["id"], json!(id));
    assert!(found["packets"].as_u64().unwrap() > 0 && found["segments_open"].as_u64().unwrap() > 0, "{dry}");
    assert!(found["objects_delivered"].as_u64().unwrap() >= 2, "{dry}");

    // Elsewhere: what is left, as a capture of its own.
    let out = trawl.folder().join("out");
    let outside = recover(&trawl.spool(), &["--out", out.to_str().unwrap()]);
    assert_eq!(&outside[0]["found"], found);
    let left = Outcome::read(&out, &id);
    assert_eq!(left.frames.len() as u64, found["packets"].as_u64().unwrap());
    assert!(left.manifest.recovered && !left.manifest.complete);
    assert_eq!(left.manifest.stop_reason, Some(StopReason::Interrupted));
    assert_eq!(of_captures(&trawl), before, "the spool is as it was");

    // Where its objects are: the whole capture. Then the spool is empty.
    let bucket = trawl.bucket();
    let whole = recover(&trawl.spool(), &["--out", bucket.to_str().unwrap(), "--remove"]);
    assert_eq!(whole[0]["removed"], json!(true), "{whole}");
    let outcome = Outcome::read(&bucket, &id);
    let delivered = found["packets_delivered"].as_u64().unwrap() as usize;
    assert_eq!(outcome.frames.len(), delivered + left.frames.len());
    assert_eq!(outcome.frames[delivered..], left.frames, "the same packets, none twice and none missing");
    assert_eq!(recover(&trawl.spool(), &[]), json!([]));
}

#[test]
fn what_a_dead_host_left_is_recovered_without_its_job_store_direct() {
    a_dead_hosts_spool_becomes_files("direct", "");
}

#[test]
fn what_a_dead_host_left_is_recovered_without_its_job_store_mapped() {
    a_dead_hosts_spool_becomes_files("mapped", "");
}

#[test]
fn what_a_dead_host_left_is_recovered_in_the_format_that_it_was_captured_in() {
    a_dead_hosts_spool_becomes_files("auto", "format = \"pcapng\"\ncompression = \"zstd\"");
}

#[test]
fn a_capture_without_record_or_with_a_missing_segment_gives_what_it_has_and_says_what_it_lacks() {
    let mut trawl = Setup { segment_bytes: "4MiB", ..Setup::replay() }.start();
    let id = trawl.create(&trawl.request(json!({})));
    let dir = trawl.spool().join(&id);
    let segments = || {
        let names = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> =
            names.filter(|path| path.extension().is_some_and(|end| end == "pcap")).collect();
        all.sort();
        all
    };
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while segments().len() < 4 {
        assert!(std::time::Instant::now() < until, "no four segments");
        std::thread::sleep(Duration::from_millis(1));
    }
    trawl.kill();
    let all = segments();
    assert!(all.len() >= 3, "{all:?}");
    std::fs::remove_file(dir.join(".capture.json")).unwrap();
    std::fs::remove_file(&all[all.len() - 2]).unwrap();
    let out = trawl.folder().join("out");
    let rows = recover(&trawl.spool(), &["--out", out.to_str().unwrap()]);
    let notes = rows[0]["found"]["notes"].to_string();
    assert!(notes.contains("it has no record") && notes.contains("are missing"), "{rows}");
    let outcome = Outcome::read(&out, &id);
    assert!(outcome.manifest.recovered && !outcome.manifest.complete);
    assert_eq!(json!(outcome.frames.len()), rows[0]["found"]["packets"]);
}

#[test]
fn the_history_is_named_below_the_captures_and_is_none_of_them() {
    let mut trawl = Setup { history_sample: Some(10), ..Setup::replay() }.start();
    let history = trawl.spool().join("history");
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let segments = || files_below(&history).iter().filter(|path| path.parent() == Some(&history)).count();
    while segments() == 0 {
        assert!(std::time::Instant::now() < until, "no segment: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    trawl.kill();
    let spool = trawl.spool().display().to_string();
    let text = String::from_utf8(run(&["recover", &spool, "--dry-run"]).stdout).unwrap();
    assert!(text.contains("no capture is left") && text.contains("history, "), "{text}");
    assert_eq!(recover(&trawl.spool(), &["--dry-run"]), json!([]));
}

#[test]
fn a_spool_that_a_process_uses_is_refused_to_every_other_one_with_its_number() {
    let mut trawl = Setup::replay().start();
    let (spool, config) = (trawl.spool().display().to_string(), trawl.config().display().to_string());
    let pid = format!("process {} (trawl", trawl.id());
    for arguments in [vec!["recover", &spool, "--dry-run"], vec!["serve", "--config", &config]] {
        let output = run(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(&pid), "{arguments:?}: {error}");
        assert!(error.contains("is in use by"), "{error}");
    }
    let output = run(&["check", "--config", &config]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("error: spool.dir: ") && text.contains(&pid), "{text}");
    // A process that died holds nothing.
    trawl.kill_and_restart();
    trawl.finish();
}
