//! Objects in a bucket of Google Cloud Storage, by its JSON API. Owns the configuration and what stands in a bucket; `session`
//! owns the protocol of uploads, `writer` what is sent, `request` what is tried again, `client` the connection.
//!
//! Invariant: an object is created only where none is (`ifGenerationMatch=0`), in the request that makes it visible.

mod client;
mod request;
mod session;
mod writer;

use super::UploadError;
use super::checkpoint::{Checkpoint, Kept};
use super::retry_budget::Grant;
use super::store::{ObjectStore, ObjectWriter, PROBE, Pending, Resumed, Sweep};
use crate::limits::PART_BYTES_MIN;
use bytes::Bytes;
use client::Tokens;
use request::{Failed, Reply, Target, call, media};
use reqwest::{Client, Method, Url};
use serde::Deserialize;
use session::{Session, SessionState, StoredObject, UNIT_BYTES};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use writer::GcsWriter;

/// Google's own.
const ENDPOINT: &str = "https://storage.googleapis.com";

/// Largest `chunk_bytes`: memory is reserved in this unit, twice per capture.
const CHUNK_BYTES_MAX: u64 = 1 << 30;

/// Who we are to Google.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GcsCredentials {
    /// Application Default Credentials: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's file, or the machine's service account.
    #[default]
    Default,
    /// The JSON key file of a service account.
    File(PathBuf),
    /// Nobody, for an emulator.
    None,
}

/// How to speak to Google Cloud Storage.
#[derive(Clone, Debug)]
pub struct GcsConfig {
    /// `http://` or `https://` address instead of Google's, without a trailing slash.
    pub endpoint: Option<String>,
    /// Who we are.
    pub credentials: GcsCredentials,
    /// Bytes of a chunk; rounded up to whole 256 KiB.
    pub chunk_bytes: u64,
    /// Seconds for which a failing request is tried again.
    pub retry_seconds_max: u64,
    /// Seconds without an answer after which one attempt counts as failed; chunks get more by their size.
    pub attempt_seconds_max: u64,
    /// Longest pause between two attempts, in milliseconds.
    pub pause_ms_max: u64,
    /// Storage class in Google's spelling, such as `NEARLINE`; the bucket's default when none.
    pub storage_class: Option<String>,
    /// `http://` address of a proxy; none otherwise, whatever the environment says.
    pub proxy: Option<String>,
    /// PEM file of certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for GcsConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            credentials: GcsCredentials::Default,
            chunk_bytes: 8 << 20,
            retry_seconds_max: 15 * 60,
            attempt_seconds_max: 30,
            pause_ms_max: 20_000,
            storage_class: None,
            proxy: None,
            ca_file: None,
        }
    }
}

/// What all buckets share: connections and tokens.
pub(super) struct GcsStores {
    config: GcsConfig,
    endpoint: Url,
    client: Client,
    tokens: Arc<Tokens>,
}

impl fmt::Debug for GcsStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsStores").field("config", &self.config).finish_non_exhaustive()
    }
}

impl GcsStores {
    pub(super) fn new(config: GcsConfig) -> Result<Self, UploadError> {
        let wrong = |key, detail: String| UploadError::Config { key, detail };
        let endpoint = config.endpoint.as_deref().unwrap_or(ENDPOINT);
        let endpoint = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let endpoint = endpoint.ok_or_else(|| {
            wrong("endpoint", "it begins neither with http:// nor https://, or has no host".to_owned())
        })?;
        if !(PART_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&config.chunk_bytes) {
            let detail = format!("{} is not in {PART_BYTES_MIN}..={CHUNK_BYTES_MAX}", config.chunk_bytes);
            return Err(wrong("part_bytes", detail));
        }
        let client = client::open(&config)?;
        let tokens = Arc::new(Tokens::new(&config.credentials)?);
        Ok(Self { config, endpoint, client, tokens })
    }

    /// A bucket, or a directory of one. Credentials are looked up; the bucket is not contacted.
    pub(super) async fn open(&self, bucket: &str, directory: &str) -> Result<GcsStore, UploadError> {
        if let Err(refused) = self.tokens.get().await
            && !refused.transient
        {
            return Err(UploadError::HostCredentials {
                place: format!("bucket {bucket}"),
                detail: refused.detail,
            });
        }
        let chunk_bytes = self.config.chunk_bytes.next_multiple_of(UNIT_BYTES);
        Ok(GcsStore {
            target: Target {
                client: self.client.clone(),
                tokens: Arc::clone(&self.tokens),
                endpoint: self.endpoint.clone(),
                bucket: bucket.to_owned(),
                key: String::new(),
                storage_class: self.config.storage_class.clone(),
                grant: Grant {
                    retry_seconds_max: self.config.retry_seconds_max,
                    attempt_seconds_max: self.config.attempt_seconds_max,
                    pause_ms_max: self.config.pause_ms_max,
                },
            },
            folder: if directory.is_empty() { String::new() } else { format!("{directory}/") },
            chunk_bytes: usize::try_from(chunk_bytes).unwrap_or(usize::MAX),
        })
    }
}

/// A bucket, or a directory of one.
pub(super) struct GcsStore {
    /// Of no object.
    target: Target,
    /// Empty, or with a slash at its end.
    folder: String,
    chunk_bytes: usize,
}

impl GcsStore {
    fn target(&self, name: &str) -> Target {
        Target { key: format!("{}{name}", self.folder), ..self.target.clone() }
    }

    fn writer(&self, name: &str) -> GcsWriter {
        GcsWriter::new(self.target(name), self.chunk_bytes)
    }

