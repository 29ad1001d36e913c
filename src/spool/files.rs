//! The spool's calls to the file system. Owns the retry after EINTR and the place where tests make a call fail; not what
//! follows from a failure.
//!
//! Invariant: outside tests a call does what the system does.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
#[cfg(test)]
use std::sync::{Arc, Mutex, PoisonError};

/// The kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    /// Making or opening a file.
    Open,
    /// fallocate.
    Allocate,
    /// Writing outside the queue of direct writes.
    Write,
    /// Reading.
    Read,
    /// ftruncate.
    Truncate,
    /// fsync or fdatasync of a file.
    Sync,
    /// rename.
    Rename,
    /// fsync of a directory.
    SyncDir,
    /// unlink.
    Remove,
}

#[cfg(test)]
type Plan = Box<dyn FnMut(Call, &Path) -> Option<io::Error> + Send>;

/// The file system as the spool uses it.
#[derive(Clone, Default)]
pub(crate) struct Files {
    #[cfg(test)]
    plan: Arc<Mutex<Option<Plan>>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Files")
    }
}

impl Files {
    /// From now on `plan` decides about each call: an error makes it fail before it reaches the system.
    #[cfg(test)]
    pub fn fail(&self, plan: impl FnMut(Call, &Path) -> Option<io::Error> + Send + 'static) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(plan));
    }

    /// Every call succeeds again.
    #[cfg(test)]
    pub fn heal(&self) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes a call; again if a signal interrupted it.
    pub fn call<T>(&self, call: Call, path: &Path, mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        #[cfg(test)]
        if let Some(plan) = &mut *self.plan.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(error) = plan(call, path)
        {
            return Err(error);
        }
        let _only_tests_ask = (call, path);
        loop {
            match make() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                made => return made,
            }
        }
    }

    /// Opens a file as `options` say, for this user alone if it is made.
    pub fn open(&self, options: &mut OpenOptions, path: &Path) -> io::Result<File> {
        let options = options.mode(0o600);
        self.call(Call::Open, path, || options.open(path))
    }

    /// Allocates `bytes` bytes behind the first `from` bytes.
    pub fn allocate(&self, file: &File, path: &Path, from: u64, bytes: u64) -> io::Result<()> {
        let flags = rustix::fs::FallocateFlags::empty();
        self.call(Call::Allocate, path, || Ok(rustix::fs::fallocate(file, flags, from, bytes)?))
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_at(&self, file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.call(Call::Write, path, || file.write_all_at(bytes, offset))
    }

    /// Reads exactly as many bytes at `offset`.
    pub fn read_at(&self, file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.call(Call::Read, path, || file.read_exact_at(bytes, offset))
    }

    /// Cuts a file.
    pub fn truncate(&self, file: &File, path: &Path, bytes: u64) -> io::Result<()> {
        self.call(Call::Truncate, path, || file.set_len(bytes))
    }

    /// Makes contents and length durable.
    pub fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.call(Call::Sync, path, || file.sync_all())
    }

    /// Makes contents durable.
    pub fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        self.call(Call::Sync, path, || file.sync_data())
    }

    /// Makes the names in a file's directory durable.
    pub fn sync_dir_of(&self, path: &Path) -> io::Result<()> {
        let Some(dir) = path.parent() else { return Ok(()) };
        self.call(Call::SyncDir, dir, || File::open(dir)?.sync_all())
    }

    /// Renames a file.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Call::Rename, from, || fs::rename(from, to))
    }

    /// Removes a file. One that is not there is no error.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match self.call(Call::Remove, path, || fs::remove_file(path)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}
