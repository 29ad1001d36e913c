//! What simulated API nodes do, and how nodes stop and come back. Owns no decision.
//!
//! Invariant: a node that comes back is another life, with nothing of the last one but its disk.

use super::{Api, Event, Message, World};
use crate::fleet::held::{Answer, Op};
use crate::fleet::lead::{self, Lead};
use crate::fleet::record::{Given, Key, Outcome, Part, Record, Registered, Stage, Tally};
use crate::fleet::sample::{Counts, Dice, Packet};
use crate::fleet::shares::{Amount, Report};
use crate::fleet::sim::host::Asker;
use crate::fleet::sim::host::identity;
use crate::fleet::sim::network::Place;
use crate::fleet::sim::plan::{MS, Mutant, Plan, SECOND, Time};
use crate::fleet::sim::store::Store;
use crate::fleet::{Epoch, Host, Up, member};

impl World {
    pub(super) fn api_hears(&mut self, api: u32, message: Message) {
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

    pub(super) fn tick(&mut self, api: u32) {
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
                let mut registry = registry(&self.plan, &self.store, self.now);
                if self.plan.mutant == Mutant::OnlyTheLivingAreMembers {
                    while registry.len() > 1
                        && !self.hosts.get(registry.len() - 1).is_none_or(|host| host.is_up)
                    {
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

    pub(super) fn take_silence_for_a_return(&mut self, api: u32) {
        let silent: Vec<(Host, Report)> = self
            .hosts
            .iter()
            .filter(|host| host.heard_at > 0 && host.heard_at + 5 * SECOND < self.now)
            .map(|host| {
                (host.host, Report { at: u64::MAX, used: host.files(), is_final: true, ..Report::default() })
            })
            .collect();
        for (host, report) in silent {
            self.lead(api, lead::Input::Told(host, report));
        }
    }

    pub(super) fn lead(&mut self, api: u32, input: lead::Input) {
        let now = self.now_of(Place::Api(api));
        let here = &mut self.apis[api as usize];
        let Some((epoch, lead)) = &mut here.lead else { return };
        let epoch = *epoch;
        let effects = lead.step(input, now);
        if let Some(by) = lead.deposed_by() {
            here.contender.at_least(by);
            here.deposed = epoch;
            here.lead = None;
        }
        for effect in effects {
            self.lead_effect(api, epoch, effect);
        }
    }

    pub(super) fn lead_effect(&mut self, api: u32, epoch: Epoch, effect: lead::Effect) {
        let from = Place::Api(api);
        match effect {
            lead::Effect::Store(key, Op::Write { expected, value })
                if self.plan.mutant == Mutant::TellsBeforeItIsDurable
                    && key == Key::Pool
                    && expected.sequence > 0
                    && self.dice.below(2) == 0 =>
            {
                let _ = value;
                self.lead(api, lead::Input::Stored(key, Answer::Wrote(expected)));
            }
            lead::Effect::Store(key, op) => self.ask(from, Asker::Lead, key, op),
            lead::Effect::Send(holder, down) if self.is_branched() => {
                self.tell_branch(from, holder, &Message::Branch(down));
            }
            lead::Effect::Send(holder, down) => self.send(from, Place::Host(holder), Message::Down(down)),
            lead::Effect::Find(_) if self.published_at.is_some() => {
                self.after(10 * MS, Event::Published(api, epoch));
            }
            lead::Effect::Find(_) => self.lead(api, lead::Input::NotFound),
            lead::Effect::Publish(outcome, samples) => self.publish(api, epoch, *outcome, samples),
        }
    }

    pub(super) fn publish(
        &mut self,
        api: u32,
        epoch: Epoch,
        mut outcome: Outcome,
        mut samples: Vec<(Host, Vec<Packet>)>,
    ) {
        match self.plan.mutant {
            Mutant::PublishesAgain => outcome.tally.sampled += u64::from(epoch),
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

    pub(super) fn crash(&mut self, node: Place) {
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

    pub(super) fn back(&mut self, node: Place) {
        match node {
            Place::Api(api) => {
                let boot = self.apis[api as usize].boot + 1;
                self.apis[api as usize] = Api::new(api, boot, &self.plan);
            }
            Place::Host(host) => {
                let here = &mut self.hosts[host as usize];
                if here.is_up {
                    return;
                }
                here.is_up = true;
                if self.plan.lives {
                    return self.begin_life(host);
                }
                here.boot += 1;
                self.goes_on(host);
            }
            _ => {}
        }
    }

    /// A host whose number is known takes up what its disk has.
    pub(super) fn goes_on(&mut self, host: Host) {
        let settings = self.plan.settings;
        let here = &mut self.hosts[host as usize];
        let local = here.disk.clone();
        let recovered = local.map(|local| {
            let meter = here.durable.clone();
            here.ended = here.ended.or(Some(meter.used));
            here.offered = here.offered.or(Some(meter.offered));
            member::Member::recovered(local, here.boot, settings, &meter)
        });
        if let Some((member, effects)) = recovered {
            here.member = Some(member);
            self.member_effects(host, effects);
        }
        self.contend(host);
        let key = Key::Assignment(self.plan.hosts[host as usize]);
        self.ask(Place::Host(host), Asker::Poll, key, Op::Read);
    }

    /// A host writes what is not true about its part or that of another, under its own key, and to the one that speaks for its data center.
    pub(super) fn forge(&mut self, host: Host) {
        let others = self.hosts.len() as u64;
        let of = if self.dice.below(2) == 0 { host } else { self.dice.below(others) as Host };
        let stages = [Stage::Running, Stage::Counted, Stage::Delivered, Stage::Failed, Stage::Refused];
        let much = [0, 1, 1000, u64::MAX / 2, u64::MAX];
        let mut some = |of: &[u64]| of[self.dice.below(of.len() as u64) as usize];
        let (matched, captured) = (some(&much), Amount::new(some(&much), some(&much)));
        let counts =
            Counts { level: some(&[0, 3, 255]) as u8, matched, kept: vec![some(&much), some(&much)] };
        let packets = vec![Packet { stream: 0, sequence: some(&much) }];
        let sample = Given { round: some(&[1, 2, 9]) as u32, packets, chunks: some(&[0, 1, 1 << 31]) as u32 };
        let (is_counted, is_given) = (some(&[0, 1]) == 0, some(&[0, 1]) == 0);
        let stage = stages[self.dice.below(5) as usize];
        let part = Part {
            epoch: u32::MAX,
            host: of,
            version: u64::MAX - self.dice.below(2),
            stage,
            refusal: None,
            is_interrupted: false,
            tally: Tally { matched, captured, ..Tally::default() },
            counts: is_counted.then_some(counts),
            sample: is_given.then_some(sample),
        };
        let expected = self.store.revision(Key::Part(host));
        let op = Op::Write { expected, value: part.clone().into() };
        if let (Answer::Wrote(revision), _) = self.store.write(&self.plan, Key::Part(host), op, self.now) {
            self.watch(Key::Part(host), revision, &part.clone().into());
        }
        let colo = self.hosts[host as usize].colo;
        let up = Up::Part(Box::new(part));
        self.tell_branch(Place::Host(host), colo, &Message::Up { from: host, up });
        let all = Amount::new(u64::MAX, u64::MAX);
        let report = Report { at: u64::MAX - 9, granted: all, returned: all, used: all, ..Report::default() };
        let message = Message::Up { from: host, up: Up::Share(report) };
        if self.is_branched() {
            self.tell_branch(Place::Host(host), colo, &message);
        } else {
            self.tell_lead(Place::Host(host), &message);
        }
    }

    /// A host stops, and is back with an empty disk: another host of the same name.
    pub(super) fn new_disk(&mut self, host: Host) {
        self.crash(Place::Host(host));
        let here = &mut self.hosts[host as usize];
        here.forgotten = here.forgotten.plus(here.ended.take().unwrap_or(here.durable.used));
        here.durable = Default::default();
        here.disk = None;
        here.spool_id += 1;
        here.noted_boot = 0;
        self.after(SECOND, Event::Back(Place::Host(host)));
    }
}

/// The hosts that are registered now. They change after the capture knows its members.
fn registry(plan: &Plan, store: &Store, now: Time) -> Vec<Registered> {
    let mut colos = plan.hosts.clone();
    let is_known = matches!(store.newest(Key::Job), Some(Record::Job(job)) if job.members.is_some());
    let is_past = |at: Time| is_known && at <= now;
    colos.extend(plan.registered.iter().filter(|(at, _)| is_past(*at)).map(|(_, colo)| *colo));
    let is_retired = |host: u32| plan.retired.iter().any(|(at, retired)| is_past(*at) && *retired == host);
    let hosts = colos.into_iter().zip(0..).filter(|(_, host)| !is_retired(*host));
    hosts.map(|(colo, host)| Registered { identity: identity(host, 0), colo, boot: 1, nonce: 1 }).collect()
}
