//! Writes in flight: blocks that the kernel is reading while the writer goes on. Owns the io_uring (or, where the host
//! refuses one, plain `pwrite`); not which file or offset a block belongs to.
//!
//! Invariant: while a write is in flight this queue owns its block and its file, so neither can be reused, freed or
//! closed before the kernel is done with it.
#![allow(unsafe_code)]

use super::Block;
use io_uring::{IoUring, opcode, types};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// One write: the first `bytes` bytes of `block` to `offset` of `file`.
#[derive(Debug)]
pub struct Write<T> {
    /// Where to.
    pub file: Arc<File>,
    /// What.
    pub block: Block,
    /// How much of it; for O_DIRECT a whole number of pages.
    pub bytes: usize,
    /// File offset; for O_DIRECT a whole number of pages.
    pub offset: u64,
    /// Comes back with the completion.
    pub tag: T,
}

#[derive(Debug)]
struct InFlight<T> {
    write: Write<T>,
    done: usize,
}

enum Backend {
    Uring(Box<IoUring>),
    Plain,
}

/// Whether this host lets the process use io_uring. Containers' seccomp filters (EPERM, ENOSYS) and
/// `kernel.io_uring_disabled` (EPERM) do not.
///
/// # Errors
/// What the kernel says.
pub fn try_io_uring() -> io::Result<()> {
    IoUring::new(1).map(drop)
}

/// A bounded set of writes in flight.
pub struct DiskQueue<T> {
    backend: Backend,
    slots: Vec<Option<InFlight<T>>>,
    free: Vec<usize>,
    finished: VecDeque<(Write<T>, io::Result<()>)>,
    in_flight: usize,
}

impl<T> DiskQueue<T> {
    /// A queue for at most `depth` writes in flight. Without io_uring on this host writes are done one by one.
    #[must_use]
    pub fn new(depth: u32) -> Self {
        let backend = match IoUring::new(depth.next_power_of_two()) {
            Ok(ring) => Backend::Uring(Box::new(ring)),
            Err(_) => Backend::Plain,
        };
        let depth = depth as usize;
        Self {
            backend,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            finished: VecDeque::with_capacity(depth),
            in_flight: 0,
        }
    }

    /// Writes that were started and not yet returned by [`DiskQueue::finished`].
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight + self.finished.len()
    }

    /// Starts a write, waiting for an earlier one to end if `depth` are in flight.
    pub fn start(&mut self, write: Write<T>) {
        let Backend::Uring(_) = self.backend else {
            let result = write.file.write_all_at(&write.block.bytes()[..write.bytes], write.offset);
            self.finished.push_back((write, result));
            return;
        };
        while self.free.is_empty() {
            self.reap(true);
        }
        let Some(slot) = self.free.pop() else { unreachable!("reap(true) frees a slot") };
        self.slots[slot] = Some(InFlight { write, done: 0 });
        self.in_flight += 1;
        self.push(slot);
    }

    /// A write that ended, with its result. `wait`: block until one does, if any is in flight.
    pub fn finished(&mut self, wait: bool) -> Option<(Write<T>, io::Result<()>)> {
        if self.finished.is_empty() && self.in_flight > 0 {
            self.reap(wait);
        }
        self.finished.pop_front()
    }

    fn push(&mut self, slot: usize) {
        let (Backend::Uring(ring), Some(state)) = (&mut self.backend, &self.slots[slot]) else { return };
        let rest = &state.write.block.bytes()[state.done..state.write.bytes];
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Write::new(types::Fd(state.write.file.as_raw_fd()), rest.as_ptr(), length)
            .offset(state.write.offset + state.done as u64)
            .build()
            .user_data(slot as u64);
        loop {
            // SAFETY: the entry points into a block and names a file that `slots[slot]` owns until the completion for this slot is
            // reaped; `Drop` reaps all before the slots go.
            if unsafe { ring.submission().push(&entry) }.is_ok() {
                break;
            }
            let _full_ring_drains_by_submitting = ring.submit();
        }
        let _taken_up_by_the_next_submit = ring.submit();
    }

    fn reap(&mut self, wait: bool) {
        let Backend::Uring(ring) = &mut self.backend else { return };
        if wait {
            // EINTR and EBUSY: the caller's loop comes back.
            let _retried = ring.submit_and_wait(1);
        }
        let completions: Vec<(usize, i32)> = ring
            .completion()
            .map(|c| (usize::try_from(c.user_data()).unwrap_or(usize::MAX), c.result()))
            .collect();
        for (slot, result) in completions {
            let Some(state) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let outcome = match result {
                0 => Some(Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took no byte"))),
                n if n > 0 => {
                    state.done += n.unsigned_abs() as usize;
                    (state.done >= state.write.bytes).then_some(Ok(()))
                }
                e if -e == rustix::io::Errno::INTR.raw_os_error()
                    || -e == rustix::io::Errno::AGAIN.raw_os_error() =>
                {
                    None
                }
                e => Some(Err(io::Error::from_raw_os_error(-e))),
            };
            match outcome {
                None => self.push(slot),
                Some(result) => {
                    if let Some(state) = self.slots[slot].take() {
                        self.free.push(slot);
                        self.in_flight -= 1;
                        self.finished.push_back((state.write, result));
                    }
                }
            }
        }
    }
}

impl<T> Drop for DiskQueue<T> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            self.reap(true);
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::block::{Arena, Hugepages};
    use crate::limits::{BLOCK_BYTES, PAGE_BYTES};

    #[test]
    fn every_write_ends_once_and_is_in_the_file() {
        let (mut blocks, _) = Arena::map(6, Hugepages::Never).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut queue = DiskQueue::new(4);
        for (i, block) in blocks.iter_mut().enumerate() {
            block.bytes_mut().fill(u8::try_from(i).unwrap() + 1);
        }
        let mut seen = Vec::new();
        for (i, block) in blocks.drain(..).enumerate() {
            let offset = (i * BLOCK_BYTES) as u64;
            queue.start(Write { file: Arc::clone(&file), block, bytes: BLOCK_BYTES, offset, tag: i });
        }
        while let Some((write, result)) = queue.finished(true) {
            result.unwrap();
            seen.push(write.tag);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..6).collect::<Vec<_>>());
        let mut page = vec![0; PAGE_BYTES];
        for i in 0..6 {
            file.read_exact_at(&mut page, (i * BLOCK_BYTES) as u64 + 4096).unwrap();
            assert!(page.iter().all(|&b| usize::from(b) == i + 1));
        }
    }

    #[test]
    fn a_refused_write_comes_back_with_its_block_and_error() {
        let (mut blocks, _) = Arena::map(1, Hugepages::Never).unwrap();
        let file = Arc::new(File::open("/dev/null").unwrap());
        let mut queue = DiskQueue::new(2);
        queue.start(Write { file, block: blocks.pop().unwrap(), bytes: PAGE_BYTES, offset: 0, tag: () });
        let (_, result) = queue.finished(true).unwrap();
        assert!(result.is_err(), "a read-only file took a write");
        assert_eq!(queue.in_flight(), 0);
    }
}
