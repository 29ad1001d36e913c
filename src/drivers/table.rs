//! The rows. Owns what was read in the drivers' sources; not what is made of it.
//!
//! Invariant: each row says only in what its driver differs from [`NIC`] or [`SOFTWARE`].

use super::{Counted, Driver, Losses, Promiscuous, Ring};

const RING: Ring =
    Ring { buffers_per_descriptor: 1, rounds_up: false, fast_if_power_of_two: false, decided_by: None };

const LOSSES: Losses = Losses {
    counted: Counted::All,
    xstats: &[],
    errors_are_lost: false,
    nombuf_is_lost: false,
    wraps_at_32_bits: false,
};

/// A NIC that does everything that DPDK's documents say.
const NIC: Driver = Driver {
    names: &[],
    pci: &[],
    kernel: None,
    ring: RING,
    one_buffer_per_frame: false,
    queues_power_of_two: false,
    wants_tx: false,
    sets_mtu: false,
    promiscuous: Promiscuous::Told,
    pauses: true,
    drops_when_full: false,
    losses: LOSSES,
    advice: "lower port.queues or port.rx_descriptors, or raise port.mbufs",
};

/// A device without a wire: it filters no addresses and sends no pause frames.
const SOFTWARE: Driver = Driver { promiscuous: Promiscuous::NoFilter, pauses: false, ..NIC };

/// A driver that has no row.
pub const UNKNOWN: Driver = Driver {
    losses: Losses {
        counted: Counted::NotAll(
            "it is not known what its driver counts; compare with the sender's counters",
        ),
        ..LOSSES
    },
    ..NIC
};

const TRUST: &str = "the host must trust this VF: `ip link set PF vf N trust on spoofchk off`";

const fn not_all(at: &'static str) -> Losses {
    Losses { counted: Counted::NotAll(at), ..LOSSES }
}

