//! Setting a device up for capture. Owns the choice of offloads, buffers and spread, and what is tried when a driver
//! refuses; not the device's life.
//!
//! Invariant: what is tried next asks for less, and what was given up is in `limitations`.
#![allow(unsafe_code)]

use std::{ffi::CStr, sync::Arc};

use super::{
    device::{Device, Needs},
    facts::{PortFacts, Spread},
    mempool::{CACHE, DATA_BYTES_MAX, Mempool},
    opened::{Opened, PortConfig, PortError},
    sys,
};
use crate::limits::{BURST, QUEUES_MAX};

/// Bytes of a buffer that every driver takes: hardware counts in KiB, and virtio and AF_XDP know no other size.
const BUFFER_BYTES: u32 = 2048;

/// Bytes of a buffer for whole jumbo frames, where a device cannot use several buffers: 9000 bytes of payload with headers.
const BUFFER_BYTES_JUMBO: u32 = 10 << 10;

/// Bytes of an Ethernet header; DPDK's MTU is a frame without it and without FCS.
const ETHERNET_BYTES: u32 = 14;

/// The MTU that every device takes.
const MTU_COMMON: u32 = 1500;

/// Descriptors of a TX queue, where a driver insists on having one; nothing is ever sent.
const TX_DESCRIPTORS: u16 = 64;

