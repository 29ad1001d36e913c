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
use super::lineup::Left;
use super::object::{Fate, Work};
use super::pace::Pace;
use super::places::{Places, Seat};
use super::record::{forget_leftovers, note_leftovers};
use super::relay::{Leave, unless};
use super::report::{Report, Reporter};
use super::retry::{Attempts, Outcome, RetryPolicy, given_up, out_of_time};
use super::round::Round;
use super::route::{Route, sweep_store};
use super::words::Words;
use crate::job::{ObjectInfo, PartId};
use crate::limits::OBJECTS_IN_FLIGHT_MAX;
use crate::merge::{Consumed, Fault, MergeError, Shape};
use crate::spool::{Feed, Spool, spool_id};
use crate::upload::UploadError;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

/// Attempts after which a segment that holds what it should not counts as damaged: what came from the disk once may come
/// better the next time.
const CONTENT_ATTEMPTS: u32 = 3;
/// The same for one that the disk does not give: with the pauses between them, about a minute.
const DISK_ATTEMPTS: u32 = 8;

/// What a delivery needs to know.
pub(crate) struct Delivery {
    pub part: PartId,
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
    /// Objects of it that are on their way at once, at most.
    pub objects_max: usize,
    /// Where its threads run; anywhere if empty.
    pub cores: Arc<[usize]>,
    /// Whether its capture takes packets.
    pub capturing: watch::Receiver<bool>,
    /// Segments on their way back to the disk.
    pub frees: Mutex<JoinSet<()>>,
}

/// The journal, which is used on blocking threads alone.
pub(super) type Shared = Arc<Mutex<Journal>>;

pub(super) fn lock(journal: &Shared) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what waits for the disk where it holds up nobody.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
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
    /// Of the attempt before: objects that are complete in their store behind one that is not.
    left: Left,
    /// Below this number the store may have objects that nobody recorded.
    begun_below: u32,
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
        if recovers && self.retry.is_given_up() {
            // What a dead process delivered is told all the same.
            let _not_known_then = self.journal(progress, true).await;
        }
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
            if made_way && !*self.retry.time_is_up.borrow() {
                tracing::info!(capture = %self.part.capture, "others wait for their turn: this delivery goes on in its next one");
                continue;
            }
            if *self.retry.time_is_up.borrow() {
                return Outcome::Left;
            }
            if let Some(outcome) = self.retry.pause(&mut attempts, error).await {
                return outcome;
            }
        }
    }

    /// Waits for its turn. At the end of the process one that has failed before waits no longer.
    async fn seat(&self, attempts: &Attempts) -> Result<Seat, Outcome> {
        let (mut leaving, mut decided) = (self.retry.leaving.clone(), self.retry.given_up.clone());
        let mut time_is_up = self.retry.time_is_up.clone();
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
            () = out_of_time(&mut time_is_up) => Err(Outcome::Left),
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
        // A dead process may have been further.
        let ahead = if recovers { OBJECTS_IN_FLIGHT_MAX as u32 } else { 1 };
        progress.begun_below = journal.next().saturating_add(ahead);
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

    /// One try at all objects behind the last one that is journalled.
    async fn attempt(&self, progress: &mut Progress, recovers: bool, seat: &mut Seat) -> Result<(), Stop> {
        let (pulse, mut decided) = (seat.pulse(), self.retry.given_up.clone());
        let mut time_is_up = self.retry.time_is_up.clone();
        let mut leave: Leave<'_> = Box::pin(async move {
            tokio::select! {
                () = seat.lost() => {}
                _ = given_up(&mut decided) => {}
                () = out_of_time(&mut time_is_up) => {}
            }
        });
        let journal = self.journal(progress, recovers).await?;
        if lock(&journal).is_complete() {
            return Ok(());
        }
        let store = unless(&mut leave, self.route.open()).await.map_err(Stop::Upload)?;
        let (start, kept) = {
            let journal = lock(&journal);
            (journal.start(self.queues), journal.all_kept())
        };
        let opened = Arc::clone(&journal);
        let opened = on_disk(move || lock(&opened).open_files()).await;
        opened.map_err(|source| Stop::Upload(self.unwritable(source)))?;
        let (leaving, news) = (watch::Sender::new(false), mpsc::unbounded_channel());
        let work = Work {
            delivery: self,
            store: &*store,
            journal,
            pulse,
            damaged: progress.damaged.clone(),
            first: start.object,
            begun_below: progress.begun_below,
            turn: Arc::default(),
            leaving: leaving.subscribe(),
            asked: news.0,
        };
        let bell = Arc::new(Notify::new());
        let ring = Arc::clone(&bell);
        self.feed.call(move || ring.notify_one());
        let mut round = Round::new(work, start, std::mem::take(&mut progress.left), kept);
        round.run((news.1, bell), &leaving, &mut leave).await;
        let Round { line, error, work, .. } = round;
        // Nobody takes what it makes any more, and it may wait for its input.
        self.feed.hang_up();
        progress.begun_below = progress.begun_below.max(work.begun_below);
        let is_over = line.is_over();
        progress.left = line.leave();
        match error {
            None if is_over => Ok(()),
            None => Err(Stop::Passing(Words::alike("the delivery ended before its last object"))),
            Some(Fate::Upload(error)) => Err(Stop::Upload(error)),
            Some(Fate::Merge(error)) => Err(progress.merge_failed(&error)),
            Some(Fate::Thread(error)) => {
                Err(Stop::Passing(Words::alike(format!("cannot start the merge thread: {error}"))))
            }
            Some(Fate::Died) => Err(Stop::ForGood(Words::alike("the merge thread died"))),
        }
    }

    /// An object is complete, and all before it are journalled.
    pub(super) async fn object(
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

    pub(super) fn unwritable(&self, source: io::Error) -> UploadError {
        UploadError::Journal { path: self.dir.clone(), source }
    }

    /// Tells how it ended. A failure is told at once: the capture must not go on.
    async fn done(&self, result: Outcome, progress: &Progress) {
        if let Outcome::Failed(_) = result {
            let ahead: Vec<_> = progress.left.complete().cloned().collect();
            if !ahead.is_empty() {
                self.reporter.tell(Report::Ahead(ahead));
            }
            self.reporter.tell(Report::Delivered(result));
            if self.retry.is_given_up() {
                // Its directory is to go, and the store may be the one that does not answer.
                let (route, part) = (self.route.clone(), self.part.clone());
                tokio::spawn(async move { sweep_store(&route, std::slice::from_ref(&part)).await });
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

    /// Removes what the store still holds of uploads of this part, none of which is in progress any more. An upload whose
    /// begin was carried out and whose answer was lost is known to nobody else.
    async fn sweep(&self) {
        let is_clean = sweep_store(&self.route, std::slice::from_ref(&self.part)).await;
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
