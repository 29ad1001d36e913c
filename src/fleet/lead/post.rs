//! What a data center's hosts are told. Owns keeping each assignment as the job says; the job decides.
//!
//! Invariant: an assignment follows from the job's durable record alone, so any lead writes the same, and it is written only after
//! the limit's record says that its first shares are granted, and the job that there is such a record.

use super::{Effect, Lead};
use crate::fleet::held::{Answer, Held, Op, Revision};
use crate::fleet::record::{Assigned, Assignment, Job, Key, Quotas, Record, any};
use crate::fleet::shares::{Amount, Pool};
use crate::fleet::{Colo, Epoch, Host, Kind, Now};
use std::collections::BTreeSet;
use std::time::Duration;

/// One data center's assignment.
#[derive(Clone, Debug)]
pub(super) struct Post {
    held: Held<Assignment>,
    /// Where one host speaks for it: what its record of shares begins with, once that is durable.
    first: Option<Vec<Amount>>,
    writing: Option<Pool>,
    /// The record is there already: what it begins with stands in it.
    must_read: bool,
    was_there: bool,
    is_busy: bool,
    retry_at: Duration,
}

impl Post {
    fn new(epoch: Epoch) -> Self {
        Self {
            held: Held::new(epoch),
            first: None,
            writing: None,
            must_read: false,
            was_there: false,
            is_busy: false,
            retry_at: Duration::ZERO,
        }
    }

    pub fn is_done(&self) -> bool {
        self.held.value().is_some_and(|assignment| assignment.is_final)
    }

    pub fn answered(&mut self, answer: Answer<Assignment>, now: Now, backoff: Duration) {
        self.held.answered(answer, now, backoff);
    }

    /// The record of shares is created once. One that is there already says itself what it began with.
    pub fn shares_answered(&mut self, answer: Answer<Record>, now: Now, backoff: Duration) {
        self.is_busy = false;
        self.retry_at = now.mono + backoff;
        let found = match (answer, self.writing.take()) {
            (Answer::Wrote(_), written) => written,
            (Answer::Read(_, Some(Record::Pool(pool))), _) => Some(pool),
            // What is lost is assigned to nobody; the record itself says to a host what it has, should this be an old read.
            (Answer::Read(_, None), _) if self.was_there => {
                self.first = Some(Vec::new());
                return;
            }
            (Answer::Stale, _) => {
                self.must_read = true;
                None
            }
            _ => None,
        };
        if let Some(pool) = found {
            self.first = Some(pool.holders.iter().map(|share| share.first).collect());
        }
    }

    /// Creates the record of shares, or reads it. One that was there and is not is lost: no host is assigned a share of it again.
    fn shares(&mut self, received: Amount, hosts: usize, was_there: bool, now: Now) -> Option<Op<Record>> {
        if self.is_busy || now.mono < self.retry_at {
            return None;
        }
        (self.is_busy, self.was_there) = (true, was_there);
        if self.must_read || was_there {
            return Some(Op::Read);
        }
        let dealt = Pool::dealt(received, &vec![1; hosts], 1);
        self.writing = Some(dealt.clone());
        Some(any(Op::Write { expected: Revision::default(), value: dealt }))
    }

    /// What a host was assigned, or is to be.
    fn share(&self, place: usize) -> Option<Amount> {
        let assigned = self.held.value().and_then(|assignment| assignment.hosts.get(place));
        let first = || self.first.as_ref()?.get(place).copied();
        assigned.map(|assigned| assigned.share).or_else(first)
    }

    fn is_assigned(&self) -> bool {
        self.held.value().is_some()
    }
}

impl Lead {
    fn hosts_of(job: &Job, colo: Colo) -> Vec<Host> {
        let members = job.hosts().iter().zip(0..);
        members.filter(|(member, _)| member.colo == colo).map(|(_, host)| host).collect()
    }

    /// Data centers whose record of shares is known to be there, or to have been there.
    pub(super) fn dealt(&self, job: &Job) -> BTreeSet<Colo> {
        let there = self.posts.iter().filter(|(_, post)| post.first.is_some()).map(|(colo, _)| *colo);
        there.chain(job.dealt.iter().copied()).collect()
    }

    /// Brings every assignment to what the job says.
    pub(super) fn post(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        let is_limited = matches!(job.kind, Kind::Full { limit: Some(_) });
        let pool = self.pool.as_ref().and_then(Held::value);
        // That there is a record of the limit is durable in the job before anybody uses a share of it.
        if is_limited && (pool.is_none() || !job.has_pool) {
            return Vec::new();
        }
        let epoch = self.epoch;
        for member in job.hosts() {
            self.posts.entry(member.colo).or_insert_with(|| Post::new(epoch));
        }
        let mut effects = Vec::new();
        for (colo, post) in &mut self.posts {
            if let Some(read) = post.held.poll(now) {
                effects.push(Effect::Store(Key::Assignment(*colo), any(read)));
                continue;
            }
            let is_current = post.held.value().is_some_and(|assignment| assignment.serial >= job.serial());
            if !post.held.is_ready() || is_current {
                continue;
            }
            let hosts = Self::hosts_of(job, *colo);
            let first = |holder: u32| {
                let share = pool.and_then(|pool| pool.holders.get(holder as usize));
                share.map_or(Amount::NONE, |share| share.first)
            };
            let is_dealt = job.dealt.contains(colo);
            if is_limited && job.is_branched && !(is_dealt && (post.first.is_some() || post.is_assigned())) {
                if post.first.is_none() {
                    let op = post.shares(first(*colo), hosts.len(), is_dealt, now);
                    effects.extend(op.map(|op| Effect::Store(Key::Shares(*colo), op)));
                }
                continue;
            }
            let whole = |host: Host| if job.is_branched { Amount::NONE } else { first(host) };
            let share = |place: usize, host: Host| post.share(place).unwrap_or_else(|| whole(host));
            let assigned = |(place, host): (usize, &Host)| Assigned {
                host: *host,
                identity: job.hosts()[*host as usize].identity.clone(),
                share: share(place, *host),
            };
            let assigned = hosts.iter().enumerate().map(assigned).collect();
            let op = post.held.write(assignment(job, &hosts, assigned));
            effects.push(Effect::Store(Key::Assignment(*colo), any(op)));
        }
        effects
    }
}

fn assignment(job: &Job, hosts: &[Host], assigned: Vec<Assigned>) -> Assignment {
    let quotas = job.quotas.as_ref().map(|quotas| Quotas {
        of: hosts.iter().map(|host| quotas.of[*host as usize]).collect(),
        ..quotas.clone()
    });
    Assignment {
        epoch: 0,
        serial: job.serial(),
        rules: job.rules,
        kind: job.kind,
        window: job.window,
        seed: job.seed,
        is_branched: job.is_branched,
        hosts: assigned,
        is_stopped: job.is_stopped,
        is_over: job.is_over,
        quotas,
        is_final: job.phase.is_end(),
    }
}
