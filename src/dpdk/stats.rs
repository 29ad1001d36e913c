//! What a port counts itself. Owns the reading of its counters since start; not the counts of what workers received.
//!
//! Which losses a driver sees, in DPDK 22.11 (its sources; a zero elsewhere means "not counted", not "none lost"):
//!
//! | driver | `imissed` | `ierrors` | `rx_nombuf` | losses seen elsewhere only |
//! |---|---|---|---|---|
//! | hardware | full queue | CRC, length and others | buffers exhausted | switch, PCIe |
//! | `net_pcap` | libpcap's drops of an interface; none for files | torn file | buffers exhausted (nothing lost) | |
//! | `net_af_packet` (refused) | – (25.11: PACKET_STATISTICS) | – | – | the kernel's ring was full |
//! | `net_af_xdp` | `XDP_STATISTICS.rx_dropped` | – | – | `rx_ring_full`, `rx_fill_ring_empty_descs` |
//! | `net_tap` | – | read errors | buffers exhausted | the interface's `tx_dropped` |
//! | `net_virtio_user` | – | frames with a bad header | buffers exhausted | the peer found the ring full |
//! | `net_null`, `net_ring` | – | – | – | |
//!
//! Invariant: all counters are zero when a port starts, and never go back while it runs.
#![allow(unsafe_code)]

use std::{ffi::CStr, mem::MaybeUninit};

use super::{counters::PortStats, opened::PortError, port::StartedPort, sys};

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
