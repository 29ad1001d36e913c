//! The time stamp beside a manifest (RFC 3161): when it is asked for, and how long its delivery waits. Owns that, and the file that keeps
//! it until it is in the bucket; not its form (`stamp`).
//!
//! A manifest waits [`Authority::patience`] for its time stamp, once; then it is delivered without one, which is told. While an
//! authority is away each manifest asks it once and waits for that answer alone.
//!
//! Invariant: an authority that is away loses no delivery, and delays each by a bounded time; what is kept is what is published.

use super::record::replace;
use super::retry::jittered;
use crate::stamp::{Authority, check};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const STAMP: &str = ".manifest.tsr";
/// Between the first two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// Between later ones.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// The time stamp of a manifest's text: the one that is kept in its directory, or a new one. None if there was none to be had in time, or
/// the process ends.
///
/// # Errors
/// When it cannot be kept.
pub(super) async fn stamp(
    dir: &Path,
    json: &[u8],
    authority: &Authority,
    leaving: &mut watch::Receiver<bool>,
) -> io::Result<Option<Vec<u8>>> {
    if let Some(kept) = kept(dir, json)? {
        return Ok(Some(kept));
    }
    let (began, patience, mut pause) = (Instant::now(), authority.patience(), PAUSE);
    loop {
        let error = match authority.ask(json).await {
            Ok((answer, stamp)) => {
                let answer = answer.to_vec();
                let (into, text) = (dir.to_owned(), answer.clone());
                let written = tokio::task::spawn_blocking(move || replace(&into, STAMP, &text)).await;
                written.map_err(io::Error::other)??;
                tracing::info!(dir = %dir.display(), time = %stamp.time, signer = %stamp.signer, "the manifest is time-stamped");
                authority.ended(true);
                return Ok(Some(answer));
            }
            Err(error) => error,
        };
        let waited = began.elapsed();
        if waited + pause > patience || *leaving.borrow() {
            let (dir, seconds) = (dir.display(), waited.as_secs());
            tracing::warn!(%dir, %error, seconds, "the manifest is delivered without a time stamp");
            authority.ended(false);
            return Ok(None);
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            _ = leaving.wait_for(|leaving| *leaving) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What an earlier attempt, or process, got for the same text.
fn kept(dir: &Path, json: &[u8]) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(dir.join(STAMP)) {
        Ok(answer) if check(&answer, json, None, None).is_ok() => Ok(Some(answer)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
