//! From published segments to the last object: the live merge on its thread, and the task that brings its output into the
//! store, again and again until it is there. Owns their coupling; not when a capture ends.
//!
//! Invariant: a segment is freed only after the objects that hold its packets are complete in the store and journalled.

use super::Note;
use crate::capture::journal::{Entry, Journal, Record, counts, remove, settle};
use crate::capture::{AccountId, CaptureId, ObjectInfo};
use crate::merge::{self, Consumed, Feed, Input, Output, Shape, Start};
use crate::ownership::BucketKeys;
use crate::spool::{self, Spool};
use crate::upload::{
    self, Checkpoint, Destination, FileStore, ObjectStore, S3Credentials, Sealed, SigningKey, Stores, Sweep,
    UploadError, within,
};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Niceness of the merge's threads, which share the writers' cores.
const MERGE_NICENESS: i32 = 15;
/// Chunks between merge and store: with chunks of about 1 MiB, what one capture holds in memory.
const CHUNKS_WAITING: usize = 8;
/// First pause between two attempts, unless the longest is shorter; within an attempt the store has its own.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Where a capture's objects go, opened anew for each attempt: credentials may have been put right.
#[derive(Clone)]
pub(super) struct Way {
    pub stores: Arc<Stores>,
    pub account: AccountId,
    pub destination: Option<Destination>,
    pub keys: BucketKeys,
    /// The destination's keys when the capture was accepted.
    pub kept: Option<Sealed>,
    pub simple_dir: PathBuf,
}

impl Way {
    pub async fn open(&self) -> Result<Arc<dyn ObjectStore>, UploadError> {
        let store: Box<dyn ObjectStore> = match &self.destination {
            Some(destination) => {
                let keys = self.keys_now(destination).await?;
                self.stores.open_with(destination, keys.as_ref()).await?
            }
            None => Box::new(FileStore::new(self.simple_dir.clone())),
        };
        Ok(Arc::from(store))
    }

    /// Keys that were sent since go before those of the beginning, which may be the ones that do not work any more.
    async fn keys_now(&self, destination: &Destination) -> Result<Option<S3Credentials>, UploadError> {
        let sealed = self.sealed_now(destination).await?.or_else(|| self.kept.clone());
        sealed.map(|sealed| self.keys.open(&self.account, destination, &sealed)).transpose()
    }

    async fn sealed_now(&self, destination: &Destination) -> Result<Option<Sealed>, UploadError> {
        self.keys
            .kept(&self.account, destination)
            .await
            .map_err(|error| UploadError::Keys { place: destination.to_string(), detail: error.to_string() })
    }

    /// Finds out whether objects can go there within `time_max`, and takes the keys that open it now.
    pub async fn try_out(&mut self, time_max: Duration) -> Result<Option<Sealed>, UploadError> {
        let Some(destination) = self.destination.clone() else {
            return self.open().await?.probe().await.map(|()| None);
        };
        self.kept = self.sealed_now(&destination).await?;
        let probe = async { self.open().await?.probe().await };
        within(time_max, &destination, probe).await.map(|()| self.kept.clone())
    }
}

/// How a try is repeated.
#[derive(Clone)]
pub(super) struct Patience {
    pub serial: u64,
    pub retention: Duration,
    pub pause_max: Duration,
    pub leaving: watch::Receiver<bool>,
    pub notes: mpsc::UnboundedSender<Note>,
}

/// How something that was tried again and again came out.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    /// Nothing will help.
    Failed(String),
    /// The process ends; the next one goes on.
    Left,
}

impl Patience {
    /// Waits before the next attempt; `Some` if there is to be none.
    async fn pause(&mut self, since: Instant, pause: &mut Duration, error: String) -> Option<Outcome> {
        upload::COUNTS.failed();
        if since.elapsed() >= self.retention {
            let hours = self.retention.as_secs_f64() / 3600.0;
            return Some(Outcome::Failed(format!(
                "{error}; given up after {hours:.1} hours (upload.retention_seconds)"
            )));
        }
        let _engine_gone = self.notes.send(Note::Trouble { serial: self.serial, error: error.clone() });
        tokio::select! {
            () = tokio::time::sleep(jittered(*pause)) => {}
            _ = self.leaving.wait_for(|leaving| *leaving) => return Some(Outcome::Left),
        }
        *pause = (*pause * 2).min(self.pause_max);
        None
    }
}

/// Between half of a pause and all of it: captures that an outage stopped together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    pause / 2 + (pause / 2).mul_f64(random as f64 / u64::MAX as f64)
}

