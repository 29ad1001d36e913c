//! The end of jobs' records. Owns when they are forgotten; the records are the job store's.
//!
//! A record that speaks of packets on this host stays as long as they do, whatever its age: also one of a simple capture's file. Ages
//! are counted from the wall clock at the start and go on with the monotonic one, so a step of the clock makes nothing old.
//!
//! Invariant: an account has at most `store.jobs_per_account_max` records of ended captures, a minute after the last one ended.

use super::storage::Storage;
use super::tasks::turn_of;
use crate::config::Plan;
use crate::job::CaptureId;
use crate::limits::SIMPLE_DIR;
use jiff::{SignedDuration, Timestamp};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const INTERVAL: Duration = Duration::from_secs(60);

/// Forgets what is too old or too much, for as long as it is polled.
pub(super) fn keep(plan: watch::Receiver<Arc<Plan>>, storage: &Storage) -> impl Future<Output = ()> + use<> {
    let jobs = Arc::clone(&storage.jobs);
    async move {
        let mut turn = tokio::time::interval(INTERVAL);
        let (start, since) = (Timestamp::now(), Instant::now());
        loop {
            turn.tick().await;
            let now = start.checked_add(since.elapsed()).unwrap_or(Timestamp::MAX);
            let (jobs, plan) = (Arc::clone(&jobs), Arc::clone(&plan.borrow()));
            let prune = move || {
                let (shares, spool_dir) = (plan.shares, &plan.spool.dir);
                let age = SignedDuration::try_from(shares.jobs_time).unwrap_or(SignedDuration::MAX);
                let before = now.checked_sub(age).unwrap_or(Timestamp::MIN);
                let simple = spool_dir.join(SIMPLE_DIR);
                let is_there = |path: PathBuf| path.try_exists().unwrap_or(true);
                let is_needed = |id: &CaptureId| {
                    is_there(spool_dir.join(id.as_str())) || is_there(simple.join(format!("pcap_{id}.pcap")))
                };
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
