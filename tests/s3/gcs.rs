//! A bucket of Google's kind: the suite of all stores, and what only resumable sessions can do wrong.

use crate::front::{Front, Tunnel};
use crate::gcs_server::Gcs;
use crate::proxy::{Fault, Proxy};
use crate::strict;
use crate::{ALL, Knows, PART_BYTES, conforms, noise, write_all};
use bytes::Bytes;
use trawl::job::Destination;
use trawl::upload::{Checkpoint, GcsConfig, GcsCredentials, ObjectStore, Stores, StoresConfig, UploadError};

pub async fn open(endpoint: &str, uri: &str) -> Box<dyn ObjectStore> {
    open_for(endpoint, uri, 20).await
}

async fn open_for(endpoint: &str, uri: &str, retry_seconds_max: u64) -> Box<dyn ObjectStore> {
    let gcs = GcsConfig {
        endpoint: Some(endpoint.to_owned()),
        credentials: GcsCredentials::None,
        chunk_bytes: PART_BYTES as u64,
        retry_seconds_max,
        attempt_seconds_max: 2,
        pause_ms_max: 300,
        storage_class: Some("NEARLINE".to_owned()),
        ..GcsConfig::default()
    };
    let stores = Stores::new(StoresConfig { gcs: Some(gcs), ..StoresConfig::default() }).unwrap();
    stores.open(&Destination::parse(uri).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_bucket_of_googles_is_a_store_whose_sessions_are_resumed() {
    let Some(server) = Gcs::start().await else { return };
    server.create_bucket("pcaps").await;
    let store = open(&server.endpoint, "gs://pcaps/some/where/").await;
    conforms(&*store, Knows { preconditions: false }).await;
    let held = server.describe("pcaps", "some/where/five-parts").await;
    assert_eq!(held["storageClass"], "NEARLINE");
    // The emulator knows no preconditions.
    let strict = strict::start(&server.endpoint).await;
    conforms(&*open(&strict, "gs://pcaps").await, ALL).await;
}

/// A proxy answers as Google does, at the session's begin alone or at its end alone.
#[tokio::test]
async fn an_object_that_is_there_is_taken_for_ours_if_it_is_the_same_and_never_written_over() {
    const THERE: Fault = Fault::Answer("412 Precondition Failed", "conditionNotMet");
    const BEGIN: &[&str] = &["POST ", "uploadType=resumable"];
    const END: &[&str] = &["PUT ", "upload_id="];
    let Some(server) = Gcs::start().await else { return };
    server.create_bucket("pcaps").await;
    let bytes = noise(2 * PART_BYTES + 7);
    let mut other = bytes.to_vec();
    other[PART_BYTES] ^= 1;
    let (other, longer) = (Bytes::from(other), noise(4 * PART_BYTES));
    let there = open(&server.endpoint, "gs://pcaps").await;
    write_all(&*there, "there", &bytes, 1 << 20).await.unwrap();
    write_all(&*there, "small", &noise(7), 7).await.unwrap();
    for (words, name, sent, ours) in [
        (BEGIN, "there", &bytes, true),
        (BEGIN, "there", &other, false),
        (BEGIN, "there", &longer, false),
        (END, "small", &noise(7), true),
        (END, "small", &bytes.slice(8..15), false),
    ] {
        let proxy = Proxy::start(&server.endpoint, words, THERE, 1).await;
        let store = open(&proxy.endpoint, "gs://pcaps").await;
        let result = write_all(&*store, name, sent, 1 << 20).await;
        proxy.assert_all_went_wrong();
        match result {
            Ok(held) => assert!(ours && held == sent.len() as u64, "{name}"),
            Err(error) => assert!(!ours && matches!(error, UploadError::Exists { .. }), "{error}"),
        }
    }
    assert!(there.get("there", bytes.len() as u64).await.unwrap() == bytes);
    assert!(there.get("small", 7).await.unwrap() == noise(7));
}

#[tokio::test]
async fn whatever_goes_wrong_on_the_way_to_google_objects_arrive_complete_and_equal() {
    const SLOW: Fault = Fault::Answer("503 Slow Down", "SlowDown");
    const RIGHTS: Fault = Fault::Answer("403 Forbidden", "forbidden");
    const KEY: Fault = Fault::Answer("401 Unauthorized", "authError");
    const BEGIN: &[&str] = &["POST ", "uploadType=resumable"];
    const CHUNK: &[&str] = &["PUT ", "upload_id="];
    let Some(server) = Gcs::start().await else { return };
    server.create_bucket("pcaps").await;
    let bytes = noise(3 * PART_BYTES + 1);
    let arrives = async |name, words, fault, times| {
        let proxy = Proxy::start(&server.endpoint, words, fault, times).await;
        // Longer than a chunk is waited for.
        let store = open_for(&proxy.endpoint, "gs://pcaps", 60).await;
        let held = write_all(&*store, name, &bytes, 1 << 20).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(held, bytes.len() as u64, "{name}");
        proxy.assert_all_went_wrong();
        assert!(store.get(name, held).await.unwrap() == bytes, "{name} is not what was sent");
    };
    let quick = async {
        for (name, words, fault, times) in [
            ("begin-slow", BEGIN, SLOW, 3),
            ("begin-reset", BEGIN, Fault::Reset, 2),
            ("begin-unheard", BEGIN, Fault::LoseAnswer, 2),
            ("begin-rights", BEGIN, RIGHTS, 3),
            ("begin-key", BEGIN, KEY, 3),
            ("chunk-slow", CHUNK, SLOW, 5),
            ("chunk-half", CHUNK, Fault::Half, 2),
            ("chunk-reset", CHUNK, Fault::Reset, 3),
            ("chunk-unheard", CHUNK, Fault::LoseAnswer, 3),
            ("chunk-rights", CHUNK, RIGHTS, 3),
        ] {
            arrives(name, words, fault, times).await;
        }
    };
    // A chunk is waited for as long as a slow link takes for it: 42 s, in which the others are tried.
    tokio::join!(quick, arrives("chunk-stalled", CHUNK, Fault::Stall, 1));
}

#[tokio::test]
async fn an_upload_goes_on_behind_what_its_session_holds_and_anew_without_one() {
    let Some(server) = Gcs::start().await else { return };
    server.create_bucket("pcaps").await;
    let store = open(&server.endpoint, "gs://pcaps").await;
    let bytes = noise(4 * PART_BYTES + 9);
    let mut writer = store.begin("more").await.unwrap();
    writer.write(bytes.slice(..2 * PART_BYTES + 1)).await.unwrap();
    writer.write(bytes.slice(2 * PART_BYTES + 1..3 * PART_BYTES + 1)).await.unwrap();
    let checkpoint = writer.checkpoint().unwrap();
    assert_eq!(checkpoint.bytes(), 2 * PART_BYTES as u64);
    writer.write(bytes.slice(3 * PART_BYTES + 1..)).await.unwrap();
    drop(writer);
    // The session holds a chunk that the journal does not know; it is counted and not sent again.
    let (mut writer, offset) = store.resume("more", &checkpoint).await.unwrap();
    assert_eq!(offset, checkpoint.bytes());
    writer.write(bytes.slice(offset as usize..)).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().bytes, bytes.len() as u64);
    assert!(store.get("more", bytes.len() as u64).await.unwrap() == bytes);

    // Other bytes than those that the session holds: the whole is held against what was sent.
    let mut writer = store.begin("other").await.unwrap();
    writer.write(bytes.slice(..3 * PART_BYTES + 1)).await.unwrap();
    writer.write(bytes.slice(3 * PART_BYTES + 1..3 * PART_BYTES + 2)).await.unwrap();
    let checkpoint = writer.checkpoint().unwrap();
    drop(writer);
    let mut text = serde_json::to_value(&checkpoint).unwrap();
    text["kept"]["gcs"]["crc32c"] = 1.into();
    let wrong: Checkpoint = serde_json::from_value(text.clone()).unwrap();
    let (mut writer, offset) = store.resume("other", &wrong).await.unwrap();
    writer.write(bytes.slice(offset as usize..)).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    assert!(matches!(error, UploadError::Mismatch { what: "checksum", .. }), "{error}");

    // A session that the store does not have, at an address that is not the store's: it is asked and nobody else.
    text["kept"]["gcs"]["session"] = "http://192.0.2.1/upload/storage/v1/b/pcaps/o?upload_id=none".into();
    let gone: Checkpoint = serde_json::from_value(text).unwrap();
    let (writer, offset) = store.resume("other", &gone).await.unwrap();
    assert_eq!(offset, 0);
    writer.abort().await.unwrap();
}

#[tokio::test]
async fn a_missing_bucket_and_a_store_that_is_not_there_are_named_by_the_probe() {
    let Some(server) = Gcs::start().await else { return };
    let store = open_for(&server.endpoint, "gs://nobodys", 1).await;
    for error in [store.probe().await.unwrap_err(), store.put("small", Bytes::from("a")).await.unwrap_err()] {
        assert!(matches!(&error, UploadError::NoSuchBucket { bucket } if bucket == "nobodys"), "{error}");
    }
    let store = open_for("http://127.0.0.1:1", "gs://nobodys", 1).await;
    let error = store.probe().await.unwrap_err();
    assert!(matches!(error, UploadError::Unreachable { .. }), "{error}");
    let none = Stores::new(StoresConfig::default()).unwrap();
    let error = none.open(&Destination::parse("gs://pcaps").unwrap()).await.err().unwrap();
    assert!(error.to_string().contains("upload.gcs.allow"), "{error}");
}

#[tokio::test]
async fn a_store_of_googles_behind_a_proxy_and_an_authority_of_its_own_is_reached_with_both_keys() {
    let Some(server) = Gcs::start().await else { return };
    server.create_bucket("pcaps").await;
    let front = Front::start(&server.endpoint, "store.invalid").await;
    let tunnel = Tunnel::start(front.address).await;
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca_file.path(), &front.authority).unwrap();
    let open = async |ca_file: Option<&std::path::Path>| {
        let gcs = GcsConfig {
            endpoint: Some(format!("https://store.invalid:{}", front.address.port())),
            credentials: GcsCredentials::None,
            retry_seconds_max: 1,
            proxy: Some(tunnel.endpoint.clone()),
            ca_file: ca_file.map(std::path::Path::to_owned),
            ..GcsConfig::default()
        };
        let stores = Stores::new(StoresConfig { gcs: Some(gcs), ..StoresConfig::default() }).unwrap();
        stores.open(&Destination::parse("gs://pcaps").unwrap()).await.unwrap()
    };
    let store = open(Some(ca_file.path())).await;
    let bytes = noise(PART_BYTES);
    assert_eq!(write_all(&*store, "small", &bytes, 1 << 20).await.unwrap(), bytes.len() as u64);
    assert!(store.get("small", bytes.len() as u64).await.unwrap() == bytes);
    assert!(!tunnel.asked().is_empty(), "it went another way");
    let error = open(None).await.probe().await.unwrap_err();
    assert!(matches!(error, UploadError::Untrusted { .. }), "{error}");
}
