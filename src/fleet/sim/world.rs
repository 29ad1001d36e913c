//! A fleet in simulated time: nodes that run the core, the network between them, the store. Owns the order of events and carries
//! out effects; `check` says what must hold.
//!
//! Invariant: the same plan runs the same way, event by event.

mod apis;
mod hosts;

use super::check::Check;
use super::host::{Asked, Asker, SimHost};
use super::network::{Network, Place};
use super::plan::{ACCEPTED, MS, Mutant, Plan, SECOND, Time};
use super::store::{Store, Stream, name};
use crate::fleet::held::{Answer, Op, Revision};
use crate::fleet::lead::{self, Contender, Lead};
use crate::fleet::member::{self, Local};
use crate::fleet::record::{Job, Key, Record};
use crate::fleet::sample::{Chance, Dice};
use crate::fleet::shares::Report;
use crate::fleet::{Colo, Down, Epoch, Host, Now, Up, Window};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// UTC when the simulation begins.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// A store that has not answered by then is taken not to.
const ASK_TIME: Time = 2 * SECOND;

#[derive(Clone, Debug)]
pub enum Message {
    Ask { from: Place, id: u64, key: Key, op: Op<Record> },
    Answered { id: u64, answer: Answer<Record> },
    List { from: Place },
    Saw(Key, Revision, Record),
    Up { from: Host, up: Up },
    Report { colo: Colo, report: Report },
    Down(Down),
    Branch(Down),
    Beat { host: Host, has_part: bool },
}

#[derive(Clone, Debug)]
pub enum Event {
    Arrive(Place, Message),
    Timeout(Place, u64),
    Durable { from: Place, id: u64, key: Key, op: Op<Record> },
    Local(Host, Epoch, member::Input),
    Keep(Host, Epoch, Box<Local>),
    Detach(Host, Epoch),
    Deliver(Host, Epoch),
    Turn(Host),
    Beat(Host),
    Poll(Host),
    Tick(u32),
    List(u32),
    Published(u32, Epoch),
    Crash(Place),
    Back(Place),
    Accept,
    Stop,
    Purge(Key),
    Recreate(Stream),
    Forge(Host),
    NewDisk(Host),
}

pub struct Api {
    pub is_up: bool,
    boot: Epoch,
    contender: Contender,
    pub lead: Option<(Epoch, Lead)>,
    deposed: Epoch,
    asked: BTreeMap<u64, Asked>,
}

struct Queued(Time, u64, Event);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

pub struct World {
    pub plan: Plan,
    pub now: Time,
    queue: BinaryHeap<Reverse<Queued>>,
    count: u64,
    dice: Chance,
    network: Network,
    pub store: Store,
    pub hosts: Vec<SimHost>,
    pub apis: Vec<Api>,
    colos: Vec<Vec<Host>>,
    pub check: Check,
    first_job: Option<Job>,
    /// Messages and bytes by subject, where they are measured.
    pub subjects: BTreeMap<&'static str, (u64, u64)>,
    /// Messages by subject in their busiest second, and in this one.
    pub busiest: BTreeMap<&'static str, u64>,
    second: BTreeMap<&'static str, (Time, u64)>,
    pub published_at: Option<Time>,
    traces: bool,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let seed = plan.seed;
        let mut dice = Chance::new(&[seed, 5]);
        let colos = plan.latency.len();
        let mut by_colo = vec![Vec::new(); colos];
        let mut hosts = Vec::new();
        for (host, colo) in plan.hosts.iter().enumerate() {
            by_colo[*colo as usize].push(host as Host);
            hosts.push(SimHost::new(host as Host, *colo, dice.below(1000) < plan.refuse_permille));
        }
        let apis = (0..plan.apis).map(|api| Api::new(api, 1, &plan)).collect();
        let mut world = Self {
            check: Check::new(&plan),
            store: Store::new(seed),
            network: Network { dice: Chance::new(&[seed, 6]) },
            now: 0,
            queue: BinaryHeap::new(),
            count: 0,
            dice,
            hosts,
            apis,
            colos: by_colo,
            first_job: None,
            subjects: BTreeMap::new(),
            busiest: BTreeMap::new(),
            second: BTreeMap::new(),
            published_at: None,
            traces: std::env::var("TRAWL_FLEET_TRACE").is_ok(),
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() as Host {
            for event in [Event::Turn(host), Event::Beat(host), Event::Poll(host)] {
                let after = self.dice.below(SECOND);
                self.at(after, event);
            }
            if self.plan.lives {
                self.begin_life(host);
            } else {
                self.contend(host);
            }
        }
        for api in 0..self.plan.apis {
            let after = self.dice.below(SECOND);
            self.at(after, Event::Tick(api));
            self.at(after + SECOND, Event::List(api));
        }
        for crash in self.plan.crashes.clone() {
            self.at(crash.at, Event::Crash(crash.node));
            if let Some(back) = crash.back {
                self.at(back, Event::Back(crash.node));
            }
        }
        let plan = &self.plan;
        let purged = plan.purged.iter().map(|(at, key)| (*at, Event::Purge(*key)));
        let recreated = plan.recreated.iter().map(|(at, stream)| (*at, Event::Recreate(*stream)));
        let forged = plan.forged.iter().map(|(at, host)| (*at, Event::Forge(*host)));
        let new_disks = plan.new_disks.iter().map(|(at, host)| (*at, Event::NewDisk(*host)));
        let events: Vec<_> = purged.chain(recreated).chain(forged).chain(new_disks).collect();
        events.into_iter().for_each(|(at, event)| self.at(at, event));
        self.at(ACCEPTED, Event::Accept);
        if let Some(stop) = self.plan.stop_at {
            self.at(stop, Event::Stop);
        }
    }

