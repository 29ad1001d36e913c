//! A world around the machine: workers that look away, a spool, a store, buckets, people. Owns what is durable in it, what is
//! under way, and everything that must hold.
//!
//! Invariant: each effect that the machine asks for is answered once, in an order that chance decides, unless the process dies.

use super::super::*;
use super::Chance;
use super::parts::Rights;
use crate::deliver::journal::CaptureRecord;
use crate::deliver::{Found, Manifest, Outcome, Report, Words};
use crate::job::{ColoStyle, Destination, Kind, ObjectInfo, OffsetTime, Request, Status};
use crate::limits::{LOOK_BACKS_MAX, LOOK_BACKS_PER_ACCOUNT_MAX};
use crate::matcher::FilterV1;
use crate::pcap::Container;
use crate::spool::Holding;
use crate::worker::SlotTotals;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) const SLOTS: usize = 5;
pub(super) const ADMITS: usize = 4;
pub(super) const QUEUES: usize = 3;
pub(super) const FULL_PER_ACCOUNT: usize = 2;
pub(super) const INTERVAL: Duration = Duration::from_secs(3);
const SPOOL_BYTES: u64 = 1_000_000;
pub(super) const ACCOUNTS: usize = 3;

/// What survives the process of one capture in the spool.
#[derive(Debug, Default)]
pub(super) struct Dir {
    /// Packets in published segments that are not delivered.
    pub packets: u64,
    pub delivered: Vec<ObjectInfo>,
    pub is_complete: bool,
    pub unpublished: u64,
    /// Packets in segments that could not be published: counted as lost, and the next process publishes them.
    pub given_up: u64,
    pub record: Option<CaptureRecord>,
    pub settled: Option<Manifest>,
}

/// What this process has to do with one capture, look-back or recording.
#[derive(Debug)]
pub(super) struct Life {
    pub id: CaptureId,
    pub account: String,
    pub is_full: bool,
    pub limit: Duration,
    /// When its window is over, if another node said so.
    pub ends: Option<Duration>,
    /// Of its share, if it has one.
    pub rights: Option<Rights>,
    pub attached_at: Option<Duration>,
    pub slot: Option<usize>,
    pub counts: SlotTotals,
    pub lost_left: u64,
    pub streams_left: usize,
    pub budget: Option<Ended>,
    pub delivers: bool,
    /// Its delivery has not told yet what it found.
    pub recovers: bool,
    pub delivered: bool,
    pub given_up: bool,
    pub needs_counts: bool,
    /// Writes in its directory that are under way.
    pub in_dir: usize,
    pub released: bool,
    pub dropped: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Attach(Serial),
    Detach(Serial),
}

/// An answer that is under way.
#[derive(Debug)]
pub(super) enum Answer {
    Open(Serial),
    Place(Serial),
    StreamEnd(Serial),
    Note(Serial, Box<CaptureRecord>),
    Publish(Serial, Box<Manifest>),
    Seek(Serial),
    Remove(Serial),
    Forget(Serial),
    DropKept(CaptureId),
    PlaceRecording(Serial),
    LookBack(Serial),
    Told(Input),
}

pub(super) struct Write {
    pub version: u64,
    pub job: Job,
    pub is_new: bool,
}

pub(super) struct World {
    pub chance: Chance,
    pub machine: Machine,
    pub mono: Duration,
    pub wall_second: i64,
    pub steps: u64,
    // What outlives the process.
    pub store: BTreeMap<CaptureId, Job>,
    pub spool: BTreeMap<CaptureId, Dir>,
    pub bucket: BTreeMap<CaptureId, Manifest>,
    /// Creates that were answered with a job.
    pub accepted: BTreeSet<CaptureId>,
    /// Packets that each capture's filter took, whatever was counted.
    pub matched: BTreeMap<CaptureId, u64>,
    /// What was granted to parts and taken back, also by earlier processes.
    pub rights: BTreeMap<CaptureId, Rights>,
    /// Captures of which something was removed that was not delivered.
    pub dropped: BTreeSet<CaptureId>,
    /// Those of which their owner was told so: nothing more of them leaves the host.
    pub promised: BTreeSet<CaptureId>,
    // What does not.
    pub lives: BTreeMap<Serial, Life>,
    pub writes: BTreeMap<Serial, Write>,
    pub changes: VecDeque<Change>,
    pub answers: Vec<Answer>,
    pub asked: BTreeMap<ReplyId, (CaptureId, Duration)>,
    /// Parts that are asked for a second time.
    pub refused_again: BTreeSet<ReplyId>,
    pub reclaims: BTreeSet<ReplyId>,
    /// Who waits for a decision to be durable: of which capture, and whether it is to be dropped.
    pub deciding: BTreeMap<ReplyId, (Serial, CaptureId, bool)>,
    pub simple_accepted: BTreeMap<String, Duration>,
    /// What each account has on the spool, as the machine was told last.
    pub held: BTreeMap<AccountId, u64>,
    /// The capture that its owner gives up just now.
    pub owner_drops: bool,
    /// How often an account lost data to others.
    pub taken: u64,
    pub recording: Option<Serial>,
    pub looking: BTreeSet<Serial>,
    pub leaving: bool,
    pub finished: bool,
    pub last: u64,
    // Chance's moods.
    pub is_store_broken: bool,
    pub is_calm: bool,
}

