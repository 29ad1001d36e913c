//! The spool as the rest of the program sees it: its directories, and the captures that write into them.
//!
//! ```text
//! queue ─▶ writer ─▶ directory        q mod writers, writer mod directories
//!                    dirs[0]/CAPTURE  journal, record, segments of some queues
//!                    dirs[1]/CAPTURE  segments of the others
//! ```
//!
//! A capture is named by its directory in the first one, its *home*. Streams are dealt over the directories, and stay where they
//! are. What of a capture is written in one directory is a *part*.
//!
//! Invariant: a capture is registered before any worker is told of it and forgotten after its last stream ended.

use super::disk::{Disk, place_in};
use super::files::Files;
use super::recover::{Recovery, recover};
use super::{Cut, Failure, IdentityError, LockError, SpoolCapture};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// Its first directory, which also has the captures' journals, the history, and the files of simple captures.
    pub dir: PathBuf,
    /// The others.
    pub more_dirs: Vec<PathBuf>,
    /// The most that each directory may hold, in bytes.
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
    /// What `Mapped` writes once into each directory when it opens, in bytes.
    pub pool_bytes: u64,
}

impl SpoolConfig {
    /// Every directory, in order.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.dir).chain(&self.more_dirs).map(PathBuf::as_path)
    }
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

/// The captures that are registered.
pub type Captures = Mutex<HashMap<u64, Arc<SpoolCapture>>>;

/// What a tenant has on the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// In all directories.
    pub total: u64,
    /// In the one where it has most.
    pub most: u64,
    /// In the one that is fullest.
    pub on_fullest: u64,
}

impl Holding {
    /// In a spool of one directory.
    #[must_use]
    pub fn all(bytes: u64) -> Self {
        Self { total: bytes, most: bytes, on_fullest: bytes }
    }
}

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    /// One at least.
    disks: Vec<Arc<Disk>>,
    captures: Captures,
}

impl Spool {
    /// Opens the spool, counts what is in it, and finds out how it can be written.
    ///
    /// # Errors
    /// [`SpoolError`] when a directory cannot be used as the config says.
    pub fn open(config: SpoolConfig) -> Result<Self, SpoolError> {
        Self::open_with(config, Files::default())
    }

    pub(super) fn open_with(config: SpoolConfig, files: Files) -> Result<Self, SpoolError> {
        let open = |(index, dir)| Disk::open(&config, index, dir, files.clone()).map(Arc::new);
        let disks = config.dirs().enumerate().map(open).collect::<Result<_, _>>()?;
        Ok(Self { disks, captures: Captures::default() })
    }

    /// A small one, for tests.
    #[cfg(test)]
    pub(crate) fn in_dir(dir: &Path) -> Self {
        let (segment_bytes, fsync_interval) = (4 << 20, Duration::from_secs(1));
        let (dir, write) = (dir.to_owned(), WriteMode::Auto);
        Self::open(SpoolConfig {
            dir,
            more_dirs: Vec::new(),
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
        self.disk_of(dir).account().settle(dir);
    }

    /// What the operator decided of its first directory, with the way to write resolved.
    #[must_use]
    pub fn config(&self) -> &SpoolConfig {
        self.home().config()
    }

    /// Its directories, in order.
    #[must_use]
    pub fn disks(&self) -> &[Arc<Disk>] {
        &self.disks
    }

    /// The first directory.
    #[must_use]
    pub fn home(&self) -> &Disk {
        &self.disks[0]
    }

    /// The directory that a file lies in; the first if it lies in none.
    fn disk_of(&self, path: &Path) -> &Disk {
        self.disks.iter().find(|disk| path.starts_with(disk.dir())).unwrap_or(&self.disks[0])
    }

    /// Where a capture's segments may lie, by directory; its home first.
    pub fn places(&self, dir: &Path) -> impl DoubleEndedIterator<Item = (&Disk, PathBuf)> {
        let home = self.home().dir();
        self.disks.iter().map(move |disk| (&**disk, place_in(disk.dir(), home, dir)))
    }

    /// The file system, for what is kept below the spool's first directory.
    pub(crate) fn files(&self) -> &Files {
        self.home().account().files()
    }

    /// Bytes on the quotas of all directories.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.quota().used()).sum()
    }

    /// Bytes that hold packets or are about to, in all directories.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.held_bytes()).sum()
    }

