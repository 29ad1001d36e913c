//! A world around the machine: workers that look away, a spool, a store, buckets, people. Owns what is durable in it, what is
//! under way, and everything that must hold.
//!
//! Invariant: each effect that the machine asks for is answered once, in an order that chance decides, unless the process dies.

use super::super::*;
use super::Chance;
use crate::deliver::journal::Record;
use crate::deliver::{Found, Manifest, Outcome, Report};
use crate::job::{ColoStyle, Destination, Kind, ObjectInfo, OffsetTime, Request, Status, StopReason};
use crate::limits::{LOOK_BACKS_MAX, LOOK_BACKS_PER_ACCOUNT_MAX};
use crate::matcher::FilterV1;
use crate::pcap::{Container, Origin};
use crate::worker::SlotTotals;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SLOTS: usize = 5;
const ADMITS: usize = 4;
const QUEUES: usize = 3;
const FULL_PER_ACCOUNT: usize = 2;
const INTERVAL: Duration = Duration::from_secs(3);
const SPOOL_BYTES: u64 = 1_000_000;

/// What survives the process of one capture in the spool.
#[derive(Debug, Default)]
struct Dir {
    /// Packets in published segments that are not delivered.
    packets: u64,
    delivered: Vec<ObjectInfo>,
    is_complete: bool,
    unpublished: u64,
    record: Option<Record>,
    settled: Option<Manifest>,
}

/// What this process has to do with one capture, look-back or recording.
#[derive(Debug)]
struct Life {
    id: CaptureId,
    account: String,
    is_full: bool,
    limit: Duration,
    attached_at: Option<Duration>,
    slot: Option<usize>,
    counts: SlotTotals,
    lost_left: u64,
    streams_left: usize,
    budget: Option<Ended>,
    delivers: bool,
    /// Its delivery has not told yet what it found.
    recovers: bool,
    delivered: bool,
    needs_counts: bool,
    /// Writes in its directory that are under way.
    in_dir: usize,
    released: bool,
    dropped: bool,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Attach(Serial),
    Detach(Serial),
}

/// An answer that is under way.
#[derive(Debug)]
enum Answer {
    Open(Serial),
    Place(Serial),
    StreamEnd(Serial),
    Note(Serial, Box<Record>),
    Publish(Serial, Box<Manifest>),
    Seek(Serial),
    Remove(Serial),
    Forget(Serial),
    PlaceRecording(Serial),
    LookBack(Serial),
    Told(Input),
}

struct Write {
    version: u64,
    job: Job,
    is_new: bool,
}

pub(super) struct World {
    chance: Chance,
    machine: Machine,
    mono: Duration,
    wall_second: i64,
    pub steps: u64,
    // What outlives the process.
    store: BTreeMap<CaptureId, Job>,
    spool: BTreeMap<CaptureId, Dir>,
    bucket: BTreeMap<CaptureId, Manifest>,
    /// Creates that were answered with a job.
    accepted: BTreeSet<CaptureId>,
    // What does not.
    lives: BTreeMap<Serial, Life>,
    writes: BTreeMap<Serial, Write>,
    changes: VecDeque<Change>,
    answers: Vec<Answer>,
    asked: BTreeMap<ReplyId, (CaptureId, Duration)>,
    simple_accepted: BTreeMap<String, Duration>,
    recording: Option<Serial>,
    looking: BTreeSet<Serial>,
    leaving: bool,
    finished: bool,
    last: u64,
    // Chance's moods.
    is_store_broken: bool,
    is_calm: bool,
}

