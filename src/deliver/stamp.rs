//! The time stamp beside a manifest (RFC 3161): when it is asked for, and how long its delivery waits. Owns that, and the file that keeps
//! it until it is in the bucket; not its form (`stamp`).
//!
//! A manifest waits [`Authority::patience`] for its time stamp, once; then it is delivered without one, which is told. While an
//! authority is away each manifest asks it once and waits for that answer alone. A process that ends meanwhile leaves the manifest to the
//! next one.
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
/// How long an authority has for its answer once the process ends.
const LEAVING_TIME: Duration = Duration::from_secs(1);
/// Between later ones.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How a manifest's wait for its time stamp ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stamped {
    /// The authority's answer.
    By(Vec<u8>),
    /// There was none to be had in time.
    Without,
    /// The process ends before that time was over: the next one asks.
    Left,
}

/// The time stamp of a manifest's text: the one that is kept in its directory, or a new one.
///
/// # Errors
/// When it cannot be kept.
pub(super) async fn stamp(
    dir: &Path,
    json: &[u8],
    authority: &Authority,
    leaving: &mut watch::Receiver<bool>,
) -> io::Result<Stamped> {
    if let Some(kept) = kept(dir, json)? {
        return Ok(Stamped::By(kept));
    }
    let stamped = ask(json, authority, leaving).await;
    if let Stamped::By(answer) = &stamped {
        let (into, text) = (dir.to_owned(), answer.clone());
        let written = tokio::task::spawn_blocking(move || replace(&into, STAMP, &text)).await;
        written.map_err(io::Error::other)??;
    }
    Ok(stamped)
}

/// A new time stamp.
pub(super) async fn ask(json: &[u8], authority: &Authority, leaving: &mut watch::Receiver<bool>) -> Stamped {
    let (began, patience, mut pause) = (Instant::now(), authority.patience(), PAUSE);
    loop {
        let mut ends = leaving.clone();
        let left = async {
            let _ends_or_gone = ends.wait_for(|leaving| *leaving).await.is_ok();
            tokio::time::sleep(LEAVING_TIME).await;
        };
        let asked = tokio::select! {
            asked = authority.ask(json) => asked,
            () = left => return Stamped::Left,
        };
        let error = match asked {
            Ok((answer, stamp)) => {
                tracing::info!(time = %stamp.time, signer = %stamp.signer, "the manifest is time-stamped");
                authority.ended(true);
                return Stamped::By(answer.to_vec());
            }
            Err(error) => error,
        };
        let waited = began.elapsed();
        if waited + pause > patience {
            let seconds = waited.as_secs();
            tracing::warn!(%error, seconds, "the manifest is delivered without a time stamp");
            authority.ended(false);
            return Stamped::Without;
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            _ = leaving.wait_for(|leaving| *leaving) => return Stamped::Left,
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
