//! From merged bytes to objects in the customer's bucket. Owns destinations, stores, delivery, the manifest and the check against it.
//!
//! Invariant: an object is visible under its name only when it is complete.

mod bucket_name;
mod destination;
mod error;
mod checksum;
mod checkpoint;
mod counts;
mod patience;
mod store;
mod file;
mod s3;
mod gcs;
mod manifest;
mod sign;
mod vault;
mod deliver;
mod verify;

pub use checkpoint::{Checkpoint, capture_of};
pub(crate) use counts::COUNTS;
pub use counts::{UploadCounts, upload_counts};
pub use deliver::{PublishError, Record, deliver, publish_manifest};
pub use destination::{Destination, DestinationError};
pub use error::UploadError;
pub use file::FileStore;
pub use gcs::{GcsConfig, GcsCredentials};
#[cfg(test)]
pub(crate) use manifest::tests::empty as empty_manifest;
pub use manifest::{
    Limits, MANIFEST_VERSION, Manifest, ManifestError, manifest_name, object_name, signature_name,
};
pub use s3::{S3Config, S3Credentials, S3Encryption, S3Extras};
pub use sign::{KeyError, PublicKey, SIGNATURE_BYTES, SigningKey};
pub use store::{
    ObjectStore, ObjectWriter, Pending, R2Config, Resumed, Stored, Stores, StoresConfig, Sweep, within,
};
pub use vault::{Locked, Sealed, Vault, VaultError};
pub use verify::{Bucket, Finding, Place, Step, Verified, VerifyError, verify, verify_at, verify_file};
