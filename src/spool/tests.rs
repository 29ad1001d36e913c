//! Writer, publisher and spool together on real files, with calls that fail and time as an argument.

#[path = "disks_tests.rs"]
mod disks;

use super::files::{Call, Files};
use super::*;
use crate::block::{Arena, Attempt, Block, Heartbeat, Hugepages, WorkerEnd, lane};
use crate::pcap::{file_header, record_header};
use crossbeam::channel::Receiver;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;

const SEGMENT_BYTES: u64 = 1 << 20;
const FSYNC: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const FRAME: [u8; 100] = [0xab; 100];

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// A spool with a writer and a publisher that do nothing on their own.
struct Rig {
    _dir: TempDir,
    spool: Arc<Spool>,
    files: Files,
    /// One for each directory.
    writers: Vec<Writer>,
    publishers: Vec<Publisher>,
    workers: Vec<WorkerEnd<Message>>,
    blocks: Vec<Block>,
    now: Instant,
    ns: u64,
    /// What open segments have so far, and their first record's time.
    open: BTreeMap<StreamId, (Vec<u8>, u64)>,
}

/// Sequence and packets of a queue's segments, no packets for a hole.
type Stream = Vec<(u64, u64)>;

/// What was told of a capture.
struct Told {
    dir: PathBuf,
    inputs: Receiver<Input>,
    events: mpsc::UnboundedReceiver<Event>,
    streams: BTreeMap<usize, Vec<Input>>,
    /// Queues of which nothing more comes.
    over: Vec<usize>,
    failed: usize,
    streams_failed: Vec<(u16, Failure)>,
    ended: Vec<(u16, Lost, u32)>,
}

impl Told {
    fn listen(&mut self) {
        for input in self.inputs.try_iter() {
            match &input {
                Input::Segment(queue, _) | Input::Hole { queue, .. } => {
                    assert!(!self.over.contains(queue), "{input:?} behind the stream's end");
                    self.streams.entry(*queue).or_default().push(input);
                }
                Input::End(queue) => self.over.push(*queue),
                _ => {}
            }
        }
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Failed { .. } => self.failed += 1,
                Event::StreamFailed { queue, failure, .. } => self.streams_failed.push((queue, failure)),
                Event::StreamEnded { queue, lost, unpublished, .. } => {
                    self.ended.push((queue, lost, unpublished))
                }
            }
        }
    }

    fn stream(&self, queue: usize) -> Stream {
        let told = self.streams.get(&queue).into_iter().flatten();
        told.map(|input| match input {
            Input::Segment(_, segment) => (segment.sequence, segment.packets),
            Input::Hole { sequence, .. } => (*sequence, 0),
            _ => unreachable!(),
        })
        .collect()
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.streams.values().flatten().filter_map(|input| match input {
            Input::Segment(_, segment) => Some(segment),
            _ => None,
        })
    }
}

impl Rig {
    fn new(write: WriteMode, bytes_max: u64) -> Self {
        Self::of(write, bytes_max, 1)
    }

    /// With so many directories.
    fn of(write: WriteMode, bytes_max: u64, dirs: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let files = Files::default();
        let config = SpoolConfig {
            dir: dir.path().join("spool"),
            more_dirs: (1..dirs).map(|n| dir.path().join(format!("spool{n}"))).collect(),
            bytes_max,
            share_bytes_max: u64::MAX,
            part_bytes: u64::MAX,
            segment_bytes: SEGMENT_BYTES,
            write,
            fsync_interval: FSYNC,
            pool_bytes: 0,
        };
        let spool = Arc::new(Spool::open_with(config, files.clone()).unwrap());
        let (blocks, _) = Arena::map(12, Hugepages::Never).unwrap();
        let heartbeat = || Arc::new(Heartbeat::new("test", 0));
        let (mut writers, mut publishers, mut workers) = (Vec::new(), Vec::new(), Vec::new());
        for disk in spool.disks() {
            let (worker, end) = lane(12, 64);
            let (publisher, handle) = Publisher::new(Arc::clone(disk), heartbeat());
            writers.push(Writer::new(Arc::clone(&spool), Arc::clone(disk), handle, vec![end], heartbeat()));
            publishers.push(publisher);
            workers.push(worker);
        }
        let (now, ns, open) = (Instant::now(), 1_800_000_000_000_000_000, BTreeMap::new());
        Self { _dir: dir, spool, files, writers, publishers, workers, blocks, now, ns, open }
    }

