//! Drivers of NICs that nobody has here: `quirks.c` lets `net_ring` behave as each of them does. Owns the table of what a NIC
//! does and what a port on it must be; what `trawl` knows of drivers is in `src/drivers`.
//!
//! The columns: it starts at the defaults; the ring is as it says; losses show, or it says that they do not; promiscuous mode is
//! told; pause frames are off, or it says so.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use trawl::dpdk::{Eal, Port, PortConfig, PortError, PortEvents, PortStats, StartedPort, feeder::Feeder};
use trawl::packet::{Burst, Source};

use crate::support::{alone_with, eal_small};

/// What a NIC does, and what comes of it.
struct Nic {
    /// For `quirks.c`.
    quirks: &'static str,
    /// Descriptors of a queue that was asked for 1024, in frames.
    ring: u16,
    /// The port as it is, in its limitations.
    says: &'static [&'static str],
    /// What it never says.
    is_silent_of: &'static [&'static str],
    /// Calls that are made, in any order.
    calls: &'static [&'static str],
    /// Of 1 frame by each counter and by the extended counters below: lost, and not delivered by other ways.
    xstats: &'static [&'static str],
    lost: u64,
    counts_its_losses: bool,
}

const UNCOUNTED: &str = "does not count what it loses";
const PROMISCUOUS: &str = "no promiscuous mode";
const PAUSE: &str = "pause frames cannot be switched off";

fn library(folder: &Path) -> PathBuf {
    let library = folder.join("quirks.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dpdk/quirks/quirks.c");
    let flags = Command::new("pkg-config").args(["--cflags", "libdpdk"]).output().unwrap();
    let flags = String::from_utf8(flags.stdout).unwrap();
    let mut build = Command::new("cc");
    build.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-DALLOW_EXPERIMENTAL_API"]);
    build.args(flags.split_whitespace()).arg(source).arg("-o").arg(&library).arg("-ldl");
    assert!(build.status().expect("a C compiler is needed: cc").success(), "quirks.c is not built");
    library
}

/// The place of this test's log and counters.
fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("trawl-quirks-{}-{name}", std::env::var("TRAWL_QUIRKS_ID").unwrap()))
}

fn set(counters: &str) {
    fs::write(scratch("stats"), counters).unwrap();
}

fn log() -> String {
    fs::read_to_string(scratch("log")).unwrap_or_default()
}

/// Runs the body in a process in which `net_ring` has these quirks.
fn with(quirks: &str, body: impl FnOnce(&Eal)) {
    let id = std::process::id().to_string();
    let path = |name: &str| std::env::temp_dir().join(format!("trawl-quirks-{id}-{name}"));
    let folder = tempfile::tempdir().unwrap();
    let environment = || {
        vec![
            ("LD_PRELOAD", library(folder.path())),
            ("TRAWL_QUIRKS", quirks.into()),
            ("TRAWL_QUIRKS_ID", id.clone().into()),
            ("TRAWL_QUIRKS_LOG", path("log")),
            ("TRAWL_QUIRKS_STATS", path("stats")),
        ]
    };
    alone_with(environment, || body(&eal_small()));
    for name in ["log", "stats"] {
        let _it_is_gone = fs::remove_file(path(name));
    }
}

fn started(eal: &Eal, config: &PortConfig) -> StartedPort {
    let (port, _queues) = Port::open(eal, config).unwrap().start().unwrap();
    println!("{:?}\n{}", port.facts(), log());
    port
}

fn holds(nic: &Nic) {
    with(nic.quirks, |eal| {
        let port = started(eal, &PortConfig::new("net_ring0", 2));
        let facts = port.facts();
        assert_eq!(facts.rx_descriptors, nic.ring, "the ring");
        let said = facts.limitations.join("\n");
        for text in nic.says {
            assert!(said.contains(text), "{text:?} is not said in:\n{said}");
        }
        for text in nic.is_silent_of {
            assert!(!said.contains(text), "{text:?} is said in:\n{said}");
        }
        let log = log();
        for call in nic.calls {
            assert!(log.lines().any(|line| line.contains(call)), "{call:?} is not in:\n{log}");
        }
        assert_eq!(facts.counts_its_losses, nic.counts_its_losses);
        assert_eq!(said.contains(UNCOUNTED), !nic.counts_its_losses);
        // One by each counter, and by each of the extended ones.
        let xstats: String = nic.xstats.iter().map(|name| format!("{name} 1\n")).collect();
        set(&format!("ipackets 100\nimissed 1\nierrors 1\nrx_nombuf 1\nrx_good_packets 100\n{xstats}"));
        let stats = port.stats().unwrap();
        let lost = port.losses(&stats);
        assert_eq!(lost.imissed + lost.rx_nombuf + lost.ierrors + lost.discarded, nic.lost, "{lost:?}");
    });
}

