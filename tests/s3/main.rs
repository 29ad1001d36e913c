//! Stores against what they promise: one suite for all kinds, each with a real server, and what only one kind can do wrong.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod extras;
mod faults;
#[path = "../common/front.rs"]
mod front;
mod gcs;
#[path = "../common/gcs.rs"]
mod gcs_server;
#[path = "../common/inherit.rs"]
mod inherit;
mod merge;
mod rights;
#[path = "../common/proxy.rs"]
mod proxy;
#[path = "../common/skip.rs"]
mod skip;
#[path = "../common/strict.rs"]
mod strict;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/weed.rs"]
mod weed;

use aws_sdk_s3::Client;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use trawl::deliver::{deliver, object_name};
use trawl::job::{CaptureId, Destination, PartId, S3Credentials};
use trawl::merge::{Consumed, Output, Summary};
use trawl::pcap::ObjectFormat;
use trawl::upload::{Checkpoint, ObjectStore, R2Config, S3Config, Stores, StoresConfig, UploadError};
use weed::Weed;

const PART_BYTES: usize = 5 << 20;

fn config(endpoint: &str, key: &str, secret: &str) -> StoresConfig {
    let credentials = S3Credentials { access_key_id: key.to_owned(), secret_access_key: secret.to_owned() };
    StoresConfig {
        allow_file: true,
        s3: S3Config {
            endpoint: Some(endpoint.to_owned()),
            part_bytes: PART_BYTES as u64,
            parts_in_flight: 2,
            retry_seconds_max: 20,
            credentials: Some(credentials),
            pause_ms_max: 300,
            ..S3Config::default()
        },
        r2: Some(R2Config { endpoint: Some(endpoint.to_owned()), credentials: None }),
        ..StoresConfig::default()
    }
}

async fn open_as(endpoint: &str, key: &str, secret: &str, uri: &str) -> Box<dyn ObjectStore> {
    let mut config = config(endpoint, key, secret);
    if secret != weed::SECRET_ACCESS_KEY || uri.contains("nobodys") {
        // What people have to repair is waited for; here nobody will.
        config.s3.retry_seconds_max = 2;
    }
    let stores = Stores::new(config).unwrap();
    let (destination, keys) = Destination::parse_with_keys(uri).unwrap();
    stores.open_with(&destination, keys.as_ref()).await.unwrap()
}

async fn open(endpoint: &str, uri: &str) -> Box<dyn ObjectStore> {
    open_as(endpoint, weed::ACCESS_KEY_ID, weed::SECRET_ACCESS_KEY, uri).await
}

/// Bytes without a period that a part or a chunk could share.
fn noise(len: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

async fn write_all(
    store: &dyn ObjectStore,
    name: &str,
    bytes: &Bytes,
    chunk: usize,
) -> Result<u64, UploadError> {
    let mut writer = store.begin(name).await?;
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        writer.write(rest.split_to(chunk.min(rest.len()))).await?;
    }
    Ok(writer.finish().await?.bytes)
}

/// What a test's server can show of the suite.
#[derive(Clone, Copy)]
struct Knows {
    /// Whether it refuses a second object of a name.
    preconditions: bool,
}

const ALL: Knows = Knows { preconditions: true };

/// What every store keeps, whatever it is made of.
async fn conforms(store: &dyn ObjectStore, knows: Knows) {
    store.probe().await.unwrap();
    assert_eq!(store.size("small").await.unwrap(), None);
    assert!(matches!(store.get("small", 10).await, Err(UploadError::NotFound { .. })));

    for (name, len, chunk) in [
        ("empty", 0, 1),
        ("small", 5, 2),
        ("one-part", PART_BYTES, 1 << 20),
        ("two-parts", PART_BYTES + 1, PART_BYTES + 1),
        ("five-parts", 4 * PART_BYTES + 12_345, 1_000_003),
    ] {
        let bytes = noise(len);
        assert_eq!(write_all(store, name, &bytes, chunk).await.unwrap(), len as u64, "{name}");
        assert_eq!(store.size(name).await.unwrap(), Some(len as u64), "{name}");
        assert!(store.get(name, len as u64).await.unwrap() == bytes, "{name} is not what was sent");
    }
    assert!(matches!(store.get("small", 4).await, Err(UploadError::TooLarge { .. })));
    let whole = noise(4 * PART_BYTES + 12_345);
    let (len, middle) = (whole.len() as u64, PART_BYTES - 3);
    assert_eq!(store.read("five-parts", middle as u64, 9).await.unwrap(), whole.slice(middle..middle + 9));
    assert_eq!(store.read("five-parts", len - 4, 100).await.unwrap(), whole.slice(whole.len() - 4..));
    assert!(store.read("five-parts", len, 100).await.unwrap().is_empty());
    assert!(matches!(store.read("nothing", 0, 1).await, Err(UploadError::NotFound { .. })));
    assert_eq!(store.list("five").await.unwrap(), ["five-parts"]);
    assert!(store.list("nothing").await.unwrap().is_empty());

    if knows.preconditions {
        let error = store.put("small", Bytes::from_static(b"other")).await.unwrap_err();
        assert!(matches!(error, UploadError::Exists { .. }), "{error}");
        let error = write_all(store, "five-parts", &noise(PART_BYTES + 1), 1 << 20).await.unwrap_err();
        assert!(matches!(error, UploadError::Exists { .. }), "{error}");
        assert_eq!(store.get("small", 5).await.unwrap(), noise(5));
    }

    let mut writer = store.begin("aborted").await.unwrap();
    writer.write(noise(2 * PART_BYTES + 1)).await.unwrap();
    writer.abort().await.unwrap();
    assert_eq!(store.size("aborted").await.unwrap(), None);
    resumes(store).await;
    delivers(store).await;
}