    /// The lane of a queue, as workers choose it.
    fn worker(&mut self, queue: u16) -> &mut WorkerEnd<Message> {
        let at = usize::from(queue) % self.workers.len();
        &mut self.workers[at]
    }

    fn register(&self, serial: u64, queues: usize) -> Told {
        let dir = self.spool.config().dir.join(format!("capture{serial}"));
        let feed = Arc::new(Feed::new(queues));
        let (events, told) = mpsc::unbounded_channel();
        let inputs = feed.listen();
        let capture = SpoolCapture::new(serial, dir.clone(), queues, feed, events, Box::new(|_| ()));
        self.spool.register(capture).unwrap();
        let (streams, over, streams_failed, ended) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        Told { dir, inputs, events: told, streams, over, failed: 0, streams_failed, ended }
    }

    /// Sends a segment, or the beginning of one, of so many packets.
    fn send(&mut self, serial: u64, queue: u16, sequence: u32, packets: u32, closes: Closes) {
        for worker in &mut self.workers {
            while let Some(block) = worker.take_back() {
                self.blocks.push(block);
            }
        }
        let mut block = self.blocks.pop().unwrap();
        let id = StreamId { serial, queue };
        let (mut bytes, first_ns) =
            self.open.remove(&id).unwrap_or_else(|| (file_header(262_144).to_vec(), self.ns + 1));
        for _ in 0..packets {
            self.ns += 1;
            bytes.extend_from_slice(&record_header(self.ns, 100, 100));
            bytes.extend_from_slice(&FRAME);
        }
        block.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        let piece = Piece {
            block,
            bytes: u32::try_from(bytes.len()).unwrap(),
            offset: 0,
            sequence,
            packets,
            frame_bytes: u64::from(packets) * 100,
            first_ns,
            last_ns: self.ns,
            closes,
        };
        if closes == Closes::Nothing {
            self.open.insert(id, (bytes, first_ns));
        }
        self.worker(queue).send(Message::Data(id, piece)).unwrap();
    }

    fn end(&mut self, serial: u64, queue: u16) {
        self.worker(queue).send(Message::End(StreamId { serial, queue })).unwrap();
    }

    /// Lets the threads work at the present moment until neither has anything to do.
    fn settle(&mut self) {
        loop {
            for writer in &mut self.writers {
                while writer.turn(self.now) || writer.writes().in_flight() > 0 {}
            }
            for publisher in &mut self.publishers {
                publisher.take_all(self.now);
                publisher.retry(self.now);
            }
            self.spool.disks().iter().for_each(|disk| disk.account().tidy());
            if !self.writers.iter_mut().any(|writer| writer.turn(self.now)) {
                break;
            }
        }
    }

    /// Lets time pass until so many streams of a capture have ended.
    fn until_ended(&mut self, told: &mut Told, streams: usize) {
        let until = self.now + Duration::from_secs(60);
        loop {
            self.settle();
            told.listen();
            if told.ended.len() == streams {
                return;
            }
            self.now += TICK;
            assert!(self.now < until, "{:?} of {streams} streams ended", told.ended);
        }
    }

    /// What is charged is what is there.
    fn assert_accounted(&self) {
        for disk in self.spool.disks() {
            assert_eq!(disk.quota().used(), charged_below(disk.dir()), "{}", disk.dir().display());
        }
    }
}

fn charged_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let bytes = entries.map(|entry| {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_charged = [".pcap", ".open", ".copy"].iter().any(|end| name.ends_with(end));
        match meta.is_dir() {
            true => charged_below(&path),
            false if is_charged || dir.ends_with(".pool") => meta.len(),
            false => 0,
        }
    });
    bytes.sum()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Two captures after each other, the first of two queues with two segments each, the second of one with one; everything is
