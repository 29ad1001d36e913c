//! Whether a bucket is still the one that was proven. Owns how long a proof holds, and the looks at its challenge; not what
//! answers a challenge.
//!
//! A bucket's name may be another's tomorrow: somebody who registers a released name has a bucket that nobody proved. So the
//! challenge, which only the proven bucket holds, is looked at again before anything is written.
//!
//! Invariant: a proof whose challenge was found gone or changed counts no more, also after a restart.

use super::{BucketKeys, aside, bound};
use crate::job::{AccountId, BucketProof, BucketTerms, CaptureId, Destination};
use crate::limits::{CHALLENGE_LOOK_SECONDS, CHALLENGES_SEEN_MAX};
use crate::store::{Bucket, StoreError};
use crate::upload::{ObjectStore, UploadError};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes of a challenge's object: its 64 digits, and what an editor may have added.
pub(super) const CHALLENGE_BYTES_MAX: u64 = 256;
const LOOK: Duration = Duration::from_secs(CHALLENGE_LOOK_SECONDS);

/// Which destinations need a proof, and how long one holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProofRules {
    /// Buckets need one.
    pub buckets: bool,
    /// Directories of this host need one.
    pub files: bool,
    /// How long one holds; for all time if none.
    pub age_max: Option<Duration>,
}

impl ProofRules {
    /// Whether a destination needs a proof.
    #[must_use]
    pub fn apply_to(&self, destination: &Destination) -> bool {
        match destination {
            Destination::File { .. } => self.files,
            _ => self.buckets,
        }
    }
}

/// State of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The challenge waits for its answer.
    Pending,
    /// It was answered, and the answer holds.
    Success,
    /// It was not answered in time.
    Failed,
    /// It was answered at this time, which is longer ago than a proof holds.
    Aged(Timestamp),
    /// Its object was found gone or changed at this time.
    Lost(Timestamp),
}

/// Where a bucket's entry stands at `now`, if a proof holds for `age_max`.
#[must_use]
pub fn proof(bucket: &Bucket, now: Timestamp, age_max: Option<Duration>) -> Proof {
    let is_aged = |validated: Timestamp| {
        let age_max = age_max.and_then(|age| SignedDuration::try_from(age).ok());
        age_max.is_some_and(|max| now.duration_since(validated) >= max)
    };
    match (bucket.lost, bucket.validated) {
        (Some(lost), _) => Proof::Lost(lost),
        (None, Some(validated)) if is_aged(validated) => Proof::Aged(validated),
        (None, Some(_)) => Proof::Success,
        (None, None) if now >= bucket.expires => Proof::Failed,
        (None, None) => Proof::Pending,
    }
}

/// What the customer is told of a proof that holds no more; nothing of others.
#[must_use]
pub fn ended(bucket: &Bucket, proof: Proof) -> Option<String> {
    let (place, filename) = (&bucket.place, &bucket.filename);
    let why = match proof {
        Proof::Aged(at) => format!("was proven at {at:.0}, longer ago than a proof holds on this host"),
        Proof::Lost(at) => {
            format!("is proven no more: at {at:.0} the object {filename} was not in it, or another one")
        }
        Proof::Pending | Proof::Success | Proof::Failed => return None,
    };
    Some(format!("{place} {why}; POST it to …/pcaps/ownership and answer the new challenge"))
}

/// When challenges were last seen in their buckets.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<HashMap<CaptureId, Instant>>);

impl Seen {
    fn is_fresh(&self, entry: &CaptureId, now: Instant) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(entry).is_some_and(|at| now.saturating_duration_since(*at) < LOOK)
    }

    #[cfg(test)]
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note(&self, entry: &CaptureId, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CHALLENGES_SEEN_MAX {
            seen.retain(|_, at| now.saturating_duration_since(*at) < LOOK);
        }
        if seen.len() >= CHALLENGES_SEEN_MAX {
            // Forgetting costs one request each.
            seen.clear();
        }
        seen.insert(entry.clone(), now);
    }
}

/// Looks at the challenge of one capture's bucket.
#[derive(Clone)]
pub(super) struct Look {
    pub keys: BucketKeys,
    pub account: AccountId,
    pub place: String,
    /// Any one of them will do: the entry's of now, and the one of the capture's beginning.
    pub proofs: Arc<[BucketProof]>,
}

