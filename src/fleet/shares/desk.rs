//! Who gets how much, and what is called back when nothing is left: the part of a lead or branch that is not durable. Owns asks and
//! rounds of recalls; a new lead begins without them, and holders that are still in need ask again.
//!
//! The end of a limit: nothing is free and somebody needs more, so a *soft* round asks all others for what they do not need soon,
//! then a *hard* one for everything. Nothing is granted during a round, so after a hard round that all have answered everything
//! unused is free, and if the smallest need does not fit into that, the limit is reached.
//!
//! Invariant: what is decided is written before it is told; this proposes the record, and tells only by the record that is durable.

use super::{Amount, Holder, Pool, Reached, Report};
use crate::fleet::settings::Settings;
use crate::fleet::{Down, Epoch, Now, first_number};
use std::collections::BTreeSet;
use std::time::Duration;

/// What goes out: to which holder, and what.
pub type Sent = (Holder, Down);

/// A round of recalls.
#[derive(Clone, Debug)]
struct Round {
    number: u64,
    is_hard: bool,
    started: Duration,
    sent: Option<Duration>,
    /// How often it was sent. Silence is counted in these: a lead that stood still itself has not waited.
    sends: u32,
    waiting: BTreeSet<Holder>,
}

/// The volatile part of a pool.
#[derive(Clone, Debug)]
pub struct Desk {
    settings: Settings,
    known: Vec<Option<Report>>,
    asked: Vec<Duration>,
    open: BTreeSet<Holder>,
    /// Holders that did not answer a whole round. They are not waited for until they are heard again.
    mute: BTreeSet<Holder>,
    round: Option<Round>,
    /// The last number of a round; rises over leads because their epoch is its upper half.
    number: u64,
    answers: BTreeSet<Holder>,
    closed_at: Option<Duration>,
    /// Holders that the last round gave something to and that are not in need again, and since when. A recall that follows at once
    /// would take back what they had no time to use.
    dealt: BTreeSet<Holder>,
    dealt_at: Duration,
    /// Reports came that the durable record does not have.
    is_news: bool,
}

impl Desk {
    /// Of a writer with this epoch.
    #[must_use]
    pub fn new(holders: usize, epoch: Epoch, settings: Settings) -> Self {
        Self {
            settings,
            known: vec![None; holders],
            asked: vec![Duration::ZERO; holders],
            open: BTreeSet::new(),
            mute: BTreeSet::new(),
            round: None,
            number: first_number(epoch),
            answers: BTreeSet::new(),
            closed_at: None,
            dealt: BTreeSet::new(),
            dealt_at: Duration::ZERO,
            is_news: false,
        }
    }

    /// A holder reports.
    pub fn told(&mut self, holder: Holder, report: Report, now: Now) {
        let Some(known) = self.known.get_mut(holder as usize) else { return };
        if known.is_some_and(|known| known.is_final || known.at >= report.at) {
            return;
        }
        *known = Some(report);
        self.is_news = true;
        self.mute.remove(&holder);
        if report.needs.is_some() || !report.wants.is_none() {
            self.open.insert(holder);
            self.asked[holder as usize] = now.mono;
            self.answers.insert(holder);
        } else {
            self.open.remove(&holder);
        }
    }

    /// The durable record with all that was reported since.
    #[must_use]
    pub fn applied(&self, durable: &Pool) -> Pool {
        let mut pool = durable.clone();
        for (holder, report) in self.known.iter().enumerate() {
            if let Some(report) = report {
                pool.report(holder as Holder, report);
            }
        }
        pool
    }

