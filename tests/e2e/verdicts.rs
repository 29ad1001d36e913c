//! `trawl check` and `trawl serve` judge alike: what the one calls ready the other serves, and what it refuses the other refuses, in
//! the same words.

use crate::frames::real_pcap;
use crate::trawl::{Setup, free_address};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use trawl::job::{Status, StopReason};

type Change = Box<dyn Fn(String, &Path) -> String>;

fn replaced(from: &'static str, to: &'static str) -> Change {
    Box::new(move |text, dir| {
        assert!(text.contains(from), "{from:?} is not in the config");
        text.replace(from, &to.replace("DIR", &dir.display().to_string()))
    })
}

fn added(more: &'static str) -> Change {
    Box::new(move |text, dir| text + &more.replace("DIR", &dir.display().to_string()))
}

#[track_caller]
fn held(cases: Vec<(&str, bool, Change)>) {
    for (words, ready, change) in cases {
        let (checked, served, printed) = Setup::replay().judged(change);
        assert_eq!((checked, served), (ready, ready), "{words}: {printed}");
        assert!(!printed.contains("panicked"), "{words}: {printed}");
        let times = printed.matches(words).count();
        assert!(times >= 2, "{words} is said {times} times: {printed}");
    }
}

#[test]
fn check_and_serve_judge_storage_alike() {
    held(vec![
        ("", true, Box::new(|text, _| text)),
        (
            "is not a directory",
            false,
            Box::new(|text, dir| {
                fs::remove_dir(dir.join("spool")).unwrap();
                fs::write(dir.join("spool"), "a file").unwrap();
                text
            }),
        ),
        ("is a directory", false, replaced("/trawl.db", "/bucket")),
        ("there is no directory", false, replaced("/trawl.db", "/nowhere/trawl.db")),
        (
            "is no job database",
            false,
            Box::new(|text, dir| {
                fs::write(dir.join("trawl.db"), "not a database, but long enough to be one").unwrap();
                text
            }),
        ),
        ("lies in the spool", true, replaced("/trawl.db", "/spool/trawl.db")),
        ("the quota is 900000TiB", true, replaced("bytes_max = \"1GiB\"", "bytes_max = \"900000TiB\"")),
        (
            "of room",
            false,
            Box::new(|text, _| {
                let text = text.replace("bytes_max = \"1GiB\"", "bytes_max = \"900000TiB\"");
                text.replace("pool_bytes = \"256MiB\"", "pool_bytes = \"800000TiB\"")
                    .replace("\"auto\"", "\"mapped\"")
            }),
        ),
        ("of memory", false, replaced("bytes_max = \"64MiB\"", "bytes_max = \"1024GiB\"")),
        (
            "history is not a directory",
            false,
            Box::new(|text, dir| {
                fs::write(dir.join("spool/history"), "a file").unwrap();
                text + "[history]\nenabled = true\n"
            }),
        ),
        (
            "so others than its owner get at the key",
            false,
            Box::new(|text, dir| {
                use std::os::unix::fs::PermissionsExt as _;
                let path = dir.join("open.key");
                fs::write(&path, [7; 32]).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
                let path = path.display().to_string();
                text.replace("[store]", &format!("[store]\nkey_file = {path:?}"))
            }),
        ),
        ("nowhere.pem", false, added("[manifest]\nsigning_key_file = \"DIR/nowhere.pem\"\n")),
        ("nowhere.pem", false, replaced("[upload]", "[upload]\nca_file = \"DIR/nowhere.pem\"")),
    ]);
}

#[test]
fn check_and_serve_judge_addresses_cores_and_ports_alike() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listens =
        |text: &str| text.split("listen = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    held(vec![
        (
            "is api.listen too",
            false,
            Box::new(move |text, _| {
                let listen = listens(&text);
                text + &format!("[observe]\nlisten = \"{listen}\"\n")
            }),
        ),
        ("is in use", false, Box::new(move |text, _| text.replace(&listens(&text), &address.to_string()))),
        ("is in use", false, Box::new(move |text, _| text + &format!("[observe]\nlisten = \"{address}\"\n"))),
        (
            "has no address 192.0.2.1",
            false,
            Box::new(move |text, _| text.replace(&listens(&text), "192.0.2.1:8080")),
        ),
        ("", true, Box::new(|text, _| text + &format!("[observe]\nlisten = \"{}\"\n", free_address()))),
        (
            "nowhere.pem",
            false,
            replaced("[api]", "[api]\ntls_cert = \"DIR/nowhere.pem\"\ntls_key = \"DIR/nowhere.pem\""),
        ),
        ("core 900 does not exist", false, replaced("writers = [", "writers = [900, ")),
        (
            "also polls",
            false,
            Box::new(|text, _| {
                let worker = text.split("workers = [").nth(1).unwrap().split(']').next().unwrap().to_owned();
                text.replace("writers = [", &format!("writers = [{worker}, "))
            }),
        ),
        ("", false, replaced("\"--no-pci\"", "\"--no-pci\", \"--no-such-argument\"")),
        (
            "there is no file /nowhere.pcap",
            false,
            Box::new(|text, _| text.replace(&real_pcap().display().to_string(), "/nowhere.pcap")),
        ),
        ("net_pcap0 has 1 RX queues", false, replaced("queues = 1", "queues = 2")),
    ]);
    drop(taken);
}

