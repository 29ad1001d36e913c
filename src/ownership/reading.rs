//! The way back to what was written into a bucket: for somebody who looks at his own objects. Owns which keys and which proof a reader
//! has; not the store.
//!
//! Invariant: nothing is read of a bucket that needs a proof and has none that holds.

use super::{LookedAt, Ownership};
use crate::job::{AccountId, BucketTerms, Destination};
use crate::upload::{ObjectStore, UploadError};
use std::sync::Arc;

impl Ownership {
    /// The store of an account's destination, to read from. `kept`: keys and proof that a capture was accepted with, if it has them
    /// still; those that were sent since go first.
    ///
    /// # Errors
    /// [`UploadError::Unproven`], and what [`crate::upload::Stores::open_as`] fails with.
    pub async fn open_to_read(
        &self,
        account: &AccountId,
        destination: &Destination,
        kept: BucketTerms,
    ) -> Result<Arc<dyn ObjectStore>, UploadError> {
        let failed = |detail: String| UploadError::Keys { place: destination.to_string(), detail };
        let now = self.keys.terms(account, destination).await.map_err(|error| failed(error.to_string()))?;
        let sealed = now.keys.as_ref().or(kept.keys.as_ref());
        let keys = sealed.map(|sealed| self.keys.open(account, destination, sealed)).transpose()?;
        let mut proofs: Vec<_> = now.proof.into_iter().chain(kept.proof).collect();
        proofs.dedup_by(|later, earlier| later.entry == earlier.entry);
        if self.keys.need_proof(destination) && proofs.is_empty() {
            let what = "there is no proof of it now".to_owned();
            return Err(UploadError::Unproven { place: destination.to_string(), what });
        }
        let owner = proofs.first().and_then(|proof| proof.owner.clone());
        let store = self.stores.open_as(destination, keys.as_ref(), owner.as_deref()).await?;
        let store: Arc<dyn ObjectStore> = Arc::from(store);
        if proofs.is_empty() || (owner.is_some() && self.stores.know_owners()) {
            return Ok(store);
        }
        // A bucket of that name may be somebody else's by now.
        LookedAt::new(Arc::clone(&store), &self.keys, account, destination, proofs).look().await?;
        Ok(store)
    }
}
