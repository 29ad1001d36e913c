//! The host that speaks for its data center in a large fleet: one holder of the limit above, a lead for the hosts below, and one
//! writer for their parts. Owns batching and passing on; it decides nothing of the capture.
//!
//! Why: with 10,000 hosts the pool's record alone is larger than what the store takes in one message, and three writes of each part
//! are more than it makes durable in time. By data center both are a hundred times less.
//!
//! Invariant: what hosts were granted is at most what was received and not given back, in the durable record; a return is durable
//! before it is told above.

use crate::fleet::held::{Answer, Held, Op};
use crate::fleet::record::{Key, Part, Parts, Record, Stage, any, one};
use crate::fleet::settings::Settings;
use crate::fleet::shares::{Amount, Desk, Pool, Reached, Report};
use crate::fleet::{Colo, Down, Epoch, Host, Now, Up, first_number};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is to be done.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "it is carried out at once and never kept")]
pub enum Output {
    /// In the fleet's store.
    Store(Key, Op<Record>),
    /// To the lead.
    Up(Report),
    /// To a host.
    Down(Host, Down),
}

/// One data center's branch of one capture, in one epoch.
#[derive(Clone, Debug)]
pub struct Branch {
    settings: Settings,
    colo: Colo,
    hosts: Vec<Host>,
    epoch: Epoch,
    /// None: the capture has no limit.
    pool: Option<Held<Pool>>,
    desk: Desk,
    parts: Held<Parts>,
    /// Parts that are not durable yet.
    fresh: BTreeMap<usize, Part>,
    fresh_since: Option<Duration>,
    /// From above, cumulative.
    granted: Amount,
    reached: Option<Reached>,
    /// The last round from above that is answered, the one that is asked below, and the one whose return is being written.
    recalled: u64,
    answering: Option<u64>,
    returning: Option<u64>,
    at: u64,
    sent: Option<(Duration, bool)>,
    turned: Duration,
}

impl Branch {
    /// A host that holds its data center's claim in this epoch takes up a capture.
    #[must_use]
    pub fn new(colo: Colo, hosts: Vec<Host>, is_limited: bool, epoch: Epoch, settings: Settings) -> Self {
        Self {
            settings,
            colo,
            desk: Desk::new(hosts.len(), epoch, settings),
            hosts,
            epoch,
            pool: is_limited.then(|| Held::new(epoch)),
            parts: Held::new(epoch),
            fresh: BTreeMap::new(),
            fresh_since: None,
            granted: Amount::NONE,
            reached: None,
            recalled: 0,
            answering: None,
            returning: None,
            at: first_number(epoch),
            sent: None,
            turned: Duration::ZERO,
        }
    }

    /// The epoch of the host that took over, if it is known: this one has nothing more to do.
    #[must_use]
    pub fn deposed_by(&self) -> Option<Epoch> {
        self.parts.deposed_by().max(self.pool.as_ref().and_then(Held::deposed_by))
    }

    fn place(&self, host: Host) -> Option<usize> {
        self.hosts.iter().position(|member| *member == host)
    }

    /// A host below tells something.
    pub fn told(&mut self, host: Host, up: Up, now: Now) -> Vec<Output> {
        let Some(place) = self.place(host) else { return Vec::new() };
        match up {
            Up::Part(part) if part.host != host || !part.is_possible() => Vec::new(),
            Up::Share(report) => {
                self.desk.told(place as u32, report, now);
                Vec::new()
            }
            Up::Part(part) => self.part(place, *part, now),
        }
    }

    fn part(&mut self, place: usize, part: Part, now: Now) -> Vec<Output> {
        let durable = self.parts.value().and_then(|parts| parts.parts.get(place)?.as_ref());
        if durable.is_some_and(|durable| durable.version >= part.version) {
            return vec![Output::Down(part.host, Down::Noted { version: part.version })];
        }
        if part.stage >= Stage::Counted {
            self.desk.told(place as u32, super::last_report(part.tally.captured), now);
        }
        self.fresh_since.get_or_insert(now.mono);
        let newest = self.fresh.entry(place).or_insert_with(|| part.clone());
        if newest.version < part.version {
            *newest = part;
        }
        Vec::new()
    }

