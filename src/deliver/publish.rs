//! The manifest's way into the bucket. Owns its settling and its repeated writing; not its form (`manifest`).
//!
//! Invariant: the manifest that was settled first is the one that is published, byte for byte.

use super::manifest::{Manifest, manifest_name};
use super::record::{Settled, settle};
use super::relay::{PublishError, publish_manifest};
use super::retry::{Attempts, Outcome, RetryPolicy, given_up, out_of_time};
use super::route::Route;
use super::sign::SigningKey;
use super::stamp::{self, Stamped};
use super::words::Words;
use crate::stamp::Authority;
use crate::upload::{ObjectStore, UploadError};
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

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    Done,
    /// The process ends first.
    Left,
}

/// A manifest of a capture that has no directory here, with what vouches for it.
pub(crate) struct Vouched {
    settled: Settled,
    key: Option<Arc<SigningKey>>,
    stamp: Option<Vec<u8>>,
}

impl Vouched {
    /// Waits for the time stamp as other manifests do; where the process ends first there is none.
    ///
    /// # Errors
    /// When the manifest has no text.
    pub async fn new(
        manifest: Manifest,
        vouchers: &Vouchers,
        mut leaving: watch::Receiver<bool>,
    ) -> Result<Self, String> {
        let settled = Settled::new(manifest).map_err(|error| error.to_string())?;
        let stamp = match &vouchers.authority {
            Some(authority) => match stamp::ask(&settled.json, authority, &mut leaving).await {
                Stamped::By(stamp) => Some(stamp),
                Stamped::Without | Stamped::Left => None,
            },
            None => None,
        };
        Ok(Self { settled, key: vouchers.key.clone(), stamp })
    }

