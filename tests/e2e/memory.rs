//! Memory of a running host: what the config says and little more, locked, and the same after work.

use crate::trawl::Setup;
use serde_json::json;
use std::time::Duration;
use trawl::job::Status;
use trawl::limits::OTHER_MEMORY_BYTES_MAX;

/// `-m 256` of [`Setup`].
const DPDK_BYTES: u64 = 256 << 20;
/// Its `blocks.bytes_max`.
const BLOCKS_BYTES: u64 = 64 << 20;

fn bytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn resident_memory_is_what_the_config_says_and_at_most_100_mib_and_it_is_locked() {
    let trawl = Setup { blocks_bytes: "64MiB", ..Setup::replay() }.start();
    let held = || bytes(trawl.id(), "VmRSS:") + bytes(trawl.id(), "HugetlbPages:");
    let promised = DPDK_BYTES + BLOCKS_BYTES + OTHER_MEMORY_BYTES_MAX;
    let at_start = held();
    assert!(at_start >= BLOCKS_BYTES, "{at_start}: the blocks are touched before the first packet");
    assert!(at_start <= promised, "{at_start} of {promised}");
    assert!(bytes(trawl.id(), "VmLck:") >= BLOCKS_BYTES, "the blocks are locked");
    let log = trawl.log();
    for part in ["blocks.bytes_max", "memory is settled", "promised_mib=420", "all_locked=true"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    let mut request = trawl.request(json!({}));
    request["packet_limit"] = json!(200_000);
    for _ in 0..3 {
        let id = trawl.create(&request);
        assert_eq!(trawl.ended(&id).status, Status::Success);
    }
    std::thread::sleep(Duration::from_millis(200));
    let after = held();
    assert!(after <= promised, "{after} of {promised} after three captures, {at_start} at start");
    println!("{} MiB at start, {} MiB after", at_start >> 20, after >> 20);
    trawl.finish();
}