/// What a delivery needs to know.
pub(super) struct Delivery {
    pub id: CaptureId,
    pub dir: PathBuf,
    pub queues: usize,
    pub shape: Shape,
    pub way: Way,
    pub feed: Arc<Feed>,
    pub spool: Arc<Spool>,
    pub patience: Patience,
    /// Segments on their way back to the disk.
    pub frees: Mutex<Vec<JoinHandle<()>>>,
}

/// What was found of a capture whose process died.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub objects: Vec<ObjectInfo>,
    pub packets: u64,
    pub frame_bytes: u64,
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
        let serial = self.patience.serial;
        let result = match found {
            Ok(Ok((mut journal, found))) => {
                let _engine_gone = self.patience.notes.send(Note::Recovered { serial, found });
                if journal.is_complete() { Outcome::Done } else { self.deliver(&mut journal).await }
            }
            Ok(Err(e)) => Outcome::Failed(format!("cannot recover {}: {e}", self.dir.display())),
            Err(e) => Outcome::Failed(format!("the recovery died: {e}")),
        };
        self.done(result).await;
    }

    async fn deliver(&mut self, journal: &mut Journal) -> Outcome {
        let first_pause = PAUSE_MIN.min(self.patience.pause_max);
        let (mut since, mut pause) = (Instant::now(), first_pause);
        let mut reached = journal.reached();
        loop {
            let error = match self.attempt(journal).await {
                Ok(()) => return Outcome::Done,
                Err(Stop::Merge(e)) => return Outcome::Failed(e),
                Err(Stop::Upload(e)) => {
                    if matches!(e, UploadError::Credentials { .. } | UploadError::Denied { .. }) {
                        self.way.stores.renew_credentials().await;
                    }
                    e.to_string()
                }
            };
            if journal.reached() > reached {
                (since, pause) = (Instant::now(), first_pause);
                reached = journal.reached();
            }
            if let Some(outcome) = self.patience.pause(since, &mut pause, error).await {
                return outcome;
            }
        }
    }

    /// Removes what the store still holds of uploads of this capture, of which nothing is under way any more. An upload whose
    /// begin was answered and not heard of is known to nobody else.
    async fn sweep(&self) {
        sweep_store(&self.way, std::slice::from_ref(&self.id)).await;
    }

    /// One merge from the last complete object on.
    async fn attempt(&mut self, journal: &mut Journal) -> Result<(), Stop> {
        let store = self.way.open().await.map_err(Stop::Upload)?;
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
        let delivered = upload::deliver(&*store, &self.id, format, first, guarded, &mut sink).await;
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
        let _engine_gone = self.patience.notes.send(Note::Object { serial: self.patience.serial, info });
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
        let _engine_gone = self.patience.notes.send(Note::Delivered { serial: self.patience.serial, result });
    }
}

/// Where a delivery's progress is written down.
struct Sink<'a> {
    delivery: &'a Delivery,
    journal: &'a mut Journal,
}

impl upload::Record for Sink<'_> {
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

