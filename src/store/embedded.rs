//! Jobs in one `redb` file. Owns the tables, the locking of the file and the meaning of open errors.
//!
//! Invariant: the tables of jobs change in one transaction, so every job is in `JOBS`, `BY_TIME` and `OWNED`, and in
//! `UNFINISHED` exactly until it ended. Nothing of a record is read for an account that does not own it.

mod backup;
mod beside;
mod buckets;

pub use backup::{BackupError, HiddenFile};

use super::page::LOOKED_AT_MAX;
use super::{Changes, JobStore, Page, PageQuery, StoreError, Stored, record};
use crate::job::{AccountId, CaptureId, Job, ObjectInfo, ObjectRange};
use jiff::Timestamp;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, StorageBackend, StorageError, TableDefinition, WriteTransaction,
};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::broadcast;

/// Capture id → record.
const JOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("jobs");
/// (account, submitted in µs since the UNIX epoch, capture id): the newest of an account are the end of a range.
const BY_TIME: TableDefinition<(&str, i64, &str), ()> = TableDefinition::new("jobs_by_time");
/// (account, capture id): whether a job is an account's is known before its record is read, so that looking for another's
/// takes as long as looking for none.
const OWNED: TableDefinition<(&str, &str), ()> = TableDefinition::new("jobs_by_account");
/// Capture ids of jobs that have not ended, so that a restart does not read all that ever were.
const UNFINISHED: TableDefinition<&str, ()> = TableDefinition::new("jobs_unfinished");

/// (account, bucket id) → record.
const BUCKETS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("buckets");

/// What the store knows of its host, by name.
const HOST: TableDefinition<&str, &str> = TableDefinition::new("host");

/// In [`HOST`]: the spool whose captures these are.
const SPOOL: &str = "spool";

/// One empty row, written to find out whether anything can be.
const PROBE: TableDefinition<(), ()> = TableDefinition::new("probe");

/// Page cache. redb's default of 1 GiB is meant for a main database; jobs are about 1 KiB each.
const CACHE_BYTES: usize = 16 << 20;

/// Jobs that are forgotten in one transaction: a write of others waits for it.
const PRUNED_MAX: usize = 1000;

/// Changes that a watcher may be behind: about ten times what all capture slots go through at once.
const CHANGES_MAX: usize = 1024;

/// Opens the database; the flag says whether it may be made.
type Open = dyn Fn(&Path, bool) -> Result<Database, StoreError> + Send + Sync;

/// Jobs in an embedded database file of mode 0600.
///
/// After an error of the disk redb refuses everything until it is opened again. That is done here, with the next call: a disk
/// that was full and has room again needs no restart.
pub struct Embedded {
    path: PathBuf,
    /// None while it could not be opened again.
    database: RwLock<Option<Database>>,
    /// An error of the disk was seen since it was opened.
    is_broken: AtomicBool,
    open: Box<Open>,
    /// Held from a job's write to its announcement, so that changes are told in the order in which they were written.
    changes: Mutex<broadcast::Sender<Arc<Stored>>>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedded({})", self.path.display())
    }
}

