//! What the ports count. Owns the thread that reads them, and the last reading, which everybody else looks at: to read a port can
//! take milliseconds, or seconds where the driver asks its firmware.
//!
//! Invariant: nobody but this thread waits for a port, and a port that cannot be read is said to count nothing.

use super::ports::Started;
use crate::dpdk::PortStats;
use crate::engine::{PortCounts, PortsRead};
use crate::job::{PortDrops, Unclear};
use crate::observe::{PortCounters, PortReading};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Between two readings, unless somebody asks for one. A counter of 32 bits at 100 Gbit/s begins again after 29 seconds.
const INTERVAL: Duration = Duration::from_millis(250);

/// One reading.
#[derive(Debug)]
struct Reading {
    ports: Vec<PortReading>,
    read: PortsRead,
}

/// The last reading, for everybody.
#[derive(Clone, Debug)]
pub(super) struct Latest {
    reading: Arc<Mutex<Reading>>,
    thread: Thread,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Reader {
    latest: Latest,
    thread: Option<JoinHandle<()>>,
    is_ending: Arc<AtomicBool>,
}

/// A port between two readings.
#[derive(Clone, Copy, Default)]
struct Port {
    last: Option<PortStats>,
    is_lost: bool,
}

impl Reader {
    /// Reads the ports once, and from then on.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(ports: Arc<Vec<Started>>) -> io::Result<Self> {
        let mut states = vec![Port::default(); ports.len()];
        let reading = Arc::new(Mutex::new(read(&ports, &mut states)));
        let is_ending = Arc::new(AtomicBool::new(false));
        let (of_thread, ends) = (Arc::clone(&reading), Arc::clone(&is_ending));
        let work = move || {
            while !ends.load(Ordering::Acquire) {
                let reading = read(&ports, &mut states);
                *of_thread.lock().unwrap_or_else(PoisonError::into_inner) = reading;
                std::thread::park_timeout(INTERVAL);
            }
        };
        let thread = std::thread::Builder::new().name("ports".to_owned()).spawn(work)?;
        let latest = Latest { reading, thread: thread.thread().clone() };
        Ok(Self { latest, thread: Some(thread), is_ending })
    }

    /// For those who look.
    pub fn latest(&self) -> Latest {
        self.latest.clone()
    }
}

impl Drop for Reader {
    /// Ends the thread, which holds the ports.
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Release);
        self.latest.thread.unpark();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that reads the ports panicked: this is a bug");
        }
    }
}

impl Latest {
    /// What every port said.
    pub fn readings(&self) -> Vec<PortReading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).ports.clone()
    }
}

impl PortCounts for Latest {
    fn latest(&self) -> PortsRead {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).read
    }

    fn ask(&self) {
        self.thread.unpark();
    }
}

fn read(ports: &[Started], states: &mut [Port]) -> Reading {
    let (begun, mut drops) = (Instant::now(), PortDrops::default());
    let readings = ports.iter().zip(states).map(|(port, state)| {
        let stats = port.stats();
        if let (Err(error), false) = (&stats, state.is_lost) {
            tracing::error!(device = port.device(), %error, "a port's counters cannot be read");
        }
        state.is_lost = stats.is_err();
        state.last = stats.ok().or(state.last);
        add(&mut drops, port, *state);
        reading(port, *state)
    });
    let ports = readings.collect();
    Reading { ports, read: PortsRead { drops, begun } }
}

fn add(sum: &mut PortDrops, port: &Started, state: Port) {
    sum.uncounted |= state.is_lost || !port.counts_its_losses();
    let Some(stats) = state.last else { return };
    let lost = port.losses(&stats);
    sum.imissed += lost.imissed;
    sum.rx_nombuf += lost.rx_nombuf;
    sum.ierrors += lost.ierrors;
    sum.discarded += lost.discarded;
    let Unclear { rx_nombuf, ierrors } = &mut sum.unclear;
    *rx_nombuf += stats.rx_nombuf - lost.rx_nombuf;
    *ierrors += stats.ierrors - lost.ierrors;
}

/// What a port says now, for operators. Devices are named without their arguments, which may be paths.
fn reading(port: &Started, state: Port) -> PortReading {
    let (device, link) = (port.device(), port.link());
    let counters = state.last.filter(|_| !state.is_lost).map(|stats| PortCounters {
        rx: stats.ipackets,
        rx_bytes: stats.ibytes,
        imissed: stats.imissed,
        ierrors: stats.ierrors,
        rx_nombuf: stats.rx_nombuf,
        discarded: stats.discarded,
    });
    PortReading {
        port: device.split(',').next().unwrap_or(device).to_owned(),
        counters,
        counts_losses: port.counts_its_losses(),
        link_up: link.up,
        link_mbps: link.speed_mbps,
    }
}
