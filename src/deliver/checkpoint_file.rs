//! How far the objects are that are on their way (`.upload`, beside a capture's segments), so that another process can go on
//! with them. Owns the file's form; what a checkpoint means is the store's.
//!
//! Nothing depends on this file: without it, or with an old line of it, more is sent again. So only an object's first line,
//! which says where to find what was begun, is synced, and a disk that refuses the others stops no upload.
//!
//! Invariant: the last whole line of an object counts, and for that object alone.

use crate::upload::Checkpoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// By number.
    objects: BTreeMap<u32, Object>,
}

/// An object on its way.
#[derive(Debug)]
struct Object {
    last: Line,
    /// Bytes that its last written line names; none if it has none.
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
        let lines = text.split_inclusive(|byte| *byte == b'\n').filter_map(super::line::parse::<Line>);
        let object = |last: Line| {
            let written = Some(last.checkpoint.bytes());
            (last.object, Object { last, written })
        };
        let objects = lines.map(object).collect();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.set_len(whole as u64)?;
        Ok(Self { path, file: Some(file), objects })
    }

    /// Where that object stands.
    pub fn of(&self, object: u32) -> Option<&Checkpoint> {
        self.objects.get(&object).map(|object| &object.last.checkpoint)
    }

    /// Where each object stands.
    pub fn all(&self) -> BTreeMap<u32, Checkpoint> {
        self.objects.iter().map(|(number, object)| (*number, object.last.checkpoint.clone())).collect()
    }

    /// Notes where an object stands.
    pub fn keep(&mut self, object: u32, checkpoint: Checkpoint) {
        let bytes = checkpoint.bytes();
        let written = self.objects.get(&object).map(|object| object.written);
        let first = written.is_none();
        let written = written.flatten();
        let grown = written.is_none_or(|written| bytes > written + written / SHARE || bytes < written);
        self.objects.insert(object, Object { last: Line { object, checkpoint }, written });
        if !first && !grown {
            return;
        }
        let Some(kept) = self.objects.get_mut(&object) else { return };
        match open(&self.path, &mut self.file).and_then(|file| write(file, &kept.last, first)) {
            Ok(()) => kept.written = Some(bytes),
            Err(error) => {
                tracing::warn!(%error, "how far an upload is could not be written down; it goes on")
            }
        }
    }

    /// Forgets an object that is on its way no more.
    pub fn forget(&mut self, object: u32) {
        if self.objects.remove(&object).is_some() {
            self.shorten();
        }
    }

    /// Forgets the objects up to that one, which are complete.
    pub fn complete(&mut self, object: u32) {
        self.objects.retain(|number, _| *number > object);
        self.shorten();
    }

    /// Leaves the last line of each object.
    fn shorten(&mut self) {
        // A line that stays names an object that is complete, or a start that the store refuses.
        let file = open(&self.path, &mut self.file);
        let _stays = file.and_then(|file| file.set_len(0).map(|()| file)).and_then(|file| {
            for Object { last, written } in self.objects.values_mut() {
                *written = None;
                write(file, last, false)?;
                *written = Some(last.checkpoint.bytes());
            }
            Ok(())
        });
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
        file.complete(0);
        assert_eq!((reopened(dir.path(), 0), fs::read(&path).unwrap().len()), (None, 0));
        file.keep(1, checkpoint(7));
        assert_eq!((reopened(dir.path(), 0), reopened(dir.path(), 1)), (None, Some(7)));
        file.forget(1);
        assert_eq!((reopened(dir.path(), 1), fs::read(&path).unwrap().len()), (None, 0));
    }

    #[test]
    fn objects_on_their_way_side_by_side_have_lines_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = CheckpointFile::open(dir.path()).unwrap();
        for (object, bytes) in [(4, 10), (5, 20), (6, 30), (4, 11), (5, 25)] {
            file.keep(object, checkpoint(bytes));
        }
        let all = |file: &CheckpointFile| [4, 5, 6].map(|object| file.of(object).map(Checkpoint::bytes));
        assert_eq!(all(&CheckpointFile::open(dir.path()).unwrap()), [Some(11), Some(25), Some(30)]);
        file.forget(5);
        assert_eq!(all(&CheckpointFile::open(dir.path()).unwrap()), [Some(11), None, Some(30)]);
        file.complete(4);
        let mut file = CheckpointFile::open(dir.path()).unwrap();
        assert_eq!(all(&file), [None, None, Some(30)]);
        // What was left is written on.
        file.keep(6, checkpoint(60));
        assert_eq!(all(&CheckpointFile::open(dir.path()).unwrap()), [None, None, Some(60)]);
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
