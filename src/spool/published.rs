//! What the spool tells its readers: published segments, and how far each queue is. Owns these types; `feed` passes them
//! on.
//!
//! Invariant: a [`Segment`] names a complete and durable file.

use crate::pcap::Counts;
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

impl Segment {
    /// Bytes of its records' data.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        use crate::limits::{PCAP_FILE_HEADER_BYTES as FILE, PCAP_RECORD_HEADER_BYTES as RECORD};
        self.bytes.saturating_sub(FILE as u64 + self.packets * RECORD as u64)
    }
}

/// What the live merge of one capture is told. `queue` counts from 0 over all ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The stream's next segment is published.
    Segment(usize, Segment),
    /// The stream's next segment will never be published. What it held is lost or stays in its file; the teller counts it.
    Hole {
        /// The stream.
        queue: usize,
        /// The segment's place in it.
        sequence: u64,
    },
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
pub struct Cut {
    /// The segment.
    pub sequence: u64,
    /// The record's offset in it; zero for the segment's beginning.
    pub offset: u64,
}
