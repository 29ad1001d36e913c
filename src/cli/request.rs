//! From typed arguments to the body of a request. Owns what can be refused before a server is asked.
//!
//! Invariant: what leaves here has every member that the API requires for its type.

use super::args::{CaptureType, FilterV1Args, StartArgs};
use crate::config::ByteSize;
use crate::matcher::FilterV1;
use crate::pcap::{Compression, Container};
use serde::Serialize;
use serde_json::Number;

/// Arguments that cannot be a request.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A missing option.
    #[error("a {kind} capture needs {option}")]
    Missing {
        /// `full` or `simple`.
        kind: &'static str,
        /// The option with an example.
        option: &'static str,
    },
    /// An option that only a simple capture has.
    #[error("a full capture takes no {0}; leave it out or use --type simple")]
    NotFull(&'static str),
    /// An option that only a full capture has.
    #[error("a simple capture takes no {0}; leave it out or use --type full")]
    NotSimple(&'static str),
    /// Not JSON, or not a filter's members.
    #[error("--filter-v1 {text}: {reason}; write such as {{\"protocol\":6,\"destination_port\":443}}")]
    Filter {
        /// As typed.
        text: String,
        /// The parser's words.
        reason: String,
    },
    /// No such protocol.
    #[error("--protocol {0}: write a number from 0 to 255, or tcp, udp, icmp, icmpv6, sctp, gre or esp")]
    Protocol(String),
    /// Not a size.
    #[error("--byte-limit {0}: write a whole number of bytes, or such as 100MB or 1GiB")]
    ByteLimit(String),
    /// Not a duration.
    #[error("--time-limit {0}: write a number of seconds above zero")]
    TimeLimit(f64),
}

/// The body of `POST …/pcaps`. Members of the other type are absent, not null.
#[derive(Debug, PartialEq, Serialize)]
pub struct Body {
    system: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    time_limit: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    packet_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    byte_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    colo_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_conf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset_time: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<Compression>,
    filter_v1: FilterV1,
}

/// The body that `args` ask for.
///
/// # Errors
/// What is missing, superfluous or of no legal form.
pub fn body(args: &StartArgs) -> Result<Body, Error> {
    let seconds = args.time_limit;
    let whole = seconds > 0.0 && seconds.fract() == 0.0 && seconds < 1e15;
    let time_limit = match whole {
        true => Some(Number::from(seconds as u64)),
        false => Number::from_f64(seconds).filter(|_| seconds > 0.0),
    };
    let byte_limit = args.byte_limit.as_deref().map(|text| {
        ByteSize::parse(text).map(|size| size.0).ok_or_else(|| Error::ByteLimit(text.to_owned()))
    });
    let kind = match args.kind {
        CaptureType::Full => {
            let missing = |option| Error::Missing { kind: "full", option };
            args.colo_name.as_ref().ok_or(missing("--colo-name COLO, such as --colo-name ord02"))?;
            let example = "--destination-conf URI, such as --destination-conf s3://bucket?region=us-east-1";
            args.destination_conf.as_ref().ok_or(missing(example))?;
            if args.offset_time.is_some() {
                return Err(Error::NotFull("--offset-time"));
            }
            "full"
        }
        CaptureType::Simple => {
            let option = "--packet-limit PACKETS, such as --packet-limit 10000";
            args.packet_limit.ok_or(Error::Missing { kind: "simple", option })?;
            for (option, given) in [
                ("--colo-name", args.colo_name.is_some()),
                ("--destination-conf", args.destination_conf.is_some()),
                ("--byte-limit", args.byte_limit.is_some()),
                ("--format", args.format.is_some()),
                ("--compression", args.compression.is_some()),
            ] {
                if given {
                    return Err(Error::NotSimple(option));
                }
            }
            "simple"
        }
    };
    Ok(Body {
        system: "magic-transit",
        kind,
        time_limit: time_limit.ok_or(Error::TimeLimit(seconds))?,
        packet_limit: args.packet_limit,
        byte_limit: byte_limit.transpose()?,
        colo_name: args.colo_name.clone(),
        destination_conf: args.destination_conf.clone(),
        offset_time: args.offset_time,
        format: args.format.map(Container::from),
        compression: args.compression.map(Compression::from),
        filter_v1: filter(&args.filter)?,
    })
}

/// The filter that `args` describe.
///
/// # Errors
/// JSON that is no filter, or a protocol that has no number.
pub fn filter(args: &FilterV1Args) -> Result<FilterV1, Error> {
    if let Some(text) = &args.filter_v1 {
        return serde_json::from_str(text)
            .map_err(|error| Error::Filter { text: text.clone(), reason: error.to_string() });
    }
    Ok(FilterV1 {
        source_address: args.source_address.clone(),
        destination_address: args.destination_address.clone(),
        source_port: args.source_port.map(Number::from),
        destination_port: args.destination_port.map(Number::from),
        protocol: args.protocol.as_deref().map(protocol).transpose()?,
    })
}

/// A protocol's number (IANA, Assigned Internet Protocol Numbers).
fn protocol(text: &str) -> Result<Number, Error> {
    let number: u8 = match text.to_ascii_lowercase().as_str() {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "gre" => 47,
        "esp" => 50,
        "icmpv6" => 58,
        "sctp" => 132,
        other => other.parse().map_err(|_| Error::Protocol(text.to_owned()))?,
    };
    Ok(Number::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{CompressionArg, FormatArg};
    use serde_json::json;

    fn args(kind: CaptureType) -> StartArgs {
        StartArgs {
            wait: false,
            kind,
            filter: FilterV1Args::default(),
            time_limit: 60.0,
            packet_limit: None,
            byte_limit: None,
            colo_name: None,
            destination_conf: None,
            offset_time: None,
            format: None,
            compression: None,
        }
    }

    #[test]
    fn the_bodies_are_those_of_the_api() {
        let mut full = args(CaptureType::Full);
        full.colo_name = Some("ORD".to_owned());
        full.destination_conf = Some("s3://b?region=r".to_owned());
        full.byte_limit = Some("100MB".to_owned());
        full.format = Some(FormatArg::Pcapng);
        full.compression = Some(CompressionArg::Zstd);
        full.filter.protocol = Some("TCP".to_owned());
        full.filter.destination_port = Some(443);
        assert_eq!(
            serde_json::to_value(body(&full).unwrap()).unwrap(),
            json!({"system": "magic-transit", "type": "full", "time_limit": 60, "byte_limit": 100_000_000,
                   "colo_name": "ORD", "destination_conf": "s3://b?region=r", "format": "pcapng", "compression": "zstd",
                   "filter_v1": {"destination_port": 443, "protocol": 6}})
        );
        let mut simple = args(CaptureType::Simple);
        simple.packet_limit = Some(5);
        simple.time_limit = 0.5;
        simple.offset_time = Some("2026-11-24T09:00:00.5+01:00".parse().unwrap());
        simple.filter.filter_v1 = Some(r#"{"source_port": 80.0}"#.to_owned());
        assert_eq!(
            serde_json::to_value(body(&simple).unwrap()).unwrap(),
            json!({"system": "magic-transit", "type": "simple", "time_limit": 0.5, "packet_limit": 5,
                   "offset_time": "2026-11-24T08:00:00.5Z", "filter_v1": {"source_port": 80.0}})
        );
    }

    #[test]
    fn what_the_api_would_refuse_is_refused_with_the_option() {
        let message = |change: fn(&mut StartArgs)| {
            let mut args = args(CaptureType::Full);
            args.colo_name = Some("ORD".to_owned());
            args.destination_conf = Some("file:///x".to_owned());
            change(&mut args);
            body(&args).unwrap_err().to_string()
        };
        assert!(message(|args| args.colo_name = None).starts_with("a full capture needs --colo-name"));
        assert!(message(|args| args.destination_conf = None).contains("--destination-conf s3://"));
        assert!(message(|args| args.kind = CaptureType::Simple).contains("--packet-limit"));
        assert!(message(|args| args.time_limit = f64::NAN).contains("--time-limit NaN"));
        assert!(message(|args| args.time_limit = -1.0).contains("--time-limit -1"));
        assert!(message(|args| args.byte_limit = Some("much".to_owned())).contains("--byte-limit much"));
        assert!(message(|args| args.filter.protocol = Some("256".to_owned())).contains("--protocol 256"));
        assert!(
            message(|args| args.filter.filter_v1 = Some("{\"port\":1}".to_owned())).contains("unknown field")
        );
        assert!(
            message(|args| args.offset_time = Some(jiff::Timestamp::UNIX_EPOCH))
                .contains("takes no --offset-time")
        );
        let simple = |args: &mut StartArgs| (args.kind, args.packet_limit) = (CaptureType::Simple, Some(1));
        assert!(message(simple).contains("takes no --colo-name"));
        let formatted = |args: &mut StartArgs| {
            (args.kind, args.packet_limit, args.colo_name) = (CaptureType::Simple, Some(1), None);
            (args.destination_conf, args.format) = (None, Some(FormatArg::Pcapng));
        };
        assert!(message(formatted).contains("takes no --format"));
    }
}
