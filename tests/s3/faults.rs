//! A bucket behind a bad line. Owns the tests of what the uploads make of it: complete, once, equal.

use crate::proxy::{Fault, Proxy};
use crate::weed::{self, Weed};
use crate::{PART_BYTES, config, noise, open, uploads_under_way, write_all};
use bytes::Bytes;
use std::time::Duration;
use trawl::job::Destination;
use trawl::upload::{Checkpoint, ObjectStore, Stores, UploadError};

const URI: &str = "s3://pcaps?region=us-east-1";

/// Sends an object as a delivery does that has a journal: after a failure that may pass, from the last checkpoint.
async fn send_stubbornly(store: &dyn ObjectStore, name: &str, bytes: &Bytes) {
    send_on(store, name, bytes, None).await;
}

/// The same behind a first checkpoint.
async fn send_on(store: &dyn ObjectStore, name: &str, bytes: &Bytes, mut journal: Option<Checkpoint>) {
    for _round in 0..10 {
        match send_once(store, name, bytes, &mut journal).await {
            Ok(held) => return assert_eq!(held, bytes.len() as u64),
            Err(error) => assert!(error.may_pass(), "{error}"),
        }
    }
    panic!("{name} did not arrive in ten rounds");
}

async fn send_once(
    store: &dyn ObjectStore,
    name: &str,
    bytes: &Bytes,
    journal: &mut Option<Checkpoint>,
) -> Result<u64, UploadError> {
    let (mut writer, offset) = match journal {
        Some(checkpoint) => store.resume(name, checkpoint).await?,
        None => (store.begin(name).await?, 0),
    };
    let mut rest = bytes.slice(offset as usize..);
    while !rest.is_empty() {
        writer.write(rest.split_to(rest.len().min(1 << 20))).await?;
        if let Some(checkpoint) = writer.checkpoint() {
            *journal = Some(checkpoint);
        }
    }
    Ok(writer.finish().await?.bytes)
}

/// The object is complete, there once, and what was sent; nothing else is left of it.
async fn assert_arrived(weed: &Weed, name: &str, bytes: &Bytes) {
    let store = open(&weed.endpoint, URI).await;
    assert!(store.get(name, bytes.len() as u64).await.unwrap() == *bytes, "{name} is not what was sent");
    let client = weed.client();
    let listed = client.list_objects_v2().bucket("pcaps").prefix(name).send().await.unwrap();
    assert_eq!(listed.contents().len(), 1, "{name}");
    assert_eq!(uploads_under_way(&client, "pcaps").await, 0, "{name}");
}

/// A store behind the proxy that gives up an attempt after a second and a request after a few.
async fn open_hastily(endpoint: &str, retry_seconds_max: u64) -> Box<dyn ObjectStore> {
    let mut config = config(endpoint, weed::ACCESS_KEY_ID, weed::SECRET_ACCESS_KEY);
    config.s3.attempt_seconds_max = 1;
    config.s3.retry_seconds_max = retry_seconds_max;
    Stores::new(config).unwrap().open(&Destination::parse(URI).unwrap()).await.unwrap()
}

#[tokio::test]
async fn whatever_goes_wrong_on_the_line_objects_arrive_complete_once_and_equal() {
    const SLOW: Fault = Fault::Answer("503 Slow Down", "SlowDown");
    const SKEWED: Fault = Fault::Answer("403 Forbidden", "RequestTimeTooSkewed");
    const KEY: Fault = Fault::Answer("403 Forbidden", "InvalidAccessKeyId");
    const RIGHTS: Fault = Fault::Answer("403 Forbidden", "AccessDenied");
    const BEGIN: &[&str] = &["POST ", "?uploads"];
    const PART: &[&str] = &["PUT ", "partNumber="];
    const END: &[&str] = &["POST ", "uploadId="];
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let bytes = noise(3 * PART_BYTES + 1);
    for (name, words, fault, times) in [
        ("begin-slow", BEGIN, SLOW, 5),
        ("begin-stalled", BEGIN, Fault::Stall, 1),
        ("begin-lost", BEGIN, Fault::Reset, 2),
        ("part-slow", PART, SLOW, 10),
        ("part-half", PART, Fault::Half, 4),
        ("part-reset", PART, Fault::Reset, 4),
        ("part-skewed", PART, SKEWED, 4),
        ("part-key", PART, KEY, 4),
        ("part-rights", PART, RIGHTS, 4),
        ("end-slow", END, SLOW, 5),
        ("end-reset", END, Fault::Reset, 2),
        ("end-unheard", END, Fault::LoseAnswer, 2),
    ] {
        let proxy = Proxy::start(&weed.endpoint, words, fault, times).await;
        let store = open_hastily(&proxy.endpoint, 20).await;
        send_stubbornly(&*store, name, &bytes).await;
        proxy.assert_all_went_wrong();
        assert_arrived(&weed, name, &bytes).await;
    }
    let proxy = Proxy::start(&weed.endpoint, &["PUT ", "small"], Fault::Stall, 2).await;
    send_stubbornly(&*open_hastily(&proxy.endpoint, 20).await, "small", &noise(5)).await;
    proxy.assert_all_went_wrong();
    assert_arrived(&weed, "small", &noise(5)).await;
}