/// Removes what unfinished uploads of these captures left in the one place where they went. It costs the bucket's owner
/// money and nobody any packets, so that a failure is a warning.
pub(super) async fn sweep_store(way: &Way, captures: &[CaptureId]) {
    let ours = |id: &CaptureId| captures.contains(id);
    // Nothing of these captures is under way: there is no time after which something could be.
    let sweep = Sweep { ours: &ours, known: &[], before: Timestamp::MAX };
    let swept = match way.open().await {
        Ok(store) => store.sweep(sweep).await,
        Err(error) => Err(error),
    };
    match swept {
        Ok(0) => {}
        Ok(uploads) => tracing::info!(uploads, "leftovers of uploads were removed"),
        Err(error) => tracing::warn!(
            %error, ?captures, "leftovers of uploads could not be removed; a lifecycle rule of the bucket does that too"
        ),
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

/// Makes what a dead process left ready for the merge.
fn recover(
    dir: &Path,
    queues: usize,
    snaplen: u32,
    spool: &Spool,
    feed: &Feed,
) -> std::io::Result<(Journal, Found)> {
    std::fs::create_dir_all(dir)?;
    let recovery = spool::recover(dir, snaplen)?;
    spool.quota().release(recovery.freed_bytes.min(spool.quota().used()));
    for path in &recovery.distrusted {
        tracing::warn!(segment = %path.display(), "a segment without its length file is left where it is");
    }
    let journal = Journal::open(dir)?;
    let Start { cuts, .. } = journal.start(queues);
    let mut found = Found::default();
    for entry in journal.entries() {
        found.packets += entry.object.packets;
        found.frame_bytes += entry.object.frame_bytes();
        found.objects.push(entry.object.clone());
    }
    for (queue, stream) in recovery.streams {
        let Some(cut) = cuts.get(queue) else { continue };
        for segment in stream {
            if segment.sequence < cut.sequence || journal.is_complete() {
                spool.free(&segment.path)?;
                continue;
            }
            let (mut packets, mut bytes) = (segment.packets, frame_bytes(segment.bytes, segment.packets));
            if segment.sequence == cut.sequence && cut.offset > 0 {
                let before = spool::whole_records(&std::fs::File::open(&segment.path)?, cut.offset)?;
                packets -= before.packets.min(packets);
                bytes -= before.frame_bytes.min(bytes);
            }
            found.packets += packets;
            found.frame_bytes += bytes;
            feed.tell(Input::Segment(queue, segment));
        }
    }
    (0..queues).for_each(|queue| feed.tell(Input::End(queue)));
    feed.tell(Input::Counts(counts(dir)?));
    Ok((journal, found))
}

/// Bytes of a pcap file without its headers.
fn frame_bytes(bytes: u64, packets: u64) -> u64 {
    use crate::limits::{PCAP_FILE_HEADER_BYTES as FILE, PCAP_RECORD_HEADER_BYTES as RECORD};
    bytes.saturating_sub(FILE as u64 + packets * RECORD as u64)
}

/// Settles the manifest and puts it, again and again; one that is there already for the same objects is left.
pub(super) async fn put_manifest(
    way: Way,
    dir: PathBuf,
    manifest: upload::Manifest,
    key: Option<Arc<SigningKey>>,
    mut patience: Patience,
) -> Outcome {
    let kept = dir.clone();
    let manifest = match tokio::task::spawn_blocking(move || settle(&kept, manifest)).await {
        Ok(Ok(manifest)) => manifest,
        Ok(Err(e)) => return Outcome::Failed(format!("cannot keep the manifest in {}: {e}", dir.display())),
        Err(e) => return Outcome::Failed(format!("the manifest could not be kept: {e}")),
    };
    let (since, mut pause) = (Instant::now(), PAUSE_MIN.min(patience.pause_max));
    loop {
        let error = match put_once(&way, &manifest, key.as_deref()).await {
            Ok(()) => return Outcome::Done,
            Err(e) => format!("the manifest could not be written: {e}"),
        };
        if let Some(outcome) = patience.pause(since, &mut pause, error).await {
            return outcome;
        }
    }
}

async fn put_once(way: &Way, manifest: &upload::Manifest, key: Option<&SigningKey>) -> Result<(), String> {
    let name = upload::manifest_name(&manifest.id);
    let store = way.open().await.map_err(|e| e.to_string())?;
    if let Some(bytes) = store.size(&name).await.map_err(|e| e.to_string())? {
        let there = store.get(&name, bytes).await.map_err(|e| e.to_string())?;
        let same = upload::Manifest::parse(&there)
            .is_ok_and(|m| m.id == manifest.id && m.objects == manifest.objects);
        return if same { Ok(()) } else { Err(format!("{name} is there already and is another one")) };
    }
    upload::publish_manifest(&*store, manifest, key).await.map_err(|e| e.to_string())
}

/// What the job store says of a capture in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Not,
    Unfinished,
    Ended,
}

/// The captures in the spool that need a look.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// No job speaks of them.
    pub strangers: Vec<Record>,
    /// They have ended, and were not wholly delivered.
    pub failed: Vec<Record>,
}

/// Removes the directories of captures that are wholly delivered, and finds those that need a look.
pub(super) fn sweep(spool_dir: &Path, known: impl Fn(&Record) -> Known) -> std::io::Result<Left> {
    let mut left = Left::default();
    for entry in std::fs::read_dir(spool_dir)? {
        let dir = entry?.path();
        let is_capture =
            dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| CaptureId::parse(n).is_some());
        if !is_capture || !dir.is_dir() {
            continue;
        }
        match Record::read(&dir) {
            Ok(Some(record)) => match known(&record) {
                Known::Not => left.strangers.push(record),
                Known::Ended if Journal::open(&dir)?.is_complete() => remove(&dir)?,
                Known::Ended => left.failed.push(record),
                Known::Unfinished => {}
            },
            Ok(None) => {}
            Err(error) => tracing::error!(dir = %dir.display(), %error, "a capture's record cannot be read"),
        }
    }
    Ok(left)
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
