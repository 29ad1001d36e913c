//! What is tried again, for how long, and what a failure means in our words. Owns back-off and the reading of S3's error
//! codes; not the requests.
//!
//! Invariant: nothing is tried again that was refused for good, and nothing given up that people or time can repair, as long
//! as somebody's data waits behind it. An attempt that got no answer may have been carried out: callers look.

use super::extras::S3Extras;
use crate::upload::{COUNTS, UploadError};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// First pause between two attempts; the ceiling doubles with each.
const PAUSE_MS_MIN: u64 = 100;

/// Slowest link that a part is waited for, in bytes per second.
const LINK_BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// Codes that say "the same request may well succeed later". Throttling and internal errors also come as HTTP status.
const TRANSIENT_CODES: [&str; 14] = [
    "SlowDown",
    "RequestTimeout",
    "RequestTimeoutException",
    "InternalError",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "OperationAborted",
    "ConditionalRequestConflict",
    // Broken on the way: the body is checked against our checksum before it is taken.
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "IncompleteBody",
];

/// How long keys that the store does not know are tried: the next attempt of the upload reads them anew.
const KEYS_TOTAL_MAX: Duration = Duration::from_secs(60);

const CREDENTIAL_CODES: [&str; 6] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "TokenRefreshRequired",
    "InvalidClientTokenId",
];

const REGION_CODES: [&str; 4] =
    ["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "Redirect"];

/// One key of one bucket, and how to get there.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub client: Client,
    pub bucket: String,
    pub key: String,
    pub region: String,
    pub retry_seconds_max: u64,
    pub attempt_seconds_max: u64,
    pub pause_ms_max: u64,
    pub extras: Arc<S3Extras>,
}

impl Target {
    pub(super) fn place(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// For a request with a body of `len` bytes.
    pub(super) fn patience(&self, len: usize) -> Patience {
        let seconds = self.attempt_seconds_max + len as u64 / LINK_BYTES_PER_SECOND_MIN;
        Patience {
            attempt: Duration::from_secs(seconds),
            total: Duration::from_secs(self.retry_seconds_max),
            curable: true,
        }
    }

    /// For a look at what is there, whose answer may well be no.
    pub(super) fn patience_look(&self) -> Patience {
        Patience { curable: false, ..self.patience(0) }
    }

    /// For a request that somebody waits for.
    pub(super) fn patience_short(&self) -> Patience {
        let total = Duration::from_secs(self.retry_seconds_max.min(super::PROBE_SECONDS_MAX));
        Patience { total, curable: false, ..self.patience(0) }
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one attempt.
    attempt: Duration,
    /// For all of them: none begins later.
    total: Duration,
    /// Whether to wait also for people who repair keys, rights, clocks and buckets: data waits behind the request.
    curable: bool,
}

/// A request that did not succeed.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: UploadError,
    /// S3's code, if there was an answer with one.
    pub code: String,
}

impl From<Failed> for UploadError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// Sends a request until it succeeds, is refused, or patience ends.
pub(super) async fn call<T, E, F>(
    target: &Target,
    action: &'static str,
    patience: Patience,
    mut request: impl FnMut() -> F,
) -> Result<T, Failed>
where
    F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    E: ProvideErrorMetadata + Error + 'static,
{
    let began = Instant::now();
    let mut attempts = 0;
    loop {
        let answer = match tokio::time::timeout(patience.attempt, request()).await {
            Ok(Ok(success)) => return Ok(success),
            Ok(Err(error)) => Answer::read(&error),
            Err(_elapsed) => Answer::silence(patience.attempt),
        };
        attempts += 1;
        let pause = pause(attempts, target.pause_ms_max);
        let elapsed = began.elapsed();
        let again = answer.transient() || patience.curable && answer.curable();
        let total = if answer.is_about_keys() { patience.total.min(KEYS_TOTAL_MAX) } else { patience.total };
        if !again || elapsed + pause > total {
            let error = answer.explain(target, action, elapsed.as_secs());
            return Err(Failed { error, code: answer.code });
        }
        COUNTS.retried();
        tracing::debug!(place = target.place(), attempts, detail = answer.detail, "request is tried again");
        tokio::time::sleep(pause).await;
    }
}

/// Full jitter: uploads that failed together do not come back together.
fn pause(attempts: u32, pause_ms_max: u64) -> Duration {
    let ceiling_ms = PAUSE_MS_MIN.saturating_mul(1 << attempts.min(16)).min(pause_ms_max.max(1));
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    Duration::from_millis(PAUSE_MS_MIN / 2 + random % ceiling_ms)
}

/// A failure, read.
#[derive(Debug)]
struct Answer {
    /// HTTP status; none if no answer came.
    status: Option<u16>,
    code: String,
    detail: String,
    /// The request could not even be built.
    unusable: bool,
}

impl Answer {
    fn silence(waited: Duration) -> Self {
        let detail = format!("no answer within {} s", waited.as_secs());
        Self { status: None, code: String::new(), detail, unusable: false }
    }

