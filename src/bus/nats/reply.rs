//! What NATS answers, in the bus's words. Owns which answer of a write is sure and which is not; sends nothing.
//!
//! Invariant: only an acknowledgement with a sequence is [`Answer::Wrote`], only a later sequence is [`Answer::Stale`]. Everything
//! else that came after a write was sent is [`Answer::Uncertain`].

use super::super::Entry;
use super::layout::Names;
use crate::fleet::held::{Answer, Revision};
use async_nats::{HeaderMap, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Marks a removal; other tools for such streams know it too.
pub const OPERATION: &str = "KV-Operation";
/// Its value.
pub const REMOVED: &str = "DEL";
/// Holds a write against the last one of its subject.
pub const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// In what is told and read: the sequence of a write.
pub const SEQUENCE: &str = "Nats-Sequence";
/// In what is told and read: the subject that was written to.
pub const SUBJECT: &str = "Nats-Subject";

/// "wrong last sequence: " and the last one of the subject.
const WRONG_SEQUENCE: u64 = 10071;
/// The same without a number: another write of the subject is under way, and may fail.
const UNDER_WAY: u64 = 10164;
/// "no message found".
pub const NO_MESSAGE: u64 = 10037;
/// "stream not found".
pub const NO_STREAM: u64 = 10059;

/// Why a request has no result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// NATS's number of it.
    #[serde(default)]
    pub err_code: u64,
    /// In its words.
    #[serde(default)]
    pub description: String,
}

#[derive(Deserialize)]
struct Ack {
    error: Option<Fault>,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
}

/// What became of a write to a stream, by the payload of its acknowledgement; with what it was if it is none of the usual.
///
/// While the leader changes, two servers can take one write: the new leader, and one that hung and has not heard that it is none any
/// more. That one refuses what follows on a revision that it does not have yet, and the other writes it. So only a server that has a
/// later revision than expected is believed that nothing was written.
pub fn written(
    payload: &[u8],
    stream: &str,
    incarnation: u64,
    expected: u64,
) -> (Answer<Vec<u8>>, Option<String>) {
    match serde_json::from_slice::<Ack>(payload) {
        Ok(Ack { error: Some(fault), .. }) if fault.err_code == WRONG_SEQUENCE => {
            let has = fault.description.rsplit(' ').next().and_then(|number| number.parse().ok());
            let is_later = has.is_some_and(|has: u64| has > expected);
            (if is_later { Answer::Stale } else { Answer::Uncertain }, None)
        }
        Ok(Ack { error: Some(fault), .. }) if fault.err_code == UNDER_WAY => (Answer::Uncertain, None),
        Ok(Ack { error: Some(fault), .. }) => (Answer::Uncertain, Some(fault.description)),
        Ok(ack) if ack.stream == stream && ack.seq > 0 => {
            (Answer::Wrote(Revision { incarnation, sequence: ack.seq }), None)
        }
        Ok(ack) => (Answer::Uncertain, Some(format!("an acknowledgement of stream {:?}", ack.stream))),
        Err(error) => (Answer::Uncertain, Some(format!("an acknowledgement that cannot be read: {error}"))),
    }
}

#[derive(Deserialize)]
struct Got {
    error: Option<Fault>,
    message: Option<Stored>,
}

#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

/// A record as a stream's leader has it, or none.
///
/// # Errors
///
/// What NATS says instead.
pub fn stored(payload: &[u8], names: &Names, short: &str) -> Result<Option<Entry>, Fault> {
    let unreadable = |why: String| Fault { err_code: 0, description: why };
    let got: Got = serde_json::from_slice(payload).map_err(|error| unreadable(error.to_string()))?;
    match (got.error, got.message) {
        (Some(fault), _) if fault.err_code == NO_MESSAGE => Ok(None),
        (Some(fault), _) => Err(fault),
        (None, None) => Err(unreadable("an answer without a record".to_owned())),
        (None, Some(stored)) => {
            let decode = |text: &str| STANDARD.decode(text).map_err(|error| unreadable(error.to_string()));
            let (headers, data) = (decode(&stored.hdrs)?, decode(&stored.data)?);
            let (incarnation, key) = names
                .parse(short, &stored.subject)
                .ok_or_else(|| unreadable(format!("a record of subject {:?}", stored.subject)))?;
            let revision = Revision { incarnation, sequence: stored.seq };
            let value = (!is_removal(&headers)).then_some(data);
            Ok(Some(Entry { key: key.to_owned(), revision, value }))
        }
    }
}

