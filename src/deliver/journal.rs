//! What is kept beside a capture's segments, so that another process can finish it without any database: what was asked
//! for and counted (`.capture.json`), which objects are complete (`.journal`) and how far the next one is (`.upload`), and
//! the manifest once it is settled (`.manifest.json`). Owns these files' forms, but for the manifest's and `.upload`'s.
//!
//! Invariant: the journal grows by whole lines, each synced before the segments that it speaks of are freed; a line that
//! is cut or damaged, and all after it, was never written.

use super::checkpoint_file::CheckpointFile;
use super::line::{line, parse};
use super::manifest::Manifest;
use crate::job::{Job, ObjectInfo};
use crate::merge::Start;
use crate::pcap::{Counts, ObjectFormat, Origin};
use crate::spool::Cut;
use crate::upload::Checkpoint;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const RECORD: &str = ".capture.json";
const JOURNAL: &str = ".journal";
const MANIFEST: &str = ".manifest.json";
const COUNTS: &str = ".counts.json";
/// Room for some lines of any number of queues.
const JOURNAL_RESERVE_BYTES: u64 = 64 << 10;

/// What is known of a capture while it is in the spool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// As the job store has it, with the counts at `known_until`.
    pub job: Job,
    /// RX queues.
    pub queues: usize,
    /// Snap length of its files.
    pub snaplen: u32,
    /// Where objects are cut.
    pub object_bytes_max: u64,
    /// What they are.
    #[serde(default)]
    pub format: ObjectFormat,
    /// What those in pcapng say.
    #[serde(default)]
    pub origin: Origin,
    /// When workers began to take it up.
    pub started: Option<Timestamp>,
    /// When the last worker had let it go.
    pub ended: Option<Timestamp>,
    /// Up to when it is counted.
    pub known_until: Timestamp,
    /// Whether its counts are final: every stream had ended and everything was published.
    pub is_final: bool,
}

impl Record {
    /// Reads the record of a directory; none if it has none.
    ///
    /// # Errors
    /// When it cannot be read or is no record.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(dir.join(RECORD)) {
            Ok(json) => serde_json::from_slice(&json).map(Some).map_err(io::Error::other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Replaces a directory's record. Waits for the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        replace(dir, RECORD, &serde_json::to_vec(self).map_err(io::Error::other)?)
    }
}

