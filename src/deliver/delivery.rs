//! From published segments to the last object: the live merge on its thread, and the task that brings its output into the
//! store, again and again until it is there. Owns their coupling; not when a capture ends.
//!
//! A failure costs time. Whatever fails is tried again as `retry` says: the journal, the merge, the store. A segment that
//! stays unreadable while everything else works is delivered as far as it can be read, and its file is kept.
//!
//! Invariant: a segment is freed only after the objects that hold its packets are complete in the store and journalled. No
//! runtime thread waits for a disk, and a delivery that waits, for a store or for its turn, holds neither threads nor
//! descriptors nor buffers.

use super::inherit::{free, recover};
use super::journal::{Entry, Journal};
use super::pace::Pace;
use super::places::{Places, Pulse, Seat};
use super::record::{forget_leftovers, note_leftovers};
use super::relay::{self, Leave, Noted, relay, unless};
use super::report::{Report, Reporter};
use super::retry::{Attempts, Outcome, RetryPolicy, given_up};
use super::route::{Route, sweep_store};
use super::words::Words;
use crate::block::take_what_is_left;
use crate::job::{CaptureId, ObjectInfo};
use crate::merge::{self, Consumed, Fault, MergeError, Output, Shape, Start};
use crate::spool::{Feed, Spool, spool_id};
use crate::upload::{COUNTS, Checkpoint, Pending, UploadError};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Chunks between merge and store: with chunks of about 1 MiB, what one capture holds in memory.
const CHUNKS_WAITING: usize = 8;
/// Attempts after which a segment that holds what it should not counts as damaged: what came from the disk once may come
/// better the next time.
const CONTENT_ATTEMPTS: u32 = 3;
/// The same for one that the disk does not give: with the pauses between them, about a minute.
const DISK_ATTEMPTS: u32 = 8;

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
    /// Where it waits for its turn.
    pub places: Arc<Places>,
    /// When it stands back for captures.
    pub pace: Arc<Pace>,
    /// Whether its capture takes packets.
    pub capturing: watch::Receiver<bool>,
    /// Segments on their way back to the disk.
    pub frees: Mutex<JoinSet<()>>,
}

/// The journal, which is used on blocking threads alone.
type Shared = Arc<Mutex<Journal>>;

fn lock(journal: &Shared) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what waits for the disk where it holds up nobody.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|died| Err(io::Error::other(died)))
}

/// What a delivery knows between its attempts.
#[derive(Default)]
struct Progress {
    journal: Option<Shared>,
    /// Packets and frame bytes that a dead process left, in objects and segments.
    found: Option<(u64, u64)>,
    /// Attempts to recover it.
    recoveries: u32,
    reached: (u32, u64),
    /// Attempts that each segment failed.
    failures: HashMap<PathBuf, u32>,
    /// Segments that are taken as far as they can be read.
    damaged: HashSet<PathBuf>,
}

impl Progress {
    /// What a failed merge means for the next attempt.
    fn merge_failed(&mut self, error: &MergeError) -> Stop {
        let (segment, attempts_max) = match error.fault() {
            Fault::Passing => return Stop::Passing(Words::of_host(error.to_string())),
            Fault::Order => return Stop::ForGood(Words::of_host(error.to_string())),
            Fault::Content(segment) => (segment, CONTENT_ATTEMPTS),
            Fault::Disk(segment) => (segment, DISK_ATTEMPTS),
        };
        let failures = self.failures.entry(segment.to_owned()).or_default();
        *failures += 1;
        if *failures >= attempts_max {
            self.damaged.insert(segment.to_owned());
        }
        Stop::Passing(Words::of_host(error.to_string()))
    }
}

impl Delivery {
    /// Delivers what the feed is told, until every queue has ended.
    pub async fn run(self) {
        self.run_from(false).await;
    }

    /// Delivers what a dead process left.
    pub async fn run_recovered(self) {
        self.run_from(true).await;
    }

    async fn run_from(mut self, recovers: bool) {
        let mut progress = Progress::default();
        let result = self.deliver(&mut progress, recovers).await;
        self.done(result, &progress).await;
    }

