//! What a data center's hosts are told. Owns keeping each assignment as the job says; the job decides.
//!
//! Invariant: an assignment follows from the job's durable record alone, so any lead writes the same, and it is written only after
//! the limit's record says that its first shares are granted.

use super::{Effect, Lead};
use crate::fleet::held::{Answer, Held, Op};
use crate::fleet::record::{Assignment, Job, Key, Quotas, Record, any};
use crate::fleet::shares::{Amount, Pool};
use crate::fleet::{Colo, Host, Kind, Now};
use std::time::Duration;

/// One data center's assignment.
#[derive(Clone, Debug)]
pub(super) struct Post {
    held: Held<Assignment>,
    /// Where one host speaks for it: what its record of shares begins with is there.
    has_shares: bool,
    is_busy: bool,
    retry_at: Duration,
}

impl Post {
    fn new(epoch: u64) -> Self {
        Self { held: Held::new(epoch), has_shares: false, is_busy: false, retry_at: Duration::ZERO }
    }

    pub fn is_done(&self) -> bool {
        self.held.value().is_some_and(|assignment| assignment.is_final)
    }

    pub fn answered(&mut self, answer: Answer<Assignment>, now: Now, backoff: Duration) {
        self.held.answered(answer, now, backoff);
    }

    /// The record of shares is created once; that there is one already is as good.
    pub fn shares_answered(&mut self, answer: &Answer<Record>, now: Now, backoff: Duration) {
        self.is_busy = false;
        self.has_shares |= matches!(answer, Answer::Wrote(_) | Answer::Stale);
        self.retry_at = now.mono + backoff;
    }
}

impl Lead {
    fn hosts_of(job: &Job, colo: Colo) -> Vec<Host> {
        let members = job.members.iter().zip(0..);
        members.filter(|(member, _)| member.colo == colo).map(|(_, host)| host).collect()
    }

    /// Brings every assignment to what the job says.
    pub(super) fn post(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        let limit = if let Kind::Full { limit } = job.kind { limit } else { None };
        if limit.is_some() && self.pool.as_ref().is_none_or(|pool| pool.value().is_none()) {
            return Vec::new();
        }
        let epoch = self.epoch;
        for member in &job.members {
            self.posts.entry(member.colo).or_insert_with(|| Post::new(epoch));
        }
        let first = limit.map(|limit| Pool::dealt(limit, &self.weights(job), 4));
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
            let below = first.as_ref().filter(|_| job.is_branched).map(|first| {
                let received = first.holders[*colo as usize].granted;
                Pool::dealt(received, &vec![1; hosts.len()], 1)
            });
            if let Some(below) = &below
                && !post.has_shares
            {
                if !post.is_busy && now.mono >= post.retry_at {
                    post.is_busy = true;
                    let op = Op::Write { expected: 0, value: below.clone() };
                    effects.push(Effect::Store(Key::Shares(*colo), any(op)));
                }
                continue;
            }
            let share = |place: usize, host: Host| match (&below, &first) {
                (Some(below), _) => below.holders[place].granted,
                (None, Some(first)) => first.holders[host as usize].granted,
                (None, None) => Amount::NONE,
            };
            let shared = hosts.iter().enumerate().map(|(place, host)| (*host, share(place, *host))).collect();
            let op = post.held.write(assignment(job, &hosts, shared));
            effects.push(Effect::Store(Key::Assignment(*colo), any(op)));
        }
        effects
    }
}

fn assignment(job: &Job, hosts: &[Host], shared: Vec<(Host, Amount)>) -> Assignment {
    let quotas = job.quotas.as_ref().map(|quotas| Quotas {
        of: hosts.iter().map(|host| quotas.of[*host as usize]).collect(),
        ..quotas.clone()
    });
    Assignment {
        epoch: 0,
        serial: job.serial(),
        kind: job.kind,
        window: job.window,
        seed: job.seed,
        is_branched: job.is_branched,
        hosts: shared,
        is_stopped: job.is_stopped,
        quotas,
        is_final: job.phase.is_end(),
    }
}
