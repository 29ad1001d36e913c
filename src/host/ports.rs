//! The DPDK ports of a plan. Owns their opening in the config's order and the sum of their losses; what a port is, is
//! `dpdk`'s.

use crate::config::PortPlan;
use crate::config::check::PortAnswer;
use crate::dpdk::{Eal, EalError, Port, PortConfig, PortError, RxQueue, StartedPort};
use crate::job::PortDrops;
use crate::observe::{PortCounters, PortReading};

/// Why ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// EAL.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// One of the ports.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Running ports and their queues, numbered from 0 over all ports.
#[derive(Debug)]
pub(super) struct Ports {
    pub eal: Eal,
    pub started: Vec<StartedPort>,
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

/// Starts EAL and every port.
pub(super) fn start(eal: &[String], plans: &[PortPlan]) -> Result<Ports, PortsError> {
    let eal = Eal::init(eal)?;
    tracing::info!(arguments = ?eal.arguments(), memory = ?eal.memory(), "EAL is up");
    let mut ports = Ports { eal, started: Vec::new(), queues: Vec::new() };
    for plan in plans {
        let (port, queues) = Port::open(&ports.eal, &config(plan))?.start()?;
        let facts = port.facts();
        tracing::info!(
            device = facts.device, driver = facts.driver, queues = facts.queues, spread = ?facts.spread,
            rx_descriptors = facts.rx_descriptors, mbufs = facts.buffers, "port is up"
        );
        for limitation in &facts.limitations {
            tracing::warn!(device = facts.device, limitation, "port is not all that was asked for");
        }
        ports.started.push(port);
        ports.queues.extend(queues);
    }
    Ok(ports)
}

/// What all ports lost since they were started.
pub(super) fn drops(ports: &[StartedPort]) -> PortDrops {
    let mut sum = PortDrops::default();
    for port in ports {
        match port.stats() {
            Ok(stats) => {
                sum.imissed += stats.imissed;
                sum.rx_nombuf += stats.rx_nombuf;
                sum.ierrors += stats.ierrors;
            }
            Err(error) => {
                tracing::error!(device = port.facts().device, %error, "a port's counters cannot be read")
            }
        }
    }
    sum
}

/// What every port says now, for operators. Devices are named without their arguments, which may be paths.
pub(super) fn readings(ports: &[StartedPort]) -> Vec<PortReading> {
    let reading = |port: &StartedPort| {
        let (device, link) = (&port.facts().device, port.link());
        let counters = port.stats().ok().map(|stats| PortCounters {
            rx: stats.ipackets,
            rx_bytes: stats.ibytes,
            imissed: stats.imissed,
            ierrors: stats.ierrors,
            rx_nombuf: stats.rx_nombuf,
        });
        PortReading {
            port: device.split(',').next().unwrap_or(device).to_owned(),
            counters,
            link_up: link.up,
            link_mbps: link.speed_mbps,
        }
    };
    ports.iter().map(reading).collect()
}

/// Logs what each port counted by its driver's own names: losses that no common counter knows are only there.
pub(super) fn log_counters(ports: &[StartedPort]) {
    for port in ports {
        let counted: Vec<_> = port.xstats().into_iter().filter(|(_, value)| *value != 0).collect();
        tracing::info!(device = port.facts().device, ?counted, "port's own counters");
    }
}

/// Opens every port once, for `trawl check`: what DPDK says of each, in the config's order.
///
/// # Errors
/// When EAL does not start.
pub fn probe(eal: &[String], plans: &[PortPlan]) -> Result<Vec<PortAnswer>, String> {
    let eal = Eal::init(eal).map_err(|e| e.to_string())?;
    let ask = |plan| Port::open(&eal, &config(plan)).map(|port| port.facts().limitations.clone());
    Ok(plans.iter().map(|plan| ask(plan).map_err(|e| e.to_string())).collect())
}