    async fn deliver(&mut self, progress: &mut Progress, recovers: bool) -> Outcome {
        let mut attempts = Attempts::new(&self.retry);
        loop {
            let mut seat = match self.seat(&attempts).await {
                Ok(seat) => seat,
                Err(outcome) => return outcome,
            };
            let is_displaced = |stop: &Stop| matches!(stop, Stop::Upload(UploadError::Displaced));
            let attempted = self.attempt(progress, recovers, &mut seat).await;
            // One that made way has not failed, unless its store said nothing all the while.
            let made_way = attempted.as_ref().is_err_and(is_displaced) && !seat.is_stuck();
            drop(seat);
            let error = match attempted {
                Ok(()) => return complete(progress),
                Err(Stop::ForGood(e)) => return Outcome::Failed(e),
                Err(Stop::Gone) => return Outcome::Gone(self.gone()),
                Err(Stop::Passing(e)) => e,
                Err(Stop::Upload(e)) => {
                    if matches!(e, UploadError::Credentials { .. } | UploadError::HostCredentials { .. }) {
                        self.route.stores.renew_credentials().await;
                    }
                    self.route.words(&e)
                }
            };
            // The merge ends, and the descriptors go.
            self.feed.hang_up();
            if self.is_removed().await {
                return Outcome::Gone(self.gone());
            }
            if let Some(journal) = &progress.journal {
                let mut journal = lock(journal);
                journal.close();
                if journal.reached() > progress.reached {
                    attempts = Attempts::new(&self.retry);
                    progress.reached = journal.reached();
                }
            }
            if made_way {
                continue;
            }
            if let Some(outcome) = self.retry.pause(&mut attempts, error).await {
                return outcome;
            }
        }
    }

    /// Waits for its turn. At the end of the process one that has failed before waits no longer.
    async fn seat(&self, attempts: &Attempts) -> Result<Seat, Outcome> {
        let (mut leaving, mut decided) = (self.retry.leaving.clone(), self.retry.given_up.clone());
        let leaves = async {
            let _ends_or_gone = leaving.wait_for(|leaving| *leaving).await.is_ok();
            if !attempts.have_failed() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            outcome = given_up(&mut decided) => Err(outcome),
            () = leaves => Err(Outcome::Left),
            seat = Seat::take(&self.places, &self.route.account, &self.capturing) => Ok(seat),
        }
    }

    /// The journal, opened by the first attempt that can.
    async fn journal(&self, progress: &mut Progress, recovers: bool) -> Result<Shared, Stop> {
        if let Some(journal) = &progress.journal {
            return Ok(Arc::clone(journal));
        }
        let dir = self.dir.clone();
        let journal = if recovers {
            let (queues, snaplen) = (self.queues, self.shape.snaplen);
            let (spool, feed) = (Arc::clone(&self.spool), Arc::clone(&self.feed));
            progress.recoveries += 1;
            let is_last = progress.recoveries >= DISK_ATTEMPTS;
            let recovered = on_disk(move || recover(&dir, queues, snaplen, (&spool, &feed), is_last)).await;
            let (journal, found) = recovered.map_err(|e| match e.kind() {
                io::ErrorKind::NotFound if self.dir.try_exists().is_ok_and(|is_there| !is_there) => {
                    Stop::Gone
                }
                _ => Stop::Passing(Words::of_host(format!("cannot recover {}: {e}", self.dir.display()))),
            })?;
            progress.found = Some((found.packets, found.frame_bytes));
            self.reporter.tell(Report::Recovered(found));
            journal
        } else {
            let opened = on_disk(move || Journal::open(&dir)).await;
            opened.map_err(|e| {
                let words = format!("cannot open the journal in {}: {e}", self.dir.display());
                Stop::Passing(Words::of_host(words))
            })?
        };
        progress.reached = journal.reached();
        Ok(Arc::clone(progress.journal.insert(Arc::new(Mutex::new(journal)))))
    }

    fn gone(&self) -> Words {
        Words::of_host(format!(
            "the capture's directory {} is not there, and nothing is known of its packets that were not delivered before; \
             check that the spool's disk is mounted",
            self.dir.display()
        ))
        .told(
            "what this host held of the capture is not there, and nothing is known of its packets that were not delivered before; \
             its operator finds more in its log",
        )
    }

    /// Whether somebody removed the directory. A spool that is not there either may come back with its disk.
    async fn is_removed(&self) -> bool {
        let (dir, spool) = (self.dir.clone(), Arc::clone(&self.spool));
        let looked = on_disk(move || Ok(!dir.try_exists()? && spool_id(&spool.config().dir)?.is_some()));
        looked.await.unwrap_or(false)
    }

