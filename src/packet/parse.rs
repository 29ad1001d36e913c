//! From a frame's first bytes to its key. Owns which headers are understood: Ethernet II, stacked VLAN tags, IPv4, IPv6
//! with its extension headers, and the ports of TCP, UDP and SCTP. Owns no tunnels: the outermost IP header counts.
//!
//! Invariant: the work per frame is bounded whatever its bytes are, and every load is bounds-checked.

use super::key::{Key, flags};

/// VLAN tags that are looked through. Providers stack two or three; a frame that is nothing but tags must not cost more
/// than any other.
const VLAN_TAGS_MAX: usize = 8;

/// IPv6 extension headers that are looked through. Senders use one or two, RFC 8504 (section 5.3) lets receivers stop at
/// eight; a jumbo frame can carry a thousand and must not cost a thousand steps.
const EXTENSIONS_MAX: usize = 16;

const IPV4_TYPE: [u8; 2] = [0x08, 0x00];
const IPV6_TYPE: [u8; 2] = [0x86, 0xdd];

/// IPv6 header without extensions; the payload length counts from its end (RFC 8200, section 3).
type Ipv6Header = [u8; 40];
/// IPv4 header without options (RFC 791, section 3.1).
type Ipv4Header = [u8; 20];
/// Source and destination port as they are on the wire; the same place in TCP, UDP and SCTP.
type Ports = [u8; 4];

impl Key {
    /// The key of a frame of `wire_len` bytes that begins with `head`, which may be shorter than the frame. What cannot
    /// be read stays zero and unflagged.
    #[inline]
    #[must_use]
    pub fn parse(head: &[u8], wire_len: u32) -> Self {
        // Almost every frame: no tag, IPv4, no options.
        let found = if let Some((ethernet, rest)) = head.split_first_chunk::<14>()
            && let Some((ip, payload)) = rest.split_first_chunk::<20>()
            && let Some(ports) = payload.first_chunk::<4>()
            && [ethernet[12], ethernet[13]] == IPV4_TYPE
            && ip[0] == 0x45
        {
            in_ipv4(ip, 20, Some(*ports))
        } else {
            in_any(head)
        };
        // One place builds the key, so that it is built where the caller wants it and not copied there.
        found.key(wire_len)
    }
}

/// Every frame that is not the common one.
#[inline(never)]
fn in_any(head: &[u8]) -> Found {
    match network(head) {
        Some((IPV4_TYPE, packet)) => ipv4(packet),
        Some((IPV6_TYPE, packet)) => ipv6(packet),
        _ => None,
    }
    .unwrap_or_default()
}

/// The EtherType behind all VLAN tags and what follows it; none if the head ends before.
fn network(head: &[u8]) -> Option<([u8; 2], &[u8])> {
    let (ethernet, mut rest) = head.split_first_chunk::<14>()?;
    let mut ether_type = [ethernet[12], ethernet[13]];
    for _ in 0..VLAN_TAGS_MAX {
        // IEEE 802.1Q, 802.1ad, and what came before 802.1ad.
        if !matches!(u16::from_be_bytes(ether_type), 0x8100 | 0x88a8 | 0x9100) {
            break;
        }
        let tag;
        (tag, rest) = rest.split_first_chunk::<4>()?;
        ether_type = [tag[2], tag[3]];
    }
    Some((ether_type, rest))
}

fn ipv4(packet: &[u8]) -> Option<Found> {
    let header = packet.first_chunk::<20>()?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_bytes < size_of::<Ipv4Header>() {
        return None;
    }
    let ports = packet.get(header_bytes..).and_then(|payload| payload.first_chunk::<4>()).copied();
    Some(in_ipv4(header, header_bytes, ports))
}

/// `ports` are the first bytes behind the header, if the head has them; whether they are ports is found out here.
#[inline]
fn in_ipv4(ip: &Ipv4Header, header_bytes: usize, ports: Option<Ports>) -> Found {
    let protocol = ip[9];
    let total_bytes = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    let (offset, more) = (fragment & 0x1fff, fragment & 0x2000 != 0);
    // What lies beyond the packet's own length is padding of the link, not a port. Length 0: segmentation offload.
    let inside = (total_bytes == 0) | (total_bytes >= header_bytes + size_of::<Ports>());
    let ports = ports.filter(|_| inside & (offset == 0) & has_ports(protocol));
    Found {
        source: mapped([ip[12], ip[13], ip[14], ip[15]]),
        destination: mapped([ip[16], ip[17], ip[18], ip[19]]),
        ports: ports.unwrap_or_default(),
        protocol,
        flags: flags::IPV4
            | flags::PROTOCOL
            | flag(ports.is_some(), flags::PORTS)
            | flag((offset != 0) | more, flags::FRAGMENT),
    }
}

