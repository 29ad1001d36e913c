//! Hugepages: what EAL and the block arena will take against what is free. Owns that arithmetic.
//!
//! Invariant: an estimate is called one; what `-m` fixes is exact.

use super::ports::row;
use super::{Finding, Host};
use crate::block::Hugepages;
use crate::config::{ByteSize, Plan, PortPlan, Topology};
use crate::drivers::{Queue, UNKNOWN};
use crate::interface::Device;
use crate::limits::{BLOCK_BYTES, OTHER_MEMORY_BYTES_MAX};
use crate::spool::WriteMode;
use std::collections::BTreeMap;

const PAGE_2M: u64 = 2 << 20;
const PAGE_1G: u64 = 1 << 30;

/// `struct rte_mbuf` and RTE_PKTMBUF_HEADROOM, 128 bytes each, and the mempool's own header and padding of an object.
const MBUF_OVERHEAD_BYTES: u64 = 128 + 128 + 128;

/// What EAL needs beside the pools: rings, tables, the device drivers' own.
const EAL_BASE_BYTES: u64 = 64 << 20;

pub(super) fn check(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    let free = |kb| {
        host.read_number(&format!("/sys/kernel/mm/hugepages/hugepages-{kb}kB/free_hugepages")).unwrap_or(0)
    };
    let mounts = host.read("/proc/mounts").unwrap_or_default();
    let left_2m = left_behind(&mounts, host);
    let free_2m = free(2048) * PAGE_2M + left_2m;
    let free_1g = free(1_048_576) * PAGE_1G;
    let has = |flag: &str| plan.eal.iter().any(|argument| argument == flag);
    let eal = if has("--no-huge") { 0 } else { dpdk_bytes(plan, host) };
    let arena = match plan.blocks.hugepages {
        Hugepages::Never => 0,
        Hugepages::Auto | Hugepages::Require => arena_bytes(plan, host),
    };
    let pages = |bytes: u64| bytes.div_ceil(PAGE_2M);
    let advice = |bytes_short: u64| {
        let total = host.read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").unwrap_or(0);
        format!("sysctl -w vm.nr_hugepages={}", total + pages(bytes_short))
    };
    if eal > free_2m + free_1g {
        let text = format!(
            "EAL needs {} MiB of hugepages ({}), {} MiB are free",
            eal >> 20,
            if eal_bytes(&plan.eal).is_some() { "-m" } else { "an estimate from port.mbufs" },
            (free_2m + free_1g) >> 20
        );
        let advice = advice(eal + arena - free_2m - free_1g);
        findings.push(match eal_bytes(&plan.eal) {
            Some(_) => Finding::error("dpdk.eal", text, advice),
            // EAL itself says when it starts whether that is enough.
            None => Finding::warning("dpdk.eal", text, advice),
        });
    } else {
        // The arena's pages are of 2 MiB; EAL takes the larger ones first.
        let left = free_2m - eal.saturating_sub(free_1g);
        if arena > left {
            let text = format!(
                "the block arena needs {} hugepages of 2 MiB, {} are left beside EAL's",
                pages(arena),
                left / PAGE_2M
            );
            let advice = advice(arena - left);
            findings.push(match plan.blocks.hugepages {
                Hugepages::Require => Finding::error("blocks.hugepages", text, advice),
                _ => Finding::warning(
                    "blocks.hugepages",
                    format!("{text}; ordinary pages will be used"),
                    advice,
                ),
            });
        }
    }
    findings.extend(blocks(plan));
    let mounted = mounts.lines().any(|line| line.split(' ').nth(2) == Some("hugetlbfs"));
    if eal > 0 && !has("--in-memory") && !mounted {
        let advice =
            "add \"--in-memory\", or: mkdir -p /dev/hugepages && mount -t hugetlbfs nodev /dev/hugepages";
        findings.push(Finding::error("dpdk.eal", "no hugetlbfs is mounted", advice));
    }
    ordinary(plan, host, arena > 0 && plan.blocks.hugepages == Hugepages::Require, findings);
}

