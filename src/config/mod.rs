//! The config file: as written, as resolved, and held against the host. Owns the keys and their rules; not what the rooms
//! do with them.
//!
//! Invariant: whatever leaves as a [`Plan`] is valid, and everything that keeps it from being one is reported at once.

mod accounts;
pub mod check;
mod evidence;
mod file;
mod fleet;
pub(crate) mod level;
mod load;
mod plan;
mod ports;
mod problem;
mod reload;
mod resolve;
mod rules;
mod size;
mod tenancy;
mod topology;
mod ui;

pub use plan::{
    Account, ApiPlan, BlocksPlan, CapturePlan, CoresPlan, FleetPlan, HostPlan, LogFormat, LogPlan,
    ManifestPlan, NatsPlan, ObservePlan, Plan, PortPlan, StorePlan, UiPlan, UploadPlan, WorkersPlan,
};
pub use problem::{Problem, Problems};
pub use reload::Changes;
pub use size::ByteSize;
pub use topology::{Topology, node_of_port};