    fn read<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>) -> Self {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().unwrap_or_default().to_owned();
        let detail = match (error.message(), status) {
            (Some(message), _) => format!("{code}: {message}"),
            (None, Some(status)) if code.is_empty() => format!("HTTP status {status}"),
            (None, Some(status)) => format!("{code}, HTTP status {status}"),
            (None, None) => describe(error),
        };
        Self { status, code, detail, unusable: matches!(error, SdkError::ConstructionFailure(_)) }
    }

    fn transient(&self) -> bool {
        match self.status {
            _ if self.unusable => false,
            None => true,
            Some(408 | 429 | 500 | 502..=504) => true,
            // An answer of 200 with an error in it, or one that is no S3 at all.
            Some(200..=299) => true,
            Some(_) => TRANSIENT_CODES.contains(&self.code.as_str()),
        }
    }

    fn is_about_keys(&self) -> bool {
        CREDENTIAL_CODES.contains(&self.code.as_str())
    }

    /// Whether people can make the same request succeed without a change here.
    fn curable(&self) -> bool {
        let code = self.code.as_str();
        !self.unusable
            && (self.is_about_keys()
                || matches!(code, "NoSuchBucket" | "RequestTimeTooSkewed")
                || matches!(self.status, Some(401 | 403)))
    }

    fn explain(&self, target: &Target, action: &'static str, seconds: u64) -> UploadError {
        let (place, detail, code) = (target.place(), self.detail.clone(), self.code.as_str());
        let bucket = target.bucket.clone();
        match self.status {
            None if !self.unusable => UploadError::Unreachable { place, seconds, detail },
            _ if code == "NoSuchBucket" => UploadError::NoSuchBucket { bucket },
            _ if code == "RequestTimeTooSkewed" => UploadError::Clock { place },
            _ if self.is_about_keys() => UploadError::Credentials { place, detail },
            Some(301 | 307) => UploadError::Region { bucket, region: target.region.clone(), detail },
            _ if REGION_CODES.contains(&code) => {
                UploadError::Region { bucket, region: target.region.clone(), detail }
            }
            Some(401 | 403) => UploadError::Denied { action, place, detail },
            Some(412) => UploadError::Exists { place },
            _ if code == "NoSuchUpload" => UploadError::Lost { place },
            Some(404) => UploadError::NotFound { place },
            _ if self.transient() => UploadError::Unreachable { place, seconds, detail },
            _ => UploadError::Refused { place, detail },
        }
    }
}

/// An error with its causes in one line; those that repeat what was said are left out.
pub(super) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Option<u16>, code: &str) -> Answer {
        Answer { status, code: code.to_owned(), detail: String::new(), unusable: false }
    }

    #[test]
    fn what_may_pass_by_is_tried_again_and_what_will_not_is_not() {
        for (status, code) in [
            (None, ""),
            (Some(503), "SlowDown"),
            (Some(500), ""),
            (Some(429), ""),
            (Some(400), "RequestTimeout"),
        ] {
            assert!(answer(status, code).transient(), "{status:?} {code}");
        }
        for (status, code) in [
            (Some(403), "AccessDenied"),
            (Some(404), "NoSuchBucket"),
            (Some(412), "PreconditionFailed"),
            (Some(301), "PermanentRedirect"),
            (Some(501), "NotImplemented"),
        ] {
            assert!(!answer(status, code).transient(), "{status:?} {code}");
        }
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        for attempts in 1..100 {
            let ms = pause(attempts, 20_000).as_millis() as u64;
            assert!((PAUSE_MS_MIN / 2..20_000 + PAUSE_MS_MIN).contains(&ms));
        }
    }
}
