//! The thread that makes the segments of one directory durable and visible, so that writers never wait for an fsync. Owns the
//! order of each stream, when a failure is tried again, and the account of what each stream kept; not the writes themselves.
//!
//! A segment that cannot be published holds up its own stream: what follows in it waits. It is tried again with growing
//! pauses for [`PUBLISH_RETRY`]; then it stays on the disk under its open name, the merge is told the hole, and the capture
//! fails. What follows it is still published.
//!
//! Invariant: a segment is announced to the merge after it is durable under its name, in the order of its stream; every
//! segment is announced or told as a hole.

use super::disk::Disk;
use super::length::Length;
use super::segment::OpenSegment;
use super::{Event, Failure, Input, Lost, Segment, SpoolCapture, StreamId};
use crate::block::Heartbeat;
use crate::limits::{PUBLISH_PAUSE_MAX, PUBLISH_PAUSE_MIN, PUBLISH_RETRY};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Interval of an idle publisher's heartbeat.
const IDLE_TURN: Duration = Duration::from_millis(500);

/// A command from a writer.
#[derive(Debug)]
pub(super) enum Command {
    /// Make a segment durable and visible.
    Publish(Arc<SpoolCapture>, u16, Box<OpenSegment>),
    /// Make what was written so far durable.
    Sync(PathBuf, Arc<File>, Arc<Length>),
    /// Pass on a watermark.
    Watermark(Arc<SpoolCapture>, u16, u64),
    /// A stream cannot go on while others of its capture do: nothing more comes to the merge.
    Over(Arc<SpoolCapture>, u16),
    /// The stream is complete; the workers counted this many records and frame bytes in it.
    End(Arc<SpoolCapture>, u16, Lost),
}

/// A stream whose next segment cannot be published.
#[derive(Debug)]
struct Failing {
    since: Instant,
    pause: Duration,
    /// Time of the next try; none: at once, because the last segment was given up.
    due: Option<Instant>,
}

/// One stream.
#[derive(Debug, Default)]
struct Stream {
    kept: Lost,
    unpublished: u32,
    /// Whether the merge was told that nothing more comes.
    is_over: bool,
    /// The segment that cannot be published, and the commands behind it.
    waiting: VecDeque<Command>,
    failing: Option<Failing>,
}

impl Stream {
    fn due(&self) -> Option<Instant> {
        self.failing.as_ref().and_then(|failing| failing.due)
    }

    /// Whether a segment that failed at `now` is tried again.
    fn waits(&mut self, now: Instant) -> bool {
        let failing = self.failing.get_or_insert(Failing { since: now, pause: PUBLISH_PAUSE_MIN, due: None });
        if now.saturating_duration_since(failing.since) >= PUBLISH_RETRY {
            failing.due = None;
            return false;
        }
        failing.due = Some(now + failing.pause);
        failing.pause = (failing.pause * 2).min(PUBLISH_PAUSE_MAX);
        true
    }
}

/// The publisher's state.
#[derive(Debug)]
pub struct Publisher {
    disk: Arc<Disk>,
    commands: Receiver<Command>,
    streams: HashMap<StreamId, Stream>,
    /// Time of the first retry of any stream.
    next_due: Option<Instant>,
    heartbeat: Arc<Heartbeat>,
}

impl Publisher {
    /// A publisher and its handle.
    #[must_use]
    pub fn new(disk: Arc<Disk>, heartbeat: Arc<Heartbeat>) -> (Self, PublisherHandle) {
        let (sender, commands) = unbounded();
        (Self { disk, commands, streams: HashMap::new(), next_due: None, heartbeat }, PublisherHandle(sender))
    }

