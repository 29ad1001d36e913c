//! Who gets in, and that all others learn nothing.

use super::*;

async fn with(
    host: &Host,
    method: &str,
    account: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request =
        request::Builder::new().method(method).uri(format!("{PREFIX}/accounts/{account}/pcaps{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    host.send(request, body.to_owned()).await
}

const TOKEN: (&str, &str) = ("authorization", "Bearer a-token");
const EMAIL: (&str, &str) = ("x-auth-email", "user@example.com");
const KEY: (&str, &str) = ("x-auth-key", "a-key");
const WRONG_TOKEN: (&str, &str) = ("authorization", "Bearer wrong");
const WRONG_KEY: (&str, &str) = ("x-auth-key", "wrong");

#[tokio::test]
async fn a_credential_opens_its_account_in_each_form_that_the_sdks_send() {
    let host = Host::start();
    for headers in [
        &[TOKEN][..],
        &[EMAIL, KEY],
        &[("x-auth-email", "User@Example.com"), KEY],
        &[("authorization", "bearer  a-token ")],
        // TypeScript sends all three; e-mail and key decide.
        &[EMAIL, KEY, TOKEN],
        &[EMAIL, KEY, WRONG_TOKEN],
        // Half a pair decides nothing.
        &[EMAIL, TOKEN],
        &[WRONG_KEY, TOKEN],
    ] {
        assert_eq!(with(&host, "GET", A, "", headers, "").await.status, StatusCode::OK, "{headers:?}");
    }
}

#[tokio::test]
async fn an_unknown_account_a_wrong_credential_and_anothers_credential_are_one_answer() {
    let host = Host::start();
    host.create(SIMPLE).await;
    let mut answers = Vec::new();
    let unknown = "f".repeat(32);
    for (account, headers) in [
        (A, &[WRONG_TOKEN][..]),
        (A, &[EMAIL, WRONG_KEY]),
        (A, &[("x-auth-email", "b@example.com"), KEY]),
        (A, &[EMAIL, WRONG_KEY, TOKEN]),
        (A, &[("authorization", "Bearer b-token")]),
        (A, &[("authorization", "Basic a-token")]),
        (A, &[("authorization", "a-token")]),
        (A, &[("authorization", "Bearer ")]),
        (A, &[("authorization", "Bearer a-key")]),
        (A, &[EMAIL, ("x-auth-key", "a-token")]),
        (A, &[EMAIL, ("x-auth-key", "")]),
        (A, &[TOKEN, WRONG_TOKEN]),
        (A, &[TOKEN, TOKEN]),
        (B, &[TOKEN]),
        (B, &[EMAIL, KEY]),
        (&unknown, &[TOKEN]),
        (&unknown, &[WRONG_TOKEN]),
        ("%ff", &[TOKEN]),
        ("%20", &[TOKEN]),
    ] {
        let known_id = format!("/{}", id(0));
        let stop = format!("/{}/stop", id(0));
        for (method, path) in [("GET", ""), ("POST", ""), ("GET", &known_id), ("GET", "/1"), ("PUT", &stop)] {
            // The body would be refused, were it read.
            answers.push(with(&host, method, account, path, headers, "{").await.text());
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    insta::assert_snapshot!(answers[0]);
}

#[tokio::test]
async fn without_a_credential_the_answer_says_what_is_missing() {
    let host = Host::start();
    let missing = with(&host, "GET", A, "", &[], "").await.text();
    for headers in [&[EMAIL][..], &[KEY]] {
        assert_eq!(with(&host, "POST", B, "", headers, "").await.text(), missing);
    }
    insta::assert_snapshot!(missing);
}

#[tokio::test]
async fn a_reader_reads_and_changes_nothing() {
    let host = Host::start();
    host.create(FULL).await;
    let reader = [("authorization", "Bearer a-reader")];
    for path in ["".to_owned(), format!("/{}", id(0)), format!("/{}/progress", id(0))] {
        assert_eq!(with(&host, "GET", A, &path, &reader, "").await.status, StatusCode::OK);
    }
    let create = with(&host, "POST", A, "", &reader, SIMPLE).await;
    let stop = with(&host, "PUT", A, &format!("/{}/stop", id(0)), &reader, "").await;
    assert_eq!(create.text(), stop.text());
    insta::assert_snapshot!(create.text());
    let jobs = host.engine.jobs.lock().unwrap();
    assert_eq!((jobs.len(), jobs[0].stop_requested), (1, None));
}

#[tokio::test]
async fn another_accounts_capture_is_one_that_does_not_exist() {
    let host = Host::start();
    host.create(FULL).await;
    let b = [("authorization", "Bearer b-token")];
    for (method, suffix) in [("GET", ""), ("GET", "/progress"), ("PUT", "/stop")] {
        let theirs = with(&host, method, B, &format!("/{}{suffix}", id(0)), &b, "").await;
        let none = with(&host, method, B, &format!("/{}{suffix}", id(9)), &b, "").await;
        assert_eq!(theirs.status, StatusCode::NOT_FOUND);
        assert_eq!(theirs.text(), none.text());
    }
    assert_eq!(with(&host, "GET", B, "", &b, "").await.json()["result"], serde_json::json!([]));
    assert_eq!(host.engine.jobs.lock().unwrap()[0].stop_requested, None);
    // And B's own full capture does not wait for A's.
    assert_eq!(with(&host, "POST", B, "", &b, FULL).await.status, StatusCode::OK);
}

#[tokio::test]
async fn nothing_is_read_from_a_stranger() {
    let host = Host::start();
    let long = " ".repeat(REQUEST_BYTES_MAX + 1);
    let answer = with(&host, "POST", A, "", &[WRONG_TOKEN], &long).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

/// What an answer lacks of what keeps it out of caches and of other sites' pages.
pub(super) fn lacks(answer: &Answer) -> Vec<&'static str> {
    let is_there = |name: &str, is_right: fn(&str) -> bool| {
        let values: Vec<_> =
            answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        values.len() == 1 && is_right(values[0])
    };
    let mut lacks = Vec::new();
    for (name, is_right) in [
        ("cache-control", (|value| value == "no-store") as fn(&str) -> bool),
        ("cross-origin-resource-policy", |value| value == "same-origin"),
        ("x-content-type-options", |value| value == "nosniff"),
        ("referrer-policy", |value| value == "no-referrer"),
        ("content-security-policy", |value| {
            value.starts_with("default-src 'none'") && value.contains("frame-ancestors 'none'")
        }),
    ] {
        lacks.extend((!is_there(name, is_right)).then_some(name));
    }
    lacks
}

#[tokio::test]
async fn no_answer_is_kept_by_a_browser_or_shown_in_another_site_s_page() {
    let host = Host::start();
    host.create(SIMPLE).await;
    let one = format!("/{}", id(0));
    for (method, path) in [
        ("GET", ""),
        ("POST", ""),
        ("GET", &one),
        ("GET", "/nothing/here"),
        ("GET", "/%ff"),
        ("PATCH", ""),
        ("GET", "/live"),
        ("GET", &format!("{one}/series")),
        ("GET", &format!("{one}/download")),
        ("PUT", &format!("{one}/stop")),
        ("DELETE", &one),
    ] {
        for headers in [&[TOKEN][..], &[WRONG_TOKEN], &[]] {
            let answer = with(&host, method, A, path, headers, "").await;
            assert_eq!(lacks(&answer), Vec::<&str>::new(), "{method} {path} {headers:?} {}", answer.text());
        }
    }
    let revision = host.ask("GET", "/live", "").await.json()["result"]["revision"].clone();
    let unchanged = host.ask("GET", &format!("/live?since={revision}"), "").await;
    assert_eq!((unchanged.status, lacks(&unchanged)), (StatusCode::NOT_MODIFIED, vec![]));
    for uri in ["/openapi.json", "/", "*"] {
        let answer = host.send(request::Builder::new().method("OPTIONS").uri(uri), "").await;
        assert_eq!(lacks(&answer), Vec::<&str>::new(), "{uri}");
        assert!(answer.json()["success"] == false, "{uri}");
    }
}
