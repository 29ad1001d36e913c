//! What holds for every route, those that are added later included: the list is the document's, which another test holds to be the
//! list of what is served.

use super::browser::{OWN, token_of};
use super::*;
use serde_json::Value;

const BY_NAME: (&str, &str) = ("host", "rebound.example");

/// A method and a path of the document.
struct Route {
    method: String,
    path: String,
    needs_credential: bool,
}

impl Route {
    fn at(&self, account: &str, id: &str) -> String {
        self.path.replace("{account}", account).replace("{id}", id).replace("{n}", "0")
    }

    fn is_operators(&self) -> bool {
        self.path.starts_with("/ui/host")
    }

    /// A login is what a cookie comes from.
    fn is_login(&self) -> bool {
        self.method == "POST" && self.path == "/ui/session"
    }

    /// A session is shown and ended without any account in the path.
    fn is_of_session(&self) -> bool {
        self.path == "/ui/session"
    }
}

async fn routes(host: &Host) -> Vec<Route> {
    let document = host.send(request::Builder::new().uri("/openapi.json"), "").await.json();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            routes.push(Route {
                method: method.to_uppercase(),
                path: path.clone(),
                needs_credential: operation["security"] != Value::Array(Vec::new()),
            });
        }
    }
    assert!(routes.len() > 20, "the list is not read");
    routes
}

/// A host whose streams end by themselves, with cookies of account A, of account B and of an operator.
async fn host() -> (Host, [String; 3]) {
    let host = Host::start();
    host.live.end();
    host.create(FULL).await;
    let cookies = [
        host.login("", &token_of(A, "a-token")).await,
        host.login("", &token_of(B, "b-token")).await,
        host.login("", r#"{"operator_token":"an-operator"}"#).await,
    ];
    (host, cookies)
}

#[tokio::test]
async fn a_cookie_that_another_site_sends_is_on_every_route_as_no_cookie() {
    let (host, [of_a, _, operator]) = host().await;
    let own_host = OWN[0];
    let foreign: [&[(&str, &str)]; 7] = [
        &[own_host, ("sec-fetch-site", "cross-site"), ("x-trawl-ui", "1")],
        &[own_host, ("sec-fetch-site", "same-site"), ("x-trawl-ui", "1")],
        &[own_host, ("sec-fetch-site", "none"), ("x-trawl-ui", "1")],
        &[own_host, ("origin", "https://evil.example"), ("x-trawl-ui", "1")],
        &[own_host, ("origin", "null"), ("x-trawl-ui", "1")],
        &[own_host],
        // What a name has that somebody lets point here: all but the host's own name.
        &[BY_NAME, OWN[1], OWN[2]],
    ];
    for route in routes(&host).await.iter().filter(|route| route.needs_credential) {
        let path = route.at(A, &id(0));
        let cookie = if route.is_operators() { &operator } else { &of_a };
        for headers in foreign {
            let plain = host.browser(&route.method, &path, headers, "{}").await;
            let with: Vec<_> = headers.iter().copied().chain([("cookie", cookie.as_str())]).collect();
            let cookied = host.browser(&route.method, &path, &with, "{}").await;
            let shown = format!("{} {path} {headers:?}", route.method);
            assert!(matches!(cookied.status.as_u16(), 401 | 421), "{shown}: {}", cookied.text());
            assert_eq!(cookied.text(), plain.text(), "{shown}");
        }
        if route.method != "GET" {
            let without = [OWN[0], OWN[1], ("cookie", cookie.as_str())];
            let answer = host.browser(&route.method, &path, &without, "{}").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{} {path} without X-Trawl-UI", route.method);
        }
    }
    assert_eq!(host.engine.jobs.lock().unwrap()[0].stop_requested, None);
}

#[tokio::test]
async fn a_cookie_that_the_own_page_sends_opens_every_route_that_its_credential_opens() {
    // Else the refusals of the test above could have another reason.
    for route in routes(&Host::start()).await.iter().filter(|route| route.needs_credential) {
        let (host, [of_a, _, operator]) = host().await;
        let cookie = if route.is_operators() { &operator } else { &of_a };
        let answer = host.page(&route.method, &route.at(A, &id(0)), cookie, "{}").await;
        assert!(!matches!(answer.status.as_u16(), 401 | 403 | 421), "{} {}", route.method, route.path);
    }
}

#[tokio::test]
async fn every_route_below_ui_is_served_under_the_host_s_own_names_alone() {
    let (host, [_, _, operator]) = host().await;
    for route in routes(&host).await.iter().filter(|route| route.path.starts_with("/ui")) {
        for prefix in ["", PREFIX] {
            let headers = [BY_NAME, OWN[1], OWN[2], ("cookie", operator.as_str())];
            let path = format!("{prefix}{}", route.path);
            let answer = host.browser(&route.method, &path, &headers, "{}").await;
            assert!(answer.status.as_u16() == 421 && answer.body.contains("1063"), "{} {path}", route.method);
        }
    }
}

#[tokio::test]
async fn what_another_account_s_credential_asks_for_is_on_every_route_as_with_a_wrong_one() {
    let (host, [_, of_b, operator]) = host().await;
    let unknown = "f".repeat(32);
    for route in routes(&host).await {
        if !route.needs_credential || route.is_of_session() || route.is_login() {
            continue;
        }
        let ask = async |account: &str, token: &str| {
            let headers = [OWN[0], ("authorization", token)];
            host.browser(&route.method, &route.at(account, &id(0)), &headers, "{}").await.text()
        };
        let shown = format!("{} {}", route.method, route.path);
        let wrong = ask(A, "Bearer wrong").await;
        assert!(wrong.starts_with("401") && wrong.contains("10000"), "{shown}");
        for (account, token) in
            [(A, "Bearer b-token"), (unknown.as_str(), "Bearer a-token"), ("%ff", "Bearer a-token")]
        {
            assert_eq!(ask(account, token).await, wrong, "{shown}");
        }
        let cookie = if route.is_operators() { &of_b } else { &operator };
        for cookie in [cookie, &of_b] {
            let answer = host.page(&route.method, &route.at(A, &id(0)), cookie, "{}").await;
            assert_eq!(answer.text(), wrong, "{shown} by a session of somebody else");
        }
        // An operator's token opens no account, and an account's no host.
        let other = if route.is_operators() { "Bearer a-token" } else { "Bearer an-operator" };
        assert_eq!(ask(A, other).await, wrong, "{shown}");
    }
    assert_eq!(host.engine.jobs.lock().unwrap()[0].stop_requested, None);
}

#[tokio::test]
async fn what_is_another_account_s_is_on_every_route_with_an_id_as_what_is_nobody_s() {
    let (host, _) = host().await;
    let mut with_ids = 0;
    for route in routes(&host).await.iter().filter(|route| route.path.contains("{id}")) {
        with_ids += 1;
        let ask = async |of: &str| {
            let headers = [OWN[0], ("authorization", "Bearer b-token")];
            host.browser(&route.method, &route.at(B, of), &headers, "{}").await
        };
        let (theirs, none) = (ask(&id(0)).await, ask(&id(9)).await);
        assert_eq!(theirs.status, StatusCode::NOT_FOUND, "{} {}", route.method, route.path);
        assert_eq!(theirs.text(), none.text(), "{} {}", route.method, route.path);
    }
    assert!(with_ids >= 8, "{with_ids}");
}
