//! The files beside a capture's segments from which another process can finish it without the job store: request and counts
//! (`.capture.json`), the counts in its last object (`.counts.json`), the final manifest (`.manifest.json`), and a mark for
//! leftovers of uploads in its store (`.leftovers`). Owns these files; the complete objects are in `journal`.
//!
//! Invariant: a file is replaced as a whole; final counts and a final manifest never change.

use super::journal::{self, Journal};
use super::manifest::{Manifest, ManifestError};
use crate::job::{Job, Ledger};
use crate::pcap::{Counts, ObjectFormat, Origin};
use crate::spool::{self, Cut, Spool, spool_id};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const RECORD: &str = ".capture.json";
const MANIFEST: &str = ".manifest.json";
const COUNTS: &str = ".counts.json";
const LEFTOVERS: &str = ".leftovers";
/// Queues that a segment's name can tell apart. A record of more is damaged, and its number is memory.
const QUEUES_MAX: usize = 1 << 16;
/// Objects are cut no smaller, whatever a record says: one for each packet would never end.
const OBJECT_BYTES_MIN: u64 = 64 << 10;
/// Attempts to keep or read the counts.
const ATTEMPTS: u32 = 6;

/// A capture's record while it is in the spool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaptureRecord {
    /// As the job store has it, with the counts at `known_until`. On disk without its objects, which the journal has: the
    /// record is written each second, and its size must not grow with them.
    #[serde(serialize_with = "without_objects")]
    pub job: Job,
    /// RX queues.
    pub queues: usize,
    /// Snap length of its files.
    pub snaplen: u32,
    /// Size at which objects are cut.
    pub object_bytes_max: u64,
    /// Their format.
    #[serde(default)]
    pub format: ObjectFormat,
    /// Host and ports, for pcapng objects.
    #[serde(default)]
    pub origin: Origin,
    /// Name of the spool's directory that each queue is written to, by queue, in a spool of several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dirs: BTreeMap<u16, String>,
    /// When the first worker attached it.
    pub started: Option<Timestamp>,
    /// When the last worker had detached it.
    pub ended: Option<Timestamp>,
    /// Time of its counts.
    pub known_until: Timestamp,
    /// Whether its counts are final: every stream had ended and everything was published.
    pub is_final: bool,
}

/// A record of an older version has objects; they are not written again.
fn without_objects<S: Serializer>(job: &Job, serializer: S) -> Result<S::Ok, S::Error> {
    job.without_objects().serialize(serializer)
}

impl CaptureRecord {
    /// Reads the record of a directory; none if it has none.
    ///
    /// # Errors
    /// When it cannot be read; `InvalidData` when it is damaged.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(dir.join(RECORD)) {
            Ok(json) => {
                let path = dir.join(RECORD);
                let mut record: Self = serde_json::from_slice(&json).map_err(|e| damaged(&path, &e))?;
                if record.queues > QUEUES_MAX {
                    let message = format!("{} is damaged: {} queues", path.display(), record.queues);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                record.object_bytes_max = record.object_bytes_max.max(OBJECT_BYTES_MIN);
                if let Err(imbalance) = record.job.ledger.check() {
                    tracing::error!(path = %path.display(), %imbalance, "a record's counts are damaged and not believed");
                    (record.job.ledger, record.is_final) = (Ledger::default(), false);
                }
                // A record of an older version has objects of its own, and these are older.
                let journalled = journal::objects(dir)?;
                if journalled.len() >= record.job.objects.len() {
                    record.job.objects = journalled;
                }
                Ok(Some(record))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Replaces a directory's record. Waits for the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        replace(dir, RECORD, &serde_json::to_vec(self).map_err(io::Error::other)?)
    }
}

/// A final manifest, with the text that is signed and published.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The manifest.
    pub manifest: Manifest,
    /// Its text. Another version may have written it, so it is published as it is.
    pub json: Vec<u8>,
}

