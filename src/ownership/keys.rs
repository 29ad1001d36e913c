//! The access keys of buckets that bring their own. Owns which keys open a destination for an account; not their encryption
//! (`upload`), nor where they are kept (`store`).
//!
//! Invariant: keys leave here for the account that sent them and the place that they were sent for, and in clear for the
//! client of the store alone.

use super::{aside, place};
use crate::job::AccountId;
use crate::job::{Destination, S3Credentials, Sealed};
use crate::ownership::Vault;
use crate::store::{BucketStore, StoreError};
use crate::upload::UploadError;
use std::fmt;
use std::sync::Arc;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct BucketKeys {
    buckets: Arc<dyn BucketStore>,
    vault: Option<Arc<Vault>>,
}

impl fmt::Debug for BucketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketKeys").field("vault", &self.vault).finish_non_exhaustive()
    }
}

impl BucketKeys {
    /// Keys in the entries of `buckets`, sealed with `vault`; no keys at all without one.
    #[must_use]
    pub fn new(buckets: Arc<dyn BucketStore>, vault: Option<Arc<Vault>>) -> Self {
        Self { buckets, vault }
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

    /// The keys that the account's entry of this destination has now. Nothing is read for a destination that brings none.
    ///
    /// # Errors
    /// When the entries cannot be read.
    pub async fn kept(
        &self,
        account: &AccountId,
        destination: &Destination,
    ) -> Result<Option<Sealed>, StoreError> {
        if !matches!(destination, Destination::R2 { .. }) {
            return Ok(None);
        }
        let (buckets, account, place) = (Arc::clone(&self.buckets), account.clone(), place(destination));
        let list = aside(move || buckets.list(&account)).await?;
        Ok(list.into_iter().find(|bucket| bucket.place == place).and_then(|bucket| bucket.keys))
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
