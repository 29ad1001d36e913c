//! One object on its way into a bucket. Owns parts, their checksums and the check at the end; not single requests' retries.
//!
//! Small objects go by one `PutObject`, larger ones by a multipart upload that begins when the first part is full. At most
//! `parts_in_flight` parts and the one that fills are in memory.
//!
//! Invariant: an upload that is not completed is aborted, also when its future is dropped.

use super::retry::{Failed, Patience, Target, call};
use super::{Held, head};
use crate::limits::PARTS_MAX;
use crate::upload::UploadError;
use crate::upload::store::{ObjectWriter, Pending, Stored};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use tokio::task::{JoinError, JoinSet};

/// Parts of one size before the size doubles. With [`PARTS_MAX`] parts there are ten sizes, and even parts of 5 MiB then
/// add up to 5 TiB less a few, while objects up to 1000 parts never take more memory than configured.
const PARTS_PER_SIZE: u64 = 1000;

/// Bytes of part `index`, from 0.
fn part_bytes(base: u64, index: u64) -> u64 {
    base << (index / PARTS_PER_SIZE)
}

/// CRC-32C as S3 writes it.
fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Base64 of a big-endian CRC-32: 32 bits and 4 of padding are six digits.
fn base64(crc: u32) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u64::from(crc) << 4;
    let mut text: String =
        (0..6).rev().map(|digit| DIGITS[(bits >> (digit * 6) & 63) as usize] as char).collect();
    text.push_str("==");
    text
}

/// A multipart upload that the store keeps until it is completed or aborted.
#[derive(Debug)]
pub(super) struct Multipart {
    target: Target,
    id: String,
    closed: bool,
}

impl Multipart {
    pub(super) async fn create(target: Target, patience: Patience) -> Result<Self, UploadError> {
        let request = || {
            let create = target.client.create_multipart_upload().bucket(&target.bucket).key(&target.key);
            create.checksum_algorithm(ChecksumAlgorithm::Crc32C).send()
        };
        let answer = call(&target, "s3:PutObject", patience, request).await?;
        let Some(id) = answer.upload_id else {
            return Err(UploadError::Refused {
                place: target.place(),
                detail: "no upload id came".to_owned(),
            });
        };
        Ok(Self { target, id, closed: false })
    }

    pub(super) async fn abort(mut self) -> Result<(), UploadError> {
        self.closed = true;
        abort(&self.target, &self.id).await
    }
}

async fn abort(target: &Target, id: &str) -> Result<(), UploadError> {
    let request = || {
        target.client.abort_multipart_upload().bucket(&target.bucket).key(&target.key).upload_id(id).send()
    };
    match call(target, "s3:AbortMultipartUpload", target.patience_short(), request).await {
        Ok(_) => Ok(()),
        Err(failed) if failed.code == "NoSuchUpload" => Ok(()),
        Err(failed) => Err(failed.error),
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.closed {
            return;
        }
        let (target, id) = (self.target.clone(), std::mem::take(&mut self.id));
        runtime.spawn(async move {
            if let Err(error) = abort(&target, &id).await {
                tracing::warn!(place = target.place(), %error, "a multipart upload could not be aborted");
            }
        });
    }
}

/// A part that the store has.
struct Part {
    completed: CompletedPart,
    number: i32,
    crc: u32,
}

pub(super) struct S3Writer {
    target: Target,
    part_bytes: u64,
    parts_in_flight: usize,
    /// The part that fills.
    open: BytesMut,
    /// All bytes up to now.
    bytes: u64,
    whole: Digest,
    upload: Option<Multipart>,
    /// Parts begun.
    begun: u64,
    flights: JoinSet<Result<Part, UploadError>>,
    parts: Vec<Part>,
}

impl S3Writer {
    pub(super) fn new(target: Target, part_bytes: u64, parts_in_flight: usize) -> Self {
        Self {
            target,
            part_bytes,
            parts_in_flight,
            open: BytesMut::new(),
            bytes: 0,
            whole: Digest::new(CrcAlgorithm::Crc32Iscsi),
            upload: None,
            begun: 0,
            flights: JoinSet::new(),
            parts: Vec::new(),
        }
    }

