//! A file that grows under a temporary name until it is whole. Owns the name, the publication by rename, and the list of what
//! this process must remove when a signal ends it.
//!
//! Invariant: a file has its own name only when it is whole and on the disk.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Of the name that is kept in the temporary one; together they are shorter than the 255 bytes of any file system.
const NAME_BYTES_MAX: usize = 200;

#[derive(Debug)]
struct Parts {
    paths: BTreeSet<PathBuf>,
    /// The process ends: no more are made.
    are_discarded: bool,
}

static PARTS: Mutex<Parts> = Mutex::new(Parts { paths: BTreeSet::new(), are_discarded: false });

fn parts() -> MutexGuard<'static, Parts> {
    PARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every file of this process that is not whole yet, and lets no more be made: for a process that is about to exit
/// without returning from where it is.
pub fn discard_parts() {
    let mut parts = parts();
    parts.are_discarded = true;
    for path in std::mem::take(&mut parts.paths) {
        let _nothing_more_can_be_done = std::fs::remove_file(path);
    }
}

/// See the module. Removed when dropped, unless published.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    target: PathBuf,
    file: File,
}

impl Part {
    /// Begins the file that will be `target`.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        let Some(name) = target.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no file name"));
        };
        let name = &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)];
        let mut hidden = OsString::from(".");
        hidden.push(std::ffi::OsStr::from_bytes(name));
        hidden.push(format!(".{}.part", std::process::id()));
        let mut path = directory(target).join(hidden);
        let mut parts = parts();
        if parts.are_discarded {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let make = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
        let file = match make(&path) {
            // A process that was killed left it: in a container the next one has the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                path.set_extension(format!("{}.part", uuid::Uuid::new_v4().simple()));
                make(&path)?
            }
            made => made?,
        };
        parts.paths.insert(path.clone());
        Ok(Self { path, target: target.to_owned(), file })
    }

    /// What is written to.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Makes the file durable and gives it its name.
    pub(super) fn publish(self) -> io::Result<()> {
        self.file.sync_all()?;
        let mut parts = parts();
        std::fs::rename(&self.path, &self.target)?;
        parts.paths.remove(&self.path);
        drop(parts);
        File::open(directory(&self.target))?.sync_all()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if parts().paths.remove(&self.path) {
            let _nothing_more_can_be_done = std::fs::remove_file(&self.path);
        }
    }
}

/// The directory that a path's last part stands in.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_of_the_same_number_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(format!(".out.pcap.{}.part", std::process::id()));
        std::fs::write(&left, "half").unwrap();
        for _ in 0..2 {
            let part = Part::create(&dir.path().join("out.pcap")).unwrap();
            io::Write::write_all(&mut part.file().unwrap(), b"whole").unwrap();
            part.publish().unwrap();
        }
        assert_eq!(std::fs::read(dir.path().join("out.pcap")).unwrap(), b"whole");
        // It may be another host's on the same disk.
        assert_eq!(std::fs::read(&left).unwrap(), b"half");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
