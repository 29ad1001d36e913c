//! Captures that a dead process left in the spool. Owns the survey of the spool at start and the merge's input; not the jobs.
//!
//! Invariant: only a directory of which everything is delivered is removed.

use super::journal::{self, Journal, Totals};
use super::record::{CaptureRecord, counts, forget_leftovers, remove};
use crate::job::{CaptureId, ObjectInfo, PartId};
use crate::merge::Start;
use crate::pcap::Counts;
use crate::spool::{self, Feed, Input, Recovery, Segment, Spool};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Segments that may be missing before a segment of the same stream: with more, the file is not ours.
const HOLES_MAX: u64 = 1 << 16;
/// Attempts to free a segment, and the pause after the first.
const FREE_ATTEMPTS: u32 = 5;
const FREE_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Objects and packets found of a capture whose process died.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub objects: Vec<ObjectInfo>,
    pub packets: u64,
    pub frame_bytes: u64,
}

/// Publishes the segments that a dead process left, and feeds them to the merge. After an error the feed has received nothing, and
/// the call can be repeated. A segment that the disk refuses to publish is such an error unless `is_last`: then it stays, and its
/// whole packets count as found, so that the ledger shows them as missing.
pub(super) fn recover(
    dir: &Path,
    queues: usize,
    snaplen: u32,
    (spool, feed): (&Spool, &Feed),
    is_last: bool,
) -> io::Result<(Journal, Found)> {
    let journal = Journal::open(dir)?;
    let Start { cuts, .. } = journal.start(queues);
    let recovery = spool.recover(dir, snaplen, &cuts)?;
    if !is_last {
        all_is_there(&recovery)?;
    }
    for (place, error) in &recovery.unread {
        let dir = place.display();
        tracing::error!(%dir, %error, "a directory of a capture cannot be read; it is delivered without what is there");
    }
    let Totals { packets, frame_bytes, gaps } = journal.totals().clone();
    let mut found = Found { objects: journal::objects(dir)?, packets, frame_bytes };
    for spool::HeldSegment { path, why, found: held, .. } in &recovery.held {
        let (segment, packets) = (path.display(), held.packets);
        tracing::warn!(%segment, %why, packets, "a segment is left where it is, and its directory with it");
        found.packets = found.packets.saturating_add(held.packets);
        found.frame_bytes = found.frame_bytes.saturating_add(held.frame_bytes);
    }
    let mut inputs = Vec::new();
    for (queue, stream) in recovery.streams {
        let Some(cut) = cuts.get(queue) else {
            let dir = dir.display();
            tracing::error!(%dir, queue, queues, "segments of a queue that the capture did not have; they are kept");
            continue;
        };
        let mut kept = Vec::<Segment>::new();
        for segment in stream {
            if segment.sequence < cut.sequence {
                if !gaps.iter().any(|gap| (gap.queue, gap.sequence) == (queue, segment.sequence)) {
                    free(spool, &segment.path);
                }
                continue;
            }
            let next = kept.last().map_or(cut.sequence, |last| last.sequence + 1);
            if journal.is_complete() || segment.sequence.saturating_sub(next) > HOLES_MAX {
                tracing::error!(segment = %segment.path.display(), "a segment is in no object; it is kept");
                continue;
            }
            let torn = recovery.torn.get(&(queue, segment.sequence)).copied().unwrap_or(0);
            let (mut packets, mut bytes) = (segment.packets, segment.frame_bytes().saturating_sub(torn));
            if segment.sequence == cut.sequence && cut.offset > 0 {
                let before = spool::whole_records(&File::open(&segment.path)?, cut.offset)?;
                packets -= before.packets.min(packets);
                bytes -= before.frame_bytes.min(bytes);
            }
            found.packets = found.packets.saturating_add(packets);
            found.frame_bytes = found.frame_bytes.saturating_add(bytes);
            kept.push(segment);
        }
        // A hole is a segment that could not be published, or one that cannot be trusted.
        inputs.extend(spool::with_holes(queue, cut.sequence, kept));
    }
    let counts = last_counts(dir, found.packets)?;
    inputs.into_iter().for_each(|input| feed.tell(input));
    // Of as many queues as complete objects have, if there are any.
    (0..cuts.len()).for_each(|queue| feed.tell(Input::End(queue)));
    feed.tell(Input::Counts(counts));
    Ok((journal, found))
}

/// What may pass with another try.
fn all_is_there(recovery: &Recovery) -> io::Result<()> {
    if let Some(held) = recovery.held.iter().find(|held| held.is_passing) {
        let (path, why) = (held.path.display(), &held.why);
        return Err(io::Error::other(format!("segment {path} cannot be published: {why}")));
    }
    let unread = recovery.unread.first();
    unread.map_or(Ok(()), |(place, error)| {
        Err(io::Error::new(error.kind(), format!("{}: {error}", place.display())))
    })
}

