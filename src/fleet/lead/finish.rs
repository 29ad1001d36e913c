//! How a capture ends: who is waited for and how long, every member's verdict, the outcome. Owns verdicts; a host's own part says
//! what it captured.
//!
//! Invariant: every member has a verdict before the outcome is durable, and the outcome is durable before it is published.

use super::{Effect, Lead};
use crate::fleet::held::{Answer, Held, Op};
use crate::fleet::record::{Job, Key, Outcome, Part, Phase, Record, Remainder, Stage, Tally, Verdict};
use crate::fleet::shares::{Amount, Reached};
use crate::fleet::{Host, Kind, Now};
use std::collections::BTreeSet;
use std::time::Duration;

/// Whether the record of a member's part was read before it is said that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Not yet; from then on.
    At(Duration),
    /// It is being read.
    Asked,
    /// It was.
    Done,
}

impl Lead {
    fn part(&self, host: usize) -> Option<&Part> {
        self.parts[host].as_ref()
    }

    /// Whether a member's verdict is known, and which. None: it is waited for.
    fn verdict(&self, host: usize, is_late: bool, late: Duration, now: Now) -> Option<Verdict> {
        let part = self.part(host);
        match part.map(|part| part.stage) {
            Some(Stage::Delivered) if part.is_some_and(|part| self.is_granted(part)) => {
                return Some(Verdict::Delivered);
            }
            Some(Stage::Delivered) => return Some(Verdict::Failed),
            Some(Stage::Failed) => return Some(Verdict::Failed),
            Some(Stage::Refused) => return Some(Verdict::Refused),
            _ => {}
        }
        let (heard, had_part) = self.heard[host];
        let since = heard.or(self.over_at).unwrap_or(now.mono);
        let is_silent = now.mono >= since + late;
        // One that lives and does not end is not waited for without a bound.
        let is_stuck = part.is_none_or(|part| part.stage < Stage::Counted)
            && self.over_at.is_some_and(|over| now.mono >= over + self.settings.late_max);
        // Nor one that lives, has counted and never says what came of its files: a delivery has an end of its own long before. In a
        // simple capture there is none, and its lead waits for others.
        let delivers = self.job.value().is_some_and(|job| matches!(job.kind, Kind::Full { .. }));
        let is_undelivered = part.is_some_and(|part| delivers && part.stage == Stage::Counted)
            && self.over_at.is_some_and(|over| now.mono >= over + self.settings.delivery);
        let verdict = match part.is_some() || had_part {
            false => is_late.then_some(Verdict::Missing),
            true => (is_late && (is_silent || is_stuck || is_undelivered)).then_some(Verdict::Lost),
        };
        verdict.filter(|_| self.looks[host] == Look::Done)
    }

    /// Reads the parts of members that would be taken for absent: this lead may not have been told of them.
    pub(super) fn look(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        let simple = matches!(job.kind, Kind::Simple { .. });
        let late = if simple { self.settings.late_simple } else { self.settings.late };
        let is_late = self.over_at.is_some_and(|over| now.mono >= over + late);
        if !is_late || job.outcome.is_some() || job.quotas.is_some() {
            return Vec::new();
        }
        let is_open = |host: &usize| self.part(*host).is_none_or(|part| part.stage <= Stage::Counted);
        let open = (0..job.hosts().len()).filter(is_open).collect();
        self.read(job, open, now)
    }

    /// Reads the parts of these hosts that were not read yet.
    pub(super) fn read(&mut self, job: &Job, hosts: Vec<usize>, now: Now) -> Vec<Effect> {
        let mut keys = BTreeSet::new();
        for host in hosts {
            let member = &job.hosts()[host];
            if matches!(self.looks[host], Look::At(at) if now.mono >= at) {
                self.looks[host] = Look::Asked;
                keys.insert(if job.is_branched { Key::Parts(member.colo) } else { Key::Part(host as Host) });
            }
        }
        keys.into_iter().map(|key| Effect::Store(key, Op::Read)).collect()
    }

    /// What was found there.
    pub(super) fn looked(&mut self, key: Key, answer: Answer<Record>, now: Now) {
        let next = match answer {
            Answer::Read(_, found) => {
                found.into_iter().for_each(|record| self.saw(key, record, now));
                Look::Done
            }
            _ => Look::At(now.mono + self.settings.backoff),
        };
        let hosts = self.job.value().map(Job::hosts).unwrap_or_default();
        for ((look, member), host) in self.looks.iter_mut().zip(hosts).zip(0..) {
            if *look == Look::Asked && (key == Key::Parts(member.colo) || key == Key::Part(host)) {
                *look = next;
            }
        }
    }

    /// Verdicts as far as they are known. `late`: how long after the end a silent member is waited for.
    pub(super) fn verdicts(&mut self, job: &Job, late: Duration, now: Now) -> Vec<Option<Verdict>> {
        self.note_end(job, now);
        let is_late = self.over_at.is_some_and(|over| now.mono >= over + late);
        (0..job.hosts().len()).map(|host| self.verdict(host, is_late, late, now)).collect()
    }

