//! A capture from the request to the last object. Owns the job, its state machine, its budget and its ledger; not the
//! threads that move packets.
//!
//! Invariant: a capture's state changes in one place, the engine.

mod engine;
mod handle;
mod job;
pub mod journal;
mod ledger;
mod underway;
pub mod recover;

pub use engine::{CaptureView, Engine, Overview, Planes, ReadPorts};
pub use handle::{Action, Handle, Refusal};
pub use job::{
    AccountId, CaptureId, ColoStyle, Job, Kind, ObjectInfo, OffsetTime, Request, Status, StopReason,
};
pub use ledger::{Dropped, Imbalance, Ledger, PortDrops, Progress};
