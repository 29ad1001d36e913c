//! Single requests: what is tried again, for how long, and what a failure means in our words. Owns addresses, back-off and
//! the reading of Google's errors; not the protocol of sessions.
//!
//! Invariant: nothing is tried again that was refused for good, and nothing given up that people or time can repair, as long as
//! somebody's data waits behind it. An attempt that got no answer may have been carried out: callers look.

use super::client::Tokens;
use crate::chain::{chain, printable};
use crate::upload::UploadError;
use crate::upload::retry_budget::{Grant, Retriable, Retry, RetryBudget, is_about_trust};
use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Url};
use std::sync::Arc;
use std::time::Duration;

/// Most that is read of an answer that is no object: a page of 1000 names of 1 KiB, and more.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// One object of one bucket, and how to get there.
#[derive(Clone)]
pub(super) struct Target {
    pub client: Client,
    pub tokens: Arc<Tokens>,
    pub endpoint: Url,
    pub bucket: String,
    pub key: String,
    pub storage_class: Option<String>,
    pub grant: Grant,
}

/// An answer that is no failure.
pub(super) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A request that did not succeed.
pub(super) struct Failed {
    pub error: UploadError,
    /// HTTP status; none if no answer came.
    pub status: Option<u16>,
}

impl From<Failed> for UploadError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl Target {
    pub(super) fn place(&self) -> String {
        format!("gs://{}/{}", self.bucket, self.key)
    }

    /// `path`, with the bucket's name and what else follows it as one segment each.
    pub(super) fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url.query_pairs_mut().extend_pairs(query);
        url
    }

    pub(super) fn object_url(&self, query: &[(&str, &str)]) -> Url {
        self.url(&["storage", "v1", "b", &self.bucket, "o", &self.key], query)
    }

    /// A session's address, at our endpoint, whatever host it names: nobody else gets the data.
    pub(super) fn session_url(&self, session: &str) -> Option<Url> {
        let given = Url::parse(session).ok()?;
        let mut url = self.endpoint.clone();
        url.set_path(given.path());
        url.set_query(given.query());
        Some(url)
    }
}

/// Sends a request with a token until it succeeds, is refused, or its budget is used up. The body of an answer may have `bytes_max`.
pub(super) async fn call(
    target: &Target,
    action: &'static str,
    budget: RetryBudget,
    bytes_max: Option<u64>,
    request: impl Fn(&Client) -> RequestBuilder,
) -> Result<Reply, Failed> {
    let mut attempts = Attempts::new(target, action, budget);
    loop {
        let sent = async {
            let token = target.tokens.get().await.map_err(Refusal::no_token)?;
            let request = request(&target.client);
            exchange(target, token.into_iter().fold(request, RequestBuilder::bearer_auth), bytes_max).await
        };
        match tokio::time::timeout(budget.attempt, sent).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(refusal)) => attempts.after(refusal).await?,
            Err(_elapsed) => attempts.after(Refusal::silence(budget)).await?,
        }
    }
}

/// One request to a session's address, which identifies us by itself.
pub(super) async fn once(
    target: &Target,
    budget: RetryBudget,
    request: RequestBuilder,
) -> Result<Reply, Refusal> {
    let sent = exchange(target, request, None);
    tokio::time::timeout(budget.attempt, sent).await.unwrap_or_else(|_elapsed| Err(Refusal::silence(budget)))
}

/// Anything but success and "go on" is a refusal.
async fn exchange(
    target: &Target,
    request: RequestBuilder,
    bytes_max: Option<u64>,
) -> Result<Reply, Refusal> {
    let mut answer = request.send().await.map_err(|error| Refusal::broken(&error))?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let good = matches!(status, 200..=299 | 308);
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| Refusal::broken(&error))? {
        if (body.len() + chunk.len()) as u64 > bytes_max.filter(|_| good).unwrap_or(ANSWER_BYTES_MAX) {
            let bytes_max = bytes_max.unwrap_or(ANSWER_BYTES_MAX);
            return Err(Refusal::final_word(UploadError::TooLarge { place: target.place(), bytes_max }));
        }
        body.extend_from_slice(&chunk);
    }
    let body = body.freeze();
    if good { Ok(Reply { status, headers, body }) } else { Err(Refusal::read(status, &body)) }
}

/// A failure, read.
#[derive(Debug)]
pub(super) struct Refusal {
    /// HTTP status; none if no answer came.
    pub status: Option<u16>,
    /// Google's word for it, such as `rateLimitExceeded`.
    reason: String,
    detail: String,
    /// There is no token, and no network's fault.
    keyless: bool,
    /// What it is already in our words.
    decided: Option<Box<UploadError>>,
}

impl Refusal {
    fn new(status: Option<u16>, reason: String, detail: String) -> Self {
        Self { status, reason, detail, keyless: false, decided: None }
    }

    fn silence(budget: RetryBudget) -> Self {
        Self::new(None, String::new(), format!("no answer within {} s", budget.attempt.as_secs()))
    }

