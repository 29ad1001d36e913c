//! The thread that makes segments durable and visible, so that writers never wait for an fsync. Owns truncation, fsync,
//! rename and the account of what each stream kept; not the writes themselves.
//!
//! Invariant: a segment is announced to the merge after it is durable under its name, in the order of its stream.

use super::backing::Backing;
use super::length::Length;
use super::segment::OpenSegment;
use super::{Event, Failure, Input, Lost, Segment, Spool, SpoolCapture, StreamId, salvage};
use crate::block::Stage;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often a publisher with nothing to do says that it is there.
const IDLE_TURN: Duration = Duration::from_millis(500);

/// What writers ask for.
#[derive(Debug)]
pub(super) enum Order {
    /// Make a segment durable and visible.
    Publish(Arc<SpoolCapture>, u16, Box<OpenSegment>),
    /// Make what was written so far durable.
    Sync(Arc<SpoolCapture>, Arc<File>, Arc<Length>),
    /// Pass on a watermark.
    Watermark(Arc<SpoolCapture>, u16, u64),
    /// The stream is complete; the workers counted this many records and frame bytes in it.
    End(Arc<SpoolCapture>, u16, Lost),
}

/// The publisher's state.
#[derive(Debug)]
pub struct Publisher {
    spool: Arc<Spool>,
    orders: Receiver<Order>,
    kept: HashMap<StreamId, Lost>,
    stage: Arc<Stage>,
}

impl Publisher {
    /// A publisher and the way to it.
    #[must_use]
    pub fn new(spool: Arc<Spool>, stage: Arc<Stage>) -> (Self, PublisherHandle) {
        let (sender, orders) = unbounded();
        (Self { spool, orders, kept: HashMap::new(), stage }, PublisherHandle(sender))
    }

    /// Works until every writer is gone.
    pub fn run(mut self) {
        loop {
            let order = match self.orders.recv_timeout(IDLE_TURN) {
                Ok(order) => order,
                Err(RecvTimeoutError::Timeout) => {
                    self.stage.turn(0, 0);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // The order at work is among those that wait: a disk that never answers is no progress.
            self.stage.turn(self.orders.len() + 1, 0);
            match order {
                Order::Publish(capture, queue, segment) => self.publish(&capture, queue, *segment),
                Order::Sync(capture, file, length) => {
                    let written = length.written();
                    let synced = file.sync_data().map(|()| self.stage.synced());
                    if let Err(e) = synced.and_then(|()| length.synced(written)) {
                        capture.fail(&Failure::from_io("cannot fsync a segment in", &capture.dir, &e));
                    }
                }
                Order::Watermark(capture, queue, ns) => {
                    capture.merge.tell(Input::Watermark(usize::from(queue), ns));
                }
                Order::End(capture, queue, handed) => self.end(&capture, queue, handed),
            }
            self.stage.done(1);
            self.stage.turn(self.orders.len(), 0);
        }
    }

    fn publish(&mut self, capture: &SpoolCapture, queue: u16, mut segment: OpenSegment) {
        if let Err(e) = self.finish(&mut segment) {
            capture.fail(&Failure::from_io("cannot publish the segment", &segment.path, &e));
            return;
        }
        if segment.packets == 0 {
            return;
        }
        let kept = self.kept.entry(StreamId { serial: capture.serial, queue }).or_default();
        kept.packets += segment.packets;
        kept.frame_bytes += segment.frame_bytes;
        let published = Segment {
            path: segment.path,
            sequence: u64::from(segment.sequence),
            bytes: segment.bytes,
            packets: segment.packets,
            first_ns: segment.first_ns,
            last_ns: segment.last_ns,
        };
        capture.merge.tell(Input::Segment(usize::from(queue), published));
    }

    fn finish(&self, segment: &mut OpenSegment) -> io::Result<()> {
        if segment.broken {
            let found = salvage::whole_records(&File::open(&segment.open_path)?, segment.bytes)?;
            segment.bytes = found.bytes;
            segment.packets = found.packets;
            segment.frame_bytes = found.frame_bytes;
            (segment.first_ns, segment.last_ns) = (found.first_ns, found.last_ns);
        }
        let file = segment.backing.file();
        file.set_len(segment.bytes)?;
        file.sync_all()?;
        self.stage.synced();
        if let Backing::Direct { allocated, .. } = segment.backing {
            self.spool.quota().release(allocated.saturating_sub(segment.bytes));
        }
        fs::rename(&segment.open_path, &segment.path)?;
        sync_parent(&segment.path)?;
        fs::remove_file(&segment.length_path)?;
        self.keep_mapping(segment);
        if segment.packets == 0 {
            self.spool.free(&segment.path)?;
        }
        Ok(())
    }

    fn keep_mapping(&self, segment: &mut OpenSegment) {
        let path = segment.path.clone();
        let file = Arc::clone(segment.backing.file());
        let backing = std::mem::replace(&mut segment.backing, Backing::Direct { file, allocated: 0 });
        if let (Backing::Mapped(mapped), Some(pool)) = (backing, self.spool.pool()) {
            pool.keep(path, mapped);
        }
    }

    fn end(&mut self, capture: &SpoolCapture, queue: u16, handed: Lost) {
        let kept = self.kept.remove(&StreamId { serial: capture.serial, queue }).unwrap_or_default();
        let lost = Lost {
            packets: handed.packets - kept.packets,
            frame_bytes: handed.frame_bytes - kept.frame_bytes,
        };
        let _engine_gone = capture.events.send(Event::StreamEnded { serial: capture.serial, queue, lost });
        capture.merge.tell(Input::End(usize::from(queue)));
    }
}

/// The way to the publisher; it ends when all of them are gone.
#[derive(Clone, Debug)]
pub struct PublisherHandle(Sender<Order>);

impl PublisherHandle {
    pub(super) fn send(&self, order: Order) {
        // The publisher outlives every handle; it can only be gone when the process unwinds.
        let _publisher_gone = self.0.send(order);
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