/// freed in between and in the end.
fn two_captures(rig: &mut Rig) -> Vec<(Told, Vec<Stream>)> {
    let mut all = Vec::new();
    for (serial, queues) in [(1, 2), (2, 1_u16)] {
        let mut told = rig.register(serial, usize::from(queues));
        for sequence in 0..u32::from(queues) {
            for queue in 0..queues {
                rig.send(serial, queue, sequence, 50 + sequence, Closes::Segment);
            }
            rig.settle();
            rig.now += FSYNC;
        }
        (0..queues).for_each(|queue| rig.end(serial, queue));
        rig.until_ended(&mut told, usize::from(queues));
        let streams = (0..queues).map(|queue| told.stream(usize::from(queue))).collect();
        for segment in told.segments() {
            assert_eq!(std::fs::metadata(&segment.path).unwrap().len(), segment.bytes);
            if rig.spool.free(&segment.path).is_err() {
                rig.spool.free(&segment.path).unwrap();
            }
        }
        rig.settle();
        rig.assert_accounted();
        all.push((told, streams));
    }
    all
}

fn each_mode(mut check: impl FnMut(WriteMode)) {
    check(WriteMode::Auto);
    check(WriteMode::Mapped);
}

#[test]
fn every_call_that_fails_once_costs_time_and_nothing_else() {
    each_mode(|write| {
        let (mut counted, mut failing) = (1, 0);
        while failing < counted {
            let mut rig = Rig::new(write, 1 << 30);
            let (calls, what) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
            let (count, said) = (Arc::clone(&calls), Arc::clone(&what));
            let errno = if failing % 2 == 0 { EIO } else { ENOSPC };
            rig.files.fail(move |call, path| {
                if count.fetch_add(1, Ordering::Relaxed) != failing {
                    return None;
                }
                *said.lock().unwrap() = Some((call, path.to_owned(), errno));
                Some(error(errno))
            });
            for (told, streams) in two_captures(&mut rig) {
                let failed = what.lock().unwrap().clone();
                let whole = vec![(0, 50), (1, 51)];
                let expected =
                    if streams.len() == 2 { vec![whole.clone(), whole] } else { vec![vec![(0, 50)]] };
                assert_eq!(streams, expected, "{write:?} {failed:?}");
                assert_eq!(told.failed, 0, "{write:?} {failed:?}");
                let is_whole = |(_, lost, left): &(u16, Lost, u32)| (*lost, *left) == (Lost::default(), 0);
                assert!(told.ended.iter().all(is_whole), "{write:?} {failed:?}");
                assert_eq!(names(&told.dir), [""; 0], "{write:?} {failed:?}");
            }
            counted = calls.load(Ordering::Relaxed);
            failing += 1;
        }
        assert!(counted > 30, "{counted} calls");
    });
}

#[test]
fn a_segment_that_cannot_be_published_is_a_hole_and_holds_up_its_stream_alone() {
    for kind in [Call::Truncate, Call::Sync, Call::Rename] {
        each_mode(|write| {
            let mut rig = Rig::new(write, 1 << 30);
            let mut told = rig.register(1, 2);
            rig.files.fail(move |call, path| {
                let name = path.file_name()?.to_str()?;
                (call == kind && name.contains("q000-00000001")).then(|| error(EIO))
            });
            for sequence in 0..4 {
                (0..2).for_each(|queue| rig.send(1, queue, sequence, 50 + sequence, Closes::Segment));
            }
            (0..2).for_each(|queue| rig.end(1, queue));
            rig.settle();
            told.listen();
            // No time has passed.
            assert_eq!(told.stream(0), [(0, 50)], "{write:?} {kind:?}");
            assert_eq!(told.stream(1), [(0, 50), (1, 51), (2, 52), (3, 53)]);
            rig.until_ended(&mut told, 2);
            assert_eq!(told.stream(0), [(0, 50), (1, 0), (2, 52), (3, 53)], "{write:?} {kind:?}");
            let lost = Lost { packets: 51, frame_bytes: 5100 };
            assert_eq!(told.ended, [(1, Lost::default(), 0), (0, lost, 1)]);
            assert_eq!(told.failed, 1);
            rig.assert_accounted();

            // Its directory is not removed while it has that segment, and a survey finds its packets.
            let open = ".q000-00000001.pcap.open";
            for segment in told.segments() {
                rig.spool.free(&segment.path).unwrap();
            }
            assert!(!rig.spool.remove_capture_dir(&told.dir).unwrap());
            rig.spool.forget(1);
            assert_eq!(names(&told.dir), [".q000-00000001.pcap.len", open]);
            let found = survey(&told.dir, 0).unwrap();
            assert_eq!(found.streams[&0][0].found.packets, 51);
            let cuts = [Cut { sequence: 4, offset: 0 }; 2];
            let recovery = rig.spool.recover(&told.dir, 262_144, &cuts).unwrap();
            assert_eq!(recovery.held.len(), 1);
            let recovery = rig.spool.recover(&told.dir, 262_144, &[]).unwrap();
            assert_eq!(recovery.streams[&0][0].packets, 51);
            rig.assert_accounted();
            assert!(rig.spool.remove_capture_dir(&told.dir).unwrap());
            rig.assert_accounted();
        });
    }
}

