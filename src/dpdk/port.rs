//! A port, from the device's name to its running queues. Owns its life: start, and the closing of the
//! device; not how it is found (`probe`), set up (`configure`), read (`burst`) or counted (`stats`).
//!
//! Invariant: a port is closed after its last queue is gone and before its buffers are freed. Whatever a device cannot
//! do is in [`PortFacts::limitations`]; only what would lose frames silently is an error.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{
    burst::RxQueue,
    configure::configure,
    counters::PortStats,
    device::Device,
    eal::{Code, Eal},
    facts::{Link, PortFacts, Spread},
    opened::{Opened, PortConfig, PortError},
    probe::probe,
    sys,
};

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

    /// Finds a device and lets go of it without setting it up: that would also change what the kernel has of it, such as its MTU.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn find(eal: &Eal, config: &PortConfig) -> Result<(), PortError> {
        let device = Device::parse(&config.device)?;
        let (id, plugged) = probe(eal, &device)?;
        let (device, pools, eal) = (config.device.clone(), Mutex::default(), eal.clone());
        drop(Opened { id, plugged, started: false, device, pools, eal });
        Ok(())
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
