//! `/accounts/{account}/pcaps`. Owns these routes: parse, ask the engine, render; not how each is done.

use super::auth::{Reader, Writer};
use super::codes::Code;
use super::envelope::{Failure, Problem, ResultInfo, page, success, success_with};
use super::route::{Api, PcapId, Routes};
use super::session::audit;
use super::{ApiState, body, paging, result, trail, validate};
use crate::engine::Listed;
use crate::job::{AccountId, Kind, ObjectRange, Status};
use crate::ownership::{Proof, ended};
use crate::store::Bucket;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
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
    parts: Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = body::parse(body, api.request_bytes_max)?;
    let terms = api.terms.now();
    let request = validate::capture_request(account, &body, &terms.rules)?;
    if let Some(destination) = &request.destination
        && terms.rules.needs_proof(destination)
    {
        let entry = api.ownership.entry(&request.account, destination).await?;
        unproven(&api, entry.as_ref()).map_or(Ok(()), Err)?;
    }
    trail::says(&parts, || trail::asked(&request));
    let job = api.captures.create(request).await?;
    trail::about(&parts, &job.id);
    audit(&parts, &format!("start of {}", job.id), Some(&job.request.account));
    Ok(success(result::pcap(&job)))
}

/// Why an account's entry of a destination lets no capture go there.
fn unproven(api: &ApiState, entry: Option<&Bucket>) -> Option<Failure> {
    let standing = entry.map(|entry| (entry, api.ownership.standing(entry)));
    if let Some((_, Proof::Success)) = standing {
        return None;
    }
    let message = standing.and_then(|(entry, proof)| ended(entry, proof)).unwrap_or_else(|| {
        "destination_conf is not proven to be yours; POST it to …/pcaps/ownership, then the content of the object that \
         appears there to …/pcaps/ownership/validate"
            .to_owned()
    });
    Some(Failure::at("/destination_conf", Code::NotValidated, message))
}

async fn list(
    Reader(account): Reader,
    State(api): Api,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    // Without a query the answer is what the SDKs know.
    let wanted = query.as_deref().filter(|query| !query.is_empty()).map(paging::wanted).transpose()?;
    let Some(wanted) = wanted else {
        let jobs = api.captures.list(account.clone()).await?;
        let notes = held(&api, account).await?;
        return Ok(success_with(jobs.iter().map(result::pcap).collect::<Vec<_>>(), notes));
    };
    let per_page = wanted.count_max;
    let Listed { jobs, next, total } = api.captures.page(account.clone(), wanted).await?;
    let notes = held(&api, account).await?;
    let next = next.map(|id| id.to_string());
    let info = ResultInfo { count: jobs.len(), per_page, total_count: total, next };
    Ok(page(jobs.iter().map(result::pcap).collect::<Vec<_>>(), notes, info))
}

/// What captures of an account have on this host, as notes: no result has a member for it.
async fn held(api: &ApiState, account: AccountId) -> Result<Vec<Problem>, Failure> {
    let notes = api.captures.held(account).await?.into_iter().map(|(id, bytes)| {
        Problem::new(Code::Held, format!("{id} has {bytes} bytes on this host that are not delivered"))
    });
    Ok(notes.collect())
}

async fn one(Reader(account): Reader, State(api): Api, PcapId(id): PcapId) -> Result<Response, Failure> {
    let job = api.captures.get(account.clone(), id.clone()).await?;
    // A simple result cannot carry `error_message`: with it, the Python SDK takes it for a full one.
    let mut notes = match (&job.request.kind, &job.error_message) {
        (Kind::Simple, Some(message)) => {
            let is_there = job.status != Status::Failed;
            let code = if is_there { Code::HostsMissing } else { Code::SimpleFailed };
            vec![Problem::new(code, message.as_str())]
        }
        _ => Vec::new(),
    };
    // Nor can any result carry warnings: who reads progress has them there, and an SDK's user at least in the envelope.
    if !job.status.ended() {
        let none = ObjectRange { from: 0, count_max: 0 };
        let warnings = api.captures.progress_with(account, id, none).await?.warnings;
        notes.extend(warnings.into_iter().map(|warning| Problem::new(Code::Threatened, warning)));
    }
    Ok(success_with(result::pcap(&job), notes))
}

/// No body is read: Python announces JSON and sends none, TypeScript and Go announce nothing.
async fn stop(
    Writer(account): Writer,
    State(api): Api,
    PcapId(id): PcapId,
    parts: Parts,
) -> Result<StatusCode, Failure> {
    api.captures.stop(account.clone(), id.clone()).await?;
    audit(&parts, &format!("stop of {id}"), Some(&account));
    Ok(StatusCode::NO_CONTENT)
}

/// Drops what is on this host of a capture that waits for its upload or has failed. No body is read.
async fn discard(
    Writer(account): Writer,
    State(api): Api,
    PcapId(id): PcapId,
    parts: Parts,
) -> Result<StatusCode, Failure> {
    api.captures.discard(account.clone(), id.clone()).await?;
    audit(&parts, &format!("drop of {id}"), Some(&account));
    Ok(StatusCode::NO_CONTENT)
}

async fn progress(
    Reader(account): Reader,
    State(api): Api,
    PcapId(id): PcapId,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let range = paging::objects(query.as_deref().unwrap_or(""))?;
    Ok(success(api.captures.progress_with(account, id, range).await?))
}
