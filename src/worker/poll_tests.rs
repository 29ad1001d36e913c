//! A worker that is given its time: what a wall clock that is set does to captures, which is nothing.

use super::*;
use crate::limits::PCAP_RECORD_HEADER_BYTES;
use crate::worker::testing::{Frames, Rig};
use crate::worker::{Assigned, Attachment, Budget, Ended};
use std::cell::Cell;
use std::time::Instant;

const EPOCH: u64 = 1_700_000_000_000_000_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// Between two ticks, each of which receives one frame.
const TICK: u64 = 20 * MS;
/// What stamps may be off: a fit is not renewed at the very moment of a step, and starts from 20 ms.
const EXACT: u64 = MS;

/// A host's clocks.
struct FakeTime {
    start: Instant,
    passed_ns: Cell<u64>,
    set_ns: Cell<i64>,
}

impl Time for FakeTime {
    fn cycles(&self) -> u64 {
        1_000_000 + 3 * self.passed_ns.get()
    }

    fn wall_ns(&self) -> u64 {
        (EPOCH + self.passed_ns.get()).saturating_add_signed(self.set_ns.get())
    }

    fn moment(&self) -> Instant {
        self.start + Duration::from_nanos(self.passed_ns.get())
    }
}

/// A host with one worker of one queue, into which a frame comes at every tick.
struct Host {
    time: FakeTime,
    rig: Rig,
    handle: WorkerHandle,
    generation: u64,
    budgets: Vec<Arc<Budget>>,
    captures: Vec<(u64, Window)>,
    /// Of all captures.
    sample: Option<crate::worker::Sample>,
    /// Stamps of each capture's records, by its serial.
    stamps: Vec<Vec<u64>>,
}

impl Host {
    fn new() -> Self {
        let time = FakeTime { start: Instant::now(), passed_ns: Cell::new(0), set_ns: Cell::new(0) };
        let (handle, mut rig) = Rig::new(1, 8);
        let first = Sample::take(&time);
        time.passed_ns.set(20 * MS);
        rig.worker.clock = Clock::new(first, Sample::take(&time));
        Self {
            time,
            rig,
            handle,
            generation: 0,
            budgets: vec![],
            captures: vec![],
            sample: None,
            stamps: vec![],
        }
    }

    /// Begins a capture in the next slot; returns its serial, which counts from 1.
    fn begin(&mut self, limit: Option<Duration>) -> u64 {
        self.begin_in(Window::opened_by(&self.time, limit))
    }

    fn begin_in(&mut self, window: Window) -> u64 {
        self.begin_of(window, Arc::new(Budget::new(None, None)))
    }

    fn begin_of(&mut self, window: Window, budget: Arc<Budget>) -> u64 {
        let serial = self.budgets.len() as u64 + 1;
        self.budgets.push(budget);
        self.stamps.push(Vec::new());
        self.captures.push((serial, window));
        self.give();
        serial
    }

    fn end(&mut self, serial: u64) {
        self.captures.retain(|(other, _)| *other != serial);
        self.give();
    }

    fn give(&mut self) {
        self.generation += 1;
        let filter = crate::matcher::Filter::default();
        let captures = self.captures.iter().map(|&(serial, window)| {
            let (slot, budget) = (serial as usize - 1, Arc::clone(&self.budgets[serial as usize - 1]));
            let attachment = Attachment {
                serial,
                payer: Payer::HOST,
                snaplen: 60,
                window,
                budget,
                sample: self.sample,
                rotate: None,
            };
            Assigned { slot, filter: &filter, scope: None, attachment }
        });
        self.handle.give(Box::new(Work::new(self.generation, captures.collect()))).unwrap();
    }

    fn ended(&self, serial: u64) -> Option<Ended> {
        self.budgets[serial as usize - 1].ended()
    }

    fn counts(&self, serial: u64) -> crate::worker::SlotTotals {
        self.rig.counters[0].slot(serial as usize - 1)
    }