    /// One merge from the last complete object on.
    async fn attempt(
        &mut self,
        progress: &mut Progress,
        recovers: bool,
        seat: &mut Seat,
    ) -> Result<(), Stop> {
        let (pulse, mut decided) = (seat.pulse(), self.retry.given_up.clone());
        let mut leave: Leave<'_> = Box::pin(async move {
            tokio::select! {
                () = seat.lost() => {}
                _ = given_up(&mut decided) => {}
            }
        });
        let journal = self.journal(progress, recovers).await?;
        if lock(&journal).is_complete() {
            return Ok(());
        }
        let store = unless(&mut leave, self.route.open()).await.map_err(Stop::Upload)?;
        let (start, kept) = {
            let journal = lock(&journal);
            (journal.start(self.queues), journal.kept(journal.next()).cloned())
        };
        let probed = Arc::clone(&journal);
        let probe = on_disk(move || lock(&probed).probe()).await;
        let probe = probe.map_err(|source| Stop::Upload(self.unwritable(source)))?;
        let object = (self.shape.format, start.object);
        let (merged, outcome) = self.merge(start, progress.damaged.clone())?;
        let (passed, guarded) = mpsc::channel(1);
        let pace = (Arc::clone(&self.pace), pulse.clone());
        let guard = tokio::spawn(guard(merged, passed, probe, pace));
        let mut sink = Sink { delivery: self, journal, kept, pulse };
        let delivered = relay((&*store, &self.id), object, guarded, &mut sink, None, &mut leave).await;
        // Nobody takes what it makes any more, and it may wait for its input.
        self.feed.hang_up();
        if let Ok(Err(source)) = guard.await {
            return Err(Stop::Upload(self.unwritable(source)));
        }
        // A merge that failed closed the channel, which delivery reports as an interruption: the cause is the merge's.
        match (outcome.await, delivered) {
            (_, Err(e)) if !matches!(e, UploadError::Interrupted { .. }) => Err(Stop::Upload(e)),
            (Ok(Err(e)), _) => Err(progress.merge_failed(&e)),
            (Err(_), _) => Err(Stop::ForGood(Words::alike("the merge thread died"))),
            (Ok(Ok(_)), Err(e)) => Err(Stop::Upload(e)),
            (Ok(Ok(_)), Ok(())) => Ok(()),
        }
    }

    /// Starts the merge on a thread of its own: what it makes, and how it ends.
    fn merge(&self, start: Start, damaged: HashSet<PathBuf>) -> Result<Merging, Stop> {
        let (outputs, merged) = mpsc::channel(CHUNKS_WAITING);
        let (report, outcome) = oneshot::channel();
        let (shape, inputs) = (self.shape.clone(), self.feed.listen());
        let merge = move || {
            // Packets that come now go before packets that are safe in the spool. It shares the writers' cores.
            let _refused_costs_speed_only = take_what_is_left();
            let _deliverer_gone = report.send(merge::run_live_past(&start, &shape, damaged, inputs, outputs));
        };
        let thread = std::thread::Builder::new().name("merge".to_owned()).spawn(merge);
        thread.map_err(|e| Stop::Passing(Words::alike(format!("cannot start the merge thread: {e}"))))?;
        Ok((merged, outcome))
    }

    async fn object(
        &self,
        journal: &Shared,
        info: ObjectInfo,
        consumed: Consumed,
    ) -> Result<(), UploadError> {
        let Consumed { segments, cuts, is_last, gaps } = consumed;
        let entry = Entry { object: info.clone(), cuts: cuts.clone(), is_last, gaps };
        let journal = Arc::clone(journal);
        let appended = on_disk(move || lock(&journal).append(entry)).await;
        appended.map_err(|source| self.unwritable(source))?;
        // Not before: the next attempt begins where the journal ends.
        self.feed.done(&cuts);
        let spool = Arc::clone(&self.spool);
        {
            let mut frees = self.frees.lock().unwrap_or_else(PoisonError::into_inner);
            while frees.try_join_next().is_some() {}
            frees.spawn_blocking(move || segments.iter().for_each(|segment| free(&spool, segment)));
        }
        self.reporter.tell(Report::Object(info));
        Ok(())
    }

    fn unwritable(&self, source: io::Error) -> UploadError {
        UploadError::Journal { path: self.dir.clone(), source }
    }

    /// Tells how it ended. A failure is told at once: the capture must not go on.
    async fn done(&self, result: Outcome, progress: &Progress) {
        if let Outcome::Failed(_) = result {
            self.reporter.tell(Report::Delivered(result));
            if self.retry.is_given_up() {
                // Its directory is to go, and the store may be the one that does not answer.
                let (route, id) = (self.route.clone(), self.id.clone());
                tokio::spawn(async move { sweep_store(&route, std::slice::from_ref(&id)).await });
                return;
            }
            return self.sweep().await;
        }
        if matches!(result, Outcome::Done | Outcome::Gone(_)) {
            let (packets, frame_bytes) = progress.found.unwrap_or_else(|| self.feed.told());
            let held = progress.journal.as_ref().map(|journal| lock(journal).totals().clone());
            let held = held.unwrap_or_default();
            let packets = packets.saturating_sub(held.packets);
            let frame_bytes = frame_bytes.saturating_sub(held.frame_bytes);
            if packets > 0 {
                self.reporter.tell(Report::Lost { packets, frame_bytes });
            }
            self.sweep().await;
        }
        let mut frees = std::mem::take(&mut *self.frees.lock().unwrap_or_else(PoisonError::into_inner));
        while frees.join_next().await.is_some() {}
        self.reporter.tell(Report::Delivered(result));
    }

    /// Removes what the store still holds of uploads of this capture, none of which is in progress any more. An upload whose
    /// begin was carried out and whose answer was lost is known to nobody else.
    async fn sweep(&self) {
        let is_clean = sweep_store(&self.route, std::slice::from_ref(&self.id)).await;
        let dir = self.dir.clone();
        // An attempt before, or a dead process, may have noted what is gone now.
        let noted =
            on_disk(move || if is_clean { forget_leftovers(&dir) } else { note_leftovers(&dir) }).await;
        if let Err(error) = noted {
            tracing::warn!(
                dir = %self.dir.display(), %error, "whether the store holds leftovers of uploads cannot be noted"
            );
        }
    }
}

