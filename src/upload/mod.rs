//! From merged bytes to objects in the customer's bucket. Owns destinations, stores, the manifest and its verification.
//!
//! Invariant: an object is visible under its name only when it is complete.

mod destination;

pub use destination::Destination;
