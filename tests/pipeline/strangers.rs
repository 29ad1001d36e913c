//! One account against another's captures and buckets, by every route of the API, over a real engine and store. That no more
//! is looked up for what is another's than for what is nobody's is held by the store's own tests.

use super::api::api;
use super::rig::{Options, Rig, Traffic, request};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tower::ServiceExt;
use trawl::job::Destination;
use trawl::job::{AccountId, Job, Kind, Sent};
use trawl::ownership::{BucketKeys, Ownership};
use trawl::store::Embedded;
use trawl::upload::{Stores, StoresConfig};

/// Status, headers and body of what an account is answered.
async fn ask(api: &Router, account: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(format!("/accounts/{account}/pcaps{path}"))
        .header("authorization", format!("Bearer {account}"))
        .body(Body::from(body.to_owned()))
        .unwrap();
    let (parts, body) = api.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), format!("{:?}\n{}", parts.headers, String::from_utf8_lossy(&body)))
}

/// Methods and what stands behind a capture's id, of every route that has one: as the document lists them, so that one that is
/// added later is here too.
async fn routes_with_an_id(api: &Router) -> Vec<(String, String)> {
    let request = Request::builder().uri("/openapi.json").body(Body::empty()).unwrap();
    let body = api.clone().oneshot(request).await.unwrap().into_body();
    let document: Value = serde_json::from_slice(&to_bytes(body, usize::MAX).await.unwrap()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(suffix) = path.strip_prefix("/accounts/{account}/pcaps/{id}") else { continue };
        for method in item.as_object().unwrap().keys() {
            let numbered = |n| (method.to_uppercase(), suffix.replace("{n}", n));
            routes.push(numbered("0"));
            routes.extend(suffix.contains("{n}").then(|| numbered("9")));
        }
    }
    assert!(routes.len() >= 9, "{routes:?}");
    routes
}

async fn captures_of_a(rig: &Rig) -> Vec<Job> {
    // Captures of A in each state that the engine and the store have: ended and at work, simple and full.
    let mut of_a = Vec::new();
    for (kind, ended) in
        [(Kind::Simple, true), (Kind::Full, true), (Kind::Simple, false), (Kind::Full, false)]
    {
        let mut request = request(rig.bucket(), 60.0);
        request.packet_limit = ended.then_some(100);
        if kind == Kind::Simple {
            (request.kind, request.colo, request.destination) = (kind, None, None);
            request.packet_limit = Some(if ended { 100 } else { u64::MAX });
        }
        let job = rig.handle().create(request).await.unwrap();
        if ended {
            rig.wait(&job).await;
        }
        of_a.push(job);
    }
    of_a
}

async fn a_page_and_objects_are_the_owners_alone(api: &Router, of_a: &[Job], nobodys: &str) {
    // A page behind another's capture is one behind nobody's.
    let behind = |id: &str| format!("?before={id}");
    let theirs = ask(api, "b", "GET", &behind(of_a[0].id.as_str()), "").await;
    assert_eq!((theirs.0, &theirs), (404, &ask(api, "b", "GET", &behind(nobodys), "").await));
    let page = ask(api, "a", "GET", "?limit=1&status=success", "").await;
    // Two of the four have ended.
    assert!(page.0 == 200 && page.1.contains(r#""total_count":2"#), "{}", page.1);
    let manifest = ask(api, "a", "GET", &format!("/{}/manifest", of_a[1].id), "").await;
    assert!(manifest.0 == 200 && manifest.1.contains(of_a[1].id.as_str()), "{}", manifest.1);
    let object = ask(api, "a", "GET", &format!("/{}/objects/0", of_a[1].id), "").await;
    assert_eq!(object.0, 200, "{}", object.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_anothers_is_answered_to_the_byte_as_what_is_nobodys_on_every_route() {
    let rig = Rig::with(Options::default(), vec![Traffic::paced(60, 10_000)]);
    let dir = TempDir::new().unwrap();
    let buckets = Arc::new(Embedded::open(&dir.path().join("db")).unwrap());
    let stores = Stores::new(StoresConfig { allow_file: true, ..StoresConfig::default() }).unwrap();
    let keys = BucketKeys::new(buckets.clone(), None);
    let ownership = Ownership::new(buckets, Arc::new(stores), keys, Duration::from_secs(10));
    let bucket = Destination::File { dir: dir.path().join("bucket") };
    let owned = ownership.create(AccountId("a".to_owned()), &bucket, Sent::default()).await.unwrap();
    let challenge = std::fs::read_to_string(dir.path().join("bucket").join(&owned.filename)).unwrap();
    let time_max = Duration::from_secs(30);
    let api = api(rig.handle().clone(), ownership, rig.simple_dir(), &["a", "b"], true, time_max);

    let of_a = captures_of_a(&rig).await;
    let nobodys = "0".repeat(32);
    let routes = routes_with_an_id(&api).await;
    for job in &of_a {
        for (method, suffix) in &routes {
            let path = |id: &str| format!("/{id}{suffix}");
            if method == "GET" {
                let own = ask(&api, "a", "GET", &path(job.id.as_str()), "").await;
                assert!(own.0 != 404 || suffix.starts_with("/objects"), "{method} {suffix}");
            }
            let theirs = ask(&api, "b", method, &path(job.id.as_str()), "").await;
            let none = ask(&api, "b", method, &path(&nobodys), "").await;
            assert_eq!((theirs.0, &theirs), (404, &none), "{method} {suffix}");
        }
    }
    a_page_and_objects_are_the_owners_alone(&api, &of_a, &nobodys).await;
    let entry = |id: &str| format!("/ownership/{id}");
    let theirs = ask(&api, "b", "DELETE", &entry(owned.id.as_str()), "").await;
    assert_eq!((theirs.0, &theirs), (404, &ask(&api, "b", "DELETE", &entry(&nobodys), "").await));
    let answer =
        |destination: String| json!({"destination_conf": destination, "ownership_challenge": challenge});
    let unasked = answer(format!("file://{}", dir.path().join("unasked").display())).to_string();
    let theirs = ask(&api, "b", "POST", "/ownership/validate", &answer(bucket.to_string()).to_string()).await;
    assert_eq!((theirs.0, &theirs), (404, &ask(&api, "b", "POST", "/ownership/validate", &unasked).await));
    // A's proof lets nobody else write there, and B's lists are empty.
    let proven = ask(&api, "a", "POST", "/ownership/validate", &answer(bucket.to_string()).to_string()).await;
    assert_eq!(proven.0, 200, "{}", proven.1);
    let capture = json!({"system": "magic-transit", "type": "full", "time_limit": 1, "colo_name": "tst01",
        "destination_conf": bucket.to_string()});
    let refused = ask(&api, "b", "POST", "", &capture.to_string()).await;
    assert!(refused.0 == 400 && refused.1.contains("1019"), "{}", refused.1);
    for path in ["", "/ownership"] {
        let (status, text) = ask(&api, "b", "GET", path, "").await;
        assert!(status == 200 && text.contains(r#""result":[]"#), "{text}");
    }
    // All of it is still A's, and what was at work still is.
    for (job, ended) in of_a.iter().zip([true, true, false, false]) {
        let now = rig.handle().get(job.request.account.clone(), job.id.clone()).await.unwrap();
        assert_eq!((now.status.ended(), now.stop_requested), (ended, None));
        if !ended {
            rig.stop_when(job, |ledger| ledger.captured > 0).await;
        }
    }
    rig.stop().await;
}
