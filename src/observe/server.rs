//! Health and metrics over HTTP, on a listener of their own. Owns the paths and the form of answers.
//!
//! Without credentials: what is answered names no account and no secret, and who may connect is the address's matter.
//!
//! Invariant: every answer takes a bounded time, also when the engine or the job store does not answer.

use super::health::{Report, alive, ready};
use super::metrics;
use super::sources::{Sources, Tried};
use crate::http::Bounds;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;
use std::time::Duration;

/// Connections at a time: a few scrapers and probes.
const CONNECTIONS_MAX: usize = 32;
/// Of one peer.
const CONNECTIONS_PER_PEER_MAX: usize = 8;
/// Of all, those for probes on the host itself, whatever others do.
const LOOPBACK_RESERVED: usize = 8;
/// For the answers that are at work when the host ends.
const END_TIME_MAX: Duration = Duration::from_secs(1);

struct Observer {
    sources: Arc<Sources>,
    tried: Tried,
}

/// The connections that the listener takes.
#[must_use]
pub fn bounds() -> Bounds {
    Bounds {
        connections_per_peer_max: CONNECTIONS_PER_PEER_MAX,
        loopback_reserved: LOOPBACK_RESERVED,
        ..Bounds::new(CONNECTIONS_MAX, END_TIME_MAX)
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn router(sources: Arc<Sources>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Observer { sources, tried: Tried::default() }))
}

fn answer(report: Report) -> Response {
    let status = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn healthz(State(observer): State<Arc<Observer>>) -> Response {
    answer(alive(observer.sources.stages()))
}

async fn readyz(State(observer): State<Arc<Observer>>) -> Response {
    answer(ready(&observer.sources, &observer.tried).await)
}

async fn metrics(State(observer): State<Arc<Observer>>, headers: HeaderMap) -> Response {
    match metrics::encode(observer.sources.read().await) {
        Ok(text) if wants_classic(&headers) => {
            ([(header::CONTENT_TYPE, metrics::CLASSIC_CONTENT_TYPE)], metrics::classic(&text)).into_response()
        }
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whether a client says what it accepts and does not name OpenMetrics, as Prometheus does.
fn wants_classic(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().peekable();
    accepted.peek().is_some()
        && !accepted
            .any(|value| value.to_str().is_ok_and(|value| value.contains("application/openmetrics-text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_openmetrics_or_nothing_gets_it_and_who_accepts_anything_gets_what_every_tool_reads() {
        let of = |accept: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = accept {
                headers.insert(header::ACCEPT, value.parse().unwrap());
            }
            wants_classic(&headers)
        };
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert!(!of(None) && !of(Some(prometheus)));
        assert!(of(Some("*/*")) && of(Some("text/plain;version=0.0.4")));
    }
}
