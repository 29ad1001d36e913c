//! `/accounts/{account}/pcaps`. Owns these routes: parse, ask the engine, render; not how each is done.

use super::auth::{Reader, Writer};
use super::codes::Code;
use super::envelope::{Failure, Problem, success, success_with};
use super::route::{Api, PcapId, Routes};
use super::{body, result, validate};
use crate::job::Kind;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, put};

/// The routes, without prefix.
pub(super) fn routes() -> Routes {
    vec![
        ("/accounts/{account}/pcaps", get(list).post(create)),
        ("/accounts/{account}/pcaps/{id}", get(one).delete(discard)),
        ("/accounts/{account}/pcaps/{id}/stop", put(stop)),
        ("/accounts/{account}/pcaps/{id}/progress", get(progress)),
    ]
}

async fn create(
    Writer(account): Writer,
    State(api): Api,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = body::parse(body, api.request_bytes_max)?;
    let request = validate::capture_request(account, &body, &api.rules)?;
    if let Some(destination) = &request.destination
        && api.rules.needs_proof(destination)
        && !api.ownership.is_proven(&request.account, destination).await?
    {
        let message = "destination_conf is not proven to be yours; POST it to …/pcaps/ownership, then the content of \
                       the object that appears there to …/pcaps/ownership/validate";
        return Err(Failure::at("/destination_conf", Code::NotValidated, message));
    }
    let job = api.captures.create(request).await?;
    Ok(success(result::pcap(&job)))
}

async fn list(Reader(account): Reader, State(api): Api) -> Result<Response, Failure> {
    let jobs = api.captures.list(account.clone()).await?;
    // No result has a member for it.
    let notes = api.captures.held(account).await?.into_iter().map(|(id, bytes)| {
        Problem::new(Code::Held, format!("{id} has {bytes} bytes on this host that are not delivered"))
    });
    Ok(success_with(jobs.iter().map(result::pcap).collect::<Vec<_>>(), notes.collect()))
}

async fn one(Reader(account): Reader, State(api): Api, PcapId(id): PcapId) -> Result<Response, Failure> {
    let job = api.captures.get(account.clone(), id.clone()).await?;
    // A simple result cannot carry `error_message`: with it, the Python SDK takes it for a full one.
    let mut notes = match (&job.request.kind, &job.error_message) {
        (Kind::Simple, Some(message)) => vec![Problem::new(Code::SimpleFailed, message.as_str())],
        _ => Vec::new(),
    };
    // Nor can any result carry warnings: who reads progress has them there, and an SDK's user at least in the envelope.
    if !job.status.ended() {
        let warnings = api.captures.progress(account, id).await?.warnings;
        notes.extend(warnings.into_iter().map(|warning| Problem::new(Code::Threatened, warning)));
    }
    Ok(success_with(result::pcap(&job), notes))
}

/// No body is read: Python announces JSON and sends none, TypeScript and Go announce nothing.
async fn stop(Writer(account): Writer, State(api): Api, PcapId(id): PcapId) -> Result<StatusCode, Failure> {
    api.captures.stop(account, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Drops what is on this host of a capture that waits for its upload or has failed. No body is read.
async fn discard(
    Writer(account): Writer,
    State(api): Api,
    PcapId(id): PcapId,
) -> Result<StatusCode, Failure> {
    api.captures.discard(account, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn progress(Reader(account): Reader, State(api): Api, PcapId(id): PcapId) -> Result<Response, Failure> {
    Ok(success(api.captures.progress(account, id).await?))
}
