//! Two customers on one host: one of them attacks, and the other one's captures get every one of their packets, during the
//! attack and after a restart in the middle of it.

use crate::bucket::{BUCKET, credentials};
use crate::http::Answer;
use crate::outcome::{Outcome, files_below};
use crate::proxy::{Fault, Proxy};
use crate::trawl::{Setup, Trawl};
use crate::weed::Weed;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use trawl::job::Status;

/// Objects of captures in the attacker's bucket: a probe of it succeeds, and nothing is ever delivered there.
const HIS_OBJECTS: &[&str] = &["/pcaps-bucket/his/pcap_"];

/// A host, and the bucket that takes the attacker's probes and nothing else.
struct Host {
    trawl: Trawl,
    _proxy: Proxy,
    weed: Weed,
}

impl Host {
    async fn start(fault: Fault, setup: Setup) -> Option<Self> {
        let weed = Weed::start().await?;
        weed.create_bucket(BUCKET).await;
        let proxy = Proxy::start(&weed.endpoint, HIS_OBJECTS, fault, u32::MAX).await;
        let setup = Setup { endpoint: Some(proxy.endpoint.clone()), environment: credentials(), ..setup };
        Some(Self { trawl: setup.start(), _proxy: proxy, weed })
    }

    /// Asks for a capture of the attacker's.
    fn attack(&self, packets: u64) -> Answer {
        let mut request = self.trawl.request(json!({}));
        request["packet_limit"] = json!(packets);
        request["destination_conf"] = json!(format!("s3://{BUCKET}/his?region=us-east-1"));
        self.trawl.ask_as_other("POST", "", request.to_string().as_bytes())
    }

    /// Attacks until a create is refused: the captures, and the refusal.
    fn attack_until_refused(&self, packets: u64) -> (Vec<String>, Value) {
        let (mut ids, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(90));
        loop {
            assert!(Instant::now() < deadline, "never refused: {}", self.trawl.log());
            let answer = self.attack(packets);
            if answer.status == 200 {
                ids.push(answer.result()["id"].as_str().unwrap().to_owned());
                continue;
            }
            let error = answer.body["errors"][0].clone();
            // Its last one still takes packets.
            if error["code"] != 1009 {
                return (ids, error);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn assert_whole(&self, packets: u64) {
        assert_whole(&self.trawl, packets);
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "not yet {what}: {}", self.trawl.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn merge_threads(&self) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.trawl.id())).unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|name| name.trim() == "merge").count()
    }

    /// Open files of the spool.
    fn spool_files(&self) -> usize {
        let links = std::fs::read_dir(format!("/proc/{}/fd", self.trawl.id())).unwrap();
        let spool = self.trawl.spool();
        links
            .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
            .filter(|to| to.starts_with(&spool))
            .count()
    }
}

/// The other customer's capture gets every packet that it asks for.
#[track_caller]
fn assert_whole(trawl: &Trawl, packets: u64) {
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(packets);
    let id = trawl.create(&request);
    let progress = trawl.ended(&id);
    assert_eq!((progress.status, progress.ledger.captured), (Status::Success, packets), "{progress:?}");
    let outcome = Outcome::read(&trawl.bucket(), &id);
    outcome.assert_lossless();
    assert_eq!(outcome.frames.len() as u64, packets);
}

const QUICK: &str = "part_bytes = \"5MiB\"\nretry_seconds_max = 1\nretry_pause_ms_max = 200\nattempt_seconds_max = 1\nturn_seconds = 1\ndeliveries_per_account = 2";

