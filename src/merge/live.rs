//! The merge of a running capture. Owns the streams' segments as they arrive; cutting objects is in `objects`.
//!
//! Invariant: only published segments are read, as far as was announced, in the order of their stream, and each that is read from its
//! beginning is checked against what was published about it.

use super::objects::Objects;
use super::order::{Floors, forward};
use super::uncached::Uncached;
use super::{Fault, Gap, MergeError, Output, Shape, Start, Totals, seal};
use crate::limits::{PCAP_FILE_HEADER_BYTES, PCAP_RECORD_HEADER_BYTES};
use crate::pcap::Counts;
use crate::pcap::boundary::own_record;
use crate::pcap::format::LINK_ETHERNET;
use crate::pcap::{Place, ReadError, Reader};
use crate::spool::{Cut, Input, Segment};
use crossbeam::channel::Receiver;
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Chain, Cursor, Read, Take};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;

/// Steps between looks at the input while there is work: rare enough to cost nothing, often enough that nothing piles up.
const STEPS_PER_LOOK: usize = 256;

/// Merges the streams of as many queues as `start` has places into objects of the given shape until every queue has
/// ended. Blocks, and has a second thread for hashing; run it outside of async code.
///
/// The objects depend only on the streams, the shape and (pcapng) the counts: a merge that starts where an object ended makes
/// the same objects as the first one would have.
///
/// A queue without a watermark holds the others back, because its next packet could be the oldest. While `outputs` is
/// full, `inputs` is not read: a sender that must not wait uses an unbounded channel.
///
/// # Errors
/// [`MergeError`] when a segment cannot be read or is not as published, or when either channel closes before the end.
pub fn run_live(
    start: &Start,
    shape: &Shape,
    inputs: Receiver<Input>,
    outputs: Sender<Output>,
) -> Result<Totals, MergeError> {
    run_live_past(start, shape, HashSet::new(), inputs, outputs)
}

/// As [`run_live`]. A segment in `damaged` that cannot be read to its end is taken as far as it can be read; the rest of it
/// is passed over and named in [`super::Consumed::gaps`].
///
/// # Errors
/// As [`run_live`]. A want of memory or descriptors is an error also for segments in `damaged`.
pub fn run_live_past(
    start: &Start,
    shape: &Shape,
    damaged: HashSet<PathBuf>,
    inputs: Receiver<Input>,
    outputs: Sender<Output>,
) -> Result<Totals, MergeError> {
    run(start, (shape, damaged, false), (None, None), inputs, outputs)
}

/// As [`run_live_past`], of the first object alone. `jumps`: what is in earlier objects is not read to find the beginning of a record
/// behind it. So a wrong place is found out later, and it is not known how many records a segment has in all. `until`: where it ended
/// when it was made before; the one behind it begins there and may be visible, so this one ends there also if it can hold less now.
pub(crate) fn run_object(
    start: &Start,
    shape: &Shape,
    (damaged, jumps): (HashSet<PathBuf>, bool),
    until: Option<Vec<Cut>>,
    inputs: Receiver<Input>,
    outputs: Sender<Output>,
) -> Result<Totals, MergeError> {
    run(start, (shape, damaged, jumps), (Some(1), until), inputs, outputs)
}

fn run(
    start: &Start,
    (shape, damaged, jumps): (&Shape, HashSet<PathBuf>, bool),
    (objects_max, until): (Option<u32>, Option<Vec<Cut>>),
    inputs: Receiver<Input>,
    outputs: Sender<Output>,
) -> Result<Totals, MergeError> {
    let (merged, to_seal) = crossbeam::channel::bounded(seal::QUEUE);
    let sealed = outputs.clone();
    std::thread::scope(|scope| {
        let format = shape.format;
        let sealer = std::thread::Builder::new().name("seal".to_owned());
        let sealer = sealer.spawn_scoped(scope, move || seal::seal(format, &to_seal, &sealed));
        let sealer = sealer.map_err(MergeError::Thread)?;
        let objects = Objects::new(merged, shape, start, objects_max);
        let totals = Live::new(start, (damaged, jumps), until, objects).run(&inputs, &outputs);
        let sealed = sealer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (totals, sealed) {
            // The sealer's own error is the cause.
            (Ok(_) | Err(MergeError::OutputClosed), Err(error)) => Err(error),
            (totals, _) => totals,
        }
    })
}

