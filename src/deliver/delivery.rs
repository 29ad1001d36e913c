//! From published segments to the last object: the live merge on its thread, and the task that brings its output into the
//! store, again and again until it is there. Owns their coupling; not when a capture ends.
//!
//! Invariant: a segment is freed only after the objects that hold its packets are complete in the store and journalled.

use super::inherit::recover;
use super::journal::{Entry, Journal};
use super::relay::{self, deliver};
use super::report::{Report, Reporter};
use super::retry::{Outcome, PAUSE_MIN, RetryPolicy};
use super::route::{Route, sweep_store};
use crate::job::{CaptureId, ObjectInfo};
use crate::merge::{self, Consumed, Output, Shape};
use crate::spool::{Feed, Spool};
use crate::upload::{Checkpoint, UploadError};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Niceness of the merge's threads, which share the writers' cores.
const MERGE_NICENESS: i32 = 15;
/// Chunks between merge and store: with chunks of about 1 MiB, what one capture holds in memory.
const CHUNKS_WAITING: usize = 8;
/// What a delivery needs to know.
pub(crate) struct Delivery {
    pub id: CaptureId,
    pub dir: PathBuf,
    pub queues: usize,
    pub shape: Shape,
    pub route: Route,
    pub feed: Arc<Feed>,
    pub spool: Arc<Spool>,
    pub retry: RetryPolicy,
    pub reporter: Reporter,
    /// Segments on their way back to the disk.
    pub frees: Mutex<Vec<JoinHandle<()>>>,
}

impl Delivery {
    /// Delivers what the feed is told, until every queue has ended.
    pub async fn run(mut self) {
        let result = match Journal::open(&self.dir) {
            Ok(mut journal) => self.deliver(&mut journal).await,
            Err(e) => Outcome::Failed(format!("cannot open the journal in {}: {e}", self.dir.display())),
        };
        self.done(result).await;
    }

    /// Delivers what a dead process left.
    pub async fn run_recovered(mut self) {
        let (dir, queues, snaplen, spool) =
            (self.dir.clone(), self.queues, self.shape.snaplen, Arc::clone(&self.spool));
        let feed = Arc::clone(&self.feed);
        let found = tokio::task::spawn_blocking(move || recover(&dir, queues, snaplen, &spool, &feed)).await;
        let result = match found {
            Ok(Ok((mut journal, found))) => {
                self.reporter.tell(Report::Recovered(found));
                if journal.is_complete() { Outcome::Done } else { self.deliver(&mut journal).await }
            }
            Ok(Err(e)) => Outcome::Failed(format!("cannot recover {}: {e}", self.dir.display())),
            Err(e) => Outcome::Failed(format!("the recovery died: {e}")),
        };
        self.done(result).await;
    }

    async fn deliver(&mut self, journal: &mut Journal) -> Outcome {
        let first_pause = PAUSE_MIN.min(self.retry.pause_max);
        let (mut since, mut pause) = (Instant::now(), first_pause);
        let mut reached = journal.reached();
        loop {
            let error = match self.attempt(journal).await {
                Ok(()) => return Outcome::Done,
                Err(Stop::Merge(e)) => return Outcome::Failed(e),
                Err(Stop::Upload(e)) => {
                    if matches!(e, UploadError::Credentials { .. } | UploadError::Denied { .. }) {
                        self.route.stores.renew_credentials().await;
                    }
                    e.to_string()
                }
            };
            if journal.reached() > reached {
                (since, pause) = (Instant::now(), first_pause);
                reached = journal.reached();
            }
            if let Some(outcome) = self.retry.pause(since, &mut pause, error).await {
                return outcome;
            }
        }
    }

    /// Removes what the store still holds of uploads of this capture, of which nothing is under way any more. An upload whose
    /// begin was answered and not heard of is known to nobody else.
    async fn sweep(&self) {
        sweep_store(&self.route, std::slice::from_ref(&self.id)).await;
    }

    /// One merge from the last complete object on.
    async fn attempt(&mut self, journal: &mut Journal) -> Result<(), Stop> {
        let store = self.route.open().await.map_err(Stop::Upload)?;
        let start = journal.start(self.queues);
        let (outputs, merged) = mpsc::channel(CHUNKS_WAITING);
        let (report, outcome) = oneshot::channel();
        let (shape, inputs) = (self.shape.clone(), self.feed.listen());
        let (first, format) = (start.object, shape.format);
        let merge = move || {
            // Packets that come now go before packets that are safe in the spool. A refusal costs speed only.
            let _refused = rustix::process::nice(MERGE_NICENESS);
            let _deliverer_gone = report.send(merge::run_live(&start, &shape, inputs, outputs));
        };
        std::thread::Builder::new()
            .name("merge".to_owned())
            .spawn(merge)
            .map_err(|e| Stop::Merge(format!("cannot start the merge thread: {e}")))?;
        let (passed, guarded) = mpsc::channel(1);
        let probe = journal.probe().map_err(|source| Stop::Upload(self.unwritable(source)))?;
        let guard = tokio::spawn(guard(merged, passed, probe));
        let mut sink = Sink { delivery: self, journal };
        let delivered = deliver(&*store, &self.id, format, first, guarded, &mut sink).await;
        if let Ok(Err(source)) = guard.await {
            return Err(Stop::Upload(self.unwritable(source)));
        }
        // A merge that failed closed the channel, which delivery reports as an interruption: the cause is the merge's.
        match (outcome.await, delivered) {
            (_, Err(e)) if !matches!(e, UploadError::Interrupted { .. }) => Err(Stop::Upload(e)),
            (Ok(Err(e)), _) => Err(Stop::Merge(e.to_string())),
            (Err(_), _) => Err(Stop::Merge("the merge thread died".to_owned())),
            (Ok(Ok(_)), Err(e)) => Err(Stop::Upload(e)),
            (Ok(Ok(_)), Ok(_)) => Ok(()),
        }
    }

