//! `filter_v1` as it is sent. Owns the members and their names.

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;
use std::fmt;

/// `filter_v1` as sent and echoed: every member present must match; none takes every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct FilterV1 {
    /// IPv4 or IPv6 address, also with a prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// IPv4 or IPv6 address, also with a prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_address: Option<String>,
    /// TCP, UDP or SCTP port; SDKs send floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<Number>,
    /// TCP, UDP or SCTP port; SDKs send floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<Number>,
    /// IP protocol number; SDKs send floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Number>,
}

impl Serialize for FilterV1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Derived code would also read an array, and take `[]` for a filter that takes every packet; so only an object is
/// handed to it.
impl<'de> Deserialize<'de> for FilterV1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = FilterV1;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<FilterV1, M::Error> {
                FilterV1::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
