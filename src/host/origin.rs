//! What pcapng files say of the host that made them. Owns where that is found out.
//!
//! Invariant: nothing here fails: what is not known is left out. What a device's arguments say, such as paths, stays here.

use crate::config::PortPlan;
use crate::job::Site;
use crate::pcap::Origin;

/// The processor, the system, this program, and a name for each queue, in the order of their numbers: with the host in it, if it is
/// one of a fleet, so that a file merged of several hosts tells them apart.
pub(super) fn of_host(ports: &[PortPlan], site: Option<&Site>) -> Origin {
    let os = rustix::system::uname();
    let os = format!("{} {}", os.sysname().to_string_lossy(), os.release().to_string_lossy());
    Origin {
        hardware: processor(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        os,
        application: concat!("trawl ", env!("CARGO_PKG_VERSION")).to_owned(),
        comments: Vec::new(),
        interfaces: ports.iter().flat_map(names).map(|name| with_host(name, site)).collect(),
    }
}

fn with_host(name: String, site: Option<&Site>) -> String {
    match site {
        None => name,
        Some(site) => format!("{}/{name}", site.host()),
    }
}

/// The model of the first processor.
fn processor(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(String::new, |(_, model)| model.trim().to_owned())
}

/// The device without its arguments, and the queue if there are several.
fn names(port: &PortPlan) -> Vec<String> {
    let device = port.device.split(',').next().unwrap_or_default();
    match port.queues {
        1 => vec![device.to_owned()],
        queues => (0..queues).map(|queue| format!("{device}/q{queue}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_by_its_device_without_arguments() {
        let port = |device: &str, queues| PortPlan {
            device: device.to_owned(),
            queues,
            rx_descriptors: 1024,
            mbufs: 4096,
            frame_bytes_max: 9018,
            required: true,
            workers: Vec::new(),
            pace_pps: 0,
        };
        let ports = [port("0000:03:00.0", 2), port("net_pcap0,rx_pcap=/home/secret.pcap", 1)];
        assert_eq!(of_host(&ports, None).interfaces, ["0000:03:00.0/q0", "0000:03:00.0/q1", "net_pcap0"]);
        let named = of_host(&ports, Site::new("ord02", "cap1").as_ref()).interfaces;
        assert_eq!(named, ["cap1/0000:03:00.0/q0", "cap1/0000:03:00.0/q1", "cap1/net_pcap0"]);
        assert_eq!(processor("processor\t: 0\nmodel name\t: CPU X\n"), "CPU X");
        assert_eq!(processor(""), "");
    }
}
