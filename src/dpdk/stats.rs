//! What a port counts itself. Owns the reading of its counters since start, and which of them are lost frames; not the counts of
//! what workers received.
//!
//! What each driver counts stands in [`crate::drivers`]. A zero of a driver that does not count is no "none lost".
//!
//! Invariant: all counters are zero when a port starts, and never go back while it runs.

use super::{counters::PortStats, opened::PortError, port::StartedPort};

/// Frames that a port lost, by cause, as far as its driver can vouch for it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortLosses {
    /// A queue was full.
    pub imissed: u64,
    /// No buffer was free, of drivers that lose a frame by that.
    pub rx_nombuf: u64,
    /// Damaged, of drivers that deliver no such frame.
    pub ierrors: u64,
    /// By the driver's extended counters.
    pub discarded: u64,
}

impl PortLosses {
    /// What two devices lost, of which one took the other's place.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            imissed: self.imissed + more.imissed,
            rx_nombuf: self.rx_nombuf + more.rx_nombuf,
            ierrors: self.ierrors + more.ierrors,
            discarded: self.discarded + more.discarded,
        }
    }
}

impl StartedPort {
    /// The port's counters since it was started.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let _control = self.control();
        self.tallies().read(self.id()).map_err(|code| self.error("reading its counters", code))
    }

    /// Which of these counters are lost frames.
    pub fn losses(&self, stats: &PortStats) -> PortLosses {
        let losses = self.driver().losses;
        let lost = |count, is_lost| if is_lost { count } else { 0 };
        PortLosses {
            imissed: stats.imissed,
            rx_nombuf: lost(stats.rx_nombuf, losses.nombuf_is_lost),
            ierrors: lost(stats.ierrors, losses.errors_are_lost),
            discarded: stats.discarded,
        }
    }
}
