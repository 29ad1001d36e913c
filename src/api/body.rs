//! Bodies as they were written. Owns the members' names; not what their values may be.
//!
//! Invariant: every member that was sent is here, known or not, so that all that is wrong can be said at once, and none is there twice.
//! No message repeats a value, which may be a credential.

use super::codes::Code;
use super::envelope::Failure;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::{Map, Value};
use std::fmt;

/// The body of `POST …/pcaps`. `null` is absent; one of these members twice is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
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
#[serde(default)]
pub(super) struct OwnershipBody {
    pub(super) destination_conf: Option<Value>,
    pub(super) ownership_challenge: Option<Value>,
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

/// The body of `POST …/pcaps/estimate`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
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
    let said = |error: serde_json::Error| Failure::new(Code::MalformedBody, said(&bytes, &error));
    let Unique(body) = serde_json::from_slice(&bytes).map_err(said)?;
    if !body.is_object() {
        return Err(Failure::new(Code::MalformedBody, "the body cannot be read: it is no JSON object"));
    }
    serde_json::from_value(body).map_err(said)
}

/// What is wrong with a body. The parser's own words on values and names have what was sent in them; those on its form have not.
fn said(bytes: &[u8], error: &serde_json::Error) -> String {
    let at = format!("at line {} column {}", error.line(), error.column());
    match error.classify() {
        Category::Syntax | Category::Eof => format!("the body cannot be read: {error}"),
        _ if bytes.trim_ascii_start().starts_with(b"{") => {
            format!("the body cannot be read: a member is there twice, {at}")
        }
        _ => "the body cannot be read: it is no JSON object".to_owned(),
    }
}

/// JSON in which no object has a member twice: of two, one would decide in silence.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, _>()? {
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is there twice"));
            }
        }
        Ok(Value::Object(all))
    }
}
