//! The objects of a job that are too many for its record. Owns their rows; not the record, which has their sums.
//!
//! Invariant: a record with sums has all of its objects in rows, each row but the last one full. Reading a page reads the rows that it
//! touches, however many there are.

use super::{StoreError, failed};
use crate::job::{Job, ObjectInfo, ObjectRange, ObjectSums};
use crate::limits::RECORD_OBJECTS_MAX;
use redb::{ReadTransaction, TableDefinition, WriteTransaction};
use std::borrow::Cow;

/// (capture id, row from 0): the objects of the row.
pub(super) const OBJECTS: TableDefinition<(&str, u32), &[u8]> = TableDefinition::new("jobs_objects");

/// Objects of one row: some hundred KiB.
const ROW_OBJECTS: usize = RECORD_OBJECTS_MAX;

/// Makes the table. A database of an older version has none.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(OBJECTS).map(drop).map_err(failed)
}

/// The job as its record has it. Objects that are too many are written beside it; if some stand there already, those of the job are the
/// last ones.
pub(super) fn split<'a>(transaction: &WriteTransaction, job: &'a Job) -> Result<Cow<'a, Job>, StoreError> {
    let sums = match job.objects_beside {
        Some(sums) if !job.objects.is_empty() => sums,
        None if job.objects.len() > RECORD_OBJECTS_MAX => ObjectSums::of(&job.objects),
        _ => return Ok(Cow::Borrowed(job)),
    };
    let first = sums.objects.saturating_sub(job.objects.len() as u64);
    append(transaction, job.id.as_str(), first, &job.objects)?;
    Ok(Cow::Owned(job.with_objects_beside(sums)))
}

/// Writes objects of which the first one has this number, and begins a row.
pub(super) fn append(
    transaction: &WriteTransaction,
    id: &str,
    first: u64,
    objects: &[ObjectInfo],
) -> Result<(), StoreError> {
    let mut table = transaction.open_table(OBJECTS).map_err(failed)?;
    let first = u32::try_from(first / ROW_OBJECTS as u64).unwrap_or(u32::MAX);
    for (row, objects) in (first..).zip(objects.chunks(ROW_OBJECTS)) {
        let json = serde_json::to_vec(objects).map_err(|error| unreadable(id, &error))?;
        table.insert((id, row), json.as_slice()).map_err(failed)?;
    }
    Ok(())
}

/// Those of a job's objects that are in the range.
pub(super) fn read(
    transaction: &ReadTransaction,
    id: &str,
    range: ObjectRange,
) -> Result<Vec<ObjectInfo>, StoreError> {
    let (mut found, mut skipped) = (Vec::new(), range.from % ROW_OBJECTS);
    let Ok(first) = u32::try_from(range.from / ROW_OBJECTS) else { return Ok(found) };
    let table = transaction.open_table(OBJECTS).map_err(failed)?;
    for row in table.range((id, first)..=(id, u32::MAX)).map_err(failed)? {
        if found.len() >= range.count_max {
            break;
        }
        let (_, json) = row.map_err(failed)?;
        let objects: Vec<ObjectInfo> =
            serde_json::from_slice(json.value()).map_err(|error| unreadable(id, &error))?;
        let left = range.count_max - found.len();
        found.extend(objects.into_iter().skip(skipped).take(left));
        skipped = 0;
    }
    Ok(found)
}

/// Removes what stands beside a job.
pub(super) fn remove(transaction: &WriteTransaction, id: &str) -> Result<(), StoreError> {
    let mut table = transaction.open_table(OBJECTS).map_err(failed)?;
    table.retain_in((id, 0)..=(id, u32::MAX), |_, _| false).map_err(failed)
}