#[test]
fn what_was_removed_with_its_directory_is_lost_and_not_said_to_be_kept() {
    each_mode(|write| {
        let mut rig = Rig::new(write, 1 << 30);
        let mut told = rig.register(1, 1);
        rig.send(1, 0, 0, 50, Closes::Nothing);
        std::fs::remove_dir_all(&told.dir).unwrap();
        rig.send(1, 0, 0, 50, Closes::Segment);
        rig.end(1, 0);
        rig.until_ended(&mut told, 1);
        assert_eq!(told.ended, [(0, Lost { packets: 100, frame_bytes: 10_000 }, 0)], "{write:?}");
    });
}

#[test]
fn nothing_is_begun_where_a_spool_was_that_is_away() {
    each_mode(|write| {
        let rig = Rig::new(write, 1 << 30);
        let (dir, away) = (rig.spool.config().dir.clone(), rig.spool.config().dir.with_extension("away"));
        std::fs::rename(&dir, &away).unwrap();
        let (feed, events) = (Arc::new(Feed::new(1)), mpsc::unbounded_channel().0);
        let capture = SpoolCapture::new(1, dir.join("capture"), 1, feed, events, Box::new(|_| ()));
        assert_eq!(rig.spool.register(capture).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!dir.exists());
        std::fs::rename(&away, &dir).unwrap();
    });
}

#[test]
fn a_directory_in_the_way_of_a_segments_name_costs_that_segment_alone() {
    each_mode(|write| {
        let mut rig = Rig::new(write, 1 << 30);
        let mut told = rig.register(1, 1);
        let in_the_way = told.dir.join("q000-00000001.pcap");
        std::fs::create_dir(&in_the_way).unwrap();
        for sequence in 0..3 {
            rig.send(1, 0, sequence, 50, Closes::Segment);
        }
        rig.end(1, 0);
        rig.until_ended(&mut told, 1);
        assert_eq!(told.stream(0), [(0, 50), (1, 0), (2, 50)], "{write:?}");
        assert_eq!(told.ended, [(0, Lost { packets: 50, frame_bytes: 5000 }, 1)]);
        rig.assert_accounted();
        let recovery = rig.spool.recover(&told.dir, 262_144, &[]).unwrap();
        let inputs = with_holes(0, 0, recovery.streams[&0].clone()).count();
        assert_eq!((recovery.held.len(), inputs), (1, 3), "{:?}", recovery.held);
        std::fs::remove_dir(&in_the_way).unwrap();
        let recovery = rig.spool.recover(&told.dir, 262_144, &[]).unwrap();
        assert_eq!(recovery.streams[&0].iter().map(|segment| segment.packets).collect::<Vec<_>>(), [50; 3]);
    });
}

