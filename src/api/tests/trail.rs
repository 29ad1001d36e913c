//! Who did what: the line that each request leaves, and that no answer goes out before it.

use super::*;
use crate::api::trail::ACTIONS;
use crate::audit::{AuditConfig, Entry, check_files, files_of};
use crate::http::Peer;
use serde_json::Value;

const PEER: &str = "192.0.2.7";

/// Paths that only show what is on the host, and those that need no credential.
const SHOWN: [&str; 13] = [
    "GET /accounts/{account}/pcaps",
    "GET /accounts/{account}/pcaps/{id}",
    "GET /accounts/{account}/pcaps/{id}/progress",
    "GET /accounts/{account}/pcaps/{id}/series",
    "GET /accounts/{account}/pcaps/ownership",
    "GET /accounts/{account}/capabilities",
    "GET /accounts/{account}/pcaps/events",
    "GET /accounts/{account}/pcaps/live",
    "GET /ui/session",
    "GET /ui/host",
    "GET /ui/host/events",
    "GET /ui/host/log",
    "GET /ui/host/series",
];

/// A host with a log.
struct Logged {
    host: Host,
    audit: Audit,
}

impl Logged {
    fn start() -> Self {
        let engine = Engine::start();
        let handle = engine.handle.clone();
        Self::before(engine, handle)
    }

    /// Before another engine.
    fn before(engine: Engine, handle: crate::engine::Handle) -> Self {
        let dir = TempDir::new().unwrap();
        let config = AuditConfig {
            dir: dir.path().join("audit"),
            bytes_max: 2 << 20,
            file_bytes: 1 << 20,
            required: true,
            head_file: None,
        };
        let audit = Audit::start(config, "ord02-1".to_owned(), None).unwrap();
        let mut state = state(handle, ord02(), dir.path());
        state.audit = Some(audit.clone());
        Self { host: Host::of(state, engine, dir), audit }
    }

    async fn ask(&self, who: &str, method: &str, path: &str, body: &str) -> Answer {
        let request = request::Builder::new()
            .method(method)
            .uri(format!("{PREFIX}{path}"))
            .extension(Peer(PEER.parse().unwrap()))
            .header("authorization", format!("Bearer {who}"));
        self.host.send(request, body.to_owned()).await
    }

    /// All that was told.
    fn lines(&self) -> Vec<Value> {
        self.audit.end(Entry::new("process.end"));
        let files = files_of(&self.host.dir.path().join("audit")).unwrap();
        check_files(&files, &[], &[]).unwrap();
        let text: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let mut lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.pop();
        lines
    }
}

