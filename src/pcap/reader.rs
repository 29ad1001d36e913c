//! The streaming reader. Owns telling the formats apart and parsing classic pcap; pcapng is in `ng`.
//!
//! An exact reader takes only what a correct writer writes. A tolerant one takes what Wireshark takes, puts it right and
//! counts it.
//!
//! Invariant: after an error the position does not move, and every further call gives the same error.

use super::buffer::{BYTES_MAX, Buffer};
use super::care::{Care, Tolerance};
use super::classic::Classic;
use super::error::ReadError;
use super::format::MAGIC_PCAPNG;
use super::interface::InterfaceInfo;
use super::ng::Ng;
use super::oddity::Oddities;
use super::options::Options;
use super::place::{Place, Record, word};
use crate::limits::PCAP_RECORD_HEADER_BYTES as RECORD_HEADER;
use std::fs::File;
use std::io::Read;
use std::path::Path;

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
    care: Care,
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
        Self::begin(source, buffer_bytes, None)
    }

    /// As [`Reader::with_buffer`], for a file of unknown origin: what can be put right is, and [`Reader::oddities`] counts it.
    ///
    /// # Errors
    /// As [`Reader::new`].
    pub fn tolerant(source: R, buffer_bytes: usize, tolerance: Tolerance) -> Result<Self, ReadError> {
        Self::begin(source, buffer_bytes, Some(tolerance))
    }

    fn begin(source: R, buffer_bytes: usize, tolerance: Option<Tolerance>) -> Result<Self, ReadError> {
        let mut care = Care::new(tolerance);
        let mut buffer = Buffer::new(source, buffer_bytes);
        if !buffer.ensure(4)? {
            return Err(ReadError::Truncated { records: 0, offset: 0 });
        }
        let magic = word(buffer.unread(), 0, false);
        let format = if magic == MAGIC_PCAPNG {
            Format::Ng(Ng::open(&mut buffer, &mut care)?)
        } else {
            Format::Classic(Classic::open(&mut buffer, magic)?)
        };
        Ok(Self { buffer, format, care, records: 0 })
    }

    /// The packets' link type (<https://www.tcpdump.org/linktypes.html>); none for a pcapng file without packets.
    #[must_use]
    pub fn link_type(&self) -> Option<u16> {
        match &self.format {
            Format::Classic(classic) => Some(classic.link_type()),
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

    /// The interface of the record last moved past.
    #[inline]
    pub(crate) fn interface(&self, place: &Place) -> InterfaceInfo<'_> {
        match &self.format {
            Format::Classic(classic) => classic.interface(),
            Format::Ng(ng) => ng.interface(place.interface),
        }
    }

    /// The options of the record last moved past, if they are to be copied.
    #[inline]
    pub(crate) fn options(&self, place: &Place) -> Options<'_> {
        let len = place.options_len as usize;
        match &self.format {
            Format::Ng(ng) if len > 0 => {
                let bytes = &self.buffer.window()[place.options_at..place.options_at + len];
                Options::new(bytes, ng.big_endian())
            }
            _ => Options::default(),
        }
    }

    /// What was put right or left out so far; nothing by an exact reader.
    #[must_use]
    pub fn oddities(&self) -> Oddities {
        self.care.oddities
    }

    /// Blocks to be copied that were met since the last call, laid out for a section of this program.
    pub(crate) fn take_carried(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.care.carried)
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
            Format::Classic(classic) => classic.advance(&mut self.buffer, &mut self.care, self.records)?,
            Format::Ng(ng) => ng.advance(&mut self.buffer, &mut self.care, self.records)?,
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
        let Format::Classic(classic) = self.format else { return None };
        if !head.is_own {
            return None;
        }
        let (from, begin) = (head.at - RECORD_HEADER, self.buffer.start());
        let mut run = Run { from, to: begin, packets: 1, first_ns: head.ns, last_ns: head.ns, disorder: 0 };
        let unread = self.buffer.unread();
        let mut at = 0;
        while let Ok(Some((ns, wire_len, len))) = classic.parse(&unread[at..], 0) {
            // nothing but zeros, which may be the tail of a preallocated file
            if self.care.is_tolerant() && (ns, wire_len) == (0, 0) {
                break;
            }
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
