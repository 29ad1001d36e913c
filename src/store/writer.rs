//! All writes of jobs, in one task. Owns their order, retries and confirmations; not a job's content.
//!
//! A job's writes keep their order, and the newest state of a job that waits replaces the one before it. A write that fails is
//! retried until the store takes it: a full disk gets space again. Only the first write of a job, for which a client waits, is
//! given up.
//!
//! Invariant: a confirmed state is durable, and the last state of each job is confirmed in the end.

use super::{JobStore, StoreError};
use crate::job::{CaptureId, Job, ObjectInfo, Status};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Between the tries of writes that fail.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Outcome of a write. `ticket` identifies the job for the owner of the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// This version or a newer one is durable; of versions that came close to each other only the newest is confirmed.
    Recorded {
        /// The job.
        ticket: u64,
        /// As it was handed over.
        version: u64,
    },
    /// A write failed and is tried again. Told once for each version.
    Trouble {
        /// The job.
        ticket: u64,
        /// What happened.
        error: String,
    },
    /// A new job was not recorded in time and never will be.
    Refused {
        /// The job.
        ticket: u64,
        /// What happened last.
        error: String,
    },
}

enum Command {
    New { ticket: u64, version: u64, job: Arc<Job>, deadline: Instant },
    Set { ticket: u64, version: u64, job: Arc<Job> },
    Known { ticket: u64, revision: u64 },
    Append(Objects),
}

/// Objects of a job, of which the first one has this number.
#[derive(Clone)]
struct Objects {
    id: CaptureId,
    first: u64,
    objects: Arc<Vec<ObjectInfo>>,
}

/// A handle of the task.
#[derive(Debug)]
pub struct Writer {
    commands: mpsc::UnboundedSender<Command>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

impl Writer {
    /// Starts the task on the current runtime; `confirm` hears of every write.
    pub fn start(jobs: Arc<dyn JobStore>, confirm: impl Fn(Confirmation) + Send + 'static) -> Self {
        let (sender, commands) = mpsc::unbounded_channel();
        let task = tokio::spawn(
            Task { jobs, commands, confirm, entries: BTreeMap::new(), appended: VecDeque::new() }.run(),
        );
        Self { commands: sender, task }
    }

    /// Waits until every pending write succeeded or failed once more, and drops the store.
    pub async fn close(self) {
        drop(self.commands);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that records captures died");
        }
    }

    /// Records a new job, or gives up after `time_max`.
    pub fn create(&self, ticket: u64, version: u64, job: Job, time_max: Duration) {
        self.send(Command::New { ticket, version, job: Arc::new(job), deadline: Instant::now() + time_max });
    }

    /// Records what a job is now.
    pub fn set(&self, ticket: u64, version: u64, job: Job) {
        self.send(Command::Set { ticket, version, job: Arc::new(job) });
    }

    /// Records objects of a job before whatever is recorded of it from now on.
    pub fn append(&self, id: CaptureId, first: u64, objects: Arc<Vec<ObjectInfo>>) {
        self.send(Command::Append(Objects { id, first, objects }));
    }

    /// Sets the revision of a job that another process recorded.
    pub fn known(&self, ticket: u64, revision: u64) {
        self.send(Command::Known { ticket, revision });
    }

    fn send(&self, command: Command) {
        // The task outlives every sender, unless it died, which the owner finds out by the missing confirmation.
        let _task_gone = self.commands.send(command);
    }
}

/// The store's state of a job, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Perhaps nothing.
    New,
    /// This revision.
    At(u64),
    /// Its creation was refused; if the store has it all the same, it must not stay unfinished.
    Refused,
}

struct Pending {
    version: u64,
    job: Arc<Job>,
    deadline: Option<Instant>,
    told: bool,
}

struct Entry {
    known: Known,
    pending: Option<Pending>,
}

struct Task<F> {
    jobs: Arc<dyn JobStore>,
    commands: mpsc::UnboundedReceiver<Command>,
    confirm: F,
    entries: BTreeMap<u64, Entry>,
    /// Objects that wait.
    appended: VecDeque<Objects>,
}

