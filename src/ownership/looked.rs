//! A store that looks whether it is still the bucket that was proven. Owns when it looks; not what it looks at (`proofs`).
//!
//! Invariant: no packet is sent to a bucket unless its challenge was seen in it a short time before.

use super::proofs::Look;
use super::{BucketKeys, place};
use crate::job::{AccountId, BucketProof, Destination};
use crate::upload::{Checkpoint, ObjectStore, ObjectWriter, Pending, Resumed, Stored, Sweep};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;

/// See the module.
pub(crate) struct LookedAt {
    store: Arc<dyn ObjectStore>,
    look: Look,
}

impl LookedAt {
    /// `store`, which the account has proven to be its own by one of `proofs`.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        keys: &BucketKeys,
        account: &AccountId,
        destination: &Destination,
        proofs: Vec<BucketProof>,
    ) -> Self {
        let look = Look {
            keys: keys.clone(),
            account: account.clone(),
            place: place(destination),
            proofs: Arc::from(proofs),
        };
        Self { store, look }
    }

    /// Looks whether the bucket is the one that was proven.
    ///
    /// # Errors
    /// [`crate::upload::UploadError::Unproven`] if it is not.
    pub async fn look(&self) -> Result<(), crate::upload::UploadError> {
        self.look.at(&*self.store).await
    }

    /// As if the last look were long ago.
    #[cfg(test)]
    pub fn forget(&self) {
        self.look.keys.seen.forget();
    }

    fn guarded(&self, writer: Box<dyn ObjectWriter>) -> Box<dyn ObjectWriter> {
        Box::new(Guarded { writer, store: Arc::clone(&self.store), look: self.look.clone() })
    }
}

impl ObjectStore for LookedAt {
    fn probe(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.look.at(&*self.store).await?;
            self.store.probe().await
        })
    }

    fn begin<'a>(&'a self, name: &'a str) -> Pending<'a, Box<dyn ObjectWriter>> {
        Box::pin(async move {
            self.look.at(&*self.store).await?;
            Ok(self.guarded(self.store.begin(name).await?))
        })
    }

    fn resume<'a>(&'a self, name: &'a str, checkpoint: &'a Checkpoint) -> Pending<'a, Resumed> {
        Box::pin(async move {
            self.look.at(&*self.store).await?;
            let (writer, offset) = self.store.resume(name, checkpoint).await?;
            Ok((self.guarded(writer), offset))
        })
    }

    fn sweep<'a>(&'a self, sweep: Sweep<'a>) -> Pending<'a, u32> {
        self.store.sweep(sweep)
    }

    fn size<'a>(&'a self, name: &'a str) -> Pending<'a, Option<u64>> {
        self.store.size(name)
    }

    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> Pending<'a, Bytes> {
        self.store.get(name, bytes_max)
    }

    fn read<'a>(&'a self, name: &'a str, from: u64, bytes: u64) -> Pending<'a, Bytes> {
        self.store.read(name, from, bytes)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Pending<'a, Vec<String>> {
        self.store.list(prefix)
    }

    fn remove<'a>(&'a self, name: &'a str) -> Pending<'a, ()> {
        self.store.remove(name)
    }
}

/// A writer of such a store. Between two of its calls may be hours: an object grows as its capture does.
struct Guarded {
    writer: Box<dyn ObjectWriter>,
    store: Arc<dyn ObjectStore>,
    look: Look,
}

impl ObjectWriter for Guarded {
    fn write(&mut self, bytes: Bytes) -> Pending<'_, ()> {
        Box::pin(async move {
            self.look.at(&*self.store).await?;
            self.writer.write(bytes).await
        })
    }

    fn link(&mut self, path: PathBuf, bytes: u64) -> Pending<'_, bool> {
        Box::pin(async move {
            self.look.at(&*self.store).await?;
            self.writer.link(path, bytes).await
        })
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        self.writer.checkpoint()
    }

    fn settle(&mut self) -> Pending<'_, ()> {
        self.writer.settle()
    }

    fn finish(self: Box<Self>) -> Pending<'static, Stored> {
        Box::pin(async move {
            let Self { writer, store, look } = *self;
            look.at(&*store).await?;
            writer.finish().await
        })
    }

    fn abort(self: Box<Self>) -> Pending<'static, ()> {
        self.writer.abort()
    }
}
