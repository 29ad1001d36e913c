//! Ports that stay with the kernel: whether what they deliver is what was on the wire, and what the host itself still gets. Owns which
//! drivers and features change frames; changes nothing itself.
//!
//! Invariant: a port passes only if no frame of it differs from the wire's, or the finding says which do.

use super::{Finding, Host};
use crate::config::PortPlan;
use crate::interface::{Device, is_merging, is_unfinished};

/// The longest frame that `net_pcap` takes from an interface; it cuts others without a word (RTE_ETHER_MAX_JUMBO_FRAME_LEN).
const PCAP_FRAME_BYTES_MAX: u64 = 0x3f00;
/// An Ethernet header with two tags.
const HEADER_BYTES: u64 = 22;

/// `interface:eth0`.
pub(super) fn device(device: Result<Device, String>, key: &str, host: &Host, findings: &mut Vec<Finding>) {
    match device {
        Err(reason) => {
            let advice = "write interface:eth0, with ring_mib= and outgoing= behind it if you want";
            findings.push(Finding::error(key, reason, advice));
        }
        Ok(device) if exists(&device.name, key, host, findings) => {
            unchanged(&device.name, device.outgoing, key, host, findings);
        }
        Ok(_) => {}
    }
}

/// A software device of DPDK that opens interfaces.
pub(super) fn of_vdev(port: &PortPlan, key: &str, host: &Host, findings: &mut Vec<Finding>) {
    for interface in port.interfaces() {
        if !exists(interface, key, host, findings) {
            continue;
        }
        match port.driver() {
            "net_pcap" => {
                let outgoing = !port.arguments("rx_iface_in").any(|name| name == interface);
                unchanged(interface, outgoing, key, host, findings);
                let mtu = host.read_number(&format!("/sys/class/net/{interface}/mtu")).unwrap_or(0);
                if mtu + HEADER_BYTES > PCAP_FRAME_BYTES_MAX {
                    let text = format!(
                        "net_pcap cuts frames at {PCAP_FRAME_BYTES_MAX} bytes, and {interface} has an MTU of {mtu}"
                    );
                    findings.push(Finding::error(key, text, instead(interface)));
                }
            }
            "net_af_xdp" => xdp(port, interface, key, host, findings),
            driver => {
                let text = format!(
                    "{driver} does not deliver what was on the wire: it joins IP fragments, writes 802.1ad tags as 802.1Q, and before DPDK 25.11 counts no loss"
                );
                findings.push(Finding::error(key, text, instead(interface)));
            }
        }
    }
}

fn instead(interface: &str) -> String {
    format!("use device = \"interface:{interface}\": each frame as it came in, and every loss counted")
}

fn exists(interface: &str, key: &str, host: &Host, findings: &mut Vec<Finding>) -> bool {
    let is_there = !host.lacks(&format!("/sys/class/net/{interface}"));
    if !is_there {
        let advice = "list the interfaces with `ip link` and correct the name";
        findings.push(Finding::error(key, format!("there is no network interface {interface}"), advice));
    }
    is_there
}

/// Whether the kernel shows the interface's frames as they are on the wire. Those of a bond, a bridge or a VLAN come through other
/// interfaces, which may join them before.
fn unchanged(interface: &str, outgoing: bool, key: &str, host: &Host, findings: &mut Vec<Finding>) {
    for name in with_lower(interface, host) {
        match (host.features)(&name) {
            Ok(features) => merging(interface, &name, &features, key, findings),
            Err(error) => {
                let text = format!("whether {name} joins received frames cannot be asked: {error}");
                let advice =
                    format!("look with `ethtool -k {name}`: generic- and large-receive-offload must be off");
                findings.push(Finding::warning(key, text, advice));
            }
        }
    }
    let sends = |features: Vec<String>| features.iter().any(|name| is_unfinished(name));
    if outgoing && (host.features)(interface).is_ok_and(sends) {
        let text = format!(
            "what this host sends on {interface} is seen before its checksums are written and before it is cut into frames"
        );
        let advice = format!("ethtool -K {interface} tx off; or {}, which leaves it out", instead(interface));
        findings.push(Finding::error(key, text, advice));
    }
}

