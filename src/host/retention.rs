//! The end of simple captures' files. Owns when they are removed, and that they are on the quota; not how they are written or
//! served.
//!
//! What an account's files have is charged to its share of the spool. If they pass what they may have of that, the account's
//! oldest go before their time.
//!
//! The wall clock may be stepped while the process lives, so it is asked for a file's age only when the process starts. From
//! then on a capture ages by the monotonic clock, beginning with the sweep that first sees its last file. A file whose time
//! stamp lies in the future counts as new.
//!
//! Invariant: what a capture has goes once its last file is older than the retention, whichever process wrote it and also if
//! that died half way; nothing of a capture goes while it is under way. A step of the clock removes nothing early and keeps
//! nothing longer than one retention more.

use super::storage::Storage;
use super::tasks::turn_of;
use crate::config::Plan;
use crate::deliver::Manifest;
use crate::job::PartId;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// How often at most the directory is looked through.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How long it is left alone after new files: those of one moment are looked at together.
const CALM: Duration = Duration::from_millis(100);

/// Removes files that are older than their time, or more than their account may have, for as long as it is polled. See
/// [`Sweeper`].
pub(super) fn keep(plan: watch::Receiver<Arc<Plan>>, storage: &Storage) -> impl Future<Output = ()> + use<> {
    let (dir, spool, written) =
        (storage.simple_dir(), Arc::clone(&storage.spool), Arc::clone(&storage.simple_written));
    let first = Arc::clone(&plan.borrow());
    let (spool_dir, retention) = (first.spool.dir.clone(), first.capture.simple_retention);
    let sweeper = Sweeper::new(dir, spool_dir, retention, first.simple_bytes_max());
    let sweeper = Arc::new(Mutex::new(sweeper));
    async move {
        let mut turn = tokio::time::interval(SWEEP_INTERVAL_MAX.min(retention));
        loop {
            tokio::select! {
                _ = turn.tick() => {}
                () = written.notified() => tokio::time::sleep(CALM).await,
            }
            let (sweeper, spool) = (Arc::clone(&sweeper), Arc::clone(&spool));
            let plan = Arc::clone(&plan.borrow());
            let sweep = move || {
                let mut sweeper = sweeper.lock().unwrap_or_else(PoisonError::into_inner);
                sweeper.retention = plan.capture.simple_retention;
                sweeper.account_bytes_max = plan.simple_bytes_max();
                let removed = sweeper.sweep(SystemTime::now(), Instant::now());
                spool.set_simple(&sweeper.held());
                match removed {
                    Ok(0) => {}
                    Ok(removed) => tracing::info!(removed, "files of old simple captures were removed"),
                    Err(error) => {
                        tracing::error!(%error, "files of old simple captures could not be removed")
                    }
                }
            };
            if turn_of("removing files of old simple captures", sweep).await.is_break() {
                return;
            }
        }
    }
}

/// What is known of one capture's files.
#[derive(Clone, Debug)]
struct Seen {
    /// The time stamp of the last one.
    newest: SystemTime,
    /// How old that was when it was first seen, and when that was.
    age: Duration,
    since: Instant,
    /// Whose they are, once the manifest is there.
    account: Option<String>,
    bytes: u64,
}

impl Seen {
    fn age(&self, now: Instant) -> Duration {
        self.age.saturating_add(now.saturating_duration_since(self.since))
    }
}

/// One capture's files.
struct Files {
    /// The time stamp of the last one.
    newest: SystemTime,
    paths: Vec<PathBuf>,
    bytes: u64,
}

impl Files {
    /// Whose they are, as their manifest says.
    fn account(&self) -> Option<String> {
        let manifest = self.paths.iter().find(|path| path.extension().is_some_and(|end| end == "json"))?;
        let manifest = Manifest::parse(&std::fs::read(manifest).ok()?).ok()?;
        manifest.account.map(|account| account.0)
    }
}

/// Removes what is too old, and remembers since when it has seen what.
struct Sweeper {
    dir: PathBuf,
    /// Has a directory for every capture under way.
    spool_dir: PathBuf,
    retention: Duration,
    /// The most that one account's files may have.
    account_bytes_max: u64,
    seen: HashMap<String, Seen>,
    swept: Option<Instant>,
}

