//! The last line's number and hash, noted outside of the log's directory: a log that was cut, emptied or removed while no process ran
//! shows by it. Owns that file, and whether a log has the line; not what is told of it.
//!
//! It is written after its line is durable, and not made durable itself: after a power cut it names an earlier line, which is there too.
//!
//! Invariant: a line that is noted was durable before.

use super::Head;
use super::entry::{End, hash};
use super::files::first_of;
use super::verify::Lines;
use super::{Break, VerifyError};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// More than a head has.
const HEAD_BYTES_MAX: u64 = 256;

/// See the module.
pub(super) struct Noted(File);

impl Noted {
    /// Opens or makes the file, and reads what is noted there; an error in words if that is no head.
    ///
    /// # Errors
    /// When there can be no such file.
    pub fn open(path: &Path) -> io::Result<(Self, Option<Result<Head, String>>)> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        (&file).take(HEAD_BYTES_MAX).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        let head = (!text.is_empty()).then(|| {
            text.parse().map_err(|_| format!("what is noted in {} is no head of a log", path.display()))
        });
        Ok((Self(file), head))
    }

    /// Notes the line before this end.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&self, end: &End) -> io::Result<()> {
        let head = format!("{:020}:{}\n", end.seq.saturating_sub(1), end.prev);
        self.0.write_all_at(head.as_bytes(), 0)
    }
}

/// Why files that end there are not the log whose last line was noted; none if they have it. Waits for the disk.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn lacks(head: &Head, end: &End, files: &[PathBuf]) -> io::Result<Option<String>> {
    let last = end.seq - 1;
    if head.seq > last {
        return Ok(Some(format!(
            "line {} was written before, and the log ended with line {last}: lines or files were removed",
            head.seq
        )));
    }
    let found = if head.seq == last { Some(end.prev.clone()) } else { hash_of(head.seq, files)? };
    Ok((found.as_ref() != Some(&head.hash))
        .then(|| format!("line {} is not the one that was written before: the log is another one", head.seq)))
}

/// That of a line.
fn hash_of(seq: u64, files: &[PathBuf]) -> io::Result<Option<String>> {
    let before = files.iter().filter_map(|path| Some((first_of(path)?, path)));
    let Some((_, path)) = before.filter(|(first, _)| *first <= seq).max() else { return Ok(None) };
    let one = [path.clone()];
    let mut lines = Lines::of(&one);
    loop {
        match lines.next_line() {
            Ok(Some(line)) if Break::seq_of(&line.bytes) == Some(seq) => return Ok(Some(hash(&line.bytes))),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(VerifyError::Read { source, .. }) => return Err(source),
            Err(_) => return Ok(None),
        }
    }
}
