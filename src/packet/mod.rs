//! What a frame is to the rest of the program. Owns header parsing, the match key, and the traits that a port's queue
//! fills; not the ports themselves.
//!
//! Invariant: any bytes are a legal frame; parsing never reads past them and never panics.

mod key;
mod pace;
mod parse;
#[cfg(test)]
pub(crate) mod frames;
#[cfg(test)]
mod tests;

pub(crate) use key::offset;
pub use key::{Key, flags};
pub use pace::Pace;

/// One received burst, at most [`crate::limits::BURST`] frames. Dropping it gives the frames back to the port.
pub trait Burst {
    /// Frames in the burst.
    fn len(&self) -> usize;

    /// Whether nothing was received.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first contiguous bytes of frame `i`: the whole frame unless it came in several segments.
    fn head(&self, i: usize) -> &[u8];

    /// Bytes of frame `i` as the port delivered it, without FCS.
    fn wire_len(&self, i: usize) -> u32;

    /// Sum of all frames' [`Burst::wire_len`].
    fn wire_bytes(&self) -> u64 {
        (0..self.len()).map(|i| u64::from(self.wire_len(i))).sum()
    }

    /// Copies the first `dst.len()` bytes of frame `i` over all its segments. `dst` is not longer than the frame.
    fn copy_to(&self, i: usize, dst: &mut [u8]);

    /// Whether the port says when it received each frame.
    fn is_timed(&self) -> bool {
        false
    }

    /// The port's own receive time in ns since the UNIX epoch, where it [has one](Burst::is_timed).
    fn hardware_time_ns(&self, i: usize) -> Option<u64> {
        let _ = i;
        None
    }
}

/// One RX queue. Used by one thread at a time.
pub trait Source: Send {
    /// What [`Source::receive`] returns.
    type Burst<'a>: Burst
    where
        Self: 'a;

    /// Polls once; never blocks.
    fn receive(&mut self) -> Self::Burst<'_>;
}
