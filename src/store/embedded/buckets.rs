//! Buckets in the same database. Owns their table and record form.
//!
//! Invariant: every look at an account's entries stays within the range of its keys.

use super::{BUCKETS, Embedded, failed};
use crate::job::{AccountId, CaptureId};
use crate::store::{Bucket, BucketStore, StoreError};
use redb::ReadableTable;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// Version of the records that are written and read.
const VERSION: u64 = 1;

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    bucket: &'a Bucket,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Read {
    bucket: Bucket,
}

fn encode(bucket: &Bucket) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&Written { version: VERSION, bucket })
        .map_err(|error| StoreError::Record { id: bucket.id.to_string(), detail: error.to_string() })
}

fn decode(id: &str, bytes: &[u8]) -> Result<Bucket, StoreError> {
    let unreadable =
        |error: serde_json::Error| StoreError::Record { id: id.to_owned(), detail: error.to_string() };
    let Version { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if version != VERSION {
        return Err(StoreError::Version { id: id.to_owned(), version, known: VERSION });
    }
    serde_json::from_slice(bytes).map(|Read { bucket }| bucket).map_err(unreadable)
}

/// All entries of one account, in the order of their ids.
fn of_account(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    account: &AccountId,
) -> Result<Vec<Bucket>, StoreError> {
    // `~` sorts behind every hexadecimal digit.
    let range = (account.0.as_str(), "")..(account.0.as_str(), "~");
    let mut list = Vec::new();
    for entry in table.range(range).map_err(failed)? {
        let (key, bytes) = entry.map_err(failed)?;
        list.push(decode(key.value().1, bytes.value())?);
    }
    Ok(list)
}

fn key(bucket: &Bucket) -> (&str, &str) {
    (bucket.account.0.as_str(), bucket.id.as_str())
}

impl BucketStore for Embedded {
    fn put(&self, bucket: &Bucket, count_max: usize) -> Result<(), StoreError> {
        let record = encode(bucket)?;
        self.write(|transaction| {
            let mut table = transaction.open_table(BUCKETS).map_err(failed)?;
            let present = of_account(&table, &bucket.account)?;
            let (same, others): (Vec<_>, Vec<_>) =
                present.iter().partition(|other| other.place == bucket.place);
            if others.len() >= count_max {
                return Err(StoreError::BucketsFull(others.len()));
            }
            for old in same {
                table.remove(key(old)).map_err(failed)?;
            }
            table.insert(key(bucket), record.as_slice()).map_err(failed)?;
            Ok(())
        })
    }

    fn list(&self, account: &AccountId) -> Result<Vec<Bucket>, StoreError> {
        let mut list =
            self.read(|transaction| of_account(&transaction.open_table(BUCKETS).map_err(failed)?, account))?;
        list.sort_by_key(|bucket| Reverse(bucket.submitted));
        Ok(list)
    }

    fn replace(&self, old: &Bucket, new: &Bucket) -> Result<(), StoreError> {
        let record = encode(new)?;
        self.write(|transaction| {
            let mut table = transaction.open_table(BUCKETS).map_err(failed)?;
            let found = match table.get(key(old)).map_err(failed)? {
                Some(bytes) => Some(decode(old.id.as_str(), bytes.value())?),
                None => None,
            };
            if found.as_ref() != Some(old) || key(old) != key(new) {
                return Err(StoreError::BucketStale(old.id.to_string()));
            }
            table.insert(key(new), record.as_slice()).map_err(failed)?;
            Ok(())
        })
    }

    fn remove(&self, account: &AccountId, id: &CaptureId) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(BUCKETS).map_err(failed)?;
            let removed = table.remove((account.0.as_str(), id.as_str())).map_err(failed)?;
            Ok(removed.is_some())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use tempfile::TempDir;

    fn bucket(account: &str, place: &str, second: i64) -> Bucket {
        Bucket {
            id: CaptureId::random(),
            account: AccountId(account.to_owned()),
            destination: place.to_owned(),
            place: place.to_owned(),
            filename: "f".to_owned(),
            submitted: Timestamp::from_second(second).unwrap(),
            expires: Timestamp::from_second(second + 60).unwrap(),
            validated: None,
            challenge_sha256: [7; 32],
            keys: None,
            owner: None,
            lost: None,
            is_readable: true,
        }
    }

    fn store() -> (TempDir, Embedded) {
        let dir = TempDir::new().unwrap();
        let store = Embedded::open(&dir.path().join("trawl.db")).unwrap();
        (dir, store)
    }

    #[test]
    fn buckets_outlive_the_process_and_are_listed_newest_first() {
        let (dir, store) = store();
        let (old, new) = (bucket("a", "s3://one", 1), bucket("a", "s3://two", 2));
        for one in [&new, &old] {
            store.put(one, 8).unwrap();
        }
        drop(store);
        let store = Embedded::open(&dir.path().join("trawl.db")).unwrap();
        assert_eq!(BucketStore::list(&store, &old.account).unwrap(), [new, old]);
    }

    #[test]
    fn another_accounts_bucket_is_neither_seen_nor_removed_nor_replaced() {
        let (_dir, store) = store();
        let mine = bucket("a", "s3://one", 1);
        store.put(&mine, 8).unwrap();
        for other in ["b", "a0", ""] {
            let other = AccountId(other.to_owned());
            assert!(BucketStore::list(&store, &other).unwrap().is_empty());
            assert!(!store.remove(&other, &mine.id).unwrap());
            store.put(&Bucket { account: other, id: CaptureId::random(), ..mine.clone() }, 8).unwrap();
        }
        assert_eq!(BucketStore::list(&store, &mine.account).unwrap(), std::slice::from_ref(&mine));
        assert!(store.remove(&mine.account, &mine.id).unwrap());
        assert!(!store.remove(&mine.account, &mine.id).unwrap());
    }

    #[test]
    fn a_place_has_one_entry_and_an_account_a_bounded_number() {
        let (_dir, store) = store();
        let first = bucket("a", "s3://one", 1);
        store.put(&first, 1).unwrap();
        let again = bucket("a", "s3://one", 2);
        store.put(&again, 1).unwrap();
        assert_eq!(BucketStore::list(&store, &first.account).unwrap(), [again]);
        assert!(matches!(store.put(&bucket("a", "s3://two", 3), 1), Err(StoreError::BucketsFull(1))));
    }

    #[test]
    fn a_change_needs_the_entry_as_it_is_stored() {
        let (_dir, store) = store();
        let old = bucket("a", "s3://one", 1);
        store.put(&old, 8).unwrap();
        let new = Bucket { validated: Some(old.submitted), ..old.clone() };
        store.replace(&old, &new).unwrap();
        assert!(matches!(store.replace(&old, &new), Err(StoreError::BucketStale(_))));
        assert_eq!(BucketStore::list(&store, &old.account).unwrap(), std::slice::from_ref(&new));
        store.remove(&old.account, &old.id).unwrap();
        assert!(matches!(store.replace(&new, &old), Err(StoreError::BucketStale(_))));
    }
}
