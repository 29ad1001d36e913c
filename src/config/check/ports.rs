//! Ports: whether the devices exist, are free for DPDK, and have the queues. Owns what sysfs and vdev strings say.
//!
//! Invariant: a device whose limits are not known here is left to EAL's own probe.

use super::{Finding, Host, ProbePorts, Severity, interfaces};
use crate::config::{Plan, PortPlan};
use crate::drivers::{Bus, Counted, Driver, TABLE, added};
use crate::interface::Device;
use std::path::Path;

/// Kernel drivers that hand a device to user space.
const USERSPACE: [&str; 4] = ["vfio-pci", "uio_pci_generic", "igb_uio", "vfio_pci"];

pub(super) fn check(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    if let Err(contradiction) = added(&plan.eal, &plan.devices()) {
        let advice = "devices and their arguments belong into [[port]]";
        findings.push(Finding::error("dpdk.eal", contradiction.to_string(), advice));
    }
    for (at, port) in plan.ports.iter().enumerate() {
        let (key, before) = (format!("port[{at}].device"), findings.len());
        match (Device::parse(&port.device), port.pci_address()) {
            (Some(device), _) => interfaces::device(device, &key, host, findings),
            (None, Some(address)) => pci(port, &address, &key, host, findings),
            // Only DPDK's bus knows whether there is such a device.
            (None, None) if Bus::of(&port.device) == Bus::Other => {}
            (None, None) => vdev(port, &key, host, findings),
        }
        findings[before..].iter_mut().for_each(|finding| judge(finding, port));
    }
}

/// What keeps a port away that the host does not need keeps nothing else.
fn judge(finding: &mut Finding, port: &PortPlan) {
    if finding.severity == Severity::Error && !port.required {
        finding.severity = Severity::Warning;
        finding.text += "; the host serves without this port, which is not required, and tries it again";
    }
}

fn pci(port: &PortPlan, address: &str, key: &str, host: &Host, findings: &mut Vec<Finding>) {
    let device = format!("/sys/bus/pci/devices/{address}");
    if host.lacks(&device) {
        let advice = "list the devices with `dpdk-devbind.py --status-dev net` and correct the address";
        findings.push(Finding::error(key, format!("there is no PCI device {address}"), advice));
        return;
    }
    let class = host.read(&format!("{device}/class")).unwrap_or_default();
    if !class.is_empty() && !class.starts_with("0x02") {
        let text = format!("{address} is no network device (PCI class {})", class.trim());
        findings.push(Finding::error(key, text, "list the devices with `dpdk-devbind.py --status-dev net`"));
        return;
    }
    quirks(port, key, host, findings);
    let driver = std::fs::read_link(host.path(&format!("{device}/driver"))).ok();
    let driver = driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let bind = format!("modprobe vfio-pci && dpdk-devbind.py --bind=vfio-pci {address}");
    match driver.as_deref() {
        None => findings.push(Finding::error(key, format!("{address} is bound to no driver"), bind)),
        // Such a device stays bound: DPDK uses it beside the kernel's own interface.
        Some(driver) if TABLE.iter().any(|row| row.kernel == Some(driver)) => {
            kernel_queues(port, &device, key, host, findings);
            for interface in host.names(&format!("{device}/net")) {
                interfaces::taken(&interface, "while trawl runs, the kernel", key, host, findings);
            }
        }
        Some(driver) if USERSPACE.contains(&driver) => {}
        Some(driver) => {
            let interfaces = host.names(&format!("{device}/net")).join(", ");
            let text = format!("{address} is bound to the kernel driver {driver}");
            let text = if interfaces.is_empty() { text } else { format!("{text} as {interfaces}") };
            findings.push(Finding::error(key, text, format!("{bind} (the kernel loses the interface)")));
            for interface in host.names(&format!("{device}/net")) {
                interfaces::taken(&interface, "bound to vfio-pci, this host", key, host, findings);
            }
        }
    }
}

/// The row of a PCI port's driver, as far as its ids tell.
pub(super) fn row(port: &PortPlan, host: &Host) -> Option<&'static Driver> {
    let device = format!("/sys/bus/pci/devices/{}", port.pci_address()?);
    let id = |name| {
        let text = host.read(&format!("{device}/{name}")).ok()?;
        u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
    };
    let row = Driver::of_pci(id("vendor")?, id("device")?);
    (!row.is_unknown()).then_some(row)
}

