//! The ring: a directory of segments whose names tell their content. Owns the names, the index and the order of deletion.
//!
//! The wall clock may be stepped while the ring lives, so stamps do not say which segment is older. A segment is given the
//! next number when it is taken in, and the lowest number goes first. Its age runs by the monotonic clock from then
//! on; the wall clock is read once, for the segments of an earlier process.
//!
//! Invariant: the index has exactly the files of the directory that bear a name of the ring, one that could not be deleted
//! included.

use crate::spool::{Files, whole_records, whole_records_of_open};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Begins the names of directories of recordings that are not wholly in the ring.
pub(super) const OPEN_PREFIX: &str = ".open-";
/// Begins the names of files that are being copied into the ring.
pub(super) const PART_PREFIX: &str = ".part-";
/// Deletions that may fail in one go before the rest waits for the next.
const FAILURES_MAX: usize = 8;
/// The most by which a segment is taken for older than the moment at which it is taken in: it was just published.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// By the wall clock, ns since the UNIX epoch.
    pub wall_ns: u64,
    /// By the clock that is never stepped.
    pub steady: Instant,
}

impl Now {
    pub fn get() -> Self {
        Self { wall_ns: super::now_ns(), steady: Instant::now() }
    }
}

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
    /// Its place in the order in which segments were taken in; zero for one that a version before this order wrote.
    pub number: u64,
    /// Size of the file.
    pub bytes: u64,
}

impl Entry {
    /// Its file's name.
    #[must_use]
    pub fn name(&self) -> String {
        let Self { first_ns, last_ns, queue, one_in, number, .. } = self;
        let number = if *number == 0 { String::new() } else { format!("-i{number}") };
        format!("{first_ns:020}-{last_ns:020}-q{queue:03}-n{one_in}{number}.pcap")
    }

    /// Parses a file's name; none if it is not of the ring.
    #[must_use]
    pub fn parse(name: &str, bytes: u64) -> Option<Self> {
        let mut parts = name.strip_suffix(".pcap")?.split('-');
        let mut part = |prefix: &str| parts.next()?.strip_prefix(prefix);
        let (first_ns, last_ns) = (part("")?.parse().ok()?, part("")?.parse().ok()?);
        let (queue, one_in) = (part("q")?.parse().ok()?, part("n")?.parse().ok()?);
        let number = part("i").map_or(Ok(0), str::parse).ok()?;
        let entry = Self { first_ns, last_ns, queue, one_in, number, bytes };
        // The next one's number is one more.
        (entry.name() == name && number < u64::MAX / 2).then_some(entry)
    }

    fn key(&self) -> Key {
        (self.number, self.last_ns, self.first_ns, self.queue)
    }
}

/// Order of deletion. Without a number the last record's time decides.
type Key = (u64, u64, u64, u16);

#[derive(Clone, Copy, Debug)]
struct Held {
    entry: Entry,
    /// When it is too old, by the steady clock; none: it already is.
    expires: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    dir: PathBuf,
    bytes_max: u64,
    keep: Duration,
    files: Files,
    entries: BTreeMap<Key, Held>,
    /// The same segments in the order in which they become too old.
    by_expiry: BTreeSet<(Option<Instant>, Key)>,
    bytes: u64,
    last_number: u64,
    /// From when on no segment was deleted, ns since the UNIX epoch; none as long as nothing was recorded.
    since_ns: Option<u64>,
    /// Files that could not be deleted, so that each is logged once.
    undeleted: BTreeSet<Key>,
}

