//! Where an object on its way stands, so that another process can go on. Owns the journalled form; not the journal.
//!
//! Invariant: a checkpoint names only what the store has confirmed. A session's address is as good as a password for its one
//! object, so nothing here is printed but the number of bytes.

use super::checksum::joined;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a store holds of an object that is not complete. Opaque: only [`super::ObjectStore::resume`] and
/// [`super::ObjectStore::sweep`] read it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    bytes: u64,
    pub(crate) kept: Kept,
}

/// What each kind of store needs to go on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kept {
    /// A file under its temporary name, synced up to the checkpoint, and which file it is. An older program did not say.
    File {
        temporary: String,
        #[serde(default)]
        device: u64,
        #[serde(default)]
        inode: u64,
    },
    /// A multipart upload; parts without a gap from the first.
    S3 { upload_id: String, part_bytes: u64, parts: Vec<KeptPart> },
    /// A resumable session and the checksum of what it holds.
    Gcs { session: String, crc32c: u32 },
}

/// One part, as the store confirmed it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptPart {
    pub bytes: u64,
    pub etag: String,
    pub crc32c: u32,
    /// Whether the store named the checksum too; then it wants it again at the end.
    pub confirmed: bool,
}

impl Checkpoint {
    pub(crate) fn new(bytes: u64, kept: Kept) -> Self {
        Self { bytes, kept }
    }

    /// Bytes of the object that the store confirmed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// CRC-32C of the object's first `bytes` bytes, if the store told it: at a part's end, or at the end of all.
    pub(crate) fn crc32c_of(&self, bytes: u64) -> Option<u32> {
        match &self.kept {
            Kept::File { .. } => None,
            Kept::S3 { parts, .. } => {
                let mut sums = parts.iter().scan((0, 0), |(end, sum), part| {
                    (*end, *sum) =
                        (u64::saturating_add(*end, part.bytes), joined(*sum, part.crc32c, part.bytes));
                    Some((*end, *sum))
                });
                sums.find(|(end, _)| *end == bytes).map(|(_, sum)| sum)
            }
            Kept::Gcs { crc32c, .. } => (bytes == self.bytes).then_some(*crc32c),
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_survives_its_journal_and_prints_no_session() {
        for kept in [
            Kept::File { temporary: ".a".to_owned(), device: 1, inode: 2 },
            Kept::S3 {
                upload_id: "id".to_owned(),
                part_bytes: 5 << 20,
                parts: vec![KeptPart { bytes: 5 << 20, etag: "e".to_owned(), crc32c: 7, confirmed: true }],
            },
            Kept::Gcs { session: "https://host/?upload_id=hush".to_owned(), crc32c: 9 },
        ] {
            let checkpoint = Checkpoint::new(5 << 20, kept);
            let json = serde_json::to_string(&checkpoint).unwrap();
            assert!(serde_json::from_str::<Checkpoint>(&json).unwrap() == checkpoint);
            assert!(!format!("{checkpoint:?}").contains("hush"));
        }
    }
}
