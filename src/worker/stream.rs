//! One queue's stream into one capture: the block that is being filled and the segment that it belongs to. Owns the
//! layout of a stream in blocks; not the counting of frames.
//!
//! Invariant: a record never straddles two segments; only whole pages leave a block unless the segment ends or the
//! stream is flushed, and then the next block begins with the page that was not whole.

use super::blocks::Blocks;
use super::sample::Sampler;
use crate::block::{Block, Payer, WorkerEnd};
use crate::limits::{
    BLOCK_BYTES, CAPTURES_MAX, PAGE_BYTES, PCAP_FILE_HEADER_BYTES, PCAP_RECORD_HEADER_BYTES, QUEUES_MAX,
};
use crate::pcap::format::{file_header, record_header};
use crate::spool::{Closes, Message, Piece, StreamId};

/// Where the next record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Whether there is a block.
    pub open: bool,
    /// Bytes in the block.
    pub position: usize,
    /// Where the block begins in the segment's file.
    pub offset: u64,
}

/// What must happen before a record can be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It fits.
    Append,
    /// The block is full.
    NextBlock,
    /// The segment is full, or there is none.
    NextSegment,
}

impl Cursor {
    /// The step before a record of so many bytes (header included).
    #[inline]
    pub fn step(&self, record_bytes: usize, segment_bytes_max: u64) -> Step {
        if !self.open || self.offset + (self.position + record_bytes) as u64 > segment_bytes_max {
            Step::NextSegment
        } else if self.position + record_bytes > BLOCK_BYTES {
            Step::NextBlock
        } else {
            Step::Append
        }
    }

    /// The cursor after that step.
    #[inline]
    pub fn after(&self, step: Step) -> Self {
        match step {
            Step::Append => *self,
            Step::NextBlock => {
                let tail = self.position % PAGE_BYTES;
                Self { open: true, position: tail, offset: self.offset + (self.position - tail) as u64 }
            }
            Step::NextSegment => Self { open: true, position: PCAP_FILE_HEADER_BYTES, offset: 0 },
        }
    }

    /// How many of the records with these sizes can be appended with so many free blocks.
    pub fn fitting(
        mut self,
        records: impl Iterator<Item = usize>,
        segment_bytes_max: u64,
        mut blocks: usize,
    ) -> usize {
        let mut fitting = 0;
        for record_bytes in records {
            let step = self.step(record_bytes, segment_bytes_max);
            if step != Step::Append {
                if blocks == 0 {
                    break;
                }
                blocks -= 1;
                self = self.after(step);
            }
            self.position += record_bytes;
            fitting += 1;
        }
        fitting
    }
}

/// See the module. What every append changes stands first, in two cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Stream {
    pub cursor: Cursor,
    pub block: Option<Block>,
    /// The snap length, if frames are neither sampled nor limited in number or bytes.
    pub plain: Option<u32>,
    last_ns: u64,
    /// Records and their frame bytes since the last piece.
    packets: u32,
    sequence: u32,
    frame_bytes: u64,
    first_ns: u64,
    /// Cycle count when the segment was begun.
    pub segment_since: u64,
    /// Cycle count when the oldest byte that was not handed over was appended; zero: none.
    pub dirty_since: u64,
    /// How far the stream's clock is ahead of the worker's: a capture keeps the clock that it began with.
    ahead_ns: i64,
    /// The capture's number; zero: none is attached.
    pub serial: u64,
    /// Whose blocks it takes.
    pub payer: Payer,
    /// Which frames are kept; none: every one.
    pub sampler: Option<Sampler>,
}

/// Places in a lane that watermarks leave free for messages that must arrive: the end of every stream of every queue.
pub(super) const NOTICES_SPARE: usize = CAPTURES_MAX * QUEUES_MAX as usize;

/// Records on their way into the open block, for which there is room. The stream knows of them when the run is dropped.
pub(super) struct Run<'a> {
    rest: &'a mut [u8],
    /// The time fields of a record header for `ns`.
    stamp: u64,
    ns: u64,
    /// When the burst was polled, in the worker's time: no frame of it can be younger.
    polled_ns: u64,
    ahead_ns: i64,
    cycles: u64,
    written: usize,
    packets: u32,
    first_ns: u64,
    to: Booking<'a>,
}

/// What a run changes of its stream.
struct Booking<'a> {
    position: &'a mut usize,
    packets: &'a mut u32,
    frame_bytes: &'a mut u64,
    first_ns: &'a mut u64,
    last_ns: &'a mut u64,
    dirty_since: &'a mut u64,
}

