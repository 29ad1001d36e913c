//! The place of one port: its device while that is there, and the way back when it is gone. Owns closing a device that was reset or
//! removed, and opening it again; what is counted and logged of it is in `port_counts`.
//!
//! ```text
//! There ─reset, removed─────────────────────▶ Leaving ─no worker polls it─▶ Away ─opened again─▶ There
//!   └─interface gone─▶ Dying ─its ring is read─▶┘
//! ```
//!
//! Invariant: a device is closed when no worker polls it, and its queues have the same numbers when it is back.

use super::ports::{PortsError, Started, open};
use crate::config::PortPlan;
use crate::dpdk::{Eal, Link, PortLosses, PortStats, QueueSlot, RxQueue};
use crate::interface;
use std::time::Duration;

/// Between two tries of a device that is away, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// Counters since the host started, and which of them are losses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub stats: PortStats,
    pub lost: PortLosses,
}

impl Counts {
    fn plus(self, more: Self) -> Self {
        Self { stats: self.stats.plus(more.stats), lost: self.lost.plus(more.lost) }
    }
}

/// Where its device is.
#[derive(Debug)]
enum State {
    There(Started),
    /// It is gone. The kernel hands over what it received within milliseconds.
    Dying(Started),
    /// It is gone, and workers may still poll it.
    Leaving(Started),
    /// It is tried again then.
    Away {
        next: Duration,
        pause: Duration,
        /// Whether somebody was told why.
        is_told: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    pub plan: PortPlan,
    eal: Eal,
    slots: Vec<QueueSlot>,
    state: State,
    /// The kernel's interfaces below it, with their numbers: one of the same name may be another one.
    interfaces: Vec<(String, Option<u32>)>,
    /// Of devices that were closed.
    before: Counts,
    /// Of the device that is there, as last read.
    now: Counts,
    counts_its_losses: bool,
}

impl Place {
    /// Opens the port. One that the config does not require may be missing: its queues deliver nothing until it is there.
    ///
    /// # Errors
    /// When a port that is required cannot be opened.
    pub fn open(eal: &Eal, plan: &PortPlan) -> Result<(Self, Vec<RxQueue>), PortsError> {
        let mut place = Self {
            plan: plan.clone(),
            eal: eal.clone(),
            slots: Vec::new(),
            state: State::Away { next: Duration::ZERO, pause: PAUSE_MIN, is_told: true },
            interfaces: Vec::new(),
            before: Counts::default(),
            now: Counts::default(),
            counts_its_losses: false,
        };
        let queues = match open(eal, plan) {
            Ok((port, queues)) => {
                place.state = place.arrived(port);
                queues
            }
            Err(error) if plan.required => return Err(error),
            Err(error) => {
                let device = plan.name();
                tracing::warn!(device, %error, "a port that is not required is missing; it is tried again");
                (0..plan.queues).map(RxQueue::without_device).collect()
            }
        };
        place.slots = queues.iter().map(RxQueue::slot).collect();
        Ok((place, queues))
    }

    /// The device, while it is there and polled.
    pub fn there(&self) -> Option<&Started> {
        match &self.state {
            State::There(port) => Some(port),
            State::Dying(_) | State::Leaving(_) | State::Away { .. } => None,
        }
    }

    /// Whether every loss between the wire and a worker is in its counters.
    pub fn counts_its_losses(&self) -> bool {
        self.counts_its_losses
    }

    /// What was counted since the host started.
    pub fn counts(&self) -> Counts {
        self.before.plus(self.now)
    }

    /// Reads the counters. An error says why the device does not answer; those of a device that is away are as they were.
    pub fn read(&mut self) -> Result<(), String> {
        if let State::There(port) = &self.state {
            self.now = self.counted(port)?;
        }
        Ok(())
    }

    /// The link, while the device is there. `net_pcap` says that it is up whatever its interface does.
    pub fn link(&self) -> Option<Link> {
        let link = self.there()?.link();
        let is_down = |(name, _): &(String, _)| interface::facts(name).is_ok_and(|found| !found.is_up);
        Some(Link { up: link.up && !self.interfaces.iter().any(is_down), ..link })
    }