fn unreadable(id: &str, error: &serde_json::Error) -> StoreError {
    StoreError::Record { id: id.to_owned(), detail: format!("its objects: {error}") }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::super::*;
    use super::*;
    use crate::job::Status;

    /// An ended job with so many objects.
    fn ended(objects: usize) -> Job {
        let object = |number: usize| ObjectInfo {
            name: format!("pcap_{number:08}.pcap"),
            bytes: 256 << 20,
            packets: 1000 + number as u64 % 7,
            sha256: "a".repeat(64),
            ..ObjectInfo::default()
        };
        let objects = (0..objects).map(object).collect();
        Job { status: Status::Success, objects, ..Job::sample("a", 1) }
    }

    /// Bytes of a job's record, and of its longest row.
    fn bytes(store: &Embedded, id: &CaptureId) -> (usize, usize) {
        let both = store.read(|transaction| {
            let jobs = transaction.open_table(JOBS).map_err(failed)?;
            let record = jobs.get(id.as_str()).map_err(failed)?.map_or(0, |json| json.value().len());
            let rows = transaction.open_table(OBJECTS).map_err(failed)?;
            let rows = rows.range((id.as_str(), 0)..=(id.as_str(), u32::MAX)).map_err(failed)?;
            Ok((record, rows.map(|row| row.map_or(0, |(_, json)| json.value().len())).max().unwrap_or(0)))
        });
        both.unwrap()
    }

    #[test]
    fn ten_times_as_many_objects_cost_a_list_and_a_page_as_much() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(&dir.path().join("db")).unwrap();
        let mut sizes = Vec::new();
        for count in [2_500, 25_000] {
            let job = ended(count);
            let stored = store.create(&Job { status: Status::Running, objects: Vec::new(), ..job.clone() });
            let stored = store.compare_and_set(stored.unwrap().revision, &job).unwrap();
            let account = &job.request.account;
            assert_eq!(store.get(account, &job.id).unwrap(), Some(stored.clone()));
            assert_eq!(
                (stored.job.objects.len(), stored.job.object_sums()),
                (0, ObjectSums::of(&job.objects))
            );
            for (from, count_max) in
                [(0, 1), (999, 3), (count - 5, 100), (count, 9), (700, 1_800), (usize::MAX, 1)]
            {
                let range = ObjectRange { from, count_max };
                let page = store.objects(account, &job.id, range).unwrap();
                assert_eq!(page, range.of(&job.objects), "{range:?}");
            }
            let other = AccountId("b".to_owned());
            assert!(store.objects(&other, &job.id, ObjectRange::ALL).unwrap().is_empty());
            // A later write without the list leaves it.
            let again = store.compare_and_set(stored.revision, &stored.job).unwrap();
            assert_eq!(store.objects(account, &job.id, ObjectRange::ALL).unwrap(), job.objects);
            assert_eq!(again.job, stored.job);
            sizes.push(bytes(&store, &job.id));
        }
        let (few, many) = (sizes[0], sizes[1]);
        assert!(few.0.abs_diff(many.0) < 20 && few.1.abs_diff(many.1) < 20, "{few:?} {many:?}");
        assert!(many.0 < 2_000 && many.1 < ROW_OBJECTS * 300, "{many:?}");
    }

    #[test]
    fn objects_that_are_appended_row_by_row_are_read_as_those_that_came_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(&dir.path().join("db")).unwrap();
        let whole = ended(2_300);
        let mut job = Job { status: Status::Running, objects: Vec::new(), ..whole.clone() };
        store.create(&job).unwrap();
        let page = |range| store.objects(&job.request.account, &job.id, range).unwrap();
        for row in [0, 1, 1] {
            let first = row * ROW_OBJECTS;
            store.append_objects(&job.id, first as u64, &whole.objects[first..first + ROW_OBJECTS]).unwrap();
        }
        assert_eq!(page(ObjectRange::ALL), whole.objects[..2_000], "while it runs");
        job.status = Status::Success;
        job.objects = whole.objects[2_000..].to_vec();
        job.objects_beside = Some(whole.object_sums());
        let stored = store.compare_and_set(1, &job).unwrap();
        assert_eq!((stored.job.objects.len(), stored.job.object_sums()), (0, whole.object_sums()));
        assert_eq!(store.objects(&job.request.account, &job.id, ObjectRange::ALL).unwrap(), whole.objects);
    }

    #[test]
    fn what_stands_beside_a_job_goes_with_it_and_few_objects_stand_in_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(&dir.path().join("db")).unwrap();
        let (many, few) = (ended(1_500), ended(RECORD_OBJECTS_MAX));
        let few = Job { submitted: Timestamp::from_microsecond(2).unwrap(), ..few };
        for job in [&many, &few] {
            store.create(job).unwrap();
        }
        assert_eq!(store.get(&few.request.account, &few.id).unwrap().unwrap().job, few);
        assert!(bytes(&store, &many.id).1 > 0 && bytes(&store, &few.id).1 == 0);
        let account = &many.request.account;
        assert_eq!(store.prune(account, 1, Timestamp::UNIX_EPOCH, &|_| false).unwrap(), 1);
        assert_eq!(bytes(&store, &many.id), (0, 0));
    }
}
