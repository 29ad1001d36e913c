//! A queue's device, which is taken from its worker and given back while the worker polls: a device that is reset or removed must be
//! closed, and nobody may poll it then. Owns the exchange; when it happens is the owner's of the port.
//!
//! The owner offers something and asks; the worker takes it at its next poll and leaves what it had, and the owner finds that.
//!
//! Invariant: between asking and the worker's answer the owner does not touch what it offered, so nobody waits for the lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{burst::RxQueue, opened::Opened, ring::Ring};

/// Where the frames of a queue come from. It is looked at once a burst.
#[derive(Debug)]
pub(super) enum Supply {
    /// A queue of a started DPDK port.
    Port { port: u16, _opened: Arc<Opened> },
    /// An interface's ring.
    Ring(Ring),
    /// The device is gone.
    Nothing,
}

/// What both ends see.
#[derive(Debug)]
pub(super) struct Shared {
    is_asked: AtomicBool,
    offered: Mutex<Supply>,
}

impl Shared {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { is_asked: AtomicBool::new(false), offered: Mutex::new(Supply::Nothing) })
    }

    /// For the worker, at each poll: whether there is something to take.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }

    /// For the worker, which holds no frame of `supply`. A ring is read to its end first: what is in it was received.
    #[cold]
    pub fn exchange(&self, supply: &mut Supply) {
        if matches!(supply, Supply::Ring(ring) if !ring.is_empty()) {
            return;
        }
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(supply, &mut *offered);
        self.is_asked.store(false, Ordering::Release);
    }
}

/// The owner's end of a queue that a worker has.
#[derive(Debug)]
pub struct QueueSlot {
    shared: Arc<Shared>,
}

impl QueueSlot {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Asks the worker to let go of the device. It is closed with the last of its queues and the [`super::StartedPort`].
    pub fn take(&self) {
        self.offer(Supply::Nothing);
    }

    /// Gives the worker the device of another queue. Call it once the last exchange [is done](Self::is_done).
    pub fn give(&self, queue: RxQueue) {
        self.offer(queue.into_supply());
    }

    fn offer(&self, supply: Supply) {
        *self.shared.offered.lock().unwrap_or_else(PoisonError::into_inner) = supply;
        self.shared.is_asked.store(true, Ordering::Release);
    }

    /// Whether the worker has taken what it was offered, or is gone. What it had is closed with this.
    #[must_use]
    pub fn is_done(&self) -> bool {
        if self.shared.is_asked.load(Ordering::Acquire) && Arc::strong_count(&self.shared) > 1 {
            return false;
        }
        *self.shared.offered.lock().unwrap_or_else(PoisonError::into_inner) = Supply::Nothing;
        true
    }
}
