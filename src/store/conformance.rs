//! What every [`JobStore`] must keep, whatever it is made of. An implementation's tests run all of [`ALL`], each with an
//! empty store.

use super::{JobStore, Missed, PageQuery, StoreError, Stored};
use crate::job::{AccountId, Job, Status};
use jiff::Timestamp;

type Property = fn(&dyn JobStore);

/// Every property and its name.
pub const ALL: [(&str, Property); 11] = [
    ("another_accounts_job_is_not_there", another_accounts_job_is_not_there),
    (
        "a_stale_revision_an_unknown_id_and_a_taken_id_are_refused_and_change_nothing",
        a_stale_revision_an_unknown_id_and_a_taken_id_are_refused_and_change_nothing,
    ),
    (
        "a_job_keeps_its_account_and_its_time_of_submission",
        a_job_keeps_its_account_and_its_time_of_submission,
    ),
    ("a_list_is_one_accounts_newest_first_and_bounded", a_list_is_one_accounts_newest_first_and_bounded),
    (
        "pages_have_every_wanted_job_once_and_count_those_that_are_wanted",
        pages_have_every_wanted_job_once_and_count_those_that_are_wanted,
    ),
    ("a_page_that_nobody_waits_for_is_given_up", a_page_that_nobody_waits_for_is_given_up),
    ("an_ended_job_is_no_longer_unfinished", an_ended_job_is_no_longer_unfinished),
    ("concurrent_writers_of_one_job_all_but_one_lose", concurrent_writers_of_one_job_all_but_one_lose),
    ("a_watch_sees_every_write_once_and_in_order", a_watch_sees_every_write_once_and_in_order),
    ("a_watch_that_is_too_slow_is_told", a_watch_that_is_too_slow_is_told),
    ("a_refused_write_is_no_change", a_refused_write_is_no_change),
];

fn another_accounts_job_is_not_there(store: &dyn JobStore) {
    let job = Job::sample("a", 1);
    store.create(&job).unwrap();
    assert_eq!(store.get(&AccountId("b".to_owned()), &job.id).unwrap(), None);
    assert!(store.list(&AccountId("b".to_owned()), 50).unwrap().is_empty());
    assert!(store.list(&AccountId("a\0".to_owned()), 50).unwrap().is_empty());
}

fn a_stale_revision_an_unknown_id_and_a_taken_id_are_refused_and_change_nothing(store: &dyn JobStore) {
    let mut mine = Job::sample("a", 1);
    store.create(&mine).unwrap();
    let stored = store.compare_and_set(1, &mine).unwrap();
    mine.status = Status::Failed;
    assert!(matches!(store.compare_and_set(1, &mine), Err(StoreError::Stale { expected: 1, found: 2, .. })));
    assert!(matches!(store.create(&mine), Err(StoreError::Exists(_))));
    assert!(matches!(store.compare_and_set(1, &Job::sample("a", 1)), Err(StoreError::Missing(_))));
    assert_eq!(store.get(&mine.request.account, &mine.id).unwrap(), Some(stored));
}

fn a_job_keeps_its_account_and_its_time_of_submission(store: &dyn JobStore) {
    let mine = Job::sample("a", 1);
    store.create(&mine).unwrap();
    let mut other_time = mine.clone();
    other_time.submitted = Timestamp::from_microsecond(2).unwrap();
    assert!(matches!(store.compare_and_set(1, &other_time), Err(StoreError::Moved(_))));
    let mut other_account = mine;
    other_account.request.account = AccountId("b".to_owned());
    assert!(matches!(store.compare_and_set(1, &other_account), Err(StoreError::Moved(_))));
}

fn a_list_is_one_accounts_newest_first_and_bounded(store: &dyn JobStore) {
    for submitted_us in [5, -7, 3, 9, 1] {
        store.create(&Job::sample("a", submitted_us)).unwrap();
        store.create(&Job::sample("aa", submitted_us + 100)).unwrap();
    }
    let times = |count_max| -> Vec<i64> {
        let list = store.list(&AccountId("a".to_owned()), count_max).unwrap();
        list.iter().map(|stored| stored.job.submitted.as_microsecond()).collect()
    };
    assert_eq!(times(50), [9, 5, 3, 1, -7]);
    assert_eq!(times(2), [9, 5]);
    assert_eq!(times(0), [0_i64; 0]);
}

/// Which jobs are wanted; all if none.
type Wanted<'a> = Option<&'a dyn Fn(&Job) -> bool>;

