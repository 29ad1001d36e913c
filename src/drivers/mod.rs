//! What DPDK's drivers do that they do not tell: one row for each driver. Owns the rows and the arithmetic that follows from
//! them, and which devices EAL is to take. It opens nothing, so that `trawl check` knows what the running port knows.
//!
//! Sources: the drivers of DPDK 22.11.11, 24.11.6 and 25.11.2 under `drivers/net`. [`table`] names the place in each row.
//!
//! Invariant: a driver without a row is trusted with nothing that could hide a loss.

mod buffers;
mod devices;
mod table;

pub use buffers::{CACHE, Queue};
pub use devices::{Bus, Contradiction, added, pci_address};
pub use table::{TABLE, UNKNOWN};

/// What one driver does.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// `rte_eth_dev_info.driver_name`. Vdevs are named with these as beginning.
    pub names: &'static [&'static str],
    /// PCI vendor and device ids; no device ids stand for all of the vendor.
    pub pci: &'static [(u16, &'static [u16])],
    /// The kernel's driver, where DPDK works beside it: the device stays bound to it.
    pub kernel: Option<&'static str>,
    /// How it fills its rings.
    pub ring: Ring,
    /// It has no scatter, or is the worse for it: each buffer holds a whole frame.
    pub one_buffer_per_frame: bool,
    /// It takes 1, 2, 4, 8… queues.
    pub queues_power_of_two: bool,
    /// It is given as many TX queues as RX queues at once.
    pub wants_tx: bool,
    /// It follows `set_mtu` and ignores `rxmode.mtu`.
    pub sets_mtu: bool,
    /// What comes of promiscuous mode.
    pub promiscuous: Promiscuous,
    /// It has a MAC of its own, which may send pause frames.
    pub pauses: bool,
    /// With several queues it is told to drop what a full one does not take (`rx_drop_en`), or that queue holds up the others.
    pub drops_when_full: bool,
    /// What its counters say of lost frames.
    pub losses: Losses,
    /// What to do when it does not start.
    pub advice: &'static str,
}

/// Descriptors and buffers of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring {
    /// Buffers that it holds for each descriptor.
    pub buffers_per_descriptor: u32,
    /// It rounds the number of descriptors up to a power of two.
    pub rounds_up: bool,
    /// Its fast receive function wants a power of two.
    pub fast_if_power_of_two: bool,
    /// Who else decides how long the ring is, and how to make it longer.
    pub decided_by: Option<&'static str>,
}

/// What becomes of promiscuous mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promiscuous {
    /// The driver's answer is true.
    Told,
    /// It filters nothing, also if it does not know the mode.
    NoFilter,
    /// A driver that does not know the mode receives only frames to its own address; with advice.
    OwnAddress(&'static str),
    /// The answer may be yes and the host may still filter; with advice.
    NeedsTrust(&'static str),
}

/// What a driver counts of frames that no worker received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Losses {
    /// How far `imissed` and `xstats` are all that is lost.
    pub counted: Counted,
    /// Extended counters that are lost frames too, and not in `imissed`. One `*` stands for a number.
    pub xstats: &'static [&'static str],
    /// `ierrors` are frames that were not delivered.
    pub errors_are_lost: bool,
    /// `rx_nombuf` are frames that were not delivered; otherwise it counts attempts to refill.
    pub nombuf_is_lost: bool,
    /// Its counters of losses start again at zero after 2^32.
    pub wraps_at_32_bits: bool,
}

/// How far a driver's counts are all that is lost between the wire and a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// All of it, as far as the device knows; or the driver has nothing to lose.
    All,
    /// Not all of it; where the rest shows.
    NotAll(&'static str),
}

