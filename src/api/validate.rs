//! From what was sent to a [`Request`]. Owns which members a type of capture has and their ranges; not how one value is
//! checked (`check`), nor filters and destinations, which check themselves.
//!
//! Invariant: a request that leaves here is true, nothing downstream checks it again; one that does not is answered with
//! everything that is wrong with it, each item with a pointer to the member.

use super::Rules;
use super::body::{CreateBody, EstimateBody, OwnershipBody};
use super::check::{Check, name, shown};
use super::codes::Code;
use super::envelope::Failure;
use crate::engine::Asked;
use crate::job::{AccountId, ColoStyle, Kind, OffsetTime, Request};
use crate::job::{Destination, DestinationError, Sent};
use crate::limits::ESTIMATE_SECONDS_MAX;
use crate::matcher::FilterV1;
use crate::pcap::{Compression, Container};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;

/// Checks `body` for `account`, under the host's `rules`.
pub(super) fn capture_request(
    account: AccountId,
    body: &CreateBody,
    rules: &Rules,
) -> Result<Request, Failure> {
    let mut check = Check::default();
    check.unknown("", &body.unknown);
    check.one_of("/system", body.system.as_ref(), &["magic-transit"]);
    let kind = match check.one_of("/type", body.kind.as_ref(), &["simple", "full"]) {
        Some("simple") => Some(Kind::Simple),
        Some(_) => Some(Kind::Full),
        None => None,
    };
    let filter = check.filter(body.filter_v1.as_ref());
    let request = match kind {
        Some(Kind::Simple) => check.simple(account, filter, body, rules),
        Some(Kind::Full) => check.full(account, filter, body, rules),
        None => {
            check.seconds("/time_limit", body.time_limit.as_ref(), rules.time_limit_seconds_max);
            None
        }
    };
    whole(check, request)
}

/// Checks what an estimate is asked of.
pub(super) fn estimate(body: &EstimateBody) -> Result<Asked, Failure> {
    let mut check = Check::default();
    check.unknown("", &body.unknown);
    let filter = check.filter(body.filter_v1.as_ref());
    let seconds = check.seconds("/seconds", body.seconds.as_ref(), ESTIMATE_SECONDS_MAX);
    whole(check, seconds.map(|seconds| Asked { filter, window: Duration::from_secs_f64(seconds) }))
}

/// Checks what is sent to add a bucket: its destination, and the access keys or the owner that may come with it.
pub(super) fn ownership(body: &OwnershipBody, rules: &Rules) -> Result<(Destination, Sent), Failure> {
    let mut check = Check::default();
    check.unknown("", &body.unknown);
    check.absent("/ownership_challenge", body.ownership_challenge.as_ref(), "a new ownership");
    let uri = check.destination_uri(body.destination_conf.as_ref());
    let destination = uri.and_then(|uri| check.destination(Destination::parse_sent(uri), rules));
    whole(check, destination)
}

/// Checks what is sent to prove a bucket: its destination and the challenge's content.
pub(super) fn proof(body: &OwnershipBody, rules: &Rules) -> Result<(Destination, String), Failure> {
    let mut check = Check::default();
    check.unknown("", &body.unknown);
    let destination = check.destination_conf(body.destination_conf.as_ref(), rules);
    let pointer = "/ownership_challenge";
    let challenge = check
        .required(pointer, body.ownership_challenge.as_ref())
        .and_then(|value| check.secret_text(pointer, value));
    let challenge = challenge.map(str::to_owned);
    whole(check, destination.zip(challenge))
}

/// What was found right, if nothing was noted.
fn whole<T>(check: Check, found: Option<T>) -> Result<T, Failure> {
    match (Failure::of(check.into_problems()), found) {
        (Some(failure), _) => Err(failure),
        (None, Some(found)) => Ok(found),
        (None, None) => Err(Failure::new(Code::Internal, "this request was refused without a reason")),
    }
}

impl Check {
    fn simple(
        &mut self,
        account: AccountId,
        filter: FilterV1,
        body: &CreateBody,
        rules: &Rules,
    ) -> Option<Request> {
        self.absent("/byte_limit", body.byte_limit.as_ref(), "simple captures");
        self.absent("/colo_name", body.colo_name.as_ref(), "simple captures");
        self.absent("/colo", body.colo.as_ref(), "simple captures");
        self.absent("/destination_conf", body.destination_conf.as_ref(), "simple captures");
        self.absent("/format", body.format.as_ref(), "simple captures");
        self.absent("/compression", body.compression.as_ref(), "simple captures");
        let offset_time = body.offset_time.as_ref().map(|value| self.offset_time(value, rules));
        let time_limit =
            self.seconds("/time_limit", body.time_limit.as_ref(), rules.simple_time_limit_seconds_max);
        let packet_limit = self
            .required("/packet_limit", body.packet_limit.as_ref())
            .and_then(|value| self.count("/packet_limit", value, rules.simple_packet_limit_max));
        Some(Request {
            account,
            kind: Kind::Simple,
            filter,
            time_limit: time_limit?,
            packet_limit: Some(packet_limit?),
            byte_limit: None,
            colo: None,
            colo_style: ColoStyle::ColoName,
            destination: None,
            offset_time: offset_time.map_or(Some(None), |offset| offset.map(Some))?,
            format: None,
            compression: None,
        })
    }

