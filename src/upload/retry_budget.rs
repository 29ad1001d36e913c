//! How long a store is waited for. Owns pauses between attempts and time limits; not what is tried again.
//!
//! Invariant: uploads that failed together do not come back together.

use std::time::Duration;

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

/// Whether a failure without an answer, as [`chain`](crate::chain::chain) tells it, is about the store's certificate (rustls' words). People have
/// to repair that: at once to be told to who waits, and to be waited for where data waits.
pub(super) fn is_about_trust(detail: &str) -> bool {
    detail.contains("invalid peer certificate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let grant = Grant { retry_seconds_max: 1, attempt_seconds_max: 1, pause_ms_max: 20_000 };
        for attempts in 1..100 {
            let ms = grant.pause(attempts).as_millis() as u64;
            assert!((PAUSE_MS_MIN / 2..20_000 + PAUSE_MS_MIN).contains(&ms));
        }
    }
}
