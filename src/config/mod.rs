//! The config file: as written, as resolved, and held against the host. Owns the keys and their rules; not what the rooms
//! do with them.
//!
//! Invariant: whatever leaves as a [`Plan`] is valid, and everything that keeps it from being one is reported at once.

mod accounts;
pub mod check;
mod file;
mod level;
mod plan;
mod problem;
mod resolve;
mod size;

pub(crate) use level::is_filter;
pub use plan::{
    Account, ApiPlan, BlocksPlan, CapturePlan, CoresPlan, Credential, CredentialKind, GcsPlan, HistoryPlan,
    HostPlan, Hugepages, LogFormat, LogPlan, ObservePlan, Plan, PortPlan, Role, S3Plan, SpoolPlan, StorePlan,
    UploadPlan, WriteMode,
};
pub use problem::{Problem, Problems};
pub use size::ByteSize;
