//! A capture as the spool knows it. Owns who is told when its writing fails: what is written in one directory is a *part*, and a part
//! that fails ends its streams alone, while another one has streams.
//!
//! Invariant: what happened first to a part is what is said of it.

use super::Feed;
use super::disk::{Disk, place_in};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// Why a capture cannot go on writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `spool.bytes_max` or the disk is used up.
    Full(String),
    /// The disk refused.
    Io(String),
}

impl Failure {
    /// What happened, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Full(message) | Self::Io(message) => message,
        }
    }

    /// Sorts an error of the file system. Customers read it too, so it names the file and not where it lies: the directory is the
    /// capture's.
    #[must_use]
    pub fn from_io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let name = path.file_name().unwrap_or_default();
        let message = format!("{doing} {}: {error}", name.display());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(message),
            _ => Self::Io(message),
        }
    }
}

/// What workers counted as captured and the spool then could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Records.
    pub packets: u64,
    /// Their frame bytes.
    pub frame_bytes: u64,
}

/// What the spool tells the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A capture cannot go on; said once per stream.
    Failed {
        /// The capture.
        serial: u64,
        /// Why.
        failure: Failure,
    },
    /// A stream cannot go on, and others of its capture do.
    StreamFailed {
        /// The capture.
        serial: u64,
        /// The stream's queue.
        queue: u16,
        /// Why.
        failure: Failure,
    },
    /// A stream is complete and everything that it has is published.
    StreamEnded {
        /// The capture.
        serial: u64,
        /// The stream's queue.
        queue: u16,
        /// What is missing from it, what its unpublished segments hold included.
        lost: Lost,
        /// Segments that could not be published and stay in the capture's directory.
        unpublished: u32,
        /// Why something is missing, if its part failed.
        failure: Option<Failure>,
    },
}

/// What of a capture is written in one directory.
#[derive(Debug)]
pub(super) struct Part {
    dir: PathBuf,
    disk: Arc<Disk>,
    failure: OnceLock<Failure>,
}

impl Part {
    /// Where its segments lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// In which of the spool's directories that is.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Why nothing more of it is to be written, if so.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// Its directory cannot be made: its streams end with their first packets.
    pub fn cannot_begin(&self, error: &io::Error) {
        let dir = self.dir.display();
        tracing::error!(%dir, %error, "a capture begins without one of the spool's directories, and loses the streams there");
        self.disk.count_failure();
        let _first =
            self.failure.set(Failure::from_io("cannot make the capture's directory", &self.dir, error));
    }
}

/// One capture's place in the spool.
pub struct SpoolCapture {
    /// Number of the capture in this process's life.
    pub serial: u64,
    /// Its home: where its segments of the first directory lie.
    pub dir: PathBuf,
    /// Its live merge.
    pub merge: Arc<Feed>,
    /// The engine.
    pub events: UnboundedSender<Event>,
    /// Tells the workers at once, so that they count what follows as dropped.
    pub stop_workers: Box<dyn Fn(&Failure) + Send + Sync>,
    /// Why nothing more of it is to be written, once it must leave the room to the others: not even what waits in blocks.
    pub refused: OnceLock<Failure>,
    /// In how many directories it may have streams: one for each queue, if there are as many; one if all are to be in its home.
    pub parts_max: usize,
    parts: Vec<Part>,
    /// In which directory each queue has segments.
    begun: Mutex<BTreeMap<u16, usize>>,
}

impl std::fmt::Debug for SpoolCapture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpoolCapture({}, {})", self.serial, self.dir.display())
    }
}

impl SpoolCapture {
    /// A capture of `queues` queues, with its home.
    #[must_use]
    pub fn new(
        serial: u64,
        dir: PathBuf,
        queues: usize,
        merge: Arc<Feed>,
        events: UnboundedSender<Event>,
        stop_workers: Box<dyn Fn(&Failure) + Send + Sync>,
    ) -> Self {
        let (refused, parts, begun) = (OnceLock::new(), Vec::new(), Mutex::default());
        Self { serial, dir, merge, events, stop_workers, refused, parts_max: queues.max(1), parts, begun }
    }

    /// Makes its parts.
    pub(super) fn spread(&mut self, disks: &[Arc<Disk>]) {
        let part = |disk: &Arc<Disk>| Part {
            dir: place_in(disk.dir(), disks[0].dir(), &self.dir),
            disk: Arc::clone(disk),
            failure: OnceLock::new(),
        };
        self.parts = disks.iter().take(self.parts_max).map(part).collect();
    }

    /// Its parts; its home first.
    pub(super) fn parts(&self) -> impl DoubleEndedIterator<Item = &Part> {
        self.parts.iter()
    }

    /// The part that a writer of directory `disk` writes.
    pub(super) fn part(&self, disk: usize) -> &Part {
        &self.parts[disk % self.parts.len()]
    }

    /// A writer of directory `disk` has begun a segment of this queue.
    pub(super) fn begins(&self, queue: u16, disk: usize) {
        let disk = self.part(disk).disk().index();
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(queue, disk);
    }

    /// In which directory each queue has segments.
    pub(super) fn begun(&self) -> BTreeMap<u16, usize> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it has streams in several directories.
    pub(super) fn is_spread(&self) -> bool {
        self.parts.len() > 1
    }

    /// Why nothing more is to be written of what a writer of directory `disk` writes, if so.
    pub(super) fn refusal(&self, disk: usize) -> Option<&Failure> {
        self.refused.get().or_else(|| self.part(disk).failure())
    }

    /// A stream that a writer of directory `disk` writes cannot go on, and with it none of that part.
    pub(super) fn fail(&self, disk: usize, queue: u16, failure: &Failure) {
        let (part, serial, is_refused) = (self.part(disk), self.serial, self.refused.get().is_some());
        if part.failure.set(failure.clone()).is_ok() && !is_refused {
            part.disk.count_failure();
        }
        let event = if is_refused || self.parts.iter().all(|part| part.failure.get().is_some()) {
            (self.stop_workers)(failure);
            Event::Failed { serial, failure: failure.clone() }
        } else {
            let (dir, error) = (part.dir.display(), failure.message());
            tracing::error!(%dir, queue, error, "a stream ends, because its directory of the spool failed");
            Event::StreamFailed { serial, queue, failure: failure.clone() }
        };
        let _engine_gone = self.events.send(event);
    }
}
