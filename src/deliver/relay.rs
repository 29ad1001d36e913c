//! From the live merge into the store. Owns the order of objects and the report of each complete one; not the manifest.
//!
//! Invariant: an object is reported only after the store confirmed its size. An object that cannot be completed is aborted, or
//! kept for resumption; an upload is resumed only if the merge makes the same bytes again. Memory is bounded by the channel and
//! by the store's writer, which makes the merge wait.

use super::manifest::{ManifestError, manifest_name, object_name, signature_name, stamp_name};
use super::record::Settled;
use super::sign::SigningKey;
use crate::job::{ObjectInfo, PartId};
use crate::merge::{Consumed, Output, Summary};
use crate::pcap::ObjectFormat;
use crate::spool::Segment;
use crate::upload::{COUNTS, Checkpoint, ObjectStore, ObjectWriter, Pending, Running, UploadError};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::pin::Pin;
use tokio::sync::mpsc::Receiver;

/// Bytes per read when an existing object is read back.
const READ_BYTES: u64 = 8 << 20;

/// A write of a note; its failure does not matter.
pub type Noted<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The record of a delivery, from which the next one resumes.
pub trait DeliveryRecord: Send {
    /// An object is complete in the store. An error ends the delivery.
    ///
    /// # Errors
    /// When it could not be recorded.
    fn complete(&mut self, info: ObjectInfo, consumed: Consumed) -> Pending<'_, ()>;

    /// Whether checkpoints are kept. If not, an object that cannot be completed is aborted.
    fn keeps(&self) -> bool {
        false
    }

    /// The last checkpoint of object `number`.
    fn kept(&self, number: u32) -> Option<Checkpoint> {
        let _never_any = number;
        None
    }

    /// Whether segments are removed for good once they are in complete objects. A store may then take one instead of its bytes: no
    /// other name of the file stays, and nothing is written into it.
    fn frees(&self) -> bool {
        false
    }

    /// Keeps a checkpoint of object `number`.
    fn keep(&mut self, number: u32, checkpoint: Checkpoint) -> Noted<'_> {
        let _not_kept = (number, checkpoint);
        Box::pin(std::future::ready(()))
    }

    /// Drops the checkpoint of object `number`.
    fn forget(&mut self, number: u32) -> Noted<'_> {
        let _not_kept = number;
        Box::pin(std::future::ready(()))
    }

    /// Whether the store may have object `number` already, which nobody recorded. `first`: it is the delivery's first one.
    fn may_be_there(&self, number: u32, first: bool) -> bool {
        let _any = number;
        first
    }

    /// Waits until the object, all of which is made, may become visible.
    fn may_finish<'a>(&'a mut self, consumed: &'a Consumed) -> Pending<'a, ()> {
        let _at_once = consumed;
        Box::pin(std::future::ready(Ok(())))
    }
}

impl<F: FnMut(ObjectInfo, Consumed) -> Result<(), UploadError> + Send> DeliveryRecord for F {
    fn complete(&mut self, info: ObjectInfo, consumed: Consumed) -> Pending<'_, ()> {
        let noted = self(info, consumed);
        Box::pin(std::future::ready(noted))
    }
}

/// Streams the objects of a part of a capture, from number `first`, into a store until the merge ends. `record` hears of each complete object.
///
/// The store may have the first object already, from a process that died before it could record so. If it is the same, it is not
/// sent again. If the store has a part of it and `record` has a checkpoint, only the rest is sent.
///
/// A channel that closes between two objects counts as the merge's success; the merge's own result tells whether it was.
///
/// # Errors
/// The first failure. The channel is then closed, so that the merge ends too, and the open object is aborted, unless `record`
/// has its checkpoint.
pub async fn deliver(
    store: &dyn ObjectStore,
    part: &PartId,
    format: ObjectFormat,
    first: u32,
    outputs: Receiver<Output>,
    record: &mut dyn DeliveryRecord,
) -> Result<Vec<ObjectInfo>, UploadError> {
    let mut infos = Vec::new();
    let mut never: Leave<'_> = Box::pin(std::future::pending());
    let object = (format, first);
    relay((store, part), object, outputs, record, Some(&mut infos), &mut never).await.map(|()| infos)
}