    fn tick(&mut self) {
        self.time.passed_ns.set(self.time.passed_ns.get() + TICK);
        self.rig.queues[0].0.lock().unwrap().push_back(Frames(vec![vec![0; 60]]));
        self.rig.worker.tick(&self.time);
        while self.handle.take_back().is_some() {}
        while let Some(message) = self.rig.lanes[0].receive() {
            let Message::Data(stream, piece) = message else { continue };
            // The last `packets` records of the piece are new.
            let record = PCAP_RECORD_HEADER_BYTES + 60;
            let (bytes, new) = (piece.bytes as usize, piece.packets as usize * record);
            for header in piece.block.bytes()[bytes - new..bytes].chunks(record) {
                let word = |at: usize| u64::from(u32::from_le_bytes(header[at..at + 4].try_into().unwrap()));
                self.stamps[stream.serial as usize - 1].push(word(0) * SECOND + word(4));
            }
            self.rig.lanes[0].give_back(piece.block);
        }
    }

    fn pass(&mut self, time: u64) {
        for _ in 0..time / TICK {
            self.tick();
        }
    }

    fn set(&self, by_ns: i64) {
        self.time.set_ns.set(self.time.set_ns.get() + by_ns);
    }

    /// Records of a capture are a tick apart, and the first one was stamped at `began_ns` of the wall clock.
    fn assert_in_step(&self, serial: u64, began_ns: u64, what: &str) {
        let stamps = &self.stamps[serial as usize - 1];
        assert_eq!(stamps.len() as u64, self.counts(serial).captured, "{what}");
        for (n, stamp) in stamps.iter().enumerate() {
            let off = stamp.abs_diff(began_ns + n as u64 * TICK);
            assert!(off <= EXACT, "{what}: stamp {n} of {} is off by {off} ns", stamps.len());
        }
        assert!(stamps.is_sorted(), "{what}: time goes back");
    }
}

const STEPS: [u64; 4] = [SECOND, 300 * SECOND, 3600 * SECOND, 365 * 86_400 * SECOND];

fn steps() -> impl Iterator<Item = i64> {
    STEPS.into_iter().map(u64::cast_signed).flat_map(|step| [step, -step])
}

/// When a clock is set; a capture of a little less than 10 s begins a second after the host.
const BEFORE: u64 = 500 * MS;
const JUST_BEFORE: u64 = SECOND - TICK;
const DURING: u64 = 5 * SECOND;

#[test]
fn a_wall_clock_that_is_set_ends_no_capture_early_or_late_and_its_stamps_stay_in_step() {
    for step in steps() {
        for when in [BEFORE, JUST_BEFORE, DURING] {
            let what = format!("{} s after {} ms", step / SECOND.cast_signed(), when / MS);
            let mut host = Host::new();
            host.pass(when.min(SECOND));
            if when < SECOND {
                host.set(step);
                host.pass(SECOND - when);
            }
            let began_ns = host.time.wall_ns();
            let serial = host.begin(Some(Duration::from_millis(9_990)));
            let mut frames = 499;
            if when > SECOND {
                host.pass(when);
                host.set(step);
                frames -= when / TICK;
            }
            host.pass(frames * TICK);
            assert_eq!(host.ended(serial), None, "{what}: it ended early");
            host.tick();
            assert_eq!(host.ended(serial), Some(Ended::Time), "{what}: it goes on");
            host.end(serial);
            host.pass(SECOND);
            assert_eq!(host.counts(serial).captured, 499, "{what}");
            host.assert_in_step(serial, began_ns + TICK, &what);
            let told = host.rig.clock_steps.read();
            assert_eq!(told.count, 1, "{what}");
            assert!(told.last_ns.abs_diff(step) < EXACT, "{what}: told {} ns", told.last_ns);
        }
    }
}

