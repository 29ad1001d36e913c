//! What lies between nodes: latency by pair of data centers, loss, duplication, reordering by jitter and spikes, cuts in one
//! direction. Owns when a message arrives, and how often.
//!
//! Invariant: a message arrives after it is sent, and not at all through a cut.

use super::plan::{Plan, Time};
use crate::fleet::sample::{Chance, Dice};
use crate::fleet::{Colo, Host};

/// A node, or several of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Api(u32),
    Host(Host),
    Store,
    Colo(Colo),
    All,
}

/// Nothing passes in this direction for a while.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub from: Place,
    pub to: Place,
    pub start: Time,
    pub end: Time,
}

pub struct Network {
    pub dice: Chance,
}

impl Network {
    /// API nodes and the store's servers stand in the first data centers.
    pub fn colo(plan: &Plan, node: Place) -> Colo {
        match node {
            Place::Host(host) => plan.hosts[host as usize],
            Place::Api(api) => api % plan.latency.len() as u32,
            Place::Colo(colo) => colo,
            Place::Store | Place::All => 0,
        }
    }

    fn is_in(plan: &Plan, node: Place, place: Place) -> bool {
        match place {
            Place::All => true,
            Place::Colo(_) => {
                matches!(node, Place::Host(_)) && Self::colo(plan, node) == Self::colo(plan, place)
            }
            _ => node == place,
        }
    }

    fn is_cut(plan: &Plan, from: Place, to: Place, now: Time) -> bool {
        plan.cuts.iter().any(|cut| {
            let is_on = cut.start <= now && now < cut.end;
            is_on && Self::is_in(plan, from, cut.from) && Self::is_in(plan, to, cut.to)
        })
    }

    /// When the copies of a message arrive.
    pub fn send(&mut self, plan: &Plan, from: Place, to: Place, now: Time) -> Vec<Time> {
        if from == to {
            return vec![now + 10];
        }
        let is_quiet = now >= plan.quiet_at;
        let often = |permille: u64| if is_quiet { 0 } else { permille };
        if !is_quiet && Self::is_cut(plan, from, to, now) {
            return Vec::new();
        }
        let copies = 1 + u64::from(self.dice.below(1000) < often(plan.duplicate_permille));
        let latency = plan.latency[Self::colo(plan, from) as usize][Self::colo(plan, to) as usize];
        let mut arrivals = Vec::new();
        for _ in 0..copies {
            if self.dice.below(1000) < often(plan.loss_permille) {
                continue;
            }
            let is_spike = self.dice.below(1000) < often(plan.spike_permille);
            let spike = if is_spike { self.dice.below(plan.spike_max) } else { 0 };
            arrivals.push(now + latency + self.dice.below(plan.jitter + 1) + spike + 1);
        }
        arrivals
    }
}
