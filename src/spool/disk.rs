//! One directory of the spool, as a rule a disk of its own. Owns its lock, its quota, its books, and how it is written; not which
//! streams are written there.
//!
//! Invariant: nothing that happens to one directory changes what another one does.

use super::account::Account;
use super::files::Files;
use super::mapping::Pool;
use super::{Quota, SpoolConfig, SpoolError, SpoolLock, WriteMode, removal, spool_id};
use crate::limits::PAGE_BYTES;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::time::{Duration, Instant};

/// Below the directory: mapped segments that wait to be used.
const POOL_DIR: &str = ".pool";
/// Below the directory: what [`Disk::probe`] writes.
const PROBE: &str = ".probe-write";
/// How long somebody waits for another one's probe.
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub struct Disk {
    index: usize,
    /// Its own: `dir` is this directory, and there are no others.
    config: SpoolConfig,
    account: Arc<Account>,
    pool: Option<Pool>,
    failures: AtomicU64,
    /// Device and inode of the directory.
    place: (u64, u64),
    /// See [`Disk::id`].
    id: OnceLock<String>,
    /// Held by who writes the probe.
    probing: Mutex<()>,
    /// Whether the spool has others.
    has_others: bool,
    _lock: SpoolLock,
}

impl Disk {
    /// Opens directory `index` of `config`, counts what is in it, and finds out how it can be written.
    pub(super) fn open(
        config: &SpoolConfig,
        index: usize,
        dir: &Path,
        files: Files,
    ) -> Result<Self, SpoolError> {
        let has_others = !config.more_dirs.is_empty();
        let mut config = SpoolConfig { dir: dir.to_owned(), more_dirs: Vec::new(), ..config.clone() };
        let failed = |source| SpoolError::Dir { dir: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        // Before anything is touched: what looks left over may be another process's.
        let lock = SpoolLock::take(dir)?;
        let place = place_of(dir).map_err(failed)?;
        match (config.write, probe_direct(dir)) {
            (WriteMode::Auto, Ok(())) => config.write = WriteMode::Direct,
            (WriteMode::Auto, Err(_)) => config.write = WriteMode::Mapped,
            (WriteMode::Direct, Err(source)) => {
                return Err(SpoolError::NoDirect { dir: dir.to_owned(), source });
            }
            (WriteMode::Direct, Ok(())) | (WriteMode::Mapped | WriteMode::Discard, _) => {}
        }
        removal::finish(dir).map_err(failed)?;
        let scratch = dir.join(POOL_DIR);
        match fs::remove_dir_all(&scratch) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed)?,
        }
        let quota = Arc::new(Quota::new(config.bytes_max, config.share_bytes_max, config.part_bytes));
        let account = Arc::new(Account::open(dir, quota, files).map_err(failed)?);
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
        let (failures, id, probing) = (AtomicU64::new(0), OnceLock::new(), Mutex::new(()));
        Ok(Self { index, config, account, pool, failures, place, id, probing, has_others, _lock: lock })
    }

    /// Its number among the spool's directories.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// What the operator decided, with the way to write resolved.
    #[must_use]
    pub fn config(&self) -> &SpoolConfig {
        &self.config
    }

    /// What customers know it as.
    pub(super) fn words(&self) -> &'static str {
        if self.has_others { "a disk of this host's spool" } else { "this host's spool" }
    }

    /// Its quota.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        self.account.quota()
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// Bytes that hold packets or are about to: mapped segments that wait to be used are on the quota, and not full.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.quota().used().saturating_sub(self.pool.as_ref().map_or(0, Pool::idle_bytes))
    }

    /// Bytes that its file system has left.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(self.dir())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// The name that its directory has; none before it is named.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        if self.id.get().is_none()
            && let Ok(Some(id)) = spool_id(self.dir())
        {
            let _first = self.id.set(id);
        }
        self.id.get().map(String::as_str)
    }

    /// Whether the directory is the one that this process opened. Below the mount point of a disk that was unmounted lies another
    /// one, and what is written there is hidden once the disk is back.
    ///
    /// # Errors
    /// When it is another one, or cannot be looked at.
    pub fn in_place(&self) -> io::Result<()> {
        if place_of(self.dir())? == self.place {
            return Ok(());
        }
        let dir = self.dir().display();
        let said = format!(
            "{dir} is not the directory that this process opened: its disk was unmounted, or another one was mounted over it; mount it there again, or restart trawl"
        );
        Err(io::Error::new(io::ErrorKind::NotFound, said))
    }

    /// Whether the directory is in its place and takes a write. Slow (disk), and without an end on one that hangs: then others that
    /// ask wait no longer than two seconds.
    ///
    /// # Errors
    /// When it does not.
    pub fn probe(&self) -> io::Result<()> {
        let began = Instant::now();
        let _probing = loop {
            match self.probing.try_lock() {
                Err(TryLockError::WouldBlock) if began.elapsed() < PROBE_TIME_MAX => {
                    std::thread::sleep(PROBE_PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    let said = "a write of before has not come back yet";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, said));
                }
                held => break held,
            }
        };
        self.in_place()?;
        let path = self.dir().join(PROBE);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let written = file.write_all(b"ready\n").and_then(|()| file.sync_data());
        written.and(fs::remove_file(&path))
    }

    /// Times that a capture lost streams here.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a capture's directory here a tenant's.
    pub(super) fn assign(&self, dir: &Path, tenant: &str) {
        let share = self.quota().share(tenant);
        self.account.assign(dir, &share);
        if let Some(pool) = &self.pool {
            pool.assign(dir, &share);
        }
    }

    /// Whether others have to make room for what is written into `dir`.
    pub(super) fn owes(&self, dir: &Path) -> bool {
        self.account.tenant_of(dir).is_some_and(|share| self.quota().owes(&share))
    }

    /// Bytes of published and left segments below `dir`.
    pub(super) fn bytes_below(&self, dir: &Path) -> u64 {
        self.account.bytes_below(dir) + self.pool.as_ref().map_or(0, |pool| pool.bytes_below(dir))
    }

    /// Removes a capture's directory here with everything in it, and lets go of what that held.
    pub(super) fn discard(&self, dir: &Path) -> io::Result<()> {
        let removed = removal::remove_dir(dir);
        for (path, charge) in self.pool.iter().flat_map(|pool| pool.let_go(dir)) {
            self.account.keep(path, charge);
        }
        self.account.settle(dir);
        self.account.settle(&removal::renamed(dir));
        removed
    }

    /// Frees a published segment.
    pub(super) fn free(&self, path: &Path) -> io::Result<()> {
        if let Some(pool) = &self.pool
            && pool.recycle(path)?
        {
            return Ok(());
        }
        self.account.files().remove(path)?;
        drop(self.account.take(path));
        Ok(())
    }
}

/// Device and inode.
fn place_of(dir: &Path) -> io::Result<(u64, u64)> {
    let found = File::open(dir)?.metadata()?;
    Ok((found.dev(), found.ino()))
}

/// Where a capture of this name lies in `dir`.
pub(super) fn place_in(dir: &Path, home: &Path, capture: &Path) -> PathBuf {
    capture.strip_prefix(home).map_or_else(|_| capture.to_owned(), |below| dir.join(below))
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
