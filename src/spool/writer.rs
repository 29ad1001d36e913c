//! One writer thread: takes pieces from its lanes and brings them to the disk, several writes in flight. Owns the open
//! segments of its streams, all in one directory of the spool; publishing is the publisher's.
//!
//! A segment that cannot be opened or allocated is tried again for [`WRITE_RETRY`] while its pieces wait; on a full disk or at
//! the quota for [`FULL_RETRY`], or [`OWED_RETRY`] where others have to make room.
//!
//! Invariant: an error ends the writing of one capture in this directory, with a reason; the thread goes on, and every block
//! goes back to the worker it came from.

use super::backing::Backing;
use super::disk::Disk;
use super::publisher::{Command, PublisherHandle};
use super::segment::OpenSegment;
use super::{Closes, Failure, Lost, Message, Piece, Spool, SpoolCapture, StreamId, WriteMode};
use crate::block::{DiskQueue, Heartbeat, Write, WriterEnd};
use crate::limits::{FULL_RETRY, OWED_RETRY, PAGE_BYTES, WRITE_RETRY};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Writes in flight per writer: enough to keep an NVMe busy while the next block is on its way.
const WRITES_IN_FLIGHT: u32 = 8;
/// How long a writer with nothing to do sleeps.
const IDLE_SLEEP: Duration = Duration::from_micros(100);
/// How long a piece waits before its segment is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// How often a writer that was refused an io_uring asks for one.
const RING_LOOK: Duration = Duration::from_secs(10);
/// Messages taken from one lane before the next lane has its turn.
const LANE_TURN: usize = 16;

#[derive(Debug)]
pub(super) struct Tag {
    lane: usize,
    stream: StreamId,
    sequence: u32,
}

#[derive(Debug)]
struct Stream {
    capture: Arc<SpoolCapture>,
    segments: VecDeque<OpenSegment>,
    handed: Lost,
    failed: bool,
    /// Whether the merge hears that nothing more comes, because its capture goes on without it.
    over: bool,
    ended: bool,
    /// Pieces for which no segment could be opened or allocated, with their lanes.
    waiting: VecDeque<(usize, Piece)>,
    /// Since when they wait, and when they are tried again.
    again: Option<(Instant, Instant)>,
}

impl Stream {
    /// Whether others have to make room for what a writer of directory `disk` writes of it.
    fn owes(&self, disk: usize) -> bool {
        let part = self.capture.part(disk);
        part.disk().owes(part.dir())
    }
}

/// A writer thread's state.
pub struct Writer {
    spool: Arc<Spool>,
    /// Its directory.
    disk: Arc<Disk>,
    publisher: PublisherHandle,
    lanes: Vec<WriterEnd<Message>>,
    writes: DiskQueue<Tag>,
    streams: HashMap<StreamId, Stream>,
    synced: Instant,
    /// Streams whose pieces wait.
    stuck: usize,
    discards: bool,
    heartbeat: Arc<Heartbeat>,
    /// Whether the disk queue had io_uring at the last look, and when that was.
    ring: Option<(bool, Instant)>,
}

impl Writer {
    /// A writer that serves these lanes, and writes into directory `disk` of the spool, as does the publisher.
    #[must_use]
    pub fn new(
        spool: Arc<Spool>,
        disk: Arc<Disk>,
        publisher: PublisherHandle,
        lanes: Vec<WriterEnd<Message>>,
        heartbeat: Arc<Heartbeat>,
    ) -> Self {
        let writes = DiskQueue::new(WRITES_IN_FLIGHT);
        let discards = disk.config().write == WriteMode::Discard;
        Self {
            spool,
            disk,
            publisher,
            lanes,
            writes,
            streams: HashMap::new(),
            synced: Instant::now(),
            stuck: 0,
            discards,
            heartbeat,
            ring: None,
        }
    }

    /// Works until every worker is gone and everything that they sent is written.
    pub fn run(mut self) {
        while !self.is_over() {
            if !self.turn(Instant::now()) {
                std::thread::sleep(IDLE_SLEEP);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stuck == 0 && self.writes.in_flight() == 0 && self.lanes.iter().all(WriterEnd::is_drained)
    }

    /// Takes what waits in the lanes, and what the disk has done. Whether there was anything.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        let mut busy = false;
        self.heartbeat.beat(self.lanes.iter().map(WriterEnd::waiting).sum(), self.writes.in_flight());
        for lane in 0..self.lanes.len() {
            for _ in 0..LANE_TURN {
                let Some(message) = self.lanes[lane].receive() else { break };
                self.take(lane, message, now);
                self.heartbeat.done(1);
                busy = true;
            }
        }
        while let Some((write, result)) = self.writes.finished(false) {
            self.written(write, result);
            busy = true;
        }
        self.retry(now);
        self.sync_by_time(now);
        self.look_after_ring(now);
        busy
    }

    #[cfg(test)]
    pub(super) fn writes(&mut self) -> &mut DiskQueue<Tag> {
        &mut self.writes
    }

    fn take(&mut self, lane: usize, message: Message, now: Instant) {
        match message {
            Message::Data(id, piece) => self.data(lane, id, piece, now),
            Message::Watermark(id, ns) => {
                if let Some(stream) = self.stream(id)
                    && stream.segments.is_empty()
                    && stream.waiting.is_empty()
                    && !stream.over
                {
                    let capture = Arc::clone(&stream.capture);
                    self.publisher.send(Command::Watermark(capture, id.queue, ns));
                }
            }
            Message::End(id) => {
                if let Some(stream) = self.stream(id) {
                    stream.ended = true;
                    self.publish_closed(id);
                }
            }
        }
    }

    /// The stream's state, made when it is first heard of. `None`: its capture was forgotten, which only a bug of ours
    /// could bring about; its blocks still go back.
    fn stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        if !self.streams.contains_key(&id) {
            let capture = self.spool.capture(id.serial)?;
            let stream = Stream {
                capture,
                segments: VecDeque::new(),
                handed: Lost::default(),
                failed: false,
                over: false,
                ended: false,
                waiting: VecDeque::new(),
                again: None,
            };
            self.streams.insert(id, stream);
        }
        self.streams.get_mut(&id)
    }

