//! What a store can do, in our words. Owns the traits and the choice of the store for a destination; not how a store does it.
//!
//! Invariant: an object is visible under its name only after [`ObjectWriter::finish`], complete and never in place of
//! another one. A writer that is aborted leaves nothing; nor does one that is dropped or fails, unless a checkpoint was taken.

use super::checkpoint::Checkpoint;
use super::file::FileStore;
use super::gcs::{GcsConfig, GcsStores};
use super::s3::{S3Config, S3Credentials, S3Stores};
use super::{Destination, UploadError};
use crate::capture::CaptureId;
use bytes::Bytes;
use jiff::Timestamp;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A boxed future, so that stores can stand behind `dyn`: one box per chunk of a mebibyte costs nothing.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, UploadError>> + Send + 'a>>;

/// A complete object, as the store confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Size in bytes, as the store holds it.
    pub bytes: u64,
}

/// A writer that goes on, and the offset in the object from which it needs the bytes again.
pub type Resumed = (Box<dyn ObjectWriter>, u64);

/// Begins the names of what probes begin and never complete.
pub(super) const PROBE: &str = "trawl-probe-";

/// Which leftovers of unfinished objects go. All three must say so. Those of probes ([`PROBE`]) go if they are old enough,
/// whoever's they are: a probe that is under way does not mind.
#[derive(Clone, Copy)]
pub struct Sweep<'a> {
    /// Whether a capture is this host's: what other hosts leave in the same bucket is theirs to sweep.
    pub ours: &'a (dyn Fn(&CaptureId) -> bool + Sync),
    /// What is still to be resumed.
    pub known: &'a [Checkpoint],
    /// Only what was begun before.
    pub before: Timestamp,
}

/// A place for objects. `name` is a plain file name without a slash.
pub trait ObjectStore: Send + Sync {
    /// Finds out whether the place exists and takes objects; leaves nothing visible behind.
    fn probe(&self) -> Pending<'_, ()>;

    /// Begins an object.
    fn begin<'a>(&'a self, name: &'a str) -> Pending<'a, Box<dyn ObjectWriter>>;

    /// Goes on with an object where a writer of this or another process was left. If the store has nothing of it any more, the
    /// writer begins anew and the offset is 0.
    fn resume<'a>(&'a self, name: &'a str, checkpoint: &'a Checkpoint) -> Pending<'a, Resumed>;

    /// Removes what unfinished objects and probes of this place left behind; their number.
    fn sweep<'a>(&'a self, sweep: Sweep<'a>) -> Pending<'a, u32>;

    /// Size of an object in bytes; none if there is none of that name.
    fn size<'a>(&'a self, name: &'a str) -> Pending<'a, Option<u64>>;

    /// A whole object of at most `bytes_max` bytes, read back.
    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> Pending<'a, Bytes>;

    /// Up to `bytes` bytes of an object from byte `from` on; fewer at its end only, none behind it.
    fn read<'a>(&'a self, name: &'a str, from: u64, bytes: u64) -> Pending<'a, Bytes>;

    /// Names of the objects of this place that begin with `prefix`, sorted, without those in directories below it.
    fn list<'a>(&'a self, prefix: &'a str) -> Pending<'a, Vec<String>>;

    /// Writes a small object in one go.
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Pending<'a, Stored> {
        Box::pin(async move {
            let mut writer = self.begin(name).await?;
            match writer.write(bytes).await {
                Ok(()) => writer.finish().await,
                Err(error) => {
                    writer.abort().await?;
                    Err(error)
                }
            }
        })
    }
}

/// An object under way. Memory is bounded: `write` waits while the store is behind.
pub trait ObjectWriter: Send {
    /// Appends bytes. After an error only [`ObjectWriter::abort`] or [`ObjectStore::resume`] from a checkpoint makes sense.
    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()>;

    /// Where the object stands, if that changed since the last call. From the first checkpoint on, what the store holds
    /// outlives this writer, whether it is dropped or fails, until it is resumed, aborted or swept.
    fn checkpoint(&mut self) -> Option<Checkpoint>;

    /// Waits until the store has confirmed all that can be sent before the object's end is known to be its end. Afterwards,
    /// also after a failure, [`ObjectWriter::checkpoint`] names all that was confirmed.
    fn settle(&mut self) -> Pending<'_, ()>;

    /// Completes the object, makes it visible, and checks what the store holds against what was sent. An object of the same
    /// name, size and checksum is taken for this one: then an earlier attempt succeeded and nobody heard of it.
    fn finish(self: Box<Self>) -> Pending<'static, Stored>;

    /// Removes every trace of the object.
    fn abort(self: Box<Self>) -> Pending<'static, ()>;
}

/// The end of a writer whose object the store makes out of an upload under way.
pub(super) trait Ending: Send + 'static {
    /// Completes the object.
    fn end(&mut self) -> impl Future<Output = Result<Stored, UploadError>> + Send;

    /// Ends the requests in the air first, so that none arrives behind it, and then the upload.
    fn give_up(&mut self) -> impl Future<Output = Result<(), UploadError>> + Send;

    /// Whether a checkpoint was taken, so that the upload outlives a failure.
    fn is_kept(&self) -> bool;

    /// Where the object goes.
    fn place(&self) -> String;
}