impl Settled {
    /// From a new manifest.
    ///
    /// # Errors
    /// Never in practice: every member has a JSON form.
    pub fn new(manifest: Manifest) -> Result<Self, ManifestError> {
        Ok(Self { json: manifest.to_json()?, manifest })
    }
}

/// Reads a capture's final manifest, if there is one.
///
/// # Errors
/// When it cannot be read; `InvalidData` when it is damaged.
pub fn settled(dir: &Path) -> io::Result<Option<Manifest>> {
    Ok(settled_text(dir)?.map(|settled| settled.manifest))
}

/// As [`settled`], with its text.
///
/// # Errors
/// As [`settled`].
pub fn settled_text(dir: &Path) -> io::Result<Option<Settled>> {
    let path = dir.join(MANIFEST);
    match fs::read(&path) {
        Ok(json) => match Manifest::parse(&json) {
            Ok(manifest) => Ok(Some(Settled { manifest, json })),
            // Of a newer program: whole, and not to be replaced.
            Err(e @ ManifestError::Version { .. }) => {
                Err(io::Error::other(format!("{}: {e}", path.display())))
            }
            Err(e) => Err(damaged(&path, &e)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {error}", path.display()))
}

/// Makes the manifest final, unless there is a final one: a dead process may have published the signature of the first one, and
/// objects in a bucket are not replaced. A manifest without objects gets those of the journal, and one that is damaged is put
/// aside. Waits for the disk.
///
/// # Errors
/// When it cannot be read or written.
pub fn settle(dir: &Path, mut manifest: Manifest) -> io::Result<Settled> {
    match settled_text(dir) {
        Ok(Some(first)) => return Ok(first),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::error!(%error, "a capture's manifest is made again");
            fs::rename(dir.join(MANIFEST), dir.join(format!("{MANIFEST}.damaged")))?;
        }
        read => drop(read?),
    }
    if manifest.objects.is_empty() {
        manifest.objects = journal::objects(dir)?;
    }
    let settled = Settled::new(manifest).map_err(io::Error::other)?;
    match replace(dir, MANIFEST, &settled.json) {
        // Somebody removed the directory of a capture that is delivered already. Never more than this directory is made, and only
        // in a spool: below the mount point of a disk that is not there it would be hidden once the disk is back.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && !settled.manifest.objects.is_empty()
                && dir.parent().is_some_and(|spool| spool_id(spool).is_ok_and(|id| id.is_some())) =>
        {
            fs::create_dir(dir)?;
            replace(dir, MANIFEST, &settled.json)?;
        }
        replaced => replaced?,
    }
    Ok(settled)
}

/// The final counts for the end of a capture's last pcapng object, if there are any.
///
/// # Errors
/// When they cannot be read; `InvalidData` when they are damaged.
pub fn counts(dir: &Path) -> io::Result<Option<Counts>> {
    match again_and_again(|| fs::read(dir.join(COUNTS))) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|e| damaged(&dir.join(COUNTS), &e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes these counts final before an object with them is made: a repeated merge must write the same. Waits for the disk.
///
/// # Errors
/// When they cannot be written.
pub fn settle_counts(dir: &Path, counts: &Counts) -> io::Result<()> {
    let json = serde_json::to_vec(counts).map_err(io::Error::other)?;
    again_and_again(|| replace(dir, COUNTS, &json))
}

/// Retries an operation that has no later retry: one failure of the disk must not decide the counts in a capture's last object.
/// Waits up to about two seconds.
fn again_and_again<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut pause = Duration::from_millis(50);
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(pause),
            done => return done,
        }
        pause *= 2;
    }
    attempt()
}

pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = dir.join(format!("{name}.part"));
    let written = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, dir.join(name))
    };
    written().inspect_err(|_| {
        let _none_or_replaced_by_the_next = fs::remove_file(&part);
    })?;
    File::open(dir)?.sync_all()
}

