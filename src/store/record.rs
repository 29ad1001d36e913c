//! One job as bytes. Owns the JSON form and its version; not where the bytes lie.
//!
//! Invariant: a record of another version is refused by its number before anything else of it is read.

use super::{StoreError, Stored};
use crate::job::Job;
use serde::{Deserialize, Serialize};

/// Version of the records that are written and read. JSON and not a binary form: a job is written some ten times in its
/// life, and an operator can read it in a copy of the file.
const VERSION: u64 = 1;

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    revision: u64,
    job: &'a Job,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Read {
    revision: u64,
    job: Job,
}

/// The bytes of a job at a revision.
pub(super) fn encode(revision: u64, job: &Job) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(&Written { version: VERSION, revision, job })
        .map_err(|error| StoreError::Record { id: job.id.to_string(), detail: error.to_string() })
}

/// The job that `bytes`, stored under `id`, hold.
pub(super) fn decode(id: &str, bytes: &[u8]) -> Result<Stored, StoreError> {
    let unreadable = |detail: String| StoreError::Record { id: id.to_owned(), detail };
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if version != VERSION {
        return Err(StoreError::Version { id: id.to_owned(), version, known: VERSION });
    }
    let Read { revision, job } =
        serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if job.id.as_str() != id {
        return Err(unreadable(format!("it holds job {}", job.id)));
    }
    Ok(Stored { revision, job })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_version_is_an_error_that_names_it() {
        let error = decode("a", br#"{"version":2,"whatever":[]}"#).unwrap_err();
        assert!(matches!(error, StoreError::Version { version: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn a_record_that_is_no_json_or_lacks_members_is_an_error() {
        for bytes in [&b""[..], b"{", b"[]", br#"{"version":1}"#, br#"{"version":-1}"#, b"\xff\xfe"] {
            assert!(matches!(decode("a", bytes), Err(StoreError::Record { .. })), "{bytes:?}");
        }
    }
}
