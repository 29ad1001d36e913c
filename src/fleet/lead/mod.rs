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
#[cfg(test)]
mod tests;

pub use branch::{Branch, Output};
pub use claim::Contender;

use super::held::{Answer, Held, Op, Revision};
use super::record::{
    Job, Key, Member, Outcome, Part, Phase, RULES, Record, Registered, Stage, Tally, any, one,
};
use super::sample::Packet;
use super::settings::Settings;
use super::shares::{Amount, Desk, Pool, Reached, Report};
use super::{Colo, Down, Epoch, Host, Kind, Now};
use finish::Look;
use post::Post;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// The store answers.
    Stored(Key, Answer<Record>),
    /// A watch, or a look through the store, tells of a record.
    Saw(Key, Revision, Record),
    /// A holder of the limit reports: a host, or a data center where one host speaks for it.
    Told(u32, Report),
    /// A host lives; whether it has a part of this capture.
    Heard(Host, bool),
    /// The outcome is published.
    Published,
    /// It could not be, or nobody can say whether it is.
    NotPublished,
    /// What [`Effect::Find`] asks for is not there.
    NotFound,
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
    /// the outcome alone. Answered by [`Input::Published`] or
    /// [`Input::NotPublished`].
    Publish(Box<Outcome>, Vec<(Host, Vec<Packet>)>),
    /// Look whether the file of a simple capture is there: its packets are known to nobody any more. If it is, make the manifest as
    /// above. Answered by [`Input::Published`], [`Input::NotFound`] or [`Input::NotPublished`].
    Find(Box<Outcome>),
}

/// The lead of one capture, in one epoch.
#[derive(Clone, Debug)]
pub struct Lead {
    settings: Settings,
    epoch: Epoch,
    /// Every registered host, also those that are silent: the members of a capture that has none yet, and nothing else.
    registry: Vec<Registered>,
    job: Held<Job>,
    pool: Option<Held<Pool>>,
    desk: Desk,
    posts: BTreeMap<Colo, Post>,
    /// By member, as `heard` is; empty until the members are known.
    parts: Vec<Option<Part>>,
    /// What was seen of parts before that.
    early: BTreeMap<Key, Record>,
    /// Members that wrote what cannot be true. What they hold of a limit stays with them.
    impossible: BTreeSet<Host>,
    /// When a host was last heard to have a part, and whether it ever was.
    heard: Vec<(Option<Duration>, bool)>,
    looks: Vec<Look>,
    /// Chunks of samples by host, with their round; which are being read; the samples that are whole.
    fetched: BTreeMap<(Host, u32), (u32, Vec<Packet>)>,
    fetching: BTreeMap<(Host, u32), Look>,
    whole: BTreeSet<(Host, u32)>,
    /// When this lead found that the capture is over, or that quotas were asked for.
    over_at: Option<Duration>,
    asked_at: Option<(u32, Duration)>,
    turned: Duration,
    is_publishing: bool,
    publish_at: Duration,
    is_published: bool,
    /// Since when samples are missing that were drawn, and when the file was last looked for and not there.
    missing_since: Option<Duration>,
    not_found_at: Option<Duration>,
}

