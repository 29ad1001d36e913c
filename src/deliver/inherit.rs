//! What a dead process left of a capture. Owns the survey of the spool at start and what is told to the merge; not the jobs.
//!
//! Invariant: only a directory of which everything is delivered is removed.

use super::journal::{Journal, Record, counts};
use crate::job::{CaptureId, ObjectInfo};
use crate::merge::Start;
use crate::spool::{self, Cut, Feed, Input, Spool};
use std::path::Path;

/// What was found of a capture whose process died.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub objects: Vec<ObjectInfo>,
    pub packets: u64,
    pub frame_bytes: u64,
}

/// Makes what a dead process left ready for the merge.
pub(super) fn recover(
    dir: &Path,
    queues: usize,
    snaplen: u32,
    spool: &Spool,
    feed: &Feed,
) -> std::io::Result<(Journal, Found)> {
    std::fs::create_dir_all(dir)?;
    let journal = Journal::open(dir)?;
    let Start { cuts, .. } = journal.start(queues);
    let everything = vec![Cut { sequence: u64::MAX, offset: 0 }; queues];
    let recovery = spool.recover(dir, snaplen, if journal.is_complete() { &everything } else { &cuts })?;
    for (path, why) in &recovery.held {
        let segment = path.display();
        tracing::warn!(%segment, %why, "a segment is left where it is, and its directory with it");
    }
    let mut found = Found::default();
    for entry in journal.entries() {
        found.packets = found.packets.saturating_add(entry.object.packets);
        found.frame_bytes = found.frame_bytes.saturating_add(entry.object.frame_bytes());
        found.objects.push(entry.object.clone());
    }
    for (queue, cut) in cuts.iter().enumerate() {
        for segment in recovery.streams.get(&queue).into_iter().flatten() {
            if segment.sequence < cut.sequence || journal.is_complete() {
                spool.free(&segment.path)?;
            }
        }
        for input in recovery.inputs(queue, cut.sequence).take_while(|_| !journal.is_complete()) {
            let Input::Segment(_, segment) = &input else {
                feed.tell(input);
                continue;
            };
            let (mut packets, mut bytes) = (segment.packets, frame_bytes(segment.bytes, segment.packets));
            if segment.sequence == cut.sequence && cut.offset > 0 {
                let before = spool::whole_records(&std::fs::File::open(&segment.path)?, cut.offset)?;
                packets -= before.packets.min(packets);
                bytes -= before.frame_bytes.min(bytes);
            }
            found.packets += packets;
            found.frame_bytes += bytes;
            feed.tell(input);
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

/// What the job store says of a capture in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Not,
    Unfinished,
    Ended,
}

/// The captures in the spool that need a look.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// No job speaks of them.
    pub strangers: Vec<Record>,
    /// They have ended, and were not wholly delivered.
    pub failed: Vec<Record>,
}

/// Removes the directories of captures that are wholly delivered, and finds those that need a look.
pub(crate) fn sweep(spool: &Spool, known: impl Fn(&Record) -> Known) -> std::io::Result<Left> {
    let mut left = Left::default();
    for entry in std::fs::read_dir(&spool.config().dir)? {
        let dir = entry?.path();
        let is_capture =
            dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| CaptureId::parse(n).is_some());
        if !is_capture || !dir.is_dir() {
            continue;
        }
        match Record::read(&dir) {
            Ok(Some(record)) => match known(&record) {
                Known::Not => left.strangers.push(record),
                Known::Ended => {
                    if !Journal::open(&dir)?.is_complete() || !spool.remove_capture_dir(&dir)? {
                        left.failed.push(record);
                    }
                }
                Known::Unfinished => {}
            },
            Ok(None) => {}
            Err(error) => tracing::error!(dir = %dir.display(), %error, "a capture's record cannot be read"),
        }
    }
    Ok(left)
}