    /// Whether [`Self::turn`] or a branch's turn could have anything to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.round.is_none() && self.answers.is_empty() && !self.is_news
    }

    fn needs(&self, holder: Holder) -> Option<Amount> {
        self.known[holder as usize].and_then(|known| known.needs)
    }

    /// The smallest need that waits, by bytes, because a frame is one packet.
    #[must_use]
    pub fn smallest_need(&self) -> Option<Amount> {
        self.open
            .iter()
            .filter_map(|holder| self.needs(*holder))
            .min_by_key(|need| (need.bytes, need.packets))
    }

    /// What those whose asks are open would like to have.
    #[must_use]
    pub fn wants(&self) -> Amount {
        self.open.iter().filter_map(|holder| self.known[*holder as usize]).map(|known| known.wants).sum()
    }

    /// Takes all open asks off that are of no use: their holder is done, or does not know yet what it has.
    fn sift(&mut self, pool: &Pool) {
        let known = &self.known;
        self.open.retain(|holder| {
            let share = pool.holders[*holder as usize];
            let knows = known[*holder as usize].is_some_and(|known| known.granted == share.granted);
            !share.is_final && knows
        });
    }

    /// Holders that capture, or ask to: one at least.
    fn active(&self, pool: &Pool) -> u64 {
        let is_active = |(share, known): &(&super::Share, &Option<Report>)| {
            !share.is_final && known.is_some_and(|known| !known.used.is_none() || known.needs.is_some())
        };
        (pool.holders.iter().zip(&self.known).filter(is_active).count() as u64).max(1)
    }

    /// Grants what is free to open asks, in proportion to what they want: half of it, so that others can ask too, or all of it.
    pub fn serve(&mut self, pool: &mut Pool, deals_all: bool) -> bool {
        self.sift(pool);
        let mut free = pool.free();
        let wanted = self.wants();
        let portion = if deals_all { free } else { free.part(1, 2) };
        // The host that asks first leaves as much to each other host that captures.
        let most = if deals_all { free } else { free.part(1, 2 * self.active(pool)) };
        let mut has_granted = false;
        // Those who refuse frames come first: what is left for the others may be nothing.
        let (dry, others): (Vec<Holder>, Vec<Holder>) =
            self.open.iter().partition(|holder| self.needs(**holder).is_some());
        for holder in dry.into_iter().chain(others) {
            let Some(known) = self.known[holder as usize] else { continue };
            let fair = portion.in_proportion(known.wants, wanted.max(Amount::new(1, 1))).min(most);
            let least = if deals_all { Amount::NONE } else { known.wants.min(LEAST) };
            let give = known.wants.min(fair.max(least)).max(known.needs.unwrap_or_default()).min(free);
            if known.needs.is_some_and(|need| !need.fits(give)) {
                continue;
            }
            self.open.remove(&holder);
            if !give.is_none() {
                pool.grant_of(holder, give);
                free = free.minus(give);
                has_granted = true;
            }
        }
        has_granted
    }

    /// Begins a round, of which the answers of those count that hold something or may. Its number is the desk's own: that of a round
    /// above is another writer's.
    pub fn begin(&mut self, pool: &Pool, is_hard: bool, now: Now) {
        self.number += 1;
        let waits = |holder: &Holder| {
            let share = pool.holders[*holder as usize];
            !share.is_final && !share.granted.is_none()
        };
        let waiting = (0..pool.holders.len() as Holder).filter(waits).collect();
        self.round =
            Some(Round { number: self.number, is_hard, started: now.mono, sent: None, sends: 0, waiting });
    }

    /// Whether the round that is under way is hard.
    #[must_use]
    pub fn is_hard(&self) -> Option<bool> {
        self.round.as_ref().map(|round| round.is_hard)
    }

    /// Ends the round.
    pub fn finish(&mut self) {
        self.round = None;
    }

    /// Whether all have answered that are not mute. Those that are silent for too long become mute.
    pub fn is_answered(&mut self, pool: &Pool, silent: Duration, now: Now) -> bool {
        let Some(round) = &mut self.round else { return true };
        let known = &self.known;
        // An answer by one that had not heard of its last grant leaves that grant out.
        round.waiting.retain(|holder| {
            let share = pool.holders[*holder as usize];
            let has = known[*holder as usize]
                .is_some_and(|known| known.recalled >= round.number && known.granted == share.granted);
            !(has || share.is_final)
        });
        let is_over = round.sent.is_some_and(|sent| now.mono >= sent + self.settings.resend);
        if is_over && self.settings.resend * round.sends >= silent {
            self.mute.extend(round.waiting.iter().copied());
        }
        round.waiting.is_subset(&self.mute)
    }

    /// Whether the round is under way for so long.
    #[must_use]
    pub fn has_waited(&self, time: Duration, now: Now) -> bool {
        self.round.as_ref().is_some_and(|round| now.mono >= round.started + time)
    }

    /// Recalls that are due, again to those that have not answered.
    pub fn recalls(&mut self, pool: &Pool, now: Now) -> Vec<Sent> {
        let resend = self.settings.resend;
        let Some(round) = &mut self.round else { return Vec::new() };
        if round.sent.is_some_and(|sent| now.mono < sent + resend) {
            return Vec::new();
        }
        round.sent = Some(now.mono);
        round.sends += 1;
        let recall = |holder: &Holder| {
            let granted = pool.holders[*holder as usize].granted;
            (*holder, Down::Recall { round: round.number, is_hard: round.is_hard, granted })
        };
        round.waiting.iter().map(recall).collect()
    }

    /// What the whole limit's owner does now: the record to write, if it changes, and what to send. `durable` is what is granted.
    pub fn turn(&mut self, durable: &Pool, now: Now) -> (Option<Pool>, Vec<Sent>) {
        if durable.reached.is_some() {
            return (None, self.closed(durable, now));
        }
        let mut pool = self.applied(durable);
        self.is_news = false;
        let has_changed = match self.is_hard() {
            None => {
                let has_granted = self.serve(&mut pool, false);
                let open = &self.open;
                self.dealt.retain(|holder| !open.contains(holder));
                let is_used = self.dealt.is_empty() || now.mono >= self.dealt_at + self.settings.patience;
                if !has_granted
                    && is_used
                    && let Some(need) = self.smallest_need()
                {
                    let is_hard = self.is_nearly_out(&pool, need);
                    self.begin(&pool, is_hard, now);
                }
                has_granted
            }
            Some(is_hard) => self.conclude(&mut pool, is_hard, now),
        };
        let sent = self.recalls(&self.applied(durable), now);
        (has_changed.then_some(pool), sent)
    }

    /// Whether all that is out would last the hosts in need no longer than what a soft round leaves to each: then it brings nothing.
    /// They want what they use in the time of the reserve.
    fn is_nearly_out(&self, pool: &Pool, need: Amount) -> bool {
        let out: Amount = pool.holders.iter().map(super::Share::unused).sum();
        let wants = self.wants();
        let (keep, reserve) =
            (self.settings.keep.as_millis() as u64, self.settings.reserve.as_millis() as u64);
        if need.packets > pool.free().packets {
            out.packets <= wants.part(keep, reserve).packets
        } else {
            out.bytes <= wants.part(keep, reserve).bytes
        }
    }

    /// Ends a round that has brought what it can: deals that, or goes on to the next one, or closes.
    fn conclude(&mut self, pool: &mut Pool, is_hard: bool, now: Now) -> bool {
        let is_answered = self.is_answered(pool, self.settings.silent, now);
        if !is_answered && !self.has_waited(self.settings.patience, now) {
            return false;
        }
        let Some(need) = self.open_need(pool) else {
            self.finish();
            return false;
        };
        if need.fits(pool.free()) {
            self.finish();
            let before = pool.clone();
            let has_granted = self.serve(pool, true);
            let grew = |holder: &usize| pool.holders[*holder].granted != before.holders[*holder].granted;
            self.dealt = (0..pool.holders.len()).filter(grew).map(|holder| holder as Holder).collect();
            self.dealt_at = now.mono;
            return has_granted;
        }
        if is_answered && is_hard {
            let out_of_packets = need.packets > pool.free().packets;
            pool.reached = Some(if out_of_packets { Reached::Packets } else { Reached::Bytes });
            self.finish();
            return true;
        }
        if !is_hard {
            self.begin(pool, true, now);
        }
        false
    }

    fn open_need(&mut self, pool: &Pool) -> Option<Amount> {
        self.sift(pool);
        self.smallest_need()
    }

    /// Tells all again that the limit is reached, until each has ended.
    fn closed(&mut self, durable: &Pool, now: Now) -> Vec<Sent> {
        self.open.clear();
        self.round = None;
        if self.closed_at.is_some_and(|at| now.mono < at + self.settings.resend) {
            return Vec::new();
        }
        self.closed_at = Some(now.mono);
        let pool = self.applied(durable);
        (0..pool.holders.len() as Holder)
            .filter(|holder| !pool.holders[*holder as usize].is_final)
            .map(|holder| granted(durable, holder))
            .collect()
    }

    /// Answers to holders that asked, and to those whose grant a write has changed.
    pub fn answers(&mut self, durable: &Pool) -> Vec<Sent> {
        let asked = std::mem::take(&mut self.answers);
        let behind = asked.into_iter().filter(|holder| {
            let known = self.known[*holder as usize].map(|known| known.granted);
            known != Some(durable.holders[*holder as usize].granted) || durable.reached.is_some()
        });
        behind.map(|holder| granted(durable, holder)).collect()
    }

    /// A new revision is durable: those whose grant changed are told.
    pub fn changed(&mut self, before: Option<&Pool>, durable: &Pool) {
        for holder in 0..durable.holders.len() {
            let had = before.and_then(|pool| pool.holders.get(holder)).map(|share| share.granted);
            if had != Some(durable.holders[holder].granted) && self.known[holder].is_some() {
                self.answers.insert(holder as Holder);
            }
        }
    }
}

/// The least that is granted while there is as much: fewer make more messages than packets.
const LEAST: Amount = Amount::new(64, 64 * 1514);

fn granted(durable: &Pool, holder: Holder) -> Sent {
    let granted = durable.holders[holder as usize].granted;
    (holder, Down::Granted { granted, reached: durable.reached })
}
