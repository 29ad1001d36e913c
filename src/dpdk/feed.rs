//! Puts frames into a `net_ring` device, whose other end is in this process. Owns the buffers that it builds them in.
//! For tests and benches: it is how any shape of frame, also one that no wire delivers, reaches a queue.
//!
//! Invariant: the pool outlives every frame that it built, because the port that reads the ring shares it.
#![allow(unsafe_code)]

use std::{ffi::CString, sync::Arc};

use super::{
    eal::{Code, Eal},
    mempool::{Mempool, MempoolError},
    port::StartedPort,
    sys,
};

/// Feeds one queue of a `net_ring` port.
#[derive(Debug)]
pub struct Feed {
    eal: Eal,
    ring: CString,
    pool: Arc<Mempool>,
}

impl Feed {
    /// Makes a feeder for queue `queue` of the open port named `device` (`net_ring0`).
    ///
    /// # Errors
    /// When there is no memory for `buffers` buffers of `data_bytes` bytes.
    pub fn new(
        eal: &Eal,
        port: &StartedPort,
        device: &str,
        queue: u16,
        buffers: u32,
        data_bytes: u32,
    ) -> Result<Self, MempoolError> {
        let pool = Arc::new(Mempool::new(eal, buffers, data_bytes, -1)?);
        port.keep(pool.clone());
        // The name that the driver gives to the ring of each queue.
        let ring = CString::new(format!("ETH_RXTX{queue}_{device}").replace('\0', "")).unwrap_or_default();
        Ok(Self { eal: eal.clone(), ring, pool })
    }

    /// Queues one frame made of these segments; with a VLAN tag that a driver stripped, if `vlan` is given.
    ///
    /// # Errors
    /// When buffers or ring are exhausted, a segment is longer than a buffer, or the ring does not exist.
    pub fn put(&mut self, segments: &[&[u8]], vlan: Option<u16>) -> Result<(), Code> {
        let lens: Vec<u16> = segments
            .iter()
            .map(|bytes| u16::try_from(bytes.len()))
            .collect::<Result<_, _>>()
            .map_err(|_| Code::INVALID)?;
        let pointers: Vec<*const u8> = segments.iter().map(|bytes| bytes.as_ptr()).collect();
        let count = u16::try_from(lens.len()).map_err(|_| Code::INVALID)?;
        let _one_producer = self.eal.control();
        // SAFETY: both arrays have `count` elements, each pointer that many bytes behind it as its length says; the pool
        // lives; the lock makes this the ring's only producer, as its mode requires, and keeps the ring from being freed.
        let returned = unsafe {
            sys::trawl_feed(
                self.ring.as_ptr(),
                self.pool.as_ptr(),
                pointers.as_ptr(),
                lens.as_ptr(),
                count,
                vlan.map_or(-1, i32::from),
            )
        };
        if returned == 0 { Ok(()) } else { Err(Code::of(returned)) }
    }
}