impl Sweeper {
    fn new(dir: PathBuf, spool_dir: PathBuf, retention: Duration, account_bytes_max: u64) -> Self {
        Self { dir, spool_dir, retention, account_bytes_max, seen: HashMap::new(), swept: None }
    }

    /// Bytes of each account's files at the last sweep.
    fn held(&self) -> HashMap<String, u64> {
        let mut held = HashMap::new();
        for seen in self.seen.values() {
            if let Some(account) = &seen.account {
                *held.entry(account.clone()).or_insert(0) += seen.bytes;
            }
        }
        held
    }

    /// Removes what is too old at this moment by both clocks; how many files that were. A file that cannot be removed keeps no
    /// other one; the first error is returned.
    fn sweep(&mut self, wall: SystemTime, now: Instant) -> io::Result<usize> {
        let captures = captures(&self.dir)?;
        self.seen.retain(|capture, _| captures.contains_key(capture));
        // What appeared since the last sweep is not older than that, whatever the wall clock says.
        let age_max = self.swept.map_or(Duration::MAX, |swept| now.saturating_duration_since(swept));
        self.swept = Some(now);
        for (capture, files) in &captures {
            let age = wall.duration_since(files.newest).unwrap_or_default().min(age_max);
            let new = Seen { newest: files.newest, age, since: now, account: None, bytes: files.bytes };
            let seen = self.seen.entry(capture.clone()).or_insert_with(|| new.clone());
            if seen.newest != files.newest {
                *seen = Seen { account: seen.account.take(), ..new };
            }
            seen.bytes = files.bytes;
            if seen.account.is_none() {
                seen.account = files.account();
            }
        }
        let (mut removed, mut failed) = (0, None);
        for capture in self.too_many(now) {
            let Some(files) = captures.get(&capture) else { continue };
            let mut is_gone = true;
            for path in &files.paths {
                match std::fs::remove_file(path) {
                    Ok(()) => removed += 1,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => (is_gone, failed) = (false, failed.or(Some(error))),
                }
            }
            if is_gone {
                self.seen.remove(&capture);
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    /// Captures whose time is over or that are too much for their account, the oldest first, and that are not under way.
    fn too_many(&self, now: Instant) -> Vec<String> {
        let is_under_way = |capture: &str| self.spool_dir.join(capture).try_exists().unwrap_or(true);
        let mut held = self.held();
        let mut oldest_first: Vec<_> = self.seen.iter().collect();
        oldest_first.sort_by_key(|(capture, seen)| (Reverse(seen.age(now)), *capture));
        let mut go = Vec::new();
        for (capture, seen) in oldest_first {
            let of_account = seen.account.as_ref().and_then(|account| held.get_mut(account));
            let is_over = of_account.as_ref().is_some_and(|bytes| **bytes > self.account_bytes_max);
            if (seen.age(now) > self.retention || is_over) && !is_under_way(capture) {
                if let Some(bytes) = of_account {
                    *bytes -= seen.bytes;
                }
                go.push(capture.clone());
            }
        }
        go
    }
}

/// Each capture's files. They go together: a customer fetches all of them or none.
fn captures(dir: &Path) -> io::Result<HashMap<String, Files>> {
    let mut captures: HashMap<String, Files> = HashMap::new();
    let entries = match std::fs::read_dir(dir) {
        // The first simple capture makes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(captures),
        entries => entries?,
    };
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
        let capture =
            PartId::parse(name.trim_start_matches('.')).map_or(name, |(part, _)| part.capture.to_string());
        let none = || Files { newest: SystemTime::UNIX_EPOCH, paths: Vec::new(), bytes: 0 };
        let files = captures.entry(capture).or_insert_with(none);
        files.newest = files.newest.max(metadata.modified()?);
        files.bytes += metadata.len();
        files.paths.push(entry.path());
    }
    Ok(captures)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const NOW: &str = "fedcba9876543210fedcba9876543210";

    fn sweeper(dir: &Path, spool_dir: &Path) -> Sweeper {
        Sweeper::new(dir.to_owned(), spool_dir.to_owned(), Duration::from_secs(60), 30_000)
    }

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
        let mut sweeper = sweeper(dir.path(), spool.path());
        let mut sweep = || sweeper.sweep(now, Instant::now()).unwrap();
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
        let (mut sweeper, start) = (sweeper(dir.path(), spool.path()), Instant::now());
        let after = Duration::from_secs(2);
        assert_eq!(sweeper.sweep(now, start).unwrap(), 0);
        assert_eq!(sweeper.sweep(now + after, start + after).unwrap(), 2, "the one that ended");
        std::fs::remove_dir(spool.path().join(NOW)).unwrap();
        assert_eq!(sweeper.sweep(now, start + after).unwrap(), 1, "the one whose process died for good");
    }

    #[test]
    fn an_accounts_files_have_their_share_and_its_oldest_go_first() {
        let (dir, spool, now) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), SystemTime::now());
        for (n, account, age_seconds) in [(1, "b", 40), (2, "b", 50), (3, "b", 30), (4, "a", 55)] {
            let id = format!("{n:032x}");
            let manifest = crate::deliver::empty_manifest(&crate::job::CaptureId::parse(&id).unwrap());
            let account = Some(crate::job::AccountId(account.to_owned()));
            let json = Manifest { account, ..manifest }.to_json().unwrap();
            for (name, bytes) in
                [(format!("pcap_{id}.pcap"), vec![0; 10_000]), (format!("pcap_{id}.json"), json)]
            {
                std::fs::write(dir.path().join(&name), bytes).unwrap();
                let file = std::fs::File::options().write(true).open(dir.path().join(&name)).unwrap();
                file.set_modified(now - Duration::from_secs(age_seconds)).unwrap();
            }
        }
        let mut sweeper = sweeper(dir.path(), spool.path());
        assert_eq!(sweeper.sweep(now, Instant::now()).unwrap(), 2, "the oldest of the one that has too much");
        assert!(!dir.path().join(format!("pcap_{:032x}.pcap", 2)).exists());
        assert!(dir.path().join(format!("pcap_{:032x}.pcap", 4)).exists(), "older, and another account's");
        let held = sweeper.held();
        assert!(held["a"] > 10_000 && held["b"] > 20_000 && held["b"] <= 30_000, "{held:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_no_error() {
        let nowhere = Path::new("/nonexistent/trawl");
        assert_eq!(sweeper(nowhere, nowhere).sweep(SystemTime::now(), Instant::now()).unwrap(), 0);
    }