#[test]
fn a_name_that_cannot_be_made_durable_is_taken_back() {
    let mut rig = Rig::new(WriteMode::Auto, 1 << 30);
    let mut told = rig.register(1, 1);
    rig.files.fail(|call, _| (call == Call::SyncDir).then(|| error(EIO)));
    rig.send(1, 0, 0, 50, Closes::Segment);
    rig.end(1, 0);
    rig.until_ended(&mut told, 1);
    assert_eq!(told.stream(0), [(0, 0)]);
    assert_eq!(names(&told.dir), [".q000-00000000.pcap.len", ".q000-00000000.pcap.open"]);
    rig.assert_accounted();
}

#[test]
fn after_a_failed_fsync_a_mapped_segment_is_published_from_a_synced_copy() {
    // Of the timed fsync, and of the one before publishing.
    for is_timed in [true, false] {
        let mut rig = Rig::new(WriteMode::Mapped, 1 << 30);
        let mut told = rig.register(1, 1);
        let synced = Arc::new(Mutex::new(Vec::new()));
        let (seen, mut left) = (Arc::clone(&synced), 1);
        rig.files.fail(move |call, path| {
            let name = path.file_name()?.to_str()?.to_owned();
            if call != Call::Sync || name.ends_with(".len") {
                return None;
            }
            let fails = left > 0;
            left -= i32::from(fails);
            seen.lock().unwrap().push((name, fails));
            fails.then(|| error(EIO))
        });
        rig.send(1, 0, 0, 50, if is_timed { Closes::Nothing } else { Closes::Segment });
        rig.settle();
        if is_timed {
            for _ in 0..4 {
                rig.now += FSYNC;
                rig.settle();
            }
            rig.send(1, 0, 0, 50, Closes::Segment);
        }
        rig.end(1, 0);
        rig.until_ended(&mut told, 1);
        let (open, copy) = (".q000-00000000.pcap.open".to_owned(), ".q000-00000000.pcap.copy".to_owned());
        assert_eq!(*synced.lock().unwrap(), [(open, true), (copy, false)], "timed: {is_timed}");
        assert_eq!(told.failed, 0);
        let segment = told.segments().next().unwrap();
        assert_eq!(segment.packets, if is_timed { 100 } else { 50 });
        assert_eq!(names(&told.dir), ["q000-00000000.pcap"]);
        rig.assert_accounted();
    }
}

#[test]
fn a_timed_fsync_comes_again_when_the_writes_in_flight_have_landed() {
    let mut rig = Rig::new(WriteMode::Direct, 1 << 30);
    let told = rig.register(1, 1);
    rig.writers[0].writes().pause(true);
    rig.send(1, 0, 0, 50, Closes::Nothing);
    let durable = || super::length::trusted_after_power_cut(&told.dir.join(".q000-00000000.pcap.len"));
    for _ in 0..30 {
        rig.now += FSYNC / 10;
        rig.writers[0].turn(rig.now);
        rig.publishers[0].take_all(rig.now);
    }
    assert_eq!(durable(), 0, "the disk stands still");
    rig.writers[0].writes().pause(false);
    while rig.writers[0].writes().in_flight() > 0 {
        rig.writers[0].turn(rig.now);
    }
    let landed = rig.now;
    while durable() == 0 {
        rig.now += FSYNC / 10;
        rig.writers[0].turn(rig.now);
        rig.publishers[0].take_all(rig.now);
        assert!(rig.now <= landed + FSYNC + FSYNC / 4, "not durable within the interval");
    }
    assert_eq!(durable(), 24 + 50 * 116);
}

#[test]
fn a_timed_fsync_that_fails_is_made_again_and_ends_nothing() {
    let mut rig = Rig::new(WriteMode::Direct, 1 << 30);
    let mut told = rig.register(1, 1);
    let mut left = 3;
    rig.files.fail(move |call, _| {
        let fails = call == Call::Sync && left > 0;
        left -= i32::from(fails);
        fails.then(|| error(EIO))
    });
    rig.send(1, 0, 0, 50, Closes::Nothing);
    for _ in 0..60 {
        rig.now += FSYNC / 10;
        rig.settle();
    }
    told.listen();
    assert_eq!(told.failed, 0);
    let length = told.dir.join(".q000-00000000.pcap.len");
    assert_eq!(super::length::trusted_after_power_cut(&length), 24 + 50 * 116);
}

