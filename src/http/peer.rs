//! Who is at the other end of a connection. Owns the client's address, what counts as one peer, and whether a right credential was
//! seen; not what a credential is.
//!
//! Invariant: a connection that once had a right credential keeps that standing until it ends.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Where a request comes from; every request carries it as an extension. Behind a trusted proxy it is the proxy's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// What counts as one peer: an IPv4 address, or an IPv6 /64, because that is what one customer has.
    #[must_use]
    pub fn network(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            other => other,
        }
    }
}

/// What is known of a connection's client; every request carries it as an extension, in an `Arc`.
#[derive(Debug, Default)]
pub struct Standing {
    has_credential: AtomicBool,
    requests: AtomicU32,
}

impl Standing {
    /// Notes that a request of this connection carried a right credential.
    pub fn credential_was_right(&self) {
        self.has_credential.store(true, Ordering::Relaxed);
    }

    /// Whether one did.
    #[must_use]
    pub fn has_credential(&self) -> bool {
        self.has_credential.load(Ordering::Relaxed)
    }

    /// Counts a request; how many there were with it.
    pub(super) fn request(&self) -> u32 {
        self.requests.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ipv6_network_and_both_spellings_of_an_ipv4_address_are_one_peer() {
        let network = |text: &str| Peer(text.parse().unwrap()).network();
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.2"), network("192.0.2.1"));
        assert!(network("::1").is_loopback());
    }
}