    /// Runs until every writer is gone and no retry is due.
    pub fn run(mut self) {
        loop {
            let until_due = self.next_due.map(|due| due.saturating_duration_since(Instant::now()));
            let wait = until_due.unwrap_or(IDLE_TURN).min(IDLE_TURN);
            match self.commands.recv_timeout(wait) {
                Ok(command) => {
                    // The current command counts as waiting: a disk that never answers is no progress.
                    self.heartbeat.beat(self.commands.len() + 1, 0);
                    self.take(command, Instant::now());
                    self.heartbeat.done(1);
                    self.heartbeat.beat(self.commands.len(), 0);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.heartbeat.beat(0, 0);
                    self.disk.account().tidy();
                }
                Err(RecvTimeoutError::Disconnected) if self.next_due.is_none() => return,
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
            self.retry(Instant::now());
        }
    }

    /// Takes all commands sent so far. For tests.
    #[cfg(test)]
    pub(super) fn take_all(&mut self, now: Instant) {
        while let Ok(command) = self.commands.try_recv() {
            self.take(command, now);
        }
    }

    fn take(&mut self, command: Command, now: Instant) {
        let (serial, queue) = match &command {
            Command::Sync(path, file, length) => return self.sync(path, file, length),
            Command::Publish(capture, queue, _)
            | Command::Watermark(capture, queue, _)
            | Command::Over(capture, queue)
            | Command::End(capture, queue, _) => (capture.serial, *queue),
        };
        let id = StreamId { serial, queue };
        let stream = self.streams.entry(id).or_default();
        stream.waiting.push_back(command);
        if stream.due().is_none() {
            self.work(id, now);
        }
    }

    /// Retries the streams that are due at `now`.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.next_due.is_none_or(|due| due > now) {
            return;
        }
        let is_due = |(id, stream): (&StreamId, &Stream)| stream.due().filter(|due| *due <= now).map(|_| *id);
        let due: Vec<_> = self.streams.iter().filter_map(is_due).collect();
        for id in due {
            self.work(id, now);
        }
        self.next_due = self.streams.values().filter_map(Stream::due).min();
    }

    /// Executes a stream's commands, up to a segment that has to be tried again.
    fn work(&mut self, id: StreamId, now: Instant) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        while let Some(command) = stream.waiting.pop_front() {
            match command {
                Command::Publish(capture, queue, segment) => {
                    if let Some(again) = self.publish(&mut stream, capture, queue, segment, now) {
                        stream.waiting.push_front(again);
                        let due = stream.due();
                        self.next_due = self.next_due.into_iter().chain(due).min();
                        break;
                    }
                }
                Command::Watermark(capture, queue, ns) => {
                    capture.merge.tell(Input::Watermark(usize::from(queue), ns));
                }
                Command::Over(capture, queue) => {
                    stream.is_over = true;
                    capture.merge.tell(Input::End(usize::from(queue)));
                }
                Command::End(capture, queue, handed) => return self.end(&stream, &capture, queue, handed),
                Command::Sync(path, file, length) => self.sync(&path, &file, &length),
            }
        }
        self.streams.insert(id, stream);
    }

    /// Publishes a segment, or announces the hole; returns a command that has to be tried again.
    fn publish(
        &self,
        stream: &mut Stream,
        capture: Arc<SpoolCapture>,
        queue: u16,
        mut segment: Box<OpenSegment>,
        now: Instant,
    ) -> Option<Command> {
        let hole = Input::Hole { queue: usize::from(queue), sequence: u64::from(segment.sequence) };
        if let Err(error) = segment.publish(&self.heartbeat) {
            let is_first = stream.failing.is_none();
            if stream.waits(now) {
                if is_first {
                    let path = segment.path.display();
                    tracing::warn!(segment = %path, %error, "a segment cannot be published; it is tried again");
                }
                return Some(Command::Publish(capture, queue, segment));
            }
            let failure = Failure::from_io("cannot publish the segment", &segment.path, &error);
            let left = segment.leave();
            // A file that was removed from the spool is not said to be there.
            let stays = left.try_exists().unwrap_or(true);
            tracing::error!(segment = %left.display(), %error, stays, "a segment cannot be published and is given up");
            stream.unpublished += u32::from(stays);
            capture.fail(self.disk.index(), queue, &failure);
            capture.merge.tell(hole);
            return None;
        }
        stream.failing = None;
        if segment.packets == 0 {
            capture.merge.tell(hole);
            return None;
        }
        stream.kept.packets += segment.packets;
        stream.kept.frame_bytes += segment.frame_bytes;
        let published = Segment {
            path: segment.path,
            sequence: u64::from(segment.sequence),
            bytes: segment.bytes,
            packets: segment.packets,
            first_ns: segment.first_ns,
            last_ns: segment.last_ns,
        };
        capture.merge.tell(Input::Segment(usize::from(queue), published));
        None
    }

    /// A timed fsync. One that fails costs nothing while the data is in memory: the writer asks for the next one.
    fn sync(&self, path: &Path, file: &File, length: &Length) {
        let written = length.written();
        let synced = self.disk.account().files().sync_data(file, path);
        let outcome = match synced {
            Ok(()) => {
                self.heartbeat.synced();
                length.synced(written)
            }
            Err(e) => {
                if length.fail_sync() {
                    tracing::warn!(segment = %path.display(), error = %e, "cannot fsync a segment; it is tried again");
                }
                Ok(())
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(segment = %path.display(), %error, "cannot note how much of a segment is durable");
        }
        length.answered();
    }

    fn end(&self, stream: &Stream, capture: &SpoolCapture, queue: u16, handed: Lost) {
        let lost = Lost {
            packets: handed.packets.saturating_sub(stream.kept.packets),
            frame_bytes: handed.frame_bytes.saturating_sub(stream.kept.frame_bytes),
        };
        let (serial, unpublished) = (capture.serial, stream.unpublished);
        let failure = capture.part(self.disk.index()).failure().cloned();
        let _engine_gone =
            capture.events.send(Event::StreamEnded { serial, queue, lost, unpublished, failure });
        if !stream.is_over {
            capture.merge.tell(Input::End(usize::from(queue)));
        }
    }
}

/// A handle of the publisher, which ends when all handles are gone.
#[derive(Clone, Debug)]
pub struct PublisherHandle(Sender<Command>);

impl PublisherHandle {
    pub(super) fn send(&self, command: Command) {
        // The publisher outlives every handle; it can only be gone when the process unwinds.
        let _publisher_gone = self.0.send(command);
    }
}
