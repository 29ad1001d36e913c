//! One object on its way into a directory. Owns its temporary name, when it is synced and its publication.
//!
//! Invariant: the temporary name goes with the writer, unless a checkpoint names it; the final name appears once everything is
//! on the disk. A file of the spool that is an object as it stands gets a second name instead of a copy; it is on the disk.

use super::folder::{Folder, identity};
use super::{blocking, disk};
use crate::upload::UploadError;
use crate::upload::checkpoint::{Checkpoint, Kept};
use crate::upload::store::{ObjectWriter, Pending, Stored};
use bytes::Bytes;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes between two syncs: what a resume after a power cut writes again at most. A sync costs the disk's write-back of as
/// much, which the end would have to wait for anyway.
const SYNC_BYTES: u64 = 64 << 20;

/// Bytes compared at a time with a file that is there already.
const COMPARE_BYTES: usize = 64 << 10;

/// A name that is removed when it goes out of scope, unless it was published under another or is kept for a resume.
#[derive(Debug)]
struct Temporary {
    folder: Arc<Folder>,
    name: String,
    kept: bool,
}

impl Temporary {
    fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Nothing is left to do about a failure here: the name begins with a dot and is never taken for an object.
        let _gone_already = self.folder.remove(&self.name);
    }
}

fn temporary_name(name: &str) -> String {
    format!(".{name}.{}", uuid::Uuid::new_v4().simple())
}

/// See the module.
#[derive(Debug)]
pub(super) struct FileWriter {
    /// Taken only while a blocking write is in progress.
    file: Option<File>,
    temporary: Temporary,
    name: String,
    bytes: u64,
    /// Bytes that are on the disk.
    synced: u64,
    /// Bytes that the last checkpoint named.
    told: u64,
    /// Whether the file has its bytes already, which are then only counted.
    is_linked: bool,
}

impl FileWriter {
    /// Begins an object.
    pub fn create(folder: Arc<Folder>, name: &str) -> Result<Self, UploadError> {
        let temporary = temporary_name(name);
        let file = folder.create(&temporary);
        let file = file.map_err(|error| disk("create", &folder.path().join(&temporary), error))?;
        Ok(Self::go_on(folder, file, &temporary, name, 0))
    }

