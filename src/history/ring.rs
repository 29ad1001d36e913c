//! The ring: a directory of segments whose names say what they hold. Owns the names, the index, and what is deleted when.
//!
//! Invariant: the index has exactly the files of the directory that bear a name of the ring.

use crate::spool::{whole_records, whole_records_of_open};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Begins the names of directories of recordings that are not wholly in the ring.
pub(super) const OPEN_PREFIX: &str = ".open-";
/// Begins the names of files that are being copied into the ring.
pub(super) const PART_PREFIX: &str = ".part-";

/// One segment of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Time of its first record, ns since the UNIX epoch.
    pub first_ns: u64,
    /// Time of its last record.
    pub last_ns: u64,
    /// The queue that it came from.
    pub queue: u16,
    /// It holds one in so many packets of its queue.
    pub one_in: u32,
    /// Size of the file.
    pub bytes: u64,
}

impl Entry {
    /// Its file's name.
    #[must_use]
    pub fn name(&self) -> String {
        let Self { first_ns, last_ns, queue, one_in, .. } = self;
        format!("{first_ns:020}-{last_ns:020}-q{queue:03}-n{one_in}.pcap")
    }

    /// What a file's name says; none if it is not of the ring.
    #[must_use]
    pub fn parse(name: &str, bytes: u64) -> Option<Self> {
        let mut parts = name.strip_suffix(".pcap")?.split('-');
        let mut part = |prefix: &str| parts.next()?.strip_prefix(prefix);
        let (first_ns, last_ns) = (part("")?.parse().ok()?, part("")?.parse().ok()?);
        let (queue, one_in) = (part("q")?.parse().ok()?, part("n")?.parse().ok()?);
        let entry = Self { first_ns, last_ns, queue, one_in, bytes };
        (entry.name() == name).then_some(entry)
    }

    fn key(&self) -> Key {
        (self.last_ns, self.first_ns, self.queue)
    }
}

/// Ordered by the last record's time, so that what is deleted first stands first.
type Key = (u64, u64, u16);

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    dir: PathBuf,
    bytes_max: u64,
    keep: Duration,
    entries: BTreeMap<Key, Entry>,
    bytes: u64,
}

impl Ring {
    /// Reads the directory, takes in what recordings of a dead process published and the whole records of what they were
    /// writing, and trims.
    pub fn open(dir: &Path, bytes_max: u64, keep: Duration, one_in: u32) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut ring = Self { dir: dir.to_owned(), bytes_max, keep, entries: BTreeMap::new(), bytes: 0 };
        for found in fs::read_dir(dir)? {
            let found = found?;
            let (path, name) = (found.path(), found.file_name().to_string_lossy().into_owned());
            if name.starts_with(OPEN_PREFIX) {
                ring.salvage(&path, one_in)?;
                fs::remove_dir_all(&path)?;
            } else if name.starts_with(PART_PREFIX) {
                fs::remove_file(&path)?;
            } else if let Some(entry) = Entry::parse(&name, found.metadata()?.len()) {
                ring.insert(entry);
            } else {
                tracing::warn!(path = %path.display(), "this is no file of the history; it is left alone");
            }
        }
        ring.trim(super::now_ns());
        Ok(ring)
    }

    /// Takes in what a recording left behind.
    fn salvage(&mut self, open: &Path, one_in: u32) -> io::Result<()> {
        for found in fs::read_dir(open)? {
            let path = found?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let queue = name.trim_start_matches('.').strip_prefix('q').and_then(|q| q.get(..3)?.parse().ok());
            let Some(queue) = queue else { continue };
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let whole = match name.starts_with('.') {
                false => Some(whole_records(&file, file.metadata()?.len())?),
                // A file may be longer than its contents, with the remains of an older use behind them.
                true if name.ends_with(".open") => whole_records_of_open(&path)?,
                true => None,
            };
            let Some(whole) = whole.filter(|whole| whole.packets > 0) else { continue };
            file.set_len(whole.bytes)?;
            file.sync_all()?;
            let (first_ns, last_ns) = (whole.first_ns, whole.last_ns);
            let entry = Entry { first_ns, last_ns, queue, one_in, bytes: whole.bytes };
            fs::rename(&path, self.dir.join(entry.name()))?;
            self.insert(entry);
        }
        File::open(&self.dir)?.sync_all()
    }

    /// Notes a file that is in the directory.
    pub fn insert(&mut self, entry: Entry) {
        self.bytes += entry.bytes;
        // A file that was read while the directory was walked may be met again; the name is the same file.
        if let Some(replaced) = self.entries.insert(entry.key(), entry) {
            self.bytes -= replaced.bytes;
        }
    }

    /// Deletes what is too old, then the oldest until the rest is not too much.
    pub fn trim(&mut self, now_ns: u64) {
        let oldest_ns = now_ns.saturating_sub(super::ns(self.keep));
        while let Some(entry) = self.entries.first_entry() {
            if self.bytes <= self.bytes_max && entry.get().last_ns >= oldest_ns {
                break;
            }
            let entry = entry.remove();
            self.bytes -= entry.bytes;
            let path = self.dir.join(entry.name());
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::error!(path = %path.display(), %error, "a segment of the history could not be deleted");
            }
        }
    }

    /// The segments that may have records of this time window.
    pub fn between(&self, start_ns: u64, end_ns: u64) -> Vec<Entry> {
        let since = self.entries.range((start_ns, 0, 0)..).map(|(_, entry)| *entry);
        since.filter(|entry| entry.first_ns <= end_ns).collect()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest record's time: of the segments that end first, the one that begins first.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.entries.values().map(|entry| entry.first_ns).min()
    }
}
