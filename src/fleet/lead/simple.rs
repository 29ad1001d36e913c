//! The end of a simple capture: counts, quotas, samples. Owns who is in the draw; the draw itself is `sample`'s.
//!
//! Invariant: the file has packets of one round of quotas only, and a host that was left out of one is left out of all later ones.

use super::finish::{Look, absent};
use super::{Effect, Lead};
use crate::fleet::held::{Answer, Op};
use crate::fleet::record::{Job, Key, Member, Outcome, Phase, Quotas, Record, Stage, Tally, Verdict};
use crate::fleet::sample::{Chance, Counts, Packet, cap, common_level, draw};
use crate::fleet::shares::Amount;
use crate::fleet::{Host, Kind, Now};
use std::collections::BTreeSet;
use std::time::Duration;

impl Lead {
    fn counts(&self, host: usize) -> Option<&Counts> {
        self.parts[host].as_ref().and_then(|part| part.counts.as_ref())
    }

    pub(super) fn finish_simple(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        let late = self.settings.late_simple;
        let Some(quotas) = &job.quotas else {
            let verdicts = self.verdicts(job, late, now);
            let is_waited_for = |host: usize| verdicts[host].is_none() && self.counts(host).is_none();
            if (0..verdicts.len()).any(is_waited_for) {
                return Vec::new();
            }
            let is_in: Vec<bool> = (0..verdicts.len())
                .map(|host| verdicts[host].is_none() && self.counts(host).is_some())
                .collect();
            let verdicts: Vec<_> =
                (0..verdicts.len()).map(|host| verdicts[host].filter(|_| !is_in[host])).collect();
            return self.quote(job, 1, &is_in, &verdicts);
        };
        let asked = match self.asked_at {
            Some((round, at)) if round == quotas.round => at,
            _ => {
                self.asked_at = Some((quotas.round, now.mono));
                now.mono
            }
        };
        let owing: Vec<usize> = (0..quotas.of.len()).filter(|host| self.owes(*host, quotas, asked)).collect();
        if owing.is_empty() {
            return self.conclude_simple(job, quotas);
        }
        let is_gone = |host: &usize| {
            let is_silent = now.mono >= self.heard[*host].0.unwrap_or(asked).max(asked) + late;
            let cannot = self.parts[*host].as_ref().is_some_and(|part| part.stage > Stage::Counted);
            cannot || is_silent || now.mono >= asked + self.settings.late_max
        };
        let gone: Vec<usize> = owing.into_iter().filter(is_gone).collect();
        if gone.is_empty() {
            return Vec::new();
        }
        // A new lead may not have seen all counts yet; without them nothing can be drawn.
        let is_in: Vec<bool> =
            (0..quotas.of.len()).map(|host| quotas.of[host].is_some() && !gone.contains(&host)).collect();
        if (0..is_in.len()).any(|host| is_in[host] && self.counts(host).is_none()) {
            return Vec::new();
        }
        let left_out = |host: usize| gone.contains(&host).then(|| self.verdict_of_gone(host));
        let verdicts: Vec<_> = (0..is_in.len()).map(left_out).collect();
        self.quote(job, quotas.round + 1, &is_in, &verdicts)
    }

    fn verdict_of_gone(&self, host: usize) -> Verdict {
        match self.parts[host].as_ref().map(|part| part.stage) {
            Some(Stage::Failed) => Verdict::Failed,
            Some(Stage::Refused) => Verdict::Refused,
            _ => Verdict::Lost,
        }
    }

    /// Whether a host that has packets at the level of the draw is waited for: for its sample, or, if none of its packets was drawn,
    /// for a sign that it could have given one. Only then had its packets the same chance as all others.
    fn owes(&self, host: usize, quotas: &Quotas, asked: Duration) -> bool {
        let Some(quota) = quotas.of[host] else { return false };
        let Some(counts) = self.counts(host) else { return true };
        let has_packets = counts.at(quotas.level) > 0;
        let has_failed = self.parts[host].as_ref().is_some_and(|part| part.stage > Stage::Counted);
        match quota {
            0 => has_packets && (has_failed || self.heard[host].0.is_none_or(|heard| heard < asked)),
            _ => !self.gives(host, quotas),
        }
    }

