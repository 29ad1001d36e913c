//! A fleet in simulated time: nodes that run the core, the network between them, the store. Owns the order of events and carries
//! out effects; `check` says what must hold.
//!
//! Invariant: the same plan runs the same way, event by event.

use super::check::Check;
use super::host::{Asked, Asker, SimHost};
use super::network::{Network, Place};
use super::plan::{ACCEPTED, MS, Mutant, Plan, SECOND, Time};
use super::store::{Store, name};
use crate::fleet::held::{Answer, Op};
use crate::fleet::lead::{self, Contender, Lead};
use crate::fleet::member;
use crate::fleet::record::{Assignment, Job, Key, Outcome, Phase, Record};
use crate::fleet::sample::{Chance, Dice, Packet};
use crate::fleet::shares::Report;
use crate::fleet::{Colo, Down, Host, Now, Up, Window};
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
    Saw(Key, u64, Record),
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
    Local(Host, u64, member::Input),
    Detach(Host, u64),
    Deliver(Host, u64),
    Turn(Host),
    Beat(Host),
    Poll(Host),
    Tick(u32),
    List(u32),
    Published(u32, u64),
    Crash(Place),
    Back(Place),
    Accept,
    Stop,
}

pub struct Api {
    pub is_up: bool,
    boot: u64,
    contender: Contender,
    pub lead: Option<(u64, Lead)>,
    deposed: u64,
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
            self.contend(host);
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
        let skew = match node {
            Place::Host(host) => self.plan.skews[host as usize],
            _ => 0,
        };
        let wall = Duration::from_micros((self.now as i64 + skew).max(0) as u64);
        Now { mono, wall: EPOCH + wall }
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
        let apis: Vec<_> = self.apis.iter().map(|api| (api.is_up, &api.contender, api.deposed, api.lead.as_ref().map(|l| l.0))).collect();
        format!("{job:?}\n{:?}\n{apis:?}\npool {:?}\n{stages:#?}", self.store.newest(Key::Lead), self.store.newest(Key::Pool))
    }

    fn is_over(&self) -> bool {
        let Some(Record::Job(job)) = self.store.newest(Key::Job) else { return false };
        if !job.phase.is_end() || self.now < self.plan.quiet_at {
            return false;
        }
        let is_idle = |host: &SimHost| !host.is_up || host.member.as_ref().is_none_or(member::Member::is_gone);
        self.hosts.iter().all(is_idle)
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Record::Job(job)) = self.store.newest(Key::Job).cloned() else {
            return Err("the accepted capture is not there".to_owned());
        };
        self.check.end(&self.plan, &job, &self.hosts, self.store.newest(Key::Pool))
    }

    fn target(event: &Event) -> Place {
        match event {
            Event::Arrive(place, _) | Event::Timeout(place, _) => *place,
            Event::Local(host, ..) | Event::Detach(host, _) | Event::Deliver(host, _) => Place::Host(*host),
            Event::Turn(host) | Event::Beat(host) | Event::Poll(host) => Place::Host(*host),
            Event::Tick(api) | Event::List(api) | Event::Published(api, _) => Place::Api(*api),
            _ => Place::Store,
        }
    }

    fn happen(&mut self, event: Event) {
        let target = Self::target(&event);
        let now = self.now;
        let pause = self.plan.pauses.iter().find(|pause| pause.node == target && pause.at <= now && now < pause.until);
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

    /// To whoever listens on the lead's subject.
    fn to_lead(&mut self, from: Place, message: &Message) {
        for api in 0..self.apis.len() as u32 {
            if self.apis[api as usize].lead.is_some() {
                self.send(from, Place::Api(api), message.clone());
            }
        }
    }

    fn to_branch(&mut self, from: Place, colo: Colo, message: &Message) {
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
                    let answer = Answer::Read(self.store.read(&self.plan, key, self.now));
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
    fn watch(&mut self, key: Key, revision: u64, record: &Record) {
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
        let job = Job {
            epoch: 0,
            kind: self.plan.kind,
            window: Window { start, end: start + Duration::from_micros(self.plan.window) },
            seed: self.plan.seed,
            is_stopped: false,
            phase: Phase::Pending,
            members: Vec::new(),
            is_branched: false,
            quotas: None,
            outcome: None,
        };
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
            (Place::Host(host), Asker::Member) => self.member(host, member::Input::Stored(answer)),
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
                if let Answer::Read(Some((_, Record::Assignment(assignment)))) = answer {
                    self.assigned(host, assignment);
                }
            }
            _ => {}
        }
    }

    // ---- hosts

    fn host_hears(&mut self, host: Host, message: Message) {
        if !self.hosts[host as usize].is_up {
            return;
        }
        let now = self.now_of(Place::Host(host));
        match message {
            Message::Answered { id, answer } => self.answer(Place::Host(host), id, Some(answer)),
            Message::Saw(_, _, Record::Assignment(assignment)) => self.assigned(host, assignment),
            Message::Down(down) => self.member(host, member::Input::Told(down)),
            Message::Branch(down) => {
                if let Some((_, branch)) = &mut self.hosts[host as usize].branch {
                    branch.from_above(down, now);
                }
            }
            Message::Up { from, up } => {
                let branch = self.hosts[host as usize].branch.as_mut();
                let outputs = branch.map_or(Vec::new(), |(_, branch)| branch.told(from, up, now));
                self.branch_outputs(host, outputs);
            }
            _ => {}
        }
    }

    fn assigned(&mut self, host: Host, assignment: Assignment) {
        let now = self.now_of(Place::Host(host));
        let here = &mut self.hosts[host as usize];
        if here.seen.as_ref().is_none_or(|seen| seen.serial < assignment.serial) {
            here.seen = Some(assignment.clone());
        }
        if here.member.is_some() {
            return self.member(host, member::Input::Assigned(assignment));
        }
        if here.disk.is_some() {
            return;
        }
        let settings = self.plan.settings;
        if here.refuses {
            here.member = member::Member::refused(assignment, host, here.boot, settings, now);
            return self.member(host, member::Input::Tick);
        }
        if let Some((member, effects)) = member::Member::accept(assignment, host, here.boot, settings, now) {
            here.member = Some(member);
            self.member_effects(host, effects);
        }
    }

    fn member(&mut self, host: Host, input: member::Input) {
        let now = self.now_of(Place::Host(host));
        let Some(member) = &mut self.hosts[host as usize].member else { return };
        let effects = member.step(input, now);
        self.member_effects(host, effects);
    }

    fn member_effects(&mut self, host: Host, effects: Vec<member::Effect>) {
        for effect in effects {
            self.member_effect(host, effect);
        }
    }

    fn local(&mut self, host: Host, delay: Time, input: member::Input) {
        let boot = self.hosts[host as usize].boot;
        self.after(delay, Event::Local(host, boot, input));
    }

    fn member_effect(&mut self, host: Host, effect: member::Effect) {
        let now = self.now;
        let delay = self.dice.below(5 * MS);
        let mutant = self.plan.mutant;
        let here = &mut self.hosts[host as usize];
        match effect {
            member::Effect::Keep(local) => {
                here.disk = Some(*local);
                self.local(host, delay, member::Input::Kept);
            }
            member::Effect::Attach { budget } => {
                here.plane.attach(budget, self.plan.rates[host as usize], now);
                here.attached_at = Some(now);
                self.local(host, delay, member::Input::Attached);
            }
            member::Effect::Raise(more) => {
                let more = if mutant == Mutant::GrantsAddUp { more.plus(more) } else { more };
                here.plane.budget = here.plane.budget.map(|left| left.plus(more));
                here.plane.raised = here.plane.raised.plus(more);
            }
            member::Effect::Lower(reclaim) => self.lower(host, reclaim, delay),
            member::Effect::Level(level) => here.plane.level = level,
            member::Effect::Detach(_) => {
                let boot = here.boot;
                self.after(delay, Event::Detach(host, boot));
            }
            member::Effect::Deliver => {
                let after = MS + self.dice.below(self.plan.delivery_max);
                let boot = self.hosts[host as usize].boot;
                self.after(after, Event::Deliver(host, boot));
            }
            member::Effect::Send(up) => {
                let message = Message::Up { from: host, up };
                if self.is_branched() {
                    self.to_branch(Place::Host(host), self.plan.hosts[host as usize], &message);
                } else {
                    self.to_lead(Place::Host(host), &message);
                }
            }
            member::Effect::Store(op) => self.ask(Place::Host(host), Asker::Member, Key::Part(host), op),
            member::Effect::Forget => {}
        }
    }

    fn lower(&mut self, host: Host, reclaim: crate::fleet::shares::Reclaim, delay: Time) {
        let now = self.now;
        let mutant = self.plan.mutant;
        let here = &mut self.hosts[host as usize];
        here.plane.run(&self.plan, host, &mut self.dice, now);
        let left = here.plane.budget.unwrap_or_default();
        let mut taken = left.minus(reclaim.keep);
        if mutant == Mutant::AnswersWithoutReturning {
            taken = crate::fleet::shares::Amount::NONE;
        }
        if mutant != Mutant::KeepsWhatItReturns {
            here.plane.budget = here.plane.budget.map(|left| left.minus(taken));
        }
        here.plane.lowered = here.plane.lowered.plus(taken);
        let used = here.plane.used;
        self.local(host, delay, member::Input::Reclaimed { round: reclaim.round, taken, used });
    }

    fn detach(&mut self, host: Host, boot: u64) {
        let now = self.now;
        let here = &mut self.hosts[host as usize];
        if !here.is_up || here.boot != boot {
            return;
        }
        here.plane.run(&self.plan, host, &mut self.dice, now);
        let mut meter = here.detach();
        here.ended = Some(meter.used);
        if self.plan.mutant == Mutant::CountsOneMore {
            meter.used.packets += 1;
            meter.offered.packets += 1;
        }
        self.check.files(&self.plan, &self.hosts, host, &self.store);
        self.member(host, member::Input::Detached(meter));
    }

    fn deliver(&mut self, host: Host, boot: u64) {
        let here = &mut self.hosts[host as usize];
        if !here.is_up || here.boot != boot || self.plan.mutant == Mutant::NeverTellsOfDelivery {
            return;
        }
        let files = here.files();
        if here.delivered.replace(files).is_some_and(|before| before != files) {
            self.check.wrong(format!("host {host} delivered twice, and not the same"));
        }
        self.member(host, member::Input::Delivered(true));
    }

    fn turn(&mut self, host: Host) {
        let now = self.now;
        let here = &mut self.hosts[host as usize];
        let is_busy = here.plane.is_attached || here.branch.is_some();
        let is_member = here.member.as_ref().is_some_and(|member| !member.is_gone());
        let pause = if is_busy { self.plan.turn } else if is_member { 200 * MS } else { 500 * MS };
        self.after(pause, Event::Turn(host));
        let here = &mut self.hosts[host as usize];
        if !here.is_up {
            return;
        }
        if here.plane.is_attached {
            here.plane.run(&self.plan, host, &mut self.dice, now);
            here.make_durable(now);
            let meter = here.plane.meter();
            self.check.files(&self.plan, &self.hosts, host, &self.store);
            let missed = here_missed(&self.hosts[host as usize]);
            self.check.missed(host, missed);
            self.member(host, member::Input::Turn(meter));
        } else if is_member {
            self.member(host, member::Input::Tick);
        }
        self.branch_tick(host);
    }

    fn branch_tick(&mut self, host: Host) {
        let now = self.now_of(Place::Host(host));
        let here = &mut self.hosts[host as usize];
        let Some(contender) = &mut here.contender else { return };
        let (op, holds) = (contender.tick(now), contender.holds(now));
        let assignment = here.seen.as_ref().filter(|seen| !seen.is_final);
        match (holds, assignment) {
            (Some(epoch), Some(assignment)) => {
                if here.branch.as_ref().is_none_or(|(at, _)| *at != epoch) {
                    let hosts = assignment.hosts.iter().map(|(host, _)| *host).collect();
                    let is_limited = matches!(assignment.kind, crate::fleet::Kind::Full { limit: Some(_) });
                    let branch = lead::Branch::new(here.colo, hosts, is_limited, epoch, self.plan.settings);
                    here.branch = Some((epoch, branch));
                }
            }
            _ => here.branch = None,
        }
        let outputs = here.branch.as_mut().map_or(Vec::new(), |(_, branch)| branch.tick(now));
        let colo = here.colo;
        if let Some(op) = op {
            self.ask(Place::Host(host), Asker::Claim, Key::Branch(colo), op);
        }
        self.branch_outputs(host, outputs);
    }

    fn branch_outputs(&mut self, host: Host, outputs: Vec<lead::Output>) {
        let from = Place::Host(host);
        for output in outputs {
            match output {
                lead::Output::Store(key, op) => self.ask(from, Asker::Branch, key, op),
                lead::Output::Up(report) => {
                    let colo = self.plan.hosts[host as usize];
                    self.to_lead(from, &Message::Report { colo, report });
                }
                lead::Output::Down(to, down) => self.send(from, Place::Host(to), Message::Down(down)),
            }
        }
    }

    fn beat(&mut self, host: Host) {
        let period = self.plan.settings.heartbeat.as_micros() as Time;
        let jitter = self.dice.below(200 * MS);
        self.after(period + jitter, Event::Beat(host));
        if self.hosts[host as usize].is_up {
            let has_part = self.hosts[host as usize].member.is_some();
            self.to_lead(Place::Host(host), &Message::Beat { host, has_part });
        }
    }

    fn poll(&mut self, host: Host) {
        let after = 20 * SECOND + self.dice.below(10 * SECOND);
        self.after(after, Event::Poll(host));
        let here = &self.hosts[host as usize];
        if here.is_up && here.seen.as_ref().is_none_or(|seen| !seen.is_final) && self.now > ACCEPTED {
            let key = Key::Assignment(here.colo);
            self.ask(Place::Host(host), Asker::Poll, key, Op::Read);
        }
    }

    // ---- API nodes

    fn api_hears(&mut self, api: u32, message: Message) {
        if !self.apis[api as usize].is_up {
            return;
        }
        match message {
            Message::Answered { id, answer } => self.answer(Place::Api(api), id, Some(answer)),
            Message::Saw(key, revision, record) => self.lead(api, lead::Input::Saw(key, revision, record)),
            Message::Up { from, up: Up::Share(report) } => self.lead(api, lead::Input::Told(from, report)),
            Message::Report { colo, report } => self.lead(api, lead::Input::Told(colo, report)),
            Message::Beat { host, has_part } => {
                self.hosts[host as usize].heard_at = self.now;
                self.lead(api, lead::Input::Heard(host, has_part));
            }
            _ => {}
        }
    }

    fn tick(&mut self, api: u32) {
        self.after(20 * MS, Event::Tick(api));
        let now = self.now_of(Place::Api(api));
        let here = &mut self.apis[api as usize];
        if !here.is_up {
            return;
        }
        let op = here.contender.tick(now);
        let holds = here.contender.holds(now).filter(|epoch| *epoch > here.deposed);
        let has_job = self.store.newest(Key::Job).is_some();
        match holds {
            Some(epoch) if here.lead.as_ref().is_none_or(|(at, _)| *at != epoch) && has_job => {
                let mut registry = self.plan.hosts.clone();
                if self.plan.mutant == Mutant::OnlyTheLivingAreMembers {
                    while registry.len() > 1 && !self.hosts[registry.len() - 1].is_up {
                        registry.pop();
                    }
                }
                here.lead = Some((epoch, Lead::new(epoch, registry, self.plan.settings)));
                self.check.leads += 1;
            }
            Some(_) => {}
            None => here.lead = None,
        }
        if let Some(op) = op {
            self.ask(Place::Api(api), Asker::Claim, Key::Lead, op);
        }
        if self.plan.mutant == Mutant::SilenceIsAReturn && !self.is_branched() {
            self.take_silence_for_a_return(api);
        }
        self.lead(api, lead::Input::Tick);
    }

    fn take_silence_for_a_return(&mut self, api: u32) {
        let silent: Vec<(Host, Report)> = self
            .hosts
            .iter()
            .filter(|host| host.heard_at > 0 && host.heard_at + 5 * SECOND < self.now)
            .map(|host| (host.host, Report { at: u64::MAX, used: host.files(), is_final: true, ..Report::default() }))
            .collect();
        for (host, report) in silent {
            self.lead(api, lead::Input::Told(host, report));
        }
    }

    fn lead(&mut self, api: u32, input: lead::Input) {
        let now = self.now_of(Place::Api(api));
        let here = &mut self.apis[api as usize];
        let Some((epoch, lead)) = &mut here.lead else { return };
        let epoch = *epoch;
        let effects = lead.step(input, now);
        if lead.is_deposed() {
            here.deposed = epoch;
            here.lead = None;
        }
        for effect in effects {
            self.lead_effect(api, epoch, effect);
        }
    }

    fn lead_effect(&mut self, api: u32, epoch: u64, effect: lead::Effect) {
        let from = Place::Api(api);
        match effect {
            lead::Effect::Store(key, Op::Write { expected, value })
                if self.plan.mutant == Mutant::TellsBeforeItIsDurable
                    && key == Key::Pool
                    && expected > 0
                    && self.dice.below(2) == 0 =>
            {
                let _ = value;
                self.lead(api, lead::Input::Stored(key, Answer::Wrote(expected)));
            }
            lead::Effect::Store(key, op) => self.ask(from, Asker::Lead, key, op),
            lead::Effect::Send(holder, down) if self.is_branched() => {
                self.to_branch(from, holder, &Message::Branch(down));
            }
            lead::Effect::Send(holder, down) => self.send(from, Place::Host(holder), Message::Down(down)),
            lead::Effect::Publish(outcome, samples) => self.publish(api, epoch, *outcome, samples),
        }
    }

    fn publish(&mut self, api: u32, epoch: u64, mut outcome: Outcome, mut samples: Vec<(Host, Vec<Packet>)>) {
        match self.plan.mutant {
            Mutant::PublishesAgain => outcome.tally.sampled += epoch,
            Mutant::GivesAPacketTwice => {
                for (_, packets) in samples.iter_mut().filter(|(_, packets)| packets.len() > 1) {
                    packets[1] = packets[0];
                }
            }
            Mutant::GivesOneMore => {
                for (_, packets) in &mut samples {
                    packets.push(Packet { stream: 9, sequence: 9 });
                }
            }
            _ => {}
        }
        self.check.published(&self.plan, &outcome, &samples, &self.hosts, self.store.newest(Key::Job));
        self.published_at = self.published_at.or(Some(self.now));
        let delay = 10 * MS + self.dice.below(SECOND);
        self.after(delay, Event::Published(api, epoch));
    }

    // ---- crashes

    fn crash(&mut self, node: Place) {
        match node {
            Place::Api(api) => {
                let here = &mut self.apis[api as usize];
                (here.is_up, here.lead) = (false, None);
                here.asked.clear();
            }
            Place::Host(host) => {
                let here = &mut self.hosts[host as usize];
                if self.plan.mutant == Mutant::ForgetsThatItAccepted && here.disk.take().is_some() {
                    here.forgotten = here.forgotten.plus(here.ended.take().unwrap_or(here.durable.used));
                    here.durable = Default::default();
                }
                here.crash();
                self.check.files(&self.plan, &self.hosts, host, &self.store);
            }
            _ => {}
        }
    }

    fn back(&mut self, node: Place) {
        match node {
            Place::Api(api) => {
                let boot = self.apis[api as usize].boot + 1;
                self.apis[api as usize] = Api::new(api, boot, &self.plan);
            }
            Place::Host(host) => {
                let settings = self.plan.settings;
                let here = &mut self.hosts[host as usize];
                if here.is_up {
                    return;
                }
                here.is_up = true;
                here.boot += 1;
                let local = here.disk.clone();
                let recovered = local.map(|local| {
                    let meter = here.durable.clone();
                    here.ended = here.ended.or(Some(meter.used));
                    member::Member::recovered(local, host, here.boot, settings, &meter)
                });
                if let Some((member, effects)) = recovered {
                    here.member = Some(member);
                    self.member_effects(host, effects);
                }
                self.contend(host);
                self.ask(node, Asker::Poll, Key::Assignment(self.plan.hosts[host as usize]), Op::Read);
            }
            _ => {}
        }
    }
}

impl Api {
    fn new(api: u32, boot: u64, plan: &Plan) -> Self {
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
        Message::Answered { answer: Answer::Read(Some((_, record))), .. } => ("store: answer to a read", bytes(record)),
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
