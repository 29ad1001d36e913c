//! How a fleet's records lie in NATS: streams, subjects, limits. Owns the names and what a stream must be like; creates nothing.
//!
//! ```text
//!  stream KV_<fleet>_<table>   subjects $KV.<fleet>_<table>.<incarnation>.<key>   every write also as a message on
//!                                                                              <fleet>.v1.table.<table>.<key>
//! ```
//!
//! Invariant: the incarnation is part of each subject, and a stream has the subjects of one alone. So a write that expects a revision
//! of a stream that is gone finds no stream that would take it.

use super::super::{Table, is_name};
use serde_json::{Value, json};
use std::time::Duration;

/// Where results lie, beside the tables.
pub const RESULTS: &str = "results";

const DAY: Duration = Duration::from_secs(24 * 3600);
const GIB: u64 = 1 << 30;

/// One fleet's names.
#[derive(Clone, Debug)]
pub struct Names {
    fleet: String,
}

impl Names {
    /// Of a fleet; its name is a label.
    #[must_use]
    pub fn new(fleet: &str) -> Self {
        Self { fleet: fleet.to_owned() }
    }

    /// All streams of a fleet, by their short names.
    pub fn shorts() -> impl Iterator<Item = &'static str> {
        Table::ALL.into_iter().map(Table::name).chain([RESULTS])
    }

    /// The stream of a table.
    #[must_use]
    pub fn stream(&self, short: &str) -> String {
        format!("KV_{}_{short}", self.fleet)
    }

    /// What a key's record is written to, in one incarnation.
    #[must_use]
    pub fn subject(&self, short: &str, incarnation: u64, key: &str) -> String {
        format!("{}{incarnation}.{key}", self.root(short))
    }

    /// The same in whichever incarnation there is.
    #[must_use]
    pub fn any(&self, short: &str, key: &str) -> String {
        format!("{}*.{key}", self.root(short))
    }

    fn root(&self, short: &str) -> String {
        format!("$KV.{}_{short}.", self.fleet)
    }

    /// Incarnation and key of a subject of this table.
    #[must_use]
    pub fn parse<'a>(&self, short: &str, subject: &'a str) -> Option<(u64, &'a str)> {
        let (incarnation, key) = subject.strip_prefix(&self.root(short))?.split_once('.')?;
        Some((incarnation.parse().ok()?, key)).filter(|(incarnation, _)| *incarnation > 0)
    }

    /// Where a table's writes are told.
    #[must_use]
    pub fn told(&self, short: &str, key: &str) -> String {
        format!("{}.v1.table.{short}.{key}", self.fleet)
    }

    /// A subject of messages between nodes.
    #[must_use]
    pub fn message(&self, subject: &str) -> String {
        format!("{}.v1.{subject}", self.fleet)
    }

    /// The same without the fleet's part.
    #[must_use]
    pub fn of_message<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.fleet)?.strip_prefix(".v1.")
    }
}

/// The most that a stream has on each server's disk, and for how long a record stays after its last write.
fn bounds(short: &str) -> (u64, Duration) {
    let captures = 90 * DAY;
    match short {
        "jobs" => (2 * GIB, captures),
        "shares" | "assignments" => (GIB, captures),
        "parts" => (4 * GIB, captures),
        RESULTS => (8 * GIB, 30 * DAY),
        // Accounts, claims, hosts: nothing of them may age out.
        _ => (GIB / 4, Duration::ZERO),
    }
}

/// Whether any server of the stream may answer reads by subject: where capture hosts read, who may ask for nothing else.
#[must_use]
pub fn is_direct(short: &str) -> bool {
    ["assignments", "parts", "hosts"].contains(&short)
}

/// What a stream must be like, as NATS writes it down.
#[must_use]
pub fn wanted(names: &Names, short: &str, incarnation: u64, replicas: u8) -> Value {
    let (bytes, age) = bounds(short);
    let subjects = names.subject(short, incarnation, ">");
    let mut config = json!({
        "name": names.stream(short),
        "subjects": [subjects],
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        // Full is an error of the writer. Nothing old is dropped for it.
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_bytes": bytes,
        "max_age": u64::try_from(age.as_nanos()).unwrap_or(0),
        "allow_direct": is_direct(short),
        "allow_rollup_hdrs": false,
        "deny_delete": true,
        "deny_purge": true,
    });
    if short != RESULTS {
        config["republish"] = json!({"src": subjects, "dest": names.told(short, ">")});
    }
    config
}

