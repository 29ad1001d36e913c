//! Object stores: S3, Google Cloud Storage, R2, a directory. Owns what a store can do and how each does it; not what is sent there
//! (`deliver`), nor whose a bucket is (`ownership`).
//!
//! Invariant: an object is visible under its name only when it is complete.

mod error;
mod checksum;
mod checkpoint;
mod counts;
mod parts;
mod retry_budget;
mod store;
mod stores;
mod file;
mod s3;
mod gcs;

pub use checkpoint::Checkpoint;
#[cfg(test)]
pub(crate) use checkpoint::{Kept, KeptPart};
pub(crate) use checksum::Running;
#[cfg(test)]
pub(crate) use checksum::crc32c;
pub(crate) use counts::COUNTS;
pub use counts::{UploadCounts, upload_counts};
pub use error::UploadError;
pub use file::{ClosedDir, FileStore};
pub use gcs::{GcsConfig, GcsCredentials};
pub use s3::{S3Config, S3Encryption, S3Extras};
pub use store::{ObjectStore, ObjectWriter, Pending, Resumed, Stored, Sweep, within};
pub use stores::{R2Config, Stores, StoresConfig, Ways};