fn of(line: &Value, name: &str) -> String {
    line[name].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn every_route_leaves_a_line_or_is_known_to_leave_none() {
    let host = Host::start();
    let document = host.send(request::Builder::new().uri("/openapi.json"), "").await.json();
    let mut left: Vec<String> = ACTIONS.iter().map(|(method, path, ..)| format!("{method} {path}")).collect();
    left.extend(SHOWN.map(str::to_owned));
    let mut served = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            served.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    for route in &served {
        let is_open = route == "GET /openapi.json" || route.ends_with("/estimate");
        assert!(is_open || left.contains(route), "decide whether {route} leaves a line");
    }
    for known in left {
        let is_built = cfg!(feature = "dashboard") || !known.contains(" /ui/");
        assert_eq!(
            served.contains(&known),
            is_built,
            "{known} is a route of the dashboard alone, or of every build"
        );
    }
}

#[tokio::test]
async fn each_action_of_each_role_with_each_result_leaves_exactly_one_line() {
    let known = id(0);
    for (method, path, name, _) in ACTIONS.iter().filter(|action| action.1.starts_with("/accounts")) {
        for (who, role) in [("a-token", "write"), ("a-reader", "read")] {
            for (id, body) in [(&known, SIMPLE), (&"f".repeat(32), "{}")] {
                let logged = Logged::start();
                logged.ask("a-token", "POST", &format!("/accounts/{A}/pcaps"), SIMPLE).await;
                let at = path.replace("{account}", A).replace("{id}", id).replace("{n}", "0");
                let answer = logged.ask(who, method.as_str(), &at, body).await;
                let lines = logged.lines();
                let shown = format!("{who} {method} {at}: {} {lines:#?}", answer.status);
                assert_eq!(lines.len(), 2, "{shown}");
                let line = &lines[1];
                assert_eq!(
                    (of(line, "action").as_str(), of(line, "role").as_str()),
                    (*name, role),
                    "{shown}"
                );
                assert_eq!(line["status"], answer.status.as_u16(), "{shown}");
                let result = match answer.status.as_u16() {
                    500.. => "failed",
                    400.. => "refused",
                    _ => "done",
                };
                assert_eq!(of(line, "result"), result, "{shown}");
                let code = (result != "done").then(|| answer.json()["errors"][0]["code"].clone());
                assert_eq!(line.get("code"), code.as_ref(), "{shown}");
                assert_eq!(
                    (of(line, "account"), of(line, "peer")),
                    (A.to_owned(), PEER.to_owned()),
                    "{shown}"
                );
                let told = lines.iter().map(Value::to_string).collect::<String>();
                assert!(!told.contains("a-token") && !told.contains("a-reader"), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn a_line_says_who_asked_for_what_and_which_capture_it_became() {
    let logged = Logged::start();
    let body = SIMPLE.replace('}', r#","filter_v1":{"destination_port":53}}"#);
    logged.ask("a-token", "POST", &format!("/accounts/{A}/pcaps"), &body).await;
    logged.ask("a-token", "PUT", &format!("/accounts/{A}/pcaps/{}/stop", id(0)), "").await;
    let lines = logged.lines();
    let hash: String = Sha256::digest("a-token").iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(of(&lines[0], "credential"), hash, "as the config has it");
    assert_eq!((of(&lines[0], "action"), of(&lines[0], "id")), ("capture.create".to_owned(), id(0)));
    let about = &lines[0]["about"];
    assert_eq!((&about["type"], &about["filter_v1"]["destination_port"]), (&"simple".into(), &53.into()));
    assert_eq!((of(&lines[1], "action"), of(&lines[1], "id")), ("capture.stop".to_owned(), id(0)));
}

#[tokio::test]
async fn wrong_credentials_are_told_with_a_bound_and_open_requests_not_at_all() {
    let logged = Logged::start();
    for n in 0..30 {
        let account = format!("{n}\u{1b}[2J");
        let path = format!("/accounts/{}/pcaps", account.replace('\u{1b}', "%1b"));
        logged.ask("wrong", "POST", &path, SIMPLE).await;
    }
    logged
        .host
        .send(request::Builder::new().method("POST").uri(format!("/accounts/{A}/pcaps")), SIMPLE)
        .await;
    logged.ask("a-token", "GET", &format!("/accounts/{A}/pcaps"), "").await;
    let lines = logged.lines();
    assert!(!lines.is_empty() && lines.len() <= 10, "{}", lines.len());
    assert!(
        lines.iter().all(|line| of(line, "action") == "authentication.refuse" && of(line, "peer") == PEER)
    );
}

#[tokio::test]
async fn a_request_whose_client_leaves_has_a_line_too() {
    // Nobody takes what is asked.
    let (handle, _waits) = crate::engine::Handle::channel(16);
    let logged = Logged::before(Engine::start(), handle);
    let path = format!("/accounts/{A}/pcaps");
    let asked = logged.ask("a-token", "POST", &path, SIMPLE);
    assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
    let lines = logged.lines();
    assert_eq!((lines.len(), of(&lines[0], "result")), (1, "unanswered".to_owned()));
    assert_eq!(
        (of(&lines[0], "action"), of(&lines[0], "account")),
        ("capture.create".to_owned(), A.to_owned())
    );
}

#[tokio::test]
async fn no_refusals_hide_what_is_done_after_them_and_a_stop_is_durable_when_it_is_answered() {
    let logged = Logged::start();
    logged.ask("a-token", "POST", &format!("/accounts/{A}/pcaps"), SIMPLE).await;
    for n in 0..700 {
        logged.ask("a-token", "GET", &format!("/accounts/{A}/pcaps/{n:032x}/manifest"), "").await;
    }
    let stop = format!("/accounts/{A}/pcaps/{}/stop", id(0));
    assert_eq!(logged.ask("a-token", "PUT", &stop, "").await.status, StatusCode::NO_CONTENT);
    let files = files_of(&logged.host.dir.path().join("audit")).unwrap();
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert!(text.contains("capture.stop"), "it is there as soon as it is answered");
    let lines = logged.lines();
    let refused = lines.iter().filter(|line| of(line, "action") == "manifest.read").count();
    assert!(refused < 50, "{refused}");
    let more: Vec<_> = lines.iter().filter(|line| of(line, "action") == "audit.more").collect();
    assert_eq!(more[0]["about"]["entries"], 700 - refused, "{more:?}");
}

#[cfg(feature = "dashboard")]
#[tokio::test]
async fn logins_and_logouts_leave_lines_of_whoever_did_them() {
    let logged = Logged::start();
    let login = |body: &'static str| {
        let mut request = request::Builder::new().method("POST").uri("/ui/session");
        for (name, value) in browser::OWN {
            request = request.header(name, value);
        }
        logged.host.send(request, body)
    };
    let answer = login(r#"{"operator_token":"an-operator"}"#).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(logged.host.page("DELETE", "/ui/session", &cookie, "").await.status, StatusCode::NO_CONTENT);
    let lines = logged.lines();
    let told: Vec<_> = lines.iter().map(|line| (of(line, "action"), of(line, "role"))).collect();
    let operator = |what: &str| (what.to_owned(), "operator".to_owned());
    assert_eq!(told, [operator("session.begin"), operator("session.end")]);
    assert!(lines.iter().all(|line| line.get("account").is_none() && line["credential"].is_string()));
}