impl Run<'_> {
    /// Writes the next record's header with the run's time, and returns the place of its `kept` bytes.
    ///
    /// # Panics
    /// When there is no room: `Cursor::step` said otherwise.
    #[inline]
    pub fn record(&mut self, kept: u32, wire: u32) -> &mut [u8] {
        let bytes = PCAP_RECORD_HEADER_BYTES + kept as usize;
        let record = &mut self.rest[self.written..self.written + bytes];
        let (header, data) = record.split_at_mut(PCAP_RECORD_HEADER_BYTES);
        header[..8].copy_from_slice(&self.stamp.to_le_bytes());
        header[8..].copy_from_slice(&(u64::from(wire) << 32 | u64::from(kept)).to_le_bytes());
        self.written += bytes;
        self.packets += 1;
        data
    }

    /// Gives the records from here on the time that the port says, in the worker's wall clock, as far as it lies before the poll,
    /// so that a wall clock that was set in between moves no stream ahead.
    #[inline]
    pub fn received_at(&mut self, port_ns: u64) {
        self.ns = self.ns.max(port_ns.min(self.polled_ns).saturating_add_signed(self.ahead_ns));
        self.stamp = stamp(self.ns);
        if self.packets == 0 {
            self.first_ns = self.ns;
        }
    }

    /// Frame bytes of the records so far.
    pub fn frame_bytes(&self) -> u64 {
        self.written as u64 - u64::from(self.packets) * PCAP_RECORD_HEADER_BYTES as u64
    }
}

impl Drop for Run<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.packets == 0 {
            return;
        }
        *self.to.position += self.written;
        *self.to.packets += self.packets;
        *self.to.frame_bytes += self.frame_bytes();
        if *self.to.first_ns == 0 {
            *self.to.first_ns = self.first_ns;
        }
        *self.to.last_ns = self.ns;
        if *self.to.dirty_since == 0 {
            *self.to.dirty_since = self.cycles;
        }
    }
}

/// The time fields of a record header, as one word: as bytes they were kept, loaded and stored one by one for every record.
pub(super) fn stamp(ns: u64) -> u64 {
    let [s0, s1, s2, s3, n0, n1, n2, n3, ..] = record_header(ns, 0, 0);
    u64::from_le_bytes([s0, s1, s2, s3, n0, n1, n2, n3])
}

/// What a stream needs to hand over a block.
pub(super) struct HandOver<'a> {
    pub queue: u16,
    /// The worker's lanes, and which of them this queue uses.
    pub lanes: &'a mut [WorkerEnd<Message>],
    pub lane: usize,
    /// The worker's empty blocks.
    pub blocks: &'a mut Blocks,
}

impl HandOver<'_> {
    /// Takes back every block that writers are done with.
    pub fn refill(&mut self) {
        for lane in &mut *self.lanes {
            while let Some(block) = lane.take_back() {
                self.blocks.give_back(block);
            }
        }
    }
}

impl Stream {
    pub fn idle() -> Self {
        Self {
            serial: 0,
            payer: Payer::HOST,
            plain: None,
            cursor: Cursor { open: false, position: 0, offset: 0 },
            block: None,
            sequence: 0,
            first_ns: 0,
            last_ns: 0,
            packets: 0,
            frame_bytes: 0,
            segment_since: 0,
            dirty_since: 0,
            ahead_ns: 0,
            sampler: None,
        }
    }

    /// `plain` is the snap length if frames are neither sampled nor limited in number or bytes.
    pub fn begin(&mut self, serial: u64, payer: Payer, plain: Option<u32>, sampler: Option<Sampler>) {
        *self = Self { serial, payer, plain, sampler, ..Self::idle() };
    }

    /// Moves the stream's time so much further ahead of the worker's.
    pub fn shift_time(&mut self, by_ns: i64) {
        self.ahead_ns = self.ahead_ns.saturating_add(by_ns);
    }

    /// The worker's time `ns` in the stream's time, or the stream's last time if that is later: a stream's times never go back.
    #[inline]
    fn time(&self, ns: u64) -> u64 {
        ns.saturating_add_signed(self.ahead_ns).max(self.last_ns)
    }

    /// Prefetches the place of the next record. When many streams take a frame each, the processor does not see that their blocks
    /// are filled in order, and the store into a block would wait for memory.
    #[inline]
    pub fn expect_more(&self) {
        if let Some(block) = &self.block {
            block.prefetch(self.cursor.position);
        }
    }

