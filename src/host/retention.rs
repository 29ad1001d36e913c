//! The end of simple captures' files. Owns when they are removed; not how they are written or served.
//!
//! Invariant: what a capture has goes once its last file is older than the retention, whichever process wrote it and also if
//! that died half way; nothing of a capture goes while it is under way. So all that is known stands in the directory.

use crate::upload::capture_of;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often at most the directory is looked through.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Removes files of `dir` that are older than `retention`, for as long as it is polled. See [`sweep`].
pub(super) async fn keep(dir: PathBuf, spool_dir: PathBuf, retention: Duration) {
    let mut turn = tokio::time::interval(SWEEP_INTERVAL_MAX.min(retention));
    loop {
        turn.tick().await;
        let (dir, spool_dir) = (dir.clone(), spool_dir.clone());
        let swept =
            tokio::task::spawn_blocking(move || sweep(&dir, &spool_dir, retention, SystemTime::now()));
        match swept.await {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::info!(removed, "files of old simple captures were removed"),
            Ok(Err(error)) => tracing::error!(%error, "files of old simple captures could not be removed"),
            // The next turn tries again.
            Err(error) if error.is_panic() => {
                tracing::error!("looking for files of old simple captures panicked")
            }
            Err(_runtime_ends) => return,
        }
    }
}

/// Removes what is too old at `now`; how many files that were. `spool_dir` has a directory for every capture under way.
fn sweep(dir: &Path, spool_dir: &Path, retention: Duration, now: SystemTime) -> io::Result<usize> {
    let entries = match std::fs::read_dir(dir) {
        // The first simple capture makes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    // A capture's files go together, counted from the last one: a customer fetches all of them or none.
    let mut captures: HashMap<String, (SystemTime, Vec<PathBuf>)> = HashMap::new();
    for entry in entries {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // A temporary file that was given its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if !metadata.is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let capture = capture_of(name.trim_start_matches('.')).map_or(name, |id| id.to_string());
        let (newest, paths) = captures.entry(capture).or_insert((SystemTime::UNIX_EPOCH, Vec::new()));
        *newest = (*newest).max(metadata.modified()?);
        paths.push(entry.path());
    }
    let mut removed = 0;
    for (capture, (newest, paths)) in captures {
        let is_old = now.duration_since(newest).is_ok_and(|age| age > retention);
        if !is_old || spool_dir.join(capture).is_dir() {
            continue;
        }
        for path in paths {
            std::fs::remove_file(path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const NOW: &str = "fedcba9876543210fedcba9876543210";

    fn make(dir: &Path, name: &str, now: SystemTime, age_seconds: u64) {
        let file = std::fs::File::create(dir.join(name)).unwrap();
        file.set_modified(now - Duration::from_secs(age_seconds)).unwrap();
    }

    #[test]
    fn only_files_that_are_too_old_are_removed() {
        let (dir, spool, now) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), SystemTime::now());
        for (name, age_seconds) in [("old.pcap", 61), ("old.json", 61), (".old.half", 61), ("new.pcap", 59)] {
            make(dir.path(), name, now, age_seconds);
        }
        std::fs::create_dir(dir.path().join("directory")).unwrap();
        let sweep = || sweep(dir.path(), spool.path(), Duration::from_secs(60), now).unwrap();
        assert_eq!(sweep(), 3);
        assert!(dir.path().join("new.pcap").exists());
        assert_eq!(sweep(), 0);
    }

    #[test]
    fn what_a_capture_has_goes_together_and_never_while_it_is_under_way() {
        let (dir, spool, now) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), SystemTime::now());
        // The first object of a long capture is old before its manifest is there.
        make(dir.path(), &format!("pcap_{ID}.pcap"), now, 7200);
        make(dir.path(), &format!("pcap_{ID}.json"), now, 59);
        // A capture that has seen few packets wrote to its file long ago, and still has it open.
        make(dir.path(), &format!(".pcap_{NOW}.pcap.half"), now, 7200);
        std::fs::create_dir(spool.path().join(NOW)).unwrap();
        let sweep = |now| sweep(dir.path(), spool.path(), Duration::from_secs(60), now).unwrap();
        assert_eq!(sweep(now), 0);
        assert_eq!(sweep(now + Duration::from_secs(2)), 2, "the one that ended");
        std::fs::remove_dir(spool.path().join(NOW)).unwrap();
        assert_eq!(sweep(now), 1, "the one whose process died for good");
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_no_error() {
        let nowhere = Path::new("/nonexistent/trawl");
        assert_eq!(sweep(nowhere, nowhere, Duration::ZERO, SystemTime::now()).unwrap(), 0);
    }
}
