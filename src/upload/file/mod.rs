//! Objects as files of a directory. Owns their names, what is left over and what is compared; how a directory is reached is in
//! `folder`, durability and publication in `writer`.
//!
//! Invariant: a file stands under its object's name only once it is complete and on the disk, and never replaces another.

mod folder;
mod writer;

use super::UploadError;
use super::checkpoint::{Checkpoint, Kept};
use super::error::{CREATE_DIRECTORY, CREATE_FILE, OPEN_DIRECTORY};
use super::store::{ObjectStore, ObjectWriter, PROBE, Pending, Resumed, Sweep};
use crate::job::PartId;
use bytes::Bytes;
pub use folder::ClosedDir;
use folder::{Folder, Place, identity};
use jiff::Timestamp;
use rustix::fs::{FileType, Stat};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use writer::FileWriter;

/// Of a directory that was there.
const ABSENT: &str = "it is not there; mount its disk, or create it";

/// A directory.
#[derive(Clone, Debug)]
pub struct FileStore {
    place: Place,
}

impl FileStore {
    /// Names a directory on the operator's word; it is created (0700) with the first object.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        let (below, closed) = (PathBuf::new(), Vec::new());
        Self { place: Place { root: dir, below, closed, makes_parents: true, makes_for_objects: true } }
    }

    /// Names a directory of the spool. The spool itself is not created: without it nothing is written.
    #[must_use]
    pub fn of_spool(dir: PathBuf) -> Self {
        Self { place: Place { makes_parents: false, ..Self::new(dir).place } }
    }

    /// Names a directory on a customer's word, below one of the operator's: no symbolic link is followed to it, and it is none of
    /// those in `closed`. Only a probe creates it.
    #[must_use]
    pub(super) fn below(root: PathBuf, below: PathBuf, closed: Vec<ClosedDir>) -> Self {
        Self { place: Place { root, below, closed, makes_parents: true, makes_for_objects: false } }
    }

    /// Whether a root of customers' directories lies in one of the host's own, so that none below it can be used.
    #[must_use]
    pub fn is_closed_root(root: &Path, closed: &[ClosedDir]) -> bool {
        folder::is_closed_root(root, closed)
    }

    /// Opened for each piece of work: what stands there may be another directory than before, and is as safe.
    fn folder(&self) -> Result<Folder, UploadError> {
        Folder::open(&self.place, false).map_err(|error| {
            let error = match error.kind() {
                io::ErrorKind::NotFound => io::Error::new(error.kind(), ABSENT),
                _ => error,
            };
            disk(OPEN_DIRECTORY, &self.place.path(), error)
        })
    }

    /// None: there is no such directory, and so nothing in it.
    fn folder_if_there(&self) -> Result<Option<Folder>, UploadError> {
        match Folder::open(&self.place, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some).map_err(|error| disk(OPEN_DIRECTORY, &self.place.path(), error)),
        }
    }

    fn make_folder(&self) -> Result<Folder, UploadError> {
        Folder::open(&self.place, true).map_err(|error| disk(CREATE_DIRECTORY, &self.place.path(), error))
    }

    /// Writes into a file without a name. NFS has none: there the file has a temporary name, which is never published.
    fn try_out(&self) -> Result<(), UploadError> {
        let folder = self.make_folder()?;
        match folder.nameless() {
            Ok(mut file) => {
                file.write_all(PROBE.as_bytes()).map_err(|error| disk("write to", folder.path(), error))
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory) =>
            {
                let name = format!("{PROBE}{}", uuid::Uuid::new_v4().simple());
                FileWriter::create(Arc::new(folder), &name)?.append(PROBE.as_bytes())
            }
            Err(error) => Err(disk(CREATE_FILE, folder.path(), error)),
        }
    }

    fn create(&self, name: &str) -> Result<FileWriter, UploadError> {
        let folder = if self.place.makes_for_objects { self.make_folder()? } else { self.folder()? };
        FileWriter::create(Arc::new(folder), name)
    }

    /// Goes on with a file that is what it was at the checkpoint: the same file, a regular one, with one name. Cuts it back to
    /// what was synced; what came behind it may not have reached the disk. Whatever else has its name is left alone.
    fn reopen(&self, name: &str, kept: &Kept, bytes: u64) -> Result<(FileWriter, u64), UploadError> {
        let Kept::File { temporary, device, inode } = kept else { return Ok((self.create(name)?, 0)) };
        let is_ours = temporary.starts_with(&format!(".{name}.")) && bytes > 0;
        let Some(folder) = self.folder_if_there()?.filter(|_| is_ours) else {
            return Ok((self.create(name)?, 0));
        };
        let path = folder.path().join(temporary);
        let stat = match folder.stat(temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((self.create(name)?, 0)),
            stat => stat.map_err(|error| disk("look at", &path, error))?,
        };
        let held = u64::try_from(stat.st_size).unwrap_or(0);
        let is_same = (stat.st_dev, stat.st_ino, stat.st_nlink) == (*device, *inode, 1);
        if !is_same || held < bytes {
            tracing::warn!(path = %path.display(), held, bytes, "not the file that was left here; the object is written again");
            return Ok((self.create(name)?, 0));
        }
        let file = folder.append(temporary).map_err(|error| disk("open", &path, error))?;
        // It may have been exchanged in between.
        let opened = identity(&file).map_err(|error| disk("look at", &path, error))?;
        if (opened.device, opened.inode) != (*device, *inode) {
            return Ok((self.create(name)?, 0));
        }
        file.set_len(bytes).map_err(|error| disk("cut", &path, error))?;
        Ok((FileWriter::go_on(Arc::new(folder), file, temporary, name, bytes), bytes))
    }

    /// Files with temporary names, as `(name, part)`; those of probes belong to none.
    fn leftovers(&self) -> Result<Vec<(String, Option<PartId>)>, UploadError> {
        let Some(folder) = self.folder_if_there()? else { return Ok(Vec::new()) };
        let found = folder.list().map_err(|error| disk("list", folder.path(), error))?;
        let temporary = |(name, _): (String, FileType)| {
            let object = name.strip_prefix('.')?;
            let part = PartId::parse(object).map(|(part, _)| part);
            (part.is_some() || object.starts_with(PROBE)).then_some((name, part))
        };
        Ok(found.into_iter().filter_map(temporary).collect())
    }

    fn remove(&self, leftovers: &[String], before: Timestamp) -> Result<u32, UploadError> {
        let Some(folder) = self.folder_if_there()?.filter(|_| !leftovers.is_empty()) else { return Ok(0) };
        let mut removed = 0;
        for name in leftovers {
            let path = folder.path().join(name);
            let stat = match folder.stat(name) {
                // Its writer has removed it meanwhile, or given it its name.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                stat => stat.map_err(|error| disk("look at", &path, error))?,
            };
            let modified = Timestamp::new(stat.st_mtime, i32::try_from(stat.st_mtime_nsec).unwrap_or(0));
            if modified.is_ok_and(|time| time < before) {
                folder.remove(name).map_err(|error| disk("remove", &path, error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn unlink(&self, name: &str) -> Result<(), UploadError> {
        let Some(folder) = self.folder_if_there()? else { return Ok(()) };
        match folder.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(disk("remove", &folder.path().join(name), error))
            }
            _ => Ok(()),
        }
    }

    fn open(&self, name: &str) -> Result<(std::fs::File, PathBuf), UploadError> {
        let path = self.place.path().join(name);
        let opened =
            Folder::open(&self.place, false).and_then(|folder| match self.place.on_customers_word() {
                true => folder.read_own(name),
                false => folder.read(name),
            });
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => UploadError::NotFound { place: path.display().to_string() },
            _ => disk("open", &path, error),
        })?;
        Ok((file, path))
    }

    fn piece(&self, name: &str, from: u64, bytes: u64) -> Result<Bytes, UploadError> {
        let (mut file, path) = self.open(name)?;
        let mut piece = Vec::new();
        file.seek(SeekFrom::Start(from))
            .and_then(|_| file.take(bytes).read_to_end(&mut piece))
            .map_err(|error| disk("read", &path, error))?;
        Ok(piece.into())
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>, UploadError> {
        let folder = self.folder()?;
        let mut found = folder.list().map_err(|error| disk("list", folder.path(), error))?;
        found.retain(|(name, kind)| name.starts_with(prefix) && *kind != FileType::Directory);
        let mut names: Vec<_> = found.into_iter().map(|(name, _)| name).collect();
        names.sort();
        Ok(names)
    }

    fn bytes_of(&self, name: &str) -> Result<Option<u64>, UploadError> {
        Ok(self.stat_of(name)?.map(|stat| u64::try_from(stat.st_size).unwrap_or(0)))
    }

    /// Every write changes a time of the file, and what takes its place is another file.
    fn mark_of(&self, name: &str) -> Result<Option<String>, UploadError> {
        let mark = |stat: Stat| {
            let Stat { st_dev, st_ino, st_size, st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec, .. } = stat;
            format!("{st_dev} {st_ino} {st_size} {st_mtime}.{st_mtime_nsec} {st_ctime}.{st_ctime_nsec}")
        };
        Ok(self.stat_of(name)?.map(mark))
    }

    fn stat_of(&self, name: &str) -> Result<Option<Stat>, UploadError> {
        let Some(folder) = self.folder_if_there()? else { return Ok(None) };
        match folder.stat(name) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(Some(stat)),
            Ok(_) => Err(UploadError::Exists { place: folder.path().join(name).display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk("look for", &folder.path().join(name), error)),
        }
    }

    fn read(&self, name: &str, bytes_max: u64) -> Result<Bytes, UploadError> {
        let (file, path) = self.open(name)?;
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
        let (store, name, checkpoint) = (self.clone(), name.to_owned(), checkpoint.clone());
        blocking(move || {
            let (writer, offset) = store.reopen(&name, &checkpoint.kept, checkpoint.bytes())?;
            Ok((Box::new(writer) as Box<dyn ObjectWriter>, offset))
        })
    }

    fn sweep<'a>(&'a self, sweep: Sweep<'a>) -> Pending<'a, u32> {
        let known = |name: &str| {
            sweep.known.iter().any(|c| matches!(&c.kept, Kept::File { temporary, .. } if temporary == name))
        };
        let store = self.clone();
        Box::pin(async move {
            let leftovers = blocking({
                let store = store.clone();
                move || store.leftovers()
            });
            let mut left = leftovers.await?;
            left.retain(|(name, part)| part.as_ref().is_none_or(|part| (sweep.ours)(part) && !known(name)));
            let (left, before) = (left.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), sweep.before);
            blocking(move || store.remove(&left, before)).await
        })
    }

    fn size<'a>(&'a self, name: &'a str) -> Pending<'a, Option<u64>> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || store.bytes_of(&name))
    }

    fn mark<'a>(&'a self, name: &'a str) -> Pending<'a, Option<String>> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || store.mark_of(&name))
    }

    fn remove<'a>(&'a self, name: &'a str) -> Pending<'a, ()> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || store.unlink(&name))
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