/// Every driver that differs from a row of its kind, and those that are known to do as it says.
pub const TABLE: &[Driver] = &[
    // mlx5_rxq.c:mlx5_rxq_new counts descriptors as buffers: with scatter a ring of 1024 is 128 frames, and the vector receive
    // function is refused (mlx5_rxtx_vec.c:mlx5_rxq_check_vec_support). rx_nombuf counts tries (mlx5_rx.c). What the NIC itself
    // discards is in xstats only (mlx5_ethdev_os.c). rxmode.mtu counts from 22.11.6, 23.11.2 and 24.07 on.
    Driver {
        names: &["mlx5_pci", "mlx5_auxiliary", "net_mlx5", "mlx5_eth"],
        pci: &[(0x15b3, &[])],
        kernel: Some("mlx5_core"),
        ring: Ring { rounds_up: true, fast_if_power_of_two: true, ..RING },
        one_buffer_per_frame: true,
        sets_mtu: true,
        losses: Losses {
            xstats: &[
                "rx_phy_discard_packets",
                "rx_prio*_buf_discard_packets",
                "rx_prio*_cong_discard_packets",
            ],
            errors_are_lost: true,
            wraps_at_32_bits: true,
            ..LOSSES
        },
        advice: "give it CAP_NET_ADMIN and CAP_NET_RAW, lower port.queues or raise port.mbufs",
        ..NIC
    },
    // mlx4_rxq.c: as mlx5. It has no imissed: what finds no buffer shows in the kernel's counters.
    Driver {
        names: &["net_mlx4", "mlx4_pci"],
        pci: &[(0x15b3, &[0x1003, 0x1004, 0x1007])],
        kernel: Some("mlx4_core"),
        ring: Ring { rounds_up: true, fast_if_power_of_two: true, ..RING },
        one_buffer_per_frame: true,
        sets_mtu: true,
        losses: Losses { errors_are_lost: true, ..not_all("`ethtool -S IF`: rx_out_of_buffer, rx_dropped") },
        advice: "give it CAP_NET_ADMIN and CAP_NET_RAW, lower port.queues or raise port.mbufs",
        ..NIC
    },
    // bnxt_rxr.c:bnxt_init_rx_ring_struct: with scatter an aggregation ring of four times the descriptors, and
    // bnxt_init_one_rx_ring wants all of it filled.
    Driver {
        names: &["net_bnxt"],
        pci: &[(0x14e4, &[])],
        ring: Ring { buffers_per_descriptor: 5, rounds_up: true, ..RING },
        losses: Losses { errors_are_lost: true, ..LOSSES },
        advice: "raise port.mbufs to 5 for each of port.rx_descriptors and 1000 more, or lower port.rx_descriptors",
        ..NIC
    },
    // vmxnet3_rxtx.c:vmxnet3_dev_rxtx_init fills two rings; vmxnet3_ethdev.c:vmxnet3_dev_configure.
    Driver {
        names: &["net_vmxnet3"],
        pci: &[(0x15ad, &[0x07b0])],
        ring: Ring { buffers_per_descriptor: 2, ..RING },
        queues_power_of_two: true,
        wants_tx: true,
        losses: Losses { errors_are_lost: true, ..LOSSES },
        advice: "set port.queues to 1, 2, 4 or 8, at most as many as the VM has CPUs",
        ..SOFTWARE
    },
    // mana.c: "There is no good way to get stats->imissed"; no promiscuous_enable.
    Driver {
        names: &["net_mana", "mana"],
        one_buffer_per_frame: true,
        pci: &[(0x1414, &[0x00ba])],
        kernel: Some("mana"),
        queues_power_of_two: true,
        wants_tx: true,
        sets_mtu: true,
        promiscuous: Promiscuous::OwnAddress(
            "Azure delivers what is sent to this VM's address, so let the mirror send to it",
        ),
        losses: Losses { errors_are_lost: true, ..not_all("`ethtool -S IF` on this VM") },
        advice: "set port.queues to 1, 2, 4 or 8",
        ..SOFTWARE
    },
    // ena_ethdev.c: ena_mtu_set, no promiscuous_enable; ierrors are wrong checksums, which are delivered.
    Driver {
        names: &["net_ena"],
        pci: &[(0x1d0f, &[0x0ec2, 0x1ec2, 0xec20, 0xec21])],
        wants_tx: true,
        sets_mtu: true,
        promiscuous: Promiscuous::OwnAddress(
            "AWS delivers what is sent to this interface's address: let Traffic Mirroring have it as its target",
        ),
        ..SOFTWARE
    },
    // gve_ethdev.c of 22.11: no stats_get, no promiscuous_enable; gve_rx.c takes the device's ring size and 2048-byte buffers.
    Driver {
        names: &["net_gve"],
        one_buffer_per_frame: true,
        pci: &[(0x1ae0, &[0x0042])],
        ring: Ring { decided_by: Some("it is as long as the device says; nothing changes it"), ..RING },
        wants_tx: true,
        sets_mtu: true,
        promiscuous: Promiscuous::OwnAddress(
            "Google Cloud delivers what is sent to this VM: let Packet Mirroring have it behind its load balancer",
        ),
        losses: not_all("the VM's metrics in Cloud Monitoring"),
        ..SOFTWARE
    },
    // hn_ethdev.c: imissed is its own ring; what the host's switch drops is not in it. No mtu_set.
    Driver {
        names: &["net_netvsc"],
        wants_tx: true,
        sets_mtu: true,
        promiscuous: Promiscuous::NeedsTrust("the virtual switch must mirror to this port"),
        losses: not_all("the counters of the host's virtual switch"),
        ..SOFTWARE
    },
    // cxgbe_ethdev.c: imissed has overflows, truncations and congestion drops.
    Driver {
        names: &["net_cxgbe"],
        pci: &[(0x1425, &[])],
        wants_tx: true,
        losses: Losses { errors_are_lost: true, ..LOSSES },
        ..NIC
    },
    // virtio_rxtx.c: a split ring has the host's size; nothing is counted when it is full.
    Driver {
        names: &["net_virtio"],
        pci: &[(0x1af4, &[0x1000, 0x1041])],
        ring: Ring {
            decided_by: Some("the hypervisor decides: QEMU's `rx_queue_size=`, which is 256 unless set"),
            ..RING
        },
        losses: Losses {
            errors_are_lost: true,
            ..not_all("`tx_dropped` of the host's interface to this VM")
        },
        ..SOFTWARE
    },
    Driver {
        names: &["net_virtio_user", "virtio_user"],
        losses: Losses { errors_are_lost: true, ..not_all("what the peer could not send") },
        ..SOFTWARE
    },
    // ixgbe_ethdev.c: rx_drop_en is 0, so a full queue holds up the others (ixgbe_rxtx.c, SRRCTL.DROP_EN). With it the drops are in
    // QPRDC, that is q_errors. ierrors has xec, frames with a wrong checksum, which are delivered.
    Driver {
        names: &["net_ixgbe"],
        drops_when_full: true,
        losses: Losses { xstats: &["rx_q*_errors"], ..LOSSES },
        ..NIC
    },
    // ixgbevf_dev_promiscuous_enable makes a refusal of the PF ENOTSUP; ixgbe_rxtx.c wants 1, 2 or 4 queues; no imissed.
    Driver {
        names: &["net_ixgbe_vf"],
        queues_power_of_two: true,
        promiscuous: Promiscuous::OwnAddress(TRUST),
        losses: not_all("the PF's counters on the host"),
        advice: "set port.queues to 1, 2 or 4, and port.frame_bytes_max to what the PF allows",
        ..SOFTWARE
    },
    // i40e_ethdev.c:i40e_stat_update_32; ierrors has rx_length_errors, which are delivered.
    Driver {
        names: &["net_i40e"],
        ring: Ring { fast_if_power_of_two: true, ..RING },
        losses: Losses { wraps_at_32_bits: true, ..LOSSES },
        ..NIC
    },
    // ice_ethdev.c:ice_stat_update_32; its ierrors are CRC and sizes. No flow_ctrl op up to 25.11.
    Driver {
        names: &["net_ice"],
        ring: Ring { fast_if_power_of_two: true, ..RING },
        losses: Losses { errors_are_lost: true, wraps_at_32_bits: true, ..LOSSES },
        advice: "install the DDP package (ice.pkg) or add `safe-mode-support=1` to the device",
        ..NIC
    },
    Driver {
        names: &["net_iavf", "net_ice_dcf"],
        ring: Ring { fast_if_power_of_two: true, ..RING },
        promiscuous: Promiscuous::NeedsTrust(TRUST),
        losses: Losses { wraps_at_32_bits: true, ..LOSSES },
        advice: "set port.frame_bytes_max and port.queues to what the PF allows",
        ..SOFTWARE
    },
    // igb_ethdev.c, em_ethdev.c: full flow control by default. ierrors has rlec, which is delivered, and counts some twice.
    // rx_drop_en stays off on igb: its driver reads RQDPC nowhere.
    Driver { names: &["net_e1000_igb", "net_e1000_em"], ..NIC },
    Driver {
        names: &["net_e1000_igb_vf"],
        promiscuous: Promiscuous::NeedsTrust(TRUST),
        losses: not_all("the PF's counters on the host"),
        ..SOFTWARE
    },
    // igc_ethdev.c: rx_drop_en is 0; with it the drops are in RQDPC, that is q_errors.
    Driver {
        names: &["net_igc"],
        drops_when_full: true,
        losses: Losses { xstats: &["rx_q*_errors"], ..LOSSES },
        ..NIC
    },
    // They set imissed, and nothing else was found that matters here.
    Driver {
        names: &[
            "net_ngbe",
            "net_txgbe",
            "net_hns3",
            "net_sfc_efx",
            "net_qede",
            "net_nfp_pf",
            "net_hinic",
            "net_enic",
            "net_cn9k",
            "net_cn10k",
            "net_ionic_pci",
            "net_axgbe",
            "net_atlantic",
        ],
        ..NIC
    },
    // pcap_ethdev.c: a frame that was read when no buffer is free is lost; interfaces: pcap_stats.
    Driver {
        names: &["net_pcap", "eth_pcap"],
        losses: Losses { errors_are_lost: true, nombuf_is_lost: true, ..LOSSES },
        ..SOFTWARE
    },
    // They take from memory what is there and lose nothing.
    Driver { names: &["net_ring", "eth_ring", "net_null", "eth_null"], ..SOFTWARE },
    // rte_eth_af_packet.c: tp_drops is not read.
    Driver {
        names: &["net_af_packet", "eth_af_packet"],
        one_buffer_per_frame: true,
        losses: not_all("`ss -0 --info` while it runs: the kernel's drops of this socket"),
        ..SOFTWARE
    },
    // rte_eth_af_xdp.c: imissed is XDP_STATISTICS.rx_dropped; an empty fill ring and a full RX ring are not in it.
    Driver { names: &["net_af_xdp"], losses: not_all("`ethtool -S IF`: xdp and rx drops"), ..SOFTWARE },
    // rte_eth_tap.c: a frame that was read when no buffer is free is lost.
    Driver {
        names: &["net_tap", "net_tun"],
        losses: Losses {
            errors_are_lost: true,
            nombuf_is_lost: true,
            ..not_all("`tx_dropped` of the tap interface: `ip -s link show IF`")
        },
        ..SOFTWARE
    },
    Driver { names: &["net_memif"], losses: not_all("what the peer could not send"), ..SOFTWARE },
    // vhost_user receives nothing, without a word, unless it has TX queues too.
    Driver {
        names: &["net_vhost", "eth_vhost"],
        wants_tx: true,
        losses: not_all("what the peer could not send"),
        ..SOFTWARE
    },
];
