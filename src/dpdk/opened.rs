//! A device that DPDK has opened. Owns its closing, what a port is to be, and why one is not there; not its life in between
//! (`port`).
//!
//! Invariant: a device is closed once, after its last queue is gone and before its buffers are freed.
#![allow(unsafe_code)]

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{
    device::DeviceError,
    eal::{Code, Eal},
    mempool::{Mempool, MempoolError},
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
    /// EAL took the device with other arguments.
    #[error("device {device:?} was taken by EAL with the arguments {has:?}: remove it from dpdk.eal")]
    Arguments {
        /// As configured.
        device: String,
        /// What it has.
        has: String,
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
    #[error("device {device:?}: {step} failed: {code}; the driver's log above says why{}{advice}", if advice.is_empty() { "" } else { "; " })]
    Step {
        /// As configured.
        device: String,
        /// What was tried.
        step: &'static str,
        /// The driver's reason.
        code: Code,
        /// What helps with this driver; may be empty.
        advice: &'static str,
    },
}

/// A device that DPDK has opened; closed on drop, before the pools.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: u16,
    /// Its device is unplugged when it is closed.
    pub(super) unplugs: AtomicBool,
    pub(super) started: bool,
    pub(super) device: String,
    pub(super) pools: Mutex<Vec<Arc<Mempool>>>,
    pub(super) advice: OnceLock<&'static str>,
    pub(super) eal: Eal,
}

impl Opened {
    pub(super) fn error(&self, step: &'static str, code: Code) -> PortError {
        let advice = self.advice.get().copied().unwrap_or_default();
        PortError::Step { device: self.device.clone(), step, code, advice }
    }

    /// From here on errors say what helps with the device's driver.
    pub(super) fn set_advice(&self, advice: &'static str) {
        let _is_set_once = self.advice.set(advice);
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
        let unplugs = self.unplugs.load(Ordering::Relaxed);
        // SAFETY: control is held; queues hold an Arc of self, so nobody polls any more. The pools are fields and are
        // dropped after this.
        unsafe { sys::trawl_port_close(self.id, self.started.into(), unplugs.into()) };
        ports.remove(&self.id);
    }
}
