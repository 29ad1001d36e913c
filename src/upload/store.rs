//! What a store can do, in our words. Owns the traits; not how a store does it, nor which one is opened (`stores`).
//!
//! Invariant: an object is visible under its name only after [`ObjectWriter::finish`], complete and never in place of
//! another one. A writer that is aborted leaves nothing; nor does one that is dropped or fails, unless a checkpoint was taken.

use super::UploadError;
use super::checkpoint::Checkpoint;
use crate::job::{Destination, PartId};
use crate::seldom::Seldom;
use bytes::Bytes;
use jiff::Timestamp;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

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
/// also those of other hosts: a probe in progress works without them.
#[derive(Clone, Copy)]
pub struct Sweep<'a> {
    /// Whether a part of a capture is this host's: what other hosts leave in the same bucket is theirs to sweep.
    pub ours: &'a (dyn Fn(&PartId) -> bool + Sync),
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
    /// writer begins again and the offset is 0.
    fn resume<'a>(&'a self, name: &'a str, checkpoint: &'a Checkpoint) -> Pending<'a, Resumed>;

    /// Removes what unfinished objects and probes of this place left behind; their number.
    fn sweep<'a>(&'a self, sweep: Sweep<'a>) -> Pending<'a, u32>;

    /// Size of an object in bytes; none if there is none of that name.
    fn size<'a>(&'a self, name: &'a str) -> Pending<'a, Option<u64>>;

    /// What changes whenever the bytes of that name do, in the store's own terms; none if there is no such object.
    fn mark<'a>(&'a self, name: &'a str) -> Pending<'a, Option<String>>;

    /// A whole object of at most `bytes_max` bytes, read back.
    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> Pending<'a, Bytes>;

    /// Up to `bytes` bytes of an object from byte `from` on; fewer at its end only, none behind it.
    fn read<'a>(&'a self, name: &'a str, from: u64, bytes: u64) -> Pending<'a, Bytes>;

    /// Names of the objects of this place that begin with `prefix`, sorted, without those in directories below it.
    fn list<'a>(&'a self, prefix: &'a str) -> Pending<'a, Vec<String>>;

    /// Removes an object; one that is not there is removed. Needs a right that uploads do not need.
    fn remove<'a>(&'a self, name: &'a str) -> Pending<'a, ()>;

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

/// An object in progress. Memory is bounded: `write` waits while the store is behind.
pub trait ObjectWriter: Send {
    /// Appends bytes. After an error only [`ObjectWriter::abort`] or [`ObjectStore::resume`] from a checkpoint makes sense.
    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()>;

    /// Takes a file of this host, of so many bytes, for what will be written, if the object can be that file without a copy.
    /// Whether it is: the bytes are still to be written, and are then only counted.
    fn link(&mut self, path: PathBuf, bytes: u64) -> Pending<'_, bool> {
        let _no_file_system = (path, bytes);
        Box::pin(std::future::ready(Ok(false)))
    }

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

/// The end of a writer whose object the store makes out of an upload in progress.
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

/// Tells that a store keeps what no object will be made of. Its bucket is a customer's, who could cause any number of such lines.
pub(super) fn left_over(place: &str, error: &UploadError) {
    static SAID: Seldom = Seldom::new();
    if SAID.may(Instant::now()) {
        tracing::warn!(place, %error, "an upload could not be given up; more within a minute are not told");
    }
}

/// [`ObjectWriter::finish`] of such a writer.
pub(super) fn finish<W: Ending>(mut writer: Box<W>) -> Pending<'static, Stored> {
    Box::pin(async move {
        let result = writer.end().await;
        if result.is_err()
            && !writer.is_kept()
            && let Err(error) = writer.give_up().await
        {
            left_over(&writer.place(), &error);
        }
        result
    })
}

/// [`ObjectWriter::abort`] of such a writer.
pub(super) fn abort<W: Ending>(mut writer: Box<W>) -> Pending<'static, ()> {
    Box::pin(async move { writer.give_up().await })
}

/// The result of `contact`, or [`UploadError::Unreachable`] after `time_max`. An upload waits for a store that is down; the check of
/// a destination has to answer its caller.
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
