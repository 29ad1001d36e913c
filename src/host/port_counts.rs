//! What the ports count, and what becomes of them. Owns the thread that reads them, and the last reading, which everybody else looks
//! at: to read a port can take milliseconds, or seconds where the driver asks its firmware.
//!
//! Invariant: nobody but this thread waits for a port. One that cannot be read or is away is said to count nothing.

use super::port_life::{Life, Notice, Seen};
use super::port_place::{Counts, Place};
use crate::dpdk::{Link, PortStats};
use crate::engine::{PortCounts, PortsRead};
use crate::job::{PortDrops, Unclear};
use crate::limits::{PORT_QUIET, PORT_XSTATS_MAX};
use crate::observe::{PortCounters, PortReading};
use crate::worker::QueueCounters;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// Between two readings, unless somebody asks for one. A counter of 32 bits at 100 Gbit/s begins again after 29 seconds.
const INTERVAL: Duration = Duration::from_millis(250);

/// Between two readings of all that a driver counts, of which there may be hundreds.
const XSTATS_INTERVAL: Duration = Duration::from_secs(1);

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
    thread: Option<JoinHandle<Vec<Place>>>,
    is_ending: Arc<AtomicBool>,
}

/// A port between two readings.
#[derive(Debug)]
struct Port {
    place: Place,
    /// Of its queues.
    queues: Vec<Arc<QueueCounters>>,
    life: Life,
    is_lost: bool,
    xstats: Arc<Vec<(String, u64)>>,
}

/// All of them.
#[derive(Debug)]
struct Ports {
    ports: Vec<Port>,
    began: Instant,
    xstats_next: Duration,
}

impl Reader {
    /// Reads the ports once, and from then on. `queues` are those of all ports, in their order.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(places: Vec<Place>, queues: &[Arc<QueueCounters>]) -> io::Result<Self> {
        let mut ports = Ports::new(places, queues);
        let reading = Arc::new(Mutex::new(ports.read()));
        let is_ending = Arc::new(AtomicBool::new(false));
        let (of_thread, ends) = (Arc::clone(&reading), Arc::clone(&is_ending));
        let work = move || {
            while !ends.load(Ordering::Acquire) {
                let reading = ports.read();
                *of_thread.lock().unwrap_or_else(PoisonError::into_inner) = reading;
                std::thread::park_timeout(INTERVAL);
            }
            ports.ports.into_iter().map(|port| port.place).collect()
        };
        let thread = std::thread::Builder::new().name("ports".to_owned()).spawn(work)?;
        let latest = Latest { reading, thread: thread.thread().clone() };
        Ok(Self { latest, thread: Some(thread), is_ending })
    }

    /// For those who look.
    pub fn latest(&self) -> Latest {
        self.latest.clone()
    }

    /// Ends the thread.
    pub fn finish(mut self) -> Vec<Place> {
        self.end()
    }

    fn end(&mut self) -> Vec<Place> {
        self.is_ending.store(true, Ordering::Release);
        self.latest.thread.unpark();
        let Some(thread) = self.thread.take() else { return Vec::new() };
        thread.join().unwrap_or_else(|_| {
            tracing::error!("the thread that reads the ports panicked: this is a bug");
            Vec::new()
        })
    }
}

