//! Files of simple captures as every API node has them: from the bus. Owns the reading; leads write them.
//!
//! Invariant: a file is the one that was published, or none.

use crate::api::{Opening, ResultFile, Results};
use crate::bus::Bus;
use crate::upload::{Checkpoint, ObjectStore, ObjectWriter, Pending, Resumed, Sweep, UploadError};
use bytes::Bytes;
use std::io::{self, Cursor};
use std::sync::Arc;

/// The results of a fleet.
#[derive(Clone)]
pub struct FleetResults(pub Arc<dyn Bus>);

impl FleetResults {
    async fn whole(&self, name: &str) -> Result<Option<Bytes>, UploadError> {
        match self.0.kept(name).await {
            Ok(found) => Ok(found.map(Bytes::from)),
            Err(away) => Err(UploadError::Unreachable {
                place: format!("the fleet's {name}"),
                seconds: 0,
                detail: away.to_string(),
            }),
        }
    }

    async fn there(&self, name: &str) -> Result<Bytes, UploadError> {
        self.whole(name).await?.ok_or_else(|| UploadError::NotFound { place: name.to_owned() })
    }
}

impl Results for FleetResults {
    fn open<'a>(&'a self, name: &'a str) -> Opening<'a> {
        Box::pin(async move {
            let found = self.0.kept(name).await.map_err(io::Error::other)?;
            let bytes = found.ok_or(io::ErrorKind::NotFound)?;
            let len = bytes.len() as u64;
            Ok((Box::new(Cursor::new(bytes)) as Box<dyn ResultFile>, len))
        })
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.clone())
    }
}

/// To write is the leads' alone, by the bus.
fn no_writer<'a, T: Send + 'a>(name: &str) -> Pending<'a, T> {
    let refused = UploadError::Exists { place: format!("the fleet's {name}") };
    Box::pin(std::future::ready(Err(refused)))
}

impl ObjectStore for FleetResults {
    fn probe(&self) -> Pending<'_, ()> {
        no_writer("results")
    }

    fn begin<'a>(&'a self, name: &'a str) -> Pending<'a, Box<dyn ObjectWriter>> {
        no_writer(name)
    }

    fn resume<'a>(&'a self, name: &'a str, _: &'a Checkpoint) -> Pending<'a, Resumed> {
        no_writer(name)
    }

    fn sweep<'a>(&'a self, _: Sweep<'a>) -> Pending<'a, u32> {
        Box::pin(std::future::ready(Ok(0)))
    }

    fn size<'a>(&'a self, name: &'a str) -> Pending<'a, Option<u64>> {
        Box::pin(async move { Ok(self.whole(name).await?.map(|bytes| bytes.len() as u64)) })
    }

    /// What is published is published once, so its name says it.
    fn mark<'a>(&'a self, name: &'a str) -> Pending<'a, Option<String>> {
        Box::pin(async move { Ok(self.whole(name).await?.map(|_| name.to_owned())) })
    }

    fn get<'a>(&'a self, name: &'a str, bytes_max: u64) -> Pending<'a, Bytes> {
        Box::pin(async move {
            let bytes = self.there(name).await?;
            Ok(bytes.slice(..bytes.len().min(usize::try_from(bytes_max).unwrap_or(usize::MAX))))
        })
    }

    fn read<'a>(&'a self, name: &'a str, from: u64, bytes: u64) -> Pending<'a, Bytes> {
        Box::pin(async move {
            let whole = self.there(name).await?;
            let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
            Ok(whole.slice(within(from)..within(from.saturating_add(bytes))))
        })
    }

    /// Nobody looks for results without knowing their names.
    fn list<'a>(&'a self, prefix: &'a str) -> Pending<'a, Vec<String>> {
        no_writer(prefix)
    }

    fn remove<'a>(&'a self, name: &'a str) -> Pending<'a, ()> {
        no_writer(name)
    }
}
