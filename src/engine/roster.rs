//! The captures in their slots, as each worker gets them. Owns the queue of updates for a worker that is slow to take them; not the
//! decision which capture is in which slot.
//!
//! Invariant: `generation` names one state of all slots, and every worker runs every capture that was set, however slow it is.
//! So each capture ends with exactly one end of stream per queue.

use crate::limits::CAPTURES_MAX;
use crate::matcher::{Filter, PrefixSet};
use crate::worker::{Assigned, Attachment, Sample, Work, WorkerHandle};
use std::collections::VecDeque;
use std::sync::Arc;

/// A slot's content, as the engine desires it.
#[derive(Debug)]
pub(super) struct Desired {
    pub filter: Filter,
    /// The prefixes that its account may see; every packet if none.
    pub scope: Option<Arc<PrefixSet>>,
    pub attachment: Attachment,
}

impl Desired {
    fn assigned(&self, slot: usize) -> Assigned<'_> {
        let Self { filter, scope, attachment } = self;
        Assigned { slot, filter, scope: scope.as_ref(), attachment: attachment.clone() }
    }
}

#[derive(Debug)]
struct WorkerSlot {
    handle: WorkerHandle,
    /// Generations given to the worker that it is not yet known to run.
    given: VecDeque<u64>,
    running: u64,
    /// The serial in each slot: of the newest generation in `given`, or of the running one.
    serials: [u64; CAPTURES_MAX],
    /// Updates for which the worker's ring had no room, oldest first.
    waiting: VecDeque<Box<Work>>,
}

impl WorkerSlot {
    fn new(handle: WorkerHandle) -> Self {
        let serials = [0; CAPTURES_MAX];
        Self { handle, given: VecDeque::new(), running: 0, serials, waiting: VecDeque::new() }
    }

    /// Adds an update. It replaces the newest waiting one, unless that would skip the begin of a capture.
    fn add(&mut self, work: Box<Work>) {
        if self.waiting.back().is_some_and(|newest| !self.begins_a_capture_that_ends(newest, &work)) {
            self.waiting.pop_back();
        }
        self.waiting.push_back(work);
        self.give();
    }

    /// Whether a capture begins with `newest`, the last waiting update, and is not in `next` any more.
    fn begins_a_capture_that_ends(&self, newest: &Work, next: &Work) -> bool {
        let before = self.waiting.len().checked_sub(2).map(|index| &self.waiting[index]);
        (0..CAPTURES_MAX).any(|slot| {
            let before = before.map_or(self.serials[slot], |work| work.serial(slot));
            let serial = newest.serial(slot);
            serial != 0 && serial != before && serial != next.serial(slot)
        })
    }

    /// Gives the worker the waiting updates, as far as its ring has room.
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

    /// Notes which generation runs now.
    fn take_back(&mut self) {
        while let Some(_replaced) = self.handle.take_back() {
            self.running = self.given.pop_front().unwrap_or(self.running);
        }
    }
}

/// All workers and their assignments.
///
/// Every worker runs every capture that is set, however slow it is: only the newest waiting update is ever replaced, and not if
/// a capture begins with it and is absent from the newer one. So each capture ends with exactly [`Assignments::streams`]
/// messages `Message::End`, one per queue, once its slot is set otherwise.
#[derive(Debug)]
pub(super) struct Assignments {
    workers: Vec<WorkerSlot>,
    slots: [Option<Desired>; CAPTURES_MAX],
    generation: u64,
    /// Accounts over which workers deal their blocks; those of their start if none.
    accounts: Option<usize>,
}

impl Assignments {
    pub fn new(workers: Vec<WorkerHandle>) -> Self {
        let workers = workers.into_iter().map(WorkerSlot::new);
        let slots = [const { None }; CAPTURES_MAX];
        Self { workers: workers.collect(), slots, generation: 0, accounts: None }
    }

    /// Streams that every capture has: the queues of all workers. Each of them ends once.
    pub fn streams(&self) -> usize {
        self.workers.iter().map(|worker| worker.handle.queues()).sum()
    }

    /// Changes one slot; returns the generation with the change.
    pub fn set(&mut self, slot: usize, desired: Option<Desired>) -> u64 {
        self.slots[slot] = desired;
        self.give()
    }

    /// Blocks are dealt over so many accounts, and captures see what `scope` says of their number and their own scope. What a
    /// capture has and counts goes on.
    pub fn set_accounts(
        &mut self,
        accounts: usize,
        scope: impl Fn(u64, Option<Arc<PrefixSet>>) -> Option<Arc<PrefixSet>>,
    ) {
        self.accounts = Some(accounts);
        for desired in self.slots.iter_mut().flatten() {
            desired.scope = scope(desired.attachment.serial, desired.scope.take());
        }
        self.give();
    }

