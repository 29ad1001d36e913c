//! The worker itself: one thread that polls its queues until it is told to stop. Owns the order of things in one tick: take new work,
//! poll every queue, and now and then keep house.
//!
//! Invariant: work is swapped between two bursts, so every burst is matched, limited and counted by one program.

use super::append::{Stamped, append, append_plain};
use super::blocks::Blocks;
use super::clock::{Clock, JUMP_NS};
use super::counters::{LocalCounters, QueueCounters, Slot};
use super::rest::{Rest, WhenIdle};
use super::sample::Sampler;
use super::sampled::SampledSlots;
use super::steps::ClockSteps;
use super::stream::{HandOver, NOTICES_SPARE, Stream};
use super::time::{HostTime, Sample, Time};
use super::work::{Window, Work};
use crate::block::{Block, Heartbeat, Payer, WorkerEnd};
use crate::limits::{BURST, CAPTURES_MAX, STALE_FRAMES_MAX};
use crate::matcher::{Bits, Hits};
use crate::packet::{Burst, Key, Source};
use crate::spool::Message;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Works that may wait for a worker; it takes them within one poll.
const WORKS_WAITING: usize = 8;
/// How often a worker looks at its timers.
const HOUSEKEEPING_NS: u64 = 1_000_000;
/// How often the clock's fit is renewed.
const REFIT_NS: u64 = 100_000_000;

/// When streams are handed over without being full.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// The longest time that an appended record waits for its block to leave.
    pub flush: Duration,
    /// The longest time that a segment stays open.
    pub rotate: Duration,
}

/// Everything that a worker needs.
#[derive(Debug)]
pub struct WorkerParts<S> {
    /// Its queues, counted from 0 over all ports, with their published counters.
    pub queues: Vec<(u16, S, Arc<QueueCounters>)>,
    /// Its share of the arena.
    pub blocks: Vec<Block>,
    /// How many accounts share them.
    pub accounts: usize,
    /// Its lanes, one per writer.
    pub lanes: Vec<WorkerEnd<Message>>,
    /// Where a segment ends.
    pub segment_bytes_max: u64,
    /// See [`Timers`].
    pub timers: Timers,
    /// What it does while no packets come.
    pub when_idle: WhenIdle,
    /// Set by the owner to end the thread.
    pub stop: Arc<AtomicBool>,
    /// Its heartbeat and counters, read by the watchdog.
    pub heartbeat: Arc<Heartbeat>,
    /// Where it tells steps of the wall clock. One worker of a host does.
    pub clock_steps: Option<Arc<ClockSteps>>,
}

/// The engine's end of a worker.
///
/// The worker runs every work that it was given, in that order, and skips none. Once it runs the next one, the one before comes
/// back, with its `generation`. It begins with an idle work, which comes back first: so when `n` works came back, it runs the `n`th
/// that it was given. Before a work comes back, every stream that is not in the next one was ended: `Message::End` is in its lane,
/// once for each queue and serial, also if no frame ever came. A work that [`Self::give`] refused is not run.
#[derive(Debug)]
pub struct WorkerHandle {
    give: Producer<Box<Work>>,
    back: Consumer<Box<Work>>,
    queues: usize,
}

impl WorkerHandle {
    /// Gives the worker new work, which replaces the last one between two bursts.
    ///
    /// # Errors
    /// Gives it back when the worker has not taken the last eight yet.
    pub fn give(&mut self, work: Box<Work>) -> Result<(), Box<Work>> {
        self.give.push(work).map_err(|rtrb::PushError::Full(work)| work)
    }

    /// The worker's queues: each has a stream of its own for every capture.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queues
    }

    /// Work that the worker has replaced. The streams that are not in the next one have been ended.
    pub fn take_back(&mut self) -> Option<Box<Work>> {
        self.back.pop().ok()
    }
}

struct Queue<S> {
    index: u16,
    lane: usize,
    source: S,
    published: Arc<QueueCounters>,
    local: LocalCounters,
    streams: [Stream; CAPTURES_MAX],
    keys: [Key; BURST],
    hits: Hits,
    sampled: SampledSlots,
    last_ns: u64,
    /// Slots whose captures were over when the first burst since the last publication came, and from when on another one is.
    /// So a capture without limits of packets or bytes ends some bursts late at most, and its budget is not asked each time.
    over: u64,
    /// In cycles.
    next_end: u64,
}