fn merging(interface: &str, name: &str, features: &[String], key: &str, findings: &mut Vec<Finding>) {
    let off: Vec<_> = features.iter().filter_map(|feature| is_merging(feature)).collect();
    if !off.is_empty() {
        let of = if name == interface { String::new() } else { format!(", below {interface},") };
        let text = format!("{name}{of} joins received frames into longer ones that nobody sent");
        findings.push(Finding::error(key, text, format!("ethtool -K {name} {}", off.join(" "))));
    }
}

/// The interface and those below it, each once.
fn with_lower(interface: &str, host: &Host) -> Vec<String> {
    let mut all = vec![interface.to_owned()];
    let mut at = 0;
    while let Some(name) = all.get(at) {
        let lower = host.names(&format!("/sys/class/net/{name}"));
        let lower = lower.iter().filter_map(|entry| entry.strip_prefix("lower_"));
        let new: Vec<_> =
            lower.filter(|name| !all.iter().any(|known| known == name)).map(str::to_owned).collect();
        all.extend(new);
        at += 1;
    }
    all
}

/// AF_XDP takes the frames of those queues that it binds, and of those only.
fn xdp(port: &PortPlan, interface: &str, key: &str, host: &Host, findings: &mut Vec<Finding>) {
    let number =
        |name, other| port.arguments(name).last().map_or(Some(other), |value| value.parse::<usize>().ok());
    let queues = host.names(&format!("/sys/class/net/{interface}/queues"));
    let has = queues.iter().filter(|name| name.starts_with("rx-")).count();
    let bound = (number("start_queue", 0), number("queue_count", 1));
    if bound != (Some(0), Some(has)) {
        let count = bound.1.unwrap_or(1).max(1);
        let text = format!(
            "{interface} has {has} RX queues and net_af_xdp takes {count} from {}: frames on the others would be neither captured nor counted",
            bound.0.unwrap_or(0)
        );
        let advice = format!(
            "ethtool -L {interface} combined {count}, or queue_count={has} and queues = {has} without start_queue="
        );
        findings.push(Finding::error(key, text, advice));
    }
    let text = "net_af_xdp counts a part of its losses only: DPDK reads neither rx_ring_full nor rx_fill_ring_empty_descs";
    findings.push(Finding::warning(key, text, instead(interface)));
    taken(interface, "while trawl runs, the kernel", key, host, findings);
}

/// What the host uses the interface for, if somebody takes its frames.
pub(super) fn taken(interface: &str, who: &str, key: &str, host: &Host, findings: &mut Vec<Finding>) {
    let uses = uses(interface, host);
    if !uses.is_empty() {
        let text = format!("{interface} {}: {who} gets no frame of it", uses.join(" and "));
        let advice = format!(
            "do not log in through this port; take another one, or device = \"interface:{interface}\", which leaves it to the kernel"
        );
        findings.push(Finding::warning(key, text, advice));
    }
}

/// What the kernel says that it needs the interface for. An IPv4 address shows as the route to its own network.
fn uses(interface: &str, host: &Host) -> Vec<&'static str> {
    let lines = |path: &str| host.read(path).unwrap_or_default();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut uses = Vec::new();
    if host.names(&format!("/sys/class/net/{interface}")).iter().any(|name| name == "master") {
        uses.push("is a part of a bridge or bond");
    }
    let v4: Vec<_> = lines("/proc/net/route")
        .lines()
        .map(words)
        .filter(|line| line.first().is_some_and(|name| name == interface))
        .collect();
    // Scope 0 is global (/proc/net/if_inet6), and a route of length 0 is the default one.
    let v6 = lines("/proc/net/if_inet6").lines().map(words).any(|line| {
        line.get(3).is_some_and(|scope| scope == "00") && line.last().is_some_and(|name| name == interface)
    });
    let v6_default = lines("/proc/net/ipv6_route").lines().map(words).any(|line| {
        line.get(1).is_some_and(|length| length == "00") && line.last().is_some_and(|name| name == interface)
    });
    if v6_default || v4.iter().any(|line| line.get(1).is_some_and(|to| to == "00000000")) {
        uses.push("carries the default route");
    } else if v6 || !v4.is_empty() {
        uses.push("has an address");
    }
    uses
}
