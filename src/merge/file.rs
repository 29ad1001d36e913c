//! Files of the offline merge. Owns inputs that do not each hold a descriptor, and what is written to the output; where
//! that goes is in `output`.
//!
//! Invariant: an output that is a regular file is complete under its name, or not there.

use super::MergeError;
use super::Totals;
use super::compress::Frames;
use super::interfaces::{Encoder, Links};
use super::ng::packets;
use super::order::{Provenance, Sink, Span, account, classic_header};
use super::output::Output;
use super::part::Part;
use crate::pcap::blocks::packet_with;
use crate::pcap::{Compression, ObjectFormat, Record};
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Output buffered before a write.
const WRITE_BYTES: usize = 1 << 20;

/// An input file. One without a descriptor is opened again for each of the reader's big reads, so that any number can be merged.
#[derive(Debug)]
pub(super) enum Source {
    /// Holds its descriptor.
    Held(File),
    /// Holds none between reads.
    Reopened {
        path: PathBuf,
        /// Device and inode: another file under the name is not read.
        identity: (u64, u64),
        offset: u64,
    },
}

impl Source {
    pub(super) fn open(path: &Path, hold: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if hold || !metadata.is_file() {
            let _only_a_hint = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
            return Ok(Self::Held(file));
        }
        Ok(Self::Reopened { path: path.to_owned(), identity: identity(&metadata), offset: 0 })
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Held(file) => file.read(into),
            Self::Reopened { path, identity: known, offset } => {
                let file = File::open(path)?;
                if identity(&file.metadata()?) != *known {
                    return Err(io::Error::other("the file was replaced while it was being merged"));
                }
                let read = file.read_at(into, *offset)?;
                *offset += read as u64;
                Ok(read)
            }
        }
    }
}

/// What tells whether two names are of one file.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The file that a merge makes.
pub(crate) struct Target {
    writer: Box<dyn Write>,
    encoder: Encoder,
    path: PathBuf,
    /// Where a regular file grows until it is whole.
    part: Option<Part>,
    pub(super) totals: Totals,
    options: Vec<u8>,
}

impl Target {
    /// Begins the file: a regular one under a temporary name, anything else as it is.
    pub(crate) fn create(path: &Path, format: ObjectFormat, links: Links) -> Result<Self, MergeError> {
        let failed = |source| MergeError::Output { path: path.to_owned(), source };
        let (sink, part) = Output::resolve(path).and_then(|output| output.open()).map_err(failed)?;
        let writer = BufWriter::with_capacity(WRITE_BYTES, sink);
        let writer: Box<dyn Write> = match format.compression {
            Compression::None => Box::new(writer),
            Compression::Zstd => {
                Box::new(Frames::new(writer, format.level).map_err(MergeError::Compression)?)
            }
        };
        let (encoder, header) = Encoder::new(format.container, links);
        let totals = Totals { objects: 1, ..Totals::default() };
        let mut target = Self { writer, encoder, path: path.to_owned(), part, totals, options: Vec::new() };
        target.write(&header, &[])?;
        Ok(target)
    }

    fn write(&mut self, head: &[u8], tail: &[u8]) -> Result<(), MergeError> {
        self.totals.bytes += (head.len() + tail.len()) as u64;
        let written = self.writer.write_all(head).and_then(|()| self.writer.write_all(tail));
        written.map_err(|source| MergeError::Output { path: self.path.clone(), source })
    }

    /// Appends blocks that were copied from an input.
    #[inline]
    pub(crate) fn carry(&mut self, blocks: &[u8]) -> Result<(), MergeError> {
        if blocks.is_empty() { Ok(()) } else { self.write(blocks, &[]) }
    }

    fn count(&mut self, span: Span) {
        let Totals { packets, first_ns, last_ns, .. } = &mut self.totals;
        self.totals.disorder += account(packets, first_ns, last_ns, span);
    }

    /// Makes the file durable and visible.
    pub(crate) fn finish(mut self) -> Result<Totals, MergeError> {
        let path = self.path.clone();
        self.publish().map_err(|source| MergeError::Output { path, source })?;
        Ok(self.totals)
    }

    fn publish(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.part.take().map_or(Ok(()), Part::publish)
    }
}

impl Sink for Target {
    #[inline]
    fn room(&mut self, _record_bytes: usize) -> Result<usize, MergeError> {
        Ok(usize::MAX)
    }

    #[inline]
    fn run(&mut self, from: Provenance<'_>, records: &[u8], span: Span) -> Result<(), MergeError> {
        self.count(span);
        match &mut self.encoder {
            Encoder::Pcap => self.write(records, &[]),
            Encoder::Ng(interfaces) => {
                let mut blocks = interfaces.begin(from)?;
                packets(&mut blocks, interfaces.current(), records);
                let written = self.write(&blocks, &[]);
                self.encoder.give_back(blocks);
                written
            }
        }
    }

    #[inline]
    fn record(&mut self, from: Provenance<'_>, record: &Record<'_>) -> Result<(), MergeError> {
        self.count(Span::one(record.ns));
        match &mut self.encoder {
            Encoder::Pcap => self.write(&classic_header(from, record)?, record.data),
            Encoder::Ng(interfaces) => {
                let mut blocks = interfaces.begin(from)?;
                self.options.clear();
                from.options.copy(&mut self.options);
                let Record { ns, wire_len, data } = *record;
                packet_with(&mut blocks, interfaces.current(), ns, wire_len, data, &self.options);
                let written = self.write(&blocks, &[]);
                self.encoder.give_back(blocks);
                written
            }
        }
    }
}