fn config() -> Config {
    Config {
        host: "h".to_owned(),
        colo: "c".to_owned(),
        slots: SLOTS,
        admits: ADMITS,
        full_per_account: FULL_PER_ACCOUNT,
        simple_interval: INTERVAL,
        simple_one_in: None,
        object_format: ObjectFormat::default(),
        object_bytes_max: 1 << 20,
        queues: QUEUES,
        streams: QUEUES,
        spool_bytes_max: SPOOL_BYTES,
        high_water_percent: 80,
        has_history: true,
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            chance: Chance(seed),
            machine: Machine::new(config()),
            mono: Duration::ZERO,
            wall_second: 1_795_500_000,
            steps: 0,
            store: BTreeMap::new(),
            spool: BTreeMap::new(),
            bucket: BTreeMap::new(),
            accepted: BTreeSet::new(),
            lives: BTreeMap::new(),
            writes: BTreeMap::new(),
            changes: VecDeque::new(),
            answers: Vec::new(),
            asked: BTreeMap::new(),
            simple_accepted: BTreeMap::new(),
            recording: None,
            looking: BTreeSet::new(),
            leaving: false,
            finished: false,
            last: 0,
            is_store_broken: false,
            is_calm: false,
        }
    }

    fn fails(&mut self, permille: u64) -> bool {
        !self.is_calm && self.chance.permille(permille)
    }

    pub fn something_happens(&mut self) {
        match self.chance.below(100) {
            0..=9 if !self.finished => self.ask(),
            10..=12 => self.stop(),
            13..=29 => self.tick(),
            30..=31 => self.set_wall_clock(),
            32..=39 => self.workers_look(),
            40..=49 => self.store_writes(),
            50..=52 => self.spool_fails(),
            53..=54 => self.budget_ends(),
            55..=64 => self.delivers(),
            65 if self.chance.permille(200) => self.is_store_broken = !self.is_store_broken,
            66 if self.chance.permille(100) => self.crash(),
            67 if self.chance.permille(100) => {
                let reply = self.ask_for_shutdown();
                self.step(Input::Shutdown { reply });
            }
            68 if self.finished => self.restart(),
            69 => self.step(Input::ClockStepped),
            70 => self.recording_fails(),
            _ => self.answer(),
        }
    }

    /// Nothing new happens, nothing fails any more, and everything that is under way comes to its end.
    pub fn come_to_rest(&mut self) {
        (self.is_calm, self.is_store_broken) = (true, false);
        for _ in 0..100_000 {
            if self.finished {
                self.restart();
            }
            self.tick();
            self.workers_look();
            self.store_writes();
            self.delivers();
            self.answer();
            if self.finished {
                continue;
            }
            let idle = self.machine.captures.is_empty() && self.machine.look_backs.is_empty();
            if idle && self.answers.is_empty() && self.writes.is_empty() && self.changes.is_empty() {
                return self.at_rest();
            }
        }
        let captures: Vec<_> = self.machine.captures().map(|c| (c.serial, c.phase, c.streams_left)).collect();
        panic!("it never comes to rest: {captures:?}, {:?}", self.answers);
    }

    fn at_rest(&mut self) {
        assert!(self.lives.values().all(|life| life.slot.is_none()), "a slot is not free");
        for id in &self.accepted {
            let job = self.store.get(id).expect("an accepted capture is recorded");
            assert!(job.status.ended(), "{job:?} never ended");
            job.ledger.check().unwrap();
            if job.request.offset_time.is_some() {
                continue;
            }
            let dir = self.spool.get(id);
            if let Some(manifest) = self.bucket.get(id) {
                assert_eq!((manifest.ledger, &manifest.objects), (job.ledger, &job.objects), "{job:?}");
            } else {
                assert_eq!(job.status, Status::Failed, "{job:?} without a manifest");
            }
            if dir.is_none() && job.ledger.captured > 0 {
                assert!(self.bucket.contains_key(id), "the packets of {job:?} are gone");
            }
        }
        // Shutdown ends, and everything before it was answered.
        let reply = self.ask_for_shutdown();
        self.step(Input::Shutdown { reply });
        for _ in 0..1000 {
            self.workers_look();
            self.answer();
        }
        assert!(self.finished && self.asked.is_empty(), "{:?}", self.asked);
    }

    fn now(&self) -> Now {
        Now { mono: self.mono, wall: Timestamp::from_second(self.wall_second).unwrap() }
    }

    fn step(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.steps += 1;
            let mut out = Vec::new();
            let now = self.now();
            self.machine.step(now, input, &mut out);
            for effect in out {
                inputs.extend(self.perform(effect));
            }
            self.limits_hold();
        }
    }

    fn limits_hold(&self) {
        let mut of_accounts = BTreeMap::<&str, usize>::new();
        let mut slots = BTreeSet::new();
        for life in self.lives.values().filter(|life| life.slot.is_some()) {
            assert!(slots.insert(life.slot), "two captures in one slot");
            if life.is_full {
                *of_accounts.entry(&life.account).or_default() += 1;
            }
        }
        assert!(slots.len() <= ADMITS);
        assert!(of_accounts.values().all(|count| *count <= FULL_PER_ACCOUNT), "{of_accounts:?}");
        assert!(self.looking.len() <= LOOK_BACKS_MAX);
        let mut looks = BTreeMap::<&str, usize>::new();
        for look in self.machine.look_backs() {
            *looks.entry(&look.job.request.account.0).or_default() += 1;
        }
        assert!(looks.values().all(|count| *count <= LOOK_BACKS_PER_ACCOUNT_MAX), "{looks:?}");
        for capture in self.machine.captures() {
            let live = || self.live(capture.serial);
            capture.ledger(live).check().unwrap();
        }
    }

    fn live(&self, serial: Serial) -> Counted {
        let totals = self.lives.get(&serial).map(|life| life.counts).unwrap_or_default();
        Counted { totals, ports: PortDrops::default() }
    }

    /// The life of an effect: it must not have ended.
    fn life(&mut self, serial: Serial) -> &mut Life {
        let life = self.lives.get_mut(&serial).unwrap_or_else(|| panic!("{serial} was never begun"));
        assert!(!life.dropped, "an effect for {serial}, which is gone");
        life
    }

    fn begin_life(&mut self, serial: Serial, job: &Job) {
        let life = Life {
            id: job.id.clone(),
            account: job.request.account.0.clone(),
            is_full: job.request.kind == Kind::Full,
            limit: Duration::from_secs_f64(job.request.time_limit),
            attached_at: None,
            slot: None,
            counts: SlotTotals { serial, ..SlotTotals::default() },
            lost_left: 0,
            streams_left: QUEUES,
            budget: None,
            delivers: false,
            recovers: false,
            delivered: false,
            needs_counts: job.request.format == Some(Container::PcapNg),
            in_dir: 0,
            released: false,
            dropped: false,
        };
        assert!(self.lives.insert(serial, life).is_none(), "serial {serial} is used twice");
    }

    /// Begins an effect; what it answers at once.
    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Created { reply, answer } => self.created(reply, answer.map(|job| *job)),
            Effect::TryDestination { serial } => {
                let job = self.machine.capture(serial).unwrap().job.clone();
                self.begin_life(serial, &job);
                self.answers.push(Answer::Open(serial));
            }
            Effect::RecordNew { serial, version, job } => {
                if !self.lives.contains_key(&serial) {
                    self.begin_life(serial, &job);
                }
                self.life(serial);
                self.writes.insert(serial, Write { version, job: *job, is_new: true });
            }
            Effect::Record { serial, version, job } => {
                assert!(!self.life(serial).released, "a write for a capture that is released");
                let is_new = self.writes.get(&serial).is_some_and(|write| write.is_new);
                self.writes.insert(serial, Write { version, job: *job, is_new });
            }
            Effect::Place { serial } => {
                let id = self.life(serial).id.clone();
                assert!(self.store.contains_key(&id), "a place for a capture that is not recorded");
                self.answers.push(Answer::Place(serial));
            }
            Effect::Deliver { serial } | Effect::DeliverLeft { serial } => {
                assert!(!std::mem::replace(&mut self.life(serial).delivers, true), "delivered twice");
                if self.machine.capture(serial).unwrap().recovered.is_some() {
                    self.recover(serial);
                }
            }
            Effect::Attach { serial, slot } => {
                let (mono, id) = (self.mono, self.life(serial).id.clone());
                assert!(self.spool.contains_key(&id) && slot < SLOTS);
                assert!(self.lives.values().all(|life| life.slot != Some(slot)), "slot {slot} is taken");
                let life = self.life(serial);
                assert!(life.attached_at.is_none(), "attached twice");
                (life.attached_at, life.slot) = (Some(mono), Some(slot));
                self.changes.push_back(Change::Attach(serial));
            }
            Effect::Detach { serial, slot } => {
                assert_eq!(self.life(serial).slot, Some(slot));
                let known = |change: &Change| matches!(change, Change::Detach(other) if *other == serial);
                assert!(!self.changes.iter().any(known), "detached twice");
                self.changes.push_back(Change::Detach(serial));
            }
            Effect::EndBudget { serial, ended } => {
                let mono = self.mono;
                let life = self.life(serial);
                let ran = mono - life.attached_at.expect("it was attached");
                assert!(ended != Ended::Time || ran >= life.limit, "ended after {ran:?} of {:?}", life.limit);
                let ended = *life.budget.get_or_insert(ended);
                return Some(Input::BudgetEnded { serial, ended });
            }
            Effect::RefuseWrites { serial, .. } => drop(self.life(serial)),
            Effect::Note { serial } => {
                self.enter_dir(serial);
                let capture = self.machine.capture(serial).unwrap();
                let ledger = capture.ledger(|| self.live(serial));
                let record = Record {
                    job: capture.flat_job(ledger),
                    queues: QUEUES,
                    snaplen: capture.snaplen(),
                    object_bytes_max: capture.object_bytes_max,
                    format: capture.format,
                    origin: Origin::default(),
                    started: capture.started,
                    ended: capture.ended,
                    known_until: self.now().wall,
                    is_final: capture.is_final(),
                };
                assert!(record.job.objects.is_empty(), "the record does not grow with the objects");
                self.answers.push(Answer::Note(serial, Box::new(record)));
            }
            Effect::SettleCounts { serial, .. } => self.life(serial).needs_counts = false,
            Effect::Publish { serial, manifest } => {
                self.enter_dir(serial);
                let life = self.life(serial);
                assert!(life.delivered && life.in_dir == 1);
                manifest.ledger.check().unwrap();
                self.answers.push(Answer::Publish(serial, manifest));
            }
            Effect::Seek { serial } => self.answers.push(Answer::Seek(serial)),
            Effect::Remove { serial } => {
                self.release(serial);
                let id = self.life(serial).id.clone();
                assert!(self.store[&id].status.ended(), "removed before its outcome was recorded");
                if let Some(dir) = self.spool.get(&id) {
                    let holds_nothing = dir.packets == 0 && dir.delivered.is_empty();
                    assert!(dir.is_complete || holds_nothing, "{dir:?} is removed");
                    assert_eq!(dir.unpublished, 0, "an unpublished segment is removed");
                }
                self.answers.push(Answer::Remove(serial));
            }
            Effect::Forget { serial } => {
                self.release(serial);
                self.answers.push(Answer::Forget(serial));
            }
            Effect::Drop { serial } => {
                self.life(serial).dropped = true;
                let life = &self.lives[&serial];
                assert!(life.slot.is_none() && life.in_dir == 0, "{life:?} is dropped");
            }
            Effect::Weigh => {
                let running = self.machine.captures().filter(|capture| capture.takes_packets());
                let captured = running
                    .map(|capture| (capture.serial, self.lives[&capture.serial].counts.captured_bytes));
                return Some(Input::Weighed { captured: captured.collect() });
            }
            Effect::StopRetrying => self.leaving = true,
            Effect::PlaceRecording { serial } => self.answers.push(Answer::PlaceRecording(serial)),
            Effect::AttachRecording { serial } => {
                assert!(self.recording.is_none_or(|before| before < serial));
                self.recording = Some(serial);
            }
            Effect::DetachRecording | Effect::ForgetRecording { .. } => {}
            Effect::LookBack { serial, .. } => {
                self.life(serial);
                assert!(self.looking.insert(serial));
                self.answers.push(Answer::LookBack(serial));
            }
            Effect::Finish { replies } => self.finish(&replies),
        }
        None
    }

    fn finish(&mut self, replies: &[ReplyId]) {
        assert!(!std::mem::replace(&mut self.finished, true), "finished twice");
        assert!(self.machine.captures.is_empty() && self.machine.look_backs.is_empty());
        for reply in replies {
            assert!(self.asked.remove(reply).is_some());
        }
        assert!(self.asked.is_empty(), "nobody is left without an answer: {:?}", self.asked);
    }

    fn created(&mut self, reply: ReplyId, answer: Result<Job, Refusal>) {
        let (id, asked) = self.asked.remove(&reply).expect("each create is answered once");
        let Ok(job) = answer else { return };
        assert_eq!(job.id, id);
        assert!(self.store.contains_key(&id), "accepted before it was recorded");
        assert!(self.accepted.insert(id));
        if job.request.kind == Kind::Simple && job.request.offset_time.is_none() {
            let before = self.simple_accepted.insert(job.request.account.0, asked);
            assert!(before.is_none_or(|before| asked.abs_diff(before) >= INTERVAL), "{before:?} {asked:?}");
        }
    }

    fn enter_dir(&mut self, serial: Serial) {
        let life = self.life(serial);
        assert!(!life.released && life.in_dir == 0, "two write in the directory of {serial}");
        life.in_dir += 1;
        let id = life.id.clone();
        assert!(self.spool.contains_key(&id), "the directory of {serial} is gone");
    }

    fn release(&mut self, serial: Serial) {
        let life = self.life(serial);
        assert!(!life.released && life.in_dir == 0, "released while something is under way: {life:?}");
        life.released = true;
    }

    // What happens by itself.

    fn ask(&mut self) {
        self.last += 1;
        let id = CaptureId::parse(&format!(
            "{:032x}",
            (u128::from(self.chance.next()) << 32) + u128::from(self.last)
        ));
        let (id, reply) = (id.unwrap(), self.last);
        let kind = if self.chance.permille(600) { Kind::Full } else { Kind::Simple };
        let at = self.now().wall;
        let looks_back = kind == Kind::Simple && self.chance.permille(500);
        let request = Request {
            account: AccountId(format!("a{}", self.chance.below(3))),
            kind,
            filter: FilterV1::default(),
            time_limit: (1 + self.chance.below(20)) as f64,
            packet_limit: None,
            byte_limit: None,
            colo: None,
            colo_style: ColoStyle::ColoName,
            destination: (kind == Kind::Full).then(|| Destination::File { dir: "/d".into() }),
            offset_time: looks_back.then(|| OffsetTime { sent: at.to_string(), at }),
            format: (kind == Kind::Full && self.chance.permille(300)).then_some(Container::PcapNg),
            compression: None,
        };
        self.asked.insert(reply, (id.clone(), self.mono));
        let lags = self.chance.permille(500);
        self.step(Input::Create { reply, id, request: Box::new(request), lags });
    }

    fn ask_for_shutdown(&mut self) -> Option<ReplyId> {
        if self.finished || self.chance.permille(300) {
            return None;
        }
        self.last += 1;
        let id = CaptureId::parse(&format!("{:032x}", self.last)).unwrap();
        if !self.machine.is_ending() || !self.finished {
            self.asked.insert(self.last, (id, self.mono));
        }
        Some(self.last)
    }

    fn some_serial(&mut self, wanted: impl Fn(&Capture) -> bool) -> Option<Serial> {
        let serials: Vec<_> = self.machine.captures().filter(|c| wanted(c)).map(|c| c.serial).collect();
        let at = self.chance.below(serials.len() as u64);
        serials.get(usize::try_from(at).unwrap()).copied()
    }

    fn stop(&mut self) {
        if let Some(serial) = self.some_serial(Capture::is_accepted) {
            self.step(Input::Stop { serial });
        }
    }

    fn tick(&mut self) {
        let ms = if self.chance.permille(50) { self.chance.below(10_000) } else { self.chance.below(200) };
        self.mono += Duration::from_millis(ms);
        self.wall_second += i64::try_from(ms / 1000).unwrap();
        for capture in self.machine.captures.values().filter(|capture| capture.takes_packets()) {
            let life = self.lives.get_mut(&capture.serial).unwrap();
            let more = self.chance.below(10);
            let taken = self.chance.below(more + 1);
            life.counts.rx += more;
            life.counts.matched += taken;
            life.counts.captured += taken;
            life.counts.captured_bytes += taken * 100;
        }
        let held = match self.is_calm {
            true => 0,
            false => self.chance.below(SPOOL_BYTES + SPOOL_BYTES / 10),
        };
        self.step(Input::Tick { held });
    }

    fn set_wall_clock(&mut self) {
        let span = [5, 3600, 86_400 * 400, 86_400 * 365 * 20][usize::try_from(self.chance.below(4)).unwrap()];
        let by = i64::try_from(self.chance.below(span)).unwrap();
        let by = if self.chance.permille(500) { by } else { -by };
        self.wall_second = (self.wall_second + by).clamp(0, 4_000_000_000);
    }

    fn budget_ends(&mut self) {
        let Some(serial) = self.some_serial(Capture::takes_packets) else { return };
        let why = if self.chance.permille(500) { Ended::Packets } else { Ended::Bytes };
        let ended = *self.lives.get_mut(&serial).unwrap().budget.get_or_insert(why);
        self.step(Input::BudgetEnded { serial, ended });
    }

    fn spool_fails(&mut self) {
        let Some(serial) = self.some_serial(Capture::is_counting) else { return };
        let message = "the disk says no".to_owned();
        let failure = if self.chance.permille(500) { Failure::Io(message) } else { Failure::Full(message) };
        self.lives.get_mut(&serial).unwrap().budget.get_or_insert(Ended::Revoked);
        if self.chance.permille(300) {
            self.step(Input::BudgetEnded { serial, ended: Ended::Revoked });
        }
        // The event comes later.
        self.answers.push(Answer::Told(Input::SpoolFailed { serial, failure }));
    }

    fn recording_fails(&mut self) {
        if let Some(serial) = self.recording {
            self.step(Input::RecordingFailed { serial });
        }
    }

    /// The workers take up a change, sometimes several at once, as after they looked away.
    fn workers_look(&mut self) {
        for _ in 0..=self.chance.below(3) {
            let Some(change) = self.changes.pop_front() else { return };
            match change {
                Change::Attach(serial) => self.answers.push(Answer::Told(Input::Attached { serial })),
                Change::Detach(serial) => {
                    let life = self.lives.get_mut(&serial).unwrap();
                    life.slot = None;
                    let lossy = self.chance.permille(200);
                    life.lost_left = if lossy { self.chance.below(life.counts.captured + 1) } else { 0 };
                    let counted = Counted { totals: life.counts, ports: PortDrops::default() };
                    (0..QUEUES).for_each(|_| self.answers.push(Answer::StreamEnd(serial)));
                    self.step(Input::Detached { serial, counted });
                }
            }
        }
    }

    fn store_writes(&mut self) {
        let serials: Vec<_> = self.writes.keys().copied().collect();
        let at = usize::try_from(self.chance.below(serials.len() as u64)).unwrap();
        let Some(serial) = serials.get(at).copied() else { return };
        if self.is_store_broken {
            let is_new = self.writes[&serial].is_new;
            if is_new && self.chance.permille(300) {
                let write = self.writes.remove(&serial).unwrap();
                if self.chance.permille(300) {
                    self.store.insert(write.job.id.clone(), Job { status: Status::Failed, ..write.job });
                }
                self.answers.push(Answer::Told(Input::Unrecordable { serial, error: "full".to_owned() }));
            } else {
                self.step(Input::RecordTrouble { serial, error: "full".to_owned() });
            }
            return;
        }
        let write = self.writes.remove(&serial).unwrap();
        self.make_durable(&write);
        self.answers.push(Answer::Told(Input::Recorded { serial, version: write.version }));
    }

    fn make_durable(&mut self, write: &Write) {
        let before = self.store.insert(write.job.id.clone(), write.job.clone());
        assert!(before.is_none_or(|before| !before.status.ended() || before.status == write.job.status));
    }

    /// A delivery makes progress.
    fn delivers(&mut self) {
        let delivering: Vec<_> = self
            .lives
            .iter()
            .filter(|(_, life)| life.delivers && !life.recovers && !life.delivered && !life.dropped)
            .map(|(serial, _)| *serial)
            .collect();
        let at = usize::try_from(self.chance.below(delivering.len() as u64)).unwrap();
        let Some(serial) = delivering.get(at).copied() else { return };
        let may_leave = self.leaving && self.chance.permille(300);
        let (fails, troubled) = (self.fails(30), self.fails(100));
        let life = self.lives.get_mut(&serial).unwrap();
        let is_recovered = self.machine.capture(serial).is_some_and(|capture| capture.recovered.is_some());
        let all_published = life.streams_left == 0 || is_recovered;
        let report = if may_leave {
            life.delivered = true;
            Report::Delivered(Outcome::Left)
        } else if fails {
            life.delivered = true;
            Report::Delivered(Outcome::Failed("no way".to_owned()))
        } else if troubled {
            Report::Trouble("not now".to_owned())
        } else if all_published && (!life.needs_counts || is_recovered) {
            let dir = self.spool.get_mut(&life.id).unwrap();
            if dir.packets > 0 {
                let info = object(&life.id, std::mem::take(&mut dir.packets), dir.delivered.len());
                dir.delivered.push(info.clone());
                Report::Object(info)
            } else {
                dir.is_complete = true;
                life.delivered = true;
                Report::Delivered(Outcome::Done)
            }
        } else {
            return;
        };
        self.step(Input::Delivery { serial, report });
    }

    fn recover(&mut self, serial: Serial) {
        let life = self.lives.get_mut(&serial).unwrap();
        life.recovers = true;
        let dir = &self.spool[&life.id];
        let packets = dir.packets + dir.delivered.iter().map(|object| object.packets).sum::<u64>();
        let found = Found { objects: dir.delivered.clone(), packets, frame_bytes: packets * 100 };
        self.answers.push(Answer::Told(Input::Delivery { serial, report: Report::Recovered(found) }));
    }

    /// One of the answers that are under way arrives.
    fn answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let at = usize::try_from(self.chance.below(self.answers.len() as u64)).unwrap();
        let answer = self.answers.remove(at);
        let input = match answer {
            Answer::Told(input) => {
                if let Input::Delivery { serial, .. } = &input {
                    self.lives.get_mut(serial).unwrap().recovers = false;
                }
                input
            }
            Answer::Open(serial) => {
                let refusal = Refusal::Destination("no".to_owned());
                Input::Opened { serial, tried: if self.fails(100) { Err(refusal) } else { Ok(None) } }
            }
            Answer::Place(serial) => {
                let failed = self.fails(100);
                self.placed(serial, failed);
                Input::Placed { serial, made: if failed { Err("no directory".to_owned()) } else { Ok(()) } }
            }
            Answer::StreamEnd(serial) => self.stream_ends(serial),
            Answer::Note(serial, record) => {
                let life = self.lives.get_mut(&serial).unwrap();
                life.in_dir -= 1;
                let id = life.id.clone();
                if !self.fails(50) {
                    self.spool.get_mut(&id).unwrap().record = Some(*record);
                }
                Input::Noted { serial }
            }
            Answer::Publish(serial, manifest) => {
                self.lives.get_mut(&serial).unwrap().in_dir -= 1;
                let outcome = self.published(serial, *manifest);
                Input::Closed { serial, outcome }
            }
            Answer::Seek(serial) => {
                let manifest = self.bucket.get(&self.lives[&serial].id).cloned();
                let found = match manifest {
                    _ if self.leaving && self.chance.permille(300) => Sought::Left,
                    Some(manifest) => Sought::Manifest(Box::new(manifest)),
                    None => Sought::Nothing(None),
                };
                Input::Sought { serial, found }
            }
            Answer::Remove(serial) => {
                let result = if self.fails(100) { Err("busy".to_owned()) } else { Ok(()) };
                if result.is_ok() {
                    self.spool.remove(&self.lives[&serial].id);
                }
                Input::Removed { serial, result }
            }
            Answer::Forget(serial) => Input::Removed { serial, result: Ok(()) },
            Answer::PlaceRecording(serial) => Input::RecordingPlaced {
                serial,
                made: if self.fails(100) { Err("no".to_owned()) } else { Ok(()) },
            },
            Answer::LookBack(serial) => {
                self.looking.remove(&serial);
                let job = self.machine.look_back(serial).unwrap().job.clone();
                let job = Box::new(Job { status: Status::Success, ..job });
                Input::LookedBack {
                    serial,
                    result: if self.fails(200) { Err("late".to_owned()) } else { Ok(job) },
                }
            }
        };
        self.step(input);
    }

    fn placed(&mut self, serial: Serial, failed: bool) {
        let capture = self.machine.capture(serial).unwrap();
        let record = Record {
            job: capture.flat_job(Default::default()),
            queues: QUEUES,
            snaplen: capture.snaplen(),
            object_bytes_max: capture.object_bytes_max,
            format: capture.format,
            origin: Origin::default(),
            started: capture.started,
            ended: None,
            known_until: self.now().wall,
            is_final: false,
        };
        if !failed {
            let id = self.lives[&serial].id.clone();
            self.spool.insert(id, Dir { record: Some(record), ..Dir::default() });
        }
    }

    fn stream_ends(&mut self, serial: Serial) -> Input {
        let unpublished = u64::from(self.fails(30));
        let life = self.lives.get_mut(&serial).unwrap();
        life.streams_left -= 1;
        let lost =
            if life.streams_left == 0 { life.lost_left } else { self.chance.below(life.lost_left + 1) };
        life.lost_left -= lost;
        let dir = self.spool.get_mut(&life.id).unwrap();
        dir.unpublished += unpublished;
        if life.streams_left == 0 {
            // All that is not lost is published.
            let lost = self.machine.capture(serial).map_or(0, |capture| capture.lost.packets) + lost;
            dir.packets = life.counts.captured - lost;
        }
        Input::StreamEnded { serial, lost: Lost { packets: lost, frame_bytes: lost * 100 }, unpublished }
    }

    fn published(&mut self, serial: Serial, manifest: Manifest) -> Outcome {
        let id = self.lives[&serial].id.clone();
        let dir = self.spool.get_mut(&id).unwrap();
        // The first one counts.
        let manifest = dir.settled.get_or_insert(manifest).clone();
        if self.fails(50) {
            return Outcome::Failed("not there".to_owned());
        }
        if self.leaving && self.chance.permille(300) {
            return Outcome::Left;
        }
        self.bucket.insert(id, manifest);
        Outcome::Done
    }

    // Deaths.

    /// The process dies; of what was under way some is durable.
    fn crash(&mut self) {
        for write in std::mem::take(&mut self.writes).into_values() {
            if self.chance.permille(500) && !self.is_store_broken {
                self.make_durable(&write);
            }
        }
        for answer in std::mem::take(&mut self.answers) {
            if self.chance.permille(500) {
                continue;
            }
            match answer {
                Answer::Place(serial) => self.placed(serial, false),
                Answer::Publish(serial, manifest) => drop(self.published(serial, *manifest)),
                Answer::Remove(serial) => drop(self.spool.remove(&self.lives[&serial].id)),
                Answer::Note(serial, record) => {
                    self.spool.get_mut(&self.lives[&serial].id).unwrap().record = Some(*record);
                }
                _ => {}
            }
        }
        let lives = std::mem::take(&mut self.lives);
        for life in lives.values().filter(|life| life.attached_at.is_some() && life.streams_left > 0) {
            // Of what was captured, so much had reached the disk.
            if let Some(dir) = self.spool.get_mut(&life.id) {
                dir.packets = self.chance.below(life.counts.captured + 1);
            }
        }
        self.asked.clear();
        self.restart();
    }

    /// The next process begins with what is durable.
    fn restart(&mut self) {
        self.machine = Machine::new(config());
        self.mono = Duration::ZERO;
        self.lives.clear();
        self.writes.clear();
        self.changes.clear();
        self.answers.clear();
        self.looking.clear();
        self.simple_accepted.clear();
        (self.recording, self.leaving, self.finished) = (None, false, false);
        // What could not be published is by now: the recovery of a directory begins with that.
        self.spool.values_mut().for_each(|dir| dir.unpublished = 0);
        let unfinished: Vec<_> = self.store.values().filter(|job| !job.status.ended()).cloned().collect();
        for job in unfinished {
            if job.request.offset_time.is_some() {
                let stop_reason = Some(StopReason::Interrupted);
                self.store.insert(job.id.clone(), Job { status: Status::Failed, stop_reason, ..job });
                continue;
            }
            let serial = self.machine.serial_for_inherited();
            self.begin_life(serial, &job);
            let remains = match self.spool.get(&job.id) {
                None => Remains::Nothing,
                Some(dir) => Remains::Directory {
                    record: dir.record.clone().map(Box::new),
                    settled: dir.settled.clone().map(Box::new),
                },
            };
            self.step(Input::Inherited(Box::new(Inherited { serial, job, remains })));
        }
        // Those that ended and are wholly delivered are removed by the survey of the spool.
        let (store, spool) = (&self.store, &mut self.spool);
        spool.retain(|id, dir| {
            let job = &store[id];
            let keeps_manifest =
                job.status == Status::Failed && job.ledger.captured > 0 && dir.settled.is_some();
            !job.status.ended() || !dir.is_complete || keeps_manifest
        });
    }
}

fn object(id: &CaptureId, packets: u64, number: usize) -> ObjectInfo {
    let name = format!("pcap_{id}_{number}");
    ObjectInfo {
        name,
        bytes: packets * 116,
        packets,
        frame_bytes: Some(packets * 100),
        ..ObjectInfo::default()
    }
}