struct Live {
    streams: Vec<QueueStream>,
    floors: Floors,
    objects: Objects,
    /// Outer none: not yet known; inner none: never known.
    counts: Option<Option<Counts>>,
    /// Where the one object ends that is wanted, if that is known.
    until: Option<Vec<Cut>>,
}

/// What comes next in a stream.
enum Waiting {
    Segment(Segment),
    /// The number of a segment that will never be published.
    Hole(u64),
}

/// One queue's stream.
#[derive(Default)]
struct QueueStream {
    /// The segment being read, and its next record.
    reading: Option<Opened>,
    head: Option<Place>,
    waiting: VecDeque<Waiting>,
    /// Segments and holes announced so far.
    segments: u64,
    /// Bytes of the first segment that are in earlier objects.
    skip: u64,
    /// Nothing is read from there on.
    until: Option<Cut>,
    watermark_ns: u64,
    ended: bool,
    /// Segments that are taken as far as they can be read.
    damaged: Arc<HashSet<PathBuf>>,
    /// Whether the bytes of the first segment that are in earlier objects are jumped over.
    jumps: bool,
}

/// A segment that is being read.
struct Opened {
    reader: Reader<Bytes>,
    segment: Segment,
    /// Bytes of it that were jumped over.
    jumped: u64,
}

type FileHeader = [u8; PCAP_FILE_HEADER_BYTES];

/// A segment's header, and what comes behind it or behind what was jumped over.
type Bytes = Chain<Take<Cursor<FileHeader>>, Uncached>;

impl Opened {
    /// Where the next record begins.
    fn offset(&self) -> u64 {
        self.jumped + self.reader.offset()
    }

    /// Bytes of records, this one first, that stand before `until`.
    fn before(&self, until: Option<Cut>, head: &Place) -> usize {
        let here = until.filter(|cut| cut.sequence == self.segment.sequence);
        let left = here.map(|cut| cut.offset.saturating_sub(self.offset()));
        let head_bytes = PCAP_RECORD_HEADER_BYTES + head.len as usize;
        left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX).saturating_add(head_bytes))
    }

    /// Whether it is as it was published, at its end.
    fn check(&self) -> Result<(), MergeError> {
        let Self { segment, reader, jumped } = self;
        if *jumped == 0 {
            check(segment, "the number of packets", segment.packets, reader.records())?;
        }
        check(segment, "the size", segment.bytes, self.offset())
    }
}

impl Live {
    fn new(
        start: &Start,
        (damaged, jumps): (HashSet<PathBuf>, bool),
        until: Option<Vec<Cut>>,
        objects: Objects,
    ) -> Self {
        let damaged = Arc::new(damaged);
        let stream = |(queue, cut): (usize, &Cut)| QueueStream {
            until: until.as_ref().and_then(|until| until.get(queue).copied()),
            segments: cut.sequence,
            skip: cut.offset,
            damaged: Arc::clone(&damaged),
            jumps,
            ..QueueStream::default()
        };
        let streams = start.cuts.iter().enumerate().map(stream).collect();
        Self { streams, objects, floors: Floors::default(), counts: None, until }
    }

    fn run(mut self, inputs: &Receiver<Input>, outputs: &Sender<Output>) -> Result<Totals, MergeError> {
        match self.records(inputs, outputs) {
            // As many objects as were wanted.
            Err(MergeError::OutputClosed) if self.objects.are_enough() => return Ok(self.objects.totals()),
            merged => merged?,
        }
        if let Some(until) = self.until.take() {
            return self.objects.finish_at(until);
        }
        while self.objects.wants_counts() && self.counts.is_none() {
            self.take(inputs.recv().map_err(|_| MergeError::CountsMissing)?)?;
        }
        self.objects.finish(self.counts.flatten())
    }

    /// Merges all records.
    fn records(&mut self, inputs: &Receiver<Input>, outputs: &Sender<Output>) -> Result<(), MergeError> {
        self.settle()?;
        while let Some(queue) = self.floors.lowest() {
            let mut told = false;
            if self.streams[queue].head.is_some() {
                self.steps()?;
            } else {
                let queue = self.streams.iter().position(|stream| !stream.ended).unwrap_or(queue);
                self.take(inputs.recv().map_err(|_| MergeError::InputClosed { queue })?)?;
                told = true;
            }
            while let Ok(input) = inputs.try_recv() {
                self.take(input)?;
                told = true;
            }
            if told {
                self.settle()?;
            }
            if outputs.is_closed() {
                return Err(MergeError::OutputClosed);
            }
        }
        Ok(())
    }

