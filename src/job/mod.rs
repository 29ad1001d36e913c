//! A capture on paper: what was asked for, where it goes, what was counted, what came of it. Owns these types and their
//! serialised forms; not what happens to a capture (`engine`).
//!
//! Invariant: nothing here does I/O, and a record keeps what it does not know.

mod bucket_name;
mod bucket_proof;
mod destination;
#[expect(clippy::module_inception, reason = "the durable record is the room's centre")]
mod job;
mod ledger;
mod part;
mod sealed;
mod series;

pub use bucket_proof::{BucketProof, BucketTerms};
pub use destination::{Destination, DestinationError, Sent};
pub use job::{
    AccountId, CaptureId, ClockState, ClockStates, ClockSteps, ColoStyle, Job, Kind, LostStream, ObjectInfo,
    OffsetTime, Request, Status, StopReason,
};
pub use ledger::{
    Dropped, Imbalance, Ledger, ObjectRange, ObjectSums, OnSpool, PortDrops, Progress, Unclear,
};
pub use part::{PartId, Site, is_label};
pub use sealed::{S3Credentials, Sealed};
pub use series::{KeptSeries, Series};
