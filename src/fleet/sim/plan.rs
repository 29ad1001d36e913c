//! What a simulated fleet is and what befalls it, all of it by one seed. Owns the choice; `world` lets it happen.
//!
//! Invariant: after `quiet_at` nothing fails any more but hosts that are gone for good, so what does not end then never would.

use super::network::{Cut, Place};
use super::store::{Stream, stream};
use crate::fleet::record::Key;
use crate::fleet::sample::{Chance, Dice};
use crate::fleet::settings::Settings;
use crate::fleet::shares::Amount;
use crate::fleet::{Colo, Kind};

/// Microseconds of simulated time.
pub type Time = u64;
pub const MS: Time = 1000;
pub const SECOND: Time = 1_000_000;

/// In plans of seeds from here on, hosts take their numbers from the registry. Those below run as they did before that was simulated,
/// so that a seed that once failed is the same run.
pub const LIVES_FROM: u64 = 1 << 20;

/// When the capture is accepted: leads are there by then, or not, as it happens.
pub const ACCEPTED: Time = 15 * SECOND;

/// A deliberate fault of the world around the core, for the checker to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// Compare-and-set does not compare.
    StoreIgnoresRevisions,
    /// The lead is told that its limit's record is durable before it is.
    TellsBeforeItIsDurable,
    /// A budget is not lowered by what is told to be returned.
    KeepsWhatItReturns,
    /// A restarted host does not know that it accepted.
    ForgetsThatItAccepted,
    /// A grant that comes twice counts twice.
    GrantsAddUp,
    /// A host that is silent for five seconds is taken to have returned everything.
    SilenceIsAReturn,
    /// A recall is answered, and nothing is given back.
    AnswersWithoutReturning,
    /// Hosts that are down are no members.
    OnlyTheLivingAreMembers,
    /// Each lead publishes an outcome of its own.
    PublishesAgain,
    /// The front writes the job as it knew it.
    FrontWritesOldJobs,
    /// A host counts one packet more than it has.
    CountsOneMore,
    /// A host gives a packet twice.
    GivesAPacketTwice,
    /// A host gives more than its quota.
    GivesOneMore,
    /// An acknowledged write is not there after an election.
    StoreForgetsWrites,
    /// Nobody tells that a delivery is done.
    NeverTellsOfDelivery,
    /// A host that refused does not know that after a restart.
    RefusalsAreNotKept,
    /// A host captures before it is on its disk that it accepted.
    AttachesBeforeItIsKept,
}

/// A node that stops, and when it is back.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    pub node: Place,
    pub at: Time,
    /// None: gone for good.
    pub back: Option<Time>,
}

/// A node that stands still with all its memory, and goes on.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    pub node: Place,
    pub at: Time,
    pub until: Time,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub settings: Settings,
    /// Data center of each host.
    pub hosts: Vec<Colo>,
    pub apis: u32,
    pub kind: Kind,
    pub window: Time,
    pub stop_at: Option<Time>,
    /// Matching packets a second of each host, and how much that jumps about.
    pub rates: Vec<f64>,
    pub jumps: bool,
    pub frames: Vec<u64>,
    pub skews: Vec<i64>,
    /// One way, between data centers.
    pub latency: Vec<Vec<Time>>,
    pub jitter: Time,
    pub loss_permille: u64,
    pub duplicate_permille: u64,
    pub spike_permille: u64,
    pub spike_max: Time,
    pub cuts: Vec<Cut>,
    pub crashes: Vec<Crash>,
    pub pauses: Vec<Pause>,
    pub elections: Vec<(Time, Time)>,
    pub stale_permille: u64,
    pub lost_answer_permille: u64,
    pub refuse_permille: u64,
    /// Hosts that refuse do so until then, by a fault that is mended.
    pub refuse_until: Time,
    /// Hosts that are taken out of the registry.
    pub retired: Vec<(Time, u32)>,
    /// Hosts that are registered later, in this data center.
    pub registered: Vec<(Time, Colo)>,
    /// Records that somebody removes, and streams that somebody removes and creates again.
    pub purged: Vec<(Time, Key)>,
    pub recreated: Vec<(Time, Stream)>,
    /// Each life of a host takes its number from the registry before it does anything.
    pub lives: bool,
    /// Hosts that write what is not true from then on.
    pub forged: Vec<(Time, u32)>,
    /// Hosts whose disk is replaced by an empty one.
    pub new_disks: Vec<(Time, u32)>,
    /// Spans in which a host can write, attach and deliver nothing.
    pub ails: Vec<(Time, Time, u32)>,
    /// How long a host's disk needs.
    pub keep_max: Time,
    /// Steps of a node's wall clock, in microseconds.
    pub steps: Vec<(Time, Place, i64)>,
    /// What the store needs for one durable write.
    pub write_time: Time,
    pub turn: Time,
    pub delivery_max: Time,
    pub quiet_at: Time,
    pub mutant: Mutant,
    pub measures: bool,
}

