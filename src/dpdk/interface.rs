//! A port that stays with the kernel: an interface's frames as they came in, through a ring (`ring`). Owns its start and the sum of
//! its losses.
//!
//! What this gives that DPDK's own drivers for interfaces do not: fragments and tags as they were on the wire (`net_af_packet` joins
//! the ones and rewrites the others), the kernel's receive times, and every loss counted:
//!
//! | lost where | counted by | shown as |
//! |---|---|---|
//! | the ring was full: the worker was too slow | PACKET_STATISTICS | `imissed` |
//! | the device had no room | the interface's `rx_missed_errors` | `imissed` |
//! | a CPU's queue between driver and kernel was full (RPS, software interfaces) | at most the smaller of the interface's `rx_dropped` and the host's in `softnet_stat` | `imissed` |
//! | damaged on the wire | the interface's `rx_errors` | `ierrors` |
//! | longer than a block | this file | `ierrors` |
//!
//! Invariant: counters never go back, also if the interface goes away.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::burst::RxQueue;
use super::counters::PortStats;
use super::facts::Link;
use super::ring::{Ring, Socket};
use crate::interface::{Counters, Device, facts, host_drops};

/// Why an interface cannot be a port.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The device string.
    #[error("device {device:?}: {reason}")]
    Syntax {
        /// As configured.
        device: String,
        /// What is wrong.
        reason: String,
    },
    /// There is none of that name, or it cannot be asked.
    #[error("there is no interface {name}: {source}; list them with `ip link`")]
    Missing {
        /// The interface.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Its frames have no Ethernet header.
    #[error("interface {name} carries no Ethernet frames, and what is captured is written as such")]
    NoEthernet {
        /// The interface.
        name: String,
    },
    /// A socket, its memory or its options.
    #[error(
        "interface {name} cannot be read: {source}; this needs CAP_NET_RAW, Linux 4.20 and ring_mib of memory for each queue"
    )]
    Socket {
        /// The interface.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// An interface as a port.
#[derive(Debug)]
pub struct InterfacePort {
    device: String,
    name: String,
    index: u32,
    sockets: Vec<Arc<Socket>>,
    totals: Mutex<Totals>,
}

/// What was counted since the start.
#[derive(Debug, Default)]
struct Totals {
    /// The interface's and the host's counters at the start.
    start: (Counters, u64),
    stats: PortStats,
    ring: u64,
    unfinished: u64,
}

impl InterfacePort {
    /// Opens an interface with as many queues, among which the kernel spreads its frames by flow. Changes nothing on the host: it
    /// receives nothing before [`InterfacePort::start`].
    ///
    /// # Errors
    /// See [`InterfaceError`].
    pub fn open(device: &str, queues: u16) -> Result<(Self, Vec<RxQueue>), InterfaceError> {
        let syntax = |reason| InterfaceError::Syntax { device: device.to_owned(), reason };
        let parsed = Device::parse(device)
            .unwrap_or_else(|| Err("it names no interface".to_owned()))
            .map_err(syntax)?;
        let name = parsed.name;
        let found = facts(&name).map_err(|source| InterfaceError::Missing { name: name.clone(), source })?;
        if !found.is_ethernet {
            return Err(InterfaceError::NoEthernet { name });
        }
        let rings: io::Result<Vec<Ring>> =
            (0..queues.max(1)).map(|_| Ring::open(parsed.ring_mib, parsed.outgoing)).collect();
        let rings = rings.map_err(|source| InterfaceError::Socket { name: name.clone(), source })?;
        let sockets = rings.iter().map(|ring| Arc::clone(ring.socket())).collect();
        let port =
            Self { device: device.to_owned(), name, index: found.index, sockets, totals: Mutex::default() };
        Ok((port, rings.into_iter().zip(0..).map(|(ring, queue)| RxQueue::of_ring(ring, queue)).collect()))
    }

    /// Receives from here on, also what is not for this host.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(self) -> Result<Self, InterfaceError> {
        let failed = |source| InterfaceError::Socket { name: self.name.clone(), source };
        let (mut group, several) = (0, self.sockets.len() > 1);
        for socket in &self.sockets {
            socket.bind(self.index, several.then_some(&mut group)).map_err(failed)?;
        }
        for socket in &self.sockets {
            socket.go(self.index).map_err(failed)?;
        }
        if let (Ok(found), Ok(host)) = (facts(&self.name), host_drops()) {
            self.totals.lock().unwrap_or_else(PoisonError::into_inner).start = (found.counters, host);
        }
        Ok(self)
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As configured.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// How many there are.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.sockets.len()
    }

    /// What it counted since it was started. A reading that fails leaves out what came since the last one.
    #[must_use]
    pub fn stats(&self) -> PortStats {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut cut, mut unfinished) = (0, 0);
        for counts in self.sockets.iter().filter_map(|socket| socket.counts().ok()) {
            totals.stats.ipackets += counts.received;
            totals.ring += counts.dropped;
            cut += counts.cut;
            unfinished += counts.unfinished;
        }
        totals.unfinished = totals.unfinished.max(unfinished);
        let (start, host_start) = totals.start;
        let same = facts(&self.name).ok().filter(|found| found.index == self.index);
        let now = same.map_or(Counters { ..start }, |found| found.counters);
        let backlog = now.rx_dropped.saturating_sub(start.rx_dropped);
        let backlog = backlog.min(host_drops().unwrap_or_default().saturating_sub(host_start));
        let before = totals.stats;
        let missed = totals.ring + now.rx_missed.saturating_sub(start.rx_missed) + backlog;
        totals.stats.imissed = before.imissed.max(missed);
        totals.stats.ierrors = before.ierrors.max(cut + now.rx_errors.saturating_sub(start.rx_errors));
        totals.stats.ibytes = before.ibytes.max(now.rx_bytes.saturating_sub(start.rx_bytes));
        totals.stats
    }

    /// Its counters by the names of this port, for the log.
    #[must_use]
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let stats = self.stats();
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        [
            ("rx_packets", stats.ipackets),
            ("ring_full", totals.ring),
            ("missed", stats.imissed),
            ("errors", stats.ierrors),
            ("unfinished_checksums", totals.unfinished),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Whether its link is up. The kernel knows a speed that means something for hardware only.
    #[must_use]
    pub fn link(&self) -> Link {
        let found = facts(&self.name).ok().filter(|found| found.index == self.index);
        Link { up: found.is_some_and(|found| found.is_up), speed_mbps: None }
    }
}
