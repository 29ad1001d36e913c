//! Layout of the classic pcap format (draft-ietf-opsawg-pcap). Owns the constants and the header bytes; no I/O.
//!
//! Invariant: what is written here is little endian with nanosecond time stamps, whatever the host.

use super::Record;
use crate::limits::{FULL_SNAPLEN, PCAP_FILE_HEADER_BYTES, PCAP_RECORD_HEADER_BYTES};

/// Magic of files with nanosecond time stamps.
pub const MAGIC_NS: u32 = 0xa1b2_3c4d;

/// Magic of files with microsecond time stamps.
pub const MAGIC_US: u32 = 0xa1b2_c3d4;

/// Magic of files whose records have eight bytes more in their headers (Alexey Kuznetsov's patch of libpcap).
pub const MAGIC_EXTENDED: u32 = 0xa1b2_cd34;

/// Magics of files with the size of all records behind the file header (Ixia's hardware and software).
pub const MAGICS_IXIA: [u32; 2] = [0x1c00_01ac, 0x1c00_01ab];

/// First bytes of a pcapng file: the type of its section header block, the same in both byte orders.
pub const MAGIC_PCAPNG: u32 = 0x0a0d_0d0a;

/// LINKTYPE_ETHERNET.
pub const LINK_ETHERNET: u16 = 1;

/// Longest data of one record: libpcap's MAXIMUM_SNAPLEN, and what it takes a file to be damaged above.
pub const RECORD_BYTES_MAX: u32 = FULL_SNAPLEN;

pub(crate) const NS_PER_S: u64 = 1_000_000_000;

/// The file header for Ethernet frames with nanosecond time stamps, at most `snaplen` bytes kept of each.
#[inline]
#[must_use]
pub const fn file_header(snaplen: u32) -> [u8; PCAP_FILE_HEADER_BYTES] {
    file_header_of(snaplen, LINK_ETHERNET)
}

/// As [`file_header`], for any link type (<https://www.tcpdump.org/linktypes.html>).
#[inline]
#[must_use]
pub const fn file_header_of(snaplen: u32, link_type: u16) -> [u8; PCAP_FILE_HEADER_BYTES] {
    file_header_with(snaplen, link_type, None)
}

/// As [`file_header_of`], with the length of the frame check sequences, if the field can hold it.
#[inline]
#[must_use]
pub(crate) const fn file_header_with(
    snaplen: u32,
    link_type: u16,
    check_sequence_bits: Option<u8>,
) -> [u8; PCAP_FILE_HEADER_BYTES] {
    let [m0, m1, m2, m3] = MAGIC_NS.to_le_bytes();
    let [s0, s1, s2, s3] = snaplen.to_le_bytes();
    let check_sequence = match check_sequence_bits {
        Some(bits) if bits.is_multiple_of(16) => CHECK_SEQUENCE_KNOWN | (bits as u32 / 16) << 28,
        _ => 0,
    };
    let [l0, l1, l2, l3] = (link_type as u32 | check_sequence).to_le_bytes();
    // version 2.4, two reserved words
    [m0, m1, m2, m3, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, s0, s1, s2, s3, l0, l1, l2, l3]
}

/// In the field of the link type: the upper four bits are the length of the frame check sequences, in units of 16 bits.
const CHECK_SEQUENCE_KNOWN: u32 = 1 << 26;

/// Length of the frame check sequences, by the field of the link type.
pub(super) const fn check_sequence_bits(field: u32) -> Option<u8> {
    if field & CHECK_SEQUENCE_KNOWN == 0 { None } else { Some((field >> 28) as u8 * 16) }
}

/// A record's header: `ns` since the UNIX epoch, `captured` bytes that follow, `wire` bytes that the frame had.
///
/// The format ends on 2106-02-07; later times wrap.
#[inline]
#[must_use]
pub const fn record_header(ns: u64, captured: u32, wire: u32) -> [u8; PCAP_RECORD_HEADER_BYTES] {
    let [s0, s1, s2, s3] = ((ns / NS_PER_S) as u32).to_le_bytes();
    let [f0, f1, f2, f3] = ((ns % NS_PER_S) as u32).to_le_bytes();
    let [c0, c1, c2, c3] = captured.to_le_bytes();
    let [w0, w1, w2, w3] = wire.to_le_bytes();
    [s0, s1, s2, s3, f0, f1, f2, f3, c0, c1, c2, c3, w0, w1, w2, w3]
}

/// The first of records laid out as [`record_header`] does, and what is behind it; none at the end.
#[inline]
pub(crate) fn parse_record(records: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (header, rest) = records.split_first_chunk::<PCAP_RECORD_HEADER_BYTES>()?;
    let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let ns = u64::from(field(0)) * NS_PER_S + u64::from(field(4));
    let (data, rest) = rest.split_at_checked(field(8) as usize)?;
    Some((Record { ns, wire_len: field(12), data }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_little_endian_as_the_draft_lays_them_out() {
        let file = file_header(160);
        assert_eq!(file[..8], [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(file[16..], [160, 0, 0, 0, 1, 0, 0, 0]);
        let record = record_header(3 * NS_PER_S + 7, 60, 0x1_02_03);
        assert_eq!(record, [3, 0, 0, 0, 7, 0, 0, 0, 60, 0, 0, 0, 3, 2, 1, 0]);
    }
}
