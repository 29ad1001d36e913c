//! What the engine commands: workers, counters, ports, spool, stores, jobs. Owns the distribution of work to the workers
//! and the reading of counters; not what they are used for.
//!
//! Invariant: `generation` names one state of all slots; a worker runs it once it has given everything before it back.

use crate::deliver::SigningKey;
use crate::history::History;
use crate::job::{AccountId, Ledger, PortDrops};
use crate::limits::CAPTURES_MAX;
use crate::matcher::{Filter, PrefixSet};
use crate::ownership::BucketKeys;
use crate::pcap::{ObjectFormat, Origin};
use crate::spool::Spool;
use crate::store::JobStore;
use crate::upload::Stores;
use crate::worker::{
    Assigned, Attachment, ClockSteps, QueueCounters, Sample, SlotTotals, Work, WorkerHandle,
};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Reads what all ports lost since they were started.
pub type ReadPorts = Box<dyn Fn() -> PortDrops + Send>;

/// The planes below the engine.
pub struct Planes {
    /// One handle per worker thread.
    pub workers: Vec<WorkerHandle>,
    /// The counters of every queue, in the order of their numbers.
    pub queues: Vec<Arc<QueueCounters>>,
    /// See [`ReadPorts`].
    pub ports: ReadPorts,
    /// Steps of the wall clock, as the workers saw them.
    pub clock: Arc<ClockSteps>,
    /// Where segments lie.
    pub spool: Arc<Spool>,
    /// Where objects go.
    pub stores: Arc<Stores>,
    /// With which access keys.
    pub keys: BucketKeys,
    /// How long a destination may take to show that it can be used: somebody waits for the answer.
    pub contact_time_max: Duration,
    /// Where jobs are kept.
    pub jobs: Arc<dyn JobStore>,
    /// Where `simple` captures' objects are kept on this host.
    pub simple_dir: PathBuf,
    /// This host's id.
    pub host: String,
    /// This host's colo.
    pub colo: String,
    /// What accounts may see; one that is not in here may see every packet.
    pub scopes: HashMap<AccountId, Arc<PrefixSet>>,
    /// Captures that may be attached at once; at most [`CAPTURES_MAX`].
    pub captures_max: usize,
    /// How long an upload that fails is tried again.
    pub upload_retention: Duration,
    /// The longest pause between two tries of an upload.
    pub upload_pause_max: Duration,
    /// Share of the spool's quota at which it says that it fills up, in percent.
    pub high_water_percent: u64,
    /// What objects of `full` captures are, unless the request says otherwise.
    pub object_format: ObjectFormat,
    /// What those in pcapng say of this host: comments on the capture are added.
    pub origin: Origin,
    /// Signs manifests, if the host signs.
    pub signing_key: Option<Arc<SigningKey>>,
    /// Full captures of one account at once.
    pub full_per_account: usize,
    /// Between the starts of two simple captures of one account.
    pub simple_interval: Duration,
    /// Which packets `simple` captures consider; every one when none.
    pub simple_sample: Option<Sample>,
    /// What `simple` captures can look back into. It is recorded in the last slot.
    pub history: Option<Arc<History>>,
}

impl fmt::Debug for Planes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Planes({} workers, {} queues)", self.workers.len(), self.queues.len())
    }
}

/// One slot as the engine wants it.
#[derive(Debug)]
pub(super) struct Wanted {
    pub filter: Filter,
    /// What its account may see; every packet if none.
    pub scope: Option<Arc<PrefixSet>>,
    pub attachment: Attachment,
}

impl Wanted {
    fn assigned(&self, slot: usize) -> Assigned<'_> {
        let Self { filter, scope, attachment } = self;
        Assigned { slot, filter, scope: scope.as_ref(), attachment: attachment.clone() }
    }
}

#[derive(Debug)]
struct Crew {
    handle: WorkerHandle,
    /// Generations that are in the worker's ring or were, and that it is not known to run.
    given: VecDeque<u64>,
    running: u64,
    /// The serial in each slot of the newest work in `given`, or of the running one.
    serials: [u64; CAPTURES_MAX],
    /// Works that the worker's ring had no room for, oldest first.
    waiting: VecDeque<Box<Work>>,
}

impl Crew {
    fn new(handle: WorkerHandle) -> Self {
        let serials = [0; CAPTURES_MAX];
        Self { handle, given: VecDeque::new(), running: 0, serials, waiting: VecDeque::new() }
    }

    /// Adds the newest work. It replaces the newest that waits, unless that would skip the begin of a capture.
    fn add(&mut self, work: Box<Work>) {
        if self.waiting.back().is_some_and(|newest| !self.begins_a_capture_that_ends(newest, &work)) {
            self.waiting.pop_back();
        }
        self.waiting.push_back(work);
        self.give();
    }

