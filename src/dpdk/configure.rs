//! Setting a device up for capture. Owns the choice of offloads, buffers and spread, and what is tried when a driver
//! refuses; not the device's life.
//!
//! A driver may refuse at `configure`, at the set-up of a queue or at the start. All of that is one attempt, and the attempts are
//! the rungs of a ladder.
//!
//! Invariant: what is tried next asks for less, and what was given up is in `limitations`.
#![allow(unsafe_code)]

use std::{ffi::CStr, sync::Arc};

use super::{
    device::{Device, Needs},
    eal::Code,
    facts::{PortFacts, Spread},
    mempool::{DATA_BYTES_MAX, Mempool},
    opened::{Opened, PortConfig, PortError},
    sys,
};
use crate::{
    drivers::{Counted, Driver, Queue},
    limits::QUEUES_MAX,
};

/// Bytes of an Ethernet header; DPDK's MTU is a frame without it and without FCS.
const ETHERNET_BYTES: u32 = 14;

/// The MTU that every device takes.
const MTU_COMMON: u32 = 1500;

/// Descriptors of a TX queue, where a driver insists on having one; nothing is ever sent.
const TX_DESCRIPTORS: u16 = 64;

/// One attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rung {
    rss: bool,
    mtu: u32,
    tx_queues: u16,
}

/// A device on its way to being started.
#[derive(Debug)]
pub(super) struct Setup {
    /// What was planned, with what no attempt changes.
    planned: PortFacts,
    /// What holds with the attempt that is made.
    pub facts: PortFacts,
    pub driver: &'static Driver,
    raw: sys::trawl_device,
    needs: Needs,
    rungs: Vec<Rung>,
    at: usize,
    pools: Vec<Arc<Mempool>>,
}

impl Setup {
    /// Looks at a device and plans; nothing is changed.
    pub fn plan(
        opened: &Opened,
        config: &PortConfig,
        device: &Device,
        needs: Needs,
    ) -> Result<Self, PortError> {
        let mut raw = sys::trawl_device::default();
        {
            let _control = opened.eal.control();
            // SAFETY: control is held and the port exists; raw is written whole on success.
            let described = unsafe { sys::trawl_port_device(opened.id, &raw mut raw) };
            opened.check("describing the device", described)?;
        }
        check_queues(config, device, raw.rx_queues_max)?;
        // SAFETY: the shim terminates the name within its array.
        let name = unsafe { CStr::from_ptr(raw.driver.as_ptr()) }.to_string_lossy().into_owned();
        let driver = Driver::by_name(&name);
        opened.set_advice(driver.advice);
        let planned = plan(config, device, needs, &raw, opened.id, (name, driver));
        let mtu = planned.frame_bytes_max.saturating_sub(ETHERNET_BYTES).max(raw.min_mtu.into());
        let rss = matches!(planned.spread, Spread::Symmetric | Spread::Asymmetric);
        let rungs = rungs(rss, mtu, driver.wants_tx || device.wants_tx(), planned.queues);
        let facts = planned.clone();
        Ok(Self { planned, facts, driver, raw, needs, rungs, at: 0, pools: Vec::new() })
    }