    /// Puts it, behind its signature and its time stamp.
    ///
    /// # Errors
    /// The store's.
    pub async fn put(&self, store: &dyn ObjectStore) -> Result<(), PublishError> {
        publish_manifest(store, &self.settled, self.key.as_deref(), self.stamp.clone()).await
    }
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
        let mut time_is_up = retry.time_is_up.clone();
        let put = tokio::select! {
            put = put_once(&route, &dir, &manifest, &mut kept, (&vouchers, leaving)) => put,
            outcome = given_up(&mut decided) => return outcome,
            () = out_of_time(&mut time_is_up) => return Outcome::Left,
        };
        let error = match put {
            Ok(Put::Done) => return Outcome::Done,
            Ok(Put::Left) => return Outcome::Left,
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
) -> Result<Put, Words> {
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
                let unkept =
                    |e| Words::of_host(format!("cannot keep the time stamp in {}: {e}", dir.display()));
                match stamped.map_err(unkept)? {
                    Stamped::By(stamp) => kept.stamp.insert(Some(stamp)).clone(),
                    Stamped::Without => kept.stamp.insert(None).clone(),
                    Stamped::Left => return Ok(Put::Left),
                }
            }
        };
        let key = vouchers.key.as_deref();
        let put = publish_manifest(&*store, settled, key, stamp).await.map_err(|e| match e {
            PublishError::Store(e) => words(e),
            other => Words::of_host(other.to_string()),
        });
        return put.map(|()| Put::Done);
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
    if same { Ok(Put::Done) } else { other() }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::deliver::{Directory, Finding, Wanted, empty_manifest, stamp_name, verify_at};
    use crate::job::{AccountId, BucketTerms, CaptureId};
    use crate::ownership::BucketKeys;
    use crate::stamp::{Anchors, AuthorityConfig};
    use crate::store::Embedded;
    use crate::tsa::{Mood, Tsa};
    use crate::upload::{Stores, StoresConfig};
    use std::time::{Duration, Instant};

    fn route(dir: &Path) -> Route {
        let jobs = Arc::new(Embedded::open(&dir.join("jobs")).unwrap());
        std::fs::create_dir(dir.join("bucket")).unwrap();
        Route {
            stores: Arc::new(Stores::new(StoresConfig::default()).unwrap()),
            account: AccountId("a".to_owned()),
            destination: None,
            keys: BucketKeys::new(jobs, None),
            kept: BucketTerms::default(),
            simple_dir: dir.join("bucket"),
        }
    }

    #[tokio::test]
    async fn an_authority_that_is_away_delays_a_delivery_by_its_bound_and_loses_none() {
        let tsa = match Tsa::start("ec") {
            Ok(tsa) => tsa,
            Err(error) => return crate::skip::skip("openssl", error),
        };
        let temp = tempfile::tempdir().unwrap();
        let (route, patience) = (route(temp.path()), Duration::from_secs(3));
        let (proxy, ca_file) = (None, None);
        let config = AuthorityConfig { url: tsa.url(), anchors: Some(tsa.ca()), patience, proxy, ca_file };
        let authority = Some(Arc::new(Authority::new(&config).unwrap()));
        let vouchers = Vouchers { key: None, authority };
        let (_stays, leaving) = watch::channel(false);
        let put = async |id: &CaptureId| {
            let (manifest, dir) = (empty_manifest(id), temp.path().join(id.to_string()));
            std::fs::create_dir_all(&dir).unwrap();
            let (since, mut kept) = (Instant::now(), Kept::default());
            put_once(&route, &dir, &manifest, &mut kept, (&vouchers, leaving.clone())).await.unwrap();
            let at = |name: String| route.simple_dir.join(name);
            (at(manifest_name(&manifest.part())), at(stamp_name(&manifest.part())), since.elapsed())
        };
        tsa.set(Mood::Gone);
        let (first, second) = (CaptureId::random(), CaptureId::random());
        let (manifest, stamp, took) = put(&first).await;
        assert!(manifest.exists() && !stamp.exists() && took < patience + Duration::from_secs(2), "{took:?}");
        assert!(tsa.asked() >= 2, "it is asked again within that time");
        let asked = tsa.asked();
        let (manifest, stamp, took) = put(&second).await;
        assert!(manifest.exists() && !stamp.exists() && took < Duration::from_secs(1), "{took:?}");
        assert_eq!(tsa.asked(), asked + 1, "once, while it is known to be away");
        // It is back. What it said is kept, and the next attempt, of another process too, puts the same.
        tsa.set(Mood::Right);
        let third = CaptureId::random();
        let (manifest, stamp, _) = put(&third).await;
        tsa.verifies(&manifest, &stamp).unwrap();
        let said = std::fs::read(&stamp).unwrap();
        std::fs::remove_file(&manifest).unwrap();
        std::fs::remove_file(&stamp).unwrap();
        let asked = tsa.asked();
        put(&third).await;
        assert_eq!((std::fs::read(&stamp).unwrap(), tsa.asked()), (said, asked));
        // `trawl verify` agrees, and sees what was taken away or exchanged.
        let anchors = Anchors::load(&tsa.ca()).unwrap();
        let wanted = Wanted { key: None, anchors: Some(&anchors) };
        let (place, name) = Directory::of(&manifest);
        let verified = || verify_at(&place, &name, &wanted, &mut |_| ()).unwrap();
        assert!(verified().findings.is_empty() && verified().stamp.is_some(), "{:?}", verified());
        std::fs::write(&stamp, "other").unwrap();
        assert!(matches!(verified().findings[..], [Finding::Stamp { .. }]), "{:?}", verified());
        std::fs::remove_file(&stamp).unwrap();
        assert!(matches!(verified().findings[..], [Finding::Unstamped { .. }]), "{:?}", verified());
    }

    #[tokio::test]
    async fn a_process_that_ends_while_an_authority_is_away_leaves_the_manifest_to_the_next_one() {
        // It takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let (anchors, patience, proxy, ca_file) = (None, Duration::from_secs(60), None, None);
        let config = AuthorityConfig { url, anchors, patience, proxy, ca_file };
        let authority = Some(Arc::new(Authority::new(&config).unwrap()));
        let key = Some(Arc::new(SigningKey::create(&tempfile::tempdir().unwrap().path().join("k")).unwrap()));
        let vouchers = Vouchers { key, authority };
        let temp = tempfile::tempdir().unwrap();
        let (route, manifest) = (route(temp.path()), empty_manifest(&CaptureId::random()));
        let (leave, leaving) = watch::channel(false);
        let (mut kept, since) = (Kept::default(), Instant::now());
        let put = put_once(&route, temp.path(), &manifest, &mut kept, (&vouchers, leaving.clone()));
        let soon = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            leave.send_replace(true);
        };
        let (put, ()) = tokio::join!(put, soon);
        assert_eq!(put.unwrap(), Put::Left);
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        let there = route.simple_dir.join(manifest_name(&manifest.part()));
        assert!(!there.exists() && kept.stamp.is_none());
        // One that nobody could go on with is delivered, with its signature.
        let store = crate::upload::FileStore::of_spool(route.simple_dir.clone());
        Vouched::new(manifest.clone(), &vouchers, leaving).await.unwrap().put(&store).await.unwrap();
        let (place, name) = Directory::of(&there);
        let public = vouchers.key.as_ref().unwrap().public();
        let wanted = Wanted { key: Some(&public), anchors: None };
        assert!(verify_at(&place, &name, &wanted, &mut |_| ()).unwrap().findings.is_empty());
    }

    #[tokio::test]
    async fn what_stands_under_a_manifests_name_is_not_read_if_it_is_larger_than_that_can_be() {
        let temp = tempfile::tempdir().unwrap();
        let route = route(temp.path());
        let manifest = empty_manifest(&CaptureId::random());
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