impl Drop for Reader {
    /// The thread holds the ports.
    fn drop(&mut self) {
        self.end();
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

impl Ports {
    fn new(places: Vec<Place>, queues: &[Arc<QueueCounters>]) -> Self {
        let mut queues = queues.iter().cloned();
        let port = |place: Place| Port {
            queues: queues.by_ref().take(usize::from(place.plan.queues)).collect(),
            place,
            life: Life::new(Duration::ZERO, PORT_QUIET),
            is_lost: false,
            xstats: Arc::default(),
        };
        let ports = places.into_iter().map(port).collect();
        Self { ports, began: Instant::now(), xstats_next: Duration::ZERO }
    }

    fn read(&mut self) -> Reading {
        let (begun, now) = (Instant::now(), self.began.elapsed());
        let with_xstats = now >= self.xstats_next;
        if with_xstats {
            self.xstats_next = now + XSTATS_INTERVAL;
        }
        let mut drops = PortDrops::default();
        let readings = self.ports.iter_mut().map(|port| port.read(now, with_xstats, &mut drops));
        let ports = readings.collect();
        Reading { ports, read: PortsRead { drops, begun } }
    }
}

impl Port {
    fn read(&mut self, now: Duration, with_xstats: bool, drops: &mut PortDrops) -> PortReading {
        self.place.turn(now);
        let result = self.place.read();
        let device = self.place.plan.name();
        if let (Err(error), false) = (&result, self.is_lost) {
            tracing::error!(device, error, "a port's counters cannot be read");
        }
        self.is_lost = result.is_err();
        let link = self.place.link();
        let seen = Seen {
            is_there: link.is_some(),
            link_up: link.is_some_and(|link| link.up),
            received: self.queues.iter().map(|queue| queue.totals().rx).sum(),
        };
        for notice in self.life.turn(now, seen) {
            tell(device, notice, link.and_then(|link| link.speed_mbps));
        }
        if with_xstats && let Some(port) = self.place.there() {
            self.xstats = Arc::new(port.xstats().into_iter().take(PORT_XSTATS_MAX).collect());
        }
        self.add(drops);
        self.reading(link)
    }

    fn add(&self, sum: &mut PortDrops) {
        let Counts { stats, lost } = self.place.counts();
        sum.uncounted |= self.is_lost || self.place.there().is_none() || !self.place.counts_its_losses();
        sum.imissed += lost.imissed;
        sum.rx_nombuf += lost.rx_nombuf;
        sum.ierrors += lost.ierrors;
        sum.discarded += lost.discarded;
        sum.gaps += self.life.gaps();
        sum.gap_ms += u64::try_from(self.life.gap().as_millis()).unwrap_or(u64::MAX);
        let Unclear { rx_nombuf, ierrors } = &mut sum.unclear;
        *rx_nombuf += stats.rx_nombuf - lost.rx_nombuf;
        *ierrors += stats.ierrors - lost.ierrors;
    }

    /// What the port says now, for operators. Devices are named without their arguments, which may be paths.
    fn reading(&self, link: Option<Link>) -> PortReading {
        let PortStats { ipackets, ibytes, imissed, ierrors, rx_nombuf, discarded } =
            self.place.counts().stats;
        let counters =
            PortCounters { rx: ipackets, rx_bytes: ibytes, imissed, ierrors, rx_nombuf, discarded };
        PortReading {
            port: self.place.plan.name().to_owned(),
            is_required: self.place.plan.required,
            is_there: link.is_some(),
            counters: (!self.is_lost).then_some(counters),
            counts_losses: self.place.counts_its_losses(),
            link_up: link.is_some_and(|link| link.up),
            link_mbps: link.and_then(|link| link.speed_mbps),
            link_changes: self.life.link_changes(),
            quiet_seconds: self.life.quiet().as_secs(),
            gaps: self.life.gaps(),
            gap_seconds: self.life.gap().as_secs(),
            xstats: Arc::clone(&self.xstats),
        }
    }
}

fn tell(device: &str, notice: Notice, mbps: Option<u32>) {
    let seconds = |time: Duration| time.as_secs();
    match notice {
        Notice::LinkUp => tracing::info!(device, mbps, "a port's link is up"),
        Notice::NoLink => tracing::warn!(device, "a port has no link: check the cable and the switch"),
        Notice::LinkLost => tracing::warn!(device, "a port's link is down"),
        Notice::Quiet(time) => tracing::warn!(
            device,
            seconds = seconds(time),
            "a port's link is up and no frame comes: check the mirror that sends to it"
        ),
        Notice::NotQuiet(time) => tracing::info!(device, seconds = seconds(time), "a port has frames again"),
        Notice::Away => tracing::error!(
            device,
            "a port is away: what comes meanwhile is in no count, and captures that run are not complete"
        ),
        Notice::Back(time) => tracing::warn!(device, seconds = time.as_secs_f64(), "a port is back"),
    }
}
