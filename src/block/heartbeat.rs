//! What a thread says of itself: that it beats, what waits for it, what it has done. Owns the words and their meaning; who
//! looks at them, and when that is too long without progress, is `observe`'s.
//!
//! Invariant: a heartbeat's words have one writer, its thread, and are written with plain stores from work that the thread does
//! anyway, never for a packet.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One thread of the data plane, or the engine. A cache line of its own, so that readers disturb nobody else.
#[repr(align(64))]
#[derive(Debug, Default)]
pub struct Heartbeat {
    beats: AtomicU64,
    queued: AtomicU64,
    in_flight: AtomicU64,
    done: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    fsyncs: AtomicU64,
    blocks_free: AtomicU64,
    blocks: u64,
    name: String,
}

/// A heartbeat's words, read one after the other: close to each other in time, not of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatReading {
    /// Turns of the thread's loop, or of its house-keeping. Stands still only if the thread does.
    pub beats: u64,
    /// Messages that wait for it.
    pub queued: u64,
    /// Writes that it has started and that have not ended.
    pub in_flight: u64,
    /// Messages taken and writes ended.
    pub done: u64,
    /// Writes that ended well.
    pub writes: u64,
    /// Bytes of those.
    pub written_bytes: u64,
    /// Files made durable.
    pub fsyncs: u64,
    /// Of a worker's blocks, those that are free.
    pub blocks_free: u64,
}

/// Adds to a word that only this thread writes.
#[inline]
fn add(word: &AtomicU64, count: u64) {
    word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
}

impl Heartbeat {
    /// A heartbeat of that name which has `blocks` blocks of the arena for its own.
    #[must_use]
    pub fn new(name: impl Into<String>, blocks: usize) -> Self {
        Self { name: name.into(), blocks: blocks as u64, ..Self::default() }
    }

    /// Its thread's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Blocks that it has in all; zero if it is no worker.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Says that the thread beats, with so many messages waiting for it and so many writes in flight.
    #[inline]
    pub fn beat(&self, queued: usize, in_flight: usize) {
        add(&self.beats, 1);
        self.queued.store(queued as u64, Relaxed);
        self.in_flight.store(in_flight as u64, Relaxed);
    }

    /// Says how many of the worker's blocks are free.
    #[inline]
    pub fn free(&self, blocks: usize) {
        self.blocks_free.store(blocks as u64, Relaxed);
    }

    /// Says that messages were taken or writes ended.
    #[inline]
    pub fn done(&self, count: u64) {
        add(&self.done, count);
    }

    /// Says that a write of so many bytes ended well.
    #[inline]
    pub fn written(&self, bytes: usize) {
        add(&self.writes, 1);
        add(&self.written_bytes, bytes as u64);
    }

    /// Says that a file was made durable.
    #[inline]
    pub fn synced(&self) {
        add(&self.fsyncs, 1);
    }

    /// What it says now.
    #[must_use]
    pub fn read(&self) -> HeartbeatReading {
        let get = |word: &AtomicU64| word.load(Relaxed);
        HeartbeatReading {
            beats: get(&self.beats),
            queued: get(&self.queued),
            in_flight: get(&self.in_flight),
            done: get(&self.done),
            writes: get(&self.writes),
            written_bytes: get(&self.written_bytes),
            fsyncs: get(&self.fsyncs),
            blocks_free: get(&self.blocks_free),
        }
    }
}