impl<F: Fn(Confirmation) + Send> Task<F> {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let is_waiting =
                !self.appended.is_empty() || self.entries.values().any(|entry| entry.pending.is_some());
            if !is_waiting {
                let Some(command) = self.commands.recv().await else { return };
                self.take(command);
            }
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            if self.write().await {
                pause = PAUSE_MIN;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command),
                    // The owner is gone.
                    None => return,
                }
            }
        }
    }

    fn take(&mut self, command: Command) {
        let (ticket, pending) = match command {
            Command::Known { ticket, revision } => {
                self.entries.insert(ticket, Entry { known: Known::At(revision), pending: None });
                return;
            }
            Command::Append(objects) => return self.appended.push_back(objects),
            Command::New { ticket, version, job, deadline } => {
                (ticket, Pending { version, job, deadline: Some(deadline), told: false })
            }
            Command::Set { ticket, version, job } => {
                (ticket, Pending { version, job, deadline: None, told: false })
            }
        };
        let entry = self.entries.entry(ticket).or_insert(Entry { known: Known::New, pending: None });
        entry.pending = Some(pending);
    }

    /// Records the objects that wait, in order. Whether all are.
    async fn append(&mut self) -> bool {
        while let Some(next) = self.appended.front().cloned() {
            let jobs = Arc::clone(&self.jobs);
            let append = move || jobs.append_objects(&next.id, next.first, &next.objects);
            let appended = match tokio::task::spawn_blocking(append).await {
                Ok(appended) => appended.map_err(|error| error.to_string()),
                Err(died) => Err(format!("the write died: {died}")),
            };
            if let Err(error) = appended {
                tracing::error!(error, "a capture's objects could not be recorded; it is tried again");
                return false;
            }
            self.appended.pop_front();
        }
        true
    }

    /// Tries every pending write once. Whether all succeeded.
    async fn write(&mut self) -> bool {
        if !self.append().await {
            return false;
        }
        let waiting: Vec<_> = self
            .entries
            .iter()
            .filter_map(|(ticket, entry)| {
                let pending = entry.pending.as_ref()?;
                Some((*ticket, pending.version, entry.known, Arc::clone(&pending.job)))
            })
            .collect();
        let (jobs, batch) = (Arc::clone(&self.jobs), waiting.clone());
        let written = tokio::task::spawn_blocking(move || -> Vec<_> {
            batch
                .iter()
                .map(|(_, _, known, job)| write(&*jobs, *known, job).map_err(|e| e.to_string()))
                .collect()
        });
        let written = match written.await {
            Ok(written) => written,
            Err(died) => vec![Err(format!("the write died: {died}")); waiting.len()],
        };
        let mut all = true;
        for ((ticket, version, _, job), result) in waiting.into_iter().zip(written) {
            match result {
                Ok(revision) => self.written(ticket, version, revision, &job),
                Err(error) => {
                    all = false;
                    self.failed(ticket, version, error);
                }
            }
        }
        all
    }

    fn written(&mut self, ticket: u64, version: u64, revision: Option<u64>, job: &Job) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        let was_refused = entry.known == Known::Refused;
        if let Some(revision) = revision {
            entry.known = Known::At(revision);
        }
        entry.pending = None;
        if job.status.ended() {
            self.entries.remove(&ticket);
        }
        if !was_refused {
            (self.confirm)(Confirmation::Recorded { ticket, version });
        }
    }

    fn failed(&mut self, ticket: u64, version: u64, error: String) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        let Some(pending) = entry.pending.as_mut().filter(|pending| pending.version == version) else {
            return;
        };
        let was_told = std::mem::replace(&mut pending.told, true);
        if pending.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            // A failed write may be durable nevertheless.
            let job = Job {
                status: Status::Failed,
                error_message: Some("the capture could not be recorded; ask this host's operator".to_owned()),
                keys: None,
                proof: None,
                ..Job::clone(&pending.job)
            };
            (pending.job, pending.deadline, entry.known) = (Arc::new(job), None, Known::Refused);
            (self.confirm)(Confirmation::Refused { ticket, error });
        } else if !was_told {
            let id = &pending.job.id;
            tracing::error!(capture = %id, error, "a capture's state could not be recorded; it is tried again");
            (self.confirm)(Confirmation::Trouble { ticket, error });
        }
    }
}

