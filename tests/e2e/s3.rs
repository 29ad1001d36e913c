//! The same into a real S3 server, downloaded and read back.

use crate::bucket::{BUCKET, credentials, download, uploads_under_way};
use crate::front::{Front, Tunnel};
use crate::outcome::Outcome;
use crate::trawl::{Setup, Trawl};
use crate::weed::Weed;
use serde_json::json;
use trawl::job::Status;

/// A server that sends to `weed`.
pub fn start(weed: &Weed) -> Trawl {
    let endpoint = Some(weed.endpoint.clone());
    Setup { endpoint, environment: credentials(), segment_bytes: "16MiB", ..Setup::replay() }.start()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_in_an_s3_bucket_are_complete_and_agree_with_their_manifest() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket(BUCKET).await;
    let trawl = start(&weed);
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(100_000);
    request["destination_conf"] = json!(format!("s3://{BUCKET}/a/b?region=us-east-1"));
    let id = trawl.create(&request);
    let progress = trawl.ended(&id);
    assert_eq!(progress.status, Status::Success, "{}", trawl.log());

    let folder = tempfile::tempdir().unwrap();
    let objects = download(&weed, "a/b/pcap_", folder.path()).await;
    let outcome = Outcome::read(folder.path(), &id);
    assert_eq!(outcome.frames.len(), 100_000);
    assert_eq!(outcome.manifest.ledger, progress.ledger);
    assert_eq!(objects, outcome.manifest.objects.len() + 1, "objects and manifest, nothing else");
    assert!(outcome.manifest.objects.len() >= 2, "a capture of this size is cut");
    assert!(uploads_under_way(&weed).await.is_empty(), "no multipart upload is left open");
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_exist_is_refused_by_name_and_starts_nothing() {
    let Some(weed) = Weed::start().await else { return };
    let trawl = start(&weed);
    let mut request = trawl.request(json!({}));
    request["destination_conf"] = json!("s3://no-such-bucket?region=us-east-1");
    let message = trawl.ask("POST", "", request.to_string().as_bytes()).refusal();
    assert!(message.contains("no-such-bucket"), "{message}");
    assert_eq!(trawl.ask("GET", "", &[]).result(), json!([]));
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_a_proxy_and_an_authority_of_its_own_is_reached_with_both_keys_and_refused_without() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket(BUCKET).await;
    // A name that no resolver knows (RFC 2606): only the proxy leads there.
    let front = Front::start(&weed.endpoint, "store.invalid").await;
    let tunnel = Tunnel::start(front.address).await;
    let host = format!("store.invalid:{}", front.address.port());
    let start = |trusts: bool| {
        let setup = Setup {
            endpoint: Some(format!("https://{host}")),
            environment: credentials(),
            upload: "retry_seconds_max = 1",
            ..Setup::replay()
        };
        setup.start_with(|config, dir| {
            let ca_file = dir.join("ca.pem");
            std::fs::write(&ca_file, &front.authority).unwrap();
            let trust = if trusts { format!("ca_file = {ca_file:?}\n") } else { String::new() };
            let keys = format!("[upload]\nproxy = \"{}\"\n{trust}", tunnel.endpoint);
            config.replacen("[upload]\n", &keys, 1)
        })
    };
    let trawl = start(true);
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(1000);
    request["destination_conf"] = json!(format!("s3://{BUCKET}?region=us-east-1"));
    let id = trawl.create(&request);
    assert_eq!(trawl.ended(&id).status, Status::Success, "{}", trawl.log());
    let folder = tempfile::tempdir().unwrap();
    download(&weed, "pcap_", folder.path()).await;
    assert_eq!(Outcome::read(folder.path(), &id).frames.len(), 1000);
    let asked = tunnel.asked();
    let wanted = format!("CONNECT {host} HTTP/1.1");
    assert!(!asked.is_empty() && asked.iter().all(|line| *line == wanted), "{asked:?}");
    trawl.finish();

    let trawl = start(false);
    let message = trawl.ask("POST", "", request.to_string().as_bytes()).refusal();
    assert!(message.contains("UnknownIssuer") && message.contains("upload.ca_file"), "{message}");
    trawl.finish();
}