    /// Draws how many packets each of these hosts gives. Why another one is left out is written with it: the next lead may not have
    /// seen its part yet.
    fn quote(&mut self, job: &Job, round: u32, is_in: &[bool], verdicts: &[Option<Verdict>]) -> Vec<Effect> {
        let Kind::Simple { packets, .. } = job.kind else { return Vec::new() };
        let hosts = || (0..is_in.len()).filter(|host| is_in[*host]);
        let level = common_level(hosts().filter_map(|host| self.counts(host)), cap(packets));
        let there: Vec<u64> =
            hosts().map(|host| self.counts(host).map_or(0, |counts| counts.at(level))).collect();
        let mut dice = Chance::new(&[job.seed, u64::from(round)]);
        let drawn = draw(&mut dice, &there, packets);
        let mut of = vec![None; is_in.len()];
        hosts().zip(drawn).for_each(|(host, quota)| of[host] = Some(quota));
        let mut job = Job { quotas: Some(Quotas { round, level, of }), ..job.clone() };
        for (member, verdict) in job.members.iter_mut().flatten().zip(verdicts) {
            member.verdict = member.verdict.or(*verdict);
        }
        job.phase = Phase::ConversionPending;
        self.write(job)
    }

    /// Whether a host gave for this round as many packets as were asked for, each once.
    fn gives(&self, host: usize, quotas: &Quotas) -> bool {
        let given = self.parts[host].as_ref().and_then(|part| part.sample.as_ref());
        let Some(given) = given.filter(|given| given.round == quotas.round) else { return false };
        match given.chunks {
            0 => quotas.of[host] == Some(given.packets.len() as u64),
            _ => self.whole.contains(&(host as Host, given.round)),
        }
    }

