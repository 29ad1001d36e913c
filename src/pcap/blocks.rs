//! pcapng blocks as this program writes them (draft-ietf-opsawg-pcapng). Owns their layout; no I/O, and not which come when.
//!
//! Invariant: what is written here is little endian with nanosecond time stamps, whatever the host; text that an option
//! cannot hold is cut at a character.

use super::format::MAGIC_PCAPNG;
use super::interface::InterfaceInfo;
use super::options::Options;
use super::place::word;

/// Block types (section 11.1 of the draft).
pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
pub(super) const NAMES: u32 = 4;
pub(super) const INTERFACE_STATISTICS: u32 = 5;
pub(super) const ENHANCED_PACKET: u32 = 6;
pub(super) const SECRETS: u32 = 10;
/// A custom block that may be copied.
pub(super) const CUSTOM: u32 = 0xbad;

/// Says that a section is in the byte order of its writer.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Options: a comment in any block, then those of the section, of an interface and of statistics.
const COMMENT: u16 = 1;
/// The first of those that hold numbers of their maker.
const CUSTOM_MIN: u16 = 2988;
const SHB_HARDWARE: u16 = 2;
const SHB_OS: u16 = 3;
const SHB_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const IF_FCSLEN: u16 = 13;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;
const ISB_FILTERACCEPT: u16 = 6;
const ISB_OSDROP: u16 = 7;
const ISB_USRDELIV: u16 = 8;

/// `if_tsresol`: negative powers of ten.
const NANOSECONDS: u8 = 9;

/// Bytes of a packet block before its data.
pub(crate) const PACKET_HEAD_BYTES: usize = 28;

/// Bytes of a packet block that are not data, without the padding.
const PACKET_OVERHEAD_BYTES: u32 = PACKET_HEAD_BYTES as u32 + 4;

/// Who wrote a section, and where. Empty texts are left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Section<'a> {
    pub(crate) hardware: &'a str,
    pub(crate) os: &'a str,
    pub(crate) application: &'a str,
    pub(crate) comments: &'a [String],
}

/// What was counted on an interface. What is none is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Time of the first packet and of the last one, ns since the UNIX epoch.
    pub(crate) span_ns: Option<(u64, u64)>,
    pub(crate) received: Option<u64>,
    pub(crate) interface_drops: Option<u64>,
    pub(crate) accepted: Option<u64>,
    pub(crate) system_drops: Option<u64>,
    pub(crate) delivered: Option<u64>,
}

/// A section's header, of a length that is not known yet.
pub(crate) fn section(out: &mut Vec<u8>, section: &Section<'_>) {
    block(out, MAGIC_PCAPNG, |out| {
        out.extend_from_slice(&BYTE_ORDER_MAGIC.to_le_bytes());
        // version 1.0, then the section's length
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&u64::MAX.to_le_bytes());
        text(out, SHB_HARDWARE, section.hardware);
        text(out, SHB_OS, section.os);
        text(out, SHB_APPLICATION, section.application);
        section.comments.iter().for_each(|comment| text(out, COMMENT, comment));
    });
}

/// An interface; they are numbered from 0 as they come.
pub(crate) fn interface(out: &mut Vec<u8>, link_type: u16, snaplen: u32, name: &str, description: &str) {
    let info = InterfaceInfo { link_type, name, check_sequence_bits: None };
    interface_of(out, info, snaplen, description);
}

/// As [`interface`], also with the length of the frame check sequence.
pub(crate) fn interface_of(out: &mut Vec<u8>, info: InterfaceInfo<'_>, snaplen: u32, description: &str) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend_from_slice(&u32::from(info.link_type).to_le_bytes());
        out.extend_from_slice(&snaplen.to_le_bytes());
        text(out, IF_NAME, info.name);
        text(out, IF_DESCRIPTION, description);
        option(out, IF_TSRESOL, &[NANOSECONDS]);
        if let Some(bits) = info.check_sequence_bits {
            option(out, IF_FCSLEN, &[bits]);
        }
    });
}

/// Copies a block of secrets or names, or a custom one, from another file; false, and nothing, if it is malformed.
pub(super) fn carry(out: &mut Vec<u8>, kind: u32, body: &[u8], big_endian: bool) -> bool {
    let from = out.len();
    let mut is_whole = true;
    block_of(out, kind, |out| match kind {
        SECRETS => is_whole = secrets(out, body, big_endian).is_some(),
        NAMES => names(out, body, big_endian),
        _ => out.extend_from_slice(body),
    });
    if !is_whole {
        out.truncate(from);
    }
    is_whole
}

/// Type, length, the secrets; then options.
fn secrets(out: &mut Vec<u8>, body: &[u8], big_endian: bool) -> Option<()> {
    let field = |at: usize| (body.len() >= at + 4).then(|| word(body, at, big_endian));
    let (kind, len) = (field(0)?, field(4)?);
    let data = body.get(8..8_usize.checked_add(len as usize)?)?;
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
    let options = body.get(8 + data.len().next_multiple_of(4)..).unwrap_or(&[]);
    Options::new(options, big_endian).copy(out);
    Some(())
}

