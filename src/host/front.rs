//! The API put together: routes, door, what accounts are told. Owns how a plan becomes these; needs neither DPDK, ports nor a spool. What
//! does the captures stands behind [`Captures`].
//!
//! Invariant: what is served is the same, whether one host stands behind it or many.

use crate::api::{self, Accounts, ApiState, Captures, CurrentTerms, Offers, OldestNs, Results, Terms, Ui};
use crate::audit::Audit;
use crate::config::{Plan, UiPlan};
use crate::dashboard::Site;
use crate::history::History;
use crate::http::{Bounds, Door, Tls};
use crate::limits::CONNECTIONS_OF_OPERATORS;
use crate::ownership::Ownership;
use crate::worker::Sample;
use axum::Router;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the API stands on.
pub(super) struct Behind {
    pub captures: Arc<dyn Captures>,
    pub results: Arc<dyn Results>,
    pub ownership: Ownership,
    pub history: Option<Arc<History>>,
    pub audit: Option<Audit>,
}

/// What the routes of the API share.
pub(super) fn state(plan: &Plan, behind: Behind, ui: Ui) -> ApiState {
    let Behind { captures, results, ownership, history, audit } = behind;
    ApiState {
        captures,
        results,
        ownership,
        terms: CurrentTerms::new(terms(plan, history.as_ref())),
        ui,
        audit,
        request_bytes_max: plan.api.request_bytes_max,
        request_time_max: plan.api.request_timeout,
    }
}

/// By which requests are judged.
pub(super) fn terms(plan: &Plan, history: Option<&Arc<History>>) -> Terms {
    Terms::new(accounts(plan), plan.rules.clone(), offers(plan, history.cloned()))
}

/// The way into the API.
pub(super) fn door(plan: &Plan, router: Router, tls: Option<Arc<Tls>>) -> Door {
    // A host without operators, or with hardly any connections, reserves none.
    let reserved = if plan.operators.is_empty() { 0 } else { CONNECTIONS_OF_OPERATORS };
    let bounds = Bounds {
        operators_reserved: reserved.min(plan.api.connections_max / 2),
        connections_per_peer_max: plan.api.connections_per_peer_max,
        connections_per_account_max: plan.api.connections_per_account_max,
        ..Bounds::new(plan.api.connections_max, plan.api.request_timeout)
    };
    Door { router, answer: api::fault, bounds, tls, proxies: plan.api.trusted_proxies.clone() }
}

/// What the dashboard needs.
pub(super) fn ui(plan: &Plan, is_tls: bool, listen: SocketAddr) -> Ui {
    let UiPlan { hosts, origin, view_bytes_per_second } = plan.ui.clone();
    let site = Site { is_tls, listen, hosts, origin };
    Ui::new(site, view_bytes_per_second).with_accounts(plan.accounts.len())
}

/// What accounts are told of this host.
fn offers(plan: &Plan, history: Option<Arc<History>>) -> Offers {
    let stores = &plan.upload.stores;
    let schemes = [
        ("s3", true),
        ("gs", stores.gcs.is_some()),
        ("r2", stores.r2.is_some()),
        ("file", stores.allow_file),
    ];
    let restricted = plan.accounts.iter().filter(|account| !account.prefixes.is_empty());
    let prefixes =
        restricted.map(|one| (one.id.clone(), one.prefixes.iter().map(ToString::to_string).collect()));
    Offers {
        host: plan.host.id.clone(),
        simple_interval_seconds: plan.capture.simple_interval.as_secs(),
        simple_one_in: plan.capture.simple_sample.map_or(1, Sample::one_in),
        simple_retention_seconds: plan.capture.simple_retention.as_secs(),
        full_per_account: plan.capture.full_per_account,
        destinations: schemes.into_iter().filter(|(_, may)| *may).map(|(scheme, _)| scheme).collect(),
        prefixes: prefixes.collect(),
        history_one_in: plan.history.map(|history| history.sample.map_or(1, Sample::one_in)),
        history_oldest_ns: history.map(|history| -> OldestNs { Box::new(move || history.oldest_ns()) }),
    }
}