    fn counted(&self, port: &Started) -> Result<Counts, String> {
        let mut stats = port.stats().map_err(|error| error.to_string())?;
        let known = self.now.stats.ierrors;
        // net_pcap counts an error at each poll of an interface that is gone: no frame.
        if stats.ierrors > known && matches!(port, Started::Device(_)) && self.missing().is_some() {
            stats.ierrors = known;
        }
        Ok(Counts { stats, lost: port.losses(&stats) })
    }

    /// Goes on with what has to be done about the device, and waits for nobody.
    pub fn turn(&mut self, now: Duration) {
        let away = State::Away { next: now, pause: PAUSE_MIN, is_told: false };
        self.state = match std::mem::replace(&mut self.state, away) {
            State::There(port) if self.is_gone(&port) => match port {
                port @ Started::Interface(_) => State::Dying(port),
                port @ Started::Device(_) => self.leave(port),
            },
            State::Dying(port) => self.leave(port),
            State::Leaving(port) if self.is_left() => self.close(port, now),
            State::Away { next, pause, is_told } if now >= next => self.try_again(now, pause, is_told),
            same => same,
        };
    }

    fn leave(&self, port: Started) -> State {
        self.slots.iter().for_each(QueueSlot::take);
        State::Leaving(port)
    }

    /// Whether no worker polls the device. All of them are asked: what a worker had is closed with its answer.
    fn is_left(&self) -> bool {
        self.slots.iter().filter(|slot| slot.is_done()).count() == self.slots.len()
    }

    /// Whether the device that is there is not the one that was opened, or receives nothing any more.
    fn is_gone(&self, port: &Started) -> bool {
        if let Some(why) = port.events() {
            tracing::error!(
                device = port.device(),
                why,
                "a port's device is lost; it is closed and opened again"
            );
            return true;
        }
        let missing = self.missing();
        if let Some(interface) = missing {
            tracing::error!(
                device = port.device(),
                interface,
                "a port's interface is gone; it is opened again"
            );
        }
        missing.is_some()
    }

    /// An interface of the device that is gone, or is another one of the same name.
    fn missing(&self) -> Option<&str> {
        let is_missing = |(name, index): &&(String, Option<u32>)| match interface::facts(name) {
            Ok(found) => Some(found.index) != *index,
            Err(error) => error.raw_os_error() == Some(libc::ENODEV),
        };
        self.interfaces.iter().find(is_missing).map(|(name, _)| name.as_str())
    }

    fn close(&mut self, port: Started, now: Duration) -> State {
        if let Ok(counts) = self.counted(&port) {
            self.now = counts;
        }
        (self.before, self.now) = (self.counts(), Counts::default());
        port.unplug();
        State::Away { next: now, pause: PAUSE_MIN, is_told: false }
    }

    fn try_again(&mut self, now: Duration, pause: Duration, is_told: bool) -> State {
        // The workers have taken what they were offered: nothing was since the device was closed.
        match open(&self.eal, &self.plan) {
            Ok((port, queues)) => {
                self.slots.iter().zip(queues).for_each(|(slot, queue)| slot.give(queue));
                self.arrived(port)
            }
            Err(error) => {
                if !is_told {
                    let device = self.plan.name();
                    tracing::warn!(device, %error, "a port cannot be opened; it is tried again until it can");
                }
                State::Away { next: now + pause, pause: (pause * 2).min(PAUSE_MAX), is_told: true }
            }
        }
    }

    fn arrived(&mut self, port: Started) -> State {
        let below = match &port {
            Started::Interface(port) => vec![port.name().to_owned()],
            // The interface that net_tap makes can be deleted too.
            Started::Device(_) if self.plan.driver() == "net_tap" => {
                self.plan.arguments("iface").map(str::to_owned).collect()
            }
            Started::Device(_) => self.plan.interfaces().map(str::to_owned).collect(),
        };
        let number = |name: &String| interface::facts(name).ok().map(|found| found.index);
        self.interfaces = below.into_iter().map(|name| (name.clone(), number(&name))).collect();
        self.counts_its_losses = port.counts_its_losses();
        State::There(port)
    }
}
