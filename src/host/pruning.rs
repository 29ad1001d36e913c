//! The end of jobs' records. Owns when they are forgotten; the records are the job store's.
//!
//! A record that speaks of packets on this host stays as long as they do, whatever its age.
//!
//! Invariant: an account has at most `store.jobs_per_account_max` records of ended captures, a minute after the last one ended.

use super::storage::Storage;
use super::tasks::turn_of;
use crate::config::Plan;
use crate::job::CaptureId;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const INTERVAL: Duration = Duration::from_secs(60);

/// Forgets what is too old or too much, for as long as it is polled.
pub(super) fn keep(plan: watch::Receiver<Arc<Plan>>, storage: &Storage) -> impl Future<Output = ()> + use<> {
    let jobs = Arc::clone(&storage.jobs);
    async move {
        let mut turn = tokio::time::interval(INTERVAL);
        loop {
            turn.tick().await;
            let (jobs, plan) = (Arc::clone(&jobs), Arc::clone(&plan.borrow()));
            let prune = move || {
                let (shares, spool_dir) = (plan.shares, &plan.spool.dir);
                let age = SignedDuration::try_from(shares.jobs_time).unwrap_or(SignedDuration::MAX);
                let before = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
                let is_needed = |id: &CaptureId| spool_dir.join(id.as_str()).try_exists().unwrap_or(true);
                for account in plan.accounts.iter().map(|account| &account.id) {
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
            };
            if turn_of("removing records of old captures", prune).await.is_break() {
                return;
            }
        }
    }
}