    fn data(&mut self, lane: usize, id: StreamId, piece: Piece, now: Instant) {
        let (discards, disk) = (self.discards, self.disk.index());
        let Some(stream) = self.stream(id) else {
            self.lanes[lane].give_back(piece.block);
            return;
        };
        stream.handed.packets += u64::from(piece.packets);
        stream.handed.frame_bytes += piece.frame_bytes;
        if stream.failed || discards {
            self.lanes[lane].give_back(piece.block);
            return;
        }
        if let Some(failure) = stream.capture.refusal(disk).cloned() {
            self.lanes[lane].give_back(piece.block);
            self.fail(id, &failure);
            self.publish_closed(id);
            return;
        }
        if stream.again.is_some() {
            stream.waiting.push_back((lane, piece));
            return;
        }
        self.place(lane, id, piece, now);
        self.publish_closed(id);
    }

    /// Writes a piece, or lets it wait. Whether it waits.
    fn place(&mut self, lane: usize, id: StreamId, piece: Piece, now: Instant) -> bool {
        // The page that the last flush left open is in flight at most once, or an older write could land on top of a newer.
        while self
            .streams
            .get(&id)
            .and_then(|s| s.segments.back())
            .is_some_and(|s| s.tail_open && !s.is_settled())
        {
            if let Some((write, result)) = self.writes.finished(true) {
                self.written(write, result);
            }
        }
        let Err((piece, failure)) = self.write(lane, id, piece, now) else { return false };
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let (since, _) = stream.again.unwrap_or((now, now));
        let tried = now.saturating_duration_since(since);
        let patience = match failure {
            Failure::Full(_) if stream.owes(self.disk.index()) => OWED_RETRY,
            Failure::Full(_) => FULL_RETRY,
            _ => WRITE_RETRY,
        };
        if tried >= patience {
            self.lanes[lane].give_back(piece.block);
            self.fail(id, &failure);
            return false;
        }
        if stream.again.is_none() {
            self.stuck += 1;
            tracing::warn!(error = failure.message(), "a segment cannot be written; it is tried again");
        }
        stream.again = Some((since, now + RETRY_PAUSE));
        stream.waiting.push_front((lane, piece));
        true
    }

    /// Goes on with the streams whose pieces wait.
    fn retry(&mut self, now: Instant) {
        if self.stuck == 0 {
            return;
        }
        let is_due =
            |(id, stream): (&StreamId, &Stream)| stream.again.filter(|(_, due)| *due <= now).map(|_| *id);
        let due: Vec<_> = self.streams.iter().filter_map(is_due).collect();
        for id in due {
            while let Some((lane, piece)) = self.streams.get_mut(&id).and_then(|s| s.waiting.pop_front()) {
                if self.place(lane, id, piece, now) {
                    break;
                }
            }
            if let Some(stream) = self.streams.get_mut(&id)
                && stream.waiting.is_empty()
                && stream.again.take().is_some()
            {
                self.stuck -= 1;
            }
            self.publish_closed(id);
        }
    }

