//! Packets of a simple part's files by their numbers. Owns the reading; which packets are wanted is drawn elsewhere.
//!
//! The engine merges what all queues delivered into files, by time. So a host's packets are one stream to the fleet, number 0, and a
//! packet's number is its place in these files.

use crate::engine::Handle;
use crate::fleet::sample::Packet;
use crate::job::{AccountId, CaptureId};
use crate::node::wire::Frame;
use crate::pcap::{ReadError, Reader};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why packets cannot be given.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// A file.
    #[error(transparent)]
    File(#[from] ReadError),
    /// One that was drawn is not there.
    #[error("the files have only {0} packets")]
    Fewer(u64),
}

/// The stream that a host's files are.
pub(super) const STREAM: u16 = 0;

/// The files of a part, in order.
pub(super) async fn files(
    engine: &Handle,
    dir: &Path,
    account: &AccountId,
    id: &CaptureId,
) -> Option<Vec<PathBuf>> {
    let job = engine.get(account.clone(), id.clone()).await.ok()?;
    Some(job.objects.iter().map(|object| dir.join(&object.name)).collect())
}

/// These packets, in their order.
pub(super) fn frames(files: &[PathBuf], packets: &[Packet]) -> Result<Vec<Frame>, Unreadable> {
    let wanted: BTreeMap<u64, usize> =
        packets.iter().enumerate().map(|(at, packet)| (packet.sequence, at)).collect();
    let mut found: Vec<Option<Frame>> = vec![None; packets.len()];
    let mut sequence = 0;
    'files: for file in files {
        let mut reader = Reader::open(file)?;
        while let Some(record) = reader.next_record()? {
            if let Some(at) = wanted.get(&sequence) {
                let data = record.data.to_vec();
                found[*at] = Some(Frame { ns: record.ns, wire_len: record.wire_len, data });
            }
            sequence += 1;
            if wanted.last_key_value().is_some_and(|(last, _)| sequence > *last) {
                break 'files;
            }
        }
    }
    let all: Option<Vec<Frame>> = found.into_iter().collect();
    all.ok_or(Unreadable::Fewer(sequence))
}