#[test]
fn what_begins_after_a_step_has_the_new_time_whatever_runs_beside_it() {
    for step in steps() {
        let mut host = Host::new();
        let (old, old_ns) = (host.begin(None), host.time.wall_ns());
        host.pass(SECOND);
        host.set(step);
        // Before the worker knows: it renews its clock every 100 ms.
        let (new, new_ns) = (host.begin(Some(Duration::from_millis(1_990))), host.time.wall_ns());
        host.pass(2 * SECOND);
        assert_eq!(host.ended(new), Some(Ended::Time));
        let (later, later_ns) = (host.begin(None), host.time.wall_ns());
        host.pass(SECOND);
        assert_eq!(later_ns - new_ns, 2 * SECOND);
        for serial in [old, new, later] {
            host.end(serial);
        }
        host.pass(SECOND);
        for (serial, began_ns) in [(old, old_ns), (new, new_ns), (later, later_ns)] {
            host.assert_in_step(serial, began_ns + TICK, &format!("capture {serial}, {step} ns"));
        }
    }
}

/// A worker may take its work after its clock followed a step that the capture's beginning does not know.
#[test]
fn a_capture_keeps_the_time_of_its_beginning_on_a_worker_that_takes_it_up_after_a_step() {
    for step in steps() {
        let mut host = Host::new();
        host.pass(SECOND);
        let window = Window::opened_by(&host.time, None);
        let began_ns = host.time.wall_ns();
        host.set(step);
        host.pass(200 * MS);
        let serial = host.begin_in(window);
        host.pass(SECOND);
        host.end(serial);
        host.pass(SECOND);
        host.assert_in_step(serial, began_ns + 200 * MS + TICK, &format!("{step} ns"));
    }
}

#[test]
fn steps_that_follow_each_other_add_up_and_the_stream_knows_none_of_them() {
    let mut host = Host::new();
    let (serial, began_ns) = (host.begin(Some(Duration::from_secs(30))), host.time.wall_ns());
    for (n, step) in steps().enumerate() {
        host.pass(SECOND);
        host.set(step);
        host.pass(SECOND);
        assert_eq!(host.rig.clock_steps.read().count, n as u64 + 1);
    }
    assert!(host.rig.clock_steps.read().total_ns.unsigned_abs() < EXACT);
    host.end(serial);
    host.pass(SECOND);
    assert_eq!(host.ended(serial), None);
    host.assert_in_step(serial, began_ns + TICK, "many steps");
}

/// Up to half a second the difference is steered away: no step, and no stamp that goes back.
#[test]
fn a_wall_clock_that_is_a_little_off_is_steered_to_and_is_no_step() {
    for step in [400 * MS as i64, -400 * MS as i64] {
        let mut host = Host::new();
        let serial = host.begin(Some(Duration::from_secs(60)));
        host.pass(SECOND);
        host.set(step);
        host.pass(20 * SECOND);
        host.end(serial);
        let wall = host.time.wall_ns();
        host.tick();
        assert_eq!((host.rig.clock_steps.read().count, host.ended(serial)), (0, None));
        let stamps = &host.stamps[0];
        assert!(stamps.is_sorted() && stamps.last().unwrap().abs_diff(wall) < EXACT, "{step}");
    }
}

/// Also when the work waits for it already: a worker can start late.
#[test]
fn frames_from_before_a_worker_began_are_in_no_capture() {
    let mut host = Host::new();
    let serial = host.begin(None);
    host.rig.queues[0].0.lock().unwrap().extend((0..600).map(|_| Frames(vec![vec![1; 60]; 32])));
    host.rig.worker.discard_stale();
    host.pass(SECOND);
    host.end(serial);
    host.pass(SECOND);
    let counts = host.counts(serial);
    assert_eq!((counts.rx, counts.matched, counts.captured), (50, 50, 50));
}

#[test]
fn a_queue_that_never_runs_empty_is_left_after_a_bound() {
    let mut host = Host::new();
    let bursts = STALE_FRAMES_MAX / BURST + 10;
    host.rig.queues[0].0.lock().unwrap().extend((0..bursts).map(|_| Frames(vec![vec![1; 60]; BURST])));
    host.rig.worker.discard_stale();
    assert_eq!(host.rig.queues[0].0.lock().unwrap().len(), 10);
}

