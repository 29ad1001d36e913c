//! The manifest's way into the bucket. Owns its settling and its repeated writing; not its form (`manifest`).
//!
//! Invariant: the manifest that was settled first is the one that is published, byte for byte.

use super::manifest::{Manifest, manifest_name};
use super::record::{Settled, settle};
use super::relay::{PublishError, publish_manifest};
use super::retry::{Attempts, Outcome, RetryPolicy, given_up};
use super::route::Route;
use super::sign::SigningKey;
use super::stamp;
use super::words::Words;
use crate::stamp::Authority;
use crate::upload::UploadError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Who vouches for a manifest.
#[derive(Clone, Default)]
pub(crate) struct Vouchers {
    /// Signs it, if this host signs.
    pub key: Option<Arc<SigningKey>>,
    /// Stamps it, if it has an authority.
    pub authority: Option<Arc<Authority>>,
}

/// What one attempt leaves to the next.
#[derive(Default)]
struct Kept {
    settled: Option<Settled>,
    /// The time stamp, or that there was none in time.
    stamp: Option<Option<Vec<u8>>>,
}

/// Settles the manifest and puts it, again and again; one that is there already for the same objects is left.
pub(crate) async fn put_manifest(
    route: Route,
    dir: PathBuf,
    manifest: Manifest,
    vouchers: Vouchers,
    mut retry: RetryPolicy,
) -> Outcome {
    let (mut attempts, mut kept) = (Attempts::new(&retry), Kept::default());
    loop {
        let (mut decided, leaving) = (retry.given_up.clone(), retry.leaving.clone());
        let put = tokio::select! {
            put = put_once(&route, &dir, &manifest, &mut kept, (&vouchers, leaving)) => put,
            outcome = given_up(&mut decided) => return outcome,
        };
        let error = match put {
            Ok(()) => return Outcome::Done,
            Err(e) => e.within(|e| format!("the manifest could not be written: {e}")),
        };
        if let Some(outcome) = retry.pause(&mut attempts, error).await {
            return outcome;
        }
    }
}

/// One attempt.
async fn put_once(
    route: &Route,
    dir: &Path,
    manifest: &Manifest,
    kept: &mut Kept,
    (vouchers, mut leaving): (&Vouchers, watch::Receiver<bool>),
) -> Result<(), Words> {
    let settled = match &mut kept.settled {
        Some(settled) => settled,
        None => {
            let (into, manifest) = (dir.to_owned(), manifest.clone());
            let settled = tokio::task::spawn_blocking(move || settle(&into, manifest)).await;
            let settled = settled.map_err(|e| Words::of_host(e.to_string()))?;
            let unkept = |e| Words::of_host(format!("cannot keep it in {}: {e}", dir.display()));
            kept.settled.insert(settled.map_err(unkept)?)
        }
    };
    let manifest = &settled.manifest;
    let name = manifest_name(&manifest.part());
    let words = |e: UploadError| route.words(&e);
    let store = route.open().await.map_err(words)?;
    let there = match store.size(&name).await {
        // Who may not look may write all the same, and nothing is overwritten.
        Err(UploadError::Denied { .. }) => None,
        there => there.map_err(words)?,
    };
    let Some(bytes) = there else {
        let stamp = match (&kept.stamp, &vouchers.authority) {
            (Some(stamp), _) => stamp.clone(),
            (None, None) => None,
            (None, Some(authority)) => {
                let stamped = stamp::stamp(dir, &settled.json, authority, &mut leaving).await;
                let unkept = |e| Words::of_host(format!("cannot keep the time stamp in {}: {e}", dir.display()));
                kept.stamp.insert(stamped.map_err(unkept)?).clone()
            }
        };
        let key = vouchers.key.as_deref();
        return publish_manifest(&*store, settled, key, stamp).await.map_err(|e| match e {
            PublishError::Store(e) => words(e),
            other => Words::of_host(other.to_string()),
        });
    };
    let other = || {
        let said = format!("{name} is there already, has {bytes} bytes and is another one; remove it");
        Err(Words::alike(said))
    };
    // Ours in another program's form is not much larger. More is not read: the bucket's owner may put anything there.
    if bytes > 2 * settled.json.len() as u64 + (1 << 20) {
        return other();
    }
    let there = store.get(&name, bytes).await.map_err(words)?;
    let same = Manifest::parse(&there).is_ok_and(|m| m.id == manifest.id && m.objects == manifest.objects);
    if same { Ok(()) } else { other() }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::deliver::empty_manifest;
    use crate::job::{AccountId, BucketTerms, CaptureId};
    use crate::ownership::BucketKeys;
    use crate::store::Embedded;
    use crate::upload::{Stores, StoresConfig};

    #[tokio::test]
    async fn what_stands_under_a_manifests_name_is_not_read_if_it_is_larger_than_that_can_be() {
        let temp = tempfile::tempdir().unwrap();
        let jobs = Arc::new(Embedded::open(&temp.path().join("jobs")).unwrap());
        let route = Route {
            stores: Arc::new(Stores::new(StoresConfig::default()).unwrap()),
            account: AccountId("a".to_owned()),
            destination: None,
            keys: BucketKeys::new(jobs, None),
            kept: BucketTerms::default(),
            simple_dir: temp.path().join("bucket"),
        };
        let manifest = empty_manifest(&CaptureId::random());
        std::fs::create_dir(&route.simple_dir).unwrap();
        let there = route.simple_dir.join(manifest_name(&manifest.part()));
        // More than there is memory, and no byte of it on the disk.
        std::fs::File::create(&there).unwrap().set_len(1 << 42).unwrap();
        let (_stays, leaving) = watch::channel(false);
        let put = async || {
            let nobody = (&Vouchers::default(), leaving.clone());
            put_once(&route, temp.path(), &manifest, &mut Kept::default(), nobody).await
        };
        let error = put().await.unwrap_err().to_string();
        assert!(error.contains("has 4398046511104 bytes") && error.contains("another one"), "{error}");
        std::fs::remove_file(&there).unwrap();
        put().await.unwrap();
        put().await.unwrap();
    }
}