    /// Goes on with an object of which `bytes` bytes are in `file`, under its temporary name.
    pub fn go_on(folder: Arc<Folder>, file: File, temporary: &str, name: &str, bytes: u64) -> Self {
        let temporary = Temporary { folder, name: temporary.to_owned(), kept: bytes > 0 };
        let (file, name) = (Some(file), name.to_owned());
        Self { file, temporary, name, bytes, synced: bytes, told: bytes, is_linked: false }
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let Some(file) = &mut self.file else { return Err(UploadError::OutOfOrder { what: "a write" }) };
        file.write_all(bytes).map_err(|error| disk("write", &self.temporary.path(), error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn publish(mut self) -> Result<Stored, UploadError> {
        let Some(file) = self.file.take() else { return Err(UploadError::OutOfOrder { what: "a finish" }) };
        let temporary = self.temporary.path();
        file.sync_all().map_err(|error| disk("sync", &temporary, error))?;
        let held = file.metadata().map_err(|error| disk("look at", &temporary, error))?.len();
        let folder = Arc::clone(&self.temporary.folder);
        let place = folder.path().join(&self.name);
        if held != self.bytes {
            return Err(UploadError::Mismatch {
                place: place.display().to_string(),
                what: "size",
                held: held.to_string(),
                sent: self.bytes.to_string(),
            });
        }
        // Somebody who may change the directory may have put another file under the temporary name.
        let ours = identity(&file).map_err(|error| disk("look at", &temporary, error))?;
        let there = folder.stat(&self.temporary.name).map_err(|error| disk("look at", &temporary, error))?;
        if (ours.device, ours.inode) != (there.st_dev, there.st_ino) {
            let exchanged =
                io::Error::other("another file has taken its place; nobody else may change this directory");
            return Err(disk("publish", &temporary, exchanged));
        }
        match folder.publish(&self.temporary.name, &self.name) {
            // An attempt before a crash may have published it; a file that differs is somebody else's.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_same = same(&folder, &self.temporary.name, &self.name);
                if !is_same.map_err(|error| disk("compare with", &place, error))? {
                    return Err(UploadError::Exists { place: place.display().to_string() });
                }
            }
            published => published.map_err(|error| disk("publish", &place, error))?,
        }
        self.temporary.kept = false;
        folder.sync().map_err(|error| disk("sync directory", folder.path(), error))?;
        Ok(Stored { bytes: held })
    }
}

/// Whether two files have the same bytes.
fn same(folder: &Folder, one: &str, other: &str) -> io::Result<bool> {
    let (one, other) = match (folder.read(one), folder.read(other)) {
        // No error of the system: it is no regular file.
        (_, Err(error)) if error.raw_os_error().is_none() => return Ok(false),
        (one, other) => (one?, other?),
    };
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let mut one = io::BufReader::with_capacity(COMPARE_BYTES, one);
    let mut other = io::BufReader::with_capacity(COMPARE_BYTES, other);
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let len = left.len().min(right.len());
        if left[..len] != right[..len] || left.is_empty() != right.is_empty() {
            return Ok(false);
        }
        if len == 0 {
            return Ok(true);
        }
        one.consume(len);
        other.consume(len);
    }
}

impl ObjectWriter for FileWriter {
    /// Its temporary name is from then on a second name of the file.
    fn link(&mut self, path: PathBuf, bytes: u64) -> Pending<'_, bool> {
        Box::pin(async move {
            if self.bytes > 0 {
                return Ok(false);
            }
            let folder = Arc::clone(&self.temporary.folder);
            let (name, empty) = (temporary_name(&self.name), self.temporary.name.clone());
            let link = blocking(move || {
                let Some(file) = folder.link(&path, &name, bytes) else { return Ok(None) };
                let linked = Temporary { folder: Arc::clone(&folder), name, kept: false };
                folder.remove(&empty).map_err(|error| disk("remove", &folder.path().join(&empty), error))?;
                Ok(Some((file, linked)))
            });
            let Some((file, linked)) = link.await? else { return Ok(false) };
            // The empty file is gone.
            self.temporary.kept = true;
            (self.file, self.temporary, self.is_linked) = (Some(file), linked, true);
            Ok(true)
        })
    }

    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        Box::pin(async move {
            if self.is_linked {
                self.bytes += bytes.len() as u64;
                return Ok(());
            }
            let Some(mut file) = self.file.take() else {
                return Err(UploadError::OutOfOrder { what: "a write" });
            };
            let (path, len) = (self.temporary.path(), bytes.len() as u64);
            let sync = self.bytes + len - self.synced >= SYNC_BYTES;
            let file = blocking(move || {
                file.write_all(&bytes).map_err(|error| disk("write", &path, error))?;
                if sync {
                    file.sync_data().map_err(|error| disk("sync", &path, error))?;
                    // What is on the disk is read by others later, if at all; packets that come now need the memory.
                    let _only_a_hint = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
                }
                Ok(file)
            });
            self.file = Some(file.await?);
            self.bytes += len;
            if sync {
                self.synced = self.bytes;
            }
            Ok(())
        })
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        if self.synced == self.told {
            return None;
        }
        let identity = identity(self.file.as_ref()?).ok()?;
        (self.told, self.temporary.kept) = (self.synced, true);
        let temporary = self.temporary.name.clone();
        let kept = Kept::File { temporary, device: identity.device, inode: identity.inode };
        Some(Checkpoint::new(self.synced, kept))
    }

    /// What is not synced yet is little, and is synced when it is published.
    fn settle(&mut self) -> Pending<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn finish(self: Box<Self>) -> Pending<'static, Stored> {
        blocking(move || self.publish())
    }

    fn abort(mut self: Box<Self>) -> Pending<'static, ()> {
        self.temporary.kept = false;
        blocking(move || {
            drop(self);
            Ok(())
        })
    }
}
