//! How an object is written. Owns the choice of container and compression, what is said in every object of a capture, and
//! what is counted at its end; not the bytes, which `objects` and `seal` make.
//!
//! Invariant: all of it is settled before the first byte of an object that depends on it, and kept beside the spool, so that
//! a merge that is begun again by another process, or another version of it, makes the same bytes.

use crate::limits::{PCAP_FILE_HEADER_BYTES, PCAP_RECORD_HEADER_BYTES};
use crate::pcap::{ObjectFormat, Origin};
use std::sync::Arc;

/// How a capture's objects are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Snap length.
    pub snaplen: u32,
    /// Size at which objects are cut, before compression; a single larger record excepted.
    pub object_bytes_max: u64,
    /// Container and compression.
    pub format: ObjectFormat,
    /// What pcapng objects say.
    pub origin: Arc<Origin>,
}

impl Shape {
    /// Classic pcap.
    #[must_use]
    pub fn plain(snaplen: u32, object_bytes_max: u64) -> Self {
        let (format, origin) = (ObjectFormat::default(), Arc::default());
        Self { snaplen, object_bytes_max, format, origin }
    }

    /// Bytes of one stream that are enough for an object and the record behind it, whatever the other streams have.
    pub(crate) fn object_bytes_needed(&self) -> u64 {
        let records = 2 * (PCAP_RECORD_HEADER_BYTES as u64 + u64::from(self.snaplen));
        self.object_bytes_max.saturating_add(PCAP_FILE_HEADER_BYTES as u64 + records)
    }
}
