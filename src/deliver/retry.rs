//! When a failed attempt is repeated. Owns the pauses and the time after which nothing is tried any more; not the attempts.
//!
//! Invariant: pauses grow up to a maximum, and the end of the process ends every one of them.

use super::report::{Report, Reporter};
use crate::upload::COUNTS;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// First pause between two attempts, unless the longest is shorter; within an attempt the store has its own.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(500);

/// How a try is repeated.
#[derive(Clone)]
pub(crate) struct RetryPolicy {
    pub retention: Duration,
    pub pause_max: Duration,
    pub leaving: watch::Receiver<bool>,
    pub reporter: Reporter,
}

/// Outcome of a retried operation.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    /// Nothing will help.
    Failed(String),
    /// The process ends; the next one goes on.
    Left,
}

impl RetryPolicy {
    /// Waits before the next attempt; `Some` if there is to be none.
    pub(super) async fn pause(
        &mut self,
        since: Instant,
        pause: &mut Duration,
        error: String,
    ) -> Option<Outcome> {
        COUNTS.failed();
        if since.elapsed() >= self.retention {
            let hours = self.retention.as_secs_f64() / 3600.0;
            return Some(Outcome::Failed(format!(
                "{error}; given up after {hours:.1} hours (upload.retention_seconds)"
            )));
        }
        self.reporter.tell(Report::Trouble(error.clone()));
        tokio::select! {
            () = tokio::time::sleep(jittered(*pause)) => {}
            _ = self.leaving.wait_for(|leaving| *leaving) => return Some(Outcome::Left),
        }
        *pause = (*pause * 2).min(self.pause_max);
        None
    }
}

/// Between half of a pause and all of it: captures that an outage stopped together do not come back together.
pub(super) fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    pause / 2 + (pause / 2).mul_f64(random as f64 / u64::MAX as f64)
}
