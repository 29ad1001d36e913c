//! Which objects of a capture are complete (`.journal`, and `.journal.copy` with the same lines), and how far the next ones are
//! (`.upload`). Owns the journal's lines and their order; what else is kept beside the segments is in `record`.
//!
//! Lines are checked one by one. A damaged line hides nothing that stands behind it, and the copy has it too. In memory
//! stands the last entry and the sums, however many objects there are.
//!
//! Invariant: the journal grows by whole lines, each synced before the segments that it speaks of are freed; a line that
//! was cut at the end was never written.

pub use super::record::{CaptureRecord, counts, remove, settle_counts, settled};

use super::checkpoint_file::CheckpointFile;
use super::line::{line, parse};
use super::manifest::object_number;
use crate::job::ObjectInfo;
use crate::merge::{Gap, Start};
use crate::spool::Cut;
use crate::upload::Checkpoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const JOURNAL: &str = ".journal";
const COPY: &str = ".journal.copy";
/// Room for some lines of any number of queues.
const JOURNAL_RESERVE_BYTES: u64 = 64 << 10;
/// Objects that may be missing between two lines: more is no gap but nonsense.
const MISSING_MAX: u32 = 1 << 20;

/// One complete object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// As it stands in the manifest.
    pub object: ObjectInfo,
    /// Where the next one begins, one place for each queue.
    pub cuts: Vec<Cut>,
    /// Whether it is the last one.
    pub is_last: bool,
    /// What was passed over and is in no object: its files are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// Sums over the complete objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets in them.
    pub packets: u64,
    /// Frame bytes in them.
    pub frame_bytes: u64,
    /// What was passed over.
    pub gaps: Vec<Gap>,
}

impl Totals {
    /// Adds an object. A damaged journal may claim any numbers: a sum stays at the largest.
    fn add(&mut self, entry: &Entry) {
        self.packets = self.packets.saturating_add(entry.object.packets);
        self.frame_bytes = self.frame_bytes.saturating_add(entry.object.frame_bytes());
        self.gaps.extend(&entry.gaps);
    }
}

/// The complete objects of a capture, and how far the next ones are.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// None while nothing is written.
    files: Option<Files>,
    /// Where the next line begins.
    end: u64,
    last: Option<(u32, Entry)>,
    totals: Totals,
    /// Objects whose lines are damaged in both files.
    missing: Vec<u32>,
    in_progress: CheckpointFile,
}

#[derive(Debug)]
struct Files {
    journal: File,
    copy: File,
}

impl Journal {
    /// The complete objects of a directory, only read.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn read(dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = BTreeMap::new();
        scan(dir, &mut |number, entry| drop(entries.insert(number, entry)))?;
        Ok(entries.into_values().collect())
    }

    /// Opens or begins a directory's journal; what is not whole at its end is cut off.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let (mut last, mut totals) = (None::<(u32, Entry)>, Totals::default());
        let scanned = scan(dir, &mut |number, entry| {
            totals.add(&entry);
            if last.as_ref().is_none_or(|(before, _)| *before < number) {
                last = Some((number, entry));
            }
        })?;
        let in_progress = CheckpointFile::open(dir)?;
        let Scanned { end, missing } = scanned;
        let mut journal = Self { dir: dir.to_owned(), files: None, end, last, totals, missing, in_progress };
        journal.files()?;
        File::open(dir)?.sync_all()?;
        Ok(journal)
    }

    /// The journal's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join(JOURNAL)
    }

    fn files(&mut self) -> io::Result<&mut Files> {
        if self.files.is_none() {
            let open =
                |name| OpenOptions::new().append(true).create(true).mode(0o600).open(self.dir.join(name));
            let (journal, copy) = (open(JOURNAL)?, open(COPY)?);
            // What a process or a disk left behind the last whole line.
            if journal.metadata()?.len() != self.end {
                journal.set_len(self.end)?;
                journal.sync_all()?;
            }
            reserve(&journal);
            self.files = Some(Files { journal, copy });
        }
        self.files.as_mut().ok_or_else(|| io::Error::other("the journal was closed"))
    }

    /// Closes the files until something is written again: a delivery that waits holds no descriptors.
    pub fn close(&mut self) {
        self.files = None;
        self.in_progress.close();
    }

    /// Opens the files, if they are not open.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn open_files(&mut self) -> io::Result<()> {
        self.files().map(drop)
    }

    /// Finds out whether the journal can be written. Waits for the disk.
    ///
    /// # Errors
    /// When it cannot.
    pub fn probe(&mut self) -> io::Result<()> {
        let end = self.end;
        let mut file = &self.files()?.journal;
        let before = file.metadata()?.len().max(end);
        // Half a line: after a crash it is read as no line.
        let written = file.write_all(b" ").and_then(|()| file.sync_data());
        file.set_len(before)?;
        reserve(file);
        written
    }

    /// Adds an object. Waits for the disk.
    ///
    /// # Errors
    /// When it cannot be written; the object then counts as not journalled.
    pub fn append(&mut self, entry: Entry) -> io::Result<()> {
        let (line, end) = (line(&entry)?, self.end);
        let files = self.files()?;
        if files.journal.metadata()?.len() != end {
            files.journal.set_len(end)?;
        }
        let added = files.journal.write_all(line.as_bytes()).and_then(|()| files.journal.sync_data());
        if let Err(error) = added {
            // The next write and the next read cut it off too.
            let _stays = files.journal.set_len(end);
            return Err(error);
        }
        if let Err(error) = files.copy.write_all(line.as_bytes()).and_then(|()| files.copy.sync_data()) {
            let path = self.dir.join(COPY);
            tracing::warn!(journal = %path.display(), %error, "the journal's copy could not be written; the journal is whole");
        }
        self.end += line.len() as u64;
        self.totals.add(&entry);
        let number = object_number(&entry.object.name).unwrap_or_else(|| self.next());
        self.last = Some((number, entry));
        self.in_progress.complete(number);
        Ok(())
    }

    /// The number of the next object.
    #[must_use]
    pub fn next(&self) -> u32 {
        self.last.as_ref().map_or(0, |(number, _)| number.saturating_add(1))
    }

    /// Sums over the complete objects.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Objects that are complete and of which nothing more is known: their lines are damaged.
    #[must_use]
    pub fn missing(&self) -> &[u32] {
        &self.missing
    }

    /// Whether every object is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.last.as_ref().is_some_and(|(_, entry)| entry.is_last)
    }

    /// What the store holds of object `number`, which is not complete.
    #[must_use]
    pub fn kept(&self, number: u32) -> Option<&Checkpoint> {
        self.in_progress.of(number)
    }

    /// What the store holds of each object that is not complete.
    #[must_use]
    pub fn all_kept(&self) -> BTreeMap<u32, Checkpoint> {
        self.in_progress.all()
    }

    /// How far the delivery is: complete objects, and bytes of the next one. It grows, unless a store loses something.
    #[must_use]
    pub fn reached(&self) -> (u32, u64) {
        (self.next(), self.kept(self.next()).map_or(0, Checkpoint::bytes))
    }

    /// Notes what the store holds of object `number`. Waits for the disk.
    pub fn keep(&mut self, number: u32, checkpoint: Checkpoint) {
        self.in_progress.keep(number, checkpoint);
    }

    /// Forgets what a store holds of object `number`, which then begins again. Waits for the disk.
    pub fn forget(&mut self, number: u32) {
        self.in_progress.forget(number);
    }

    /// Where a merge goes on.
    #[must_use]
    pub fn start(&self, queues: usize) -> Start {
        match &self.last {
            None => Start::fresh(queues),
            Some((_, last)) => Start { object: self.next(), cuts: last.cuts.clone() },
        }
    }
}

