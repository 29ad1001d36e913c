//! The real binary on a bad line to a real S3 server. After each fault the objects are complete, there once, and hold every
//! frame that was captured; nothing is left in the spool's way or in the bucket.

use crate::bucket::{BUCKET, credentials, download, uploads_under_way};
use crate::numbered::{self, PORT};
use crate::outcome::Outcome;
use crate::proxy::{Fault, Proxy};
use crate::trawl::{Setup, Trawl};
use crate::weed::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Weed};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trawl::job::Status;

const ANY: &[&str] = &["HTTP/1.1"];
const BEGIN: &[&str] = &["POST ", "?uploads"];
const PART: &[&str] = &["PUT ", "partNumber="];
const END: &[&str] = &["POST ", "uploadId="];
const MANIFEST: &[&str] = &["PUT ", ".json"];

/// Quick to try again.
const UPLOAD: &str =
    "part_bytes = \"5MiB\"\nretry_seconds_max = 1\nretry_pause_ms_max = 20\nattempt_seconds_max = 1";
/// And quick to give up.
const UPLOAD_BRIEFLY: &str =
    "part_bytes = \"5MiB\"\nretry_seconds_max = 1\nretry_pause_ms_max = 20\nretention_seconds = 4";

/// Parts of more than one object of 16 MiB.
const TWO_OBJECTS: u64 = 42_000;
/// One object of two parts.
const TWO_PARTS: u64 = 14_000;
/// Less than an object, more than two parts.
const ONE_OBJECT: u64 = 28_000;

/// More than two objects of 16 MiB, and less than four.
const THREE_OBJECTS: u64 = 105_000;
/// Patient enough with one request that the other objects are sent meanwhile.
const UPLOAD_PATIENTLY: &str = "part_bytes = \"5MiB\"\nretry_seconds_max = 6\nretry_pause_ms_max = 200";
/// Parts of the second object.
const SECOND: &[&str] = &["PUT ", "_0001.pcap", "partNumber="];

/// A server, its bucket, the bad line to it, and a process that is quick to try again.
struct Line {
    trawl: Trawl,
    proxy: Proxy,
    weed: Weed,
    _sources: TempDir,
}

impl Line {
    async fn start() -> Option<Self> {
        Self::start_as(credentials(), UPLOAD).await
    }

    async fn start_as(environment: Vec<(String, String)>, upload: &'static str) -> Option<Self> {
        let weed = Weed::start().await?;
        weed.create_bucket(BUCKET).await;
        let proxy = Proxy::start(&weed.endpoint, ANY, Fault::Reset, 0).await;
        let folder = tempfile::tempdir().unwrap();
        let sources = numbered::sources(folder.path(), 2);
        let sources: Vec<_> = sources.iter().map(std::path::PathBuf::as_path).collect();
        let setup = Setup {
            segment_bytes: "16MiB",
            upload,
            endpoint: Some(proxy.endpoint.clone()),
            environment,
            ..Setup::of_pcaps(&sources)
        };
        Some(Self { trawl: setup.start(), proxy, weed, _sources: folder })
    }

    fn create(&self, packets: u64) -> String {
        let mut request = self.trawl.request(json!({"protocol": 17, "destination_port": PORT}));
        request["packet_limit"] = json!(packets);
        request["destination_conf"] = json!(format!("s3://{BUCKET}?region=us-east-1"));
        self.trawl.create(&request)
    }

    /// The capture ended well: complete, once, equal to what was captured.
    async fn assert_arrived(&self, id: &str, packets: u64) {
        let progress = self.trawl.ended(id);
        assert_eq!(progress.status, Status::Success, "{progress:?}");
        assert_eq!(progress.ledger.captured, packets);
        let folder = tempfile::tempdir().unwrap();
        let objects = download(&self.weed, &format!("pcap_{id}"), folder.path()).await;
        let outcome = Outcome::read(folder.path(), id);
        assert_eq!(outcome.manifest.ledger, progress.ledger);
        assert_eq!(objects, outcome.manifest.objects.len() + 1, "objects and manifest, nothing else");
        let seen = numbered::read_once(&outcome.frames);
        assert_eq!(seen.len() as u64, packets);
        if outcome.manifest.complete {
            assert_eq!(numbered::gaps(&seen), 0, "{:?}", outcome.manifest.ledger);
        }
    }

    async fn assert_nothing_under_way(&self) {
        assert_eq!(uploads_under_way(&self.weed).await, Vec::<String>::new());
    }

    /// A multipart upload as a process leaves it whose begin's answer was lost.
    async fn begin_upload(&self, key: &str) {
        self.weed.client().create_multipart_upload().bucket(BUCKET).key(key).send().await.unwrap();
    }

