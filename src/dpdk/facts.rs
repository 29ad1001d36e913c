//! What became of a port's configuration on the device that it met. Owns the words for it; decides nothing.
//!
//! Invariant: everything that the config asked for and the device did not give stands in `limitations`.

/// How frames are spread over the queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// There is one queue.
    Single,
    /// By a hash that is the same for both directions of a flow, which the device confirmed once it is started.
    Symmetric,
    /// By the device's own hash, whose key cannot be set: directions of a flow may part.
    Asymmetric,
    /// By the device's own ways, for instance the kernel's; nothing is known of flows.
    Device,
}

/// A configured port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortFacts {
    /// The device as configured.
    pub device: String,
    /// DPDK's number of the port.
    pub port: u16,
    /// The driver that took the device.
    pub driver: String,
    /// NUMA node of the device, if known.
    pub numa_node: Option<u32>,
    /// RX queues.
    pub queues: u16,
    /// How frames are spread over them.
    pub spread: Spread,
    /// Descriptors of each queue, as the driver says it has them, otherwise as asked for after the device's rules.
    pub rx_descriptors: u16,
    /// Buffers of each queue.
    pub buffers: u32,
    /// Bytes of a frame that one buffer holds.
    pub buffer_bytes: u32,
    /// Whether longer frames come in several buffers.
    pub scatter: bool,
    /// Longest frame that the device was asked to take, in bytes without FCS.
    pub frame_bytes_max: u32,
    /// Whether every frame that the device knows to have lost is in `StartedPort::losses`.
    pub counts_its_losses: bool,
    /// What was asked for and is not so; a sentence each.
    pub limitations: Vec<String>,
}

/// The link as the driver reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Its speed in Mbit/s, if known. Software drivers report a fixed figure.
    pub speed_mbps: Option<u32>,
}
