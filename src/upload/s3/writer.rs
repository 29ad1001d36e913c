//! One object on its way into a bucket. Owns parts, their checksums and the check at the end; not single requests' retries.
//!
//! Small objects go by one `PutObject`, larger ones by a multipart upload that begins when the first part is full. At most
//! `parts_in_flight` parts and the one that fills are in memory: one on its way by right, more if the parts that all objects
//! share allow it, so that an object never waits for another one's.
//!
//! Invariant: what was sent is confirmed by the store in whole, or the caller hears that it is not.

use super::multipart::{Multipart, abort, send_part};
use super::retry::{Failed, Target, call};
use super::{StoredObject, head};
use crate::limits::PARTS_MAX;
use crate::upload::UploadError;
use crate::upload::checkpoint::{Checkpoint, Kept, KeptPart};
use crate::upload::checksum::{Running, base64, crc32c, joined};
use crate::upload::parts::{InFlight, fill};
use crate::upload::store::{self, Ending, ObjectWriter, Pending, Stored, left_over};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Parts of one size before the size doubles. With [`PARTS_MAX`] parts there are ten sizes, and even parts of 5 MiB then
/// add up to 5 TiB less a few, while objects up to 1000 parts never take more memory than configured.
const PARTS_PER_SIZE: u64 = 1000;

/// How an object is cut into parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartSizes {
    /// Bytes of the first parts.
    pub part_bytes: u64,
    /// Whether all parts but the last have one size, as R2 wants it.
    pub equal: bool,
}

impl PartSizes {
    /// Bytes of part `index`, from 0.
    fn bytes_of(self, index: u64) -> u64 {
        if self.equal { self.part_bytes } else { self.part_bytes << (index / PARTS_PER_SIZE) }
    }
}

pub(super) struct S3Writer {
    target: Target,
    cut: PartSizes,
    parts_in_flight: usize,
    /// Parts on their way beyond one of each object, for all objects.
    shared: Arc<Semaphore>,
    /// What of those is on its way for this object.
    permits: Vec<OwnedSemaphorePermit>,
    /// The part that fills.
    open: BytesMut,
    /// Its checksum.
    open_sum: Running,
    /// All bytes so far.
    bytes: u64,
    /// The checksum of what stands before the open part.
    sum: u32,
    upload: Option<Multipart>,
    /// Parts begun.
    begun: u64,
    flights: InFlight<(i32, KeptPart)>,
    /// Parts that the store has, by number from 1.
    parts: BTreeMap<i32, KeptPart>,
    /// Parts in the last checkpoint; none if there was none.
    told: Option<usize>,
}

impl S3Writer {
    pub(super) fn new(
        target: Target,
        cut: PartSizes,
        parts_in_flight: usize,
        shared: Arc<Semaphore>,
    ) -> Self {
        Self {
            flights: InFlight::new(target.place()),
            target,
            cut,
            parts_in_flight,
            shared,
            permits: Vec::new(),
            open: BytesMut::new(),
            open_sum: Running::after(0),
            bytes: 0,
            sum: 0,
            upload: None,
            begun: 0,
            parts: BTreeMap::new(),
            told: None,
        }
    }

    /// Resumes after `parts`, which the store has.
    pub(super) fn resumed(self, upload: Multipart, parts: Vec<KeptPart>) -> Self {
        let bytes = parts.iter().map(|part| part.bytes).sum();
        let sum = parts.iter().fold(0, |sum, part| joined(sum, part.crc32c, part.bytes));
        Self {
            bytes,
            sum,
            upload: Some(upload),
            begun: parts.len() as u64,
            told: Some(parts.len()),
            parts: (1..).zip(parts).collect(),
            ..self
        }
    }

    /// Bytes of the open part, once it is full.
    fn part_bytes(&self) -> usize {
        usize::try_from(self.cut.bytes_of(self.begun)).unwrap_or(usize::MAX)
    }

    /// Takes bytes. A part is sent only when a byte after it has come, so an object of one part goes by one request.
    async fn append(&mut self, mut bytes: Bytes) -> Result<(), UploadError> {
        self.bytes += bytes.len() as u64;
        loop {
            let (part_bytes, before) = (self.part_bytes(), self.open.len());
            let is_full = fill(&mut self.open, &mut bytes, part_bytes);
            self.open_sum.update(&self.open[before..]);
            if !is_full {
                return Ok(());
            }
            self.depart().await?;
        }
    }

