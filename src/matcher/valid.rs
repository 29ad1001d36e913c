//! `filter_v1` once it is true. Owns validation and what is refused; the choices are argued in `docs/FILTERS.md`.
//!
//! Invariant: a [`Filter`] can match some packet, and nothing downstream checks it again.

use super::FilterV1;
use ipnet::IpNet;
use serde_json::Number;
use std::net::IpAddr;

/// Longest text of an address with prefix length: six IPv6 groups, a dotted quad, and `/128`.
const ADDRESS_CHARS_MAX: usize = 49;

/// What a packet must be to match; see [`FilterV1`]. None in every member takes every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub(super) source: Option<IpNet>,
    pub(super) destination: Option<IpNet>,
    pub(super) source_port: Option<u16>,
    pub(super) destination_port: Option<u16>,
    pub(super) protocol: Option<u8>,
}

/// Why a `filter_v1` was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not an address.
    #[error(
        "{member} {value:?} is neither an address nor a prefix; write it like 192.0.2.1, 192.0.2.0/24, 2001:db8::1 \
         or 2001:db8::/32"
    )]
    Address {
        /// The member's name.
        member: &'static str,
        /// What was sent, cut if long.
        value: String,
    },
    /// A prefix with bits set behind its length.
    #[error("{member} {value} has host bits set; write {network} for the network or {host} for the host")]
    HostBits {
        /// The member's name.
        member: &'static str,
        /// What was sent.
        value: IpNet,
        /// The network that it lies in.
        network: IpNet,
        /// The address without the length.
        host: IpAddr,
    },
    /// An IPv4 address in IPv6's clothes, which packets never carry.
    #[error("{member} {value} is an IPv4-mapped address, which no packet carries; write the IPv4 address")]
    Mapped {
        /// The member's name.
        member: &'static str,
        /// What was sent.
        value: IpNet,
    },
    /// One end is IPv4 and the other IPv6.
    #[error(
        "source_address {source_address} and destination_address {destination_address} are of different IP versions, \
         so no packet can match; use one version or leave one out"
    )]
    Families {
        /// The source.
        source_address: IpNet,
        /// The destination.
        destination_address: IpNet,
    },
    /// Not a whole number in range.
    #[error("{member} must be a whole number from 0 to {max}, not {value}")]
    Number {
        /// The member's name.
        member: &'static str,
        /// What was sent.
        value: Number,
        /// The largest that is accepted.
        max: u16,
    },
    /// Ports are asked for in a protocol that has none.
    #[error(
        "protocol {protocol} has no ports, so no packet can match {member}; use protocol 6 (TCP), 17 (UDP) or \
         132 (SCTP), or leave one out"
    )]
    Portless {
        /// The member's name.
        member: &'static str,
        /// The protocol asked for.
        protocol: u8,
    },
}

impl TryFrom<&FilterV1> for Filter {
    type Error = FilterError;

    fn try_from(sent: &FilterV1) -> Result<Self, FilterError> {
        let source = address("source_address", sent.source_address.as_deref())?;
        let destination = address("destination_address", sent.destination_address.as_deref())?;
        if let (Some(source_address), Some(destination_address)) = (source, destination)
            && source_address.addr().is_ipv4() != destination_address.addr().is_ipv4()
        {
            return Err(FilterError::Families { source_address, destination_address });
        }
        let source_port = number("source_port", sent.source_port.as_ref(), u16::MAX)?;
        let destination_port = number("destination_port", sent.destination_port.as_ref(), u16::MAX)?;
        let protocol =
            number("protocol", sent.protocol.as_ref(), u16::from(u8::MAX))?.map(|protocol| protocol as u8);
        if let Some(protocol) = protocol.filter(|protocol| !matches!(protocol, 6 | 17 | 132)) {
            let asked = [("source_port", source_port), ("destination_port", destination_port)];
            if let Some((member, _)) = asked.into_iter().find(|(_, port)| port.is_some()) {
                return Err(FilterError::Portless { member, protocol });
            }
        }
        Ok(Self { source, destination, source_port, destination_port, protocol })
    }
}

impl Filter {
    /// Whether every packet matches, also one that is not IP.
    #[must_use]
    pub fn takes_everything(&self) -> bool {
        *self == Self::default()
    }
}

fn address(member: &'static str, text: Option<&str>) -> Result<Option<IpNet>, FilterError> {
    let Some(text) = text else { return Ok(None) };
    let refused = || FilterError::Address { member, value: shortened(text) };
    if text.len() > ADDRESS_CHARS_MAX {
        return Err(refused());
    }
    let value: IpNet = match text.contains('/') {
        true => text.parse().map_err(|_| refused())?,
        false => text.parse::<IpAddr>().map_err(|_| refused())?.into(),
    };
    if value.addr() != value.network() {
        return Err(FilterError::HostBits { member, value, network: value.trunc(), host: value.addr() });
    }
    if let IpNet::V6(v6) = value
        && v6.prefix_len() >= 96
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(FilterError::Mapped { member, value });
    }
    Ok(Some(value))
}

/// What of a wrong address is worth repeating: a request may carry megabytes.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(ADDRESS_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A JSON number up to `max`. SDKs declare these members as floats, so `80.0` is 80.
fn number(member: &'static str, sent: Option<&Number>, max: u16) -> Result<Option<u16>, FilterError> {
    let Some(value) = sent else { return Ok(None) };
    let range = 0.0..=f64::from(max);
    match value.as_f64().filter(|float| float.fract() == 0.0 && range.contains(float)) {
        Some(float) => Ok(Some(float as u16)),
        None => Err(FilterError::Number { member, value: value.clone(), max }),
    }
}
