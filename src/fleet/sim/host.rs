//! A simulated capture host: traffic, workers with a budget, a disk that survives a crash. Owns what is true of it; the decisions are
//! the core's `Member`, `Branch` and `Contender`.
//!
//! Invariant: a crash takes everything but the disk and what of the packets was durable.

use super::plan::{Plan, SECOND, Time};
use crate::fleet::lead::{Branch, Contender};
use crate::fleet::member::{Life, Local, Member};
use crate::fleet::record::{Assignment, Identity, Key};
use crate::fleet::sample::{Chance, Dice};
use crate::fleet::shares::{Amount, Meter};
use crate::fleet::{Colo, Epoch, Host};
use std::collections::BTreeMap;

/// Queues of a host.
const STREAMS: u64 = 2;
/// How often what was captured becomes durable.
const DURABLE: Time = SECOND;

/// The workers of one capture.
#[derive(Clone, Debug, Default)]
pub struct Plane {
    pub is_attached: bool,
    /// What may still be used; none is without limit.
    pub budget: Option<Amount>,
    pub raised: Amount,
    pub lowered: Amount,
    pub level: u8,
    pub offered: Amount,
    pub used: Amount,
    refused: Option<u32>,
    kept: BTreeMap<(u8, u16), u64>,
    told: BTreeMap<(u8, u16), u64>,
    carry: f64,
    at: Time,
    rate: f64,
}

impl Plane {
    pub fn attach(&mut self, budget: Option<Amount>, rate: f64, now: Time) {
        *self = Self {
            is_attached: true,
            budget,
            raised: budget.unwrap_or_default(),
            rate,
            at: now,
            ..Self::default()
        };
    }

    /// Takes what came since the last time.
    pub fn run(&mut self, plan: &Plan, host: Host, dice: &mut Chance, now: Time) {
        if !self.is_attached {
            return;
        }
        let seconds = (now - self.at) as f64 / SECOND as f64;
        self.at = now;
        if plan.jumps && dice.below(1000) < 20 {
            let base = plan.rates[host as usize];
            self.rate = base * [0.0, 0.2, 1.0, 1.0, 5.0][dice.below(5) as usize];
        }
        self.carry += self.rate * seconds;
        let count = self.carry as u64;
        self.carry -= count as f64;
        let length = if dice.below(4) == 0 { 60 } else { plan.frames[host as usize] };
        self.offered = self.offered.plus(Amount::new(count, count * length));
        if let crate::fleet::Kind::Simple { one_in, .. } = plan.kind {
            return self.sample(u64::from(one_in), count, dice);
        }
        let taken = self.budget.map_or(count, |left| count.min(left.packets).min(left.bytes / length));
        let taken = Amount::new(taken, taken * length);
        self.used = self.used.plus(taken);
        self.budget = self.budget.map(|left| left.minus(taken));
        if taken.packets < count {
            let length = length as u32;
            self.refused = Some(self.refused.map_or(length, |seen| seen.min(length)));
        }
    }

    /// Each packet by itself, as the workers' sampler draws them.
    fn sample(&mut self, one_in: u64, count: u64, dice: &mut Chance) {
        let one_in = one_in << self.level;
        assert!(one_in <= u64::from(u32::MAX), "workers sample by 32 bits");
        for _ in 0..count {
            if dice.below(one_in) == 0 {
                *self.kept.entry((self.level, dice.below(STREAMS) as u16)).or_default() += 1;
                self.used.packets += 1;
            }
        }
    }

    /// The counts of a turn.
    pub fn meter(&mut self) -> Meter {
        let mut kept = Vec::new();
        for ((level, stream), all) in &self.kept {
            let told = self.told.entry((*level, *stream)).or_default();
            if *all > *told {
                kept.push((*stream, *level, *all - *told));
                *told = *all;
            }
        }
        Meter { offered: self.offered, used: self.used, lost: 0, refused: self.refused.take(), kept }
    }

