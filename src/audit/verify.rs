//! The check of a log: each line's number and hash, and the signatures. Owns what is wrong and in which line; not who is told.
//!
//! A line that was changed shows in the line behind it, whose hash of it is another one. Which of the two was changed, the line behind
//! both tells. Who writes the whole chain again from some line on has right hashes, and no signature of the host's key: behind the last
//! one are no more lines than a host leaves unsigned. What was cut off at the end shows if its head is known from elsewhere (`Head`),
//! and what was removed at the beginning by the files' names and by the line that tells of each file that went.
//!
//! Invariant: nothing in a file is trusted, and its lines cost bounded memory; the first break is told, and nothing behind it counts.

use super::entry::{LINE_BYTES_MAX, NO_HASH, REMOVE, Read, SIGN, SIGN_LINES, hash, message, signature};
use super::files;
use crate::deliver::PublicKey;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// No log has as many lines.
const SEQ_MAX: u64 = 1 << 62;

/// Behind the last signature, at most: those between two of them, and as many that a power cut took the signature of.
const UNSIGNED_MAX: u64 = 2 * SIGN_LINES;

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
    #[error("there is no line of an audit log in {0}")]
    Empty(String),
    /// A head that was noted is not in it.
    #[error("line {} is not in these files, which end with line {last}: lines were cut off at the end, or a file is missing", .head.seq)]
    Missing {
        /// As it was noted.
        head: Head,
        /// The last line that is there.
        last: u64,
    },
    /// A head that was noted is older than all of it.
    #[error("line {} is not in these files, which begin with line {first}: older files were removed or not given", .head.seq)]
    Before {
        /// As it was noted.
        head: Head,
        /// The first line that is there.
        first: u64,
    },
    /// More than a host leaves unsigned.
    #[error(
        "lines {from} to {to} have no signature by this key, and a host that has it signs each {SIGN_LINES} lines: somebody else \
         wrote them, or the host has this key no more"
    )]
    Tail {
        /// The first of them.
        from: u64,
        /// The last.
        to: u64,
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
        let read: Read = serde_json::from_slice(&self.bytes)
            .map_err(|error| self.broken(format!("is no line of an audit log: {error}")))?;
        // With them no sum below overflows.
        match read.seq {
            1..=SEQ_MAX => Ok(read),
            seq => {
                Err(self
                    .broken(format!("has the number {seq}: lines are counted from 1, and none gets there")))
            }
        }
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

/// Checks all files of one log, in whatever order they are given: without its first line it must have the one that says that the file
/// before it went. `keys`: one of them must have signed each signature that there is, and there must be one. `heads`: lines that must
/// be in it.
///
/// # Errors
/// The first line that is not as it was written, or what is missing.
pub fn check_files(paths: &[PathBuf], keys: &[PublicKey], heads: &[Head]) -> Result<Checked, VerifyError> {
    let chain = check_given(paths, keys, heads)?;
    let first = chain.checked.first;
    let is_noted = heads.iter().any(|head| head.seq + 1 == first);
    if first > 1 && !chain.is_removal_told && !is_noted {
        let what = format!(
            "is the first one here, and no line says that the file with the lines before {first} went (audit.remove): somebody removed them"
        );
        return Err(chain.start.broken(what).into());
    }
    Ok(chain.checked)
}

/// As [`check_files`], and older files may be elsewhere.
///
/// # Errors
/// As [`check_files`].
pub fn check_some(paths: &[PathBuf], keys: &[PublicKey], heads: &[Head]) -> Result<Checked, VerifyError> {
    check_given(paths, keys, heads).map(|chain| chain.checked)
}

fn check_given(paths: &[PathBuf], keys: &[PublicKey], heads: &[Head]) -> Result<Chain, VerifyError> {
    let (mut sorted, mut empty) = (Vec::new(), Vec::new());
    for path in paths {
        let one = [path.clone()];
        match Lines::of(&one).next_line()? {
            Some(line) => {
                let seq = line.read()?.seq;
                if let Some(first) = files::first_of(path).filter(|first| *first != seq) {
                    let what = format!(
                        "has the number {seq}, and its file is named by line {first}: its beginning was removed, or it was renamed"
                    );
                    return Err(line.broken(what).into());
                }
                sorted.push((seq, path.clone()));
            }
            None => empty.push(path.clone()),
        }
    }
    sorted.sort();
    let sorted: Vec<_> = sorted.into_iter().map(|(_, path)| path).collect();
    let chain = check(&mut Lines::of(&sorted), keys, heads)?;
    let shown = || paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let chain = chain.ok_or_else(|| VerifyError::Empty(shown()))?;
    let Checked { first, head: Head { seq: last, .. }, signed, .. } = chain.checked;
    for path in empty {
        // Where a process died when it had made it, behind the last line. Another one had lines.
        if files::first_of(&path).is_some_and(|first| first <= last) {
            return Err(Break { path, line: 1, what: "is not there: the file was emptied".to_owned() }.into());
        }
    }
    for head in heads {
        if head.seq > last {
            return Err(VerifyError::Missing { head: head.clone(), last });
        }
        if head.seq + 1 < first {
            return Err(VerifyError::Before { head: head.clone(), first });
        }
        if head.seq + 1 == first && head.hash != chain.prev {
            let what = format!(
                "has another hash of the line before it than the head that was noted: {}",
                chain.prev
            );
            return Err(chain.start.broken(what).into());
        }
    }
    match signed {
        None if !keys.is_empty() => Err(VerifyError::Unsigned),
        Some((until, _)) if last - until > UNSIGNED_MAX => {
            Err(VerifyError::Tail { from: until + 2, to: last })
        }
        _ => Ok(chain),
    }
}

/// Lines that follow each other.
pub(super) struct Chain {
    checked: Checked,
    /// The first of them, and its hash of the line before.
    start: Line,
    prev: String,
    /// Whether one of them says that the file right before them went.
    is_removal_told: bool,
}

/// Checks lines that follow each other; none if there is no line.
pub(super) fn check(
    lines: &mut Lines<'_>,
    keys: &[PublicKey],
    heads: &[Head],
) -> Result<Option<Chain>, VerifyError> {
    let mut chain: Option<Chain> = None;
    let mut before: Option<Line> = None;
    while let Some(line) = lines.next_line()? {
        let read = line.read()?;
        let own = hash(&line.bytes);
        match (&chain, &before) {
            (Some(Chain { checked, .. }), Some(before)) => {
                follows(&line, &read, &own, (before, checked), lines)?
            }
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
        let is_signed = signed(&line, &read, keys)?;
        let chain = chain.get_or_insert_with(|| Chain::begin(&line, &read));
        chain.is_removal_told |= read.action == REMOVE
            && read.about.as_ref().and_then(|about| about.get("until")?.as_u64())
                == Some(chain.checked.first - 1);
        let count = chain.checked.signed.map_or(0, |(_, count)| count) + 1;
        chain.checked = Checked {
            host: read.host,
            first: chain.checked.first,
            head: Head { seq: read.seq, hash: own },
            signed: if is_signed { Some((read.seq - 1, count)) } else { chain.checked.signed },
            last_action: read.action,
        };
        before = Some(line);
    }
    Ok(chain)
}

impl Chain {
    /// With nothing of its first line but its number.
    fn begin(line: &Line, read: &Read) -> Self {
        let head = Head { seq: read.seq, hash: String::new() };
        let (host, last_action) = (String::new(), String::new());
        let checked = Checked { host, first: read.seq, head, signed: None, last_action };
        Self { checked, start: line.clone(), prev: read.prev.clone(), is_removal_told: false }
    }
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