    fn broken(error: &reqwest::Error) -> Self {
        // The address may be a session's, which is as good as a password.
        let detail = std::error::Error::source(error).map_or_else(|| "no answer".to_owned(), chain);
        Self::new(None, String::new(), detail)
    }

    fn no_token(refused: super::client::NoToken) -> Self {
        Self { keyless: !refused.transient, ..Self::new(None, String::new(), refused.detail) }
    }

    fn final_word(error: UploadError) -> Self {
        Self { decided: Some(Box::new(error)), ..Self::new(None, String::new(), String::new()) }
    }

    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let body = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        let text = |pointer| body.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
        let message = text("/error/message");
        let detail =
            if message.is_empty() { format!("HTTP status {status}") } else { printable(message).into() };
        Self::new(Some(status), text("/error/errors/0/reason").to_owned(), detail)
    }

    fn retriable(&self) -> Retriable {
        Retriable { transient: self.transient(), curable: self.curable(), total_max: Duration::MAX }
    }

    fn transient(&self) -> bool {
        match self.status {
            None => !self.keyless && self.decided.is_none() && !self.is_untrusted(),
            Some(408 | 429 | 500 | 502..=504) => true,
            Some(403) => matches!(self.reason.as_str(), "rateLimitExceeded" | "userRateLimitExceeded"),
            Some(_) => false,
        }
    }

    fn is_untrusted(&self) -> bool {
        self.status.is_none() && is_about_trust(&self.detail)
    }

    fn bucketless(&self) -> bool {
        self.status == Some(404) && self.detail.contains("bucket does not exist")
    }

    /// Whether people can make the same request succeed without a change here.
    fn curable(&self) -> bool {
        self.keyless || self.is_untrusted() || matches!(self.status, Some(401 | 403)) || self.bucketless()
    }

    fn explain(self, target: &Target, action: &'static str, seconds: u64) -> UploadError {
        if let Some(error) = self.decided {
            return *error;
        }
        let (transient, bucketless) = (self.transient(), self.bucketless());
        let untrusted = self.is_untrusted();
        let (place, detail) = (target.place(), self.detail);
        match self.status {
            None if self.keyless => UploadError::HostCredentials { place, detail },
            None if untrusted => UploadError::Untrusted { place, detail },
            _ if transient => UploadError::Unreachable { place, seconds, detail },
            Some(401) => UploadError::Credentials { place, detail },
            Some(403) => UploadError::Denied { action, place, detail },
            Some(412) => UploadError::Exists { place },
            Some(404) if bucketless => UploadError::NoSuchBucket { bucket: target.bucket.clone() },
            Some(404) => UploadError::NotFound { place },
            _ => UploadError::Refused { place, detail },
        }
    }
}

/// The attempts at one thing, with pauses between them.
pub(super) struct Attempts<'a> {
    target: &'a Target,
    action: &'static str,
    retry: Retry,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(target: &'a Target, action: &'static str, budget: RetryBudget) -> Self {
        Self { target, action, retry: Retry::new(target.grant, budget) }
    }

    /// Waits for the next attempt after one that failed, or says that there is none.
    pub(super) async fn after(&mut self, refusal: Refusal) -> Result<(), Failed> {
        let waited = self.retry.after(refusal.retriable(), &self.target.place(), &refusal.detail).await;
        waited.map_err(|seconds| Failed {
            status: refusal.status,
            error: refusal.explain(self.target, self.action, seconds),
        })
    }

    /// The budget begins again: the store makes progress.
    pub(super) fn progress(&mut self) {
        self.retry.progress();
    }
}

/// A request for an object's bytes, of all or of a range.
pub(super) async fn media(target: &Target, range: Option<String>, bytes_max: u64) -> Result<Bytes, Failed> {
    let url = target.object_url(&[("alt", "media")]);
    let request = |client: &Client| {
        let get = client.request(Method::GET, url.clone());
        range.iter().fold(get, |get, range| get.header("range", range))
    };
    let reply =
        call(target, "storage.objects.get", target.grant.budget_look(), Some(bytes_max), request).await?;
    Ok(reply.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, reason: &str, message: &str) -> Refusal {
        let body = serde_json::json!({"error": {"message": message, "errors": [{"reason": reason}]}});
        Refusal::read(status, body.to_string().as_bytes())
    }

    #[test]
    fn what_may_pass_by_is_tried_again_and_what_will_not_is_not() {
        for (status, reason) in [(503, ""), (500, ""), (429, ""), (408, ""), (403, "rateLimitExceeded")] {
            assert!(refusal(status, reason, "").transient(), "{status} {reason}");
        }
        for (status, reason) in [(403, "forbidden"), (404, "notFound"), (412, "conditionNotMet"), (400, "")] {
            assert!(!refusal(status, reason, "").transient(), "{status} {reason}");
        }
        for (status, message) in [(401, ""), (403, ""), (404, "The specified bucket does not exist.")] {
            assert!(refusal(status, "", message).curable(), "{status} {message}");
        }
        assert!(!refusal(404, "", "No such object: b/o").curable());
        assert!(Refusal::read(502, b"<html>").transient(), "an answer of something between us");
    }
}
