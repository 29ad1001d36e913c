//! Frames for tests: described, written as bytes, and what a parser must find in them. Owns a second opinion on the
//! headers that shares no code with the parser.

use super::{Key, flags};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes behind the ports in every frame; with them no frame is shorter than Ethernet allows.
const DATA_BYTES: usize = 40;

/// What is known about a frame, in words that a person would use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    pub protocol: Option<u8>,
    pub ports: Option<(u16, u16)>,
    pub fragment: bool,
}

impl From<&Key> for Facts {
    fn from(key: &Key) -> Self {
        let has = |flag| key.flags() & flag != 0;
        let address = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 16] = key.0[at..at + 16].try_into().unwrap();
            let address = Ipv6Addr::from(bytes);
            match (has(flags::IPV4), has(flags::IPV6)) {
                (true, false) => Some(address.to_ipv4_mapped().unwrap().into()),
                (false, true) => Some(address.into()),
                (false, false) => None,
                (true, true) => panic!("two families"),
            }
        };
        let port = |at: usize| u16::from_be_bytes([key.0[at], key.0[at + 1]]);
        Self {
            source: address(0),
            destination: address(16),
            protocol: has(flags::PROTOCOL).then_some(key.0[36]),
            ports: has(flags::PORTS).then(|| (port(32), port(34))),
            fragment: has(flags::FRAGMENT),
        }
    }
}

/// An IPv6 extension header, or IPv4's fragment word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extension {
    /// Protocol number and length in units of 8 bytes after the first 8.
    Options(u8, u8),
    /// Offset in units of 8 bytes, and whether more follow.
    Fragment(u16, bool),
    /// Length in units of 8 bytes after the first 8.
    Authentication(u8),
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::Options(number, _) => number,
            Self::Fragment(..) => 44,
            Self::Authentication(_) => 51,
        }
    }
}

/// A frame with an IP header, or with none if `ip` is.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub vlans: Vec<u16>,
    pub ip: Option<Ip>,
    pub protocol: u8,
    pub ports: (u16, u16),
}

#[derive(Clone, Debug)]
pub(crate) enum Ip {
    V4 { source: Ipv4Addr, destination: Ipv4Addr, option_words: u8, offset: u16, more: bool },
    V6 { source: Ipv6Addr, destination: Ipv6Addr, extensions: Vec<Extension> },
}

