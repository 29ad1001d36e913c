//! A bounded HTTP listener. Owns connections, their limits and TLS; not what is served on them (`api`, `observe`).
//!
//! Invariant: no peer can hold more connections, or hold one for longer, than the bounds allow.

mod fault;
mod serve;
mod tls;

pub use fault::{Answer, Fault};
pub use serve::{Bounds, Peer, serve};
pub use tls::{TlsError, tls};
