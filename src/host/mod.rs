//! The appliance put together: ports, threads on their cores, rings between them, the engine and the API on top. Owns the
//! order of start and end; no behaviour of its own.
//!
//! Invariant: memory is mapped and touched, and every thread pinned, before the first packet is polled; at the end every
//! thread has given back what it held.

#[cfg(feature = "dpdk")]
mod api_node;
#[cfg(feature = "dpdk")]
mod audit;
#[cfg(feature = "dpdk")]
mod backups;
mod dataplane;
mod descriptors;
#[cfg(feature = "dpdk")]
mod fleet;
#[cfg(any(feature = "dpdk", test))]
mod front;
#[cfg(feature = "dpdk")]
mod identity;
#[cfg(feature = "dpdk")]
mod load;
#[cfg(feature = "dpdk")]
mod measure;
#[cfg(feature = "dpdk")]
mod memory;
#[cfg(feature = "dpdk")]
mod notify;
#[cfg(feature = "dpdk")]
mod observation;
#[cfg(feature = "dpdk")]
mod origin;
#[cfg(feature = "dpdk")]
mod port_counts;
#[cfg(any(feature = "dpdk", test))]
mod port_life;
#[cfg(feature = "dpdk")]
mod port_place;
#[cfg(feature = "dpdk")]
mod ports;
#[cfg(feature = "dpdk")]
mod privileges;
#[cfg(feature = "dpdk")]
mod pruning;
#[cfg(feature = "dpdk")]
mod reload;
#[cfg(feature = "dpdk")]
mod sandbox;
#[cfg(feature = "dpdk")]
mod retention;
mod runtime;
#[cfg(feature = "dpdk")]
mod serve;
#[cfg(feature = "dpdk")]
mod signals;
#[cfg(feature = "dpdk")]
mod storage;
#[cfg(feature = "dpdk")]
mod tasks;

pub use dataplane::{DataPlane, DataPlaneConfig, HostError, OnWorker};
pub use descriptors::raise_open_files;
#[cfg(feature = "dpdk")]
pub use measure::{Limit, MeasureError, Measured, Rate, measure};
#[cfg(feature = "dpdk")]
pub use ports::probe;
pub use runtime::{on_this_thread, with_workers};
#[cfg(feature = "dpdk")]
pub use serve::{ServeError, serve};
#[cfg(feature = "dpdk")]
pub use signals::{Heard, outlive};
