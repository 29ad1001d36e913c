//! Frames that wait for a gate. Owns their numbers; not when the gate is opened.
//!
//! Invariant: each queue sends the numbers 1 to N in frames of a length that no other queue has.

use crate::rig::{Frames, frame};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use trawl::limits::BURST;
use trawl::packet::Source;

/// How long a source without a frame sleeps: many hosts run beside each other here, and their workers poll.
const IDLE: Duration = Duration::from_micros(300);

/// Opened once the capture runs.
pub type Gate = Arc<AtomicBool>;

/// One queue.
pub struct Gated {
    gate: Gate,
    left: u64,
    sent: u64,
    per_second: u64,
    opened: Option<Instant>,
    frames: Vec<Vec<u8>>,
}

impl Gated {
    /// `count` frames of `bytes` bytes, `per_second` from the gate's opening on.
    pub fn new(gate: &Gate, bytes: usize, count: u64, per_second: u64) -> Self {
        let frames = (0..BURST).map(|_| frame(bytes)).collect();
        Self { gate: Arc::clone(gate), left: count, sent: 0, per_second, opened: None, frames }
    }

    fn due(&mut self) -> usize {
        if !self.gate.load(Ordering::Acquire) {
            return 0;
        }
        let elapsed = self.opened.get_or_insert_with(Instant::now).elapsed();
        let due = u64::try_from(elapsed.as_micros()).unwrap() * self.per_second / 1_000_000;
        usize::try_from(due.saturating_sub(self.sent).min(self.left).min(BURST as u64)).unwrap()
    }
}

impl Source for Gated {
    type Burst<'a> = Frames<&'a [Vec<u8>]>;

    fn receive(&mut self) -> Frames<&[Vec<u8>]> {
        let due = self.due();
        if due == 0 {
            std::thread::sleep(IDLE);
        }
        for frame in &mut self.frames[..due] {
            self.sent += 1;
            self.left -= 1;
            frame[42..50].copy_from_slice(&self.sent.to_be_bytes());
        }
        Frames(&self.frames[..due])
    }
}