impl Ring {
    /// Reads the directory, takes in what recordings of a dead process published and the whole records of what they were
    /// writing, and trims. A failure is logged, and its files stay for the next start.
    pub fn open(
        dir: &Path,
        bytes_max: u64,
        keep: Duration,
        one_in: u32,
        files: Files,
        now: Now,
    ) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut ring = Self {
            dir: dir.to_owned(),
            bytes_max,
            keep,
            files,
            entries: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            bytes: 0,
            last_number: 0,
            since_ns: None,
            undeleted: BTreeSet::new(),
        };
        let mut left = Vec::new();
        for found in fs::read_dir(&ring.dir)? {
            let found = found?;
            let (path, name) = (found.path(), found.file_name().to_string_lossy().into_owned());
            if name.starts_with(OPEN_PREFIX) {
                left.push(path);
            } else if name.starts_with(PART_PREFIX) {
                if let Err(error) = ring.files.remove(&path) {
                    tracing::error!(path = %path.display(), %error, "half a segment of the history stays");
                }
            } else if let Some(entry) = found.metadata().ok().and_then(|meta| Entry::parse(&name, meta.len()))
            {
                ring.note(entry, now, Duration::MAX);
            } else {
                tracing::warn!(path = %path.display(), "this is no file of the history; it is left alone");
            }
        }
        left.sort();
        for open in left {
            if let Err(error) = ring.salvage(&open, one_in, now) {
                tracing::error!(path = %open.display(), %error, "an ended recording's directory cannot be read; it stays");
            }
        }
        ring.since_ns = ring.oldest_ns();
        ring.trim(now);
        Ok(ring)
    }

    /// Takes in what a recording left behind, and removes its directory if nothing stays in it.
    fn salvage(&mut self, open: &Path, one_in: u32, now: Now) -> io::Result<()> {
        let mut stays = false;
        for found in fs::read_dir(open)? {
            let path = found?.path();
            if let Err(error) = self.salvage_file(&path, one_in, now) {
                stays = true;
                tracing::error!(path = %path.display(), %error, "a segment could not be taken into the history");
            }
        }
        if !stays && let Err(error) = fs::remove_dir_all(open) {
            tracing::error!(path = %open.display(), %error, "an ended recording's directory stays");
        }
        if let Err(error) = self.files.sync_dir_of(open) {
            tracing::warn!(dir = %self.dir.display(), %error, "the history's names may not be durable yet");
        }
        Ok(())
    }

    fn salvage_file(&mut self, path: &Path, one_in: u32, now: Now) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let queue = name.trim_start_matches('.').strip_prefix('q').and_then(|q| q.get(..3)?.parse().ok());
        let Some(queue) = queue else { return Ok(()) };
        let file = self.files.open(OpenOptions::new().read(true).write(true), path)?;
        let whole = match name.starts_with('.') {
            false => Some(whole_records(&file, file.metadata()?.len())?),
            // A file may be longer than its contents, with stale bytes at its end.
            true if name.ends_with(".open") => whole_records_of_open(path)?,
            true => return Ok(()),
        };
        let Some(whole) = whole else {
            // The ring is bounded, so a file without known content does not stay.
            tracing::warn!(path = %path.display(), "nothing says how much of a segment is whole; it is removed");
            return Ok(());
        };
        if whole.packets == 0 {
            return Ok(());
        }
        self.files.truncate(&file, path, whole.bytes)?;
        self.files.sync(&file, path)?;
        let (first_ns, last_ns, number) = (whole.first_ns, whole.last_ns, self.next_number());
        let entry = Entry { first_ns, last_ns, queue, one_in, number, bytes: whole.bytes };
        self.files.rename(path, &self.dir.join(entry.name()))?;
        self.note(entry, now, Duration::MAX);
        Ok(())
    }

    /// The number of the next segment that is taken in.
    pub fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Notes a file of a recording that goes on; it is in the directory.
    pub fn insert(&mut self, entry: Entry, now: Now) {
        self.note(entry, now, TAKEN_WITHIN);
    }

    /// Notes a file that is in the directory. By the wall clock it is at most `age_max` old.
    fn note(&mut self, entry: Entry, now: Now, age_max: Duration) {
        let age = Duration::from_nanos(now.wall_ns.saturating_sub(entry.last_ns)).min(age_max);
        let expires = self.keep.checked_sub(age).and_then(|left| now.steady.checked_add(left));
        self.bytes += entry.bytes;
        self.last_number = self.last_number.max(entry.number);
        // A file that was renamed while the directory was walked may be met again; the name is the same file.
        if let Some(replaced) = self.entries.insert(entry.key(), Held { entry, expires }) {
            self.bytes -= replaced.entry.bytes;
            self.by_expiry.remove(&(replaced.expires, entry.key()));
        }
        self.by_expiry.insert((expires, entry.key()));
    }

    /// Deletes what is too old, and of the rest the oldest until it is not too much. What cannot be deleted stays in the index
    /// and is tried again the next time.
    pub fn trim(&mut self, now: Now) {
        let is_old = |expires: &Option<Instant>| expires.is_none_or(|expires| expires < now.steady);
        let old: Vec<Key> =
            self.by_expiry.iter().take_while(|(expires, _)| is_old(expires)).map(|(_, key)| *key).collect();
        let (mut failures, mut after) = (0, None);
        for key in old {
            if failures == FAILURES_MAX {
                return;
            }
            failures += usize::from(!self.delete(key, now));
        }
        while self.bytes > self.bytes_max && failures < FAILURES_MAX {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let Some((&key, _)) = self.entries.range((from, Bound::Unbounded)).next() else { break };
            after = Some(key);
            failures += usize::from(!self.delete(key, now));
        }
    }

    /// Whether the segment is gone.
    fn delete(&mut self, key: Key, now: Now) -> bool {
        let Some(Held { entry, expires }) = self.entries.get(&key).copied() else { return true };
        let path = self.dir.join(entry.name());
        if let Err(error) = self.files.remove(&path) {
            if self.undeleted.insert(key) {
                let path = path.display();
                tracing::error!(%path, %error, "a segment of the history cannot be deleted; it is tried again");
            }
            return false;
        }
        self.entries.remove(&key);
        self.by_expiry.remove(&(expires, key));
        self.undeleted.remove(&key);
        self.bytes -= entry.bytes;
        // A stamp from before the clock was set back says nothing of the time since.
        if entry.last_ns <= now.wall_ns {
            self.since_ns = self.since_ns.map(|since| since.max(entry.last_ns + 1));
        }
        true
    }

    /// As [`Ring::trim`] with this size, once.
    #[cfg(test)]
    pub fn trim_to(&mut self, bytes_max: u64, now: Now) {
        let usual = std::mem::replace(&mut self.bytes_max, bytes_max);
        self.trim(now);
        self.bytes_max = usual;
    }

    /// The segments that may have records of this time window.
    pub fn between(&self, start_ns: u64, end_ns: u64) -> Vec<Entry> {
        let entries = self.entries.values().map(|held| held.entry);
        entries.filter(|entry| entry.last_ns >= start_ns && entry.first_ns <= end_ns).collect()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A recording began then.
    pub fn begin(&mut self, began_ns: u64) {
        self.since_ns.get_or_insert(began_ns);
    }

    /// From when on no segment was deleted.
    pub fn since_ns(&self) -> Option<u64> {
        self.since_ns
    }

    /// The newest record's time.
    pub fn newest_ns(&self) -> Option<u64> {
        self.entries.values().map(|held| held.entry.last_ns).max()
    }

    /// The oldest record's time.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.entries.values().map(|held| held.entry.first_ns).min()
    }
}
