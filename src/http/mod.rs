//! A bounded HTTP listener. Owns connections, their limits and TLS; not what is served on them (`api`, `observe`).
//!
//! Invariant: no peer can hold more connections, or hold one for longer, than the bounds allow.

mod accept;
mod counts;
mod fault;
mod pace;
mod peer;
mod places;
mod proxy;
mod serve;
mod tls;

pub use counts::{connections_cut, connections_open};
pub use fault::{Answer, Fault};
pub use peer::{Peer, Standing};
pub use proxy::{ProxyError, proxy_header};
pub use serve::{Bounds, Door, serve};
pub use tls::{Pair, Tls, TlsError};
