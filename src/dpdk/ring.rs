//! The ring that the kernel fills with an interface's frames, behind safe types. Owns socket and memory of one queue.
//!
//! It stands in this room because it fills the same burst as a DPDK queue: a worker reads both without asking, frame by frame, which
//! of them it has, and what is unsafe about a burst stays in one place. Nothing of DPDK is called.
//!
//! Invariant: the memory is mapped as long as the queue lives, and one thread at a time reads it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::sys;
use crate::limits::BURST;

/// Bytes of a block: the kernel hands over whole blocks, and each holds at least one frame of any length that is possible.
const BLOCK_BYTES: u32 = 256 << 10;

/// A queue's socket, which its counters are read from while a worker reads its frames.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    cut: AtomicU64,
    unfinished: AtomicU64,
}

/// What a socket counted.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    /// Frames put into the ring since the last reading.
    pub received: u64,
    /// Frames for which the ring had no room since the last reading.
    pub dropped: u64,
    /// Frames that no block could hold, in all.
    pub cut: u64,
    /// Frames whose sender left the checksum to a device, in all.
    pub unfinished: u64,
}

/// The memory of one queue.
pub(super) struct Ring {
    raw: Box<sys::trawl_ring>,
    socket: Arc<Socket>,
    _map: MmapRaw,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Ring").field("socket", &self.socket).finish_non_exhaustive()
    }
}

// SAFETY: the pointers in `raw` are to `_map` and `socket`, which the ring owns or shares and which are bound to no thread; what
// other threads read of the socket is atomic.
unsafe impl Send for Ring {}

fn done(returned: i32) -> io::Result<i32> {
    if returned < 0 { Err(io::Error::from_raw_os_error(returned.saturating_neg())) } else { Ok(returned) }
}

impl Socket {
    /// Binds it to an interface, and joins those that share its frames if there are several.
    pub fn bind(&self, index: u32, group: Option<&mut u32>) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: the socket is open; the callees read and write only locals of their own and `group`.
        done(unsafe { sys::trawl_ring_bind(fd, index) })?;
        if let Some(group) = group {
            // SAFETY: as above; `group` is a number of ours for the time of the call.
            done(unsafe { sys::trawl_ring_join(fd, std::ptr::from_mut(group)) })?;
        }
        Ok(())
    }

    /// Receives from here on.
    pub fn go(&self, index: u32) -> io::Result<()> {
        // SAFETY: the socket is open; the callee reads and writes only locals of its own.
        done(unsafe { sys::trawl_ring_go(self.fd.as_raw_fd(), index, 1) }).map(drop)
    }

    pub fn counts(&self) -> io::Result<Counts> {
        let mut raw = sys::trawl_ring_counts::default();
        // SAFETY: the socket is open; raw is a structure of ours that is written whole on success.
        done(unsafe { sys::trawl_ring_counts(self.fd.as_raw_fd(), &raw mut raw) })?;
        Ok(Counts {
            received: raw.received.into(),
            dropped: raw.dropped.into(),
            cut: self.cut.load(Ordering::Relaxed),
            unfinished: self.unfinished.load(Ordering::Relaxed),
        })
    }
}

impl Ring {
    /// A ring of so many MiB that receives nothing yet.
    pub fn open(mib: u32, outgoing: bool) -> io::Result<Self> {
        let blocks = mib * ((1 << 20) / BLOCK_BYTES);
        // SAFETY: no preconditions; the callee returns a descriptor that is ours alone.
        let fd = done(unsafe { sys::trawl_ring_open(BLOCK_BYTES, blocks, outgoing.into()) })?;
        // SAFETY: the descriptor was just opened, and nothing else closes it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let map = MmapOptions::new().len(BLOCK_BYTES as usize * blocks as usize).map_raw(&fd)?;
        let socket = Arc::new(Socket { fd, cut: AtomicU64::new(0), unfinished: AtomicU64::new(0) });
        // SAFETY: pointers and integers, for which zero is a value.
        let mut raw = unsafe { Box::<sys::trawl_ring>::new_zeroed().assume_init() };
        (raw.map, raw.block_bytes, raw.blocks) = (map.as_mut_ptr(), BLOCK_BYTES, blocks);
        (raw.cut, raw.unfinished) = (socket.cut.as_ptr(), socket.unfinished.as_ptr());
        Ok(Self { raw, socket, _map: map })
    }

    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// Describes the next frames in `burst`. They stay valid until [`Ring::give_back`].
    #[inline]
    pub fn receive(&mut self, burst: &mut sys::trawl_burst) -> u16 {
        // SAFETY: raw describes a ring of the kernel's that is mapped as long as self lives, and &mut self is its only reader; the
        // burst has TRAWL_BURST frames, as raw has times.
        unsafe { sys::trawl_ring_rx(&raw mut *self.raw, std::ptr::from_mut(burst)) }
    }

    /// Whether every frame that the kernel handed over was received.
    pub fn is_empty(&self) -> bool {
        // SAFETY: as for receive(); nothing is written.
        unsafe { sys::trawl_ring_is_empty(&raw const *self.raw) != 0 }
    }

    /// Gives the memory of the last frames back to the kernel.
    #[inline]
    pub fn give_back(&mut self) {
        if self.raw.finished > 0 {
            // SAFETY: as for receive(); the caller holds no frame of the ring any more.
            unsafe { sys::trawl_ring_free(&raw mut *self.raw) };
        }
    }

    /// When the kernel received the frames of the last burst.
    #[inline]
    pub fn times(&self) -> &[u64; BURST] {
        &self.raw.times
    }
}
