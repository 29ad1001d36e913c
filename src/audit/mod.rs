//! Who did what: an append-only log on this host of which each line has the hash of the line before. Owns its lines, its files, the
//! thread that writes them, and the check of such files; not what is told (`api`, `host`).
//!
//! ```text
//! requests, host ─Entry─▶ queue ─▶ thread: number, hash, write, fdatasync ─▶ audit-000000000001.jsonl, audit-000000004711.jsonl, …
//!        ▲                                    │
//!        └──────── answered once durable ─────┘
//! ```
//!
//! What somebody changed is done first, then its line becomes durable, then he is answered. So nothing that was acknowledged lacks its
//! line. What was done and not acknowledged, because the process died between the two, is in the job store, and the next process
//! tells of it when it starts. Lines that come together are made durable together.
//!
//! Invariant: a line is written once, behind all others, and is never changed; a file that cannot be written holds up neither packets
//! nor captures that run.

mod entry;
mod files;
mod noted;
mod repeats;
mod verify;
mod writer;

pub use entry::{Entry, Outcome, Room};
pub use files::AuditError;
pub use verify::{Break, Checked, Head, VerifyError, check_files, check_some, files_of};
pub use writer::{Audit, AuditCounts, Unrecorded};

use std::path::PathBuf;

/// Where the log is, and how large it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Absolute; for this log alone.
    pub dir: PathBuf,
    /// Of all files; the oldest go first. At least two files.
    pub bytes_max: u64,
    /// At which the next file begins.
    pub file_bytes: u64,
    /// Whether what somebody asks for is refused while its line cannot be written.
    pub required: bool,
    /// A file elsewhere that keeps the last line's number and hash: a log that was cut or removed while no process ran shows by it.
    pub head_file: Option<PathBuf>,
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests;