/// What is known of the driver of such a device before it runs.
fn quirks(port: &PortPlan, key: &str, host: &Host, findings: &mut Vec<Finding>) {
    let Some(row) = row(port, host) else { return };
    if !row.takes_queues(port.queues) {
        let text = format!("{} queues may be refused: its driver wants 1, 2, 4, 8…", port.queues);
        findings.push(Finding::warning(&key.replace("device", "queues"), text, row.advice));
    }
    if let Counted::NotAll(elsewhere) = row.losses.counted {
        let text = "does not count what it loses, so no capture on it is called complete";
        findings.push(Finding::warning(key, text, format!("look at {elsewhere}")));
    }
}

/// The kernel's queue count of a device that it shares with DPDK: not DPDK's limit, but the usual reason for too few.
fn kernel_queues(port: &PortPlan, device: &str, key: &str, host: &Host, findings: &mut Vec<Finding>) {
    for interface in host.names(&format!("{device}/net")) {
        let queues = host.names(&format!("{device}/net/{interface}/queues"));
        let rx = queues.iter().filter(|name| name.starts_with("rx-")).count();
        if rx > 0 && rx < usize::from(port.queues) {
            let text =
                format!("{interface} has {rx} RX queues in the kernel, port.queues asks for {}", port.queues);
            let advice =
                format!("compare with `ethtool -l {interface}`; lower port.queues if the device has no more");
            findings.push(Finding::warning(key, text, advice));
        }
    }
}

/// A software device: its queues by its own arguments, and the files and interfaces that these name.
fn vdev(port: &PortPlan, key: &str, host: &Host, findings: &mut Vec<Finding>) {
    let driver = port.driver();
    let number =
        |name| port.arguments(name).last().and_then(|value| value.parse::<usize>().ok()).unwrap_or(1);
    // Sources: the DPDK manual's chapters on the libpcap, AF_PACKET, AF_XDP and virtio-user drivers.
    let queues = match driver {
        "net_pcap" => {
            let given = ["rx_pcap", "rx_iface", "rx_iface_in"].map(|name| port.arguments(name).count());
            let queues = given.iter().sum::<usize>() + port.arguments("iface").count();
            Some((queues, "add one rx_pcap= or rx_iface= for each queue"))
        }
        "net_af_packet" => Some((number("qpairs"), "raise qpairs= in the device")),
        "net_af_xdp" => Some((number("queue_count"), "raise queue_count= in the device")),
        "net_virtio_user" | "virtio_user" => Some((number("queues"), "raise queues= in the device")),
        name if name.starts_with("net_") || name.starts_with("eth_") => None,
        _ => {
            let text = format!("{:?} is neither a PCI address nor a DPDK vdev nor an interface", port.device);
            let advice = "write an address such as 0000:03:00.0 or an interface such as interface:eth0";
            findings.push(Finding::error(key, text, advice));
            return;
        }
    };
    if let Some((has, advice)) = queues
        && has < usize::from(port.queues)
    {
        let text = format!("{} has {has} RX queues, queues asks for {}", port.name(), port.queues);
        findings.push(Finding::error(
            &key.replace("device", "queues"),
            text,
            format!("{advice}, or lower port.queues"),
        ));
    }
    for file in
        port.arguments("rx_pcap").filter(|file| !std::fs::metadata(file).is_ok_and(|found| found.is_file()))
    {
        findings.push(Finding::error(key, format!("there is no file {file}"), "correct rx_pcap="));
    }
    interfaces::of_vdev(port, key, host, findings);
}

/// What DPDK itself says of the ports.
pub(super) fn check_probed(plan: &Plan, probe: ProbePorts<'_>, findings: &mut Vec<Finding>) {
    let answers = match probe(&plan.eal, &plan.ports) {
        Ok(answers) => answers,
        Err(text) => {
            findings.push(Finding::error("dpdk.eal", text, "correct dpdk.eal until EAL starts"));
            return;
        }
    };
    for (at, answer) in answers.into_iter().enumerate() {
        let key = format!("port[{at}].device");
        match answer {
            Err(text) => {
                let mut finding = Finding::error(&key, text, "correct this port until DPDK opens it");
                if let Some(port) = plan.ports.get(at) {
                    judge(&mut finding, port);
                }
                findings.push(finding);
            }
            Ok(limitations) => {
                let advice = "nothing if that is what you want of this device";
                findings.extend(limitations.into_iter().map(|text| Finding::warning(&key, text, advice)));
            }
        }
    }
}