    /// Begins a run of records into the open block, received at `ns` of the worker's time, of which `header` are the time fields,
    /// unless a port knows better: then [`Run::received_at`] comes before each record.
    #[inline]
    pub fn run(&mut self, ns: u64, header: u64, cycles: u64, is_timed: bool) -> Run<'_> {
        let (polled_ns, ahead_ns) = (ns, self.ahead_ns);
        let later = if is_timed { self.last_ns } else { self.time(ns) };
        let stamp = if later == ns { header } else { stamp(later) };
        let ns = later;
        let block = self.block.as_mut().map(Block::bytes_mut).unwrap_or_default();
        let rest = block.get_mut(self.cursor.position..).unwrap_or_default();
        let to = Booking {
            position: &mut self.cursor.position,
            packets: &mut self.packets,
            frame_bytes: &mut self.frame_bytes,
            first_ns: &mut self.first_ns,
            last_ns: &mut self.last_ns,
            dirty_since: &mut self.dirty_since,
        };
        Run { rest, stamp, ns, polled_ns, ahead_ns, cycles, written: 0, packets: 0, first_ns: ns, to }
    }

    /// Takes the step that a record needs. The caller has made sure of a free block (`Cursor::fitting`).
    pub fn advance(&mut self, step: Step, hand_over: &mut HandOver<'_>, snaplen: u32, cycles: u64) {
        match step {
            Step::Append => {}
            Step::NextBlock => {
                let whole = self.cursor.position - self.cursor.position % PAGE_BYTES;
                self.go_on(hand_over, whole);
            }
            Step::NextSegment => {
                if self.cursor.open {
                    self.close_segment(hand_over);
                }
                let Some(mut block) = hand_over.blocks.take(self.payer) else { return };
                block.bytes_mut()[..PCAP_FILE_HEADER_BYTES].copy_from_slice(&file_header(snaplen));
                self.block = Some(block);
                self.cursor = self.cursor.after(step);
                self.segment_since = cycles;
            }
        }
    }

    /// Hands over the first `bytes` bytes of the block and goes on in a free one, which begins with the page that is not
    /// whole. Without a free block, or without a block, nothing changes; returns whether it did.
    fn go_on(&mut self, hand_over: &mut HandOver<'_>, bytes: usize) -> bool {
        let Some(block) = &self.block else { return false };
        let Some(mut next) = hand_over.blocks.take(self.payer) else { return false };
        let (position, tail) = (self.cursor.position, self.cursor.position % PAGE_BYTES);
        next.bytes_mut()[..tail].copy_from_slice(&block.bytes()[position - tail..position]);
        if let Some(block) = self.block.replace(next) {
            // A piece has 32 bits for its packets.
            if hand_over.lanes[hand_over.lane].is_bypassed() && self.packets < u32::MAX / 2 {
                hand_over.blocks.give_back(block);
            } else {
                self.send_piece(hand_over, block, bytes, Closes::Nothing);
            }
        }
        self.cursor = self.cursor.after(Step::NextBlock);
        true
    }

    /// Hands over the new bytes, if there are any and a block is free for the next ones.
    pub fn flush(&mut self, hand_over: &mut HandOver<'_>) {
        if self.dirty_since == 0 {
            return;
        }
        if self.go_on(hand_over, self.cursor.position) {
            self.dirty_since = 0;
        }
    }

    /// Ends the segment, if one is open.
    pub fn close_segment(&mut self, hand_over: &mut HandOver<'_>) {
        if let Some(block) = self.block.take() {
            self.send_piece(hand_over, block, self.cursor.position, Closes::Segment);
        }
        self.cursor.open = false;
        self.sequence += 1;
        (self.first_ns, self.dirty_since) = (0, 0);
    }

    /// From here on another sample is kept. All records of a segment were kept with the same probability.
    pub fn resample(&mut self, hand_over: &mut HandOver<'_>, plain: Option<u32>, sampler: Option<Sampler>) {
        if self.cursor.open {
            self.close_segment(hand_over);
        }
        (self.plain, self.sampler) = (plain, sampler);
    }

    /// Promises that nothing older than `ns` will come, if the lane has room to spare for it.
    pub fn promise(&mut self, hand_over: &mut HandOver<'_>, ns: u64) {
        if hand_over.lanes[hand_over.lane].room() > NOTICES_SPARE {
            self.last_ns = self.time(ns);
            send(
                hand_over,
                Message::Watermark(StreamId { serial: self.serial, queue: hand_over.queue }, self.last_ns),
            );
        }
    }

    /// Ends the stream and leaves it idle.
    pub fn end(&mut self, hand_over: &mut HandOver<'_>) {
        if self.cursor.open {
            self.close_segment(hand_over);
        }
        let id = StreamId { serial: self.serial, queue: hand_over.queue };
        send(hand_over, Message::End(id));
        hand_over.blocks.end(self.payer);
        *self = Self::idle();
    }

    fn send_piece(&mut self, hand_over: &mut HandOver<'_>, block: Block, bytes: usize, closes: Closes) {
        let piece = Piece {
            block,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            offset: self.cursor.offset,
            sequence: self.sequence,
            packets: std::mem::take(&mut self.packets),
            frame_bytes: std::mem::take(&mut self.frame_bytes),
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            closes,
        };
        send(hand_over, Message::Data(StreamId { serial: self.serial, queue: hand_over.queue }, piece));
    }
}