/// [`ObjectWriter::finish`] of such a writer.
pub(super) fn finish<W: Ending>(mut writer: Box<W>) -> Pending<'static, Stored> {
    Box::pin(async move {
        let result = writer.end().await;
        if result.is_err()
            && !writer.is_kept()
            && let Err(error) = writer.give_up().await
        {
            tracing::warn!(place = writer.place(), %error, "an upload under way could not be given up");
        }
        result
    })
}

/// [`ObjectWriter::abort`] of such a writer.
pub(super) fn abort<W: Ending>(mut writer: Box<W>) -> Pending<'static, ()> {
    Box::pin(async move { writer.give_up().await })
}

/// Region that R2 signs requests for.
const R2_REGION: &str = "auto";

/// How to speak to R2: what [`S3Config`] says otherwise holds too, but for its endpoint, credentials and extras.
#[derive(Clone, Debug, Default)]
pub struct R2Config {
    /// Instead of `https://<account>.r2.cloudflarestorage.com`, for tests and proxies of an account's own.
    pub endpoint: Option<String>,
    /// For destinations without keys of their own.
    pub credentials: Option<S3Credentials>,
}

/// What the operator decided about stores.
#[derive(Clone, Debug, Default)]
pub struct StoresConfig {
    /// Whether `file://` destinations are taken.
    pub allow_file: bool,
    /// How to speak to S3.
    pub s3: S3Config,
    /// How to speak to R2; no `r2://` destination is taken without.
    pub r2: Option<R2Config>,
    /// How to speak to Google Cloud Storage; no `gs://` destination is taken without.
    pub gcs: Option<GcsConfig>,
}

/// Opens stores. One per process: connections and credentials are shared by all captures.
#[derive(Debug)]
pub struct Stores {
    allow_file: bool,
    s3: S3Stores,
    r2: Option<R2Config>,
    gcs: Option<GcsStores>,
}

impl Stores {
    /// Takes the operator's decisions; nothing is contacted yet.
    ///
    /// # Errors
    /// [`UploadError::Config`] when a value cannot be used.
    pub fn new(config: StoresConfig) -> Result<Self, UploadError> {
        let gcs = config.gcs.map(GcsStores::new).transpose()?;
        Ok(Self { allow_file: config.allow_file, s3: S3Stores::new(config.s3)?, r2: config.r2, gcs })
    }

    /// The store of a destination. For a bucket, credentials are looked up; the bucket itself is not contacted.
    ///
    /// # Errors
    /// [`UploadError::FileNotAllowed`], [`UploadError::BucketNotAllowed`] or [`UploadError::Credentials`].
    pub async fn open(&self, destination: &Destination) -> Result<Box<dyn ObjectStore>, UploadError> {
        self.open_with(destination, None).await
    }

    /// Reads this host's credentials anew for stores that are opened from now on.
    pub async fn renew_credentials(&self) {
        self.s3.renew().await;
    }

    /// As [`Stores::open`], with the keys that came with an `r2://` destination.
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub async fn open_with(
        &self,
        destination: &Destination,
        keys: Option<&S3Credentials>,
    ) -> Result<Box<dyn ObjectStore>, UploadError> {
        match destination {
            Destination::File { .. } if !self.allow_file => Err(UploadError::FileNotAllowed),
            Destination::File { dir } => Ok(Box::new(FileStore::new(dir.clone()))),
            Destination::S3 { bucket, directory, region } => {
                Ok(Box::new(self.s3.open(bucket, directory.trim_matches('/'), region).await?))
            }
            Destination::Gcs { bucket, directory } => {
                let Some(gcs) = &self.gcs else {
                    return Err(UploadError::BucketNotAllowed { scheme: "gs", key: "upload.gcs.allow" });
                };
                Ok(Box::new(gcs.open(bucket, directory.trim_matches('/')).await?))
            }
            Destination::R2 { bucket, directory, account_id } => {
                let Some(r2) = &self.r2 else {
                    return Err(UploadError::BucketNotAllowed { scheme: "r2", key: "upload.r2.allow" });
                };
                let Some(keys) = keys.or(r2.credentials.as_ref()) else {
                    let detail = "this account has sent none".to_owned();
                    return Err(UploadError::Keys { place: destination.to_string(), detail });
                };
                let own = || format!("https://{account_id}.r2.cloudflarestorage.com");
                let endpoint = r2.endpoint.clone().unwrap_or_else(own);
                let store = self.s3.open_at(&endpoint, keys, bucket, R2_REGION);
                Ok(Box::new(store.in_directory(directory.trim_matches('/'))))
            }
        }
    }
}

/// What a store's `contact` comes to; [`UploadError::Unreachable`] if that is not known after `time_max`. Uploads wait for a
/// store that comes back; somebody who asks whether a destination can be used shall have an answer.
///
/// # Errors
/// As `contact`.
pub async fn within<T>(
    time_max: Duration,
    destination: &Destination,
    contact: impl Future<Output = Result<T, UploadError>>,
) -> Result<T, UploadError> {
    let outcome = tokio::time::timeout(time_max, contact).await;
    outcome.unwrap_or_else(|_| {
        Err(UploadError::Unreachable {
            place: destination.to_string(),
            seconds: time_max.as_secs(),
            detail: "its store took the connection and did not answer, or no connection came about"
                .to_owned(),
        })
    })
}
