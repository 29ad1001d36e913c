//! A job as the API shows it. Owns which members a result has; not the envelope around it.
//!
//! Invariant: unset is absent, never null or empty, and a result has only members of its type: one more, and the Go SDK
//! decodes a full capture as a simple one, or the Python SDK a simple one as full.

use crate::job::{ColoStyle, Job, Kind, Status};
use crate::matcher::FilterV1;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Number;

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Pcap<'a> {
    Simple(Simple<'a>),
    Full(Full<'a>),
}

#[derive(Serialize)]
pub(super) struct Simple<'a> {
    id: &'a str,
    submitted: String,
    filter_v1: &'a FilterV1,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_limit: Option<Number>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset_time: Option<&'a str>,
    /// Not in OpenAPI; the documentation's examples have it, and no SDK minds.
    packets_remaining: u64,
    #[serde(rename = "type")]
    kind: Kind,
    system: &'static str,
}

#[derive(Serialize)]
pub(super) struct Full<'a> {
    id: &'a str,
    submitted: String,
    filter_v1: &'a FilterV1,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_limit: Option<Number>,
    status: Status,
    #[serde(rename = "type")]
    kind: Kind,
    system: &'static str,
    /// Only in the style of the documentation's curl; the Go SDK cannot decode it.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    byte_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    colo_name: Option<&'a str>,
    /// As `packet_limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    colo: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_conf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packets_captured: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_requested: Option<String>,
}

const SYSTEM: &str = "magic-transit";

/// How `job` is shown.
pub(super) fn pcap(job: &Job) -> Pcap<'_> {
    let request = &job.request;
    match request.kind {
        Kind::Simple => Pcap::Simple(Simple {
            id: job.id.as_str(),
            submitted: date_time(job.submitted),
            filter_v1: &request.filter,
            time_limit: seconds(request.time_limit),
            status: job.status,
            offset_time: request.offset_time.as_ref().map(|offset| offset.sent.as_str()),
            packets_remaining: packets_remaining(job),
            kind: request.kind,
            system: SYSTEM,
        }),
        Kind::Full => {
            let colo = request.colo.as_deref();
            let with_colo = request.colo_style == ColoStyle::Colo;
            Pcap::Full(Full {
                id: job.id.as_str(),
                submitted: date_time(job.submitted),
                filter_v1: &request.filter,
                time_limit: seconds(request.time_limit),
                status: job.status,
                kind: request.kind,
                system: SYSTEM,
                packet_limit: request.packet_limit.filter(|_| with_colo),
                byte_limit: request.byte_limit,
                colo_name: colo,
                colo: colo.filter(|_| with_colo),
                destination_conf: request.destination.as_ref().map(ToString::to_string),
                error_message: job.error_message.as_deref(),
                packets_captured: (job.status != Status::Pending).then_some(job.ledger.captured),
                stop_requested: job.stop_requested.map(date_time),
            })
        }
    }
}

/// Packets until the limit while packets are taken; none once that is over, as in the documentation's examples.
fn packets_remaining(job: &Job) -> u64 {
    match job.status {
        Status::Pending | Status::Running if job.stop_reason.is_none() => {
            job.request.packet_limit.map_or(0, |limit| limit.saturating_sub(job.ledger.captured))
        }
        _ => 0,
    }
}

/// RFC 3339 with microseconds and `Z`, as in all of the documentation's examples.
pub(super) fn date_time(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// Whole seconds without `.0`, as they are usually sent; none for what JSON cannot say.
fn seconds(seconds: f64) -> Option<Number> {
    if seconds.fract() == 0.0 && (0.0..9e15).contains(&seconds) {
        return Some(Number::from(seconds as u64));
    }
    Number::from_f64(seconds)
}
