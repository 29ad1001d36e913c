//! Buckets that grant less than everything. Owns what an upload and a probe need.

use crate::proxy::{Fault, Proxy};
use crate::weed::{self, Weed};
use crate::{PART_BYTES, config, noise, summary, uploads_under_way};
use bytes::Bytes;
use tokio::sync::mpsc;
use trawl::deliver::{deliver, object_name};
use trawl::job::{CaptureId, Destination, ObjectInfo, PartId};
use trawl::merge::{Consumed, Output};
use trawl::pcap::ObjectFormat;
use trawl::upload::{ObjectStore, Stores, UploadError};

const URI: &str = "s3://pcaps?region=us-east-1";

async fn open_as(endpoint: &str, key: &str) -> Box<dyn ObjectStore> {
    let config = config(endpoint, key, weed::SECRET_ACCESS_KEY);
    Stores::new(config).unwrap().open(&Destination::parse(URI).unwrap()).await.unwrap()
}

/// A capture of one object.
async fn deliver_one(store: &dyn ObjectStore, id: &CaptureId, bytes: &Bytes) -> Result<(), UploadError> {
    let (sender, receiver) = mpsc::channel(4);
    for output in [
        Output::Begin(0),
        Output::Chunk(bytes.clone()),
        Output::End(summary(bytes), Consumed { is_last: true, ..Consumed::default() }),
    ] {
        sender.send(output).await.unwrap();
    }
    drop(sender);
    let mut record = |_: ObjectInfo, _: Consumed| Ok(());
    deliver(store, &PartId::alone(id), ObjectFormat::default(), 0, receiver, &mut record).await.map(drop)
}

#[tokio::test]
async fn a_bucket_that_hides_what_is_missing_takes_objects_of_any_size() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let proxy = Proxy::start(&weed.endpoint, &["HEAD "], Fault::HideMissing, u32::MAX).await;
    let hiding = open_as(&proxy.endpoint, weed::ACCESS_KEY_ID).await;
    hiding.probe().await.unwrap();
    let denied = hiding.size("missing").await.unwrap_err();
    assert!(matches!(denied, UploadError::Denied { .. }), "{denied}");
    let all = open_as(&weed.endpoint, weed::ACCESS_KEY_ID).await;
    for len in [5, 2 * PART_BYTES + 1] {
        let (id, bytes) = (CaptureId::random(), noise(len));
        let name = object_name(&PartId::alone(&id), 0, ObjectFormat::default());
        deliver_one(&*hiding, &id, &bytes).await.unwrap();
        assert!(all.get(&name, len as u64).await.unwrap() == bytes);
        // What is there is seen, and is the same.
        deliver_one(&*hiding, &id, &bytes).await.unwrap();
    }
    assert_eq!(uploads_under_way(&weed.client(), "pcaps").await, 0);
}

#[tokio::test]
async fn a_bucket_that_may_be_written_alone_takes_objects_and_names_the_right_to_see_them_when_it_is_needed()
{
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let writer = open_as(&weed.endpoint, weed::WRITER_KEY_ID).await;
    writer.probe().await.unwrap();
    let all = open_as(&weed.endpoint, weed::ACCESS_KEY_ID).await;
    for len in [5, 2 * PART_BYTES + 1] {
        let (id, bytes) = (CaptureId::random(), noise(len));
        let name = object_name(&PartId::alone(&id), 0, ObjectFormat::default());
        deliver_one(&*writer, &id, &bytes).await.unwrap();
        assert!(all.get(&name, len as u64).await.unwrap() == bytes);
        let error = deliver_one(&*writer, &id, &bytes).await.unwrap_err();
        assert!(matches!(error, UploadError::Denied { action: "s3:GetObject", .. }), "{error}");
        assert!(!error.to_string().contains("remove"), "{error}");
    }
}

#[tokio::test]
async fn a_probe_refuses_a_bucket_that_would_refuse_the_end_of_an_upload() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    for (words, fault, wanted) in [
        (&["POST ", "?uploads"][..], Fault::Answer("403 Forbidden", "AccessDenied"), "s3:PutObject"),
        (&["POST ", "uploadId="][..], Fault::Answer("403 Forbidden", "AccessDenied"), "s3:PutObject"),
        (
            &["POST ", "uploadId="][..],
            Fault::Answer("501 Not Implemented", "NotImplemented"),
            "NotImplemented",
        ),
        (
            &["DELETE ", "uploadId="][..],
            Fault::Answer("403 Forbidden", "AccessDenied"),
            "s3:AbortMultipartUpload",
        ),
    ] {
        let proxy = Proxy::start(&weed.endpoint, words, fault, u32::MAX).await;
        let error = open_as(&proxy.endpoint, weed::ACCESS_KEY_ID).await.probe().await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{words:?}: {error}");
    }
    let all = open_as(&weed.endpoint, weed::ACCESS_KEY_ID).await;
    assert!(all.list("").await.unwrap().is_empty(), "no object appears");
}

#[tokio::test]
async fn an_object_that_holds_more_than_what_is_left_is_never_to_be_removed() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let store = open_as(&weed.endpoint, weed::ACCESS_KEY_ID).await;
    let id = CaptureId::random();
    deliver_one(&*store, &id, &noise(1000)).await.unwrap();
    let error = deliver_one(&*store, &id, &noise(24)).await.unwrap_err();
    assert!(matches!(error, UploadError::Larger { held: 1000, ours: 24, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("keep") && !text.contains("remove"), "{text}");
}

#[tokio::test]
async fn every_request_to_a_bucket_names_its_owner_if_that_is_known() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let proxy = Proxy::start(&weed.endpoint, &[], Fault::Reset, 0).await;
    let (key, secret) = (weed::ACCESS_KEY_ID, weed::SECRET_ACCESS_KEY);
    let destination = Destination::parse(URI).unwrap();
    for owner in [None, Some("123456789012")] {
        let stores = Stores::new(config(&proxy.endpoint, key, secret)).unwrap();
        assert!(
            !stores.know_owners(),
            "another store may ignore the header, so that the challenge is looked at too"
        );
        let store = stores.open_as(&destination, None, owner).await.unwrap();
        let before = proxy.seen("HTTP/1.1").len();
        store.probe().await.unwrap();
        let name = format!("of-{owner:?}");
        crate::write_all(&*store, &name, &noise(2 * PART_BYTES + 1), 1 << 20).await.unwrap();
        store.put("small", Bytes::from_static(b"x")).await.unwrap();
        store.size(&name).await.unwrap();
        store.get("small", 16).await.unwrap();
        store.read(&name, 3, 4).await.unwrap();
        store.list("of-").await.unwrap();
        let sweep = trawl::upload::Sweep { ours: &|_| true, known: &[], before: jiff::Timestamp::MAX };
        store.sweep(sweep).await.unwrap();
        store.remove("small").await.unwrap();
        let seen = proxy.seen("HTTP/1.1").split_off(before);
        assert!(seen.len() >= 12, "{} requests", seen.len());
        for head in seen {
            let head = head.to_ascii_lowercase();
            let named = head.lines().find(|line| line.starts_with("x-amz-expected-bucket-owner:"));
            assert_eq!(named.is_some_and(|line| line.ends_with("123456789012")), owner.is_some(), "{head}");
            assert!(
                named.is_none() || head.contains(";x-amz-expected-bucket-owner"),
                "it is not signed: {head}"
            );
        }
    }
}
