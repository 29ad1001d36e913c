//! Errors of uploads and stores. Owns the messages that customers and operators read; not the decision what is retried.

use crate::chain::printable;
use crate::job::DestinationError;
use std::io;
use std::path::PathBuf;

/// Why an object is not in its store. Messages name the place and the next step.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The text is no destination.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// `file://` is switched off on this host.
    #[error(
        "this host does not write to directories; use a bucket, or have its operator set upload.allow_file"
    )]
    FileNotAllowed,
    /// `file://` leads to none of the operator's directories.
    #[error(
        "this host does not write to {}; name a directory below one that its operator has opened (upload.file_roots)",
        dir.display()
    )]
    OutsideRoots {
        /// The destination.
        dir: PathBuf,
    },
    /// Buckets of this kind are switched off on this host.
    #[error(
        "this host does not write to {scheme}:// destinations; use another, or have its operator set {key}"
    )]
    BucketNotAllowed {
        /// The kind.
        scheme: &'static str,
        /// The key of the config.
        key: &'static str,
    },
    /// The bucket is not there.
    #[error("bucket {bucket} does not exist; create it or correct the destination")]
    NoSuchBucket {
        /// The bucket.
        bucket: String,
    },
    /// The bucket is somewhere else.
    #[error("bucket {bucket} is not in region {region} ({detail}); correct the destination's region")]
    Region {
        /// The bucket.
        bucket: String,
        /// In the destination.
        region: String,
        /// The store's message.
        detail: String,
    },
    /// The store knows us and refuses.
    #[error(
        "the store refuses {action} on {place} ({detail}); grant this host {action} on the bucket's objects"
    )]
    Denied {
        /// The permission, in the store's words, such as `s3:PutObject` or `storage.objects.create`.
        action: &'static str,
        /// Bucket and key.
        place: String,
        /// The store's words.
        detail: String,
    },
    /// The store does not accept our credentials, or there are none.
    #[error(
        "no valid credentials for {place} ({detail}); check the bucket's access keys, or this host's credentials for that store"
    )]
    Credentials {
        /// Bucket and key.
        place: String,
        /// The store's or the credential chain's words.
        detail: String,
    },
    /// This host has no credentials of its own, or such as cannot be read.
    #[error("no valid credentials for {place} ({detail}); check this host's credentials for that store")]
    HostCredentials {
        /// The bucket.
        place: String,
        /// The credential chain's words, which may name files.
        detail: String,
    },
    /// The keys that a bucket's owner sent cannot be read.
    #[error(
        "the access keys of {place} cannot be used: {detail}; POST the destination to …/pcaps/ownership again, with access-key-id \
         and secret-access-key"
    )]
    Keys {
        /// The destination.
        place: String,
        /// Why not.
        detail: String,
    },
    /// The bucket is not the one that its customer proved to be his.
    #[error(
        "{place} is not proven to be yours any more, so nothing is written there: {what}; POST it to …/pcaps/ownership and answer \
         the new challenge"
    )]
    Unproven {
        /// The destination.
        place: String,
        /// How it shows.
        what: String,
    },
    /// The host's clock is off.
    #[error("the store refuses {place} because this host's clock is off; synchronise it (NTP)")]
    Clock {
        /// Bucket and key.
        place: String,
    },
    /// Another object has that name.
    #[error(
        "{place} exists already, is another one and is not overwritten; it may be what this host delivered of the capture before \
         its journal was lost: keep a copy of it, then remove it"
    )]
    Exists {
        /// Bucket and key, or the file.
        place: String,
    },
    /// An object of that name holds more than what is left of ours.
    #[error(
        "{place} exists already with {held} bytes, and this host has only {ours} bytes left of that object; keep the object in \
         the bucket, it holds more of the capture"
    )]
    Larger {
        /// Bucket and key, or the file.
        place: String,
        /// Its size.
        held: u64,
        /// The size of what would be written.
        ours: u64,
    },
    /// Nothing has that name.
    #[error("{place} does not exist")]
    NotFound {
        /// Bucket and key, or the file.
        place: String,
    },
    /// No valid answer until the time for retries was used up.
    #[error("{place} could not be reached for {seconds} s ({detail}); check the endpoint and the network")]
    Unreachable {
        /// Bucket and key.
        place: String,
        /// How long it was tried.
        seconds: u64,
        /// The last failure.
        detail: String,
    },
    /// A server answers that cannot prove to be the store.
    #[error(
        "{place} presents a certificate that this host does not trust ({detail}); have its operator name the \
         store's authority in upload.ca_file, or correct the endpoint"
    )]
    Untrusted {
        /// Bucket and key.
        place: String,
        /// What is wrong with the certificate.
        detail: String,
    },
    /// The store has lost, or somebody aborted, what was already sent.
    #[error("the store no longer has what was sent of {place}; it is sent again from its beginning")]
    Lost {
        /// Bucket and key, or the file.
        place: String,
    },
    /// Any other refusal.
    #[error("the store refuses {place}: {detail}")]
    Refused {
        /// Bucket and key.
        place: String,
        /// The store's words.
        detail: String,
    },
    /// The configuration of the store cannot be used.
    #[error("upload {key} is not usable: {detail}")]
    Config {
        /// The key below `upload`, `upload.s3` or `upload.gcs`.
        key: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// More than a store takes as one object.
    #[error("{place} would have more than {bytes_max} bytes; use smaller segments")]
    TooLarge {
        /// Bucket and key, or the file.
        place: String,
        /// The limit.
        bytes_max: u64,
    },
    /// The local file system failed.
    #[error("cannot {action} {path}: {source}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A delivery's progress cannot be written down on this host.
    #[error("cannot write the journal in {path}: {source}")]
    Journal {
        /// The capture's directory in the spool.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store's object differs from what was sent.
    #[error(
        "{place} has {what} {} where {sent} was sent; the object is not to be trusted, capture again",
        printable(held)
    )]
    Mismatch {
        /// Bucket and key, or the file.
        place: String,
        /// `size` or `checksum`.
        what: &'static str,
        /// What the store says.
        held: String,
        /// What was sent.
        sent: String,
    },
    /// The store's part of an object in progress differs from the object.
    #[error("what the store holds of {place} is not what is merged now; it is sent again from its beginning")]
    Diverged {
        /// The object.
        place: String,
    },
    /// The merge ended in the middle of an object, or without any.
    #[error("the merge ended before its object {object} was complete")]
    Interrupted {
        /// Its number, from 0.
        object: usize,
    },
    /// Others waited for its turn.
    #[error("its upload stopped because others wait for their turn; it goes on in its next one")]
    Displaced,
    /// The merge broke its own order: a bug of ours.
    #[error("the merge sent {what} out of order")]
    OutOfOrder {
        /// What came.
        what: &'static str,
    },
}

