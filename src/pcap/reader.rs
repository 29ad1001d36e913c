//! The streaming reader. Owns telling the formats apart and parsing classic pcap; pcapng is in `ng`.
//!
//! Invariant: after an error the position does not move, and every further call gives the same error.

use super::buffer::{BYTES_MAX, Buffer};
use super::error::ReadError;
use super::format::{MAGIC_NS, MAGIC_PCAPNG, MAGIC_US, NS_PER_S, RECORD_BYTES_MAX};
use super::ng::Ng;
use crate::limits::{PCAP_FILE_HEADER_BYTES as FILE_HEADER, PCAP_RECORD_HEADER_BYTES as RECORD_HEADER};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// One packet of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Time in ns since the UNIX epoch; zero where the file has none.
    pub ns: u64,
    /// Bytes that the packet had on the wire, at least those of `data`.
    pub wire_len: u32,
    /// What was kept of it.
    pub data: &'a [u8],
}

/// A record in the reader's window, valid until the reader is used again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) ns: u64,
    pub(crate) wire_len: u32,
    /// Place of the data in the window.
    pub(super) at: usize,
    pub(crate) len: u32,
    /// Number of its interface, over all sections of a file.
    pub(crate) interface: u32,
}

/// Adjacent records in the reader's window that are, headers included, as this program writes them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    from: usize,
    to: usize,
    pub(crate) packets: u64,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    /// Records older than the one before them.
    pub(crate) disorder: u64,
}

/// Parses the header and records of classic pcap.
#[derive(Clone, Copy, Debug)]
struct Classic {
    big_endian: bool,
    nanoseconds: bool,
    link_type: u16,
}

#[derive(Debug)]
enum Format {
    Classic(Classic),
    Ng(Ng),
}

/// Reads the packets of a pcap (µs or ns, either byte order) or pcapng file, whatever it is read from.
#[derive(Debug)]
pub struct Reader<R> {
    buffer: Buffer<R>,
    format: Format,
    records: u64,
}

impl Reader<File> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be opened or its header is not one of a capture file.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Open { path: path.to_owned(), source })?;
        Self::new(file)
    }
}

impl<R: Read> Reader<R> {
    /// Reads from `source`; buffers by itself.
    ///
    /// # Errors
    /// [`ReadError`] when the header is not one of a capture file. In pcapng that is everything before the first packet.
    pub fn new(source: R) -> Result<Self, ReadError> {
        Self::with_buffer(source, BYTES_MAX)
    }

    /// As [`Reader::new`] with a buffer of about this size, bounded to what is sensible.
    ///
    /// # Errors
    /// As [`Reader::new`].
    pub fn with_buffer(source: R, buffer_bytes: usize) -> Result<Self, ReadError> {
        let mut buffer = Buffer::new(source, buffer_bytes);
        if !buffer.ensure(4)? {
            return Err(ReadError::Truncated { records: 0, offset: 0 });
        }
        let magic = word(buffer.unread(), 0, false);
        let format = if magic == MAGIC_PCAPNG {
            Format::Ng(Ng::open(&mut buffer)?)
        } else {
            Format::Classic(Classic::open(&mut buffer, magic)?)
        };
        Ok(Self { buffer, format, records: 0 })
    }

    /// The packets' link type (<https://www.tcpdump.org/linktypes.html>); none for a pcapng file without packets.
    #[must_use]
    pub fn link_type(&self) -> Option<u16> {
        match &self.format {
            Format::Classic(classic) => Some(classic.link_type),
            Format::Ng(ng) => ng.link_type(),
        }
    }

    /// Whether the file is pcapng and not classic.
    #[must_use]
    pub fn is_pcapng(&self) -> bool {
        matches!(self.format, Format::Ng(_))
    }

    /// Takes packets of any link types from one pcapng file from now on; without it, a change of it is an error.
    pub fn allow_mixed_links(&mut self) {
        if let Format::Ng(ng) = &mut self.format {
            ng.allow_mixed_links();
        }
    }

    /// Link type and name of the interface of the record last moved past; no name in classic files.
    pub(crate) fn interface(&self, place: &Place) -> (u16, &str) {
        match &self.format {
            Format::Classic(classic) => (classic.link_type, ""),
            Format::Ng(ng) => ng.interface(place.interface),
        }
    }

