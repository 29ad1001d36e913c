//! DPDK on software devices, each test with real frames that are compared by count and bytes. Owns no fakes.
//!
//! EAL can be started once a process, so each test needs its own: `cargo nextest run` gives it one, and under `cargo test`
//! every test starts this binary again for itself. Tests that need rights are skipped without them, or fail with `TRAWL_REQUIRE_ALL=1`.
//!
//! Invariant: network devices live in a network namespace that the test made, and go with it.
// Helpers of tests are tests: clippy.toml's exemption sees only functions marked #[test].
#![allow(clippy::unwrap_used)]

#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/odd.rs"]
mod odd;
#[path = "../common/skip.rs"]
mod skip;
mod support;

mod allocations;
mod exchange;
mod feeding;
mod interface;
mod lifecycle;
mod null;
mod pcap;
mod quirks;
mod tap;
mod veth;
mod virtio;
