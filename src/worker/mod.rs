//! The poll loop of one core. Owns what happens to a frame between the burst and the block: stamping, matching,
//! limits, counting, appending; not where blocks go (`spool`), nor when a capture begins and ends (`capture`).
//!
//! Invariant: while packets flow nothing here allocates, locks, logs or makes a system call, and every frame is
//! counted once per queue and once per capture that is attached.

mod append;
mod blocks;
mod budget;
mod clock;
mod counters;
mod deal;
mod poll;
mod rest;
mod sample;
mod sampled;
mod sequence;
mod steps;
mod stream;
mod time;
mod work;
#[cfg(test)]
pub(crate) mod testing;

pub use crate::block::Payer;
pub use budget::{Budget, Ended, Share};
pub use counters::{QueueCounters, QueueTotals, SlotTotals};
pub use deal::{Dealt, Wish, deal};
pub use poll::{Timers, Worker, WorkerHandle, WorkerParts, lane_notices, worker};
pub use rest::WhenIdle;
pub use sample::Sample;
pub use steps::{ClockReading, ClockSteps};
pub use work::{Assigned, Attachment, Window, Work};

use crate::limits::{BURST, WORKERS_MAX};

// A budget's count tells the packets that other workers have reserved from none.
const _: () = assert!((WORKERS_MAX - 1) * BURST < 1 << (u64::BITS - budget::BYTES_BITS));
