//! From `filter_v1` to bit masks. Owns validation, compilation and evaluation of filters and of
//! what an account may see; not what happens to a match.
//!
//! Invariant: evaluation depends on the key alone and never allocates.

mod filter;
mod valid;
mod rule;
mod bits;
mod hits;
mod prefixes;
mod program;
#[cfg(test)]
mod prefix_tests;
#[cfg(test)]
mod tests;

pub use bits::Bits;
pub use filter::FilterV1;
pub use hits::Hits;
pub use prefixes::PrefixSet;
pub use program::Program;
pub use valid::{Filter, FilterError};
