//! Streams joined by time. Owns the k-way merge, live and offline; not where streams come from or objects go to.
//!
//! Invariant: records leave in time order, equal times by the stream's number; one stream's records never overtake each
//! other. What is in memory is bounded by the number of streams, whatever their length.

mod compress;
mod error;
mod file;
mod findings;
mod foresee;
mod format;
mod input;
mod interfaces;
mod live;
mod ng;
mod objects;
mod offline;
mod order;
mod output;
mod parallel;
mod part;
mod seal;
mod slices;
mod turn;
#[cfg(test)]
mod tests;
mod uncached;

pub(crate) use error::Fault;
pub use error::MergeError;
pub(crate) use file::Target;
pub use findings::{Findings, Partial};
pub(crate) use foresee::{Foreseen, foresee};
pub use format::Shape;
pub(crate) use input::{Input as OpenInput, Reading};
pub use input::{MergeInput, OpenStream};
pub(crate) use interfaces::Links;
pub(crate) use live::run_object;
pub use live::{run_live, run_live_past};
pub(crate) use offline::refuse_overwrite;
pub use offline::{MergeOptions, Merged, merge_files, merge_inputs};
pub use output::is_standard_output;
pub use part::discard_parts;

use crate::pcap::Content;
use crate::spool::{Cut, Segment};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a merge begins: at the first packet, or where the last complete object ended.
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
    pub fn fresh(queues: usize) -> Self {
        Self { object: 0, cuts: vec![Cut::default(); queues] }
    }
}

/// A stretch of a stream that no object holds: a segment from `offset` to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The stream.
    pub queue: usize,
    /// The segment's place in it.
    pub sequence: u64,
    /// Everything before this place in the file is in an object.
    pub offset: u64,
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
    /// What was passed over on the way here. Its files are not among `segments`.
    pub gaps: Vec<Gap>,
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

/// What the live merge produces, in order: for each object `Begin`, perhaps `Whole`, its `Chunk`s, `End`. At least one object. If the merge
/// fails, its last object has no `End` and is to be thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Object number `n`, from 0, begins.
    Begin(u32),
    /// The object that has just begun will be this segment file, byte for byte; its chunks follow all the same. A store may take
    /// the file instead of them.
    Whole(Segment),
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
