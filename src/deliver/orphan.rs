//! Recovers captures from the spool of a dead process, without its host and job store. Owns what is left of each capture and its
//! delivery to a chosen place; a restarted `trawl serve` delivers without this module (`engine`).
//!
//! Invariant: the spool is only read, until [`Orphan::remove`].

use super::journal::{Entry, Journal};
use super::manifest::{Limits, MANIFEST_BYTES_MAX, MANIFEST_VERSION, Manifest, ManifestError, manifest_name};
use super::record::{CaptureRecord, RECORD, Settled, counts, settled_text};
use super::relay::{PublishError, deliver, publish_manifest};
use crate::job::{CaptureId, Kind, Ledger, LostStream, ObjectInfo, PartId, StopReason};
use crate::limits::{FULL_SNAPLEN, RECOVERED_OBJECT_BYTES};
use crate::matcher::FilterV1;
use crate::merge::{self, Consumed, MergeError, Shape, Start};
use crate::pcap::{Counts, ObjectFormat};
use crate::spool::{self, LeftStream, Salvaged, Survey};
use crate::spool::{Cut, Input, Segment};
use crate::upload::{ObjectStore, UploadError};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Chunks between merge and store.
const CHUNKS_WAITING: usize = 8;
/// A worker's clock follows the host's within half a second. A packet that is older than its capture by more than this does not
/// belong to it.
const CLOCK_SLACK_NS: i128 = 10_000_000_000;