    fn write(
        &mut self,
        lane: usize,
        id: StreamId,
        mut piece: Piece,
        now: Instant,
    ) -> Result<(), (Piece, Failure)> {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.failed) else {
            self.lanes[lane].give_back(piece.block);
            return Ok(());
        };
        if stream.segments.back().is_none_or(|s| s.closed) {
            let part = stream.capture.part(self.disk.index());
            match OpenSegment::create(part.disk(), part.dir(), id.queue, piece.sequence) {
                Ok(segment) => {
                    stream.segments.push_back(segment);
                    stream.capture.begins(id.queue, self.disk.index());
                }
                Err(failure) => return Err((piece, failure)),
            }
        }
        let Some(segment) = stream.segments.back_mut() else { return Ok(()) };
        let used = piece.bytes as usize;
        let whole = used.next_multiple_of(PAGE_BYTES);
        if let Err(failure) =
            segment.backing.reach(&segment.disk, &segment.open_path, piece.offset + whole as u64)
        {
            return Err((piece, failure));
        }
        piece.block.bytes_mut()[used..whole].fill(0);
        segment.book(&piece, PAGE_BYTES as u64, now);
        segment.closed = piece.closes == Closes::Segment;
        let length = Arc::clone(&segment.length);
        if whole > 0 && matches!(segment.backing, Backing::Direct { .. }) {
            segment.started(piece.offset);
        }
        match &mut segment.backing {
            // A segment may end exactly where its last flush did.
            _ if whole == 0 => self.lanes[lane].give_back(piece.block),
            Backing::Direct { file, .. } => {
                let tag = Tag { lane, stream: id, sequence: segment.sequence };
                let file = Arc::clone(file);
                self.writes.start(Write {
                    file,
                    block: piece.block,
                    bytes: whole,
                    offset: piece.offset,
                    tag,
                });
            }
            Backing::Mapped(mapped) => match mapped.write(piece.offset, &piece.block.bytes()[..used]) {
                Ok(()) => {
                    length.reached(piece.offset + used as u64);
                    self.heartbeat.written(used);
                    self.lanes[lane].give_back(piece.block);
                }
                Err(e) => {
                    let failure = Failure::from_io("cannot write", &segment.open_path, &e);
                    self.lanes[lane].give_back(piece.block);
                    self.fail(id, &failure);
                }
            },
        }
        Ok(())
    }

    fn written(&mut self, write: Write<Tag>, result: io::Result<()>) {
        let Tag { lane, stream: id, sequence } = write.tag;
        self.lanes[lane].give_back(write.block);
        self.heartbeat.done(1);
        if result.is_ok() {
            self.heartbeat.written(write.bytes);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(segment) = stream.segments.iter_mut().find(|s| s.sequence == sequence) else { return };
        segment.answered(write.offset);
        if let Err(e) = result {
            segment.bytes = segment.bytes.min(write.offset);
            segment.broken = true;
            let failure = Failure::from_io("cannot write", &segment.open_path, &e);
            self.fail(id, &failure);
        } else {
            segment.note_length();
        }
        self.publish_closed(id);
    }

    /// Ends a stream's writing: what is whole so far will be published, what comes is counted as lost.
    fn fail(&mut self, id: StreamId, failure: &Failure) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.failed {
            stream.failed = true;
            stream.capture.fail(self.disk.index(), id.queue, failure);
        }
        if let Some(last) = stream.segments.back_mut()
            && !last.closed
        {
            last.closed = true;
            last.broken = true;
        }
        for (lane, piece) in std::mem::take(&mut stream.waiting) {
            self.lanes[lane].give_back(piece.block);
        }
        if stream.again.take().is_some() {
            self.stuck -= 1;
        }
    }

    fn publish_closed(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        while stream.segments.front().is_some_and(|s| s.closed && s.is_settled()) {
            if let Some(segment) = stream.segments.pop_front() {
                self.publisher.send(Command::Publish(
                    Arc::clone(&stream.capture),
                    id.queue,
                    Box::new(segment),
                ));
            }
        }
        // Those that go on would wait for it in the merge.
        let is_done = stream.segments.is_empty() && stream.waiting.is_empty();
        if stream.failed && !stream.over && is_done && stream.capture.is_spread() {
            stream.over = true;
            self.publisher.send(Command::Over(Arc::clone(&stream.capture), id.queue));
        }
        if stream.ended && is_done {
            self.publisher.send(Command::End(Arc::clone(&stream.capture), id.queue, stream.handed));
            self.streams.remove(&id);
        }
    }

    /// Tells whether there is an io_uring, in the log once for each change, and now and then tries to get one that was refused.
    fn look_after_ring(&mut self, now: Instant) {
        if self.ring.is_some_and(|(has_ring, looked)| {
            has_ring == self.writes.is_asynchronous() && now.saturating_duration_since(looked) < RING_LOOK
        }) {
            return;
        }
        let (had_ring, writer) = (self.ring.map(|(had_ring, _)| had_ring), self.heartbeat.name());
        match (had_ring, self.writes.renew()) {
            (None | Some(true), Err(error)) => tracing::warn!(
                writer, %error, "a writer has no io_uring: it writes one block at a time, at about half the rate, and tries again"
            ),
            (Some(false), Ok(())) => tracing::info!(writer, "a writer has io_uring again"),
            _ => {}
        }
        self.ring = Some((self.writes.is_asynchronous(), now));
        self.heartbeat.ring(self.writes.is_asynchronous());
    }

    fn sync_by_time(&mut self, now: Instant) {
        let interval = self.disk.config().fsync_interval;
        if now.saturating_duration_since(self.synced) < interval / 4 {
            return;
        }
        self.synced = now;
        for segment in self.streams.values_mut().flat_map(|stream| &mut stream.segments) {
            if segment.wants_sync(now, interval) {
                let (file, length) = (Arc::clone(segment.backing.file()), Arc::clone(&segment.length));
                self.publisher.send(Command::Sync(segment.open_path.clone(), file, length));
            }
        }
    }
}
