//! Single requests of a multipart upload. Owns its begin, its parts and its end without an object; not the order of parts.
//!
//! Invariant: an upload that is neither completed nor kept is aborted, also when its future is dropped.

use super::answer::{PAGE_ENTRIES, Pages};
use super::retry::{Failed, Target, call};
use crate::limits::PARTS_MAX;
use crate::upload::UploadError;
use crate::upload::checkpoint::KeptPart;
use crate::upload::checksum::base64;
use crate::upload::retry_budget::RetryBudget;
use crate::upload::store::left_over;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A multipart upload that the store keeps until it is completed or aborted.
#[derive(Debug)]
pub(super) struct Multipart {
    target: Target,
    pub id: String,
    /// Completed, aborted, or to outlive this process.
    pub closed: bool,
}

impl Multipart {
    pub(super) async fn create(target: Target, budget: RetryBudget) -> Result<Self, UploadError> {
        let request = || {
            let create = target.client.create_multipart_upload().bucket(&target.bucket).key(&target.key);
            let extras = &target.extras;
            create
                .checksum_algorithm(ChecksumAlgorithm::Crc32C)
                .set_server_side_encryption(extras.encryption())
                .set_ssekms_key_id(extras.kms_key_id())
                .set_storage_class(extras.storage_class())
                .set_acl(extras.acl())
                .send()
        };
        let answer = call(&target, "s3:PutObject", budget, request).await?;
        let Some(id) = answer.upload_id else {
            return Err(UploadError::Refused {
                place: target.place(),
                detail: "no upload id came".to_owned(),
            });
        };
        Ok(Self { target, id, closed: false })
    }

    /// An upload that was begun before; it outlives this one too.
    pub(super) fn kept(target: Target, id: String) -> Self {
        Self { target, id, closed: true }
    }

    /// Asks for an object of a part that was never sent. The refusal that a store gives for that is the good answer.
    ///
    /// # Errors
    /// When the store would refuse the completion of a whole upload too: the right is missing, or it does not know conditions.
    pub(super) async fn complete_nothing(&self, budget: RetryBudget) -> Result<(), UploadError> {
        let target = &self.target;
        let part =
            CompletedPart::builder().part_number(1).e_tag("\"00000000000000000000000000000000\"").build();
        let parts = CompletedMultipartUpload::builder().parts(part).build();
        let request = || {
            let complete = target.client.complete_multipart_upload().bucket(&target.bucket).key(&target.key);
            complete.upload_id(&self.id).multipart_upload(parts.clone()).if_none_match("*").send()
        };
        match call(target, "s3:PutObject", budget, request).await {
            Err(Failed { error, code }) => match error {
                UploadError::Denied { .. }
                | UploadError::Credentials { .. }
                | UploadError::Unreachable { .. } => Err(error),
                _ if code == "NotImplemented" => Err(error),
                _no_such_part => Ok(()),
            },
            Ok(_) => Ok(()),
        }
    }

    pub(super) async fn abort(mut self) -> Result<(), UploadError> {
        self.closed = true;
        abort(&self.target, &self.id).await
    }

    /// ETags of the parts that the store holds, by number.
    pub(super) async fn parts(&self) -> Result<BTreeMap<i32, String>, Failed> {
        let target = &self.target;
        let (mut parts, mut marker) = (BTreeMap::new(), None::<String>);
        let mut pages = Pages::default();
        loop {
            let counted = pages.next(target).await;
            counted.map_err(|error| Failed { error, code: String::new() })?;
            let request = || {
                let list = target.client.list_parts().bucket(&target.bucket).key(&target.key);
                list.upload_id(&self.id).max_parts(PAGE_ENTRIES).set_part_number_marker(marker.clone()).send()
            };
            let answer = call(target, "s3:ListMultipartUploadParts", target.grant.budget(0), request).await?;
            let listed = answer.parts().iter();
            let listed = listed.filter_map(|part| Some((part.part_number()?, part.e_tag()?.to_owned())));
            let is_legal = |number: i32| u64::try_from(number).is_ok_and(|n| (1..=PARTS_MAX).contains(&n));
            parts.extend(listed.filter(|(number, _)| is_legal(*number)));
            let next = answer.next_part_number_marker().map(str::to_owned);
            // Numbers that do not grow are a store that makes them up: what it named before is sent again.
            let number =
                |marker: &Option<String>| marker.as_deref().and_then(|text| text.parse::<u64>().ok());
            if !answer.is_truncated().unwrap_or(false) || number(&next) <= number(&marker) {
                return Ok(parts);
            }
            marker = next;
        }
    }
}

/// Removes an upload; one that is gone already is removed.
pub(super) async fn abort(target: &Target, id: &str) -> Result<(), UploadError> {
    let request = || {
        target.client.abort_multipart_upload().bucket(&target.bucket).key(&target.key).upload_id(id).send()
    };
    match call(target, "s3:AbortMultipartUpload", target.grant.budget_short(), request).await {
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
                left_over(&target.place(), &error);
            }
        });
    }
}

/// Sends one part, with its checksum, until the store confirms it.
pub(super) async fn send_part(
    target: Target,
    id: String,
    number: i32,
    (body, crc): (Bytes, u32),
) -> Result<(i32, KeptPart), UploadError> {
    let sum = base64(crc);
    let request = || async {
        let part = target.client.upload_part().bucket(&target.bucket).key(&target.key).upload_id(&id);
        let part = part.part_number(number).checksum_crc32_c(&sum).body(body.clone().into());
        // Under TLS nobody changes it on the way, and the store holds it against the checksum: no hash of it for the signature.
        if target.is_private {
            return part.customize().disable_payload_signing().send().await;
        }
        part.send().await
    };
    let answer = call(&target, "s3:PutObject", target.grant.budget(body.len()), request).await?;
    let held = answer.checksum_crc32_c();
    if let Some(held) = held
        && held != sum
    {
        let (place, held) = (format!("part {number} of {}", target.place()), held.to_owned());
        return Err(UploadError::Mismatch { place, what: "checksum", held, sent: sum });
    }
    let confirmed = held.is_some();
    let etag = answer.e_tag.unwrap_or_default();
    Ok((number, KeptPart { bytes: body.len() as u64, etag, crc32c: crc, confirmed }))
}
