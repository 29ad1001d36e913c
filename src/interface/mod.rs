//! A network interface of the kernel: whether it is there, what it counts, which of its features change frames before anybody sees
//! them. Owns what netlink says of it; changes nothing, and receives nothing.
//!
//! Invariant: an answer of the kernel that cannot be read is an error, never a guess.

mod device;
mod features;
mod link;
mod netlink;

pub use device::Device;
pub use features::{active_features, is_merging, is_unfinished};
pub use link::{Counters, Facts, facts, host_drops};
