//! What the operator wants said about each object: encryption, storage class, owner's rights. Owns their form in requests.
//!
//! Invariant: what is not configured is not sent, because stores refuse headers that they do not know.

use aws_sdk_s3::types::{ObjectCannedAcl, ServerSideEncryption, StorageClass};

/// Who encrypts objects at rest, and with which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Encryption {
    /// SSE-S3: the store, with its own key.
    Aes256,
    /// SSE-KMS: the key management service, with this key, or with the bucket's when none.
    Kms {
        /// Key id or ARN.
        key_id: Option<String>,
    },
}

/// Decisions that go with each object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Extras {
    /// Server-side encryption; the bucket's default when none.
    pub encryption: Option<S3Encryption>,
    /// Storage class in S3's spelling, such as `STANDARD_IA`; the bucket's default when none.
    pub storage_class: Option<String>,
    /// Whether the bucket's owner gets all rights on the object (`bucket-owner-full-control`).
    pub owner_full_control: bool,
}

impl S3Extras {
    pub(super) fn encryption(&self) -> Option<ServerSideEncryption> {
        self.encryption.as_ref().map(|encryption| match encryption {
            S3Encryption::Aes256 => ServerSideEncryption::Aes256,
            S3Encryption::Kms { .. } => ServerSideEncryption::AwsKms,
        })
    }

    pub(super) fn kms_key_id(&self) -> Option<String> {
        match &self.encryption {
            Some(S3Encryption::Kms { key_id }) => key_id.clone(),
            _ => None,
        }
    }

    pub(super) fn storage_class(&self) -> Option<StorageClass> {
        self.storage_class.as_deref().map(StorageClass::from)
    }

    pub(super) fn acl(&self) -> Option<ObjectCannedAcl> {
        self.owner_full_control.then_some(ObjectCannedAcl::BucketOwnerFullControl)
    }
}
