//! How many bytes of disk the spool may use: `spool.bytes_max` for the whole host. Owns the one number and the charges that
//! make it up.
//!
//! Invariant: what is reserved never exceeds the maximum. A charge goes back to the quota when it is dropped, so it is held
//! by whatever holds the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared allowance of bytes.
#[derive(Debug)]
pub struct Quota {
    used: AtomicU64,
    bytes_max: u64,
}

impl Quota {
    /// An allowance of `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { used: AtomicU64::new(0), bytes_max }
    }

    /// Takes `bytes`, or nothing if that would pass the maximum.
    fn reserve(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.bytes_max)
            })
            .is_ok()
    }

    /// Gives back what was reserved before.
    fn release(&self, bytes: u64) {
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

/// The bytes of one file on the quota, until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Charge {
    /// A charge of nothing yet.
    pub fn none(quota: &Arc<Quota>) -> Self {
        Self { quota: Arc::clone(quota), bytes: 0 }
    }

    /// A charge for a file of that many bytes that is on the disk, also beyond the maximum.
    pub fn of_file(quota: &Arc<Quota>, bytes: u64) -> Self {
        let mut charge = Self::none(quota);
        charge.set(bytes);
        charge
    }

    /// Charges `bytes` more, or nothing if that would pass the maximum.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        let grown = self.quota.reserve(bytes);
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    /// Makes this the charge of a file that has `bytes` bytes on the disk, also beyond the maximum.
    pub fn set(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.quota.release(self.bytes - bytes);
        } else {
            self.quota.used.fetch_add(bytes - self.bytes, Ordering::AcqRel);
        }
        self.bytes = bytes;
    }

    /// Bytes of this charge.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.quota.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_beyond_the_maximum_and_what_is_released_can_be_had_again() {
        let quota = Arc::new(Quota::new(100));
        let there = Charge::of_file(&quota, 20);
        let mut charge = Charge::none(&quota);
        assert!(charge.grow(80));
        assert!(!charge.grow(1) && !charge.grow(u64::MAX));
        charge.set(50);
        assert!(charge.grow(30) && !charge.grow(1));
        assert_eq!((quota.used(), charge.bytes()), (quota.bytes_max(), 80));
        drop(charge);
        assert_eq!(quota.used(), 20);
        drop(there);
        assert_eq!(quota.used(), 0);
    }
}