fn accounts(plan: &Plan) -> Accounts {
    let accounts = plan.accounts.iter().map(|account| (account.id.clone(), account.credentials.clone()));
    Accounts::new(accounts, plan.api.failed_authentications_max)
        .with_rate(plan.api.requests_per_second_max)
        .with_operators(plan.operators.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Answer, OwnResults};
    use crate::engine::{Asked, Estimate, Listed, Refusal, Standing, Wanted};
    use crate::http;
    use crate::job::{AccountId, CaptureId, Job, KeptSeries, ObjectRange, Progress, Request};
    use crate::ownership::BucketKeys;
    use crate::store::Embedded;
    use crate::upload::Stores;
    use sha2::{Digest, Sha256};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    /// Many hosts, as far as a route can tell: it accepts every capture and knows none.
    struct Many;

    fn not_here<T: Send + 'static>() -> Answer<'static, T> {
        Box::pin(std::future::ready(Err(Refusal::ShuttingDown)))
    }

    impl Captures for Many {
        fn create(&self, request: Request) -> Answer<'_, Job> {
            Box::pin(std::future::ready(Ok(Job::accepted(request, None))))
        }
        fn list(&self, _: AccountId) -> Answer<'_, Vec<Job>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }
        fn page(&self, _: AccountId, _: Wanted) -> Answer<'_, Listed> {
            not_here()
        }
        fn get(&self, _: AccountId, id: CaptureId) -> Answer<'_, Job> {
            Box::pin(std::future::ready(Err(Refusal::NotFound(id))))
        }
        fn stop(&self, _: AccountId, _: CaptureId) -> Answer<'_, ()> {
            not_here()
        }
        fn held(&self, _: AccountId) -> Answer<'_, Vec<(CaptureId, u64)>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }
        fn discard(&self, _: AccountId, _: CaptureId) -> Answer<'_, ()> {
            not_here()
        }
        fn progress_with(&self, _: AccountId, _: CaptureId, _: ObjectRange) -> Answer<'_, Progress> {
            not_here()
        }
        fn series(&self, _: AccountId, _: CaptureId) -> Answer<'_, KeptSeries> {
            not_here()
        }
        fn estimate(&self, _: AccountId, _: Asked) -> Answer<'_, Estimate> {
            not_here()
        }
        fn standing(&self, _: AccountId) -> Answer<'_, Standing> {
            not_here()
        }
    }

    async fn ask(address: SocketAddr, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_api_is_served_over_other_captures_than_an_engine_s_and_without_ports_or_a_spool() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::parse(&format!(
            "[[port]]\ndevice = \"net_null0\"\n[[account]]\nid = \"a\"\n[[account.credential]]\ntoken_sha256 = \"{}\"\n",
            Sha256::digest("t").iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        ))
        .unwrap();
        let store = Arc::new(Embedded::open(&dir.path().join("db")).unwrap());
        let stores = Arc::new(Stores::new(plan.upload.stores.clone()).unwrap());
        let keys = BucketKeys::new(store.clone(), None);
        let behind = Behind {
            captures: Arc::new(Many),
            results: Arc::new(OwnResults(dir.path().join("none"))),
            ownership: Ownership::new(store, stores, keys, Duration::from_secs(10)),
            history: None,
            audit: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ends) = oneshot::channel::<()>();
        let router = api::router(state(&plan, behind, ui(&plan, false, address)));
        let served =
            tokio::spawn(http::serve(listener, door(&plan, router, None), async move { drop(ends.await) }));
        let simple = r#"{"system":"magic-transit","type":"simple","time_limit":1,"packet_limit":1}"#;
        let accepted = ask(address, "POST /client/v4/accounts/a/pcaps", simple).await;
        assert!(accepted.starts_with("HTTP/1.1 200") && accepted.contains("\"pending\""), "{accepted}");
        let list = ask(address, "GET /client/v4/accounts/a/pcaps", "").await;
        assert!(list.starts_with("HTTP/1.1 200"), "{list}");
        let unknown = format!("GET /client/v4/accounts/a/pcaps/{}", CaptureId::random());
        let answer = ask(address, &unknown, "").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        end.send(()).unwrap();
        served.await.unwrap();
    }
}