    /// Waits until a capture's progress says so.
    fn until_warned(&self, id: &str, words: &str) {
        let warned = |progress: &trawl::job::Progress| progress.warnings.iter().any(|w| w.contains(words));
        self.trawl.until(id, Duration::from_secs(60), warned);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_line_does_captures_arrive_complete_once_and_equal() {
    const SLOW: Fault = Fault::Answer("503 Slow Down", "SlowDown");
    const DOWN: Fault = Fault::Answer("503 Service Unavailable", "ServiceUnavailable");
    const KEY: Fault = Fault::Answer("403 Forbidden", "InvalidAccessKeyId");
    const SKEWED: Fault = Fault::Answer("403 Forbidden", "RequestTimeTooSkewed");
    let Some(line) = Line::start().await else { return };
    for (what, words, fault, times, packets) in [
        ("SlowDown storm", ANY, SLOW, 12, TWO_OBJECTS),
        ("503 storm", PART, DOWN, 10, TWO_OBJECTS),
        ("resets", ANY, Fault::Reset, 40, TWO_OBJECTS),
        ("begin whose answer is lost", BEGIN, Fault::LoseAnswer, 2, TWO_PARTS),
        ("begin stalls", BEGIN, Fault::Stall, 2, TWO_PARTS),
        ("half-sent parts", PART, Fault::Half, 6, TWO_PARTS),
        ("parts whose answers are lost", PART, Fault::LoseAnswer, 4, TWO_PARTS),
        ("end whose answer is lost", END, Fault::LoseAnswer, 2, TWO_PARTS),
        ("end refused", END, SLOW, 6, TWO_PARTS),
        ("keys that get fixed", PART, KEY, 10, TWO_PARTS),
        ("clock that gets set", PART, SKEWED, 10, TWO_PARTS),
        ("manifest whose answer is lost", MANIFEST, Fault::LoseAnswer, 1, TWO_PARTS),
        ("manifest stalls", MANIFEST, Fault::Stall, 1, TWO_PARTS),
    ] {
        let began = Instant::now();
        let id = line.create(packets);
        line.proxy.spoil(words, fault, times);
        line.assert_arrived(&id, packets).await;
        line.assert_nothing_under_way().await;
        line.proxy.assert_all_went_wrong();
        eprintln!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    }
    line.trawl.finish();
}

/// How often each part of an object was sent, by the line of the request without its signature.
fn parts_sent(proxy: &Proxy, object: &str) -> BTreeMap<String, usize> {
    let mut sent = BTreeMap::new();
    for head in proxy.seen("partNumber=").iter().filter(|head| head.starts_with("PUT ")) {
        let line = head.lines().next().unwrap();
        let part = line.split("partNumber=").nth(1).unwrap().split(['&', ' ']).next().unwrap();
        if line.contains(object) {
            *sent.entry(part.to_owned()).or_default() += 1;
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_of_several_that_is_refused_for_a_while_is_tried_again_alone() {
    const DOWN: Fault = Fault::Answer("503 Service Unavailable", "ServiceUnavailable");
    let Some(line) = Line::start_as(credentials(), UPLOAD_PATIENTLY).await else { return };
    line.proxy.spoil(SECOND, DOWN, u32::MAX);
    let id = line.create(THREE_OBJECTS);
    line.until_warned(&id, "ServiceUnavailable");
    // It is not the first try of the delivery that succeeds.
    let tries = || parts_sent(&line.proxy, "_0001.pcap").values().sum::<usize>();
    let (before, until) = (tries(), Instant::now() + Duration::from_secs(60));
    while tries() < before + 3 {
        assert!(Instant::now() < until, "it is not tried again: {}", line.trawl.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let (first, third) = (format!("{id}.pcap"), format!("{id}_0002.pcap"));
    let [of_first, of_third] = [&first, &third].map(|object| parts_sent(&line.proxy, object));
    assert!(of_first.len() > 1 && of_third.len() > 1, "{of_first:?} {of_third:?}");
    line.proxy.spoil(ANY, DOWN, 0);
    line.assert_arrived(&id, THREE_OBJECTS).await;
    line.assert_nothing_under_way().await;
    for object in [&first, &third] {
        let sent = parts_sent(&line.proxy, object);
        assert!(sent.values().all(|times| *times == 1), "{object} was sent again: {sent:?}");
    }
    line.trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_outage_and_a_kill_in_it_cost_only_time() {
    let Some(mut line) = Line::start().await else { return };
    let id = line.create(TWO_OBJECTS);
    // The first object's beginning arrives, and then nothing: pauses of 20 s for a day would be as many tries as this.
    line.proxy.spoil(&["partNumber=3"], Fault::Reset, u32::MAX);
    line.until_warned(&id, "could not be reached");
    line.proxy.spoil(ANY, Fault::Reset, u32::MAX);
    std::thread::sleep(Duration::from_secs(6));
    line.trawl.kill_and_restart();
    line.until_warned(&id, "could not be reached");
    line.proxy.spoil(ANY, Fault::Reset, 0);
    let recovered = line.trawl.ended(&id);
    line.assert_arrived(&id, recovered.ledger.captured).await;
    line.assert_nothing_under_way().await;
    assert!(line.trawl.log().contains("upload continues behind what the store holds"), "it began again");
    line.trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_deleted_and_made_again_in_an_upload_gets_everything() {
    let Some(line) = Line::start().await else { return };
    let id = line.create(ONE_OBJECT);
    line.proxy.spoil(&["partNumber=3"], Fault::Reset, u32::MAX);
    line.until_warned(&id, "could not be reached");
    line.weed.delete_bucket(BUCKET).await;
    line.proxy.spoil(ANY, Fault::Reset, 0);
    line.until_warned(&id, "does not exist");
    line.weed.create_bucket(BUCKET).await;
    line.assert_arrived(&id, ONE_OBJECT).await;
    line.assert_nothing_under_way().await;
    line.trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_put_right_in_their_file_are_read_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let keys = |path: &Path, key: &str| {
        let text =
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n");
        std::fs::write(path, text).unwrap();
    };
    keys(&file, ACCESS_KEY_ID);
    let environment =
        [("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()), ("AWS_EC2_METADATA_DISABLED", "true")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let Some(mut line) = Line::start_as(environment.into(), UPLOAD).await else { return };
    let id = line.create(ONE_OBJECT);
    line.proxy.spoil(ANY, Fault::Reset, u32::MAX);
    line.until_warned(&id, "could not be reached");
    line.trawl.kill();
    keys(&file, "nobody");
    line.proxy.spoil(ANY, Fault::Reset, 0);
    line.trawl.launch();
    line.trawl.await_answer();
    line.until_warned(&id, "no valid credentials");
    keys(&file, ACCESS_KEY_ID);
    let recovered = line.trawl.ended(&id);
    line.assert_arrived(&id, recovered.ledger.captured).await;
    line.assert_nothing_under_way().await;
    line.trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_uploads_of_this_hosts_captures_are_removed_from_a_bucket() {
    let Some(mut line) = Line::start().await else { return };
    let id = line.create(ONE_OBJECT);
    line.proxy.spoil(&["partNumber=3"], Fault::Reset, u32::MAX);
    line.until_warned(&id, "could not be reached");
    line.trawl.kill();
    line.begin_upload(&format!("pcap_{id}.pcap")).await;
    let mut others = vec![
        format!("elsewhere/pcap_{id}.pcap"),
        // Of another host's part of the same capture.
        format!("pcap_{id}_test2.pcap"),
        format!("pcap_{id}_test2_0001.pcap"),
        format!("pcap_{}.pcap", "0".repeat(32)),
        "somebody's".to_owned(),
    ];
    for other in &others {
        line.begin_upload(other).await;
    }
    line.proxy.spoil(ANY, Fault::Reset, 0);
    line.trawl.launch();
    line.trawl.await_answer();
    let recovered = line.trawl.ended(&id);
    line.assert_arrived(&id, recovered.ledger.captured).await;
    let mut left = uploads_under_way(&line.weed).await;
    left.sort();
    others.sort();
    assert_eq!(left, others);
    line.trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_capture_that_was_given_up_left_in_a_bucket_goes_at_the_next_start() {
    let Some(mut line) = Line::start_as(credentials(), UPLOAD_BRIEFLY).await else { return };
    let id = line.create(ONE_OBJECT);
    let until = Instant::now() + Duration::from_secs(20);
    line.proxy.spoil(END, Fault::Reset, u32::MAX);
    while uploads_under_way(&line.weed).await.is_empty() {
        assert!(Instant::now() < until, "no upload begins: {}", line.trawl.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    line.proxy.spoil(ANY, Fault::Reset, u32::MAX);
    assert_eq!(line.trawl.ended(&id).status, Status::Failed);
    assert_eq!(uploads_under_way(&line.weed).await, [format!("pcap_{id}.pcap")]);
    line.proxy.spoil(ANY, Fault::Reset, 0);
    line.trawl.kill_and_restart();
    let until = Instant::now() + Duration::from_secs(20);
    while !uploads_under_way(&line.weed).await.is_empty() {
        assert!(Instant::now() < until, "the upload is still there: {}", line.trawl.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    line.trawl.finish();
}