impl Lead {
    /// A node that holds the claim in this epoch takes up a capture.
    #[must_use]
    pub fn new(epoch: Epoch, registry: Vec<Registered>, settings: Settings) -> Self {
        Self {
            settings,
            epoch,
            registry,
            job: Held::new(epoch),
            pool: None,
            desk: Desk::new(0, epoch, settings),
            posts: BTreeMap::new(),
            parts: Vec::new(),
            early: BTreeMap::new(),
            impossible: BTreeSet::new(),
            heard: Vec::new(),
            looks: Vec::new(),
            fetched: BTreeMap::new(),
            fetching: BTreeMap::new(),
            whole: BTreeSet::new(),
            over_at: None,
            asked_at: None,
            turned: Duration::ZERO,
            is_publishing: false,
            publish_at: Duration::ZERO,
            is_published: false,
            missing_since: None,
            not_found_at: None,
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
        let Some(job) = self.job.value().filter(|job| job.phase.is_end()) else { return false };
        job.hosts().iter().all(|member| self.posts.get(&member.colo).is_some_and(Post::is_done))
    }

    /// The epoch of the lead that took over, if it is known.
    #[must_use]
    pub fn deposed_by(&self) -> Option<Epoch> {
        self.job.deposed_by().max(self.pool.as_ref().and_then(Held::deposed_by))
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
        let Some(job) = self.job.value().cloned() else {
            // It was accepted, so it is there: another server has it.
            self.job.look_again(now, self.settings.backoff);
            return effects;
        };
        if job.rules != RULES {
            return effects;
        }
        self.meet(&job, now);
        if self.job.is_ready() {
            effects.extend(self.drive(&job, now));
        }
        if is_tick && job.members.is_some() {
            effects.extend(self.limit(&job, now));
            effects.extend(self.post(&job, now));
            effects.extend(self.look(&job, now));
            effects.extend(self.fetch(&job, now));
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
                    post.shares_answered(answer, now, backoff);
                }
            }
            Input::Saw(Key::Job, revision, Record::Job(job)) => self.job.saw(revision, &job),
            Input::Saw(key, _, record) => self.saw(key, record, now),
            Input::Told(holder, report) => self.desk.told(holder, report, now),
            Input::Heard(host, has_part) => self.heard(host, has_part, now),
            Input::Published => self.is_published = true,
            Input::NotPublished => self.publish_later(now),
            Input::NotFound => {
                self.not_found_at = Some(now.mono);
                self.publish_later(now);
            }
            Input::Stored(Key::Chunk(host, chunk), answer) => self.fetched(host, chunk, answer, now),
            Input::Stored(key @ (Key::Part(_) | Key::Parts(_)), answer) => self.looked(key, answer, now),
            Input::Tick | Input::Stored(..) => {}
        }
    }

    fn publish_later(&mut self, now: Now) {
        (self.is_publishing, self.publish_at) = (false, now.mono + 5 * self.settings.backoff);
    }

    fn heard(&mut self, host: Host, has_part: bool, now: Now) {
        // One that lives and has forgotten its part is not waited for.
        if let Some((heard, had_part)) = self.heard.get_mut(host as usize).filter(|_| has_part) {
            (*heard, *had_part) = (Some(now.mono), true);
        }
    }

    /// The members are known: from here on a host is its place among them, whatever the registry says now.
    fn meet(&mut self, job: &Job, now: Now) {
        if job.members.is_none() || self.parts.len() == job.hosts().len() {
            return;
        }
        self.parts = vec![None; job.hosts().len()];
        self.heard = vec![(None, false); job.hosts().len()];
        self.looks = vec![Look::At(Duration::ZERO); job.hosts().len()];
        for (key, record) in std::mem::take(&mut self.early) {
            self.saw(key, record, now);
        }
    }

    /// A key is written by one host, or by the one that speaks for a data center: what it says of others does not count.
    fn saw(&mut self, key: Key, record: Record, now: Now) {
        if self.parts.is_empty() {
            if matches!(key, Key::Part(_) | Key::Parts(_)) {
                self.early.insert(key, record);
            }
            return;
        }
        match (key, record) {
            (Key::Part(host), Record::Part(part)) if part.host == host => self.saw_part(part, now),
            (Key::Parts(colo), Record::Parts(parts)) => {
                for part in parts.parts.into_iter().flatten() {
                    let job = self.job.value();
                    let member = job.and_then(|job| job.hosts().get(part.host as usize));
                    if member.is_some_and(|member| member.colo == colo) {
                        self.saw_part(part, now);
                    }
                }
            }
            _ => {}
        }
    }

    /// A part is durable. Only a later version counts.
    fn saw_part(&mut self, mut part: Part, now: Now) {
        let Some(known) = self.parts.get_mut(part.host as usize) else { return };
        if known.as_ref().is_some_and(|known| known.version >= part.version) {
            return;
        }
        let host = part.host;
        if self.job.value().is_some_and(|job| !part.is_possible_in(job.kind)) {
            self.impossible.insert(host);
            part = Part { stage: Stage::Failed, tally: Tally::default(), counts: None, sample: None, ..part };
        }
        *known = Some(part);
        self.heard(host, true, now);
        self.end_share(host, now);
    }

    /// What the counted hosts of a holder have in files; none while one of them is not counted.
    fn counted(&self, host: usize) -> Option<Amount> {
        let part = self.parts[host].as_ref().filter(|part| part.stage >= Stage::Counted)?;
        (!self.impossible.contains(&part.host) && self.is_granted(part)).then_some(part.tally.captured)
    }

    /// Whether a host can have captured so much: what it or its data center was not granted, or gave back, it has not.
    fn is_granted(&self, part: &Part) -> bool {
        let Some(job) = self.job.value().filter(|job| matches!(job.kind, Kind::Full { limit: Some(_) }))
        else {
            return true;
        };
        let holder = if job.is_branched { job.hosts()[part.host as usize].colo } else { part.host };
        let pool = self.pool.as_ref().and_then(Held::value);
        let share = pool.and_then(|pool| pool.holders.get(holder as usize));
        let is_lost = pool.is_some_and(|pool| pool.reached == Some(Reached::Forgotten));
        is_lost || share.is_none_or(|share| part.tally.captured.fits(share.outstanding()))
    }

    /// The last report on a share: counts are final, of the host or of all hosts of a data center that holds it as one.
    fn end_share(&mut self, host: Host, now: Now) {
        let Some(job) = self.job.value() else { return };
        let Some(member) = job.hosts().get(host as usize).filter(|_| self.pool.is_some()) else { return };
        let holder = if job.is_branched { member.colo } else { host };
        let is_one = |(other, of): &(usize, &Member)| {
            if job.is_branched { of.colo == member.colo } else { *other == host as usize }
        };
        let members = job.hosts().iter().enumerate().filter(is_one);
        let counted = members
            .map(|(other, _)| self.counted(other))
            .try_fold(Amount::NONE, |sum, used| Some(sum.plus(used?)));
        if let Some(used) = counted {
            self.desk.told(holder, last_report(used), now);
        }
    }

    /// The one change of the job's record that is due.
    fn drive(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        if !self.job.is_own() {
            // First of all its epoch: from here on no earlier lead can write.
            return self.write(job.clone());
        }
        if job.members.is_none() {
            return self.write(self.with_members(job));
        }
        if job.phase.is_end() {
            return Vec::new();
        }
        if job.phase == Phase::Pending && self.heard.iter().any(|(_, has_part)| *has_part) {
            return self.write(Job { phase: Phase::Running, ..job.clone() });
        }
        if let Some(outcome) = &job.outcome {
            return self.publish(job, outcome, now);
        }
        if !job.has_pool && self.pool.as_ref().is_some_and(|pool| pool.value().is_some()) {
            return self.write(Job { has_pool: true, ..job.clone() });
        }
        let dealt = self.dealt(job);
        if dealt.len() > job.dealt.len() {
            return self.write(Job { dealt, ..job.clone() });
        }
        if !job.is_over && self.goes_on_too_long(job, now) {
            return self.write(Job { is_over: true, ..job.clone() });
        }
        self.finish(job, now)
    }

    fn write(&mut self, job: Job) -> Vec<Effect> {
        vec![Effect::Store(Key::Job, any(self.job.write(job)))]
    }

    fn with_members(&self, job: &Job) -> Job {
        let member =
            |host: &Registered| Member { identity: host.identity.clone(), colo: host.colo, verdict: None };
        let members = Some(self.registry.iter().map(member).collect());
        let is_branched = self.registry.len() > self.settings.branch_beyond;
        Job { members, is_branched, ..job.clone() }
    }

    /// The places in the pool: hosts, or data centers with as many hosts.
    fn weights(&self, job: &Job) -> Vec<u64> {
        if !job.is_branched {
            return vec![1; job.hosts().len()];
        }
        let colos = job.hosts().iter().map(|member| member.colo as usize + 1).max().unwrap_or(0);
        let mut weights = vec![0; colos];
        job.hosts().iter().for_each(|member| weights[member.colo as usize] += 1);
        weights
    }

    /// The limit: its record, and who gets how much.
    fn limit(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        let Kind::Full { limit: Some(limit) } = job.kind else { return Vec::new() };
        let weights = self.weights(job);
        if self.pool.is_none() {
            self.pool = Some(Held::new(self.epoch));
            let settings = if job.is_branched { self.settings.for_branches() } else { self.settings };
            self.desk = Desk::new(weights.len(), self.epoch, settings);
        }
        let Some(pool) = &mut self.pool else { return Vec::new() };
        if let Some(read) = pool.poll(now) {
            return vec![Effect::Store(Key::Pool, any(read))];
        }
        if !pool.is_ready() {
            return Vec::new();
        }
        let Some(durable) = pool.value().cloned() else {
            // One that was there is lost, unless this is an old read: then the write is refused.
            let dealt =
                if job.has_pool { Pool::lost(limit, weights.len()) } else { Pool::dealt(limit, &weights, 4) };
            return vec![Effect::Store(Key::Pool, any(pool.write(dealt)))];
        };
        if !pool.is_own() && job.outcome.is_none() {
            // What was read may be old. Nothing is decided by it before it is written, which is refused if it is.
            return vec![Effect::Store(Key::Pool, any(pool.write(durable)))];
        }
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
        let (before, was_own) = (pool.value().cloned(), pool.is_own());
        if pool.answered(answer, now, self.settings.backoff)
            && let Some(durable) = pool.value()
        {
            self.desk.changed(before.as_ref(), durable);
            if !was_own && pool.is_own() {
                // Counts that came before are held against what is surely granted.
                (0..self.parts.len() as Host).for_each(|host| self.end_share(host, now));
            }
        }
    }
}

/// Counts are final, so this is the last report on a share.
fn last_report(used: Amount) -> Report {
    Report { at: u64::MAX, used, is_final: true, ..Report::default() }
}
