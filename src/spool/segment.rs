//! One segment while it is written, and on its way to the publisher. Owns its names and its counts.
//!
//! Invariant: `bytes` is the end of what the worker handed over and the disk has not refused.

use super::backing::Backing;
use super::disk::Disk;
use super::length::Length;
use super::publish::Step;
use super::{Failure, Piece};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A segment that is not yet published.
#[derive(Debug)]
pub struct OpenSegment {
    pub(super) sequence: u32,
    /// Where it is charged.
    pub(super) disk: Arc<Disk>,
    pub(super) backing: Backing,
    pub(super) open_path: PathBuf,
    pub(super) path: PathBuf,
    /// End of its bytes.
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) frame_bytes: u64,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// Offsets of the writes that the disk has not answered.
    in_flight: Vec<u64>,
    pub(super) length: Arc<Length>,
    pub(super) length_path: PathBuf,
    /// The last page is partly filled and will be written again.
    pub(super) tail_open: bool,
    pub(super) closed: bool,
    /// The stream failed here: only whole records below `bytes` count.
    pub(super) broken: bool,
    /// Since when it has bytes that no fsync was ordered for.
    pub(super) dirty_since: Option<Instant>,
    /// How far its publishing is.
    pub(super) step: Step,
    /// The first file, once a copy takes its place.
    pub(super) replaced: Option<(PathBuf, Backing)>,
}

impl OpenSegment {
    pub(super) fn create(disk: &Arc<Disk>, dir: &Path, queue: u16, sequence: u32) -> Result<Self, Failure> {
        let name = format!("q{queue:03}-{sequence:08}.pcap");
        let open_path = dir.join(format!(".{name}.open"));
        let length_path = dir.join(format!(".{name}.len"));
        let files = disk.account().files();
        let made = Length::create(files, &length_path)
            .map_err(|e| Failure::from_io("cannot make the segment's length file", &length_path, &e))
            .and_then(|length| Ok((length, Backing::create(disk, &open_path)?)));
        let (length, backing) = made.inspect_err(|_| disk.account().discard(length_path.clone(), None))?;
        Ok(Self {
            sequence,
            disk: Arc::clone(disk),
            backing,
            path: dir.join(name),
            open_path,
            bytes: 0,
            packets: 0,
            frame_bytes: 0,
            first_ns: 0,
            last_ns: 0,
            in_flight: Vec::new(),
            length: Arc::new(length),
            length_path,
            tail_open: false,
            closed: false,
            broken: false,
            dirty_since: None,
            step: Step::Salvage,
            replaced: None,
        })
    }

    /// Whether an fsync is due at `now`: it has bytes that are not durable, for `interval` or longer, and none is under way.
    /// One that is ordered while writes are in flight does not cover them, so what is durable decides, not what was ordered.
    pub(super) fn wants_sync(&mut self, now: Instant, interval: Duration) -> bool {
        if self.bytes <= self.length.durable() {
            self.dirty_since = None;
            return false;
        }
        // Only a copy makes a mapped segment durable whose fsync failed; that is made when it is published.
        let is_hopeless = self.length.sync_failed() && matches!(self.backing, Backing::Mapped(_));
        let since = *self.dirty_since.get_or_insert(now);
        if is_hopeless || now.saturating_duration_since(since) < interval || !self.length.order() {
            return false;
        }
        self.dirty_since = Some(now);
        true
    }

    /// Whether the disk has answered every write.
    pub(super) fn is_settled(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// A write at this offset is on its way.
    pub(super) fn started(&mut self, offset: u64) {
        self.in_flight.push(offset);
    }

    /// The disk has answered the write at this offset.
    pub(super) fn answered(&mut self, offset: u64) {
        if let Some(at) = self.in_flight.iter().position(|started| *started == offset) {
            self.in_flight.swap_remove(at);
        }
    }

    /// Notes how far the file is written without a gap.
    pub(super) fn note_length(&self) {
        self.length.reached(self.in_flight.iter().copied().min().unwrap_or(u64::MAX).min(self.bytes));
    }

    /// Books a piece that is written or on its way to the disk.
    pub(super) fn book(&mut self, piece: &Piece, page_bytes: u64, now: Instant) {
        self.bytes = piece.offset + u64::from(piece.bytes);
        self.packets += u64::from(piece.packets);
        self.frame_bytes += piece.frame_bytes;
        self.first_ns = piece.first_ns;
        self.last_ns = piece.last_ns;
        self.tail_open = !self.bytes.is_multiple_of(page_bytes);
        self.dirty_since.get_or_insert(now);
    }
}
