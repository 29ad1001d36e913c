//! The counters of a port as DPDK has them. Owns their reading and what they come to since the start; not the port.
//!
//! Invariant: what is told never goes back, whatever a driver's counters do.
#![allow(unsafe_code)]

use super::{eal::Code, sys, xstats::Xstats};
use crate::drivers::Driver;

/// Counters of a port since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortStats {
    /// Frames that the port delivered.
    pub ipackets: u64,
    /// Bytes of them; whether with FCS is up to the driver.
    pub ibytes: u64,
    /// Frames lost because a queue was full: workers were too slow.
    pub imissed: u64,
    /// Frames that were damaged. Whether they were delivered is up to the driver.
    pub ierrors: u64,
    /// Times that a buffer was wanted and none was free. Whether a frame was lost by it is up to the driver.
    pub rx_nombuf: u64,
    /// Frames that only the driver's extended counters know to be lost.
    pub discarded: u64,
}

impl PortStats {
    /// What two devices counted, of which one took the other's place.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            ipackets: self.ipackets + more.ipackets,
            ibytes: self.ibytes + more.ibytes,
            imissed: self.imissed + more.imissed,
            ierrors: self.ierrors + more.ierrors,
            rx_nombuf: self.rx_nombuf + more.rx_nombuf,
            discarded: self.discarded + more.discarded,
        }
    }
}

/// Counters as they were read.
#[derive(Clone, Copy, Default)]
struct Raw([u64; 6]);

/// One counter, counted on over resets and wraps.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    counted: u64,
    last: u64,
}

impl Tally {
    fn read(&mut self, raw: u64, wraps: bool) -> u64 {
        let more = match self.last.checked_sub(raw) {
            None | Some(0) => raw - self.last,
            // It began again at zero after 2^32.
            Some(fell) if wraps && fell > 1 << 31 => (1_u64 << 32).saturating_sub(fell),
            // The driver or the device set it to zero.
            Some(_) if raw < self.last / 2 => raw,
            // A difference of two registers that were not read at one moment.
            Some(_) => return self.counted,
        };
        (self.counted, self.last) = (self.counted.saturating_add(more), raw);
        self.counted
    }
}

/// What a port's counters come to.
#[derive(Debug)]
pub(super) struct Tallies {
    tallies: [Tally; 6],
    wraps: bool,
    xstats: Xstats,
}

impl Tallies {
    /// Sets the counters to zero where the driver can, and starts from what they are then. The caller holds the control lock.
    pub(super) fn baseline(port: u16, driver: &'static Driver) -> Self {
        // SAFETY: an unknown port is refused by the callee. A driver that cannot is what the baseline is for.
        unsafe { sys::rte_eth_stats_reset(port) };
        let mut xstats = Xstats::new(driver);
        let raw = read(port, &mut xstats).unwrap_or_default();
        let tallies = raw.0.map(|last| Tally { counted: 0, last });
        Self { tallies, wraps: driver.losses.wraps_at_32_bits, xstats }
    }

    /// What the port counted since the start. The caller holds the control lock.
    pub(super) fn read(&mut self, port: u16) -> Result<PortStats, Code> {
        let raw = read(port, &mut self.xstats)?;
        let mut values = self.tallies.iter_mut().zip(raw.0).enumerate();
        // Frames and bytes are counted in 64 bits everywhere; what is lost is not.
        let mut next =
            || values.next().map_or(0, |(at, (tally, raw))| tally.read(raw, self.wraps && at >= 2));
        let (ipackets, ibytes, imissed) = (next(), next(), next());
        let (ierrors, rx_nombuf, discarded) = (next(), next(), next());
        Ok(PortStats { ipackets, ibytes, imissed, ierrors, rx_nombuf, discarded })
    }
}

/// Reads the counters of a port as they are. A driver without any has zeros.
fn read(port: u16, xstats: &mut Xstats) -> Result<Raw, Code> {
    let mut raw = sys::trawl_stats::default();
    // SAFETY: an unknown port is refused by the callee; raw is written whole.
    let returned = Code::of(unsafe { sys::trawl_port_stats(port, &raw mut raw) });
    if returned != Code(0) && returned != Code::NOT_SUPPORTED {
        return Err(returned);
    }
    if returned == Code::NOT_SUPPORTED {
        raw = sys::trawl_stats::default();
    }
    let sys::trawl_stats { ipackets, ibytes, imissed, ierrors, rx_nombuf } = raw;
    Ok(Raw([ipackets, ibytes, imissed, ierrors, rx_nombuf, xstats.losses(port)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(wraps: bool, start: u64, readings: &[u64]) -> Vec<u64> {
        let mut tally = Tally { counted: 0, last: start };
        readings.iter().map(|raw| tally.read(*raw, wraps)).collect()
    }

    #[test]
    fn a_counter_that_the_driver_reset_at_start_counts_from_zero() {
        assert_eq!(told(false, 5, &[1, 3]), [1, 3]);
    }

    #[test]
    fn a_counter_of_32_bits_counts_on_when_it_begins_again() {
        let top = u64::from(u32::MAX);
        assert_eq!(told(true, 0, &[top - 1, 8, 9]), [top - 1, top + 9, top + 10]);
        // A sum of two such counters, of which one begins again.
        assert_eq!(told(true, 0, &[2 * top, top + 4]), [2 * top, 2 * top + 5]);
        assert_eq!(told(true, top - 9, &[10]), [20]);
    }

    #[test]
    fn a_device_that_reset_itself_loses_no_count_and_a_jitter_adds_none() {
        assert_eq!(told(false, 0, &[1000, 10, 20]), [1000, 1010, 1020]);
        assert_eq!(told(false, 0, &[1000, 998, 1001]), [1000, 1000, 1001]);
    }
}
