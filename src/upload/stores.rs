//! Which store serves a destination. Owns the operator's decisions about stores and their opening; not what a store does.
//!
//! Invariant: no place is opened that the config does not allow.

use super::UploadError;
use super::file::{ClosedDir, FileStore};
use super::gcs::{GcsConfig, GcsStores};
use super::s3::{S3Config, S3Stores};
use super::store::ObjectStore;
use crate::job::{Destination, S3Credentials};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::OwnedSemaphorePermit;

/// Region that R2 signs requests for.
const R2_REGION: &str = "auto";

/// How to speak to R2: what [`S3Config`] says otherwise holds too, but for its endpoint, credentials and extras.
#[derive(Clone, Debug, Default)]
pub struct R2Config {
    /// Instead of `https://<account>.r2.cloudflarestorage.com`, for tests and proxies of an account's own.
    pub endpoint: Option<String>,
    /// For destinations without keys of their own.
    pub credentials: Option<S3Credentials>,
}

/// What the operator decided about stores.
#[derive(Clone, Debug, Default)]
pub struct StoresConfig {
    /// Whether `file://` destinations are taken.
    pub allow_file: bool,
    /// Directories that `file://` destinations must be in or below. Empty: any directory. Symbolic links are followed in these
    /// paths, and in none below them.
    pub file_roots: Vec<PathBuf>,
    /// Directories of this host that no `file://` destination may be.
    pub file_closed: Vec<ClosedDir>,
    /// How to speak to S3.
    pub s3: S3Config,
    /// How to speak to R2; no `r2://` destination is taken without.
    pub r2: Option<R2Config>,
    /// How to speak to Google Cloud Storage; no `gs://` destination is taken without.
    pub gcs: Option<GcsConfig>,
}

/// Opens stores. One per process: connections and credentials are shared by all captures.
#[derive(Debug)]
pub struct Stores(RwLock<Arc<Ways>>);

/// What the operator decided, made ready to be taken.
#[derive(Debug)]
pub struct Ways {
    allow_file: bool,
    file_roots: Vec<PathBuf>,
    file_closed: Vec<ClosedDir>,
    s3: S3Stores,
    r2: Option<R2Config>,
    gcs: Option<GcsStores>,
}

impl Ways {
    /// Of these decisions; nothing is contacted yet.
    ///
    /// # Errors
    /// [`UploadError::Config`] when a value cannot be used.
    pub fn new(config: StoresConfig) -> Result<Self, UploadError> {
        let StoresConfig { allow_file, mut file_roots, file_closed, s3, r2, gcs } = config;
        if file_roots.is_empty() {
            file_roots.push(PathBuf::from("/"));
        }
        let (s3, gcs) = (S3Stores::new(s3)?, gcs.map(GcsStores::new).transpose()?);
        Ok(Self { allow_file, file_roots, file_closed, s3, r2, gcs })
    }
}

impl Stores {
    /// Takes the operator's decisions; nothing is contacted yet.
    ///
    /// # Errors
    /// [`UploadError::Config`] when a value cannot be used.
    pub fn new(config: StoresConfig) -> Result<Self, UploadError> {
        Ok(Self(RwLock::new(Arc::new(Ways::new(config)?))))
    }

    /// Stores that are opened from now on go these ways; those that are open stay as they are.
    pub fn replace(&self, ways: Ways) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let s3 = ways.s3.after(&held.s3);
        *held = Arc::new(Ways { s3, ..ways });
    }

    fn ways(&self) -> Arc<Ways> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The store of a destination. For a bucket, credentials are looked up; the bucket itself is not contacted.
    ///
    /// # Errors
    /// [`UploadError::FileNotAllowed`], [`UploadError::OutsideRoots`], [`UploadError::BucketNotAllowed`] or
    /// [`UploadError::Credentials`].
    pub async fn open(&self, destination: &Destination) -> Result<Box<dyn ObjectStore>, UploadError> {
        self.open_with(destination, None).await
    }

    /// Takes the memory of one more object of a delivery of so many queues, of what all of them have beside their needs; none if it is used up.
    #[must_use]
    pub fn one_more_object(&self, queues: usize) -> Option<OwnedSemaphorePermit> {
        self.ways().s3.one_more_object(queues as u64)
    }

    /// Reads this host's credentials again for stores that are opened from now on.
    pub async fn renew_credentials(&self) {
        self.ways().s3.renew().await;
    }

    /// As [`Stores::open`], with the keys that came with an `r2://` destination.
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub async fn open_with(
        &self,
        destination: &Destination,
        keys: Option<&S3Credentials>,
    ) -> Result<Box<dyn ObjectStore>, UploadError> {
        self.open_as(destination, keys, None).await
    }

    /// Whether the store of `s3://` destinations is known to refuse requests that name another owner of the bucket. AWS does;
    /// other stores may ignore the header.
    #[must_use]
    pub fn know_owners(&self) -> bool {
        self.ways().s3.is_aws()
    }

    /// As [`Stores::open_with`]. Every request to an `s3://` bucket names `owner`, so that AWS refuses it if the bucket is
    /// another account's. Stores of other schemes do not know the header (R2 lists it as not implemented).
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub async fn open_as(
        &self,
        destination: &Destination,
        keys: Option<&S3Credentials>,
        owner: Option<&str>,
    ) -> Result<Box<dyn ObjectStore>, UploadError> {
        self.ways().open_as(destination, keys, owner).await
    }
}

