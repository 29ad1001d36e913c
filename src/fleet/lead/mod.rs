//! The lead of a capture: one API node at a time drives it from accepted to published. Owns who is a member, what hosts are told,
//! who gets how much of the limit, every verdict and the outcome. A new lead goes on from the records alone.
//!
//! ```text
//!  claim ─▶ members ─▶ limit ─▶ assignments ─▶ Running ─▶ all counted ─▶ verdicts, outcome ─▶ published ─▶ Success | Failed
//!                                                            └─ simple: quotas ─▶ samples ─┘
//! ```
//!
//! Everything is decided by level: a step looks at what is durable and does what is missing, so doing it twice does no harm.
//!
//! Invariant: what is sent or published follows from a durable record, and every durable record is written by compare-and-set.

mod branch;
mod claim;
mod finish;
mod post;
mod simple;

pub use branch::{Branch, Output};
pub use claim::Contender;

use super::held::{Answer, Held, Op};
use super::record::{Job, Key, Member, Outcome, Part, Phase, Record, Stage, any, one};
use super::sample::Packet;
use super::settings::Settings;
use super::shares::{Amount, Desk, Pool, Report};
use super::{Colo, Down, Host, Kind, Now};
use post::Post;
use std::collections::BTreeMap;
use std::time::Duration;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// The store answers.
    Stored(Key, Answer<Record>),
    /// A watch, or a look through the store, tells of a record.
    Saw(Key, u64, Record),
    /// A holder of the limit reports: a host, or a data center where one host speaks for it.
    Told(u32, Report),
    /// A host lives; whether it has a part of this capture.
    Heard(Host, bool),
    /// The outcome is published.
    Published,
}

/// What is to be done.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "an effect is carried out at once and never kept")]
pub enum Effect {
    /// In the fleet's store; answered by [`Input::Stored`].
    Store(Key, Op<Record>),
    /// To a holder of the limit.
    Send(u32, Down),
    /// Make the file of a simple capture from these packets, and the manifest, each if it is not there yet, with what follows from
    /// the outcome alone. Answered by [`Input::Published`].
    Publish(Box<Outcome>, Vec<(Host, Vec<Packet>)>),
}

/// The lead of one capture, in one epoch.
#[derive(Clone, Debug)]
pub struct Lead {
    settings: Settings,
    epoch: u64,
    /// Every registered host with its data center, also those that are silent.
    registry: Vec<Colo>,
    job: Held<Job>,
    pool: Option<Held<Pool>>,
    desk: Desk,
    posts: BTreeMap<Colo, Post>,
    parts: Vec<Option<Part>>,
    /// When a host was last heard to have a part, and whether it ever was.
    heard: Vec<(Option<Duration>, bool)>,
    /// When this lead found that the capture is over, or that quotas were asked for.
    over_at: Option<Duration>,
    asked_at: Option<(u32, Duration)>,
    turned: Duration,
    is_publishing: bool,
    is_published: bool,
}

impl Lead {
    /// A node that holds the claim in this epoch takes up a capture.
    #[must_use]
    pub fn new(epoch: u64, registry: Vec<Colo>, settings: Settings) -> Self {
        let hosts = registry.len();
        Self {
            settings,
            epoch,
            registry,
            job: Held::new(epoch),
            pool: None,
            desk: Desk::new(0, epoch, settings),
            posts: BTreeMap::new(),
            parts: vec![None; hosts],
            heard: vec![(None, false); hosts],
            over_at: None,
            asked_at: None,
            turned: Duration::ZERO,
            is_publishing: false,
            is_published: false,
        }
    }

    /// Whether a later lead took over: this one has nothing more to do.
    #[must_use]
    pub fn is_deposed(&self) -> bool {
        self.job.is_deposed() || self.pool.as_ref().is_some_and(Held::is_deposed)
    }

