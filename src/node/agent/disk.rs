//! What a host's own disk knows of parts: one file for each, so that a restart knows what was accepted. Owns the files; not what follows
//! from them.
//!
//! Invariant: a file is replaced as a whole, and what was written is durable before anybody is told.

use crate::fleet::Epoch;
use crate::fleet::member::Local;
use crate::job::CaptureId;
use crate::node::wire::{Facts, SignedRecord};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long it is known that a part was here, behind the end of its window: as long as anybody knows of the capture.
const KNOWN: Duration = Duration::from_secs(90 * 24 * 3600);

/// What is known of one part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Note {
    pub id: CaptureId,
    /// As it was signed.
    pub signed: SignedRecord,
    pub local: Local,
    pub facts: Facts,
}

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Disk(PathBuf);

#[derive(Serialize, Deserialize)]
struct Boot {
    boot: Epoch,
}

impl Disk {
    /// Makes the directory if it is not there.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    fn replace(&self, name: &str, json: &[u8]) -> io::Result<()> {
        let hidden = self.0.join(format!(".{name}"));
        let mut file = File::create(&hidden)?;
        file.write_all(json)?;
        file.sync_all()?;
        fs::rename(&hidden, self.0.join(name))?;
        File::open(&self.0)?.sync_all()
    }

    /// Writes what is known of a part.
    pub fn keep(&self, note: &Note) -> io::Result<()> {
        self.replace(&format!("{}.json", note.id), &serde_json::to_vec(note)?)
    }

    /// Writes the number of this life of the host.
    pub fn keep_boot(&self, boot: Epoch) -> io::Result<()> {
        self.replace("boot", &serde_json::to_vec(&Boot { boot })?)
    }

    /// Everything that is known: the largest number of a life, and the parts. Those that ended long ago are forgotten.
    pub fn load(&self, wall: Duration) -> io::Result<(Epoch, Vec<Note>)> {
        let mut boot = match fs::read(self.0.join("boot")) {
            Ok(json) => serde_json::from_slice::<Boot>(&json)?.boot,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let mut notes = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let Some(note) = read(&path)? else { continue };
            if note.local.is_gone && note.local.assignment.window.end.saturating_add(KNOWN) < wall {
                fs::remove_file(&path)?;
                continue;
            }
            boot = boot.max(note.local.part.as_ref().map_or(0, |part| part.epoch));
            notes.push(note);
        }
        Ok((boot, notes))
    }
}

/// A part's file; none if it is another file.
fn read(path: &Path) -> io::Result<Option<Note>> {
    let id = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json"));
    match id.and_then(CaptureId::parse) {
        None => Ok(None),
        Some(id) => {
            let note: Note = serde_json::from_slice(&fs::read(path)?)?;
            Ok(Some(note).filter(|note| note.id == id))
        }
    }
}
