//! Captures as pcapng and compressed, by the host's choice and by the request's, into a folder and a real S3 server.

use crate::bucket::{BUCKET, credentials, download, uploads_under_way};
use crate::frames;
use crate::outcome::Outcome;
use crate::proxy::{Fault, Proxy};
use crate::s3::start;
use crate::trawl::{Setup, Trawl};
use crate::weed::Weed;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use trawl::job::{Ledger, Status};
use trawl::pcap::{Compression, Container};

const PACKETS: u64 = 30_000;

/// Runs a capture of [`PACKETS`] to its good end.
fn capture(trawl: &Trawl, destination: Option<String>, more: &serde_json::Value) -> String {
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(PACKETS);
    if let Some(destination) = destination {
        request["destination_conf"] = json!(destination);
    }
    for (member, value) in more.as_object().unwrap() {
        request[member] = value.clone();
    }
    let id = trawl.create(&request);
    let progress = trawl.ended(&id);
    assert_eq!(progress.status, Status::Success, "{}", trawl.log());
    id
}

/// Holds the last object to say where it is from and what the ledger counted.
#[track_caller]
fn assert_says_all(outcome: &Outcome, folder: &Path) {
    let last = outcome.manifest.objects.last().unwrap();
    let path = folder.join(&last.name);
    let unpacked = frames::unpack(&path);
    let (infos, blocks) = frames::describe(unpacked.as_ref().map_or(&path, |(_folder, path)| path));
    let id = &outcome.manifest.id;
    for said in ["Name = net_pcap0", "Name = capture", &format!("capture {id}"), "trawl ", "Linux"] {
        assert!(infos.contains(said), "{said}: {infos}");
    }
    let ledger = outcome.manifest.ledger;
    assert_counts(&blocks, &ledger);
}

/// Holds a last object's blocks to say what the ledger counted, drops included.
#[track_caller]
pub fn assert_counts(blocks: &str, ledger: &Ledger) {
    let port = ledger.port;
    for (what, count) in [
        ("Received Packets", ledger.offered),
        ("Dropped Packets", port.imissed + port.rx_nombuf + port.ierrors),
        ("Accepted Packets", ledger.matched),
        ("Packets Dropped by OS", ledger.dropped.no_block + ledger.dropped.spool + ledger.dropped.io),
        ("Packets Delivered to the User", ledger.captured),
    ] {
        let said = format!("Option: Number of {what} = {count}");
        assert!(blocks.lines().any(|line| line.trim() == said), "{said}: {blocks}");
    }
}

#[test]
fn a_host_that_is_told_so_writes_compressed_pcapng_that_says_what_was_counted() {
    let choice = "format = \"pcapng\"\ncompression = \"zstd\"";
    let trawl = Setup { capture: choice, segment_bytes: "4MiB", ..Setup::replay() }.start();
    let id = capture(&trawl, None, &json!({}));
    let outcome = Outcome::read(&trawl.bucket(), &id);
    assert_eq!(outcome.frames.len() as u64, PACKETS);
    let manifest = &outcome.manifest;
    assert_eq!((manifest.format, manifest.compression), (Container::PcapNg, Compression::Zstd));
    assert!(manifest.objects.len() >= 2, "a capture of this size is cut");
    assert!(manifest.objects.iter().all(|object| object.name.ends_with(".pcapng.zst")));
    assert_says_all(&outcome, &trawl.bucket());

    let plain = capture(&trawl, None, &json!({ "format": "pcap", "compression": "none" }));
    let plain = Outcome::read(&trawl.bucket(), &plain);
    assert!(plain.manifest.objects.iter().all(|object| object.name.ends_with(".pcap")));
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_gets_compressed_pcapng_into_s3_where_it_verifies_and_merges() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket(BUCKET).await;
    let trawl = start(&weed);
    let destination = format!("s3://{BUCKET}/f?region=us-east-1");
    let more = json!({ "format": "pcapng", "compression": "zstd" });
    let id = capture(&trawl, Some(destination), &more);
    let folder = tempfile::tempdir().unwrap();
    download(&weed, "f", folder.path()).await;
    let outcome = Outcome::read(folder.path(), &id);
    assert_says_all(&outcome, folder.path());

    let uri = |name: &str| format!("s3://{BUCKET}/f/{name}?region=us-east-1");
    command(&weed, &["verify".to_owned(), uri(&format!("pcap_{id}.json"))]);
    let merge = |name: &str, inputs: &[String]| {
        let merged: PathBuf = folder.path().join(name);
        let output = ["merge".to_owned(), "-o".to_owned(), merged.display().to_string()];
        command(&weed, &[&output, inputs].concat());
        merged
    };
    let objects: Vec<_> = outcome.manifest.objects.iter().map(|object| uri(&object.name)).collect();
    assert_eq!(frames::read(&merge("merged.pcap", &objects)), outcome.frames);
    // An object of the bucket, its copy, and a file of another format.
    let recorded = frames::real_pcap();
    let copy = folder.path().join(&outcome.manifest.objects[0].name);
    let inputs = [objects[0].clone(), recorded.display().to_string(), format!("file://{}", copy.display())];
    let mixed = merge("mixed.pcapng.zst", &inputs);
    let (_folder, mixed) = frames::unpack(&mixed).unwrap();
    let object = &outcome.frames[..outcome.manifest.objects[0].packets as usize];
    let mut expected = [object, object, &frames::read(&recorded)].concat();
    let mut found = frames::read(&mixed);
    assert_eq!(frames::capinfos_packets(&mixed), found.len() as u64);
    // What was recorded is not wholly in order of time, and stays so.
    expected.sort();
    found.sort();
    assert!(found == expected, "{} packets, not {}", found.len(), expected.len());
    trawl.finish();
}

