//! Cloudflare's own SDKs, its documentation page's curl commands, and schemathesis against a running `trawl serve` with real
//! packets and a real S3 server. The scripts beside this file say what the SDKs must get.
//!
//! `TRAWL_TEST_PYTHON` names a Python with the packages `cloudflare` and `schemathesis`, `TRAWL_TEST_NODE_MODULES` a folder in
//! which npm installed `cloudflare`; scripts/test.sh sets both. What is missing is skipped, or fails with `TRAWL_REQUIRE_ALL=1`.
// A test binary has no readers of its docs, and clippy.toml exempts only functions marked #[test].
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(dead_code, reason = "the files of tests/e2e are shared, and a part of each is used here")]

mod curl;
#[path = "../e2e/frames.rs"]
mod frames;
#[path = "../e2e/http.rs"]
mod http;
#[path = "../common/inherit.rs"]
mod inherit;
mod schema;
mod sdks;
#[path = "../common/skip.rs"]
mod skip;
#[path = "../e2e/trawl.rs"]
mod trawl;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/weed.rs"]
mod weed;

use crate::trawl::{Setup, Trawl};
use crate::weed::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Weed};

const BUCKET: &str = "pcaps-bucket";

/// A host that wants proof of buckets and writes to `weed`.
async fn start(weed: &Weed, simple_interval_seconds: u64) -> Trawl {
    start_with(weed, Setup { simple_interval_seconds, ..Setup::replay() }).await
}

/// As [`start`], with what differs from it.
async fn start_with(weed: &Weed, setup: Setup) -> Trawl {
    weed.create_bucket(BUCKET).await;
    let environment = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let setup = Setup {
        endpoint: Some(weed.endpoint.clone()),
        environment: environment.into(),
        require_validation: true,
        ..setup
    };
    setup.start()
}

/// An object of the bucket, past trawl.
async fn read_object(weed: &Weed, key: &str) -> String {
    let object = weed.client().get_object().bucket(BUCKET).key(key).send().await.unwrap();
    String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap()
}
