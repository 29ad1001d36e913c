//! The manifest's way into the bucket. Owns its settling and its repeated writing; not its form (`manifest`).
//!
//! Invariant: the manifest that was settled first is the one that is published.

use super::journal::settle;
use super::manifest::{Manifest, manifest_name};
use super::relay::publish_manifest;
use super::retry::{Outcome, PAUSE_MIN, RetryPolicy};
use super::route::Route;
use super::sign::SigningKey;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Settles the manifest and puts it, again and again; one that is there already for the same objects is left.
pub(crate) async fn put_manifest(
    route: Route,
    dir: PathBuf,
    manifest: Manifest,
    key: Option<Arc<SigningKey>>,
    mut patience: RetryPolicy,
) -> Outcome {
    let kept = dir.clone();
    let manifest = match tokio::task::spawn_blocking(move || settle(&kept, manifest)).await {
        Ok(Ok(manifest)) => manifest,
        Ok(Err(e)) => return Outcome::Failed(format!("cannot keep the manifest in {}: {e}", dir.display())),
        Err(e) => return Outcome::Failed(format!("the manifest could not be kept: {e}")),
    };
    let (since, mut pause) = (Instant::now(), PAUSE_MIN.min(patience.pause_max));
    loop {
        let error = match put_once(&route, &manifest, key.as_deref()).await {
            Ok(()) => return Outcome::Done,
            Err(e) => format!("the manifest could not be written: {e}"),
        };
        if let Some(outcome) = patience.pause(since, &mut pause, error).await {
            return outcome;
        }
    }
}

async fn put_once(route: &Route, manifest: &Manifest, key: Option<&SigningKey>) -> Result<(), String> {
    let name = manifest_name(&manifest.id);
    let store = route.open().await.map_err(|e| e.to_string())?;
    if let Some(bytes) = store.size(&name).await.map_err(|e| e.to_string())? {
        let there = store.get(&name, bytes).await.map_err(|e| e.to_string())?;
        let same =
            Manifest::parse(&there).is_ok_and(|m| m.id == manifest.id && m.objects == manifest.objects);
        return if same { Ok(()) } else { Err(format!("{name} is there already and is another one")) };
    }
    publish_manifest(&*store, manifest, key).await.map_err(|e| e.to_string())
}
