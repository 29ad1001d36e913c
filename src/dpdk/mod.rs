//! DPDK behind safe types. Owns every call into it; nothing else names `sys`. Owns too the ring of an interface that stays with the
//! kernel ([`InterfacePort`]), which is none of DPDK's and fills the same burst.
//!
//! ```text
//! Eal ─▶ Port ─start▶ StartedPort      counters, link, facts
//!          (Mempools)  └▶ RxQueue ─▶ RxBurst     one per queue; Send, so that a worker takes it along
//! ```
//!
//! Each owner keeps alive what it stands on, so drop order is free: a port closes when the last of its parts is gone, EAL
//! is cleaned up after the last port and thread.
//!
//! Drivers are plug-ins: EAL loads those in the directory that DPDK was built with (Debian: `/usr/lib/*/dpdk/pmds-*`), so
//! nothing here is linked against a driver.
//!
//! Invariant: no safe call makes DPDK read or write memory that is not ours, whatever a driver or the config says.

mod sys;

mod arguments;
mod eal;
mod mempool;
mod device;
mod probe;
mod configure;
mod facts;
mod xstats;
mod counters;
mod opened;
mod port;
mod ring;
mod slot;
mod burst;
mod interface;
mod stats;
#[doc(hidden)]
pub mod feeder;

pub use arguments::Memory;
pub use burst::{RxBurst, RxQueue};
pub use counters::PortStats;
pub use device::DeviceError;
pub use eal::{Code, Eal, EalError, Registered, cycles};
pub use facts::{Link, PortFacts, Spread};
pub use interface::{InterfaceError, InterfacePort};
pub use mempool::{Mempool, MempoolError};
pub use opened::{PortConfig, PortError};
pub use port::{Port, PortEvents, StartedPort};
pub use slot::QueueSlot;
pub use stats::PortLosses;
