//! The ports of a plan. Owns their opening in the config's order. What becomes of them is in `port_place`, what they count in
//! `port_counts`; what a port is, is `dpdk`'s.

use super::port_place::Place;
use crate::config::PortPlan;
use crate::config::check::PortAnswer;
use crate::dpdk::{
    Eal, EalError, InterfaceError, InterfacePort, Link, Port, PortConfig, PortError, PortEvents, PortLosses,
    PortStats, RxQueue, StartedPort,
};
use crate::interface;
use crate::packet::Pace;
use std::time::Instant;

/// Why ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// EAL.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// One of the ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// One that stays with the kernel.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}

/// A port that receives.
#[derive(Debug)]
pub(super) enum Started {
    /// DPDK's.
    Device(StartedPort),
    /// The kernel's.
    Interface(InterfacePort),
}

impl Started {
    /// As configured.
    pub fn device(&self) -> &str {
        match self {
            Self::Device(port) => &port.facts().device,
            Self::Interface(port) => port.device(),
        }
    }

    pub fn stats(&self) -> Result<PortStats, PortError> {
        match self {
            Self::Device(port) => port.stats(),
            Self::Interface(port) => Ok(port.stats()),
        }
    }

    /// Its counters by its driver's names.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        match self {
            Self::Device(port) => port.xstats(),
            Self::Interface(port) => port.xstats(),
        }
    }

    /// Which of these counters are lost frames.
    pub fn losses(&self, stats: &PortStats) -> PortLosses {
        match self {
            Self::Device(port) => port.losses(stats),
            Self::Interface(_) => {
                PortLosses { imissed: stats.imissed, ierrors: stats.ierrors, ..PortLosses::default() }
            }
        }
    }

    /// Whether every loss between the wire and a worker is in its counters.
    pub fn counts_its_losses(&self) -> bool {
        match self {
            Self::Device(port) => port.facts().counts_its_losses,
            Self::Interface(_) => true,
        }
    }

    pub fn link(&self) -> Link {
        match self {
            Self::Device(port) => port.link(),
            Self::Interface(port) => port.link(),
        }
    }

    /// What happened to the device since the last call, if it must be opened again.
    pub fn events(&self) -> Option<&'static str> {
        let Self::Device(port) = self else { return None };
        match port.events() {
            PortEvents { was_removed: true, .. } => Some("it was removed"),
            PortEvents { was_reset: true, .. } => Some("it was reset"),
            PortEvents { was_reset: false, was_removed: false } => None,
        }
    }

    /// Lets go of the device so that it can be opened again.
    pub fn unplug(self) {
        match self {
            Self::Device(port) => port.unplug(),
            Self::Interface(_closed) => {}
        }
    }
}

/// Running ports and their queues, numbered from 0 over all ports.
#[derive(Debug)]
pub(super) struct Ports {
    pub eal: Eal,
    pub places: Vec<Place>,
    pub queues: Vec<RxQueue>,
}

fn config(plan: &PortPlan) -> PortConfig {
    PortConfig {
        device: plan.device.clone(),
        queues: plan.queues,
        rx_descriptors: plan.rx_descriptors,
        mbufs_per_queue: plan.mbufs,
        frame_bytes_max: plan.frame_bytes_max,
    }
}

fn devices(plans: &[PortPlan]) -> Vec<&str> {
    plans.iter().map(|plan| plan.device.as_str()).collect()
}

/// Starts EAL and every port.
pub(super) fn start(eal: &[String], plans: &[PortPlan]) -> Result<Ports, PortsError> {
    let eal = Eal::init_for(eal, &devices(plans))?;
    tracing::info!(arguments = ?eal.arguments(), memory = ?eal.memory(), "EAL is up");
    let mut ports = Ports { eal, places: Vec::new(), queues: Vec::new() };
    for plan in plans {
        let (place, queues) = Place::open(&ports.eal, plan)?;
        ports.places.push(place);
        let pace = (plan.pace_pps / u64::from(plan.queues)).max(u64::from(plan.pace_pps > 0));
        ports.queues.extend(queues.into_iter().map(|queue| queue.paced(Pace::new(pace, Instant::now()))));
    }
    Ok(ports)
}

/// Opens a device and starts it.
pub(super) fn open(eal: &Eal, plan: &PortPlan) -> Result<(Started, Vec<RxQueue>), PortsError> {
    if interface::Device::parse(&plan.device).is_some() {
        start_interface(plan)
    } else {
        start_device(eal, plan)
    }
}

fn start_device(eal: &Eal, plan: &PortPlan) -> Result<(Started, Vec<RxQueue>), PortsError> {
    let (port, queues) = Port::open(eal, &config(plan))?.start()?;
    let facts = port.facts();
    tracing::info!(
        device = facts.device, driver = facts.driver, queues = facts.queues, spread = ?facts.spread,
        rx_descriptors = facts.rx_descriptors, mbufs = facts.buffers, "port is up"
    );
    for limitation in &facts.limitations {
        tracing::warn!(device = facts.device, limitation, "port is not all that was asked for");
    }
    Ok((Started::Device(port), queues))
}

fn start_interface(plan: &PortPlan) -> Result<(Started, Vec<RxQueue>), PortsError> {
    let (port, queues) = InterfacePort::open(&plan.device, plan.queues)?;
    let port = port.start()?;
    tracing::info!(device = port.device(), queues = port.queues(), "port is up and stays with the kernel");
    Ok((Started::Interface(port), queues))
}

/// Logs what each port counted by its driver's own names: losses that no common counter knows are only there.
pub(super) fn log_counters(places: &[Place]) {
    for port in places.iter().filter_map(Place::there) {
        let counted: Vec<_> = port.xstats().into_iter().filter(|(_, value)| *value != 0).collect();
        tracing::info!(device = port.device(), ?counted, "port's own counters");
    }
}

/// Looks at every port once, for `trawl check`: what DPDK says of each, in the config's order. A port that shares its device with the
/// kernel is found and not set up, and one that names an interface is not touched: either would change what the kernel does with it.
///
/// # Errors
/// When EAL does not start.
pub fn probe(eal: &[String], plans: &[PortPlan]) -> Result<Vec<PortAnswer>, String> {
    let eal = Eal::init_for(eal, &devices(plans)).map_err(|e| e.to_string())?;
    Ok(plans.iter().map(|plan| ask(&eal, plan)).collect())
}

fn ask(eal: &Eal, plan: &PortPlan) -> PortAnswer {
    if interface::Device::parse(&plan.device).is_some() {
        return InterfacePort::open(&plan.device, plan.queues)
            .map(|_closed| Vec::new())
            .map_err(|e| e.to_string());
    }
    if plan.interfaces().next().is_some() {
        return Ok(Vec::new());
    }
    let config = config(plan);
    let answer = if is_shared(plan) {
        Port::find(eal, &config).map(|()| Vec::new())
    } else {
        Port::open(eal, &config).map(|port| port.facts().limitations.clone())
    };
    answer.map_err(|e| e.to_string())
}

/// Whether the kernel drives the device too.
fn is_shared(plan: &PortPlan) -> bool {
    let folder = |address| format!("/sys/bus/pci/devices/{address}/net");
    plan.pci_address().is_some_and(|address| std::fs::read_dir(folder(address)).is_ok())
}