/// Bytes of hugepages for the blocks: one mapping for the workers of each NUMA node.
fn arena_bytes(plan: &Plan, host: &Host) -> u64 {
    let (topology, share) = (Topology::read(&host.root), plan.block_share());
    let mut nodes = BTreeMap::<_, u64>::new();
    for core in plan.dealt().cores {
        *nodes.entry(topology.of_core(core)).or_default() += (share.blocks * BLOCK_BYTES) as u64;
    }
    nodes.values().map(|bytes| bytes.next_multiple_of(PAGE_2M)).sum()
}

/// What this config takes of memory at most: for what, how many bytes, and which key says so.
#[must_use]
pub fn memory_rows(plan: &Plan, host: &Host, is_mapped: bool) -> [(&'static str, u64, &'static str); 6] {
    let pools = plan.spool.pool_bytes * plan.spool.dirs().count() as u64;
    [
        ("dpdk", dpdk_bytes(plan, host), "dpdk.eal, port.mbufs"),
        ("rings of interfaces", rings_bytes(&plan.ports), "port.device ring_mib="),
        ("blocks", plan.blocks.bytes(), "blocks.bytes_max"),
        ("mapped segments", if is_mapped { pools } else { 0 }, "spool.pool_bytes"),
        ("deliveries, at most", plan.upload.memory_bytes, "upload.memory_bytes_max"),
        ("everything else, at most", OTHER_MEMORY_BYTES_MAX, "-"),
    ]
}

/// The sum of it, against the memory of the host.
fn sum(plan: &Plan, host: &Host, total: Option<u64>, findings: &mut Vec<Finding>) {
    let rows = memory_rows(plan, host, plan.spool.write == WriteMode::Mapped);
    let sum: u64 = rows.iter().map(|(_, bytes, _)| bytes).sum();
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let parts = rows.iter().filter(|(_, bytes, _)| *bytes > 0);
    let parts: Vec<_> = parts.map(|(what, bytes, _)| format!("{what} {}", mib(*bytes))).collect();
    let text = format!("memory is at most {} MiB: {}", mib(sum), parts.join(", "));
    findings.push(match total.filter(|total| *total < sum) {
        Some(total) => Finding::warning(
            "upload.memory_bytes_max",
            format!("{text}; this host has {} MiB", mib(total)),
            "lower it, or capture.captures_max, upload.deliveries_max or upload.part_bytes",
        ),
        None => Finding::notice("upload.memory_bytes_max", text, "lower what is too much"),
    });
}

/// Blocks in ordinary pages, against the memory of the host.
fn ordinary(plan: &Plan, host: &Host, is_huge: bool, findings: &mut Vec<Finding>) {
    let meminfo = host.read("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| {
        let kib: u64 = line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    });
    let is_too_much = |total: &u64| !is_huge && plan.blocks.bytes() > *total;
    let Some(total) = total.filter(is_too_much) else { return sum(plan, host, total, findings) };
    let text =
        format!("are {}, and this host has {} MiB of memory", ByteSize(plan.blocks.bytes()), total >> 20);
    findings.push(Finding::error("blocks.bytes_max", text, "lower it"));
}

/// Pages of files that a dead process's EAL left in hugetlbfs, which the next one takes again.
fn left_behind(mounts: &str, host: &Host) -> u64 {
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "hugetlbfs").then_some(point)
    });
    let bytes = |point: &str| -> u64 {
        let files = host.names(point).into_iter().filter(|name| name.starts_with("rtemap_"));
        files
            .filter_map(|name| std::fs::metadata(host.path(&format!("{point}/{name}"))).ok())
            .map(|file| file.len())
            .sum()
    };
    points.map(bytes).sum()
}

