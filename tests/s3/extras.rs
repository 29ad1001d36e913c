//! What the operator wants said about each object, as the server hears it.

use crate::proxy::{Fault, Proxy};
use crate::weed::{self, Weed};
use crate::{PART_BYTES, config, noise, write_all};
use trawl::job::Destination;
use trawl::upload::{S3Encryption, S3Extras, Stores};

const URI: &str = "s3://pcaps?region=us-east-1";

#[tokio::test]
async fn encryption_class_and_acl_go_with_each_object_and_nothing_goes_that_is_not_configured() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let wanted = [
        "x-amz-server-side-encryption: AES256",
        "x-amz-storage-class: STANDARD_IA",
        "x-amz-acl: bucket-owner-full-control",
    ];
    for extras in [
        S3Extras::default(),
        S3Extras {
            encryption: Some(S3Encryption::Aes256),
            storage_class: Some("STANDARD_IA".to_owned()),
            owner_full_control: true,
        },
    ] {
        let configured = extras != S3Extras::default();
        let proxy = Proxy::start(&weed.endpoint, &[], Fault::Reset, 0).await;
        let mut config = config(&proxy.endpoint, weed::ACCESS_KEY_ID, weed::SECRET_ACCESS_KEY);
        config.s3.extras = extras;
        let stores = Stores::new(config).unwrap();
        let store = stores.open(&Destination::parse(URI).unwrap()).await.unwrap();
        for (name, len) in [("small", 5), ("large", 2 * PART_BYTES + 1)] {
            let (name, bytes) = (format!("{name}-{configured}"), noise(len));
            assert_eq!(write_all(&*store, &name, &bytes, 1 << 20).await.unwrap(), len as u64);
            assert!(store.get(&name, len as u64).await.unwrap() == bytes);
            let head = weed.client().head_object().bucket("pcaps").key(&name).send().await.unwrap();
            assert_eq!(head.server_side_encryption().is_some(), configured, "{name}");
        }
        let requests = [proxy.seen("/small"), proxy.seen("?uploads")].concat();
        let requests: Vec<_> = requests.iter().filter(|head| !head.starts_with("GET")).collect();
        let begins: Vec<_> = requests.iter().filter(|head| !head.starts_with("HEAD")).collect();
        assert_eq!(begins.len(), 2, "{begins:?}");
        for head in begins {
            for line in wanted {
                assert_eq!(head.contains(line), configured, "{line} in {head}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_of_the_customers_is_named_with_each_object() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    // The server knows no such key; what counts is that it was asked for it.
    let proxy = Proxy::start(&weed.endpoint, &[], Fault::Reset, 0).await;
    let mut config = config(&proxy.endpoint, weed::ACCESS_KEY_ID, weed::SECRET_ACCESS_KEY);
    config.s3.retry_seconds_max = 1;
    config.s3.extras.encryption = Some(S3Encryption::Kms { key_id: Some("key-1".to_owned()) });
    let stores = Stores::new(config).unwrap();
    let store = stores.open(&Destination::parse(URI).unwrap()).await.unwrap();
    for (name, len, word) in [("small", 5, "/small"), ("large", PART_BYTES + 1, "?uploads")] {
        let _refused_by_this_server = write_all(&*store, name, &noise(len), 1 << 20).await;
        let heads = proxy.seen(word);
        let named = heads.iter().any(|head| {
            head.contains("x-amz-server-side-encryption: aws:kms")
                && head.contains("x-amz-server-side-encryption-aws-kms-key-id: key-1")
        });
        assert!(named, "{heads:?}");
    }
}

#[tokio::test]
async fn objects_go_through_the_proxy_of_the_config() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let proxy = Proxy::start(&weed.endpoint, &[], Fault::Reset, 0).await;
    let mut config = config(&weed.endpoint, weed::ACCESS_KEY_ID, weed::SECRET_ACCESS_KEY);
    config.s3.proxy = Some(proxy.endpoint.clone());
    let stores = Stores::new(config).unwrap();
    let store = stores.open(&Destination::parse(URI).unwrap()).await.unwrap();
    assert_eq!(write_all(&*store, "small", &noise(5), 5).await.unwrap(), 5);
    let begins = format!("PUT {}", weed.endpoint);
    assert!(proxy.seen("/small").iter().any(|head| head.starts_with(&begins)), "{:?}", proxy.seen(""));
}
