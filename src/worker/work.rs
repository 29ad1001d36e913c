//! What a worker is told to do: the program and who is attached. Owns the data; the engine makes it, the worker obeys.
//!
//! Invariant: the attached slots are exactly those that the program evaluates.

use super::{Budget, Sample};
use crate::limits::CAPTURES_MAX;
use crate::matcher::Program;
use std::sync::Arc;
use std::time::Duration;

/// One capture's part in the work.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Number of the capture in this process's life; never reused, never zero.
    pub serial: u64,
    /// Bytes kept of each frame.
    pub snaplen: u32,
    /// Frames stamped at or after this time (ns since the UNIX epoch) are beyond the time limit.
    pub end_ns: u64,
    /// What it may still take.
    pub budget: Arc<Budget>,
    /// Keeps only so many of the frames that match; every one when none.
    pub sample: Option<Sample>,
    /// Age at which its segments are cut, if not that of all others.
    pub rotate: Option<Duration>,
}

/// One worker's work, whole: a new one replaces the old one between two bursts and the old one goes back to the engine.
#[derive(Debug)]
pub struct Work {
    /// Counts up with every change; what comes back says which change the worker has left behind.
    pub generation: u64,
    /// All filters.
    pub program: Program,
    /// Who is in which slot.
    pub attachments: [Option<Attachment>; CAPTURES_MAX],
}

impl Work {
    /// No capture.
    #[must_use]
    pub fn idle(generation: u64) -> Self {
        Self { generation, program: Program::compile(&[]), attachments: [const { None }; CAPTURES_MAX] }
    }

    /// The number in a slot, zero if it is empty.
    #[must_use]
    pub fn serial(&self, slot: usize) -> u64 {
        self.attachments[slot].as_ref().map_or(0, |a| a.serial)
    }
}
