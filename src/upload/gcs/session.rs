//! Resumable sessions of the JSON API. Owns their begin, their chunks, the question where they stand, and their end without an
//! object; not the order of chunks.
//!
//! From Google's documentation "Resumable uploads" and "Perform resumable uploads": chunks are multiples of 256 KiB but for
//! the last; 308 with a `Range` says what is held; a session ends by itself after a week.
//!
//! Invariant: a session that is neither completed nor kept is cancelled, also when its future is dropped.

use super::request::{Attempts, Failed, Refusal, Reply, Target, call, once};
use crate::upload::UploadError;
use crate::upload::checksum::base64;
use crate::upload::retry_budget::RetryBudget;
use crate::upload::store::left_over;
use bytes::Bytes;
use reqwest::{Client, Method, Url};
use serde::Deserialize;

/// Sessions hold whole units, until their end.
pub(super) const UNIT_BYTES: u64 = 256 << 10;

/// The right that an upload needs.
pub(super) const CREATE: &str = "storage.objects.create";

/// An object as the store describes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct StoredObject {
    #[serde(deserialize_with = "number")]
    pub size: u64,
    /// CRC-32C in base64.
    #[serde(default)]
    pub crc32c: Option<String>,
}

/// JSON has 64-bit numbers as text.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Where a session stands.
pub(super) enum SessionState {
    /// It holds so many bytes and wants more.
    Open(u64),
    /// It became this object.
    Done(StoredObject),
}

/// A session that the store keeps until it is completed or cancelled.
pub(super) struct Session {
    target: Target,
    url: Url,
    /// Completed, cancelled, or to outlive this process.
    pub closed: bool,
}

impl Session {
    pub(super) async fn begin(target: Target, budget: RetryBudget) -> Result<Self, Failed> {
        let query = [("uploadType", "resumable"), ("name", &*target.key), ("ifGenerationMatch", "0")];
        let url = target.url(&["upload", "storage", "v1", "b", &target.bucket, "o"], &query);
        let mut object = serde_json::json!({"name": target.key, "contentType": "application/octet-stream"});
        if let Some(class) = &target.storage_class {
            object["storageClass"] = class.as_str().into();
        }
        let request = |client: &Client| client.request(Method::POST, url.clone()).json(&object);
        let reply = match call(&target, CREATE, budget, None, request).await {
            // No object is asked for, so it is the bucket that is not there.
            Err(Failed { status: Some(404), .. }) => {
                let error = UploadError::NoSuchBucket { bucket: target.bucket.clone() };
                return Err(Failed { error, status: Some(404) });
            }
            reply => reply?,
        };
        let location = reply.headers.get("location").and_then(|value| value.to_str().ok());
        let Some(url) = location.and_then(|location| target.session_url(location)) else {
            let (place, detail) = (target.place(), "no session's address came".to_owned());
            return Err(Failed { error: UploadError::Refused { place, detail }, status: Some(reply.status) });
        };
        Ok(Self { target, url, closed: false })
    }

    /// A session that was begun before; it outlives this one too.
    pub(super) fn kept(target: Target, session: &str) -> Option<Self> {
        let url = target.session_url(session)?;
        Some(Self { target, url, closed: true })
    }

    /// As it is journalled.
    pub(super) fn address(&self) -> String {
        self.url.to_string()
    }

    /// Another way to the same session, which does not end it.
    pub(super) fn hand(&self) -> Self {
        Self { target: self.target.clone(), url: self.url.clone(), closed: true }
    }

    /// Asks where it stands.
    pub(super) async fn stand(&self) -> Result<SessionState, UploadError> {
        let budget = self.target.grant.budget(0);
        let mut attempts = Attempts::new(&self.target, CREATE, budget);
        loop {
            match self.ask("bytes */*".to_owned(), budget).await {
                Ok(stand) => return Ok(stand),
                Err(refusal) => self.again(&mut attempts, refusal).await?,
            }
        }
    }

