//! Log lines on their way to standard error. Owns the queue, the one thread that writes, and the count of lost lines; not
//! what a line says.
//!
//! A thread that logs hands its line over and goes on: standard error can be a pipe that nobody reads, or a file on a full
//! disk, and no thread may wait for either.
//!
//! Invariant: a line is written whole, or counted as dropped; handing one over never waits and never fails.

use rustix::thread::{CpuSet, sched_setaffinity};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait: a burst of a thousand, in about 200 KiB.
const LINES_MAX: usize = 1024;

/// Between two tries when standard error is full.
const PAUSE: Duration = Duration::from_millis(20);

/// Lines that were not written since the process started.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that were dropped: the queue was full, or standard error took no more.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

enum Item {
    Line(Vec<u8>),
    /// Answered once everything before it has been written or dropped.
    Flush(SyncSender<()>),
}

/// A handle of the writing thread. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: SyncSender<Item>,
}

impl Lines {
    /// Starts the thread, which writes to `output` for as long as the process lives, on `cores` or, if there are none, anywhere.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(output: impl Write + Send + 'static, cores: &[usize]) -> io::Result<Self> {
        let (queue, lines) = sync_channel(LINES_MAX);
        let mut output = Output { to: output, is_torn: false };
        let mut set = CpuSet::new();
        for &core in cores {
            set.set(core);
        }
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || {
            if set.count() > 0 {
                // Cores that do not exist are refused with the rest of the config.
                let _anywhere_then = sched_setaffinity(None, &set);
            }
            output.run(&lines);
        })?;
        Ok(Self { queue })
    }

    /// Waits until every earlier line is written or dropped, at most `time_max`.
    pub fn drain(&self, time_max: Duration) {
        let (done, written) = sync_channel(1);
        // A full queue means that standard error is stuck: do not wait.
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _written_or_late = written.recv_timeout(time_max);
        }
    }
}

/// One line: `tracing-subscriber` formats it into a buffer and writes that at once.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Output<W> {
    to: W,
    /// The last line was cut off half way: the next one begins on a line of its own.
    is_torn: bool,
}

impl<W: Write> Output<W> {
    fn run(&mut self, lines: &Receiver<Item>) {
        let mut reported = dropped();
        while let Ok(item) = lines.recv() {
            match item {
                Item::Flush(done) => {
                    let _nobody_waits = done.try_send(());
                }
                Item::Line(line) => match self.line(&line) {
                    Err(_) => {
                        DROPPED.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(()) => {
                        let now = dropped();
                        if now > reported {
                            let lines = now - reported;
                            tracing::warn!(lines, "log lines were dropped: standard error took none");
                            reported = now;
                        }
                    }
                },
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.bytes(b"\n")?;
            self.is_torn = false;
        }
        let mut left = line;
        while !left.is_empty() {
            match self.bytes_once(left) {
                Ok(count) => left = &left[count..],
                Err(error) => {
                    self.is_torn = left.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            bytes = &bytes[self.bytes_once(bytes)?..];
        }
        Ok(())
    }

    fn bytes_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.to.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process that shares the terminal or pipe made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
                written => return written,
            }
        }
    }
}

/// Standard error without the lock and the buffer of `std`, so that a thread that blocks in a write here blocks no other thread.
#[derive(Debug)]
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};

    const SOON: Duration = Duration::from_secs(20);

    /// Takes so many bytes, then refuses until it is given more room.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn make_room(&self, bytes: usize) {
            self.0.lock().unwrap().0 += bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, text) = &mut *self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= count;
            text.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_refuses_is_counted_and_the_next_line_stands_by_itself() {
        let disk = Disk::default();
        let mut lines = Lines::start(disk.clone(), &[]).unwrap();
        disk.make_room("one\ntw".len());
        let before = dropped();
        for line in ["one\n", "two\n", "three\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
        lines.drain(SOON);
        assert_eq!((disk.text().as_str(), dropped() - before), ("one\ntw", 2));
        disk.make_room(100);
        lines.write_all(b"four\n").unwrap();
        lines.drain(SOON);
        assert_eq!(disk.text(), "one\ntw\nfour\n");
    }

    #[test]
    fn a_reader_that_stands_still_delays_nobody() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _until_the_test_ends = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (go_on, stands) = channel();
        let mut lines = Lines::start(Stuck(stands), &[]).unwrap();
        let before = dropped();
        for _ in 0..3 * LINES_MAX {
            lines.write_all(b"x\n").unwrap();
        }
        assert!(dropped() - before >= 2 * LINES_MAX as u64 - 1);
        // The queue is full, so this has nothing to wait for.
        lines.drain(SOON);
        drop(go_on);
    }
}
