//! How often an account may have a challenge written. Owns the memory of the last hour; not the challenges.
//!
//! A challenge is an object in a bucket that need not belong to the account, which has proven nothing yet.
//!
//! Invariant: an account has at most [`CHALLENGES_PER_HOUR_MAX`] challenges an hour, and in one bucket a new one only once the
//! last is answered or old enough. In memory alone: a restart forgives.

use crate::job::{AccountId, Destination};
use crate::limits::CHALLENGES_PER_HOUR_MAX;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// When, and in which bucket, if it is not answered.
type Asked = (Instant, Option<String>);

/// See the module.
#[derive(Debug)]
pub(super) struct Challenges {
    interval_ms: AtomicU64,
    asked: Mutex<HashMap<AccountId, VecDeque<Asked>>>,
}

/// A destination's bucket; a directory of this host is one of its own.
fn bucket(destination: &Destination) -> String {
    match destination {
        Destination::File { dir } => format!("file://{}", dir.display()),
        Destination::S3 { bucket, .. } => format!("s3://{bucket}"),
        Destination::Gcs { bucket, .. } => format!("gs://{bucket}"),
        Destination::R2 { bucket, account_id, .. } => format!("r2://{account_id}/{bucket}"),
    }
}

impl Challenges {
    pub fn new(interval: Duration) -> Self {
        let challenges = Self { interval_ms: AtomicU64::new(0), asked: Mutex::default() };
        challenges.set_interval(interval);
        challenges
    }

    pub fn set_interval(&self, interval: Duration) {
        self.interval_ms.store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Takes note of a challenge that is to be written.
    ///
    /// # Errors
    /// How long the account has to wait before the next one.
    pub fn ask(&self, account: &AccountId, destination: &Destination, now: Instant) -> Result<(), Duration> {
        let bucket = bucket(destination);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, of_account| {
            while of_account.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= HOUR) {
                of_account.pop_front();
            }
            !of_account.is_empty()
        });
        let of_account = asked.entry(account.clone()).or_default();
        let left = |at: Instant, time: Duration| time.saturating_sub(now.saturating_duration_since(at));
        let mut unanswered = of_account.iter().rev().filter(|(_, open)| open.as_ref() == Some(&bucket));
        let of_bucket = unanswered.next().map_or(Duration::ZERO, |(at, _)| {
            left(*at, Duration::from_millis(self.interval_ms.load(Relaxed)))
        });
        let of_hour = match of_account.front() {
            Some((first, _)) if of_account.len() >= CHALLENGES_PER_HOUR_MAX => left(*first, HOUR),
            _ => Duration::ZERO,
        };
        let wait = of_bucket.max(of_hour);
        if !wait.is_zero() {
            return Err(wait);
        }
        of_account.push_back((now, Some(bucket)));
        Ok(())
    }

    /// The challenge in that bucket was answered, or could not be written. It counts for the hour all the same.
    pub fn close(&self, account: &AccountId, destination: &Destination) {
        let bucket = bucket(destination);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, open) in asked.get_mut(account).into_iter().flatten() {
            if open.as_ref() == Some(&bucket) {
                *open = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &str) -> Destination {
        Destination::parse(&format!("s3://bucket/{directory}?region=x")).unwrap()
    }

    #[test]
    fn an_account_has_one_unanswered_challenge_in_a_bucket_at_a_time_and_so_many_an_hour() {
        let challenges = Challenges::new(Duration::from_secs(10));
        let (a, b) = (AccountId("a".to_owned()), AccountId("b".to_owned()));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(challenges.ask(&b, &place("one"), at(0)), Ok(()));
        assert_eq!(challenges.ask(&b, &place("two"), at(4)), Err(Duration::from_secs(6)), "the same bucket");
        assert_eq!(challenges.ask(&a, &place("one"), at(4)), Ok(()), "another account");
        challenges.close(&b, &place("two"));
        assert_eq!(challenges.ask(&b, &place("two"), at(5)), Ok(()));
        assert_eq!(challenges.ask(&b, &place("two"), at(15)), Ok(()), "an unanswered one that is old enough");
        for n in 3..CHALLENGES_PER_HOUR_MAX as u64 {
            assert_eq!(challenges.ask(&b, &place("two"), at(10 * n)), Ok(()), "{n}");
        }
        assert_eq!(challenges.ask(&b, &place("x"), at(600)), Err(Duration::from_secs(3000)));
        assert_eq!(challenges.ask(&b, &place("x"), at(3600)), Ok(()));
    }
}
