//! Proof that an account may write to a bucket. Owns challenges and their validation; not the records' storage (`store`), nor the
//! bucket (`upload`).
//!
//! Invariant: a challenge is 256 random bits that lie in the bucket and nowhere else. The host keeps a hash over
//! challenge, account, place and entry, so a challenge is valid for one entry alone; and it expires, as does its answer.

mod challenges;
mod keys;
mod looked;
mod proofs;
mod reading;
mod vault;

use challenges::Challenges;
use data_encoding::HEXLOWER;
pub use keys::BucketKeys;
pub(crate) use looked::LookedAt;
use proofs::CHALLENGE_BYTES_MAX;
pub use proofs::{Proof, ProofRules, ended, proof};
pub use vault::{Locked, Vault, VaultError};

use crate::job::{AccountId, CaptureId};
use crate::job::{Destination, S3Credentials, Sealed, Sent};
use crate::limits::{BUCKETS_PER_ACCOUNT_MAX, CHALLENGE_SECONDS_MAX, READS_MAX, READS_PER_ACCOUNT_MAX};
use crate::seldom::SeldomOfEach;
use crate::store::{Bucket, BucketStore, StoreError};
use crate::turns::Turns;
use crate::upload::{ObjectStore, Stores, Sweep, UploadError, within};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Why a bucket was not added, proven or removed.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// The account has no such entry.
    #[error("ownership not found")]
    NotFound,
    /// The answer differs from the object's content.
    #[error(
        "ownership_challenge is not the content of {filename}; read that object in the bucket and send what is in it{hint}"
    )]
    Wrong {
        /// The object.
        filename: String,
        /// What was probably sent instead.
        hint: &'static str,
    },
    /// The challenge was not answered in time.
    #[error("the challenge ended at {0}; create the ownership again and answer the new one")]
    Expired(Timestamp),
    /// The challenge was answered once, and that counts no more.
    #[error("{0}")]
    Ended(String),
    /// The account asked for a challenge in that bucket a short time ago, or for many.
    #[error(
        "this account has an unanswered challenge in that bucket, or had many written in the last hour; answer it, or ask for \
         another one in {seconds_left} s"
    )]
    TooSoon {
        /// Until the next may be asked for; at least one.
        seconds_left: u64,
    },
    /// The challenge could not be written.
    #[error("the challenge could not be written: {0}")]
    Destination(UploadError),
    /// Keys came with the destination, and nothing here may keep them.
    #[error(
        "this host keeps no access keys of buckets, so none may come with destination_conf; ask its operator to set \
         store.key_file, or use a bucket that this host's own credentials open"
    )]
    NoKeyFile,
    /// The entry could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no random numbers.
    #[error("the system gave no random numbers; look at its log")]
    Random,
}