    async fn go_on(&self, name: &str, checkpoint: &Checkpoint) -> Result<(GcsWriter, u64), UploadError> {
        let Kept::Gcs { session, crc32c } = &checkpoint.kept else { return Ok((self.writer(name), 0)) };
        let Some(session) = Session::kept(self.target(name), session) else {
            return Ok((self.writer(name), 0));
        };
        match session.stand().await {
            Ok(SessionState::Open(held)) if held < checkpoint.bytes() => {
                // The store confirmed more than it has now; the same session cannot be trusted with the rest.
                session.cancel().await?;
                Ok((self.writer(name), 0))
            }
            Ok(stand) => {
                let bytes = checkpoint.bytes();
                Ok((self.writer(name).resumed(session, stand, bytes, *crc32c), bytes))
            }
            Err(UploadError::Lost { .. }) => Ok((self.writer(name), 0)),
            Err(error) => Err(error),
        }
    }
}

impl ObjectStore for GcsStore {
    /// Begins a session and cancels it: it needs the rights and the bucket that an upload needs, and no object appears.
    fn probe(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            let target = self.target(&format!("{PROBE}{}", uuid::Uuid::new_v4().simple()));
            let budget = target.grant.budget_short();
            Session::begin(target, budget).await?.cancel().await
        })
    }

    fn begin<'a>(&'a self, name: &'a str) -> Pending<'a, Box<dyn ObjectWriter>> {
        Box::pin(async move { Ok(Box::new(self.writer(name)) as Box<dyn ObjectWriter>) })
    }

    fn resume<'a>(&'a self, name: &'a str, checkpoint: &'a Checkpoint) -> Pending<'a, Resumed> {
        Box::pin(async move {
            let (writer, offset) = self.go_on(name, checkpoint).await?;
            Ok((Box::new(writer) as Box<dyn ObjectWriter>, offset))
        })
    }

    /// Nothing: sessions that nobody goes on with are seen by nobody, cost nothing, and end by themselves after a week.
    fn sweep<'a>(&'a self, _sweep: Sweep<'a>) -> Pending<'a, u32> {
        Box::pin(async { Ok(0) })
    }

    fn size<'a>(&'a self, name: &'a str) -> Pending<'a, Option<u64>> {
        Box::pin(async move {
            match describe_object(&self.target(name)).await {
                Ok(held) => Ok(Some(held.size)),
                Err(UploadError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn mark<'a>(&'a self, name: &'a str) -> Pending<'a, Option<String>> {
        Box::pin(async move {
            match describe_object(&self.target(name)).await {
                Ok(held) => Ok(Some(format!("{} {:?}", held.size, held.crc32c))),
                Err(UploadError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let target = self.target(name);
            let url = target.object_url(&[]);
            let request = |client: &Client| client.request(Method::DELETE, url.clone());
            let budget = target.grant.budget_short();
            match call(&target, "storage.objects.delete", budget, None, request).await {
                Err(Failed { error, .. }) if !matches!(error, UploadError::NotFound { .. }) => Err(error),
                _ => Ok(()),
            }
        })
    }

    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> Pending<'a, Bytes> {
        Box::pin(async move { Ok(media(&self.target(name), None, bytes_max).await?) })
    }

    fn read<'a>(&'a self, name: &'a str, from: u64, bytes: u64) -> Pending<'a, Bytes> {
        Box::pin(async move {
            // A range behind the end is no range: stores answer 416, or with nothing.
            let size = describe_object(&self.target(name)).await?.size;
            if bytes == 0 || from >= size {
                return Ok(Bytes::new());
            }
            let last = from.saturating_add(bytes - 1).min(size - 1);
            let range = format!("bytes={from}-{last}");
            Ok(media(&self.target(name), Some(range), bytes).await?)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Pending<'a, Vec<String>> {
        Box::pin(async move {
            let target = self.target(prefix);
            let (mut names, mut next) = (Vec::new(), None::<String>);
            loop {
                let mut query = vec![
                    ("prefix", &*target.key),
                    ("delimiter", "/"),
                    ("fields", "items(name),nextPageToken"),
                ];
                query.extend(next.iter().map(|token| ("pageToken", &**token)));
                let url = target.url(&["storage", "v1", "b", &target.bucket, "o"], &query);
                let request = |client: &Client| client.request(Method::GET, url.clone());
                let budget = target.grant.budget_look();
                let reply = call(&target, "storage.objects.list", budget, None, request).await?;
                let page: Page = parse(&target, &reply)?;
                let ours = page
                    .items
                    .into_iter()
                    .filter_map(|item| Some(item.name.strip_prefix(&self.folder)?.to_owned()));
                names.extend(ours);
                if page.next_page_token.is_none() || page.next_page_token == next {
                    names.sort();
                    return Ok(names);
                }
                next = page.next_page_token;
            }
        })
    }
}

/// A page of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    items: Vec<Item>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    name: String,
}

fn parse<T: serde::de::DeserializeOwned>(target: &Target, reply: &Reply) -> Result<T, Failed> {
    serde_json::from_slice(&reply.body).map_err(|error| {
        let detail = format!("its answer is not understood: {error}");
        Failed { error: UploadError::Refused { place: target.place(), detail }, status: Some(reply.status) }
    })
}

/// What the store says about an object.
async fn describe_object(target: &Target) -> Result<StoredObject, UploadError> {
    let url = target.object_url(&[("fields", "size,crc32c")]);
    let request = |client: &Client| client.request(Method::GET, url.clone());
    let reply = call(target, "storage.objects.get", target.grant.budget_look(), None, request).await?;
    Ok(parse(target, &reply)?)
}
