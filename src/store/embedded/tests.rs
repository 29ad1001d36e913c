//! Properties of the embedded store, on real files.

use super::*;
use crate::job::Status;
use crate::store::conformance;
use redb::TableHandle;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

fn store() -> (TempDir, PathBuf, Embedded) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("trawl.db");
    let store = Embedded::open(&path).unwrap();
    (dir, path, store)
}

#[test]
fn it_is_a_job_store() {
    for (name, holds) in conformance::ALL {
        println!("{name}");
        let (_dir, _path, store) = store();
        holds(&store);
    }
}

#[test]
fn nothing_of_a_record_is_read_for_an_account_that_does_not_own_it() {
    let (_dir, _path, store) = store();
    let theirs = Job::sample("a", 1);
    store.create(&theirs).unwrap();
    // Reading it would fail.
    store
        .write(|transaction| {
            let mut jobs = transaction.open_table(JOBS).unwrap();
            jobs.insert(theirs.id.as_str(), b"unreadable".as_slice()).unwrap();
            Ok(())
        })
        .unwrap();
    assert!(store.get(&theirs.request.account, &theirs.id).is_err());
    for other in ["b", "", "a0", "a\0"] {
        assert_eq!(store.get(&AccountId(other.to_owned()), &theirs.id).unwrap(), None);
    }
}

#[test]
fn a_database_without_the_table_of_owners_gets_it() {
    let (_dir, path, store) = store();
    let mine = Job::sample("a", 1);
    store.create(&mine).unwrap();
    store.write(|transaction| Ok(transaction.delete_table(OWNED).unwrap())).unwrap();
    drop(store);
    let store = Embedded::open(&path).unwrap();
    assert_eq!(store.get(&mine.request.account, &mine.id).unwrap().unwrap().job, mine);
}

#[test]
fn jobs_outlive_the_process_in_a_file_of_mode_0600() {
    let (_dir, path, store) = store();
    let mut job = Job::sample("a", 1_000_001);
    let created = store.create(&job).unwrap();
    job.status = Status::Running;
    store.compare_and_set(created.revision, &job).unwrap();
    drop(store);

    let store = Embedded::open(&path).unwrap();
    let account = AccountId("a".to_owned());
    assert_eq!(store.get(&account, &job.id).unwrap(), Some(Stored { revision: 2, job: job.clone() }));
    assert_eq!(store.list(&account, 50).unwrap().len(), 1);
    assert_eq!(store.unfinished().unwrap(), [Stored { revision: 2, job }]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_record_of_an_unknown_version_is_an_error_not_a_panic() {
    let (_dir, _path, store) = store();
    let mine = Job::sample("a", 1);
    store.create(&mine).unwrap();
    store
        .write(|transaction| {
            let mut jobs = transaction.open_table(JOBS).unwrap();
            jobs.insert(mine.id.as_str(), br#"{"version":9,"job":{}}"#.as_slice()).unwrap();
            Ok(())
        })
        .unwrap();
    let account = &mine.request.account;
    for error in [
        store.get(account, &mine.id).unwrap_err(),
        store.list(account, 50).unwrap_err(),
        store.unfinished().unwrap_err(),
        store.compare_and_set(1, &mine).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Version { version: 9, .. }), "{error}");
    }
}

#[test]
fn an_open_database_cannot_be_opened_again() {
    let (_dir, path, _store) = store();
    let error = Embedded::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("trawl.db");
    let text = "not a database\n".repeat(1000);
    std::fs::write(&path, &text).unwrap();
    let error = Embedded::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupted { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_database_that_a_dead_process_left_half_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs");
    std::fs::write(dir.path().join("jobs.new"), [0; 4096]).unwrap();
    Embedded::open(&path).unwrap().probe().unwrap();
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["jobs"]);
}

#[test]
fn a_damaged_page_is_found_at_open() {
    let (_dir, path, store) = store();
    for submitted_us in 0..64 {
        store.create(&Job::sample("a", submitted_us)).unwrap();
    }
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - 9).filter(|&at| bytes[at..].starts_with(b"\"request\"")).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 1] ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    let error = Embedded::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupted { .. }), "{error}");
}

#[test]
fn a_missing_directory_and_a_directory_as_file_are_told_apart() {
    let dir = TempDir::new().unwrap();
    let missing = Embedded::open(&dir.path().join("none/trawl.db")).unwrap_err();
    assert!(matches!(missing, StoreError::NoDirectory { .. }), "{missing}");
    let is_dir = Embedded::open(dir.path()).unwrap_err();
    assert!(matches!(is_dir, StoreError::Open { .. }), "{is_dir}");
}

/// A file on a disk that is full at times.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    is_full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> Result<(), std::io::Error> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.room()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.room()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), std::io::Error> {
        self.file.close()
    }
}

#[test]
fn a_disk_that_was_full_and_has_room_again_needs_no_restart() {
    let dir = TempDir::new().unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let full = Arc::clone(&is_full);
    let store = Embedded::open_by(&dir.path().join("trawl.db"), move |path, check| {
        let disk =
            Disk { file: FileBackend::new(open_file(path, path)?).unwrap(), is_full: Arc::clone(&full) };
        database(disk, check).map_err(|error| open_error(path.to_owned(), error))
    })
    .unwrap();
    let mut job = Job::sample("a", 1);
    let created = store.create(&job).unwrap();
    is_full.store(true, Ordering::Relaxed);
    job.status = Status::Running;
    for _ in 0..3 {
        assert!(store.compare_and_set(created.revision, &job).is_err());
        assert!(store.probe().is_err());
    }
    is_full.store(false, Ordering::Relaxed);
    let found = store.get(&job.request.account, &job.id).unwrap().unwrap();
    assert_eq!(found.revision, created.revision, "what was refused is not there");
    assert_eq!(store.compare_and_set(created.revision, &job).unwrap().job, job);
    store.probe().unwrap();
}

#[test]
fn the_spool_that_is_told_is_known_after_a_restart_and_to_one_who_only_looks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    assert_eq!(Embedded::spool_of(&path), None);
    let store = Embedded::open(&path).unwrap();
    assert_eq!(store.spool().unwrap(), None);
    store.set_spool("a").unwrap();
    store.set_spool("b").unwrap();
    assert_eq!(store.spool().unwrap().as_deref(), Some("b"));
    drop(store);
    assert_eq!(Embedded::spool_of(&path).as_deref(), Some("b"));
    assert_eq!(Embedded::open(&path).unwrap().spool().unwrap().as_deref(), Some("b"));
}

#[test]
fn a_copy_has_every_table_of_the_store() {
    let (dir, _path, store) = store();
    let copy = dir.path().join("copy");
    store.backup(&copy).unwrap();
    let names = |from: &ReadTransaction| {
        let tables = from.list_tables().unwrap();
        tables.map(|table| table.name().to_owned()).filter(|name| name != PROBE.name()).collect::<Vec<_>>()
    };
    // Not by `Embedded`, which would make what is missing.
    let copied = names(&Database::open(&copy).unwrap().begin_read().unwrap());
    assert_eq!(copied, store.read(|from| Ok(names(from))).unwrap());
    assert!(copied.len() >= 7, "{copied:?}");
}