    fn note_end(&mut self, job: &Job, now: Now) {
        if now.wall >= job.window.end || job.is_stopped || job.is_over || self.reached().is_some() {
            self.over_at.get_or_insert(now.mono);
        }
    }

    /// Whether the window is over for some time and a host is not counted: its clock may say otherwise.
    pub(super) fn goes_on_too_long(&mut self, job: &Job, now: Now) -> bool {
        let is_open = |part: &Option<Part>| part.as_ref().is_none_or(|part| part.stage < Stage::Counted);
        now.wall >= job.window.end + self.settings.grace && self.parts.iter().any(is_open)
    }

    pub(super) fn reached(&self) -> Option<crate::fleet::shares::Reached> {
        self.pool.as_ref().and_then(|pool| pool.value()).and_then(|pool| pool.reached)
    }

    /// The change of the job that its end asks for.
    pub(super) fn finish(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        if matches!(job.kind, Kind::Simple { .. }) {
            return self.finish_simple(job, now);
        }
        if matches!(job.kind, Kind::Full { limit: Some(_) }) && !self.pool.as_ref().is_some_and(Held::is_own)
        {
            // What each host was granted stands there, and what of the limit is not delivered.
            return Vec::new();
        }
        let verdicts = self.verdicts(job, self.settings.late, now);
        let is_counted = |host: usize| {
            verdicts[host].is_some() || self.part(host).is_some_and(|part| part.stage >= Stage::Counted)
        };
        if verdicts.iter().any(Option::is_none) {
            let all_counted = (0..verdicts.len()).all(is_counted);
            if all_counted && job.phase == Phase::Running {
                return self.write(Job { phase: Phase::ConversionPending, ..job.clone() });
            }
            return Vec::new();
        }
        let outcome = self.outcome(job, &verdicts);
        self.conclude(job, &verdicts, outcome)
    }

    pub(super) fn conclude(
        &mut self,
        job: &Job,
        verdicts: &[Option<Verdict>],
        outcome: Outcome,
    ) -> Vec<Effect> {
        let mut job = job.clone();
        for (member, verdict) in job.members.iter_mut().flatten().zip(verdicts) {
            member.verdict = *verdict;
        }
        job.phase = Phase::ConversionRunning;
        job.outcome = Some(outcome);
        self.write(job)
    }

    fn outcome(&self, job: &Job, verdicts: &[Option<Verdict>]) -> Outcome {
        let delivered = |host: &usize| verdicts[*host] == Some(Verdict::Delivered);
        let parts = (0..verdicts.len()).filter(delivered).filter_map(|host| self.part(host));
        let tally = parts.fold(Tally::default(), |sum, part| sum.plus(part.tally));
        let limit = self.remainder(job, verdicts, tally.captured);
        Outcome { tally, reached: self.reached(), limit, absent: absent(verdicts) }
    }

    /// What of the limit is not delivered: what nobody has, what holders have that did not end, what was captured in vain.
    fn remainder(&self, job: &Job, verdicts: &[Option<Verdict>], delivered: Amount) -> Option<Remainder> {
        let pool = self.desk.applied(self.pool.as_ref()?.value()?);
        let mut left = Remainder { free: pool.free(), ..Remainder::default() };
        let mut ended = vec![Amount::NONE; pool.holders.len()];
        for (host, member) in job.hosts().iter().enumerate() {
            let holder = if job.is_branched { member.colo as usize } else { host };
            let used = self.counted(host).unwrap_or_default();
            ended[holder] = ended[holder].plus(used);
            if verdicts[host] != Some(Verdict::Delivered) {
                left.undelivered = left.undelivered.plus(used);
            }
        }
        if pool.reached == Some(Reached::Forgotten) {
            left.unknown = pool.received.minus(delivered).minus(left.undelivered);
            return Some(left);
        }
        // Also of one that ended, and whose part is lost.
        for (holder, share) in pool.holders.iter().enumerate() {
            let held = share.outstanding().minus(ended[holder]);
            if !held.is_none() {
                left.held.push((holder as u32, held, share.used.minus(ended[holder])));
            }
        }
        Some(left)
    }

    pub(super) fn publish(&mut self, job: &Job, outcome: &Outcome, now: Now) -> Vec<Effect> {
        if self.is_published {
            let phase = if outcome.tally.captured.packets > 0 { Phase::Success } else { Phase::Failed };
            return self.write(Job { phase, ..job.clone() });
        }
        if self.is_publishing || now.mono < self.publish_at {
            return Vec::new();
        }
        let Some(samples) = self.samples(job) else {
            return self.without_samples(job, outcome, now);
        };
        self.is_publishing = true;
        vec![Effect::Publish(Box::new(outcome.clone()), samples)]
    }
}

/// Members without packets in the outcome.
pub(super) fn absent(verdicts: &[Option<Verdict>]) -> Vec<(Host, Verdict)> {
    let known = verdicts.iter().zip(0..).filter_map(|(verdict, host)| verdict.map(|verdict| (host, verdict)));
    known.filter(|(_, verdict)| *verdict != Verdict::Delivered).collect()
}
