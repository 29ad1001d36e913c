//! What must hold in every run, at every write and at the end. Owns the truth that the core is held against; it decides nothing.
//!
//! Invariant: what is checked is taken from the simulated hosts and the store, never from what a lead believes.

use super::host::SimHost;
use super::plan::{Plan, Time};
use super::store::Store;
use crate::fleet::record::{Claim, Job, Key, Outcome, Record, Verdict};
use crate::fleet::sample::{Packet, cap, common_level};
use crate::fleet::shares::{Amount, Pool, Reached};
use crate::fleet::{Host, Kind};
use std::collections::BTreeSet;

/// A frame that waits is no longer than this.
const FRAME: u64 = 1514;

/// Packets of a file, by host.
type Samples = Vec<(Host, Vec<Packet>)>;

pub struct Check {
    /// What is wrong, once something is.
    pub wrong: Option<String>,
    files: Vec<Amount>,
    sum: Amount,
    published: Option<(Outcome, Samples)>,
    faulty: BTreeSet<Host>,
    /// Data centers for which another host has spoken since.
    moved: BTreeSet<usize>,
    closed: Option<Pool>,
    /// Times that a node took up the capture.
    pub leads: u64,
    /// Captures that ended by their limit, and those in which every host answered then.
    pub reached: u64,
    pub exact: u64,
    pub taken_over: u64,
    /// Frames that found no share before the limit was closed, and when that was.
    pub missed_before_end: u64,
    missed: Vec<u64>,
    pub over_at: Option<Time>,
}

/// A host that has heard of the capture answers within this, over a network that loses one message of ten.
const ANSWER: Time = 2 * super::plan::SECOND;

/// Hosts that something befell. Only of the others it is promised that nothing of a limit stays with them.
fn faulty(plan: &Plan) -> BTreeSet<Host> {
    use super::network::{Network, Place};
    let hits = |place: Place, host: Host| match place {
        Place::Host(other) => other == host,
        Place::Colo(_) => Network::colo(plan, place) == plan.hosts[host as usize],
        Place::Api(_) | Place::Store | Place::All => false,
    };
    let is_hit = |host: &Host| {
        let is_cut = plan.cuts.iter().any(|cut| hits(cut.from, *host) || hits(cut.to, *host));
        let is_down = plan.crashes.iter().any(|crash| hits(crash.node, *host));
        // A lead that is cut off hears nobody, until another one takes over.
        let is_lead_cut =
            plan.cuts.iter().any(|cut| [cut.from, cut.to].iter().any(|place| matches!(place, Place::Api(_))));
        is_cut || is_down || is_lead_cut || plan.pauses.iter().any(|pause| hits(pause.node, *host))
    };
    let hit: BTreeSet<Host> = (0..plan.hosts.len() as Host).filter(is_hit).collect();
    if plan.hosts.len() <= plan.settings.branch_beyond {
        return hit;
    }
    // The one that speaks for a data center may be any of its hosts.
    let colos: BTreeSet<_> = hit.iter().map(|host| plan.hosts[*host as usize]).collect();
    (0..plan.hosts.len() as Host).filter(|host| colos.contains(&plan.hosts[*host as usize])).collect()
}

impl Check {
    pub fn new(plan: &Plan) -> Self {
        Self {
            wrong: None,
            files: vec![Amount::NONE; plan.hosts.len()],
            sum: Amount::NONE,
            published: None,
            faulty: faulty(plan),
            moved: BTreeSet::new(),
            closed: None,
            leads: 0,
            reached: 0,
            exact: 0,
            taken_over: 0,
            missed_before_end: 0,
            missed: vec![0; plan.hosts.len()],
            over_at: None,
        }
    }