    /// The lead tells something.
    pub fn from_above(&mut self, down: Down, now: Now) {
        match down {
            Down::Granted { granted, reached } => {
                self.receive(granted);
                self.reached = self.reached.or(reached);
            }
            Down::Recall { round, is_hard, granted } => {
                self.receive(granted);
                // One whose return is being written is answered when that is durable.
                let last = self.returning.unwrap_or(0).max(self.recalled);
                let is_new = round > last && self.answering.is_none_or(|at| round > at);
                if round == self.recalled {
                    self.returning = self.returning.or(Some(round));
                }
                let pool = self.pool.as_ref().and_then(Held::value);
                let pool = pool.filter(|pool| pool.holders.len() == self.hosts.len());
                if let (true, Some(pool)) = (is_new, pool) {
                    let pool = self.desk.applied(pool);
                    self.desk.begin(&pool, is_hard, now);
                    self.answering = Some(round);
                }
            }
            Down::Noted { .. } => {}
        }
    }

    fn receive(&mut self, granted: Amount) {
        if !granted.fits(self.granted) {
            self.sent = None;
        }
        self.granted = self.granted.max(granted);
    }

    /// The store answers.
    pub fn stored(&mut self, key: Key, answer: Answer<Record>, now: Now) -> Vec<Output> {
        let backoff = self.settings.backoff;
        match key {
            Key::Shares(_) => {
                let Some(pool) = &mut self.pool else { return Vec::new() };
                let before = pool.value().cloned();
                if pool.answered(one(answer), now, backoff)
                    && let Some(durable) = pool.value().filter(|pool| pool.holders.len() == self.hosts.len())
                {
                    self.granted = self.granted.max(durable.received);
                    self.desk.changed(before.as_ref(), durable);
                } else {
                    // What was to be given back is not: the lead asks again.
                    self.returning = None;
                }
                Vec::new()
            }
            Key::Parts(_) => self.parts_stored(one(answer), now),
            _ => Vec::new(),
        }
    }

    fn parts_stored(&mut self, answer: Answer<Parts>, now: Now) -> Vec<Output> {
        self.parts.answered(answer, now, self.settings.backoff);
        let Some(durable) = self.parts.value() else { return Vec::new() };
        for (place, part) in durable.parts.iter().enumerate() {
            if let Some(part) = part.as_ref().filter(|part| part.stage >= Stage::Counted) {
                self.desk.told(place as u32, super::last_report(part.tally.captured), now);
            }
        }
        let mut noted = Vec::new();
        self.fresh.retain(|place, part| {
            let durable = durable.parts.get(*place).and_then(Option::as_ref);
            let version = durable.map_or(0, |durable| durable.version);
            if version >= part.version {
                noted.push(Output::Down(part.host, Down::Noted { version: part.version }));
            }
            version < part.version
        });
        self.fresh_since = (!self.fresh.is_empty()).then_some(now.mono);
        noted
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) -> Vec<Output> {
        let mut outputs = self.write_parts(now);
        if self.pool.is_some() {
            outputs.extend(self.shares(now));
        }
        outputs
    }

    fn write_parts(&mut self, now: Now) -> Vec<Output> {
        let key = Key::Parts(self.colo);
        if let Some(read) = self.parts.poll(now) {
            return vec![Output::Store(key, any(read))];
        }
        let is_due = self.fresh_since.is_some_and(|since| now.mono >= since + self.settings.gather);
        if !is_due || !self.parts.is_ready() {
            return Vec::new();
        }
        let none = || Parts { epoch: self.epoch, parts: vec![None; self.hosts.len()] };
        let mut next = self.parts.value().cloned().unwrap_or_else(none);
        next.parts.resize(self.hosts.len(), None);
        for (place, part) in &self.fresh {
            next.parts[*place] = Some(part.clone());
        }
        vec![Output::Store(key, any(self.parts.write(next)))]
    }