#[test]
fn a_log_level_of_the_environment_that_is_none_is_refused_by_both() {
    let setup = Setup { environment: vec![("TRAWL_LOG".to_owned(), "loud".to_owned())], ..Setup::replay() };
    let (checked, served, printed) = setup.judged(|text, _| text);
    assert_eq!((checked, served), (false, false), "{printed}");
    assert!(printed.matches("TRAWL_LOG = \"loud\"").count() >= 2, "{printed}");
}

/// As if its disk were not mounted: the directory is there, and empty.
#[test]
fn a_spool_that_the_job_store_does_not_know_is_refused_until_the_right_one_is_back_and_nothing_is_lost() {
    // One segment that is not full when the process dies, so that nothing was delivered before.
    let mut trawl = Setup { segment_bytes: "512MiB", ..Setup::replay() }.start();
    let id = trawl.create(&trawl.request(json!({"protocol": 17, "destination_port": 53})));
    trawl.until(&id, Duration::from_secs(30), |_| trawl.has_written(&id));
    trawl.kill();
    let (spool, away) = (trawl.spool(), trawl.folder().join("away"));
    fs::rename(&spool, &away).unwrap();
    fs::create_dir(&spool).unwrap();
    trawl.launch();
    assert_eq!(trawl.wait(Duration::from_secs(60)).code(), Some(1));
    let log = trawl.log();
    assert!(
        log.contains("is not the spool that the job store knows") && log.contains("Mount its disk"),
        "{log}"
    );
    assert_eq!(fs::read_dir(trawl.bucket()).unwrap().count(), 0, "nothing is published from an empty spool");

    // Another one's spool is as foreign as none.
    fs::write(spool.join(".spool-id"), "11111111-2222-4333-8444-555555555555\n").unwrap();
    trawl.launch();
    assert_eq!(trawl.wait(Duration::from_secs(60)).code(), Some(1));

    fs::remove_dir_all(&spool).unwrap();
    fs::rename(&away, &spool).unwrap();
    // So is one whose name is damaged, until it is written again as the refusal says it.
    let name = fs::read_to_string(spool.join(".spool-id")).unwrap();
    fs::write(spool.join(".spool-id"), "").unwrap();
    trawl.launch();
    assert_eq!(trawl.wait(Duration::from_secs(60)).code(), Some(1));
    assert!(trawl.log().contains(&format!("write {} into it", name.trim())), "{}", trawl.log());
    fs::write(spool.join(".spool-id"), name.trim()).unwrap();
    trawl.restart();
    let ended = trawl.ended(&id);
    assert!(ended.ledger.captured > 0, "{ended:?}");
    trawl.finish();
}

#[test]
fn a_new_spool_is_taken_when_it_is_said_and_ends_what_the_old_one_held() {
    // One segment that is not full when the process dies, so that nothing was delivered before.
    let mut trawl = Setup { segment_bytes: "512MiB", ..Setup::replay() }.start();
    let id = trawl.create(&trawl.request(json!({"protocol": 17, "destination_port": 53})));
    trawl.until(&id, Duration::from_secs(30), |_| trawl.has_written(&id));
    trawl.kill();
    fs::remove_dir_all(trawl.spool()).unwrap();
    trawl.launch_with(&["--new-spool"]);
    trawl.await_answer();
    let ended = trawl.ended(&id);
    assert_eq!((ended.status, ended.stop_reason), (Status::Failed, Some(StopReason::Interrupted)));
    assert_eq!(fs::read_dir(trawl.bucket()).unwrap().count(), 0, "nothing is published from an empty spool");
    trawl.signal(Signal::TERM);
    assert!(trawl.wait(Duration::from_secs(60)).success());
    // It is the known one from now on.
    trawl.restart();
    trawl.finish();
}