/// What a merge makes, and how it ends.
type Merging = (mpsc::Receiver<Output>, oneshot::Receiver<Result<merge::Totals, MergeError>>);

/// Everything is delivered; but a manifest can only name objects of which the journal still tells.
fn complete(progress: &Progress) -> Outcome {
    let Some(journal) = &progress.journal else { return Outcome::Done };
    let journal = lock(journal);
    if journal.missing().is_empty() {
        return Outcome::Done;
    }
    let said = |journal_of: &str| {
        format!(
            "all objects are complete in their store, but the lines of objects {:?} in {journal_of} and its copy are damaged, so \
             that no manifest can be written",
            journal.missing()
        )
    };
    let words = Words::of_host(said(&journal.path().display().to_string()));
    Outcome::Failed(words.told(&said("this host's journal")))
}

/// Where a delivery's progress is written down.
struct Sink<'a> {
    delivery: &'a Delivery,
    journal: Shared,
    /// What the store holds of the first object.
    kept: Option<Checkpoint>,
    pulse: Pulse,
}

impl Sink<'_> {
    /// The store confirmed something.
    fn confirmed(&self) {
        self.pulse.beat();
        COUNTS.confirmed();
    }

    fn note(&self, note: impl FnOnce(&mut Journal) + Send + 'static) -> Noted<'_> {
        let journal = Arc::clone(&self.journal);
        Box::pin(async move {
            // A journal that cannot be written says so itself.
            let _noted = on_disk(move || {
                note(&mut lock(&journal));
                Ok(())
            })
            .await;
        })
    }
}

impl relay::DeliveryRecord for Sink<'_> {
    fn complete(&mut self, info: ObjectInfo, consumed: Consumed) -> Pending<'_, ()> {
        self.confirmed();
        Box::pin(self.delivery.object(&self.journal, info, consumed))
    }

    fn keeps(&self) -> bool {
        true
    }

    fn frees(&self) -> bool {
        !self.delivery.spool.recycles()
    }

    fn kept(&self, _first: u32) -> Option<Checkpoint> {
        self.kept.clone()
    }

    fn keep(&mut self, number: u32, checkpoint: Checkpoint) -> Noted<'_> {
        self.confirmed();
        self.note(move |journal| journal.keep(number, checkpoint))
    }

    fn forget(&mut self) -> Noted<'_> {
        self.note(Journal::forget)
    }
}

/// Passes on what a merge makes: a chunk only when captures leave room for it, an object's end only while the journal can be
/// written. On a disk that fails the merge has not all that a repair brings back, and completing a truncated object without
/// journalling it would block the whole one after the repair.
async fn guard(
    mut merged: mpsc::Receiver<Output>,
    passed: mpsc::Sender<Output>,
    probe: impl Fn() -> std::io::Result<()> + Send + 'static,
    (pace, pulse): (Arc<Pace>, Pulse),
) -> std::io::Result<()> {
    let probe = Arc::new(Mutex::new(probe));
    while let Some(output) = merged.recv().await {
        if matches!(output, Output::Chunk(_)) {
            // The merge stands back too, once what is between it and this is full. Standing back is no sign of a store that hangs.
            tokio::select! {
                () = pace.turn(|| pulse.beat()) => {}
                () = passed.closed() => break,
            }
        }
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

/// Why an attempt ended early.
enum Stop {
    /// The same may succeed later.
    Passing(Words),
    /// The same will fail again.
    ForGood(Words),
    /// There is nothing to deliver any more.
    Gone,
    Upload(UploadError),
}

#[cfg(test)]
#[cfg(not(miri))]
#[path = "delivery_tests.rs"]
mod tests;
