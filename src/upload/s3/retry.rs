//! What is tried again, for how long, and what a failure means in our words. Owns back-off and the reading of S3's error
//! codes; not the requests.
//!
//! Invariant: nothing is tried again that was refused for good, and nothing given up that people or time can repair, as long
//! as somebody's data waits behind it. An attempt that got no answer may have been carried out: callers look.

use super::extras::S3Extras;
use crate::chain::{chain, printable};
use crate::upload::UploadError;
use crate::upload::retry_budget::{Grant, Retriable, Retry, RetryBudget, is_about_trust};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

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

/// How long keys that the store does not know are tried: the next attempt of the upload reads them again.
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
    pub grant: Grant,
    pub extras: Arc<S3Extras>,
    /// The account that every request names as the bucket's owner.
    pub owner: Option<Arc<str>>,
    /// Whether TLS keeps what is sent. If not, the signature of a request covers its body too.
    pub is_private: bool,
}

impl Target {
    pub(super) fn place(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }
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

/// Sends a request until it succeeds, is refused, or its budget is used up.
pub(super) async fn call<T, E, F>(
    target: &Target,
    action: &'static str,
    budget: RetryBudget,
    mut request: impl FnMut() -> F,
) -> Result<T, Failed>
where
    F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    E: ProvideErrorMetadata + Error + 'static,
{
    let mut retry = Retry::new(target.grant, budget);
    loop {
        let answer = match tokio::time::timeout(budget.attempt, request()).await {
            Ok(Ok(success)) => return Ok(success),
            Ok(Err(error)) => Answer::read(&error),
            Err(_elapsed) => Answer::silence(budget.attempt),
        };
        if let Err(seconds) = retry.after(answer.retriable(), &target.place(), &answer.detail).await {
            let error = answer.explain(target, action, seconds);
            return Err(Failed { error, code: answer.code });
        }
    }
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
        let code = printable(error.code().unwrap_or_default()).into_owned();
        let detail = match (error.message(), status) {
            (Some(message), _) => printable(&format!("{code}: {message}")).into_owned(),
            (None, Some(status)) if matches!(error, SdkError::ResponseError(_)) => {
                format!("HTTP status {status}, {}", chain(error))
            }
            (None, Some(status)) if code.is_empty() => format!("HTTP status {status}"),
            (None, Some(status)) => format!("{code}, HTTP status {status}"),
            (None, None) => chain(error),
        };
        Self { status, code, detail, unusable: matches!(error, SdkError::ConstructionFailure(_)) }
    }

    fn retriable(&self) -> Retriable {
        let total_max = if self.is_about_keys() { KEYS_TOTAL_MAX } else { Duration::MAX };
        Retriable { transient: self.transient(), curable: self.curable(), total_max }
    }

    fn transient(&self) -> bool {
        match self.status {
            _ if self.unusable => false,
            None => !self.is_untrusted(),
            Some(408 | 429 | 500 | 502..=504) => true,
            // An answer of 200 with an error in it, or one that is no S3 at all.
            Some(200..=299) => true,
            Some(_) => TRANSIENT_CODES.contains(&self.code.as_str()),
        }
    }

    fn is_untrusted(&self) -> bool {
        self.status.is_none() && is_about_trust(&self.detail)
    }

    fn is_about_keys(&self) -> bool {
        CREDENTIAL_CODES.contains(&self.code.as_str())
    }

    /// Whether people can make the same request succeed without a change here.
    fn curable(&self) -> bool {
        let code = self.code.as_str();
        !self.unusable
            && (self.is_about_keys()
                || self.is_untrusted()
                || matches!(code, "NoSuchBucket" | "RequestTimeTooSkewed")
                || matches!(self.status, Some(401 | 403)))
    }

    fn explain(&self, target: &Target, action: &'static str, seconds: u64) -> UploadError {
        let (place, detail, code) = (target.place(), self.detail.clone(), self.code.as_str());
        let bucket = target.bucket.clone();
        match self.status {
            None if self.is_untrusted() => UploadError::Untrusted { place, detail },
            None if !self.unusable => UploadError::Unreachable { place, seconds, detail },
            _ if code == "NoSuchBucket" => UploadError::NoSuchBucket { bucket },
            _ if code == "RequestTimeTooSkewed" => UploadError::Clock { place },
            _ if self.is_about_keys() => UploadError::Credentials { place, detail },
            Some(301 | 307) => UploadError::Region { bucket, region: target.region.clone(), detail },
            _ if REGION_CODES.contains(&code) => {
                UploadError::Region { bucket, region: target.region.clone(), detail }
            }
            Some(401 | 403) => {
                let detail = match &target.owner {
                    Some(owner) => format!("{detail}; the bucket may not be account {owner}'s"),
                    None => detail,
                };
                UploadError::Denied { action, place, detail }
            }
            Some(412) => UploadError::Exists { place },
            _ if code == "NoSuchUpload" => UploadError::Lost { place },
            Some(404) => UploadError::NotFound { place },
            _ if self.transient() => UploadError::Unreachable { place, seconds, detail },
            _ => UploadError::Refused { place, detail },
        }
    }
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
        let untrusted = Answer {
            detail: "dispatch failure: io error: invalid peer certificate: UnknownIssuer".to_owned(),
            ..answer(None, "")
        };
        assert!(!untrusted.transient() && untrusted.curable(), "people have to repair it");
    }
}
