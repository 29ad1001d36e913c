//! Objects as files of a directory. Owns temporary names, durability and publication by rename.
//!
//! Invariant: a file stands under its object's name only once it is complete and on the disk, and never replaces another.

use super::UploadError;
use super::checkpoint::{Checkpoint, Kept, capture_of};
use super::store::{ObjectStore, ObjectWriter, PROBE, Pending, Resumed, Stored, Sweep};
use crate::job::CaptureId;
use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes between two syncs: what a resume after a power cut writes again at most. A sync costs the disk's write-back of as
/// much, which the end would have to wait for anyway.
const SYNC_BYTES: u64 = 64 << 20;

/// Bytes compared at a time with a file that is there already.
const COMPARE_BYTES: usize = 64 << 10;

/// A directory.
#[derive(Clone, Debug)]
pub struct FileStore {
    dir: PathBuf,
}

impl FileStore {
    /// Names the directory; it is created (0700) with the first object.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn make_dir(&self) -> Result<(), UploadError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| disk("create directory", &self.dir, error))
    }

    /// Writes into a file without a name, which goes with the process however that ends. NFS has none: there the file has a
    /// temporary name, which is never published.
    fn try_out(&self) -> Result<(), UploadError> {
        self.make_dir()?;
        let nameless = i32::try_from(OFlags::TMPFILE.bits()).unwrap_or(0);
        match OpenOptions::new().write(true).mode(0o600).custom_flags(nameless).open(&self.dir) {
            Ok(mut file) => {
                file.write_all(PROBE.as_bytes()).map_err(|error| disk("write to", &self.dir, error))
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory) =>
            {
                let mut writer = self.create(&format!("{PROBE}{}", uuid::Uuid::new_v4().simple()))?;
                writer.append(PROBE.as_bytes())
            }
            Err(error) => Err(disk("create a file in", &self.dir, error)),
        }
    }

    fn create(&self, name: &str) -> Result<FileWriter, UploadError> {
        self.make_dir()?;
        let path = self.dir.join(name);
        let temporary = self.dir.join(format!(".{name}.{}", uuid::Uuid::new_v4().simple()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|error| disk("create", &temporary, error))?;
        Ok(self.writer(file, temporary, path, 0))
    }

    fn writer(&self, file: File, temporary: PathBuf, path: PathBuf, bytes: u64) -> FileWriter {
        let temporary = Temporary { path: temporary, kept: bytes > 0 };
        FileWriter {
            file: Some(file),
            dir: self.dir.clone(),
            temporary,
            path,
            bytes,
            synced: bytes,
            told: bytes,
        }
    }

    /// Cuts the temporary file back to what was synced; what came behind it may not have reached the disk.
    fn reopen(&self, name: &str, temporary: &str, bytes: u64) -> Result<(FileWriter, u64), UploadError> {
        let ours = temporary.starts_with(&format!(".{name}.")) && !temporary.contains('/');
        let temporary = self.dir.join(temporary);
        let file = match OpenOptions::new().append(true).open(&temporary) {
            Ok(file) if ours => file,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(disk("open", &temporary, error));
            }
            _ => return Ok((self.create(name)?, 0)),
        };
        let held = file.metadata().map_err(|error| disk("look at", &temporary, error))?.len();
        if held < bytes || bytes == 0 {
            fs::remove_file(&temporary).map_err(|error| disk("remove", &temporary, error))?;
            return Ok((self.create(name)?, 0));
        }
        file.set_len(bytes).map_err(|error| disk("cut", &temporary, error))?;
        Ok((self.writer(file, temporary, self.dir.join(name), bytes), bytes))
    }

    /// Files with temporary names, as `(name, capture)`; those of probes belong to none.
    fn leftovers(&self) -> Result<Vec<(String, Option<CaptureId>)>, UploadError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| disk("list", &self.dir, error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| disk("list", &self.dir, error))?;
            names.extend(entry.file_name().into_string());
        }
        let temporary = |name: String| {
            let object = name.strip_prefix('.')?;
            let capture = capture_of(object);
            (capture.is_some() || object.starts_with(PROBE)).then_some((name, capture))
        };
        Ok(names.into_iter().filter_map(temporary).collect())
    }

    fn remove(&self, leftovers: &[String], before: Timestamp) -> Result<u32, UploadError> {
        let mut removed = 0;
        for name in leftovers {
            let path = self.dir.join(name);
            let modified = match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
                // Its writer has removed it meanwhile, or given it its name.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                modified => modified.map_err(|error| disk("look at", &path, error))?,
            };
            if Timestamp::try_from(modified).is_ok_and(|time| time < before) {
                fs::remove_file(&path).map_err(|error| disk("remove", &path, error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn open(&self, path: &Path) -> Result<File, UploadError> {
        File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => UploadError::NotFound { place: path.display().to_string() },
            _ => disk("open", path, error),
        })
    }

    fn piece(&self, name: &str, from: u64, bytes: u64) -> Result<Bytes, UploadError> {
        let path = self.dir.join(name);
        let mut file = self.open(&path)?;
        let mut piece = Vec::new();
        file.seek(SeekFrom::Start(from))
            .and_then(|_| file.take(bytes).read_to_end(&mut piece))
            .map_err(|error| disk("read", &path, error))?;
        Ok(piece.into())
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>, UploadError> {
        let failed = |error| disk("list", &self.dir, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(prefix) && !entry.file_type().map_err(failed)?.is_dir() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str, bytes_max: u64) -> Result<Bytes, UploadError> {
        let path = self.dir.join(name);
        let file = self.open(&path)?;
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| disk("read", &path, error))?;
        if bytes.len() as u64 > bytes_max {
            return Err(UploadError::TooLarge { place: path.display().to_string(), bytes_max });
        }
        Ok(bytes.into())
    }
}

impl ObjectStore for FileStore {
    fn probe(&self) -> Pending<'_, ()> {
        let store = self.clone();
        blocking(move || store.try_out())
    }

    fn begin<'a>(&'a self, name: &'a str) -> Pending<'a, Box<dyn ObjectWriter>> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || Ok(Box::new(store.create(&name)?) as Box<dyn ObjectWriter>))
    }

    fn resume<'a>(&'a self, name: &'a str, checkpoint: &'a Checkpoint) -> Pending<'a, Resumed> {
        let (store, name, bytes) = (self.clone(), name.to_owned(), checkpoint.bytes());
        let temporary = match &checkpoint.kept {
            Kept::File { temporary } => temporary.clone(),
            _ => String::new(),
        };
        blocking(move || {
            let (writer, offset) = store.reopen(&name, &temporary, bytes)?;
            Ok((Box::new(writer) as Box<dyn ObjectWriter>, offset))
        })
    }

    fn sweep<'a>(&'a self, sweep: Sweep<'a>) -> Pending<'a, u32> {
        let known = |name: &str| {
            sweep.known.iter().any(|c| matches!(&c.kept, Kept::File { temporary } if temporary == name))
        };
        let store = self.clone();
        Box::pin(async move {
            let leftovers = blocking({
                let store = store.clone();
                move || store.leftovers()
            });
            let mut left = leftovers.await?;
            left.retain(|(name, id)| id.as_ref().is_none_or(|id| (sweep.ours)(id) && !known(name)));
            let (left, before) = (left.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), sweep.before);
            blocking(move || store.remove(&left, before)).await
        })
    }

    fn size<'a>(&'a self, name: &'a str) -> Pending<'a, Option<u64>> {
        let path = self.dir.join(name);
        blocking(move || match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk("look for", &path, error)),
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Pending<'a, ()> {
        let path = self.dir.join(name);
        blocking(move || match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk("remove", &path, error)),
            _ => Ok(()),
        })
    }

    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> Pending<'a, Bytes> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || store.read(&name, bytes_max))
    }

    fn read<'a>(&'a self, name: &'a str, from: u64, bytes: u64) -> Pending<'a, Bytes> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || store.piece(&name, from, bytes))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Pending<'a, Vec<String>> {
        let (store, prefix) = (self.clone(), prefix.to_owned());
        blocking(move || store.names(&prefix))
    }
}

