//! The HTTP API in the words of Cloudflare's packet captures API. Owns routes, authentication, the envelope and the error
//! codes; not captures, which it reaches through [`Captures`] and [`Results`] alone.
//!
//! Invariant: whatever is sent, the answer is in the envelope; nothing is read from a body before the sender is known.

mod attempts;
mod auth;
mod body;
mod captures;
mod check;
mod codes;
mod download;
mod envelope;
mod estimate;
mod headers;
mod live;
mod objects;
mod ownership;
mod opened;
#[cfg(feature = "dashboard")]
mod page;
mod capabilities;
mod host;
mod paging;
mod pcaps;
mod query;
mod rates;
mod result;
mod results;
mod route;
mod routes;
mod session;
mod terms;
mod trail;
mod ui;
mod validate;

pub use attempts::authentication_failures;
pub use auth::{Accounts, Credential, Role, Secret};
pub use captures::{Answer, Captures};
pub use results::{Opening, OwnResults, ResultFile, Results};
pub use terms::{CurrentTerms, Terms};
pub use ui::Ui;

use crate::audit::Audit;
use crate::http::Fault;
use crate::job::{AccountId, Destination};
use crate::ownership::Ownership;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use codes::Code;
use envelope::Failure;
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

/// The SDKs' base URL ends in it; every path is served without it too.
pub(crate) const PREFIX: &str = "/client/v4";

/// What a capture may ask of this host.
#[derive(Clone, Debug)]
pub struct Rules {
    /// This host's data centre, for instance `ord02`; a request for `ORD` addresses every one that begins with it. None where many
    /// hosts capture: which data centres there are is known to what does captures.
    pub colo: Option<String>,
    /// Longest `time_limit` of a simple capture.
    pub simple_time_limit_seconds_max: u64,
    /// Greatest `packet_limit` of a simple capture.
    pub simple_packet_limit_max: u64,
    /// Longest `time_limit` of a full capture.
    pub time_limit_seconds_max: u64,
    /// Greatest `packet_limit` of a full capture, and the one that holds when none is asked for.
    pub packet_limit_max: Option<u64>,
    /// As `packet_limit_max`, for `byte_limit`.
    pub byte_limit_max: Option<u64>,
    /// Whether `destination_conf` may be a directory of this host.
    pub allow_file: bool,
    /// Whether the ownership of a bucket must be proven before a capture goes there.
    pub require_validation: bool,
    /// The same for a directory of this host.
    pub require_file_validation: bool,
    /// How far a simple capture may look back; not at all if none.
    pub history: Option<Duration>,
}

impl Rules {
    fn needs_proof(&self, destination: &Destination) -> bool {
        match destination {
            Destination::File { .. } => self.require_file_validation,
            _ => self.require_validation,
        }
    }
}

/// What accounts are told of this host, beside its rules.
#[derive(Default)]
pub struct Offers {
    /// The host's id.
    pub host: String,
    /// Between two simple captures.
    pub simple_interval_seconds: u64,
    /// Which packets a simple capture considers: one in so many.
    pub simple_one_in: u32,
    /// How long a simple capture can be downloaded.
    pub simple_retention_seconds: u64,
    /// Full captures at once.
    pub full_per_account: usize,
    /// Schemes of destinations.
    pub destinations: Vec<&'static str>,
    /// What each account may see; one that is not in here may see every packet.
    pub prefixes: HashMap<AccountId, Vec<String>>,
    /// One in so many packets is in the history, if there is one.
    pub history_one_in: Option<u32>,
    /// Time of its oldest packet, ns since the UNIX epoch.
    pub history_oldest_ns: Option<OldestNs>,
}

/// Reads the time of the history's oldest packet.
pub type OldestNs = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// What the routes need.
pub struct ApiState {
    /// What does captures.
    pub captures: Arc<dyn Captures>,
    /// Whose the buckets are.
    pub ownership: Ownership,
    /// Where the files of simple captures lie.
    pub results: Arc<dyn Results>,
    /// Who may ask, and what for.
    pub terms: CurrentTerms,
    /// What the dashboard needs.
    pub ui: Ui,
    /// Who did what, if the host keeps it.
    pub audit: Option<Audit>,
    /// Longest body of a request.
    pub request_bytes_max: usize,
    /// Longest time for reading a request and answering it.
    pub request_time_max: Duration,
}

/// All routes, with and without [`PREFIX`].
pub fn router(state: ApiState) -> Router {
    let (request_bytes_max, request_time_max) = (state.request_bytes_max, state.request_time_max);
    let state = Arc::new(state);
    let routes = routes::router();
    let routes = Router::new().nest(PREFIX, routes.clone()).merge(routes);
    #[cfg(feature = "dashboard")]
    let routes = routes.merge(page::router());
    let routes = routes
        .fallback(no_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Arc::clone(&state))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), opened::watch))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), trail::watch))
        .layer(DefaultBodyLimit::max(request_bytes_max));
    let routes = guarded(routes, request_time_max);
    #[cfg(feature = "dashboard")]
    let routes = routes.layer(middleware::from_fn_with_state(state, page::guard));
    routes.layer(middleware::map_response(headers::held))
}

/// `routes`, with an answer also when a handler takes too long or panics.
fn guarded(routes: Router, time_max: Duration) -> Router {
    routes
        .layer(middleware::from_fn_with_state(time_max, in_time))
        .layer(CatchPanicLayer::custom(panicked))
        // Logs method, path, status and latency; never headers, which carry the secrets, nor the query, where somebody may have put one.
        .layer(TraceLayer::new_for_http().make_span_with(|request: &Request| {
            tracing::debug_span!("request", method = %request.method(), path = request.uri().path())
        }))
}

/// The answer to what is no request.
#[must_use]
pub fn fault(fault: Fault) -> Response {
    let failure = match fault {
        Fault::Malformed => Failure::new(Code::MalformedRequest, "this is no HTTP/1.1 request"),
        Fault::PlainOnTls => Failure::new(Code::MalformedRequest, "this port speaks HTTPS: use https://"),
        Fault::UriTooLong => {
            Failure::new(Code::UriTooLong, "the first line of the request is longer than 64 KiB")
        }
        Fault::HeadTooLarge => Failure::new(
            Code::HeadTooLarge,
            "the head of the request is longer than 64 KiB or has more than 100 headers",
        ),
        Fault::HeadTimeout => {
            Failure::new(Code::HeadTimeout, "the head of the request was not complete in time; send it again")
        }
        Fault::Version => Failure::new(Code::HttpVersion, "this host speaks HTTP/1.1 and 1.0"),
    };
    let mut response = failure.into_response();
    headers::hold(response.headers_mut());
    response
}

async fn no_route(uri: Uri) -> Failure {
    tracing::debug!(path = uri.path(), "no route");
    Failure::new(Code::NoRoute, "No route for that URI")
}

async fn method_not_allowed(method: Method) -> Failure {
    Failure::new(Code::MethodNotAllowed, format!("Method {method} not available for that URI"))
}

/// Tower's own time-out answers without an envelope, and 408 makes the SDKs send a create again.
async fn in_time(State(time_max): State<Duration>, request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(time_max, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        let message = "no answer in time; list the captures to see whether it was done, then ask again";
        Failure::new(Code::TimedOut, message).into_response()
    })
}

// The signature is tower-http's.
#[allow(clippy::needless_pass_by_value)]
fn panicked(payload: Box<dyn Any + Send>) -> Response {
    let said =
        payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = said.unwrap_or("no text"), "a request handler panicked");
    Failure::new(Code::Internal, "internal error; ask the operator of this host").into_response()
}

#[cfg(test)]
mod tests;
