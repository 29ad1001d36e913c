//! From `filter_v1` to bit masks. Owns validation, compilation and evaluation of filters; not what happens to a match.
//!
//! Invariant: evaluation depends on the key alone and never allocates.

mod filter;
mod valid;
mod rule;
mod bits;
mod program;
#[cfg(test)]
mod tests;

pub use bits::Bits;
pub use filter::FilterV1;
pub use program::Program;
pub use valid::{Filter, FilterError};
