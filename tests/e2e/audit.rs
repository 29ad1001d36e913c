//! The audit log of a real process: what a kill, a full disk and an orderly end leave in it.

use crate::disk::Disk;
use crate::http;
use crate::trawl::{ACCOUNT, OTHER_ACCOUNT, OTHER_TOKEN, Setup, TOKEN, Trawl, free_address};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use trawl::job::Status;

const SOON: Duration = Duration::from_secs(30);

fn config(log: &Path) -> String {
    format!("[audit]\ndir = \"{}\"\nbytes_max = \"4MiB\"\nfile_bytes = \"1MiB\"\n", log.display())
}

/// What `trawl audit verify` says, and whether it is content.
fn verify(log: &Path, more: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trawl"));
    let output = command.args(["audit", "verify"]).args(more).arg(log).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.success(), said)
}

fn lines(log: &Path) -> Vec<Value> {
    let mut files: Vec<PathBuf> = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let text: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of(lines: &[Value], action: &str) -> Vec<String> {
    let found = lines.iter().filter(|line| line["action"] == action && line["result"] == "done");
    found.map(|line| line["id"].as_str().unwrap_or_default().to_owned()).collect()
}

fn simple(trawl: &Trawl) -> String {
    trawl.create(&json!({"system": "magic-transit", "type": "simple", "time_limit": 60, "packet_limit": 3}))
}

/// The status of a download, whose body is no JSON if it is a file.
fn download(trawl: &Trawl, (account, token): (&str, &str), id: &str) -> u16 {
    let path = format!("/client/v4/accounts/{account}/pcaps/{id}/download");
    match trawl.send("GET", &path, &[("Authorization", &format!("Bearer {token}"))], &[]) {
        Ok(answer) => answer.status,
        Err(error) if error.to_string().contains("HTTP/1.1 200") => 200,
        Err(error) => panic!("{error}"),
    }
}

/// The status of a download of the other account's from address `n` of the loopback interface.
fn download_from(trawl: &Trawl, n: u16, id: &str) -> u16 {
    let [high, low] = n.to_be_bytes();
    let from = SocketAddr::from(([127, 1, high, low], 0));
    let request = format!(
        "GET /client/v4/accounts/{OTHER_ACCOUNT}/pcaps/{id}/download HTTP/1.1\r\nhost: trawl\r\n\
         authorization: Bearer {OTHER_TOKEN}\r\nconnection: close\r\n\r\n"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        let mut stream = socket.connect(trawl.listen()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    });
    let status = std::str::from_utf8(&answer[..12]).unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    status.parse().unwrap()
}

#[test]
fn whatever_was_acknowledged_before_a_kill_is_in_the_log_whose_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("audit");
    let more = config(&log);
    let mut trawl = Setup { capture: "waiting_per_account = 100", more, ..Setup::replay() }.start();
    let mut all = BTreeSet::new();
    for _ in 0..4 {
        for _ in 0..5 {
            all.insert(simple(&trawl));
        }
        // At once: nothing has time for more than it must.
        trawl.kill_and_restart();
    }
    let id = simple(&trawl);
    trawl.ended(&id);
    assert_eq!(download(&trawl, (ACCOUNT, TOKEN), &id), 200);
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    let log_of = lines(&log);
    let created: BTreeSet<String> = of(&log_of, "capture.create").into_iter().collect();
    assert!(all.is_subset(&created), "{:?}", all.difference(&created));
    assert_eq!(of(&log_of, "capture.download"), std::slice::from_ref(&id));
    let (is_whole, said) = verify(&log, &[]);
    assert!(is_whole && said.contains("no end of a process"), "{said}");
    trawl.finish();
    let (is_whole, said) = verify(&log, &[]);
    assert!(is_whole && !said.contains("no end of a process"), "{said}");
    let log_of = lines(&log);
    assert_eq!(log_of.iter().filter(|line| line["action"] == "process.start").count(), 5);
    assert!(log_of.iter().all(|line| line["host"] == "test1" && line["prev"].as_str().unwrap().len() == 64));
}

