//! Classic pcap (draft-ietf-opsawg-pcap) and its older and modified kinds. Owns the parsing of file and record headers.
//!
//! Invariant: a record that is given out is possible; one that a tolerant reader puts right is counted.

use super::buffer::Buffer;
use super::care::Care;
use super::error::ReadError;
use super::format::{
    MAGIC_EXTENDED, MAGIC_NS, MAGIC_US, MAGICS_IXIA, NS_PER_S, RECORD_BYTES_MAX, check_sequence_bits,
};
use super::interface::InterfaceInfo;
use super::oddity::Oddity;
use super::place::{Place, word};
use crate::limits::{PCAP_FILE_HEADER_BYTES as FILE_HEADER, PCAP_RECORD_HEADER_BYTES as RECORD_HEADER};
use std::io::Read;

/// What the modified kind has behind each record's header.
const EXTENSION: usize = 8;

/// What Ixia's files have behind the file header.
const IXIA_SIZE: usize = 4;

/// In which order a record has its two lengths (libpcap's `sf-pcap.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lengths {
    /// Captured, then on the wire: since version 2.4.
    Usual,
    /// The other way round: before version 2.3.
    Swapped,
    /// The smaller one is the captured one: version 2.3, which both kinds of writer name.
    Either,
}

/// A record's time in ns since the UNIX epoch, its length on the wire, and its captured length.
type Fields = (u64, u32, u32);

/// Parses the header and records of classic pcap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Classic {
    big_endian: bool,
    nanoseconds: bool,
    lengths: Lengths,
    header_bytes: usize,
    link_type: u16,
    check_sequence_bits: Option<u8>,
}

impl Classic {
    pub(super) fn open<R: Read>(buffer: &mut Buffer<R>, magic: u32) -> Result<Self, ReadError> {
        let swapped = magic.swap_bytes();
        let is = |known: u32| [magic, swapped].contains(&known);
        let is_ixia = MAGICS_IXIA.into_iter().any(is);
        if !is_ixia && ![MAGIC_NS, MAGIC_US, MAGIC_EXTENDED].into_iter().any(is) {
            return Err(ReadError::Magic(magic.to_le_bytes()));
        }
        let big_endian =
            [MAGIC_NS, MAGIC_US, MAGIC_EXTENDED].contains(&swapped) || MAGICS_IXIA.contains(&swapped);
        let file_header = if is_ixia { FILE_HEADER + IXIA_SIZE } else { FILE_HEADER };
        if !buffer.ensure(file_header)? {
            return Err(ReadError::Truncated { records: 0, offset: 0 });
        }
        let header = buffer.unread();
        let (version, link) = (word(header, 4, big_endian), word(header, 20, big_endian));
        let (low, high) = (version as u16, (version >> 16) as u16);
        let (major, minor) = if big_endian { (high, low) } else { (low, high) };
        let lengths = match (major, minor) {
            (2, 0..3) => Lengths::Swapped,
            (2, 3) => Lengths::Either,
            (2, _) => Lengths::Usual,
            _ => return Err(ReadError::Version { major, minor }),
        };
        buffer.consume(file_header);
        let extension = if is(MAGIC_EXTENDED) { EXTENSION } else { 0 };
        Ok(Self {
            big_endian,
            nanoseconds: is(MAGIC_NS),
            lengths,
            header_bytes: RECORD_HEADER + extension,
            link_type: link as u16,
            check_sequence_bits: check_sequence_bits(link),
        })
    }

    /// That of a file as this program writes it.
    pub(super) const fn own(link_type: u16) -> Self {
        Self {
            big_endian: false,
            nanoseconds: true,
            lengths: Lengths::Usual,
            header_bytes: RECORD_HEADER,
            link_type,
            check_sequence_bits: None,
        }
    }

    pub(super) fn link_type(&self) -> u16 {
        self.link_type
    }

