//! Why a merge ended early. Owns the error enum of this module.
//!
//! Invariant: whatever is wrong with a file, the message names it.

use crate::pcap::ReadError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a merge ended early.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// An input could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The input.
        path: PathBuf,
        /// Why.
        source: ReadError,
    },
    /// A segment file differs from its announcement.
    #[error(
        "segment {}: {what} is {found} but {announced} was published; the spool was changed by someone else",
        path.display()
    )]
    Segment {
        /// The segment file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As published.
        announced: u64,
        /// As found.
        found: u64,
    },
    /// A segment is missing or comes twice.
    #[error("segment {} is number {found} of queue {queue}, but {expected} is next", path.display())]
    Sequence {
        /// The segment file.
        path: PathBuf,
        /// Its queue.
        queue: usize,
        /// The number due.
        expected: u64,
        /// Its number.
        found: u64,
    },
    /// A hole was announced out of order.
    #[error("segment {found} of queue {queue} was told to be missing, but {expected} is next")]
    Hole {
        /// Its queue.
        queue: usize,
        /// The number due.
        expected: u64,
        /// Its number.
        found: u64,
    },
    /// A queue that this capture does not have.
    #[error("queue {queue} delivered, but this capture has {queues} queues")]
    Queue {
        /// As told.
        queue: usize,
        /// How many there are, from 0.
        queues: usize,
    },
    /// A queue delivered a segment after its stream was complete.
    #[error("queue {queue} delivered segment {} after the end of its stream", path.display())]
    AfterEnd {
        /// The queue.
        queue: usize,
        /// The segment file.
        path: PathBuf,
    },
    /// The input channel closed before every stream was complete.
    #[error("the spool stopped before the stream of queue {queue} was complete")]
    InputClosed {
        /// The first queue without an end.
        queue: usize,
    },
    /// The input channel closed before the counts of a pcapng capture came.
    #[error("the capture's counts were never told, and the end of its last pcapng object needs them")]
    CountsMissing,
    /// The output channel is closed.
    #[error("the upload stopped taking data")]
    OutputClosed,
    /// The sealer's thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// Nothing to merge.
    #[error("no input files; name at least one")]
    NoInputs,
    /// The output would replace an input.
    #[error("{} is also an input; choose another name for the output", .0.display())]
    OutputIsInput(PathBuf),
    /// Inputs of different link types cannot be in one pcap file.
    #[error(
        "{} has link type {found}, {} has {first}; merge them into a pcapng file (--format pcapng)",
        path.display(), first_path.display()
    )]
    LinkTypes {
        /// The first input.
        first_path: PathBuf,
        /// Its link type.
        first: u16,
        /// The input that differs.
        path: PathBuf,
        /// Its link type.
        found: u16,
    },
    /// A time that classic pcap cannot hold.
    #[error("{}: a packet's time, {ns} ns since 1970, is after 2106; a pcap file cannot hold it", path.display())]
    Time {
        /// The input.
        path: PathBuf,
        /// The time.
        ns: u64,
    },
    /// zstd refused.
    #[error("compression failed: {0}")]
    Compression(std::io::Error),
    /// More interfaces than a reader of the output would take.
    #[error(
        "the inputs have more than {0} interfaces with packets; merge fewer at a time, or into a pcap file"
    )]
    Interfaces(usize),
    /// The output could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The output.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What a failed merge means for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault<'a> {
    /// The packets are not at fault: a retry may succeed.
    Passing,
    /// The disk could not read this segment.
    Disk(&'a Path),
    /// This segment has wrong content.
    Content(&'a Path),
    /// The merge's input contradicts itself. A retry fails again.
    Order,
}

impl MergeError {
    /// See [`Fault`].
    pub(crate) fn fault(&self) -> Fault<'_> {
        match self {
            Self::Read { path, source: ReadError::Open { source, .. } | ReadError::Io { source, .. } } => {
                if is_shortage(source) {
                    Fault::Passing
                } else {
                    Fault::Disk(path)
                }
            }
            Self::Read { path, .. } | Self::Segment { path, .. } => Fault::Content(path),
            Self::InputClosed { .. }
            | Self::CountsMissing
            | Self::OutputClosed
            | Self::Compression(_)
            | Self::Thread(_) => Fault::Passing,
            _ => Fault::Order,
        }
    }
}

/// Whether the system was short of a resource, which is not the file's fault.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::INTR];
    error.raw_os_error().is_some_and(|code| shortages.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_descriptors_or_memory_says_nothing_about_a_segment_and_a_disk_error_does() {
        let read = |code| MergeError::Read {
            path: "segment".into(),
            source: ReadError::Open { path: "segment".into(), source: io::Error::from_raw_os_error(code) },
        };
        for errno in ["EMFILE 24", "ENFILE 23", "ENOMEM 12", "EAGAIN 11", "EINTR 4"] {
            let code = errno.split_once(' ').unwrap().1.parse().unwrap();
            assert_eq!(read(code).fault(), Fault::Passing, "{errno}");
        }
        for errno in ["EIO 5", "ENOENT 2"] {
            let code = errno.split_once(' ').unwrap().1.parse().unwrap();
            assert_eq!(read(code).fault(), Fault::Disk(Path::new("segment")), "{errno}");
        }
        let cut = ReadError::Truncated { records: 1, offset: 100 };
        let cut = MergeError::Read { path: "segment".into(), source: cut };
        assert_eq!(cut.fault(), Fault::Content(Path::new("segment")));
        assert_eq!(MergeError::Hole { queue: 0, expected: 1, found: 2 }.fault(), Fault::Order);
    }
}
