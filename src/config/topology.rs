//! Which cores and which ports lie on which NUMA node, as sysfs says. Owns the reading; decides nothing.
//!
//! Invariant: what is not known is no node.

use super::PortPlan;
use crate::interface::Device;
use std::path::Path;

/// The nodes of a host, with their cores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// By number.
    pub nodes: Vec<(u32, Vec<usize>)>,
}

impl Topology {
    /// Of the host whose `sys` lies below `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let entries = std::fs::read_dir(root.join("sys/devices/system/node")).into_iter().flatten().flatten();
        let node = |entry: std::fs::DirEntry| {
            let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let list = std::fs::read_to_string(entry.path().join("cpulist")).ok()?;
            Some((number, cores(&list)))
        };
        let mut nodes: Vec<_> = entries.filter_map(node).collect();
        nodes.sort();
        Self { nodes }
    }

    /// The node of a core.
    #[must_use]
    pub fn of_core(&self, core: usize) -> Option<u32> {
        self.nodes.iter().find(|(_, cores)| cores.contains(&core)).map(|(node, _)| *node)
    }
}

/// The node of a port's device, of the host whose `sys` lies below `root`.
#[must_use]
pub fn node_of_port(port: &PortPlan, root: &Path) -> Option<u32> {
    let device = match (Device::parse(&port.device), port.pci_address()) {
        (Some(device), _) => format!("class/net/{}/device", device.ok()?.name),
        (None, Some(address)) => format!("bus/pci/devices/{address}"),
        (None, None) => format!("class/net/{}/device", port.interfaces().next()?),
    };
    let number = std::fs::read_to_string(root.join("sys").join(device).join("numa_node")).ok()?;
    // -1: the firmware says of no device where it is.
    number.trim().parse().ok()
}

/// The cores of a list such as `0-3,8`.
fn cores(list: &str) -> Vec<usize> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().ok();
        Some(number(first)?..=number(last)?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_their_cores_are_read_and_what_is_none_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        for (name, list) in [("node0", "0-1,4\n"), ("node1", "2-3\n"), ("possible", "9\n"), ("node2", "\n")] {
            let dir = root.path().join("sys/devices/system/node").join(name);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("cpulist"), list).unwrap();
        }
        let topology = Topology::read(root.path());
        assert_eq!(topology.nodes, [(0, vec![0, 1, 4]), (1, vec![2, 3]), (2, vec![])]);
        assert_eq!([topology.of_core(4), topology.of_core(9)], [Some(0), None]);
    }
}