    pub(super) fn interface(&self) -> InterfaceInfo<'_> {
        let Self { link_type, check_sequence_bits, .. } = *self;
        InterfaceInfo { link_type, name: "", check_sequence_bits }
    }

    /// Whether correct records of this file are laid out as this program writes them.
    fn is_own(self) -> bool {
        !self.big_endian
            && self.nanoseconds
            && self.lengths == Lengths::Usual
            && self.header_bytes == RECORD_HEADER
    }

    /// Seconds, fraction, captured length and length on the wire.
    #[inline]
    fn fields(self, header: &[u8; RECORD_HEADER]) -> (u64, u64, u64, u64) {
        // word by word: as an array's map this was not inlined and cost more than all the rest
        let field = |at| u64::from(word(header, at, self.big_endian));
        let (seconds, fraction, captured, wire) = (field(0), field(4), field(8), field(12));
        match self.lengths {
            Lengths::Usual => (seconds, fraction, captured, wire),
            Lengths::Either if captured <= wire => (seconds, fraction, captured, wire),
            _ => (seconds, fraction, wire, captured),
        }
    }

    /// Fractions in a second, and nanoseconds in one of them.
    #[inline]
    fn unit(self) -> (u64, u64) {
        if self.nanoseconds { (NS_PER_S, 1) } else { (1_000_000, 1000) }
    }

    /// Time, wire length and data length of the record whose header `bytes` begins with, if it is as it must be; none if it
    /// is cut off.
    #[inline]
    pub(super) fn parse(self, bytes: &[u8], offset: u64) -> Result<Option<Fields>, ReadError> {
        let Some(header) = bytes.first_chunk::<RECORD_HEADER>() else { return Ok(None) };
        let (seconds, fraction, captured, wire) = self.fields(header);
        let (fractions_per_s, unit_ns) = self.unit();
        let limit = wire.min(u64::from(RECORD_BYTES_MAX));
        if captured > limit {
            return Err(ReadError::Field { offset, field: "the captured length", value: captured, limit });
        }
        if fraction >= fractions_per_s {
            let (field, limit) = ("the fraction of a second", fractions_per_s - 1);
            return Err(ReadError::Field { offset, field, value: fraction, limit });
        }
        Ok(Some((seconds * NS_PER_S + fraction * unit_ns, wire as u32, captured as u32)))
    }

    /// As [`Classic::parse`], of a record that is not as it must be; also what had to be put right.
    fn put_right(self, bytes: &[u8], offset: u64) -> Result<(Fields, [bool; 2]), ReadError> {
        let header = bytes.first_chunk::<RECORD_HEADER>();
        let (seconds, fraction, captured, wire) = header.map_or((0, 0, 0, 0), |header| self.fields(header));
        let (field, limit) = ("the captured length", u64::from(RECORD_BYTES_MAX));
        if captured > limit {
            return Err(ReadError::Field { offset, field, value: captured, limit });
        }
        let (fractions_per_s, unit_ns) = self.unit();
        let ns = seconds * NS_PER_S + fraction * unit_ns;
        let record = (ns, wire.max(captured) as u32, captured as u32);
        Ok((record, [captured > wire, fraction >= fractions_per_s]))
    }

    #[inline]
    pub(super) fn advance<R: Read>(
        self,
        buffer: &mut Buffer<R>,
        care: &mut Care,
        records: u64,
    ) -> Result<Option<Place>, ReadError> {
        if care.zero_records > 0 {
            return Ok(Some(zero_record(buffer, care)));
        }
        let whole = buffer.ensure(self.header_bytes)?;
        let offset = buffer.offset();
        let cut = ReadError::Truncated { records, offset };
        if care.is_tolerant() && self.begins_with_zeros(buffer.unread()) {
            let (bytes, ends) = buffer.skip_zeros(self.header_bytes)?;
            if ends {
                care.note(Oddity::ZeroTail, bytes);
                return Ok(None);
            }
            care.zero_records = bytes / self.header_bytes as u64;
            return self.advance(buffer, care, records);
        }
        if !whole {
            return if buffer.is_at_end() { Ok(None) } else { Err(cut) };
        }
        let parsed = self.parse(buffer.unread(), offset);
        let ((ns, wire_len, len), odd) = match parsed {
            Ok(Some(parsed)) => (parsed, [false; 2]),
            Err(_) if care.is_tolerant() => self.put_right(buffer.unread(), offset)?,
            Err(error) => return Err(error),
            Ok(None) => return Err(cut),
        };
        let bytes = self.header_bytes + len as usize;
        if !buffer.ensure(bytes)? {
            return Err(cut);
        }
        for (oddity, is_odd) in [Oddity::Lengths, Oddity::Fraction].into_iter().zip(odd) {
            care.note(oddity, u64::from(is_odd));
        }
        let is_own = self.is_own() && odd == [false; 2];
        let at = buffer.start() + self.header_bytes;
        buffer.consume(bytes);
        Ok(Some(Place { ns, wire_len, at, len, interface: 0, is_own, options_at: 0, options_len: 0 }))
    }

    /// Whether this may be a run of zeros: all that is left of a record's header is zero.
    #[inline]
    fn begins_with_zeros(self, unread: &[u8]) -> bool {
        let header = &unread[..unread.len().min(self.header_bytes)];
        !header.is_empty() && header.iter().all(|byte| *byte == 0)
    }
}

/// One of the records of nothing but zeros that other records follow: without time or data, as it stands in the file.
fn zero_record<R: Read>(buffer: &Buffer<R>, care: &mut Care) -> Place {
    care.zero_records -= 1;
    let at = buffer.start();
    Place { ns: 0, wire_len: 0, at, len: 0, interface: 0, is_own: false, options_at: 0, options_len: 0 }
}