/// What is done to a directory before anything is in it.
pub(super) const OPEN_DIRECTORY: &str = "open directory";
pub(super) const CREATE_DIRECTORY: &str = "create directory";
pub(super) const CREATE_FILE: &str = "create a file in";

impl UploadError {
    /// The text for the customer who named the place; none if the failure is the host's own, and its text may name files of it.
    #[must_use]
    pub fn customer_text(&self) -> Option<String> {
        match self {
            Self::HostCredentials { place, .. } => {
                Some(format!("this host has no valid credentials for {place}; ask its operator"))
            }
            Self::Journal { .. } | Self::Config { .. } => None,
            // One sentence, whatever stands there: what the system says would tell what else is on the host.
            Self::Disk { action: OPEN_DIRECTORY | CREATE_DIRECTORY | CREATE_FILE, path, source }
                if !matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Some(format!(
                    "this host cannot use the directory {}: its user must be allowed to write there, and no symbolic link may lead \
                     to it; ask its operator",
                    path.display()
                ))
            }
            other => Some(other.to_string()),
        }
    }

    /// What kind of failure it is, in words that are the same for every bucket: for those who must not read where objects go.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Destination(_) => "the destination cannot be used",
            Self::FileNotAllowed | Self::OutsideRoots { .. } | Self::BucketNotAllowed { .. } => {
                "this host does not write to such destinations"
            }
            Self::NoSuchBucket { .. } => "the bucket does not exist",
            Self::Region { .. } => "the bucket is in another region",
            Self::Denied { .. } => "the store refuses it: this host lacks a right on the bucket",
            Self::Credentials { .. } | Self::HostCredentials { .. } => {
                "the store takes no credentials of ours"
            }
            Self::Keys { .. } => "the bucket's access keys cannot be used",
            Self::Unproven { .. } => "the bucket is not proven to be the account's any more",
            Self::Clock { .. } => "the store refuses it because this host's clock is off",
            Self::Exists { .. } | Self::Larger { .. } => "another object has that name",
            Self::NotFound { .. } => "the object does not exist",
            Self::Unreachable { .. } => "the store could not be reached",
            Self::Untrusted { .. } => "the store's certificate is not trusted",
            Self::Lost { .. } | Self::Diverged { .. } => {
                "the store lost or changed what was sent; it is sent again"
            }
            Self::Refused { .. } => "the store refuses it",
            Self::Config { .. } => "the configuration of the store cannot be used",
            Self::TooLarge { .. } => "the object is larger than the store takes",
            Self::Disk { .. } => "the file system of the destination failed",
            Self::Journal { .. } => "this host failed at its own files",
            Self::Mismatch { .. } => "the store has other bytes than were sent",
            Self::Interrupted { .. } | Self::OutOfOrder { .. } => "the merge ended early",
            Self::Displaced => "its upload waits for its next turn",
        }
    }

    /// Whether the same request may succeed later, from a checkpoint or from the object's beginning: store, network, rights, keys,
    /// clocks and disks get repaired.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoSuchBucket { .. }
            | Self::Denied { .. }
            | Self::Credentials { .. }
            | Self::HostCredentials { .. }
            | Self::Keys { .. }
            | Self::Unproven { .. }
            | Self::Clock { .. }
            | Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Lost { .. }
            | Self::Diverged { .. }
            | Self::Mismatch { .. }
            | Self::Displaced
            | Self::Journal { .. }
            | Self::Disk { .. } => true,
            Self::Destination(_)
            | Self::FileNotAllowed
            | Self::OutsideRoots { .. }
            | Self::BucketNotAllowed { .. }
            | Self::Region { .. }
            | Self::Exists { .. }
            | Self::Larger { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::Config { .. }
            | Self::TooLarge { .. }
            | Self::Interrupted { .. }
            | Self::OutOfOrder { .. } => false,
        }
    }
}
