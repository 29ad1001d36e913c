//! What a worker tells a writer. Owns the message type alone.
//!
//! Invariant: the messages of one stream arrive in the order in which its bytes stand in the file.

use crate::block::Block;

/// One queue's part in one capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// Number of the capture in this process's life; never reused.
    pub serial: u64,
    /// Queue, counted from 0 over all ports.
    pub queue: u16,
}

/// What ends with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closes {
    /// Nothing: the segment goes on. If the piece ends inside a page, the next one begins with that page again.
    Nothing,
    /// The segment.
    Segment,
}

/// A stretch of a segment's bytes.
#[derive(Debug)]
pub struct Piece {
    /// The bytes: the first `bytes` of the block.
    pub block: Block,
    /// How many.
    pub bytes: u32,
    /// Where they belong in the segment's file; a whole number of pages.
    pub offset: u64,
    /// The segment's place in its stream.
    pub sequence: u32,
    /// Records that were appended since the stream's last piece.
    pub packets: u32,
    /// Frame bytes of those records.
    pub frame_bytes: u64,
    /// Time of the segment's first record, ns since the UNIX epoch; zero if it has none.
    pub first_ns: u64,
    /// Time of the segment's last record.
    pub last_ns: u64,
    /// What ends with it.
    pub closes: Closes,
}

/// What a worker tells a writer.
#[derive(Debug)]
pub enum Message {
    /// More bytes.
    Data(StreamId, Piece),
    /// Nothing older than this many ns since the UNIX epoch will come in this stream.
    Watermark(StreamId, u64),
    /// The stream is complete; its last segment was closed before.
    End(StreamId),
}
