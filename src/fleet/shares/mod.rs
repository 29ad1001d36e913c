//! A limit of the whole fleet as rights that are handed out: escrow. Owns the arithmetic of both ends; sends and stores nothing.
//!
//! A holder uses only what it was granted, and every count is cumulative, so a message that comes twice, late or in another order
//! says nothing wrong. What is granted is never taken back by a timeout: a host that is silent may be using it.
//!
//! Invariant: at every durable revision the sum of (granted − returned) over all holders is at most the limit, and a holder lowers
//! what it may use before it tells that it returned it.

mod amount;
mod desk;
mod holding;
mod pool;
#[cfg(test)]
mod tests;

pub use amount::{Amount, UNLIMITED};
pub use desk::{Desk, Sent};
pub use holding::{Holding, Meter, Reclaim};
pub use pool::{Pool, Share};

use serde::{Deserialize, Serialize};

/// A holder's place in a [`Pool`].
pub type Holder = u32;

/// Which limit ended a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reached {
    /// Every packet of the limit is captured, or held by hosts that do not answer.
    Packets,
    /// The smallest frame that waits is larger than all bytes that are left.
    Bytes,
    /// The limit's record was lost, so nothing more can be granted.
    Forgotten,
}

/// What a holder says of what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Rises with each report of a holder, over its restarts too. An older one that comes later is ignored.
    pub at: u64,
    /// Cumulative, as far as the holder knows.
    pub granted: Amount,
    /// Cumulative; what the holder's budget was lowered by before this was told.
    pub returned: Amount,
    /// Captured.
    pub used: Amount,
    /// What it would like to have beside.
    pub wants: Amount,
    /// Frames are refused: what the smallest of them needs beside what is unused.
    pub needs: Option<Amount>,
    /// The last round of recalls that it has answered.
    pub recalled: u64,
    /// It uses no more: everything but `used` is returned.
    pub is_final: bool,
}
