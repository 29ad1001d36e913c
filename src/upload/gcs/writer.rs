//! One object on its way into a bucket. Owns chunks, checksums and the check at the end; not the protocol of sessions.
//!
//! A session takes its chunks one after the other: one is in flight while the next fills, and no more is in memory.
//!
//! Invariant: what was sent is confirmed by the store in whole, or the caller hears that it is not.

use super::describe_object;
use super::request::{Failed, Target};
use super::session::{Session, SessionState, StoredObject};
use crate::upload::UploadError;
use crate::upload::checkpoint::{Checkpoint, Kept};
use crate::upload::checksum::{base64, crc32c, joined};
use crate::upload::parts::{InFlight, fill};
use crate::upload::store::{self, Ending, ObjectWriter, Pending, Stored};
use bytes::{Bytes, BytesMut};

/// Where the bytes go.
enum Progress {
    /// Nowhere yet.
    None,
    Session(Box<Session>),
    /// The store has an object of this name. At the end size and checksum tell whether it is ours.
    There(StoredObject),
}

/// The first bytes of the object: their number and checksum.
#[derive(Clone, Copy, Default)]
struct Prefix {
    bytes: u64,
    crc32c: u32,
}

impl Prefix {
    fn and(self, bytes: &[u8]) -> Self {
        let len = bytes.len() as u64;
        Self { bytes: self.bytes + len, crc32c: joined(self.crc32c, crc32c(bytes), len) }
    }
}

pub(super) struct GcsWriter {
    target: Target,
    chunk_bytes: usize,
    /// The chunk that fills.
    open: BytesMut,
    progress: Progress,
    /// Bytes that were sent or are in flight.
    gone: Prefix,
    /// Bytes that the store confirmed.
    confirmed: Prefix,
    /// Bytes still to be written that the store has already.
    skip: u64,
    flight: InFlight<Prefix>,
    /// Bytes that the last checkpoint named; none if there was none.
    told: Option<u64>,
}

impl GcsWriter {
    pub(super) fn new(target: Target, chunk_bytes: usize) -> Self {
        Self {
            flight: InFlight::new(target.place()),
            target,
            chunk_bytes,
            open: BytesMut::new(),
            progress: Progress::None,
            gone: Prefix::default(),
            confirmed: Prefix::default(),
            skip: 0,
            told: None,
        }
    }

    /// Resumes after `bytes` bytes with the checksum `crc32c`; the session has at least these.
    pub(super) fn resumed(self, session: Session, stand: SessionState, bytes: u64, crc32c: u32) -> Self {
        let at = Prefix { bytes, crc32c };
        let (progress, skip) = match stand {
            SessionState::Open(held) => (Progress::Session(Box::new(session)), held.saturating_sub(bytes)),
            SessionState::Done(held) => (Progress::There(held), 0),
        };
        Self { progress, skip, gone: at, confirmed: at, told: Some(bytes), ..self }
    }

