//! The log's files. Owns their names, what a dead process left at the end of the last one, and how much of the disk they take.
//!
//! A file is named by the number of its first line, `audit-000000000001.jsonl`, and the newest is the one that grows. Its end is set
//! aside on the disk before it is written, so that a full disk is met while there is still room for a hundred lines.
//!
//! Invariant: what was made durable is never written again; what follows it is cut off and written again whole. Nothing is written into
//! a file that is not found under its name any more, or that somebody else has cut.

use super::entry::{End, hash};
use super::noted::{self, Noted};
use super::verify::{Lines, check};
use super::{AuditConfig, Break, VerifyError};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
/// What is set aside behind the end.
const RESERVE_BYTES: u64 = 64 << 10;

/// Of one read.
const PIECE_BYTES: usize = 64 << 10;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The directory or a file in it.
    #[error("audit.dir: cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Two processes cannot write one chain.
    #[error("audit.dir: {} is in use by another process; end that one, or name a directory of its own", .0.display())]
    InUse(PathBuf),
    /// No thread.
    #[error("audit.dir: there is no thread for the audit log: {0}")]
    Thread(io::Error),
}

/// What the last process left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Bytes of a line that was never whole.
    pub torn_bytes: u64,
    /// Where the last file breaks its own chain.
    pub broken: Option<String>,
    /// Why it is not the log whose last line was noted.
    pub missing: Option<String>,
}

/// A file that must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Going {
    pub file: String,
    pub bytes: u64,
    /// Its last line.
    pub until: u64,
}

/// See the module.
pub(super) struct Files {
    config: AuditConfig,
    /// Held for as long as this process writes here.
    _lock: File,
    noted: Option<Noted>,
    file: File,
    path: PathBuf,
    /// What of the file is durable.
    bytes: u64,
    reserved: u64,
    /// The others, oldest first, with their sizes.
    older: Vec<(PathBuf, u64)>,
}

/// The name of the file whose first line has that number.
pub(super) fn name(seq: u64) -> String {
    format!("{PREFIX}{seq:012}{SUFFIX}")
}

/// The number of the first line of a file, by its name.
pub(super) fn first_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten()
}

/// The files of a directory, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if let Some(first) = first_of(&path) {
            let bytes = fs::metadata(&path)?.len();
            files.push((first, path, bytes));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path, bytes)| (path, bytes)).collect())
}

