//! Captures that are answered from the history. Owns the look back's job and how many of them there are; not the ring
//! (`history`), nor the recording (`recording`).
//!
//! Invariant: every look back that was accepted ends, and none of its waiting for a disk is the engine's.

use super::recording::Recorder;
use super::{Engine, Note};
use crate::deliver::{Limits, MANIFEST_VERSION, Manifest, manifest_name, object_name};
use crate::engine::Refusal;
use crate::history::{Answer, History, HistoryError, Query};
use crate::job::{AccountId, Job, Kind, Ledger, ObjectInfo, Request, Status, StopReason};
use crate::limits::{LOOK_BACK_RETRY_SECONDS, LOOK_BACKS_MAX, LOOK_BACKS_PER_ACCOUNT_MAX, SIMPLE_SNAPLEN};
use crate::matcher::Filter;
use crate::packet::Key;
use crate::pcap::{Compression, Container, ObjectFormat};
use crate::store::{JobStore, StoreError, Stored};
use crate::upload::{FileStore, ObjectStore};
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// How long a look back waits for the newest segments to reach the disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// The look backs that are not ended.
pub(super) struct LookBacks {
    readers: Arc<Semaphore>,
    /// How many each account has. One that has none is not in here.
    of_accounts: BTreeMap<AccountId, usize>,
}

impl LookBacks {
    pub fn new() -> Self {
        Self { readers: Arc::new(Semaphore::new(LOOK_BACKS_MAX)), of_accounts: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.of_accounts.is_empty()
    }

    /// One more of an account, if it may have one more.
    fn begin(&mut self, account: &AccountId) -> Result<(), Refusal> {
        let underway = self.of_accounts.get(account).copied().unwrap_or(0);
        if underway >= LOOK_BACKS_PER_ACCOUNT_MAX {
            let (max, seconds_left) = (LOOK_BACKS_PER_ACCOUNT_MAX, LOOK_BACK_RETRY_SECONDS);
            return Err(Refusal::TooManyLookBacks { max, seconds_left });
        }
        self.of_accounts.insert(account.clone(), underway + 1);
        Ok(())
    }

    fn end(&mut self, account: &AccountId) {
        let Some(underway) = self.of_accounts.get_mut(account) else { return };
        *underway -= 1;
        if *underway == 0 {
            self.of_accounts.remove(account);
        }
    }
}

/// What a look back needs once the engine let it go.
struct LookBack {
    job: Job,
    query: Query,
    /// Recordings below this number must be in the ring.
    complete_below: u64,
    host: String,
    colo: String,
    queues: u32,
    dir: PathBuf,
    history: Arc<History>,
    jobs: Arc<dyn JobStore>,
    readers: Arc<Semaphore>,
    notes: mpsc::UnboundedSender<Note>,
}

impl Engine {
    /// What an account may see of the history. The one place to ask: live captures of the same account see the same.
    fn visible(&self, account: &AccountId) -> impl Fn(&Key) -> bool + Send + use<> {
        let scope = self.planes.scopes.get(account).cloned();
        move |key| scope.as_ref().is_none_or(|scope| scope.admits(key))
    }

