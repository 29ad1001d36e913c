//! Properties of the embedded store, on real files.

use super::*;
use crate::capture::{ColoStyle, Kind, Ledger, Request, Status};
use crate::matcher::FilterV1;
use jiff::Timestamp;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

fn job(account: &str, submitted_us: i64) -> Job {
    Job {
        id: CaptureId::random(),
        request: Request {
            account: AccountId(account.to_owned()),
            kind: Kind::Simple,
            filter: FilterV1::default(),
            time_limit: 60.0,
            packet_limit: Some(100),
            byte_limit: None,
            colo: None,
            colo_style: ColoStyle::ColoName,
            destination: None,
            offset_time: None,
            format: None,
            compression: None,
        },
        submitted: Timestamp::from_microsecond(submitted_us).unwrap(),
        status: Status::Pending,
        stop_requested: None,
        stop_reason: None,
        error_message: None,
        ledger: Ledger::default(),
        objects: Vec::new(),
        sample_one_in: None,
    }
}

fn store() -> (TempDir, PathBuf, Embedded) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("trawl.db");
    let store = Embedded::open(&path).unwrap();
    (dir, path, store)
}

#[test]
fn jobs_outlive_the_process_in_a_file_of_mode_0600() {
    let (_dir, path, store) = store();
    let mut job = job("a", 1_000_001);
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
fn another_accounts_job_is_not_there() {
    let (_dir, _path, store) = store();
    let job = job("a", 1);
    store.create(&job).unwrap();
    assert_eq!(store.get(&AccountId("b".to_owned()), &job.id).unwrap(), None);
    assert!(store.list(&AccountId("b".to_owned()), 50).unwrap().is_empty());
    assert!(store.list(&AccountId("a\0".to_owned()), 50).unwrap().is_empty());
}

#[test]
fn a_stale_revision_an_unknown_id_and_a_taken_id_are_refused_and_change_nothing() {
    let (_dir, _path, store) = store();
    let mut mine = job("a", 1);
    store.create(&mine).unwrap();
    let stored = store.compare_and_set(1, &mine).unwrap();
    mine.status = Status::Failed;
    assert!(matches!(store.compare_and_set(1, &mine), Err(StoreError::Stale { expected: 1, found: 2, .. })));
    assert!(matches!(store.create(&mine), Err(StoreError::Exists(_))));
    assert!(matches!(store.compare_and_set(1, &job("a", 1)), Err(StoreError::Missing(_))));
    assert_eq!(store.get(&mine.request.account, &mine.id).unwrap(), Some(stored));
}

#[test]
fn a_job_keeps_its_account_and_its_time_of_submission() {
    let (_dir, _path, store) = store();
    let mine = job("a", 1);
    store.create(&mine).unwrap();
    let mut other_time = mine.clone();
    other_time.submitted = Timestamp::from_microsecond(2).unwrap();
    assert!(matches!(store.compare_and_set(1, &other_time), Err(StoreError::Moved(_))));
    let mut other_account = mine;
    other_account.request.account = AccountId("b".to_owned());
    assert!(matches!(store.compare_and_set(1, &other_account), Err(StoreError::Moved(_))));
}

#[test]
fn a_list_is_one_accounts_newest_first_and_bounded() {
    let (_dir, _path, store) = store();
    for submitted_us in [5, -7, 3, 9, 1] {
        store.create(&job("a", submitted_us)).unwrap();
        store.create(&job("aa", submitted_us + 100)).unwrap();
    }
    let times = |count_max| -> Vec<i64> {
        let list = store.list(&AccountId("a".to_owned()), count_max).unwrap();
        list.iter().map(|stored| stored.job.submitted.as_microsecond()).collect()
    };
    assert_eq!(times(50), [9, 5, 3, 1, -7]);
    assert_eq!(times(2), [9, 5]);
    assert_eq!(times(0), [0_i64; 0]);
}

#[test]
fn an_ended_job_is_no_longer_unfinished() {
    let (_dir, _path, store) = store();
    let (mut ends, goes_on) = (job("a", 1), job("b", 2));
    store.create(&ends).unwrap();
    store.create(&goes_on).unwrap();
    ends.status = Status::Success;
    store.compare_and_set(1, &ends).unwrap();
    assert_eq!(store.unfinished().unwrap(), [Stored { revision: 1, job: goes_on }]);
    assert_eq!(store.list(&ends.request.account, 50).unwrap().len(), 1);
}

#[test]
fn concurrent_writers_of_one_job_all_but_one_lose() {
    let (_dir, _path, store) = store();
    let mine = job("a", 1);
    store.create(&mine).unwrap();
    let won = std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| store.compare_and_set(1, &mine).is_ok())).collect();
        writers.into_iter().filter_map(|writer| writer.join().ok()).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
}

#[test]
fn a_record_of_an_unknown_version_is_an_error_not_a_panic() {
    let (_dir, _path, store) = store();
    let mine = job("a", 1);
    store.create(&mine).unwrap();
    let transaction = store.database.begin_write().unwrap();
    transaction
        .open_table(JOBS)
        .unwrap()
        .insert(mine.id.as_str(), br#"{"version":9,"job":{}}"#.as_slice())
        .unwrap();
    transaction.commit().unwrap();
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
fn a_damaged_page_is_found_at_open() {
    let (_dir, path, store) = store();
    for submitted_us in 0..64 {
        store.create(&job("a", submitted_us)).unwrap();
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
