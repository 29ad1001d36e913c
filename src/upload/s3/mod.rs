//! Objects in a bucket that speaks S3. Owns the client, its configuration and the single requests; `writer` owns uploads,
//! `retry` what is tried again. Only this folder names the AWS crates.
//!
//! Invariant: the SDK's own retries are off, so that `retry` alone knows whether a request may have been carried out before.

mod answer;
mod client;
mod credentials;
mod extras;
mod memory;
mod multipart;
mod owner;
mod reach;
mod retry;
mod sweep;
mod writer;

use super::UploadError;
use super::checkpoint::{Checkpoint, Kept, KeptPart};
use super::retry_budget::{Grant, RetryBudget};
use super::store::{ObjectStore, ObjectWriter, PROBE, Pending, Resumed, Sweep};
use crate::chain::chain;
use crate::job::S3Credentials;
use crate::limits::{BLOCK_BYTES, DELIVERY_CHUNK_BYTES, PART_BYTES_MIN};
use answer::{AnswerBound, PAGE_ENTRIES, Pages};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, ProvideCredentials, Region, ResponseChecksumValidation, SharedHttpClient,
};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use bytes::{Bytes, BytesMut};
use credentials::HostCredentials;
pub use extras::{S3Encryption, S3Extras};
use multipart::Multipart;
use owner::ExpectedOwner;
use reach::Reach;
use retry::{Failed, Target, call};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use writer::{PartSizes, S3Writer};

/// Longest wait for a connection; a host that is there answers within a few round trips.
const CONNECT_SECONDS_MAX: u64 = 5;

/// Largest `part_bytes`: memory is reserved in this unit, `parts_in_flight + 1` times per capture.
const PART_BYTES_MAX: u64 = 1 << 30;

/// Most `parts_in_flight`: beyond it neither a link nor a store gets faster.
const PARTS_IN_FLIGHT_MAX: usize = 64;

/// How to speak to S3 and to stores like it.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// `http://` or `https://` address of an S3-compatible store; AWS's own when none.
    pub endpoint: Option<String>,
    /// Whether the bucket stands in the path and not in the host name; by default if there is an `endpoint`.
    pub path_style: Option<bool>,
    /// Bytes of a part; part sizes double every 1000 parts so that any object fits.
    pub part_bytes: u64,
    /// Parts of one object that are sent at the same time.
    pub parts_in_flight: usize,
    /// Seconds for which a failing request is tried again.
    pub retry_seconds_max: u64,
    /// Seconds without an answer after which one attempt counts as failed; parts get more by their size.
    pub attempt_seconds_max: u64,
    /// Longest pause between two attempts, in milliseconds.
    pub pause_ms_max: u64,
    /// What is said about each object.
    pub extras: S3Extras,
    /// `http://` address of a proxy; none otherwise, whatever the environment says.
    pub proxy: Option<String>,
    /// PEM file of certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Instead of the standard AWS chain (environment, profile, container, instance).
    pub credentials: Option<S3Credentials>,
    /// Parts that all objects together may have on their way beyond one each.
    pub parts_extra: usize,
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            path_style: None,
            part_bytes: 8 << 20,
            parts_in_flight: 4,
            retry_seconds_max: 15 * 60,
            attempt_seconds_max: 30,
            pause_ms_max: 20_000,
            extras: S3Extras::default(),
            proxy: None,
            ca_file: None,
            credentials: None,
            parts_extra: 256,
        }
    }
}

impl S3Config {
    /// The memory of an object beside the first one of a delivery, in parts: chunks from its merge, a part that fills and one on its way,
    /// and a window into the stream of each queue.
    fn object_parts(&self, queues: u64) -> u64 {
        let part_bytes = self.part_bytes.max(1);
        (DELIVERY_CHUNK_BYTES + 2 * part_bytes + queues * BLOCK_BYTES as u64).div_ceil(part_bytes)
    }

    /// Objects beside the first one of each delivery, at most.
    pub(crate) fn objects_extra(&self, queues: u64) -> u64 {
        self.parts_extra as u64 / self.object_parts(queues)
    }

