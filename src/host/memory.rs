//! Memory before the first packet: everything that is mapped is locked, and held to what the config promises. Owns the
//! account that is logged at start; the mappings are `block`'s and DPDK's.
//!
//! Invariant: whatever is over the promise is said, never hidden in a sum.

use super::dataplane::DataPlane;
use crate::config::Plan;
use crate::config::check::{Host, memory_rows};
use crate::spool::{Spool, WriteMode};
use rustix::mm::{MlockAllFlags, mlockall};

/// What the kernel says of this process (`proc_pid_status(5)`), in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// VmRSS: resident in ordinary pages.
    resident: u64,
    /// HugetlbPages, which VmRSS does not contain.
    huge: u64,
}

impl Held {
    fn of_this_process() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn parse(status: &str) -> Self {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        Self {
            resident: bytes("VmRSS:").unwrap_or_default(),
            huge: bytes("HugetlbPages:").unwrap_or_default(),
        }
    }
}

/// Locks what is mapped now, and logs what of it is for what.
pub(super) fn settle(plan: &Plan, plane: &DataPlane, spool: &Spool) {
    let is_mapped = spool.disks().iter().any(|disk| disk.config().write == WriteMode::Mapped);
    // Only what is touched: EAL reserves address space by the terabyte. Segments that are mapped and used again stay
    // evictable, as they belong to files.
    let all_locked = !is_mapped
        && match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "memory is not locked and can be swapped out: raise LimitMEMLOCK, or give CAP_IPC_LOCK");
                false
            }
        };
    let held = Held::of_this_process();
    let arena = plane.arena;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let rows = memory_rows(plan, &Host::real(), is_mapped);
    // Nothing is delivered yet.
    let promised = rows.iter().map(|(_, bytes, _)| bytes).sum::<u64>() - plan.upload.memory_bytes;
    for (what, bytes, key) in rows {
        tracing::info!(what, mib = mib(bytes), key, "memory");
    }
    let (resident, huge) = (mib(held.resident), mib(held.huge));
    tracing::info!(
        promised_mib = mib(promised),
        resident_mib = resident,
        hugepages_mib = huge,
        blocks_locked = arena.locked,
        all_locked,
        "memory is settled"
    );
    if held.resident + held.huge > promised {
        tracing::warn!(
            promised_mib = mib(promised),
            resident_mib = resident,
            hugepages_mib = huge,
            "memory is more than the config says"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_and_huge_pages_are_read_and_absent_lines_are_none() {
        let status = "Name:\ttrawl\nVmLck:\t 8 kB\nVmRSS:\t  2048 kB\nHugetlbPages:\t  4096 kB\n";
        assert_eq!(Held::parse(status), Held { resident: 2 << 20, huge: 4 << 20 });
        assert_eq!(Held::parse("Name:\tx\n"), Held::default());
        assert!(Held::of_this_process().resident > 1 << 20);
    }
}