    /// Takes bytes; a part leaves only when a byte behind it has come, so that an object of one part is a small one.
    async fn append(&mut self, mut bytes: Bytes) -> Result<(), UploadError> {
        self.whole.update(&bytes);
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let size = usize::try_from(part_bytes(self.part_bytes, self.begun)).unwrap_or(usize::MAX);
            if self.open.len() == size {
                self.depart().await?;
                continue;
            }
            let piece = bytes.split_to(bytes.len().min(size - self.open.len()));
            self.open.extend_from_slice(&piece);
        }
        Ok(())
    }

    /// Sends the open part on its way, once there is room in the air.
    async fn depart(&mut self) -> Result<(), UploadError> {
        while let Some(landed) = self.flights.try_join_next() {
            self.land(landed)?;
        }
        while self.flights.len() >= self.parts_in_flight {
            let Some(landed) = self.flights.join_next().await else { break };
            self.land(landed)?;
        }
        if self.begun == PARTS_MAX {
            return Err(UploadError::TooLarge { place: self.target.place(), bytes_max: self.bytes });
        }
        let upload = match self.upload.take() {
            Some(upload) => upload,
            None => Multipart::create(self.target.clone(), self.target.patience(0)).await?,
        };
        self.begun += 1;
        let (target, id, number) = (self.target.clone(), upload.id.clone(), self.begun as i32);
        self.upload = Some(upload);
        self.flights.spawn(send_part(target, id, number, self.open.split().freeze()));
        Ok(())
    }

    fn land(&mut self, landed: Result<Result<Part, UploadError>, JoinError>) -> Result<(), UploadError> {
        match landed {
            Ok(part) => self.parts.push(part?),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => {
                    let detail = "the runtime is shutting down".to_owned();
                    return Err(UploadError::Refused { place: self.target.place(), detail });
                }
            },
        }
        Ok(())
    }

    /// The object by one request.
    async fn put(&mut self) -> Result<Stored, UploadError> {
        let (target, body) = (self.target.clone(), self.open.split().freeze());
        let sums = Checksums { whole: base64(self.whole.finalize() as u32), of_parts: None };
        let request = || {
            let put = target.client.put_object().bucket(&target.bucket).key(&target.key).if_none_match("*");
            put.checksum_crc32_c(&sums.whole).body(body.clone().into()).send()
        };
        let answer = call(&target, "s3:PutObject", target.patience(body.len()), request).await;
        let confirmed = answer.map(|answer| answer.checksum_crc32_c.is_some_and(|sum| sums.are(&sum)));
        self.confirm(confirmed, &sums).await
    }

    /// The object from its parts.
    async fn complete(&mut self, upload: &mut Multipart) -> Result<Stored, UploadError> {
        self.parts.sort_by_key(|part| part.number);
        let crcs: Vec<u8> = self.parts.iter().flat_map(|part| part.crc.to_be_bytes()).collect();
        let sums = Checksums {
            whole: base64(self.whole.finalize() as u32),
            of_parts: Some(format!("{}-{}", base64(crc32c(&crcs)), self.parts.len())),
        };
        let parts = self.parts.iter().map(|part| part.completed.clone()).collect();
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
        let patience = target.patience(usize::try_from(self.part_bytes).unwrap_or(usize::MAX));
        let answer = call(&target, "s3:PutObject", patience, request).await;
        upload.closed = answer.is_ok();
        let confirmed = answer.map(|answer| answer.checksum_crc32_c.is_some_and(|sum| sums.are(&sum)));
        let stored = self.confirm(confirmed, &sums).await?;
        upload.closed = true;
        Ok(stored)
    }

    /// Holds what the store has against what was sent. `confirmed`: whether its answer named our checksum.
    ///
    /// A refusal after a lost answer may be about our own object; whether it is one, its size and checksum tell.
    async fn confirm(
        &self,
        confirmed: Result<bool, Failed>,
        sums: &Checksums,
    ) -> Result<Stored, UploadError> {
        let (confirmed, refusal) = match confirmed {
            Ok(confirmed) => (confirmed, None),
            Err(failed)
                if failed.repeated
                    && (matches!(failed.error, UploadError::Exists { .. })
                        || failed.code == "NoSuchUpload") =>
            {
                (false, Some(failed.error))
            }
            Err(failed) => return Err(failed.error),
        };
        match (head(&self.target, self.target.patience(0)).await, refusal) {
            (Ok(held), None) => self.compare(&held, sums),
            (Ok(held), Some(refusal)) if held.checksum.is_some() => {
                self.compare(&held, sums).map_err(|_not_ours| refusal)
            }
            // A bucket policy may let us write and not read; then the checksum that the store answered with must do.
            (Err(Failed { error: UploadError::Denied { .. }, .. }), None) if confirmed => {
                Ok(Stored { bytes: self.bytes })
            }
            (_, Some(refusal)) => Err(refusal),
            (Err(failed), None) => Err(failed.error),
        }
    }

    fn compare(&self, held: &Held, sums: &Checksums) -> Result<Stored, UploadError> {
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

    async fn end(&mut self) -> Result<Stored, UploadError> {
        if self.upload.is_none() {
            return self.put().await;
        }
        self.depart().await?;
        while let Some(landed) = self.flights.join_next().await {
            self.land(landed)?;
        }
        let Some(mut upload) = self.upload.take() else { return self.put().await };
        let result = self.complete(&mut upload).await;
        self.upload = Some(upload);
        result
    }

    /// Waits for the requests in the air first, so that none arrives after the abort.
    async fn give_up(&mut self) -> Result<(), UploadError> {
        self.flights.shutdown().await;
        match self.upload.take() {
            Some(upload) if !upload.closed => upload.abort().await,
            _ => Ok(()),
        }
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

async fn send_part(target: Target, id: String, number: i32, body: Bytes) -> Result<Part, UploadError> {
    let crc = crc32c(&body);
    let sum = base64(crc);
    let request = || {
        let part = target.client.upload_part().bucket(&target.bucket).key(&target.key).upload_id(&id);
        part.part_number(number).checksum_crc32_c(&sum).body(body.clone().into()).send()
    };
    let answer = call(&target, "s3:PutObject", target.patience(body.len()), request).await?;
    if let Some(held) = answer.checksum_crc32_c()
        && held != sum
    {
        let (place, held) = (format!("part {number} of {}", target.place()), held.to_owned());
        return Err(UploadError::Mismatch { place, what: "checksum", held, sent: sum });
    }
    let completed = CompletedPart::builder()
        .part_number(number)
        .set_e_tag(answer.e_tag)
        .set_checksum_crc32_c(answer.checksum_crc32_c)
        .build();
    Ok(Part { completed, number, crc })
}

impl ObjectWriter for S3Writer {
    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        Box::pin(self.append(bytes))
    }

    fn finish(mut self: Box<Self>) -> Pending<'static, Stored> {
        Box::pin(async move {
            let result = self.end().await;
            if result.is_err()
                && let Err(error) = self.give_up().await
            {
                tracing::warn!(place = self.target.place(), %error, "a multipart upload could not be aborted");
            }
            result
        })
    }

    fn abort(mut self: Box<Self>) -> Pending<'static, ()> {
        Box::pin(async move { self.give_up().await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PART_BYTES_MIN;

    #[test]
    fn the_largest_object_of_s3_fits_into_the_parts() {
        let sum = |base| (0..PARTS_MAX).map(|index| part_bytes(base, index)).sum::<u64>();
        assert!(sum(PART_BYTES_MIN) > 4 << 40);
        assert!(sum(8 << 20) > 5 << 40, "5 TiB with the default");
        assert!(part_bytes(8 << 20, PARTS_MAX - 1) <= 5 << 30, "S3's largest part");
    }

    #[test]
    fn checksums_are_written_as_s3_writes_them() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "check value of CRC-32C (RFC 3720, appendix B.4)");
        assert_eq!(base64(0xe306_9283), "4waSgw==");
        assert_eq!(base64(0), "AAAAAA==");
    }
}
