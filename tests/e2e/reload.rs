//! SIGHUP while captures run: what changes, what is refused, and that no frame is lost by it.

use crate::http;
use crate::netns::{PAIR, alone_in_netns};
use crate::outcome::Outcome;
use crate::trawl::{ACCOUNT, OTHER_ACCOUNT, Setup, Trawl, free_address};
use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use trawl::job::{Status, StopReason};

const SOON: Duration = Duration::from_secs(30);
const DONE: &str = "SIGHUP: the config is read again";
const REFUSED: &str = "SIGHUP: the config is refused";

/// An account whose token is its name.
fn account(name: &str) -> String {
    let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[account]]\nid = \"{name}\"\n[[account.credential]]\ntoken_sha256 = \"{hash}\"\n")
}

fn count(trawl: &Trawl, words: &str) -> usize {
    trawl.log().matches(words).count()
}

/// Has it read `config`, and waits for what the log says of it.
#[track_caller]
fn reload(trawl: &Trawl, config: &str, words: &str) {
    let before = count(trawl, words);
    std::fs::write(trawl.config(), config).unwrap();
    trawl.signal(Signal::HUP);
    let deadline = Instant::now() + SOON;
    while count(trawl, words) == before {
        assert!(Instant::now() < deadline, "no {words:?}: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn status(trawl: &Trawl, name: &str) -> u16 {
    let path = format!("/client/v4/accounts/{name}/pcaps");
    trawl.send("GET", &path, &[("Authorization", &format!("Bearer {name}"))], &[]).unwrap().status
}

/// A UDP frame with a number.
fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend([0x12, 0xb5, 0x12, 0xb5, 0, 26, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// Stops the sender, also when something here panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Each reload adds or removes an account, changes what another one may see, the log's level and a limit.
#[test]
fn of_ten_thousand_numbered_frames_a_second_a_hundred_reloads_lose_none() {
    alone_in_netns(PAIR, || {
        let device = "interface:trawl0".to_owned();
        // Each second turn asks with a token that is none any more.
        let trawl = Setup { device, queues: 1, failed_authentications_max: 1000, ..Setup::replay() }.start();
        let config = std::fs::read_to_string(trawl.config()).unwrap();
        let id = trawl.create(&trawl.request(json!({"protocol": 17})));
        trawl.until(&id, SOON, |progress| progress.status == Status::Running);
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let peer = pcap::Capture::from_device("peer0").unwrap();
                let mut socket = peer.immediate_mode(true).open().unwrap();
                let began = Instant::now();
                while !stop.load(SeqCst) {
                    // Ten at once, each millisecond: 10 000 a second.
                    let due = began.elapsed().as_millis() as u64 * 10;
                    for number in sent.load(SeqCst)..due {
                        socket.sendpacket(frame(number as u32)).unwrap();
                        sent.store(number + 1, SeqCst);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let ends = Ends(&stop);
            for turn in 0..100 {
                let mut changed = match turn % 2 {
                    0 => config.clone() + &account("passing") + "[log]\nlevel = \"debug\"\n",
                    _ => config.clone(),
                };
                let other = format!("id = \"{OTHER_ACCOUNT}\"\n");
                let prefix = format!("{other}prefixes = [\"198.51.100.{turn}/32\"]\n");
                changed = changed.replace(&other, &prefix);
                changed = changed.replace(
                    "[capture]\n",
                    &format!("[capture]\npacket_limit_max = {}\n", 1_000_000_000 + turn),
                );
                reload(&trawl, &changed, DONE);
                assert_eq!(status(&trawl, "passing"), if turn % 2 == 0 { 200 } else { 401 });
            }
            drop(ends);
        });
        let sent = sent.load(SeqCst);
        trawl.until(&id, SOON, |progress| progress.ledger.offered >= sent);
        assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
        trawl.ended(&id);
        let outcome = Outcome::read(&trawl.bucket(), &id);
        outcome.assert_lossless();
        let number = |frame: &[u8]| u32::from_be_bytes(frame[42..46].try_into().unwrap());
        let numbers: BTreeSet<u32> = outcome.frames().map(number).collect();
        println!("{sent} frames over 100 reloads");
        assert_eq!(outcome.frames.len() as u64, sent);
        assert!(numbers.iter().copied().eq(0..sent as u32));
        trawl.finish();
    });
}

#[test]
fn what_needs_a_restart_is_refused_by_name_at_once_and_a_wrong_file_changes_nothing() {
    let observe = free_address();
    let trawl =
        Setup::replay().start_with(|config, _| config + &format!("[observe]\nlisten = \"{observe}\"\n"));
    let config = std::fs::read_to_string(trawl.config()).unwrap();
    let id = trawl.create(&trawl.request(json!({"protocol": 17})));
    trawl.until(&id, SOON, |progress| progress.status == Status::Running);
    let fixed = config.replace("bytes_max = \"64MiB\"", "bytes_max = \"65MiB\"") + &account("new");
    let fixed = fixed.replace("request_timeout_seconds = 30", "request_timeout_seconds = 31");
    reload(&trawl, &fixed, REFUSED);
    let named = "api.request_timeout_seconds, blocks.bytes_max cannot change while trawl runs";
    assert!(trawl.log().contains(named), "{}", trawl.log());
    reload(&trawl, &(config.clone() + &account("new") + "role = \n"), REFUSED);
    reload(&trawl, &(config.clone() + &account("new") + "[capture]\ncaptures = 1\n"), REFUSED);
    // A signing key that is not there: the file is right, and what it names is not.
    let unsigned = config.clone() + &account("new") + "[manifest]\nsigning_key_file = \"/nowhere/key\"\n";
    reload(&trawl, &unsigned, REFUSED);
    assert_eq!(status(&trawl, "new"), 401);
    reload(&trawl, &(config + &account("new")), DONE);
    assert_eq!(status(&trawl, "new"), 200);
    let metrics = http::get_text(observe, "/metrics").unwrap();
    for line in ["{result=\"done\"} 1", "{result=\"refused\"} 4"] {
        assert!(metrics.contains(&format!("trawl_config_reloads_total{line}\n")), "{metrics}");
    }
    let captured = trawl.progress(&id).ledger.captured;
    trawl.until(&id, SOON, |progress| {
        progress.status == Status::Running && progress.ledger.captured > captured
    });
    trawl.finish();
}

#[test]
fn new_prefixes_hold_for_captures_that_run_and_those_of_an_account_that_is_gone_end_and_are_delivered() {
    let trawl = Setup::replay().start();
    let config = std::fs::read_to_string(trawl.config()).unwrap();
    let id = trawl.create(&trawl.request(json!({"protocol": 17})));
    trawl.until(&id, SOON, |progress| progress.status == Status::Running && progress.ledger.captured > 0);
    // Documentation's network, from which nothing in the recording comes.
    reload(&trawl, &config.replacen("prefixes = []", "prefixes = [\"203.0.113.77/32\"]", 1), DONE);
    let still = |trawl: &Trawl| {
        let before = trawl.progress(&id).ledger;
        let after = trawl.until(&id, SOON, |progress| progress.ledger.rx > before.rx + 10_000).ledger;
        before.matched == after.matched
    };
    // The workers take it with their next burst.
    let deadline = Instant::now() + SOON;
    while !still(&trawl) {
        assert!(Instant::now() < deadline, "it sees packets still");
    }
    let matched = trawl.progress(&id).ledger.matched;
    reload(&trawl, &config, DONE);
    trawl.until(&id, SOON, |progress| progress.ledger.matched > matched);
    let gone = config.replace(ACCOUNT, "somebody");
    reload(&trawl, &gone, DONE);
    assert_eq!(trawl.ask("GET", &format!("/{id}"), &[]).status, 401);
    // It is in the bucket, whole, although nobody may ask for it; and an account that comes back finds it.
    reload(&trawl, &config, DONE);
    let progress = trawl.ended(&id);
    assert_eq!((progress.status, progress.stop_reason), (Status::Success, Some(StopReason::StopRequested)));
    Outcome::read(&trawl.bucket(), &id);
    trawl.finish();
}
