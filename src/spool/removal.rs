//! The end of a capture's directory. Owns the name that it has while it is removed; not whether it may be.
//!
//! Invariant: a directory under a capture's name is whole. What a failure or a death leaves of a removal has another name, and the
//! next start removes it.

use std::fs;
use std::io;
use std::path::Path;

/// Begins the names of directories that are being removed.
const PREFIX: &str = ".removed-";

/// Removes a capture's directory with all that is in it.
///
/// # Errors
/// When the file system refuses. The directory is then whole, or has its other name and goes at the next start.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    let Some(name) = dir.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let removed = dir.with_file_name(format!("{PREFIX}{}", name.to_string_lossy()));
    match fs::rename(dir, &removed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    fs::remove_dir_all(&removed)
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
