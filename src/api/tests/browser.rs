//! Sessions as a browser has them: login, what other sites can do with a cookie, and every end of one.

use super::*;
use crate::engine::{CaptureView, Overview};
use crate::job::{CaptureId, Kind, Ledger, Status};
use futures_util::StreamExt as _;

/// Of every request of the own page.
pub(super) const OWN: [(&str, &str); 3] =
    [("host", "127.0.0.1:8080"), ("sec-fetch-site", "same-origin"), ("x-trawl-ui", "1")];

impl Host {
    pub(super) async fn browser(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = request::Builder::new().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, body.to_owned()).await
    }

    pub(super) async fn page(&self, method: &str, path: &str, cookie: &str, body: &str) -> Answer {
        let headers: Vec<_> = OWN.into_iter().chain([("cookie", cookie)]).collect();
        self.browser(method, path, &headers, body).await
    }

    /// Logs in and gives the cookie.
    pub(super) async fn login(&self, cookie: &str, body: &str) -> String {
        let answer = self.page("POST", "/ui/session", cookie, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        cookie_of(&answer)
    }
}

fn cookie_of(answer: &Answer) -> String {
    let set = answer.headers["set-cookie"].to_str().unwrap();
    assert!(set.contains("; HttpOnly; SameSite=Strict"), "{set}");
    set.split(';').next().unwrap().to_owned()
}

pub(super) fn token_of(account: &str, token: &str) -> String {
    serde_json::json!({"account": account, "token": token}).to_string()
}

fn list(account: &str) -> String {
    format!("{PREFIX}/accounts/{account}/pcaps")
}