    /// Whether a capture begins with `newest`, the last work that waits, and is not in `next` any more.
    fn begins_a_capture_that_ends(&self, newest: &Work, next: &Work) -> bool {
        let before = self.waiting.len().checked_sub(2).map(|index| &self.waiting[index]);
        (0..CAPTURES_MAX).any(|slot| {
            let before = before.map_or(self.serials[slot], |work| work.serial(slot));
            let serial = newest.serial(slot);
            serial != 0 && serial != before && serial != next.serial(slot)
        })
    }

    /// Gives the worker what waits, as far as its ring has room.
    fn give(&mut self) {
        while let Some(work) = self.waiting.pop_front() {
            let (generation, serials) = (work.generation, std::array::from_fn(|slot| work.serial(slot)));
            if let Err(work) = self.handle.give(work) {
                self.waiting.push_front(work);
                return;
            }
            self.given.push_back(generation);
            self.serials = serials;
        }
    }

    /// Notes which work runs now.
    fn take_back(&mut self) {
        while let Some(_replaced) = self.handle.take_back() {
            self.running = self.given.pop_front().unwrap_or(self.running);
        }
    }
}

/// All workers, and what they are to do.
///
/// Every worker runs every capture that is set, however long it looks away: of the works that wait for it only the newest is
/// replaced by a newer one, and never one with which a capture begins that the newer one has no more. So each capture ends with
/// exactly [`Roster::streams`] messages `Message::End`, one for each queue of each worker, once its slot is set otherwise.
#[derive(Debug)]
pub(super) struct Roster {
    crews: Vec<Crew>,
    slots: [Option<Wanted>; CAPTURES_MAX],
    generation: u64,
}

impl Roster {
    pub fn new(workers: Vec<WorkerHandle>) -> Self {
        let crews = workers.into_iter().map(Crew::new);
        Self { crews: crews.collect(), slots: [const { None }; CAPTURES_MAX], generation: 0 }
    }

    /// Streams that every capture has: the queues of all workers. Each of them ends once.
    pub fn streams(&self) -> usize {
        self.crews.iter().map(|crew| crew.handle.queues()).sum()
    }

    /// Whether nobody is wanted in a slot.
    pub fn is_free(&self, slot: usize) -> bool {
        self.slots[slot].is_none()
    }

    /// Changes one slot; returns the generation that has it so.
    pub fn set(&mut self, slot: usize, wanted: Option<Wanted>) -> u64 {
        self.slots[slot] = wanted;
        self.generation += 1;
        let captures: Vec<_> = self.slots.iter().enumerate().collect();
        for crew in &mut self.crews {
            let captures =
                captures.iter().filter_map(|(slot, wanted)| Some(wanted.as_ref()?.assigned(*slot)));
            crew.add(Box::new(Work::new(self.generation, captures.collect())));
        }
        self.generation
    }

    /// Whether every worker runs that generation or a later one.
    pub fn runs(&self, generation: u64) -> bool {
        self.crews.iter().all(|crew| crew.running >= generation)
    }

    /// Takes back old work and gives workers what they do not have yet.
    pub fn turn(&mut self) {
        for crew in &mut self.crews {
            crew.take_back();
            crew.give();
        }
    }
}

/// What all queues counted for one capture in one slot.
pub(super) fn sum_slot(queues: &[Arc<QueueCounters>], slot: usize, serial: u64) -> SlotTotals {
    let mut sum = SlotTotals { serial, ..SlotTotals::default() };
    for totals in queues.iter().map(|q| q.slot(slot)).filter(|t| t.serial == serial) {
        sum.rx += totals.rx;
        sum.matched += totals.matched;
        sum.captured += totals.captured;
        sum.captured_bytes += totals.captured_bytes;
        sum.no_block += totals.no_block;
        sum.limit += totals.limit;
        sum.sampled += totals.sampled;
    }
    sum
}

/// The ledger of counts by workers and ports; what the spool lost is moved by the caller.
pub(super) fn ledger(counts: &SlotTotals, port: PortDrops) -> Ledger {
    let mut ledger = Ledger {
        offered: counts.rx + port.imissed + port.rx_nombuf + port.ierrors,
        port,
        rx: counts.rx,
        unmatched: counts.rx - counts.matched,
        matched: counts.matched,
        captured: counts.captured,
        captured_bytes: counts.captured_bytes,
        ..Ledger::default()
    };
    ledger.dropped.no_block = counts.no_block;
    ledger.dropped.limit = counts.limit;
    ledger.dropped.sampled = counts.sampled;
    ledger
}