/// A destination in the one spelling of its place: a slash at the end of the directory means nothing.
#[must_use]
pub fn place(destination: &Destination) -> String {
    let uri = destination.to_string();
    let (path, query) = uri.split_once('?').map_or((uri.as_str(), None), |(path, query)| (path, Some(query)));
    let path = path.trim_end_matches('/');
    query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

/// Access to the buckets' entries. Its calls to the store block for about one disk write, on a blocking thread.
#[derive(Clone)]
pub struct Ownership {
    buckets: Arc<dyn BucketStore>,
    stores: Arc<Stores>,
    keys: BucketKeys,
    contact_time_max: Duration,
    challenges: Arc<Challenges>,
    /// Turns at the store, for lists.
    reads: Arc<Turns>,
    /// What customers cause in the log.
    said: Arc<SeldomOfEach>,
}

impl Ownership {
    /// Entries in `buckets`, challenges written through `stores`, which must take one within `contact_time_max`: a client
    /// waits for the answer.
    #[must_use]
    pub fn new(
        buckets: Arc<dyn BucketStore>,
        stores: Arc<Stores>,
        keys: BucketKeys,
        contact_time_max: Duration,
    ) -> Self {
        let challenges = Arc::new(Challenges::new(Duration::ZERO));
        let reads = Turns::new(READS_MAX, READS_PER_ACCOUNT_MAX);
        Self { buckets, stores, keys, contact_time_max, challenges, reads, said: Arc::default() }
    }

    /// The same with so long between two challenges of one account for one bucket, unless the first is answered.
    #[must_use]
    pub fn with_challenge_interval(self, interval: Duration) -> Self {
        self.challenges.set_interval(interval);
        self
    }

    /// So long between two challenges of one account for one bucket from now on, also for clones of this.
    pub fn set_challenge_interval(&self, interval: Duration) {
        self.challenges.set_interval(interval);
    }

    /// Writes a challenge into the destination and remembers it. A place that is proven already is answered as it is, so
    /// that a script may be run again; one that is not gets a new challenge, and the old one is void. `sent` came with the
    /// destination: keys and owner take the place of earlier ones, also of a place that is proven.
    ///
    /// # Errors
    /// [`OwnershipError::Destination`], [`OwnershipError::NoKeyFile`] and [`OwnershipError::Store`].
    pub async fn create(
        &self,
        account: AccountId,
        destination: &Destination,
        sent: Sent,
    ) -> Result<Bucket, OwnershipError> {
        let place = place(destination);
        let found = self.find(&account, &place).await?;
        let keys = match &sent.keys {
            Some(sent) => self.seal(&account, &place, sent)?,
            None => found.as_ref().and_then(|found| found.keys.clone()),
        };
        let owner = sent.owner.clone().or_else(|| found.as_ref().and_then(|found| found.owner.clone()));
        let replaced = match found {
            Some(proven) if self.standing(&proven) == Proof::Success => {
                return match sent == Sent::default() {
                    false => self.renew(proven, destination, (keys, owner)).await,
                    true => Ok(proven),
                };
            }
            unproven => unproven,
        };
        let asked = self.challenges.ask(&account, destination, Instant::now());
        asked.map_err(|left| OwnershipError::TooSoon { seconds_left: left.as_secs() + 1 })?;
        let (id, challenge, now) = (CaptureId::random(), random_challenge()?, Timestamp::now());
        let mut bucket = Bucket {
            filename: format!("ownership-challenge-{id}.txt"),
            challenge_sha256: bound(&account, &place, &id, challenge.as_bytes()),
            destination: destination.to_string(),
            submitted: now,
            expires: now.saturating_add(SignedDuration::from_secs(CHALLENGE_SECONDS_MAX)).unwrap_or(now),
            validated: None,
            id,
            account,
            place,
            keys,
            owner,
            lost: None,
            is_readable: false,
        };
        let written = self.contact(&bucket, destination, Some(challenge)).await;
        bucket.is_readable = written.inspect_err(|_| self.challenges.close(&bucket.account, destination))?;
        let (buckets, record) = (Arc::clone(&self.buckets), bucket.clone());
        aside(move || buckets.put(&record, BUCKETS_PER_ACCOUNT_MAX)).await?;
        tracing::info!(account = %bucket.account, bucket = %bucket.id, "ownership challenge written");
        if let Some(replaced) = replaced {
            let (this, bucket, destination) = (self.clone(), bucket.clone(), destination.clone());
            tokio::spawn(async move { this.remove_challenge(&bucket, &destination, &replaced).await });
        }
        Ok(bucket)
    }

    /// Removes the object of a challenge that another one replaced. That needs a right which nothing else needs.
    async fn remove_challenge(&self, bucket: &Bucket, destination: &Destination, replaced: &Bucket) {
        let removed = async {
            let store = self.open(bucket, destination).await?;
            store.remove(&replaced.filename).await
        };
        if let Err(error) = within(self.contact_time_max, destination, removed).await {
            tracing::info!(bucket = %replaced.id, %error, "the object of a replaced challenge stays in its bucket");
        }
    }

    fn seal(
        &self,
        account: &AccountId,
        place: &str,
        keys: &S3Credentials,
    ) -> Result<Option<Sealed>, OwnershipError> {
        let sealed = self.keys.seal(account, place, keys).ok_or(OwnershipError::NoKeyFile)?;
        sealed.ok_or(OwnershipError::Random).map(Some)
    }

    /// New keys, or an owner, for a place that stays proven: what was proven is that the account reads what lies there.
    async fn renew(
        &self,
        proven: Bucket,
        destination: &Destination,
        (keys, owner): (Option<Sealed>, Option<String>),
    ) -> Result<Bucket, OwnershipError> {
        let renewed = Bucket { keys, owner, ..proven.clone() };
        self.contact(&renewed, destination, None).await?;
        let (buckets, new) = (Arc::clone(&self.buckets), renewed.clone());
        aside(move || buckets.replace(&proven, &new)).await?;
        static SAID: SeldomOfEach = SeldomOfEach::new();
        if SAID.may(&renewed.account.0, Instant::now()) {
            tracing::info!(
                account = %renewed.account, bucket = %renewed.id,
                "access keys or owner of a bucket renewed; more of this account within a minute are not told"
            );
        }
        Ok(renewed)
    }

    /// Tries the bucket and writes the challenge, if there is one. Whether the host may read it there.
    async fn contact(
        &self,
        bucket: &Bucket,
        destination: &Destination,
        challenge: Option<String>,
    ) -> Result<bool, OwnershipError> {
        let contact = async {
            let store = self.open(bucket, destination).await?;
            store.probe().await?;
            let Some(challenge) = challenge.map(Bytes::from) else { return Ok(bucket.is_readable) };
            store.put(&bucket.filename, challenge.clone()).await?;
            let read = store.get(&bucket.filename, CHALLENGE_BYTES_MAX).await;
            Ok(read.is_ok_and(|read| read == challenge))
        };
        within(self.contact_time_max, destination, contact).await.map_err(OwnershipError::Destination)
    }

    async fn open(
        &self,
        bucket: &Bucket,
        destination: &Destination,
    ) -> Result<Box<dyn ObjectStore>, UploadError> {
        let open = |sealed| self.keys.open(&bucket.account, destination, sealed);
        let keys = bucket.keys.as_ref().map(open).transpose()?;
        self.stores.open_as(destination, keys.as_ref(), bucket.owner.as_deref()).await
    }

    /// Removes the leftovers of a dead process's probes from the buckets of these accounts. They cost the bucket's owner money and
    /// no packets, so a failure is only logged.
    pub async fn sweep(&self, accounts: &[AccountId]) {
        for account in accounts {
            let buckets = self.list(account).await.unwrap_or_else(|error| {
                tracing::warn!(%account, %error, "an account's buckets cannot be swept");
                Vec::new()
            });
            for bucket in buckets {
                match self.sweep_place(&bucket).await {
                    Ok(0) => {}
                    Ok(probes) => {
                        tracing::info!(place = bucket.place, probes, "leftovers of probes were removed");
                    }
                    Err(error) => {
                        tracing::info!(place = bucket.place, %error, "leftovers of probes, if any, stay");
                    }
                }
            }
        }
    }

    async fn sweep_place(&self, bucket: &Bucket) -> Result<u32, UploadError> {
        let destination = Destination::parse(&bucket.destination)?;
        // The leftovers of captures are the engine's.
        let sweep = Sweep { ours: &|_| false, known: &[], before: Timestamp::now() };
        let contact = async {
            let store = self.open(bucket, &destination).await?;
            store.sweep(sweep).await
        };
        within(self.contact_time_max, &destination, contact).await
    }

    /// Compares an answer with the challenge. Nothing in the bucket is read: only somebody who can read it knows the content.
    ///
    /// # Errors
    /// [`OwnershipError::NotFound`], [`OwnershipError::Wrong`], [`OwnershipError::Expired`] and [`OwnershipError::Store`].
    pub async fn validate(
        &self,
        account: &AccountId,
        destination: &Destination,
        answer: &str,
    ) -> Result<Bucket, OwnershipError> {
        let place = place(destination);
        let bucket = self.find(account, &place).await?.ok_or(OwnershipError::NotFound)?;
        // Editors and `echo` end a file's last line.
        let answer = answer.trim_ascii();
        let sent = bound(account, &place, &bucket.id, answer.as_bytes());
        if !bool::from(sent.ct_eq(&bucket.challenge_sha256)) {
            if self.said.may(&account.0, Instant::now()) {
                let bucket = &bucket.id;
                tracing::warn!(
                    %account, %bucket,
                    "wrong answer to an ownership challenge; more of this account within a minute are not told"
                );
            }
            let hint = if answer == bucket.filename { ", not its name" } else { "" };
            return Err(OwnershipError::Wrong { filename: bucket.filename, hint });
        }
        let now = Timestamp::now();
        match self.standing(&bucket) {
            Proof::Success => return Ok(bucket),
            Proof::Failed => return Err(OwnershipError::Expired(bucket.expires)),
            // One who kept the old answer has not shown that the bucket is still his.
            standing @ (Proof::Aged(_) | Proof::Lost(_)) => {
                return Err(OwnershipError::Ended(ended(&bucket, standing).unwrap_or_default()));
            }
            Proof::Pending => {}
        }
        let proven = Bucket { validated: Some(now), ..bucket.clone() };
        let (buckets, new) = (Arc::clone(&self.buckets), proven.clone());
        aside(move || buckets.replace(&bucket, &new)).await?;
        self.challenges.close(account, destination);
        tracing::info!(%account, bucket = %proven.id, "ownership proven");
        Ok(proven)
    }

    /// An account's entries, newest first.
    ///
    /// # Errors
    /// [`OwnershipError::Store`].
    pub async fn list(&self, account: &AccountId) -> Result<Vec<Bucket>, OwnershipError> {
        let turn = self.reads.take(account).await;
        let (buckets, account) = (Arc::clone(&self.buckets), account.clone());
        let list = move || {
            let list = buckets.list(&account);
            // Here and not where the caller waits: one that leaves does not end the read.
            drop(turn);
            list
        };
        Ok(aside(list).await?)
    }

    /// Forgets an entry. Running captures go on; the bucket and its content stay.
    ///
    /// # Errors
    /// [`OwnershipError::NotFound`] also when it is another account's.
    pub async fn remove(&self, account: &AccountId, id: CaptureId) -> Result<(), OwnershipError> {
        let (buckets, account) = (Arc::clone(&self.buckets), account.clone());
        match aside(move || buckets.remove(&account, &id)).await? {
            true => Ok(()),
            false => Err(OwnershipError::NotFound),
        }
    }

    /// Whether the account has proven that it may write to the destination, and the proof holds. Nothing in the bucket is looked
    /// at.
    ///
    /// # Errors
    /// [`OwnershipError::Store`].
    pub async fn is_proven(
        &self,
        account: &AccountId,
        destination: &Destination,
    ) -> Result<bool, OwnershipError> {
        let found = self.entry(account, destination).await?;
        Ok(found.is_some_and(|bucket| self.standing(&bucket) == Proof::Success))
    }

    /// The account's entry of a destination.
    ///
    /// # Errors
    /// [`OwnershipError::Store`].
    pub async fn entry(
        &self,
        account: &AccountId,
        destination: &Destination,
    ) -> Result<Option<Bucket>, OwnershipError> {
        self.find(account, &place(destination)).await
    }

    /// Where an entry stands now.
    #[must_use]
    pub fn standing(&self, bucket: &Bucket) -> Proof {
        proof(bucket, Timestamp::now(), self.keys.rules().age_max)
    }

    async fn find(&self, account: &AccountId, place: &str) -> Result<Option<Bucket>, OwnershipError> {
        Ok(self.list(account).await?.into_iter().find(|bucket| bucket.place == place))
    }
}

fn random_challenge() -> Result<String, OwnershipError> {
    let mut bits = [0; 32];
    SystemRandom::new().fill(&mut bits).map_err(|_| OwnershipError::Random)?;
    Ok(HEXLOWER.encode(&bits))
}

/// Each part before its length, so that no two lists of parts are one sequence of bytes.
fn bound(account: &AccountId, place: &str, id: &CaptureId, challenge: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [account.0.as_bytes(), place.as_bytes(), id.as_str().as_bytes(), challenge] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Runs a blocking call of the store on a blocking thread.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(StoreError::ShuttingDown),
        },
    }
}

#[cfg(test)]
mod tests;