    fn shares(&mut self, now: Now) -> Vec<Output> {
        let key = Key::Shares(self.colo);
        let Some(pool) = &mut self.pool else { return Vec::new() };
        if let Some(read) = pool.poll(now) {
            return vec![Output::Store(key, any(read))];
        }
        // A record of other hosts than these is none.
        let Some(durable) = pool.value().filter(|pool| pool.holders.len() == self.hosts.len()).cloned()
        else {
            pool.look_again(now, self.settings.backoff);
            return Vec::new();
        };
        if !pool.is_ready() || now.mono < self.turned + self.settings.batch {
            return Vec::new();
        }
        self.turned = now.mono;
        let mut next = self.desk.applied(&durable);
        next.received = self.granted;
        next.reached = next.reached.or(self.reached);
        let has_changed = self.advance(&mut next, now) || next.reached != durable.reached;
        // What was read may be old: a round is answered by a record that this host wrote.
        let is_answer = self.returning.is_some() && !self.pool.as_ref().is_some_and(Held::is_own);
        let has_changed = has_changed || is_answer;
        let mut outputs: Vec<Output> = Vec::new();
        let sent = self.desk.recalls(&self.desk.applied(&durable), now);
        outputs.extend(sent.into_iter().map(|(place, down)| self.down(place, down)));
        if has_changed {
            if let Some(pool) = &mut self.pool {
                outputs.push(Output::Store(key, any(pool.write(next))));
            }
            return outputs;
        }
        let mut told = self.desk.answers(&durable);
        if durable.reached.is_some() {
            told.extend(self.desk.turn(&durable, now).1);
        }
        outputs.extend(told.into_iter().map(|(place, down)| self.down(place, down)));
        // What was given back is durable by now.
        if let Some(round) = self.returning.take() {
            self.recalled = self.recalled.max(round);
            self.sent = None;
        }
        outputs.extend(self.report(&durable, &next, now).map(Output::Up));
        outputs
    }

    fn down(&self, place: u32, down: Down) -> Output {
        Output::Down(self.hosts[place as usize], down)
    }

    /// Grants below, or ends a round from above by giving back what it brought. Whether the record changes.
    fn advance(&mut self, next: &mut Pool, now: Now) -> bool {
        if next.reached.is_some() {
            self.desk.finish();
            self.answering = None;
            return false;
        }
        let Some(is_hard) = self.desk.is_hard() else {
            // The lead has seen to it that others can ask too.
            return self.desk.serve(next, true);
        };
        let silent = self.settings.silent / 2;
        let is_answered = self.desk.is_answered(next, silent, now);
        let is_enough = is_answered || (!is_hard && self.desk.has_waited(self.settings.patience / 2, now));
        if !is_enough {
            return false;
        }
        self.desk.finish();
        self.returning = self.answering.take();
        let has_granted = !is_hard && self.desk.serve(next, true);
        let free = next.free();
        next.given_back = next.given_back.plus(free);
        has_granted || !free.is_none()
    }

    /// What the lead is to hear: what is wanted that is not here, or the answer to a round. That all hosts have ended it sees by
    /// their parts.
    fn report(&mut self, durable: &Pool, next: &Pool, now: Now) -> Option<Report> {
        let needs = self.desk.smallest_need().map(|need| need.minus(next.free()));
        let needs = needs.filter(|need| !need.is_none());
        let wants = self.desk.wants().minus(next.free());
        let (is_dry, asks) = (needs.is_some(), needs.is_some() || !wants.is_none());
        let is_answer = self.sent.is_none();
        let is_repeat = self
            .sent
            .is_some_and(|(sent, was_dry)| was_dry >= is_dry && now.mono < sent + self.settings.resend);
        if is_repeat || !(asks || is_answer) {
            return None;
        }
        self.sent = Some((now.mono, is_dry));
        self.at += 1;
        Some(Report {
            at: self.at,
            granted: durable.received.max(self.granted),
            returned: durable.given_back,
            used: next.used(),
            wants,
            needs,
            recalled: self.recalled,
            is_final: false,
        })
    }
}