/// Writes a job over what the store has of it; the revision that it then has, none if there is nothing to write over.
fn write(jobs: &dyn JobStore, known: Known, job: &Job) -> Result<Option<u64>, StoreError> {
    let over = |revision: u64| match jobs.compare_and_set(revision, job) {
        // This task is a job's only writer: another revision there is its own write that seemed to fail.
        Err(StoreError::Stale { found, .. }) => jobs.compare_and_set(found, job),
        other => other,
    };
    let stored = match known {
        Known::At(revision) => match over(revision) {
            Err(StoreError::Missing(_)) => jobs.create(job),
            other => other,
        },
        Known::New => match jobs.create(job) {
            Err(StoreError::Exists(_)) => over(1),
            other => other,
        },
        Known::Refused => match over(1) {
            Err(StoreError::Missing(_)) => return Ok(None),
            other => other,
        },
    };
    stored.map(|stored| Some(stored.revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{AccountId, CaptureId};
    use crate::store::{Changes, Embedded, Stored};
    use std::sync::atomic::{AtomicU64, Ordering};
    use tempfile::TempDir;

    /// A store of which so many of the next writes fail, before or after they are durable.
    struct Flaky {
        store: Embedded,
        failures: AtomicU64,
        writes: AtomicU64,
        is_durable: bool,
    }

    impl Flaky {
        fn write<T>(&self, write: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            let fails =
                self.failures.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if fails.is_err() {
                return write();
            }
            if self.is_durable {
                write()?;
            }
            Err(StoreError::ShuttingDown)
        }
    }

    impl JobStore for Flaky {
        fn create(&self, job: &Job) -> Result<Stored, StoreError> {
            self.write(|| self.store.create(job))
        }
        fn get(&self, account: &AccountId, id: &CaptureId) -> Result<Option<Stored>, StoreError> {
            self.store.get(account, id)
        }
        fn append_objects(
            &self,
            id: &CaptureId,
            first: u64,
            objects: &[ObjectInfo],
        ) -> Result<(), StoreError> {
            self.write(|| self.store.append_objects(id, first, objects))
        }
        fn list(&self, account: &AccountId, count_max: usize) -> Result<Vec<Stored>, StoreError> {
            JobStore::list(&self.store, account, count_max)
        }
        fn unfinished(&self) -> Result<Vec<Stored>, StoreError> {
            self.store.unfinished()
        }
        fn probe(&self) -> Result<(), StoreError> {
            self.store.probe()
        }
        fn compare_and_set(&self, expected: u64, job: &Job) -> Result<Stored, StoreError> {
            self.write(|| self.store.compare_and_set(expected, job))
        }
        fn watch(&self) -> Changes {
            self.store.watch()
        }
    }

    struct Bench {
        _dir: TempDir,
        store: Arc<Flaky>,
        writer: Writer,
        told: mpsc::UnboundedReceiver<Confirmation>,
    }

    fn bench(failures: u64, is_durable: bool) -> Bench {
        let dir = TempDir::new().unwrap();
        let store = Embedded::open(&dir.path().join("trawl.db")).unwrap();
        let (failures, writes) = (AtomicU64::new(failures), AtomicU64::new(0));
        let store = Arc::new(Flaky { store, failures, writes, is_durable });
        let (tell, told) = mpsc::unbounded_channel();
        let writer = Writer::start(store.clone(), move |confirmation| drop(tell.send(confirmation)));
        Bench { _dir: dir, store, writer, told }
    }

    impl Bench {
        async fn recorded(&mut self, ticket: u64, version: u64) {
            loop {
                match self.told.recv().await.unwrap() {
                    Confirmation::Trouble { .. } => {}
                    told if told == (Confirmation::Recorded { ticket, version }) => return,
                    Confirmation::Recorded { .. } => {}
                    told @ Confirmation::Refused { .. } => panic!("{told:?}"),
                }
            }
        }

        fn stored(&self, job: &Job) -> Option<Job> {
            self.store.get(&job.request.account, &job.id).unwrap().map(|stored| stored.job)
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_write_that_fails_is_tried_again_whether_it_was_durable_or_not() {
        for is_durable in [false, true] {
            let mut bench = bench(3, is_durable);
            let mut job = Job::sample("a", 1);
            bench.writer.create(7, 1, job.clone(), LONG);
            bench.recorded(7, 1).await;
            assert_eq!(bench.stored(&job), Some(job.clone()));
            bench.store.failures.store(3, Ordering::Relaxed);
            job.status = Status::Running;
            bench.writer.set(7, 2, job.clone());
            bench.recorded(7, 2).await;
            assert_eq!(bench.stored(&job), Some(job));
        }
    }

    #[tokio::test]
    async fn the_newest_state_of_a_job_wins_and_those_that_waited_are_not_written() {
        let mut bench = bench(2, false);
        let mut job = Job::sample("a", 1);
        bench.writer.create(7, 1, job.clone(), LONG);
        bench.recorded(7, 1).await;
        let before = bench.store.writes.load(Ordering::Relaxed);
        for version in 2..=1000 {
            job.error_message = Some(format!("{version}"));
            bench.writer.set(7, version, job.clone());
        }
        bench.recorded(7, 1000).await;
        assert_eq!(bench.stored(&job), Some(job));
        let writes = bench.store.writes.load(Ordering::Relaxed) - before;
        assert!(writes < 500, "{writes} writes");
    }

    #[tokio::test]
    async fn a_job_that_cannot_be_recorded_in_time_is_refused_and_does_not_stay_unfinished() {
        for is_durable in [false, true] {
            let mut bench = bench(4, is_durable);
            let job = Job::sample("a", 1);
            bench.writer.create(7, 1, job.clone(), Duration::ZERO);
            let told = bench.told.recv().await.unwrap();
            assert!(matches!(told, Confirmation::Refused { ticket: 7, .. }), "{told:?}");
            // Another one goes through once the store takes writes again, and so did the end of the first.
            let other = Job::sample("a", 2);
            bench.writer.create(8, 1, other.clone(), LONG);
            bench.recorded(8, 1).await;
            while bench.store.failures.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut last = other;
            last.status = Status::Running;
            bench.writer.set(8, 2, last);
            bench.recorded(8, 2).await;
            let unfinished: Vec<_> =
                bench.store.unfinished().unwrap().into_iter().map(|s| s.job.id).collect();
            assert!(!unfinished.contains(&job.id), "durable {is_durable}");
        }
    }

    #[tokio::test]
    async fn a_job_of_another_process_is_written_over_its_revision() {
        let mut bench = bench(0, false);
        let mut job = Job::sample("a", 1);
        let stored = bench.store.store.create(&job).unwrap();
        bench.writer.known(3, stored.revision);
        job.status = Status::Failed;
        bench.writer.set(3, 1, job.clone());
        bench.recorded(3, 1).await;
        assert_eq!(bench.stored(&job), Some(job));
    }
}