/// Ends when a delivery has to stop where it is.
pub(super) type Leave<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Does some work of the store, unless the delivery has to leave.
pub(super) async fn unless<T>(
    leave: &mut Leave<'_>,
    work: impl Future<Output = Result<T, UploadError>>,
) -> Result<T, UploadError> {
    tokio::select! {
        biased;
        done = work => done,
        () = leave => Err(UploadError::Displaced),
    }
}

/// As [`deliver`], from object `first` on; the objects are added to `infos`, if somebody wants them. It stops with
/// [`UploadError::Displaced`] when `leave` says so, and never while `record` notes a complete object.
pub(super) async fn relay(
    (store, part): (&dyn ObjectStore, &PartId),
    (format, first): (ObjectFormat, u32),
    mut outputs: Receiver<Output>,
    record: &mut dyn DeliveryRecord,
    infos: Option<&mut Vec<ObjectInfo>>,
    leave: &mut Leave<'_>,
) -> Result<(), UploadError> {
    let mut relay = Relay { store, part, format, first, record, open: None, done: 0, infos };
    let result = relay.run(&mut outputs, leave).await;
    drop(outputs);
    // A store that does not answer would not answer an abort either; the sweep at the delivery's end removes what is left.
    if !matches!(result, Err(UploadError::Displaced))
        && let Some(open) = relay.open.take()
        && let Some(writer) = open.writer
        && !open.kept
        && let Err(error) = unless(leave, writer.abort()).await
    {
        tracing::warn!(object = open.name, %error, "an object could not be aborted");
    }
    result
}

/// Why a manifest is not in its store.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It has no JSON form.
    #[error(transparent)]
    Form(#[from] ManifestError),
    /// The store.
    #[error(transparent)]
    Store(#[from] UploadError),
}

/// Writes the signature and the time stamp, then the manifest: so a visible manifest is always signed, if this host signs.
///
/// # Errors
/// [`PublishError`]. A signature without a manifest may then be left.
pub async fn publish_manifest(
    store: &dyn ObjectStore,
    settled: &Settled,
    key: Option<&SigningKey>,
    stamp: Option<Vec<u8>>,
) -> Result<(), PublishError> {
    let Settled { manifest, json } = settled;
    if let Some(key) = key {
        store.put(&signature_name(&manifest.part()), key.sign(json).into()).await?;
    }
    if let Some(stamp) = stamp {
        store.put(&stamp_name(&manifest.part()), stamp.into()).await?;
    }
    store.put(&manifest_name(&manifest.part()), json.clone().into()).await?;
    Ok(())
}

struct Relay<'a> {
    store: &'a dyn ObjectStore,
    part: &'a PartId,
    format: ObjectFormat,
    first: u32,
    record: &'a mut dyn DeliveryRecord,
    open: Option<Open>,
    /// Objects that are complete.
    done: u32,
    infos: Option<&'a mut Vec<ObjectInfo>>,
}

/// The object in progress.
struct Open {
    number: u32,
    name: String,
    /// Bytes written so far.
    bytes: u64,
    /// None: the store has an object of that name, which is compared with the merge's bytes.
    writer: Option<Box<dyn ObjectWriter>>,
    /// The part that the store has.
    held: Option<Prefix>,
    /// Whether that part outlives this delivery.
    kept: bool,
}

/// The beginning of an object that is not sent again.
struct Prefix {
    bytes_left: u64,
    /// Checksum of the merge's bytes, and the store's.
    merged: Running,
    confirmed: Option<u32>,
}

fn wrong_size((place, held, sent): (String, u64, u64)) -> UploadError {
    UploadError::Mismatch { place, what: "size", held: held.to_string(), sent: sent.to_string() }
}