    fn check(&self) -> Result<(), UploadError> {
        let wrong = |key, detail: String| Err(UploadError::Config { key, detail });
        if let Some(endpoint) = &self.endpoint
            && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
        {
            return wrong("endpoint", format!("{endpoint:?} begins neither with http:// nor https://"));
        }
        if !(PART_BYTES_MIN..=PART_BYTES_MAX).contains(&self.part_bytes) {
            return wrong(
                "part_bytes",
                format!("{} is not in {PART_BYTES_MIN}..={PART_BYTES_MAX}", self.part_bytes),
            );
        }
        if !(1..=PARTS_IN_FLIGHT_MAX).contains(&self.parts_in_flight) {
            return wrong(
                "parts_in_flight",
                format!("{} is not in 1..={PARTS_IN_FLIGHT_MAX}", self.parts_in_flight),
            );
        }
        if self.attempt_seconds_max == 0 {
            return wrong("attempt_seconds_max", "0 leaves no time for an answer".to_owned());
        }
        Ok(())
    }
}

/// Names in one list, over all its pages: some hundred thousand objects. A store may have another page without end.
const LIST_BYTES_MAX: usize = 64 << 20;

/// What all buckets share: connections and credentials.
#[derive(Debug)]
pub(super) struct S3Stores {
    config: S3Config,
    http: SharedHttpClient,
    parts: Arc<Semaphore>,
    host: Arc<HostCredentials>,
}

impl S3Stores {
    pub(super) fn new(config: S3Config) -> Result<Self, UploadError> {
        config.check()?;
        let http = client::open(config.proxy.as_deref(), config.ca_file.as_deref())?;
        let parts = Arc::new(Semaphore::new(config.parts_extra.min(Semaphore::MAX_PERMITS)));
        let host = Arc::new(HostCredentials::new(config.clone(), http.clone()));
        Ok(Self { config, http, parts, host })
    }

    /// The same in the place of `before`: what is on its way counts on, so both together have no more than one of them may.
    pub(super) fn after(mut self, before: &Self) -> Self {
        let max = |stores: &Self| stores.config.parts_extra.min(Semaphore::MAX_PERMITS);
        let (now, was) = (max(&self), max(before));
        self.parts = memory::after(&before.parts, was, now);
        self
    }

    /// Takes the memory of an object of so many queues.
    pub(super) fn one_more_object(&self, queues: u64) -> Option<OwnedSemaphorePermit> {
        let parts = self.config.object_parts(queues);
        Arc::clone(&self.parts).try_acquire_many_owned(u32::try_from(parts).ok()?).ok()
    }

    pub(super) fn is_aws(&self) -> bool {
        self.config.endpoint.is_none()
    }

    /// Reads credentials again for the next store that is opened: somebody may have put them right.
    pub(super) async fn renew(&self) {
        self.host.renew().await;
    }

    pub(super) async fn open(
        &self,
        bucket: &str,
        directory: &str,
        region: &str,
        owner: Option<&str>,
    ) -> Result<S3Store, UploadError> {
        if let Err(error) = self.host.provide_credentials().await {
            let (place, detail) = (format!("bucket {bucket}"), chain(&error));
            return Err(UploadError::HostCredentials { place, detail });
        }
        let shared = self.host.shared().await;
        let endpoint = self.config.endpoint.as_deref();
        let provider: Arc<dyn ProvideCredentials> = self.host.clone();
        let mut builder = aws_sdk_s3::config::Builder::from(&shared)
            .credentials_provider(SharedCredentialsProvider::from(provider))
            .endpoint_resolver(Reach::new(endpoint, shared.region().map(Region::as_ref)))
            .region(Region::new(region.to_owned()))
            .force_path_style(self.config.path_style.unwrap_or(self.config.endpoint.is_some()));
        if let Some(endpoint) = &self.config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        if let Some(owner) = owner {
            builder = builder.interceptor(ExpectedOwner::new(owner));
        }
        let extras = self.config.extras.clone();
        let store = self.store(builder, bucket, region, extras).in_directory(directory);
        Ok(S3Store { owner: owner.map(Arc::from), ..store })
    }

