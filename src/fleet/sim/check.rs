//! What must hold in every run, at every write and at the end. Owns the truth that the core is held against; it decides nothing.
//!
//! Invariant: what is checked is taken from the simulated hosts and the store, never from what a lead believes.

use super::host::SimHost;
use super::network::Place;
use super::plan::{Plan, Time};
use super::store::{Store, Stream};
use crate::fleet::member::Ended;
use crate::fleet::record::{Claim, Job, Key, Member, Outcome, Part, Parts, Phase, Record, Verdict};
use crate::fleet::sample::{Packet, cap, common_level};
use crate::fleet::shares::{Amount, Pool, Reached};
use crate::fleet::{Epoch, Host, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// A frame that waits is no longer than this.
const FRAME: u64 = 1514;

/// Packets of a file, by host.
type Samples = Vec<(Host, Vec<Packet>)>;

pub struct Check {
    /// What is wrong, once something is.
    pub wrong: Option<String>,
    /// Of every life of every host.
    pub numbers: BTreeSet<(Host, Epoch)>,
    files: Vec<Amount>,
    sum: Amount,
    published: Option<(Outcome, Samples)>,
    faulty: BTreeSet<Host>,
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
    /// When a frame first found no share after the whole limit was in files.
    full_at: Option<Time>,
    pub over_at: Option<Time>,
}

/// A host that has heard of the capture answers within this, over a network that loses one message of ten.
const ANSWER: Time = 2 * super::plan::SECOND;
/// A limit that is used up is closed within this, over the same network and one change of the lead, and of a host that speaks for a
/// data center.
const CLOSING: Time = 30 * super::plan::SECOND;
const CLOSING_BRANCHED: Time = 70 * super::plan::SECOND;
/// A host's turn, and what lies between its clock and the true time.
const SLACK: Time = super::plan::SECOND;

/// Hosts that something befell. Only of the others it is promised that nothing of a limit stays with them.
fn faulty(plan: &Plan) -> BTreeSet<Host> {
    use super::network::Network;
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
        let is_lost = Stream::PARTS.iter().any(|lost| plan.recreated.iter().any(|(_, of)| of == lost))
            || plan.purged.iter().any(|(_, key)| match key {
                Key::Part(of) => of == host,
                Key::Parts(colo) | Key::Assignment(colo) | Key::Shares(colo) => {
                    *colo == plan.hosts[*host as usize]
                }
                Key::Pool => true,
                _ => false,
            });
        is_cut
            || is_lost
            || plan.is_hostile(*host)
            || plan.new_disks.iter().any(|(_, of)| of == host)
            || is_down
            || is_lead_cut
            || plan.ails.iter().any(|(.., ailing)| ailing == host)
            || plan.pauses.iter().any(|pause| hits(pause.node, *host))
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
            closed: None,
            leads: 0,
            numbers: BTreeSet::new(),
            reached: 0,
            exact: 0,
            taken_over: 0,
            missed_before_end: 0,
            missed: vec![0; plan.hosts.len()],
            full_at: None,
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
        if plan.is_hostile(host) {
            // Nobody promises that it keeps to what it was granted.
            return;
        }
        let here = &hosts[host as usize];
        let files = here.files();
        let before = std::mem::replace(&mut self.files[host as usize], files);
        self.sum = self.sum.plus(files).minus(before);
        let sum = self.sum;
        self.hold(sum.fits(limit), || format!("{sum:?} are in files, and {limit:?} is the limit"));
        let is_branched = plan.hosts.len() > plan.settings.branch_beyond;
        if (is_branched && plan.measures) || plan.loses(Stream::Shares) {
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
                self.claim(before, *after);
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
    pub fn missed(&mut self, plan: &Plan, host: Host, all: u64, now: Time) {
        let before = std::mem::replace(&mut self.missed[host as usize], all);
        if self.over_at.is_some() {
            return;
        }
        self.missed_before_end += all.saturating_sub(before);
        let is_full = plan.limit().is_some_and(|limit| self.sum.packets == limit.packets);
        if is_full && all > before {
            self.full_at.get_or_insert(now);
        }
        let is_branched = plan.hosts.len() > plan.settings.branch_beyond;
        let closing = if is_branched { CLOSING_BRANCHED } else { CLOSING };
        let is_overdue = self.full_at.is_some_and(|at| now > at + closing);
        self.hold(!is_overdue || !plan.is_calm(), || "the limit is used up, and is not closed".to_owned());
    }

    /// While a host captures: not for longer than the window, whatever its wall clock says.
    pub fn time(&mut self, plan: &Plan, host: &SimHost, now: Time) {
        let end = host.attached_at.unwrap_or(now) + plan.window + SLACK;
        let is_in = now <= end || self.faulty.contains(&host.host);
        self.hold(is_in, || format!("host {} captures longer than the window", host.host));
    }

    /// A host ends its part: by time only if the window is over, or was by its clock when it began.
    pub fn ended(&mut self, plan: &Plan, host: &SimHost, why: Ended, now: Time) {
        let began = host.attached_at.unwrap_or(now);
        let ahead = plan.skew(Place::Host(host.host), began).max(0) as Time;
        let is_over = now + ahead + SLACK >= super::plan::ACCEPTED + plan.window;
        self.hold(why != Ended::Time || is_over, || format!("host {} ends before the window", host.host));
    }

    fn job(&mut self, before: &Job, after: &Job) {
        self.hold(before.phase <= after.phase, || format!("{:?} after {:?}", after.phase, before.phase));
        self.hold(!before.is_stopped || after.is_stopped, || "a stop is forgotten".to_owned());
        let names = |job: &Job| job.hosts().iter().map(|member| member.identity.clone()).collect::<Vec<_>>();
        self.hold(before.members.is_none() || names(before) == names(after), || {
            "the members changed".to_owned()
        });
        let verdicts = before.hosts().iter().zip(after.hosts());
        let keeps = verdicts
            .clone()
            .all(|(before, after)| before.verdict.is_none() || before.verdict == after.verdict);
        self.hold(keeps, || "a verdict changed".to_owned());
        self.hold(before.outcome.is_none() || before.outcome == after.outcome, || {
            "the outcome changed".to_owned()
        });
    }

    fn claim(&mut self, before: Option<Claim>, after: Claim) {
        let Some(before) = before else { return };
        let is_renewal = after.holder == before.holder && after.epoch == before.epoch;
        self.hold(is_renewal || after.epoch > before.epoch, || format!("{after:?} after {before:?}"));
        self.taken_over += u64::from(!is_renewal);
    }

    /// What a data center has is what the whole gave it.
    fn branch(&mut self, plan: &Plan, key: Key, pool: &Pool, store: &Store) {
        let (Key::Shares(colo), Some(Record::Pool(root))) = (key, store.newest(Key::Pool)) else { return };
        let share = root.holders[colo as usize];
        let is_covered = plan.loses(Stream::Shares)
            || pool.received.fits(share.granted) && (share.is_final || share.returned.fits(pool.given_back));
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

    /// Packets of each host in the file.
    pub fn chosen(&self) -> BTreeMap<Host, u64> {
        let samples = self.published.iter().flat_map(|(_, samples)| samples);
        samples.map(|(host, packets)| (*host, packets.len() as u64)).collect()
    }

    /// At the end: what a living host has to say of its part is in the store, also what was late.
    pub fn told(&mut self, plan: &Plan, host: &SimHost, store: &Store) {
        if plan.loses(Stream::Parts) || plan.loses(Stream::Assignments) || plan.is_hostile(host.host) {
            return;
        }
        let Some(part) = host.disk.as_ref().filter(|_| host.is_up).and_then(|disk| disk.part.as_ref()) else {
            return;
        };
        let alone = store.newest(Key::Part(host.host)).and_then(|record| Part::try_from(record.clone()).ok());
        let parts =
            store.newest(Key::Parts(host.colo)).and_then(|record| Parts::try_from(record.clone()).ok());
        let mut known = parts.into_iter().flat_map(|parts| parts.parts).flatten().chain(alone);
        let is_told = known.any(|known| known.host == host.host && known.stage == part.stage);
        self.hold(is_told, || format!("host {}: nobody knows that it is {:?}", host.host, part.stage));
    }

    /// At the end: all is over, and everybody is named.
    pub fn end(
        &mut self,
        plan: &Plan,
        job: &Job,
        hosts: &[SimHost],
        pool: Option<&Record>,
    ) -> Result<(), String> {
        // Where packets are lost that were drawn, nobody can make the file any more.
        let is_lost = plan.loses(Stream::Parts) || !plan.forged.is_empty();
        let is_failed = is_lost && job.phase == Phase::Failed && matches!(plan.kind, Kind::Simple { .. });
        let outcome = match (self.published.clone(), &job.outcome) {
            (Some((outcome, _)), _) => outcome,
            (None, Some(outcome)) if is_failed => outcome.clone(),
            _ => return Err("nothing was published".to_owned()),
        };
        self.named(plan, job, &outcome, hosts);
        self.sums(plan, job, &outcome, hosts);
        self.limit(plan, hosts, pool);
        self.remainder(plan, &outcome);
        self.wrong.take().map_or(Ok(()), Err)
    }

    fn named(&mut self, plan: &Plan, job: &Job, outcome: &Outcome, hosts: &[SimHost]) {
        let count = job.hosts().len();
        self.hold(count == plan.hosts.len(), || format!("{count} of {} hosts are members", plan.hosts.len()));
        for (host, member) in job.hosts().iter().enumerate() {
            let is_absent = outcome.absent.iter().any(|(absent, _)| *absent == host as Host);
            let verdict = member.verdict;
            self.hold(verdict.is_some(), || format!("host {host} has no verdict"));
            let is_named = is_absent != (verdict == Some(Verdict::Delivered));
            self.hold(is_named, || format!("host {host}: {verdict:?}, absent: {is_absent}"));
            let truth = &hosts[host];
            if plan.is_hostile(host as Host) {
                continue;
            }
            let is_right = match verdict {
                Some(Verdict::Delivered) => {
                    truth.delivered.is_some() || matches!(plan.kind, Kind::Simple { .. })
                }
                Some(Verdict::Refused) => truth.has_refused,
                Some(Verdict::Failed) => plan.ails.iter().any(|(.., ailing)| *ailing == host as Host),
                Some(Verdict::Missing | Verdict::Lost) => {
                    // A limit ends a capture before its window does, and who is silent is waited for so long and no longer.
                    let late = plan.settings.late.as_micros() as Time;
                    let named_at = self.over_at.map_or(Time::MAX, |closed| closed + late);
                    let over = named_at.min(super::plan::ACCEPTED + plan.window);
                    let is_unheard = truth.seen_at.is_none_or(|at| at + ANSWER > over);
                    self.faulty.contains(&(host as Host)) || plan.stop_at.is_some() || is_unheard
                }
                _ => true,
            };
            self.hold(is_right, || format!("host {host} is {verdict:?}, and that is not true"));
        }
    }

    fn sums(&mut self, plan: &Plan, job: &Job, outcome: &Outcome, hosts: &[SimHost]) {
        let is_file = |member: &Member| member.verdict == Some(Verdict::Delivered);
        let mut members = job.hosts().iter().zip(0..);
        let is_simple = matches!(plan.kind, Kind::Simple { .. });
        let has_new_disk = |host: Host| plan.new_disks.iter().any(|(_, of)| *of == host);
        if is_simple && members.clone().any(|(member, host)| is_file(member) && has_new_disk(host)) {
            // Its counts are nowhere any more.
            return;
        }
        if members.any(|(member, host)| is_file(member) && plan.is_hostile(host)) {
            // Others can only bound what a host says it captured.
            let limit = plan.limit().unwrap_or(Amount::new(u64::MAX, u64::MAX));
            let told = outcome.tally.captured;
            let is_bounded = told.fits(limit)
                || plan.loses(Stream::Shares)
                || plan.hosts.len() > plan.settings.branch_beyond;
            return self.hold(is_bounded, || format!("{told:?} are told, and {limit:?} is the limit"));
        }
        let is_in = |host: &usize| job.hosts()[*host].verdict == Some(Verdict::Delivered);
        let delivered = || (0..job.hosts().len()).filter(is_in);
        if let Kind::Simple { packets, .. } = plan.kind {
            let kept = delivered().map(|host| hosts[host].files().packets).sum::<u64>();
            let members = delivered().filter_map(|host| hosts[host].disk.as_ref()?.part.as_ref());
            let counts: Vec<_> = members.filter_map(|part| part.counts.clone()).collect();
            let level = common_level(counts.iter(), cap(packets));
            let there: u64 = counts.iter().map(|counts| counts.at(level)).sum();
            let told = outcome.tally.captured.packets;
            self.hold(told == packets.min(there), || {
                format!("{told} packets of {there}, and {packets} were asked for")
            });
            // What a crash took cannot be there.
            let is_cut = delivered()
                .filter_map(|host| hosts[host].disk.as_ref()?.part.as_ref())
                .any(|part| part.is_interrupted);
            let is_enough = there >= packets || (level == 0 && there == kept) || is_cut;
            self.hold(is_enough, || {
                let here: Vec<_> = hosts
                    .iter()
                    .map(|host| (host.ended, &host.durable, host.disk.as_ref().map(|d| &d.part)))
                    .collect();
                format!("{there} of {kept} kept packets are left at level {level} {here:?}")
            });
            for (host, part) in delivered().filter_map(|host| Some((host, hosts[host].disk.as_ref()?))) {
                let deepest = hosts[host].durable.kept.iter().map(|(_, level, _)| *level).max().unwrap_or(0);
                let level =
                    part.part.as_ref().and_then(|part| part.counts.as_ref()).map(|counts| counts.level);
                self.hold(level.is_none_or(|level| level >= deepest), || {
                    format!("host {host} counts level {level:?}, and was sampled at level {deepest}")
                });
            }
            let offered: u64 =
                delivered().filter_map(|host| hosts[host].offered).map(|all| all.packets).sum();
            self.hold(offered == outcome.tally.matched, || {
                format!("{offered} packets matched, and {} are told", outcome.tally.matched)
            });
            let matched: u64 = counts.iter().map(|counts| counts.matched).sum();
            self.hold(matched == outcome.tally.matched, || "matched packets do not add up".to_owned());
        } else {
            let truth: Amount = delivered().map(|host| hosts[host].delivered.unwrap_or_default()).sum();
            let told = outcome.tally.captured;
            self.hold(truth == told, || format!("{truth:?} are in files, and {told:?} are told"));
            let offered: u64 =
                delivered().filter_map(|host| hosts[host].offered).map(|all| all.packets).sum();
            let matched = outcome.tally.matched;
            let is_true = offered == matched || plan.mutant == super::plan::Mutant::CountsOneMore;
            self.hold(is_true, || format!("{offered} packets matched, and {matched} are told"));
        }
    }

    /// Every packet and byte of a limit is delivered, or it is said where it is.
    fn remainder(&mut self, plan: &Plan, outcome: &Outcome) {
        let Some(limit) = plan.limit() else { return };
        let Some(left) = &outcome.limit else {
            return self.wrong("nobody says what of the limit is not delivered".to_owned());
        };
        if !plan.forged.is_empty() {
            // A host that lies can say that it gave back what it has.
            return;
        }
        let held: Amount = left.held.iter().map(|(_, held, _)| *held).sum();
        let sum = outcome.tally.captured.plus(left.free).plus(held).plus(left.undelivered).plus(left.unknown);
        self.hold(sum == limit, || format!("{sum:?} of {limit:?} are accounted for: {outcome:?}"));
    }

    /// Who was not hit by anything had used up or given back everything when the limit was closed.
    fn limit(&mut self, plan: &Plan, hosts: &[SimHost], pool: Option<&Record>) {
        let Some(closed) = self.closed.clone() else { return };
        let (Some(limit), Some(Record::Pool(_))) = (plan.limit(), pool) else { return };
        if closed.reached == Some(Reached::Forgotten) {
            let is_lost = plan.loses(Stream::Shares);
            return self.hold(is_lost, || "a limit's record is taken for lost, and it is not".to_owned());
        }
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
            if host.has_refused || host.attached_at.is_none() {
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
        if self.faulty.is_empty() && !hosts.iter().any(is_unheard) {
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
