//! How far the object is that is on its way (`.upload`, beside a capture's segments), so that another process can go on
//! with it. Owns the file's form; what a checkpoint means is the store's.
//!
//! Nothing depends on this file: without it, or with an old line of it, more is sent again. So only an object's first line,
//! which says where to find what was begun, is synced, and a disk that refuses the others stops no upload.
//!
//! Invariant: the last whole line counts, and only for the object that it names.

use crate::upload::Checkpoint;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const UNDERWAY: &str = ".upload";

/// A line is written when the store holds this share more: a checkpoint names all parts, so lines for each of ten thousand
/// parts would be gigabytes. Up to 64 parts, each one has its line.
const SHARE: u64 = 64;

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    object: u32,
    checkpoint: Checkpoint,
}

/// See the module.
#[derive(Debug)]
pub(super) struct CheckpointFile {
    path: PathBuf,
    /// None while nothing is written.
    file: Option<File>,
    last: Option<Line>,
    /// Bytes that the last line names; none if there is none for this object.
    written: Option<u64>,
}

impl CheckpointFile {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(UNDERWAY);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let last: Option<Line> =
            text.split_inclusive(|byte| *byte == b'\n').rev().find_map(super::line::parse);
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.set_len(whole as u64)?;
        let written = last.as_ref().map(|line| line.checkpoint.bytes());
        Ok(Self { path, file: Some(file), last, written })
    }

    /// Where that object stands.
    pub fn of(&self, object: u32) -> Option<&Checkpoint> {
        self.last.as_ref().filter(|line| line.object == object).map(|line| &line.checkpoint)
    }

    /// Notes where an object stands.
    pub fn keep(&mut self, object: u32, checkpoint: Checkpoint) {
        let bytes = checkpoint.bytes();
        let first = self.of(object).is_none();
        let line = self.last.insert(Line { object, checkpoint });
        let grown = self.written.is_none_or(|written| bytes > written + written / SHARE || bytes < written);
        if !first && !grown {
            return;
        }
        match open(&self.path, &mut self.file).and_then(|file| write(file, line, first)) {
            Ok(()) => self.written = Some(bytes),
            Err(error) => {
                tracing::warn!(%error, "how far an upload is could not be written down; it goes on")
            }
        }
    }

    /// Forgets the object that was on its way.
    pub fn clear(&mut self) {
        (self.last, self.written) = (None, None);
        // A line that stays names an object that is no longer the next one, or a start that the store refuses.
        let _stays = open(&self.path, &mut self.file).and_then(|file| file.set_len(0));
    }

    /// Closes the file until something is written again.
    pub fn close(&mut self) {
        self.file = None;
    }
}

fn open<'a>(path: &Path, file: &'a mut Option<File>) -> io::Result<&'a mut File> {
    let opened = match file.take() {
        Some(file) => file,
        None => OpenOptions::new().append(true).create(true).mode(0o600).open(path)?,
    };
    Ok(file.insert(opened))
}

fn write(file: &mut File, line: &Line, sync: bool) -> io::Result<()> {
    let before = file.metadata()?.len();
    let line = super::line::line(line)?;
    let written = file.write_all(line.as_bytes()).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
    if written.is_err() {
        file.set_len(before)?;
    }
    written
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    /// A checkpoint that names a file of so many bytes.
    fn checkpoint(bytes: u64) -> Checkpoint {
        let json = format!(r#"{{"bytes":{bytes},"kept":{{"file":{{"temporary":"t"}}}}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    fn reopened(dir: &Path, object: u32) -> Option<u64> {
        CheckpointFile::open(dir).unwrap().of(object).map(Checkpoint::bytes)
    }

    #[test]
    fn the_last_whole_line_counts_and_only_for_its_object() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = CheckpointFile::open(dir.path()).unwrap();
        assert!(file.of(0).is_none());
        file.keep(0, checkpoint(0));
        file.keep(0, checkpoint(100));
        assert_eq!((reopened(dir.path(), 0), reopened(dir.path(), 1)), (Some(100), None));
        let path = dir.path().join(UNDERWAY);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 1]).unwrap();
        assert_eq!(reopened(dir.path(), 0), Some(0), "a cut line was never written");
        let mut file = CheckpointFile::open(dir.path()).unwrap();
        file.keep(0, checkpoint(200));
        assert_eq!(reopened(dir.path(), 0), Some(200));
        file.clear();
        assert_eq!((reopened(dir.path(), 0), fs::read(&path).unwrap().len()), (None, 0));
        file.keep(1, checkpoint(7));
        assert_eq!((reopened(dir.path(), 0), reopened(dir.path(), 1)), (None, Some(7)));
    }

    #[test]
    fn an_object_of_many_parts_has_few_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = CheckpointFile::open(dir.path()).unwrap();
        (0..10_000).for_each(|parts| file.keep(3, checkpoint(parts)));
        assert_eq!(file.of(3).map(Checkpoint::bytes), Some(9_999));
        let text = fs::read_to_string(dir.path().join(UNDERWAY)).unwrap();
        assert!(text.lines().count() < 500, "{}", text.lines().count());
        assert!(reopened(dir.path(), 3).unwrap() > 9_800, "and what is lost of them is little");
    }
}
