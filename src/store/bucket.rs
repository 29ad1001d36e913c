//! A customer's bucket as it is remembered. Owns the record and the [`BucketStore`] trait; not how ownership is proven.
//!
//! Invariant: an account has at most one entry of a place, and nobody reads or removes another account's.

use super::StoreError;
use crate::job::Sealed;
use crate::job::{AccountId, CaptureId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One entry: a destination that an account wants to use, and how far it has proven that it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// 32 lower-case hexadecimal digits.
    pub id: CaptureId,
    /// Whose entry it is.
    pub account: AccountId,
    /// As sent, without secrets.
    pub destination: String,
    /// The destination in the one spelling of its place; see [`crate::ownership::place`].
    pub place: String,
    /// Name of the object that holds the challenge.
    pub filename: String,
    /// When it was asked for.
    pub submitted: Timestamp,
    /// Until when the challenge can be answered.
    pub expires: Timestamp,
    /// When it was answered.
    pub validated: Option<Timestamp>,
    /// SHA-256 of what binds the challenge to account, place and entry; the challenge itself is nowhere but in the bucket.
    pub challenge_sha256: [u8; 32],
    /// The access keys that came with the destination, encrypted; none where the host's own are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Sealed>,
    /// The account that owns the bucket, where the customer named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When its challenge was found gone or changed: the bucket may be another's since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Timestamp>,
    /// Whether the host could read the challenge when it wrote it: only then it can be looked at again.
    #[serde(default)]
    pub is_readable: bool,
}

/// Where buckets outlive the process. Calls block as those of [`super::JobStore`] do.
pub trait BucketStore: Send + Sync {
    /// Records `bucket` in place of the account's entry of the same place, if there is one.
    ///
    /// # Errors
    /// [`StoreError::BucketsFull`] when the account would have more than `count_max` entries.
    fn put(&self, bucket: &Bucket, count_max: usize) -> Result<(), StoreError>;

    /// An account's entries, newest first.
    ///
    /// # Errors
    /// When a record cannot be read.
    fn list(&self, account: &AccountId) -> Result<Vec<Bucket>, StoreError>;

    /// Writes `new` over `old`, which must be stored as it is given: compare and set by value, because an entry is
    /// small and changes once.
    ///
    /// # Errors
    /// [`StoreError::BucketStale`] when something else or nothing is stored.
    fn replace(&self, old: &Bucket, new: &Bucket) -> Result<(), StoreError>;

    /// Removes an entry; whether the account had it.
    ///
    /// # Errors
    /// When it could not be removed.
    fn remove(&self, account: &AccountId, id: &CaptureId) -> Result<bool, StoreError>;
}