fn latencies(dice: &mut Chance, colos: usize, most: Time) -> Vec<Vec<Time>> {
    let mut latency = vec![vec![200; colos]; colos];
    for (one, other) in (0..colos).flat_map(|one| (0..one).map(move |other| (one, other))) {
        let between = MS + dice.below(most);
        latency[one][other] = between;
        latency[other][one] = between + dice.below(5 * MS);
    }
    latency
}

/// A rate by its logarithm: from nothing to some thousands a second.
fn rate(dice: &mut Chance, least: f64, decades: f64) -> f64 {
    least * 10f64.powf(decades * dice.below(1 << 20) as f64 / f64::from(1 << 20))
}

/// One host of five sees nothing; in one fleet of four the others see a packet every few seconds.
fn rates(dice: &mut Chance, hosts: usize) -> Vec<f64> {
    let (least, decades) = if dice.below(4) == 0 { (0.1, 1.7) } else { (5.0, 2.5) };
    (0..hosts).map(|_| if dice.below(5) == 0 { 0.0 } else { rate(dice, least, decades) }).collect()
}

impl Plan {
    /// A small fleet with everything that can happen to it.
    pub fn by_chance(seed: u64) -> Self {
        let mut dice = Chance::new(&[seed, 1]);
        let mut plan = Self::calm(seed, &mut dice);
        // One of four fleets has nothing but a lossy network.
        if dice.below(4) > 0 {
            plan.befall(&mut dice);
        }
        let mut dice = Chance::new(&[seed, 8]);
        if !plan.is_calm() && dice.below(3) == 0 {
            plan.lose(&mut dice);
        }
        let mut dice = Chance::new(&[seed, 7]);
        if dice.below(10) == 0 {
            plan.slow(&mut dice);
        } else if !plan.is_calm() {
            plan.change(&mut dice);
        }
        plan
    }

    fn calm(seed: u64, dice: &mut Chance) -> Self {
        let count = 1 + dice.below(9) as usize;
        let colos = 1 + dice.below(4);
        let hosts: Vec<Colo> = (0..count).map(|_| dice.below(colos) as Colo).collect();
        let is_branched = dice.below(3) == 0;
        let settings = Settings {
            branch_beyond: if is_branched { 0 } else { usize::MAX },
            heartbeat: std::time::Duration::from_millis(1000 + dice.below(2000)),
            delivery: std::time::Duration::from_secs(200),
            chunk: [200, 4096][dice.below(2) as usize],
            chunk_branched: [2, 16][dice.below(2) as usize],
            ..Settings::default()
        };
        let window = 3 * SECOND + dice.below(25 * SECOND);
        let frames = (0..count).map(|_| [60, 150, 594, 1514][dice.below(4) as usize]).collect();
        let stop_at = (dice.below(5) == 0).then(|| ACCEPTED + dice.below(window));
        Self {
            seed,
            settings,
            kind: kind(dice),
            apis: 1 + dice.below(3) as u32,
            rates: rates(dice, count),
            jumps: dice.below(2) == 0,
            frames,
            skews: (0..count).map(|_| dice.below(200) as i64 * 1000 - 100_000).collect(),
            latency: latencies(dice, colos as usize, 80 * MS),
            hosts,
            jitter: dice.below(20 * MS),
            loss_permille: [0, 0, 10, 100][dice.below(4) as usize],
            duplicate_permille: dice.below(100),
            spike_permille: dice.below(5),
            spike_max: 60 * SECOND,
            cuts: Vec::new(),
            crashes: Vec::new(),
            pauses: Vec::new(),
            elections: Vec::new(),
            stale_permille: dice.below(200),
            lost_answer_permille: dice.below(50),
            refuse_permille: 0,
            refuse_until: Time::MAX,
            retired: Vec::new(),
            registered: Vec::new(),
            purged: Vec::new(),
            recreated: Vec::new(),
            lives: seed >= LIVES_FROM,
            forged: Vec::new(),
            new_disks: Vec::new(),
            ails: Vec::new(),
            keep_max: dice.below(100 * MS),
            steps: Vec::new(),
            write_time: 400,
            turn: (10 + dice.below(60)) * MS,
            delivery_max: 5 * SECOND,
            window,
            stop_at,
            quiet_at: ACCEPTED + window + 40 * SECOND,
            mutant: Mutant::None,
            measures: false,
        }
    }

