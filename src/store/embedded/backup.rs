//! A copy of the database, made while it is used. Owns the copy of the tables; not the way of the file to who asked for it.
//!
//! All tables are read in one transaction, so the copy is what the database was at one moment. Writers go on meanwhile.
//!
//! Invariant: a file has its name only when all of it is on the disk, and no file is replaced.

use super::beside::OBJECTS;
use super::{BUCKETS, BY_TIME, Embedded, HOST, JOBS, OWNED, UNFINISHED, database, failed};
use crate::store::StoreError;
use redb::backends::FileBackend;
use redb::{
    Database, Key, ReadTransaction, ReadableTable, TableDefinition, TableError, Value, WriteTransaction,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The name is taken.
    #[error("{} is there already; name another file", .0.display())]
    Exists(PathBuf),
    /// The copy cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database cannot be read, or the copy not be made of it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A file under a hidden name until it is whole; removed if it never is.
pub struct HiddenFile {
    hidden: PathBuf,
    target: PathBuf,
    is_published: bool,
}

impl HiddenFile {
    /// The file that will be `target`, and the open file.
    ///
    /// # Errors
    /// When `target` is there, or its directory takes no file.
    pub fn create(target: &Path) -> Result<(Self, File), BackupError> {
        if target.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(target.to_owned()));
        }
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let hidden = target.with_file_name(name);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&hidden);
        let file = file.map_err(|source| BackupError::Write { path: hidden.clone(), source })?;
        Ok((Self { hidden, target: target.to_owned(), is_published: false }, file))
    }

    /// Gives it its name, once all of it is on the disk.
    ///
    /// # Errors
    /// When it cannot be made durable, or the name was taken meanwhile.
    pub fn publish(mut self) -> Result<(), BackupError> {
        let failed = |source| BackupError::Write { path: self.target.clone(), source };
        File::open(&self.hidden).and_then(|file| file.sync_all()).map_err(failed)?;
        renameat_with(CWD, &self.hidden, CWD, &self.target, RenameFlags::NOREPLACE).map_err(|error| {
            match error {
                Errno::EXIST => BackupError::Exists(self.target.clone()),
                error => failed(error.into()),
            }
        })?;
        let directory =
            self.target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|dir| dir.sync_all()).map_err(failed)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for HiddenFile {
    fn drop(&mut self) {
        if !self.is_published {
            let _nothing_more_can_be_done = std::fs::remove_file(&self.hidden);
        }
    }
}

impl Embedded {
    /// Writes a copy of the database, as it is at one moment, to the new file `target`.
    ///
    /// # Errors
    /// [`BackupError`]; then there is no file of that name.
    pub fn backup(&self, target: &Path) -> Result<(), BackupError> {
        let (hidden, file) = HiddenFile::create(target)?;
        self.read(|from| {
            let backend = FileBackend::new(file).map_err(failed)?;
            let into = database(backend, false).map_err(failed)?;
            copy(from, &into)
        })?;
        hidden.publish()
    }
}

fn copy(from: &ReadTransaction, into: &Database) -> Result<(), StoreError> {
    let write = into.begin_write().map_err(failed)?;
    copy_table(from, &write, JOBS)?;
    copy_table(from, &write, BY_TIME)?;
    copy_table(from, &write, OWNED)?;
    copy_table(from, &write, UNFINISHED)?;
    copy_table(from, &write, BUCKETS)?;
    copy_table(from, &write, HOST)?;
    copy_table(from, &write, OBJECTS)?;
    write.commit().map_err(failed)
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    into: &WriteTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<(), StoreError> {
    let from = match from.open_table(definition) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        table => table.map_err(failed)?,
    };
    let mut into = into.open_table(definition).map_err(failed)?;
    for entry in from.iter().map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        into.insert(key.value(), value.value()).map_err(failed)?;
    }
    Ok(())
}
