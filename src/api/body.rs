//! A create request as it was written. Owns the members' names; not what their values may be.
//!
//! Invariant: every member that was sent is here, known or not, so that all that is wrong can be said at once.

use super::codes::Code;
use super::envelope::Failure;
use serde::Deserialize;
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
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

impl CreateBody {
    /// Reads a body, whatever its `Content-Type`: there is only one thing that it can be.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        if bytes.trim_ascii().is_empty() {
            return Err(Failure::new(Code::MalformedBody, "the body is empty; send a JSON object"));
        }
        serde_json::from_slice(bytes)
            .map_err(|error| Failure::new(Code::MalformedBody, format!("the body cannot be read: {error}")))
    }
}