/// What of a stream is not as wanted: the setting, what it must be, what it is. What operators may tune freely (bounds of bytes and
/// age, as long as there are some) is no difference.
#[must_use]
pub fn differences(wanted: &Value, found: &Value) -> Vec<(String, Value, Value)> {
    let Some(wanted) = wanted.as_object() else { return Vec::new() };
    let differs = |key: &str, want: &Value| {
        let is = found.get(key).unwrap_or(&Value::Null);
        match key {
            "max_bytes" => is.as_i64().is_none_or(|bytes| bytes <= 0),
            "max_age" => (want.as_u64() == Some(0)) != (is.as_u64() == Some(0)),
            // Without the member it is off.
            _ if *want == json!(false) => is.as_bool().unwrap_or(false),
            _ => is != want,
        }
    };
    let mut found_differences: Vec<_> = wanted
        .iter()
        .filter(|(key, want)| differs(key, want))
        .map(|(key, want)| (key.clone(), want.clone(), found.get(key).cloned().unwrap_or(Value::Null)))
        .collect();
    // What would let records be lost, or come back, without a write.
    for key in ["mirror", "sources", "subject_transform", "sealed", "no_ack", "discard_new_per_subject"] {
        let is = found.get(key).unwrap_or(&Value::Null);
        if !matches!(is, Value::Null | Value::Bool(false)) {
            found_differences.push((key.to_owned(), Value::Null, is.clone()));
        }
    }
    found_differences
}

/// The incarnation of a stream, by its settings.
#[must_use]
pub fn incarnation(names: &Names, short: &str, config: &Value) -> Option<u64> {
    let [subject] = config["subjects"].as_array()?.as_slice() else { return None };
    let (incarnation, rest) = names.parse(short, subject.as_str()?)?;
    (rest == ">").then_some(incarnation)
}

/// Whether a text can be subscribed to.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    let (first, last) = text.rsplit_once('.').map_or(("", text), |(first, last)| (first, last));
    let labels = first
        .split('.')
        .filter(|label| !label.is_empty())
        .chain([last].into_iter().filter(|last| *last != ">"));
    !text.is_empty()
        && !text.contains("..")
        && !text.starts_with('.')
        && labels.into_iter().all(|label| label == "*" || is_name(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_back_in_its_table_alone() {
        let names = Names::new("prod");
        let subject = names.subject("parts", 1700, "0a.cap1");
        assert_eq!(subject, "$KV.prod_parts.1700.0a.cap1");
        assert_eq!(names.parse("parts", &subject), Some((1700, "0a.cap1")));
        assert_eq!(names.parse("jobs", &subject), None);
        assert_eq!(Names::new("pro").parse("parts", &subject), None);
        for wrong in ["$KV.prod_parts.x.a", "$KV.prod_parts.0.a", "$KV.prod_parts.17"] {
            assert_eq!(names.parse("parts", wrong), None, "{wrong}");
        }
        assert_eq!(names.of_message(&names.message("hb.ord02.cap1")), Some("hb.ord02.cap1"));
        assert_eq!(names.of_message("prod2.v1.a"), None);
    }

    #[test]
    fn a_stream_as_wanted_has_no_differences_and_one_that_loses_records_has() {
        let names = Names::new("prod");
        let config = wanted(&names, "jobs", 17, 3);
        assert_eq!(differences(&config, &config), []);
        assert_eq!(incarnation(&names, "jobs", &config), Some(17));
        assert_eq!(incarnation(&names, "parts", &config), None);
        let tuned = |key: &str, value: Value| {
            let mut other = config.clone();
            other[key] = value;
            differences(&config, &other).into_iter().map(|(key, ..)| key).collect::<Vec<_>>()
        };
        assert_eq!(tuned("max_bytes", json!(5)), [""; 0]);
        assert_eq!(tuned("max_bytes", json!(-1)), ["max_bytes"]);
        assert_eq!(tuned("max_age", json!(0)), ["max_age"]);
        assert_eq!(tuned("num_replicas", json!(1)), ["num_replicas"]);
        assert_eq!(tuned("allow_direct", json!(true)), ["allow_direct"]);
        assert_eq!(tuned("mirror", json!({"name": "x"})), ["mirror"]);
    }

    #[test]
    fn what_can_be_subscribed_to_has_wildcards_as_whole_labels() {
        for good in ["a", "a.*.b", "host.cap1.>", ">", "*"] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["", ".a", "a.", "a..b", "a.>.b", "a*", "a b", "a.b>"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }
}