/// What ports lost between two readings.
pub(super) fn port_drops_since(now: PortDrops, then: PortDrops) -> PortDrops {
    PortDrops {
        imissed: now.imissed.saturating_sub(then.imissed),
        rx_nombuf: now.rx_nombuf.saturating_sub(then.rx_nombuf),
        ierrors: now.ierrors.saturating_sub(then.ierrors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Message;
    use crate::worker::testing::Rig;
    use crate::worker::{Budget, Window, Worker};
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn wanted(serial: u64) -> Option<Wanted> {
        let budget = Arc::new(Budget::new(None, None));
        let attachment = Attachment {
            serial,
            snaplen: 160,
            window: Window::open(None),
            budget,
            sample: None,
            rotate: None,
        };
        Some(Wanted { filter: Filter::default(), scope: None, attachment })
    }

    /// Runs the workers until each runs `generation`, then ends them. How often each capture ended, by its serial.
    fn ends(roster: &mut Roster, rigs: Vec<Rig>, generation: u64) -> BTreeMap<u64, usize> {
        let mut lanes = Vec::new();
        let mut stops: Vec<Arc<AtomicBool>> = Vec::new();
        let mut threads = Vec::new();
        for rig in rigs {
            stops.push(rig.stop);
            lanes.extend(rig.lanes);
            threads.push(std::thread::spawn(move || Worker::run(rig.worker)));
        }
        while !roster.runs(generation) {
            roster.turn();
            std::thread::yield_now();
        }
        for (stop, thread) in stops.into_iter().zip(threads) {
            stop.store(true, Ordering::Relaxed);
            thread.join().unwrap();
        }
        let mut ends = BTreeMap::new();
        for lane in &mut lanes {
            while let Some(message) = lane.receive() {
                if let Message::End(stream) = message {
                    *ends.entry(stream.serial).or_insert(0) += 1;
                }
            }
        }
        ends
    }

    /// A roster of workers that do not run yet, with so many queues each.
    fn roster(queues: &[u16]) -> (Roster, Vec<Rig>) {
        let rigs = queues.iter().map(|&queues| Rig::new(queues, 1));
        let (handles, rigs): (Vec<_>, Vec<_>) = rigs.unzip();
        (Roster::new(handles), rigs)
    }

    #[test]
    fn a_capture_that_begins_and_ends_while_a_worker_looks_away_ends_once_for_each_queue() {
        let (mut roster, rigs) = roster(&[2]);
        for slot in 0..8 {
            roster.set(slot, wanted(slot as u64 + 1));
        }
        roster.set(8, wanted(9));
        let generation = roster.set(8, None);
        let ends = ends(&mut roster, rigs, generation);
        assert_eq!(ends, (1..=9).map(|serial| (serial, roster.streams())).collect());
    }

    /// As the history's recording is: it is replaced by the next one in its slot.
    #[test]
    fn a_capture_that_is_replaced_while_a_worker_looks_away_ends_once_for_each_queue() {
        let (mut roster, rigs) = roster(&[1, 3]);
        let last = (1..=40).map(|serial| roster.set(63, wanted(serial))).last().unwrap();
        let ends = ends(&mut roster, rigs, last);
        assert_eq!(roster.streams(), 4);
        assert_eq!(ends, (1..=40).map(|serial| (serial, 4)).collect());
    }

    #[test]
    fn what_waits_for_a_worker_that_looks_away_does_not_grow_with_what_only_ends() {
        let (mut roster, rigs) = roster(&[1]);
        for slot in 0..CAPTURES_MAX {
            roster.set(slot, wanted(slot as u64 + 1));
        }
        let mut generation = 0;
        for slot in 0..CAPTURES_MAX {
            generation = roster.set(slot, None);
        }
        // Begins are gathered while none of them ended: one work that waits has them all, and the next one has none.
        assert_eq!(roster.crews[0].waiting.len(), 2);
        let ends = ends(&mut roster, rigs, generation);
        assert_eq!(ends, (1..=CAPTURES_MAX as u64).map(|serial| (serial, 1)).collect());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_set_while_workers_look_away_each_capture_ends_once_for_each_queue(
            sets in proptest::collection::vec((0_usize..6, proptest::bool::ANY), 1..60),
            queues in proptest::collection::vec(1_u16..4, 1..3),
        ) {
            let (mut roster, rigs) = roster(&queues);
            let (mut serial, mut generation) = (0, 0);
            for (slot, is_begun) in sets {
                serial += u64::from(is_begun);
                generation = roster.set(slot, if is_begun { wanted(serial) } else { None });
            }
            let ends = ends(&mut roster, rigs, generation);
            let streams = roster.streams();
            proptest::prop_assert_eq!(ends, (1..=serial).map(|serial| (serial, streams)).collect());
        }
    }
}
