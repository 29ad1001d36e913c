//! What the tests of the API share: a host, a way to ask it, and an answer as text.

mod buckets;
#[cfg(feature = "dashboard")]
mod browser;
#[cfg(feature = "dashboard")]
mod pages;
mod contract;
mod download;
mod engine;
mod estimate;
#[cfg(feature = "dashboard")]
mod every_route;
mod failures;
mod objects;
mod paging;
#[cfg(feature = "dashboard")]
mod reload;
mod security;
mod serving;
mod streams;
mod trail;

use super::*;
use crate::job::AccountId;
use crate::ownership::BucketKeys;
use crate::store::Embedded;
use crate::upload::{Stores, StoresConfig};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode, request};
use engine::Engine;
use sha2::{Digest, Sha256};
use std::path::Path;
use tempfile::TempDir;
use tower::ServiceExt;

pub(super) const A: &str = "023e105f4ecef8ad9ca31a8372d0c353";
const B: &str = "b23e105f4ecef8ad9ca31a8372d0c353";
const REQUEST_BYTES_MAX: usize = 16 << 10;
pub(super) const FAILURES_MAX: u32 = 10;

const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

fn ui() -> Ui {
    Ui::at(([127, 0, 0, 1], 8080).into())
}

const SIMPLE: &str = r#"{"system":"magic-transit","type":"simple","time_limit":60,"packet_limit":100}"#;
const FULL: &str = r#"{"system":"magic-transit","type":"full","time_limit":300,"colo_name":"ORD",
    "destination_conf":"s3://pcaps-bucket?region=us-east-1"}"#;

/// A host `ord02` with two accounts.
pub(super) struct Host {
    pub(in crate::api) live: Arc<crate::dashboard::Live>,
    router: Router,
    engine: Engine,
    dir: TempDir,
    #[cfg(feature = "dashboard")]
    pub(super) terms: CurrentTerms,
    #[cfg(feature = "dashboard")]
    pub(super) sessions: Arc<crate::dashboard::Sessions>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: String,
}

impl Answer {
    /// Status, the headers that mean something to a client, and the body to the byte.
    fn text(&self) -> String {
        let mut text = self.status.as_u16().to_string();
        for name in ["content-type", "allow", "retry-after", "x-should-retry", "www-authenticate"] {
            if let Some(value) = self.headers.get(name) {
                text.push_str(&format!(" [{name}: {}]", value.to_str().unwrap()));
            }
        }
        format!("{text}\n{}", self.body)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn token(secret: &str, role: Role) -> Credential {
    Credential { secret: Secret::Token { token_sha256: Sha256::digest(secret).into() }, role }
}

fn key(email: &str, key: &str) -> Credential {
    let secret = Secret::Key { email: email.to_owned(), key_sha256: Sha256::digest(key).into() };
    Credential { secret, role: Role::Write }
}

pub(super) fn ord02() -> Rules {
    Rules {
        colo: Some("ord02".to_owned()),
        simple_time_limit_seconds_max: 300,
        simple_packet_limit_max: 10_000,
        time_limit_seconds_max: 86_400,
        packet_limit_max: None,
        byte_limit_max: None,
        allow_file: false,
        require_validation: false,
        require_file_validation: true,
        history: None,
    }
}

fn state(captures: crate::engine::Handle, rules: Rules, dir: &Path) -> ApiState {
    state_with(captures, rules, dir, ui(), REQUEST_TIME_MAX)
}

fn state_with(
    captures: crate::engine::Handle,
    rules: Rules,
    dir: &Path,
    ui: Ui,
    request_time_max: Duration,
) -> ApiState {
    let a =
        vec![key("user@example.com", "a-key"), token("a-token", Role::Write), token("a-reader", Role::Read)];
    let b = vec![key("b@example.com", "b-key"), token("b-token", Role::Write)];
    let accounts = Accounts::new([(AccountId(A.to_owned()), a), (AccountId(B.to_owned()), b)], FAILURES_MAX);
    let accounts = accounts.with_operators([Sha256::digest("an-operator").into()]);
    let stores = Stores::new(StoresConfig { allow_file: true, ..StoresConfig::default() }).unwrap();
    let buckets = Arc::new(Embedded::open(&dir.join("db")).unwrap());
    let keys = BucketKeys::new(buckets.clone(), None);
    ApiState {
        captures: Arc::new(captures),
        ownership: Ownership::new(buckets, Arc::new(stores), keys, Duration::from_secs(10)),
        results: Arc::new(OwnResults(dir.join("simple"))),
        terms: CurrentTerms::new(Terms::new(accounts, rules, Offers::default())),
        ui,
        audit: None,
        request_bytes_max: REQUEST_BYTES_MAX,
        request_time_max,
    }
}

impl Host {
    pub(super) fn start() -> Self {
        Self::with(ord02())
    }

    pub(super) fn with(rules: Rules) -> Self {
        Self::shown(rules, ui(), REQUEST_TIME_MAX)
    }

    /// A host that differs in what its viewers may take.
    pub(super) fn shown(rules: Rules, ui: Ui, request_time_max: Duration) -> Self {
        let (engine, dir) = (Engine::start(), TempDir::new().unwrap());
        let state = state_with(engine.handle.clone(), rules, dir.path(), ui, request_time_max);
        Self::of(state, engine, dir)
    }

    fn of(state: ApiState, engine: Engine, dir: TempDir) -> Self {
        Self {
            live: Arc::clone(&state.ui.live),
            #[cfg(feature = "dashboard")]
            terms: state.terms.clone(),
            #[cfg(feature = "dashboard")]
            sessions: Arc::clone(&state.ui.sessions),
            router: router(state),
            engine,
            dir,
        }
    }

    pub(super) async fn send(&self, request: request::Builder, body: impl Into<Body>) -> Answer {
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// Asks for a path below account A's captures, with A's token.
    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_as((A, "a-token"), method, path, body).await
    }

    async fn ask_as(&self, who: (&str, &str), method: &str, path: &str, body: &str) -> Answer {
        let request = request::Builder::new()
            .method(method)
            .uri(format!("{PREFIX}/accounts/{}/pcaps{path}", who.0))
            .header("authorization", format!("Bearer {}", who.1));
        self.send(request, body.to_owned()).await
    }

    pub(super) async fn create(&self, body: &str) -> Answer {
        self.ask("POST", "", body).await
    }
}

/// Ids of the test engine's jobs.
fn id(number: u64) -> String {
    format!("{:032x}", 0xcafe_0000_u64 + number)
}
