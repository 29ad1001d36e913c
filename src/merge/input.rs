//! Inputs of unknown origin. Owns opening them within bounded memory and descriptors, and the handling of damaged ones.
//!
//! Invariant: no input is changed; an input that ends early is a finding, or ends the merge.

use super::file::Source;
use super::order::{Provenance, Sink, forward};
use super::{Findings, MergeError};
use crate::pcap::{InterfaceInfo, Oddities, Place, ReadError, Reader, Record, Tolerance, Unpacked};
use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Opens an input that is not a file. The argument is the memory that it may use, in bytes.
pub type OpenStream<'a> = Box<dyn FnOnce(usize) -> io::Result<Box<dyn Read + 'a>> + 'a>;

/// An input: pcap or pcapng, plain or compressed by zstd.
pub enum MergeInput<'a> {
    /// A file.
    File(PathBuf),
    /// Anything else.
    Stream {
        /// Its name in messages.
        name: PathBuf,
        /// Times of its first and last packet, if they are known: it is opened when the merge is there.
        span: Option<(u64, u64)>,
        /// Opens it.
        open: OpenStream<'a>,
    },
}

impl MergeInput<'_> {
    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &Path {
        match self {
            Self::File(name) | Self::Stream { name, .. } => name,
        }
    }
}

impl fmt::Debug for MergeInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MergeInput({})", self.name().display())
    }
}

/// Options for reading inputs.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Skip damaged parts, and inputs that cannot be opened.
    pub(crate) keep_going: bool,
    pub(crate) tolerance: Tolerance,
    /// Stored (compressed) bytes read so far.
    pub(crate) bytes: Rc<Cell<u64>>,
}

type InputReader<'a> = Reader<Unpacked<Counted<'a>>>;

/// One input, and its next packet.
pub(crate) struct Input<'a> {
    path: PathBuf,
    reader: InputReader<'a>,
    head: Option<Place>,
    keep_going: bool,
}

/// Counts the stored (compressed) bytes that are read.
struct Counted<'a> {
    source: Box<dyn Read + 'a>,
    bytes: Rc<Cell<u64>>,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

impl<'a> Input<'a> {
    /// Opens an input and finds its first packet; none if it is skipped. With `hold` a file keeps its descriptor.
    pub(crate) fn open(
        input: MergeInput<'a>,
        reading: &Reading,
        hold: bool,
        buffer_bytes: usize,
        findings: &mut Findings,
    ) -> Result<Option<Self>, MergeError> {
        let path = input.name().to_owned();
        let keep_going = reading.keep_going;
        let mut reader = match open_one(input, reading, hold, buffer_bytes) {
            Ok(reader) => reader,
            Err(cause) if is_left_out(&cause, keep_going) => {
                findings.add_partial(&path, 0, cause);
                return Ok(None);
            }
            Err(source) => return Err(MergeError::Read { path, source }),
        };
        if reading.tolerance.copies_blocks {
            reader.allow_mixed_links();
        }
        let mut input = Self { path, reader, head: None, keep_going };
        input.advance(findings)?;
        Ok(Some(input))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Time of the next packet; none at the end.
    pub(crate) fn head_ns(&self) -> Option<u64> {
        Some(self.head?.ns)
    }

    /// The next packet and its interface.
    pub(crate) fn head(&self) -> Option<(Record<'_>, InterfaceInfo<'_>)> {
        let head = self.head.as_ref()?;
        let record = Record { ns: head.ns, wire_len: head.wire_len, data: self.reader.data(head) };
        Some((record, self.reader.interface(head)))
    }

    /// Link type and FCS length of its packets; none if it has no packet.
    pub(crate) fn links(&self) -> Option<(u16, Option<u8>)> {
        let bits = match &self.head {
            Some(head) => self.reader.interface(head).check_sequence_bits,
            None => None,
        };
        Some((self.reader.link_type()?, bits))
    }

    /// Advances to the next packet.
    #[inline]
    pub(crate) fn advance(&mut self, findings: &mut Findings) -> Result<(), MergeError> {
        self.head = match self.reader.advance() {
            Ok(head) => head,
            Err(cause) => {
                self.ended_early(cause, findings)?;
                None
            }
        };
        Ok(())
    }

    #[cold]
    fn ended_early(&mut self, cause: ReadError, findings: &mut Findings) -> Result<(), MergeError> {
        if !is_left_out(&cause, self.keep_going) {
            return Err(MergeError::Read { path: self.path.clone(), source: cause });
        }
        findings.add_partial(&self.path, self.reader.records(), cause);
        Ok(())
    }

    /// Moves the next packet to the sink, and with it the following ones that are in memory and not younger than `ns_max`.
    pub(super) fn forward(
        &mut self,
        stream: usize,
        ns_max: u64,
        sink: &mut impl Sink,
    ) -> Result<(), MergeError> {
        let Some(head) = &self.head else { return Ok(()) };
        forward((stream, &self.path), &mut self.reader, head, (ns_max, usize::MAX), sink)
    }

    /// Moves the next packet alone to the sink.
    pub(crate) fn write_head(&self, sink: &mut super::Target) -> Result<(), MergeError> {
        let (Some(head), Some((record, info))) = (&self.head, self.head()) else { return Ok(()) };
        let options = self.reader.options(head);
        let from = Provenance { stream: 0, path: &self.path, interface: head.interface, info, options };
        sink.record(from, &record)
    }

    /// Blocks to copy that were read since the last call.
    #[inline]
    pub(crate) fn take_carried(&mut self) -> Vec<u8> {
        self.reader.take_carried()
    }

    /// What was met in it.
    pub(crate) fn oddities(&self) -> Oddities {
        self.reader.oddities()
    }

    /// Adds its findings.
    pub(crate) fn tell(&self, findings: &mut Findings) {
        findings.add(&self.path, &self.oddities());
    }
}

/// Whether the merge skips what cannot be read: always the rest of a truncated file, otherwise by option.
fn is_left_out(cause: &ReadError, keep_going: bool) -> bool {
    match cause {
        ReadError::Truncated { .. } => true,
        // With another output format it can be merged.
        ReadError::LinkType { .. } => false,
        _ => keep_going,
    }
}

fn open_one<'a>(
    input: MergeInput<'a>,
    reading: &Reading,
    hold: bool,
    buffer_bytes: usize,
) -> Result<InputReader<'a>, ReadError> {
    let path = input.name().to_owned();
    // Half of a stream's share is for the bytes that are in transit.
    let (source, buffer_bytes) = match input {
        MergeInput::File(path) => {
            (Source::open(&path, hold).map(|source| Box::new(source) as Box<dyn Read>), buffer_bytes)
        }
        MergeInput::Stream { open, .. } => (open(buffer_bytes / 2), buffer_bytes / 2),
    };
    let source = source.map_err(|source| ReadError::Open { path, source })?;
    let counted = Counted { source, bytes: Rc::clone(&reading.bytes) };
    let unpacked = Unpacked::new(counted).map_err(|source| ReadError::Io { offset: 0, source })?;
    Reader::tolerant(unpacked, buffer_bytes, reading.tolerance)
}
