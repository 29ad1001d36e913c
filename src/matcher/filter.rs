//! `filter_v1` as it is sent. Owns the members and their names.

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// `filter_v1` as sent and echoed: every member present must match; none takes every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
