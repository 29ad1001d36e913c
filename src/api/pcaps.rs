//! `/accounts/{account}/pcaps`. Owns these routes: parse, ask the engine, render; not how each is done.

use super::auth::{Reader, Writer};
use super::body::CreateBody;
use super::codes::Code;
use super::envelope::{Failure, Problem, success, success_with};
use super::{ApiState, result, validate};
use crate::capture::{CaptureId, Kind};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, put};
use std::sync::Arc;

type Api = State<Arc<ApiState>>;

/// The routes, without prefix.
pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/accounts/{account}/pcaps", get(list).post(create))
        .route("/accounts/{account}/pcaps/{id}", get(one))
        .route("/accounts/{account}/pcaps/{id}/stop", put(stop))
        .route("/accounts/{account}/pcaps/{id}/progress", get(progress))
}

/// The capture that the path names.
struct PcapId(CaptureId);

impl FromRequestParts<Arc<ApiState>> for PcapId {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Failure> {
        let path = RawPathParams::from_request_parts(parts, state).await.ok();
        let id =
            path.iter().flatten().find(|(name, _)| *name == "id").and_then(|(_, id)| CaptureId::parse(id));
        id.map(Self).ok_or_else(|| {
            let message = "Could not route to this capture, perhaps your object identifier is invalid?";
            Failure::new(Code::BadIdentifier, message)
        })
    }
}

async fn create(
    Writer(account): Writer,
    State(api): Api,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::new(
            Code::BodyTooLarge,
            format!("the body is longer than {} bytes", api.request_bytes_max),
        ),
        _ => Failure::new(Code::MalformedBody, "the body ended early"),
    })?;
    let request = validate::capture_request(account, &CreateBody::parse(&body)?, &api.rules)?;
    let job = api.captures.create(request).await?;
    Ok(success(result::pcap(&job)))
}

async fn list(Reader(account): Reader, State(api): Api) -> Result<Response, Failure> {
    let jobs = api.captures.list(account).await?;
    Ok(success(jobs.iter().map(result::pcap).collect::<Vec<_>>()))
}

async fn one(Reader(account): Reader, State(api): Api, PcapId(id): PcapId) -> Result<Response, Failure> {
    let job = api.captures.get(account, id).await?;
    // A simple result cannot carry `error_message`: with it, the Python SDK takes it for a full one.
    let note = match (&job.request.kind, &job.error_message) {
        (Kind::Simple, Some(message)) => vec![Problem::new(Code::SimpleFailed, message.as_str())],
        _ => Vec::new(),
    };
    Ok(success_with(result::pcap(&job), note))
}

/// No body is read: Python announces JSON and sends none, TypeScript and Go announce nothing.
async fn stop(Writer(account): Writer, State(api): Api, PcapId(id): PcapId) -> Result<StatusCode, Failure> {
    api.captures.stop(account, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn progress(Reader(account): Reader, State(api): Api, PcapId(id): PcapId) -> Result<Response, Failure> {
    Ok(success(api.captures.progress(account, id).await?))
}