/// What a process left is taken up by the next one, here a writer that knows nothing but the checkpoint's text.
async fn resumes(store: &dyn ObjectStore) {
    // More than a file store syncs at a time, and no multiple of anything.
    let bytes = noise((66 << 20) + 4321);
    let mut writer = store.begin("resumed").await.unwrap();
    let (mut sent, mut journal) = (0, None);
    while sent < bytes.len() - (1 << 20) {
        writer.write(bytes.slice(sent..sent + (1 << 20))).await.unwrap();
        sent += 1 << 20;
        if let Some(checkpoint) = writer.checkpoint() {
            journal = Some(serde_json::to_string(&checkpoint).unwrap());
        }
    }
    drop(writer);
    let checkpoint: Checkpoint = serde_json::from_str(&journal.unwrap()).unwrap();
    assert!(checkpoint.bytes() > 0);
    let (mut writer, offset) = store.resume("resumed", &checkpoint).await.unwrap();
    assert_eq!(offset, checkpoint.bytes(), "what the store confirmed is not sent again");
    assert!(writer.checkpoint().is_none(), "nothing changed yet");
    for chunk in bytes.slice(offset as usize..).chunks(1 << 20) {
        writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap().bytes, bytes.len() as u64);
    assert!(store.get("resumed", bytes.len() as u64).await.unwrap() == bytes);

    // The process died between the object's end and its journal entry: the same again is the same, another is refused.
    let (mut writer, offset) = store.resume("resumed", &checkpoint).await.unwrap();
    writer.write(bytes.slice(offset as usize..)).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().bytes, bytes.len() as u64);
}

fn summary(bytes: &Bytes) -> Summary {
    let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = bytes.len() as u64;
    Summary { bytes, packets: 1, frame_bytes: 0, first_ns: 1, last_ns: 1, sha256, content: None }
}

/// A merge of two objects, the second of which dies half-way in the second run.
async fn delivers(store: &dyn ObjectStore) {
    for dies in [false, true] {
        let id = CaptureId::random();
        let objects = [noise(PART_BYTES * 3 + 7), noise(100)];
        let (sender, receiver) = mpsc::channel(2);
        let feed = tokio::spawn({
            let objects = objects.clone();
            async move {
                for (index, bytes) in objects.iter().enumerate() {
                    sender.send(Output::Begin(index as u32)).await.unwrap();
                    for chunk in bytes.chunks(1 << 20) {
                        sender.send(Output::Chunk(Bytes::copy_from_slice(chunk))).await.unwrap();
                    }
                    if dies && index == 1 {
                        return;
                    }
                    let segments = vec![PathBuf::from(format!("segment{index}"))];
                    sender
                        .send(Output::End(summary(bytes), Consumed { segments, ..Consumed::default() }))
                        .await
                        .unwrap();
                }
            }
        });
        let mut reported = Vec::new();
        let mut record = |info, consumed: Consumed| {
            reported.push((info, consumed.segments));
            Ok(())
        };
        let result =
            deliver(store, &PartId::alone(&id), ObjectFormat::default(), 0, receiver, &mut record).await;
        feed.await.unwrap();
        let complete = if dies { 1 } else { 2 };
        assert_eq!(reported.len(), complete);
        match result {
            Ok(infos) => assert!(!dies && infos.iter().eq(reported.iter().map(|(info, _)| info))),
            Err(error) => assert!(dies && matches!(error, UploadError::Interrupted { object: 1 }), "{error}"),
        }
        for (index, bytes) in (0u32..).zip(&objects) {
            let name = object_name(&PartId::alone(&id), index, ObjectFormat::default());
            let held = store.get(&name, bytes.len() as u64).await;
            assert_eq!(held.is_ok(), (index as usize) < complete);
            assert!(held.is_err() || held.unwrap() == *bytes);
        }
    }
}

