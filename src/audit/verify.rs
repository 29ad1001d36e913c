//! The check of a log: each line's number and hash, and the signatures. Owns what is wrong and in which line; not who is told.
//!
//! A line that was changed shows in the line behind it, whose hash of it is another one. Which of the two was changed, the line behind
//! both tells. Who writes the whole chain again from some line on has right hashes, and no signature of the host's key. What was
//! cut off at the end shows if its signature or its head is known from elsewhere (`Head`).
//!
//! Invariant: nothing in a file is trusted, and its lines cost bounded memory; the first break is told, and nothing behind it counts.

use super::entry::{LINE_BYTES_MAX, NO_HASH, Read, SIGN, hash, message, signature};
use super::files;
use crate::deliver::PublicKey;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A line and its hash, as somebody noted them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Of its bytes with the line feed.
    pub hash: String,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(seq, hash)| Some((seq.parse().ok()?, hash)));
        let is_hash = |hash: &str| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        match parts {
            Some((seq, hash)) if is_hash(hash) => Ok(Self { seq, hash: hash.to_ascii_lowercase() }),
            _ => Err("write NUMBER:SHA256, as `trawl audit verify` prints a head".to_owned()),
        }
    }
}

/// Where a log is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("{}, line {line}: {what}", path.display())]
pub struct Break {
    /// The file.
    pub path: PathBuf,
    /// The line in it, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl Break {
    /// The number that a line says it has.
    pub(super) fn seq_of(line: &[u8]) -> Option<u64> {
        serde_json::from_slice::<Read>(line).ok().map(|read| read.seq)
    }
}

/// Why a log is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line.
    #[error(transparent)]
    Break(#[from] Break),
    /// There is nothing to check.
    #[error("there is no line in {}", .0.display())]
    Empty(PathBuf),
    /// A head that was noted is not in it.
    #[error("line {} is not in these files, which end with line {last}: lines were cut off at the end, or a file is missing", .head.seq)]
    Missing {
        /// As it was noted.
        head: Head,
        /// The last line that is there.
        last: u64,
    },
    /// Nothing vouches for it.
    #[error("no line is signed by this key: somebody who can write the files can have written all of it")]
    Unsigned,
}

/// A log that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The host that wrote its last line.
    pub host: String,
    /// Its first line.
    pub first: u64,
    /// Its last line.
    pub head: Head,
    /// The last line that a signature vouches for, and how many signatures are right.
    pub signed: Option<(u64, usize)>,
    /// What the last line tells of.
    pub last_action: String,
}

/// A line as it stands in a file.
#[derive(Clone)]
pub(super) struct Line {
    pub path: PathBuf,
    /// From 1.
    pub number: usize,
    /// With the line feed.
    pub bytes: Vec<u8>,
}

impl Line {
    pub fn is_whole(&self) -> bool {
        self.bytes.ends_with(b"\n")
    }

    fn broken(&self, what: impl Into<String>) -> Break {
        Break { path: self.path.clone(), line: self.number, what: what.into() }
    }

    /// What stands in it.
    fn read(&self) -> Result<Read, Break> {
        if !self.is_whole() {
            let what = "is cut off: its process died while it wrote it, or somebody cut the file";
            return Err(self.broken(what));
        }
        serde_json::from_slice(&self.bytes)
            .map_err(|error| self.broken(format!("is no line of an audit log: {error}")))
    }
}

/// The lines of files, one after the other.
pub(super) struct Lines<'a> {
    paths: std::slice::Iter<'a, PathBuf>,
    open: Option<(PathBuf, BufReader<File>, usize)>,
    peeked: VecDeque<Line>,
}

impl<'a> Lines<'a> {
    pub fn of(paths: &'a [PathBuf]) -> Self {
        Self { paths: paths.iter(), open: None, peeked: VecDeque::new() }
    }

    pub fn next_line(&mut self) -> Result<Option<Line>, VerifyError> {
        match self.peeked.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.read(),
        }
    }

    /// The line behind the last one, if it can be read.
    fn peek(&mut self) -> Option<&Line> {
        if self.peeked.is_empty() {
            let line = self.read().ok().flatten()?;
            self.peeked.push_back(line);
        }
        self.peeked.front()
    }

    fn read(&mut self) -> Result<Option<Line>, VerifyError> {
        loop {
            if self.open.is_none() {
                let Some(path) = self.paths.next() else { return Ok(None) };
                let file =
                    File::open(path).map_err(|source| VerifyError::Read { path: path.clone(), source })?;
                self.open = Some((path.clone(), BufReader::new(file), 0));
            }
            let Some((path, reader, number)) = &mut self.open else { continue };
            *number += 1;
            let mut bytes = Vec::new();
            // A line that never ends is none of ours, and memory.
            let mut bounded = reader.by_ref().take(LINE_BYTES_MAX as u64 + 1);
            let read = bounded.read_until(b'\n', &mut bytes);
            read.map_err(|source| VerifyError::Read { path: path.clone(), source })?;
            if bytes.is_empty() {
                self.open = None;
                continue;
            }
            let line = Line { path: path.clone(), number: *number, bytes };
            if line.bytes.len() > LINE_BYTES_MAX {
                return Err(line.broken("is longer than any line of an audit log").into());
            }
            return Ok(Some(line));
        }
    }
}