    /// Accepts a capture that is answered from the history.
    pub(super) fn look_back(&mut self, request: Request, reply: oneshot::Sender<Result<Job, Refusal>>) {
        let visible = self.visible(&request.account);
        match self.accept_look_back(request) {
            Ok(look) => drop(tokio::spawn(look.run(visible, reply))),
            // A caller that went away needs no answer.
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    fn accept_look_back(&mut self, request: Request) -> Result<LookBack, Refusal> {
        if self.ending.is_some() {
            return Err(Refusal::ShuttingDown);
        }
        let (Some(recorder), Some(offset)) = (&self.recorder, &request.offset_time) else {
            return Err(Refusal::NoHistory);
        };
        let history = recorder.history();
        let filter = Filter::try_from(&request.filter).map_err(|e| Refusal::Filter(e.to_string()))?;
        let end_ns = u64::try_from(offset.at.as_nanosecond()).unwrap_or(0);
        let window = Duration::from_secs_f64(request.time_limit);
        let query = Query {
            start_ns: end_ns.saturating_sub(u64::try_from(window.as_nanos()).unwrap_or(u64::MAX)),
            end_ns,
            filter,
            packets_max: request
                .packet_limit
                .map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX)),
        };
        self.look_backs.begin(&request.account)?;
        if history.lags(end_ns) {
            self.record();
        }
        Ok(LookBack {
            job: Job::accepted(request, None),
            query,
            complete_below: self.recorder.as_ref().map_or(0, Recorder::newest),
            host: self.planes.host.clone(),
            colo: self.planes.colo.clone(),
            queues: u32::try_from(self.planes.queues.len()).unwrap_or(u32::MAX),
            dir: self.planes.simple_dir.clone(),
            history,
            jobs: Arc::clone(&self.planes.jobs),
            readers: Arc::clone(&self.look_backs.readers),
            notes: self.notes.0.clone(),
        })
    }

    /// A look back is over. `status`: what became of it; none if it could not even be recorded.
    pub(super) fn looked_back(&mut self, account: &AccountId, status: Option<Status>) {
        self.look_backs.end(account);
        if let Some(status) = status {
            self.ended_captures.note(status);
        }
    }
}

/// Asks the store something that may wait for its disk.
async fn stored(
    jobs: &Arc<dyn JobStore>,
    job: &Job,
    write: impl FnOnce(&dyn JobStore, &Job) -> Result<Stored, StoreError> + Send + 'static,
) -> Result<Stored, String> {
    let (jobs, job) = (Arc::clone(jobs), job.clone());
    let written = tokio::task::spawn_blocking(move || write(&*jobs, &job)).await;
    written.map_err(|died| died.to_string())?.map_err(|error| error.to_string())
}

impl LookBack {
    /// Records the job, answers whoever asked for it, looks back, and records what became of it.
    async fn run(
        self,
        visible: impl Fn(&Key) -> bool + Send + 'static,
        reply: oneshot::Sender<Result<Job, Refusal>>,
    ) {
        let (jobs, notes, job) = (Arc::clone(&self.jobs), self.notes.clone(), self.job.clone());
        let account = job.request.account.clone();
        let revision = match stored(&jobs, &job, |jobs, job| jobs.create(job)).await {
            Ok(stored) => stored.revision,
            Err(error) => {
                let _caller_gone = reply.send(Err(Refusal::Store(error)));
                let _engine_gone = notes.send(Note::LookedBack { account, status: None });
                return;
            }
        };
        tracing::info!(capture = %job.id, %account, "look back accepted");
        let _caller_gone = reply.send(Ok(job));
        let readers = Arc::clone(&self.readers);
        let turn = readers.acquire().await;
        let job = self.look(visible).await;
        drop(turn);
        if let Err(error) = stored(&jobs, &job, move |jobs, job| jobs.compare_and_set(revision, job)).await {
            tracing::error!(capture = %job.id, %error, "a capture's state could not be recorded");
        }
        let (status, ledger) = (job.status, &job.ledger);
        tracing::info!(capture = %job.id, ?status, seen = ledger.rx, captured = ledger.captured, "look back ended");
        let _engine_gone = notes.send(Note::LookedBack { account, status: Some(status) });
    }