impl<S> Queue<S> {
    /// Publishes all that was counted, and the slots in the bit mask `changed`.
    fn publish(&mut self, changed: u64) {
        let settled = self.sampled.settle(&mut self.streams, &mut self.local);
        self.local.publish(&self.published, changed | settled);
    }
}

/// See the module.
pub struct Worker<S> {
    queues: Vec<Queue<S>>,
    blocks: Blocks,
    lanes: Vec<WorkerEnd<Message>>,
    segment_bytes_max: u64,
    work: Box<Work>,
    take: Consumer<Box<Work>>,
    left: Producer<Box<Work>>,
    clock: Clock,
    timers: Timers,
    when_idle: WhenIdle,
    stop: Arc<AtomicBool>,
    heartbeat: Arc<Heartbeat>,
    clock_steps: Option<Arc<ClockSteps>>,
    due: Due,
}

/// When a worker next does what it does now and then, in cycles.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    house: u64,
    refit: u64,
}

/// Messages without a block that a lane must have room for.
#[must_use]
pub fn lane_notices() -> usize {
    2 * NOTICES_SPARE
}

/// A worker with no work yet, and the engine's end of it. Allocates all that the worker will ever need.
#[must_use]
pub fn worker<S: Source>(parts: WorkerParts<S>) -> (Worker<S>, WorkerHandle) {
    let (give, take) = RingBuffer::new(WORKS_WAITING);
    let (left, back) = RingBuffer::new(WORKS_WAITING + 1);
    let (lanes, queues_count) = (parts.lanes.len(), parts.queues.len());
    let queues = parts.queues.into_iter().map(|(index, source, published)| Queue {
        index,
        lane: usize::from(index) % lanes,
        source,
        published,
        local: LocalCounters::new(),
        streams: std::array::from_fn(|_| Stream::idle()),
        keys: [Key([0; 64]); BURST],
        hits: Hits::default(),
        sampled: SampledSlots::none(),
        last_ns: 0,
        over: 0,
        next_end: 0,
    });
    let worker = Worker {
        queues: queues.collect(),
        blocks: Blocks::new(parts.blocks, parts.accounts, queues_count * CAPTURES_MAX),
        lanes: parts.lanes,
        segment_bytes_max: parts.segment_bytes_max,
        work: Box::new(Work::idle(0)),
        take,
        left,
        clock: Clock::start(&HostTime),
        timers: parts.timers,
        when_idle: parts.when_idle,
        stop: parts.stop,
        heartbeat: parts.heartbeat,
        clock_steps: parts.clock_steps,
        due: Due::default(),
    };
    (worker, WorkerHandle { give, back, queues: queues_count })
}

/// The slots whose captures are over now, one bit each, and when the time of the next one ends, in cycles.
#[inline]
fn over(work: &Work, clock: &Clock, now: u64) -> (u64, u64) {
    let (over, next_end) = work.over(clock.moment(now));
    (over, next_end.map_or(u64::MAX, |end| clock.cycles_at(end)))
}

impl<S: Source> Worker<S> {
    /// Polls until told to stop, then ends every stream.
    pub fn run(mut self) {
        self.discard_stale();
        match self.when_idle {
            WhenIdle::Spin => {
                while !self.stop.load(Ordering::Relaxed) {
                    self.tick(&HostTime);
                }
            }
            WhenIdle::Sleep => self.run_resting(),
        }
        self.swap(Box::new(Work::idle(u64::MAX)), &HostTime);
    }

    /// As the loop of [`Worker::run`], with pauses while no packets come.
    fn run_resting(&mut self) {
        let mut rest = Rest::default();
        while !self.stop.load(Ordering::Relaxed) {
            self.tick(&HostTime);
            let received = self.queues.iter().map(|queue| queue.local.queue.rx).sum();
            if let Some(pause) = rest.after(received) {
                std::thread::sleep(pause);
            }
        }
    }

    /// Empties the queues. A device that was opened a while ago holds frames from since then, and an AF_PACKET socket also those of
    /// other interfaces, from before it was bound. No work was taken yet, so they concern no capture and are counted nowhere.
    fn discard_stale(&mut self) {
        for queue in &mut self.queues {
            let mut frames = 0;
            while frames < STALE_FRAMES_MAX {
                match queue.source.receive().len() {
                    0 => break,
                    received => frames += received,
                }
            }
        }
    }

