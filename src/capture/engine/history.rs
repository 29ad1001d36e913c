//! The engine's part in the history: the recording that never ends, and captures that are answered from it. Owns when a
//! recording is begun anew and the look back's job; not the ring (`history`).
//!
//! What is in an open segment cannot be read. So when somebody looks back at the last seconds, the recording is begun
//! anew under another number, which makes the workers close all its segments, and the query waits until they are there.
//!
//! Invariant: the recording has the last slot, and every look back that was accepted ends.

use super::planes::Wanted;
use super::{Engine, Note};
use crate::capture::{AccountId, Job, Kind, Ledger, ObjectInfo, Refusal, Request, Status, StopReason};
use crate::history::{Answer, History, HistoryError, Query};
use crate::limits::{CAPTURES_MAX, LOOK_BACKS_MAX, SIMPLE_SNAPLEN};
use crate::matcher::Filter;
use crate::merge::{Compression, Container, ObjectFormat};
use crate::packet::Key;
use crate::spool::SpoolCapture;
use crate::upload::{FileStore, Limits, MANIFEST_VERSION, Manifest, ObjectStore, manifest_name, object_name};
use crate::worker::{Attachment, Budget, Ended};
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The recording's slot; captures take theirs from the other end.
const SLOT: usize = CAPTURES_MAX - 1;
/// After a failure (quota, disk) the recording is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// How long a look back waits for the newest segments to reach the disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// The recording.
pub(super) struct Recorder {
    history: Arc<History>,
    serial: u64,
    budget: Arc<Budget>,
    failed: Option<Instant>,
    readers: Arc<Semaphore>,
    /// Look backs that are not ended.
    pub looking: usize,
}

impl Recorder {
    pub fn new(history: Arc<History>) -> Self {
        let readers = Arc::new(Semaphore::new(LOOK_BACKS_MAX));
        Self {
            history,
            serial: 0,
            budget: Arc::new(Budget::new(None, None)),
            failed: None,
            readers,
            looking: 0,
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
}

impl Engine {
    /// Begins the recording, or begins it anew; what it has so far goes into the ring.
    pub(super) fn record(&mut self) {
        let Some(mut recorder) = self.recorder.take() else { return };
        if self.ending.is_none() {
            self.last_serial += 1;
            recorder.serial = self.last_serial;
            recorder.failed = None;
            match self.attach(&mut recorder) {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%error, "the history is not recorded");
                    recorder.budget.end(Ended::Revoked);
                    recorder.failed = Some(Instant::now());
                }
            }
        }
        self.recorder = Some(recorder);
    }

    fn attach(&mut self, recorder: &mut Recorder) -> Result<(), HistoryError> {
        let (history, serial) = (&recorder.history, recorder.serial);
        let merge = history.record(serial, self.planes.queues.len())?;
        let budget = Arc::new(Budget::new(None, None));
        let stopping = Arc::clone(&budget);
        let dir = history.open_dir(serial);
        let capture = SpoolCapture {
            serial,
            dir: dir.clone(),
            merge,
            // What the spool says is said to the log by the closure below.
            events: mpsc::unbounded_channel().0,
            stop_workers: Box::new(move |failure| {
                if stopping.ended().is_none() {
                    tracing::error!(error = failure.message(), "the history is not recorded for a while");
                }
                stopping.end(Ended::Revoked);
            }),
            refused: OnceLock::new(),
        };
        self.planes.spool.register(capture).map_err(|source| HistoryError::Dir { dir, source })?;
        recorder.budget = Arc::clone(&budget);
        let config = history.config();
        let attachment = Attachment {
            serial,
            snaplen: SIMPLE_SNAPLEN,
            end_ns: u64::MAX,
            budget,
            sample: config.sample,
            rotate: Some(config.segment),
        };
        self.roster.set(SLOT, Some(Wanted { filter: Filter::default(), scope: None, attachment }));
        Ok(())
    }

    /// Looks after the recording: one that failed is tried again.
    pub(super) fn look_after_recording(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        if recorder.budget.ended().is_some() {
            let failed = *recorder.failed.get_or_insert_with(Instant::now);
            if failed.elapsed() >= RETRY {
                self.record();
            }
        }
    }

    /// Ends the recording: the workers close its segments.
    pub(super) fn end_recording(&mut self) {
        if self.recorder.is_some() {
            self.roster.set(SLOT, None);
        }
    }

    /// Whether no look back is under way.
    pub(super) fn looks_nowhere(&self) -> bool {
        self.recorder.as_ref().is_none_or(|recorder| recorder.looking == 0)
    }

    /// What an account may see of the history. The one place to ask: live captures of the same account see the same.
    fn visible(&self, account: &AccountId) -> impl Fn(&Key) -> bool + Send + use<> {
        let scope = self.planes.scopes.get(account).cloned();
        move |key| scope.as_ref().is_none_or(|scope| scope.admits(key))
    }

    /// Accepts a capture that is answered from the history.
    pub(super) fn look_back(&mut self, request: Request, reply: oneshot::Sender<Result<Job, Refusal>>) {
        let accepted = self.accept_look_back(request);
        // A caller that went away needs no answer.
        drop(reply.send(accepted));
    }

    fn accept_look_back(&mut self, request: Request) -> Result<Job, Refusal> {
        if self.ending.is_some() {
            return Err(Refusal::ShuttingDown);
        }
        let (Some(recorder), Some(offset)) = (&self.recorder, &request.offset_time) else {
            return Err(Refusal::NoHistory);
        };
        let (history, readers) = (Arc::clone(&recorder.history), Arc::clone(&recorder.readers));
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
        let visible = self.visible(&request.account);
        let job = Job::accepted(request, None);
        let stored = self.planes.jobs.create(&job).map_err(|e| Refusal::Store(e.to_string()))?;
        if history.lags(end_ns) {
            self.record();
        }
        let look = LookBack {
            job: job.clone(),
            query,
            complete_below: self.recorder.as_ref().map_or(0, |recorder| recorder.serial),
            host: self.planes.host.clone(),
            colo: self.planes.colo.clone(),
            queues: u32::try_from(self.planes.queues.len()).unwrap_or(u32::MAX),
            dir: self.planes.simple_dir.clone(),
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.looking += 1;
        }
        let notes = self.notes.0.clone();
        tokio::spawn(async move {
            let _turn = readers.acquire().await;
            let job = look.run(history, visible).await;
            let _engine_gone = notes.send(Note::LookedBack { job: Box::new(job), revision: stored.revision });
        });
        tracing::info!(capture = %job.id, account = %job.request.account, "look back accepted");
        Ok(job)
    }

    /// Records what became of a look back.
    pub(super) fn looked_back(&mut self, job: &Job, revision: u64) {
        if let Some(recorder) = &mut self.recorder {
            recorder.looking -= 1;
        }
        self.ended_captures.note(job.status);
        if let Err(error) = self.planes.jobs.compare_and_set(revision, job) {
            tracing::error!(capture = %job.id, %error, "a capture's state could not be recorded");
        }
        let (status, ledger) = (job.status, &job.ledger);
        tracing::info!(capture = %job.id, ?status, seen = ledger.rx, captured = ledger.captured, "look back ended");
    }
}

impl LookBack {
    /// Asks the history and writes the object and the manifest; returns the ended job.
    async fn run(self, history: Arc<History>, visible: impl Fn(&Key) -> bool + Send + 'static) -> Job {
        let (query, complete_below) = (self.query.clone(), self.complete_below);
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
