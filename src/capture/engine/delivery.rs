//! From published segments to the last object: the live merge on its thread, and the task that brings its output into the
//! store, again and again until it is there. Owns their coupling; not when a capture ends.
//!
//! Invariant: a segment is freed only after the objects that hold its packets are complete in the store and journalled.

use super::Note;
use crate::capture::journal::{Entry, Journal, Record, counts, remove, settle};
use crate::capture::{CaptureId, ObjectInfo};
use crate::merge::{self, Consumed, Feed, Input, Shape, Start};
use crate::spool::{self, Spool};
use crate::upload::{self, Destination, FileStore, ObjectStore, SigningKey, Stores, UploadError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Niceness of the merge's threads, which share the writers' cores.
const MERGE_NICENESS: i32 = 15;
/// Chunks between merge and store: with chunks of about 1 MiB, what one capture holds in memory.
const CHUNKS_WAITING: usize = 8;
/// First and longest pause between two attempts; within an attempt the store has its own, shorter ones.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Where a capture's objects go, opened anew for each attempt: credentials may have been put right.
#[derive(Clone)]
pub(super) struct Way {
    pub stores: Arc<Stores>,
    pub destination: Option<Destination>,
    pub simple_dir: PathBuf,
}

impl Way {
    pub async fn open(&self) -> Result<Arc<dyn ObjectStore>, UploadError> {
        let store: Box<dyn ObjectStore> = match &self.destination {
            Some(destination) => self.stores.open(destination).await?,
            None => Box::new(FileStore::new(self.simple_dir.clone())),
        };
        Ok(Arc::from(store))
    }
}

/// How a try is repeated.
#[derive(Clone)]
pub(super) struct Patience {
    pub serial: u64,
    pub retention: Duration,
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
        if since.elapsed() >= self.retention {
            let hours = self.retention.as_secs_f64() / 3600.0;
            return Some(Outcome::Failed(format!(
                "{error}; given up after {hours:.1} hours (upload.retention_seconds)"
            )));
        }
        let _engine_gone = self.notes.send(Note::Trouble { serial: self.serial, error: error.clone() });
        tokio::select! {
            () = tokio::time::sleep(*pause) => {}
            _ = self.leaving.wait_for(|leaving| *leaving) => return Some(Outcome::Left),
        }
        *pause = (*pause * 2).min(PAUSE_MAX);
        None
    }
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
        let (mut since, mut pause) = (Instant::now(), PAUSE_MIN);
        loop {
            let objects = journal.entries().len();
            let error = match self.attempt(journal).await {
                Ok(()) => return Outcome::Done,
                Err(Stop::Merge(e)) => return Outcome::Failed(e),
                Err(Stop::Upload(e)) => e.to_string(),
            };
            if journal.entries().len() > objects {
                (since, pause) = (Instant::now(), PAUSE_MIN);
            }
            if let Some(outcome) = self.patience.pause(since, &mut pause, error).await {
                return outcome;
            }
        }
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
        let (id, this) = (self.id.clone(), &*self);
        let delivered = upload::deliver(&*store, &id, format, first, merged, |info, consumed| {
            this.object(journal, info, consumed)
        })
        .await;
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
        self.feed.done(&cuts);
        journal.append(Entry { object: info.clone(), cuts, is_last }).map_err(|source| {
            UploadError::Disk { action: "write the journal in", path: self.dir.clone(), source }
        })?;
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

    async fn done(&self, result: Outcome) {
        let frees = std::mem::take(&mut *self.frees.lock().unwrap_or_else(PoisonError::into_inner));
        for free in frees {
            let _died_and_said_so = free.await;
        }
        let _engine_gone = self.patience.notes.send(Note::Delivered { serial: self.patience.serial, result });
    }
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
    let (since, mut pause) = (Instant::now(), PAUSE_MIN);
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

/// Removes the directories of captures that are wholly delivered, and finds those that no job speaks of.
pub(super) fn sweep(spool_dir: &Path, known: impl Fn(&Record) -> Known) -> std::io::Result<Vec<Record>> {
    let mut strangers = Vec::new();
    for entry in std::fs::read_dir(spool_dir)? {
        let dir = entry?.path();
        let is_capture =
            dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| CaptureId::parse(n).is_some());
        if !is_capture || !dir.is_dir() {
            continue;
        }
        match Record::read(&dir) {
            Ok(Some(record)) if known(&record) == Known::Not => strangers.push(record),
            Ok(Some(record)) if known(&record) == Known::Ended && Journal::open(&dir)?.is_complete() => {
                remove(&dir)?
            }
            Ok(_) => {}
            Err(error) => tracing::error!(dir = %dir.display(), %error, "a capture's record cannot be read"),
        }
    }
    Ok(strangers)
}
