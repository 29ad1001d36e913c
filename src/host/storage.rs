//! Everything of a host that outlives it: the job store, the spool, the history, the ways to buckets and the keys. Owns the order in
//! which they are opened; not what is kept there.
//!
//! Invariant: nothing is opened in a spool that the job store does not know.

use super::identity;
use super::serve::ServeError;
use crate::audit::Audit;
use crate::config::Plan;
use crate::deliver::SigningKey;
use crate::history::{History, HistoryError};
use crate::limits::SIMPLE_DIR;
use crate::ownership::{BucketKeys, Ownership, Vault, VaultError};
use crate::spool::Spool;
use crate::stamp::{Authority, StampError};
use crate::store::{BucketStore, Embedded};
use crate::upload::Stores;
use crate::worker::Sample;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long somebody waits at most to hear whether a destination can be used. A store that works answers in a second.
const CONTACT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the end waits for the last segments of the history.
const HISTORY_PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Storage {
    pub stores: Arc<Stores>,
    pub jobs: Arc<Embedded>,
    pub spool: Arc<Spool>,
    pub history: Option<Arc<History>>,
    pub signing_key: Option<Arc<SigningKey>>,
    /// Who stamps manifests.
    pub authority: Option<Arc<Authority>>,
    pub keys: BucketKeys,
    /// Who did what, if that is kept; started by `serve`.
    pub audit: Option<Audit>,
    /// Told when there are new files of simple captures.
    pub simple_written: Arc<Notify>,
    challenge_interval: Duration,
    /// Half of what a request has, so that it is answered whatever a customer's store does, and no longer than a store takes that
    /// works.
    pub contact_time_max: Duration,
}

impl Storage {
    /// Opens all of it. `new_spool`: takes the spool also if the job store knows another one.
    ///
    /// # Errors
    /// What cannot be opened.
    pub fn open(plan: &Plan, new_spool: bool) -> Result<Self, ServeError> {
        let stores = Arc::new(Stores::new(plan.upload.stores.clone())?);
        let jobs = Arc::new(Embedded::open(&plan.store.path)?);
        identity::check(plan, &jobs, new_spool)?;
        let spool = Arc::new(Spool::open(plan.spool.clone())?);
        identity::settle(&spool, &jobs)?;
        let history = history(plan, &spool)?;
        let signing_key = plan.manifest.signing_key_file.as_deref().map(SigningKey::load).transpose()?;
        let keys = bucket_keys(plan, jobs.clone())?;
        Ok(Self {
            stores,
            jobs,
            spool,
            history,
            signing_key: signing_key.map(Arc::new),
            authority: authority(plan)?,
            keys,
            audit: None,
            simple_written: Arc::default(),
            challenge_interval: plan.upload.challenge_interval,
            contact_time_max: contact_time_max(plan),
        })
    }

    /// Whose the buckets are.
    pub fn ownership(&self) -> Ownership {
        let (jobs, stores) = (self.jobs.clone(), Arc::clone(&self.stores));
        Ownership::new(jobs, stores, self.keys.clone(), self.contact_time_max)
            .with_challenge_interval(self.challenge_interval)
    }

    /// Where the files of simple captures lie.
    pub fn simple_dir(&self) -> PathBuf {
        self.spool.config().dir.join(SIMPLE_DIR)
    }

    /// Waits for what the workers had of the history when they ended.
    pub fn take_in(&self) {
        let Some(history) = &self.history else { return };
        if let Err(error) = history.finish(HISTORY_PATIENCE) {
            tracing::warn!(%error, "the last segments of the history are taken in at the next start");
        }
    }
}

/// The authority of a config, not asked yet.
pub(super) fn authority(plan: &Plan) -> Result<Option<Arc<Authority>>, StampError> {
    Ok(plan.manifest.authority.as_ref().map(Authority::new).transpose()?.map(Arc::new))
}

/// Keys and proofs of the buckets that are remembered there.
pub(super) fn bucket_keys(plan: &Plan, buckets: Arc<dyn BucketStore>) -> Result<BucketKeys, VaultError> {
    let vault = plan.store.key_file.as_deref().map(Vault::load).transpose()?;
    Ok(BucketKeys::new(buckets, vault.map(Arc::new)).requiring(plan.upload.proofs))
}

/// How long somebody waits at most to hear whether a destination can be used.
pub(super) fn contact_time_max(plan: &Plan) -> Duration {
    (plan.api.request_timeout / 2).min(CONTACT_TIME_MAX)
}

fn history(plan: &Plan, spool: &Arc<Spool>) -> Result<Option<Arc<History>>, HistoryError> {
    let Some(config) = plan.history else { return Ok(None) };
    let history = History::open(config, Arc::clone(spool))?;
    let one_in = config.sample.map_or(1, Sample::one_in);
    tracing::info!(bytes = history.bytes(), bytes_max = config.bytes_max, one_in, "history is open");
    Ok(Some(Arc::new(history)))
}