/// The complete objects of a directory, in order: what a manifest names.
///
/// # Errors
/// When the file system refuses.
pub fn objects(dir: &Path) -> io::Result<Vec<ObjectInfo>> {
    let mut objects = BTreeMap::new();
    scan(dir, &mut |number, entry| drop(objects.insert(number, entry.object)))?;
    Ok(objects.into_values().collect())
}

/// Sets blocks aside for the next lines: a full disk is freed by what is delivered, and that must be journalled first.
fn reserve(file: &File) {
    let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
    let before = file.metadata().map_or(0, |metadata| metadata.len());
    let _some_file_systems_cannot = rustix::fs::fallocate(file, flags, before, JOURNAL_RESERVE_BYTES);
}

/// What both files say.
#[derive(Debug, Default)]
struct Scanned {
    /// End of the journal's last whole line.
    end: u64,
    /// Objects before the last one that neither file has.
    missing: Vec<u32>,
}

/// Tells `each` of every object that is named in the journal or, if the journal is damaged, in its copy; those from the copy
/// come last.
fn scan(dir: &Path, each: &mut dyn FnMut(u32, Entry)) -> io::Result<Scanned> {
    let (mut missing, mut next) = (Vec::new(), 0);
    let journal = dir.join(JOURNAL);
    let mut note = |number: u32, entry, each: &mut dyn FnMut(u32, Entry)| {
        if number < next || number - next > MISSING_MAX {
            return;
        }
        missing.extend(next..number);
        next = number + 1;
        each(number, entry);
    };
    let read = lines(&journal, &mut |number, entry| note(number, entry, each))?;
    let copy = dir.join(COPY);
    let in_copy = match std::fs::metadata(&copy) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    if read.damaged.is_empty() && missing.is_empty() && in_copy <= read.end {
        return Ok(Scanned { end: read.end, missing });
    }
    let before = next;
    lines(&copy, &mut |number, entry| {
        if let Some(at) = missing.iter().position(|missing| *missing == number) {
            missing.swap_remove(at);
            each(number, entry);
        } else if number >= next && number - next <= MISSING_MAX {
            missing.extend(next..number);
            next = number + 1;
            each(number, entry);
        }
    })?;
    missing.sort_unstable();
    let journal = journal.display();
    tracing::error!(
        %journal, lines = ?read.damaged, missing_objects = ?missing, behind_the_journal = next - before,
        "the journal is damaged; what its whole lines and its copy say holds"
    );
    Ok(Scanned { end: read.end, missing })
}

#[derive(Debug, Default)]
struct Lines {
    /// End of the last whole line.
    end: u64,
    /// Numbers of the damaged lines, from 1.
    damaged: Vec<usize>,
}

/// Reads one file line by line.
fn lines(path: &Path, each: &mut dyn FnMut(u32, Entry)) -> io::Result<Lines> {
    let failed = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Lines::default()),
        Err(e) => return Err(failed(e)),
    };
    let (mut read, mut bytes, mut buffer, mut expected) = (Lines::default(), 0, Vec::new(), 0);
    for number in 1.. {
        buffer.clear();
        let len = reader.read_until(b'\n', &mut buffer).map_err(failed)?;
        if len == 0 || !buffer.ends_with(b"\n") {
            break;
        }
        bytes += len as u64;
        match parse::<Entry>(&buffer) {
            Some(entry) => {
                let object = object_number(&entry.object.name).unwrap_or(expected);
                expected = object.saturating_add(1);
                read.end = bytes;
                each(object, entry);
            }
            None => {
                read.damaged.push(number);
                expected = expected.saturating_add(1);
            }
        }
    }
    Ok(read)
}

#[cfg(test)]
#[cfg(not(miri))]
#[path = "journal_tests.rs"]
mod tests;
