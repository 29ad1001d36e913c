//! The spool as the rest of the program sees it: its directory, its quota, and the captures that write into it.
//!
//! Invariant: a capture is registered before any worker is told of it and forgotten after its last stream ended.

use super::mapping::Pool;
use super::{Feed, IdentityError, LockError, Quota, SpoolLock};
use crate::limits::{HISTORY_DIR, PAGE_BYTES};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// How segments are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// `Direct` where the file system allows it, `Mapped` otherwise. Resolved when the spool opens.
    Auto,
    /// O_DIRECT writes of whole pages, several in flight.
    Direct,
    /// Copies into recycled segments that stay mapped.
    Mapped,
    /// Nothing is written: every frame is counted as lost in the spool. For benches of what comes before the disk.
    Discard,
}

/// What an operator decides about the spool.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Its directory.
    pub dir: PathBuf,
    /// The most that it may hold, in bytes.
    pub bytes_max: u64,
    /// Where a segment ends, in bytes.
    pub segment_bytes: u64,
    /// How segments are written.
    pub write: WriteMode,
    /// The longest time that written bytes wait for an fsync.
    pub fsync_interval: Duration,
    /// What `Mapped` writes once when it opens, in bytes.
    pub pool_bytes: u64,
}

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A directory or file could not be made.
    #[error("cannot use spool.dir {dir}: {source}; it must be a directory that this process may write to")]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `spool.write = "direct"` on a file system without O_DIRECT.
    #[error(
        "the file system of spool.dir {dir} refuses O_DIRECT: {source}; set spool.write = \"mapped\" or \"auto\""
    )]
    NoDirect {
        /// The directory.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It is not the one that the job store knows.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

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

    /// Sorts an error of the file system.
    #[must_use]
    pub fn from_io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let message = format!("{doing} {}: {error}", path.display());
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
    /// A stream is complete and everything that it has is published.
    StreamEnded {
        /// The capture.
        serial: u64,
        /// The stream's queue.
        queue: u16,
        /// What is missing from it.
        lost: Lost,
    },
}

/// One capture's place in the spool.
pub struct SpoolCapture {
    /// Number of the capture in this process's life.
    pub serial: u64,
    /// Where its segments lie.
    pub dir: PathBuf,
    /// Its live merge.
    pub merge: Arc<Feed>,
    /// The engine.
    pub events: UnboundedSender<Event>,
    /// Tells the workers at once, so that they count what follows as dropped.
    pub stop_workers: Box<dyn Fn(&Failure) + Send + Sync>,
    /// Why nothing more of it is to be written, once it must leave the room to the others: not even what waits in blocks.
    pub refused: OnceLock<Failure>,
}

impl std::fmt::Debug for SpoolCapture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpoolCapture({}, {})", self.serial, self.dir.display())
    }
}

impl SpoolCapture {
    pub(super) fn fail(&self, failure: &Failure) {
        (self.stop_workers)(failure);
        let _engine_gone = self.events.send(Event::Failed { serial: self.serial, failure: failure.clone() });
    }
}

/// The captures that are registered.
pub type Captures = Mutex<HashMap<u64, Arc<SpoolCapture>>>;

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    config: SpoolConfig,
    quota: Quota,
    captures: Captures,
    pool: Option<Pool>,
    _lock: SpoolLock,
}

