//! Objects made of merged records. Owns cutting, chunking and the lists of segment files that are done with; hashing,
//! compression and delivery are in `seal`.
//!
//! Invariant: each object is a complete pcap or pcapng file; a segment file is listed with the object that holds its last
//! record. Where objects are cut depends on the records alone.

use super::ng::Section;
use super::order::{Provenance, Sink, Span, account, classic_header};
use super::{Consumed, Gap, MergeError, Output, Shape, Start, Summary, Totals};
use crate::limits::{PCAP_FILE_HEADER_BYTES, PCAP_RECORD_HEADER_BYTES};
use crate::pcap::{Container, Counts};
use crate::pcap::{Record, file_header};
use crate::spool::{Cut, Segment};
use bytes::BytesMut;
use crossbeam::channel::Sender;
use std::path::PathBuf;

/// Bytes of a full chunk, which compression makes a frame of; also a whole number of them makes a part of a multipart upload.
const CHUNK_BYTES: usize = super::compress::FRAME_BYTES;

/// Cuts merged records into objects and sends them on, still without their hashes.
#[derive(Debug)]
pub(super) struct Objects {
    outputs: Sender<Output>,
    snaplen: u32,
    bytes_max: u64,
    /// Of pcapng objects: what is not a record of a stream.
    section: Option<Section>,
    chunk: BytesMut,
    object: Option<Object>,
    consumed: Vec<PathBuf>,
    gaps: Vec<Gap>,
    cuts: Vec<Cut>,
    number: u32,
    /// Objects that are wanted; all if none.
    objects_max: Option<u32>,
    totals: Totals,
    /// Whether objects hold records as they stand in segments, and nothing else.
    is_plain: bool,
    /// The segment that the next object will be, if one begins with its first record.
    whole: Option<Segment>,
}

/// The object being made.
#[derive(Debug, Default)]
struct Object {
    bytes: u64,
    packets: u64,
    frame_bytes: u64,
    first_ns: u64,
    last_ns: u64,
}

impl Objects {
    pub(super) fn new(
        outputs: Sender<Output>,
        shape: &Shape,
        start: &Start,
        objects_max: Option<u32>,
    ) -> Self {
        let section = match shape.format.container {
            Container::Pcap => None,
            Container::PcapNg => Some(Section::new(shape, start.cuts.len())),
        };
        Self {
            outputs,
            snaplen: shape.snaplen,
            bytes_max: shape.object_bytes_max,
            section,
            chunk: BytesMut::with_capacity(CHUNK_BYTES),
            object: None,
            consumed: Vec::new(),
            gaps: Vec::new(),
            cuts: start.cuts.clone(),
            number: start.object,
            objects_max,
            totals: Totals::default(),
            is_plain: shape.format.is_plain(),
            whole: None,
        }
    }

    /// Whether the last object says what was counted over the whole capture.
    pub(super) fn wants_counts(&self) -> bool {
        self.section.is_some()
    }

    /// What an object that is one segment begins with, and its most bytes. None: no object is.
    pub(super) fn of_segments(&self) -> Option<([u8; PCAP_FILE_HEADER_BYTES], u64)> {
        self.is_plain.then(|| (file_header(self.snaplen), self.bytes_max))
    }

