//! Bodies as they were written. Owns the members' names; not what their values may be.
//!
//! Invariant: every member that was sent is here, known or not, so that all that is wrong can be said at once.

use super::codes::Code;
use super::envelope::Failure;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The body of `POST …/pcaps`. `null` is absent; one of these members twice is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "expected a JSON object")]
pub(super) struct CreateBody {
    pub(super) system: Option<Value>,
    #[serde(rename = "type")]
    pub(super) kind: Option<Value>,
    pub(super) time_limit: Option<Value>,
    pub(super) packet_limit: Option<Value>,
    pub(super) byte_limit: Option<Value>,
    pub(super) colo_name: Option<Value>,
    pub(super) colo: Option<Value>,
    pub(super) destination_conf: Option<Value>,
    pub(super) filter_v1: Option<Value>,
    pub(super) offset_time: Option<Value>,
    pub(super) format: Option<Value>,
    pub(super) compression: Option<Value>,
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

/// The bodies of `POST …/pcaps/ownership` and `…/ownership/validate`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "expected a JSON object")]
pub(super) struct OwnershipBody {
    pub(super) destination_conf: Option<Value>,
    pub(super) ownership_challenge: Option<Value>,
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

/// The body of `POST …/pcaps/estimate`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "expected a JSON object")]
pub(super) struct EstimateBody {
    pub(super) filter_v1: Option<Value>,
    pub(super) seconds: Option<Value>,
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

/// Reads a body, whatever its `Content-Type`: there is only one thing that it can be.
pub(super) fn parse<T: DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
    bytes_max: usize,
) -> Result<T, Failure> {
    let bytes = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::new(Code::BodyTooLarge, format!("the body is longer than {bytes_max} bytes"))
        }
        _ => Failure::new(Code::MalformedBody, "the body ended early"),
    })?;
    if bytes.trim_ascii().is_empty() {
        return Err(Failure::new(Code::MalformedBody, "the body is empty; send a JSON object"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(Code::MalformedBody, format!("the body cannot be read: {error}")))
}