/// Records, which are laid out as options are; then options, all of them text or addresses.
fn names(out: &mut Vec<u8>, body: &[u8], big_endian: bool) {
    let mut records = Options::new(body, big_endian);
    records.by_ref().for_each(|(code, value)| option(out, code, value));
    out.extend_from_slice(&[0; 4]);
    let options = Options::new(records.bytes.get(4..).unwrap_or(&[]), big_endian);
    let begin = out.len();
    options.filter(|(code, _)| *code < CUSTOM_MIN).for_each(|(code, value)| option(out, code, value));
    if out.len() > begin {
        out.extend_from_slice(&[0; 4]);
    }
}

/// Bytes of a packet's block.
#[inline]
pub(crate) const fn packet_bytes(captured: u32) -> u32 {
    PACKET_OVERHEAD_BYTES + captured.next_multiple_of(4)
}

/// A packet: `ns` since the UNIX epoch, `wire_len` bytes long on the wire, of which `data` is kept.
#[inline]
pub(crate) fn packet(out: &mut Vec<u8>, interface: u32, ns: u64, wire_len: u32, data: &[u8]) {
    packet_with(out, interface, ns, wire_len, data, &[]);
}

/// As [`packet`], with options that are laid out as this program writes them, their end included.
#[inline]
pub(crate) fn packet_with(
    out: &mut Vec<u8>,
    interface: u32,
    ns: u64,
    wire_len: u32,
    data: &[u8],
    options: &[u8],
) {
    let captured = data.len() as u32;
    let bytes = packet_bytes(captured) + options.len() as u32;
    let (high, low) = ((ns >> 32) as u32, ns as u32);
    let fields = [ENHANCED_PACKET, bytes, interface, high, low, captured, wire_len];
    let mut head = [0; PACKET_HEAD_BYTES];
    for (to, field) in head.chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&head);
    out.extend_from_slice(data);
    // up to three bytes of padding and the length again, in one go
    let padding = (captured.next_multiple_of(4) - captured) as usize;
    let mut tail = [0; 7];
    if options.is_empty() {
        tail[padding..padding + 4].copy_from_slice(&bytes.to_le_bytes());
        out.extend_from_slice(&tail[..padding + 4]);
        return;
    }
    out.extend_from_slice(&tail[..padding]);
    out.extend_from_slice(options);
    out.extend_from_slice(&bytes.to_le_bytes());
}

/// What was counted on an interface up to `ns`.
pub(crate) fn statistics(out: &mut Vec<u8>, interface: u32, ns: u64, comment: &str, counts: &Statistics) {
    block(out, INTERFACE_STATISTICS, |out| {
        out.extend_from_slice(&interface.to_le_bytes());
        out.extend_from_slice(&time(ns));
        text(out, COMMENT, comment);
        if let Some((first_ns, last_ns)) = counts.span_ns {
            option(out, ISB_STARTTIME, &time(first_ns));
            option(out, ISB_ENDTIME, &time(last_ns));
        }
        for (code, count) in [
            (ISB_IFRECV, counts.received),
            (ISB_IFDROP, counts.interface_drops),
            (ISB_FILTERACCEPT, counts.accepted),
            (ISB_OSDROP, counts.system_drops),
            (ISB_USRDELIV, counts.delivered),
        ] {
            if let Some(count) = count {
                option(out, code, &count.to_le_bytes());
            }
        }
    });
}

/// The upper half first, each in the byte order of the section.
fn time(ns: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&((ns >> 32) as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&(ns as u32).to_le_bytes());
    bytes
}

/// A block of this type with what `body` appends and the end of its options.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    block_of(out, kind, |out| {
        body(out);
        out.extend_from_slice(&[0; 4]);
    });
}

/// A block of this type with what `body` appends, which is a multiple of four bytes long.
fn block_of(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let from = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let bytes = (out.len() - from + 4) as u32;
    out[from + 4..from + 8].copy_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
}

fn text(out: &mut Vec<u8>, code: u16, text: &str) {
    let len = text.floor_char_boundary(usize::from(u16::MAX));
    if len > 0 {
        option(out, code, &text.as_bytes()[..len]);
    }
}

/// One option; `value` is at most 65535 bytes long.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcap::Reader;

    #[test]
    fn a_packet_of_any_length_is_read_back_behind_texts_of_any_length() {
        for len in 0..9_usize {
            let mut file = Vec::new();
            let comments = ["x".repeat(len), "é".repeat(40_000)];
            section(&mut file, &Section { application: "t", comments: &comments, ..Section::default() });
            interface(&mut file, 1, 160, &"n".repeat(len), "");
            let data: Vec<u8> = (0..len as u8).collect();
            let before = file.len();
            packet(&mut file, 0, 0x1_0000_0002, 1000, &data);
            assert_eq!(file.len() - before, packet_bytes(len as u32) as usize);
            statistics(&mut file, 0, 7, "c", &Statistics { delivered: Some(1), ..Statistics::default() });
            let mut reader = Reader::new(&file[..]).unwrap();
            let record = reader.next_record().unwrap().unwrap();
            assert_eq!((record.ns, record.wire_len, record.data), (0x1_0000_0002, 1000, &data[..]));
            assert_eq!(reader.next_record().unwrap(), None);
            assert_eq!(file.len() % 4, 0, "no option is without its padding");
        }
    }
}
