//! Writes in flight: blocks that the kernel is reading while the writer goes on. Owns the io_uring (or, where the host
//! refuses one, plain `pwrite`); not which file or offset a block belongs to.
//!
//! A write that fails is made again, because its data is still in memory: one failed call costs time and nothing else.
//!
//! Invariant: while a write is in flight this queue owns its block and its file, so neither can be reused, freed or
//! closed before the kernel is done with it.
#![allow(unsafe_code)]

use super::Block;
use crate::limits::{PAGE_BYTES, WRITE_TRIES};
use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

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
    /// Bytes that are written; for O_DIRECT a whole number of pages.
    done: usize,
}

enum Backend {
    Uring(Box<IoUring>),
    Plain,
}

/// What a test can make fail.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The call that hands writes to the kernel.
    Submit,
    /// A write of the ring at this offset.
    Ring(u64),
    /// A plain write at this offset.
    Plain(u64),
}

/// A test's faults: the error number with which an attempt fails.
#[cfg(test)]
type Faults = Box<dyn FnMut(Attempt) -> Option<i32> + Send>;

/// Whether this host lets the process write through io_uring. Containers' seccomp filters (EPERM, ENOSYS), which may refuse each of
/// its calls, and `kernel.io_uring_disabled` (EPERM) do not; kernels before 5.6 have it and cannot write with it (EINVAL).
///
/// # Errors
/// What the kernel says.
pub fn try_io_uring() -> io::Result<()> {
    open_ring(1).map(drop)
}

/// A bounded set of writes in flight.
pub struct DiskQueue<T> {
    backend: Backend,
    slots: Vec<Option<InFlight<T>>>,
    free: Vec<usize>,
    finished: VecDeque<(Write<T>, io::Result<()>)>,
    in_flight: usize,
    /// Slots in the ring that the kernel has not taken yet, in order.
    pushed: VecDeque<usize>,
    /// Calls in a row that the kernel refused.
    refused: u32,
    #[cfg(test)]
    faults: Option<Faults>,
    #[cfg(test)]
    is_paused: bool,
}

/// Calls that the kernel may refuse in a row before what waits in the ring is written without it.
const SUBMIT_TRIES: u32 = 3;
/// Pause after a refused call, and between looks at a ring that is to be left.
const PAUSE: Duration = Duration::from_micros(100);

impl<T> DiskQueue<T> {
    /// A queue for at most `depth` writes in flight. Without io_uring on this host writes are done one by one.
    #[must_use]
    pub fn new(depth: u32) -> Self {
        let depth = depth as usize;
        Self {
            backend: open_ring(depth).map_or(Backend::Plain, |ring| Backend::Uring(Box::new(ring))),
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            finished: VecDeque::with_capacity(depth),
            in_flight: 0,
            pushed: VecDeque::with_capacity(depth),
            refused: 0,
            #[cfg(test)]
            faults: None,
            #[cfg(test)]
            is_paused: false,
        }
    }

    /// From now on `faults` decides about each attempt.
    #[cfg(test)]
    pub(crate) fn fail(&mut self, faults: impl FnMut(Attempt) -> Option<i32> + Send + 'static) {
        self.faults = Some(Box::new(faults));
    }

    /// While this is set no write ends.
    #[cfg(test)]
    pub(crate) fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    #[cfg(test)]
    fn fault(&mut self, attempt: Attempt) -> Option<io::Error> {
        self.faults.as_mut().and_then(|faults| faults(attempt)).map(io::Error::from_raw_os_error)
    }

    /// Whether writes overlap with the caller's work.
    #[must_use]
    pub fn is_asynchronous(&self) -> bool {
        matches!(self.backend, Backend::Uring(_))
    }

    /// Asks for a ring, if there is none.
    ///
    /// # Errors
    /// What the kernel says; writes are then done one by one.
    pub fn renew(&mut self) -> io::Result<()> {
        if let Backend::Plain = self.backend {
            self.backend = Backend::Uring(Box::new(open_ring(self.slots.len())?));
        }
        Ok(())
    }