fn pages_have_every_wanted_job_once_and_count_those_that_are_wanted(store: &dyn JobStore) {
    let account = AccountId("a".to_owned());
    for submitted_us in 0..23 {
        // Some are of the same moment, and some are another account's.
        let mut job = Job::sample("a", submitted_us / 2);
        job.status = if submitted_us % 3 == 0 { Status::Failed } else { Status::Success };
        store.create(&job).unwrap();
        store.create(&Job::sample("b", submitted_us)).unwrap();
    }
    let whole = store.list(&account, 50).unwrap();
    let failed = |job: &Job| job.status == Status::Failed;
    let none = |_: &Job| false;
    let filters: [Wanted<'_>; 3] = [None, Some(&failed), Some(&none)];
    for is_wanted in filters {
        let wanted = |job: &Job| is_wanted.is_none_or(|is_wanted| is_wanted(job));
        let expected: Vec<_> = whole.iter().filter(|one| wanted(&one.job)).cloned().collect();
        for count_max in [1, 4, 7, 50] {
            let (mut found, mut before, mut pages) = (Vec::new(), None, 0);
            loop {
                let query =
                    PageQuery { before: before.as_ref(), count_max, is_wanted, is_given_up: &|| false };
                let page = store.page(&account, &query).unwrap();
                assert_eq!(page.total, expected.len() as u64, "the same on each page");
                assert!(page.jobs.len() <= count_max);
                found.extend(page.jobs);
                pages += 1;
                let Some(next) = page.next else { break };
                before = whole.iter().find(|one| one.job.id == next).map(|one| one.job.clone());
                assert!(before.is_some() && pages <= 50, "it goes on behind one of the account's");
            }
            assert_eq!(found, expected, "{count_max} at a time");
        }
    }
    let query = PageQuery { before: None, count_max: 5, is_wanted: None, is_given_up: &|| false };
    let page = store.page(&AccountId("nobody".to_owned()), &query).unwrap();
    assert_eq!((page.jobs.len(), page.total, page.next), (0, 0, None));
}

fn a_page_that_nobody_waits_for_is_given_up(store: &dyn JobStore) {
    use std::cell::Cell;
    let account = AccountId("a".to_owned());
    (0..50).for_each(|submitted_us| drop(store.create(&Job::sample("a", submitted_us)).unwrap()));
    let looked_at = Cell::new(0);
    let none = |_: &Job| {
        looked_at.set(looked_at.get() + 1);
        false
    };
    let is_given_up = || looked_at.get() >= 7;
    let query = PageQuery { before: None, count_max: 1, is_wanted: Some(&none), is_given_up: &is_given_up };
    assert!(matches!(store.page(&account, &query), Err(StoreError::GivenUp)));
    assert_eq!(looked_at.get(), 7, "of 50 records, each of which would be looked at twice");
}

fn an_ended_job_is_no_longer_unfinished(store: &dyn JobStore) {
    let (mut ends, goes_on) = (Job::sample("a", 1), Job::sample("b", 2));
    store.create(&ends).unwrap();
    store.create(&goes_on).unwrap();
    ends.status = Status::Success;
    store.compare_and_set(1, &ends).unwrap();
    assert_eq!(store.unfinished().unwrap(), [Stored { revision: 1, job: goes_on }]);
    assert_eq!(store.list(&ends.request.account, 50).unwrap().len(), 1);
}

fn concurrent_writers_of_one_job_all_but_one_lose(store: &dyn JobStore) {
    let mine = Job::sample("a", 1);
    store.create(&mine).unwrap();
    let won = std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| store.compare_and_set(1, &mine).is_ok())).collect();
        writers.into_iter().filter_map(|writer| writer.join().ok()).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
}

fn now<T>(next: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let bounded = async { tokio::time::timeout(std::time::Duration::from_secs(10), next).await };
    runtime.block_on(bounded).unwrap()
}

fn a_watch_sees_every_write_once_and_in_order(store: &dyn JobStore) {
    store.create(&Job::sample("a", 1)).unwrap();
    let mut changes = [store.watch(), store.watch()];
    let jobs = [Job::sample("a", 2), Job::sample("b", 3)];
    std::thread::scope(|scope| {
        for job in &jobs {
            scope.spawn(move || {
                let mut revision = store.create(job).unwrap().revision;
                for _ in 0..20 {
                    revision = store.compare_and_set(revision, job).unwrap().revision;
                }
            });
        }
    });
    // One more write, so that one that is told twice shows.
    let last = store.create(&Job::sample("c", 4)).unwrap();
    for changes in &mut changes {
        let seen: Vec<_> = (0..43).map(|_| now(changes.next()).unwrap().unwrap()).collect();
        for job in &jobs {
            let revisions =
                seen.iter().filter(|stored| stored.job.id == job.id).map(|stored| stored.revision);
            assert!(revisions.eq(1..=21), "{seen:?}");
        }
        assert_eq!(*seen[42], last);
    }
}

fn a_watch_that_is_too_slow_is_told(store: &dyn JobStore) {
    let mut changes = store.watch();
    let mine = Job::sample("a", 1);
    let mut revision = store.create(&mine).unwrap().revision;
    let mut missed = 0;
    // Whatever the bound is, it is passed at some time, or nothing is missed.
    for _ in 0..1500 {
        revision = store.compare_and_set(revision, &mine).unwrap().revision;
    }
    let mut last = 0;
    while last < revision {
        match now(changes.next()) {
            Ok(stored) => {
                let seen = stored.unwrap().revision;
                assert_eq!(seen, last + 1);
                last = seen;
            }
            Err(Missed(count)) => {
                missed += count;
                last += count;
            }
        }
    }
    assert!(missed < 1501);
}

fn a_refused_write_is_no_change(store: &dyn JobStore) {
    let mine = Job::sample("a", 1);
    store.create(&mine).unwrap();
    let mut changes = store.watch();
    store.create(&mine).unwrap_err();
    store.compare_and_set(7, &mine).unwrap_err();
    store.compare_and_set(1, &mine).unwrap();
    assert_eq!(now(changes.next()).unwrap().unwrap().revision, 2);
}
