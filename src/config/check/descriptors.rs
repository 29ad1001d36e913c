//! Open files: what the config can need at once against what the process may have. Owns that arithmetic; `host` raises the soft
//! limit to the hard one.
//!
//! Invariant: the need is that of all captures, deliveries, queues and connections at once, so that a host that passes never meets EMFILE.

use super::{Finding, Host};
use crate::config::Plan;
use crate::limits::{STREAMS_MAX, STREAMS_PER_ACCOUNT_MAX};

/// A segment that is written: its file, and the one that keeps its length.
const SEGMENT_FILES: u64 = 2;
/// A stream's reader: the merge, or a look back.
const READER_FILES: u64 = 1;
/// The journal of a capture, its object in the making, the directory that is synced, the manifest, the search for the object's end.
const CAPTURE_FILES: u64 = 5;
/// Of an object on its way: its file or its connection, and the directory.
const OBJECT_FILES: u64 = 2;
/// Health and metrics: connections (`observe`), the two listeners and a descriptor that each keeps to spare.
const OBSERVE_FILES: u64 = 36;
/// The job store, EAL, VFIO, the runtime, the log, an io_uring and an event for each thread, with much to spare.
const OTHER_FILES: u64 = 256;

/// Streams of accounts and of operators.
const STREAM_FILES: u64 = (STREAMS_MAX + STREAMS_PER_ACCOUNT_MAX) as u64;

/// Open files at once, at most.
#[must_use]
pub fn files_needed(plan: &Plan) -> u64 {
    let queues: u64 = plan.ports.iter().map(|port| u64::from(port.queues)).sum();
    let captures = plan.capture.captures_max as u64;
    // The history records in a slot of its own.
    let slots = captures + u64::from(plan.history.is_some());
    // Of a capture that takes packets, and of one that has ended and whose turn it is.
    let delivery = CAPTURE_FILES + plan.upload.stores.s3.parts_in_flight as u64;
    // Objects beside the first one of each, of which memory bounds the number, and each reads all queues.
    let more = (captures + plan.upload.deliveries_max as u64) * (plan.upload.objects_in_flight as u64 - 1);
    let more = more.min(plan.upload.stores.s3.objects_extra(queues)) * (queues * READER_FILES + OBJECT_FILES);
    slots * queues * (SEGMENT_FILES + READER_FILES)
        + captures * delivery
        + plan.upload.deliveries_max as u64 * (queues * READER_FILES + delivery)
        + more
        + plan.api.connections_max as u64
        + STREAM_FILES
        + OBSERVE_FILES
        + OTHER_FILES
}

pub(super) fn check(plan: &Plan, host: &Host, findings: &mut Vec<Finding>) {
    let Some(limit) = host.read("/proc/self/limits").ok().as_deref().and_then(hard_limit) else { return };
    let need = files_needed(plan);
    if limit < need {
        let queues: u64 = plan.ports.iter().map(|port| u64::from(port.queues)).sum();
        let text = format!(
            "this process may have {limit} files open, and {} captures on {queues} queues with {} deliveries beside them and {} API \
             connections need {need}",
            plan.capture.captures_max, plan.upload.deliveries_max, plan.api.connections_max
        );
        let advice = format!(
            "set LimitNOFILE={} in the unit (in a shell: ulimit -n), or lower capture.captures_max, upload.deliveries_max or api.connections_max",
            need.next_power_of_two()
        );
        findings.push(Finding::error("capture.captures_max", text, advice));
    }
}

/// The hard limit in `/proc/PID/limits`: `Max open files  1024  524288  files`.
fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        Plan::parse(&format!("{text}\n[[port]]\ndevice = \"net_null0\"\nqueues = 6\n")).unwrap()
    }

    #[test]
    fn the_need_grows_with_captures_deliveries_queues_parts_and_connections() {
        let few = "[capture]\ncaptures_max = 10\n[api]\nconnections_max = 100\n[upload]\nparts_in_flight = 2\ndeliveries_max = 5";
        // Five parts beside what each delivery needs are the memory of one object.
        let base = 5 * (6 + 7) + (6 + 2) + STREAM_FILES + OBSERVE_FILES + OTHER_FILES;
        assert_eq!(files_needed(&plan(few)), 10 * 6 * 3 + 10 * 7 + 100 + base);
        let with_history = format!("{few}\n[history]\nenabled = true");
        assert_eq!(files_needed(&plan(&with_history)), 11 * 6 * 3 + 10 * 7 + 100 + base);
    }

    #[test]
    fn the_hard_limit_counts_because_the_soft_one_is_raised_to_it() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax processes  7  8  processes\nMax open files            1024                 524288               files     \n";
        assert_eq!(hard_limit(limits), Some(524_288));
        assert_eq!(hard_limit("Max open files  1024  unlimited  files"), Some(u64::MAX));
        assert_eq!(hard_limit("Max processes  7  8  processes"), None);
        assert!(hard_limit(&std::fs::read_to_string("/proc/self/limits").unwrap()).is_some());
    }
}
