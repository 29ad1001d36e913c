//! The end of simple captures' files. Owns when they are removed; not how they are written or served.
//!
//! Invariant: a file goes once it is older than the retention, also one that a dead process left half written.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often at most the directory is looked through.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Removes files of `dir` that are older than `retention`, for as long as it is polled.
pub(super) async fn keep(dir: PathBuf, retention: Duration) {
    let mut turn = tokio::time::interval(SWEEP_INTERVAL_MAX.min(retention));
    loop {
        turn.tick().await;
        let dir = dir.clone();
        let swept = tokio::task::spawn_blocking(move || sweep(&dir, retention, SystemTime::now()));
        match swept.await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::info!(removed, "files of old simple captures were removed"),
            Ok(Err(error)) => tracing::error!(%error, "files of old simple captures could not be removed"),
            Err(_runtime_ends) => return,
        }
    }
}

/// Removes what is too old at `now`; how many files that were.
fn sweep(dir: &Path, retention: Duration, now: SystemTime) -> io::Result<usize> {
    let entries = match std::fs::read_dir(dir) {
        // The first simple capture makes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // A temporary file that was given its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let old = now.duration_since(metadata.modified()?).is_ok_and(|age| age > retention);
        if metadata.is_file() && old {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_too_old_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (name, age_seconds) in [("old.pcap", 61), ("old.json", 61), (".old.half", 61), ("new.pcap", 59)] {
            let file = std::fs::File::create(dir.path().join(name)).unwrap();
            file.set_modified(now - Duration::from_secs(age_seconds)).unwrap();
        }
        std::fs::create_dir(dir.path().join("directory")).unwrap();
        assert_eq!(sweep(dir.path(), Duration::from_secs(60), now).unwrap(), 3);
        assert!(dir.path().join("new.pcap").exists());
        assert_eq!(sweep(dir.path(), Duration::from_secs(60), now).unwrap(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_no_error() {
        assert_eq!(sweep(Path::new("/nonexistent/trawl"), Duration::ZERO, SystemTime::now()).unwrap(), 0);
    }
}