#[test]
fn a_segment_of_which_nothing_could_be_written_is_a_hole_and_leaves_no_file() {
    each_mode(|write| {
        let mut rig = Rig::new(write, 1 << 30);
        let mut told = rig.register(1, 1);
        if write == WriteMode::Mapped {
            // The worker's counts say nothing of what the file has.
            rig.send(1, 0, 0, 0, Closes::Segment);
        } else {
            rig.writers[0]
                .writes()
                .fail(|attempt| matches!(attempt, Attempt::Ring(_) | Attempt::Plain(_)).then_some(EIO));
            rig.send(1, 0, 0, 50, Closes::Segment);
        }
        rig.end(1, 0);
        rig.until_ended(&mut told, 1);
        assert_eq!(told.stream(0), [(0, 0)]);
        assert_eq!(names(&told.dir), [""; 0], "{write:?}");
        rig.assert_accounted();
    });
}

#[test]
fn a_full_quota_leaves_no_file_behind() {
    each_mode(|write| {
        let mut rig = Rig::new(write, SEGMENT_BYTES - 4096);
        let mut told = rig.register(1, 1);
        for sequence in 0..2 {
            rig.send(1, 0, sequence, 9000, Closes::Segment);
        }
        rig.end(1, 0);
        rig.until_ended(&mut told, 1);
        assert_eq!(told.failed, 1, "{write:?}");
        for segment in told.segments() {
            rig.spool.free(&segment.path).unwrap();
        }
        rig.spool.forget(1);
        assert!(!told.dir.exists(), "{:?}", names(&told.dir));
        assert_eq!(rig.spool.home().quota().used(), 0);
    });
}

#[test]
fn what_a_directory_held_is_released_with_it() {
    each_mode(|write| {
        let mut rig = Rig::new(write, 1 << 30);
        let mut told = rig.register(1, 1);
        for sequence in 0..3 {
            rig.send(1, 0, sequence, 50, Closes::Segment);
        }
        rig.end(1, 0);
        rig.until_ended(&mut told, 1);
        assert!(rig.spool.home().quota().used() > 0);
        assert!(rig.spool.remove_capture_dir(&told.dir).unwrap());
        assert_eq!(rig.spool.home().quota().used(), 0, "{write:?}");
        assert!(rig.spool.remove_capture_dir(&told.dir).unwrap(), "what is gone is gone");
    });
}

#[test]
fn whatever_fails_for_good_the_quota_is_what_is_on_the_disk() {
    let kinds =
        [Call::Open, Call::Allocate, Call::Write, Call::Truncate, Call::Sync, Call::Rename, Call::Remove];
    for kind in kinds {
        for errno in [EIO, ENOSPC] {
            each_mode(|write| {
                let mut rig = Rig::new(write, 64 << 20);
                for serial in 1..=3 {
                    let mut told = rig.register(serial, 1);
                    // The second capture meets the fault, in all of its life or from its second segment on.
                    for sequence in 0..3 {
                        rig.send(serial, 0, sequence, 50, Closes::Segment);
                        if serial == 2 && sequence == u32::from(errno == EIO) {
                            rig.files.fail(move |call, _| (call == kind).then(|| error(errno)));
                        }
                        rig.settle();
                    }
                    rig.end(serial, 0);
                    rig.until_ended(&mut told, 1);
                    rig.assert_accounted();
                    for segment in told.segments() {
                        let _fails_with_the_fault = rig.spool.free(&segment.path);
                    }
                    rig.settle();
                    rig.assert_accounted();
                    let lost: u64 = told.ended.iter().map(|(_, lost, _)| lost.packets).sum();
                    let kept: u64 = told.stream(0).iter().map(|(_, packets)| packets).sum();
                    assert_eq!(lost + kept, 150, "{write:?} {kind:?}");
                    if serial == 2 {
                        rig.files.heal();
                        rig.settle();
                        rig.assert_accounted();
                    }
                }
            });
        }
    }
}
