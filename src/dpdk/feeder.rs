//! Puts frames into a `net_ring` device, whose other end is in this process. Owns the buffers that it builds them in.
//! For tests and benches: it is how any shape of frame, also one that no wire delivers, reaches a queue.
//!
//! Invariant: the pool outlives every frame that it built, because the port that reads the ring shares it; and the port
//! leaves nothing in the ring when it closes.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    sync::{Arc, Weak},
};

use super::{
    eal::{Code, Eal},
    mempool::{Mempool, MempoolError},
    opened::Opened,
    port::StartedPort,
    sys,
};

/// What is odd about a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Odd {
    /// Its bytes lie in memory that is no pool's, as those of mlx5's multi-packet queues.
    External,
    /// It shows another buffer's bytes.
    Indirect,
    /// It is delivered twice: the first to free it does not free it.
    Shared,
}

/// Feeds one queue of a `net_ring` port.
#[derive(Debug)]
pub struct Feeder {
    opened: Weak<Opened>,
    ring: CString,
    pool: Arc<Mempool>,
}

impl Feeder {
    /// Makes a feeder for a queue of a `net_ring` port.
    ///
    /// # Errors
    /// When there is no memory for `buffers` buffers of `data_bytes` bytes.
    ///
    /// # Panics
    /// When the port has no such queue.
    pub fn new(
        eal: &Eal,
        port: &StartedPort,
        queue: u16,
        buffers: u32,
        data_bytes: u32,
    ) -> Result<Self, MempoolError> {
        assert!(queue < port.facts().queues, "nobody would read queue {queue}");
        let pool = Arc::new(Mempool::new(eal, buffers, data_bytes, -1)?);
        port.opened().keep(pool.clone());
        // The name that the driver gives to the ring of each queue; no device name has a zero byte.
        let name = port.facts().device.split(',').next().unwrap_or_default();
        let ring = CString::new(format!("ETH_RXTX{queue}_{name}")).unwrap_or_default();
        Ok(Self { opened: Arc::downgrade(port.opened()), ring, pool })
    }

    /// Queues one frame made of these segments; with a VLAN tag that a driver stripped, if `vlan` is given.
    ///
    /// # Errors
    /// When buffers or ring are exhausted, a segment is longer than a buffer, or the port is closed.
    pub fn put(&mut self, segments: &[&[u8]], vlan: Option<u16>) -> Result<(), Code> {
        let lens: Result<Vec<u16>, _> = segments.iter().map(|bytes| u16::try_from(bytes.len())).collect();
        let lens = lens.map_err(|_| Code::INVALID)?;
        let pointers: Vec<*const u8> = segments.iter().map(|bytes| bytes.as_ptr()).collect();
        let count = u16::try_from(lens.len()).map_err(|_| Code::INVALID)?;
        let opened = self.opened.upgrade().ok_or(Code::NO_DEVICE)?;
        let returned = {
            let _one_producer = opened.eal.control();
            // SAFETY: both arrays have `count` elements, each pointer that many bytes behind it as its length says; pool
            // and port live; the lock makes this the ring's only producer, as its mode requires.
            unsafe {
                sys::trawl_feed(
                    self.ring.as_ptr(),
                    self.pool.as_ptr(),
                    pointers.as_ptr(),
                    lens.as_ptr(),
                    count,
                    vlan.map_or(-1, i32::from),
                )
            }
        };
        if returned == 0 { Ok(()) } else { Err(Code::of(returned)) }
    }

    /// Queues a frame in an odd buffer; twice if that is shared.
    ///
    /// # Errors
    /// As [`Feeder::put`].
    pub fn put_odd(&mut self, bytes: &[u8], odd: Odd) -> Result<(), Code> {
        let len = u16::try_from(bytes.len()).map_err(|_| Code::INVALID)?;
        let opened = self.opened.upgrade().ok_or(Code::NO_DEVICE)?;
        let odd = match odd {
            Odd::External => sys::TRAWL_EXTERNAL,
            Odd::Indirect => sys::TRAWL_INDIRECT,
            Odd::Shared => sys::TRAWL_SHARED,
        };
        let (ring, pool) = (self.ring.as_ptr(), self.pool.as_ptr());
        let _one_producer = opened.eal.control();
        // SAFETY: there are `len` bytes; pool and port live; the lock makes this the ring's only producer, as its mode requires.
        let returned = unsafe { sys::trawl_feed_odd(ring, pool, bytes.as_ptr(), len, odd.cast_signed()) };
        if returned == 0 { Ok(()) } else { Err(Code::of(returned)) }
    }

    /// Buffers of this feeder that nobody holds, and memory outside of it that somebody does.
    #[must_use]
    pub fn free(&self) -> (u32, u32) {
        // SAFETY: the pool lives; both only read.
        unsafe { (sys::trawl_pool_free(self.pool.as_ptr()), sys::trawl_externals()) }
    }
}