#[cfg(test)]
mod tests {
    use super::super::store::Stored;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_directory_of_the_spool_is_not_made_where_the_spool_is_away() {
        let root = tempfile::tempdir().unwrap();
        let store = FileStore::of_spool(root.path().join("spool/simple"));
        assert!(store.probe().await.is_err() && store.begin("a.pcap").await.is_err());
        assert!(names(root.path()).is_empty());
        fs::create_dir(root.path().join("spool")).unwrap();
        for _ in 0..2 {
            store.probe().await.unwrap();
        }
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
    async fn a_file_that_is_linked_is_the_object_and_one_that_is_not_as_it_must_be_is_not_linked() {
        let root = tempfile::tempdir().unwrap();
        let (dir, spooled) = (root.path().join("bucket"), root.path().join("segment"));
        let store = FileStore::new(dir.clone());
        let make = || {
            fs::write(&spooled, "123456").unwrap();
            fs::set_permissions(&spooled, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let nlink = || fs::metadata(&spooled).unwrap().nlink();
        make();
        let mut writer = store.begin("a.pcap").await.unwrap();
        assert!(writer.link(spooled.clone(), 6).await.unwrap());
        assert_eq!((nlink(), names(&dir).len()), (2, 1));
        drop(writer);
        assert_eq!((nlink(), names(&dir).len()), (1, 0), "a writer that is dropped leaves nothing");
        let mut writer = store.begin("a.pcap").await.unwrap();
        assert!(writer.link(spooled.clone(), 6).await.unwrap());
        writer.write(Bytes::from_static(b"123")).await.unwrap();
        let error = writer.finish().await.unwrap_err();
        assert!(matches!(error, UploadError::Mismatch { what: "size", .. }), "{error}");
        assert_eq!((nlink(), names(&dir).len()), (1, 0));
        let mut writer = store.begin("a.pcap").await.unwrap();
        assert!(writer.link(spooled.clone(), 6).await.unwrap());
        for part in [&b"123"[..], b"456"] {
            writer.write(Bytes::from_static(part)).await.unwrap();
            assert!(writer.checkpoint().is_none());
        }
        assert_eq!(writer.finish().await.unwrap(), Stored { bytes: 6 });
        assert_eq!((nlink(), names(&dir)), (2, vec!["a.pcap".to_owned()]));
        fs::remove_file(&spooled).unwrap();
        make();
        type Change<'a> = (&'a str, &'a dyn Fn());
        let changes: [Change<'_>; 5] = [
            ("another size", &|| fs::write(&spooled, "1234567").unwrap()),
            ("open to others", &|| fs::set_permissions(&spooled, fs::Permissions::from_mode(0o640)).unwrap()),
            ("a third name", &|| fs::hard_link(&spooled, root.path().join("third")).unwrap()),
            ("a link", &|| {
                fs::rename(&spooled, root.path().join("else")).unwrap();
                symlink(root.path().join("else"), &spooled).unwrap();
            }),
            ("nothing", &|| fs::remove_file(&spooled).unwrap()),
        ];
        for (what, change) in changes {
            make();
            change();
            let mut writer = store.begin("b.pcap").await.unwrap();
            assert!(!writer.link(spooled.clone(), 6).await.unwrap(), "{what}");
            writer.write(Bytes::from_static(b"123456")).await.unwrap();
            assert!(!writer.link(spooled.clone(), 6).await.unwrap(), "bytes were written");
            assert_eq!(writer.finish().await.unwrap(), Stored { bytes: 6 }, "{what}");
            assert_eq!(fs::metadata(dir.join("b.pcap")).unwrap().nlink(), 1, "{what}");
            fs::remove_file(dir.join("b.pcap")).unwrap();
            let _some_are_gone = (fs::remove_file(&spooled), fs::remove_file(root.path().join("third")));
        }
        assert_eq!(names(&dir), ["a.pcap"]);
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

    /// What a dead process left of `a.pcap`: ten bytes under a temporary name.
    fn left(dir: &Path) -> (PathBuf, Checkpoint) {
        let path = dir.join(".a.pcap.1");
        fs::write(&path, "0123456789").unwrap();
        let file = identity(&fs::File::open(&path).unwrap()).unwrap();
        let temporary = ".a.pcap.1".to_owned();
        let kept = Kept::File { temporary, device: file.device, inode: file.inode };
        (path, Checkpoint::new(4, kept))
    }

    #[tokio::test]
    async fn a_file_goes_on_only_as_the_one_that_was_left_and_nothing_else_is_cut() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let store = FileStore::new(dir.clone());
        let (_, checkpoint) = left(&dir);
        let (mut writer, offset) = store.resume("a.pcap", &checkpoint).await.unwrap();
        assert_eq!(offset, 4);
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(fs::read(dir.join("a.pcap")).unwrap(), b"0123x");
        let victim = root.path().join("victim");
        type Exchange<'a> = (&'a str, &'a dyn Fn(&Path));
        let exchanges: [Exchange<'_>; 4] = [
            ("a link", &|path| symlink(&victim, path).unwrap()),
            ("a hard link", &|path| fs::hard_link(&victim, path).unwrap()),
            ("another file", &|path| fs::write(path, "somebody else's").unwrap()),
            ("a FIFO", &|path| {
                let (mode, kind) = (rustix::fs::Mode::RUSR, FileType::Fifo);
                rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
            }),
        ];
        for (what, exchange) in exchanges {
            fs::write(&victim, "a file of somebody else").unwrap();
            let (path, checkpoint) = left(&dir);
            fs::rename(&path, root.path().join("away")).unwrap();
            exchange(&path);
            for name in ["a.pcap", "b.pcap"] {
                let (_writer, offset) = store.resume(name, &checkpoint).await.unwrap();
                assert_eq!(offset, 0, "{what} for {name}");
            }
            assert_eq!(fs::read(&victim).unwrap(), b"a file of somebody else", "{what}");
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(names(&dir), ["a.pcap"]);
    }

    #[tokio::test]
    async fn a_fifo_of_the_objects_name_keeps_nobody_waiting_and_an_exchanged_file_is_not_published() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().to_owned());
        let (mode, fifo) = (rustix::fs::Mode::RUSR, dir.path().join("a.pcap"));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
        let mut writer = store.begin("a.pcap").await.unwrap();
        writer.write(Bytes::from_static(b"one")).await.unwrap();
        assert!(matches!(writer.finish().await, Err(UploadError::Exists { .. })));
        assert!(store.get("a.pcap", 9).await.is_err() && store.size("a.pcap").await.is_err());
        let mut writer = store.begin("b.pcap").await.unwrap();
        writer.write(Bytes::from_static(b"one")).await.unwrap();
        let temporary = names(dir.path()).into_iter().find(|name| name.starts_with(".b.pcap.")).unwrap();
        fs::remove_file(dir.path().join(&temporary)).unwrap();
        symlink("/etc/passwd", dir.path().join(&temporary)).unwrap();
        let error = writer.finish().await.unwrap_err();
        assert!(error.to_string().contains("another file has taken its place"), "{error}");
        assert_eq!(names(dir.path()), ["a.pcap"]);
    }

    #[tokio::test]
    async fn a_customer_reads_one_sentence_whatever_stands_where_his_directory_would_be() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "x").unwrap();
        fs::create_dir(root.path().join("own")).unwrap();
        symlink("/etc", root.path().join("link")).unwrap();
        let closed = vec![ClosedDir { dir: root.path().join("own"), with_below: true }];
        let mut said = Vec::new();
        for below in ["file", "file/in", "link", "link/in", "link/absent", "own", "own/in"] {
            let store = FileStore::below(root.path().to_owned(), below.into(), closed.clone());
            let error = store.probe().await.expect_err(below);
            let text = error.customer_text().unwrap();
            said.push(text.replace(&root.path().join(below).display().to_string(), "DIR"));
        }
        said.dedup();
        assert_eq!(said.len(), 1, "{said:?}");
    }
}