/// The files that a path names: itself, or all of a log's directory.
///
/// # Errors
/// When a directory cannot be read.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>, VerifyError> {
    let failed = |source| VerifyError::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    Ok(files::list(path).map_err(failed)?.into_iter().map(|(path, _)| path).collect())
}

/// Checks files of one log, in whatever order they are given. `keys`: one of them must have signed each signature that there is, and
/// there must be one. `heads`: lines that must be in it.
///
/// # Errors
/// The first line that is not as it was written, or what is missing.
pub fn check_files(paths: &[PathBuf], keys: &[PublicKey], heads: &[Head]) -> Result<Checked, VerifyError> {
    let mut sorted = Vec::new();
    for path in paths {
        let one = [path.clone()];
        // An empty file is where a process died when it had made it.
        if let Some(line) = Lines::of(&one).next_line()? {
            sorted.push((line.read()?.seq, path.clone()));
        }
    }
    sorted.sort();
    let sorted: Vec<_> = sorted.into_iter().map(|(_, path)| path).collect();
    let checked = check(&mut Lines::of(&sorted), keys, heads)?;
    let checked = checked.ok_or_else(|| VerifyError::Empty(paths.first().cloned().unwrap_or_default()))?;
    match heads.iter().find(|head| head.seq > checked.head.seq) {
        Some(head) => Err(VerifyError::Missing { head: head.clone(), last: checked.head.seq }),
        None if !keys.is_empty() && checked.signed.is_none() => Err(VerifyError::Unsigned),
        None => Ok(checked),
    }
}

/// Checks lines that follow each other; none if there is no line.
pub(super) fn check(
    lines: &mut Lines<'_>,
    keys: &[PublicKey],
    heads: &[Head],
) -> Result<Option<Checked>, VerifyError> {
    let mut checked: Option<Checked> = None;
    let mut before: Option<Line> = None;
    while let Some(line) = lines.next_line()? {
        let read = line.read()?;
        let own = hash(&line.bytes);
        match (&checked, &before) {
            (Some(checked), Some(before)) => follows(&line, &read, &own, (before, checked), lines)?,
            _ if read.seq == 1 && read.prev != NO_HASH => {
                return Err(line.broken("is the first of all, and names a line before it").into());
            }
            _ => {}
        }
        if let Some(head) = heads.iter().find(|head| head.seq == read.seq)
            && head.hash != own
        {
            let what = format!("has another hash than the head that was noted: {own}");
            return Err(line.broken(what).into());
        }
        let signed = signed(&line, &read, keys)?;
        let (first, so_far) = checked.map_or((read.seq, None), |checked| (checked.first, checked.signed));
        let count = so_far.map_or(0, |(_, count)| count) + 1;
        checked = Some(Checked {
            host: read.host,
            first,
            head: Head { seq: read.seq, hash: own },
            signed: if signed { Some((read.seq - 1, count)) } else { so_far },
            last_action: read.action,
        });
        before = Some(line);
    }
    Ok(checked)
}

/// Holds a line against the one before it.
fn follows(
    line: &Line,
    read: &Read,
    own: &str,
    (before, checked): (&Line, &Checked),
    lines: &mut Lines<'_>,
) -> Result<(), Break> {
    let expected = checked.head.seq + 1;
    if read.seq != expected {
        let what = format!(
            "has the number {}, and line {expected} must stand here: lines were removed, added or moved",
            read.seq
        );
        return Err(line.broken(what));
    }
    if read.prev == checked.head.hash {
        return Ok(());
    }
    // Whether the line behind both has the hash of this one: then this one is as it was written.
    let behind = lines.peek().and_then(|behind| serde_json::from_slice::<Read>(&behind.bytes).ok());
    let is_changed = |who: &Line, seq| who.broken(format!("number {seq} was changed after it was written"));
    Err(match behind {
        Some(behind) if behind.prev == own => is_changed(before, checked.head.seq),
        Some(_) => is_changed(line, read.seq),
        None => line.broken(format!(
            "number {} has another hash of the line before it: one of the two was changed after it was written",
            read.seq
        )),
    })
}

/// Whether a line is a signature by one of the keys. Without keys none is looked at.
fn signed(line: &Line, read: &Read, keys: &[PublicKey]) -> Result<bool, Break> {
    if read.action != SIGN || keys.is_empty() {
        return Ok(false);
    }
    let text = message(&read.host, read.seq, &read.prev);
    let signature = signature(read.about.as_ref()).unwrap_or_default();
    if keys.iter().any(|key| key.verifies(text.as_bytes(), &signature)) {
        return Ok(true);
    }
    let what = "holds no signature by this key of the lines before it: they were written by somebody else, or the host had another key";
    Err(line.broken(what))
}
