//! The end of a simple capture: counts, quotas, samples. Owns who is in the draw; the draw itself is `sample`'s.
//!
//! Invariant: the file has packets of one round of quotas only, and a host that was left out of one is left out of all later ones.

use super::finish::absent;
use super::{Effect, Lead};
use crate::fleet::record::{Job, Outcome, Part, Phase, Quotas, Stage, Tally, Verdict};
use crate::fleet::sample::{Chance, Counts, Packet, cap, common_level, draw};
use crate::fleet::shares::Amount;
use crate::fleet::{Host, Kind, Now};
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
            return self.quote(job, 1, &is_in);
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
        let round = quotas.round + 1;
        self.quote(job, round, &is_in)
    }

    /// Whether a host that has packets at the level of the draw is waited for: for its sample, or, if none of its packets was drawn,
    /// for a sign that it could have given one. Only then had its packets the same chance as all others.
    fn owes(&self, host: usize, quotas: &Quotas, asked: Duration) -> bool {
        let Some(quota) = quotas.of[host] else { return false };
        let has_packets = self.counts(host).is_none_or(|counts| counts.at(quotas.level) > 0);
        let has_failed = self.parts[host].as_ref().is_some_and(|part| part.stage > Stage::Counted);
        match quota {
            0 => has_packets && (has_failed || self.heard[host].0.is_none_or(|heard| heard < asked)),
            _ => self.sample(host, quotas).is_none(),
        }
    }

    /// Draws how many packets each of these hosts gives.
    fn quote(&mut self, job: &Job, round: u32, is_in: &[bool]) -> Vec<Effect> {
        let Kind::Simple { packets } = job.kind else { return Vec::new() };
        let hosts = || (0..is_in.len()).filter(|host| is_in[*host]);
        let level = common_level(hosts().filter_map(|host| self.counts(host)), cap(packets));
        let there: Vec<u64> =
            hosts().map(|host| self.counts(host).map_or(0, |counts| counts.at(level))).collect();
        let mut dice = Chance::new(&[job.seed, u64::from(round)]);
        let drawn = draw(&mut dice, &there, packets);
        let mut of = vec![None; is_in.len()];
        hosts().zip(drawn).for_each(|(host, quota)| of[host] = Some(quota));
        let quotas = Some(Quotas { round, level, of });
        self.write(Job { quotas, phase: Phase::ConversionPending, ..job.clone() })
    }

    /// What a host gave for this round: as many packets as were asked for, and nothing else.
    fn sample(&self, host: usize, quotas: &Quotas) -> Option<&Vec<Packet>> {
        let (round, packets) = self.parts[host].as_ref()?.sample.as_ref()?;
        let is_whole = quotas.of[host] == Some(packets.len() as u64);
        (*round == quotas.round && is_whole).then_some(packets)
    }

    fn conclude_simple(&mut self, job: &Job, quotas: &Quotas) -> Vec<Effect> {
        let verdicts: Vec<_> =
            (0..quotas.of.len()).map(|host| Some(self.simple_verdict(host, quotas.of[host]))).collect();
        let is_in = |host: &usize| quotas.of[*host].is_some();
        if (0..quotas.of.len()).filter(is_in).any(|host| self.counts(host).is_none()) {
            return Vec::new();
        }
        let parts = (0..quotas.of.len()).filter(is_in).filter_map(|host| self.parts[host].as_ref());
        let all = parts.fold(Tally::default(), |sum, part| sum.plus(part.tally));
        let captured = quotas.of.iter().flatten().copied().fold(0, u64::saturating_add);
        let sampled = all.matched.saturating_sub(captured).saturating_sub(all.lost);
        let tally = Tally { captured: Amount::new(captured, 0), sampled, ..all };
        let outcome = Outcome { tally, reached: None, limit: None, absent: absent(&verdicts) };
        self.conclude(job, &verdicts, outcome)
    }

    fn simple_verdict(&self, host: usize, quota: Option<u64>) -> Verdict {
        match (quota, self.parts[host].as_ref().map(|part: &Part| part.stage)) {
            (Some(_), _) => Verdict::Delivered,
            (None, Some(Stage::Refused)) => Verdict::Refused,
            (None, Some(Stage::Failed)) => Verdict::Failed,
            (None, Some(_)) => Verdict::Lost,
            (None, None) if self.heard[host].1 => Verdict::Lost,
            (None, None) => Verdict::Missing,
        }
    }

    /// The packets of the file, if they are all known to this lead. None yet otherwise.
    pub(super) fn samples(&self, job: &Job) -> Option<Vec<(Host, Vec<Packet>)>> {
        let Some(quotas) = &job.quotas else { return Some(Vec::new()) };
        let giving = quotas.of.iter().zip(0..).filter(|(of, _)| of.is_some_and(|of| of > 0));
        giving.map(|(_, host)| Some((host, self.sample(host as usize, quotas)?.clone()))).collect()
    }
}
