//! Files of results: chunks, then a head that names them. Owns how a file is cut and put together; what is in it is its writer's.
//!
//! Invariant: a file is there with its head, which is written last, once, and has the digest of all its bytes. Chunks carry that
//! digest in their keys, so writers of different bytes under one name do not meet in them, and a writer that begins again finds its own.
//!
//! Not NATS's object store: its parts are messages without an expected revision, so two writers of one name undo each other, and
//! what a writer left half done stays.

use super::super::{Away, is_name};
use super::layout::RESULTS;
use super::table::Tables;
use crate::fleet::held::{Answer, Revision};
use data_encoding::HEXLOWER;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Half of what servers take in one message unless they are told otherwise.
const CHUNK_BYTES: usize = 512 << 10;
/// Of one file, on their way at once.
const CHUNKS_AT_ONCE: usize = 4;
/// How often a write is tried whose answer was lost, or that came second.
const TRIES: usize = 4;

#[derive(Serialize, Deserialize)]
struct Head {
    bytes: u64,
    sha256: String,
    chunks: u32,
}

fn head_key(name: &str) -> Result<String, Away> {
    if is_name(name) {
        Ok(format!("file.{name}"))
    } else {
        Err(Away::Forbidden(format!("a file named {name:?}")))
    }
}

fn chunk_key(name: &str, head: &Head, number: u32) -> String {
    format!("data.{name}.{}.{number}", &head.sha256[..head.sha256.len().min(16)])
}

/// Puts bytes under a key; whether they are there now. Other bytes stay.
async fn place(tables: &Tables, key: &str, bytes: &[u8]) -> Result<bool, Away> {
    let mut expected = Revision::default();
    for _ in 0..TRIES {
        match tables.write(RESULTS, key, expected, Some(bytes.to_vec())).await {
            Answer::Wrote(_) => return Ok(true),
            Answer::Unavailable => {
                return Err(tables
                    .health()
                    .err()
                    .unwrap_or_else(|| Away::Unavailable("it takes no file".to_owned())));
            }
            _ => {}
        }
        match tables.read(RESULTS, key).await? {
            Some(entry) if entry.value.is_some() => return Ok(entry.value.as_deref() == Some(bytes)),
            // It was removed once, or the write did not arrive.
            found => expected = found.map_or_else(Revision::default, |entry| entry.revision),
        }
    }
    Err(Away::Timeout(tables.link.timeout()))
}

/// See [`super::super::Bus::keep`].
pub(super) async fn keep(tables: &Tables, name: &str, bytes: Vec<u8>) -> Result<bool, Away> {
    let key = head_key(name)?;
    let count = bytes.len().div_ceil(CHUNK_BYTES);
    let chunks =
        u32::try_from(count).map_err(|_| Away::Forbidden(format!("a file of {} bytes", bytes.len())))?;
    let head = Head { bytes: bytes.len() as u64, sha256: HEXLOWER.encode(&Sha256::digest(&bytes)), chunks };
    let pieces = bytes.chunks(CHUNK_BYTES).zip(0..).map(|(piece, number)| {
        let key = chunk_key(name, &head, number);
        async move { place(tables, &key, piece).await }
    });
    let pieces: Vec<_> = pieces.collect();
    let placed: Vec<bool> = stream::iter(pieces).buffer_unordered(CHUNKS_AT_ONCE).try_collect().await?;
    if placed.contains(&false) {
        return Err(Away::Unavailable(format!("a part of {name} is there with other bytes")));
    }
    let text = serde_json::to_vec(&head).map_err(|error| Away::Unavailable(error.to_string()))?;
    place(tables, &key, &text).await
}

async fn head(tables: &Tables, name: &str) -> Result<Option<(Revision, Head)>, Away> {
    let Some(entry) = tables.read(RESULTS, &head_key(name)?).await? else { return Ok(None) };
    let Some(value) = entry.value else { return Ok(None) };
    let head = serde_json::from_slice(&value)
        .map_err(|error| Away::Unavailable(format!("the head of {name}: {error}")))?;
    Ok(Some((entry.revision, head)))
}

/// See [`super::super::Bus::kept`].
pub(super) async fn kept(tables: &Tables, name: &str) -> Result<Option<Vec<u8>>, Away> {
    let Some((_, found)) = head(tables, name).await? else { return Ok(None) };
    let pieces = (0..found.chunks).map(|number| {
        let key = chunk_key(name, &found, number);
        async move { Ok::<_, Away>(tables.read(RESULTS, &key).await?.and_then(|entry| entry.value)) }
    });
    let pieces: Vec<_> = pieces.collect();
    let pieces: Vec<Option<Vec<u8>>> = stream::iter(pieces).buffered(CHUNKS_AT_ONCE).try_collect().await?;
    let whole: Option<Vec<Vec<u8>>> = pieces.into_iter().collect();
    let bytes = whole
        .map(|pieces| pieces.concat())
        .filter(|bytes| HEXLOWER.encode(&Sha256::digest(bytes)) == found.sha256);
    if bytes.is_none() && head(tables, name).await?.is_none() {
        // It was discarded meanwhile.
        return Ok(None);
    }
    bytes.map(Some).ok_or_else(|| Away::Unavailable(format!("{name} is not whole there")))
}

/// See [`super::super::Bus::discard`].
pub(super) async fn discard(tables: &Tables, name: &str) -> Result<(), Away> {
    let key = head_key(name)?;
    for _ in 0..TRIES {
        let Some((revision, head)) = head(tables, name).await? else { return Ok(()) };
        if !matches!(tables.write(RESULTS, &key, revision, None).await, Answer::Wrote(_)) {
            continue;
        }
        for number in 0..head.chunks {
            let key = chunk_key(name, &head, number);
            // One that stays ages out.
            if let Some(entry) = tables.read(RESULTS, &key).await? {
                tables.write(RESULTS, &key, entry.revision, None).await;
            }
        }
        return Ok(());
    }
    Err(Away::Timeout(tables.link.timeout()))
}
