//! Buckets that bring their own access keys, and stores that do not answer.

use crate::http::Answer;
use crate::proxy::{Fault, Proxy};
use crate::trawl::{Setup, Trawl};
use crate::weed::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Weed};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use trawl::job::Status;

const BUCKET: &str = "customers-bucket";
const DESTINATION: &str = "r2://customers-bucket/a?account-id=0123456789abcdef0123456789abcdef";

fn with_keys() -> String {
    format!("{DESTINATION}&access-key-id={ACCESS_KEY_ID}&secret-access-key={SECRET_ACCESS_KEY}")
}

fn post(trawl: &Trawl, path: &str, body: &Value) -> Answer {
    trawl.ask("POST", path, body.to_string().as_bytes())
}

/// The host itself has no credentials for any bucket, and logs all that it can.
async fn start(weed: &Weed, key_file: bool) -> Trawl {
    weed.create_bucket(BUCKET).await;
    let setup = Setup {
        r2_endpoint: Some(weed.endpoint.clone()),
        key_file,
        require_validation: true,
        environment: vec![("TRAWL_LOG".to_owned(), "trace".to_owned())],
        ..Setup::replay()
    };
    setup.start()
}

/// Every file below `dir` that holds `bytes`; a socket holds nothing.
fn holding(dir: &Path, bytes: &[u8], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holding(&path, bytes, found);
        } else if path.is_file()
            && std::fs::read(&path).unwrap().windows(bytes.len()).any(|part| part == bytes)
        {
            found.push(path.display().to_string());
        }
    }
}