    /// Configures the port and gives each queue its pool, with this attempt or the next that the driver takes.
    pub fn prepare(&mut self, opened: &Opened) -> Result<(), PortError> {
        loop {
            match self.attempt(opened) {
                Ok(()) => return Ok(()),
                Err(error @ PortError::Mempool { .. }) => return Err(error),
                Err(error) if !self.descend() => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Goes to the next attempt; false when there is none.
    pub fn descend(&mut self) -> bool {
        self.at += 1;
        self.at < self.rungs.len()
    }

    fn attempt(&mut self, opened: &Opened) -> Result<(), PortError> {
        let rung = self.rungs[self.at];
        self.facts = self.planned.clone();
        note_what_was_given_up(&mut self.facts, rung);
        {
            let _control = opened.eal.control();
            let setup = sys::trawl_setup {
                rx_queues: self.facts.queues,
                tx_queues: rung.tx_queues,
                mtu: rung.mtu,
                scatter: self.facts.scatter.into(),
                rss: rung.rss.into(),
            };
            // SAFETY: the port exists and is not started; control is held.
            opened.check("configuring", unsafe { sys::trawl_port_configure(opened.id, &raw const setup) })?;
            set_up_tx(opened, rung.tx_queues, self.raw.socket)?;
            if self.driver.sets_mtu {
                set_mtu(opened, &mut self.facts, rung.mtu);
            }
            self.adjust_descriptors(opened)?;
        }
        self.set_up_rx(opened)
    }

    fn adjust_descriptors(&mut self, opened: &Opened) -> Result<(), PortError> {
        let (mut rx, mut tx) = (self.facts.rx_descriptors, TX_DESCRIPTORS);
        // SAFETY: the port exists; both numbers are read and written in place.
        let adjusted = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(opened.id, &raw mut rx, &raw mut tx) };
        opened.check("adjusting the number of descriptors", adjusted)?;
        self.facts.rx_descriptors = self.driver.descriptors(rx);
        let queue =
            Queue::new(self.driver, rx, self.facts.buffers, self.needs.buffers, self.facts.buffer_bytes);
        self.facts.buffers = queue.buffers;
        Ok(())
    }

    fn set_up_rx(&mut self, opened: &Opened) -> Result<(), PortError> {
        let Self { facts, raw, driver, pools, .. } = self;
        for queue in 0..facts.queues {
            let pool = match pools.get(usize::from(queue)) {
                Some(pool) => Arc::clone(pool),
                None => {
                    let pool = Mempool::new(&opened.eal, facts.buffers, facts.buffer_bytes, raw.socket)
                        .map_err(|source| PortError::Mempool { device: facts.device.clone(), source })?;
                    let pool = Arc::new(pool);
                    opened.keep(pool.clone());
                    pools.push(pool.clone());
                    pool
                }
            };
            let _control = opened.eal.control();
            // SAFETY: the port is configured with more queues than `queue`, and not started; the pool lives until it is closed.
            let returned = unsafe {
                sys::trawl_rx_queue_setup(
                    opened.id,
                    queue,
                    facts.rx_descriptors,
                    raw.socket,
                    facts.scatter.into(),
                    (driver.drops_when_full && facts.queues > 1).into(),
                    pool.as_ptr(),
                )
            };
            opened.check("setting up an RX queue", returned)?;
        }
        let _control = opened.eal.control();
        // SAFETY: the port has a queue 0, which is set up; the callee refuses what it does not know.
        note_the_ring(facts, driver, unsafe { sys::trawl_rx_ring(opened.id, 0) });
        Ok(())
    }
}

/// All attempts: without our RSS, with a shorter frame, without both; each without TX queues first, unless the driver wants them.
fn rungs(rss: bool, mtu: u32, wants_tx: bool, queues: u16) -> Vec<Rung> {
    let mut rungs = Vec::new();
    for (rss, mtu) in [(rss, mtu), (false, mtu), (rss, mtu.min(MTU_COMMON)), (false, mtu.min(MTU_COMMON))] {
        // Some drivers refuse to have fewer TX than RX queues.
        for tx_queues in [if wants_tx { queues } else { 0 }, queues] {
            let rung = Rung { rss, mtu, tx_queues };
            if !rungs.contains(&rung) {
                rungs.push(rung);
            }
        }
    }
    rungs
}

fn check_queues(config: &PortConfig, device: &Device, queues_max: u16) -> Result<(), PortError> {
    let error =
        |has, all| PortError::Queues { device: config.device.clone(), asked: config.queues, has, all };
    match device.listed_queues() {
        Some(listed) if listed != config.queues => Err(error(listed, true)),
        _ if config.queues == 0 || config.queues > queues_max.min(QUEUES_MAX) => {
            Err(error(queues_max.min(QUEUES_MAX), false))
        }
        _ => Ok(()),
    }
}

/// What is asked of the device at first.
fn plan(
    config: &PortConfig,
    device: &Device,
    needs: Needs,
    raw: &sys::trawl_device,
    port: u16,
    (name, driver): (String, &Driver),
) -> PortFacts {
    let mut limitations = Vec::new();
    let scatter = !driver.one_buffer_per_frame && (raw.scatter != 0 || device.chains());
    let mtu_max = if raw.max_mtu == 0 { u32::from(u16::MAX) } else { u32::from(raw.max_mtu) };
    let frame_bytes_max = config.frame_bytes_max.min(mtu_max + ETHERNET_BYTES);
    if frame_bytes_max < config.frame_bytes_max {
        limitations
            .push(format!("frames are at most {frame_bytes_max} bytes: the device takes no larger MTU"));
    }
    let buffer_bytes = buffer_bytes(frame_bytes_max, scatter, needs);
    if !scatter && buffer_bytes < frame_bytes_max && !device.makes_its_frames() {
        limitations.push(format!(
            "frames longer than {buffer_bytes} bytes may be cut or dropped: the device uses one buffer a frame{}",
            device.room_advice()
        ));
    }
    if let Counted::NotAll(elsewhere) = driver.losses.counted {
        limitations.push(format!(
            "this port does not count what it loses, so no capture on it is called complete; look at {elsewhere}"
        ));
    }
    let spread = match (config.queues, raw.rss, raw.rss_key_bytes) {
        (1, ..) => Spread::Single,
        (_, 0, _) => Spread::Device,
        (_, _, 0) => Spread::Asymmetric,
        _ => Spread::Symmetric,
    };
    PortFacts {
        device: config.device.clone(),
        port,
        driver: name,
        numa_node: u32::try_from(raw.socket).ok(),
        queues: config.queues,
        spread,
        rx_descriptors: config.rx_descriptors,
        buffers: config.mbufs_per_queue,
        buffer_bytes,
        scatter,
        frame_bytes_max,
        counts_its_losses: driver.counts_its_losses(),
        limitations,
    }
}

/// Data bytes of a buffer: never less than the driver relies on, small where long frames may be chained.
fn buffer_bytes(frame_bytes_max: u32, scatter: bool, needs: Needs) -> u32 {
    let wanted = Queue::buffer_bytes(frame_bytes_max, needs.exact || scatter);
    wanted.max(needs.data_bytes.min(DATA_BYTES_MAX).next_multiple_of(64)).min(DATA_BYTES_MAX)
}

fn note_what_was_given_up(facts: &mut PortFacts, rung: Rung) {
    if !rung.rss && matches!(facts.spread, Spread::Symmetric | Spread::Asymmetric) {
        facts.spread = Spread::Device;
        facts
            .limitations
            .push("the device refuses our RSS: directions of a flow may come on different queues".into());
    }
    if facts.spread == Spread::Asymmetric {
        facts
            .limitations
            .push("the RSS key cannot be set: directions of a flow may come on different queues".into());
    }
    let frame_bytes_max = rung.mtu + ETHERNET_BYTES;
    if frame_bytes_max < facts.frame_bytes_max {
        facts.frame_bytes_max = frame_bytes_max;
        facts
            .limitations
            .push(format!("frames are at most {frame_bytes_max} bytes: the device refuses a larger MTU"));
    }
}

/// Says how long the ring is, as far as that is known. `real` is the driver's answer, or 0.
fn note_the_ring(facts: &mut PortFacts, driver: &Driver, real: u16) {
    let asked = facts.rx_descriptors;
    if real != 0 && real != asked {
        facts.rx_descriptors = real;
        if real < asked {
            facts
                .limitations
                .push(format!("a queue has {real} descriptors instead of {asked}: the device takes no more"));
        }
    } else if real == 0
        && let Some(who) = driver.ring.decided_by
    {
        facts.limitations.push(format!("a queue may have fewer than {asked} descriptors: {who}"));
    }
    if driver.ring.fast_if_power_of_two && !facts.rx_descriptors.is_power_of_two() {
        let down = 1_u16 << (15 - facts.rx_descriptors.leading_zeros());
        facts.limitations.push(format!(
            "receiving is slower with {} descriptors than with a power of two: set port.rx_descriptors to {down} or {}",
            facts.rx_descriptors,
            u32::from(down) * 2
        ));
    }
}

/// For drivers that take no notice of the MTU in their configuration. The caller holds the control lock.
fn set_mtu(opened: &Opened, facts: &mut PortFacts, mtu: u32) {
    let Ok(wanted) = u16::try_from(mtu) else { return };
    // SAFETY: the port exists and is configured; control is held.
    let returned = unsafe { sys::rte_eth_dev_set_mtu(opened.id, wanted) };
    if returned == 0 {
        return;
    }
    let code = Code::of(returned);
    facts.frame_bytes_max = facts.frame_bytes_max.min(MTU_COMMON + ETHERNET_BYTES);
    facts.limitations.push(format!(
        "frames longer than the interface's own MTU allows may be dropped: an MTU of {mtu} cannot be set ({code})"
    ));
}

fn set_up_tx(opened: &Opened, queues: u16, socket: i32) -> Result<(), PortError> {
    for queue in 0..queues {
        let (mut rx, mut tx) = (TX_DESCRIPTORS, TX_DESCRIPTORS);
        // SAFETY: the port is configured with more TX queues than `queue`, and not started.
        let returned = unsafe {
            sys::rte_eth_dev_adjust_nb_rx_tx_desc(opened.id, &raw mut rx, &raw mut tx);
            sys::trawl_tx_queue_setup(opened.id, queue, tx, socket)
        };
        opened.check("setting up the TX queue that the driver wants", returned)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_own_need_is_met_and_nothing_more_if_it_is_exact() {
        let needs = |data_bytes, exact| Needs { data_bytes, exact, buffers: 0 };
        assert_eq!(buffer_bytes(9022, false, needs(64, true)), 2048);
        assert_eq!(buffer_bytes(1518, false, needs(16_384, true)), 16_384);
        assert_eq!(buffer_bytes(9022, true, needs(9014, false)), 9024);
        assert_eq!(buffer_bytes(9022, false, needs(u32::MAX, true)), DATA_BYTES_MAX);
    }

    #[test]
    fn every_attempt_is_made_once_and_asks_for_no_more_than_the_one_before() {
        let all = rungs(true, 9004, false, 4);
        assert_eq!(all.len(), 8);
        assert_eq!(all[0], Rung { rss: true, mtu: 9004, tx_queues: 0 });
        assert_eq!(all[7], Rung { rss: false, mtu: 1500, tx_queues: 4 });
        assert_eq!(rungs(false, 1500, true, 2), [Rung { rss: false, mtu: 1500, tx_queues: 2 }]);
    }
}
