//! What uploads did since the process started. Owns the counters; who reads them is `observe`'s.
//!
//! One static and no value that is handed down: every store and every request to it would have to carry it, for numbers that
//! belong to the process anyway.
//!
//! Invariant: counters only grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The process's counts.
pub(crate) static COUNTS: Counters = Counters {
    merged_objects: AtomicU64::new(0),
    merged_bytes: AtomicU64::new(0),
    objects: AtomicU64::new(0),
    bytes: AtomicU64::new(0),
    retries: AtomicU64::new(0),
    failures: AtomicU64::new(0),
    confirmations: AtomicU64::new(0),
};

/// See [`COUNTS`].
#[derive(Debug)]
pub(crate) struct Counters {
    merged_objects: AtomicU64,
    merged_bytes: AtomicU64,
    objects: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
    confirmations: AtomicU64,
}

/// [`Counters`], read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UploadCounts {
    /// Objects that merges completed, again for those that were begun again.
    pub merged_objects: u64,
    /// Bytes that merges made, again for those that were begun again.
    pub merged_bytes: u64,
    /// Objects that stores confirmed.
    pub objects: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Requests to stores that were sent again.
    pub retries: u64,
    /// Attempts to deliver a capture that failed and were begun again later or given up.
    pub failures: u64,
    /// Times that a store confirmed a part or an object of a delivery.
    pub confirmations: u64,
}

impl Counters {
    pub(crate) fn merged(&self, bytes: u64) {
        self.merged_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn merged_object(&self) {
        self.merged_objects.fetch_add(1, Relaxed);
    }

    pub(crate) fn object(&self, bytes: u64) {
        self.objects.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn confirmed(&self) {
        self.confirmations.fetch_add(1, Relaxed);
    }
}

/// What uploads of this process did up to now.
#[must_use]
pub fn upload_counts() -> UploadCounts {
    let get = |count: &AtomicU64| count.load(Relaxed);
    UploadCounts {
        merged_objects: get(&COUNTS.merged_objects),
        merged_bytes: get(&COUNTS.merged_bytes),
        objects: get(&COUNTS.objects),
        bytes: get(&COUNTS.bytes),
        retries: get(&COUNTS.retries),
        failures: get(&COUNTS.failures),
        confirmations: get(&COUNTS.confirmations),
    }
}
