//! What simulated hosts do: hear, turn, and carry out the effects of `Member` and `Branch`. Owns no decision.
//!
//! Invariant: an effect of one life of a host is never carried out in a later one.

use super::{Event, Message, World, here_missed};
use crate::fleet::held::{Answer, Op};
use crate::fleet::record::{Assignment, Key, Record, Refusal, Stage};
use crate::fleet::sample::{Chance, Dice};
use crate::fleet::shares::{Amount, Reclaim};
use crate::fleet::sim::host::{Asker, identity};
use crate::fleet::sim::network::Place;
use crate::fleet::sim::plan::{ACCEPTED, MS, Mutant, SECOND, Time};
use crate::fleet::{Epoch, Host, Kind, Now, lead, member};

impl World {
    pub(super) fn host_hears(&mut self, host: Host, message: Message) {
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

    pub(super) fn assigned(&mut self, host: Host, assignment: Assignment) {
        let now = self.now_of(Place::Host(host));
        let here = &mut self.hosts[host as usize];
        if here.seen.as_ref().is_none_or(|seen| seen.serial < assignment.serial) {
            here.seen = Some(assignment.clone());
        }
        here.seen_at = here.seen_at.or(Some(self.now));
        // An older one than was seen comes late: a capture that is over is not begun by it.
        let assignment = here.seen.clone().unwrap_or(assignment);
        if here.member.is_some() {
            return self.member(host, member::Input::Assigned(assignment));
        }
        if here.disk.is_some() {
            return;
        }
        if here.boot == 0 {
            return;
        }
        let settings = self.plan.settings;
        let (me, boot) = (identity(host, here.spool_id), here.boot);
        let begun = if here.refuses && self.now < self.plan.refuse_until {
            member::Member::refused(assignment, &me, boot, Refusal::SpoolFull, settings, now)
        } else {
            member::Member::accept(assignment, &me, boot, settings, now)
        };
        if let Some((member, effects)) = begun {
            here.has_refused |= member.stage() == Stage::Refused;
            here.member = Some(member);
            self.member_effects(host, effects);
        }
    }

    pub(super) fn member(&mut self, host: Host, input: member::Input) {
        let now = self.now_of(Place::Host(host));
        let Some(member) = &mut self.hosts[host as usize].member else { return };
        let effects = member.step(input, now);
        let is_refused = member.stage() == Stage::Refused;
        self.hosts[host as usize].has_refused |= is_refused;
        self.member_effects(host, effects);
    }

    pub(super) fn member_effects(&mut self, host: Host, effects: Vec<member::Effect>) {
        for effect in effects {
            self.member_effect(host, effect);
        }
    }

    pub(super) fn local(&mut self, host: Host, delay: Time, input: member::Input) {
        let boot = self.hosts[host as usize].boot;
        self.after(delay, Event::Local(host, boot, input));
    }

    pub(super) fn member_effect(&mut self, host: Host, effect: member::Effect) {
        let now = self.now;
        let delay = self.dice.below(5 * MS);
        let mutant = self.plan.mutant;
        let here = &mut self.hosts[host as usize];
        match effect {
            member::Effect::Keep(local) => {
                if mutant == Mutant::RefusalsAreNotKept && here.has_refused {
                    return self.local(host, delay, member::Input::Kept);
                }
                let is_first = local.part.is_none();
                let boot = here.boot;
                let after = self.dice.below(self.plan.keep_max + 1);
                self.after(after, Event::Keep(host, boot, local));
                if mutant == Mutant::AttachesBeforeItIsKept && is_first {
                    let budget = self.plan.limit().map(|_| self.first_share(host));
                    self.member_effect(
                        host,
                        member::Effect::Attach { budget, remaining: Default::default() },
                    );
                }
            }
            member::Effect::Attach { .. } if self.plan.is_ailing(host, now) => {
                self.local(host, delay, member::Input::NotAttached);
            }
            member::Effect::Attach { .. } if here.plane.is_attached => {
                self.local(host, delay, member::Input::Attached);
            }
            member::Effect::Attach { budget, .. } => {
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
            member::Effect::Detach(why) => {
                let boot = here.boot;
                self.check.ended(&self.plan, &self.hosts[host as usize], why, now);
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
                    self.tell_branch(Place::Host(host), self.plan.hosts[host as usize], &message);
                } else {
                    self.tell_lead(Place::Host(host), &message);
                }
            }
            member::Effect::Store(key, Op::Write { value: Record::Part(part), .. })
                if part.sample.is_some() && self.plan.is_ailing(host, now) =>
            {
                self.local(host, delay, member::Input::Stored(key, Answer::Unavailable));
                self.local(host, delay, member::Input::CannotGive);
            }
            member::Effect::Store(key, op) => self.ask(Place::Host(host), Asker::Member, key, op),
            member::Effect::Forget => {}
        }
    }

    fn first_share(&self, host: Host) -> Amount {
        let seen = self.hosts[host as usize].seen.as_ref();
        let mut hosts = seen.into_iter().flat_map(|seen| &seen.hosts);
        hosts.find(|assigned| assigned.host == host).map_or(Amount::NONE, |assigned| assigned.share)
    }

    /// What is to be kept is on the disk now, or cannot be written.
    pub(super) fn keep(&mut self, host: Host, boot: Epoch, local: member::Local) {
        let is_ailing = self.plan.is_ailing(host, self.now);
        let here = &mut self.hosts[host as usize];
        if !here.is_up || here.boot != boot {
            return;
        }
        if is_ailing {
            return self.member(host, member::Input::KeepFailed);
        }
        here.disk = Some(local);
        self.member(host, member::Input::Kept);
    }

    pub(super) fn lower(&mut self, host: Host, reclaim: Reclaim, delay: Time) {
        let now = self.now;
        let mutant = self.plan.mutant;
        let here = &mut self.hosts[host as usize];
        here.plane.run(&self.plan, host, &mut self.dice, now);
        let left = here.plane.budget.unwrap_or_default();
        let mut taken = left.minus(reclaim.keep);
        if mutant == Mutant::AnswersWithoutReturning {
            taken = Amount::NONE;
        }
        if mutant != Mutant::KeepsWhatItReturns {
            here.plane.budget = here.plane.budget.map(|left| left.minus(taken));
        }
        here.plane.lowered = here.plane.lowered.plus(taken);
        let used = here.plane.used;
        self.local(host, delay, member::Input::Reclaimed { round: reclaim.round, taken, used });
    }

    pub(super) fn detach(&mut self, host: Host, boot: Epoch) {
        let now = self.now;
        let here = &mut self.hosts[host as usize];
        if !here.is_up || here.boot != boot {
            return;
        }
        here.plane.run(&self.plan, host, &mut self.dice, now);
        let mut meter = here.detach();
        here.ended = Some(meter.used);
        here.offered = Some(meter.offered);
        if self.plan.mutant == Mutant::CountsOneMore {
            meter.used.packets += 1;
            meter.offered.packets += 1;
        }
        self.check.files(&self.plan, &self.hosts, host, &self.store);
        self.member(host, member::Input::Detached(meter));
    }

    pub(super) fn deliver(&mut self, host: Host, boot: Epoch) {
        let here = &mut self.hosts[host as usize];
        if !here.is_up || here.boot != boot || self.plan.mutant == Mutant::NeverTellsOfDelivery {
            return;
        }
        if self.plan.is_ailing(host, self.now) {
            return self.member(host, member::Input::Delivered(false));
        }
        let files = here.files();
        if here.delivered.replace(files).is_some_and(|before| before != files) {
            self.check.wrong(format!("host {host} delivered twice, and not the same"));
        }
        self.member(host, member::Input::Delivered(true));
    }

    pub(super) fn turn(&mut self, host: Host) {
        let now = self.now;
        let here = &mut self.hosts[host as usize];
        let is_busy = here.plane.is_attached || here.branch.is_some();
        let is_member = here.member.as_ref().is_some_and(|member| !member.is_gone());
        let pause = if is_busy {
            self.plan.turn
        } else if is_member {
            200 * MS
        } else {
            500 * MS
        };
        self.after(pause, Event::Turn(host));
        let here = &mut self.hosts[host as usize];
        if !here.is_up {
            return;
        }
        self.live(host);
        let here = &mut self.hosts[host as usize];
        if here.plane.is_attached {
            here.plane.run(&self.plan, host, &mut self.dice, now);
            here.make_durable(now);
            let meter = here.plane.meter();
            self.check.files(&self.plan, &self.hosts, host, &self.store);
            let missed = here_missed(&self.hosts[host as usize]);
            self.check.missed(&self.plan, host, missed, now);
            self.check.time(&self.plan, &self.hosts[host as usize], now);
            self.member(host, member::Input::Turn(meter));
        } else if is_member {
            self.member(host, member::Input::Tick);
        }
        self.branch_tick(host);
    }

    pub(super) fn branch_tick(&mut self, host: Host) {
        let now = self.now_of(Place::Host(host));
        let here = &mut self.hosts[host as usize];
        let Some(contender) = &mut here.contender else { return };
        if let Some(by) = here.branch.as_ref().and_then(|(_, branch)| branch.deposed_by()) {
            contender.at_least(by);
            here.branch = None;
        }
        let (op, holds) = (contender.tick(now), contender.holds(now));
        let assignment = here.seen.as_ref().filter(|seen| !seen.is_final);
        match (holds, assignment) {
            (Some(epoch), Some(assignment)) => {
                if here.branch.as_ref().is_none_or(|(at, _)| *at != epoch) {
                    let hosts = assignment.hosts.iter().map(|assigned| assigned.host).collect();
                    let is_limited = matches!(assignment.kind, Kind::Full { limit: Some(_) });
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

    pub(super) fn branch_outputs(&mut self, host: Host, outputs: Vec<lead::Output>) {
        let from = Place::Host(host);
        for output in outputs {
            match output {
                lead::Output::Store(key, op) => self.ask(from, Asker::Branch, key, op),
                lead::Output::Up(report) => {
                    let colo = self.plan.hosts[host as usize];
                    self.tell_lead(from, &Message::Report { colo, report });
                }
                lead::Output::Down(to, down) => self.send(from, Place::Host(to), Message::Down(down)),
            }
        }
    }

    /// A life of a host begins. One disk in eight is brought back from a copy that knows of less.
    pub(super) fn begin_life(&mut self, host: Host) {
        let mut dice = Chance::new(&[self.plan.seed, 10, u64::from(host), self.hosts[host as usize].lives]);
        let here = &mut self.hosts[host as usize];
        let noted = u64::from(here.noted_boot);
        let least = if dice.below(8) == 0 { dice.below(noted + 1) } else { noted };
        here.lives += 1;
        here.boot = 0;
        let me = identity(host, here.spool_id);
        let nonce = dice.below(u64::MAX);
        here.life = Some(member::Life::new(me, here.colo, nonce, least as Epoch, self.plan.settings));
    }

    fn live(&mut self, host: Host) {
        let now = self.now_of(Place::Host(host));
        if let Some(op) = self.hosts[host as usize].life.as_mut().and_then(|life| life.tick(now)) {
            self.ask(Place::Host(host), Asker::Life, Key::Registered(host), op);
        }
    }

    pub(super) fn life_answered(&mut self, host: Host, answer: Answer<Record>, now: Now) {
        let here = &mut self.hosts[host as usize];
        let Some(life) = &mut here.life else { return };
        life.answered(answer, now);
        if life.is_over() {
            return self
                .check
                .wrong(format!("host {host} believes that another machine goes on in its name"));
        }
        let Some(boot) = life.boot() else { return };
        if here.boot != 0 {
            if here.boot != boot {
                self.check.wrong(format!("host {host} has number {boot} after {}", here.boot));
            }
            return;
        }
        here.boot = boot;
        here.noted_boot = here.noted_boot.max(boot);
        if !self.check.numbers.insert((host, boot)) {
            self.check.wrong(format!("two lives of host {host} have the number {boot}"));
        }
        self.goes_on(host);
        // What it heard before it had a number.
        if let Some(seen) = self.hosts[host as usize].seen.clone() {
            self.assigned(host, seen);
        }
    }

    pub(super) fn beat(&mut self, host: Host) {
        let period = self.plan.settings.heartbeat.as_micros() as Time;
        let jitter = self.dice.below(200 * MS);
        self.after(period + jitter, Event::Beat(host));
        if self.hosts[host as usize].is_up {
            let has_part = self.hosts[host as usize].member.is_some();
            self.tell_lead(Place::Host(host), &Message::Beat { host, has_part });
        }
    }

    pub(super) fn poll(&mut self, host: Host) {
        let after = 20 * SECOND + self.dice.below(10 * SECOND);
        self.after(after, Event::Poll(host));
        let here = &self.hosts[host as usize];
        if here.is_up && here.seen.as_ref().is_none_or(|seen| !seen.is_final) && self.now > ACCEPTED {
            let key = Key::Assignment(here.colo);
            self.ask(Place::Host(host), Asker::Poll, key, Op::Read);
        }
    }
}