/// Why a capture could not be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Its directory.
    #[error("cannot read {dir}: {source}; check the disk, and try again with a copy of what can be read")]
    Read {
        /// The directory.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The merge.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The merge's thread.
    #[error("cannot merge: {0}")]
    Thread(String),
    /// The place where it goes.
    #[error(transparent)]
    Store(#[from] UploadError),
    /// The manifest.
    #[error("the manifest could not be written: {0}")]
    Manifest(#[from] PublishError),
    /// Another manifest is there.
    #[error("{name} is there already and is another one; choose an empty directory")]
    Exists {
        /// Its name.
        name: String,
    },
}

/// Summary of what is left of a capture, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The capture.
    pub id: CaptureId,
    /// Objects that the dead process delivered, and their packets: the spool does not have them any more.
    pub objects_delivered: usize,
    /// See `objects_delivered`.
    pub packets_delivered: u64,
    /// Whole packets that are left.
    pub packets: u64,
    /// Their frame bytes.
    pub bytes: u64,
    /// Time of the first one, ns since the UNIX epoch; zero if there is none.
    pub first_ns: u64,
    /// Time of the last one.
    pub last_ns: u64,
    /// Segments that were open.
    pub segments_open: u64,
    /// Bytes after the last whole records, which are skipped.
    pub cut_bytes: u64,
    /// Further findings.
    pub notes: Vec<String>,
}

/// One capture in the spool.
#[derive(Debug)]
pub struct Orphan {
    /// What is left of it.
    pub summary: Summary,
    /// Its directories, with its home first.
    dirs: Vec<PathBuf>,
    record: Option<CaptureRecord>,
    entries: Vec<Entry>,
    settled: Option<Settled>,
    /// The counts at the end of the last pcapng object.
    counts: Option<Counts>,
    /// One for each queue; numbered from 0, and the place in the first one where delivered objects end.
    streams: Vec<(Vec<Segment>, u64)>,
    /// Whether every object is complete and some segments are in none of them.
    passed_over: bool,
    /// Whether there are segments that this cannot deliver.
    keeps_segments: bool,
}

/// A capture, and the directories of the spool that have something of it.
pub type Places = (CaptureId, Vec<PathBuf>);

/// The captures in a spool of these directories, in the order of their names, each with its directories.
///
/// # Errors
/// When a directory cannot be read, with which.
pub fn captures(spool_dirs: &[PathBuf]) -> Result<Vec<Places>, (PathBuf, io::Error)> {
    let mut found = BTreeMap::<String, (CaptureId, Vec<PathBuf>)>::new();
    for dir in spool_dirs {
        let entries = std::fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for path in entries.map_err(|error| (dir.clone(), error))?.into_iter().map(|entry| entry.path()) {
            let id = path.file_name().and_then(|name| name.to_str()).and_then(CaptureId::parse);
            if let Some(id) = id.filter(|_| !path.metadata().is_ok_and(|found| !found.is_dir())) {
                let new = (id.clone(), Vec::new());
                found.entry(id.as_str().to_owned()).or_insert(new).1.push(path);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// A sum over delivered objects. A damaged journal may claim any numbers: the sum stays at the largest.
fn total(entries: &[Entry], count: impl Fn(&ObjectInfo) -> u64) -> u64 {
    entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(count(&entry.object)))
}

/// Time of the first record behind what is delivered.
fn first_ns(path: &Path, delivered: Salvaged, found: Salvaged) -> io::Result<u64> {
    if delivered.packets == 0 {
        return Ok(found.first_ns);
    }
    let mut stamp = [0; 8];
    File::open(path)?.read_exact_at(&mut stamp, delivered.bytes)?;
    let [a, b, c, d, e, f, g, h] = stamp;
    let (seconds, nanos) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    Ok(u64::from(seconds) * 1_000_000_000 + u64::from(nanos))
}

impl Orphan {
    /// Looks at the directories of capture `id`, of which there is one at least. The first that has a journal or a record is its
    /// home.
    ///
    /// # Errors
    /// [`RecoverError::Read`].
    pub fn look(id: CaptureId, mut dirs: Vec<PathBuf>) -> Result<Self, RecoverError> {
        // A stable order: where none has either, the first one is as good as another.
        dirs.sort_by_key(|dir| !is_home(dir));
        let dir = &dirs.first().cloned().unwrap_or_default();
        let failed = |source| RecoverError::Read { dir: dir.to_owned(), source };
        let mut notes = Vec::new();
        let record = CaptureRecord::read(dir).unwrap_or_else(|error| {
            notes.push(format!("its record cannot be read: {error}"));
            None
        });
        if record.is_none() && notes.is_empty() {
            notes.push("it has no record: what was asked for is not known".to_owned());
        }
        let settled = settled_text(dir).unwrap_or_else(|error| {
            notes.push(format!("its manifest cannot be read: {error}"));
            None
        });
        let counts = counts(dir).unwrap_or_else(|error| {
            notes.push(format!("its counts cannot be read: {error}"));
            None
        });
        let entries = Journal::read(dir).map_err(failed)?;
        let since_ns = record.as_ref().map_or(0, |r| r.job.submitted.as_nanosecond() - CLOCK_SLACK_NS);
        let survey = survey(&dirs, u64::try_from(since_ns).unwrap_or(0))?;
        let distrusted = survey.distrusted.iter().filter_map(|path| path.file_name());
        notes.extend(distrusted.map(|name| {
            format!("{} has no length file: nothing of it can be trusted", name.to_string_lossy())
        }));
        let missing = without_dir(record.as_ref(), &entries, &dirs);
        notes.extend(missing.iter().map(|(queue, spool)| {
            format!("queue {queue}: it was written to spool {spool}, which is not among the directories: name its directory too")
        }));
        let summary = Summary {
            id,
            objects_delivered: entries.len(),
            packets_delivered: total(&entries, |object| object.packets),
            packets: 0,
            bytes: 0,
            first_ns: 0,
            last_ns: 0,
            segments_open: 0,
            cut_bytes: 0,
            notes,
        };
        let keeps_segments = !survey.distrusted.is_empty() || !missing.is_empty();
        let mut left = Self {
            summary,
            dirs: dirs.clone(),
            record,
            entries,
            settled,
            counts,
            streams: Vec::new(),
            passed_over: false,
            keeps_segments,
        };
        left.take(survey.streams).map_err(failed)?;
        Ok(left)
    }

    /// What its names are made of: as its record says, or else its objects' names.
    fn part(&self) -> PartId {
        let by_name = || Some(PartId::parse(&self.entries.first()?.object.name)?.0);
        let told = match &self.record {
            Some(record) => Some(record.job.part()),
            None => by_name(),
        };
        let is_its_own = |part: &PartId| part.capture == self.summary.id;
        told.filter(is_its_own).unwrap_or_else(|| PartId::alone(&self.summary.id))
    }

    /// Whether the dead process had delivered every object.
    fn is_complete(&self) -> bool {
        self.entries.last().is_some_and(|entry| entry.is_last)
    }

    /// Takes the segments after the last complete object; if every object is complete, the segments that are in none.
    fn take(&mut self, mut streams: BTreeMap<usize, LeftStream>) -> io::Result<()> {
        let cuts = self.entries.last().map_or_else(Vec::new, |entry| entry.cuts.clone());
        let known = self.record.as_ref().map_or(0, |record| record.queues).max(cuts.len());
        let queues = streams.keys().next_back().map_or(known, |last| known.max(last + 1));
        for queue in 0..queues {
            let cut = cuts.get(queue).copied().unwrap_or_default();
            let stream = streams.remove(&queue).unwrap_or_default();
            let passed_over = |sequence| {
                let mut gaps = self.entries.iter().flat_map(|entry| &entry.gaps);
                gaps.find(|gap| (gap.queue, gap.sequence) == (queue, sequence)).copied()
            };
            let (behind, before): (LeftStream, LeftStream) =
                stream.into_iter().partition(|segment| segment.sequence >= cut.sequence);
            let passed: Vec<_> = before
                .into_iter()
                .filter_map(|segment| passed_over(segment.sequence).map(|gap| (gap, segment)))
                .collect();
            let stream = if self.is_complete() {
                let unread =
                    passed.iter().filter(|(gap, _)| gap.offset == 0).map(|(_, segment)| segment.clone());
                let left: LeftStream = unread.chain(behind).collect();
                self.passed_over |= !left.is_empty();
                self.stream(queue, None, left)?
            } else {
                self.stream(queue, Some(cut), behind)?
            };
            self.streams.push(stream);
            for (gap, segment) in passed {
                let (name, offset) = (segment.path.display(), gap.offset);
                let note = format!("queue {queue}: nothing behind byte {offset} of {name} is in an object");
                self.summary.notes.push(note);
                self.keeps_segments |= offset > 0 || !self.is_complete();
            }
        }
        Ok(())
    }

    /// Segments as the merge's input. `cut`: where the delivered objects end; none for single segments that are in no object.
    fn stream(
        &mut self,
        queue: usize,
        cut: Option<Cut>,
        stream: LeftStream,
    ) -> io::Result<(Vec<Segment>, u64)> {
        let summary = &mut self.summary;
        let (is_stream, cut) = (cut.is_some(), cut.unwrap_or_default());
        let (mut segments, mut skip, mut expected) = (Vec::new(), 0, cut.sequence);
        for segment in stream {
            if is_stream && segment.sequence > expected {
                let last = segment.sequence - 1;
                summary.notes.push(format!("queue {queue}: segments {expected} to {last} are missing"));
            }
            expected = segment.sequence + 1;
            let found = segment.found;
            summary.segments_open += u64::from(segment.is_open);
            summary.cut_bytes += segment.cut_bytes;
            if !segment.is_open && segment.cut_bytes > 0 {
                summary.notes.push(format!("queue {queue}: segment {} is damaged", segment.sequence));
            }
            let mut delivered = Salvaged::default();
            if is_stream && segment.sequence == cut.sequence && cut.offset > 0 {
                delivered = spool::whole_records(&File::open(&segment.path)?, cut.offset)?;
            }
            let packets = found.packets.saturating_sub(delivered.packets);
            if packets == 0 {
                continue;
            }
            if segments.is_empty() {
                skip = delivered.bytes;
            }
            summary.packets += packets;
            summary.bytes += found.frame_bytes - delivered.frame_bytes;
            let first_ns = first_ns(&segment.path, delivered, found)?;
            summary.first_ns = if summary.first_ns == 0 { first_ns } else { summary.first_ns.min(first_ns) };
            summary.last_ns = summary.last_ns.max(found.last_ns);
            segments.push(segment.numbered(segments.len() as u64));
        }
        Ok((segments, skip))
    }

    /// Delivers the rest. In the place of the objects that the dead process delivered, the numbers continue and the manifest
    /// covers the whole capture; elsewhere objects and manifest cover the rest alone. None: nothing is left.
    ///
    /// # Errors
    /// [`RecoverError`].
    pub async fn deliver(&self, store: &dyn ObjectStore) -> Result<Option<Manifest>, RecoverError> {
        let goes_on = self.delivered_are_in(store).await?;
        if !goes_on && (self.summary.packets == 0 || self.is_complete() && !self.passed_over) {
            return Ok(None);
        }
        if goes_on && self.passed_over {
            // Objects are in order of time: segments that are in none cannot be inserted between them.
            return Err(RecoverError::Exists { name: manifest_name(&self.part()) });
        }
        let new = if self.is_complete() && !self.passed_over {
            Vec::new()
        } else {
            self.merge_into(store, goes_on).await?
        };
        let manifest = self.manifest(goes_on, new).map_err(PublishError::from)?;
        let name = manifest_name(&manifest.manifest.part());
        let Some(bytes) = store.size(&name).await? else {
            publish_manifest(store, &manifest, None, None).await?;
            return Ok(Some(manifest.manifest));
        };
        if bytes > MANIFEST_BYTES_MAX {
            return Err(RecoverError::Exists { name });
        }
        let there = store.get(&name, bytes).await?;
        match Manifest::parse(&there) {
            Ok(there) if there.objects == manifest.manifest.objects => Ok(Some(there)),
            _ => Err(RecoverError::Exists { name }),
        }
    }

    async fn delivered_are_in(&self, store: &dyn ObjectStore) -> Result<bool, RecoverError> {
        for entry in &self.entries {
            match store.size(&entry.object.name).await {
                Ok(Some(bytes)) if bytes == entry.object.bytes => {}
                Ok(_) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(!self.entries.is_empty())
    }

    async fn merge_into(
        &self,
        store: &dyn ObjectStore,
        goes_on: bool,
    ) -> Result<Vec<ObjectInfo>, RecoverError> {
        let object = if goes_on { u32::try_from(self.entries.len()).unwrap_or(u32::MAX) } else { 0 };
        let cuts = self.streams.iter().map(|(_, skip)| Cut { sequence: 0, offset: *skip }).collect();
        let (start, shape) = (Start { object, cuts }, self.shape());
        let format = shape.format;
        let (tell, inputs) = crossbeam::channel::unbounded();
        for (queue, (stream, _)) in self.streams.iter().enumerate() {
            let segments = stream.iter().map(|segment| Input::Segment(queue, segment.clone()));
            for input in segments.chain([Input::End(queue)]) {
                let _receiver_is_here = tell.send(input);
            }
        }
        let _receiver_is_here = tell.send(Input::Counts(self.counts));
        let (outputs, merged) = mpsc::channel(CHUNKS_WAITING);
        let (report, outcome) = oneshot::channel();
        let merge = move || {
            let _deliverer_gone = report.send(merge::run_live(&start, &shape, inputs, outputs));
        };
        let thread = std::thread::Builder::new().name("merge".to_owned()).spawn(merge);
        thread.map_err(|e| RecoverError::Thread(e.to_string()))?;
        let mut unnoted = |_: ObjectInfo, _: Consumed| Ok(());
        let delivered = deliver(store, &self.part(), format, object, merged, &mut unnoted).await;
        // A merge that failed closed the channel, which delivery reports as an interruption: the cause is the merge's.
        match (outcome.await, delivered) {
            (_, Err(e)) if !matches!(e, UploadError::Interrupted { .. }) => Err(e.into()),
            (Ok(Err(e)), _) => Err(e.into()),
            (Err(_), _) => Err(RecoverError::Thread("the merge thread died".to_owned())),
            (Ok(Ok(_)), delivered) => Ok(delivered?),
        }
    }

    /// The format of the dead process's objects, if it is known.
    fn shape(&self) -> Shape {
        match &self.record {
            None => Shape::plain(self.snaplen(), RECOVERED_OBJECT_BYTES),
            Some(record) => Shape {
                snaplen: record.snaplen,
                object_bytes_max: record.object_bytes_max,
                format: record.format,
                origin: Arc::new(record.origin.clone()),
            },
        }
    }

    fn snaplen(&self) -> u32 {
        self.record.as_ref().map_or(FULL_SNAPLEN, |record| record.snaplen)
    }

    /// The last known counts, compared with the objects.
    fn ledger(&self, goes_on: bool) -> Ledger {
        let delivered = self.summary.packets_delivered;
        let delivered_bytes = total(&self.entries, ObjectInfo::frame_bytes);
        let known = self.record.as_ref().map_or_else(Ledger::default, |record| record.job.ledger);
        let packets = delivered.saturating_add(self.summary.packets);
        let mut whole = known.recovered(packets, delivered_bytes.saturating_add(self.summary.bytes));
        if !goes_on {
            for count in [&mut whole.offered, &mut whole.rx, &mut whole.matched, &mut whole.captured] {
                *count = count.saturating_sub(delivered);
            }
            whole.captured_bytes = whole.captured_bytes.saturating_sub(delivered_bytes);
        }
        whole
    }

    fn manifest(&self, goes_on: bool, new: Vec<ObjectInfo>) -> Result<Settled, ManifestError> {
        let before = self.entries.iter().filter(|_| goes_on).map(|entry| entry.object.clone());
        let objects: Vec<ObjectInfo> = before.chain(new).collect();
        if let Some(settled) = self.settled.as_ref().filter(|settled| settled.manifest.objects == objects) {
            return Ok(settled.clone());
        }
        let (record, ledger) = (self.record.as_ref(), self.ledger(goes_on));
        let format = record.map_or_else(ObjectFormat::default, |record| record.format);
        let (job, request) = (record.map(|r| &r.job), record.map(|r| &r.job.request));
        let first = Timestamp::from_nanosecond(i128::from(self.summary.first_ns)).unwrap_or_default();
        let site = self.part().site;
        let this_host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let asked_colo = || request.and_then(|request| request.colo.clone()).unwrap_or_default();
        Settled::new(Manifest {
            version: MANIFEST_VERSION,
            id: self.summary.id.clone(),
            account: request.map(|request| request.account.clone()),
            host: site.as_ref().map_or_else(this_host, |site| site.host().to_owned()),
            colo: site.as_ref().map_or_else(asked_colo, |site| site.colo().to_owned()),
            is_part: site.is_some(),
            kind: request.map_or(Kind::Full, |request| request.kind),
            filter_v1: request.map_or_else(FilterV1::default, |request| request.filter.clone()),
            limits: Limits {
                time_limit: request.map_or(0.0, |request| request.time_limit),
                packet_limit: request.and_then(|request| request.packet_limit),
                byte_limit: request.and_then(|request| request.byte_limit),
            },
            submitted: job.map_or(first, |job| job.submitted),
            started: record.and_then(|record| record.started),
            ended: record.and_then(|record| record.ended),
            stop_reason: job.and_then(|job| job.stop_reason).or(Some(StopReason::Interrupted)),
            complete: goes_on != self.entries.is_empty()
                && record.is_some_and(|record| record.is_final)
                && self.summary.notes.is_empty()
                && ledger.is_whole(),
            snaplen: self.snaplen(),
            format: format.container,
            compression: format.compression,
            objects,
            ledger,
            queues: u32::try_from(self.streams.len()).unwrap_or(u32::MAX),
            recovered: true,
            counted_until: record.map(|record| record.known_until),
            sample_one_in: job.and_then(|job| job.sample_one_in),
            clock_steps: job.and_then(|job| job.clock_steps),
            lost_streams: self.lost_streams(),
            clock: job.and_then(|job| job.clock),
            offset_time: None,
        })
    }

    fn lost_streams(&self) -> Vec<LostStream> {
        let known = self.record.as_ref().map_or_else(Vec::new, |record| record.job.lost_streams.clone());
        let is_new = |queue: &u16| !known.iter().any(|lost| lost.queue == *queue);
        let missing = without_dir(self.record.as_ref(), &self.entries, &self.dirs);
        let missing =
            missing.into_iter().filter(|(queue, _)| is_new(queue)).map(|(queue, spool)| LostStream {
                queue,
                reason: StopReason::IoError,
                message: format!("it was written to spool {spool}, which was not there to recover it from"),
            });
        known.iter().cloned().chain(missing).collect()
    }

    /// Removes the capture from the spool; false: it stays, because it has segments that could not be delivered.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self) -> io::Result<bool> {
        if self.keeps_segments {
            return Ok(false);
        }
        // The home last: it says what was delivered.
        self.dirs.iter().rev().try_for_each(std::fs::remove_dir_all).map(|()| true)
    }
}

/// Queues that were written to a directory of the spool that is not among these, with its name.
fn without_dir(record: Option<&CaptureRecord>, entries: &[Entry], dirs: &[PathBuf]) -> Vec<(u16, String)> {
    let Some(record) = record.filter(|_| entries.last().is_none_or(|entry| !entry.is_last)) else {
        return Vec::new();
    };
    let here: Vec<String> =
        dirs.iter().filter_map(|dir| spool::spool_id(dir.parent()?).ok().flatten()).collect();
    record.dirs.iter().filter(|(_, id)| !here.contains(id)).map(|(queue, id)| (*queue, id.clone())).collect()
}

/// Whether a capture's directory has what only its home has. One that cannot be looked at may.
fn is_home(dir: &Path) -> bool {
    let mut names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.any(|name| name.as_encoded_bytes().starts_with(b".journal") || name == RECORD)
}

/// What is left in all directories of a capture.
fn survey(dirs: &[PathBuf], since_ns: u64) -> Result<Survey, RecoverError> {
    let mut all = Survey::default();
    for dir in dirs {
        let found = spool::survey(dir, since_ns);
        let found = found.map_err(|source| RecoverError::Read { dir: dir.clone(), source })?;
        all.distrusted.extend(found.distrusted);
        for (queue, segments) in found.streams {
            let stream = all.streams.entry(queue).or_default();
            stream.extend(segments);
            stream.sort_by_key(|segment| segment.sequence);
        }
    }
    all.distrusted.sort();
    Ok(all)
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::merge::Gap;

    #[test]
    fn a_journal_that_claims_impossible_counts_is_looked_at_without_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        for name in ["a", "b"] {
            let object =
                ObjectInfo { name: name.to_owned(), packets: u64::MAX, bytes: 1, ..ObjectInfo::default() };
            let cuts = vec![Cut { sequence: u64::MAX, offset: u64::MAX }];
            journal.append(Entry { object, cuts, is_last: false, gaps: Vec::new() }).unwrap();
        }
        let left = Orphan::look(CaptureId::random(), vec![dir.path().to_owned()]).unwrap();
        assert_eq!((left.summary.objects_delivered, left.summary.packets_delivered), (2, u64::MAX));
        for goes_on in [false, true] {
            let _a_ledger = left.ledger(goes_on);
        }
    }

    #[test]
    fn a_queue_in_a_directory_that_is_not_named_is_missed_and_nothing_is_removed() {
        let [home, other] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let ids = [&home, &other].map(|spool| crate::spool::name_spool(spool.path()).unwrap());
        let id = CaptureId::random();
        let dirs = [&home, &other].map(|spool| spool.path().join(id.as_str()));
        dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        let record = CaptureRecord {
            job: crate::job::Job { id: id.clone(), ..crate::job::Job::sample("a", 1) },
            queues: 2,
            snaplen: 160,
            object_bytes_max: 1,
            format: ObjectFormat::default(),
            origin: crate::pcap::Origin::default(),
            dirs: BTreeMap::from([(0, ids[0].clone()), (1, ids[1].clone())]),
            started: None,
            ended: None,
            known_until: Timestamp::UNIX_EPOCH,
            is_final: false,
        };
        record.write(&dirs[0]).unwrap();
        let both = Orphan::look(id.clone(), dirs.to_vec()).unwrap();
        assert!(both.summary.notes.is_empty() && both.lost_streams().is_empty(), "{:?}", both.summary.notes);
        let one = Orphan::look(id, vec![dirs[0].clone()]).unwrap();
        let [note] = &one.summary.notes[..] else { panic!("{:?}", one.summary.notes) };
        assert!(note.contains("queue 1") && note.contains(&ids[1]), "{note}");
        let [lost] = &one.lost_streams()[..] else { panic!("{:?}", one.lost_streams()) };
        assert_eq!((lost.queue, lost.reason), (1, StopReason::IoError));
        assert!(!one.remove().unwrap() && dirs[0].exists(), "the record says what else there is");
        assert!(both.remove().unwrap() && !dirs[0].exists() && !dirs[1].exists());
    }

    fn pcap(packets: u64) -> Vec<u8> {
        let mut writer = crate::pcap::Writer::new(Vec::new(), 262_144, 1).unwrap();
        let second = 1_800_000_000_000_000_000;
        (0..packets).for_each(|i| writer.write(second + i, 84, &[7; 84]).unwrap());
        writer.finish().unwrap()
    }

    #[tokio::test]
    async fn what_complete_objects_passed_over_is_delivered_into_an_empty_directory_and_only_there() {
        let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let gap = |sequence, offset| Gap { queue: 0, sequence, offset };
        let entry = Entry {
            object: ObjectInfo { name: "a".to_owned(), packets: 9, bytes: 1, ..ObjectInfo::default() },
            cuts: vec![Cut { sequence: 4, offset: 0 }],
            is_last: true,
            gaps: vec![gap(1, 0), gap(2, 124)],
        };
        Journal::open(dir.path()).unwrap().append(entry).unwrap();
        // One published late, one that is damaged after its delivered part, and one that is delivered.
        for (sequence, packets) in [(1, 5), (2, 1), (3, 2)] {
            std::fs::write(dir.path().join(format!("q000-{sequence:08}.pcap")), pcap(packets)).unwrap();
        }
        let left = Orphan::look(CaptureId::random(), vec![dir.path().to_owned()]).unwrap();
        assert_eq!(left.summary.packets, 5);
        assert_eq!(left.summary.notes.iter().filter(|note| note.contains("is in an object")).count(), 2);
        let store = crate::upload::FileStore::new(out.path().to_owned());
        let manifest = left.deliver(&store).await.unwrap().unwrap();
        assert_eq!((manifest.objects.len(), manifest.objects[0].packets), (1, 5));
        assert!(!manifest.complete && !left.remove().unwrap());
        store.put("a", vec![0].into()).await.unwrap();
        let error = left.deliver(&store).await.unwrap_err();
        assert!(matches!(error, RecoverError::Exists { .. }), "{error}");
    }
}
