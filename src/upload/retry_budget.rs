//! How long a store is waited for. Owns pauses between attempts and time limits; not what a store's refusal means.
//!
//! Invariant: uploads that failed together do not come back together.

use super::COUNTS;
use std::time::{Duration, Instant};

/// First pause between two attempts; the ceiling doubles with each.
const PAUSE_MS_MIN: u64 = 100;

/// Slowest link that a body is waited for, in bytes per second.
const LINK_BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// How long a probe, an abort or a look at an object is tried: a person or a clean-up waits for it.
const SHORT_SECONDS_MAX: u64 = 10;

/// How long to wait for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryBudget {
    /// For one attempt.
    pub attempt: Duration,
    /// For all of them: none begins later.
    pub total: Duration,
    /// Whether to wait also for people who repair keys, rights, clocks and buckets: data waits behind the request.
    pub curable: bool,
}

/// What the operator grants each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub retry_seconds_max: u64,
    pub attempt_seconds_max: u64,
    pub pause_ms_max: u64,
}

impl Grant {
    /// For a request with a body of `len` bytes.
    pub(super) fn budget(&self, len: usize) -> RetryBudget {
        let seconds = self.attempt_seconds_max + len as u64 / LINK_BYTES_PER_SECOND_MIN;
        RetryBudget {
            attempt: Duration::from_secs(seconds),
            total: Duration::from_secs(self.retry_seconds_max),
            curable: true,
        }
    }

    /// For a look at what is there, whose answer may well be no.
    pub(super) fn budget_look(&self) -> RetryBudget {
        RetryBudget { curable: false, ..self.budget(0) }
    }

    /// For a request that somebody waits for.
    pub(super) fn budget_short(&self) -> RetryBudget {
        let total = Duration::from_secs(self.retry_seconds_max.min(SHORT_SECONDS_MAX));
        RetryBudget { total, curable: false, ..self.budget(0) }
    }

    /// Before attempt `attempts + 1`, with full jitter.
    pub(super) fn pause(&self, attempts: u32) -> Duration {
        let ceiling_ms = PAUSE_MS_MIN.saturating_mul(1 << attempts.min(16)).min(self.pause_ms_max.max(1));
        let random = uuid::Uuid::new_v4().as_u64_pair().0;
        Duration::from_millis(PAUSE_MS_MIN / 2 + random % ceiling_ms)
    }
}

/// What a failed attempt means for the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retriable {
    /// The same request may well succeed later.
    pub transient: bool,
    /// People can make it succeed.
    pub curable: bool,
    /// How long such a failure is tried at most.
    pub total_max: Duration,
}

/// The attempts at one request, with pauses between them.
#[derive(Debug)]
pub(super) struct Retry {
    grant: Grant,
    budget: RetryBudget,
    began: Instant,
    made: u32,
}

impl Retry {
    pub(super) fn new(grant: Grant, budget: RetryBudget) -> Self {
        Self { grant, budget, began: Instant::now(), made: 0 }
    }

    /// Waits for the next attempt after one that failed so.
    ///
    /// # Errors
    /// There is none: after so many seconds the request is given up.
    pub(super) async fn after(&mut self, failed: Retriable, place: &str, detail: &str) -> Result<(), u64> {
        self.made += 1;
        let (pause, elapsed) = (self.grant.pause(self.made), self.began.elapsed());
        let again = failed.transient || self.budget.curable && failed.curable;
        if !again || elapsed + pause > self.budget.total.min(failed.total_max) {
            return Err(elapsed.as_secs());
        }
        COUNTS.retried();
        tracing::debug!(place, attempts = self.made, detail, "request is tried again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The budget begins again: the store makes progress.
    pub(super) fn progress(&mut self) {
        (self.began, self.made) = (Instant::now(), 0);
    }
}

/// Whether a failure without an answer, as [`chain`](crate::chain::chain) tells it, is about the store's certificate (rustls' words). People have
/// to repair that: at once to be told to who waits, and to be waited for where data waits.
pub(super) fn is_about_trust(detail: &str) -> bool {
    detail.contains("invalid peer certificate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_succeed_is_tried_until_its_time_is_used_up_and_nothing_else_is() {
        let grant = Grant { retry_seconds_max: 3, attempt_seconds_max: 1, pause_ms_max: 1 };
        let failed = |transient, curable| Retriable { transient, curable, total_max: Duration::MAX };
        let pauses = async |budget, failed: Retriable| {
            let (mut retry, mut pauses) = (Retry::new(grant, budget), 0);
            while retry.after(failed, "there", "why").await.is_ok() {
                pauses += 1;
                // As if each attempt took so long.
                retry.began -= Duration::from_millis(500);
            }
            pauses
        };
        assert_eq!(pauses(grant.budget(0), failed(false, false)).await, 0);
        assert_eq!(pauses(grant.budget_look(), failed(false, true)).await, 0, "nobody's data waits");
        for failed in [failed(true, false), failed(false, true)] {
            assert!((4..=6).contains(&pauses(grant.budget(0), failed).await));
        }
        let briefly = Retriable { total_max: Duration::from_secs(1), ..failed(true, false) };
        assert!((1..=2).contains(&pauses(grant.budget(0), briefly).await));
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let grant = Grant { retry_seconds_max: 1, attempt_seconds_max: 1, pause_ms_max: 20_000 };
        for attempts in 1..100 {
            let ms = grant.pause(attempts).as_millis() as u64;
            assert!((PAUSE_MS_MIN / 2..20_000 + PAUSE_MS_MIN).contains(&ms));
        }
    }
}
