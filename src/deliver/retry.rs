//! When a failed attempt is repeated. Owns the pauses and the time after which nothing is tried any more; not the attempts.
//!
//! Invariant: pauses grow up to a maximum, and the end of the process ends every one of them, as does the decision to give up.

use super::report::{Report, Reporter};
use super::words::Words;
use crate::upload::COUNTS;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// First pause between two attempts, unless the longest is shorter; within an attempt the store has its own.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// For how long, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryBounds {
    pub retention: Duration,
    pub pause_max: Duration,
}

/// How a try is repeated.
#[derive(Clone)]
pub(crate) struct RetryPolicy {
    /// As they are now: a reload reaches what is tried already.
    pub bounds: watch::Receiver<RetryBounds>,
    pub leaving: watch::Receiver<bool>,
    /// Whether the process has no more time for what is under way.
    pub time_is_up: watch::Receiver<bool>,
    /// Why nothing is to be tried any more, once somebody decided so.
    pub given_up: watch::Receiver<Option<String>>,
    pub reporter: Reporter,
}

/// Outcome of a retried operation.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    /// Nothing will help. What is not delivered stays in the spool.
    Failed(Words),
    /// The capture's directory is gone, and what was not delivered with it.
    Gone(Words),
    /// The process ends; the next one goes on.
    Left,
}

/// Waits until the process has no more time.
pub(super) async fn out_of_time(time_is_up: &mut watch::Receiver<bool>) {
    if time_is_up.wait_for(|is_up| *is_up).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until somebody decides that nothing is to be tried any more.
pub(super) async fn given_up(decided: &mut watch::Receiver<Option<String>>) -> Outcome {
    let why = decided.wait_for(Option::is_some).await.map(|why| why.clone());
    match why {
        Ok(why) => Outcome::Failed(Words::alike(why.unwrap_or_default())),
        Err(_nobody_decides_any_more) => std::future::pending().await,
    }
}

impl RetryPolicy {
    /// Whether it was decided that nothing is to be tried any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.borrow().is_some()
    }

    /// Waits before the next attempt; `Some` if there is to be none.
    pub(super) async fn pause(&mut self, attempts: &mut Attempts, error: Words) -> Option<Outcome> {
        COUNTS.failed();
        let RetryBounds { retention, pause_max } = *self.bounds.borrow();
        if attempts.failing_since.get_or_insert_with(Instant::now).elapsed() >= retention {
            let hours = retention.as_secs_f64() / 3600.0;
            let given_up =
                |error: &str| format!("{error}; given up after {hours:.1} hours (upload.retention_seconds)");
            return Some(Outcome::Failed(error.within(given_up)));
        }
        let pause = jittered(attempts.pause.min(pause_max));
        self.reporter.tell(Report::Trouble(error.clone(), pause));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = self.leaving.wait_for(|leaving| *leaving) => return Some(Outcome::Left),
            outcome = given_up(&mut self.given_up) => return Some(outcome),
        }
        attempts.pause = (attempts.pause * 2).min(pause_max);
        None
    }
}

/// The attempts at one thing since it last got further.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempts {
    /// When the first of them failed. A delivery may go well for days before that.
    failing_since: Option<Instant>,
    pause: Duration,
}

impl Attempts {
    pub fn new(retry: &RetryPolicy) -> Self {
        Self { failing_since: None, pause: PAUSE_MIN.min(retry.bounds.borrow().pause_max) }
    }

    /// Whether one of them failed.
    pub fn have_failed(&self) -> bool {
        self.failing_since.is_some()
    }
}

/// Between half of a pause and all of it: captures that an outage stopped together do not come back together.
pub(super) fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    pause / 2 + (pause / 2).mul_f64(random as f64 / u64::MAX as f64)
}