    /// Sends the open part, once fewer than `parts_in_flight` are in flight.
    async fn depart(&mut self) -> Result<(), UploadError> {
        while let Some(part) = self.flights.ended() {
            self.confirmed(part?);
        }
        while self.flights.len() >= self.parts_in_flight || !self.may_fly() {
            let Some(part) = self.flights.next().await else { break };
            self.confirmed(part?);
        }
        if self.begun == PARTS_MAX {
            return Err(UploadError::TooLarge { place: self.target.place(), bytes_max: self.bytes });
        }
        let upload = match self.upload.take() {
            Some(upload) => upload,
            None => Multipart::create(self.target.clone(), self.target.grant.budget(0)).await?,
        };
        self.begun += 1;
        let (target, id, number) = (self.target.clone(), upload.id.clone(), self.begun as i32);
        self.upload = Some(upload);
        let part = self.take_open();
        self.flights.send(send_part(target, id, number, part));
        Ok(())
    }

    /// The open part and its checksum. From the checksums of the parts comes that of the whole, so no byte is summed twice.
    fn take_open(&mut self) -> (Bytes, u32) {
        let body = self.open.split().freeze();
        let crc = std::mem::replace(&mut self.open_sum, Running::after(0)).sum();
        self.sum = joined(self.sum, crc, body.len() as u64);
        (body, crc)
    }

    /// Whether one more part may be on its way.
    fn may_fly(&mut self) -> bool {
        // One flies by right; what has landed gives its permit back.
        self.permits.truncate(self.flights.len().saturating_sub(1));
        if self.flights.len() == 0 {
            return true;
        }
        let permit = Arc::clone(&self.shared).try_acquire_owned();
        permit.map(|permit| self.permits.push(permit)).is_ok()
    }

    fn confirmed(&mut self, (number, part): (i32, KeptPart)) {
        self.parts.insert(number, part);
    }

    /// The object by one request.
    async fn put(&mut self) -> Result<Stored, UploadError> {
        let (target, (body, _)) = (self.target.clone(), self.take_open());
        let sums = Checksums { whole: base64(self.sum), of_parts: None };
        let extras = target.extras.clone();
        let request = || async {
            let put = target.client.put_object().bucket(&target.bucket).key(&target.key).if_none_match("*");
            let put = put
                .checksum_crc32_c(&sums.whole)
                .set_server_side_encryption(extras.encryption())
                .set_ssekms_key_id(extras.kms_key_id())
                .set_storage_class(extras.storage_class())
                .set_acl(extras.acl())
                .body(body.clone().into());
            if target.is_private {
                return put.customize().disable_payload_signing().send().await;
            }
            put.send().await
        };
        let answer = call(&target, "s3:PutObject", target.grant.budget(body.len()), request).await;
        let confirmed = answer.map(|answer| answer.checksum_crc32_c.is_some_and(|sum| sums.are(&sum)));
        self.confirm(confirmed, &sums).await
    }

    /// The object from its parts.
    async fn complete(&mut self, upload: &mut Multipart) -> Result<Stored, UploadError> {
        let crcs: Vec<u8> = self.parts.values().flat_map(|part| part.crc32c.to_be_bytes()).collect();
        let sums = Checksums {
            whole: base64(self.sum),
            of_parts: Some(format!("{}-{}", base64(crc32c(&crcs)), self.parts.len())),
        };
        let parts = self.parts.iter().map(|(number, part)| {
            CompletedPart::builder()
                .part_number(*number)
                .e_tag(&part.etag)
                .set_checksum_crc32_c(part.confirmed.then(|| base64(part.crc32c)))
                .build()
        });
        let parts = parts.collect();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let target = self.target.clone();
        let request = || {
            let complete = target.client.complete_multipart_upload().bucket(&target.bucket).key(&target.key);
            complete
                .upload_id(&upload.id)
                .multipart_upload(parts.clone())
                .mpu_object_size(self.bytes as i64)
                .if_none_match("*")
                .send()
        };
        // Stores put the object together before they answer: as much time as for a part.
        let budget = target.grant.budget(usize::try_from(self.cut.part_bytes).unwrap_or(usize::MAX));
        let answer = call(&target, "s3:PutObject", budget, request).await;
        upload.closed |= answer.is_ok();
        let completed = answer.is_ok();
        let confirmed = answer.map(|answer| answer.checksum_crc32_c.is_some_and(|sum| sums.are(&sum)));
        let stored = self.confirm(confirmed, &sums).await?;
        upload.closed = true;
        // An earlier attempt of ours made the object; if by another upload, this one is still there.
        if !completed && let Err(error) = abort(&target, &upload.id).await {
            left_over(&target.place(), &error);
        }
        Ok(stored)
    }

