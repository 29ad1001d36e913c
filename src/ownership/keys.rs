//! What deliveries need of buckets' entries: access keys, and the proof. Owns which keys open a destination for an account; not
//! their encryption (`vault`), nor where they are kept (`store`), nor what a proof is worth (`proofs`).
//!
//! Invariant: keys leave here for the account that sent them and the place that they were sent for, and in clear for the
//! client of the store alone.

use super::proofs::{ProofRules, Seen};
use super::{aside, place};
use crate::job::AccountId;
use crate::job::{Destination, S3Credentials, Sealed};
use crate::ownership::Vault;
use crate::store::{Bucket, BucketStore, StoreError};
use crate::upload::UploadError;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct BucketKeys {
    pub(super) buckets: Arc<dyn BucketStore>,
    pub(super) vault: Option<Arc<Vault>>,
    /// Those of all clones.
    pub(super) rules: Arc<RwLock<ProofRules>>,
    pub(super) seen: Arc<Seen>,
}

impl fmt::Debug for BucketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketKeys").field("vault", &self.vault).finish_non_exhaustive()
    }
}

impl BucketKeys {
    /// Keys in the entries of `buckets`, sealed with `vault`; no keys at all without one. No destination needs a proof.
    #[must_use]
    pub fn new(buckets: Arc<dyn BucketStore>, vault: Option<Arc<Vault>>) -> Self {
        Self { buckets, vault, rules: Arc::default(), seen: Arc::default() }
    }

    /// Which destinations need a proof now.
    pub(super) fn rules(&self) -> ProofRules {
        *self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proofs are needed by these rules from now on, also by clones of this.
    pub fn require(&self, rules: ProofRules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Seals keys; none when this host has no key to do so.
    pub(super) fn seal(
        &self,
        account: &AccountId,
        place: &str,
        keys: &S3Credentials,
    ) -> Option<Option<Sealed>> {
        self.vault.as_ref().map(|vault| vault.seal(account, place, keys))
    }

    /// The account's entry of this destination.
    pub(super) async fn find(
        &self,
        account: &AccountId,
        destination: &Destination,
    ) -> Result<Option<Bucket>, StoreError> {
        let (buckets, account, place) = (Arc::clone(&self.buckets), account.clone(), place(destination));
        let list = aside(move || buckets.list(&account)).await?;
        Ok(list.into_iter().find(|bucket| bucket.place == place))
    }

    /// Opens sealed keys for a request to the destination's store.
    ///
    /// # Errors
    /// [`UploadError::Keys`] when they do not open here: the host's key is another one, or gone.
    pub fn open(
        &self,
        account: &AccountId,
        destination: &Destination,
        sealed: &Sealed,
    ) -> Result<S3Credentials, UploadError> {
        let place = place(destination);
        let failed = |detail: String| UploadError::Keys { place: destination.to_string(), detail };
        let Some(vault) = &self.vault else {
            return Err(failed("this host has no store.key_file any more".to_owned()));
        };
        vault.open(account, &place, sealed).map_err(|locked| failed(locked.to_string()))
    }
}
