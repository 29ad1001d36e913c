//! Receiving. Owns one RX queue, of a DPDK port or of an interface's ring, and the frames of its latest burst; not what is done with
//! them.
//!
//! Invariant: a queue's arrays describe exactly `held` frames that belong to it; each is given back once, when the burst
//! drops or, if the burst was forgotten, before the next poll.
//!
//! A frame cannot outlive its burst:
//!
//! ```compile_fail,E0505
//! use trawl::packet::{Burst, Source};
//! fn keep(mut queue: trawl::dpdk::RxQueue) -> usize {
//!     let burst = queue.receive();
//!     let frame: &[u8] = burst.head(0);
//!     drop(burst);
//!     frame.len()
//! }
//! ```
//!
//! a burst cannot be freed twice:
//!
//! ```compile_fail,E0382
//! use trawl::packet::Source;
//! fn twice(mut queue: trawl::dpdk::RxQueue) {
//!     let burst = queue.receive();
//!     drop(burst);
//!     drop(burst);
//! }
//! ```
//!
//! and a queue is not polled while a burst of it is held:
//!
//! ```compile_fail,E0499
//! use trawl::packet::{Burst, Source};
//! fn both(mut queue: trawl::dpdk::RxQueue) -> usize {
//!     let first = queue.receive();
//!     let second = queue.receive();
//!     first.len() + second.len()
//! }
//! ```
#![allow(unsafe_code)]

use std::{fmt, marker::PhantomData, slice, sync::Arc, time::Instant};

use super::{
    opened::Opened,
    ring::Ring,
    slot::{QueueSlot, Shared, Supply},
    sys,
};
use crate::{
    limits::BURST,
    packet::{Burst, Pace, Source},
};

/// One RX queue of a started port. The port runs as long as one of its queues or its [`super::StartedPort`] lives. Its device can be
/// taken away and given back by its [`QueueSlot`]; meanwhile it delivers nothing.
pub struct RxQueue {
    arrays: Box<sys::trawl_burst>,
    held: u16,
    queue: u16,
    supply: Supply,
    shared: Arc<Shared>,
    /// Of a software device that is not to give all that it could.
    pace: Option<Pace>,
    /// DPDK lets one thread at a time use a queue: not Sync.
    _one_thread: PhantomData<*mut sys::rte_mbuf>,
}

// SAFETY: DPDK ties no queue to a thread; it wants that no two threads poll one at the same time ("a queue must not be
// polled by more than one lcore", Programmer's Guide, Poll Mode Driver), which &mut in receive() ensures. Each pair of port
// and queue is made into one RxQueue only, by Port::start, and an exchange leaves nothing behind. A Ring is Send.
unsafe impl Send for RxQueue {}

impl fmt::Debug for RxQueue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RxQueue").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl RxQueue {
    pub(super) fn new(opened: Arc<Opened>, port: u16, queue: u16) -> Self {
        Self::of(Supply::Port { port, _opened: opened }, queue)
    }

    pub(super) fn of_ring(ring: Ring, queue: u16) -> Self {
        Self::of(Supply::Ring(ring), queue)
    }

    /// A queue that delivers nothing before it is given a device by its slot.
    #[must_use]
    pub fn without_device(queue: u16) -> Self {
        Self::of(Supply::Nothing, queue)
    }

    fn of(supply: Supply, queue: u16) -> Self {
        // SAFETY: pointers and integers, for which zero is a value.
        let arrays = unsafe { Box::<sys::trawl_burst>::new_zeroed().assume_init() };
        Self { arrays, held: 0, queue, supply, shared: Shared::new(), pace: None, _one_thread: PhantomData }
    }

    /// The same queue, which gives no more than that from now on.
    #[must_use]
    pub fn paced(mut self, pace: Option<Pace>) -> Self {
        self.pace = pace;
        self
    }

    /// The end by which the port's owner takes the device away and gives another.
    #[must_use]
    pub fn slot(&self) -> QueueSlot {
        QueueSlot::new(Arc::clone(&self.shared))
    }

    pub(super) fn into_supply(mut self) -> Supply {
        self.give_back();
        std::mem::replace(&mut self.supply, Supply::Nothing)
    }

    /// The queue's index on its port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    #[inline]
    fn give_back(&mut self) {
        let held = std::mem::take(&mut self.held);
        match &mut self.supply {
            // SAFETY: the `held` mbufs of trawl_rx's last call are ours and as it described them, and `held` is zero from here on.
            Supply::Port { .. } if held > 0 => unsafe { sys::trawl_free(&raw mut *self.arrays, held) },
            Supply::Port { .. } | Supply::Nothing => {}
            Supply::Ring(ring) => ring.give_back(),
        }
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Source for RxQueue {
    type Burst<'a> = RxBurst<'a>;

    #[inline]
    fn receive(&mut self) -> RxBurst<'_> {
        // Nothing to do unless a burst was leaked by mem::forget; then its mbufs would starve the port.
        self.give_back();
        if self.shared.is_asked() {
            self.shared.exchange(&mut self.supply);
        }
        if self.pace.is_some() {
            return self.receive_paced();
        }
        self.receive_all()
    }
}

