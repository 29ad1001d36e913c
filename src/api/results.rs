//! Where the files of simple captures are. Owns the trait, and a host's own directory as one; not how long files are kept.
//!
//! Invariant: a name is one of an object in a capture's record, and nothing that was sent.

use crate::upload::{FileStore, ObjectStore};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncSeek};

/// A file that is read from any place on.
pub trait ResultFile: AsyncRead + AsyncSeek + Send + Unpin {}

impl<T: AsyncRead + AsyncSeek + Send + Unpin> ResultFile for T {}

/// A file and its size in bytes, on its way.
pub type Opening<'a> = Pin<Box<dyn Future<Output = io::Result<(Box<dyn ResultFile>, u64)>> + Send + 'a>>;

/// The place of the files of simple captures: one host's directory, or what all nodes of a fleet can read.
pub trait Results: Send + Sync {
    /// Opens a file; `NotFound` once it was removed.
    fn open<'a>(&'a self, name: &'a str) -> Opening<'a>;

    /// The place with manifests too.
    fn store(&self) -> Arc<dyn ObjectStore>;
}

/// A directory of this host.
#[derive(Clone, Debug)]
pub struct OwnResults(pub PathBuf);

impl Results for OwnResults {
    fn open<'a>(&'a self, name: &'a str) -> Opening<'a> {
        let path = self.0.join(name);
        Box::pin(async move {
            let file = File::open(path).await?;
            let bytes = file.metadata().await?.len();
            Ok((Box::new(file) as Box<dyn ResultFile>, bytes))
        })
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(FileStore::of_spool(self.0.clone()))
    }
}
