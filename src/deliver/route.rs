//! Where one capture's objects go. Owns the opening of its store, with the keys that are good now; not the store.
//!
//! Invariant: a store is opened again for each attempt: credentials may have been put right.

use crate::job::{AccountId, CaptureId, Destination, S3Credentials, Sealed};
use crate::ownership::BucketKeys;
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
    /// The destination's keys when the capture was accepted.
    pub kept: Option<Sealed>,
    pub simple_dir: PathBuf,
}

impl Route {
    pub async fn open(&self) -> Result<Arc<dyn ObjectStore>, UploadError> {
        let store: Box<dyn ObjectStore> = match &self.destination {
            Some(destination) => {
                let keys = self.keys_now(destination).await?;
                self.stores.open_with(destination, keys.as_ref()).await?
            }
            None => Box::new(FileStore::of_spool(self.simple_dir.clone())),
        };
        Ok(Arc::from(store))
    }

    /// Keys that were sent since go before those of the beginning, which may be the ones that do not work any more.
    async fn keys_now(&self, destination: &Destination) -> Result<Option<S3Credentials>, UploadError> {
        let sealed = self.sealed_now(destination).await?.or_else(|| self.kept.clone());
        sealed.map(|sealed| self.keys.open(&self.account, destination, &sealed)).transpose()
    }

    async fn sealed_now(&self, destination: &Destination) -> Result<Option<Sealed>, UploadError> {
        self.keys
            .kept(&self.account, destination)
            .await
            .map_err(|error| UploadError::Keys { place: destination.to_string(), detail: error.to_string() })
    }

    /// Finds out whether objects can go there within `time_max`, and takes the keys that open it now.
    pub async fn try_out(&mut self, time_max: Duration) -> Result<Option<Sealed>, UploadError> {
        let Some(destination) = self.destination.clone() else {
            return self.open().await?.probe().await.map(|()| None);
        };
        self.kept = self.sealed_now(&destination).await?;
        let probe = async { self.open().await?.probe().await };
        within(time_max, &destination, probe).await.map(|()| self.kept.clone())
    }
}

/// Removes what unfinished uploads of these captures left in the one place where they went. It costs the bucket's owner
/// money and nobody any packets, so that a failure is a warning. Whether nothing is left.
pub(crate) async fn sweep_store(route: &Route, captures: &[CaptureId]) -> bool {
    let ours = |id: &CaptureId| captures.contains(id);
    // Nothing of these captures is in progress: there is no time after which something could be.
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
            %error, ?captures,
            "leftovers of uploads could not be removed; the next start tries again, and a lifecycle rule of the bucket does it too"
        ),
    }
    swept.is_ok()
}
