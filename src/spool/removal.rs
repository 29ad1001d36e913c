//! The end of a capture's directory. Owns the name that it has while it is removed; not whether it may be.
//!
//! Invariant: a directory under a capture's name is whole. What a failure or a death leaves of a removal has another name, and the
//! next start removes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Begins the names of directories that are being removed.
const PREFIX: &str = ".removed-";

/// Attempts: a file that is written meanwhile may make a directory not empty, and a disk may refuse once.
const ATTEMPTS: u32 = 3;

/// What a directory is called while it is removed.
pub(super) fn renamed(dir: &Path) -> PathBuf {
    dir.with_file_name(format!("{PREFIX}{}", dir.file_name().unwrap_or_default().to_string_lossy()))
}

/// Removes a capture's directory with all that is in it.
///
/// # Errors
/// When the file system refuses. The directory is then whole, or has its other name and goes at the next start.
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    let removed = renamed(dir);
    again(|| fs::rename(dir, &removed))?;
    again(|| fs::remove_dir_all(&removed))
}

fn again(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if left > 0 => {}
            done => return done,
        }
    }
}

/// Removes what removals in the spool `dir` left.
pub(super) fn finish(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(dir = %entry.path().display(), %error, "what is left of a delivered capture could not be removed");
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    #[test]
    fn what_a_removal_leaves_has_no_captures_name_and_goes_at_the_next_start() {
        let spool = tempfile::tempdir().unwrap();
        let dir = spool.path().join("0123456789abcdef0123456789abcdef");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(".journal"), "x").unwrap();
        remove_dir(&dir).unwrap();
        remove_dir(&dir).unwrap();
        assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
        let half = spool.path().join(".removed-0123456789abcdef0123456789abcdef");
        fs::create_dir(&half).unwrap();
        fs::write(half.join(".journal"), "x").unwrap();
        finish(spool.path()).unwrap();
        assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
    }
}