/// Whether the blocks are enough for all captures that may run at once.
#[must_use]
pub fn blocks(plan: &Plan) -> Option<Finding> {
    let (share, attached) = (plan.block_share(), plan.attached_max());
    if share.captures_max() >= attached {
        return None;
    }
    let recordings = usize::from(plan.history.is_some());
    let captures = share.captures_max().saturating_sub(recordings);
    let text = format!(
        "is enough for {captures} captures at once and capture.captures_max is {}: each capture holds a block of 1 MiB for each queue{}, and a worker has {} blocks and {} queues; one more would be refused",
        plan.capture.captures_max,
        if recordings > 0 { ", and so does the history" } else { "" },
        share.blocks,
        share.queues,
    );
    let needed = share.needed_in_all(attached);
    let advice =
        format!("set blocks.bytes_max = \"{needed}MiB\" or more, or capture.captures_max = {captures}");
    Some(Finding::warning("blocks.bytes_max", text, advice))
}

/// What DPDK takes: as `dpdk.eal` says, otherwise an estimate.
#[must_use]
pub fn dpdk_bytes(plan: &Plan, host: &Host) -> u64 {
    eal_bytes(&plan.eal).unwrap_or_else(|| pools_bytes(&plan.ports, host))
}

/// What the arguments reserve at start: `-m 1024`, `-m1024`, `--socket-mem 512,512`, `--socket-mem=512`, in MiB.
fn eal_bytes(arguments: &[String]) -> Option<u64> {
    let mut bytes = None;
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let value = match argument {
            "-m" | "--socket-mem" | "--numa-mem" => arguments.next(),
            _ => argument
                .strip_prefix("--socket-mem=")
                .or_else(|| argument.strip_prefix("--numa-mem="))
                .or_else(|| argument.strip_prefix("-m")),
        };
        let sum = value
            .and_then(|list| list.split(',').map(|mib| mib.trim().parse::<u64>().ok()).sum::<Option<u64>>());
        bytes = sum.and_then(|mib| mib.checked_mul(1 << 20)).or(bytes);
    }
    bytes
}

/// An estimate of the packet pools and what EAL takes beside them.
fn pools_bytes(ports: &[PortPlan], host: &Host) -> u64 {
    let pool = |port: &PortPlan| {
        let row = row(port, host);
        let bytes =
            Queue::buffer_bytes(port.frame_bytes_max, row.is_none_or(|row| !row.one_buffer_per_frame));
        let queue = Queue::new(row.unwrap_or(&UNKNOWN), port.rx_descriptors, port.mbufs, 0, bytes);
        let each = MBUF_OVERHEAD_BYTES + u64::from(queue.buffer_bytes);
        u64::from(port.queues) * u64::from(queue.buffers) * each
    };
    let dpdks = ports.iter().filter(|port| Device::parse(&port.device).is_none());
    EAL_BASE_BYTES + dpdks.map(pool).sum::<u64>()
}

/// The kernel's rings of interfaces, which are no hugepages and none of DPDK's.
fn rings_bytes(ports: &[PortPlan]) -> u64 {
    let ring = |port: &PortPlan| {
        let device = Device::parse(&port.device)?.ok()?;
        Some(u64::from(port.queues) * (u64::from(device.ring_mib) << 20))
    };
    ports.iter().filter_map(ring).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_the_reservation_is_read() {
        let bytes = |arguments: &[&str]| {
            eal_bytes(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(bytes(&["--no-pci", "-m", "1024"]), Some(1 << 30));
        assert_eq!(bytes(&["-m64", "--in-memory"]), Some(64 << 20));
        assert_eq!(bytes(&["--socket-mem", "512,256"]), Some(768 << 20));
        assert_eq!(bytes(&["--socket-mem=512"]), Some(512 << 20));
        assert_eq!(bytes(&["--no-pci", "-m"]), None);
        assert_eq!(bytes(&["--match-allocations"]), None);
    }
}
