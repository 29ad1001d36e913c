//! The spool as the rest of the program sees it: its directory, its quota, and the captures that write into it.
//!
//! Invariant: a capture is registered before any worker is told of it and forgotten after its last stream ended.

use super::account::Account;
use super::files::Files;
use super::mapping::Pool;
use super::recover::{Recovery, recover};
use super::removal;
use super::{Cut, Feed, IdentityError, LockError, Quota, Share, SpoolLock};
use crate::limits::PAGE_BYTES;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Below the spool's directory: mapped segments that wait to be used.
const POOL_DIR: &str = ".pool";

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
    /// The most of that for one tenant.
    pub share_bytes_max: u64,
    /// What of that nobody takes from it.
    pub part_bytes: u64,
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
    account: Arc<Account>,
    captures: Captures,
    pool: Option<Pool>,
    _lock: SpoolLock,
}

impl Spool {
    /// Opens the spool, counts what is in it, and finds out how it can be written.
    ///
    /// # Errors
    /// [`SpoolError`] when the directory cannot be used as the config says.
    pub fn open(config: SpoolConfig) -> Result<Self, SpoolError> {
        Self::open_with(config, Files::default())
    }

    pub(super) fn open_with(mut config: SpoolConfig, files: Files) -> Result<Self, SpoolError> {
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
        removal::finish(&config.dir).map_err(failed)?;
        let scratch = config.dir.join(POOL_DIR);
        match fs::remove_dir_all(&scratch) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed)?,
        }
        let quota = Arc::new(Quota::new(config.bytes_max, config.share_bytes_max, config.part_bytes));
        let account = Arc::new(Account::open(&config.dir, quota, files).map_err(failed)?);
        let mut pool = None;
        if config.write == WriteMode::Mapped {
            let bytes = config.segment_bytes.next_multiple_of(PAGE_BYTES as u64);
            let opened = Pool::open(scratch, bytes, Arc::clone(&account)).map_err(failed)?;
            for _ in 0..config.pool_bytes / bytes {
                if !opened.fill().map_err(failed)? {
                    break;
                }
            }
            pool = Some(opened);
        }
        Ok(Self { account, captures: Captures::default(), pool, config, _lock: lock })
    }

    /// A small one, for tests.
    #[cfg(test)]
    pub(crate) fn in_dir(dir: &Path) -> Self {
        let (segment_bytes, fsync_interval) = (4 << 20, Duration::from_secs(1));
        let (dir, write) = (dir.to_owned(), WriteMode::Auto);
        Self::open(SpoolConfig {
            dir,
            bytes_max: 1 << 30,
            share_bytes_max: 1 << 30,
            part_bytes: 1 << 30,
            segment_bytes,
            write,
            fsync_interval,
            pool_bytes: 0,
        })
        .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Charges the files that a test has put below `dir`.
    #[cfg(test)]
    pub(crate) fn count(&self, dir: &Path) {
        self.account.settle(dir);
    }

    /// What the operator decided, with the way to write resolved.
    #[must_use]
    pub fn config(&self) -> &SpoolConfig {
        &self.config
    }

    /// The host-wide quota.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        self.account.quota()
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// The file system, for what is kept below the spool's directory.
    pub(crate) fn files(&self) -> &Files {
        self.account.files()
    }

    /// Bytes that hold packets or are about to: mapped segments that wait to be used are on the quota, and not full.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.quota().used().saturating_sub(self.pool.as_ref().map_or(0, Pool::idle_bytes))
    }

    /// Whether segments that are freed are written again. They are worth more than a copy of them costs.
    #[must_use]
    pub fn recycles(&self) -> bool {
        self.pool.is_some()
    }

    pub(super) fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// Makes a capture's directory a tenant's: what is in it and what is written there is charged to its share.
    pub fn assign(&self, dir: &Path, share: &Arc<Share>) {
        self.account.assign(dir, share);
        if let Some(pool) = &self.pool {
            pool.assign(dir, share);
        }
    }

    /// Whether others have to make room for what is written into `dir`.
    pub(super) fn owes(&self, dir: &Path) -> bool {
        self.account.tenant_of(dir).is_some_and(|share| self.quota().owes(&share))
    }

    /// Charges what each tenant has of simple captures' files, by name, and nothing for those that are not named.
    pub fn set_simple(&self, held: &HashMap<String, u64>) {
        self.account.set_simple(held);
    }

    /// Bytes of published and left segments below `dir`.
    #[must_use]
    pub fn bytes_below(&self, dir: &Path) -> u64 {
        self.account.bytes_below(dir) + self.pool.as_ref().map_or(0, |pool| pool.bytes_below(dir))
    }

    /// As [`Spool::bytes_below`]; nothing once the directory is gone.
    #[must_use]
    pub fn bytes_left(&self, dir: &Path) -> u64 {
        if dir.try_exists().is_ok_and(|is_there| !is_there) { 0 } else { self.bytes_below(dir) }
    }

    /// Makes a capture's directory and lets writers find it.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn register(&self, capture: SpoolCapture) -> io::Result<()> {
        // Not those above it: where the spool's disk is gone, nothing is begun in its place.
        match DirBuilder::new().mode(0o700).create(&capture.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
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

    /// Ends a registration. Its directory is removed if it has no segment: what could not be delivered stays.
    pub fn forget(&self, serial: u64) {
        let capture = self.captures.lock().unwrap_or_else(PoisonError::into_inner).remove(&serial);
        let Some(capture) = capture else { return };
        if fs::remove_dir(&capture.dir).is_err_and(|e| e.kind() == io::ErrorKind::DirectoryNotEmpty) {
            self.remove_strays(&capture.dir);
            let _not_empty = fs::remove_dir(&capture.dir);
        }
    }

    /// Removes length files and copies whose segments are gone. No segment of `dir` may be on its way.
    pub fn remove_strays(&self, dir: &Path) {
        for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
            // Others have copies of other files there.
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let is_stray = name.ends_with(b".pcap.len") || name.ends_with(b".pcap.copy");
            // What cannot be looked at stays: a length file decides what of its segment is believed.
            if is_stray && path.with_extension("open").try_exists().is_ok_and(|is_open| !is_open) {
                let _still_there = fs::remove_file(&path);
            }
        }
    }

    /// Removes a capture's directory with everything in it, and releases what that held. `false`: it stays, because it has
    /// segments that were never published. Slow (disk): not for async tasks.
    ///
    /// # Errors
    /// When the file system refuses; what is gone is released all the same.
    pub fn remove_capture_dir(&self, dir: &Path) -> io::Result<bool> {
        if has_open_segments(dir)? {
            return Ok(false);
        }
        self.discard_capture_dir(dir).map(|()| true)
    }

    /// Removes a capture's directory with everything in it, also what was never published. No stream of it may be open.
    /// Slow (disk): not for async tasks.
    ///
    /// # Errors
    /// When the file system refuses; what is gone is released all the same.
    pub fn discard_capture_dir(&self, dir: &Path) -> io::Result<()> {
        let removed = removal::remove_dir(dir);
        for (path, charge) in self.pool.iter().flat_map(|pool| pool.let_go(dir)) {
            self.account.keep(path, charge);
        }
        self.account.settle(dir);
        self.account.settle(&removal::renamed(dir));
        removed
    }

    /// Cuts and publishes what a dead process left in `dir`; see [`Recovery`]. Slow (disk): not for async tasks.
    ///
    /// # Errors
    /// When the file system refuses; a second try finds the same.
    pub fn recover(&self, dir: &Path, snaplen: u32, cuts: &[Cut]) -> io::Result<Recovery> {
        let recovered = recover(dir, snaplen, cuts);
        self.account.settle(dir);
        recovered
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
        self.files().remove(path)?;
        drop(self.account.take(path));
        Ok(())
    }

    /// Moves a published segment to where it is on somebody else's account; it must be on the same file system. Slow (disk).
    ///
    /// # Errors
    /// When the file system refuses; it is then where it was.
    pub fn hand_over(&self, path: &Path, to: &Path) -> io::Result<()> {
        self.files().rename(path, to)?;
        drop(self.account.take(path));
        Ok(())
    }
}

fn has_open_segments(dir: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        if entry?.file_name().as_encoded_bytes().ends_with(b".open") {
            return Ok(true);
        }
    }
    Ok(false)
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
