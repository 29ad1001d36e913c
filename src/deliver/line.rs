//! One line of a file that grows by lines: checksum and JSON. Owns the line's form; not the files.
//!
//! Invariant: a line that was cut or damaged is told from a whole one.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;

/// A line: checksum, JSON.
pub(super) fn line(value: &impl Serialize) -> io::Result<String> {
    let json = serde_json::to_string(value).map_err(io::Error::other)?;
    Ok(format!("{:08x} {json}\n", crc_fast::crc32_iscsi(json.as_bytes())))
}

/// What [`line`] made; none if the line is cut or damaged.
pub(super) fn parse<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (crc, json) = text.split_once(' ')?;
    let right = u32::from_str_radix(crc, 16).ok()? == crc_fast::crc32_iscsi(json.as_bytes());
    if right { serde_json::from_str(json).ok() } else { None }
}
