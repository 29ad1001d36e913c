//! Objects made of merged records. Owns cutting, chunking and the lists of segment files that are done with; hashing and
//! delivery are in `seal`.
//!
//! Invariant: each object is a complete pcap file; a segment file is listed with the object that holds its last record.

use super::order::{Sink, Span, account};
use super::{Consumed, Cut, MergeError, Output, Segment, Start, Summary, Totals};
use crate::limits::{BLOCK_BYTES, PCAP_FILE_HEADER_BYTES};
use crate::pcap::file_header;
use bytes::BytesMut;
use crossbeam::channel::Sender;
use std::path::PathBuf;

/// Bytes of a full chunk; also a whole number of them makes a part of a multipart upload.
const CHUNK_BYTES: usize = BLOCK_BYTES;

/// Cuts merged records into objects and sends them on, still without their hashes.
#[derive(Debug)]
pub(super) struct Objects {
    outputs: Sender<Output>,
    snaplen: u32,
    bytes_max: u64,
    chunk: BytesMut,
    object: Option<Object>,
    consumed: Vec<PathBuf>,
    cuts: Vec<Cut>,
    number: u32,
    totals: Totals,
}

/// The object being made.
#[derive(Debug, Default)]
struct Object {
    bytes: u64,
    packets: u64,
    first_ns: u64,
    last_ns: u64,
}

impl Objects {
    pub(super) fn new(outputs: Sender<Output>, snaplen: u32, bytes_max: u64, start: &Start) -> Self {
        Self {
            outputs,
            snaplen,
            bytes_max,
            chunk: BytesMut::with_capacity(CHUNK_BYTES),
            object: None,
            consumed: Vec::new(),
            cuts: start.cuts.clone(),
            number: start.object,
            totals: Totals::default(),
        }
    }

    /// Notes that a queue's stream has been appended up to this offset of this segment.
    #[inline]
    pub(super) fn reached(&mut self, queue: usize, sequence: u64, offset: u64) {
        self.cuts[queue] = Cut { sequence, offset };
    }

    /// Notes that the records of this segment file have all been appended.
    pub(super) fn consumed(&mut self, queue: usize, segment: Segment) {
        self.reached(queue, segment.sequence + 1, 0);
        self.consumed.push(segment.path);
    }

    /// Completes the last object, which is the first if there was no record.
    pub(super) fn finish(mut self) -> Result<Totals, MergeError> {
        self.begin()?;
        self.end(true)?;
        Ok(self.totals)
    }

    fn send(&self, output: Output) -> Result<(), MergeError> {
        self.outputs.send(output).map_err(|_| MergeError::OutputClosed)
    }

    /// Begins an object unless one is being made.
    fn begin(&mut self) -> Result<(), MergeError> {
        if self.object.is_none() {
            self.send(Output::Begin(self.number))?;
            self.object = Some(Object::default());
            self.put(&file_header(self.snaplen))?;
        }
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), MergeError> {
        if let Some(object) = &mut self.object {
            object.bytes += bytes.len() as u64;
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MergeError> {
        let chunk = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK_BYTES)).freeze();
        self.send(Output::Chunk(chunk))
    }

    /// Completes the object being made.
    fn end(&mut self, is_last: bool) -> Result<(), MergeError> {
        if !self.chunk.is_empty() {
            self.flush()?;
        }
        let Some(Object { bytes, packets, first_ns, last_ns }) = self.object.take() else {
            return Ok(());
        };
        self.number += 1;
        self.totals.objects += 1;
        self.totals.bytes += bytes;
        let summary = Summary { bytes, packets, first_ns, last_ns, sha256: String::new() };
        let segments = std::mem::take(&mut self.consumed);
        let consumed = Consumed { segments, cuts: self.cuts.clone(), is_last };
        self.send(Output::End(summary, consumed))
    }
}

impl Sink for Objects {
    #[inline]
    fn room(&mut self, record_bytes: usize) -> Result<usize, MergeError> {
        if let Some(Object { bytes, packets: 1.., .. }) = self.object
            && bytes + record_bytes as u64 > self.bytes_max
        {
            self.end(false)?;
        }
        self.begin()?;
        // a record that is larger than an object may be has an object of its own
        let used = self.object.as_ref().map_or(PCAP_FILE_HEADER_BYTES as u64, |object| object.bytes);
        let left = usize::try_from(self.bytes_max.saturating_sub(used)).unwrap_or(usize::MAX);
        Ok(left.max(record_bytes))
    }

    #[inline]
    fn append(&mut self, head: &[u8], tail: &[u8], span: Span) -> Result<(), MergeError> {
        if let Some(Object { packets, first_ns, last_ns, .. }) = &mut self.object {
            account(packets, first_ns, last_ns, span);
        }
        let Totals { packets, first_ns, last_ns, .. } = &mut self.totals;
        self.totals.disorder += account(packets, first_ns, last_ns, span);
        self.put(head)?;
        self.put(tail)
    }
}