/// What most of them have in common.
const PLAIN: Nic = Nic {
    quirks: "",
    ring: 1024,
    says: &[],
    is_silent_of: &[UNCOUNTED, PROMISCUOUS, PAUSE],
    calls: &["scatter=1"],
    xstats: &[],
    lost: 1,
    counts_its_losses: true,
};

#[test]
fn mlx5_has_the_ring_that_was_asked_for_no_scatter_and_counts_what_the_nic_discards() {
    holds(&Nic {
        quirks: "driver=mlx5_pci scatter=1 segments=8 fill=1 pause=3",
        calls: &["scatter=0", "set_mtu 9008", "pause 0"],
        xstats: &["rx_phy_discard_packets", "rx_prio3_buf_discard_packets", "rx_phy_packets"],
        lost: 4,
        ..PLAIN
    });
}

#[test]
fn bnxt_starts_at_the_defaults_although_it_fills_five_buffers_a_descriptor() {
    holds(&Nic {
        quirks: "driver=net_bnxt scatter=1 fill_scattered=5 pause=3",
        calls: &["scatter=1", "pause 0"],
        lost: 2,
        ..PLAIN
    });
}

#[test]
fn vmxnet3_has_buffers_for_both_rings_and_its_tx_queues_at_once() {
    let nic = Nic {
        quirks: "driver=net_vmxnet3 scatter=1 fill=2 pow2=configure",
        calls: &["rx=2 tx=2"],
        lost: 2,
        ..PLAIN
    };
    holds(&nic);
}

#[test]
fn vmxnet3_starts_with_long_rings_too() {
    with("driver=net_vmxnet3 scatter=1 fill=2", |eal| {
        started(eal, &PortConfig { rx_descriptors: 4096, ..PortConfig::new("net_ring0", 1) });
    });
}

#[test]
fn mana_has_tx_queues_sets_its_mtu_and_says_what_it_neither_counts_nor_hears() {
    holds(&Nic {
        quirks: "driver=net_mana pow2=configure needs_tx=1 promiscuous=-95",
        says: &[UNCOUNTED, PROMISCUOUS, "Azure"],
        is_silent_of: &[PAUSE],
        calls: &["rx=2 tx=2", "scatter=0", "set_mtu 9008"],
        lost: 2,
        counts_its_losses: false,
        ..PLAIN
    });
}

#[test]
fn ena_sets_its_mtu_says_that_it_hears_its_own_address_only_and_errors_are_no_losses() {
    holds(&Nic {
        quirks: "driver=net_ena scatter=1 needs_tx=1 promiscuous=-95",
        says: &[PROMISCUOUS, "AWS"],
        is_silent_of: &[PAUSE, UNCOUNTED],
        calls: &["rx=2 tx=2", "set_mtu 9008"],
        ..PLAIN
    });
}

#[test]
fn gve_says_that_its_ring_its_losses_and_its_filter_are_not_ours() {
    holds(&Nic {
        quirks: "driver=net_gve ring=0 promiscuous=-95 stats=-95",
        says: &[UNCOUNTED, PROMISCUOUS, "may have fewer than 1024 descriptors"],
        is_silent_of: &[PAUSE],
        calls: &["set_mtu 9008", "scatter=0"],
        lost: 0,
        counts_its_losses: false,
        ..PLAIN
    });
}

#[test]
fn netvsc_says_that_the_interfaces_mtu_decides_and_the_host_loses() {
    holds(&Nic {
        quirks: "driver=net_netvsc scatter=1 needs_tx=1 mtu=-95",
        says: &[UNCOUNTED, "an MTU of 9008 cannot be set"],
        is_silent_of: &[PAUSE],
        calls: &["rx=2 tx=2"],
        counts_its_losses: false,
        ..PLAIN
    });
}

#[test]
fn virtio_says_that_the_hypervisor_decides_the_ring_and_counts_the_losses() {
    holds(&Nic {
        quirks: "driver=net_virtio scatter=1 ring=0 promiscuous=-95",
        says: &[UNCOUNTED, "rx_queue_size"],
        is_silent_of: &[PAUSE, PROMISCUOUS],
        lost: 2,
        counts_its_losses: false,
        ..PLAIN
    });
}

#[test]
fn ixgbe_drops_at_a_full_queue_counts_that_and_takes_errors_for_no_losses() {
    holds(&Nic {
        quirks: "driver=net_ixgbe scatter=1 pause=0",
        calls: &["rx_queue 1 descriptors=1024 drop_en=1", "pause 0"],
        xstats: &["rx_q0_errors", "rx_q1_errors"],
        lost: 3,
        ..PLAIN
    });
}

