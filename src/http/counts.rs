//! What the listeners did with connections since the process started. Owns the counters; `observe` shows them.
//!
//! Invariant: counters only grow, but that of the connections that are open.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection was ended, or not served, by this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It made room for another one.
    Displaced,
    /// Its peer has as many as it may, all with a right credential.
    PeerFull,
    /// Its account has as many as it may: it made room for a newer one, or was refused because all others were at work.
    AccountFull,
    /// It had no right credential for too long.
    Stranger,
    /// Its client did not read, or too slowly.
    Slow,
    /// What came before the request was no PROXY header of a trusted proxy.
    Proxy,
}

/// Each [`Cut`] with its name in the metrics, in the order of the enum.
const NAMES: [&str; 6] =
    ["displaced", "peer_full", "account_full", "no_credential", "slow_reader", "proxy_header"];

/// Connections that have a place now.
static OPEN: AtomicU64 = AtomicU64::new(0);

pub(super) fn opened() {
    OPEN.fetch_add(1, Relaxed);
}

pub(super) fn closed() {
    OPEN.fetch_sub(1, Relaxed);
}

/// Connections now, to all listeners of the process, with streams.
#[must_use]
pub fn connections_open() -> u64 {
    OPEN.load(Relaxed)
}

static CUT: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

impl Cut {
    pub(super) fn count(self) {
        CUT[self as usize].fetch_add(1, Relaxed);
    }
}

/// Connections that were ended by this side, by reason.
#[must_use]
pub fn connections_cut() -> [(&'static str, u64); NAMES.len()] {
    std::array::from_fn(|at| (NAMES[at], CUT[at].load(Relaxed)))
}
