//! A port, from the device's name to its running queues. Owns its life: start, and the closing of the
//! device; not how it is found (`probe`), set up (`configure`), read (`burst`) or counted (`stats`).
//!
//! Invariant: a port is closed after its last queue is gone and before its buffers are freed. Whatever a device cannot
//! do is in [`PortFacts::limitations`]; only what would lose frames silently is an error.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    burst::RxQueue,
    configure::Setup,
    counters::Tallies,
    device::Device,
    eal::{Code, Eal},
    facts::{Link, PortFacts, Spread},
    opened::{Opened, PortConfig, PortError},
    probe::probe,
    sys,
};
use crate::drivers::{Driver, Promiscuous};

/// A configured port that receives nothing yet.
#[derive(Debug)]
pub struct Port {
    opened: Opened,
    setup: Setup,
}

/// A running port. It stops when this and all its queues are dropped.
#[derive(Debug)]
pub struct StartedPort {
    opened: Arc<Opened>,
    facts: PortFacts,
    driver: &'static Driver,
    tallies: Mutex<Tallies>,
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
            unplugs: AtomicBool::new(plugged),
            started: false,
            device: config.device.clone(),
            pools: Mutex::default(),
            advice: OnceLock::new(),
            eal: eal.clone(),
        };
        let mut setup = Setup::plan(&opened, config, &device, needs)?;
        setup.prepare(&opened)?;
        Ok(Self { opened, setup })
    }

    /// Finds a device and lets go of it without setting it up: that would also change what the kernel has of it, such as its MTU.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn find(eal: &Eal, config: &PortConfig) -> Result<(), PortError> {
        let device = Device::parse(&config.device)?;
        let (id, plugged) = probe(eal, &device)?;
        let (device, pools, eal) = (config.device.clone(), Mutex::default(), eal.clone());
        let advice = OnceLock::new();
        let unplugs = AtomicBool::new(plugged);
        drop(Opened { id, unplugs, started: false, device, pools, advice, eal });
        Ok(())
    }

    /// What became of the configuration.
    pub fn facts(&self) -> &PortFacts {
        &self.setup.facts
    }

    /// Starts receiving: everything on the wire, also what is not for this host. One [`RxQueue`] per queue, in order. When the
    /// driver refuses, it is configured again with less.
    ///
    /// # Errors
    /// When the driver refuses whatever is asked of it.
    pub fn start(self) -> Result<(StartedPort, Vec<RxQueue>), PortError> {
        let Self { mut opened, mut setup } = self;
        let id = opened.id;
        let tallies = loop {
            let started = {
                let _control = opened.eal.control();
                let tallies = Tallies::baseline(id, setup.driver);
                // SAFETY: control is held, and the port's queues are set up.
                opened.check("starting", unsafe { sys::rte_eth_dev_start(id) }).map(|()| tallies)
            };
            match started {
                Ok(tallies) => break tallies,
                Err(error) if !setup.descend() => return Err(error),
                Err(_) => setup.prepare(&opened)?,
            }
        };
        opened.started = true;
        let Setup { mut facts, driver, .. } = setup;
        {
            let _control = opened.eal.control();
            receive_everything(id, driver, &mut facts);
            stop_pausing(id, driver, &mut facts);
            // SAFETY: the port exists; control is held.
            unsafe { sys::trawl_port_watch(id) };
        }
        let opened = Arc::new(opened);
        let queues = (0..facts.queues).map(|queue| RxQueue::new(opened.clone(), id, queue)).collect();
        Ok((StartedPort { opened, facts, driver, tallies: Mutex::new(tallies) }, queues))
    }
}

/// Switches address filters off and asks how flows are spread. The caller holds the control lock.
fn receive_everything(id: u16, driver: &Driver, facts: &mut PortFacts) {
    // SAFETY: the port is started; control is held.
    let returned = unsafe {
        sys::rte_eth_allmulticast_enable(id);
        sys::rte_eth_promiscuous_enable(id)
    };
    // SAFETY: as above.
    if facts.spread == Spread::Symmetric && unsafe { sys::trawl_port_is_symmetric(id) } == 0 {
        facts.spread = Spread::Device;
        facts.limitations.push(
            "the device does not confirm our RSS key: directions of a flow may come on different queues"
                .into(),
        );
    }
    let code = Code::of(returned);
    let refused = format!("only frames to this host: no promiscuous mode ({code})");
    let limitation = match driver.promiscuous {
        Promiscuous::NeedsTrust(advice) if returned == 0 => {
            format!("it may receive only frames to this host, although the driver says otherwise: {advice}")
        }
        _ if returned == 0 => return,
        // It has no such notion, and does not filter.
        Promiscuous::NoFilter if code == Code::NOT_SUPPORTED => return,
        Promiscuous::NoFilter | Promiscuous::Told => refused,
        Promiscuous::OwnAddress(advice) | Promiscuous::NeedsTrust(advice) => format!("{refused}; {advice}"),
    };
    facts.limitations.push(limitation);
}

/// A capture port that asks its peer for a pause loses frames in the switch, where nobody counts them for us; on a live link it
/// slows the peer. The caller holds the control lock. Some drivers forget it at the start, so this comes after.
fn stop_pausing(id: u16, driver: &Driver, facts: &mut PortFacts) {
    if !driver.pauses {
        return;
    }
    // SAFETY: the port is started; control is held.
    let returned = unsafe { sys::trawl_pause_off(id, driver.kernel.is_some().into()) };
    if returned != 0 {
        let code = Code::of(returned);
        facts.limitations.push(format!(
            "pause frames cannot be switched off ({code}): full queues may hold up the sender; switch them off in the switch, \
             or with `ethtool -A IF rx off tx off` before the device is bound"
        ));
    }
}

/// What the driver told of a device since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortEvents {
    /// It was reset, by itself or by its host, and receives nothing until it is opened again.
    pub was_reset: bool,
    /// It is gone.
    pub was_removed: bool,
}

impl StartedPort {
    /// What happened since the last call. A device of which something happened is to be closed and opened again.
    pub fn events(&self) -> PortEvents {
        let _control = self.control();
        // SAFETY: the port exists; control is held.
        let events = unsafe { sys::trawl_port_events(self.opened.id) };
        PortEvents {
            was_reset: events & sys::TRAWL_RESET != 0,
            was_removed: events & sys::TRAWL_REMOVED != 0,
        }
    }

    /// Lets go of the device, so that it can be found again: it is unplugged once the last of the port's queues is gone too.
    pub fn unplug(self) {
        self.opened.unplugs.store(true, Ordering::Relaxed);
    }

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

    pub(super) fn driver(&self) -> &'static Driver {
        self.driver
    }

    pub(super) fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
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