    fn befall(&mut self, dice: &mut Chance) {
        let end = self.quiet_at;
        let place = |dice: &mut Chance, plan: &Self| match dice.below(5) {
            0 | 1 => Place::Api(dice.below(u64::from(plan.apis)) as u32),
            2 => Place::Colo(dice.below(plan.latency.len() as u64) as Colo),
            _ => Place::Host(dice.below(plan.hosts.len() as u64) as u32),
        };
        let span = |dice: &mut Chance, most: Time| {
            let from = 5 * SECOND + dice.below(end - 10 * SECOND);
            (from, (from + 100 * MS + dice.below(most)).min(end))
        };
        for _ in 0..dice.below(4) {
            let (from, until) = span(dice, 60 * SECOND);
            let a = place(dice, self);
            let b = if dice.below(2) == 0 { Place::All } else { place(dice, self) };
            let (a, b) = if dice.below(2) == 0 { (a, b) } else { (b, a) };
            let is_one_way = dice.below(2) == 0;
            self.cuts.push(Cut { from: a, to: b, start: from, end: until });
            if !is_one_way {
                self.cuts.push(Cut { from: b, to: a, start: from, end: until });
            }
        }
        for _ in 0..dice.below(4) {
            let (at, back) = span(dice, 30 * SECOND);
            let node = match place(dice, self) {
                Place::Colo(_) | Place::All | Place::Store => Place::Host(0),
                node => node,
            };
            let is_gone = matches!(node, Place::Host(_)) && dice.below(3) == 0;
            self.crashes.push(Crash { node, at, back: (!is_gone).then_some(back) });
        }
        for _ in 0..dice.below(3) {
            let (at, until) = span(dice, 60 * SECOND);
            let node = match place(dice, self) {
                Place::Colo(_) | Place::All | Place::Store => Place::Api(0),
                node => node,
            };
            self.pauses.push(Pause { node, at, until });
        }
        for _ in 0..dice.below(4) {
            self.elections.push(span(dice, 8 * SECOND));
        }
        self.refuse_permille = [0, 0, 200][dice.below(3) as usize];
    }

    /// Nothing but the network is at fault.
    pub fn is_calm(&self) -> bool {
        let is_up = self.crashes.is_empty() && self.pauses.is_empty() && self.elections.is_empty();
        let is_whole = self.purged.is_empty() && self.recreated.is_empty() && self.new_disks.is_empty();
        let is_honest = self.forged.is_empty();
        is_up
            && is_whole
            && is_honest
            && self.cuts.is_empty()
            && self.steps.is_empty()
            && self.ails.is_empty()
    }

    /// What the store or a host loses for good, and a host that lies.
    fn lose(&mut self, dice: &mut Chance) {
        let hosts = self.hosts.len() as u64;
        let until = self.window + 20 * SECOND;
        let at = |dice: &mut Chance| ACCEPTED + dice.below(until);
        for _ in 0..dice.below(3) {
            let colo = dice.below(self.latency.len() as u64) as Colo;
            let host = dice.below(hosts) as u32;
            let key = match dice.below(8) {
                0 | 1 => Key::Pool,
                2 => Key::Shares(colo),
                3 => Key::Assignment(colo),
                4 => Key::Part(host),
                5 => Key::Parts(colo),
                6 => Key::Branch(colo),
                _ => Key::Lead,
            };
            self.purged.push((at(dice), key));
        }
        if dice.below(2) == 0 {
            let streams = [Stream::Claims, Stream::Shares, Stream::Assignments, Stream::Parts];
            self.recreated.push((at(dice), streams[dice.below(4) as usize]));
        }
        if dice.below(3) == 0 {
            self.new_disks.push((at(dice), dice.below(hosts) as u32));
        }
        if dice.below(3) == 0 {
            self.forged.push((at(dice), dice.below(hosts) as u32));
        }
    }

    /// Whether a stream loses something.
    pub fn loses(&self, lost: Stream) -> bool {
        self.recreated.iter().any(|(_, of)| *of == lost)
            || self.purged.iter().any(|(_, key)| stream(*key) == lost)
    }

    pub fn is_hostile(&self, host: u32) -> bool {
        self.forged.iter().any(|(_, forging)| *forging == host)
    }

    /// A small limit and a packet every few seconds.
    fn slow(&mut self, dice: &mut Chance) {
        let packets = 5 + dice.below(40);
        self.kind = Kind::Full { limit: Some(Amount::limit(Some(packets), None)) };
        self.rates = (0..self.hosts.len()).map(|_| rate(dice, 0.1, 1.7)).collect();
        (self.cuts, self.crashes, self.pauses, self.elections) = Default::default();
        (self.purged, self.recreated, self.forged, self.new_disks) = Default::default();
        self.jumps = false;
        self.stop_at = None;
        self.window = 90 * SECOND;
        self.turn = self.turn.max(40 * MS);
        self.quiet_at = self.quiet_at.max(ACCEPTED + self.window + 20 * SECOND);
    }