/// Marks that leftovers of uploads could not be removed from a capture's store. Its directory stays until they are, because only
/// its record names the place. Waits for the disk.
///
/// # Errors
/// When the file system refuses.
pub(super) fn note_leftovers(dir: &Path) -> io::Result<()> {
    File::create(dir.join(LEFTOVERS)).map(drop)
}

/// Removes the mark.
///
/// # Errors
/// When the file system refuses.
pub(super) fn forget_leftovers(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(LEFTOVERS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes a directory of which everything is delivered, and releases its quota. `false`: it stays, because it has packets that no
/// object has, or unknown files, or a mark for leftovers.
///
/// # Errors
/// When the file system refuses.
pub fn remove(spool: &Spool, dir: &Path) -> io::Result<bool> {
    if dir.join(LEFTOVERS).try_exists()? {
        return Ok(false);
    }
    let mut kept = None;
    for (disk, place) in spool.places(dir) {
        match undelivered(dir, &place) {
            Ok(found) => kept = kept.or(found),
            Err(e) if e.kind() == io::ErrorKind::NotFound && disk.index() == 0 => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    if let Some(kept) = kept {
        tracing::warn!(
            kept = %kept.display(),
            "a capture's directory stays in the spool: this file is in no object; `trawl recover` shows what is in it"
        );
        return Ok(false);
    }
    spool.remove_capture_dir(dir)
}

/// Removes a directory with everything in it, delivered or not, and releases what it held. Waits for the disk.
///
/// # Errors
/// When the file system refuses; a second try goes on.
pub(crate) fn discard(spool: &Spool, dir: &Path) -> io::Result<()> {
    if dir.join(LEFTOVERS).try_exists()? {
        tracing::warn!(
            dir = %dir.display(),
            "its store may hold leftovers of uploads, which a lifecycle rule of the bucket removes"
        );
    }
    spool.discard_capture_dir(dir)
}

/// A file in `place`, where a capture has segments, that is in no object of the journal in its home.
fn undelivered(home: &Path, place: &Path) -> io::Result<Option<PathBuf>> {
    let mut journalled = None;
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".open") || name.ends_with(".len") {
            return Ok(Some(path));
        }
        let Some((queue, sequence)) = spool::place(&name) else { continue };
        if journalled.is_none() {
            journalled = Some(Journal::read(home)?);
        }
        let entries = journalled.as_deref().unwrap_or_default();
        let is_before = |cut: &Cut| sequence < cut.sequence;
        let held = entries.last().and_then(|last| last.cuts.get(queue)).is_some_and(is_before);
        let passed_over =
            entries.iter().flat_map(|e| &e.gaps).any(|gap| (gap.queue, gap.sequence) == (queue, sequence));
        if !held || passed_over {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::deliver::journal::Entry;
    use crate::job::{CaptureId, ObjectInfo};
    use crate::merge::Gap;

    #[test]
    fn the_manifest_that_was_settled_first_is_the_one_that_is_published_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let first = crate::deliver::empty_manifest(&CaptureId::random());
        assert_eq!(settled(dir.path()).unwrap(), None);
        let of_first = settle(dir.path(), first.clone()).unwrap();
        assert_eq!(of_first.manifest, first);
        let later = Manifest { recovered: true, ..first.clone() };
        assert_eq!(settle(dir.path(), later).unwrap(), of_first);
        // A newer program's, and in an order of its own.
        let text = String::from_utf8(of_first.json).unwrap();
        let newer = text
            .replacen('{', "{\n  \"tier\": {\"cold\": [1, 2]},", 1)
            .replace("\"queues\"", "\"a\": 1, \"queues\"");
        fs::write(dir.path().join(MANIFEST), &newer).unwrap();
        let read = settle(dir.path(), first.clone()).unwrap();
        assert_eq!((read.manifest, read.json), (first, newer.into_bytes()));
    }

    #[test]
    fn a_manifest_is_settled_although_the_directory_was_removed_and_not_where_the_spool_is_away() {
        let spool = tempfile::tempdir().unwrap();
        let mut manifest = crate::deliver::empty_manifest(&CaptureId::random());
        let dir = spool.path().join(manifest.id.as_str());
        assert!(settle(&dir, manifest.clone()).is_err(), "its objects are not known");
        let name = crate::deliver::object_name(&manifest.part(), 0, ObjectFormat::default());
        manifest.objects = vec![ObjectInfo { name, ..ObjectInfo::default() }];
        assert!(settle(&dir, manifest.clone()).is_err() && !dir.exists(), "it is no spool: its disk is away");
        crate::spool::name_spool(spool.path()).unwrap();
        assert_eq!(settle(&dir, manifest.clone()).unwrap().manifest, manifest);
        assert_eq!(settled(&dir).unwrap(), Some(manifest.clone()));
        assert!(settle(&spool.path().join("away").join("capture"), manifest).is_err());
    }

    #[test]
    fn a_damaged_manifest_is_put_aside_and_one_of_a_newer_program_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (path, manifest) =
            (dir.path().join(MANIFEST), crate::deliver::empty_manifest(&CaptureId::random()));
        for damage in ["", "{\"version\": 1", "\0\0\0"] {
            fs::write(&path, damage).unwrap();
            let error = settled(dir.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            assert!(error.to_string().contains(".manifest.json is damaged"), "{error}");
            assert_eq!(settle(dir.path(), manifest.clone()).unwrap().manifest, manifest);
            assert_eq!(settled(dir.path()).unwrap(), Some(manifest.clone()));
            assert_eq!(fs::read(path.with_extension("json.damaged")).unwrap(), damage.as_bytes());
        }
        fs::write(&path, r#"{"version": 2, "tier": "cold"}"#).unwrap();
        assert!(settle(dir.path(), manifest).unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn a_damaged_record_is_told_by_its_name_and_never_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut json = serde_json::to_value(record(0)).unwrap();
        json["queues"] = u64::MAX.into();
        for damage in [String::new(), "[".to_owned(), json.to_string()] {
            fs::write(dir.path().join(RECORD), damage).unwrap();
            let error = CaptureRecord::read(dir.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(".capture.json is damaged"), "{error}");
        }
        json["queues"] = 2.into();
        json["object_bytes_max"] = 0.into();
        json["is_final"] = true.into();
        json["job"]["ledger"]["matched"] = u64::MAX.into();
        fs::write(dir.path().join(RECORD), json.to_string()).unwrap();
        let read = CaptureRecord::read(dir.path()).unwrap().unwrap();
        assert_eq!(
            (read.object_bytes_max, read.job.ledger, read.is_final),
            (OBJECT_BYTES_MIN, Ledger::default(), false)
        );
    }

    #[test]
    fn counts_that_cannot_be_kept_at_once_are_kept_later() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join(".counts.json.part");
        fs::create_dir(&part).unwrap();
        std::thread::scope(|scope| {
            let settled = scope.spawn(|| settle_counts(dir.path(), &COUNTS_OF_ONE));
            std::thread::sleep(Duration::from_millis(20));
            fs::remove_dir(&part).unwrap();
            settled.join().unwrap().unwrap();
        });
        assert_eq!(counts(dir.path()).unwrap(), Some(COUNTS_OF_ONE));
    }

    const COUNTS_OF_ONE: Counts =
        Counts { offered: 1, port_drops: 0, matched: 1, host_drops: 0, captured: 1 };

    fn entry(cut: u64, gaps: Vec<Gap>) -> Entry {
        let cuts = vec![Cut { sequence: cut, offset: 0 }];
        Entry { object: ObjectInfo::default(), cuts, is_last: true, gaps }
    }

    #[test]
    fn a_directory_that_holds_what_no_object_has_is_not_removed() {
        let gap = Gap { queue: 0, sequence: 1, offset: 24 };
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::in_dir(place.path());
        for (file, gaps, removed) in [
            ("q000-00000001.pcap", vec![], true),
            ("q000-00000002.pcap", vec![], false),
            ("q001-00000000.pcap", vec![], false),
            ("q000-00000001.pcap", vec![gap], false),
            (".q000-00000001.pcap.open", vec![], false),
            (".q000-00000001.pcap.len", vec![], false),
            (".capture.json.part", vec![], true),
            (LEFTOVERS, vec![], false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().join("capture");
            fs::create_dir(&dir).unwrap();
            Journal::open(&dir).unwrap().append(entry(2, gaps)).unwrap();
            fs::write(dir.join(file), "x").unwrap();
            assert_eq!(remove(&spool, &dir).unwrap(), removed, "{file}");
            assert_eq!(dir.exists(), !removed, "{file}");
        }
        assert!(remove(&spool, Path::new("/nonexistent/capture")).unwrap());
    }

    #[test]
    fn an_ended_capture_whose_store_holds_leftovers_is_looked_at_by_the_next_start_and_then_removed() {
        use super::super::inherit::{Known, sweep, swept};
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::in_dir(place.path());
        let record = record(0);
        let id = record.job.id.clone();
        let dir = spool.config().dir.join(id.as_str());
        fs::create_dir_all(&dir).unwrap();
        record.write(&dir).unwrap();
        Journal::open(&dir).unwrap().append(entry(1, vec![])).unwrap();
        note_leftovers(&dir).unwrap();
        for _ in 0..2 {
            let found = sweep(&spool, |_| Known::Ended).unwrap();
            assert_eq!(found.failed.iter().map(|record| &record.job.id).collect::<Vec<_>>(), [&id]);
        }
        swept(&spool, &[record.job.part()]);
        assert!(!dir.exists());
    }

    fn record(objects: usize) -> CaptureRecord {
        let mut job = Job::sample("a", 1_000_000);
        let object = |n| ObjectInfo { name: format!("{n}"), sha256: "0".repeat(64), ..ObjectInfo::default() };
        job.objects = (0..objects).map(object).collect();
        CaptureRecord {
            job,
            queues: 1,
            snaplen: 160,
            object_bytes_max: 1,
            format: ObjectFormat::default(),
            origin: Origin::default(),
            dirs: Default::default(),
            started: None,
            ended: None,
            known_until: Timestamp::UNIX_EPOCH,
            is_final: false,
        }
    }

    #[test]
    fn a_record_is_as_large_with_many_objects_as_with_none_and_reads_them_from_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        record(0).write(dir.path()).unwrap();
        let bytes = || fs::metadata(dir.path().join(RECORD)).unwrap().len();
        let of_none = bytes();
        record(100_000).write(dir.path()).unwrap();
        assert_eq!(bytes(), of_none);
        Journal::open(dir.path()).unwrap().append(entry(1, vec![])).unwrap();
        let read = CaptureRecord::read(dir.path()).unwrap().unwrap();
        assert_eq!(read.job.objects, [ObjectInfo::default()]);
    }

    #[test]
    fn a_record_of_an_older_and_of_a_newer_program_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (json, id) = (serde_json::to_value(record(0)).unwrap(), record(0).job.request);
        let mut older = json.clone();
        older["job"]["objects"] = serde_json::json!([ObjectInfo::default()]);
        older.as_object_mut().unwrap().remove("format");
        fs::write(dir.path().join(RECORD), older.to_string()).unwrap();
        assert_eq!(CaptureRecord::read(dir.path()).unwrap().unwrap().job.objects.len(), 1);
        let mut newer = json;
        for member in
            ["/job", "/job/request", "/job/ledger", "/job/ledger/dropped", "/job/ledger/port", "/origin"]
        {
            newer.pointer_mut(member).unwrap()["member_of_tomorrow"] = 7.into();
        }
        newer["member_of_tomorrow"] = "x".into();
        newer["job"]["stop_reason"] = "reason_of_tomorrow".into();
        fs::write(dir.path().join(RECORD), newer.to_string()).unwrap();
        assert_eq!(CaptureRecord::read(dir.path()).unwrap().unwrap().job.request, id);
    }
}
