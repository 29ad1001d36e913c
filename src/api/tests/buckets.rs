//! Ownership over HTTP: the flow, the rule that captures obey, and two accounts.

use super::*;

const B_SIDE: (&str, &str) = (B, "b-token");

fn host() -> Host {
    Host::with(Rules { allow_file: true, ..ord02() })
}

impl Host {
    fn destination(&self) -> String {
        format!("file://{}", self.dir.path().join("bucket").display())
    }

    async fn add(&self) -> serde_json::Value {
        let answer = self.ask("POST", "/ownership", &destination_body(&self.destination())).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.json()["result"].clone()
    }

    fn content(&self, ownership: &serde_json::Value) -> String {
        let name = ownership["filename"].as_str().unwrap();
        std::fs::read_to_string(self.dir.path().join("bucket").join(name)).unwrap()
    }

    fn answer_body(&self, challenge: &str) -> String {
        serde_json::json!({"destination_conf": self.destination(), "ownership_challenge": challenge})
            .to_string()
    }
}

fn destination_body(destination: &str) -> String {
    serde_json::json!({"destination_conf": destination}).to_string()
}

#[tokio::test]
async fn a_capture_waits_for_the_proof_of_its_bucket() {
    let host = host();
    let full = FULL.replace("s3://pcaps-bucket?region=us-east-1", &host.destination());
    let unproven = host.create(&full).await;
    assert_eq!(
        (unproven.status, &unproven.json()["errors"][0]["code"]),
        (StatusCode::BAD_REQUEST, &1019.into())
    );
    let added = host.add().await;
    assert_eq!((&added["status"], &added["validated"]), (&"pending".into(), &"".into()));
    assert_eq!(added["filename"], format!("ownership-challenge-{}.txt", added["id"].as_str().unwrap()));
    assert_eq!(host.create(&full).await.text(), unproven.text());
    let name = host.answer_body(added["filename"].as_str().unwrap());
    let refused = host.ask("POST", "/ownership/validate", &name).await;
    assert_eq!(refused.json()["errors"][0]["code"], 1017);
    assert!(refused.body.contains("not its name"), "{}", refused.body);
    let proven = host.ask("POST", "/ownership/validate", &host.answer_body(&host.content(&added))).await;
    let proven = proven.json()["result"].clone();
    assert_eq!((&proven["status"], &proven["id"]), (&"success".into(), &added["id"]));
    assert!(proven["validated"].as_str().unwrap().ends_with('Z'));
    assert_eq!(host.ask("GET", "/ownership", "").await.json()["result"], serde_json::json!([proven]));
    assert_eq!(host.create(&full).await.status, StatusCode::OK);

    let path = format!("/ownership/{}", added["id"].as_str().unwrap());
    let deleted = host.ask("DELETE", &path, "").await;
    assert_eq!((deleted.status, deleted.body.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(host.ask("DELETE", &path, "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(host.ask("GET", "/ownership", "").await.json()["result"], serde_json::json!([]));
}

#[tokio::test]
async fn another_accounts_bucket_is_one_that_does_not_exist() {
    let host = host();
    let added = host.add().await;
    let (content, id) = (host.content(&added), added["id"].as_str().unwrap());
    for (method, theirs, none, body) in [
        ("DELETE", format!("/ownership/{id}"), format!("/ownership/{}", "0".repeat(32)), String::new()),
        (
            "POST",
            "/ownership/validate".to_owned(),
            "/ownership/validate".to_owned(),
            host.answer_body(&content),
        ),
    ] {
        let other = body.replace("/bucket", "/never-asked-for");
        let (theirs, none) = (
            host.ask_as(B_SIDE, method, &theirs, &body).await,
            host.ask_as(B_SIDE, method, &none, &other).await,
        );
        assert_eq!(theirs.status, StatusCode::NOT_FOUND);
        assert_eq!(theirs.text(), none.text());
    }
    assert_eq!(host.ask_as(B_SIDE, "GET", "/ownership", "").await.json()["result"], serde_json::json!([]));
    // A's proof is none of B's.
    host.ask("POST", "/ownership/validate", &host.answer_body(&content)).await;
    let full = FULL.replace("s3://pcaps-bucket?region=us-east-1", &host.destination());
    assert_eq!(host.ask_as(B_SIDE, "POST", "", &full).await.json()["errors"][0]["code"], 1019);
    assert_eq!(host.create(&full).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_reader_lists_buckets_and_changes_none() {
    let host = host();
    let added = host.add().await;
    let reader = (A, "a-reader");
    assert_eq!(host.ask_as(reader, "GET", "/ownership", "").await.status, StatusCode::OK);
    let body = host.answer_body(&host.content(&added));
    let id = format!("/ownership/{}", added["id"].as_str().unwrap());
    for (method, path) in [("POST", "/ownership"), ("POST", "/ownership/validate"), ("DELETE", &id)] {
        assert_eq!(host.ask_as(reader, method, path, &body).await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn wrong_bodies_are_refused_without_repeating_secrets() {
    let host = host();
    let mut all = String::new();
    for (path, body) in [
        ("/ownership", ""),
        ("/ownership", "{}"),
        ("/ownership", r#"{"destination_conf":7,"x":1}"#),
        ("/ownership", r#"{"destination_conf":"http://169.254.169.254/latest"}"#),
        ("/ownership", r#"{"destination_conf":"s3://u:SECRET@bucket?region=x"}"#),
        ("/ownership", r#"{"destination_conf":"s3://bucket?region=x&endpoint=http://evil"}"#),
        ("/ownership/validate", "{}"),
        ("/ownership/validate", r#"{"destination_conf":"s3://bucket?region=x","ownership_challenge":1}"#),
    ] {
        let answer = host.ask("POST", path, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(!answer.body.contains("SECRET"), "{}", answer.body);
        all.push_str(&format!("# {path} {body}\n{}\n", answer.text()));
    }
    insta::assert_snapshot!(all);
}
