//! Packet buffers of one queue. Owns a pool of mbufs and its sizing; not the frames in them.
//!
//! Invariant: a pool is freed after the port that fills it was closed and before EAL is cleaned up.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    eal::{Code, Eal},
    sys,
};
use crate::drivers::CACHE;

/// Bytes that DPDK keeps free in front of a frame (`RTE_PKTMBUF_HEADROOM`); a VLAN tag is put back into it.
const HEADROOM: u32 = sys::RTE_PKTMBUF_HEADROOM;

/// What DPDK puts around the data of a buffer: the mbuf (two cache lines) and the pool's own header.
const MBUF_BYTES: u32 = 128 + 64;

/// Largest number of data bytes in a buffer: DPDK's length field has 16 bits.
pub(super) const DATA_BYTES_MAX: u32 = u16::MAX as u32 - HEADROOM;

/// No pool of that size.
#[derive(Debug, thiserror::Error)]
#[error(
    "no memory for {buffers} buffers of {data_bytes} bytes ({mib} MiB): {code}; reserve hugepages, raise EAL's `-m`, \
     or ask for fewer queues, buffers or bytes"
)]
pub struct MempoolError {
    /// Buffers asked for.
    pub buffers: u32,
    /// Data bytes in each.
    pub data_bytes: u32,
    /// About how much memory that is.
    pub mib: u64,
    /// DPDK's reason.
    pub code: Code,
}

/// A pool of mbufs.
#[derive(Debug)]
pub struct Mempool {
    raw: NonNull<sys::rte_mempool>,
    _eal: Eal,
}

// SAFETY: a mempool is made for use by many threads (rte_mempool's ring is multi-producer, multi-consumer, its caches are
// per lcore); freeing it is done once, by the owner.
unsafe impl Send for Mempool {}
// SAFETY: as above; & gives nothing but the pointer.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a pool of `buffers` mbufs with room for `data_bytes` each on a NUMA node (-1: any).
    ///
    /// # Errors
    /// When memory does not suffice.
    pub fn new(eal: &Eal, buffers: u32, data_bytes: u32, socket: i32) -> Result<Self, MempoolError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let error = |code| {
            let mib = (u64::from(buffers) * (u64::from(data_bytes) + u64::from(HEADROOM + MBUF_BYTES))) >> 20;
            MempoolError { buffers, data_bytes, mib, code }
        };
        let name = CString::new(format!("trawl_{}", NEXT.fetch_add(1, Ordering::Relaxed)))
            .expect("a formatted number has no zero byte");
        let room = u16::try_from(data_bytes.saturating_add(HEADROOM)).map_err(|_| error(Code::INVALID))?;
        // DPDK refuses a cache that could swallow the pool: at most two thirds; a third leaves some in the ring.
        let cache = CACHE.min(buffers / 3);
        // SAFETY: name is NUL-terminated and copied; the numbers are checked by the callee, which takes DPDK's own lock
        // on the list of pools.
        let raw = unsafe { sys::rte_pktmbuf_pool_create(name.as_ptr(), buffers, cache, 0, room, socket) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, _eal: eal.clone() }),
            None => Err(error(Code::last())),
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.raw.as_ptr()
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        // SAFETY: made by rte_pktmbuf_pool_create; what takes mbufs from it (a port, a burst, a feeder) borrows or owns the
        // pool, so all are back. The callee takes DPDK's own lock.
        unsafe { sys::rte_mempool_free(self.raw.as_ptr()) };
    }
}