    /// A bucket of another store that speaks S3, with parts of equal size, as R2 wants them.
    pub(super) fn open_at(
        &self,
        endpoint: &str,
        keys: &S3Credentials,
        bucket: &str,
        region: &str,
    ) -> S3Store {
        let keys = Credentials::new(&keys.access_key_id, &keys.secret_access_key, None, None, "destination");
        let builder = aws_sdk_s3::config::Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .credentials_provider(keys)
            .region(Region::new(region.to_owned()))
            .endpoint_url(endpoint)
            .endpoint_resolver(Reach::new(Some(endpoint), None))
            .force_path_style(true);
        let is_private = is_tls(endpoint);
        S3Store { equal_parts: true, is_private, ..self.store(builder, bucket, region, S3Extras::default()) }
    }

    fn store(
        &self,
        builder: aws_sdk_s3::config::Builder,
        bucket: &str,
        region: &str,
        extras: S3Extras,
    ) -> S3Store {
        let timeout = Duration::from_secs(CONNECT_SECONDS_MAX);
        let builder = builder
            .retry_config(RetryConfig::disabled())
            // What an object has is compared with the manifest's SHA-256; of an object of many parts the SDK can check no checksum, and
            // would log that for each read.
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .interceptor(AnswerBound)
            .timeout_config(TimeoutConfig::builder().connect_timeout(timeout).build());
        S3Store {
            client: Client::from_conf(builder.build()),
            bucket: bucket.to_owned(),
            directory: String::new(),
            region: region.to_owned(),
            extras: Arc::new(extras),
            config: self.config.clone(),
            parts: Arc::clone(&self.parts),
            equal_parts: false,
            owner: None,
            // AWS itself has no other way.
            is_private: self.config.endpoint.as_deref().is_none_or(is_tls),
        }
    }
}