impl Files {
    /// Opens or begins the log of a directory. Waits for the disk.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process uses it.
    pub fn open(config: AuditConfig) -> Result<(Self, End, Left), AuditError> {
        let dir = config.dir.clone();
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| AuditError::File { action, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed("create", &dir))?;
        let lock = File::open(&dir).map_err(failed("open", &dir))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| AuditError::InUse(dir.clone()))?;
        let mut older = list(&dir).map_err(failed("read", &dir))?;
        let (mut end, mut left, mut newest) = (End::none(), Left::default(), None);
        while newest.is_none()
            && let Some((path, bytes)) = older.pop()
        {
            let (found, whole) = end_of(&path).map_err(failed("read", &path))?;
            left.torn_bytes += bytes - whole;
            match found {
                Some((found, broken)) => {
                    (end, left.broken) = (found, broken);
                    newest = Some((path, whole));
                }
                // Nothing in it is a line: the process died when it had made it.
                None => fs::remove_file(&path).map_err(failed("remove", &path))?,
            }
        }
        let (path, bytes) = newest.unwrap_or_else(|| (dir.join(name(1)), 0));
        let file = create(&path).map_err(failed("open", &path))?;
        let mut files =
            Self { config, _lock: lock, noted: None, file, path: path.clone(), bytes, reserved: 0, older };
        files.cut().map_err(failed("write", &path))?;
        if let Some(path) = files.config.head_file.clone() {
            left.missing = files.compare(&path, &end).map_err(failed("use", &path))?;
        }
        Ok((files, end, left))
    }

    /// Why these are not the files whose last line was noted there, if they are not.
    fn compare(&mut self, path: &Path, end: &End) -> io::Result<Option<String>> {
        let (noted, head) = Noted::open(path)?;
        self.noted = Some(noted);
        let paths: Vec<_> = self.older.iter().map(|(path, _)| path).chain([&self.path]).cloned().collect();
        match head {
            Some(Ok(head)) => noted::lacks(&head, end, &paths),
            Some(Err(none)) => Ok(Some(none)),
            None if end.seq > 1 => Ok(Some(format!("no line of it was noted in {}", path.display()))),
            None => Ok(None),
        }
    }

    /// Notes the last line outside of the directory.
    ///
    /// # Errors
    /// When that file cannot be written.
    pub fn note(&self, end: &End) -> io::Result<()> {
        self.noted.as_ref().map_or(Ok(()), |noted| noted.note(end))
    }

    /// Whether the file that grows is still found under its name, and whole: otherwise lines would go where nobody finds them.
    ///
    /// # Errors
    /// What happened to it.
    pub fn is_there(&self) -> io::Result<()> {
        let (own, path) = (self.file.metadata()?, self.path.display());
        let advice = "put it back, or restart trawl, which goes on behind what is there and tells of it";
        let is_same = |named: &fs::Metadata| (named.dev(), named.ino()) == (own.dev(), own.ino());
        match fs::metadata(&self.path) {
            Ok(named) if is_same(&named) && own.len() >= self.bytes => Ok(()),
            Ok(named) if is_same(&named) => Err(io::Error::other(format!(
                "{path} has {} bytes, and {} were written: somebody cut it; {advice}",
                own.len(),
                self.bytes
            ))),
            Ok(_) => Err(io::Error::other(format!(
                "{path} is another file than the one that was written; {advice}"
            ))),
            Err(error) => Err(io::Error::other(format!("{path} is not there any more ({error}); {advice}"))),
        }
    }

    /// Everything behind what is durable goes.
    fn cut(&self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.bytes {
            self.file.set_len(self.bytes)?;
            self.file.sync_all()?;
        }
        Ok(())
    }

    /// Adds whole lines. Waits for the disk.
    ///
    /// # Errors
    /// When they are not durable; then none of them is there.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.is_there()?;
        // What an earlier attempt left: after a sync that failed nobody knows what of it is on the disk.
        self.cut()?;
        let end = self.bytes + lines.len() as u64;
        if end > self.reserved {
            let (flags, more) = (FallocateFlags::KEEP_SIZE, lines.len() as u64 + RESERVE_BYTES);
            let _some_file_systems_cannot = fallocate(&self.file, flags, self.bytes, more);
            self.reserved = end + RESERVE_BYTES / 2;
        }
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.reserved = 0;
            // The next attempt and the next start cut it off too.
            let _stays = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes = end;
        Ok(())
    }

    /// Whether so many bytes more belong into the next file.
    pub fn is_full(&self, more: usize) -> bool {
        self.bytes > 0 && self.bytes + more as u64 > self.config.file_bytes
    }

    /// Begins the next file, whose first line has that number. Waits for the disk.
    ///
    /// # Errors
    /// When there can be none; then the last one goes on.
    pub fn next(&mut self, seq: u64) -> io::Result<()> {
        self.is_there()?;
        let path = self.config.dir.join(name(seq));
        let file = create(&path)?;
        let made = file.set_len(0).and_then(|()| File::open(&self.config.dir)?.sync_all());
        if let Err(error) = made {
            // An empty file among others would look like one that somebody emptied.
            let _stays_for_the_next_try = fs::remove_file(&path);
            return Err(error);
        }
        // What was set aside behind the old one's end.
        let _kept_otherwise = self.file.set_len(self.bytes);
        self.older.push((std::mem::replace(&mut self.path, path), self.bytes));
        (self.file, self.bytes, self.reserved) = (file, 0, 0);
        Ok(())
    }

    /// The oldest files, as far as all of them are too large with another full one.
    pub fn going(&self) -> Vec<Going> {
        let mut older: u64 = self.older.iter().map(|(_, bytes)| bytes).sum();
        let mut going = Vec::new();
        for (n, (path, bytes)) in self.older.iter().enumerate() {
            if older + self.config.file_bytes <= self.config.bytes_max {
                break;
            }
            older -= bytes;
            let next = self.older.get(n + 1).map_or(&self.path, |(path, _)| path);
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let until = first_of(next).unwrap_or(1).saturating_sub(1);
            going.push(Going { file, bytes: *bytes, until });
        }
        going
    }

    /// Removes the oldest file. Its name.
    ///
    /// # Errors
    /// When it cannot be removed; it stays the oldest.
    pub fn remove_oldest(&mut self) -> io::Result<Option<PathBuf>> {
        let Some((path, _)) = self.older.first() else { return Ok(None) };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Some(self.older.remove(0).0)),
        }
    }

    /// Takes another file in the place of the one that grows, whose turn it is again with the answer.
    #[cfg(test)]
    pub fn exchange(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    /// Of all files.
    pub fn total_bytes(&self) -> u64 {
        self.bytes + self.older.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// What a file ends with, and where it breaks its own chain, if it has a line; and the bytes of its whole lines.
type Found = (Option<(End, Option<String>)>, u64);

fn end_of(path: &Path) -> io::Result<Found> {
    let mut file = File::open(path)?;
    // The last whole line begins and ends there.
    let (mut at, mut lines, mut last) = (0, 0, (0, 0));
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        for (offset, _) in piece[..read].iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            lines += 1;
            last = (last.1, at + offset as u64 + 1);
        }
        at += read as u64;
    }
    if lines == 0 {
        return Ok((None, 0));
    }
    let mut line = vec![0; (last.1 - last.0) as usize];
    file.read_exact_at(&mut line, last.0)?;
    let broken = match check(&mut Lines::of(&[path.to_owned()]), &[], &[]) {
        // A torn end is no break here: it is cut off.
        Err(VerifyError::Break(broken)) if broken.line <= lines => Some(broken.to_string()),
        _ => None,
    };
    let seq = Break::seq_of(&line).unwrap_or_else(|| first_of(path).unwrap_or(1) + lines as u64 - 1);
    Ok((Some((End { seq: seq.saturating_add(1), prev: hash(&line) }, broken)), last.1))
}