    fn object(&self, journal: &mut Journal, info: ObjectInfo, consumed: Consumed) -> Result<(), UploadError> {
        let Consumed { segments, cuts, is_last } = consumed;
        let entry = Entry { object: info.clone(), cuts: cuts.clone(), is_last };
        journal.append(entry).map_err(|source| self.unwritable(source))?;
        // Not before: the next attempt begins where the journal ends.
        self.feed.done(&cuts);
        let spool = Arc::clone(&self.spool);
        let free = tokio::task::spawn_blocking(move || {
            for segment in segments {
                if let Err(error) = spool.free(&segment) {
                    tracing::warn!(segment = %segment.display(), %error, "a delivered segment could not be freed");
                }
            }
        });
        self.frees.lock().unwrap_or_else(PoisonError::into_inner).push(free);
        self.reporter.tell(Report::Object(info));
        Ok(())
    }

    fn unwritable(&self, source: std::io::Error) -> UploadError {
        UploadError::Disk { action: "write the journal in", path: self.dir.clone(), source }
    }

    async fn done(&self, result: Outcome) {
        if !matches!(result, Outcome::Left) {
            self.sweep().await;
        }
        let frees = std::mem::take(&mut *self.frees.lock().unwrap_or_else(PoisonError::into_inner));
        for free in frees {
            let _died_and_said_so = free.await;
        }
        self.reporter.tell(Report::Delivered(result));
    }
}

/// Where a delivery's progress is written down.
struct Sink<'a> {
    delivery: &'a Delivery,
    journal: &'a mut Journal,
}

impl relay::Record for Sink<'_> {
    fn complete(&mut self, info: ObjectInfo, consumed: Consumed) -> Result<(), UploadError> {
        self.delivery.object(self.journal, info, consumed)
    }

    fn keeps(&self) -> bool {
        true
    }

    fn kept(&self, number: u32) -> Option<Checkpoint> {
        self.journal.kept(number).cloned()
    }

    fn keep(&mut self, number: u32, checkpoint: Checkpoint) {
        self.journal.keep(number, checkpoint);
    }

    fn forget(&mut self) {
        self.journal.forget();
    }
}

/// Passes on what a merge makes; an object's end only while the journal can be written. On a disk that fails the merge has
/// not all that a repair brings back, and an object that was completed with less and not journalled would stand in the way of
/// the whole one.
async fn guard(
    mut merged: mpsc::Receiver<Output>,
    passed: mpsc::Sender<Output>,
    probe: impl Fn() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<()> {
    let probe = Arc::new(Mutex::new(probe));
    while let Some(output) = merged.recv().await {
        if matches!(output, Output::End(..)) {
            let probe = Arc::clone(&probe);
            let probed =
                tokio::task::spawn_blocking(move || (probe.lock().unwrap_or_else(PoisonError::into_inner))());
            probed.await.unwrap_or(Ok(()))?;
        }
        if passed.send(output).await.is_err() {
            break;
        }
    }
    Ok(())
}

enum Stop {
    Merge(String),
    Upload(UploadError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::Summary;

    #[tokio::test]
    async fn no_object_is_completed_that_could_not_be_journalled() {
        for writable in [true, false] {
            let (merge, merged) = mpsc::channel(8);
            let summary = Summary {
                bytes: 3,
                packets: 1,
                frame_bytes: 0,
                first_ns: 1,
                last_ns: 1,
                sha256: String::new(),
                content: None,
            };
            for output in [
                Output::Begin(0),
                Output::Chunk(bytes::Bytes::from_static(b"one")),
                Output::End(summary, Consumed::default()),
            ] {
                merge.send(output).await.unwrap();
            }
            drop(merge);
            let (passed, mut guarded) = mpsc::channel(8);
            let probe =
                move || if writable { Ok(()) } else { Err(std::io::ErrorKind::ReadOnlyFilesystem.into()) };
            assert_eq!(guard(merged, passed, probe).await.is_ok(), writable);
            let mut outputs = 0;
            while guarded.recv().await.is_some() {
                outputs += 1;
            }
            assert_eq!(outputs, if writable { 3 } else { 2 });
        }
    }
}