impl Frame {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for vlan in &self.vlans {
            bytes.extend(vlan.to_be_bytes());
            bytes.extend([0x00, 0x64]);
        }
        let mut payload = Vec::new();
        payload.extend(self.ports.0.to_be_bytes());
        payload.extend(self.ports.1.to_be_bytes());
        // A UDP length that is right, and a TCP header of five words; the others do not look.
        payload.extend(if self.protocol == 17 { [0, 44, 0, 0] } else { [0; 4] });
        payload.extend([0, 0, 0, 0, 0x50]);
        payload.resize(4 + DATA_BYTES, 0);
        match &self.ip {
            None => {
                bytes.extend([0x88, 0xcc]);
                bytes.extend(payload);
            }
            Some(Ip::V4 { source, destination, option_words, offset, more }) => {
                bytes.extend([0x08, 0x00, 0x45 + option_words, 0]);
                let header = 20 + 4 * usize::from(*option_words);
                bytes.extend(((header + payload.len()) as u16).to_be_bytes());
                bytes.extend([0, 1]);
                bytes.extend((offset | u16::from(*more) << 13).to_be_bytes());
                bytes.extend([64, self.protocol, 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(std::iter::repeat_n(1, header - 20));
                bytes.extend(payload);
            }
            Some(Ip::V6 { source, destination, extensions }) => {
                let mut numbers: Vec<u8> = extensions.iter().map(|extension| extension.number()).collect();
                numbers.push(self.protocol);
                let mut chain = Vec::new();
                for (extension, next) in extensions.iter().zip(&numbers[1..]) {
                    let start = chain.len();
                    match *extension {
                        Extension::Options(_, units) => {
                            chain.extend([*next, units, 1, 4, 0, 0, 0, 0]);
                            chain.resize(start + 8 + 8 * usize::from(units), 0);
                        }
                        Extension::Fragment(offset, more) => {
                            chain.extend([*next, 0]);
                            chain.extend((offset << 3 | u16::from(more)).to_be_bytes());
                            chain.extend([0, 0, 0, 1]);
                        }
                        Extension::Authentication(units) => {
                            chain.extend([*next, units * 2 + 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
                            chain.resize(start + 12 + 8 * usize::from(units), 0);
                        }
                    }
                }
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(((chain.len() + payload.len()) as u16).to_be_bytes());
                bytes.extend([numbers[0], 64]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(chain);
                bytes.extend(payload);
            }
        }
        bytes
    }

    pub(crate) fn facts(&self) -> Facts {
        let mut facts = Facts { protocol: Some(self.protocol), ..Facts::default() };
        let mut later = false;
        match &self.ip {
            None => return Facts::default(),
            Some(Ip::V4 { source, destination, offset, more, .. }) => {
                (facts.source, facts.destination) = (Some((*source).into()), Some((*destination).into()));
                later = *offset > 0;
                facts.fragment = later || *more;
            }
            Some(Ip::V6 { source, destination, extensions }) => {
                (facts.source, facts.destination) = (Some((*source).into()), Some((*destination).into()));
                for (i, extension) in extensions.iter().enumerate() {
                    let Extension::Fragment(offset, more) = *extension else { continue };
                    facts.fragment |= offset > 0 || more;
                    if offset > 0 {
                        later = true;
                        facts.protocol = facts.protocol.filter(|_| i + 1 == extensions.len());
                        break;
                    }
                }
            }
        }
        let has_ports = [6, 17, 132].contains(&self.protocol) && !later;
        facts.ports = has_ports.then_some(self.ports);
        facts
    }
}

/// Few addresses, so that filters made from the same few hit.
pub(crate) fn ipv4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        (0_u8..4).prop_map(|low| Ipv4Addr::new(192, 0, 2, low)),
        (0_u8..4).prop_map(|low| Ipv4Addr::new(192, 0, low, 1)),
        any::<[u8; 4]>().prop_map(Ipv4Addr::from),
    ]
}

/// As [`ipv4`]; also literal IPv4-mapped ones.
pub(crate) fn ipv6() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        4 => (0_u16..4).prop_map(|low| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low)),
        4 => (0_u16..4).prop_map(|low| Ipv6Addr::new(0x2001, 0xdb8, 0, low, 0, 0, 0, 1)),
        1 => any::<[u8; 16]>().prop_map(Ipv6Addr::from),
        1 => ipv4().prop_map(|address| address.to_ipv6_mapped()),
    ]
}

pub(crate) fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(80), Just(443), Just(53), Just(u16::MAX), 0..4_u16]
}

pub(crate) fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(6), 4 => Just(17), 2 => Just(132), 1 => Just(1), 1 => Just(58), 1 => Just(50), 1 => Just(59), 1 => Just(255)]
}

fn extension() -> impl Strategy<Value = Extension> {
    let options = prop_oneof![Just(0), Just(43), Just(60), Just(135), Just(139), Just(140)];
    prop_oneof![
        3 => (options, 0_u8..4).prop_map(|(number, units)| Extension::Options(number, units)),
        1 => (prop_oneof![Just(0_u16), 1..8191_u16], any::<bool>())
            .prop_map(|(offset, more)| Extension::Fragment(offset, more)),
        1 => (0_u8..4).prop_map(Extension::Authentication),
    ]
}

fn ip() -> impl Strategy<Value = Ip> {
    let offset = prop_oneof![3 => Just(0_u16), 1 => 1..8191_u16];
    let v4 = (ipv4(), ipv4(), prop_oneof![3 => Just(0_u8), 1 => 1..=10_u8], offset, any::<bool>());
    let v6 = (ipv6(), ipv6(), prop::collection::vec(extension(), 0..5));
    prop_oneof![
        v4.prop_map(|(source, destination, option_words, offset, more)| Ip::V4 {
            source,
            destination,
            option_words,
            offset,
            more
        }),
        v6.prop_map(|(source, destination, extensions)| Ip::V6 { source, destination, extensions }),
    ]
}

/// Any frame that [`Frame`] can describe.
pub(crate) fn frame() -> impl Strategy<Value = Frame> {
    let vlan = prop_oneof![Just(0x8100), Just(0x88a8), Just(0x9100)];
    let vlans = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(vlan, 1..=3)];
    (vlans, prop::option::weighted(0.95, ip()), protocol(), (port(), port()))
        .prop_map(|(vlans, ip, protocol, ports)| Frame { vlans, ip, protocol, ports })
}