impl Spool {
    /// Opens the spool, counts what is in it, and finds out how it can be written.
    ///
    /// # Errors
    /// [`SpoolError`] when the directory cannot be used as the config says.
    pub fn open(mut config: SpoolConfig) -> Result<Self, SpoolError> {
        let dir = config.dir.clone();
        let failed = |source| SpoolError::Dir { dir: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&config.dir).map_err(failed)?;
        // Before anything is touched: what looks left over may be another process's.
        let lock = SpoolLock::take(&config.dir)?;
        match (config.write, probe_direct(&config.dir)) {
            (WriteMode::Auto, Ok(())) => config.write = WriteMode::Direct,
            (WriteMode::Auto, Err(_)) => config.write = WriteMode::Mapped,
            (WriteMode::Direct, Err(source)) => return Err(SpoolError::NoDirect { dir, source }),
            (WriteMode::Direct, Ok(())) | (WriteMode::Mapped | WriteMode::Discard, _) => {}
        }
        let pool = match config.write {
            WriteMode::Mapped => {
                let bytes = config.segment_bytes.next_multiple_of(PAGE_BYTES as u64);
                Some(Pool::open(config.dir.join(".pool"), bytes).map_err(failed)?)
            }
            _ => None,
        };
        let quota = Quota::new(config.bytes_max, bytes_of_captures(&config.dir).map_err(failed)?);
        if let Some(pool) = &pool {
            for _ in 0..config.pool_bytes / pool.segment_bytes() {
                if !quota.reserve(pool.segment_bytes()) {
                    break;
                }
                pool.fill().map_err(failed)?;
            }
        }
        Ok(Self { quota, captures: Captures::default(), pool, config, _lock: lock })
    }

    /// What the operator decided, with the way to write resolved.
    #[must_use]
    pub fn config(&self) -> &SpoolConfig {
        &self.config
    }

    /// The host-wide quota.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Bytes that hold packets or are about to: mapped segments that wait to be used are on the quota, and not full.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.quota.used().saturating_sub(self.pool.as_ref().map_or(0, Pool::idle_bytes))
    }

    pub(super) fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// Makes a capture's directory and lets writers find it.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn register(&self, capture: SpoolCapture) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&capture.dir)?;
        self.captures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(capture.serial, Arc::new(capture));
        File::open(&self.config.dir)?.sync_all()
    }

    /// A registered capture.
    #[must_use]
    pub fn capture(&self, serial: u64) -> Option<Arc<SpoolCapture>> {
        self.captures.lock().unwrap_or_else(PoisonError::into_inner).get(&serial).cloned()
    }

    /// Has nothing more of a capture written; what its workers counted and is not written yet is lost.
    pub fn refuse(&self, serial: u64, failure: Failure) {
        if let Some(capture) = self.capture(serial) {
            let _refused_before = capture.refused.set(failure);
        }
    }

    /// Ends a registration. Its directory is removed if it is empty: what could not be delivered stays.
    pub fn forget(&self, serial: u64) {
        let capture = self.captures.lock().unwrap_or_else(PoisonError::into_inner).remove(&serial);
        if let Some(capture) = capture {
            let _not_empty = fs::remove_dir(&capture.dir);
        }
    }

    /// Frees a published segment whose packets are in the bucket. Slow (disk): not for async tasks.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn free(&self, path: &Path) -> io::Result<()> {
        if let Some(pool) = &self.pool
            && pool.recycle(path)?
        {
            return Ok(());
        }
        let bytes = fs::metadata(path)?.len();
        fs::remove_file(path)?;
        self.quota.release(bytes);
        Ok(())
    }
}

fn probe_direct(dir: &Path) -> io::Result<()> {
    let path = dir.join(".probe");
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(&path);
    let _gone_either_way = fs::remove_file(&path);
    opened.map(drop)
}

/// What is in the spool; the history keeps its own account.
fn bytes_of_captures(dir: &Path) -> io::Result<u64> {
    let history = dir.join(HISTORY_DIR);
    let history_bytes = if history.is_dir() { bytes_below(&history)? } else { 0 };
    Ok(bytes_below(dir)? - history_bytes)
}

fn bytes_below(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        // The journals and lengths of captures are too small to count, and are not charged while they are written.
        let name = entry.file_name();
        let counted = [".pcap", ".open"].iter().any(|end| name.as_encoded_bytes().ends_with(end.as_bytes()));
        sum += match meta.is_dir() {
            true => bytes_below(&entry.path())?,
            false => {
                if counted {
                    meta.len()
                } else {
                    0
                }
            }
        };
    }
    Ok(sum)
}
