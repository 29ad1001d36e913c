//! Which stream is next, and how far it may go. Owns the order; not the streams.
//!
//! Invariant: a record leaves when (its time, its stream) is below the floor of every other stream. A floor is the time of
//! the stream's next record or, if that is not known yet, a time that it will not be below. Both count alike, so the
//! outcome does not depend on when segments arrive.

use super::MergeError;
use crate::limits::PCAP_RECORD_HEADER_BYTES;
use crate::pcap::{InterfaceInfo, Options, Place, Reader, Record, format};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Read;
use std::path::Path;

/// The floors of all streams that have not ended.
#[derive(Debug, Default)]
pub(super) struct Floors {
    heap: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Floors {
    /// Replaces all floors by these (time, stream) pairs.
    pub(super) fn reset(&mut self, floors: impl Iterator<Item = (u64, usize)>) {
        self.heap.clear();
        self.heap.extend(floors.map(Reverse));
    }

    pub(super) fn push(&mut self, ns: u64, stream: usize) {
        self.heap.push(Reverse((ns, stream)));
    }

    /// The stream with the lowest floor.
    pub(super) fn lowest(&self) -> Option<usize> {
        self.heap.peek().map(|Reverse((_, stream))| *stream)
    }

    /// Takes out the lowest stream's floor and returns the latest time up to which it may go on alone.
    pub(super) fn pop_lowest(&mut self) -> u64 {
        let popped = self.heap.pop();
        match (popped, self.heap.peek()) {
            (Some(Reverse((_, stream))), Some(Reverse((ns, other)))) if stream > *other => {
                ns.saturating_sub(1)
            }
            (_, Some(Reverse((ns, _)))) => *ns,
            (_, None) => u64::MAX,
        }
    }
}

/// What is known of adjacent records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) packets: u64,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    pub(super) disorder: u64,
}

impl Span {
    /// One record of this time.
    pub(super) fn one(ns: u64) -> Self {
        Self { packets: 1, first_ns: ns, last_ns: ns, disorder: 0 }
    }
}

/// Where records are from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Provenance<'a> {
    pub(super) stream: usize,
    pub(super) path: &'a Path,
    /// Number in the stream.
    pub(super) interface: u32,
    pub(super) info: InterfaceInfo<'a>,
    /// Of a single record, to be copied.
    pub(super) options: Options<'a>,
}

/// Where merged records go.
pub(super) trait Sink {
    /// Makes room for a record of this many bytes with its header, and says how many bytes may come at once.
    fn room(&mut self, record_bytes: usize) -> Result<usize, MergeError>;

    /// Takes records that are laid out as this program writes them.
    fn run(&mut self, from: Provenance<'_>, records: &[u8], span: Span) -> Result<(), MergeError>;

    /// Takes one record of any file.
    fn record(&mut self, from: Provenance<'_>, record: &Record<'_>) -> Result<(), MergeError>;
}

/// Moves `head`, and as many records behind it as are at hand and not younger than `ns_max`, to the sink.
#[inline]
pub(super) fn forward<R: Read>(
    (stream, path): (usize, &Path),
    reader: &mut Reader<R>,
    head: &Place,
    (ns_max, bytes_max): (u64, usize),
    sink: &mut impl Sink,
) -> Result<(), MergeError> {
    let room = sink.room(PCAP_RECORD_HEADER_BYTES + head.len as usize)?.min(bytes_max);
    let run = reader.run(head, ns_max, room);
    let (info, options) = (reader.interface(head), reader.options(head));
    let from = Provenance { stream, path, interface: head.interface, info, options };
    let Some(run) = run else {
        let record = Record { ns: head.ns, wire_len: head.wire_len, data: reader.data(head) };
        return sink.record(from, &record);
    };
    let (first_ns, last_ns) = (run.first_ns, run.last_ns);
    let span = Span { packets: run.packets, first_ns, last_ns, disorder: run.disorder };
    sink.run(from, reader.run_bytes(&run), span)
}

/// The header of a record in a classic file.
pub(super) fn classic_header(
    from: Provenance<'_>,
    record: &Record<'_>,
) -> Result<[u8; PCAP_RECORD_HEADER_BYTES], MergeError> {
    if record.ns / format::NS_PER_S > u64::from(u32::MAX) {
        return Err(MergeError::Time { path: from.path.to_owned(), ns: record.ns });
    }
    Ok(format::record_header(record.ns, record.data.len() as u32, record.wire_len))
}

/// Adds a span to running first and last times and counts; says how many of it are older than what was before.
pub(super) fn account(packets: &mut u64, first_ns: &mut u64, last_ns: &mut u64, span: Span) -> u64 {
    let backwards = *packets > 0 && span.first_ns < *last_ns;
    if *packets == 0 {
        *first_ns = span.first_ns;
    }
    *packets += span.packets;
    *last_ns = span.last_ns;
    span.disorder + u64::from(backwards)
}