#[tokio::test]
async fn an_outage_longer_than_a_requests_patience_is_outlived_by_resuming() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let bytes = noise(4 * PART_BYTES + 1);
    let proxy = Proxy::outage(&weed.endpoint, &["partNumber=3"], Fault::Reset, Duration::from_secs(6)).await;
    send_stubbornly(&*open_hastily(&proxy.endpoint, 1).await, "outage", &bytes).await;
    proxy.assert_all_went_wrong();
    assert_arrived(&weed, "outage", &bytes).await;
}

#[tokio::test]
async fn parts_beside_one_that_failed_are_gone_on_behind() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let bytes = noise(3 * PART_BYTES + 1);
    let proxy = Proxy::start(&weed.endpoint, &["partNumber=3"], Fault::Reset, u32::MAX).await;
    let store = open_hastily(&proxy.endpoint, 1).await;
    let mut writer = store.begin("beside").await.unwrap();
    // All in flight at once: at the end of the writes the store may not have confirmed any.
    writer.write(bytes.clone()).await.unwrap();
    let error = writer.settle().await.unwrap_err();
    assert!(matches!(error, UploadError::Unreachable { .. }), "{error}");
    let checkpoint = writer.checkpoint().unwrap();
    drop(writer);
    proxy.spoil(&["partNumber=3"], Fault::Reset, 0);
    let (mut writer, offset) = store.resume("beside", &checkpoint).await.unwrap();
    assert_eq!(offset, 2 * PART_BYTES as u64);
    writer.write(bytes.slice(offset as usize..)).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().bytes, bytes.len() as u64);
    assert_arrived(&weed, "beside", &bytes).await;
}

#[tokio::test]
async fn a_bucket_that_is_deleted_and_made_again_gets_the_whole_object() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let bytes = noise(3 * PART_BYTES + 1);
    let store = open(&weed.endpoint, URI).await;
    let mut writer = store.begin("again").await.unwrap();
    writer.write(bytes.clone()).await.unwrap();
    // Nothing is in flight: a part that arrives while the server removes a bucket makes its directory again.
    writer.settle().await.unwrap();
    let journal = writer.checkpoint();
    weed.delete_bucket("pcaps").await;
    weed.create_bucket("pcaps").await;
    let error = writer.finish().await.unwrap_err();
    assert!(error.may_pass(), "{error}");
    send_on(&*store, "again", &bytes, journal).await;
    assert_arrived(&weed, "again", &bytes).await;
}

#[tokio::test]
async fn an_object_whose_answer_was_lost_is_recognised_as_ours() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    for (name, len, words) in
        [("small", 5, &["PUT ", "small"][..]), ("large", 2 * PART_BYTES + 1, &["POST ", "uploadId="][..])]
    {
        let proxy = Proxy::start(&weed.endpoint, words, Fault::LoseAnswer, 1).await;
        let store = open(&proxy.endpoint, "s3://pcaps?region=us-east-1").await;
        let bytes = noise(len);
        assert_eq!(write_all(&*store, name, &bytes, 1 << 20).await.unwrap(), len as u64);
        proxy.assert_all_went_wrong();
        assert!(store.get(name, len as u64).await.unwrap() == bytes);
    }
    assert_eq!(uploads_under_way(&weed.client(), "pcaps").await, 0);
}

#[tokio::test]
async fn somebody_elses_object_is_not_taken_for_ours_when_an_answer_is_lost() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    weed.client().put_object().bucket("pcaps").key("small").body(vec![7; 5].into()).send().await.unwrap();
    let proxy = Proxy::start(&weed.endpoint, &["PUT ", "small"], Fault::LoseAnswer, 1).await;
    let store = open(&proxy.endpoint, "s3://pcaps?region=us-east-1").await;
    let error = store.put("small", noise(5)).await.unwrap_err();
    proxy.assert_all_went_wrong();
    assert!(matches!(error, UploadError::Exists { .. }), "{error}");
    assert_eq!(store.get("small", 5).await.unwrap(), Bytes::from_static(&[7; 5]));
}
