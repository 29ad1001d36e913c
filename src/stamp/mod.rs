//! Time stamps by an authority (RFC 3161): that a manifest was there at a time, by somebody else's word. Owns the request, the token's
//! check and the way to the authority; not what is stamped, nor where a token is kept (`deliver`).
//!
//! What is kept is the authority's whole answer, so that `openssl ts -verify` reads it. It is small, and stands beside what it is of.
//!
//! Invariant: an answer counts only if it is of these bytes, of this request, and signed by the certificate that it names.

mod authority;
mod form;
mod token;

pub use authority::{Authority, AuthorityConfig, StampCounts, stamp_counts};
pub use token::{Anchors, Stamp, StampError, check};

/// The most that an answer may have: those of real authorities have some 6 KiB with their certificates.
pub const TOKEN_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
#[cfg(not(miri))]
mod tests;