impl Ways {
    async fn open_as(
        &self,
        destination: &Destination,
        keys: Option<&S3Credentials>,
        owner: Option<&str>,
    ) -> Result<Box<dyn ObjectStore>, UploadError> {
        match destination {
            Destination::File { .. } if !self.allow_file => Err(UploadError::FileNotAllowed),
            Destination::File { dir } => {
                let below = |root: &PathBuf| Some((root.clone(), dir.strip_prefix(root).ok()?.to_owned()));
                let Some((root, below)) = self.file_roots.iter().find_map(below) else {
                    return Err(UploadError::OutsideRoots { dir: dir.clone() });
                };
                Ok(Box::new(FileStore::below(root, below, self.file_closed.clone())))
            }
            Destination::S3 { bucket, directory, region } => {
                Ok(Box::new(self.s3.open(bucket, directory.trim_matches('/'), region, owner).await?))
            }
            Destination::Gcs { bucket, directory } => {
                let Some(gcs) = &self.gcs else {
                    return Err(UploadError::BucketNotAllowed { scheme: "gs", key: "upload.gcs.allow" });
                };
                Ok(Box::new(gcs.open(bucket, directory.trim_matches('/')).await?))
            }
            Destination::R2 { bucket, directory, account_id } => {
                let Some(r2) = &self.r2 else {
                    return Err(UploadError::BucketNotAllowed { scheme: "r2", key: "upload.r2.allow" });
                };
                let Some(keys) = keys.or(r2.credentials.as_ref()) else {
                    let detail = "this account has sent none".to_owned();
                    return Err(UploadError::Keys { place: destination.to_string(), detail });
                };
                let own = || format!("https://{account_id}.r2.cloudflarestorage.com");
                let endpoint = r2.endpoint.clone().unwrap_or_else(own);
                let store = self.s3.open_at(&endpoint, keys, bucket, R2_REGION);
                Ok(Box::new(store.in_directory(directory.trim_matches('/'))))
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn directories_are_opened_below_the_operators_roots_only_and_never_in_the_spool() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for dir in ["open/in", "elsewhere"] {
            std::fs::create_dir_all(path(dir)).unwrap();
        }
        symlink(path("elsewhere"), path("open/link")).unwrap();
        let config = StoresConfig {
            allow_file: true,
            file_roots: vec![path("open")],
            file_closed: vec![ClosedDir { dir: path("open/in"), with_below: true }],
            ..StoresConfig::default()
        };
        let stores = Stores::new(config).unwrap();
        let probed = async |name: &str| {
            let store = stores.open(&Destination::File { dir: path(name) }).await?;
            store.probe().await
        };
        probed("open/new/dir").await.unwrap();
        probed("open").await.unwrap();
        for name in ["elsewhere", "opened", "."] {
            let error = probed(name).await.unwrap_err();
            assert!(matches!(error, UploadError::OutsideRoots { .. }), "{name}: {error}");
        }
        for name in ["open/link", "open/link/new", "open/in", "open/in/new", "open/../elsewhere"] {
            let error = probed(name).await.unwrap_err();
            assert!(matches!(error, UploadError::Disk { .. }), "{name}: {error}");
        }
        assert!(!path("elsewhere/new").exists());
    }

    #[tokio::test]
    async fn a_directory_that_has_gone_is_not_made_again_by_an_object() {
        let root = tempfile::tempdir().unwrap();
        let config = StoresConfig { allow_file: true, ..StoresConfig::default() };
        let dir = root.path().join("mounted/dir");
        let store = Stores::new(config).unwrap().open(&Destination::File { dir: dir.clone() }).await.unwrap();
        store.probe().await.unwrap();
        store.put("first", bytes::Bytes::from_static(b"a")).await.unwrap();
        std::fs::remove_dir_all(root.path().join("mounted")).unwrap();
        let error = store.put("second", bytes::Bytes::from_static(b"b")).await.unwrap_err();
        assert!(error.may_pass() && error.to_string().contains("mount its disk"), "{error}");
        assert!(!root.path().join("mounted").exists());
        std::fs::create_dir_all(&dir).unwrap();
        store.put("second", bytes::Bytes::from_static(b"b")).await.unwrap();
    }
}
