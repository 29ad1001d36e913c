//! Heartbeat and counters of one thread. Owns the counters and their meaning; the watchdog and the metrics that read them are in
//! `observe`.
//!
//! Invariant: only its thread writes a heartbeat, with plain stores and as part of its housekeeping, never for a packet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

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
    blocks_waiting: AtomicU64,
    has_ring: AtomicBool,
    extremes: Extremes,
    /// The window that the reader is in; the only word that another thread writes.
    window: AtomicU64,
    blocks: u64,
    name: String,
}

/// The most that waited and the fewest blocks that were free: since the start, and in the present window
#[derive(Debug)]
struct Extremes {
    window: AtomicU64,
    queued_max: [AtomicU64; 2],
    blocks_free_min: [AtomicU64; 2],
}

impl Default for Extremes {
    fn default() -> Self {
        let least = [const { AtomicU64::new(u64::MAX) }; 2];
        Self { window: AtomicU64::new(0), queued_max: Default::default(), blocks_free_min: least }
    }
}

impl Extremes {
    /// Begins a window, if the reader has.
    #[inline]
    fn turn(&self, window: u64) {
        if self.window.load(Relaxed) != window {
            self.queued_max[1].store(0, Relaxed);
            self.blocks_free_min[1].store(u64::MAX, Relaxed);
            self.window.store(window, Relaxed);
        }
    }
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
    /// Its blocks that are with the writers.
    pub blocks_waiting: u64,
    /// Whether a writer has io_uring.
    pub has_ring: bool,
    /// The most messages that waited since the start.
    pub queued_max: u64,
    /// The same in the window before [`Heartbeat::turn`] was called last.
    pub queued_max_lately: u64,
    /// The fewest blocks that were free since the start.
    pub blocks_free_min: u64,
    /// The same in that window.
    pub blocks_free_min_lately: u64,
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
        let queued = queued as u64;
        self.queued.store(queued, Relaxed);
        self.extremes.turn(self.window.load(Relaxed));
        for max in &self.extremes.queued_max {
            if queued > max.load(Relaxed) {
                max.store(queued, Relaxed);
            }
        }
        self.in_flight.store(in_flight as u64, Relaxed);
    }

    /// Sets how many of the worker's blocks are free.
    #[inline]
    pub fn free(&self, blocks: usize) {
        let blocks = blocks as u64;
        self.blocks_free.store(blocks, Relaxed);
        for min in &self.extremes.blocks_free_min {
            if blocks < min.load(Relaxed) {
                min.store(blocks, Relaxed);
            }
        }
    }

    /// Sets how many of the worker's blocks are with the writers.
    #[inline]
    pub fn waiting(&self, blocks: usize) {
        self.blocks_waiting.store(blocks as u64, Relaxed);
    }

    /// Sets whether the writer has io_uring.
    #[inline]
    pub fn ring(&self, has_ring: bool) {
        self.has_ring.store(has_ring, Relaxed);
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

    /// Begins a window; the thread notices with its next round. For one caller.
    pub fn turn(&self) {
        add(&self.window, 1);
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
            blocks_waiting: get(&self.blocks_waiting),
            has_ring: self.has_ring.load(Relaxed),
            queued_max: get(&self.extremes.queued_max[0]),
            queued_max_lately: get(&self.extremes.queued_max[1]),
            blocks_free_min: get(&self.extremes.blocks_free_min[0]).min(self.blocks),
            blocks_free_min_lately: get(&self.extremes.blocks_free_min[1]).min(get(&self.blocks_free)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_a_window_and_since_the_start_is_kept() {
        let stage = Heartbeat::new("worker0", 8);
        assert_eq!((stage.read().blocks_free_min, stage.read().queued_max), (8, 0));
        for (queued, free) in [(1, 7), (5, 2), (0, 8)] {
            stage.beat(queued, 0);
            stage.free(free);
        }
        let first = stage.read();
        assert_eq!((first.queued_max, first.queued_max_lately), (5, 5));
        assert_eq!((first.blocks_free_min, first.blocks_free_min_lately), (2, 2));
        stage.turn();
        stage.beat(3, 0);
        stage.free(6);
        let second = stage.read();
        assert_eq!((second.queued_max, second.queued_max_lately), (5, 3));
        assert_eq!((second.blocks_free_min, second.blocks_free_min_lately), (2, 6));
    }
}