impl Embedded {
    /// Opens the database at `path`, creates it when there is none, and repairs it when the last process died in a write.
    /// Every page is verified: a damaged file must be an error here, not a surprise later.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Permission`], [`StoreError::NoDirectory`], [`StoreError::Corrupted`] and
    /// [`StoreError::Open`], each with what to do.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        create_if_missing(path)?;
        Self::open_by(path, |path, check| {
            let backend = FileBackend::new(open_file(path, path)?);
            backend
                .and_then(|backend| database(backend, check))
                .map_err(|error| open_error(path.to_owned(), error))
        })
    }

    /// `open`: opens the file, and checks every page if asked to.
    fn open_by(
        path: &Path,
        open: impl Fn(&Path, bool) -> Result<Database, StoreError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let database = open(path, true)?;
        let store = Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            is_broken: AtomicBool::new(false),
            open: Box::new(open),
            changes: Mutex::new(broadcast::channel(CHANGES_MAX).0),
        };
        store.create_tables().map_err(|error| match error {
            StoreError::Database(error) => {
                StoreError::Corrupted { path: path.to_owned(), detail: error.to_string() }
            }
            other => other,
        })?;
        sync_directory(path)
            .map_err(|error| StoreError::Open { path: path.to_owned(), detail: error.to_string() })?;
        Ok(store)
    }

    /// Does something with the open database. After an error of the disk the next call opens it again.
    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.reopen_if_broken()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let closed = || StoreError::Open {
            path: self.path.clone(),
            detail: "it could not be opened again".to_owned(),
        };
        let result = act(database.as_ref().ok_or_else(closed)?);
        if let Err(StoreError::Database(error)) = &result
            && matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo)
        {
            self.is_broken.store(true, Ordering::Release);
        }
        result
    }

    fn reopen_if_broken(&self) -> Result<(), StoreError> {
        if !self.is_broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if !self.is_broken.load(Ordering::Acquire) {
            return Ok(());
        }
        // Its lock on the file goes with it.
        drop(database.take());
        *database = Some((self.open)(&self.path, false)?);
        self.is_broken.store(false, Ordering::Release);
        tracing::warn!(path = %self.path.display(), "the job database was opened again after an error of the disk");
        Ok(())
    }

    /// Reads within one transaction.
    fn read<T>(&self, act: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|database| act(&database.begin_read().map_err(failed)?))
    }

    /// Reads need no case for a missing table; a file with foreign tables of these names fails here.
    fn create_tables(&self) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(JOBS).map_err(failed)?;
            let by_time = transaction.open_table(BY_TIME).map_err(failed)?;
            let mut owned = transaction.open_table(OWNED).map_err(failed)?;
            // A database of a version without this table.
            if owned.is_empty().map_err(failed)? {
                for entry in by_time.iter().map_err(failed)? {
                    let (key, _) = entry.map_err(failed)?;
                    let (account, _, id) = key.value();
                    owned.insert((account, id), ()).map_err(failed)?;
                }
            }
            drop((by_time, owned));
            transaction.open_table(UNFINISHED).map_err(failed)?;
            transaction.open_table(BUCKETS).map_err(failed)?;
            transaction.open_table(HOST).map_err(failed)?;
            beside::create(transaction)
        })
    }

    /// Forgets an account's ended jobs beyond the newest `count_max`, and those that were submitted before `before`; not those
    /// that `is_needed`. How many they were; at most [`PRUNED_MAX`] at once.
    ///
    /// # Errors
    /// When they cannot be read or written; then none is forgotten.
    pub fn prune(
        &self,
        account: &AccountId,
        count_max: usize,
        before: Timestamp,
        is_needed: &dyn Fn(&CaptureId) -> bool,
    ) -> Result<usize, StoreError> {
        let old = self.read(|transaction| {
            let by_time = transaction.open_table(BY_TIME).map_err(failed)?;
            let unfinished = transaction.open_table(UNFINISHED).map_err(failed)?;
            let account = account.0.as_str();
            let range = (account, i64::MIN, "")..(account, i64::MAX, "");
            let count = by_time.range(range.clone()).map_err(failed)?.count();
            let mut old = Vec::new();
            for (at, entry) in by_time.range(range).map_err(failed)?.enumerate() {
                let (key, _) = entry.map_err(failed)?;
                let (_, submitted, id) = key.value();
                let is_old = count - at > count_max || submitted < before.as_microsecond();
                if !is_old || old.len() == PRUNED_MAX {
                    break;
                }
                let is_needed = CaptureId::parse(id).is_none_or(|id| is_needed(&id));
                if !is_needed && unfinished.get(id).map_err(failed)?.is_none() {
                    old.push((submitted, id.to_owned()));
                }
            }
            Ok(old)
        })?;
        if old.is_empty() {
            return Ok(0);
        }
        self.write(|transaction| {
            let mut jobs = transaction.open_table(JOBS).map_err(failed)?;
            let mut by_time = transaction.open_table(BY_TIME).map_err(failed)?;
            let mut owned = transaction.open_table(OWNED).map_err(failed)?;
            let account = account.0.as_str();
            for (submitted, id) in &old {
                jobs.remove(id.as_str()).map_err(failed)?;
                by_time.remove((account, *submitted, id.as_str())).map_err(failed)?;
                owned.remove((account, id.as_str())).map_err(failed)?;
                beside::remove(transaction, id)?;
            }
            Ok(old.len())
        })
    }

    /// The name of the spool whose captures these are, once it was told.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn spool(&self) -> Result<Option<String>, StoreError> {
        self.read(|transaction| {
            let host = transaction.open_table(HOST).map_err(failed)?;
            Ok(host.get(SPOOL).map_err(failed)?.map(|id| id.value().to_owned()))
        })
    }

    /// Remembers the name of the spool.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_spool(&self, id: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(HOST).map_err(failed)?.insert(SPOOL, id).map_err(failed)?;
            Ok(())
        })
    }

    /// As [`Embedded::spool`], of the database at `path`, which is neither made nor changed; none also when it cannot be read
    /// without: because another process has it, or its last one was killed.
    #[must_use]
    pub fn spool_of(path: &Path) -> Option<String> {
        let transaction = ReadOnlyDatabase::open(path).ok()?.begin_read().ok()?;
        Some(transaction.open_table(HOST).ok()?.get(SPOOL).ok()??.value().to_owned())
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let transaction = database.begin_write().map_err(failed)?;
            let written = change(&transaction)?;
            transaction.commit().map_err(failed)?;
            Ok(written)
        })
    }

    /// Writes a job and tells those who watch.
    fn write_job(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<Stored, StoreError>,
    ) -> Result<Stored, StoreError> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = self.write(change)?;
        let _nobody_watches = changes.send(Arc::new(stored.clone()));
        Ok(stored)
    }
}

