//! The real binary from a DPDK port to files in a bucket, read back by `tshark` and `capinfos`. One trawl process a test.
//!
//! Invariant: every capture that a test finishes goes through [`outcome::Outcome::read`], which holds the ledger to its
//! equations, the objects to the manifest and both to what `capinfos` counts.
// A test binary has no readers of its docs, and clippy.toml exempts only functions marked #[test].
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(dead_code, reason = "tests/sdk shares some of these files and uses another part of them")]

mod attacks;
mod audit;
mod away;
mod backup;
mod bucket;
mod buckets;
mod cli;
mod disk;
mod disks;
mod doors;
mod drops;
mod ending;
mod faults;
mod fetch;
mod format;
mod frames;
mod held;
mod host;
#[path = "../common/front.rs"]
mod front;
mod http;
#[path = "../common/inherit.rs"]
mod inherit;
mod kills;
mod limits;
mod observe;
#[path = "../common/openmetrics.rs"]
mod openmetrics;
#[path = "../common/netns.rs"]
mod netns;
mod numbered;
#[path = "../common/odd.rs"]
mod odd;
mod measure;
mod memory;
mod outcome;
mod owners;
mod pace;
mod overload;
mod panels;
#[path = "../common/proxy.rs"]
mod proxy;
mod quiet;
mod recover;
mod refusals;
mod reload;
mod released;
mod replay;
mod retention;
mod rights;
mod s3;
mod service;
mod shares;
#[path = "../common/skip.rs"]
mod skip;
mod tls;
mod unit;
mod trawl;
mod turns;
mod two_disks;
mod verdicts;
mod viewers;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/weed.rs"]
mod weed;
mod wire;
