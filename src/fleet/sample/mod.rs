//! One uniform sample of a whole fleet and window. Owns the arithmetic of levels, counts and quotas; the packets themselves are the
//! data plane's.
//!
//! Every packet has a *tag*, random bits of its own. At level `l` a packet is kept if the lowest `l` bits of its tag are zero, so
//! one in 2^l is, and what is kept at a level is part of what is kept at each lower one. A host raises its level while more than
//! [`cap`] packets are kept. The fleet's level is the lowest one at which all hosts together keep at most [`cap`]. That the cap is
//! the same is what makes the sample uniform: a level that a host has left is one at which that host alone keeps too many, so the
//! fleet's level never needs it, and it depends on the number of tags alone, not on whose they are. The level of the busiest host
//! would not do: given that level, its own packets are rarer than the others' (`the_level_of_the_busiest_host_would_favour_others`).
//! Of what is kept at the fleet's level exactly so many packets as asked are drawn without replacement.
//!
//! Invariant: given the hosts that deliver, every packet that they matched is in the file with the same probability.

mod chance;
mod kept;
mod quota;
#[cfg(test)]
mod tests;

pub use chance::{Chance, Dice, choose, mix};
pub use kept::{Hashed, Kept, Packet, Segment, Tags};
pub use quota::{Counts, common_level, draw};

/// The largest level: one in 2^48 of any traffic is nothing.
pub const LEVEL_MAX: u8 = 48;

/// The largest level of a host whose workers sample one in so many at level 0: at level `l` they sample one in `one_in << l`, a
/// number of 32 bits. Counts go on to [`LEVEL_MAX`], because tags do.
#[must_use]
pub fn level_max(one_in: u32) -> u8 {
    (u32::MAX / one_in.max(1)).ilog2() as u8
}

/// Packets that are kept at most after a level is settled. Four times what is asked for, because the next level has half of it or a
/// bit less; the constant makes it certain for small numbers too: with n + 1 packets at one level, fewer than (n − 128) / 4 at the
/// next have a probability below 10^−30 for every n.
#[must_use]
pub fn cap(packets: u64) -> u64 {
    packets.saturating_mul(4).saturating_add(128)
}
