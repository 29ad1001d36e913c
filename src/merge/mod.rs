//! Streams joined by time. Owns the k-way merge, live and offline; not where streams come from or objects go to.
//!
//! Invariant: records leave in time order, equal times by the stream's number; one stream's records never overtake each
//! other. What is in memory is bounded by the number of streams, whatever their length.

mod compress;
mod error;
mod feed;
mod file;
mod findings;
mod format;
mod input;
mod interfaces;
mod live;
mod ng;
mod objects;
mod offline;
mod order;
mod output;
mod part;
mod seal;
#[cfg(test)]
mod tests;

pub use error::MergeError;
pub use feed::Feed;
pub use format::{Compression, Container, Counts, ObjectFormat, Origin, Shape};
pub use live::run_live;
pub(crate) use file::Target;
pub use findings::{Findings, Partial};
pub(crate) use input::{Input as OpenInput, Reading};
pub use input::{MergeInput, OpenStream};
pub(crate) use interfaces::Links;
pub(crate) use offline::refuse_overwrite;
pub use offline::{MergeOptions, Merged, merge_files, merge_inputs};
pub use output::is_standard_output;
pub use part::discard_parts;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One published segment of one queue's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The file: a complete classic pcap with nanosecond time stamps.
    pub path: PathBuf,
    /// Place in its stream, from 0.
    pub sequence: u64,
    /// File size in bytes, headers included.
    pub bytes: u64,
    /// Records in it.
    pub packets: u64,
    /// Time of the first record, ns since the UNIX epoch; zero if it has none.
    pub first_ns: u64,
    /// Time of the last record.
    pub last_ns: u64,
}

/// What the live merge of one capture is told. `queue` counts from 0 over all ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The stream's next segment is published.
    Segment(usize, Segment),
    /// Whatever this queue publishes from now on is not older than this many ns since the UNIX epoch.
    Watermark(usize, u64),
    /// The queue's stream is complete.
    End(usize),
    /// What was counted over the whole capture is final; none if it will never be known. Only the end of a pcapng capture's
    /// last object needs it, and that waits for it.
    Counts(Option<Counts>),
}

/// A place in one queue's stream: everything before it is in complete objects, what comes next begins there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The segment.
    pub sequence: u64,
    /// The record's offset in it; zero for the segment's beginning.
    pub offset: u64,
}

/// Where a merge begins: anew, or where the last complete object ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Number of the first object, from 0.
    pub object: u32,
    /// One place for each queue, by number.
    pub cuts: Vec<Cut>,
}

impl Start {
    /// The beginning of a capture of so many queues.
    #[must_use]
    pub fn anew(queues: usize) -> Self {
        Self { object: 0, cuts: vec![Cut::default(); queues] }
    }
}

/// What a complete object leaves behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumed {
    /// The segment files that are wholly contained in this object and those before it.
    pub segments: Vec<PathBuf>,
    /// Where the next object begins, one place for each queue.
    pub cuts: Vec<Cut>,
    /// Whether it is the capture's last object.
    pub is_last: bool,
}

/// What an object holds, known once it is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Size in bytes.
    pub bytes: u64,
    /// Records in it.
    pub packets: u64,
    /// Bytes of their data.
    pub frame_bytes: u64,
    /// Time of its first record, ns since the UNIX epoch; zero if it has none.
    pub first_ns: u64,
    /// Time of its last record.
    pub last_ns: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// What is in it, if it is compressed.
    pub content: Option<Content>,
}

/// What a compressed object unpacks to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// What the live merge produces, in order: for each object `Begin`, its `Chunk`s, `End`. At least one object. If the merge
/// fails, its last object has no `End` and is to be thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Object number `n`, from 0, begins.
    Begin(u32),
    /// The object's next bytes.
    Chunk(Bytes),
    /// The object is complete.
    End(Summary, Consumed),
}

/// What a whole merge came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects or files written.
    pub objects: u32,
    /// Records in them.
    pub packets: u64,
    /// Bytes in them, headers included.
    pub bytes: u64,
    /// Time of the first record, ns since the UNIX epoch; zero if there is none.
    pub first_ns: u64,
    /// Time of the last record.
    pub last_ns: u64,
    /// Records older than the one written before them: time went backwards inside a stream.
    pub disorder: u64,
}