    /// Gives all workers the slots as they are now.
    fn give(&mut self) -> u64 {
        self.generation += 1;
        let captures: Vec<_> = self.slots.iter().enumerate().collect();
        for worker in &mut self.workers {
            let captures =
                captures.iter().filter_map(|(slot, desired)| Some(desired.as_ref()?.assigned(*slot)));
            let work = Work::new(self.generation, captures.collect());
            worker.add(Box::new(match self.accounts {
                Some(accounts) => work.for_accounts(accounts),
                None => work,
            }));
        }
        self.generation
    }

    /// Has the workers sample the capture in a slot otherwise, between two bursts.
    pub fn resample(&mut self, slot: usize, sample: Option<Sample>) {
        if let Some(mut desired) = self.slots[slot].take() {
            desired.attachment.sample = sample;
            self.set(slot, Some(desired));
        }
    }

    /// Whether every worker runs that generation or a later one.
    pub fn runs(&self, generation: u64) -> bool {
        self.workers.iter().all(|worker| worker.running >= generation)
    }

    /// Takes back replaced updates and gives workers the waiting ones.
    pub fn tick(&mut self) {
        for worker in &mut self.workers {
            worker.take_back();
            worker.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Message;
    use crate::worker::testing::Rig;
    use crate::worker::{Budget, Payer, Window, Worker};
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn desired(serial: u64) -> Option<Desired> {
        let budget = Arc::new(Budget::new(None, None));
        let attachment = Attachment {
            serial,
            payer: Payer::HOST,
            snaplen: 160,
            window: Window::open(None),
            budget,
            sample: None,
            rotate: None,
        };
        Some(Desired { filter: Filter::default(), scope: None, attachment })
    }

    /// Runs the workers until each runs `generation`, then ends them. How often each capture ended, by its serial.
    fn ends(assignments: &mut Assignments, rigs: Vec<Rig>, generation: u64) -> BTreeMap<u64, usize> {
        let mut lanes = Vec::new();
        let mut stops: Vec<Arc<AtomicBool>> = Vec::new();
        let mut threads = Vec::new();
        for rig in rigs {
            stops.push(rig.stop);
            lanes.extend(rig.lanes);
            threads.push(std::thread::spawn(move || Worker::run(rig.worker)));
        }
        while !assignments.runs(generation) {
            assignments.tick();
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

    /// Assignments of workers that do not run yet, with so many queues each.
    fn assignments(queues: &[u16]) -> (Assignments, Vec<Rig>) {
        let rigs = queues.iter().map(|&queues| Rig::new(queues, 1));
        let (handles, rigs): (Vec<_>, Vec<_>) = rigs.unzip();
        (Assignments::new(handles), rigs)
    }

    #[test]
    fn a_capture_that_begins_and_ends_while_a_worker_looks_away_ends_once_for_each_queue() {
        let (mut assignments, rigs) = assignments(&[2]);
        for slot in 0..8 {
            assignments.set(slot, desired(slot as u64 + 1));
        }
        assignments.set(8, desired(9));
        let generation = assignments.set(8, None);
        let ends = ends(&mut assignments, rigs, generation);
        assert_eq!(ends, (1..=9).map(|serial| (serial, assignments.streams())).collect());
    }

    /// As the history's recording is: it is replaced by the next one in its slot.
    #[test]
    fn a_capture_that_is_replaced_while_a_worker_looks_away_ends_once_for_each_queue() {
        let (mut assignments, rigs) = assignments(&[1, 3]);
        let last = (1..=40).map(|serial| assignments.set(63, desired(serial))).last().unwrap();
        let ends = ends(&mut assignments, rigs, last);
        assert_eq!(assignments.streams(), 4);
        assert_eq!(ends, (1..=40).map(|serial| (serial, 4)).collect());
    }

    #[test]
    fn what_waits_for_a_worker_that_looks_away_does_not_grow_with_what_only_ends() {
        let (mut assignments, rigs) = assignments(&[1]);
        for slot in 0..CAPTURES_MAX {
            assignments.set(slot, desired(slot as u64 + 1));
        }
        let mut generation = 0;
        for slot in 0..CAPTURES_MAX {
            generation = assignments.set(slot, None);
        }
        // Begins are combined while none of them ended: one waiting update has them all, and the next one has none.
        assert_eq!(assignments.workers[0].waiting.len(), 2);
        let ends = ends(&mut assignments, rigs, generation);
        assert_eq!(ends, (1..=CAPTURES_MAX as u64).map(|serial| (serial, 1)).collect());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_set_while_workers_look_away_each_capture_ends_once_for_each_queue(
            sets in proptest::collection::vec((0_usize..6, proptest::bool::ANY), 1..60),
            queues in proptest::collection::vec(1_u16..4, 1..3),
        ) {
            let (mut assignments, rigs) = assignments(&queues);
            let (mut serial, mut generation) = (0, 0);
            for (slot, is_begun) in sets {
                serial += u64::from(is_begun);
                generation = assignments.set(slot, if is_begun { desired(serial) } else { None });
            }
            let ends = ends(&mut assignments, rigs, generation);
            let streams = assignments.streams();
            proptest::prop_assert_eq!(ends, (1..=serial).map(|serial| (serial, streams)).collect());
        }
    }
}