    /// The moment that a simple capture looks back from.
    fn offset_time(&mut self, value: &Value, rules: &Rules) -> Option<OffsetTime> {
        let pointer = "/offset_time";
        let Some(back_max) = rules.history else {
            let message = "offset_time is not supported: this host keeps no past packets; \
                           leave it out to capture from now on";
            self.note(pointer, Code::NotSupported, message);
            return None;
        };
        let sent = self.text(pointer, value)?;
        let now = Timestamp::now();
        let at = sent.parse::<Timestamp>().ok();
        let within = at.filter(|at| *at <= now && now.duration_since(*at).unsigned_abs() <= back_max);
        if within.is_none() {
            let message = format!(
                "offset_time is {}, must be an RFC 3339 date-time within the {} hours before now, {now:.3} on this host",
                shown(value),
                back_max.as_secs() / 3600,
            );
            self.note(pointer, Code::InvalidValue, message);
        }
        within.map(|at| OffsetTime { sent: sent.to_owned(), at })
    }

    fn full(
        &mut self,
        account: AccountId,
        filter: FilterV1,
        body: &CreateBody,
        rules: &Rules,
    ) -> Option<Request> {
        self.absent("/offset_time", body.offset_time.as_ref(), "full captures");
        let time_limit = self.seconds("/time_limit", body.time_limit.as_ref(), rules.time_limit_seconds_max);
        let packet_limit = self.bounded("/packet_limit", body.packet_limit.as_ref(), rules.packet_limit_max);
        let byte_limit = self.bounded("/byte_limit", body.byte_limit.as_ref(), rules.byte_limit_max);
        let colo = self.colo(body, rules);
        let destination = self.destination_conf(body.destination_conf.as_ref(), rules);
        let format = body.format.as_ref();
        let format = format.and_then(|value| self.one_of("/format", Some(value), &["pcap", "pcapng"]));
        let compression = body.compression.as_ref();
        let compression =
            compression.and_then(|value| self.one_of("/compression", Some(value), &["none", "zstd"]));
        let (colo, colo_style) = colo?;
        Some(Request {
            account,
            kind: Kind::Full,
            filter,
            time_limit: time_limit?,
            packet_limit,
            byte_limit,
            colo: Some(colo),
            colo_style,
            destination: Some(destination?),
            offset_time: None,
            format: format.map(|format| if format == "pcapng" { Container::PcapNg } else { Container::Pcap }),
            compression: compression
                .map(|by| if by == "zstd" { Compression::Zstd } else { Compression::None }),
        })
    }

    /// Where the capture runs. `colo_name` decides how answers are styled when both are there: it is what an SDK sends.
    fn colo(&mut self, body: &CreateBody, rules: &Rules) -> Option<(String, ColoStyle)> {
        let colo = body.colo.as_ref().map(|value| self.colo_here("/colo", value, rules));
        let Some(value) = body.colo_name.as_ref() else {
            if colo.is_none() {
                self.required("/colo_name", None);
            }
            return Some((colo??.to_owned(), ColoStyle::Colo));
        };
        let colo_name = self.colo_here("/colo_name", value, rules)?;
        if let Some(colo) = colo {
            let colo = colo?;
            if !colo.eq_ignore_ascii_case(colo_name) {
                let message =
                    format!("colo {colo:?} and colo_name {colo_name:?} differ; send colo_name alone");
                self.note("/colo", Code::InvalidValue, message);
                return None;
            }
        }
        Some((colo_name.to_owned(), ColoStyle::ColoName))
    }

    fn colo_here<'a>(&mut self, pointer: &str, value: &'a Value, rules: &Rules) -> Option<&'a str> {
        let colo = self.text(pointer, value)?;
        let is_start =
            |here: &String| here.get(..colo.len()).is_some_and(|start| start.eq_ignore_ascii_case(colo));
        if colo.is_empty() || !rules.colo.as_ref().is_none_or(is_start) {
            let message = format!(
                "{} is {}, must be {:?}, where this host captures, or its beginning",
                name(pointer),
                shown(value),
                rules.colo.as_deref().unwrap_or("a data center of the fleet")
            );
            self.note(pointer, Code::InvalidValue, message);
            return None;
        }
        Some(colo)
    }

    fn destination_conf(&mut self, value: Option<&Value>, rules: &Rules) -> Option<Destination> {
        let uri = self.destination_uri(value)?;
        let read = Destination::parse(uri).map(|destination| (destination, Sent::default()));
        self.destination(read, rules).map(|(destination, _)| destination)
    }

    fn destination_uri<'a>(&mut self, value: Option<&'a Value>) -> Option<&'a str> {
        let pointer = "/destination_conf";
        self.required(pointer, value).and_then(|value| self.secret_text(pointer, value))
    }

    fn destination(
        &mut self,
        read: Result<(Destination, Sent), DestinationError>,
        rules: &Rules,
    ) -> Option<(Destination, Sent)> {
        let pointer = "/destination_conf";
        match read {
            Ok((Destination::File { .. }, _)) if !rules.allow_file => {
                let message = "destination_conf names a directory of this host, which its operator has not allowed; \
                               use s3://bucket?region=region";
                self.note(pointer, Code::NotSupported, message);
                None
            }
            Ok(destination) => Some(destination),
            // The URI is not repeated here: a wrong one may carry keys.
            Err(error) => {
                self.note(pointer, Code::InvalidValue, format!("destination_conf: {error}"));
                None
            }
        }
    }
}