    /// In so many records it says that it gave them; more than packets are none.
    fn chunks(&self, host: usize, quotas: &Quotas) -> u32 {
        let given = self.parts[host].as_ref().and_then(|part| part.sample.as_ref());
        let given = given.filter(|given| given.round == quotas.round && !self.gives(host, quotas));
        let most = quotas.of[host].unwrap_or(0);
        given.map_or(0, |given| given.chunks).min(u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// Reads the chunks of samples that this lead has not.
    pub(super) fn fetch(&mut self, job: &Job, now: Now) -> Vec<Effect> {
        let Some(quotas) = job.quotas.as_ref().filter(|_| !job.phase.is_end()) else { return Vec::new() };
        let mut effects = Vec::new();
        for host in 0..quotas.of.len() {
            for chunk in 0..self.chunks(host, quotas) {
                let key = (host as Host, chunk);
                let is_here = self.fetched.get(&key).is_some_and(|(round, _)| *round == quotas.round);
                let look = self.fetching.entry(key).or_insert(Look::At(now.mono));
                if !is_here && matches!(*look, Look::At(at) if now.mono >= at) {
                    *look = Look::Asked;
                    effects.push(Effect::Store(Key::Chunk(host as Host, chunk), Op::Read));
                }
            }
        }
        effects
    }

    /// A chunk was read. One of another round is an old one.
    pub(super) fn fetched(&mut self, host: Host, chunk: u32, answer: Answer<Record>, now: Now) {
        self.fetching.insert((host, chunk), Look::At(now.mono + self.settings.backoff));
        let Answer::Read(_, Some(Record::Chunk(found))) = answer else { return };
        self.fetched.insert((host, chunk), (found.round, found.packets));
        let Some(quotas) = self.job.value().and_then(|job| job.quotas.clone()) else { return };
        let Some(quota) = quotas.of.get(host as usize).copied().flatten() else { return };
        let all = self.chunks(host as usize, &quotas);
        let packets = self.gather(host, all, quotas.round);
        let different: Option<BTreeSet<&Packet>> = packets.as_ref().map(|packets| packets.iter().collect());
        if packets
            .as_ref()
            .zip(different)
            .is_some_and(|(all, different)| all.len() as u64 == quota && different.len() == all.len())
        {
            self.whole.insert((host, quotas.round));
        }
    }

    fn gather(&self, host: Host, chunks: u32, round: u32) -> Option<Vec<Packet>> {
        let of = |chunk| self.fetched.get(&(host, chunk)).filter(|(of, _)| *of == round);
        let all: Option<Vec<_>> = (0..chunks).map(|chunk| of(chunk).map(|(_, packets)| packets)).collect();
        Some(all?.into_iter().flatten().copied().collect())
    }

    /// What a host gave for this round, if it is all that was asked for.
    fn sample(&self, host: usize, quotas: &Quotas) -> Option<Vec<Packet>> {
        let given = self.parts[host].as_ref()?.sample.as_ref().filter(|_| self.gives(host, quotas))?;
        match given.chunks {
            0 => Some(given.packets.clone()),
            chunks => self.gather(host as Host, chunks, quotas.round),
        }
    }

    fn conclude_simple(&mut self, job: &Job, quotas: &Quotas) -> Vec<Effect> {
        let members = job.hosts().iter().zip(&quotas.of);
        let verdict = |(member, quota): (&Member, &Option<u64>)| {
            if quota.is_some() { Some(Verdict::Delivered) } else { member.verdict }
        };
        let verdicts: Vec<_> = members.map(verdict).collect();
        let is_in = |host: &usize| quotas.of[*host].is_some();
        let parts = (0..quotas.of.len()).filter(is_in).filter_map(|host| self.parts[host].as_ref());
        let all = parts.fold(Tally::default(), |sum, part| sum.plus(part.tally));
        let captured = quotas.of.iter().flatten().copied().fold(0, u64::saturating_add);
        let sampled = all.matched.saturating_sub(captured).saturating_sub(all.lost);
        let tally = Tally { captured: Amount::new(captured, 0), sampled, ..all };
        let outcome = Outcome { tally, reached: None, limit: None, absent: absent(&verdicts) };
        self.conclude(job, &verdicts, outcome)
    }

    /// An earlier lead decided by samples that this one has not: they were not told to it, or they are lost since. Then the file is
    /// there already, or nobody can make it any more and the capture has failed.
    pub(super) fn without_samples(&mut self, job: &Job, outcome: &Outcome, now: Now) -> Vec<Effect> {
        let since = *self.missing_since.get_or_insert(now.mono);
        let Some(quotas) = &job.quotas else { return Vec::new() };
        let is_missing =
            |host: &usize| quotas.of[*host].is_some_and(|of| of > 0) && !self.gives(*host, quotas);
        let missing = (0..quotas.of.len()).filter(is_missing).collect();
        let reads = self.read(job, missing, now);
        if !reads.is_empty() || now.mono < since + self.settings.late_simple {
            return reads;
        }
        if self.not_found_at.is_some_and(|at| at >= since + self.settings.late_max) {
            return self.write(Job { phase: Phase::Failed, ..job.clone() });
        }
        self.is_publishing = true;
        vec![Effect::Find(Box::new(outcome.clone()))]
    }

    /// The packets of the file, if they are all known to this lead. None yet otherwise.
    pub(super) fn samples(&self, job: &Job) -> Option<Vec<(Host, Vec<Packet>)>> {
        let Some(quotas) = &job.quotas else { return Some(Vec::new()) };
        let giving = quotas.of.iter().zip(0..).filter(|(of, _)| of.is_some_and(|of| of > 0));
        giving.map(|(_, host)| Some((host, self.sample(host as usize, quotas)?))).collect()
    }
}