/// Reads the manifest that was settled for a capture, if one was.
///
/// # Errors
/// When it cannot be read or is no manifest.
pub fn settled(dir: &Path) -> io::Result<Option<Manifest>> {
    match fs::read(dir.join(MANIFEST)) {
        Ok(json) => Manifest::parse(&json).map(Some).map_err(io::Error::other),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Settles the manifest that is to be published, unless one is: a process that died may have written the signature of the
/// first one, and what is in a bucket is not replaced. Waits for the disk.
///
/// # Errors
/// When it cannot be read or written.
pub fn settle(dir: &Path, manifest: Manifest) -> io::Result<Manifest> {
    if let Some(first) = settled(dir)? {
        return Ok(first);
    }
    replace(dir, MANIFEST, &manifest.to_json().map_err(io::Error::other)?)?;
    Ok(manifest)
}

/// The counts that the end of a capture's last pcapng object says, if they are settled.
///
/// # Errors
/// When they cannot be read.
pub fn counts(dir: &Path) -> io::Result<Option<Counts>> {
    match fs::read(dir.join(COUNTS)) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(io::Error::other),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Settles those counts, before anything that says them is made: a merge that is begun again must say the same. Waits for
/// the disk.
///
/// # Errors
/// When they cannot be written.
pub fn settle_counts(dir: &Path, counts: &Counts) -> io::Result<()> {
    replace(dir, COUNTS, &serde_json::to_vec(counts).map_err(io::Error::other)?)
}

fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = dir.join(format!("{name}.part"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// One complete object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// As it stands in the manifest.
    pub object: ObjectInfo,
    /// Where the next one begins, one place for each queue.
    pub cuts: Vec<Cut>,
    /// Whether it is the last one.
    pub is_last: bool,
}

/// The complete objects of a capture, and how far the next one is.
#[derive(Debug)]
pub struct Journal {
    file: File,
    entries: Vec<Entry>,
    under_way: CheckpointFile,
}

impl Journal {
    /// The complete objects of a directory, only read.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn read(dir: &Path) -> io::Result<Vec<Entry>> {
        Ok(read(&dir.join(JOURNAL))?.0)
    }

    /// Opens or begins a directory's journal; what is not whole at its end is cut off.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(JOURNAL);
        let (entries, whole) = read(&path)?;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.set_len(whole as u64)?;
        reserve(&file);
        file.sync_all()?;
        let under_way = CheckpointFile::open(dir)?;
        File::open(dir)?.sync_all()?;
        Ok(Self { file, entries, under_way })
    }

    /// What finds out whether the journal can be written. Waits for the disk.
    ///
    /// # Errors
    /// When the file system refuses another handle.
    pub fn probe(&self) -> io::Result<impl Fn() -> io::Result<()> + Send + use<>> {
        let file = self.file.try_clone()?;
        Ok(move || {
            let before = file.metadata()?.len();
            // Half a line: whoever reads it after a crash takes it for none.
            let written = (&file).write_all(b" ").and_then(|()| file.sync_data());
            file.set_len(before)?;
            reserve(&file);
            written
        })
    }

    /// Adds an object. Waits for the disk.
    ///
    /// # Errors
    /// When it cannot be written; the object then counts as not journalled.
    pub fn append(&mut self, entry: Entry) -> io::Result<()> {
        let line = line(&entry)?;
        let before = self.file.metadata()?.len();
        let added = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        match added {
            Ok(()) => {
                self.entries.push(entry);
                self.under_way.clear();
            }
            Err(_) => self.file.set_len(before)?,
        }
        added
    }

    /// The complete objects, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether every object is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.entries.last().is_some_and(|entry| entry.is_last)
    }

    /// What the store holds of object `number`, which is not complete.
    #[must_use]
    pub fn kept(&self, number: u32) -> Option<&Checkpoint> {
        self.under_way.of(number)
    }

    /// How far the delivery is: complete objects, and bytes of the next one. It grows, unless a store loses something.
    #[must_use]
    pub fn reached(&self) -> (usize, u64) {
        let next = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        (self.entries.len(), self.kept(next).map_or(0, Checkpoint::bytes))
    }

    /// Notes what the store holds of object `number`.
    pub fn keep(&mut self, number: u32, checkpoint: Checkpoint) {
        self.under_way.keep(number, checkpoint);
    }

    /// Forgets what a store holds of the next object: it begins anew.
    pub fn forget(&mut self) {
        self.under_way.clear();
    }

    /// Where a merge goes on.
    #[must_use]
    pub fn start(&self, queues: usize) -> Start {
        match self.entries.last() {
            None => Start::anew(queues),
            Some(last) => Start {
                object: u32::try_from(self.entries.len()).unwrap_or(u32::MAX),
                cuts: last.cuts.clone(),
            },
        }
    }
}

/// Sets blocks aside for the next lines: a full disk is freed by what is delivered, and that must be journalled first.
fn reserve(file: &File) {
    let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
    let before = file.metadata().map_or(0, |metadata| metadata.len());
    let _some_file_systems_cannot = rustix::fs::fallocate(file, flags, before, JOURNAL_RESERVE_BYTES);
}

/// The entries and the bytes that they take.
fn read(path: &Path) -> io::Result<(Vec<Entry>, usize)> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    let (mut entries, mut whole) = (Vec::new(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(entry) = parse(line) else { break };
        entries.push(entry);
        whole += line.len();
    }
    Ok((entries, whole))
}

/// Removes a directory of which everything is delivered.
///
/// # Errors
/// When the file system refuses.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_that_was_settled_first_is_the_one_that_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let id = crate::job::CaptureId::random();
        let first = crate::deliver::empty_manifest(&id);
        assert_eq!(settled(dir.path()).unwrap(), None);
        assert_eq!(settle(dir.path(), first.clone()).unwrap(), first);
        let later = Manifest { recovered: true, ..first.clone() };
        assert_eq!(settle(dir.path(), later).unwrap(), first);
    }

    #[test]
    fn a_line_that_was_cut_by_a_crash_was_never_written_and_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |n: u64| Entry {
            object: ObjectInfo {
                name: format!("{n}"),
                bytes: n,
                packets: n,
                first_ns: 1,
                last_ns: 2,
                sha256: String::new(),
                ..ObjectInfo::default()
            },
            cuts: vec![Cut { sequence: n, offset: 24 }],
            is_last: n == 2,
        };
        let mut journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.start(1), Start::anew(1));
        journal.append(entry(0)).unwrap();
        journal.append(entry(1)).unwrap();
        let path = dir.path().join(JOURNAL);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 3]).unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        assert_eq!((journal.entries(), journal.start(1).object), (&[entry(0)][..], 1));
        (journal.probe().unwrap())().unwrap();
        journal.append(entry(2)).unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!((journal.entries(), journal.is_complete()), (&[entry(0), entry(2)][..], true));
    }
}