/// Any two accounts can fill the spool.
pub(super) fn bounds() -> AccountBounds {
    AccountBounds { waiting: 4, ..AccountBounds::of(SPOOL_BYTES, 50, ACCOUNTS) }
}

pub(super) fn config() -> Config {
    Config {
        host: "h".to_owned(),
        colo: "c".to_owned(),
        site: None,
        slots: SLOTS,
        admits: ADMITS,
        accounts: ACCOUNTS,
        full_per_account: FULL_PER_ACCOUNT,
        simple_interval: INTERVAL,
        simple_one_in: None,
        object_format: ObjectFormat::default(),
        object_bytes_max: 1 << 20,
        queues: QUEUES,
        streams: QUEUES,
        spool_bytes_max: SPOOL_BYTES,
        account: bounds(),
        look_back_interval: Duration::from_millis(100),
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
            matched: BTreeMap::new(),
            rights: BTreeMap::new(),
            dropped: BTreeSet::new(),
            promised: BTreeSet::new(),
            deciding: BTreeMap::new(),
            held: BTreeMap::new(),
            owner_drops: false,
            taken: 0,
            lives: BTreeMap::new(),
            writes: BTreeMap::new(),
            changes: VecDeque::new(),
            answers: Vec::new(),
            asked: BTreeMap::new(),
            refused_again: BTreeSet::new(),
            reclaims: BTreeSet::new(),
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

    pub(super) fn fails(&mut self, permille: u64) -> bool {
        !self.is_calm && self.chance.permille(permille)
    }

    pub fn something_happens(&mut self) {
        match self.chance.below(100) {
            0..=9 if !self.finished => self.ask(),
            10..=11 => self.stop(),
            12 => self.owner_drops(),
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
            69 => self.step(Input::ClockStepped(ClockSteps { count: 1, moved_ns: -7 })),
            70 => self.recording_fails(),
            71..=75 => self.steers(),
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
            let (dir, matched) = (self.spool.get(id), self.matched.get(id).copied().unwrap_or(0));
            assert!(job.ledger.matched <= matched, "of {matched} packets some are counted twice: {job:?}");
            if self.dropped.contains(id) {
                assert!(job.status == Status::Failed || self.bucket.contains_key(id), "{job:?}");
                continue;
            }
            if let Some(manifest) = self.bucket.get(id) {
                assert_eq!((manifest.ledger, &manifest.objects), (job.ledger, &job.objects), "{job:?}");
            } else {
                assert_eq!(job.status, Status::Failed, "{job:?} without a manifest");
            }
            if dir.is_none() && job.ledger.captured > 0 {
                assert!(self.bucket.contains_key(id), "the packets of {job:?} are gone");
            }
        }
        self.shares_held();
        // Shutdown ends, and everything before it was answered.
        let reply = self.ask_for_shutdown();
        self.step(Input::Shutdown { reply });
        for _ in 0..1000 {
            self.workers_look();
            self.answer();
        }
        assert!(self.finished && self.asked.is_empty(), "{:?}", self.asked);
    }

    pub(super) fn now(&self) -> Now {
        Now { mono: self.mono, wall: Timestamp::from_second(self.wall_second).unwrap() }
    }

    pub(super) fn step(&mut self, input: Input) {
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
            self.shares_hold();
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

    pub(super) fn live(&self, serial: Serial) -> Counted {
        let totals = self.lives.get(&serial).map(|life| life.counts).unwrap_or_default();
        Counted { totals, ports: PortDrops::default() }
    }

    /// The life of an effect: it must not have ended.
    pub(super) fn life(&mut self, serial: Serial) -> &mut Life {
        let life = self.lives.get_mut(&serial).unwrap_or_else(|| panic!("{serial} was never begun"));
        assert!(!life.dropped, "an effect for {serial}, which is gone");
        life
    }

    pub(super) fn begin_life(&mut self, serial: Serial, job: &Job) {
        let adopted = self.machine.capture(serial).and_then(|capture| capture.adopted);
        let first = adopted.and_then(|adopted| adopted.share);
        let rights = first.map(|first| Rights { granted: first.packets, returned: 0 });
        if let Some(rights) = rights {
            self.rights.insert(job.id.clone(), rights);
        }
        let life = Life {
            id: job.id.clone(),
            account: job.request.account.0.clone(),
            is_full: job.request.kind == Kind::Full && adopted.is_none(),
            limit: Duration::from_secs_f64(job.request.time_limit),
            ends: adopted.map(|adopted| adopted.ends_at),
            rights,
            attached_at: None,
            slot: None,
            counts: SlotTotals { serial, ..SlotTotals::default() },
            lost_left: 0,
            streams_left: QUEUES,
            budget: None,
            delivers: false,
            recovers: false,
            delivered: false,
            given_up: false,
            needs_counts: job.request.format == Some(Container::PcapNg),
            in_dir: 0,
            released: false,
            dropped: false,
        };
        assert!(self.lives.insert(serial, life).is_none(), "serial {serial} is used twice");
    }

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
            account: AccountId(format!("a{}", self.chance.below(ACCOUNTS as u64))),
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
        if !looks_back && self.chance.permille(400) {
            return self.adopts(reply, id, Box::new(request));
        }
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

    pub(super) fn some_serial(&mut self, wanted: impl Fn(&Capture) -> bool) -> Option<Serial> {
        let serials: Vec<_> = self.machine.captures().filter(|c| wanted(c)).map(|c| c.serial).collect();
        let at = self.chance.below(serials.len() as u64);
        serials.get(usize::try_from(at).unwrap()).copied()
    }

    fn stop(&mut self) {
        if let Some(serial) = self.some_serial(Capture::is_accepted) {
            let reply = self.decides(serial, false);
            self.step(Input::Stop { serial, reply });
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
            *self.matched.entry(life.id.clone()).or_default() += taken;
            let captured = Self::of_share(life, taken);
            life.counts.captured += captured;
            life.counts.captured_bytes += captured * 100;
        }
        let share = SPOOL_BYTES / 2 + SPOOL_BYTES / 20;
        let held = |chance: &mut Chance| match self.is_calm {
            true => 0,
            false => chance.below(share),
        };
        let of_accounts: Held = (0..ACCOUNTS)
            .map(|n| (AccountId(format!("a{n}")), Holding::all(held(&mut self.chance))))
            .collect();
        self.held = of_accounts.iter().map(|(account, held)| (account.clone(), held.total)).collect();
        self.step(Input::Tick { held: self.held.values().sum(), of_accounts });
    }

    /// Somebody drops what a capture of theirs has on the host.
    fn owner_drops(&mut self) {
        self.owner_drops = true;
        let waiting = |capture: &Capture| capture.is_accepted() && !capture.takes_packets();
        if let Some(serial) = self.some_serial(waiting) {
            let reply = self.decides(serial, true);
            self.step(Input::GiveUp { serial, reply });
        } else if let Some(kept) = self.machine.kept.first().cloned() {
            self.last += 1;
            self.deciding.insert(self.last, (0, kept.id.clone(), true));
            self.step(Input::DropKept { account: kept.account, id: kept.id, reply: Some(self.last) });
        }
        self.owner_drops = false;
    }

    fn decides(&mut self, serial: Serial, is_drop: bool) -> Option<ReplyId> {
        self.last += 1;
        let id = self.machine.capture(serial).unwrap().job.id.clone();
        self.deciding.insert(self.last, (serial, id, is_drop));
        Some(self.last)
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

    pub(super) fn make_durable(&mut self, write: &Write) {
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
        let report = if life.given_up {
            life.delivered = true;
            Report::Delivered(Outcome::Failed(Words::alike("given up")))
        } else if may_leave {
            life.delivered = true;
            Report::Delivered(Outcome::Left)
        } else if fails {
            life.delivered = true;
            Report::Delivered(Outcome::Failed(Words::alike("no way")))
        } else if troubled {
            Report::Trouble(Words::alike("not now"), Duration::from_secs(1))
        } else if all_published && (!life.needs_counts || is_recovered) {
            let dir = self.spool.get_mut(&life.id).unwrap();
            if dir.packets > 0 {
                assert!(!self.promised.contains(&life.id), "{} is delivered, though dropped", life.id);
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

    pub(super) fn recover(&mut self, serial: Serial) {
        let life = self.lives.get_mut(&serial).unwrap();
        life.recovers = true;
        let dir = &self.spool[&life.id];
        let packets = dir.packets + dir.delivered.iter().map(|object| object.packets).sum::<u64>();
        let found = Found { objects: dir.delivered.clone(), packets, frame_bytes: packets * 100 };
        self.answers.push(Answer::Told(Input::Delivery { serial, report: Report::Recovered(found) }));
    }
}

pub(super) fn object(id: &CaptureId, packets: u64, number: usize) -> ObjectInfo {
    let name = format!("pcap_{id}_{number}");
    ObjectInfo {
        name,
        bytes: packets * 116,
        packets,
        frame_bytes: Some(packets * 100),
        ..ObjectInfo::default()
    }
}
