//! Heartbeat and counters of one thread. Owns the counters and their meaning; the watchdog and the metrics that read them are in
//! `observe`.
//!
//! Invariant: only its thread writes a heartbeat, with plain stores and as part of its housekeeping, never for a packet.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Heartbeat of a worker, a writer, the publisher or the engine. It has cache lines of its own, so that reading it slows no other
/// thread.
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

/// A reading of a [`Heartbeat`]. Its counters are read one after the other, so they are not of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatReading {
    /// Rounds of the thread's loop, or of its housekeeping.
    pub beats: u64,
    /// Messages waiting for the thread.
    pub queued: u64,
    /// Writes started and not ended.
    pub in_flight: u64,
    /// Messages taken and writes ended.
    pub done: u64,
    /// Writes that ended well.
    pub writes: u64,
    /// Bytes of these writes.
    pub written_bytes: u64,
    /// Files fsynced.
    pub fsyncs: u64,
    /// Free blocks of a worker.
    pub blocks_free: u64,
}

/// Adds to a counter that only this thread writes.
#[inline]
fn add(word: &AtomicU64, count: u64) {
    word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
}

impl Heartbeat {
    /// The heartbeat of the thread `name`, which owns `blocks` blocks of the arena.
    #[must_use]
    pub fn new(name: impl Into<String>, blocks: usize) -> Self {
        Self { name: name.into(), blocks: blocks as u64, ..Self::default() }
    }

    /// The thread's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Blocks that the thread owns; zero if it is no worker.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Counts a round, with this many messages waiting and writes in flight.
    #[inline]
    pub fn beat(&self, queued: usize, in_flight: usize) {
        add(&self.beats, 1);
        self.queued.store(queued as u64, Relaxed);
        self.in_flight.store(in_flight as u64, Relaxed);
    }

    /// Sets how many of the worker's blocks are free.
    #[inline]
    pub fn free(&self, blocks: usize) {
        self.blocks_free.store(blocks as u64, Relaxed);
    }

    /// Counts messages taken and writes ended.
    #[inline]
    pub fn done(&self, count: u64) {
        add(&self.done, count);
    }

    /// Counts a write of this many bytes that succeeded.
    #[inline]
    pub fn written(&self, bytes: usize) {
        add(&self.writes, 1);
        add(&self.written_bytes, bytes as u64);
    }

    /// Counts a file that was fsynced.
    #[inline]
    pub fn synced(&self) {
        add(&self.fsyncs, 1);
    }

    /// The counters now.
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