    /// What changes beside the faults of nodes and network: the registry, clocks, a host that is mended.
    fn change(&mut self, dice: &mut Chance) {
        let hosts = self.hosts.len() as u64;
        for _ in 0..dice.below(3) {
            let at = ACCEPTED + dice.below(self.window);
            if dice.below(2) == 0 {
                self.retired.push((at, dice.below(hosts) as u32));
            } else {
                self.registered.push((at, dice.below(self.latency.len() as u64) as Colo));
            }
        }
        if dice.below(2) == 0 {
            self.refuse_until = ACCEPTED + dice.below(self.window);
        }
        if dice.below(4) == 0 {
            let from = dice.below(ACCEPTED + self.window + 10 * SECOND);
            let until = (from + dice.below(30 * SECOND)).min(self.quiet_at);
            self.ails.push((from, until, dice.below(hosts) as u32));
        }
        for _ in 0..dice.below(3) {
            let place = Place::Host(dice.below(hosts) as u32);
            let most = 7200 * SECOND;
            let step = dice.below(2 * most) as i64 - most as i64;
            self.steps.push((dice.below(ACCEPTED + self.window), place, step));
        }
    }

    pub fn is_ailing(&self, host: u32, now: Time) -> bool {
        self.ails.iter().any(|(from, until, ailing)| *ailing == host && *from <= now && now < *until)
    }

    /// By how much the wall clock of a node is off.
    pub fn skew(&self, node: Place, now: Time) -> i64 {
        let skew = if let Place::Host(host) = node { self.skews[host as usize] } else { 0 };
        let steps = self.steps.iter().filter(|(at, place, _)| *place == node && *at <= now);
        skew + steps.map(|(.., step)| step).sum::<i64>()
    }

    /// A large fleet in a calm network, to be measured.
    pub fn large(hosts: usize, colos: usize, kind: Kind, seed: u64) -> Self {
        let mut dice = Chance::new(&[seed, 2]);
        let mut plan = Self::calm(seed, &mut dice);
        plan.settings = Settings::default();
        plan.hosts = (0..hosts).map(|host| (host % colos) as Colo).collect();
        plan.apis = 3;
        plan.kind = kind;
        plan.window = 60 * SECOND;
        plan.stop_at = None;
        plan.jumps = true;
        plan.rates = (0..hosts).map(|_| log_normal(&mut dice, 300.0, 1.5)).collect();
        plan.frames = (0..hosts).map(|_| [60, 150, 594, 1514][dice.below(4) as usize]).collect();
        plan.skews = (0..hosts).map(|_| dice.below(20) as i64 * 1000 - 10_000).collect();
        plan.latency = latencies(&mut dice, colos, 120 * MS);
        plan.jitter = 5 * MS;
        plan.loss_permille = 1;
        plan.duplicate_permille = 1;
        plan.spike_permille = 0;
        plan.stale_permille = 10;
        plan.lost_answer_permille = 1;
        plan.turn = 50 * MS;
        plan.quiet_at = ACCEPTED + plan.window + 30 * SECOND;
        plan.measures = true;
        plan
    }

    /// So many hosts are gone for good in the middle of the window.
    pub fn losing(mut self, percent: usize) -> Self {
        let mut dice = Chance::new(&[self.seed, 3]);
        let lost = (self.hosts.len() * percent).div_ceil(100);
        for host in crate::fleet::sample::choose(&mut dice, self.hosts.len() as u64, lost as u64) {
            let at = ACCEPTED + 2 * SECOND + dice.below(self.window / 2);
            self.crashes.push(Crash { node: Place::Host(host as u32), at, back: None });
        }
        self
    }

    pub fn limit(&self) -> Option<Amount> {
        if let Kind::Full { limit } = self.kind { limit } else { None }
    }
}

fn kind(dice: &mut Chance) -> Kind {
    let packets = [1, 7, 100, 1000, 5000][dice.below(5) as usize] + dice.below(10);
    let bytes = packets * (60 + dice.below(1000));
    match dice.below(8) {
        0 | 1 => Kind::Simple { packets, one_in: [1, 1, 10][dice.below(3) as usize] },
        2 => Kind::Full { limit: None },
        3 => Kind::Full { limit: Some(Amount::limit(None, Some(bytes))) },
        4 => Kind::Full { limit: Some(Amount::limit(Some(packets), Some(bytes))) },
        _ => Kind::Full { limit: Some(Amount::limit(Some(packets), None)) },
    }
}

/// By Box and Muller.
fn log_normal(dice: &mut Chance, median: f64, sigma: f64) -> f64 {
    let mut unit = || (dice.below(1 << 53) as f64 + 1.0) / (1u64 << 53) as f64;
    let normal = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
    median * (sigma * normal).exp()
}
