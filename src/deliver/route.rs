//! Where one capture's objects go. Owns the opening of its store, with the keys and the proof that are good now; not the store.
//!
//! Invariant: a store is opened again for each attempt: credentials may have been put right. One that needs a proof is looked at
//! before anything is written, unless the store itself holds every request against the bucket's owner.

use super::words::Words;
use crate::job::{AccountId, BucketTerms, Destination, PartId};
use crate::ownership::{BucketKeys, LookedAt};
use crate::upload::{FileStore, ObjectStore, Stores, Sweep, UploadError, within};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Attempts to remove leftovers from a directory, and the pause between two.
const SWEEPS: u32 = 3;
const SWEEP_PAUSE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Clone)]
pub(crate) struct Route {
    pub stores: Arc<Stores>,
    pub account: AccountId,
    pub destination: Option<Destination>,
    pub keys: BucketKeys,
    /// Keys and proof of the destination when the capture was accepted.
    pub kept: BucketTerms,
    pub simple_dir: PathBuf,
}

impl Route {
    pub async fn open(&self) -> Result<Arc<dyn ObjectStore>, UploadError> {
        match &self.destination {
            Some(destination) => {
                let now = self.terms_now(destination).await?;
                self.open_at(destination, now).await
            }
            None => Ok(Arc::new(FileStore::of_spool(self.simple_dir.clone()))),
        }
    }

    /// Keys that were sent since go before those of the beginning, which may be the ones that do not work any more. So does a
    /// new proof; the old one holds too, as long as its challenge is in the bucket.
    async fn open_at(
        &self,
        destination: &Destination,
        now: BucketTerms,
    ) -> Result<Arc<dyn ObjectStore>, UploadError> {
        let open = |sealed| self.keys.open(&self.account, destination, sealed);
        let keys = now.keys.as_ref().or(self.kept.keys.as_ref()).map(open).transpose()?;
        let mut proofs: Vec<_> = now.proof.into_iter().chain(self.kept.proof.clone()).collect();
        proofs.dedup_by(|later, earlier| later.entry == earlier.entry);
        let owner = proofs.first().and_then(|proof| proof.owner.clone());
        let store = self.stores.open_as(destination, keys.as_ref(), owner.as_deref()).await?;
        let store: Arc<dyn ObjectStore> = Arc::from(store);
        let is_held_by_store = owner.is_some() && self.stores.know_owners();
        if proofs.is_empty() || is_held_by_store {
            return Ok(store);
        }
        Ok(Arc::new(LookedAt::new(store, &self.keys, &self.account, destination, proofs)))
    }

    async fn terms_now(&self, destination: &Destination) -> Result<BucketTerms, UploadError> {
        let terms = self.keys.terms(&self.account, destination).await;
        terms.map_err(|error| UploadError::Keys { place: destination.to_string(), detail: error.to_string() })
    }

    /// What is said of a failure at this place.
    pub fn words(&self, error: &UploadError) -> Words {
        Words::of_upload(error, self.destination.is_some())
    }

    /// Finds out whether objects can go there within `time_max`, and takes the keys and the proof that hold now.
    pub async fn try_out(&mut self, time_max: Duration) -> Result<BucketTerms, UploadError> {
        let Some(destination) = self.destination.clone() else {
            return self.open().await?.probe().await.map(|()| BucketTerms::default());
        };
        let (now, before) = (self.terms_now(&destination).await?, std::mem::take(&mut self.kept));
        // What another node accepted a capture under holds where nothing newer is known.
        self.kept = BucketTerms { keys: now.keys.or(before.keys), proof: now.proof.or(before.proof) };
        if self.keys.need_proof(&destination) && self.kept.proof.is_none() {
            let what = "there is no proof of it now".to_owned();
            return Err(UploadError::Unproven { place: destination.to_string(), what });
        }
        let probe = async { self.open_at(&destination, self.kept.clone()).await?.probe().await };
        within(time_max, &destination, probe).await.map(|()| self.kept.clone())
    }
}

