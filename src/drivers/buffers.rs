//! How many buffers a queue has, and of what size. Owns that arithmetic for the running port and for `trawl check`.
//!
//! Invariant: a queue whose ring is full has buffers left for its worker.

use super::Driver;
use crate::limits::BURST;

/// Buffers that a thread keeps at hand: four bursts, so that receiving and freeing rarely meet the shared ring.
pub const CACHE: u32 = 256;

/// Bytes of a buffer that every driver takes: hardware counts in KiB, and virtio and AF_XDP know no other size.
const BYTES: u32 = 2048;

/// Bytes of a buffer for whole jumbo frames, where a device does not use several buffers: 9000 bytes of payload with headers.
const BYTES_JUMBO: u32 = 10 << 10;

/// The buffers of one queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue {
    /// How many.
    pub buffers: u32,
    /// Data bytes of each.
    pub buffer_bytes: u32,
}

impl Queue {
    /// For a ring of `descriptors`: at least `asked` buffers, and more if the driver fills its rings with more or keeps `kept`.
    #[must_use]
    pub fn new(driver: &Driver, descriptors: u16, asked: u32, kept: u32, buffer_bytes: u32) -> Self {
        // A worker holds a burst. A thread's cache takes up to one and a half times its size, and keeps it when the thread
        // ends: room for the polling thread's and for one before it.
        let spare = 2 * (CACHE * 3 / 2) + 2 * BURST as u32;
        let held = driver.buffers_held(descriptors).max(kept);
        Self { buffers: asked.max(held.saturating_add(spare)), buffer_bytes }
    }

    /// Data bytes of a buffer where frames are at most so long.
    #[must_use]
    pub fn buffer_bytes(frame_bytes_max: u32, is_chained: bool) -> u32 {
        if is_chained { BYTES } else { frame_bytes_max.clamp(BYTES, BYTES_JUMBO).next_multiple_of(1024) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_small_where_long_frames_are_chained() {
        assert_eq!(Queue::buffer_bytes(9022, true), 2048);
        assert_eq!(Queue::buffer_bytes(1518, false), 2048);
    }

    #[test]
    fn one_buffer_holds_a_jumbo_frame_where_it_must_but_not_the_longest_of_all() {
        assert_eq!(Queue::buffer_bytes(9022, false), 9216);
        assert_eq!(Queue::buffer_bytes(65_599, false), 10_240);
    }

    #[test]
    fn a_ring_that_is_full_leaves_buffers_for_its_worker() {
        let queue = |name| Queue::new(Driver::by_name(name), 4096, 4095, 0, 2048).buffers;
        assert_eq!(["net_ixgbe", "net_vmxnet3", "net_bnxt"].map(queue), [4992, 9088, 21_376]);
        assert_eq!(Queue::new(Driver::by_name("net_ring"), 64, 4095, 6000, 2048).buffers, 6896);
    }
}