/// What the end of the last object says. Not known, if the file is damaged or speaks of other packets than those found.
fn last_counts(dir: &Path, packets: u64) -> io::Result<Option<Counts>> {
    match counts(dir) {
        Ok(Some(counts)) if counts.captured != packets => {
            let counted = counts.captured;
            tracing::warn!(dir = %dir.display(), counted, packets, "what was counted is not what is there; the file will not say it");
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::error!(%error, "a capture's counts are damaged; its file will not say them");
            Ok(None)
        }
        counts => counts,
    }
}

/// Frees a delivered segment. A failure costs disk space, and no packets.
pub(super) fn free(spool: &Spool, segment: &Path) {
    let mut pause = FREE_PAUSE_MIN;
    for attempt in 1.. {
        match spool.free(segment) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) if attempt < FREE_ATTEMPTS => std::thread::sleep(pause),
            Err(error) => {
                tracing::warn!(segment = %segment.display(), %error, "a delivered segment could not be freed");
                return;
            }
            Ok(()) => return,
        }
        pause *= 2;
    }
}

/// What the job store says of a capture in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Not,
    Unfinished,
    Ended,
}

/// The captures in the spool that need a look.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// No job knows them.
    pub strangers: Vec<CaptureRecord>,
    /// They have ended, and were not wholly delivered, or left something in their store.
    pub failed: Vec<CaptureRecord>,
}

/// Removes the directories of captures that are wholly delivered, and finds those that need a look.
pub(crate) fn sweep(spool: &Spool, known: impl Fn(&CaptureRecord) -> Known) -> std::io::Result<Leftovers> {
    let mut left = Leftovers::default();
    for entry in std::fs::read_dir(&spool.config().dir)? {
        let dir = entry?.path();
        let is_capture =
            dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| CaptureId::parse(n).is_some());
        if !is_capture || dir.metadata().is_ok_and(|found| !found.is_dir()) {
            continue;
        }
        match CaptureRecord::read(&dir) {
            Ok(Some(record)) if !dir.ends_with(record.job.id.as_str()) => tracing::error!(
                dir = %dir.display(), capture = %record.job.id,
                "a directory with the record of another capture is left alone; remove it if it is a copy"
            ),
            Ok(Some(record)) => match known(&record) {
                Known::Not => left.strangers.push(record),
                Known::Ended => match is_removed(spool, &dir) {
                    Ok(true) => {}
                    Ok(false) => left.failed.push(record),
                    Err(error) => {
                        tracing::error!(dir = %dir.display(), %error, "an ended capture's directory cannot be looked through");
                    }
                },
                Known::Unfinished => {}
            },
            Ok(None) => remove_if_empty(spool, &dir),
            Err(error) => tracing::error!(
                dir = %dir.display(), %error,
                "a capture's record cannot be read; unless the capture goes on below, `trawl recover` gets out what is in it"
            ),
        }
    }
    tell_of_strays(spool);
    Ok(left)
}

/// Looks for what is of a capture whose home is gone: a disk that refused kept it from being removed.
fn tell_of_strays(spool: &Spool) {
    for disk in &spool.disks()[1..] {
        for name in
            std::fs::read_dir(disk.dir()).into_iter().flatten().flatten().map(|entry| entry.file_name())
        {
            let is_capture = name.to_str().is_some_and(|name| CaptureId::parse(name).is_some());
            if is_capture && spool.home().dir().join(&name).try_exists().is_ok_and(|is_there| !is_there) {
                tracing::warn!(
                    dir = %disk.dir().join(&name).display(),
                    "a directory is left of a capture that is gone otherwise; `trawl recover` gets out what is in it, then remove it"
                );
            }
        }
    }
}

/// Removes the directories of ended captures whose leftovers in the store are removed, if everything in them is delivered. Waits
/// for the disk.
pub(crate) fn swept(spool: &Spool, parts: &[PartId]) {
    for part in parts {
        let dir = spool.config().dir.join(part.capture.as_str());
        if let Err(error) = forget_leftovers(&dir).and_then(|()| is_removed(spool, &dir)) {
            tracing::warn!(dir = %dir.display(), %error, "an ended capture's directory could not be removed");
        }
    }
}

/// Removes a directory without a record if it has nothing but records that were never whole.
fn remove_if_empty(spool: &Spool, dir: &Path) {
    let is_part = |entry: io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().ends_with(b".part"))
    };
    let is_empty = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.all(is_part));
    if is_empty && let Err(error) = spool.remove_capture_dir(dir) {
        tracing::warn!(dir = %dir.display(), %error, "an empty directory in the spool could not be removed");
    }
}

/// Removes the directory of an ended capture if everything in it is delivered.
fn is_removed(spool: &Spool, dir: &Path) -> io::Result<bool> {
    if !Journal::open(dir)?.is_complete() {
        return Ok(false);
    }
    // Nothing is being published at a start.
    spool.remove_strays(dir);
    remove(spool, dir)
}