/// Whether headers, as they were sent, mark a removal: `DEL`, or the `PURGE` of other tools.
fn is_removal(headers: &[u8]) -> bool {
    let lines = headers.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case(OPERATION) && [REMOVED, "PURGE"].contains(&value.trim())
    })
}

/// A record as a message tells it, with its place in the headers.
pub fn told(message: Message, names: &Names, short: &str) -> Option<Entry> {
    let headers = message.headers.as_ref()?;
    let text = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
    let (incarnation, key) = names.parse(short, text(SUBJECT)?)?;
    let revision = Revision { incarnation, sequence: text(SEQUENCE)?.parse().ok()? };
    let is_removed = text(OPERATION).is_some_and(|operation| [REMOVED, "PURGE"].contains(&operation));
    let key = key.to_owned();
    Some(Entry { key, revision, value: (!is_removed).then(|| Vec::from(message.payload)) })
}

/// Headers of a write that follows on this sequence.
#[must_use]
pub fn follows(sequence: u64, is_removal: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(EXPECTED, sequence.to_string());
    if is_removal {
        headers.insert(OPERATION, REMOVED);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_sequence_is_stale_and_only_an_acknowledgement_of_this_stream_is_a_write() {
        let answer = |text: &str| written(text.as_bytes(), "KV_p_jobs", 7, 11).0;
        let wrote = Answer::Wrote(Revision { incarnation: 7, sequence: 12 });
        assert_eq!(answer(r#"{"stream":"KV_p_jobs","seq":12}"#), wrote);
        let refused = |has: &str| {
            let error =
                format!(r#"{{"code":400,"err_code":10071,"description":"wrong last sequence: {has}"}}"#);
            answer(&format!(r#"{{"error":{error},"stream":"KV_p_jobs","seq":0}}"#))
        };
        assert_eq!(refused("12"), Answer::Stale);
        // A server that is behind refuses what another one may write.
        assert_eq!(
            (refused("10"), refused("0"), refused("")),
            (Answer::Uncertain, Answer::Uncertain, Answer::Uncertain)
        );
        for unclear in [
            r#"{"stream":"KV_q_jobs","seq":12}"#,
            r#"{"stream":"KV_p_jobs","seq":0}"#,
            r#"{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}"#,
            r#"{"error":{}}"#,
            "",
            "[]",
        ] {
            assert_eq!(answer(unclear), Answer::Uncertain, "{unclear}");
        }
    }

    #[test]
    fn a_removal_is_a_record_without_a_value() {
        let names = Names::new("p");
        let text = |headers: &[u8], subject: &str| {
            format!(
                r#"{{"message":{{"subject":"{subject}","seq":4,"hdrs":"{}","data":"dg=="}}}}"#,
                STANDARD.encode(headers)
            )
        };
        let read = |headers: &[u8]| {
            stored(text(headers, "$KV.p_jobs.9.a.b").as_bytes(), &names, "jobs").unwrap().unwrap()
        };
        let revision = Revision { incarnation: 9, sequence: 4 };
        let entry = Entry { key: "a.b".to_owned(), revision, value: Some(b"v".to_vec()) };
        assert_eq!(read(b""), entry);
        assert_eq!(read(b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n"), Entry { value: None, ..entry });
        assert!(stored(text(b"", "$KV.p_parts.9.a").as_bytes(), &names, "jobs").is_err());
        let none = br#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#;
        assert_eq!(stored(none, &names, "jobs"), Ok(None));
        let gone = br#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        assert_eq!(stored(gone, &names, "jobs").unwrap_err().err_code, NO_STREAM);
    }
}