    async fn append(&mut self, mut bytes: Bytes) -> Result<(), UploadError> {
        if self.skip > 0 {
            let held = bytes.split_to(usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len()));
            self.skip -= held.len() as u64;
            self.gone = self.gone.and(&held);
        }
        while !bytes.is_empty() {
            if let Progress::There(held) = &self.progress {
                self.gone = self.gone.and(&bytes);
                let longer = self.gone.bytes > held.size;
                return if longer { Err(self.exists()) } else { Ok(()) };
            }
            if fill(&mut self.open, &mut bytes, self.chunk_bytes) {
                self.depart().await?;
            }
        }
        Ok(())
    }

    fn exists(&self) -> UploadError {
        UploadError::Exists { place: self.target.place() }
    }

    /// Waits for the chunk in flight. The last one is not sent before the end: it carries the object's size and checksum.
    async fn settled(&mut self) -> Result<(), UploadError> {
        while let Some(confirmed) = self.flight.next().await {
            self.confirmed = confirmed?;
        }
        Ok(())
    }

    /// A session for the open chunk, once the one before it has arrived.
    async fn clear(&mut self) -> Result<(), UploadError> {
        self.settled().await?;
        if matches!(self.progress, Progress::None) {
            let begun = Session::begin(self.target.clone(), self.target.grant.budget(0)).await;
            self.progress = match begun {
                Ok(session) => Progress::Session(Box::new(session)),
                Err(Failed { error: UploadError::Exists { .. }, .. }) => {
                    Progress::There(describe_object(&self.target).await?)
                }
                Err(failed) => return Err(failed.error),
            };
        }
        Ok(())
    }

    /// Sends the open chunk.
    async fn depart(&mut self) -> Result<(), UploadError> {
        self.clear().await?;
        let (from, body) = (self.gone.bytes, self.open.split().freeze());
        let gone = self.gone.and(&body);
        self.gone = gone;
        if let Progress::Session(session) = &self.progress {
            let session = session.hand();
            self.flight.send(async move {
                match session.send(from, body, None).await? {
                    SessionState::Open(_) => Ok(gone),
                    // Another process with the session's address ended it.
                    SessionState::Done(_) => Err(session.lost()),
                }
            });
        }
        Ok(())
    }

    /// Compares the store's object with what was sent.
    fn compare(&self, held: &StoredObject) -> Result<Stored, UploadError> {
        if held.size != self.gone.bytes {
            return Err(self.mismatch("size", held.size.to_string(), self.gone.bytes.to_string()));
        }
        let sent = base64(self.gone.crc32c);
        match &held.crc32c {
            Some(sum) if *sum == sent => Ok(Stored { bytes: held.size }),
            sum => Err(self.mismatch("checksum", sum.clone().unwrap_or_else(|| "none".to_owned()), sent)),
        }
    }

    fn mismatch(&self, what: &'static str, held: String, sent: String) -> UploadError {
        UploadError::Mismatch { place: self.target.place(), what, held, sent }
    }
}

impl Ending for GcsWriter {
    async fn end(&mut self) -> Result<Stored, UploadError> {
        self.clear().await?;
        let (from, body) = (self.gone.bytes, self.open.split().freeze());
        self.gone = self.gone.and(&body);
        if self.skip > 0 {
            // The session has more bytes than the object: it can never become it.
            return Err(UploadError::Lost { place: self.target.place() });
        }
        let (held, refusal) = match &mut self.progress {
            Progress::Session(session) => match session.send(from, body, Some(self.gone.crc32c)).await {
                Ok(SessionState::Done(held)) => {
                    session.closed = true;
                    (held, None)
                }
                Ok(SessionState::Open(_)) => return Err(session.lost()),
                Err(UploadError::Exists { .. }) => {
                    (describe_object(&self.target).await?, Some(self.exists()))
                }
                Err(UploadError::Refused { detail, .. }) if detail.contains("CRC32C") => {
                    return Err(self.mismatch("checksum", detail, base64(self.gone.crc32c)));
                }
                Err(error) => return Err(error),
            },
            Progress::There(held) => (held.clone(), Some(self.exists())),
            Progress::None => return Err(UploadError::Lost { place: self.target.place() }),
        };
        self.compare(&held).map_err(|other| refusal.unwrap_or(other))
    }

    async fn give_up(&mut self) -> Result<(), UploadError> {
        self.flight.stop().await;
        match std::mem::replace(&mut self.progress, Progress::None) {
            Progress::Session(session) => session.cancel().await,
            _ => Ok(()),
        }
    }

    fn is_kept(&self) -> bool {
        self.told.is_some()
    }

    fn place(&self) -> String {
        self.target.place()
    }
}

impl ObjectWriter for GcsWriter {
    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        Box::pin(self.append(bytes))
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        let Progress::Session(session) = &mut self.progress else { return None };
        let Prefix { bytes, crc32c } = self.confirmed;
        if bytes == 0 || self.told == Some(bytes) {
            return None;
        }
        (self.told, session.closed) = (Some(bytes), true);
        Some(Checkpoint::new(bytes, Kept::Gcs { session: session.address(), crc32c }))
    }

    fn settle(&mut self) -> Pending<'_, ()> {
        Box::pin(self.settled())
    }

    fn finish(self: Box<Self>) -> Pending<'static, Stored> {
        store::finish(self)
    }

    fn abort(self: Box<Self>) -> Pending<'static, ()> {
        store::abort(self)
    }
}
