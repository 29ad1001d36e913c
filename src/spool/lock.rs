//! One process per spool. Owns the lock file.
//!
//! The kernel releases the lock when its holder dies, so a lock file alone means nothing. The process id in it is for people.
//!
//! Invariant: while a [`SpoolLock`] lives no other one for the same directory does.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NAME: &str = ".lock";
/// How long to wait for a holder that ends soon: a killed process, or one that only reads.
const PATIENCE: Duration = Duration::from_millis(1000);
const PAUSE: Duration = Duration::from_millis(50);

/// Why a spool cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "the spool {dir} is in use by {holder}; end that process, or name another directory: two processes would destroy each other's segments"
    )]
    Held {
        /// The spool.
        dir: PathBuf,
        /// Its process, as far as it is known.
        holder: String,
    },
    /// The lock file.
    #[error("cannot lock the spool with {path}: {source}; the file must belong to trawl's user")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A locked spool, until this is dropped or the process ends.
#[derive(Debug)]
pub struct SpoolLock {
    _file: File,
}

impl SpoolLock {
    /// Locks the spool in `dir`, which must exist.
    ///
    /// # Errors
    /// [`LockError`]; [`LockError::Held`] names the process that has it.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(NAME);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(|source| LockError::File { path: path.clone(), source })?;
        wait_for(&mut file, dir, &path)?;
        let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        written.map_err(|source| LockError::File { path, source })?;
        Ok(Self { _file: file })
    }

    /// As [`SpoolLock::take`], for a reader. On a read-only file system nobody can write, so there `None` is enough.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take_to_read(dir: &Path) -> Result<Option<Self>, LockError> {
        match Self::take(dir) {
            Err(LockError::File { source, .. }) if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Ok(None)
            }
            taken => taken.map(Some),
        }
    }

    /// Waits until the spool in `dir` is free, as long as [`SpoolLock::take`] does; creates no file.
    ///
    /// # Errors
    /// [`LockError::Held`].
    pub fn wait_until_free(dir: &Path) -> Result<(), LockError> {
        let since = Instant::now();
        while let Some(holder) = Self::holder(dir) {
            if since.elapsed() >= PATIENCE {
                return Err(LockError::Held { dir: dir.to_owned(), holder });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The process that has the spool in `dir` now; none if it is free, or there is no spool.
    #[must_use]
    pub fn holder(dir: &Path) -> Option<String> {
        let mut file = File::open(dir.join(NAME)).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => Some(holder(&mut file)),
            _ => None,
        }
    }
}

fn wait_for(file: &mut File, dir: &Path, path: &Path) -> Result<(), LockError> {
    let since = Instant::now();
    loop {
        match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if since.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held { dir: dir.to_owned(), holder: holder(file) });
            }
            Err(e) => return Err(LockError::File { path: path.to_owned(), source: e.into() }),
        }
    }
}

/// The process id in a lock file.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(32).read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", name.trim()),
            Err(_) => format!("process {pid}"),
        },
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_with_the_process_that_has_it_until_that_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(SpoolLock::holder(dir.path()), None);
        let lock = SpoolLock::take(dir.path()).unwrap();
        let error = SpoolLock::take_to_read(dir.path()).unwrap_err();
        let pid = format!("process {} (", std::process::id());
        assert!(matches!(&error, LockError::Held { holder, .. } if holder.starts_with(&pid)), "{error}");
        assert!(SpoolLock::holder(dir.path()).unwrap().starts_with(&pid));
        drop(lock);
        assert_eq!(SpoolLock::holder(dir.path()), None);
        SpoolLock::take(dir.path()).unwrap();
    }
}