#[test]
fn i40e_takes_errors_for_no_losses() {
    holds(&Nic { quirks: "driver=net_i40e scatter=1 pause=3", calls: &["drop_en=0", "pause 0"], ..PLAIN });
}

#[test]
fn ice_says_that_pause_frames_stay_as_they_are() {
    holds(&Nic {
        quirks: "driver=net_ice scatter=1",
        says: &[PAUSE, "ethtool -A"],
        is_silent_of: &[UNCOUNTED],
        lost: 2,
        ..PLAIN
    });
}

#[test]
fn igb_and_e1000_send_no_pause_frames_also_if_they_say_so_only_while_the_link_is_up() {
    holds(&Nic {
        quirks: "driver=net_e1000_igb scatter=1 pause=0",
        calls: &["drop_en=0", "pause 0"],
        ..PLAIN
    });
}

#[test]
fn e1000_sends_no_pause_frames() {
    holds(&Nic { quirks: "driver=net_e1000_em scatter=1 pause=3", calls: &["pause 0"], ..PLAIN });
}

#[test]
fn a_device_that_has_a_shorter_ring_than_was_asked_for_says_so() {
    with("driver=net_ixgbe scatter=1 pause=0 ring=512", |eal| {
        let port = started(eal, &PortConfig::new("net_ring0", 1));
        assert_eq!(port.facts().rx_descriptors, 512);
        assert!(port.facts().limitations.iter().any(|text| text.contains("512 descriptors instead of 1024")));
    });
}

#[test]
fn a_driver_that_refuses_at_the_start_is_configured_again_with_less() {
    with("driver=net_iavf scatter=1 start_mtu_max=1500", |eal| {
        let port = started(eal, &PortConfig::new("net_ring0", 2));
        assert_eq!(port.facts().frame_bytes_max, 1514);
        let said = port.facts().limitations.join("\n");
        assert!(said.contains("frames are at most 1514 bytes"), "{said}");
    });
}

#[test]
fn a_driver_that_refuses_for_good_says_what_helps_with_it() {
    with("driver=net_ixgbe_vf scatter=1 pow2=start", |eal| {
        let opened = Port::open(eal, &PortConfig::new("net_ring0", 3)).unwrap();
        let error = opened.start().map(|_| ()).unwrap_err();
        assert!(matches!(error, PortError::Step { step: "starting", .. }), "{error}");
        assert!(error.to_string().contains("set port.queues to 1, 2 or 4"), "{error}");
    });
}

#[test]
fn a_counter_of_32_bits_that_begins_again_goes_on_and_nothing_goes_back() {
    with("driver=net_i40e scatter=1 pause=0", |eal| {
        let port = started(eal, &PortConfig::new("net_ring0", 1));
        let missed = |raw: u64| {
            set(&format!("imissed {raw}\n"));
            let PortStats { imissed, .. } = port.stats().unwrap();
            imissed
        };
        assert_eq!(
            [missed(4_000_000_000), missed(5), missed(6)],
            [4_000_000_000, 4_294_967_301, 4_294_967_302]
        );
    });
}

/// RTE_ETH_EVENT_INTR_RESET and RTE_ETH_EVENT_INTR_RMV.
const RESET: u32 = 3;
const REMOVED: u32 = 6;

#[test]
fn a_device_that_is_reset_or_removed_tells_its_owner_once_and_can_be_opened_again() {
    with("driver=net_iavf scatter=1", |eal| {
        for (event, was_reset, was_removed) in [(RESET, true, false), (REMOVED, false, true)] {
            let (port, mut queues) =
                Port::open(eal, &PortConfig::new("net_ring0", 1)).unwrap().start().unwrap();
            assert_eq!(port.events(), PortEvents::default());
            set(&format!("event {event}\n"));
            port.stats().unwrap();
            set("");
            assert_eq!(port.events(), PortEvents { was_reset, was_removed });
            assert_eq!(port.events(), PortEvents::default(), "it was told");
            let slot = queues[0].slot();
            slot.take();
            assert!(queues[0].receive().is_empty() && slot.is_done());
            port.unplug();
            // The device is closed: it can be opened again, and its queue goes on.
            let (port, again) = Port::open(eal, &PortConfig::new("net_ring0", 1)).unwrap().start().unwrap();
            again.into_iter().for_each(|queue| slot.give(queue));
            let mut feed = Feeder::new(eal, &port, 0, 63, 2048).unwrap();
            feed.put(&[&[1, 2, 3]], None).unwrap();
            let burst = queues[0].receive();
            assert_eq!((burst.len(), burst.head(0)), (1, &[1, 2, 3][..]));
            drop(burst);
        }
    });
}