#[test]
fn the_log_is_signed_by_the_key_of_manifests_and_says_what_operators_do() {
    let folder = tempfile::tempdir().unwrap();
    let (log, key) = (folder.path().join("audit"), folder.path().join("manifest.pem"));
    let public = folder.path().join("manifest.pub");
    let made = Command::new(env!("CARGO_BIN_EXE_trawl")).arg("manifest-key").arg(&key).output().unwrap();
    fs::write(&public, made.stdout).unwrap();
    let more = format!("{}[manifest]\nsigning_key_file = \"{}\"\n", config(&log), key.display());
    let trawl = Setup { more, ..Setup::replay() }.start();
    trawl.signal(Signal::HUP);
    let until = Instant::now() + SOON;
    while !lines(&log).iter().any(|line| line["action"] == "config.reload") {
        assert!(Instant::now() < until, "{}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    trawl.finish();
    let (is_whole, said) = verify(&log, &["--public-key", public.to_str().unwrap()]);
    assert!(is_whole && said.contains("1 signatures are right, the last of all lines"), "{said}");
    let head = said.lines().find_map(|line| line.strip_prefix("head ")).unwrap().to_owned();
    assert!(verify(&log, &["--expect", &head]).0);
    // Somebody who has the files cuts off the last two lines.
    let file = fs::read_dir(&log).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&file).unwrap();
    let kept: Vec<_> = text.split_inclusive('\n').collect();
    fs::write(&file, kept[..kept.len() - 2].concat()).unwrap();
    assert!(verify(&log, &[]).0);
    let (is_whole, said) = verify(&log, &["--expect", &head]);
    assert!(!is_whole && said.contains("lines were cut off at the end"), "{said}");
    let (is_whole, said) = verify(&log, &["--public-key", public.to_str().unwrap()]);
    assert!(!is_whole && said.contains("no line is signed"), "{said}");
    // And changes one.
    fs::write(&file, text.replacen("\"test1\"", "\"test2\"", 1)).unwrap();
    let (is_whole, said) = verify(&log, &[]);
    assert!(!is_whole && said.contains("line 1: number 1 was changed after it was written"), "{said}");
}

#[test]
fn a_full_disk_of_the_log_stops_no_capture_and_lets_nothing_begin_or_go_out_until_there_is_room() {
    let Some(disk) = Disk::new(16) else { return };
    let (log, observe) = (disk.spool().join("audit"), free_address());
    let more = format!("{}[observe]\nlisten = \"{observe}\"\n", config(&log));
    let trawl = Setup { more, ..Setup::replay() }.start();
    let runs = trawl.create(&trawl.request(json!({"protocol": 17})));
    trawl.until(&runs, SOON, |progress| progress.status == Status::Running);
    let finished = simple_of_other(&trawl);
    let full = disk.spool().join("full");
    let filled =
        Command::new("dd").args(["if=/dev/zero", "bs=4096"]).arg(format!("of={}", full.display())).output();
    assert!(!filled.unwrap().status.success(), "it is full");
    // What was set aside for the log takes some lines more: nobody is refused before.
    // Each from an address of its own, so that each is a line of its own.
    let refused = (0..550).find(|n| download_from(&trawl, *n, &finished) == 503).unwrap();
    assert!(refused > 20, "{refused}");
    let answer = trawl.ask("POST", "", trawl.request(json!({"protocol": 17})).to_string().as_bytes());
    assert_eq!((answer.status, &answer.body["errors"][0]["code"]), (503, &json!(1045)), "{}", answer.body);
    let other = (OTHER_ACCOUNT, OTHER_TOKEN);
    assert_eq!(download(&trawl, other, &finished), 503, "packets are not handed out");
    let ready = http::get_text(observe, "/readyz").unwrap();
    assert!(ready.contains("the audit log cannot be written"), "{ready}");
    assert!(http::get_text(observe, "/metrics").unwrap().contains("trawl_audit_writable 0\n"));
    // Captures go on, and can be stopped.
    let captured = trawl.progress(&runs).ledger.captured;
    trawl.until(&runs, SOON, |progress| progress.ledger.captured > captured);
    assert_eq!(trawl.ask("PUT", &format!("/{runs}/stop"), &[]).status, 204);
    trawl.ended(&runs);
    fs::remove_file(&full).unwrap();
    let until = Instant::now() + SOON;
    while download(&trawl, other, &finished) != 200 {
        assert!(Instant::now() < until, "{}", trawl.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    trawl.finish();
    let (is_whole, said) = verify(&log, &[]);
    assert!(is_whole, "{said}");
    let log_of = lines(&log);
    // The stop waited for room, and is not lost.
    assert_eq!(of(&log_of, "capture.stop"), [runs]);
    let accounts: BTreeSet<_> = log_of.iter().filter_map(|line| line["account"].as_str()).collect();
    assert_eq!(accounts, BTreeSet::from([ACCOUNT, OTHER_ACCOUNT]));
}

/// A simple capture of the other account that has its file.
fn simple_of_other(trawl: &Trawl) -> String {
    let body =
        json!({"system": "magic-transit", "type": "simple", "time_limit": 60, "packet_limit": 3}).to_string();
    let result = trawl.ask_as_other("POST", "", body.as_bytes()).result();
    let id = result["id"].as_str().unwrap().to_owned();
    let until = Instant::now() + SOON;
    while trawl.progress_of_other(&id).status != Status::Success {
        assert!(Instant::now() < until, "{}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    id
}