/// Configures a port and gives each queue its pool.
pub(super) fn configure(
    opened: &Opened,
    config: &PortConfig,
    device: &Device,
    needs: Needs,
) -> Result<PortFacts, PortError> {
    let mut raw = sys::trawl_device::default();
    {
        let _control = opened.eal.control();
        // SAFETY: control is held and the port exists; raw is written whole on success.
        opened.check("describing the device", unsafe { sys::trawl_port_device(opened.id, &raw mut raw) })?;
    }
    check_queues(config, device, raw.rx_queues_max)?;
    let mut facts = plan(config, device, needs, &raw, opened.id);
    {
        let _control = opened.eal.control();
        apply(opened, &mut facts, &raw, device.wants_tx())?;
        adjust_descriptors(opened, &mut facts, needs, config.mbufs_per_queue)?;
    }
    for queue in 0..facts.queues {
        let pool = Mempool::new(&opened.eal, facts.buffers, facts.buffer_bytes, raw.socket)
            .map_err(|source| PortError::Mempool { device: config.device.clone(), source })?;
        let pool = Arc::new(pool);
        opened.keep(pool.clone());
        let _control = opened.eal.control();
        // SAFETY: the port is configured with more queues than `queue`, and not started; the pool lives until it is closed.
        let returned = unsafe {
            sys::trawl_rx_queue_setup(
                opened.id,
                queue,
                facts.rx_descriptors,
                raw.socket,
                facts.scatter.into(),
                pool.as_ptr(),
            )
        };
        opened.check("setting up an RX queue", returned)?;
    }
    Ok(facts)
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
fn plan(config: &PortConfig, device: &Device, needs: Needs, raw: &sys::trawl_device, port: u16) -> PortFacts {
    let mut limitations = Vec::new();
    let scatter = raw.scatter != 0 || device.chains();
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
    // SAFETY: the shim terminates the name within its array.
    let driver = unsafe { CStr::from_ptr(raw.driver.as_ptr()) }.to_string_lossy().into_owned();
    let spread = match (config.queues, raw.rss, raw.rss_key_bytes) {
        (1, ..) => Spread::Single,
        (_, 0, _) => Spread::Device,
        (_, _, 0) => Spread::Asymmetric,
        _ => Spread::Symmetric,
    };
    PortFacts {
        device: config.device.clone(),
        port,
        driver,
        numa_node: u32::try_from(raw.socket).ok(),
        queues: config.queues,
        spread,
        rx_descriptors: config.rx_descriptors,
        buffers: config.mbufs_per_queue,
        buffer_bytes,
        scatter,
        frame_bytes_max,
        limitations,
    }
}

/// Data bytes of a buffer: never less than the driver relies on, small where long frames may be chained.
fn buffer_bytes(frame_bytes_max: u32, scatter: bool, needs: Needs) -> u32 {
    let wanted = if needs.exact || scatter {
        BUFFER_BYTES
    } else {
        frame_bytes_max.clamp(BUFFER_BYTES, BUFFER_BYTES_JUMBO).next_multiple_of(1024)
    };
    wanted.max(needs.data_bytes.min(DATA_BYTES_MAX).next_multiple_of(64)).min(DATA_BYTES_MAX)
}

/// Tries what was planned, then less, until the driver takes it.
fn apply(
    opened: &Opened,
    facts: &mut PortFacts,
    raw: &sys::trawl_device,
    wants_tx: bool,
) -> Result<(), PortError> {
    let mtu = (facts.frame_bytes_max.saturating_sub(ETHERNET_BYTES)).max(raw.min_mtu.into());
    let rss = matches!(facts.spread, Spread::Symmetric | Spread::Asymmetric);
    let mut last = 0;
    for (rss, mtu) in [(rss, mtu), (false, mtu), (rss, mtu.min(MTU_COMMON)), (false, mtu.min(MTU_COMMON))] {
        // Some drivers refuse to have fewer TX than RX queues.
        for tx_queues in [if wants_tx { facts.queues } else { 0 }, facts.queues] {
            let setup = sys::trawl_setup {
                rx_queues: facts.queues,
                tx_queues,
                mtu,
                scatter: facts.scatter.into(),
                rss: rss.into(),
            };
            // SAFETY: the port exists and is not started; control is held by the caller.
            last = unsafe { sys::trawl_port_configure(opened.id, &raw const setup) };
            if last == 0 {
                note_what_was_given_up(facts, rss, mtu);
                return set_up_tx(opened, tx_queues, raw.socket);
            }
        }
    }
    opened.check("configuring", last)
}

fn note_what_was_given_up(facts: &mut PortFacts, rss: bool, mtu: u32) {
    if !rss && matches!(facts.spread, Spread::Symmetric | Spread::Asymmetric) {
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
    let frame_bytes_max = mtu + ETHERNET_BYTES;
    if frame_bytes_max < facts.frame_bytes_max {
        facts.frame_bytes_max = frame_bytes_max;
        facts
            .limitations
            .push(format!("frames are at most {frame_bytes_max} bytes: the device refuses a larger MTU"));
    }
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

fn adjust_descriptors(
    opened: &Opened,
    facts: &mut PortFacts,
    needs: Needs,
    buffers: u32,
) -> Result<(), PortError> {
    let (mut rx, mut tx) = (facts.rx_descriptors, TX_DESCRIPTORS);
    // SAFETY: the port exists; both numbers are read and written in place.
    let adjusted = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(opened.id, &raw mut rx, &raw mut tx) };
    opened.check("adjusting the number of descriptors", adjusted)?;
    facts.rx_descriptors = rx;
    // A queue holds its descriptors' worth and a worker a burst. A thread's cache takes up to one and a half times its
    // size, and keeps it when the thread ends: room for the polling thread's and for one before it.
    let spare = 2 * (CACHE * 3 / 2) + 2 * BURST as u32;
    facts.buffers = buffers.max(u32::from(rx).max(needs.buffers).saturating_add(spare));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_small_where_long_frames_are_chained() {
        assert_eq!(buffer_bytes(9022, true, Needs::default()), 2048);
        assert_eq!(buffer_bytes(1518, false, Needs::default()), 2048);
    }

    #[test]
    fn one_buffer_holds_a_jumbo_frame_where_it_must_but_not_the_longest_of_all() {
        assert_eq!(buffer_bytes(9022, false, Needs::default()), 9216);
        assert_eq!(buffer_bytes(65_599, false, Needs::default()), 10_240);
    }

    #[test]
    fn a_drivers_own_need_is_met_and_nothing_more_if_it_is_exact() {
        let needs = |data_bytes, exact| Needs { data_bytes, exact, buffers: 0 };
        assert_eq!(buffer_bytes(9022, false, needs(64, true)), 2048);
        assert_eq!(buffer_bytes(1518, false, needs(16_384, true)), 16_384);
        assert_eq!(buffer_bytes(9022, true, needs(9014, false)), 9024);
        assert_eq!(buffer_bytes(9022, false, needs(u32::MAX, true)), DATA_BYTES_MAX);
    }
}