fn ipv6(packet: &[u8]) -> Option<Found> {
    let (header, payload): (&Ipv6Header, _) = packet.split_first_chunk()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let payload = match usize::from(u16::from_be_bytes([header[4], header[5]])) {
        // Jumbogram or segmentation offload: the length is not told here.
        0 => payload,
        bytes => payload.get(..bytes).unwrap_or(payload),
    };
    let mut found = Found {
        source: [word(header, 8), word(header, 16)],
        destination: [word(header, 24), word(header, 32)],
        flags: flags::IPV6,
        ..Found::default()
    };
    found.upper_layer(header[6], payload);
    Some(found)
}

/// What a parser has found up to now.
#[derive(Default)]
struct Found {
    source: [u64; 2],
    destination: [u64; 2],
    /// Source and destination port as they are on the wire.
    ports: Ports,
    protocol: u8,
    flags: u8,
}

impl Found {
    /// Walks IPv6's chain of headers from the header `next` at the start of `rest` to the upper-layer protocol.
    fn upper_layer(&mut self, mut next: u8, mut rest: &[u8]) {
        for _ in 0..EXTENSIONS_MAX {
            let Some(kind) = Extension::of(next) else { break };
            let Some(&[following, length]) = rest.first_chunk::<2>() else { return };
            let bytes = match kind {
                Extension::Options => (usize::from(length) + 1) * 8,
                Extension::Authentication => (usize::from(length) + 2) * 4,
                Extension::Fragment => {
                    let Some(header) = rest.first_chunk::<8>() else { return };
                    let word = u16::from_be_bytes([header[2], header[3]]);
                    // Offset 0 without more to come is a whole packet (RFC 6946).
                    self.flags |= flag(word & 0xfff9 != 0, flags::FRAGMENT);
                    if word & 0xfff8 != 0 {
                        // The rest of the chain is in the first fragment, so what follows is data.
                        (next, rest) = (following, &[]);
                        break;
                    }
                    8
                }
            };
            (next, rest) = (following, rest.get(bytes..).unwrap_or(&[]));
        }
        if Extension::of(next).is_some() {
            return;
        }
        self.protocol = next;
        self.flags |= flags::PROTOCOL;
        if has_ports(next)
            && let Some(ports) = rest.first_chunk::<4>()
        {
            self.ports = *ports;
            self.flags |= flags::PORTS;
        }
    }

    #[inline]
    fn key(&self, wire_len: u32) -> Key {
        // Shifted together in a register: bytes put together in memory would stall the load of the whole word.
        let ports_protocol_flags = u64::from(u32::from_le_bytes(self.ports))
            | u64::from(self.protocol) << 32
            | u64::from(self.flags) << 40;
        let length = u64::from(wire_len) << 32;
        let [[a, b], [c, d]] = [self.source, self.destination];
        Key::from_words([a, b, c, d, ports_protocol_flags.to_le(), length.to_be(), 0, 0])
    }
}

/// How long an IPv6 extension header says it is.
enum Extension {
    /// In units of 8 bytes after the first 8 (RFC 8200, section 4).
    Options,
    /// 8 bytes (RFC 8200, section 4.5).
    Fragment,
    /// In units of 4 bytes after the first 8 (RFC 4302, section 2.2).
    Authentication,
}

impl Extension {
    /// Extension headers that tell what follows them. ESP (50) does not, and "no next header" (59) has nothing: both
    /// are the upper-layer protocol then.
    fn of(protocol: u8) -> Option<Self> {
        match protocol {
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6.
            0 | 43 | 60 | 135 | 139 | 140 => Some(Self::Options),
            44 => Some(Self::Fragment),
            51 => Some(Self::Authentication),
            _ => None,
        }
    }
}

/// TCP, UDP, SCTP. No short circuit: three compares cost less than a branch that is guessed wrong.
#[inline]
fn has_ports(protocol: u8) -> bool {
    (protocol == 6) | (protocol == 17) | (protocol == 132)
}

#[inline]
fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

/// `::ffff:a.b.c.d`.
#[inline]
fn mapped(address: [u8; 4]) -> [u64; 2] {
    [0, (0xffff_0000 | u64::from(u32::from_le_bytes(address)) << 32).to_le()]
}

/// Eight bytes of a header as a word in memory order.
#[inline]
fn word(header: &Ipv6Header, from: usize) -> u64 {
    let bytes = header.get(from..).and_then(|rest| rest.first_chunk::<8>());
    bytes.copied().map_or(0, u64::from_ne_bytes)
}
