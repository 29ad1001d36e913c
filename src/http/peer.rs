//! Who is at the other end of a connection. Owns the client's address, what counts as one peer, whether a right credential was
//! seen, and whether an answer is under way; not what a credential is.
//!
//! Invariant: a connection that once had a right credential keeps that standing until it ends.

use super::pace::Pace;
use super::places::Places;
use std::any::Any;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Instant;

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
pub struct Standing {
    /// The connection's place, and whose places it is one of.
    id: u64,
    places: Weak<Places>,
    has_credential: AtomicBool,
    requests: AtomicU32,
    /// Since when no answer is under way; none while one is.
    idle_since: Mutex<Option<Instant>>,
    /// How fast its answers must be taken.
    pace: Pace,
    /// What it has instead of a place among connections.
    instead: Mutex<Option<Box<dyn Any + Send>>>,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Standing {
    pub(super) fn new(id: u64, places: Weak<Places>) -> Self {
        let idle_since = Mutex::new(Some(Instant::now()));
        let (has_credential, requests) = (AtomicBool::new(false), AtomicU32::new(0));
        let instead = Mutex::default();
        Self { id, places, has_credential, requests, idle_since, pace: Pace::default(), instead }
    }

    /// Notes that a request carried a right credential of `account`. False if the account, or all accounts together, have as many
    /// connections as they may and each of the account's is at work: then this one stays a stranger, and its request must be refused.
    ///
    /// A connection counts for the account that it named first.
    #[must_use]
    pub fn credential_was_right(&self, account: &str) -> bool {
        self.admitted(account, false)
    }

    /// The same for an operator's credential, which may take the places that are reserved for those.
    #[must_use]
    pub fn operators_credential_was_right(&self, name: &str) -> bool {
        self.admitted(name, true)
    }

    fn admitted(&self, account: &str, is_operators: bool) -> bool {
        if self.has_credential() {
            return true;
        }
        let places = self.places.upgrade();
        let is_admitted = places.is_none_or(|places| places.admit(self.id, account, is_operators));
        if is_admitted {
            self.has_credential.store(true, Ordering::Relaxed);
        }
        is_admitted
    }

    /// Its answer is a stream, which takes no place for connections; the connection must end with it. Until then it has `instead`: also
    /// where there is no body, and where nobody takes what is left of one.
    pub fn is_a_stream(&self, instead: impl Any + Send) {
        *self.instead.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(instead));
        if let Some(places) = self.places.upgrade() {
            places.exempt(self.id);
        }
    }

    /// Its answer is an object that is looked at, whose reader must keep up.
    pub fn is_a_view(&self) {
        self.pace.set(true);
    }

    /// How fast its answers must be taken.
    pub(super) fn pace(&self) -> Pace {
        self.pace.clone()
    }

    /// Whether one did.
    #[must_use]
    pub fn has_credential(&self) -> bool {
        self.has_credential.load(Ordering::Relaxed)
    }

    /// Counts a request, whose answer is under way from now on; how many there were with it.
    pub(super) fn request(&self) -> u32 {
        self.set_idle_since(None);
        self.pace.set(false);
        self.requests.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// All of an answer was handed over.
    pub(super) fn answered(&self) {
        self.set_idle_since(Some(Instant::now()));
    }

    fn set_idle_since(&self, since: Option<Instant>) {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Since when no answer is under way, if none is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
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
