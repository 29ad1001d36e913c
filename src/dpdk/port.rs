//! A port, from the device's name to its running queues. Owns its life: start, and the closing of the
//! device; not how it is found (`probe`), set up (`configure`), read (`burst`) or counted (`stats`).
//!
//! Invariant: a port is closed after its last queue is gone and before its buffers are freed. Whatever a device cannot
//! do is in [`PortFacts::limitations`]; only what would lose frames silently is an error.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    burst::RxQueue,
    configure::configure,
    device::{Device, DeviceError},
    eal::{Code, Eal},
    facts::{Link, PortFacts, Spread},
    mempool::{Mempool, MempoolError},
    probe::probe,
    stats::PortStats,
    sys,
};

/// What a port is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// A PCI address (`0000:01:00.0`) or a vdev (`net_pcap0,rx_pcap=/file`), with the driver's arguments.
    pub device: String,
    /// RX queues, each for one worker.
    pub queues: u16,
    /// Descriptors of each queue: frames that wait in the device. It is adjusted to what the device takes.
    pub rx_descriptors: u16,
    /// Buffers of each queue. Few are fast, as they stay in the CPU's cache; it is raised to what the queue needs.
    pub mbufs_per_queue: u32,
    /// Longest frame in bytes without FCS. A device that cannot take it is used as far as it goes.
    pub frame_bytes_max: u32,
}

impl PortConfig {
    /// A port with the defaults: 1024 descriptors, 4095 buffers (one less than a power of two, which DPDK's ring wants) and
    /// jumbo frames of 9000 bytes with headers and tags.
    pub fn new(device: impl Into<String>, queues: u16) -> Self {
        Self {
            device: device.into(),
            queues,
            rx_descriptors: 1024,
            mbufs_per_queue: 4095,
            frame_bytes_max: 9022,
        }
    }
}

/// Why a port is not there.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device string or a file in it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// DPDK found no such device, or no driver for it.
    #[error("device {device:?} cannot be used: {code}; {advice}")]
    Probe {
        /// As configured.
        device: String,
        /// DPDK's reason.
        code: Code,
        /// What to look at.
        advice: String,
    },
    /// The device is a port of this process already.
    #[error("device {device:?} is open already: list it once, with as many queues as it is to have")]
    Open {
        /// As configured.
        device: String,
    },
    /// Queues that the device does not have, or that would be left unread.
    #[error("device {device:?}: {asked} queues are asked for, it has {has}{}: set `queues` accordingly", if *.all { " and all must be read" } else { "" })]
    Queues {
        /// As configured.
        device: String,
        /// `queues` of the config.
        asked: u16,
        /// What it has.
        has: u16,
        /// Whether fewer are as wrong as more.
        all: bool,
    },
    /// No memory for buffers.
    #[error("device {device:?}: {source}")]
    Mempool {
        /// As configured.
        device: String,
        /// How much was wanted.
        source: MempoolError,
    },
    /// A step of configuration that the driver refused.
    #[error("device {device:?}: {step} failed: {code}; the driver's log above says why")]
    Step {
        /// As configured.
        device: String,
        /// What was tried.
        step: &'static str,
        /// The driver's reason.
        code: Code,
    },
}

/// A device that DPDK has opened; closed on drop, before the pools.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: u16,
    plugged: bool,
    started: bool,
    device: String,
    pools: Mutex<Vec<Arc<Mempool>>>,
    pub(super) eal: Eal,
}

impl Opened {
    fn error(&self, step: &'static str, code: Code) -> PortError {
        PortError::Step { device: self.device.clone(), step, code }
    }

    pub(super) fn check(&self, step: &'static str, returned: i32) -> Result<(), PortError> {
        if returned == 0 { Ok(()) } else { Err(self.error(step, Code::of(returned))) }
    }

    pub(super) fn keep(&self, pool: Arc<Mempool>) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut ports = self.eal.control();
        // SAFETY: control is held; queues hold an Arc of self, so nobody polls any more. The pools are fields and are
        // dropped after this.
        unsafe { sys::trawl_port_close(self.id, self.started.into(), self.plugged.into()) };
        ports.remove(&self.id);
    }
}

/// A configured port that receives nothing yet.
#[derive(Debug)]
pub struct Port {
    opened: Opened,
    facts: PortFacts,
}

/// A running port. It stops when this and all its queues are dropped.
#[derive(Debug)]
pub struct StartedPort {
    opened: Arc<Opened>,
    facts: PortFacts,
    baseline: PortStats,
}

impl Port {
    /// Opens a device, plugging it in if EAL's arguments did not, and configures it.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn open(eal: &Eal, config: &PortConfig) -> Result<Self, PortError> {
        let device = Device::parse(&config.device)?;
        let needs = device.needs()?;
        let (id, plugged) = probe(eal, &device)?;
        let opened = Opened {
            id,
            plugged,
            started: false,
            device: config.device.clone(),
            pools: Mutex::default(),
            eal: eal.clone(),
        };
        let facts = configure(&opened, config, &device, needs)?;
        Ok(Self { opened, facts })
    }

    /// What became of the configuration.
    pub fn facts(&self) -> &PortFacts {
        &self.facts
    }

    /// Starts receiving: everything on the wire, also what is not for this host. One [`RxQueue`] per queue, in order.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn start(self) -> Result<(StartedPort, Vec<RxQueue>), PortError> {
        let Self { mut opened, mut facts } = self;
        let id = opened.id;
        let baseline = {
            let _control = opened.eal.control();
            let baseline = PortStats::baseline(id);
            // SAFETY: control is held, and the port's queues are set up.
            opened.check("starting", unsafe { sys::rte_eth_dev_start(id) })?;
            opened.started = true;
            // SAFETY: as above.
            let returned = unsafe {
                sys::rte_eth_allmulticast_enable(id);
                sys::rte_eth_promiscuous_enable(id)
            };
            // SAFETY: as above.
            if facts.spread == Spread::Symmetric && unsafe { sys::trawl_port_is_symmetric(id) } == 0 {
                facts.spread = Spread::Device;
                facts.limitations.push(
                    "the device does not confirm our RSS key: directions of a flow may come on different queues".into(),
                );
            }
            // A driver without the notion does not filter.
            if returned != 0 && Code::of(returned) != Code::NOT_SUPPORTED {
                let code = Code::of(returned);
                facts.limitations.push(format!("only frames to this host: no promiscuous mode ({code})"));
            }
            baseline
        };
        let opened = Arc::new(opened);
        let queues = (0..facts.queues).map(|queue| RxQueue::new(opened.clone(), id, queue)).collect();
        Ok((StartedPort { opened, facts, baseline }, queues))
    }
}

impl StartedPort {
    /// What became of the configuration.
    pub fn facts(&self) -> &PortFacts {
        &self.facts
    }

    /// The link, as far as the driver knows it now.
    pub fn link(&self) -> Link {
        let mut link = sys::trawl_link::default();
        let _control = self.control();
        // SAFETY: the port exists; link is written whole, also on failure.
        unsafe { sys::trawl_port_link(self.opened.id, &raw mut link) };
        Link { up: link.up != 0, speed_mbps: (link.speed_mbps != 0).then_some(link.speed_mbps) }
    }

    pub(super) fn id(&self) -> u16 {
        self.opened.id
    }

    pub(super) fn baseline(&self) -> PortStats {
        self.baseline
    }

    pub(super) fn control(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.opened.eal.control()
    }

    pub(super) fn error(&self, step: &'static str, code: Code) -> PortError {
        self.opened.error(step, code)
    }

    pub(super) fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }
}