/// A name that is removed when it goes out of scope, unless it was published under another or is kept for a resume.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Nothing is left to do about a failure here: the name begins with a dot and is never taken for an object.
        let _gone_already = fs::remove_file(&self.path);
    }
}

#[derive(Debug)]
struct FileWriter {
    /// Taken only while a blocking write is in progress.
    file: Option<File>,
    dir: PathBuf,
    temporary: Temporary,
    path: PathBuf,
    bytes: u64,
    /// Bytes that are on the disk.
    synced: u64,
    /// Bytes that the last checkpoint named.
    told: u64,
}

impl FileWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let Some(file) = &mut self.file else { return Err(UploadError::OutOfOrder { what: "a write" }) };
        file.write_all(bytes).map_err(|error| disk("write", &self.temporary.path, error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn publish(mut self) -> Result<Stored, UploadError> {
        let Some(file) = self.file.take() else { return Err(UploadError::OutOfOrder { what: "a finish" }) };
        file.sync_all().map_err(|error| disk("sync", &self.temporary.path, error))?;
        let held = file.metadata().map_err(|error| disk("look at", &self.temporary.path, error))?.len();
        if held != self.bytes {
            return Err(UploadError::Mismatch {
                place: self.path.display().to_string(),
                what: "size",
                held: held.to_string(),
                sent: self.bytes.to_string(),
            });
        }
        match publish(&self.temporary.path, &self.path) {
            // An attempt before a crash may have published it; a file that differs is somebody else's.
            Err(UploadError::Exists { .. }) if same(&self.temporary.path, &self.path) => {}
            published => published?,
        }
        self.temporary.kept = false;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| disk("sync directory", &self.dir, error))?;
        Ok(Stored { bytes: held })
    }
}

