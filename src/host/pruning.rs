//! The end of jobs' records. Owns when they are forgotten; the records are the job store's.
//!
//! A record that speaks of packets on this host stays as long as they do, whatever its age.
//!
//! Invariant: an account has at most `store.jobs_per_account_max` records of ended captures, a minute after the last one ended.

use super::storage::Storage;
use crate::config::Plan;
use crate::job::CaptureId;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(60);

/// Forgets what is too old or too much, for as long as it is polled.
pub(super) fn keep(plan: &Plan, storage: &Storage) -> impl Future<Output = ()> + use<> {
    let (jobs, spool_dir, shares) = (Arc::clone(&storage.jobs), plan.spool.dir.clone(), plan.shares);
    let accounts: Vec<_> = plan.accounts.iter().map(|account| account.id.clone()).collect();
    async move {
        let mut turn = tokio::time::interval(INTERVAL);
        loop {
            turn.tick().await;
            let (jobs, spool_dir, accounts) = (Arc::clone(&jobs), spool_dir.clone(), accounts.clone());
            let pruned = tokio::task::spawn_blocking(move || {
                let age = SignedDuration::try_from(shares.jobs_time).unwrap_or(SignedDuration::MAX);
                let before = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
                let is_needed = |id: &CaptureId| spool_dir.join(id.as_str()).exists();
                for account in &accounts {
                    match jobs.prune(account, shares.jobs_per_account_max, before, &is_needed) {
                        Ok(0) => {}
                        Ok(pruned) => {
                            tracing::info!(%account, pruned, "records of old captures were removed")
                        }
                        // The next turn tries again.
                        Err(error) => {
                            tracing::error!(%account, %error, "records of old captures could not be removed");
                        }
                    }
                }
            });
            match pruned.await {
                Err(error) if error.is_panic() => {
                    tracing::error!("removing records of old captures panicked")
                }
                Err(_runtime_ends) => return,
                Ok(()) => {}
            }
        }
    }
}
