//! What a port counts itself. Owns the reading of its counters since start; not the counts of what workers received.
//!
//! Which losses a driver sees, in DPDK 22.11 (its sources; a zero elsewhere means "not counted", not "none lost"):
//!
//! | driver | `imissed` | `ierrors` | `rx_nombuf` | losses seen elsewhere only |
//! |---|---|---|---|---|
//! | hardware | full queue | CRC, length and others | buffers exhausted | switch, PCIe |
//! | `net_pcap` | libpcap's drops of an interface; none for files | torn file | buffers exhausted (nothing lost) | |
//! | `net_af_packet` | – | – | – | the kernel's ring was full: the interface's own statistics |
//! | `net_af_xdp` | `XDP_STATISTICS.rx_dropped` | – | – | the fill ring was empty |
//! | `net_tap` | – | read errors | buffers exhausted | the interface's `tx_dropped` |
//! | `net_virtio_user` | – | frames with a bad header | buffers exhausted | the peer found the ring full |
//! | `net_null`, `net_ring` | – | – | – | |
//!
//! Invariant: all counters are zero when a port starts, and never go back while it runs.
#![allow(unsafe_code)]

use std::{ffi::CStr, mem::MaybeUninit};

use super::{
    eal::Code,
    port::{PortError, StartedPort},
    sys,
};

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
    fn since(self, start: Self) -> Self {
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

impl StartedPort {
    /// The port's counters since it was started.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let _control = self.control();
        let now = PortStats::read(self.id()).map_err(|code| self.error("reading its counters", code))?;
        Ok(now.since(self.baseline()))
    }

    /// All counters that the driver has, by its own names; not relative to the start.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let _control = self.control();
        // SAFETY: with no array the callee returns how many there are.
        let count = unsafe { sys::rte_eth_xstats_get_names(self.id(), std::ptr::null_mut(), 0) };
        let Ok(count) = u32::try_from(count) else { return Vec::new() };
        // SAFETY: both are structures of integers and bytes, for which zero is a value.
        let (name, value) = unsafe {
            (
                MaybeUninit::<sys::rte_eth_xstat_name>::zeroed().assume_init(),
                MaybeUninit::<sys::rte_eth_xstat>::zeroed().assume_init(),
            )
        };
        let mut names = vec![name; count as usize];
        let mut values = vec![value; count as usize];
        // SAFETY: the arrays have `count` elements; the callee writes no more than that and returns a larger number if
        // there were more, which min() below does not believe.
        let (named, valued) = unsafe {
            (
                sys::rte_eth_xstats_get_names(self.id(), names.as_mut_ptr(), count),
                sys::rte_eth_xstats_get(self.id(), values.as_mut_ptr(), count),
            )
        };
        let filled = |returned: i32| usize::try_from(returned).unwrap_or(0).min(count as usize);
        let names = &names[..filled(named)];
        values[..filled(valued)]
            .iter()
            .filter_map(|stat| {
                let name = names.get(usize::try_from(stat.id).ok()?)?;
                // SAFETY: DPDK terminates the name within its array.
                let name = unsafe { CStr::from_ptr(name.name.as_ptr()) };
                Some((name.to_string_lossy().into_owned(), stat.value))
            })
            .collect()
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