    /// Whether everything is done and told.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let is_end = self.job.value().is_some_and(|job| job.phase.is_end());
        is_end && !self.posts.is_empty() && self.posts.values().all(Post::is_done)
    }

    /// One input; what is to be done about it.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let is_tick = matches!(input, Input::Tick);
        // What only adds to what is known waits for the next tick.
        let is_news = matches!(input, Input::Told(..) | Input::Heard(..) | Input::Saw(..));
        self.take(input, now);
        let mut effects = Vec::new();
        if is_news || self.is_deposed() {
            return effects;
        }
        if let Some(read) = self.job.poll(now) {
            effects.push(Effect::Store(Key::Job, any(read)));
        }
        let Some(job) = self.job.value().cloned() else { return effects };
        if self.job.is_ready() {
            effects.extend(self.drive(&job, now));
        }
        if is_tick && !job.members.is_empty() {
            effects.extend(self.limit(&job, now));
            effects.extend(self.post(&job, now));
        }
        effects
    }

    fn take(&mut self, input: Input, now: Now) {
        let backoff = self.settings.backoff;
        match input {
            Input::Stored(Key::Job, answer) => {
                self.job.answered(one(answer), now, backoff);
            }
            Input::Stored(Key::Pool, answer) => self.pool_answered(one(answer), now),
            Input::Stored(Key::Assignment(colo), answer) => {
                if let Some(post) = self.posts.get_mut(&colo) {
                    post.answered(one(answer), now, backoff);
                }
            }
            Input::Stored(Key::Shares(colo), answer) => {
                if let Some(post) = self.posts.get_mut(&colo) {
                    post.shares_answered(&answer, now, backoff);
                }
            }
            Input::Saw(Key::Job, revision, Record::Job(job)) => self.job.saw(revision, &job),
            Input::Saw(_, _, Record::Part(part)) => self.saw_part(part, now),
            Input::Saw(_, _, Record::Parts(parts)) => {
                parts.parts.into_iter().flatten().for_each(|part| self.saw_part(part, now));
            }
            Input::Told(holder, report) => self.desk.told(holder, report, now),
            Input::Heard(host, has_part) => self.heard(host, has_part, now),
            Input::Published => self.is_published = true,
            Input::Tick | Input::Stored(..) | Input::Saw(..) => {}
        }
    }

    fn heard(&mut self, host: Host, has_part: bool, now: Now) {
        // One that lives and has forgotten its part is not waited for.
        if let Some((heard, had_part)) = self.heard.get_mut(host as usize).filter(|_| has_part) {
            (*heard, *had_part) = (Some(now.mono), true);
        }
    }

    /// A part is durable. Only a later version counts.
    fn saw_part(&mut self, part: Part, now: Now) {
        let Some(known) = self.parts.get_mut(part.host as usize) else { return };
        if known.as_ref().is_some_and(|known| known.version >= part.version) {
            return;
        }
        let host = part.host;
        *known = Some(part);
        self.heard(host, true, now);
        self.end_share(host, now);
    }

    /// The last report on a share: counts are final, of the host or of all hosts of a data center that holds it as one.
    fn end_share(&mut self, host: Host, now: Now) {
        let Some(job) = self.job.value().filter(|job| !job.members.is_empty()) else { return };
        if self.pool.is_none() {
            return;
        }
        let colo = self.registry[host as usize];
        let is_one = |other: &usize| {
            if job.is_branched { self.registry[*other] == colo } else { *other == host as usize }
        };
        let mut used = Amount::NONE;
        for other in (0..self.registry.len()).filter(is_one) {
            match self.parts[other].as_ref().filter(|part| part.stage >= Stage::Counted) {
                Some(part) => used = used.plus(part.tally.captured),
                None => return,
            }
        }
        let holder = if job.is_branched { colo } else { host };
        self.desk.told(holder, last_report(used), now);
    }

    /// The one change of the job's record that is due.
    fn drive(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        if !self.job.is_own() {
            // First of all its epoch: from here on no earlier lead can write.
            return self.write(job.clone());
        }
        if job.members.is_empty() {
            return self.write(self.with_members(job));
        }
        if job.phase.is_end() {
            return Vec::new();
        }
        if job.phase == Phase::Pending && self.heard.iter().any(|(_, has_part)| *has_part) {
            return self.write(Job { phase: Phase::Running, ..job.clone() });
        }
        if let Some(outcome) = &job.outcome {
            return self.publish(job, outcome);
        }
        self.finish(job, now)
    }

    fn write(&mut self, job: Job) -> Vec<Effect> {
        vec![Effect::Store(Key::Job, any(self.job.write(job)))]
    }

    fn with_members(&self, job: &Job) -> Job {
        let members = self.registry.iter().map(|colo| Member { colo: *colo, verdict: None }).collect();
        let is_branched = self.registry.len() > self.settings.branch_beyond;
        Job { members, is_branched, ..job.clone() }
    }

    /// The places in the pool: hosts, or data centers with as many hosts.
    fn weights(&self, job: &Job) -> Vec<u64> {
        if !job.is_branched {
            return vec![1; job.members.len()];
        }
        let colos = job.members.iter().map(|member| member.colo as usize + 1).max().unwrap_or(0);
        let mut weights = vec![0; colos];
        job.members.iter().for_each(|member| weights[member.colo as usize] += 1);
        weights
    }

    /// The limit: its record, and who gets how much.
    fn limit(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        let Kind::Full { limit: Some(limit) } = job.kind else { return Vec::new() };
        let weights = self.weights(job);
        if self.pool.is_none() {
            self.pool = Some(Held::new(self.epoch));
            // An answer of a data center takes a round of its own and a write.
            let patience = self.settings.patience * if job.is_branched { 4 } else { 1 };
            self.desk = Desk::new(weights.len(), self.epoch, Settings { patience, ..self.settings });
            (0..job.members.len() as Host).for_each(|host| self.end_share(host, now));
        }
        let Some(pool) = &mut self.pool else { return Vec::new() };
        if let Some(read) = pool.poll(now) {
            return vec![Effect::Store(Key::Pool, any(read))];
        }
        if !pool.is_ready() {
            return Vec::new();
        }
        let Some(durable) = pool.value().cloned() else {
            let dealt = Pool::dealt(limit, &weights, 4);
            return vec![Effect::Store(Key::Pool, any(pool.write(dealt)))];
        };
        let is_due = now.mono >= self.turned + self.settings.batch;
        if !is_due || job.outcome.is_some() || (self.desk.is_idle() && durable.reached.is_none()) {
            return Vec::new();
        }
        self.turned = now.mono;
        let (next, sent) = self.desk.turn(&durable, now);
        let mut effects: Vec<Effect> = sent.into_iter().map(|(to, down)| Effect::Send(to, down)).collect();
        if let Some(next) = next {
            effects.push(Effect::Store(Key::Pool, any(pool.write(next))));
        } else {
            let answers = self.desk.answers(&durable);
            effects.extend(answers.into_iter().map(|(to, down)| Effect::Send(to, down)));
        }
        effects
    }

    fn pool_answered(&mut self, answer: Answer<Pool>, now: Now) {
        let Some(pool) = &mut self.pool else { return };
        let before = pool.value().cloned();
        if pool.answered(answer, now, self.settings.backoff)
            && let Some(durable) = pool.value()
        {
            self.desk.changed(before.as_ref(), durable);
        }
    }
}

/// Counts are final, so this is the last report on a share.
fn last_report(used: Amount) -> Report {
    Report { at: u64::MAX, used, is_final: true, ..Report::default() }
}
