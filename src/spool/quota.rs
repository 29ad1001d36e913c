//! How many bytes of disk the spool may use: `spool.bytes_max` for the whole host. Owns the one number.
//!
//! Invariant: what is reserved never exceeds the maximum.

use std::sync::atomic::{AtomicU64, Ordering};

/// A shared allowance of bytes.
#[derive(Debug)]
pub struct Quota {
    used: AtomicU64,
    bytes_max: u64,
}

impl Quota {
    /// An allowance of `bytes_max`, of which `used` are taken already.
    #[must_use]
    pub fn new(bytes_max: u64, used: u64) -> Self {
        Self { used: AtomicU64::new(used), bytes_max }
    }

    /// Takes `bytes`, or nothing if that would pass the maximum.
    #[must_use]
    pub fn reserve(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.bytes_max)
            })
            .is_ok()
    }

    /// Gives back what was reserved before.
    pub fn release(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "released {bytes} of {before}");
    }

    /// Bytes taken now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// The maximum.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_beyond_the_maximum_and_what_is_released_can_be_had_again() {
        let quota = Quota::new(100, 20);
        assert!(quota.reserve(80));
        assert!(!quota.reserve(1) && !quota.reserve(u64::MAX));
        quota.release(30);
        assert!(quota.reserve(30) && !quota.reserve(1));
        assert_eq!(quota.used(), quota.bytes_max());
    }
}
