//! The library behind the `trawl` binary: from a DPDK port to an object in the customer's bucket.
//!
//! ```text
//! NIC queue ─▶ worker ─▶ block ─▶ writer ─▶ segment ─▶ merge ─▶ upload ─▶ bucket
//! ```
//!
//! Modules stand in the order that data flows; `ARCHITECTURE.md` has the map and the invariants.
#![deny(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod chain;
pub mod cli;
pub mod config;
pub mod limits;
pub mod drivers;
pub mod interface;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod packet;
pub mod matcher;
pub mod pcap;
pub mod worker;
pub mod block;
pub mod spool;
pub mod merge;
pub mod history;
pub mod job;
mod turns;
mod named;
mod seldom;
pub mod upload;
pub mod stamp;
pub mod deliver;
pub mod engine;
pub mod bus;
pub mod fleet;
pub mod node;
pub mod host;
pub mod store;
pub mod ownership;
pub mod dashboard;
pub mod audit;
pub mod http;
pub mod api;
pub mod observe;

#[cfg(test)]
#[path = "../tests/common/skip.rs"]
mod skip;
#[cfg(test)]
#[path = "../tests/common/tsa.rs"]
mod tsa;