    /// Sends `body` from byte `offset` on until the store confirms it; the last with the size and checksum of the whole.
    ///
    /// An attempt without an answer is followed by the question what arrived of it, and only the rest is sent again.
    pub(super) async fn send(
        &self,
        offset: u64,
        body: Bytes,
        whole: Option<u32>,
    ) -> Result<SessionState, UploadError> {
        let (budget, end) = (self.target.grant.budget(body.len()), offset + body.len() as u64);
        let mut attempts = Attempts::new(&self.target, CREATE, budget);
        let (mut held, mut unsure) = (offset, false);
        loop {
            let total = whole.map_or_else(|| "*".to_owned(), |_| end.to_string());
            let answer = if unsure {
                self.ask(format!("bytes */{total}"), budget).await
            } else {
                self.put(body.slice((held - offset) as usize..), held, &total, whole, budget).await
            };
            unsure = answer.is_err();
            match answer {
                Ok(SessionState::Open(now)) if now < offset => return Err(self.lost()),
                Ok(SessionState::Open(now)) if now >= end && whole.is_none() => {
                    return Ok(SessionState::Open(end));
                }
                Ok(SessionState::Open(now)) => {
                    if now > held {
                        attempts.progress();
                    } else if !unsure {
                        let none =
                            Refusal::read(503, br#"{"error":{"message":"the session holds no more"}}"#);
                        self.again(&mut attempts, none).await?;
                    }
                    held = now.min(end);
                }
                Ok(done) => return Ok(done),
                Err(refusal) => self.again(&mut attempts, refusal).await?,
            }
        }
    }

    async fn put(
        &self,
        body: Bytes,
        from: u64,
        total: &str,
        whole: Option<u32>,
        budget: RetryBudget,
    ) -> Result<SessionState, Refusal> {
        let range = match body.len() as u64 {
            0 => format!("bytes */{total}"),
            len => format!("bytes {from}-{}/{total}", from + len - 1),
        };
        let mut request = self.target.client.request(Method::PUT, self.url.clone()).body(body);
        if let Some(crc) = whole {
            // The store makes no object of anything else.
            request = request.header("x-goog-hash", format!("crc32c={}", base64(crc)));
        }
        read(&once(&self.target, budget, request.header("content-range", range)).await?)
    }

    async fn ask(&self, range: String, budget: RetryBudget) -> Result<SessionState, Refusal> {
        let request = self.target.client.request(Method::PUT, self.url.clone());
        let request = request.header("content-range", range).header("content-length", "0");
        read(&once(&self.target, budget, request).await?)
    }

    /// Waits, unless the session is gone or refuses for good.
    async fn again(&self, attempts: &mut Attempts<'_>, refusal: Refusal) -> Result<(), UploadError> {
        match refusal.status {
            Some(404 | 410 | 499) => Err(self.lost()),
            _ => Ok(attempts.after(refusal).await?),
        }
    }

    pub(super) fn lost(&self) -> UploadError {
        UploadError::Lost { place: self.target.place() }
    }

    /// Ends it without an object; one that is gone already is ended.
    pub(super) async fn cancel(mut self) -> Result<(), UploadError> {
        self.closed = true;
        let budget = self.target.grant.budget_short();
        let mut attempts = Attempts::new(&self.target, CREATE, budget);
        loop {
            let request = self.target.client.request(Method::DELETE, self.url.clone());
            let request = request.header("content-length", "0");
            match once(&self.target, budget, request).await {
                Ok(_) => return Ok(()),
                // 499 is the answer to a cancellation. Stores that know none let sessions end by themselves.
                Err(Refusal { status: Some(404 | 405 | 410 | 499 | 501), .. }) => return Ok(()),
                Err(refusal) => attempts.after(refusal).await?,
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.closed {
            return;
        }
        let session = self.hand();
        runtime.spawn(async move {
            let place = session.target.place();
            if let Err(error) = session.cancel().await {
                left_over(&place, &error);
            }
        });
    }
}

/// 308 is "go on", anything else that came here is the object.
fn read(reply: &Reply) -> Result<SessionState, Refusal> {
    if reply.status != 308 {
        let held = serde_json::from_slice(&reply.body);
        return held.map(SessionState::Done).map_err(|_no_object| Refusal::read(502, b"{}"));
    }
    // No range: nothing is held yet.
    let range = reply.headers.get("range").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let last = range.rsplit_once('-').and_then(|(_, last)| last.parse::<u64>().ok());
    // Sessions hold whole units; an emulator says `bytes=0-0` where it holds nothing.
    Ok(SessionState::Open(last.filter(|last| *last > 0).map_or(0, |last| last + 1)))
}