async fn content(weed: &Weed, added: &Value) -> String {
    let key = format!("a/{}", added["filename"].as_str().unwrap());
    let object = weed.client().get_object().bucket(BUCKET).key(key).send().await.unwrap();
    String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buckets_own_access_keys_carry_its_captures_over_a_crash_and_are_nowhere_in_clear() {
    let Some(weed) = Weed::start().await else { return };
    let mut trawl = start(&weed, true).await;
    let mut said = Vec::new();
    let missing = post(&trawl, "/ownership", &json!({"destination_conf": DESTINATION}));
    assert!(missing.refusal().contains("access-key-id"), "{missing:?}");
    let wrong = with_keys().replace(SECRET_ACCESS_KEY, "anothersecret");
    said.push(post(&trawl, "/ownership", &json!({"destination_conf": wrong})));
    assert!(said[0].refusal().contains("access keys"), "{said:?}");
    said.push(post(&trawl, "/ownership", &json!({"destination_conf": with_keys()})));
    let added = said[1].body["result"].clone();
    assert_eq!(added["destination_conf"], DESTINATION, "{said:?}");
    let answer =
        json!({"destination_conf": DESTINATION, "ownership_challenge": content(&weed, &added).await});
    said.push(post(&trawl, "/ownership/validate", &answer));
    assert_eq!(said[2].body["result"]["status"], "success", "{said:?}");

    let mut request = trawl.request(json!({}));
    request["destination_conf"] = json!(with_keys());
    said.push(post(&trawl, "", &request));
    assert_eq!(said[3].status, 400, "keys belong into ownership alone: {said:?}");
    request["destination_conf"] = json!(DESTINATION);
    let id = trawl.create(&request);
    trawl.until(&id, Duration::from_secs(20), |_| trawl.has_written(&id));
    // Without its bucket's entry the capture goes on with the keys of its beginning, also in the next process.
    let entry = format!("/ownership/{}", added["id"].as_str().unwrap());
    assert_eq!(trawl.ask("DELETE", &entry, &[]).status, 204);
    trawl.kill_and_restart();
    assert_eq!(trawl.ended(&id).status, Status::Success, "{}", trawl.log());
    let manifest = format!("a/pcap_{id}.json");
    weed.client().head_object().bucket(BUCKET).key(manifest).send().await.unwrap();
    assert_eq!(post(&trawl, "", &request).status, 400, "a removed bucket takes no new capture");
    for path in ["", "/ownership", &format!("/{id}"), &format!("/{id}/progress")] {
        said.push(trawl.ask("GET", path, &[]));
    }

    let mut found = Vec::new();
    for secret in [SECRET_ACCESS_KEY, "anothersecret"] {
        holding(trawl.folder(), secret.as_bytes(), &mut found);
        assert!(!format!("{said:?}").contains(secret), "{said:?}");
    }
    assert!(found.is_empty(), "{found:?}");
    // The id is no secret, and a log of everything has it; the database has neither.
    let database = std::fs::read(trawl.folder().join("trawl.db")).unwrap();
    assert!(!database.windows(ACCESS_KEY_ID.len()).any(|part| part == ACCESS_KEY_ID.as_bytes()));
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_file_a_bucket_that_brings_keys_is_refused() {
    let Some(weed) = Weed::start().await else { return };
    let trawl = start(&weed, false).await;
    let answer = post(&trawl, "/ownership", &json!({"destination_conf": with_keys()}));
    assert!(answer.refusal().contains("store.key_file"), "{answer:?}");
    assert_eq!(answer.body["errors"][0]["code"], 1007, "{answer:?}");
    assert_eq!(trawl.ask("GET", "/ownership", &[]).result(), json!([]));
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_probe_began_goes_at_the_next_start() {
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket(BUCKET).await;
    let proxy = Proxy::start(&weed.endpoint, &["DELETE "], Fault::Stall, 0).await;
    let setup = Setup {
        r2_endpoint: Some(proxy.endpoint.clone()),
        key_file: true,
        require_validation: true,
        request_timeout_seconds: 6,
        ..Setup::replay()
    };
    let mut trawl = setup.start();
    let added = post(&trawl, "/ownership", &json!({"destination_conf": with_keys()})).result();
    let answer =
        json!({"destination_conf": DESTINATION, "ownership_challenge": content(&weed, &added).await});
    assert_eq!(post(&trawl, "/ownership/validate", &answer).result()["status"], "success");
    let probes = async || {
        let list = weed.client().list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
        list.uploads().iter().map(|upload| upload.key().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(probes().await.is_empty());

    // The probe's end does not arrive, and then the process is gone.
    proxy.spoil(&["DELETE "], Fault::Stall, u32::MAX);
    let mut request = trawl.request(json!({}));
    request["destination_conf"] = json!(DESTINATION);
    assert_eq!(post(&trawl, "", &request).status, 504);
    trawl.kill();
    let left = probes().await;
    assert!(left.len() == 1 && left[0].starts_with("a/trawl-probe-"), "{left:?}");
    // The store counts in seconds.
    std::thread::sleep(Duration::from_secs(1));
    proxy.spoil(&["DELETE "], Fault::Stall, 0);
    trawl.restart();
    let until = Instant::now() + Duration::from_secs(20);
    while !probes().await.is_empty() {
        assert!(Instant::now() < until, "the probe is still there: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    trawl.finish();
}

#[test]
fn a_store_that_stays_silent_is_answered_within_the_requests_time() {
    // It takes connections (the backlog does) and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let keys =
        [("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_EC2_METADATA_DISABLED", "true")];
    let setup = Setup {
        endpoint: Some(format!("http://{}", silent.local_addr().unwrap())),
        environment: keys.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        request_timeout_seconds: 4,
        ..Setup::replay()
    };
    let trawl = setup.start();
    let mut request = trawl.request(json!({}));
    request["destination_conf"] = json!("s3://somebodys-bucket?region=us-east-1");
    let bucket = json!({"destination_conf": request["destination_conf"]});
    for (path, body) in [("", &request), ("/ownership", &bucket)] {
        let asked = Instant::now();
        let answer = post(&trawl, path, body);
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
        let error = &answer.body["errors"][0];
        assert_eq!((answer.status, &error["code"]), (504, &json!(1028)), "{answer:?}");
        assert!(error["message"].as_str().unwrap().contains("somebodys-bucket"), "{answer:?}");
        assert_eq!(error["source"]["pointer"], "/destination_conf");
    }
    // Nothing was begun, and nothing is in the way of the next one.
    assert_eq!(trawl.ask("GET", "", &[]).result(), json!([]));
    let id = trawl.create(&trawl.request(json!({})));
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    trawl.ended(&id);
    trawl.finish();
}