    /// Asks the history and writes the object and the manifest; returns the ended job.
    async fn look(self, visible: impl Fn(&Key) -> bool + Send + 'static) -> Job {
        let (history, query) = (Arc::clone(&self.history), self.query.clone());
        let complete_below = self.complete_below;
        let asked = tokio::task::spawn_blocking(move || {
            history.wait_for(complete_below, PATIENCE)?;
            let answer = history.look_back(&query, &visible)?;
            Ok::<_, HistoryError>((answer, history.oldest_ns()))
        });
        let answered = match asked.await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(error)) => {
                // Which file it was is for the operator.
                tracing::error!(capture = %self.job.id, %error, "a look back failed");
                Err("this host could not read its history; try again, or ask its operator".to_owned())
            }
            Err(_panicked) => Err("the look back died".to_owned()),
        };
        let job = self.job.clone();
        let result = match answered {
            Ok((answer, oldest_ns)) => self.deliver(answer, oldest_ns).await,
            Err(message) => Err(message),
        };
        result.unwrap_or_else(|message| Job { status: Status::Failed, error_message: Some(message), ..job })
    }

    async fn deliver(self, answer: Answer, oldest_ns: Option<u64>) -> Result<Job, String> {
        let store = FileStore::new(self.dir.clone());
        let (covered, job) = (answer.covered, self.account(&answer, oldest_ns));
        let name = object_name(&job.id, 0, ObjectFormat::default());
        store.put(&name, Bytes::from(answer.pcap)).await.map_err(|e| e.to_string())?;
        let json = self.manifest(&job, covered).to_json().map_err(|e| e.to_string())?;
        store.put(&manifest_name(&job.id), Bytes::from(json)).await.map_err(|e| e.to_string())?;
        Ok(job)
    }

    /// The ended job.
    fn account(&self, answer: &Answer, oldest_ns: Option<u64>) -> Job {
        let mut job = self.job.clone();
        let left_out = answer.matched - answer.captured;
        job.stop_reason = Some(if left_out > 0 { StopReason::PacketLimit } else { StopReason::TimeLimit });
        job.ledger = Ledger {
            offered: answer.seen,
            rx: answer.seen,
            unmatched: answer.seen - answer.matched,
            matched: answer.matched,
            captured: answer.captured,
            captured_bytes: answer.captured_bytes,
            ..Ledger::default()
        };
        job.ledger.dropped.limit = left_out;
        job.sample_one_in = Some(answer.one_in).filter(|n| *n > 1);
        let sha256 = Sha256::digest(&answer.pcap).iter().map(|byte| format!("{byte:02x}")).collect();
        job.objects = vec![ObjectInfo {
            name: object_name(&job.id, 0, ObjectFormat::default()),
            bytes: answer.pcap.len() as u64,
            packets: answer.captured,
            first_ns: answer.first_ns,
            last_ns: answer.last_ns,
            sha256,
            ..ObjectInfo::default()
        }];
        job.status = if answer.captured > 0 { Status::Success } else { Status::Failed };
        if answer.captured == 0 {
            let mut message = super::active::NO_MATCH.to_owned();
            if !answer.covered {
                let oldest = oldest_ns.and_then(time);
                message += &oldest.map_or_else(
                    || " This host's history is empty.".to_owned(),
                    |oldest| format!(" This host's history reaches back to {oldest:.6}."),
                );
            }
            job.error_message = Some(message);
        }
        job
    }

    fn manifest(&self, job: &Job, covered: bool) -> Manifest {
        Manifest {
            version: MANIFEST_VERSION,
            id: job.id.clone(),
            account: Some(job.request.account.clone()),
            host: self.host.clone(),
            colo: self.colo.clone(),
            kind: Kind::Simple,
            filter_v1: job.request.filter.clone(),
            limits: Limits {
                time_limit: job.request.time_limit,
                packet_limit: job.request.packet_limit,
                byte_limit: None,
            },
            submitted: job.submitted,
            started: time(self.query.start_ns),
            ended: time(self.query.end_ns),
            stop_reason: job.stop_reason,
            complete: covered,
            snaplen: SIMPLE_SNAPLEN,
            format: Container::Pcap,
            compression: Compression::None,
            objects: job.objects.clone(),
            ledger: job.ledger,
            queues: self.queues,
            sample_one_in: job.sample_one_in,
            recovered: false,
            counted_until: None,
            offset_time: job.request.offset_time.as_ref().map(|offset| offset.sent.clone()),
        }
    }
}

fn time(ns: u64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(ns)).ok()
}
