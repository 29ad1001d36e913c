//! What a store can do, in our words. Owns the traits and the choice of the store for a destination; not how a store does it.
//!
//! Invariant: an object is visible under its name only after [`ObjectWriter::finish`], complete and never in place of
//! another one. A writer that is dropped or aborted leaves nothing.

use super::file::FileStore;
use super::s3::{S3Config, S3Stores};
use super::{Destination, UploadError};
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;

/// A boxed future, so that stores can stand behind `dyn`: one box per chunk of a mebibyte costs nothing.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, UploadError>> + Send + 'a>>;

/// A complete object, as the store confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Size in bytes, as the store holds it.
    pub bytes: u64,
}

/// A place for objects. `name` is a plain file name without a slash.
pub trait ObjectStore: Send + Sync {
    /// Finds out whether the place exists and takes objects; leaves nothing visible behind.
    fn probe(&self) -> Pending<'_, ()>;

    /// Begins an object.
    fn begin<'a>(&'a self, name: &'a str) -> Pending<'a, Box<dyn ObjectWriter>>;

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
    /// Appends bytes. After an error only [`ObjectWriter::abort`] makes sense.
    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()>;

    /// Completes the object, makes it visible, and checks what the store holds against what was sent.
    fn finish(self: Box<Self>) -> Pending<'static, Stored>;

    /// Removes every trace of the object.
    fn abort(self: Box<Self>) -> Pending<'static, ()>;
}

/// What the operator decided about stores.
#[derive(Clone, Debug, Default)]
pub struct StoresConfig {
    /// Whether `file://` destinations are taken.
    pub allow_file: bool,
    /// How to speak to S3.
    pub s3: S3Config,
}

/// Opens stores. One per process: connections and credentials are shared by all captures.
#[derive(Debug)]
pub struct Stores {
    allow_file: bool,
    s3: S3Stores,
}

impl Stores {
    /// Takes the operator's decisions; nothing is contacted yet.
    ///
    /// # Errors
    /// [`UploadError::Config`] when a value cannot be used.
    pub fn new(config: StoresConfig) -> Result<Self, UploadError> {
        Ok(Self { allow_file: config.allow_file, s3: S3Stores::new(config.s3)? })
    }

    /// The store of a destination. For a bucket, credentials are looked up; the bucket itself is not contacted.
    ///
    /// # Errors
    /// [`UploadError::FileNotAllowed`] or [`UploadError::Credentials`].
    pub async fn open(&self, destination: &Destination) -> Result<Box<dyn ObjectStore>, UploadError> {
        match destination {
            Destination::File { .. } if !self.allow_file => Err(UploadError::FileNotAllowed),
            Destination::File { dir } => Ok(Box::new(FileStore::new(dir.clone()))),
            Destination::S3 { bucket, directory, region } => {
                Ok(Box::new(self.s3.open(bucket, directory.trim_matches('/'), region).await?))
            }
        }
    }
}
