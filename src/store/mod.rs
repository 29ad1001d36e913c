//! Durable jobs and buckets. Owns the [`JobStore`] and [`BucketStore`] traits, their error and the embedded database behind
//! them; not what a job or a bucket goes through.
//!
//! Invariant: when a method that writes has returned `Ok`, what it wrote survives a power cut.

mod bucket;
#[cfg(test)]
mod conformance;
mod embedded;
mod page;
mod record;
mod watch;
mod writer;

pub use bucket::{Bucket, BucketStore};
pub use embedded::{BackupError, Embedded, HiddenFile};
pub use page::{Page, PageQuery};
pub use watch::{Changes, Missed};
pub use writer::{Confirmation, Writer};

use crate::job::{AccountId, CaptureId, Job, ObjectInfo, ObjectRange};
use std::path::{Path, PathBuf};

/// A job and how often it was written; a writer names the revision that it has read.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// 1 after [`JobStore::create`], one more after each [`JobStore::compare_and_set`].
    pub revision: u64,
    /// The job as it was last written.
    pub job: Job,
}

/// Where jobs outlive the process. Calls block: a write waits for the disk (about 0.3 ms on NVMe), a read does not.
pub trait JobStore: Send + Sync {
    /// Records a new job at revision 1.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when its id is taken; others when it could not be recorded.
    fn create(&self, job: &Job) -> Result<Stored, StoreError>;

    /// One job of an account; `None` also when it is another account's. Of more objects than a record holds it has the sums.
    ///
    /// # Errors
    /// When the record cannot be read.
    fn get(&self, account: &AccountId, id: &CaptureId) -> Result<Option<Stored>, StoreError>;

    /// Those of a job's complete objects that are in the range; none if the account has no such job.
    ///
    /// # Errors
    /// When they cannot be read.
    fn objects(
        &self,
        account: &AccountId,
        id: &CaptureId,
        range: ObjectRange,
    ) -> Result<Vec<ObjectInfo>, StoreError> {
        let found = self.get(account, id)?;
        Ok(found.map(|stored| range.of(&stored.job.objects).to_vec()).unwrap_or_default())
    }

    /// Records objects beside the record of their job, which has not ended: full rows of [`crate::limits::RECORD_OBJECTS_MAX`], of which the
    /// first one has number `first`. Again is as good as once.
    ///
    /// # Errors
    /// When they could not be recorded.
    fn append_objects(&self, id: &CaptureId, first: u64, objects: &[ObjectInfo]) -> Result<(), StoreError>;

    /// An account's jobs, newest first (by `submitted`, then id), at most `count_max`.
    ///
    /// # Errors
    /// When a record cannot be read.
    fn list(&self, account: &AccountId, count_max: usize) -> Result<Vec<Stored>, StoreError>;

    /// A page of an account's jobs, newest first.
    ///
    /// # Errors
    /// When a record cannot be read.
    fn page(&self, account: &AccountId, query: &PageQuery<'_>) -> Result<Page, StoreError> {
        let mut all = self.list(account, page::LOOKED_AT_MAX)?;
        let total = all.iter().filter(|one| query.admits(&one.job)).count() as u64;
        if let Some(before) = query.before {
            all.retain(|one| (one.job.submitted, &one.job.id) < (before.submitted, &before.id));
        }
        let (mut jobs, mut looked_at) = (Vec::new(), None);
        for one in all {
            if jobs.len() >= query.count_max {
                return Ok(Page { jobs, next: looked_at, total });
            }
            looked_at = Some(one.job.id.clone());
            if query.admits(&one.job) {
                jobs.push(one);
            }
        }
        Ok(Page { jobs, next: None, total })
    }

    /// The jobs of all accounts that have not ended, in no particular order.
    ///
    /// # Errors
    /// When a record cannot be read.
    fn unfinished(&self) -> Result<Vec<Stored>, StoreError>;

    /// Whether the store takes writes now, found out by one that changes no job.
    ///
    /// # Errors
    /// What a job's write would fail with.
    fn probe(&self) -> Result<(), StoreError>;

    /// Writes `job` over revision `expected` of the same id and returns it with its new revision.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when another revision is stored, [`StoreError::Missing`] when none is,
    /// [`StoreError::Moved`] when `job` has another account or time of submission than the stored one.
    fn compare_and_set(&self, expected: u64, job: &Job) -> Result<Stored, StoreError>;

    /// Every job that is written from now on, by any process. Subscribe before listing and no change is missed.
    fn watch(&self) -> Changes;
}

/// The socket at which the process that has a store gives copies of it.
#[must_use]
pub fn backup_socket(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".backup");
    name.into()
}

/// Why the store could not be opened or a job not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the file.
    #[error(
        "the job database {path} is in use by another process; end the other trawl, or set store.path to a file of its own"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// This user may not open or create the file.
    #[error(
        "may not open the job database {path}: {source}; give it and its directory to the user that runs trawl"
    )]
    Permission {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's directory does not exist.
    #[error("no directory for the job database {path}; create it, or change store.path")]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The file is no job database, or one whose contents are damaged.
    #[error(
        "the job database {path} is damaged or no job database: {detail}; move it aside (trawl then starts with no jobs) or restore a copy"
    )]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Anything else that went wrong while opening it.
    #[error("could not open the job database {path}: {detail}; check the disk that it lies on")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the database said.
        detail: String,
    },
    /// A read or write of an open database failed.
    #[error("the job database failed: {0}; check the disk that it lies on")]
    Database(#[source] Box<redb::Error>),
    /// A record was written by a version of trawl that this one does not know.
    #[error(
        "job {id} is a record of version {version}, this trawl reads version {known}; run the trawl that wrote it"
    )]
    Version {
        /// The job.
        id: String,
        /// The record's version.
        version: u64,
        /// The only version that can be read.
        known: u64,
    },
    /// A record is not what we write.
    #[error("the record of job {id} cannot be read: {detail}; restore a copy of the job database")]
    Record {
        /// The job.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// What the nodes of a fleet share cannot be reached, or was not in time: it may have been written.
    #[error("{0}")]
    Away(String),
    /// Who asked went away meanwhile.
    #[error("nobody waits for this answer of the job database any more; ask again")]
    GivenUp,
    /// A job with this id exists.
    #[error("job {0} exists already")]
    Exists(CaptureId),
    /// There is no job with this id.
    #[error("no job {0} is stored")]
    Missing(CaptureId),
    /// Somebody else wrote the job since it was read.
    #[error("job {id} is at revision {found}, not {expected}; read it again")]
    Stale {
        /// The job.
        id: CaptureId,
        /// The revision that the writer had read.
        expected: u64,
        /// The revision that is stored.
        found: u64,
    },
    /// The runtime ended while the call waited.
    #[error("this host is shutting down")]
    ShuttingDown,
    /// The bucket's entry was written or removed since it was read.
    #[error("the entry of bucket {0} has changed; read it again")]
    BucketStale(String),
    /// An account has as many buckets as it may.
    #[error("this account has {0} buckets, which is all that it may have; delete one")]
    BucketsFull(usize),
    /// A write would change what the job is listed under.
    #[error("job {0} cannot change its account or its time of submission")]
    Moved(CaptureId),
}