    pub fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    fn hold(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    /// After each turn of a host: no limit is passed, and no budget is more than what is durably granted.
    pub fn files(&mut self, plan: &Plan, hosts: &[SimHost], host: Host, store: &Store) {
        let Some(limit) = plan.limit() else { return };
        let here = &hosts[host as usize];
        let files = here.files();
        let before = std::mem::replace(&mut self.files[host as usize], files);
        self.sum = self.sum.plus(files).minus(before);
        let sum = self.sum;
        self.hold(sum.fits(limit), || format!("{sum:?} are in files, and {limit:?} is the limit"));
        let is_branched = plan.hosts.len() > plan.settings.branch_beyond;
        if is_branched && plan.measures {
            return;
        }
        let key = if is_branched { Key::Shares(here.colo) } else { Key::Pool };
        let colo = plan.hosts.iter().zip(0..).filter(|(colo, _)| **colo == here.colo);
        let place = if is_branched {
            colo.map(|(_, other)| other).position(|other: Host| other == host)
        } else {
            Some(host as usize)
        };
        let (Some(Record::Pool(pool)), Some(place)) = (store.newest(key), place) else { return };
        let (share, plane) = (pool.holders[place], &here.plane);
        let is_covered =
            plane.raised.fits(share.granted) && (share.is_final || share.returned.fits(plane.lowered));
        self.hold(is_covered || !plane.is_attached, || {
            let (raised, lowered) = (plane.raised, plane.lowered);
            format!("host {host}: {share:?} is durable, and it has {raised:?}, and gave back {lowered:?}")
        });
    }

    /// At each write that the store applied.
    pub fn wrote(
        &mut self,
        plan: &Plan,
        key: Key,
        before: Option<&Record>,
        after: &Record,
        store: &Store,
        now: Time,
    ) {
        match (before, after) {
            (Some(Record::Job(before)), Record::Job(after)) => self.job(before, after),
            (before, Record::Claim(after)) => {
                let before = before.and_then(|before| Claim::try_from(before.clone()).ok());
                self.claim(key, before, *after);
            }
            (Some(Record::Assignment(before)), Record::Assignment(after)) => {
                self.hold(before.serial <= after.serial, || format!("assignment {after:?} after {before:?}"));
            }
            (Some(Record::Part(before)), Record::Part(after)) => {
                let goes_on = before.stage <= after.stage && before.version <= after.version;
                self.hold(goes_on, || format!("part {after:?} after {before:?}"));
            }
            (before, Record::Pool(pool)) => {
                self.hold(pool.check(), || format!("{pool:?} is more than there is"));
                if key == Key::Pool && pool.reached.is_some() && self.closed.is_none() {
                    self.closed = Some(pool.clone());
                    self.over_at = Some(now);
                    self.reached += 1;
                }
                if let Some(Record::Pool(before)) = before {
                    let only_more = before.holders.iter().zip(&pool.holders).all(|(before, after)| {
                        before.granted.fits(after.granted)
                            && (after.is_final || before.returned.fits(after.returned))
                    });
                    self.hold(only_more, || format!("{pool:?} after {before:?}"));
                }
                self.branch(plan, key, pool, store);
            }
            _ => {}
        }
    }

    /// Counts frames that found no share.
    pub fn missed(&mut self, host: Host, all: u64) {
        let before = std::mem::replace(&mut self.missed[host as usize], all);
        if self.over_at.is_none() {
            self.missed_before_end += all.saturating_sub(before);
        }
    }

    fn job(&mut self, before: &Job, after: &Job) {
        self.hold(before.phase <= after.phase, || format!("{:?} after {:?}", after.phase, before.phase));
        self.hold(!before.is_stopped || after.is_stopped, || "a stop is forgotten".to_owned());
        self.hold(before.members.is_empty() || before.members.len() == after.members.len(), || {
            "the members changed".to_owned()
        });
        let verdicts = before.members.iter().zip(&after.members);
        let keeps = verdicts
            .clone()
            .all(|(before, after)| before.verdict.is_none() || before.verdict == after.verdict);
        self.hold(keeps, || "a verdict changed".to_owned());
        self.hold(before.outcome.is_none() || before.outcome == after.outcome, || {
            "the outcome changed".to_owned()
        });
    }

    fn claim(&mut self, key: Key, before: Option<Claim>, after: Claim) {
        let Some(before) = before else { return };
        let is_renewal = after.holder == before.holder && after.epoch == before.epoch;
        self.hold(is_renewal || after.epoch > before.epoch, || format!("{after:?} after {before:?}"));
        self.taken_over += u64::from(!is_renewal);
        if let Key::Branch(colo) = key
            && !is_renewal
        {
            self.moved.insert(colo as usize);
        }
    }

    /// What a data center has is what the whole gave it.
    fn branch(&mut self, plan: &Plan, key: Key, pool: &Pool, store: &Store) {
        let (Key::Shares(colo), Some(Record::Pool(root))) = (key, store.newest(Key::Pool)) else { return };
        let share = root.holders[colo as usize];
        let _ = plan;
        let is_covered =
            pool.received.fits(share.granted) && (share.is_final || share.returned.fits(pool.given_back));
        self.hold(is_covered, || format!("data center {colo} has {pool:?}, and was given {share:?}"));
    }

    /// At each publication.
    pub fn published(
        &mut self,
        plan: &Plan,
        outcome: &Outcome,
        samples: &[(Host, Vec<Packet>)],
        hosts: &[SimHost],
        job: Option<&Record>,
    ) {
        let job_says = matches!(job, Some(Record::Job(job)) if job.outcome.as_ref() == Some(outcome));
        self.hold(job_says, || format!("{outcome:?} is published, and the job says otherwise"));
        self.hold(outcome.tally.check(), || format!("{outcome:?} does not balance"));
        let this = (outcome.clone(), samples.to_vec());
        match &self.published {
            Some(before) if *before != this => self.wrong("published twice, and not the same".to_owned()),
            _ => self.published = Some(this),
        }
        let Kind::Simple { .. } = plan.kind else { return };
        let mut seen = BTreeSet::new();
        for (host, packets) in samples {
            for packet in packets {
                let is_new = seen.insert((*host, *packet));
                self.hold(is_new, || format!("{packet:?} of host {host} is in the file twice"));
            }
            let kept = hosts[*host as usize].files().packets;
            self.hold(packets.len() as u64 <= kept, || format!("host {host} gave more than it kept"));
        }
        let (count, told) = (seen.len() as u64, outcome.tally.captured.packets);
        self.hold(count == told, || format!("{count} packets are in the file, and {told} are told"));
    }

    /// At the end: all is over, and everybody is named.
    pub fn end(
        &mut self,
        plan: &Plan,
        job: &Job,
        hosts: &[SimHost],
        pool: Option<&Record>,
    ) -> Result<(), String> {
        let Some((outcome, _)) = self.published.clone() else {
            return Err("nothing was published".to_owned());
        };
        self.named(plan, job, &outcome, hosts);
        self.sums(plan, job, &outcome, hosts);
        self.limit(plan, hosts, pool);
        self.wrong.take().map_or(Ok(()), Err)
    }

    fn named(&mut self, plan: &Plan, job: &Job, outcome: &Outcome, hosts: &[SimHost]) {
        let count = job.members.len();
        self.hold(count == plan.hosts.len(), || format!("{count} of {} hosts are members", plan.hosts.len()));
        for (host, member) in job.members.iter().enumerate() {
            let is_absent = outcome.absent.iter().any(|(absent, _)| *absent == host as Host);
            let verdict = member.verdict;
            self.hold(verdict.is_some(), || format!("host {host} has no verdict"));
            let is_named = is_absent != (verdict == Some(Verdict::Delivered));
            self.hold(is_named, || format!("host {host}: {verdict:?}, absent: {is_absent}"));
            let truth = &hosts[host];
            let is_right = match verdict {
                Some(Verdict::Delivered) => {
                    truth.delivered.is_some() || matches!(plan.kind, Kind::Simple { .. })
                }
                Some(Verdict::Refused) => truth.refuses,
                Some(Verdict::Missing | Verdict::Lost) => {
                    self.faulty.contains(&(host as Host)) || plan.stop_at.is_some() || is_late(plan)
                }
                _ => true,
            };
            self.hold(is_right, || format!("host {host} is {verdict:?}, and that is not true"));
        }
    }

    fn sums(&mut self, plan: &Plan, job: &Job, outcome: &Outcome, hosts: &[SimHost]) {
        let is_in = |host: &usize| job.members[*host].verdict == Some(Verdict::Delivered);
        let delivered = || (0..job.members.len()).filter(is_in);
        if let Kind::Simple { packets } = plan.kind {
            let kept = delivered().map(|host| hosts[host].files().packets).sum::<u64>();
            let members = delivered().filter_map(|host| hosts[host].disk.as_ref()?.part.as_ref());
            let counts: Vec<_> = members.filter_map(|part| part.counts.clone()).collect();
            let level = common_level(counts.iter(), cap(packets));
            let there: u64 = counts.iter().map(|counts| counts.at(level)).sum();
            let told = outcome.tally.captured.packets;
            self.hold(told == packets.min(there), || {
                format!("{told} packets of {there}, and {packets} were asked for")
            });
            let is_enough = there >= packets || (level == 0 && there == kept);
            self.hold(is_enough, || {
                let here: Vec<_> = hosts
                    .iter()
                    .map(|host| (host.ended, &host.durable, host.disk.as_ref().map(|d| &d.part)))
                    .collect();
                format!("{there} of {kept} kept packets are left at level {level} {here:?}")
            });
            let matched: u64 = counts.iter().map(|counts| counts.matched).sum();
            self.hold(matched == outcome.tally.matched, || "matched packets do not add up".to_owned());
        } else {
            let truth: Amount = delivered().map(|host| hosts[host].delivered.unwrap_or_default()).sum();
            let told = outcome.tally.captured;
            self.hold(truth == told, || format!("{truth:?} are in files, and {told:?} are told"));
        }
    }

    /// Who was not hit by anything had used up or given back everything when the limit was closed.
    fn limit(&mut self, plan: &Plan, hosts: &[SimHost], pool: Option<&Record>) {
        let Some(closed) = self.closed.clone() else { return };
        let (Some(limit), Some(Record::Pool(_))) = (plan.limit(), pool) else { return };
        let is_branched = plan.hosts.len() > plan.settings.branch_beyond;
        let free = closed.free();
        let is_out = match closed.reached {
            Some(Reached::Packets) => free.packets == 0,
            _ => free.bytes < FRAME,
        };
        self.hold(is_out, || format!("closed with {free:?} to give"));
        // One that had not heard of the capture by then, or whose refusal was not heard, could not answer.
        let over = self.over_at.unwrap_or(0);
        let is_unheard = |host: &SimHost| {
            if host.refuses {
                is_branched || !closed.holders[host.host as usize].is_final
            } else {
                host.attached_at.is_none_or(|at| at + ANSWER > over)
            }
        };
        for (holder, share) in closed.holders.iter().enumerate() {
            let is_here = |host: &&SimHost| {
                if is_branched { host.colo as usize == holder } else { host.host as usize == holder }
            };
            let members: Vec<_> = hosts.iter().filter(is_here).collect();
            if is_branched && self.moved.contains(&holder) {
                continue;
            }
            if members.iter().any(|host| self.faulty.contains(&host.host) || is_unheard(host)) {
                continue;
            }
            let used: Amount = members.iter().map(|host| host.files()).sum();
            let out = share.outstanding();
            let is_used = match closed.reached {
                Some(Reached::Packets) => used.packets == out.packets,
                _ => out.bytes >= used.bytes && out.bytes - used.bytes < FRAME,
            };
            self.hold(is_used, || {
                let here: Vec<_> =
                    members.iter().map(|host| (host.refuses, host.attached_at, &host.member)).collect();
                format!("holder {holder} has {out:?} at the end, and used {used:?} {here:?}")
            });
        }
        if self.faulty.is_empty() && self.moved.is_empty() && !hosts.iter().any(is_unheard) {
            self.exact += 1;
            let sum: Amount = hosts.iter().map(SimHost::files).sum();
            let is_exact = match closed.reached {
                Some(Reached::Packets) => sum.packets == limit.packets,
                _ => limit.bytes - sum.bytes < FRAME,
            };
            self.hold(is_exact, || format!("{sum:?} of {limit:?}, and every host answered"));
        }
    }
}

/// Whether hosts may hear of the capture too late without any fault of their own.
fn is_late(plan: &Plan) -> bool {
    const MARGIN: Time = 40 * super::plan::SECOND;
    plan.window < MARGIN
}
