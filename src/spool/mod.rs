//! Segments on disk. Owns writing, publishing, the quota and the two ways to write; not what the bytes mean (`pcap`),
//! nor when a capture ends (`engine`).
//!
//! ```text
//! worker ─message─▶ writer ─closed segment─▶ publisher ─rename─▶ merge
//! ```
//!
//! Invariant: a file under its published name is complete and durable; everything else has a name that begins with a dot.

mod account;
mod backing;
mod capture;
mod disk;
mod feed;
mod files;
mod identity;
mod length;
mod lock;
mod mapping;
mod message;
mod publish;
mod publisher;
mod published;
mod quota;
mod recover;
mod removal;
mod salvage;
mod segment;
mod survey;
#[expect(clippy::module_inception, reason = "the open spool is the room's centre")]
mod spool;
#[cfg(test)]
#[cfg(not(miri))]
mod tests;
mod writer;

pub use capture::{Event, Failure, Lost, SpoolCapture};
pub use disk::Disk;
pub use feed::{Ahead, Feed, Listener, WhenSlow};
pub(crate) use files::{Call, Files};
pub use identity::{IdentityError, Standing, judge, name_spool, spool_id, standing, standing_of_all};
pub use lock::{LockError, SpoolLock};
pub use message::{Closes, Message, Piece, StreamId};
pub use published::{Cut, Input, Segment};
pub use publisher::{Publisher, PublisherHandle};
pub use quota::{Quota, Share, common_bytes_max, part_of};
pub(crate) use recover::place;
pub use recover::{HeldSegment, Recovery, recover, with_holes};
pub use salvage::{Salvaged, whole_records};
pub use spool::{Captures, Holding, Spool, SpoolConfig, SpoolError, WriteMode};
pub use survey::{LeftSegment, LeftStream, Survey, survey, whole_records_of_open};
pub use writer::Writer;