    #[test]
    fn a_step_of_the_clock_removes_nothing_early_and_keeps_nothing_for_good() {
        let (day, minute) = (Duration::from_secs(86_400), Duration::from_secs(60));
        for (is_ahead, step) in [(true, day), (false, day)] {
            let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (wall, start) = (SystemTime::now(), Instant::now());
            let stepped = if is_ahead { wall + step } else { wall - step };
            let mut sweeper = sweeper(dir.path(), spool.path());
            make(dir.path(), "before.pcap", wall, 1);
            assert_eq!(sweeper.sweep(wall, start).unwrap(), 0);
            // Written before the step, and first seen after it.
            make(dir.path(), "between.pcap", wall, 0);
            make(dir.path(), "after.pcap", stepped, 0);
            let (wall, now) = (stepped + minute / 2, start + minute / 2);
            assert_eq!(sweeper.sweep(wall, now).unwrap(), 0, "ahead: {is_ahead}");
            assert_eq!(
                sweeper.sweep(wall + minute / 2, now + minute / 2).unwrap(),
                1,
                "the first one's time"
            );
            assert_eq!(sweeper.sweep(wall + 2 * minute, now + 2 * minute).unwrap(), 2, "the others'");
        }
        // What a process with a clock that was ahead left: it goes after one retention more.
        let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (wall, start) = (SystemTime::now(), Instant::now());
        make(dir.path(), "future.pcap", wall + day, 0);
        let mut sweeper = sweeper(dir.path(), spool.path());
        assert_eq!(sweeper.sweep(wall, start).unwrap(), 0);
        assert_eq!(sweeper.sweep(wall + minute, start + minute).unwrap(), 0);
        assert_eq!(sweeper.sweep(wall + 2 * minute, start + 2 * minute).unwrap(), 1);
    }
}