    /// Notes that an object that begins with the next record will be this segment.
    pub(super) fn expect_whole(&mut self, segment: &Segment) {
        self.whole = Some(segment.clone());
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

    /// Notes that what this segment holds from `offset` on is passed over.
    pub(super) fn passed_over(&mut self, gap: Gap) {
        self.reached(gap.queue, gap.sequence + 1, 0);
        self.gaps.push(gap);
    }

    /// Whether as many objects are complete as are wanted.
    pub(super) fn are_enough(&self) -> bool {
        self.objects_max.is_some_and(|objects_max| self.totals.objects >= objects_max)
    }

    /// What its complete objects come to.
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// Completes the last object, which is the first if there was no record.
    pub(super) fn finish(mut self, counts: Option<Counts>) -> Result<Totals, MergeError> {
        self.begin()?;
        self.end(true, counts)?;
        Ok(self.totals)
    }

    /// Completes the one object that is wanted: it ends there, although what follows would have room in it.
    pub(super) fn finish_at(mut self, until: Vec<Cut>) -> Result<Totals, MergeError> {
        self.begin()?;
        // What was passed over may reach further.
        self.cuts = until;
        self.end(false, None)?;
        Ok(self.totals)
    }

    fn send(&self, output: Output) -> Result<(), MergeError> {
        self.outputs.send(output).map_err(|_| MergeError::OutputClosed)
    }

    /// Begins an object unless one is being made.
    fn begin(&mut self) -> Result<(), MergeError> {
        let whole = self.whole.take();
        if self.object.is_some() {
            return Ok(());
        }
        self.send(Output::Begin(self.number))?;
        if let Some(segment) = whole {
            self.send(Output::Whole(segment))?;
        }
        self.object = Some(Object::default());
        let Some(mut section) = self.section.take() else { return self.put(&file_header(self.snaplen)) };
        let put = self.put(section.head());
        self.section = Some(section);
        put
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
    fn end(&mut self, is_last: bool, counts: Option<Counts>) -> Result<(), MergeError> {
        let Some(Object { last_ns, .. }) = self.object else { return Ok(()) };
        if let Some(mut section) = self.section.take() {
            let put = self.put(section.tail(last_ns, is_last, counts));
            self.section = Some(section);
            put?;
        }
        if !self.chunk.is_empty() {
            self.flush()?;
        }
        let Object { bytes, packets, frame_bytes, first_ns, last_ns } =
            self.object.take().unwrap_or_default();
        self.number += 1;
        self.totals.objects += 1;
        self.totals.bytes += bytes;
        let (sha256, content) = (String::new(), None);
        let summary = Summary { bytes, packets, frame_bytes, first_ns, last_ns, sha256, content };
        let segments = std::mem::take(&mut self.consumed);
        let gaps = std::mem::take(&mut self.gaps);
        let consumed = Consumed { segments, cuts: self.cuts.clone(), is_last, gaps };
        self.send(Output::End(summary, consumed))
    }

    fn count(&mut self, span: Span, frame_bytes: usize) {
        if let Some(object) = &mut self.object {
            object.frame_bytes += frame_bytes as u64;
            account(&mut object.packets, &mut object.first_ns, &mut object.last_ns, span);
        }
        let Totals { packets, first_ns, last_ns, .. } = &mut self.totals;
        self.totals.disorder += account(packets, first_ns, last_ns, span);
    }
}

impl Sink for Objects {
    #[inline]
    fn room(&mut self, record_bytes: usize) -> Result<usize, MergeError> {
        let here = |bytes| self.section.as_ref().map_or(bytes as u64, |section| section.bytes_of(bytes));
        let tail = self.section.as_ref().map_or(0, Section::tail_bytes);
        let needed = here(record_bytes) + tail;
        if let Some(Object { bytes, packets: 1.., .. }) = self.object
            && bytes + needed > self.bytes_max
        {
            self.end(false, None)?;
            if self.are_enough() {
                return Err(MergeError::OutputClosed);
            }
        }
        self.begin()?;
        // a record that is larger than an object may be has an object of its own
        let used = self.object.as_ref().map_or(PCAP_FILE_HEADER_BYTES as u64, |object| object.bytes);
        let left = self.bytes_max.saturating_sub(used + tail);
        let left = self.section.as_ref().map_or(left, |section| section.records_of(left));
        Ok(usize::try_from(left).unwrap_or(usize::MAX).max(record_bytes))
    }

    #[inline]
    fn run(&mut self, from: Provenance<'_>, records: &[u8], span: Span) -> Result<(), MergeError> {
        self.count(span, records.len() - span.packets as usize * PCAP_RECORD_HEADER_BYTES);
        let Some(mut section) = self.section.take() else { return self.put(records) };
        let put = self.put(section.run(from.stream, records, span));
        self.section = Some(section);
        put
    }

    fn record(&mut self, from: Provenance<'_>, record: &Record<'_>) -> Result<(), MergeError> {
        let records = [&classic_header(from, record)?, record.data].concat();
        self.run(from, &records, Span::one(record.ns))
    }
}