    /// Writes that were started and not yet returned by [`DiskQueue::finished`].
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight + self.finished.len()
    }

    /// Starts a write, waiting for an earlier one to end if `depth` are in flight.
    pub fn start(&mut self, write: Write<T>) {
        while self.is_asynchronous() && self.free.is_empty() {
            self.reap(true);
        }
        let slot = if self.is_asynchronous() { self.free.pop() } else { None };
        match slot {
            Some(slot) => {
                self.slots[slot] = Some(InFlight { write, done: 0 });
                self.in_flight += 1;
                self.push(slot);
                self.enter(0);
            }
            None => {
                let result = self.write_plainly(&write, 0);
                self.finished.push_back((write, result));
            }
        }
    }

    /// A write that ended, with its result. `wait`: block until one does, if any is in flight.
    pub fn finished(&mut self, wait: bool) -> Option<(Write<T>, io::Result<()>)> {
        #[cfg(test)]
        if self.is_paused {
            return None;
        }
        while self.finished.is_empty() && self.in_flight > 0 {
            self.reap(wait);
            if !wait {
                break;
            }
        }
        self.finished.pop_front()
    }

    /// Puts the rest of a write into the ring, which has room for every slot.
    fn push(&mut self, slot: usize) {
        let (Backend::Uring(ring), Some(state)) = (&mut self.backend, &self.slots[slot]) else { return };
        let rest = &state.write.block.bytes()[state.done..state.write.bytes];
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Write::new(types::Fd(state.write.file.as_raw_fd()), rest.as_ptr(), length)
            .offset(state.write.offset + state.done as u64)
            .build()
            .user_data(slot as u64);
        // SAFETY: the entry points into a block and names a file that `slots[slot]` owns until the completion for this slot is
        // reaped, or until the ring is gone that the kernel did not take it from; `Drop` reaps all before the slots go.
        if unsafe { ring.submission().push(&entry) }.is_ok() {
            self.pushed.push_back(slot);
        } else {
            self.end_plainly(slot);
        }
    }

    /// Hands what waits in the ring to the kernel, and waits until `want` writes ended. A kernel that has no memory for it is
    /// asked again; then what it did not take is written without the ring.
    fn enter(&mut self, want: usize) {
        #[cfg(test)]
        let fault = self.fault(Attempt::Submit);
        let Backend::Uring(ring) = &mut self.backend else { return };
        #[cfg(test)]
        let entered = fault.map_or_else(|| ring.submit_and_wait(want), Err);
        #[cfg(not(test))]
        let entered = ring.submit_and_wait(want);
        let left = ring.submission().len();
        while self.pushed.len() > left {
            self.pushed.pop_front();
        }
        match entered {
            Ok(_) => self.refused = 0,
            // A signal, or completions that must be reaped first: the caller comes back.
            Err(e)
                if [Errno::INTR, Errno::BUSY].iter().any(|n| e.raw_os_error() == Some(n.raw_os_error())) => {}
            Err(_) => {
                self.refused += 1;
                if self.refused >= SUBMIT_TRIES && !self.pushed.is_empty() {
                    self.leave_ring();
                } else if want > 0 {
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Ends what the kernel did not take without the ring, and goes on with a new one.
    fn leave_ring(&mut self) {
        while self.in_flight > self.pushed.len() {
            self.collect();
            if self.in_flight > self.pushed.len() {
                std::thread::sleep(PAUSE);
            }
        }
        // What the kernel has not taken goes with the ring.
        self.backend = Backend::Plain;
        let _writes_go_on_without_it = self.renew();
        self.refused = 0;
        while let Some(slot) = self.pushed.pop_front() {
            self.end_plainly(slot);
        }
    }

    fn reap(&mut self, wait: bool) {
        if wait || !self.pushed.is_empty() {
            self.enter(usize::from(wait));
        }
        self.collect();
    }

    /// Takes the completions that are there. A write that failed is made again at once, because its data is still here.
    fn collect(&mut self) {
        let Backend::Uring(ring) = &mut self.backend else { return };
        let completions: Vec<(usize, i32)> = ring
            .completion()
            .map(|c| (usize::try_from(c.user_data()).unwrap_or(usize::MAX), c.result()))
            .collect();
        for (slot, result) in completions {
            #[cfg(test)]
            let result = {
                let at = self.slots[slot].as_ref().map_or(0, |state| state.write.offset);
                self.fault(Attempt::Ring(at)).and_then(|e| e.raw_os_error()).map_or(result, |errno| -errno)
            };
            let Some(state) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let written = usize::try_from(result).unwrap_or(0);
            if written > 0 && state.done + written >= state.write.bytes {
                self.end(slot, Ok(()));
                continue;
            }
            // A short write; a direct one goes on at a whole page.
            let whole = written - written % PAGE_BYTES;
            state.done += whole;
            let is_interrupted = -result == Errno::INTR.raw_os_error();
            if whole > 0 || is_interrupted {
                self.push(slot);
            } else {
                self.end_plainly(slot);
            }
        }
    }

    fn end(&mut self, slot: usize, result: io::Result<()>) {
        if let Some(state) = self.slots[slot].take() {
            self.free.push(slot);
            self.in_flight -= 1;
            self.finished.push_back((state.write, result));
        }
    }

    /// Ends a write without the ring.
    fn end_plainly(&mut self, slot: usize) {
        let Some(state) = self.slots[slot].take() else { return };
        let result = self.write_plainly(&state.write, state.done);
        self.free.push(slot);
        self.in_flight -= 1;
        self.finished.push_back((state.write, result));
    }

    /// Writes all but the first `done` bytes, in several tries if it must.
    fn write_plainly(&mut self, write: &Write<T>, done: usize) -> io::Result<()> {
        let mut tries = 1;
        loop {
            #[cfg(test)]
            let fault = self.fault(Attempt::Plain(write.offset));
            #[cfg(not(test))]
            let fault: Option<io::Error> = None;
            let written = fault.map_or_else(
                || {
                    let rest = &write.block.bytes()[done..write.bytes];
                    write.file.write_all_at(rest, write.offset + done as u64)
                },
                Err,
            );
            match written {
                Err(_) if tries < WRITE_TRIES => tries += 1,
                written => return written,
            }
        }
    }
}

/// A ring that can write, which is tried with a byte for `/dev/null`.
fn open_ring(depth: usize) -> io::Result<IoUring> {
    let depth = u32::try_from(depth).unwrap_or(u32::MAX);
    let mut ring = IoUring::new(depth.next_power_of_two())?;
    static BYTE: [u8; 1] = [0];
    let null = File::options().write(true).open("/dev/null")?;
    let entry = opcode::Write::new(types::Fd(null.as_raw_fd()), BYTE.as_ptr(), 1).build();
    // SAFETY: the byte is there for all time, and the kernel holds the file from when it takes the entry, which it does below or never.
    if unsafe { ring.submission().push(&entry) }.is_err() {
        return Err(io::Error::other("the ring has no room for a write"));
    }
    let result = loop {
        match ring.submit_and_wait(1) {
            Err(e) if e.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            Err(e) => return Err(e),
            Ok(_) => break ring.completion().next().map_or(0, |completion| completion.result()),
        }
    };
    match result {
        1 => Ok(ring),
        0 => Err(io::ErrorKind::WriteZero.into()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

impl<T> Drop for DiskQueue<T> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            self.reap(true);
        }
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::block::{Arena, Hugepages};
    use crate::limits::BLOCK_BYTES;

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

    /// Writes eight blocks while attempts fail as `faults` says; how the writes ended, and whether the file has all of them.
    fn write_with(faults: impl FnMut(Attempt) -> Option<i32> + Send + 'static) -> (usize, bool) {
        let (mut blocks, _) = Arena::map(8, Hugepages::Never).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut queue = DiskQueue::new(4);
        queue.fail(faults);
        for (i, mut block) in blocks.drain(..).enumerate() {
            block.bytes_mut().fill(u8::try_from(i).unwrap() + 1);
            let offset = (i * BLOCK_BYTES) as u64;
            queue.start(Write { file: Arc::clone(&file), block, bytes: BLOCK_BYTES, offset, tag: i });
        }
        let mut failed = 0;
        while let Some((_, result)) = queue.finished(true) {
            failed += usize::from(result.is_err());
        }
        assert_eq!((queue.in_flight(), queue.free.len()), (0, 4));
        let mut bytes = vec![0; 8 * BLOCK_BYTES];
        let read = file.read_exact_at(&mut bytes, 0);
        let is_whole = bytes.chunks(BLOCK_BYTES).zip(1..).all(|(block, n)| block.iter().all(|b| *b == n));
        (failed, read.is_ok() && is_whole)
    }

    #[test]
    fn a_write_that_fails_once_is_made_again_whatever_the_error() {
        for errno in [Errno::IO, Errno::INTR, Errno::AGAIN, Errno::NOMEM, Errno::NOSPC] {
            let (mut ring, mut plain) = (0, 0);
            let once = move |attempt| {
                let count = match attempt {
                    Attempt::Ring(_) => &mut ring,
                    Attempt::Plain(_) => &mut plain,
                    Attempt::Submit => return None,
                };
                *count += 1;
                (*count == 1).then_some(errno.raw_os_error())
            };
            assert_eq!(write_with(once), (0, true), "{errno:?}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_take_from_the_ring_is_written_without_it() {
        for refused in [1, 3, 4, usize::MAX] {
            let mut left = refused;
            let refuse = move |attempt| {
                let is_refused = attempt == Attempt::Submit && left > 0;
                left -= usize::from(is_refused);
                is_refused.then_some(Errno::NOMEM.raw_os_error())
            };
            assert_eq!(write_with(refuse), (0, true), "{refused} calls refused");
        }
    }

    #[test]
    fn a_queue_without_a_ring_writes_all_the_same_and_gets_one_when_it_asks_again() {
        let (mut blocks, _) = Arena::map(2, Hugepages::Never).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut queue = DiskQueue::new(2);
        queue.backend = Backend::Plain;
        for offset in [0, BLOCK_BYTES as u64] {
            let block = blocks.pop().unwrap();
            queue.start(Write { file: Arc::clone(&file), block, bytes: BLOCK_BYTES, offset, tag: () });
            assert!(queue.finished(true).unwrap().1.is_ok());
            // A host that has none says so, and the queue stays as it is.
            let has_one = try_io_uring().is_ok();
            assert_eq!((queue.renew().is_ok(), queue.is_asynchronous()), (has_one, has_one));
        }
        assert_eq!(file.metadata().unwrap().len(), 2 * BLOCK_BYTES as u64);
    }

    #[test]
    fn a_write_that_fails_for_good_ends_alone() {
        let bad = |attempt| match attempt {
            Attempt::Ring(at) | Attempt::Plain(at) if at == 3 * BLOCK_BYTES as u64 => Some(5),
            _ => None,
        };
        assert_eq!(write_with(bad).0, 1);
    }
}