impl Relay<'_> {
    async fn run(
        &mut self,
        outputs: &mut Receiver<Output>,
        leave: &mut Leave<'_>,
    ) -> Result<(), UploadError> {
        while let Some(output) = unless(leave, async { Ok(outputs.recv().await) }).await? {
            match output {
                Output::Begin(index) => unless(leave, self.begin(index)).await?,
                Output::Whole(segment) => unless(leave, self.link(segment)).await?,
                Output::Chunk(bytes) => unless(leave, self.write(bytes)).await?,
                Output::End(summary, consumed) => {
                    let info = unless(leave, self.end(summary, &consumed)).await?;
                    self.record.complete(info, consumed).await?;
                }
            }
        }
        match (&self.open, self.done) {
            (None, 1..) => Ok(()),
            _ => Err(UploadError::Interrupted { object: self.done as usize }),
        }
    }

    async fn begin(&mut self, number: u32) -> Result<(), UploadError> {
        if self.open.is_some() || u64::from(number) != u64::from(self.first) + u64::from(self.done) {
            return Err(UploadError::OutOfOrder { what: "an object's beginning" });
        }
        let name = object_name(self.part, number, self.format);
        let mut open = Open { number, name, bytes: 0, writer: None, held: None, kept: false };
        let kept = if number == self.first { self.record.kept(number) } else { None };
        let may_be_there = self.record.may_be_there(number, number == self.first);
        let is_there = may_be_there && Self::is_there(self.store, &open.name).await?;
        if !is_there {
            match kept {
                Some(checkpoint) => self.resume(&mut open, &checkpoint).await?,
                None => open.writer = Some(self.store.begin(&open.name).await?),
            }
        }
        self.open = Some(open);
        Ok(())
    }

    /// Whether the store has an object of that name. If we may not look, it counts as absent: nothing is ever overwritten, so at
    /// worst the store refuses to complete the object.
    async fn is_there(store: &dyn ObjectStore, name: &str) -> Result<bool, UploadError> {
        match store.size(name).await {
            Ok(size) => Ok(size.is_some()),
            Err(UploadError::Denied { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Resumes an object of which the store has a part.
    async fn resume(&mut self, open: &mut Open, checkpoint: &Checkpoint) -> Result<(), UploadError> {
        let (writer, bytes) = match self.store.resume(&open.name, checkpoint).await {
            Ok(resumed) => resumed,
            Err(error) => {
                if !error.may_pass() {
                    self.record.forget(open.number).await;
                }
                return Err(error);
            }
        };
        open.writer = Some(writer);
        if bytes == 0 {
            tracing::info!(capture = %self.part.capture, object = open.name, "upload starts from the beginning: the store holds nothing of it");
            self.record.forget(open.number).await;
        } else {
            tracing::info!(capture = %self.part.capture, object = open.name, bytes, "upload continues behind what the store holds");
            open.kept = true;
            let confirmed = checkpoint.crc32c_of(bytes);
            open.held = Some(Prefix { bytes_left: bytes, merged: Running::after(0), confirmed });
        }
        Ok(())
    }

    /// Offers the file that the open object will be to a store that has nothing of it.
    async fn link(&mut self, segment: Segment) -> Result<(), UploadError> {
        if let Some(Open { writer: Some(writer), held: None, kept: false, bytes: 0, .. }) = &mut self.open
            && self.record.frees()
            && writer.link(segment.path, segment.bytes).await?
        {
            tracing::debug!(capture = %self.part.capture, "the object is a segment, and the store takes the file");
        }
        Ok(())
    }

    async fn write(&mut self, mut bytes: Bytes) -> Result<(), UploadError> {
        let Some(open) = &mut self.open else { return Err(UploadError::OutOfOrder { what: "a chunk" }) };
        open.bytes += bytes.len() as u64;
        COUNTS.merged(bytes.len() as u64);
        let Some(writer) = &mut open.writer else { return Ok(()) };
        if let Some(held) = &mut open.held {
            let len = usize::try_from(held.bytes_left).unwrap_or(usize::MAX).min(bytes.len());
            held.merged.update(&bytes.split_to(len));
            held.bytes_left -= len as u64;
            if held.bytes_left == 0 {
                if held.confirmed.is_some_and(|confirmed| confirmed != held.merged.sum()) {
                    let place = open.name.clone();
                    return Err(self.discard(UploadError::Diverged { place }).await);
                }
                open.held = None;
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let written = writer.write(bytes).await;
        self.note().await;
        written
    }

    /// Keeps a checkpoint of the open object, also after a failure: the next attempt resumes there.
    async fn note(&mut self) {
        let Some(open) = &mut self.open else { return };
        if self.record.keeps()
            && let Some(checkpoint) = open.writer.as_mut().and_then(|writer| writer.checkpoint())
        {
            open.kept = true;
            self.record.keep(open.number, checkpoint).await;
        }
    }

    /// Discards the store's part of the open object, which then starts from its beginning.
    async fn discard(&mut self, error: UploadError) -> UploadError {
        if let Some(open) = &mut self.open {
            self.record.forget(open.number).await;
            open.kept = false;
        }
        error
    }

    /// Completes the open object, but only if it has the size that the merge counted: a wrong one never becomes visible.
    async fn end(&mut self, summary: Summary, consumed: &Consumed) -> Result<ObjectInfo, UploadError> {
        let unbegun = || UploadError::OutOfOrder { what: "an object's end" };
        let open = self.open.as_mut().ok_or_else(unbegun)?;
        COUNTS.merged_object();
        if open.bytes != summary.bytes || open.held.is_some() {
            let sizes = (open.name.clone(), open.bytes, summary.bytes);
            return Err(self.discard(wrong_size(sizes)).await);
        }
        if let Some(writer) = &mut open.writer {
            let settled = writer.settle().await;
            self.note().await;
            settled?;
        }
        self.record.may_finish(consumed).await?;
        let Open { name, writer, .. } = self.open.take().ok_or_else(unbegun)?;
        match writer {
            None => adopt(self.store, self.part, &name, &summary).await?,
            Some(writer) => {
                let stored = writer.finish().await?;
                if stored.bytes != summary.bytes {
                    return Err(wrong_size((name, stored.bytes, summary.bytes)));
                }
            }
        }
        let info = ObjectInfo {
            name,
            bytes: summary.bytes,
            packets: summary.packets,
            frame_bytes: (!self.format.is_plain()).then_some(summary.frame_bytes),
            first_ns: summary.first_ns,
            last_ns: summary.last_ns,
            sha256: summary.sha256,
            content: summary.content,
        };
        tracing::info!(capture = %self.part.capture, object = info.name, bytes = info.bytes, "object is complete");
        COUNTS.object(info.bytes);
        self.done += 1;
        if let Some(infos) = &mut self.infos {
            infos.push(info.clone());
        }
        Ok(info)
    }
}

/// Compares the store's object with the merge's. A different one is not ours and stays.
async fn adopt(
    store: &dyn ObjectStore,
    part: &PartId,
    name: &str,
    summary: &Summary,
) -> Result<(), UploadError> {
    let exists = || UploadError::Exists { place: name.to_owned() };
    match store.size(name).await? {
        Some(held) if held > summary.bytes => {
            return Err(UploadError::Larger { place: name.to_owned(), held, ours: summary.bytes });
        }
        held if held == Some(summary.bytes) => {}
        _ => return Err(exists()),
    }
    let (mut hash, mut read) = (Sha256::new(), 0);
    while read < summary.bytes {
        let bytes = store.read(name, read, READ_BYTES.min(summary.bytes - read)).await?;
        if bytes.is_empty() {
            return Err(exists());
        }
        hash.update(&bytes);
        read += bytes.len() as u64;
    }
    let sha256 = HEXLOWER.encode(&hash.finalize());
    if sha256 != summary.sha256 {
        return Err(exists());
    }
    tracing::info!(capture = %part.capture, object = name, "object was complete already");
    Ok(())
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
