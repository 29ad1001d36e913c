//! The DPDK ports of a plan. Owns their opening in the config's order; what they count is in
//! `port_counts`, what a port is, is `dpdk`'s.

use crate::config::PortPlan;
use crate::config::check::PortAnswer;
use crate::dpdk::{Eal, EalError, Port, PortConfig, PortError, RxQueue, StartedPort};

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