/// Of one capture: packets of each segment, and which of them were closed.
fn segments(host: &mut Host) -> (Vec<u64>, Vec<u32>) {
    let (mut packets, mut closed) = (Vec::new(), Vec::new());
    while let Some(message) = host.rig.lanes[0].receive() {
        let Message::Data(_, piece) = message else { continue };
        packets.resize(packets.len().max(piece.sequence as usize + 1), 0);
        packets[piece.sequence as usize] += u64::from(piece.packets);
        if piece.closes == crate::spool::Closes::Segment {
            closed.push(piece.sequence);
        }
        host.rig.lanes[0].give_back(piece.block);
    }
    (packets, closed)
}

#[test]
fn a_running_capture_gets_another_sample_between_two_bursts_and_a_segment_for_each() {
    let mut host = Host::new();
    let burst = || Frames(vec![vec![0; 60]; 64]);
    // All, one in so many, another one, the same once more, and all again.
    let samples = [1, 4, 16, 16, 1];
    let mut counted = Vec::new();
    for (number, one_in) in samples.into_iter().enumerate() {
        host.sample = crate::worker::Sample::new(one_in);
        if number == 0 {
            _ = host.begin(None)
        } else {
            host.give()
        }
        for _ in 0..100 {
            host.rig.queues[0].0.lock().unwrap().push_back(burst());
            host.rig.worker.tick(&host.time);
        }
        host.rig.worker.tick(&host.time);
        while host.handle.take_back().is_some() {}
        let counts = host.counts(1);
        assert_eq!(counts.rx, counts.matched, "each frame is seen once");
        assert_eq!(counts.matched, counts.captured + counts.sampled + counts.no_block);
        counted.push((counts.rx, counts.captured, counts.no_block));
    }
    host.end(1);
    host.rig.worker.tick(&host.time);
    let (packets, closed) = segments(&mut host);
    assert_eq!(closed, [0, 1, 2, 3], "a change cuts, and the same sample again does not");
    assert!(counted.iter().enumerate().all(|(n, (rx, _, lost))| (*rx, *lost) == (6400 * (n as u64 + 1), 0)));
    let captured: Vec<u64> = counted.iter().map(|(_, captured, _)| *captured).collect();
    let ends = [captured[0], captured[1], captured[3], captured[4]];
    let begins = [0, captured[0], captured[1], captured[3]];
    let expected: Vec<u64> = ends.iter().zip(begins).map(|(end, begin)| end - begin).collect();
    assert_eq!(packets, expected);
    assert_eq!((expected[0], expected[3]), (6400, 6400));
    // Six standard deviations of the binomial distribution.
    assert!(expected[1].abs_diff(1600) < 210 && expected[2].abs_diff(800) < 165, "{expected:?}");
}

#[test]
fn frames_that_find_no_share_are_counted_apart_until_more_is_granted() {
    let mut host = Host::new();
    let share = |packets| crate::worker::Share { packets, bytes: 60 * packets };
    let budget = Arc::new(Budget::share(share(3)));
    let _serial = host.begin_of(Window::opened_by(&host.time, None), Arc::clone(&budget));
    host.pass(5 * TICK);
    assert_eq!((host.counts(1).captured, host.counts(1).share, budget.refused()), (3, 2, Some(60)));
    budget.grant(share(4));
    host.pass(2 * TICK);
    assert_eq!(budget.reclaim(share(1)), share(1));
    host.pass(2 * TICK);
    let counts = host.counts(1);
    assert_eq!((counts.matched, counts.captured, counts.share, counts.limit), (9, 6, 3, 0));
    assert_eq!(host.ended(1), None);
    budget.end(Ended::Packets);
    host.pass(2 * TICK);
    assert_eq!(host.counts(1).matched, 9, "it is over");
}
