//! The counters of a port as DPDK has them. Owns their reading and the difference from those at start; not the port.
//!
//! Invariant: a difference never goes below zero.
#![allow(unsafe_code)]

use super::{eal::Code, sys};

/// Counters of a port since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortStats {
    /// Frames that the port delivered.
    pub ipackets: u64,
    /// Bytes of them; whether with FCS is up to the driver.
    pub ibytes: u64,
    /// Frames lost because a queue was full: workers were too slow.
    pub imissed: u64,
    /// Frames that were damaged.
    pub ierrors: u64,
    /// Times that a buffer was wanted and none was free.
    pub rx_nombuf: u64,
}

impl PortStats {
    /// Some drivers reset their counters at start although that is after we read them; a counter that went back says so.
    pub(super) fn since(self, start: Self) -> Self {
        let since = |now: u64, start: u64| now.checked_sub(start).unwrap_or(now);
        Self {
            ipackets: since(self.ipackets, start.ipackets),
            ibytes: since(self.ibytes, start.ibytes),
            imissed: since(self.imissed, start.imissed),
            ierrors: since(self.ierrors, start.ierrors),
            rx_nombuf: since(self.rx_nombuf, start.rx_nombuf),
        }
    }

    /// Reads the counters of a port as they are. The caller holds the control lock.
    pub(super) fn read(port: u16) -> Result<Self, Code> {
        let mut raw = sys::trawl_stats::default();
        // SAFETY: an unknown port is refused by the callee; raw is written whole.
        let returned = unsafe { sys::trawl_port_stats(port, &raw mut raw) };
        if returned != 0 {
            return Err(Code::of(returned));
        }
        let sys::trawl_stats { ipackets, ibytes, imissed, ierrors, rx_nombuf } = raw;
        Ok(Self { ipackets, ibytes, imissed, ierrors, rx_nombuf })
    }

    /// Sets the counters to zero where the driver can, and returns what they are then.
    pub(super) fn baseline(port: u16) -> Self {
        // SAFETY: an unknown port is refused by the callee. A driver that cannot is what the baseline is for.
        unsafe { sys::rte_eth_stats_reset(port) };
        Self::read(port).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_the_driver_reset_at_start_counts_from_zero() {
        let start = PortStats { ipackets: 10, imissed: 5, ..PortStats::default() };
        let now = PortStats { ipackets: 12, imissed: 1, ..PortStats::default() };
        assert_eq!(now.since(start), PortStats { ipackets: 2, imissed: 1, ..PortStats::default() });
    }
}