impl JobStore for Embedded {
    fn probe(&self) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(PROBE).map_err(failed)?.insert((), ()).map_err(failed)?;
            Ok(())
        })
    }

    fn create(&self, job: &Job) -> Result<Stored, StoreError> {
        self.write_job(|transaction| {
            let revision = 1;
            if transaction.open_table(JOBS).map_err(failed)?.get(job.id.as_str()).map_err(failed)?.is_some() {
                return Err(StoreError::Exists(job.id.clone()));
            }
            let stored = put(transaction, revision, job)?;
            transaction
                .open_table(OWNED)
                .map_err(failed)?
                .insert((job.request.account.0.as_str(), job.id.as_str()), ())
                .map_err(failed)?;
            transaction
                .open_table(BY_TIME)
                .map_err(failed)?
                .insert((job.request.account.0.as_str(), job.submitted.as_microsecond(), job.id.as_str()), ())
                .map_err(failed)?;
            Ok(stored)
        })
    }

    fn objects(
        &self,
        account: &AccountId,
        id: &CaptureId,
        range: ObjectRange,
    ) -> Result<Vec<ObjectInfo>, StoreError> {
        let Some(Stored { job, .. }) = self.get(account, id)? else { return Ok(Vec::new()) };
        if job.objects_beside.is_none() && !job.objects.is_empty() {
            return Ok(range.of(&job.objects).to_vec());
        }
        self.read(|transaction| beside::read(transaction, id.as_str(), range))
    }

    fn append_objects(&self, id: &CaptureId, first: u64, objects: &[ObjectInfo]) -> Result<(), StoreError> {
        self.write(|transaction| beside::append(transaction, id.as_str(), first, objects))
    }

    fn get(&self, account: &AccountId, id: &CaptureId) -> Result<Option<Stored>, StoreError> {
        self.read(|transaction| {
            let owned = transaction.open_table(OWNED).map_err(failed)?;
            if owned.get((account.0.as_str(), id.as_str())).map_err(failed)?.is_none() {
                return Ok(None);
            }
            let jobs = transaction.open_table(JOBS).map_err(failed)?;
            read(&jobs, id.as_str())?.map(Some).ok_or_else(|| no_record(id.as_str()))
        })
    }

    fn list(&self, account: &AccountId, count_max: usize) -> Result<Vec<Stored>, StoreError> {
        self.read(|transaction| {
            let jobs = transaction.open_table(JOBS).map_err(failed)?;
            let by_time = transaction.open_table(BY_TIME).map_err(failed)?;
            let account = account.0.as_str();
            // No job was submitted in the last microsecond that an i64 can name, so the open end loses none.
            let range = (account, i64::MIN, "")..(account, i64::MAX, "");
            let mut list = Vec::with_capacity(count_max);
            for entry in by_time.range(range).map_err(failed)?.rev().take(count_max) {
                let (key, _) = entry.map_err(failed)?;
                let (_, _, id) = key.value();
                list.push(read(&jobs, id)?.ok_or_else(|| no_record(id))?);
            }
            Ok(list)
        })
    }

    fn page(&self, account: &AccountId, query: &PageQuery<'_>) -> Result<Page, StoreError> {
        self.read(|transaction| {
            let jobs = transaction.open_table(JOBS).map_err(failed)?;
            let by_time = transaction.open_table(BY_TIME).map_err(failed)?;
            let account = account.0.as_str();
            let all = || by_time.range((account, i64::MIN, "")..(account, i64::MAX, "")).map_err(failed);
            let mut page = Page::default();
            if query.is_wanted.is_none() {
                page.total = all()?.count() as u64;
            } else {
                for entry in all()?.rev().take(LOOKED_AT_MAX) {
                    query.go_on()?;
                    let (key, _) = entry.map_err(failed)?;
                    let (_, _, id) = key.value();
                    let stored = read(&jobs, id)?.ok_or_else(|| no_record(id))?;
                    page.total += u64::from(query.admits(&stored.job));
                }
            }
            let end =
                query.before.map_or((i64::MAX, ""), |job| (job.submitted.as_microsecond(), job.id.as_str()));
            let range = (account, i64::MIN, "")..(account, end.0, end.1);
            let mut looked_at = None;
            for (n, entry) in by_time.range(range).map_err(failed)?.rev().enumerate() {
                if page.jobs.len() >= query.count_max || n >= LOOKED_AT_MAX {
                    page.next = looked_at;
                    break;
                }
                query.go_on()?;
                let (key, _) = entry.map_err(failed)?;
                let (_, _, id) = key.value();
                let stored = read(&jobs, id)?.ok_or_else(|| no_record(id))?;
                looked_at = Some(stored.job.id.clone());
                if query.admits(&stored.job) {
                    page.jobs.push(stored);
                }
            }
            Ok(page)
        })
    }

    fn unfinished(&self) -> Result<Vec<Stored>, StoreError> {
        self.read(|transaction| {
            let jobs = transaction.open_table(JOBS).map_err(failed)?;
            let unfinished = transaction.open_table(UNFINISHED).map_err(failed)?;
            let mut list = Vec::new();
            for entry in unfinished.iter().map_err(failed)? {
                let (key, _) = entry.map_err(failed)?;
                list.push(read(&jobs, key.value())?.ok_or_else(|| no_record(key.value()))?);
            }
            Ok(list)
        })
    }

    fn compare_and_set(&self, expected: u64, job: &Job) -> Result<Stored, StoreError> {
        self.write_job(|transaction| {
            let found = read(&transaction.open_table(JOBS).map_err(failed)?, job.id.as_str())?
                .ok_or_else(|| StoreError::Missing(job.id.clone()))?;
            if found.revision != expected {
                return Err(StoreError::Stale { id: job.id.clone(), expected, found: found.revision });
            }
            if found.job.submitted != job.submitted || found.job.request.account != job.request.account {
                return Err(StoreError::Moved(job.id.clone()));
            }
            put(transaction, expected + 1, job)
        })
    }

    fn watch(&self) -> Changes {
        Changes::new(self.changes.lock().unwrap_or_else(PoisonError::into_inner).subscribe())
    }
}