#[tokio::test(flavor = "multi_thread")]
async fn captures_that_wait_for_a_bucket_that_hangs_take_neither_threads_nor_the_turn_of_others() {
    let setup = Setup { capture: "waiting_per_account = 6", upload: QUICK, ..Setup::replay() };
    let Some(mut host) = Host::start(Fault::Stall, setup).await else { return };
    let (ids, refusal) = host.attack_until_refused(1000);
    assert_eq!((ids.len(), &refusal["code"]), (6, &json!(1040)), "{refusal}");
    assert!(refusal["message"].as_str().unwrap().contains(&ids[0]), "{refusal}");
    let assert_bounded = |host: &Host| {
        for _ in 0..20 {
            // One that is told to leave may be seen for a moment beside the one that follows it.
            let (merges, files) = (host.merge_threads(), host.spool_files());
            assert!(merges <= 4, "{merges} merges for 2 places: {}", host.trawl.log());
            assert!(files <= 40, "{files} open files of the spool");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    assert_bounded(&host);
    host.assert_whole(20_000);
    host.trawl.kill_and_restart();
    assert_bounded(&host);
    host.assert_whole(20_000);
    assert_eq!(host.attack(1000).body["errors"][0]["code"], 1040, "what waited before waits now");
    // Their owner drops them, and may begin another one.
    for id in &ids {
        assert_eq!(host.trawl.ask_as_other("DELETE", &format!("/{id}"), &[]).status, 204);
    }
    host.until("dropped", || {
        ids.iter().all(|id| {
            host.trawl.progress_of_other(id).status == Status::Failed && !host.trawl.spool().join(id).exists()
        })
    });
    let said = host.trawl.ask_as_other("GET", &format!("/{}", ids[0]), &[]).result();
    assert!(said["error_message"].as_str().unwrap().contains("its owner dropped it"), "{said}");
    assert_eq!(host.attack(1000).status, 200);
    let alien = host.trawl.ask("DELETE", &format!("/{}", ids[0]), &[]);
    assert_eq!((alien.status, &alien.body["errors"][0]["code"]), (404, &json!(1001)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_fills_its_share_of_the_spool_costs_the_other_no_packet() {
    let setup = Setup {
        spool_bytes_max: "256MiB",
        segment_bytes: "4MiB",
        pool_bytes: "0B",
        capture: "waiting_per_account = 100",
        upload: QUICK,
        ..Setup::replay()
    };
    let denied = Fault::Answer("403 Forbidden", "AccessDenied");
    let Some(mut host) = Host::start(denied, setup).await else { return };
    host.assert_whole(30_000);
    let (ids, refusal) = host.attack_until_refused(1 << 40);
    assert_eq!(refusal["code"], 1041, "{refusal}");
    host.assert_whole(30_000);
    host.trawl.kill_and_restart();
    host.assert_whole(30_000);
    assert_eq!(host.attack(1000).body["errors"][0]["code"], 1041, "the share is used up after a restart too");
    let spool = host.trawl.progress_of_other(&ids[0]).spool.unwrap();
    assert!(spool.account_held_bytes <= spool.account_bytes_max && spool.held_bytes > 0, "{spool:?}");
    assert_eq!(spool.account_bytes_max, (256 << 20) / 100 * 50);
    for id in &ids {
        assert_eq!(host.trawl.ask_as_other("DELETE", &format!("/{id}"), &[]).status, 204);
    }
    host.until("room again", || host.attack(1000).status == 200);
    host.assert_whole(30_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_captures_leave_is_bounded_by_size_and_after_a_restart_by_age() {
    let setup = Setup {
        spool_bytes_max: "256MiB",
        // A tenth of the share of 128 MiB.
        spool: "failed_percent = 10",
        segment_bytes: "4MiB",
        pool_bytes: "0B",
        upload: "retention_seconds = 1\nretry_seconds_max = 1\nretry_pause_ms_max = 50\nattempt_seconds_max = 1",
        ..Setup::replay()
    };
    let denied = Fault::Answer("403 Forbidden", "AccessDenied");
    let Some(mut host) = Host::start(denied, setup).await else { return };
    let mut ids = Vec::new();
    for _ in 0..6 {
        let answer = host.attack(12_000);
        ids.push(answer.result()["id"].as_str().unwrap().to_owned());
        let id = ids.last().unwrap().clone();
        host.until("failed", || host.trawl.progress_of_other(&id).status == Status::Failed);
    }
    let held = |host: &Host| -> u64 { ids.iter().map(|id| bytes_in(&host.trawl.spool().join(id))).sum() };
    host.until("within the bound", || held(&host) <= 13 << 20);
    let last = ids.last().unwrap();
    assert!(bytes_in(&host.trawl.spool().join(last)) > 0, "the newest stays");
    let said = host.trawl.ask_as_other("GET", &format!("/{}", ids[0]), &[]).result();
    let message = said["error_message"].as_str().unwrap();
    assert!(message.contains("removed from the host") && !message.contains("are kept"), "{message}");
    host.assert_whole(20_000);
    host.trawl.kill();
    let config = std::fs::read_to_string(host.trawl.config()).unwrap();
    let config = config.replacen("failed_percent = 10\n", "failed_percent = 10\nfailed_seconds_max = 1\n", 1);
    std::fs::write(host.trawl.config(), config).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    host.trawl.restart();
    host.until("too old", || held(&host) == 0);
    host.assert_whole(20_000);
}

fn bytes_in(dir: &std::path::Path) -> u64 {
    if !dir.exists() {
        return 0;
    }
    let segments =
        files_below(dir).into_iter().filter(|path| path.extension().is_some_and(|end| end == "pcap"));
    segments.filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum()
}

#[test]
fn look_backs_have_a_rate_and_cost_the_other_account_nothing() {
    let setup = Setup {
        history_sample: Some(10_000),
        spool_bytes_max: "256MiB",
        segment_bytes: "4MiB",
        pool_bytes: "0B",
        simple_interval_seconds: 800,
        ..Setup::replay()
    };
    let mut trawl = setup.start();
    let flood = |trawl: &Trawl| {
        let look = |_| {
            let at = jiff::Timestamp::now().to_string();
            let request = json!({
                "system": "magic-transit", "type": "simple", "time_limit": 1, "packet_limit": 100, "offset_time": at,
            });
            trawl.ask_as_other("POST", "", request.to_string().as_bytes())
        };
        let answers: Vec<_> = (0..40).map(look).collect();
        let refused = answers.last().unwrap();
        assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (429, &json!(1021)), "{refused:?}");
        let accepted = answers.iter().filter(|answer| answer.status == 200).count();
        assert!(accepted <= 8, "{accepted} of 40");
    };
    flood(&trawl);
    assert_whole(&trawl, 20_000);
    trawl.kill_and_restart();
    flood(&trawl);
    assert_whole(&trawl, 20_000);
    trawl.finish();
}

#[test]
fn files_of_simple_captures_are_on_the_accounts_share_and_the_oldest_go_first() {
    let setup = Setup {
        history_sample: Some(1),
        spool_bytes_max: "64MiB",
        // 327 KB of a share of 32 MiB, less than what three of them have.
        spool: "simple_percent = 1",
        segment_bytes: "4MiB",
        pool_bytes: "0B",
        ..Setup::replay()
    };
    let mut trawl = setup.start();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let request =
            json!({"system": "magic-transit", "type": "simple", "time_limit": 60, "packet_limit": 1000});
        let answer = trawl.ask_as_other("POST", "", request.to_string().as_bytes());
        let id = answer.result()["id"].as_str().unwrap().to_owned();
        while !trawl.progress_of_other(&id).status.ended() {
            std::thread::sleep(Duration::from_millis(5));
        }
        ids.push(id);
    }
    let simple = trawl.spool().join("simple");
    let first = simple.join(format!("pcap_{}.pcap", ids[0]));
    let deadline = Instant::now() + Duration::from_secs(30);
    while first.exists() || bytes_in(&simple) > 328_000 {
        assert!(Instant::now() < deadline, "{}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(trawl.ask_as_other("GET", &format!("/{}/download", ids[0]), &[]).status, 410);
    let held = || trawl.progress_of_other(&ids[0]).spool.unwrap().account_held_bytes;
    while !(1..=328_000).contains(&held()) {
        assert!(Instant::now() < deadline, "{} bytes are on the share: {}", held(), trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_whole(&trawl, 20_000);
    trawl.kill_and_restart();
    let deadline = Instant::now() + Duration::from_secs(30);
    while trawl.progress_of_other(&ids[0]).spool.unwrap().account_held_bytes == 0 {
        assert!(Instant::now() < deadline, "not on the share after a restart: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_whole(&trawl, 20_000);
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_one_unanswered_challenge_in_a_bucket_at_a_time() {
    let setup =
        Setup { require_validation: true, upload: "challenge_interval_seconds = 2", ..Setup::replay() };
    let Some(host) = Host::start(Fault::Reset, setup).await else { return };
    let ask = |directory: u32| {
        let body = json!({"destination_conf": format!("s3://{BUCKET}/{directory}?region=us-east-1")});
        host.trawl.ask_as_other("POST", "/ownership", body.to_string().as_bytes())
    };
    assert_eq!(ask(1).status, 200);
    for directory in [1, 2, 3] {
        let refused = ask(directory);
        assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (429, &json!(1043)), "{refused:?}");
    }
    let objects = async || {
        let list = host.weed.client().list_objects_v2().bucket(BUCKET).send().await.unwrap();
        list.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect::<Vec<_>>()
    };
    let first = objects().await;
    assert_eq!(first.len(), 1, "{first:?}");
    let deadline = Instant::now() + Duration::from_secs(30);
    while ask(1).status != 200 {
        assert!(Instant::now() < deadline, "{}", host.trawl.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    // The challenge that it replaced is removed.
    loop {
        let now = objects().await;
        if now.len() == 1 && now != first {
            break;
        }
        assert!(Instant::now() < deadline, "{now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
