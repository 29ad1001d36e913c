//! What is told, and the line that is made of it. Owns the line's form and its hash; not where it goes.
//!
//! Invariant: a line is one line of characters that a terminal shows, at most [`LINE_BYTES_MAX`] long; the same text gives the same hash.

use crate::chain::printable_json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Of one line. What is said about an action is left out of a longer one.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;
/// Characters of a text that comes from outside.
const CHARS_MAX: usize = 256;
/// Of the line before the first.
pub(super) const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Lines that carry a signature of the head before them.
pub(super) const SIGN: &str = "audit.sign";
/// Lines between two signatures, at most.
pub(super) const SIGN_LINES: u64 = 256;
/// Lines that say that the oldest file goes.
pub(super) const REMOVE: &str = "audit.remove";

/// What became of an action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    #[default]
    Done,
    /// It was not done, because the one who asked may not, or asked for something that cannot be.
    Refused,
    /// It was not done, or not wholly, because of this host.
    Failed,
    /// The one who asked left, or the time for an answer ended: it may have been done.
    Unanswered,
}

/// How many lines a kind of entry may have within a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// One each time.
    #[default]
    Each,
    /// One of its own the first time; the same again is counted.
    First,
    /// Nothing came of it: as [`Room::First`], and an account has few of them; what is beyond is counted.
    Few,
}

/// Something that somebody did. No member has a secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entry {
    /// What: a noun and a verb, such as `capture.create`.
    pub action: &'static str,
    /// What became of it.
    pub result: Outcome,
    /// The status of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The number of the error in its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Whose account it was done in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The first digits of the credential's SHA-256 in the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What that may do: `read`, `write` or `operator`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The capture or bucket that it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What more there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<Value>,
    /// How often it came again in the minute before; the first time had a line of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// How many lines its kind may have.
    #[serde(skip)]
    pub room: Room,
}

impl Entry {
    /// Something that was done.
    #[must_use]
    pub fn new(action: &'static str) -> Self {
        Self { action, ..Self::default() }
    }

    /// The same with more to say.
    #[must_use]
    pub fn with(self, about: Value) -> Self {
        Self { about: Some(about), ..self }
    }

    /// The same with texts of bounded length.
    fn bounded(&self) -> Self {
        let cut = |text: &Option<String>| text.as_ref().map(|text| text.chars().take(CHARS_MAX).collect());
        Self {
            account: cut(&self.account),
            credential: cut(&self.credential),
            peer: cut(&self.peer),
            id: cut(&self.id),
            ..self.clone()
        }
    }
}

/// A line as it is written.
#[derive(Serialize)]
struct Written<'a> {
    seq: u64,
    at: &'a str,
    host: &'a str,
    prev: &'a str,
    #[serde(flatten)]
    entry: &'a Entry,
}

/// What of a line its place in the chain hangs on.
#[derive(Deserialize)]
pub(super) struct Read {
    pub seq: u64,
    pub host: String,
    pub prev: String,
    pub action: String,
    #[serde(default)]
    pub about: Option<Value>,
}

/// The end of a chain: the number that the next line has, and the hash of the line before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub seq: u64,
    pub prev: String,
}

impl End {
    /// Of a chain without a line.
    pub fn none() -> Self {
        Self { seq: 1, prev: NO_HASH.to_owned() }
    }

    /// The next line, with its line feed, and the end behind it.
    ///
    /// # Errors
    /// Never in practice: every member has a JSON form.
    pub fn next(&self, host: &str, at: &str, entry: &Entry) -> Result<(Vec<u8>, Self), serde_json::Error> {
        let entry = entry.bounded();
        let text = |entry: &Entry| {
            let line = Written { seq: self.seq, at, host, prev: &self.prev, entry };
            serde_json::to_string(&line).map(|json| printable_json(json) + "\n")
        };
        let mut line = text(&entry)?;
        if line.len() > LINE_BYTES_MAX {
            let left_out = json!({"left_out_bytes": line.len()});
            line = text(&Entry { about: Some(left_out), ..entry })?;
        }
        let end = Self { seq: self.seq.saturating_add(1), prev: hash(line.as_bytes()) };
        Ok((line.into_bytes(), end))
    }

    /// The entry that signs this end.
    pub fn signed(&self, host: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> Entry {
        let signature = STANDARD.encode(sign(message(host, self.seq, &self.prev).as_bytes()));
        Entry::new(SIGN).with(json!({"signature": signature}))
    }
}

/// What is signed: the number of the line with the signature, and the hash of the line before it.
pub(super) fn message(host: &str, seq: u64, prev: &str) -> String {
    format!("trawl audit\n{host}\n{seq}\n{prev}\n")
}

/// The signature that a line carries; none if there is none in it.
pub(super) fn signature(about: Option<&Value>) -> Option<Vec<u8>> {
    STANDARD.decode(about?.get("signature")?.as_str()?).ok()
}

/// SHA-256 of a line with its line feed.
pub(super) fn hash(line: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(line))
}