impl Look {
    /// # Errors
    /// [`UploadError::Unproven`] if the bucket is not the one that was proven; what the store said if it does not tell.
    pub async fn at(&self, store: &dyn ObjectStore) -> Result<(), UploadError> {
        let mut outcome = Ok(());
        for proof in &*self.proofs {
            if self.keys.seen.is_fresh(&proof.entry, Instant::now()) {
                return Ok(());
            }
            outcome = self.at_one(store, proof).await;
            if outcome.is_ok() {
                self.keys.seen.note(&proof.entry, Instant::now());
                return outcome;
            }
        }
        outcome
    }

    async fn at_one(&self, store: &dyn ObjectStore, proof: &BucketProof) -> Result<(), UploadError> {
        // A bucket that lets this host only write: its proof ends with its age.
        if !proof.is_readable {
            return Ok(());
        }
        let filename = &proof.filename;
        let (what, is_certain) = match store.get(filename, CHALLENGE_BYTES_MAX).await {
            Ok(bytes) => {
                let found = bound(&self.account, &self.place, &proof.entry, bytes.trim_ascii());
                if found == proof.challenge_sha256 {
                    return Ok(());
                }
                (format!("the object {filename} is another one"), true)
            }
            Err(UploadError::TooLarge { .. }) => (format!("the object {filename} is another one"), true),
            Err(UploadError::NotFound { .. }) => (format!("the object {filename} is not in it"), true),
            Err(UploadError::NoSuchBucket { .. }) => ("the bucket is not there".to_owned(), true),
            // Without s3:ListBucket, S3 says the same of an object that is not there.
            Err(UploadError::Denied { action, detail, .. }) => {
                let what = format!(
                    "the object {filename} is not there, or this host may no longer read it ({detail}): grant it {action} again, or"
                );
                (what, false)
            }
            Err(other) => return Err(other),
        };
        if is_certain {
            self.lose(proof).await;
        }
        Err(UploadError::Unproven { place: self.place.clone(), what })
    }

    /// Ends the entry's proof.
    async fn lose(&self, proof: &BucketProof) {
        let (keys, account, entry) = (self.keys.clone(), self.account.clone(), proof.entry.clone());
        let lost = aside(move || {
            let list = keys.buckets.list(&account)?;
            let Some(old) = list.into_iter().find(|b| b.id == entry && b.lost.is_none()) else {
                return Ok(false);
            };
            let new = Bucket { lost: Some(Timestamp::now()), ..old.clone() };
            keys.buckets.replace(&old, &new).map(|()| true)
        });
        match lost.await {
            Ok(true) => tracing::warn!(
                account = %self.account, place = self.place, bucket = %proof.entry,
                "a bucket's challenge is gone or changed: nothing is written there until it is proven again"
            ),
            Ok(false) => {}
            // The next look finds the same.
            Err(error) => {
                tracing::warn!(place = self.place, %error, "the end of a proof could not be recorded")
            }
        }
    }
}

impl BucketKeys {
    /// The same for a host where destinations need proofs.
    #[must_use]
    pub fn requiring(self, rules: ProofRules) -> Self {
        self.require(rules);
        self
    }

    /// How the account's entry of this destination stands now: its keys, and its proof if that holds and one is needed. Nothing is
    /// read for a destination that has neither.
    ///
    /// # Errors
    /// When the entries cannot be read.
    pub async fn terms(
        &self,
        account: &AccountId,
        destination: &Destination,
    ) -> Result<BucketTerms, StoreError> {
        let needs_proof = self.rules().apply_to(destination);
        if !needs_proof && !matches!(destination, Destination::R2 { .. }) {
            return Ok(BucketTerms::default());
        }
        let Some(bucket) = self.find(account, destination).await? else { return Ok(BucketTerms::default()) };
        let holds = proof(&bucket, Timestamp::now(), self.rules().age_max) == Proof::Success;
        let Bucket { id, filename, challenge_sha256, owner, keys, is_readable, .. } = bucket;
        let proof = BucketProof { entry: id, filename, challenge_sha256, owner, is_readable };
        Ok(BucketTerms { keys, proof: (needs_proof && holds).then_some(proof) })
    }

    /// Whether a destination needs a proof here.
    #[must_use]
    pub fn need_proof(&self, destination: &Destination) -> bool {
        self.rules().apply_to(destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_looks_is_bounded_in_number_and_time() {
        let (seen, began) = (Seen::default(), Instant::now());
        let first = CaptureId::random();
        seen.note(&first, began);
        assert!(seen.is_fresh(&first, began + LOOK / 2) && !seen.is_fresh(&first, began + LOOK));
        for _ in 0..3 * CHALLENGES_SEEN_MAX {
            seen.note(&CaptureId::random(), began);
        }
        assert!(seen.0.lock().unwrap().len() <= CHALLENGES_SEEN_MAX);
    }
}
