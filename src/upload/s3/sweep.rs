//! Multipart uploads that nobody will go on with. Owns which of those in a bucket are removed.
//!
//! Invariant: an upload goes only if its key is one of ours in exactly this directory, its capture is this host's, it is
//! older than asked for, and no checkpoint names it.

use super::multipart::abort;
use super::retry::{Target, call};
use crate::upload::UploadError;
use crate::upload::checkpoint::{Kept, capture_of};
use crate::upload::store::Sweep;
use aws_sdk_s3::types::MultipartUpload;

/// `place` is the target of the directory itself: its key is the prefix.
pub(super) async fn sweep(place: &Target, sweep: Sweep<'_>) -> Result<u32, UploadError> {
    let prefix = format!("{}pcap_", place.key);
    let (mut swept, mut marker) = (0, (None::<String>, None::<String>));
    loop {
        let request = || {
            let list = place.client.list_multipart_uploads().bucket(&place.bucket).prefix(&prefix);
            list.set_key_marker(marker.0.clone()).set_upload_id_marker(marker.1.clone()).send()
        };
        let answer =
            call(place, "s3:ListBucketMultipartUploads", place.grant.patience_short(), request).await?;
        for upload in answer.uploads() {
            if let Some((key, id)) = orphan(place, upload, &sweep) {
                let target = Target { key: key.to_owned(), ..place.clone() };
                abort(&target, id).await?;
                tracing::info!(place = target.place(), "an orphaned multipart upload was removed");
                swept += 1;
            }
        }
        marker = (answer.next_key_marker, answer.next_upload_id_marker);
        if !answer.is_truncated.unwrap_or(false) || marker.0.is_none() {
            return Ok(swept);
        }
    }
}

/// Key and id, if the upload may go.
fn orphan<'a>(place: &Target, upload: &'a MultipartUpload, sweep: &Sweep<'_>) -> Option<(&'a str, &'a str)> {
    let (key, id) = (upload.key()?, upload.upload_id()?);
    let capture = capture_of(key.strip_prefix(&place.key)?)?;
    let old = upload.initiated()?.secs() < sweep.before.as_second();
    let known = sweep
        .known
        .iter()
        .any(|checkpoint| matches!(&checkpoint.kept, Kept::S3 { upload_id, .. } if upload_id == id));
    (old && !known && (sweep.ours)(&capture)).then_some((key, id))
}
