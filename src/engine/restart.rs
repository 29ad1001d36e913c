//! Captures that outlive their process. Owns what a restart does with them, and what is written down while they run.
//!
//! A capture whose process died is ended with what is on the disk (`interrupted`) and not continued: its time window has a
//! hole already, and the customer is told sooner.
//!
//! Invariant: a capture that was accepted is in the job store or in the spool, and the next process delivers it.

use super::active::{Active, Phase};
use super::{Engine, Note, Planes};
use crate::deliver::journal::{Record, settled};
use crate::deliver::{Delivery, Found, Known, Reporter, RetryPolicy, Route, sweep, sweep_store};
use crate::job::{CaptureId, Job, Status, StopReason};
use crate::merge::Shape;
use crate::pcap::{ObjectFormat, Origin};
use crate::spool::Feed;
use crate::store::{StoreError, Stored};
use crate::worker::Budget;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often counts are written down: what a crash leaves unknown.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// What another process left.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    /// The jobs that have not ended, and the captures in the spool that the job store does not know.
    pub unfinished: Vec<Stored>,
    /// Captures in the spool that could not be delivered: one of those that went to the same place for the same account,
    /// and all of them.
    pub failed: Vec<(Job, Vec<CaptureId>)>,
}

/// Finds what another process left.
pub(super) fn inherit(planes: &Planes) -> Result<Inheritance, StoreError> {
    let (mut left, mut failed) = (Vec::new(), Vec::<(Job, Vec<_>)>::new());
    for stored in planes.jobs.unfinished()? {
        match stored.job.request.offset_time {
            None => left.push(stored),
            Some(_) => interrupt(planes, stored)?,
        }
    }
    let known = |record: &Record| {
        let job = &record.job;
        match planes.jobs.get(&job.request.account, &job.id) {
            Ok(None) => Known::Not,
            Ok(Some(stored)) if stored.job.status.ended() => Known::Ended,
            _ => Known::Unfinished,
        }
    };
    match sweep(&planes.spool, known) {
        Ok(found) => {
            for job in found.failed.into_iter().map(|record| record.job) {
                let place = |job: &Job| (job.request.account.clone(), job.request.destination.clone());
                let id = job.id.clone();
                match failed.iter_mut().find(|(other, _)| place(other) == place(&job)) {
                    Some((_, ids)) => ids.push(id),
                    None => failed.push((job, vec![id])),
                }
            }
            for record in found.strangers {
                tracing::warn!(capture = %record.job.id, "a capture in the spool is in no job store; it is taken up");
                left.push(planes.jobs.create(&record.job)?);
            }
        }
        Err(error) => tracing::error!(%error, "the spool could not be looked through for left captures"),
    }
    Ok(Inheritance { unfinished: left, failed })
}

/// Ends a look back whose process died: it has nothing in the spool, and can be asked again.
fn interrupt(planes: &Planes, stored: Stored) -> Result<(), StoreError> {
    let mut job = stored.job;
    job.status = Status::Failed;
    job.stop_reason = Some(StopReason::Interrupted);
    job.error_message = Some("the capture host ended before it had looked back; ask again".to_owned());
    planes.jobs.compare_and_set(stored.revision, &job).map(drop)
}

impl Engine {
    pub(super) fn dir(&self, active: &Active) -> PathBuf {
        self.planes.spool.config().dir.join(active.job.id.as_str())
    }

    pub(super) fn route(&self, job: &Job) -> Route {
        Route {
            stores: Arc::clone(&self.planes.stores),
            account: job.request.account.clone(),
            keys: self.planes.keys.clone(),
            kept: job.keys.clone(),
            destination: job.request.destination.clone(),
            simple_dir: self.planes.simple_dir.clone(),
        }
    }

    /// Takes over what another process left.
    pub(super) fn take_over(&mut self) {
        let Inheritance { unfinished, failed } = std::mem::take(&mut self.inheritance);
        for stored in unfinished {
            self.resume(stored);
        }
        for (job, captures) in failed {
            let route = self.route(&job);
            tokio::spawn(async move { sweep_store(&route, &captures).await });
        }
    }

    fn reporter(&self, serial: u64) -> Reporter {
        let notes = self.notes.0.clone();
        Reporter::new(move |report| {
            let _engine_gone = notes.send(Note::Delivery { serial, report });
        })
    }

    pub(super) fn retry_policy(&self, serial: u64) -> RetryPolicy {
        RetryPolicy {
            retention: self.planes.upload_retention,
            pause_max: self.planes.upload_pause_max,
            leaving: self.leaving.subscribe(),
            reporter: self.reporter(serial),
        }
    }