/// Writes a job, and beside it the objects that are too many for its record: what is read of it again.
fn put(transaction: &WriteTransaction, revision: u64, job: &Job) -> Result<Stored, StoreError> {
    let id = job.id.as_str();
    let job = beside::split(transaction, job)?;
    let bytes = record::encode(revision, &job)?;
    transaction.open_table(JOBS).map_err(failed)?.insert(id, bytes.as_slice()).map_err(failed)?;
    let mut unfinished = transaction.open_table(UNFINISHED).map_err(failed)?;
    if job.status.ended() {
        unfinished.remove(id).map_err(failed)?;
    } else {
        unfinished.insert(id, ()).map_err(failed)?;
    }
    Ok(Stored { revision, job: job.into_owned() })
}

fn read(
    jobs: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &str,
) -> Result<Option<Stored>, StoreError> {
    jobs.get(id).map_err(failed)?.map(|bytes| record::decode(id, bytes.value())).transpose()
}

fn no_record(id: &str) -> StoreError {
    StoreError::Record { id: id.to_owned(), detail: "it is indexed but not there".to_owned() }
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(Box::new(error.into()))
}

fn database(backend: impl StorageBackend, check: bool) -> Result<Database, DatabaseError> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(check);
    builder.create_with_backend(backend)
}

/// Makes an empty database where there is none. It gets its name once it is whole: every later start would refuse a file that a
/// killed process left half made.
fn create_if_missing(path: &Path) -> Result<(), StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let half = PathBuf::from(name);
    let _none = fs::remove_file(&half);
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let file = open_file(&half, path)?;
    let made = file.try_clone().map_err(DatabaseError::from).and_then(|whole| {
        drop(database(FileBackend::new(file)?, false)?);
        Ok(whole.sync_all()?)
    });
    made.map_err(|error| open_error(path.to_owned(), error))?;
    // A link and no rename, which would take the name from one that another process has just made.
    let named = match fs::hard_link(&half, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        named => named,
    };
    let _at_the_next_start = fs::remove_file(&half);
    named.map_err(|error| StoreError::Open { path: path.to_owned(), detail: error.to_string() })
}

/// The file itself, readable by its owner only: jobs name accounts, filters and buckets. `path` is what errors name.
fn open_file(file: &Path, path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(file).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::Permission { path: path.to_owned(), source: error }
        }
        ErrorKind::NotFound => StoreError::NoDirectory { path: path.to_owned() },
        _ => StoreError::Open { path: path.to_owned(), detail: error.to_string() },
    })
}

/// A new file's name is durable only once its directory is.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn open_error(path: PathBuf, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse { path }
        }
        DatabaseError::Storage(StorageError::Corrupted(detail)) => StoreError::Corrupted { path, detail },
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            StoreError::Corrupted { path, detail: error.to_string() }
        }
        DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted => {
            StoreError::Corrupted { path, detail: error.to_string() }
        }
        other => StoreError::Open { path, detail: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
