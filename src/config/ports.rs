//! `[[port]]`: from the file to the plan. Owns the rules about ports and their cores.
//!
//! Invariant: as in `resolve`.

use super::file;
use super::plan::PortPlan;
use super::problem::Problem;
use super::rules::Rules;
use crate::drivers::Bus;
use crate::interface::Device;
use crate::limits;

/// `workers`: the cores of all workers.
pub(super) fn ports(rules: &mut Rules, ports: &[file::Port], workers: &[usize]) -> Vec<PortPlan> {
    if ports.is_empty() {
        rules.problems.push(Problem::Missing {
            key: "port".to_owned(),
            advice: "add a [[port]] with device = a PCI address or a vdev string".to_owned(),
        });
    }
    let mut plans: Vec<PortPlan> = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let mut plan = self::port(rules, port, &format!("port[{at}]"));
        plan.workers = port_workers(rules, &port.workers, &format!("port[{at}].workers"), workers);
        let identity = |port: &PortPlan| port.pci_address().unwrap_or_else(|| port.name().to_owned());
        if !plan.device.is_empty() && plans.iter().any(|other| identity(other) == identity(&plan)) {
            let advice = "this device is given by an earlier [[port]]; remove one, or number vdevs apart (net_pcap0, net_pcap1)";
            rules.wrong(format!("port[{at}].device"), format!("{:?}", plan.device), advice);
        }
        plans.push(plan);
    }
    plans
}

fn port(rules: &mut Rules, port: &file::Port, key: &str) -> PortPlan {
    let device = port.device.trim();
    if device.is_empty() {
        rules.problems.push(Problem::Missing {
            key: format!("{key}.device"),
            advice:
                "write a PCI address (\"0000:03:00.0\"), an interface (\"interface:eth0\") or a vdev string"
                    .to_owned(),
        });
    } else if device.contains(['\0', '\n']) {
        rules.wrong(format!("{key}.device"), format!("{device:?}"), "write one line without NUL");
    }
    let queues_max = u64::from(limits::QUEUES_MAX);
    let queues = rules.range(
        format!("{key}.queues"),
        port.queues,
        (1, queues_max),
        "each queue is a stream of its own",
    );
    let rx_descriptors = rules.range(
        format!("{key}.rx_descriptors"),
        port.rx_descriptors,
        (64, 32_768),
        "no device takes others",
    );
    let mbufs_min = rx_descriptors + 2 * limits::BURST as u64 + 1;
    let why = "the descriptors hold rx_descriptors of them while two bursts are on their way; beyond a million, buffer in blocks";
    let mbufs = rules.range(format!("{key}.mbufs"), port.mbufs, (mbufs_min, 1 << 20), why);
    let frame_bytes_max = rules.range(
        format!("{key}.frame_bytes_max"),
        port.frame_bytes_max,
        (64, 65_535),
        "an Ethernet frame has at least 64 bytes, and DPDK counts its length in 16 bits",
    );
    PortPlan {
        device: device.to_owned(),
        queues: queues as u16,
        rx_descriptors: rx_descriptors as u16,
        mbufs: mbufs as u32,
        frame_bytes_max: frame_bytes_max as u32,
        required: port.required,
        workers: Vec::new(),
        pace_pps: pace(rules, port, device, &format!("{key}.pace_pps")),
    }
}

/// How many frames a second are taken of a software device that has no wire.
fn pace(rules: &mut Rules, port: &file::Port, device: &str, key: &str) -> u64 {
    let why = "zero for as many as there are, up to what no device paces";
    let pace = rules.range(key, port.pace_pps, (0, 100_000_000), why);
    let is_interface = Device::parse(device).is_some();
    let has_wire = is_interface || Bus::of(device) != Bus::Virtual || opens_interface(device);
    if pace > 0 && has_wire {
        let advice = "remove it: a wire cannot be made to wait, so its frames would be lost in the device; it is for software devices \
                      such as net_pcap and net_null";
        rules.wrong(key, pace, advice);
        return 0;
    }
    pace
}

/// The cores that poll a port.
fn port_workers(rules: &mut Rules, cores: &[u64], key: &str, workers: &[usize]) -> Vec<usize> {
    let mut list = Vec::new();
    for core in cores {
        match usize::try_from(*core) {
            Ok(core) if workers.contains(&core) && !list.contains(&core) => list.push(core),
            Ok(core) if list.contains(&core) => {
                rules.wrong(key, core, "this core is in the list twice; remove one")
            }
            _ => rules.wrong(key, core, "no worker runs there: choose from cores.workers, or add it there"),
        }
    }
    list
}

/// Whether a software device takes its frames from an interface of the kernel.
fn opens_interface(device: &str) -> bool {
    let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
    let has_iface = arguments.split(',').any(|argument| {
        argument.split_once('=').is_some_and(|(key, _)| ["iface", "rx_iface", "rx_iface_in"].contains(&key))
    });
    has_iface || name.starts_with("net_tap") || name.starts_with("net_virtio_user")
}

#[cfg(test)]
mod tests {
    use crate::config::Plan;

    #[test]
    fn software_devices_without_a_wire_are_paced_and_no_others() {
        let plan = |device: &str| {
            let text = format!("[[port]]\ndevice = {device:?}\npace_pps = 5000\n");
            Plan::parse(&text).map_err(|problems| problems.to_string())
        };
        for device in ["net_null0", "net_pcap0,rx_pcap=/a.pcap,infinite_rx=1", "net_ring0"] {
            assert_eq!(plan(device).unwrap().ports[0].pace_pps, 5000, "{device}");
        }
        for device in [
            "0000:03:00.0",
            "interface:eth0",
            "net_af_packet0,iface=eth0",
            "net_pcap0,rx_iface=eth0",
            "net_tap0",
        ] {
            let problems = plan(device).unwrap_err();
            assert!(problems.contains("port[0].pace_pps = 5000: remove it"), "{device}: {problems}");
        }
    }
}
