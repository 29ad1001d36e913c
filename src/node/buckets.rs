//! Customers' buckets as all API nodes of a fleet have them: one record of an account. Owns the reading and the changing of it; what a
//! bucket's proof is worth is `ownership`'s.
//!
//! Invariant: an entry is what the last change made of it, whichever node made it, or the answer is that the bus is away.

use super::keys::account_key;
use crate::bus::{Bus, Table};
use crate::fleet::held::{Answer, Revision};
use crate::fleet::wire::{Wire, WireError};
use crate::job::{AccountId, CaptureId};
use crate::store::{Bucket, BucketStore, StoreError};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// So many times a change is tried again that another one came before.
const TRIES: u32 = 8;
/// Between two of them, and times as many as were.
const PAUSE: Duration = Duration::from_millis(20);

/// An account's buckets, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct BucketsRecord {
    buckets: Vec<Bucket>,
}

/// The buckets of a fleet's accounts. Its calls block, so they are made beside the runtime's own threads.
#[derive(Clone)]
pub struct Buckets {
    bus: Arc<dyn Bus>,
    runtime: Handle,
}

fn away(why: &str) -> StoreError {
    StoreError::Away(format!("what the fleet knows of buckets cannot be reached: {why}; ask again"))
}

impl Buckets {
    /// To be called within a runtime.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus, runtime: Handle::current() }
    }

    fn key(account: &AccountId) -> String {
        format!("{}.buckets", account_key(account))
    }

    async fn read(&self, account: &AccountId) -> Result<(Revision, Wire<BucketsRecord>), StoreError> {
        let unreadable =
            |error: WireError| StoreError::Record { id: Self::key(account), detail: error.to_string() };
        match self.bus.read(Table::Accounts, &Self::key(account)).await {
            Answer::Read(revision, Some(json)) => Ok((revision, Wire::read(&json).map_err(unreadable)?)),
            Answer::Read(revision, None) => Ok((revision, Wire::new(BucketsRecord::default()))),
            _ => Err(away("it did not answer")),
        }
    }

    /// Changes an account's buckets until nobody else does at the same time. `change` says what came of it; none: there is nothing to
    /// write. One whose answer was lost is made again, so it is to do no harm twice.
    async fn change<T>(
        &self,
        account: &AccountId,
        mut change: impl FnMut(&mut Vec<Bucket>) -> Result<(T, bool), StoreError>,
    ) -> Result<T, StoreError> {
        for tries in 1..=TRIES {
            let (revision, wire) = self.read(account).await?;
            let mut record = wire.value().clone();
            let (outcome, is_changed) = change(&mut record.buckets)?;
            if !is_changed {
                return Ok(outcome);
            }
            let json = wire.with(record).to_json().map_err(|error| away(&error.to_string()))?;
            match self.bus.write(Table::Accounts, &Self::key(account), revision, json).await {
                Answer::Wrote(_) => return Ok(outcome),
                Answer::Unavailable => return Err(away("nothing can be recorded")),
                _ => tokio::time::sleep(PAUSE * tries).await,
            }
        }
        Err(away("too many changes at once"))
    }
}

impl BucketStore for Buckets {
    fn put(&self, bucket: &Bucket, count_max: usize) -> Result<(), StoreError> {
        let put = |buckets: &mut Vec<Bucket>| {
            let is_there = buckets.first() == Some(bucket);
            buckets.retain(|other| other.place != bucket.place);
            if buckets.len() >= count_max {
                return Err(StoreError::BucketsFull(buckets.len()));
            }
            buckets.insert(0, bucket.clone());
            buckets.sort_by_key(|bucket| Reverse(bucket.submitted));
            Ok(((), !is_there))
        };
        self.runtime.block_on(self.change(&bucket.account, put))
    }

    fn list(&self, account: &AccountId) -> Result<Vec<Bucket>, StoreError> {
        self.runtime.block_on(async { Ok(self.read(account).await?.1.value().buckets.clone()) })
    }

    fn replace(&self, old: &Bucket, new: &Bucket) -> Result<(), StoreError> {
        let replace = |buckets: &mut Vec<Bucket>| {
            if buckets.contains(new) {
                return Ok(((), false));
            }
            let place = buckets.iter_mut().find(|bucket| *bucket == old);
            let place = place.ok_or_else(|| StoreError::BucketStale(old.id.to_string()))?;
            *place = new.clone();
            Ok(((), true))
        };
        self.runtime.block_on(self.change(&old.account, replace))
    }

    fn remove(&self, account: &AccountId, id: &CaptureId) -> Result<bool, StoreError> {
        let mut was_there = false;
        let remove = |buckets: &mut Vec<Bucket>| {
            let before = buckets.len();
            buckets.retain(|bucket| bucket.id != *id);
            let is_changed = buckets.len() < before;
            was_there |= is_changed;
            Ok(((), is_changed))
        };
        self.runtime.block_on(self.change(account, remove))?;
        Ok(was_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::local::{Local, Shared};
    use jiff::Timestamp;

    fn bucket(account: &str, place: &str) -> Bucket {
        Bucket {
            id: CaptureId::random(),
            account: AccountId(account.to_owned()),
            destination: place.to_owned(),
            place: place.to_owned(),
            filename: "f".to_owned(),
            submitted: Timestamp::now(),
            expires: Timestamp::now(),
            validated: None,
            challenge_sha256: [7; 32],
            keys: None,
            owner: None,
            lost: None,
            is_readable: true,
        }
    }

    fn check(one: &Buckets, other: &Buckets) {
        let (a, b) = (AccountId("A".to_owned()), AccountId("b".to_owned()));
        let first = bucket("A", "s3://x");
        one.put(&first, 2).unwrap();
        assert_eq!((other.list(&a).unwrap(), other.list(&b).unwrap()), (vec![first.clone()], Vec::new()));
        let proven = Bucket { validated: Some(Timestamp::now()), ..first.clone() };
        other.replace(&first, &proven).unwrap();
        let stale = one.replace(&first, &bucket("A", "s3://x"));
        assert!(matches!(stale, Err(StoreError::BucketStale(_))), "{stale:?}");
        // A new entry of a place takes the old one's, and there are as many as there may be.
        let again = bucket("A", "s3://x");
        one.put(&again, 1).unwrap();
        assert!(matches!(other.put(&bucket("A", "s3://y"), 1), Err(StoreError::BucketsFull(1))));
        other.put(&bucket("A", "s3://y"), 2).unwrap();
        let places: Vec<_> = one.list(&a).unwrap().into_iter().map(|bucket| bucket.place).collect();
        assert_eq!(places, ["s3://y", "s3://x"]);
        assert!(!one.remove(&b, &again.id).unwrap() && one.remove(&a, &again.id).unwrap());
        assert!(!other.remove(&a, &again.id).unwrap());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_one_node_knows_of_an_account_s_buckets_every_node_knows() {
        let shared = Shared::new();
        let buckets = || Buckets::new(Arc::new(Local::new(&shared)));
        let (one, other) = (buckets(), buckets());
        tokio::task::spawn_blocking(move || check(&one, &other)).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_bus_that_is_away_is_said_and_nothing_is_taken_for_none() {
        let bus = Arc::new(Local::new(&Shared::new()));
        bus.faults(|faults| faults.is_away = true);
        let buckets = Buckets::new(bus);
        let listed = tokio::task::spawn_blocking(move || buckets.list(&AccountId("a".to_owned())));
        assert!(matches!(listed.await.unwrap(), Err(StoreError::Away(_))));
    }
}