    /// Records read so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the file that are read through.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.buffer.offset()
    }

    /// The next packet; none at the end of the file.
    ///
    /// # Errors
    /// [`ReadError`]; every further call gives it again.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        let place = self.advance()?;
        Ok(place.map(|place| Record { ns: place.ns, wire_len: place.wire_len, data: self.data(&place) }))
    }

    /// Moves past the next record and says where it is.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<Option<Place>, ReadError> {
        let place = match &mut self.format {
            Format::Classic(classic) => classic.advance(&mut self.buffer, self.records)?,
            Format::Ng(ng) => ng.advance(&mut self.buffer, self.records)?,
        };
        self.records += u64::from(place.is_some());
        Ok(place)
    }

    /// The data of a record.
    #[inline]
    pub(crate) fn data(&self, place: &Place) -> &[u8] {
        &self.buffer.window()[place.at..place.at + place.len as usize]
    }

    /// Extends `head`, the record last moved past, by the records behind it that are in the window, not younger than
    /// `ns_max`, and with it at most `bytes_max` long; moves past them. None if records of this file are not laid out as
    /// this program writes them.
    pub(crate) fn run(&mut self, head: &Place, ns_max: u64, bytes_max: usize) -> Option<Run> {
        let Format::Classic(classic @ Classic { big_endian: false, nanoseconds: true, .. }) = self.format
        else {
            return None;
        };
        let (from, begin) = (head.at - RECORD_HEADER, self.buffer.start());
        let mut run = Run { from, to: begin, packets: 1, first_ns: head.ns, last_ns: head.ns, disorder: 0 };
        let unread = self.buffer.unread();
        let mut at = 0;
        while let Ok(Some((ns, _, len))) = classic.parse(&unread[at..], 0) {
            let end = at + RECORD_HEADER + len as usize;
            if ns > ns_max || end > unread.len() || begin + end - from > bytes_max {
                break;
            }
            run.packets += 1;
            run.disorder += u64::from(ns < run.last_ns);
            run.last_ns = ns;
            at = end;
        }
        run.to = begin + at;
        self.buffer.consume(at);
        self.records += run.packets - 1;
        Some(run)
    }

    /// The bytes of a run, valid until the reader is used again.
    pub(crate) fn run_bytes(&self, run: &Run) -> &[u8] {
        &self.buffer.window()[run.from..run.to]
    }
}

impl Classic {
    fn open<R: Read>(buffer: &mut Buffer<R>, magic: u32) -> Result<Self, ReadError> {
        let (big_endian, nanoseconds) = match (magic, magic.swap_bytes()) {
            (MAGIC_NS, _) => (false, true),
            (MAGIC_US, _) => (false, false),
            (_, MAGIC_NS) => (true, true),
            (_, MAGIC_US) => (true, false),
            _ => return Err(ReadError::Magic(magic.to_le_bytes())),
        };
        if !buffer.ensure(FILE_HEADER)? {
            return Err(ReadError::Truncated { records: 0, offset: 0 });
        }
        let header = buffer.unread();
        let (version, link) = (word(header, 4, big_endian), word(header, 20, big_endian));
        let (low, high) = (version as u16, (version >> 16) as u16);
        let (major, minor) = if big_endian { (high, low) } else { (low, high) };
        if (major, minor) != (2, 4) {
            return Err(ReadError::Version { major, minor });
        }
        buffer.consume(FILE_HEADER);
        // the upper half of the link field tells of frame check sequences
        Ok(Self { big_endian, nanoseconds, link_type: link as u16 })
    }

    /// Time, wire length and data length of the record whose header `bytes` begins with; none if it is cut off.
    #[inline]
    fn parse(self, bytes: &[u8], offset: u64) -> Result<Option<(u64, u32, u32)>, ReadError> {
        let Some(header) = bytes.first_chunk::<RECORD_HEADER>() else { return Ok(None) };
        // word by word: as an array's map this was not inlined and cost more than all the rest
        let field = |at| u64::from(word(header, at, self.big_endian));
        let (seconds, fraction, captured, wire) = (field(0), field(4), field(8), field(12));
        let (fractions_per_s, unit_ns) = if self.nanoseconds { (NS_PER_S, 1) } else { (1_000_000, 1000) };
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

    #[inline]
    fn advance<R: Read>(self, buffer: &mut Buffer<R>, records: u64) -> Result<Option<Place>, ReadError> {
        buffer.ensure(RECORD_HEADER)?;
        let offset = buffer.offset();
        let cut = ReadError::Truncated { records, offset };
        let Some((ns, wire_len, len)) = self.parse(buffer.unread(), offset)? else {
            return if buffer.unread().is_empty() { Ok(None) } else { Err(cut) };
        };
        let bytes = RECORD_HEADER + len as usize;
        if !buffer.ensure(bytes)? {
            return Err(cut);
        }
        let at = buffer.start() + RECORD_HEADER;
        buffer.consume(bytes);
        Ok(Some(Place { ns, wire_len, at, len, interface: 0 }))
    }
}

/// The 32-bit word at `at`; `bytes` reaches that far.
#[inline]
pub(super) fn word(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}
