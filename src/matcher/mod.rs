//! From `filter_v1` to bit masks. Owns validation, compilation and evaluation of filters; not what happens to a match.
//!
//! Invariant: evaluation depends on the key alone and never allocates.

mod filter;

pub use filter::FilterV1;