/// Runs the program where `weed` is its S3.
#[track_caller]
fn command(weed: &Weed, arguments: &[String]) {
    let output = Command::new(env!("CARGO_BIN_EXE_trawl"))
        .args(arguments)
        .envs(credentials())
        .env("AWS_ENDPOINT_URL_S3", &weed.endpoint)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Frames that do not compress, so that an object has parts.
fn noise(path: &Path) {
    let mut state = 1_u64;
    let mut frames = vec![vec![0_u8; 1000]; 4096];
    for byte in frames.iter_mut().flatten() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    frames::write(path, frames.iter().map(Vec::as_slice));
}

/// What happens to a capture's directory while no process has it.
#[derive(Clone, Copy, PartialEq)]
enum Between {
    Nothing,
    /// What was counted is gone: the last object cannot say it any more.
    CountsLost,
    /// Objects are made with other bytes than those that the store confirmed.
    OtherBytes,
}

/// Kills an upload of which the store holds two parts of three, and lets the next process finish it.
async fn killed_upload_arrives(between: Between) {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket(BUCKET).await;
    let proxy = Proxy::start(&weed.endpoint, &["partNumber=3"], Fault::Reset, u32::MAX).await;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("noise.pcap");
    noise(&source);
    let mut trawl = Setup {
        segment_bytes: "16MiB",
        upload: "part_bytes = \"5MiB\"\nretry_seconds_max = 1\nretry_pause_ms_max = 20\nattempt_seconds_max = 1",
        capture: "format = \"pcapng\"\ncompression = \"zstd\"",
        endpoint: Some(proxy.endpoint.clone()),
        environment: credentials(),
        ..Setup::of_pcaps(&[&source])
    }
    .start();
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(14_000);
    request["destination_conf"] = json!(format!("s3://{BUCKET}?region=us-east-1"));
    let id = trawl.create(&request);
    let stuck = |progress: &trawl::job::Progress| {
        progress.stop_reason.is_some() && progress.warnings.iter().any(|w| w.contains("could not be reached"))
    };
    trawl.until(&id, Duration::from_secs(60), stuck);
    let dir = trawl.spool().join(&id);
    let counts = dir.join(".counts.json");
    assert!(counts.exists(), "the counts are settled before the last object's end is made");
    trawl.kill();
    match between {
        Between::Nothing => {}
        Between::CountsLost => std::fs::remove_file(&counts).unwrap(),
        Between::OtherBytes => {
            let path = dir.join(".capture.json");
            let record = std::fs::read_to_string(&path).unwrap();
            let other = record.replace("host test1, colo", "host test2, colo");
            assert_ne!(other, record);
            std::fs::write(&path, other).unwrap();
        }
    }
    proxy.spoil(&["HTTP/1.1"], Fault::Reset, 0);
    trawl.launch();
    trawl.await_answer();
    let progress = trawl.ended(&id);
    assert_eq!(progress.status, Status::Success, "{}", trawl.log());
    let out = tempfile::tempdir().unwrap();
    download(&weed, &format!("pcap_{id}"), out.path()).await;
    let outcome = Outcome::read(out.path(), &id);
    assert_eq!((outcome.frames.len(), outcome.manifest.objects.len()), (14_000, 1));
    assert_eq!(uploads_under_way(&weed).await, Vec::<String>::new());
    let log = trawl.log();
    assert!(log.contains("upload continues behind what the store holds"), "{log}");
    assert_eq!(log.contains("it is sent again from its beginning"), between == Between::OtherBytes, "{log}");
    let (_folder, file) = frames::unpack(&out.path().join(&outcome.manifest.objects[0].name)).unwrap();
    let (_, blocks) = frames::describe(&file);
    assert_eq!(blocks.contains("what was lost is not known"), between == Between::CountsLost, "{blocks}");
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_upload_of_compressed_pcapng_goes_on_with_the_same_bytes() {
    killed_upload_arrives(Between::Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_counts_are_lost_still_arrives_and_says_so() {
    killed_upload_arrives(Between::CountsLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_merged_otherwise_than_it_was_begun_begins_anew() {
    killed_upload_arrives(Between::OtherBytes).await;
}
