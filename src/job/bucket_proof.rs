//! What a capture keeps of its bucket's entry, so that it goes on without the entry. Owns the two types; not how they are
//! used (`ownership`).
//!
//! Invariant: nothing here is a secret: keys are sealed, and of the challenge only a hash is kept.

use super::{CaptureId, Sealed};
use serde::{Deserialize, Serialize};

/// What shows that a bucket is still the one that was proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketProof {
    /// The bucket's entry.
    pub entry: CaptureId,
    /// The object that holds the challenge.
    pub filename: String,
    /// The hash that binds the challenge to account, place and entry.
    pub challenge_sha256: [u8; 32],
    /// The account that owns the bucket, where its customer named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether the host could read the challenge when it wrote it. If not, it is not looked at again.
    #[serde(default)]
    pub is_readable: bool,
}

/// Under what terms a destination took a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketTerms {
    /// Its access keys, if it brings its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Sealed>,
    /// Its proof, if it needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<BucketProof>,
}

impl BucketTerms {
    /// Whether there are neither keys nor a proof.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