#[tokio::test]
async fn each_kind_of_login_opens_what_its_credential_opens() {
    let host = Host::start();
    let a = host.login("", &token_of(A, "a-token")).await;
    let answer = host.page("GET", "/ui/session", &a, "").await.json();
    assert_eq!(answer["result"]["accounts"], serde_json::json!([{"id": A, "role": "write"}]));
    assert_eq!(
        (&answer["result"]["operator"], &answer["result"]["idle_seconds"]),
        (&false.into(), &1800.into())
    );
    assert_eq!(host.page("GET", &list(A), &a, "").await.status, StatusCode::OK);
    assert_eq!(host.page("POST", &list(A), &a, SIMPLE).await.status, StatusCode::OK);
    let by_key = serde_json::json!({"account": A, "email": "User@example.com", "key": "a-key"}).to_string();
    let by_key = host.login("", &by_key).await;
    assert_eq!(host.page("GET", &list(A), &by_key, "").await.status, StatusCode::OK);
    let reader = host.login("", &token_of(A, "a-reader")).await;
    assert!(host.page("POST", &list(A), &reader, SIMPLE).await.body.contains("1015"));
    let operator = host.login("", r#"{"operator_token":"an-operator"}"#).await;
    assert_eq!(host.page("GET", "/ui/host", &operator, "").await.status, StatusCode::OK);
    assert_eq!(host.page("GET", &list(A), &operator, "").await.status, StatusCode::UNAUTHORIZED);
    for cookie in [&a, &reader] {
        for path in ["/ui/host", "/ui/host/events", "/ui/host/series", "/ui/host/log"] {
            assert_eq!(host.page("GET", path, cookie, "").await.status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    let bearer = [("host", "127.0.0.1"), ("authorization", "Bearer an-operator")];
    assert_eq!(host.browser("GET", "/ui/host", &bearer, "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_login_is_answered_as_a_wrong_header_and_gives_no_cookie() {
    let host = Host::start();
    let wrong = host.ask_as((A, "wrong"), "GET", "", "").await.text();
    for body in [
        token_of(A, "wrong"),
        token_of(A, "b-token"),
        token_of("unknown", "a-token"),
        token_of("", "an-operator"),
        token_of(A, "an-operator"),
        r#"{"operator_token":"a-token"}"#.to_owned(),
        serde_json::json!({"account": A, "email": "user@example.com", "key": "a-token"}).to_string(),
    ] {
        let answer = host.page("POST", "/ui/session", "", &body).await;
        assert!(answer.text() == wrong && !answer.headers.contains_key("set-cookie"), "{body}");
    }
    for body in ["{}", "", "[]", r#"{"account":"a"}"#, r#"{"account":"a","token":"b","operator_token":"c"}"#]
    {
        assert_eq!(
            host.page("POST", "/ui/session", "", body).await.status,
            StatusCode::BAD_REQUEST,
            "{body}"
        );
    }
}

#[tokio::test]
async fn failed_logins_are_limited_with_all_other_failures_of_their_peer() {
    let host = Host::start();
    let ask = async |token: &str| {
        let mut request = request::Builder::new().method("POST").uri("/ui/session");
        for (name, value) in OWN {
            request = request.header(name, value);
        }
        let peer = crate::http::Peer([192, 0, 2, 1].into());
        host.send(request.extension(peer), token_of(A, token)).await.status.as_u16()
    };
    for _ in 0..FAILURES_MAX {
        assert_eq!(ask("wrong").await, 401);
    }
    assert_eq!((ask("wrong").await, ask("a-token").await), (429, 200));
}

#[tokio::test]
async fn what_another_site_can_send_with_a_cookie_opens_and_changes_nothing() {
    let host = Host::start();
    let cookie = host.login("", &token_of(A, "a-token")).await;
    let with = |more: &[(&'static str, &'static str)]| {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend_from_slice(more);
        headers
    };
    let own = ("host", "127.0.0.1:8080");
    for (method, headers) in [
        // A form, a fetch, an image, a page of another port, a request without any of a browser's headers.
        ("POST", with(&[own, ("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")])),
        ("POST", with(&[own, ("sec-fetch-site", "cross-site"), ("x-trawl-ui", "1")])),
        ("GET", with(&[own, ("sec-fetch-site", "cross-site")])),
        ("POST", with(&[own, ("sec-fetch-site", "same-site"), ("x-trawl-ui", "1")])),
        ("POST", with(&[own, ("sec-fetch-site", "same-origin")])),
        ("POST", with(&[own, ("origin", "http://127.0.0.1:9999"), ("x-trawl-ui", "1")])),
        ("POST", with(&[own])),
        // A name that somebody else lets point here.
        (
            "POST",
            with(&[("host", "rebound.example"), ("sec-fetch-site", "same-origin"), ("x-trawl-ui", "1")]),
        ),
        ("GET", with(&[("host", "rebound.example"), ("sec-fetch-site", "same-origin")])),
    ] {
        let answer = host.browser(method, &list(A), &headers, SIMPLE).await;
        assert!(
            answer.status == StatusCode::UNAUTHORIZED && answer.body.contains("9106"),
            "{method} {headers:?}"
        );
        let logout = host.browser("DELETE", "/ui/session", &headers, "").await;
        assert!(matches!(logout.status.as_u16(), 401 | 421), "{headers:?}");
    }
    for headers in [with(&[own, ("sec-fetch-site", "cross-site"), ("x-trawl-ui", "1")]), with(&[own])] {
        let login = host.browser("POST", "/ui/session", &headers, &token_of(A, "a-token")).await;
        assert!(login.status == StatusCode::FORBIDDEN && login.body.contains("1061"));
    }
    assert!(host.engine.jobs.lock().unwrap().is_empty());
    // The same cookie with the page's own headers does both: the refusals above are not for another reason.
    assert_eq!(host.page("POST", &list(A), &cookie, SIMPLE).await.status, StatusCode::OK);
    assert_eq!(host.page("DELETE", "/ui/session", &cookie, "").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_session_has_an_id_of_the_host_s_making_and_none_after_its_logout() {
    let host = Host::start();
    // Somebody plants an id before the login.
    let planted = "trawl-loopback=0000000000000000000000000000000000000000000000000000000000000000";
    let first = host.login(planted, &token_of(A, "a-token")).await;
    assert_ne!(first, planted);
    assert_eq!(host.page("GET", &list(A), planted, "").await.status, StatusCode::UNAUTHORIZED);
    // A second login brings the first account along under a new id.
    let second = host.login(&first, &token_of(B, "b-token")).await;
    assert_eq!(host.page("GET", &list(A), &first, "").await.status, StatusCode::UNAUTHORIZED);
    for account in [A, B] {
        assert_eq!(host.page("GET", &list(account), &second, "").await.status, StatusCode::OK);
    }
    let out = host.page("DELETE", "/ui/session", &second, "").await;
    assert_eq!(out.headers["clear-site-data"], "\"cache\", \"storage\"");
    assert!(out.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    for (method, path) in
        [("GET", list(A)), ("GET", "/ui/session".to_owned()), ("DELETE", "/ui/session".to_owned())]
    {
        assert_eq!(host.page(method, &path, &second, "").await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn a_credential_in_a_header_decides_whatever_cookie_comes_with_it() {
    let host = Host::start();
    let cookie = host.login("", &token_of(A, "a-token")).await;
    let ask = async |account: &str, authorization: &str| {
        let headers: Vec<_> =
            OWN.into_iter().chain([("cookie", cookie.as_str()), ("authorization", authorization)]).collect();
        host.browser("GET", &list(account), &headers, "").await
    };
    assert_eq!(ask(B, "Bearer b-token").await.status, StatusCode::OK);
    for wrong in ["Bearer wrong", "Basic a-token", "Bearer b-token"] {
        assert_eq!(ask(A, wrong).await.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    // Without the header it is A's again, and another's account is as with a wrong credential.
    assert_eq!(host.page("GET", &list(A), &cookie, "").await.status, StatusCode::OK);
    let theirs = host.page("GET", &list(B), &cookie, "").await.text();
    assert_eq!(theirs, host.ask_as((B, "wrong"), "GET", "", "").await.text());
}

#[test]
fn a_session_opens_nothing_once_its_credential_is_gone() {
    let account = AccountId(A.to_owned());
    let grant = crate::dashboard::Grant {
        account: Some(account.clone()),
        proof: super::auth::token_proof(Some(&account), b"a-token"),
    };
    let with = |tokens: &[&str]| {
        let tokens = tokens.iter().map(|one| token(one, Role::Write)).collect();
        Accounts::new([(account.clone(), tokens)], 10).role_of(&grant)
    };
    assert_eq!((with(&["other", "a-token"]), with(&["other"])), (Some(Role::Write), None));
}

pub(super) fn view(n: u64, captured: u64) -> CaptureView {
    CaptureView {
        id: CaptureId::parse(&id(n)).unwrap(),
        account: AccountId(A.to_owned()),
        kind: Kind::Full,
        status: Status::Running,
        ledger: Ledger { captured, ..Ledger::default() },
        objects: 0,
        object_bytes: 0,
        seconds_left: 5.0,
        waiting_bytes: 0,
        stopped: None,
        warnings: Vec::new(),
        next_try_seconds: None,
    }
}

pub(super) fn snapshot(now_ns: u64, captures: Vec<CaptureView>) -> crate::dashboard::Snapshot {
    let overview = Some(Overview { captures, ..Overview::default() });
    crate::dashboard::Snapshot { now_ns, overview, ..Default::default() }
}

/// The next event of a stream: its name and data.
async fn event(body: &mut axum::body::BodyDataStream) -> Option<(String, serde_json::Value)> {
    let text = String::from_utf8(body.next().await?.unwrap().to_vec()).unwrap();
    let of =
        |name: &str| text.lines().filter_map(|line| line.strip_prefix(name)).next_back().unwrap().to_owned();
    Some((of("event: "), serde_json::from_str(&of("data: ")).unwrap()))
}

#[tokio::test]
async fn a_stream_has_a_snapshot_then_changes_and_ends_with_its_session_and_with_the_host() {
    let host = Host::start();
    let live = host.live.clone();
    let cookie = host.login("", &token_of(A, "a-token")).await;
    let open = async || {
        let mut request =
            request::Builder::new().uri(format!("{}/events", list(A))).header("cookie", &cookie);
        for (name, value) in OWN {
            request = request.header(name, value);
        }
        let answer = host.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (answer.status().as_u16(), answer.into_body().into_data_stream())
    };
    live.take(snapshot(1, vec![view(1, 5), view(2, 5)]));
    let (status, mut stream) = open().await;
    let (name, first) = event(&mut stream).await.unwrap();
    assert_eq!((status, name.as_str(), first["captures"].as_array().unwrap().len()), (200, "snapshot", 2));
    live.take(snapshot(2, vec![view(1, 6), view(2, 5)]));
    let (name, second) = event(&mut stream).await.unwrap();
    assert_eq!((name.as_str(), second["captures"].as_array().unwrap().len()), ("change", 1));
    assert_eq!(second["captures"][0]["ledger"]["captured"], 6);
    assert!(second["revision"].as_u64() > first["revision"].as_u64());
    // A reader that was away for many seconds is told, and begins again.
    for n in 0..10 {
        live.take(snapshot(3 + n, vec![view(1, 7 + n), view(2, 5)]));
    }
    let (name, late) = event(&mut stream).await.unwrap();
    assert_eq!((name.as_str(), late["captures"].as_array().unwrap().len()), ("snapshot", 2));
    // Four are all that an account has, and one that ends gives its place back.
    let others = [open().await, open().await, open().await];
    assert_eq!(others.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200, 200]);
    assert_eq!(open().await.0, 429);
    drop(others);
    let (status, mut second) = open().await;
    assert_eq!(status, 200);
    event(&mut second).await.unwrap();
    live.end();
    assert!(event(&mut second).await.is_none() && event(&mut stream).await.is_none());
}

#[tokio::test]
async fn a_stream_ends_at_the_second_after_its_logout() {
    let host = Host::start();
    let cookie = host.login("", &token_of(A, "a-token")).await;
    let mut request = request::Builder::new().uri(format!("{}/events", list(A))).header("cookie", &cookie);
    for (name, value) in OWN {
        request = request.header(name, value);
    }
    let answer = host.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let mut stream = answer.into_body().into_data_stream();
    event(&mut stream).await.unwrap();
    host.page("DELETE", "/ui/session", &cookie, "").await;
    host.live.take(snapshot(1, vec![view(1, 5)]));
    assert!(event(&mut stream).await.is_none());
}

#[tokio::test]
async fn polling_gives_what_the_stream_gives_and_304_while_nothing_changes() {
    let host = Host::start();
    host.live.take(snapshot(1, vec![view(1, 5)]));
    let live = async |query: &str| host.ask("GET", &format!("/live{query}"), "").await;
    let first = live("").await.json();
    let revision = &first["result"]["revision"];
    assert_eq!(first["result"]["captures"][0]["id"], id(1));
    assert_eq!(live(&format!("?since={revision}")).await.status, StatusCode::NOT_MODIFIED);
    host.live.take(snapshot(2, vec![view(1, 6)]));
    let second = live(&format!("?since={revision}")).await;
    assert_eq!(
        (second.status, second.json()["result"]["captures"][0]["ledger"]["captured"].clone()),
        (StatusCode::OK, 6.into())
    );
    assert_eq!(live("?since=x").await.status, StatusCode::BAD_REQUEST);
    // Another account sees none of it.
    let theirs = host.ask_as((B, "b-token"), "GET", "/live", "").await.json();
    assert_eq!(theirs["result"]["captures"], serde_json::json!([]));
}