    /// Takes new work, polls every queue once, and looks after the timers and the clock when that is due.
    #[inline]
    fn tick(&mut self, time: &impl Time) {
        self.take_work(time);
        for queue in 0..self.queues.len() {
            self.poll(queue, time);
        }
        let now = time.cycles();
        if now >= self.due.house {
            self.due.house = now + self.clock.cycles_in(HOUSEKEEPING_NS);
            self.keep_house(now);
            if now >= self.due.refit {
                let interval = self.clock.cycles_in(REFIT_NS);
                self.due.refit = now + interval;
                self.refit(Sample::take(time), interval);
            }
        }
    }

    /// Renews the clock. A step of the wall clock changes no stream's time: what is attached goes on in the time that it has.
    fn refit(&mut self, now: Sample, interval: u64) {
        let Some(step_ns) = self.clock.refit(now, interval) else { return };
        if let Some(steps) = &self.clock_steps {
            steps.add(step_ns, now.wall_ns);
        }
        for queue in &mut self.queues {
            queue.last_ns = 0;
            for slot in self.work.slots() {
                queue.streams[slot].shift_time(step_ns.saturating_neg());
            }
        }
    }

    /// What the time in which a capture began is ahead of this worker's. Not nothing when the wall clock was set and not all
    /// workers know it yet: then the capture's time is that of its beginning on every worker.
    fn ahead_ns(&self, window: &Window) -> i64 {
        let own_ns = self.clock.ns_at(window.began);
        let ahead_ns = window.began_ns.cast_signed().saturating_sub(own_ns.cast_signed());
        if ahead_ns.unsigned_abs() > JUMP_NS { ahead_ns } else { 0 }
    }

    fn take_work(&mut self, time: &impl Time) {
        if self.left.is_full() {
            return;
        }
        if let Ok(work) = self.take.pop() {
            let left = self.swap(work, time);
            let _has_room = self.left.push(left);
        }
    }

    /// Replaces the work; ends the streams that are not in the new one and begins those that were not in the old one. Those of which
    /// another sample is wanted begin a segment with it.
    fn swap(&mut self, work: Box<Work>, time: &impl Time) -> Box<Work> {
        let old = std::mem::replace(&mut self.work, work);
        if let Some(accounts) = self.work.accounts {
            self.blocks.set_accounts(accounts);
        }
        let mut ahead = [0; CAPTURES_MAX];
        for slot in self.work.slots() {
            ahead[slot] = self.work.attachments[slot].as_ref().map_or(0, |a| self.ahead_ns(&a.window));
        }
        for queue in &mut self.queues {
            let mut touched = queue.sampled.settle(&mut queue.streams, &mut queue.local);
            for (slot, ahead_ns) in ahead.into_iter().enumerate() {
                let (before, after) = (old.serial(slot), self.work.serial(slot));
                let (sample, was) = (self.work.sample(slot), old.sample(slot));
                if before == after && sample == was {
                    continue;
                }
                touched |= 1 << slot;
                // Serials are never reused, so no two streams draw the same numbers.
                let seed = time.cycles() ^ after.rotate_left(32) ^ u64::from(queue.index).rotate_left(48);
                let sampler = sample.map(|sample| Sampler::new(sample, seed));
                let (lanes, blocks) = (&mut self.lanes[..], &mut self.blocks);
                let hand_over = &mut HandOver { queue: queue.index, lanes, lane: queue.lane, blocks };
                if before == after {
                    queue.streams[slot].resample(hand_over, self.work.plain(slot), sampler);
                    continue;
                }
                let rx = queue.local.queue.rx;
                if before != 0 {
                    let counts = &mut queue.local.slots[slot];
                    counts.rx_to = counts.rx_to.min(rx);
                    queue.local.publish(&queue.published, 1 << slot);
                    queue.streams[slot].end(hand_over);
                }
                if after != 0 {
                    queue.local.slots[slot] =
                        Slot { serial: after, rx_from: rx, rx_to: u64::MAX, ..Slot::default() };
                    let payer = self.work.attachments[slot].as_ref().map_or(Payer::HOST, |a| a.payer);
                    self.blocks.begin(payer);
                    queue.streams[slot].begin(after, payer, self.work.plain(slot), sampler);
                    queue.streams[slot].shift_time(ahead_ns);
                }
            }
            queue.sampled.set(self.work.sampled, &queue.streams);
            queue.publish(touched);
        }
        old
    }