impl Driver {
    /// The row of a driver by the name that DPDK has for it.
    #[must_use]
    pub fn by_name(name: &str) -> &'static Self {
        TABLE.iter().find(|row| row.names.contains(&name)).unwrap_or(&UNKNOWN)
    }

    /// The row of a vdev, which is the driver's name and some number or word. The longest name that fits is the driver's.
    #[must_use]
    pub fn of_vdev(device: &str) -> &'static Self {
        let fits = |row: &Self| {
            row.names.iter().filter(|name| device.starts_with(**name)).map(|name| name.len()).max()
        };
        let found = TABLE.iter().filter_map(|row| Some((fits(row)?, row))).max_by_key(|(length, _)| *length);
        found.map_or(&UNKNOWN, |(_, row)| row)
    }

    /// The row for a PCI device by its ids.
    #[must_use]
    pub fn of_pci(vendor: u16, device: u16) -> &'static Self {
        let has = |row: &&Self, all: bool| {
            let listed = |ids: &[u16]| if all { ids.is_empty() } else { ids.contains(&device) };
            row.pci.iter().any(|(of, ids)| *of == vendor && listed(ids))
        };
        let find = |all| TABLE.iter().find(|row| has(row, all));
        find(false).or_else(|| find(true)).unwrap_or(&UNKNOWN)
    }

    /// Whether this is the row of a driver that is not known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.names.is_empty()
    }

    /// Descriptors that the ring has when so many are asked for.
    #[must_use]
    pub fn descriptors(&self, asked: u16) -> u16 {
        if self.ring.rounds_up { asked.checked_next_power_of_two().unwrap_or(1 << 15) } else { asked }
    }

    /// Buffers that a ring of so many descriptors holds.
    #[must_use]
    pub fn buffers_held(&self, descriptors: u16) -> u32 {
        u32::from(self.descriptors(descriptors)) * self.ring.buffers_per_descriptor
    }

    /// Whether this many queues can be had.
    #[must_use]
    pub fn takes_queues(&self, queues: u16) -> bool {
        !self.queues_power_of_two || queues.is_power_of_two()
    }

    /// Whether every loss that the device knows is in its counts.
    #[must_use]
    pub fn counts_its_losses(&self) -> bool {
        self.losses.counted == Counted::All
    }
}

impl Losses {
    /// Whether an extended counter counts lost frames that `imissed` does not.
    #[must_use]
    pub fn is_loss(&self, xstat: &str) -> bool {
        self.xstats.iter().any(|pattern| match pattern.split_once('*') {
            None => *pattern == xstat,
            Some((before, after)) => xstat
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_have_a_name_or_a_pci_id_in_common() {
        let names: Vec<_> = TABLE.iter().flat_map(|row| row.names).collect();
        let ids = TABLE.iter().flat_map(|row| row.pci).flat_map(|(vendor, ids)| {
            let ids: Vec<_> = if ids.is_empty() { vec![None] } else { ids.iter().map(Some).collect() };
            ids.into_iter().map(move |id| (vendor, id))
        });
        let ids: Vec<_> = ids.collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name}");
        }
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id), "{id:?}");
        }
    }

    #[test]
    fn a_driver_that_nobody_knows_vouches_for_nothing() {
        for row in [Driver::by_name("net_future"), Driver::of_vdev("net_future0"), Driver::of_pci(1, 2)] {
            assert!(row.is_unknown() && !row.counts_its_losses());
        }
    }

    #[test]
    fn a_vdev_is_the_driver_whose_name_fits_best() {
        assert!(Driver::of_vdev("net_ring0").names.contains(&"net_ring"));
        assert!(Driver::of_vdev("net_virtio_user0").names.contains(&"net_virtio_user"));
        assert!(Driver::of_vdev("net_af_xdp7").names.contains(&"net_af_xdp"));
    }

    #[test]
    fn a_pci_device_that_is_listed_is_not_its_vendors_others() {
        assert!(Driver::of_pci(0x15b3, 0x1003).names.contains(&"net_mlx4"));
        assert!(Driver::of_pci(0x15b3, 0x101d).names.contains(&"mlx5_pci"));
        assert!(Driver::of_pci(0x8086, 0x1572).is_unknown(), "Intel has many drivers");
    }

    #[test]
    fn rings_hold_what_their_driver_puts_into_them() {
        let held = |name, descriptors| Driver::by_name(name).buffers_held(descriptors);
        assert_eq!(held("net_bnxt", 1024), 5120);
        assert_eq!(held("net_vmxnet3", 2048), 4096);
        assert_eq!(held("mlx5_pci", 5000), 8192);
        assert_eq!(held("net_ixgbe", 1000), 1000);
    }

    #[test]
    fn losses_are_told_by_name_and_numbers_by_a_star() {
        let mlx5 = Driver::by_name("mlx5_pci").losses;
        assert!(mlx5.is_loss("rx_phy_discard_packets") && mlx5.is_loss("rx_prio7_buf_discard_packets"));
        for other in ["rx_phy_packets", "rx_prio_buf_discard_packets", "rx_priox_buf_discard_packets"] {
            assert!(!mlx5.is_loss(other), "{other}");
        }
        assert!(Driver::by_name("net_ixgbe").losses.is_loss("rx_q15_errors"));
    }
}