impl RxQueue {
    /// As [`Source::receive`], once the pace lets it.
    #[cold]
    fn receive_paced(&mut self) -> RxBurst<'_> {
        let now = Instant::now();
        if self.pace.is_some_and(|pace| !pace.is_due(now)) {
            self.arrays.wire_bytes = 0;
            return RxBurst { queue: self };
        }
        let most = self.pace.map_or(BURST, |pace| pace.burst_max());
        let burst = self.receive_some(most as u16);
        if let Some(pace) = &mut burst.queue.pace {
            pace.took(usize::from(burst.queue.held), now);
        }
        burst
    }

    fn receive_some(&mut self, most: u16) -> RxBurst<'_> {
        let Supply::Port { port, .. } = &self.supply else { return self.receive_all() };
        // SAFETY: as in receive_all; no more than TRAWL_BURST frames are asked for, whatever `most` is.
        let received = unsafe { sys::trawl_rx_some(*port, self.queue, &raw mut *self.arrays, most) };
        self.hold(received)
    }

    #[inline]
    fn receive_all(&mut self) -> RxBurst<'_> {
        let received = match &mut self.supply {
            // SAFETY: the port is started and the queue set up, as `_opened` lives; &mut self is the only user of the queue;
            // the arrays hold TRAWL_BURST elements.
            Supply::Port { port, .. } => unsafe { sys::trawl_rx(*port, self.queue, &raw mut *self.arrays) },
            Supply::Ring(ring) => ring.receive(&mut self.arrays),
            Supply::Nothing => {
                self.arrays.wire_bytes = 0;
                0
            }
        };
        self.hold(received)
    }

    #[inline]
    fn hold(&mut self, received: u16) -> RxBurst<'_> {
        assert!(usize::from(received) <= BURST, "a driver delivered more frames than there is room for");
        self.held = received;
        RxBurst { queue: self }
    }
}

/// The frames of one poll. Dropping it gives them back to the port.
#[derive(Debug)]
pub struct RxBurst<'a> {
    queue: &'a mut RxQueue,
}

impl RxBurst<'_> {
    #[inline]
    fn frames(&self) -> &[sys::trawl_frame] {
        &self.queue.arrays.frames[..usize::from(self.queue.held)]
    }
}

impl Burst for RxBurst<'_> {
    #[inline]
    fn len(&self) -> usize {
        usize::from(self.queue.held)
    }

    #[inline]
    fn head(&self, i: usize) -> &[u8] {
        let frame = &self.frames()[i];
        // SAFETY: the shim made `data` point into the mbuf's buffer, or into the ring's block, with `head_len` bytes behind it,
        // none beyond its end; it is ours and nobody writes to it until the burst drops, which &self outlives not.
        unsafe { slice::from_raw_parts(frame.data, frame.head_len as usize) }
    }

    #[inline]
    fn wire_len(&self, i: usize) -> u32 {
        self.frames()[i].wire_len
    }

    #[inline]
    fn wire_bytes(&self) -> u64 {
        self.queue.arrays.wire_bytes
    }

    #[inline]
    fn is_timed(&self) -> bool {
        matches!(self.queue.supply, Supply::Ring(_))
    }

    #[inline]
    fn hardware_time_ns(&self, i: usize) -> Option<u64> {
        match &self.queue.supply {
            Supply::Port { .. } | Supply::Nothing => None,
            Supply::Ring(ring) => ring.times().get(i).copied(),
        }
    }

    #[inline]
    fn copy_to(&self, i: usize, dst: &mut [u8]) {
        let head = self.head(i);
        if let Some(bytes) = head.get(..dst.len()) {
            dst.copy_from_slice(bytes);
        } else {
            self.gather(i, dst);
        }
    }
}

impl RxBurst<'_> {
    #[cold]
    fn gather(&self, i: usize, dst: &mut [u8]) {
        let len = u32::try_from(dst.len()).unwrap_or(u32::MAX);
        assert!(!self.is_timed(), "frame {i} has {} bytes, {len} were asked for", self.wire_len(i));
        // SAFETY: a frame of a ring is whole in its head, so this is a port's; frames() bounds i, so the mbuf is ours; the shim
        // writes at most `len` bytes, which dst has.
        let copied =
            unsafe { sys::trawl_gather(self.queue.arrays.mbufs[..self.len()][i], dst.as_mut_ptr(), len) };
        assert!(copied == len, "frame {i} has {copied} bytes, {len} were asked for");
    }
}

impl Drop for RxBurst<'_> {
    #[inline]
    fn drop(&mut self) {
        self.queue.give_back();
    }
}
