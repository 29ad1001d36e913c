//! `trawl merge` of an object where it lies, in buckets of the kinds that end to end tests do not have. Owns the comparison
//! with a merge of the object's copy.

use crate::gcs_server::Gcs;
use crate::weed::{self, Weed};
use crate::{gcs, open, write_all};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use trawl::upload::ObjectStore;

const NAME: &str = "recorded.pcap";

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real.pcap")
}

/// Merges the input with what was recorded; the merged file's bytes.
fn merge(folder: &TempDir, input: &str, environment: &[(&str, &str)]) -> Vec<u8> {
    let merged = folder.path().join("merged.pcap");
    let output = Command::new(env!("CARGO_BIN_EXE_trawl"))
        .args(["merge".as_ref(), "-o".as_ref(), merged.as_os_str(), input.as_ref(), recorded().as_os_str()])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success(), "{input}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(merged).unwrap()
}

/// Puts what was recorded into the store, and merges it from there, where `uri` names it.
async fn merges(store: &dyn ObjectStore, uri: &str, environment: &[(&str, &str)]) {
    let bytes = Bytes::from(std::fs::read(recorded()).unwrap());
    write_all(store, NAME, &bytes, 1 << 20).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let expected = merge(&folder, recorded().to_str().unwrap(), &[]);
    assert!(expected.len() > bytes.len(), "both inputs are in it");
    assert!(merge(&folder, uri, environment) == expected, "{uri} is merged otherwise than its copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_googles_merges_as_its_copy_does() {
    let Some(server) = Gcs::start().await else { return };
    server.create_bucket("pcaps").await;
    let store = gcs::open(&server.endpoint, "gs://pcaps/some/where").await;
    let environment = [("STORAGE_EMULATOR_HOST", server.endpoint.as_str())];
    merges(&*store, &format!("gs://pcaps/some/where/{NAME}"), &environment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_r2s_merges_as_its_copy_does() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket("pcaps").await;
    let (key, secret) = (weed::ACCESS_KEY_ID, weed::SECRET_ACCESS_KEY);
    let account = "account-id=0123456789abcdef0123456789abcdef";
    let keys = format!("access-key-id={key}&secret-access-key={secret}");
    let store = open(&weed.endpoint, &format!("r2://pcaps/own?{account}&{keys}")).await;
    let environment = [
        ("AWS_ENDPOINT_URL_S3", weed.endpoint.as_str()),
        ("TRAWL_R2_ACCESS_KEY_ID", key),
        ("TRAWL_R2_SECRET_ACCESS_KEY", secret),
    ];
    merges(&*store, &format!("r2://pcaps/own/{NAME}?{account}"), &environment).await;
}