async fn uploads_under_way(client: &Client, bucket: &str) -> usize {
    client.list_multipart_uploads().bucket(bucket).send().await.unwrap().uploads().len()
}

#[tokio::test]
async fn a_directory_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("file://{}/out", dir.path().display());
    conforms(&*open("http://127.0.0.1:1", &uri).await, ALL).await;
    let left: Vec<_> =
        std::fs::read_dir(Path::new(&uri[7..])).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    assert_eq!(left.len(), 6 + 3);
}

#[tokio::test]
async fn a_directory_is_refused_where_the_operator_did_not_allow_it() {
    let stores = Stores::new(StoresConfig::default()).unwrap();
    let result = stores.open(&Destination::parse("file:///tmp").unwrap()).await;
    assert!(matches!(result, Err(UploadError::FileNotAllowed)));
}

#[tokio::test]
async fn a_bucket_is_a_store_and_keeps_no_unfinished_upload() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    conforms(&*open(&weed.endpoint, "s3://pcaps/some/where/?region=us-east-1").await, ALL).await;
    let keys = format!("access-key-id={}&secret-access-key={}", weed::ACCESS_KEY_ID, weed::SECRET_ACCESS_KEY);
    let r2 = format!("r2://pcaps?account-id=0123456789abcdef0123456789abcdef&{keys}");
    conforms(&*open(&weed.endpoint, &r2).await, ALL).await;
    let client = weed.client();
    assert_eq!(uploads_under_way(&client, "pcaps").await, 0);
    let listed = client.list_objects_v2().bucket("pcaps").prefix("some/where/").send().await.unwrap();
    assert_eq!(listed.contents().len(), 6 + 3, "a probe or an aborted object is visible");
}

#[tokio::test]
async fn a_writer_that_is_dropped_aborts_its_upload() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let store = open(&weed.endpoint, "s3://pcaps?region=us-east-1").await;
    let client = weed.client();
    let mut writer = store.begin("dropped").await.unwrap();
    writer.write(noise(2 * PART_BYTES)).await.unwrap();
    assert_eq!(uploads_under_way(&client, "pcaps").await, 1);
    drop(writer);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while uploads_under_way(&client, "pcaps").await > 0 {
        assert!(std::time::Instant::now() < deadline, "the upload is still there");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_missing_bucket_and_wrong_keys_are_named_by_the_probe() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let store = open(&weed.endpoint, "s3://nobodys?region=us-east-1").await;
    let error = store.probe().await.unwrap_err();
    assert!(matches!(&error, UploadError::NoSuchBucket { bucket } if bucket == "nobodys"), "{error}");
    let error = store.put("small", noise(5)).await.unwrap_err();
    assert!(matches!(error, UploadError::NoSuchBucket { .. }), "{error}");

    let store = open_as(&weed.endpoint, weed::ACCESS_KEY_ID, "wrong", "s3://pcaps?region=us-east-1").await;
    for error in [store.probe().await.unwrap_err(), store.put("small", noise(5)).await.unwrap_err()] {
        assert!(matches!(error, UploadError::Credentials { .. }), "{error}");
        assert!(error.to_string().contains("pcaps"), "{error}");
    }
}

#[tokio::test]
async fn the_store_keeps_the_checksums_that_were_sent() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let store = open(&weed.endpoint, "s3://pcaps?region=us-east-1").await;
    let client = weed.client();
    for (name, len) in [("small", 5), ("large", 2 * PART_BYTES + 1)] {
        write_all(&*store, name, &noise(len), 1 << 20).await.unwrap();
        let head = client.head_object().bucket("pcaps").key(name);
        let head = head.checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled).send().await.unwrap();
        assert!(head.checksum_crc32_c().is_some(), "{name}: nothing was compared");
    }
}

#[tokio::test]
async fn one_who_may_only_write_can_deliver_and_one_who_may_only_read_is_told_so() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let (secret, uri) = (weed::SECRET_ACCESS_KEY, "s3://pcaps?region=us-east-1");
    let store = open_as(&weed.endpoint, weed::READER_KEY_ID, secret, uri).await;
    let error = store.probe().await.unwrap_err();
    assert!(matches!(&error, UploadError::Denied { action: "s3:PutObject", .. }), "{error}");

    let store = open_as(&weed.endpoint, weed::WRITER_KEY_ID, secret, uri).await;
    store.probe().await.unwrap();
    assert!(matches!(store.size("small").await, Err(UploadError::Denied { .. })));
    for (name, len) in [("small", 5), ("large", 2 * PART_BYTES + 1)] {
        assert_eq!(write_all(&*store, name, &noise(len), 1 << 20).await.unwrap(), len as u64);
    }
}