    /// Takes up to [`STEPS_PER_LOOK`] steps while the next record is known.
    fn steps(&mut self) -> Result<(), MergeError> {
        let is_alone = self.streams.len() == 1;
        for _ in 0..STEPS_PER_LOOK {
            let Some(queue) = self.floors.lowest() else { break };
            let stream = &mut self.streams[queue];
            if is_alone && stream.until.is_none() {
                stream.note_whole(&mut self.objects);
            }
            let (Some(head), Some(opened)) = (stream.head.take(), &mut stream.reading) else {
                break;
            };
            let ns_max = self.floors.pop_lowest();
            let most = opened.before(stream.until, &head);
            let path = &opened.segment.path;
            forward((queue, path), &mut opened.reader, &head, (ns_max, most), &mut self.objects)?;
            self.objects.reached(queue, opened.segment.sequence, opened.offset());
            stream.settle(queue, &mut self.objects)?;
            if let Some(ns) = stream.floor_ns() {
                self.floors.push(ns, queue);
            }
        }
        Ok(())
    }

    fn take(&mut self, input: Input) -> Result<(), MergeError> {
        let queues = self.streams.len();
        let queue = match input {
            Input::Segment(queue, _)
            | Input::Hole { queue, .. }
            | Input::Watermark(queue, _)
            | Input::End(queue) => queue,
            Input::Counts(counts) => {
                self.counts.get_or_insert(counts);
                return Ok(());
            }
        };
        let stream = self.streams.get_mut(queue).ok_or(MergeError::Queue { queue, queues })?;
        match input {
            Input::Segment(_, Segment { path, .. }) if stream.ended => {
                return Err(MergeError::AfterEnd { queue, path });
            }
            Input::Segment(_, Segment { path, sequence, .. }) if sequence != stream.segments => {
                return Err(MergeError::Sequence { path, queue, expected: stream.segments, found: sequence });
            }
            Input::Segment(_, segment) => {
                stream.segments += 1;
                stream.waiting.push_back(Waiting::Segment(segment));
            }
            Input::Hole { sequence, .. } if sequence != stream.segments => {
                return Err(MergeError::Hole { queue, expected: stream.segments, found: sequence });
            }
            Input::Hole { sequence, .. } => {
                stream.segments += 1;
                stream.waiting.push_back(Waiting::Hole(sequence));
            }
            Input::Watermark(_, ns) => stream.watermark_ns = stream.watermark_ns.max(ns),
            Input::End(_) => stream.ended = true,
            Input::Counts(_) => {}
        }
        Ok(())
    }

    /// Finds every stream's next record and floor after new input.
    fn settle(&mut self) -> Result<(), MergeError> {
        for (queue, stream) in self.streams.iter_mut().enumerate() {
            stream.settle(queue, &mut self.objects)?;
        }
        let floors = self.streams.iter().enumerate();
        self.floors.reset(floors.filter_map(|(queue, stream)| Some((stream.floor_ns()?, queue))));
        Ok(())
    }
}