/// Gives the file its final name if nobody has it. NFS cannot rename without replacing; there a hard link does it.
fn publish(temporary: &Path, path: &Path) -> Result<(), UploadError> {
    let renamed = match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::hard_link(temporary, path),
        renamed => renamed.map_err(io::Error::from),
    };
    renamed.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => disk("publish", path, error),
    })
}

/// Whether two files have the same bytes; what cannot be read is not the same.
fn same(one: &Path, other: &Path) -> bool {
    let read = || -> io::Result<bool> {
        let (one, other) = (File::open(one)?, File::open(other)?);
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
    };
    read().unwrap_or(false)
}

impl ObjectWriter for FileWriter {
    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        Box::pin(async move {
            let Some(mut file) = self.file.take() else {
                return Err(UploadError::OutOfOrder { what: "a write" });
            };
            let (path, len) = (self.temporary.path.clone(), bytes.len() as u64);
            let sync = self.bytes + len - self.synced >= SYNC_BYTES;
            let file = blocking(move || {
                file.write_all(&bytes).map_err(|error| disk("write", &path, error))?;
                if sync {
                    file.sync_data().map_err(|error| disk("sync", &path, error))?;
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
        let temporary = self.temporary.path.file_name()?.to_str()?.to_owned();
        (self.told, self.temporary.kept) = (self.synced, true);
        Some(Checkpoint::new(self.synced, Kept::File { temporary }))
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

/// Runs file work where it may block.
fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Pending<'static, T> {
    Box::pin(async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => Err(UploadError::Disk {
                    action: "finish work on",
                    path: PathBuf::new(),
                    source: io::Error::new(io::ErrorKind::Interrupted, "the runtime is shutting down"),
                }),
            },
        }
    })
}

fn disk(action: &'static str, path: &Path, source: io::Error) -> UploadError {
    UploadError::Disk { action, path: path.to_owned(), source }
}

fn exists(path: &Path) -> UploadError {
    UploadError::Exists { place: path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_has_its_name_only_once_it_is_complete() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("new/dir");
        let store = FileStore::new(dir.clone());
        let mut writer = store.begin("a.pcap").await.unwrap();
        writer.write(Bytes::from_static(b"one")).await.unwrap();
        assert_eq!(store.size("a.pcap").await.unwrap(), None);
        assert_eq!(names(&dir).len(), 1);
        assert_eq!(writer.finish().await.unwrap(), Stored { bytes: 3 });
        assert_eq!(names(&dir), ["a.pcap"]);
        assert_eq!(fs::metadata(dir.join("a.pcap")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().to_owned());
        let mut writer = store.begin("a.pcap").await.unwrap();
        writer.write(Bytes::from_static(b"one")).await.unwrap();
        drop(writer);
        store.probe().await.unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[tokio::test]
    async fn what_a_probe_left_is_swept_and_nothing_else_that_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().to_owned());
        for name in [
            ".trawl-probe-0.1",
            ".somebodys",
            "trawl-probe-1",
            ".pcap_0123456789abcdef0123456789abcdef.pcap.1",
        ] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let sweep = Sweep { ours: &|_| false, known: &[], before: Timestamp::UNIX_EPOCH };
        assert_eq!(store.sweep(sweep).await.unwrap(), 0);
        assert_eq!(store.sweep(Sweep { before: Timestamp::MAX, ..sweep }).await.unwrap(), 1);
        assert!(!names(dir.path()).contains(&".trawl-probe-0.1".to_owned()) && names(dir.path()).len() == 3);
    }

    #[tokio::test]
    async fn two_writers_of_one_name_cannot_both_win() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().to_owned());
        let mut first = store.begin("a.pcap").await.unwrap();
        let second = store.begin("a.pcap").await.unwrap();
        first.write(Bytes::from_static(b"one")).await.unwrap();
        first.finish().await.unwrap();
        assert!(matches!(second.finish().await, Err(UploadError::Exists { .. })));
        assert_eq!(names(dir.path()), ["a.pcap"]);
        assert_eq!(store.get("a.pcap", 3).await.unwrap(), "one");
        assert!(matches!(store.get("a.pcap", 2).await, Err(UploadError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn a_place_that_is_no_directory_fails_the_probe() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = FileStore::new(file.path().join("x")).probe().await.unwrap_err();
        assert!(matches!(error, UploadError::Disk { action: "create directory", .. }), "{error}");
    }
}
