//! Aligned blocks of memory and their way between threads. Owns the arena, the block, the rings that carry blocks, the
//! writes in flight, copies past the cache, the cycle counter, the kernel's word on the wall clock, the heartbeats of the threads at
//! both ends, and the class of the threads that take what these leave over; not what is written into a block.
//!
//! Invariant: a block has one owner at a time; it leaves the worker that holds it by move and comes back by move.

mod arena;
mod copy;
mod cycles;
mod discipline;
mod disk;
mod lane;
mod leftover;
mod share;
mod heartbeat;

pub use arena::{Arena, ArenaError, ArenaFacts, Block, Hugepages, Payer};
pub use copy::copy_past_cache;
pub use cycles::cycles;
pub use discipline::{Discipline, discipline};
#[cfg(test)]
pub(crate) use disk::Attempt;
pub use disk::{DiskQueue, Write, try_io_uring};
pub use heartbeat::{Heartbeat, HeartbeatReading};
pub use lane::{WorkerEnd, WriterEnd, lane};
pub use leftover::take_what_is_left;
pub use share::{BLOCKS_SPARE, BlockShare};
