//! Segments on disk. Owns writing, publishing, the quota and the two ways to write; not what the bytes mean (`pcap`),
//! nor when a capture ends (`capture`).
//!
//! ```text
//! worker ─message─▶ writer ─closed segment─▶ publisher ─rename─▶ merge
//! ```
//!
//! Invariant: a file under its published name is complete and durable; everything else has a name that begins with a dot.

mod backing;
mod length;
mod lock;
mod mapping;
mod message;
mod publisher;
mod quota;
mod recover;
mod salvage;
mod segment;
mod survey;
mod table;
mod writer;

pub use lock::{LockError, SpoolLock};
pub use message::{Closes, Message, Piece, StreamId};
pub use publisher::{Publisher, PublisherHandle};
pub use quota::Quota;
pub use recover::{Recovery, recover};
pub use salvage::{Salvaged, whole_records};
pub use survey::{LeftSegment, LeftStream, Survey, survey, whole_records_of_open};
pub use table::{Captures, Event, Failure, Lost, Spool, SpoolCapture, SpoolConfig, SpoolError, WriteMode};
pub use writer::Writer;