impl QueueStream {
    /// Finds the next record if any published segment has one; passes on segments that are read through.
    #[inline]
    fn settle(&mut self, queue: usize, objects: &mut Objects) -> Result<(), MergeError> {
        while self.head.is_none() && !self.is_at_end() {
            if let Some(opened) = &mut self.reading {
                match opened.reader.advance() {
                    Ok(head) => self.head = head,
                    Err(source) => self.stuck(queue, source, objects)?,
                }
            }
            if self.head.is_none() && !self.next_segment(queue, objects)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether it has come to where nothing more is read.
    #[inline]
    fn is_at_end(&self) -> bool {
        let Some(Cut { sequence, offset }) = self.until else { return false };
        let place = match &self.reading {
            Some(opened) => (opened.segment.sequence, opened.offset()),
            None => (self.segments - self.waiting.len() as u64, self.skip),
        };
        place >= (sequence, offset)
    }

    /// Opens the next segment, if one is published.
    fn next_segment(&mut self, queue: usize, objects: &mut Objects) -> Result<bool, MergeError> {
        if let Some(opened) = self.reading.take() {
            match opened.check() {
                Ok(()) => objects.consumed(queue, opened.segment),
                Err(error) => self.pass_over(queue, &opened.segment, opened.offset(), error, objects)?,
            }
        }
        let segment = match self.waiting.pop_front() {
            None => return Ok(false),
            Some(Waiting::Segment(segment)) => segment,
            Some(Waiting::Hole(sequence)) => {
                // An earlier object may end inside it, and it was lost after that.
                let offset = std::mem::take(&mut self.skip);
                objects.passed_over(Gap { queue, sequence, offset });
                return Ok(true);
            }
        };
        let skip = std::mem::take(&mut self.skip);
        match open(&segment, (skip, self.jumps), self.damaged.contains(&segment.path)) {
            Ok((reader, jumped)) => self.reading = Some(Opened { reader, segment, jumped }),
            Err(error) => self.pass_over(queue, &segment, skip, error, objects)?,
        }
        Ok(true)
    }

    /// Notes it if an object that begins with the next record will be the segment that does.
    #[inline]
    fn note_whole(&self, objects: &mut Objects) {
        if let Some(Opened { reader, segment, jumped: 0 }) = &self.reading
            && reader.records() == 1
            && let Some((header, bytes_max)) = objects.of_segments()
            && self.is_object(segment, &header, bytes_max)
        {
            objects.expect_whole(segment);
        }
    }

    /// Whether an object that begins with this segment ends with it. It does if the record behind it has no place in the object,
    /// or will never come.
    #[cold]
    fn is_object(&self, segment: &Segment, header: &[u8; PCAP_FILE_HEADER_BYTES], bytes_max: u64) -> bool {
        let is_sound = |segment: &Segment| !self.damaged.contains(&segment.path);
        let next_bytes = match self.waiting.front() {
            None if self.ended => Some(bytes_max),
            Some(Waiting::Segment(next)) if is_sound(next) => first_record_bytes(next),
            _ => None,
        };
        is_sound(segment)
            && segment.bytes <= bytes_max
            && next_bytes.is_some_and(|next| segment.bytes + next > bytes_max)
            && peek(segment, 0).is_some_and(|begin| begin == *header)
    }

    /// The segment being read cannot be read any further.
    #[cold]
    fn stuck(&mut self, queue: usize, source: ReadError, objects: &mut Objects) -> Result<(), MergeError> {
        let Some(opened) = self.reading.take() else { return Ok(()) };
        let error = failed(&opened.segment, source);
        self.pass_over(queue, &opened.segment, opened.offset(), error, objects)
    }

    /// Skips the rest of a segment that cannot be read, if it is known to be damaged.
    fn pass_over(
        &self,
        queue: usize,
        segment: &Segment,
        offset: u64,
        error: MergeError,
        objects: &mut Objects,
    ) -> Result<(), MergeError> {
        if matches!(error.fault(), Fault::Passing) || !self.damaged.contains(&segment.path) {
            return Err(error);
        }
        tracing::error!(
            segment = %segment.path.display(), offset, %error,
            "a segment is damaged: what stands behind this place in it is not delivered; the file is kept"
        );
        objects.passed_over(Gap { queue, sequence: segment.sequence, offset });
        Ok(())
    }

    /// The time that this stream's next record will not be below; none if there is no next record.
    #[inline]
    fn floor_ns(&self) -> Option<u64> {
        match &self.head {
            Some(head) => Some(head.ns),
            None if self.ended || self.is_at_end() => None,
            None => Some(self.watermark_ns),
        }
    }
}

/// Opens a segment and moves to where earlier objects end in it; how much of it is jumped over for that.
fn open(
    segment: &Segment,
    (skip, jumps): (u64, bool),
    may_be_short: bool,
) -> Result<(Reader<Bytes>, u64), MergeError> {
    let jumped = if jumps { skip.saturating_sub(header_bytes()) } else { 0 };
    let open = || -> io::Result<_> {
        let file = File::open(&segment.path)?;
        let (bytes, mut header) = (file.metadata()?.len(), FileHeader::default());
        let begun = bytes.min(header_bytes()) as usize;
        file.read_exact_at(&mut header[..begun], 0)?;
        let rest = Uncached::behind(file, begun as u64 + jumped, segment.bytes)?;
        Ok((bytes, Cursor::new(header).take(begun as u64).chain(rest)))
    };
    let (bytes, file) = open().map_err(|source| {
        let path = segment.path.clone();
        failed(segment, ReadError::Open { path, source })
    })?;
    // The file of a dead process may have stale bytes at its end; no more is read than was announced.
    if !may_be_short {
        check(segment, "the size", segment.bytes, bytes.min(segment.bytes))?;
    }
    let mut reader = Reader::new(file).map_err(|source| failed(segment, source))?;
    // What stands behind them was never written: zeros that a disk left would be packets of 1970.
    reader.at_most(segment.packets);
    let link_type = u64::from(reader.link_type().unwrap_or(LINK_ETHERNET));
    check(segment, "the link type", u64::from(LINK_ETHERNET), link_type)?;
    let place = |reader: &Reader<_>| jumped + reader.offset();
    // Read through: so the place is held to be a record's beginning, and the counts stay whole.
    while place(&reader) < skip && reader.advance().map_err(|source| failed(segment, source))?.is_some() {}
    check(segment, "the place where the last object ended", skip.max(header_bytes()), place(&reader))?;
    Ok((reader, jumped))
}

fn header_bytes() -> u64 {
    PCAP_FILE_HEADER_BYTES as u64
}

/// Some bytes of a segment, if they can be read.
fn peek<const BYTES: usize>(segment: &Segment, at: usize) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    File::open(&segment.path).and_then(|file| file.read_exact_at(&mut bytes, at as u64)).ok()?;
    Some(bytes)
}

/// Length of a segment's first record, its header included, as far as it can be told.
fn first_record_bytes(segment: &Segment) -> Option<u64> {
    let header = peek::<PCAP_RECORD_HEADER_BYTES>(segment, PCAP_FILE_HEADER_BYTES)?;
    own_record(&header).map(|(_, bytes)| bytes as u64)
}

fn failed(segment: &Segment, source: ReadError) -> MergeError {
    MergeError::Read { path: segment.path.clone(), source }
}

fn check(segment: &Segment, what: &'static str, announced: u64, found: u64) -> Result<(), MergeError> {
    if announced == found {
        return Ok(());
    }
    Err(MergeError::Segment { path: segment.path.clone(), what, announced, found })
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::pcap::Writer;

    const SECOND: u64 = 1_000_000_000;

    /// A merge that the test steps: without threads nothing depends on time.
    struct ByHand {
        live: Live,
        merged: Receiver<Output>,
        begun: usize,
        ended: usize,
    }

    impl ByHand {
        fn new(queues: usize, object_bytes_max: u64) -> Self {
            let (to_seal, merged) = crossbeam::channel::unbounded();
            let start = Start::fresh(queues);
            let objects = Objects::new(to_seal, &Shape::plain(262_144, object_bytes_max), &start, None);
            let mut live = Live::new(&start, (HashSet::new(), false), None, objects);
            live.settle().unwrap();
            Self { live, merged, begun: 0, ended: 0 }
        }

        /// Takes an input and merges as far as possible; how many objects were begun and ended so far.
        fn tell(&mut self, input: Input) -> (usize, usize) {
            self.live.take(input).unwrap();
            self.live.settle().unwrap();
            while self.live.floors.lowest().is_some_and(|queue| self.live.streams[queue].head.is_some()) {
                self.live.steps().unwrap();
            }
            for output in self.merged.try_iter() {
                self.begun += usize::from(matches!(output, Output::Begin(_)));
                self.ended += usize::from(matches!(output, Output::End(..)));
            }
            (self.begun, self.ended)
        }
    }

    #[test]
    fn an_idle_queue_with_a_watermark_does_not_hold_the_others_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(Vec::new(), 262_144, 1).unwrap();
        for second in 1..=4 {
            writer.write(second * SECOND, 60, &[7; 60]).unwrap();
        }
        let (bytes, path) = (writer.finish().unwrap(), dir.path().join("1-0.pcap"));
        std::fs::write(&path, &bytes).unwrap();
        let (first_ns, last_ns) = (SECOND, 4 * SECOND);
        let segment = Segment { path, sequence: 0, bytes: bytes.len() as u64, packets: 4, first_ns, last_ns };

        // Each object holds one packet, and ends when the next one may leave.
        let mut merge = ByHand::new(2, 30);
        assert_eq!(merge.tell(Input::Segment(1, segment)), (0, 0), "nothing is known of queue 0 yet");
        let third = merge.tell(Input::Watermark(0, 3 * SECOND));
        assert_eq!(third, (2, 1), "queue 0 may still deliver for the third second");
        assert_eq!(merge.tell(Input::Watermark(0, 3 * SECOND + 1)), (3, 2));
        assert_eq!(merge.tell(Input::End(0)), (4, 3));
        merge.tell(Input::End(1));
        assert_eq!(merge.live.objects.finish(None).unwrap().packets, 4);
    }
}