/// Finds out whether objects of an account can go to a destination, for a capture that other hosts deliver; with an error, also what its
/// customer is told.
///
/// # Errors
/// What the store says, or that a proof is missing.
pub async fn try_destination(
    stores: &Arc<Stores>,
    keys: &BucketKeys,
    account: &AccountId,
    destination: &Destination,
    within: Duration,
) -> Result<BucketTerms, (UploadError, String)> {
    let mut route = Route {
        stores: Arc::clone(stores),
        account: account.clone(),
        destination: Some(destination.clone()),
        keys: keys.clone(),
        kept: BucketTerms::default(),
        simple_dir: PathBuf::new(),
    };
    let tried = route.try_out(within).await;
    tried.map_err(|error| {
        let words = route.words(&error).into_customer();
        (error, words)
    })
}

/// The store of a destination, for what is written there beside what hosts deliver; `kept`: under which the capture was accepted.
///
/// # Errors
/// When it cannot be opened.
pub async fn open_destination(
    stores: &Arc<Stores>,
    keys: &BucketKeys,
    account: &AccountId,
    destination: &Destination,
    kept: BucketTerms,
) -> Result<Arc<dyn ObjectStore>, UploadError> {
    let route = Route {
        stores: Arc::clone(stores),
        account: account.clone(),
        destination: Some(destination.clone()),
        keys: keys.clone(),
        kept,
        simple_dir: PathBuf::new(),
    };
    route.open().await
}

/// Removes what unfinished uploads of these parts left in the one place where they went. It costs the bucket's owner
/// money and nobody any packets, so that a failure is a warning. Whether nothing is left.
pub(crate) async fn sweep_store(route: &Route, parts: &[PartId]) -> bool {
    let ours = |part: &PartId| parts.contains(part);
    // Nothing of these is in progress: there is no time after which something could be.
    let sweep = Sweep { ours: &ours, known: &[], before: Timestamp::MAX };
    let mut left = SWEEPS;
    let swept = loop {
        left -= 1;
        let swept = match route.open().await {
            Ok(store) => store.sweep(sweep).await,
            Err(error) => Err(error),
        };
        // The ways to buckets try again by themselves.
        match swept {
            Err(UploadError::Disk { .. }) if left > 0 => tokio::time::sleep(SWEEP_PAUSE).await,
            swept => break swept,
        }
    };
    match &swept {
        Ok(0) => {}
        Ok(uploads) => tracing::info!(uploads, "leftovers of uploads were removed"),
        Err(error) => tracing::warn!(
            %error, parts = ?parts.iter().map(PartId::stem).collect::<Vec<_>>(),
            "leftovers of uploads could not be removed; the next start tries again, and a lifecycle rule of the bucket does it too"
        ),
    }
    swept.is_ok()
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::job::{BucketProof, CaptureId};
    use crate::ownership::ProofRules;
    use crate::store::Embedded;
    use crate::upload::StoresConfig;

    #[tokio::test]
    async fn a_place_that_needs_a_proof_is_taken_with_the_one_of_the_node_that_accepted_the_capture() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(&dir.path().join("db")).unwrap());
        let stores = StoresConfig { allow_file: true, ..StoresConfig::default() };
        let rules = ProofRules { files: true, ..ProofRules::default() };
        let bucket = dir.path().join("bucket");
        std::fs::create_dir(&bucket).unwrap();
        let mut route = Route {
            stores: Arc::new(Stores::new(stores).unwrap()),
            account: AccountId("a".to_owned()),
            destination: Some(Destination::File { dir: bucket }),
            keys: BucketKeys::new(store, None).requiring(rules),
            kept: BucketTerms::default(),
            simple_dir: PathBuf::new(),
        };
        let refused = route.try_out(Duration::from_secs(10)).await;
        assert!(matches!(refused, Err(UploadError::Unproven { .. })), "{refused:?}");
        let (entry, filename) = (CaptureId::random(), "f".to_owned());
        let proof =
            BucketProof { entry, filename, challenge_sha256: [1; 32], owner: None, is_readable: false };
        let terms = BucketTerms { keys: None, proof: Some(proof) };
        route.kept = terms.clone();
        assert_eq!(route.try_out(Duration::from_secs(10)).await.unwrap(), terms);
    }
}