    pub(super) fn delivery(&self, active: &Active, feed: Arc<Feed>) -> Delivery {
        Delivery {
            id: active.job.id.clone(),
            dir: self.dir(active),
            queues: active.queues,
            shape: Shape {
                snaplen: active.snaplen(),
                object_bytes_max: active.object_bytes_max,
                format: active.format,
                origin: Arc::clone(&active.origin),
            },
            route: active.route.clone(),
            feed,
            spool: Arc::clone(&self.planes.spool),
            retry: self.retry_policy(active.serial),
            reporter: self.reporter(active.serial),
            frees: Mutex::default(),
        }
    }

    /// Takes up a capture that a dead process left.
    pub(super) fn resume(&mut self, stored: Stored) {
        let Stored { revision, mut job } = stored;
        let dir = self.planes.spool.config().dir.join(job.id.as_str());
        let record = Record::read(&dir).unwrap_or_else(|error| {
            tracing::error!(capture = %job.id, %error, "a capture's record cannot be read");
            None
        });
        if let Some(record) = &record
            && job.status != Status::ConversionRunning
        {
            job.ledger = record.job.ledger;
        }
        let settled = settled(&dir).unwrap_or_else(|error| {
            tracing::error!(capture = %job.id, %error, "a capture's manifest cannot be read");
            None
        });
        if let Some(manifest) = settled {
            (job.ledger, job.stop_reason) = (manifest.ledger, manifest.stop_reason);
        }
        job.stop_reason.get_or_insert(StopReason::Interrupted);
        job.status = Status::ConversionRunning;
        job.objects.clear();
        tracing::warn!(capture = %job.id, "the process that captured it died; what is in the spool is delivered");
        self.last_serial += 1;
        let of_record = |queues: usize, bytes: u64| {
            record.as_ref().map_or((queues, bytes), |r| (r.queues, r.object_bytes_max))
        };
        let (queues, object_bytes_max) =
            of_record(self.planes.queues.len(), self.planes.spool.config().segment_bytes);
        let active = Active {
            revision,
            serial: self.last_serial,
            slot: usize::MAX,
            filter: None,
            budget: Arc::new(Budget::new(None, None)),
            phase: Phase::Draining,
            ends_at: Instant::now(),
            started: record.as_ref().and_then(|r| r.started),
            ended: record.as_ref().and_then(|r| r.ended),
            route: self.route(&job),
            queues,
            object_bytes_max,
            format: record.as_ref().map_or_else(ObjectFormat::default, |r| r.format),
            origin: Arc::new(record.as_ref().map_or_else(Origin::default, |r| r.origin.clone())),
            feed: None,
            recovered: Some(record.as_ref().map_or((job.submitted, false), |r| (r.known_until, r.is_final))),
            trouble: None,
            left: false,
            ports_from: Default::default(),
            counted: Some(Default::default()),
            lost: Default::default(),
            failure: None,
            streams_left: 0,
            delivered: None,
            job,
        };
        let feed = Arc::new(Feed::new(queues));
        tokio::spawn(self.delivery(&active, feed).run_recovered());
        self.keep(active);
    }

    pub(super) fn recovered(&mut self, serial: u64, found: Found) {
        let Some(mut active) = self.active.remove(&serial) else { return };
        let Found { objects, packets, frame_bytes } = found;
        active.job.ledger = active.job.ledger.recovered(packets, frame_bytes);
        active.job.objects = objects;
        self.keep(active);
    }

    pub(super) fn trouble(&mut self, serial: u64, error: String) {
        let Some(active) = self.active.get_mut(&serial) else { return };
        tracing::warn!(capture = %active.job.id, error, "an upload failed and is tried again");
        active.job.error_message = Some(error.clone());
        active.trouble = Some(error);
    }

    /// Lets go of a capture that the next process delivers.
    pub(super) fn leave(&mut self, mut active: Active) {
        tracing::warn!(capture = %active.job.id, "not delivered yet; the next start goes on with it");
        self.persist(&mut active);
        self.planes.spool.forget(active.serial);
    }

    /// Writes down what is counted, in the background.
    pub(super) fn snapshot(&mut self) {
        let (since, task) = &mut self.snapshot;
        let busy = task.as_ref().is_some_and(|task| !task.is_finished());
        if busy || since.elapsed() < SNAPSHOT_INTERVAL {
            return;
        }
        *since = Instant::now();
        let of_this_process =
            |a: &&Active| a.recovered.is_none() && !matches!(a.phase, Phase::Opening(_) | Phase::Closing);
        let records: Vec<_> = self
            .active
            .values()
            .filter(of_this_process)
            .map(|a| (self.dir(a), a.record(a.ledger(&self.planes.queues, &self.planes.ports))))
            .collect();
        if records.is_empty() {
            return;
        }
        self.snapshot.1 = Some(tokio::task::spawn_blocking(move || {
            for (dir, record) in records {
                if let Err(error) = record.write(&dir) {
                    tracing::warn!(dir = %dir.display(), %error, "a capture's counts could not be written down");
                }
            }
        }));
    }
}