    fn at(&mut self, at: Time, event: Event) {
        self.count += 1;
        self.queue.push(Reverse(Queued(at.max(self.now), self.count, event)));
    }

    fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    fn now_of(&self, node: Place) -> Now {
        let mono = Duration::from_micros(self.now);
        let off = self.plan.skew(node, self.now);
        let wall = EPOCH + mono;
        let step = Duration::from_micros(off.unsigned_abs());
        Now { mono, wall: if off < 0 { wall.saturating_sub(step) } else { wall + step } }
    }

    fn is_branched(&self) -> bool {
        self.plan.hosts.len() > self.plan.settings.branch_beyond
    }

    fn contend(&mut self, host: Host) {
        if self.is_branched() {
            let here = &mut self.hosts[host as usize];
            let rank = self.colos[here.colo as usize].iter().position(|member| *member == host).unwrap_or(0);
            let patience = Duration::from_secs(2 * rank as u64);
            here.contender = Some(Contender::new((host, here.boot), patience, self.plan.settings));
        }
    }

    /// Runs until everything is over, or what should be is not.
    pub fn run(&mut self) -> Result<(), String> {
        let end = self.plan.quiet_at.max(ACCEPTED + self.plan.window) + 240 * SECOND;
        while let Some(Reverse(Queued(at, _, event))) = self.queue.pop() {
            self.now = at;
            if at > end {
                return Err(format!("not over at {} s: {}", at / SECOND, self.picture()));
            }
            self.happen(event);
            if let Some(wrong) = self.check.wrong.take() {
                return Err(format!("at {} ms: {wrong}", at / MS));
            }
            if self.is_over() {
                return self.end();
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn picture(&self) -> String {
        let job = self.store.newest(Key::Job);
        let stages: Vec<_> = self.hosts.iter().map(|host| (host.is_up, host.member.as_ref())).collect();
        let apis: Vec<_> = self
            .apis
            .iter()
            .map(|api| (api.is_up, &api.contender, api.deposed, api.lead.as_ref().map(|l| l.0)))
            .collect();
        format!(
            "{job:?}\n{:?}\n{apis:?}\npool {:?}\n{stages:#?}",
            self.store.newest(Key::Lead),
            self.store.newest(Key::Pool)
        )
    }

    /// Of each host whose packets could be in the file: how many are, and how many it matched.
    pub fn chosen(&self) -> Vec<(u64, u64)> {
        let Some(Record::Job(job)) = self.store.newest(Key::Job) else { return Vec::new() };
        let chosen = self.check.chosen();
        let is_in = |host: &&SimHost| {
            job.hosts()[host.host as usize].verdict == Some(crate::fleet::record::Verdict::Delivered)
        };
        let of = |host: &SimHost| {
            (chosen.get(&host.host).copied().unwrap_or(0), host.offered.map_or(0, |all| all.packets))
        };
        self.hosts.iter().filter(is_in).map(of).collect()
    }

    fn is_over(&self) -> bool {
        let Some(Record::Job(job)) = self.store.newest(Key::Job) else { return false };
        if !job.phase.is_end() || self.now < self.plan.quiet_at {
            return false;
        }
        // Who is not told that nothing is asked any more, or is believed nothing, does not end.
        let is_told = !self.plan.loses(Stream::Assignments);
        let is_idle = |host: &SimHost| {
            let is_gone = host.member.as_ref().is_none_or(member::Member::is_gone);
            // One that waits for its number has still to say what its disk has.
            let is_gone = is_gone && (host.boot > 0 || host.disk.is_none());
            !host.is_up || is_gone || !is_told || self.plan.is_hostile(host.host)
        };
        self.hosts.iter().all(is_idle)
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Record::Job(job)) = self.store.newest(Key::Job).cloned() else {
            return Err("the accepted capture is not there".to_owned());
        };
        for host in &self.hosts {
            self.check.told(&self.plan, host, &self.store);
        }
        self.check.end(&self.plan, &job, &self.hosts, self.store.newest(Key::Pool))
    }

    fn target(event: &Event) -> Place {
        match event {
            Event::Arrive(place, _) | Event::Timeout(place, _) => *place,
            Event::Local(host, ..)
            | Event::Keep(host, ..)
            | Event::Detach(host, _)
            | Event::Deliver(host, _) => Place::Host(*host),
            Event::Turn(host) | Event::Beat(host) | Event::Poll(host) | Event::Forge(host) => {
                Place::Host(*host)
            }
            Event::Tick(api) | Event::List(api) | Event::Published(api, _) => Place::Api(*api),
            _ => Place::Store,
        }
    }

    fn happen(&mut self, event: Event) {
        let target = Self::target(&event);
        let now = self.now;
        let is_clockwork = matches!(
            event,
            Event::Turn(_) | Event::Beat(_) | Event::Poll(_) | Event::Tick(_) | Event::Timeout(..)
        );
        if self.traces && !is_clockwork {
            println!("{} {event:?}", now / MS);
        }
        let pause = self
            .plan
            .pauses
            .iter()
            .find(|pause| pause.node == target && pause.at <= now && now < pause.until);
        if let Some(pause) = pause {
            // It goes on where it stopped, with all that came meanwhile.
            let until = pause.until;
            return self.at(until, event);
        }
        match event {
            Event::Arrive(Place::Host(host), message) => self.host_hears(host, message),
            Event::Arrive(Place::Api(api), message) => self.api_hears(api, message),
            Event::Arrive(_, message) => self.store_hears(message),
            Event::Timeout(node, id) => self.answer(node, id, None),
            Event::Durable { from, id, key, op } => self.durable(from, id, key, op),
            Event::Local(host, boot, input) => {
                if self.hosts[host as usize].boot == boot && self.hosts[host as usize].is_up {
                    self.member(host, input);
                }
            }
            Event::Keep(host, boot, local) => self.keep(host, boot, *local),
            Event::Detach(host, boot) => self.detach(host, boot),
            Event::Deliver(host, boot) => self.deliver(host, boot),
            Event::Turn(host) => self.turn(host),
            Event::Beat(host) => self.beat(host),
            Event::Poll(host) => self.poll(host),
            Event::Tick(api) => self.tick(api),
            Event::List(api) => {
                self.after(10 * SECOND, event);
                let from = Place::Api(api);
                if self.apis[api as usize].is_up {
                    self.send(from, Place::Store, Message::List { from });
                }
            }
            Event::Published(api, epoch) => {
                if self.apis[api as usize].lead.as_ref().is_some_and(|(at, _)| *at == epoch) {
                    self.lead(api, lead::Input::Published);
                }
            }
            Event::Crash(node) => self.crash(node),
            Event::Back(node) => self.back(node),
            Event::Purge(key) => self.store.purge(key, self.now),
            Event::Recreate(stream) => self.store.recreate(stream),
            Event::Forge(host) => self.forge(host),
            Event::NewDisk(host) => self.new_disk(host),
            Event::Accept => self.accept(),
            Event::Stop => self.stop(),
        }
    }

    // ---- network

    fn send(&mut self, from: Place, to: Place, message: Message) {
        if self.plan.measures && self.now >= ACCEPTED {
            let (subject, bytes) = measure(&message);
            let counted = self.subjects.entry(subject).or_default();
            counted.0 += 1;
            counted.1 += bytes;
            if subject == "store: write" {
                self.store.largest = self.store.largest.max(bytes);
            }
            let second = self.second.entry(subject).or_default();
            let this = self.now / SECOND;
            *second = if second.0 == this { (this, second.1 + 1) } else { (this, 1) };
            let busiest = self.busiest.entry(subject).or_default();
            *busiest = second.1.max(*busiest);
        }
        for at in self.network.send(&self.plan, from, to, self.now) {
            self.at(at, Event::Arrive(to, message.clone()));
        }
    }

    /// To a node that listens on the lead's subject.
    fn tell_lead(&mut self, from: Place, message: &Message) {
        for api in 0..self.apis.len() as u32 {
            if self.apis[api as usize].lead.is_some() {
                self.send(from, Place::Api(api), message.clone());
            }
        }
    }

    fn tell_branch(&mut self, from: Place, colo: Colo, message: &Message) {
        let holding: Vec<Host> = self.colos[colo as usize]
            .iter()
            .copied()
            .filter(|host| self.hosts[*host as usize].branch.is_some())
            .collect();
        for host in holding {
            self.send(from, Place::Host(host), message.clone());
        }
    }

    fn ask(&mut self, from: Place, by: Asker, key: Key, op: Op<Record>) {
        self.count += 1;
        let id = self.count;
        let asked = Asked { by, key, is_write: matches!(op, Op::Write { .. }) };
        match from {
            Place::Api(api) => self.apis[api as usize].asked.insert(id, asked),
            Place::Host(host) => self.hosts[host as usize].asked.insert(id, asked),
            _ => None,
        };
        self.after(ASK_TIME, Event::Timeout(from, id));
        self.send(from, Place::Store, Message::Ask { from, id, key, op });
    }

    // ---- store

    fn store_hears(&mut self, message: Message) {
        let is_away = Store::is_away(&self.plan, self.now);
        match message {
            Message::Ask { from, id, key, op } => {
                if is_away {
                    // Some server says that it has no leader, or nobody says anything.
                    if id.is_multiple_of(2) {
                        let answer = Answer::Unavailable;
                        self.send(Place::Store, from, Message::Answered { id, answer });
                    }
                } else if let Op::Write { .. } = op {
                    let at = self.store.durable_at(&self.plan, self.now);
                    self.at(at, Event::Durable { from, id, key, op });
                } else {
                    let (revision, record) = self.store.read(&self.plan, key, self.now);
                    let answer = Answer::Read(revision, record);
                    self.send(Place::Store, from, Message::Answered { id, answer });
                }
            }
            Message::List { from } if !is_away => {
                for (key, revision, record) in self.store.parts(&self.plan, self.now) {
                    self.send(Place::Store, from, Message::Saw(key, revision, record));
                }
            }
            _ => {}
        }
    }

    fn durable(&mut self, from: Place, id: u64, key: Key, op: Op<Record>) {
        let (answer, before) = self.store.write(&self.plan, key, op, self.now);
        if let Answer::Wrote(revision) = answer
            && let Some(after) = self.store.newest(key).cloned()
        {
            self.check.wrote(&self.plan, key, before.as_ref(), &after, &self.store, self.now);
            self.watch(key, revision, &after);
        }
        if !self.store.loses_answer(&self.plan, self.now) {
            self.send(Place::Store, from, Message::Answered { id, answer });
        }
    }

    /// What is stored is told to those who watch it.
    fn watch(&mut self, key: Key, revision: Revision, record: &Record) {
        let told = Message::Saw(key, revision, record.clone());
        match key {
            Key::Job | Key::Part(_) | Key::Parts(_) => {
                (0..self.plan.apis).for_each(|api| self.send(Place::Store, Place::Api(api), told.clone()));
            }
            Key::Assignment(colo) => {
                for host in self.colos[colo as usize].clone() {
                    self.send(Place::Store, Place::Host(host), told.clone());
                }
            }
            _ => {}
        }
    }

    fn accept(&mut self) {
        let start = EPOCH + Duration::from_micros(self.now);
        let window = Window { start, end: start + Duration::from_micros(self.plan.window) };
        let job = Job::accepted(self.plan.kind, window, self.plan.seed);
        self.first_job = Some(job.clone());
        self.front(job);
    }

    /// The front's own compare-and-set, tried until it succeeds.
    fn front(&mut self, job: Job) {
        let expected = self.store.revision(Key::Job);
        let op = Op::Write { expected, value: job.into() };
        self.durable(Place::Api(0), 0, Key::Job, op);
    }

    fn stop(&mut self) {
        match (self.plan.mutant, self.store.newest(Key::Job).cloned()) {
            (Mutant::FrontWritesOldJobs, _) => {
                if let Some(job) = self.first_job.clone() {
                    self.front(Job { is_stopped: true, ..job });
                }
            }
            (_, Some(Record::Job(job))) if !job.phase.is_end() => self.front(Job { is_stopped: true, ..job }),
            _ => {}
        }
    }

    // ---- answers

    fn answer(&mut self, node: Place, id: u64, answer: Option<Answer<Record>>) {
        let asked = match node {
            Place::Api(api) => self.apis[api as usize].asked.remove(&id),
            Place::Host(host) => self.hosts[host as usize].asked.remove(&id),
            _ => None,
        };
        let Some(asked) = asked else { return };
        let none = if asked.is_write { Answer::Uncertain } else { Answer::Unavailable };
        let answer = answer.unwrap_or(none);
        let now = self.now_of(node);
        match (node, asked.by) {
            (Place::Api(api), Asker::Claim) => self.apis[api as usize].contender.answered(answer, now),
            (Place::Api(api), _) => self.lead(api, lead::Input::Stored(asked.key, answer)),
            (Place::Host(host), Asker::Member) => {
                self.member(host, member::Input::Stored(asked.key, answer));
            }
            (Place::Host(host), Asker::Life) => self.life_answered(host, answer, now),
            (Place::Host(host), Asker::Claim) => {
                if let Some(contender) = &mut self.hosts[host as usize].contender {
                    contender.answered(answer, now);
                }
            }
            (Place::Host(host), Asker::Branch) => {
                let branch = self.hosts[host as usize].branch.as_mut();
                let outputs = branch.map_or(Vec::new(), |(_, branch)| branch.stored(asked.key, answer, now));
                self.branch_outputs(host, outputs);
            }
            (Place::Host(host), _) => {
                if let Answer::Read(_, Some(Record::Assignment(assignment))) = answer {
                    self.assigned(host, assignment);
                }
            }
            _ => {}
        }
    }
}

impl Api {
    fn new(api: u32, boot: Epoch, plan: &Plan) -> Self {
        let patience = Duration::from_millis(500 * u64::from(api));
        Self {
            is_up: true,
            boot,
            contender: Contender::new((api, boot), patience, plan.settings),
            lead: None,
            deposed: 0,
            asked: BTreeMap::new(),
        }
    }
}

/// What is written on the wire, about: JSON of the core's own types.
fn measure(message: &Message) -> (&'static str, u64) {
    fn bytes(value: &impl serde::Serialize) -> u64 {
        serde_json::to_vec(value).map_or(0, |json| json.len() as u64)
    }
    match message {
        Message::Ask { op: Op::Read, .. } => ("store: read", 60),
        Message::Ask { op: Op::Write { value, .. }, .. } => ("store: write", bytes(value)),
        Message::Answered { answer: Answer::Read(_, Some(record)), .. } => {
            ("store: answer to a read", bytes(record))
        }
        Message::Answered { .. } => ("store: answer", 80),
        Message::List { .. } => ("store: list", 60),
        Message::Saw(key, _, record) => (
            match name(*key) {
                "assignment" => "assign (republished)",
                "job" => "watch: job",
                _ => "watch: parts",
            },
            bytes(record),
        ),
        Message::Up { up: Up::Share(report), .. } => ("share (host)", bytes(report)),
        Message::Up { up: Up::Part(part), .. } => ("part (host to branch)", bytes(part)),
        Message::Report { report, .. } => ("share (branch)", bytes(report)),
        Message::Down(down) => ("down (to host)", bytes(down)),
        Message::Branch(down) => ("down (to branch)", bytes(down)),
        Message::Beat { .. } => ("heartbeat", 200),
    }
}

/// Frames that found no share so far.
fn here_missed(host: &SimHost) -> u64 {
    host.plane.offered.packets - host.plane.used.packets
}
