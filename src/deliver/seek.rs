//! What is left of a capture whose process died: anything in the spool, or a manifest in the bucket. Owns the looking; not what
//! is made of it.
//!
//! Invariant: only what is read is believed; an error is never taken for an absence.

use super::manifest::{MANIFEST_BYTES_MAX, Manifest, manifest_name};
use super::retry::{Attempts, Outcome, RetryPolicy, out_of_time};
use super::route::Route;
use super::words::Words;
use crate::job::PartId;
use crate::spool::{Spool, place};
use crate::upload::UploadError;
use std::path::{Path, PathBuf};

/// Whether a capture's directory has anything that packets could be in or were in: a segment, open or published, or a journal.
/// One that cannot be read counts as having something. Waits for the disk.
pub(crate) fn has_remains(dir: &Path) -> bool {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return error.kind() != std::io::ErrorKind::NotFound,
    };
    let is_remains =
        |name: &str| name.starts_with(".journal") || name.ends_with(".pcap") || name.ends_with(".open");
    entries
        .into_iter()
        .any(|entry| entry.map_or(true, |entry| entry.file_name().to_str().is_none_or(is_remains)))
}

/// Queues of a capture, as the names of its segments tell: one more than the last that has any.
pub(crate) fn queues_of(spool: &Spool, dir: &Path) -> usize {
    let entries = |(_, place): (_, PathBuf)| std::fs::read_dir(place).into_iter().flatten().flatten();
    let entries = spool.places(dir).flat_map(entries);
    let queue = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let open = name.strip_prefix('.').and_then(|name| name.strip_suffix(".open"));
        place(open.unwrap_or(&name)).map(|(queue, _)| queue + 1)
    };
    entries.filter_map(queue).max().unwrap_or(0)
}

/// Looks for the manifest of this host's part in its bucket, again and again while the bucket gives no answer.
///
/// # Errors
/// [`Outcome::Left`] when the process ends first, [`Outcome::Failed`] when it cannot be found out.
pub(crate) async fn find_manifest(
    route: &Route,
    part: &PartId,
    mut retry: RetryPolicy,
) -> Result<Option<Manifest>, Outcome> {
    let mut attempts = Attempts::new(&retry);
    loop {
        let mut time_is_up = retry.time_is_up.clone();
        let looked = tokio::select! {
            looked = look(route, part) => looked,
            () = out_of_time(&mut time_is_up) => return Err(Outcome::Left),
        };
        let error = match looked {
            Ok(found) => return Ok(found),
            Err(Sought::NoManifest(error)) => return Err(Outcome::Failed(Words::alike(error))),
            // A store that hides what is not there from those who may not list answers like this.
            Err(Sought::Store(error @ UploadError::Denied { .. })) => {
                return Err(Outcome::Failed(route.words(&error)));
            }
            Err(Sought::Store(error)) => {
                route.words(&error).within(|error| format!("its manifest could not be looked for: {error}"))
            }
        };
        if let Some(outcome) = retry.pause(&mut attempts, error).await {
            return Err(outcome);
        }
    }
}

enum Sought {
    Store(UploadError),
    NoManifest(String),
}

async fn look(route: &Route, part: &PartId) -> Result<Option<Manifest>, Sought> {
    let name = manifest_name(part);
    let store = route.open().await.map_err(Sought::Store)?;
    let Some(bytes) = store.size(&name).await.map_err(Sought::Store)? else { return Ok(None) };
    if bytes > MANIFEST_BYTES_MAX {
        return Err(Sought::NoManifest(format!("{name} has {bytes} bytes, which no manifest has")));
    }
    let json = store.get(&name, bytes).await.map_err(Sought::Store)?;
    let manifest = Manifest::parse(&json).map_err(|error| Sought::NoManifest(format!("{name}: {error}")))?;
    if manifest.part() != *part {
        return Err(Sought::NoManifest(format!("{name} is the manifest of another capture or host")));
    }
    Ok(Some(manifest))
}