    /// All counts, for a snapshot.
    fn whole(&self) -> Meter {
        let kept = self.kept.iter().map(|((level, stream), packets)| (*stream, *level, *packets)).collect();
        Meter { offered: self.offered, used: self.used, lost: 0, refused: None, kept }
    }
}

/// Who a host is with its disk of that number.
pub fn identity(host: Host, spool_id: u64) -> Identity {
    Identity { name: format!("host{host}"), spool_id }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Member,
    Branch,
    Claim,
    Poll,
    Lead,
    Life,
}

/// An operation that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub by: Asker,
    pub key: Key,
    pub is_write: bool,
}

pub struct SimHost {
    pub host: Host,
    pub colo: Colo,
    /// Of this life; 0 until the registry has it.
    pub boot: Epoch,
    pub life: Option<Life>,
    /// Lives begun, and the last number that its disk knows of.
    pub lives: u64,
    pub noted_boot: Epoch,
    /// How often it lost its disk.
    pub spool_id: u64,
    pub is_up: bool,
    pub disk: Option<Local>,
    /// What of the packets a crash leaves.
    pub durable: Meter,
    durable_at: Time,
    pub member: Option<Member>,
    pub plane: Plane,
    pub contender: Option<Contender>,
    pub branch: Option<(Epoch, Branch)>,
    pub seen: Option<Assignment>,
    pub asked: BTreeMap<u64, Asked>,
    /// In files that an earlier life left and that this one does not count.
    pub forgotten: Amount,
    pub attached_at: Option<Time>,
    /// When it first heard of the capture.
    pub seen_at: Option<Time>,
    /// What ended captures have in files, and what was offered to them.
    pub ended: Option<Amount>,
    pub offered: Option<Amount>,
    pub delivered: Option<Amount>,
    pub heard_at: Time,
    pub refuses: bool,
    /// Which queue was made durable last: they are not all at one moment.
    queue: u16,
    /// It has refused the capture in one of its lives.
    pub has_refused: bool,
}

impl SimHost {
    pub fn new(host: Host, colo: Colo, refuses: bool) -> Self {
        Self {
            host,
            colo,
            boot: 1,
            life: None,
            lives: 0,
            noted_boot: 0,
            spool_id: 0,
            is_up: true,
            disk: None,
            durable: Meter::default(),
            durable_at: 0,
            member: None,
            plane: Plane::default(),
            contender: None,
            branch: None,
            seen: None,
            asked: BTreeMap::new(),
            forgotten: Amount::NONE,
            attached_at: None,
            seen_at: None,
            ended: None,
            offered: None,
            delivered: None,
            heard_at: 0,
            refuses,
            queue: 0,
            has_refused: false,
        }
    }

    /// What is in files, or will be.
    pub fn files(&self) -> Amount {
        let now = if self.is_up { self.plane.used } else { self.durable.used };
        self.ended.unwrap_or(now).plus(self.forgotten)
    }

    pub fn make_durable(&mut self, now: Time) {
        if !self.plane.is_attached || now < self.durable_at + DURABLE / STREAMS {
            return;
        }
        self.durable_at = now;
        self.queue = (self.queue + 1) % STREAMS as u16;
        let mut whole = self.plane.whole();
        if self.plane.budget.is_none() && !whole.kept.is_empty() {
            let queue = self.queue;
            whole.kept.retain(|(stream, ..)| *stream == queue);
            whole.kept.extend(self.durable.kept.iter().filter(|(stream, ..)| *stream != queue));
            whole.used.packets = whole.kept.iter().map(|(.., packets)| packets).sum();
        }
        self.durable = whole;
    }

    pub fn detach(&mut self) -> Meter {
        self.plane.is_attached = false;
        self.durable = self.plane.whole();
        self.plane.meter()
    }

    pub fn crash(&mut self) {
        self.is_up = false;
        self.member = None;
        self.branch = None;
        self.contender = None;
        self.life = None;
        self.seen = None;
        self.asked.clear();
        self.plane = Plane::default();
    }
}
