//! The logic of a fleet: many capture hosts, one capture. Owns every decision of the lead, of a member and of the host that speaks
//! for a data center; performs nothing. There is no thread, disk, socket, clock or random device here: what happened, the time and
//! seeds go in, effects come out, so the same code runs behind a real bus and in the simulator (`sim`).
//!
//! ```text
//!  front ─job─▶ store ─▶ lead::Lead ─assignment (one a data center)─▶ store ─▶ member::Member ─▶ data plane
//!                          │  ▲  shares: grant, recall, closed                    │  report, part
//!                          │  └───────── lead::Branch (large fleets) ◀────────────┘
//!                          └─ verdicts ─▶ outcome, published once
//! ```
//!
//! - [`shares`]: a limit of the whole fleet, dealt to hosts as rights that only they can give back.
//! - [`sample`]: one uniform sample of all hosts and the whole window, of exactly so many packets.
//! - [`lead`]: who leads, what the lead does, who speaks for a data center.
//! - [`member`]: one host's part of one capture.
//! - [`held`]: one record of the fleet's store, changed by compare-and-set alone.
//! - [`wire`]: records between nodes of different versions.
//!
//! Invariants, whatever fails: never a packet or byte over a limit; every host that was to take part is named with a verdict; a
//! phase never goes back; what is published is published once; nothing that a
//! host writes makes another node panic or gives it a right.

pub mod held;
pub mod lead;
pub mod member;
pub mod record;
pub mod sample;
pub mod settings;
pub mod shares;
#[cfg(test)]
mod sim;
pub mod wire;

use serde::{Deserialize, Serialize};
use shares::{Amount, Reached, Report};
use std::time::Duration;

/// A host, by its place in a capture's list of hosts.
pub type Host = u32;
/// A data center, by its place in the fleet's list.
pub type Colo = u32;
/// Of a holder of a claim, or of a life of a host: later is larger. Half of a number, so that each writer has numbers of its own.
pub type Epoch = u32;

/// What the reports, rounds and versions of a writer with this epoch begin above.
#[must_use]
pub fn first_number(epoch: Epoch) -> u64 {
    u64::from(epoch) << 32
}

/// The time, as an argument. `mono` decides how long something takes; `wall`, since the UNIX epoch, is when a window ends.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, from any beginning.
    pub mono: Duration,
    /// UTC by this machine's own clock.
    pub wall: Duration,
}

/// From when to when packets are captured, UTC since the UNIX epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first moment.
    pub start: Duration,
    /// The first moment after it.
    pub end: Duration,
}

/// What a capture is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// One file with a uniform sample of so many packets.
    Simple {
        /// Packets of the file.
        packets: u64,
        /// Workers look at one in so many of the matching packets.
        one_in: u32,
    },
    /// Every matching packet, in files by host, as far as this limit; none is a capture that only time ends.
    Full {
        /// Of the whole fleet.
        limit: Option<Amount>,
    },
}

/// From a lead or a branch to those below it. Each says a state, not a change: one that comes twice, late or never does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Down {
    /// All that was granted since the beginning, and whether the limit is reached.
    Granted {
        /// Cumulative.
        granted: Amount,
        /// The capture ends.
        reached: Option<Reached>,
    },
    /// Give back what is unused, and say so.
    Recall {
        /// Number of the round; larger is later.
        round: u64,
        /// Everything. Otherwise what is needed for the next moments is kept.
        is_hard: bool,
        /// As in `Granted`: what is given back is the rest of all that was granted.
        granted: Amount,
    },
    /// This version of the part is durable.
    Noted {
        /// Of [`record::Part::version`].
        version: u64,
    },
}

/// From those below to a branch or a lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// What is held of a limit, and what is wanted.
    Share(Report),
    /// What is with a host's part; answered by [`Down::Noted`].
    Part(Box<record::Part>),
}