    /// The quotas of all directories.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.disks.iter().map(|disk| disk.quota().bytes_max()).sum()
    }

    /// The directory that holds most.
    #[must_use]
    pub fn fullest(&self) -> &Disk {
        let fullest = self.disks.iter().rev().max_by_key(|disk| disk.held_bytes());
        fullest.unwrap_or(&self.disks[0])
    }

    /// What each tenant has.
    #[must_use]
    pub fn holdings(&self) -> BTreeMap<String, Holding> {
        let fullest = self.fullest().index();
        let mut holdings = BTreeMap::<String, Holding>::new();
        for disk in &self.disks {
            for share in disk.quota().shares() {
                let (holding, used) = (holdings.entry(share.tenant().to_owned()).or_default(), share.used());
                holding.total += used;
                holding.most = holding.most.max(used);
                if disk.index() == fullest {
                    holding.on_fullest = used;
                }
            }
        }
        holdings
    }

    /// Gives every tenant another share of each directory; see [`super::Quota::set_shares`].
    pub fn set_shares(&self, share_bytes_max: u64, part_bytes: u64) {
        self.disks.iter().for_each(|disk| disk.quota().set_shares(share_bytes_max, part_bytes));
    }

    /// Whether segments that are freed are written again. They are worth more than a copy of them costs.
    #[must_use]
    pub fn recycles(&self) -> bool {
        self.disks.iter().any(|disk| disk.pool().is_some())
    }

    /// Makes a capture's directories a tenant's: what is in them and what is written there is charged to its shares.
    pub fn assign(&self, dir: &Path, tenant: &str) {
        self.places(dir).for_each(|(disk, place)| disk.assign(&place, tenant));
    }

    /// Charges what each tenant has of simple captures' files, by name, and nothing for those that are not named.
    pub fn set_simple(&self, held: &HashMap<String, u64>) {
        self.home().account().set_simple(held);
    }

    /// Bytes of published and left segments of a capture.
    #[must_use]
    pub fn bytes_below(&self, dir: &Path) -> u64 {
        self.places(dir).map(|(disk, place)| disk.bytes_below(&place)).sum()
    }

    /// As [`Spool::bytes_below`]; nothing of a directory that is gone.
    #[must_use]
    pub fn bytes_left(&self, dir: &Path) -> u64 {
        let left = |(disk, place): (&Disk, PathBuf)| {
            if place.try_exists().is_ok_and(|is_there| !is_there) { 0 } else { disk.bytes_below(&place) }
        };
        self.places(dir).map(left).sum()
    }

    /// Makes a capture's directories and lets writers find it. One that cannot be made costs the streams that would be written
    /// there; the home must be had.
    ///
    /// # Errors
    /// When the home cannot be made.
    pub fn register(&self, mut capture: SpoolCapture) -> io::Result<()> {
        make_dir(self.home(), &capture.dir)?;
        let mut others = Vec::new();
        capture.spread(&self.disks);
        for part in capture.parts().skip(1) {
            match make_dir(part.disk(), part.dir()) {
                Ok(()) => others.push(Arc::clone(part.disk())),
                Err(error) => part.cannot_begin(&error),
            }
        }
        self.captures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(capture.serial, Arc::new(capture));
        for disk in others {
            if let Err(error) = File::open(disk.dir()).and_then(|dir| dir.sync_all()) {
                tracing::warn!(dir = %disk.dir().display(), %error, "a capture's directory may not be durable yet");
            }
        }
        File::open(self.home().dir())?.sync_all()
    }

    /// Names of the directories that queues of a capture are written to, by queue, as far as they have packets; none if it has but
    /// one directory.
    #[must_use]
    pub fn dirs_of_queues(&self, serial: u64) -> BTreeMap<u16, String> {
        let Some(capture) = self.capture(serial).filter(|capture| capture.is_spread()) else {
            return BTreeMap::new();
        };
        let named = |(queue, disk): (u16, usize)| Some((queue, self.disks.get(disk)?.id()?.to_owned()));
        capture.begun().into_iter().filter_map(named).collect()
    }

    /// Of queues that were written to these directories, those whose directory is none of the spool's.
    #[must_use]
    pub fn without_dir(&self, dirs: &BTreeMap<u16, String>) -> Vec<u16> {
        let is_here = |id: &str| self.disks.iter().any(|disk| disk.id() == Some(id));
        dirs.iter().filter(|(_, id)| !is_here(id)).map(|(queue, _)| *queue).collect()
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

    /// Ends a registration. Its directories are removed if they have no segment: what could not be delivered stays.
    pub fn forget(&self, serial: u64) {
        let capture = self.captures.lock().unwrap_or_else(PoisonError::into_inner).remove(&serial);
        let Some(capture) = capture else { return };
        // The home last: it is what a start looks for.
        for part in capture.parts().rev() {
            if fs::remove_dir(part.dir()).is_err_and(|e| e.kind() == io::ErrorKind::DirectoryNotEmpty) {
                remove_strays(part.dir());
                let _not_empty = fs::remove_dir(part.dir());
            }
        }
    }

    /// Removes length files and copies whose segments are gone. No segment of the capture may be on its way.
    pub fn remove_strays(&self, dir: &Path) {
        self.places(dir).for_each(|(_, place)| remove_strays(&place));
    }

    /// Removes a capture's directories with everything in them, and releases what they held. `false`: they stay, because they
    /// have segments that were never published. Slow (disk): not for async tasks.
    ///
    /// # Errors
    /// When the file system refuses; what is gone is released all the same.
    pub fn remove_capture_dir(&self, dir: &Path) -> io::Result<bool> {
        for (_, place) in self.places(dir) {
            if has_open_segments(&place)? {
                return Ok(false);
            }
        }
        self.discard_capture_dir(dir).map(|()| true)
    }

    /// Removes a capture's directories with everything in them, also what was never published. No stream of it may be open.
    /// Slow (disk): not for async tasks.
    ///
    /// # Errors
    /// When the file system refuses; what is gone is released all the same.
    pub fn discard_capture_dir(&self, dir: &Path) -> io::Result<()> {
        // The home last, and also if another one refuses: what is full must be freed although a disk is gone.
        let mut removed = Ok(());
        for (disk, place) in self.places(dir).rev() {
            let discarded = disk.discard(&place);
            removed = removed.and(discarded);
        }
        removed
    }

    /// Cuts and publishes what a dead process left of a capture; see [`Recovery`]. Slow (disk): not for async tasks.
    ///
    /// # Errors
    /// When the file system refuses its home; a second try finds the same.
    pub fn recover(&self, dir: &Path, snaplen: u32, cuts: &[Cut]) -> io::Result<Recovery> {
        let mut all = Recovery::default();
        for (disk, place) in self.places(dir) {
            let recovered = recover(&place, snaplen, cuts);
            disk.account().settle(&place);
            match recovered {
                Ok(found) => all.join(found),
                Err(error) if disk.index() == 0 => return Err(error),
                // It had no stream there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => all.unread.push((place, error)),
            }
        }
        Ok(all)
    }

    /// Frees a published segment whose packets are in the bucket. Slow (disk): not for async tasks.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn free(&self, path: &Path) -> io::Result<()> {
        self.disk_of(path).free(path)
    }

    /// Moves a published segment to where it is on somebody else's account; it must be on the same file system. Slow (disk).
    ///
    /// # Errors
    /// When the file system refuses; it is then where it was.
    pub fn hand_over(&self, path: &Path, to: &Path) -> io::Result<()> {
        let account = self.disk_of(path).account();
        account.files().rename(path, to)?;
        drop(account.take(path));
        Ok(())
    }
}

/// Not those above it: where the spool's disk is gone, nothing is begun in its place.
fn make_dir(disk: &Disk, dir: &Path) -> io::Result<()> {
    disk.in_place()?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn remove_strays(dir: &Path) {
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