    /// Compares the store's object with what was sent. `confirmed`: whether its answer named our checksum.
    ///
    /// A refusal may be about our own object, if an answer was lost now or before a crash: size and checksum tell whether it is
    /// ours.
    async fn confirm(
        &self,
        confirmed: Result<bool, Failed>,
        sums: &Checksums,
    ) -> Result<Stored, UploadError> {
        let (confirmed, refusal) = match confirmed {
            Ok(confirmed) => (confirmed, None),
            Err(Failed {
                error: error @ (UploadError::Exists { .. } | UploadError::Lost { .. }), ..
            }) => (false, Some(error)),
            Err(failed) => return Err(failed.error),
        };
        match (head(&self.target, self.target.grant.budget_look()).await, refusal) {
            (Ok(held), None) => self.compare(&held, sums),
            (Ok(held), Some(refusal)) if held.checksum.is_some() => {
                self.compare(&held, sums).map_err(|_not_ours| refusal)
            }
            // A bucket policy may let us write and not read; then the checksum that the store answered with must do.
            (Err(Failed { error: UploadError::Denied { .. }, .. }), None) if confirmed => {
                Ok(Stored { bytes: self.bytes })
            }
            // We may not look whether it is ours: report the missing right, and remove nothing.
            (
                Err(Failed { error: denied @ UploadError::Denied { .. }, .. }),
                Some(UploadError::Exists { .. }),
            ) => Err(denied),
            (_, Some(refusal)) => Err(refusal),
            (Err(failed), None) => Err(failed.error),
        }
    }

    fn compare(&self, held: &StoredObject, sums: &Checksums) -> Result<Stored, UploadError> {
        let mismatch = |what, held: String, sent: String| {
            Err(UploadError::Mismatch { place: self.target.place(), what, held, sent })
        };
        if held.bytes != self.bytes {
            return mismatch("size", held.bytes.to_string(), self.bytes.to_string());
        }
        match &held.checksum {
            Some(sum) if !sums.are(sum) => mismatch("checksum", sum.clone(), sums.whole.clone()),
            _ => Ok(Stored { bytes: held.bytes }),
        }
    }

    /// Waits for every part in flight, also behind one that failed: what the store has need not be sent again.
    async fn gather(&mut self) -> Result<(), UploadError> {
        let mut result = Ok(());
        while let Some(part) = self.flights.next().await {
            result = result.and(part.map(|part| self.confirmed(part)));
        }
        result
    }

    /// Sends the last part, unless the object is a small one, and waits for all.
    async fn settled(&mut self) -> Result<(), UploadError> {
        let mut result = Ok(());
        if self.upload.is_some() && !self.open.is_empty() {
            result = self.depart().await;
        }
        result.and(self.gather().await)
    }
}

/// What the object's checksum must be, whichever way the store counts.
struct Checksums {
    whole: String,
    /// The checksum of the parts' checksums, `-`, their number.
    of_parts: Option<String>,
}

impl Checksums {
    fn are(&self, held: &str) -> bool {
        held == self.whole || self.of_parts.as_deref() == Some(held)
    }
}

impl Ending for S3Writer {
    async fn end(&mut self) -> Result<Stored, UploadError> {
        self.settled().await?;
        let Some(mut upload) = self.upload.take() else { return self.put().await };
        let result = self.complete(&mut upload).await;
        self.upload = Some(upload);
        result
    }

    async fn give_up(&mut self) -> Result<(), UploadError> {
        self.flights.stop().await;
        match self.upload.take() {
            Some(upload) => upload.abort().await,
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

impl ObjectWriter for S3Writer {
    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        Box::pin(async move {
            let result = self.append(bytes).await;
            // The first failure is the one to tell.
            if result.is_err() {
                let _later = self.gather().await;
            }
            result
        })
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        let upload = self.upload.as_mut()?;
        let whole = self.parts.iter().zip(1..).take_while(|((number, _), wanted)| *number == wanted);
        let parts: Vec<KeptPart> = whole.map(|((_, part), _)| part.clone()).collect();
        if self.told == Some(parts.len()) {
            return None;
        }
        (self.told, upload.closed) = (Some(parts.len()), true);
        let bytes = parts.iter().map(|part| part.bytes).sum();
        let (upload_id, part_bytes) = (upload.id.clone(), self.cut.part_bytes);
        Some(Checkpoint::new(bytes, Kept::S3 { upload_id, part_bytes, parts }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PART_BYTES_MIN;

    #[test]
    fn the_largest_object_of_s3_fits_into_the_parts() {
        let bytes_of = |part_bytes, index| PartSizes { part_bytes, equal: false }.bytes_of(index);
        let sum = |base| (0..PARTS_MAX).map(|index| bytes_of(base, index)).sum::<u64>();
        assert!(sum(PART_BYTES_MIN) > 4 << 40);
        assert!(sum(8 << 20) > 5 << 40, "5 TiB with the default");
        assert!(bytes_of(8 << 20, PARTS_MAX - 1) <= 5 << 30, "S3's largest part");
    }

    #[test]
    fn parts_of_equal_size_stay_equal() {
        let cut = PartSizes { part_bytes: 8 << 20, equal: true };
        assert!((0..PARTS_MAX).all(|index| cut.bytes_of(index) == 8 << 20));
    }
}
