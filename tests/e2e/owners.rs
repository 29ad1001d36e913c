//! A bucket that was removed and that somebody else made: an empty one of the same name, in the real S3 server.

use crate::bucket::credentials;
use crate::trawl::{Setup, Trawl};
use crate::weed::Weed;
use serde_json::{Value, json};
use std::time::Duration;
use trawl::job::Status;

const BUCKET: &str = "released-bucket";
const DESTINATION: &str = "s3://released-bucket/a?region=us-east-1";

async fn start(weed: &Weed) -> Trawl {
    weed.create_bucket(BUCKET).await;
    let setup = Setup {
        endpoint: Some(weed.endpoint.clone()),
        environment: credentials(),
        require_validation: true,
        upload: "challenge_interval_seconds = 0\nretry_pause_ms_max = 300",
        ..Setup::replay()
    };
    setup.start()
}

fn post(trawl: &Trawl, path: &str, body: &Value) -> Value {
    trawl.ask("POST", path, body.to_string().as_bytes()).result()
}

async fn prove(weed: &Weed, trawl: &Trawl) {
    let added = post(trawl, "/ownership", &json!({"destination_conf": DESTINATION}));
    let key = format!("a/{}", added["filename"].as_str().unwrap());
    let object = weed.client().get_object().bucket(BUCKET).key(key).send().await.unwrap();
    let challenge = String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap();
    let answer = json!({"destination_conf": DESTINATION, "ownership_challenge": challenge});
    assert_eq!(post(trawl, "/ownership/validate", &answer)["status"], "success");
}

async fn objects(weed: &Weed) -> Vec<String> {
    let list = weed.client().list_objects_v2().bucket(BUCKET).send().await.unwrap();
    list.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()
}

async fn somebody_else_takes_the_name(weed: &Weed) {
    weed.delete_bucket(BUCKET).await;
    weed.create_bucket(BUCKET).await;
}

fn request(trawl: &Trawl) -> Value {
    let mut request = trawl.request(json!({}));
    request["destination_conf"] = json!(DESTINATION);
    request["packet_limit"] = json!(500);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_somebody_else_made_takes_no_capture_until_it_is_proven_again() {
    let Some(weed) = Weed::start().await else { return };
    let mut trawl = start(&weed).await;
    prove(&weed, &trawl).await;
    let id = trawl.create(&request(&trawl));
    assert_eq!(trawl.ended(&id).status, Status::Success, "{}", trawl.log());
    somebody_else_takes_the_name(&weed).await;
    // A new process has looked at nothing yet; this one looks again some seconds after the last look.
    trawl.kill_and_restart();
    for _ in 0..2 {
        let refused = trawl.ask("POST", "", request(&trawl).to_string().as_bytes());
        assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (400, &json!(1019)), "{refused:?}");
        assert!(refused.refusal().contains("answer the new challenge"), "{refused:?}");
    }
    let list = trawl.ask("GET", "/ownership", &[]);
    assert_eq!(list.body["result"][0]["status"], "failed", "{list:?}");
    assert_eq!(list.body["result"][0]["validated"], "", "{list:?}");
    assert_eq!(list.body["messages"][0]["code"], 1104, "{list:?}");
    assert_eq!(objects(&weed).await, [""; 0], "nothing goes to a stranger");
    prove(&weed, &trawl).await;
    let id = trawl.create(&request(&trawl));
    assert_eq!(trawl.ended(&id).status, Status::Success, "{}", trawl.log());
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_bucket_that_somebody_else_made_stays_on_the_host_until_it_is_proven_again() {
    let Some(weed) = Weed::start().await else { return };
    let mut trawl = start(&weed).await;
    prove(&weed, &trawl).await;
    let mut long = request(&trawl);
    long["packet_limit"] = json!(1_000_000_000_u64);
    let id = trawl.create(&long);
    trawl.until(&id, Duration::from_secs(20), |_| trawl.has_written(&id));
    trawl.kill();
    somebody_else_takes_the_name(&weed).await;
    trawl.restart();
    let said = |progress: &trawl::job::Progress| progress.warnings.join(" ");
    let waits = trawl.until(&id, Duration::from_secs(60), |now| said(now).contains("not proven to be yours"));
    assert!(!waits.status.ended() && waits.spool.is_some_and(|spool| spool.held_bytes > 0), "{waits:?}");
    assert_eq!(objects(&weed).await, [""; 0], "nothing goes to a stranger");
    prove(&weed, &trawl).await;
    let ended = trawl.ended(&id);
    assert_eq!(ended.status, Status::Success, "{}", trawl.log());
    assert!(ended.ledger.captured > 0 && !ended.objects.is_empty());
    trawl.finish();
}
