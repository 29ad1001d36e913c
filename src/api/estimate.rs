//! `POST …/pcaps/estimate`: how many packets a capture would have had. Owns the form of the answer; not the counting.
//!
//! Invariant: an account gets an estimate of what its captures would see, and of nothing else.

use super::auth::Reader;
use super::envelope::{Failure, success};
use super::result::date_time;
use super::route::{Api, Routes};
use super::{body, validate};
use crate::engine::Estimate;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use axum::routing::post;
use jiff::Timestamp;
use serde_json::json;

/// The routes, without prefix.
pub(super) fn routes() -> Routes {
    vec![("/accounts/{account}/pcaps/estimate", post(estimate))]
}

/// Nothing is started by it, so that who may only read may ask.
async fn estimate(
    Reader(account): Reader,
    State(api): Api,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let asked = validate::estimate(&body::parse(body, api.request_bytes_max)?)?;
    let Estimate { from_ns, to_ns, packets, packets_low, packets_high, bytes, sample_one_in } =
        api.captures.estimate(account, asked).await?;
    Ok(success(json!({
        "from": time(from_ns), "to": time(to_ns), "packets": packets, "packets_low": packets_low,
        "packets_high": packets_high, "bytes": bytes, "sample_one_in": sample_one_in,
    })))
}

fn time(ns: u64) -> String {
    date_time(Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::MAX))
}