    #[inline]
    fn poll(&mut self, queue: usize, time: &impl Time) {
        let queue = &mut self.queues[queue];
        let burst = queue.source.receive();
        let frames = burst.len();
        if frames == 0 {
            drop(burst);
            if !queue.local.is_settled() {
                queue.publish(0);
            }
            return;
        }
        let now = time.cycles();
        queue.last_ns = self.clock.ns(now).max(queue.last_ns);
        if queue.local.is_settled() || now >= queue.next_end {
            (queue.over, queue.next_end) = over(&self.work, &self.clock, now);
        }
        let mut touched = 0;
        let is_passed = queue.over & queue.sampled.slots() == 0 && queue.sampled.pass_over(frames as u64);
        if !is_passed {
            touched |= queue.sampled.settle(&mut queue.streams, &mut queue.local);
        }
        if self.work.program.needs_keys() {
            for i in 0..frames {
                queue.keys[i] = Key::parse(burst.head(i), burst.wire_len(i));
            }
        }
        self.work.program.evaluate(&queue.keys[..frames], &mut queue.hits);
        let (all, slots) = (u64::MAX >> (BURST - frames), queue.sampled.slots());
        let stamped = Stamped::new(&burst, queue.last_ns, now);
        // A sampled slot takes every packet, also those that it then leaves out.
        let (mut matched, awake) =
            if !is_passed { (0, slots) } else { (if slots == 0 { 0 } else { all }, 0) };
        for (slot, hits) in queue.hits.iter().chain(Bits(awake).map(|slot| (slot, all))) {
            touched |= 1 << slot;
            let (stream, counts) = (&mut queue.streams[slot], &mut queue.local.slots[slot]);
            let is_over = queue.over & 1 << slot != 0;
            if !is_over && append_plain(&stamped, hits, stream, counts, self.segment_bytes_max) {
                matched |= hits;
                continue;
            }
            let Some(attachment) = self.work.attachments[slot].as_ref() else { continue };
            if is_over || attachment.budget.ended().is_some() {
                // Over before this burst: from here on the capture is as good as detached.
                counts.rx_to = counts.rx_to.min(queue.local.queue.rx);
                queue.over |= 1 << slot;
                continue;
            }
            matched |= hits;
            let hand_over = &mut HandOver {
                queue: queue.index,
                lanes: &mut self.lanes,
                lane: queue.lane,
                blocks: &mut self.blocks,
            };
            append(&stamped, hits, attachment, stream, counts, hand_over, self.segment_bytes_max);
        }
        if !is_passed {
            queue.sampled.set(queue.sampled.slots() & !queue.over, &queue.streams);
        }
        let taken = u64::from(matched.count_ones());
        queue.local.queue.add(frames as u64, burst.wire_bytes(), taken);
        drop(burst);
        if queue.local.counted(touched) {
            queue.publish(0);
        }
    }

    /// Tells how many blocks are free, and how many are with the writers.
    fn tell_blocks(&self) {
        let free = self.blocks.free() + self.lanes.iter().map(WorkerEnd::returned).sum::<usize>();
        let fills =
            |queue: &Queue<S>| self.work.slots().filter(|slot| queue.streams[*slot].block.is_some()).count();
        let filling: usize = self.queues.iter().map(fills).sum();
        self.heartbeat.free(free);
        self.heartbeat.waiting(self.blocks.total().saturating_sub(free + filling));
    }

    /// Looks at the timers: flushes, rotates, and tells the merge how far idle streams are.
    fn keep_house(&mut self, now: u64) {
        self.tell_blocks();
        let clock = &self.clock;
        let cycles_in = |time: Duration| clock.cycles_in(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let (flush, rotate_all) = (cycles_in(self.timers.flush), cycles_in(self.timers.rotate));
        let ns = clock.ns(now);
        self.heartbeat.beat(0, 0);
        for queue in &mut self.queues {
            for slot in self.work.slots() {
                let own = self.work.attachments[slot].as_ref().and_then(|a| a.rotate);
                let rotate = own.map_or(rotate_all, cycles_in);
                let stream = &mut queue.streams[slot];
                let hand_over = &mut HandOver {
                    queue: queue.index,
                    lanes: &mut self.lanes,
                    lane: queue.lane,
                    blocks: &mut self.blocks,
                };
                if stream.cursor.open {
                    if now.saturating_sub(stream.segment_since) >= rotate {
                        stream.close_segment(hand_over);
                        stream.segment_since = now;
                    } else if stream.dirty_since != 0 && now.saturating_sub(stream.dirty_since) >= flush {
                        hand_over.refill();
                        stream.flush(hand_over);
                    }
                } else if now.saturating_sub(stream.segment_since) >= rotate {
                    stream.segment_since = now;
                    queue.last_ns = queue.last_ns.max(ns);
                    stream.promise(hand_over, ns);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "poll_tests.rs"]
mod tests;
