//! Captures as pcapng and compressed, by the host's choice and by the request's, into a folder and a real S3 server.

use crate::frames;
use crate::outcome::Outcome;
use crate::s3::{BUCKET, download, start};
use crate::trawl::{Setup, Trawl};
use crate::weed::Weed;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use trawl::capture::Status;
use trawl::merge::{Compression, Container};

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
    for count in [ledger.offered, ledger.matched, ledger.captured] {
        assert!(blocks.lines().any(|line| line.ends_with(&format!(" {count}"))), "{count}: {blocks}");
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
    let command = |arguments: &[String]| {
        let output = Command::new(env!("CARGO_BIN_EXE_trawl"))
            .args(arguments)
            .envs(crate::s3::environment(&weed))
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    command(&["verify".to_owned(), uri(&format!("pcap_{id}.json"))]);
    let merged: PathBuf = folder.path().join("merged.pcap");
    let mut arguments = vec!["merge".to_owned(), "-w".to_owned(), merged.display().to_string()];
    arguments.extend(outcome.manifest.objects.iter().map(|object| uri(&object.name)));
    command(&arguments);
    assert_eq!(frames::read(&merged), outcome.frames);
    trawl.finish();
}
