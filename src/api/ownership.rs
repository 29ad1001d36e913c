//! `/accounts/{account}/pcaps/ownership`. Owns these routes and how an entry is shown; not what proves it.

use super::ApiState;
use super::auth::{Reader, Writer};
use super::body;
use super::codes::Code;
use super::envelope::{Failure, Problem, success, success_with};
use super::result::date_time;
use super::route::{Api, PcapId, Routes};
use super::session::audit;
use super::{trail, validate};
use crate::job::AccountId;
use crate::ownership::{OwnershipError, Proof, ended};
use crate::seldom::SeldomOfEach;
use crate::store::Bucket;
use crate::upload::UploadError;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde::Serialize;
use serde_json::json;
use std::time::Instant;

/// The routes, without prefix.
pub(super) fn routes() -> Routes {
    vec![
        ("/accounts/{account}/pcaps/ownership", get(list).post(create)),
        ("/accounts/{account}/pcaps/ownership/validate", post(prove)),
        ("/accounts/{account}/pcaps/ownership/{id}", delete(remove)),
    ]
}

/// An entry as the SDKs read it. Only `validated` may be empty, as on Cloudflare's page.
#[derive(Serialize)]
struct Shown {
    id: String,
    status: &'static str,
    submitted: String,
    validated: String,
    destination_conf: String,
    filename: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_bucket_owner: Option<String>,
}

fn shown(api: &ApiState, bucket: Bucket) -> Shown {
    let proof = api.ownership.standing(&bucket);
    Shown {
        status: match proof {
            Proof::Pending => "pending",
            Proof::Success => "success",
            Proof::Failed | Proof::Aged(_) | Proof::Lost(_) => "failed",
        },
        id: bucket.id.to_string(),
        submitted: date_time(bucket.submitted),
        validated: bucket.validated.filter(|_| proof == Proof::Success).map(date_time).unwrap_or_default(),
        expected_bucket_owner: bucket.owner,
        destination_conf: bucket.destination,
        filename: bucket.filename,
    }
}

async fn create(
    Writer(account): Writer,
    State(api): Api,
    parts: Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = body::parse(body, api.request_bytes_max)?;
    let (destination, sent) = validate::ownership(&body, &api.terms.now().rules)?;
    trail::says(&parts, || json!({"destination_conf": destination.to_string()}));
    let created = api.ownership.create(account.clone(), &destination, sent).await;
    let bucket = created.inspect_err(|error| unwritten(&account, error))?;
    trail::about(&parts, &bucket.id);
    audit(&parts, &format!("challenge in a bucket, {}", bucket.id), Some(&account));
    Ok(success(shown(&api, bucket)))
}

/// Tells the operator why a challenge could not be written, which the customer may not read in all its words.
fn unwritten(account: &AccountId, error: &OwnershipError) {
    static SAID: SeldomOfEach = SeldomOfEach::new();
    let is_of_place = matches!(error, OwnershipError::Destination(cause) if !matches!(cause, UploadError::Unreachable { .. }));
    if is_of_place && SAID.may(&account.0, Instant::now()) {
        tracing::info!(
            %account, %error,
            "a challenge could not be written; more of this account within a minute are not told"
        );
    }
}

async fn prove(
    Writer(account): Writer,
    State(api): Api,
    parts: Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = body::parse(body, api.request_bytes_max)?;
    let (destination, challenge) = validate::proof(&body, &api.terms.now().rules)?;
    trail::says(&parts, || json!({"destination_conf": destination.to_string()}));
    let bucket = api.ownership.validate(&account, &destination, &challenge).await?;
    trail::about(&parts, &bucket.id);
    audit(&parts, &format!("proof of a bucket, {}", bucket.id), Some(&account));
    Ok(success(shown(&api, bucket)))
}

async fn list(Reader(account): Reader, State(api): Api) -> Result<Response, Failure> {
    let buckets = api.ownership.list(&account).await?;
    // No member of an entry says why it failed.
    let notes = buckets.iter().filter_map(|bucket| ended(bucket, api.ownership.standing(bucket)));
    let notes = notes.map(|note| Problem::new(Code::ProofEnded, note)).collect();
    Ok(success_with(buckets.into_iter().map(|bucket| shown(&api, bucket)).collect::<Vec<_>>(), notes))
}

/// No body is read: Python announces JSON and sends none.
async fn remove(
    Writer(account): Writer,
    State(api): Api,
    PcapId(id): PcapId,
    parts: Parts,
) -> Result<StatusCode, Failure> {
    api.ownership.remove(&account, id.clone()).await?;
    audit(&parts, &format!("removal of a bucket, {id}"), Some(&account));
    Ok(StatusCode::NO_CONTENT)
}