/// Sends what must arrive. A lane has room for every block of the arena and for the end of every stream.
fn send(hand_over: &mut HandOver<'_>, message: Message) {
    let sent = hand_over.lanes[hand_over.lane].send(message);
    assert!(sent.is_ok(), "a lane was full: its size does not cover what can be in flight");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a writer would have on disk: every piece laid at its offset, segments by their number.
    fn lay(files: &mut Vec<Vec<u8>>, piece: &Piece) {
        let sequence = piece.sequence as usize;
        if files.len() <= sequence {
            files.resize(sequence + 1, Vec::new());
        }
        let (file, start) = (&mut files[sequence], usize::try_from(piece.offset).unwrap());
        assert!(start <= file.len(), "a hole before {start}");
        file.truncate(start);
        file.extend_from_slice(&piece.block.bytes()[..piece.bytes as usize]);
    }

    fn blocks_free(count: usize) -> Blocks {
        Blocks::new(crate::block::Arena::map(count, crate::block::Hugepages::Never).unwrap().0, 0, 1)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]

        /// Whatever the mix of appends, flushes, closes and want of blocks: what arrives is what was written, whole.
        #[test]
        fn pieces_add_up_to_the_records_that_were_written(
            operations in prop::collection::vec((0_u8..20, 1_u32..9000), 1..300),
            blocks in 2_usize..5,
        ) {
            let max = 2 * BLOCK_BYTES as u64;
            let mut free = blocks_free(blocks);
            let (worker_end, mut writer_end) = crate::block::lane::<Message>(blocks, 8);
            let mut lanes = vec![worker_end];
            let (mut files, mut stream) = (Vec::new(), Stream::idle());
            let (mut expected, mut packets) = (Vec::new(), 0_u64);
            stream.begin(1, Payer::HOST, None, None);
            for (n, (operation, kept)) in operations.into_iter().enumerate() {
                let hand_over = &mut HandOver { queue: 0, lanes: &mut lanes, lane: 0, blocks: &mut free };
                match operation {
                    0 => stream.flush(hand_over),
                    1 => if stream.cursor.open { stream.close_segment(hand_over) },
                    2 | 3 => {
                        while let Some(message) = writer_end.receive() {
                            if let Message::Data(_, piece) = message {
                                packets += u64::from(piece.packets);
                                lay(&mut files, &piece);
                                writer_end.give_back(piece.block);
                            }
                        }
                        hand_over.refill();
                    }
                    _ => {
                        let bytes = kept as usize + PCAP_RECORD_HEADER_BYTES;
                        if stream.cursor.fitting(std::iter::once(bytes), max, hand_over.blocks.available(Payer::HOST)) == 1 {
                            let step = stream.cursor.step(bytes, max);
                            stream.advance(step, hand_over, 262_144, n as u64 + 1);
                            stream.run(n as u64 + 1, stamp(n as u64 + 1), n as u64 + 1, false).record(kept, kept).fill(n.to_le_bytes()[0]);
                            expected.push((n, kept));
                        }
                    }
                }
            }
            stream.end(&mut HandOver { queue: 0, lanes: &mut lanes, lane: 0, blocks: &mut free });
            while let Some(message) = writer_end.receive() {
                if let Message::Data(_, piece) = message {
                    packets += u64::from(piece.packets);
                    lay(&mut files, &piece);
                }
            }
            let mut found = Vec::new();
            for file in &files {
                prop_assert!(file.len() as u64 <= max);
                let mut reader = crate::pcap::Reader::new(&file[..]).unwrap();
                while let Some(record) = reader.next_record().unwrap() {
                    let n = usize::try_from(record.ns).unwrap() - 1;
                    prop_assert!(record.data.iter().all(|&b| b == n.to_le_bytes()[0]));
                    found.push((n, record.wire_len));
                }
            }
            prop_assert_eq!(packets, expected.len() as u64);
            prop_assert_eq!(found, expected);
        }

        /// A bypassed lane carries nothing but a segment's end, which counts every record, and no block is lost.
        #[test]
        fn a_bypassed_lane_carries_the_counts_of_all_records(
            sizes in prop::collection::vec(1_u32..9000, 1..900),
            flush_after in 1_usize..300,
        ) {
            let mut free = blocks_free(2);
            let (worker_end, mut writer_end) = crate::block::lane::<Message>(2, 8);
            let (mut lanes, mut stream) = (vec![worker_end.bypassed()], Stream::idle());
            stream.begin(1, Payer::HOST, None, None);
            let hand_over = &mut HandOver { queue: 0, lanes: &mut lanes, lane: 0, blocks: &mut free };
            for (n, &kept) in sizes.iter().enumerate() {
                let step = stream.cursor.step(kept as usize + PCAP_RECORD_HEADER_BYTES, u64::MAX);
                stream.advance(step, hand_over, 262_144, 1);
                stream.run(1, stamp(1), 1, false).record(kept, kept).fill(1);
                if n % flush_after == 0 {
                    stream.flush(hand_over);
                }
            }
            prop_assert!(writer_end.receive().is_none());
            stream.end(hand_over);
            let Some(Message::Data(_, piece)) = writer_end.receive() else { panic!("no end of the segment") };
            prop_assert_eq!(piece.packets as usize, sizes.len());
            prop_assert_eq!(piece.frame_bytes, sizes.iter().map(|&kept| u64::from(kept)).sum::<u64>());
            prop_assert_eq!((piece.closes, hand_over.blocks.available(Payer::HOST)), (Closes::Segment, 1));
        }

        /// `fitting` promises exactly what walking step by step then does.
        #[test]
        fn what_is_said_to_fit_does_fit_and_the_next_does_not(
            sizes in prop::collection::vec(16_usize..70_000, 1..64),
            position in PCAP_FILE_HEADER_BYTES..BLOCK_BYTES,
            open: bool,
            blocks in 0_usize..4,
            segment_blocks in 4_u64..8,
        ) {
            let max = segment_blocks * BLOCK_BYTES as u64;
            let start = Cursor { open, position, offset: 0 };
            let fitting = start.fitting(sizes.iter().copied(), max, blocks);
            let (mut cursor, mut used) = (start, 0);
            for &size in &sizes[..fitting] {
                let step = cursor.step(size, max);
                used += usize::from(step != Step::Append);
                cursor = cursor.after(step);
                prop_assert_eq!(cursor.step(size, max), Step::Append);
                cursor.position += size;
            }
            prop_assert!(used <= blocks);
            if let Some(&next) = sizes.get(fitting) {
                prop_assert!(used == blocks && cursor.step(next, max) != Step::Append);
            }
        }
    }

    /// A port's times are taken as they are in the capture's clock, never go back, and never pass the poll: a wall clock that was set
    /// while frames waited in the port moves no stream ahead.
    #[test]
    fn a_ports_own_times_are_kept_within_what_came_before_and_the_poll() {
        let mut free = blocks_free(2);
        let (worker_end, _writer_end) = crate::block::lane::<Message>(2, 8);
        let mut lanes = vec![worker_end];
        let mut stream = Stream::idle();
        stream.begin(1, Payer::HOST, None, None);
        stream.shift_time(-1000);
        let hand_over = &mut HandOver { queue: 0, lanes: &mut lanes, lane: 0, blocks: &mut free };
        stream.advance(Step::NextSegment, hand_over, 65_535, 1);
        let mut times = |polled_ns: u64, port_ns: &[u64]| {
            let mut run = stream.run(polled_ns, stamp(polled_ns), 1, true);
            for ns in port_ns {
                run.received_at(*ns);
                run.record(0, 60);
            }
            drop(run);
            (stream.first_ns, stream.last_ns)
        };
        assert_eq!(times(9000, &[5000, 6000]), (4000, 5000));
        assert_eq!(times(9000, &[3000, 7000]), (4000, 6000));
        assert_eq!(times(9000, &[3_600_000_000_000]), (4000, 8000));
    }
}
