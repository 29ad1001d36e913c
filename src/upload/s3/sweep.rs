//! Multipart uploads that nobody will go on with. Owns which of those in a bucket are removed.
//!
//! Invariant: an upload goes only if it stands in exactly this directory and is older than asked for; and if it is a probe's, or
//! its key is that of a part of a capture which is this host's, and no checkpoint names it.

use super::answer::{PAGE_ENTRIES, Pages};
use super::multipart::abort;
use super::retry::{Target, call};
use crate::job::PartId;
use crate::upload::UploadError;
use crate::upload::checkpoint::Kept;
use crate::upload::store::{PROBE, Sweep};
use aws_sdk_s3::types::MultipartUpload;

/// `place` is the target of the directory itself: its key is the prefix.
pub(super) async fn sweep(place: &Target, sweep: Sweep<'_>) -> Result<u32, UploadError> {
    let orphans = |upload: &MultipartUpload| old(upload, &sweep) && orphan(place, upload, &sweep);
    let objects = sweep_those(place, "pcap_", orphans).await?;
    let probes = sweep_those(place, PROBE, |upload| old(upload, &sweep)).await?;
    Ok(objects + probes)
}

/// Removes those whose keys begin with `begin` below the directory and that may go.
async fn sweep_those(
    place: &Target,
    begin: &str,
    may_go: impl Fn(&MultipartUpload) -> bool,
) -> Result<u32, UploadError> {
    let prefix = format!("{}{begin}", place.key);
    let (mut swept, mut marker) = (0, (None::<String>, None::<String>));
    let mut pages = Pages::default();
    loop {
        pages.next(place).await?;
        let request = || {
            let list = place
                .client
                .list_multipart_uploads()
                .bucket(&place.bucket)
                .prefix(&prefix)
                .max_uploads(PAGE_ENTRIES);
            list.set_key_marker(marker.0.clone()).set_upload_id_marker(marker.1.clone()).send()
        };
        let answer =
            call(place, "s3:ListBucketMultipartUploads", place.grant.budget_short(), request).await?;
        for upload in answer.uploads().iter().filter(|upload| may_go(upload)) {
            let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else { continue };
            let target = Target { key: key.to_owned(), ..place.clone() };
            abort(&target, id).await?;
            tracing::info!(place = target.place(), "an orphaned multipart upload was removed");
            swept += 1;
        }
        let next = (answer.next_key_marker, answer.next_upload_id_marker);
        // A store that names the same place again has no more to tell, whatever it says.
        if !answer.is_truncated.unwrap_or(false) || next.0.is_none() || next == marker {
            return Ok(swept);
        }
        marker = next;
    }
}

fn old(upload: &MultipartUpload, sweep: &Sweep<'_>) -> bool {
    upload.initiated().is_some_and(|begun| begun.secs() < sweep.before.as_second())
}

/// Whether it is of an object of ours that nobody goes on with.
fn orphan(place: &Target, upload: &MultipartUpload, sweep: &Sweep<'_>) -> bool {
    let name = upload.key().and_then(|key| key.strip_prefix(&place.key));
    let Some((part, _)) = name.and_then(PartId::parse) else { return false };
    let known = sweep.known.iter().any(|checkpoint| match &checkpoint.kept {
        Kept::S3 { upload_id, .. } => upload.upload_id() == Some(upload_id),
        _ => false,
    });
    !known && (sweep.ours)(&part)
}
