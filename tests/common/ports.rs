//! Ports of the loopback interface for servers that are told theirs. Owns the choice; that nobody else takes one meanwhile is likely, not
//! sure.
//!
//! They lie below those that the system gives to clients (`ip_local_port_range`): between the choice and the server's own
//! `bind` any client beside it could get one of those.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{SocketAddr, TcpListener};

const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// An address at which nobody listens.
pub fn free_address() -> SocketAddr {
    loop {
        let drawn = RandomState::new().hash_one(()) % u64::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(drawn).unwrap();
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// So many ports at which nobody listens, each another one.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let mut ports = Vec::new();
    while ports.len() < N {
        let port = free_address().port();
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports.try_into().unwrap()
}