/// Whether an address is one of TLS.
fn is_tls(endpoint: &str) -> bool {
    endpoint.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// A bucket, or a directory of one.
#[derive(Clone, Debug)]
pub(super) struct S3Store {
    client: Client,
    bucket: String,
    directory: String,
    region: String,
    config: S3Config,
    /// Those beyond one of each object.
    parts: Arc<Semaphore>,
    extras: Arc<S3Extras>,
    equal_parts: bool,
    /// The account that every request names as the bucket's owner.
    owner: Option<Arc<str>>,
    /// Whether it is reached by TLS.
    is_private: bool,
}

impl S3Store {
    pub(super) fn in_directory(self, directory: &str) -> Self {
        Self { directory: directory.to_owned(), ..self }
    }

    fn target(&self, name: &str) -> Target {
        let slash = if self.directory.is_empty() { "" } else { "/" };
        Target {
            client: self.client.clone(),
            bucket: self.bucket.clone(),
            key: format!("{}{slash}{name}", self.directory),
            region: self.region.clone(),
            grant: Grant {
                retry_seconds_max: self.config.retry_seconds_max,
                attempt_seconds_max: self.config.attempt_seconds_max,
                pause_ms_max: self.config.pause_ms_max,
            },
            extras: Arc::clone(&self.extras),
            owner: self.owner.clone(),
            is_private: self.is_private,
        }
    }

    fn cut(&self) -> PartSizes {
        PartSizes { part_bytes: self.config.part_bytes, equal: self.equal_parts }
    }

    fn writer(&self, name: &str, cut: PartSizes) -> S3Writer {
        S3Writer::new(self.target(name), cut, self.config.parts_in_flight, Arc::clone(&self.parts))
    }

    async fn go_on(&self, name: &str, checkpoint: &Checkpoint) -> Result<(S3Writer, u64), UploadError> {
        let fresh = |cut| self.writer(name, cut);
        let Kept::S3 { upload_id, part_bytes, parts } = &checkpoint.kept else {
            return Ok((fresh(self.cut()), 0));
        };
        let upload = Multipart::kept(self.target(name), upload_id.clone());
        let parts: Vec<KeptPart> = match upload.parts().await {
            Ok(held) => {
                let both =
                    parts.iter().zip(1..).take_while(|(part, number)| held.get(number) == Some(&part.etag));
                both.map(|(part, _)| part.clone()).collect()
            }
            // Who may write and not list goes by the journal; the store checks it when the object is put together.
            Err(Failed { error: UploadError::Denied { .. }, .. }) => parts.clone(),
            Err(Failed { error: UploadError::Lost { .. } | UploadError::NotFound { .. }, .. }) => {
                return Ok((fresh(self.cut()), 0));
            }
            Err(failed) => return Err(failed.error),
        };
        let offset = parts.iter().map(|part| part.bytes).sum();
        let cut = PartSizes { part_bytes: *part_bytes, ..self.cut() };
        Ok((fresh(cut).resumed(upload, parts), offset))
    }
}

impl ObjectStore for S3Store {
    /// Does with a multipart upload what an upload does, but for its parts: begins it, asks for its completion on the condition
    /// that no object is there, which the store refuses because a part is missing, and aborts it. No object appears.
    fn probe(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            let target = self.target(&format!("{PROBE}{}", uuid::Uuid::new_v4().simple()));
            let budget = target.grant.budget_short();
            let upload = Multipart::create(target, budget).await?;
            let completed = upload.complete_nothing(budget).await;
            let aborted = upload.abort().await;
            completed.and(aborted)
        })
    }

    fn begin<'a>(&'a self, name: &'a str) -> Pending<'a, Box<dyn ObjectWriter>> {
        Box::pin(async move {
            let writer = self.writer(name, self.cut());
            Ok(Box::new(writer) as Box<dyn ObjectWriter>)
        })
    }

    fn resume<'a>(&'a self, name: &'a str, checkpoint: &'a Checkpoint) -> Pending<'a, Resumed> {
        Box::pin(async move {
            let (writer, offset) = self.go_on(name, checkpoint).await?;
            Ok((Box::new(writer) as Box<dyn ObjectWriter>, offset))
        })
    }

    fn sweep<'a>(&'a self, sweep: Sweep<'a>) -> Pending<'a, u32> {
        Box::pin(async move { sweep::sweep(&self.target(""), sweep).await })
    }

    fn size<'a>(&'a self, name: &'a str) -> Pending<'a, Option<u64>> {
        Box::pin(async move {
            let target = self.target(name);
            match head(&target, target.grant.budget_look()).await {
                Ok(held) => Ok(Some(held.bytes)),
                Err(Failed { error: UploadError::NotFound { .. }, .. }) => Ok(None),
                Err(failed) => Err(failed.error),
            }
        })
    }

    fn mark<'a>(&'a self, name: &'a str) -> Pending<'a, Option<String>> {
        Box::pin(async move {
            let target = self.target(name);
            match head(&target, target.grant.budget_look()).await {
                Ok(held) => Ok(Some(format!("{} {:?}", held.bytes, held.etag))),
                Err(Failed { error: UploadError::NotFound { .. }, .. }) => Ok(None),
                Err(failed) => Err(failed.error),
            }
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let target = self.target(name);
            let request = || target.client.delete_object().bucket(&target.bucket).key(&target.key).send();
            let answer = call(&target, "s3:DeleteObject", target.grant.budget_short(), request).await;
            answer.map(drop).map_err(|failed| failed.error)
        })
    }

    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> Pending<'a, Bytes> {
        Box::pin(async move {
            let target = self.target(name);
            let request = || target.client.get_object().bucket(&target.bucket).key(&target.key).send();
            let mut answer = call(&target, "s3:GetObject", target.grant.budget_look(), request).await?;
            collect(&target, &mut answer.body, bytes_max).await
        })
    }

    fn read<'a>(&'a self, name: &'a str, from: u64, bytes: u64) -> Pending<'a, Bytes> {
        Box::pin(async move {
            if bytes == 0 {
                return Ok(Bytes::new());
            }
            let target = self.target(name);
            let range = format!("bytes={from}-{}", from.saturating_add(bytes - 1));
            let request = || {
                let get = target.client.get_object().bucket(&target.bucket).key(&target.key);
                get.range(&range).send()
            };
            // The whole time that the store is given: a long read must not end with one dropped connection.
            match call(&target, "s3:GetObject", target.grant.budget_look(), request).await {
                Ok(mut answer) => collect(&target, &mut answer.body, bytes).await,
                Err(failed) if self.size(name).await?.is_some_and(|size| size <= from) => {
                    // Stores answer 416 for a range behind the end; that is no failure here.
                    let _behind_the_end = failed;
                    Ok(Bytes::new())
                }
                Err(failed) => Err(failed.error),
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Pending<'a, Vec<String>> {
        Box::pin(async move {
            let target = self.target(prefix);
            let folder = target.key.len() - prefix.len();
            let (mut names, mut next, mut bytes) = (Vec::new(), None, 0);
            let mut pages = Pages::default();
            loop {
                pages.next(&target).await?;
                let request = || {
                    let list = target.client.list_objects_v2().bucket(&target.bucket).prefix(&target.key);
                    list.delimiter("/").max_keys(PAGE_ENTRIES).set_continuation_token(next.clone()).send()
                };
                let answer = call(&target, "s3:ListBucket", target.grant.budget_look(), request).await?;
                names.extend(
                    answer.contents().iter().filter_map(|object| Some(object.key()?[folder..].to_owned())),
                );
                bytes +=
                    answer.contents().iter().filter_map(|object| Some(object.key()?.len())).sum::<usize>();
                if bytes > LIST_BYTES_MAX {
                    return Err(UploadError::TooLarge {
                        place: target.place(),
                        bytes_max: LIST_BYTES_MAX as u64,
                    });
                }
                let told = answer.next_continuation_token().map(str::to_owned);
                // A store that names the same place again has no more to tell.
                if told.is_none() || told == next {
                    names.sort();
                    return Ok(names);
                }
                next = told;
            }
        })
    }
}

/// A body of at most `bytes_max` bytes.
async fn collect(target: &Target, body: &mut ByteStream, bytes_max: u64) -> Result<Bytes, UploadError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| UploadError::Unreachable {
            place: target.place(),
            seconds: 0,
            detail: chain(&error),
        })?;
        if (bytes.len() + chunk.len()) as u64 > bytes_max {
            return Err(UploadError::TooLarge { place: target.place(), bytes_max });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// What the store says about an object.
struct StoredObject {
    bytes: u64,
    /// CRC-32C in base64, if the store offers one; with `-parts` behind it if it is a checksum of checksums.
    checksum: Option<String>,
    /// A strong one, by RFC 9110: it changes with the bytes.
    etag: Option<String>,
}

async fn head(target: &Target, budget: RetryBudget) -> Result<StoredObject, Failed> {
    let request = || {
        let head = target.client.head_object().bucket(&target.bucket).key(&target.key);
        head.checksum_mode(ChecksumMode::Enabled).send()
    };
    let answer = call(target, "s3:GetObject", budget, request).await?;
    Ok(StoredObject {
        bytes: answer.content_length().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        checksum: answer.checksum_crc32_c().map(str::to_owned),
        etag: answer.e_tag().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let keys = S3Credentials { access_key_id: "AKIA".to_owned(), secret_access_key: "hush".to_owned() };
        let config = S3Config { credentials: Some(keys), ..S3Config::default() };
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn values_that_no_store_takes_are_refused() {
        let good = S3Config::default();
        assert!(good.check().is_ok());
        for wrong in [
            S3Config { part_bytes: PART_BYTES_MIN - 1, ..good.clone() },
            S3Config { parts_in_flight: 0, ..good.clone() },
            S3Config { endpoint: Some("127.0.0.1:9000".to_owned()), ..good.clone() },
            S3Config { attempt_seconds_max: 0, ..good.clone() },
        ] {
            assert!(matches!(S3Stores::new(wrong), Err(UploadError::Config { .. })));
        }
    }

    /// The errors of a probe and of a small object at an endpoint that is of no use, which come in bounded time.
    async fn errors_of(endpoint: String) -> [UploadError; 2] {
        let keys = S3Credentials { access_key_id: "k".to_owned(), secret_access_key: "s".to_owned() };
        let stores = S3Stores::new(S3Config {
            endpoint: Some(endpoint),
            retry_seconds_max: 1,
            attempt_seconds_max: 1,
            credentials: Some(keys),
            ..S3Config::default()
        })
        .unwrap();
        let store = stores.open("bucket", "", "us-east-1", None).await.unwrap();
        let began = std::time::Instant::now();
        let errors =
            [store.probe().await.unwrap_err(), store.put("a", Bytes::from_static(b"a")).await.unwrap_err()];
        assert!(began.elapsed() < Duration::from_secs(10));
        errors
    }

    #[tokio::test]
    async fn an_unreachable_endpoint_is_an_error_in_bounded_time() {
        for error in errors_of("http://127.0.0.1:1".to_owned()).await {
            assert!(matches!(error, UploadError::Unreachable { .. }), "{error}");
        }
    }

    /// A store whose lists say that more comes, behind the same place each time.
    fn endless_store() -> String {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut asked in listener.incoming().flatten() {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if !asked.read(&mut byte).is_ok_and(|bytes| bytes > 0) {
                        break;
                    }
                    request.extend(byte);
                }
                let list = match String::from_utf8_lossy(&request).contains("list-type") {
                    true => {
                        "<ListBucketResult><NextContinuationToken>a</NextContinuationToken><IsTruncated>true</IsTruncated></ListBucketResult>"
                    }
                    false => {
                        "<ListMultipartUploadsResult><NextKeyMarker>a</NextKeyMarker><NextUploadIdMarker>b</NextUploadIdMarker><IsTruncated>true</IsTruncated></ListMultipartUploadsResult>"
                    }
                };
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", list.len());
                let _asker_gone = asked.write_all((head + list).as_bytes());
            }
        });
        endpoint
    }

    #[tokio::test]
    async fn a_list_that_never_gets_further_ends() {
        let keys = S3Credentials { access_key_id: "k".to_owned(), secret_access_key: "s".to_owned() };
        let endpoint = Some(endless_store());
        let stores =
            S3Stores::new(S3Config { endpoint, credentials: Some(keys), ..S3Config::default() }).unwrap();
        let store = stores.open("bucket", "", "us-east-1", None).await.unwrap();
        let sweep = crate::upload::Sweep { ours: &|_| true, known: &[], before: jiff::Timestamp::MAX };
        let asked = async { (store.sweep(sweep).await.unwrap(), store.list("pcap_").await.unwrap()) };
        let answered = tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it ends");
        assert_eq!(answered, (0, Vec::new()));
    }

    /// What the request of a small object says of its body's hash.
    async fn hash_in_request(is_private: bool) -> String {
        use tokio::io::AsyncReadExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let keys = S3Credentials { access_key_id: "k".to_owned(), secret_access_key: "s".to_owned() };
        let config = S3Config { endpoint, credentials: Some(keys), ..S3Config::default() };
        let store = S3Stores::new(config).unwrap().open("bucket", "", "us-east-1", None).await.unwrap();
        assert!(!store.is_private, "HTTP keeps nothing private");
        let store = S3Store { is_private, ..store };
        let asked = async {
            let (mut asked, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                asked.read_buf(&mut request).await.unwrap();
            }
            String::from_utf8_lossy(&request).to_ascii_lowercase()
        };
        let request = tokio::select! {
            request = asked => request,
            put = store.put("a", Bytes::from_static(b"abc")) => panic!("{put:?} without an answer"),
        };
        assert!(request.contains("x-amz-checksum-crc32c: nks/tw=="), "{request}");
        let hash = request.lines().find_map(|line| line.strip_prefix("x-amz-content-sha256: "));
        hash.expect("every request has it").to_owned()
    }

    #[tokio::test]
    async fn a_body_is_hashed_for_its_signature_only_where_tls_does_not_keep_it() {
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_in_request(false).await, of_abc);
        assert_eq!(hash_in_request(true).await, "unsigned-payload");
        assert!(is_tls("HTTPS://store") && !is_tls("http://store") && !is_tls("store"));
    }

    #[tokio::test]
    async fn an_endpoint_that_never_answers_is_an_error_in_bounded_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for error in errors_of(format!("http://{}", listener.local_addr().unwrap())).await {
            assert!(error.to_string().contains("no answer"), "{error}");
        }
    }
}
