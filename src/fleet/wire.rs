//! Records as they travel between nodes of different versions. Owns what becomes of members that this version does not know; not what a
//! record means.
//!
//! A node reads a record, changes what it knows and writes it again. What a newer node added, at any depth, is passed over when it is
//! read and stands where it was when it is written. Elements of a list are told apart by their place, as everywhere in these records.
//!
//! Invariant: a record that is not changed is written as it was read, and a change touches only the members that this version knows.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A record is a few KiB; what is larger than any store of a fleet takes is none.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not the form of the record: a member that this version needs is missing or has another form.
    #[error(
        "not a record that this version reads: {0}; the node that wrote it may be of a version that does not fit"
    )]
    Form(#[from] serde_json::Error),
    /// More than a record can be.
    #[error("a record of {bytes} bytes is larger than {RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// A record, with what of it this version does not know.
#[derive(Clone, Debug, PartialEq)]
pub struct Wire<T> {
    value: T,
    /// As it was read; nothing of a new one.
    seen: Value,
    /// What `value` was then.
    before: Value,
}

impl<T: Serialize + DeserializeOwned> Wire<T> {
    /// A record that this node makes.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { value, seen: Value::Null, before: Value::Null }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(json: &[u8]) -> Result<Self, WireError> {
        if json.len() > RECORD_BYTES_MAX {
            return Err(WireError::TooLarge { bytes: json.len() });
        }
        let seen: Value = serde_json::from_slice(json)?;
        let value = T::deserialize(&seen)?;
        let before = serde_json::to_value(&value)?;
        Ok(Self { value, seen, before })
    }

    /// What this version knows of it.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The same record with another value.
    #[must_use]
    pub fn with(self, value: T) -> Self {
        Self { value, ..self }
    }

    /// The text that goes to the store.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn to_json(&self) -> Result<Vec<u8>, WireError> {
        let now = serde_json::to_value(&self.value)?;
        let json = serde_json::to_vec(&changed(&self.seen, &self.before, now))?;
        if json.len() > RECORD_BYTES_MAX {
            return Err(WireError::TooLarge { bytes: json.len() });
        }
        Ok(json)
    }
}

/// What was read, with what this version knew of it changed to what it knows now.
fn changed(seen: &Value, before: &Value, now: Value) -> Value {
    if *before == now {
        // Also a member that was left out because it has its default.
        return if seen.is_null() { now } else { seen.clone() };
    }
    match (seen, before, now) {
        (Value::Object(seen), Value::Object(before), Value::Object(now)) => {
            Value::Object(changed_object(seen, before, now))
        }
        (Value::Array(seen), Value::Array(before), Value::Array(now)) => {
            let (mut seen, mut before) = (seen.iter(), before.iter());
            let element = |now| match (seen.next(), before.next()) {
                (Some(seen), Some(before)) => changed(seen, before, now),
                _ => now,
            };
            Value::Array(now.into_iter().map(element).collect())
        }
        (_, _, now) => now,
    }
}

fn changed_object(
    seen: &Map<String, Value>,
    before: &Map<String, Value>,
    mut now: Map<String, Value>,
) -> Map<String, Value> {
    let mut object = Map::new();
    for (name, value) in seen {
        match (before.get(name), now.remove(name)) {
            // Not known to this version.
            (None, None) => drop(object.insert(name.clone(), value.clone())),
            (Some(before), Some(now)) => drop(object.insert(name.clone(), changed(value, before, now))),
            (None, Some(now)) => drop(object.insert(name.clone(), now)),
            // Gone, such as one variant of an enum in the place of another.
            (Some(_), None) => {}
        }
    }
    for (name, value) in now {
        // One that was left out when it was read, because it had its default, is left out as long as it has.
        if before.get(&name) != Some(&value) {
            object.insert(name, value);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::record::{Job, Phase};
    use crate::fleet::shares::Amount;
    use crate::fleet::{Kind, Window};
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;
    use std::time::Duration;

    /// What an older version knows.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Older {
        epoch: u64,
        host: Host,
        members: Vec<Host>,
        #[serde(default)]
        note: Option<String>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Host {
        name: String,
        used: u64,
    }

    /// Members that only a newer version knows: none of its names is one of the older's.
    fn unknown() -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,6}", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("new_[a-z]{1,4}", value, 0..4).prop_map(|map| map.into_iter().collect())
    }

    fn host() -> impl Strategy<Value = Host> {
        ("[a-z]{1,5}", any::<u64>()).prop_map(|(name, used)| Host { name, used })
    }

    fn older() -> impl Strategy<Value = Older> {
        let note = prop::option::of("[a-z]{0,3}");
        (any::<u64>(), host(), prop::collection::vec(host(), 0..4), note)
            .prop_map(|(epoch, host, members, note)| Older { epoch, host, members, note })
    }

    /// A record of a newer version that says this of what the older one knows.
    fn newer(older: &Older, mut unknown: impl FnMut(usize) -> Map<String, Value>) -> Value {
        let mut value = serde_json::to_value(older).unwrap();
        value.as_object_mut().unwrap().extend(unknown(0));
        value["host"].as_object_mut().unwrap().extend(unknown(1));
        for (at, member) in value["members"].as_array_mut().unwrap().iter_mut().enumerate() {
            member.as_object_mut().unwrap().extend(unknown(2 + at));
        }
        value
    }

    fn parse(json: &[u8]) -> Value {
        serde_json::from_slice(json).unwrap()
    }

    proptest! {
        #[test]
        fn a_record_of_a_newer_version_passes_through_an_older_one_unchanged(
            record in older(), unknown in prop::collection::vec(unknown(), 6),
        ) {
            let text = newer(&record, |at| unknown[at].clone()).to_string();
            let wire = Wire::<Older>::read(text.as_bytes()).unwrap();
            prop_assert_eq!(wire.value(), &record);
            prop_assert_eq!(parse(&wire.to_json().unwrap()), parse(text.as_bytes()));
        }

        #[test]
        fn what_an_older_version_changes_changes_and_what_it_does_not_know_stays(
            before in older(), after in older(), unknown in prop::collection::vec(unknown(), 6),
        ) {
            let text = newer(&before, |at| unknown[at].clone()).to_string();
            let wire = Wire::<Older>::read(text.as_bytes()).unwrap().with(after.clone());
            // Members that were not there before have nothing that is not known.
            let known = before.members.len();
            let kept = |at: usize| if at < 2 + known { unknown[at].clone() } else { Map::new() };
            let expected = newer(&after, kept);
            let written = parse(&wire.to_json().unwrap());
            prop_assert_eq!(&written, &expected);
            prop_assert_eq!(serde_json::from_value::<Older>(written).unwrap(), after);
        }

        #[test]
        fn any_text_can_be_read_as_a_record(text in ".{0,200}") {
            let _no_panic = Wire::<Older>::read(text.as_bytes()).is_ok();
        }
    }

    #[test]
    fn what_was_left_out_by_default_stays_out_until_it_is_changed() {
        let text = json!({"epoch": 1, "host": {"name": "a", "used": 2}, "members": [], "tier": "cold"});
        let wire = Wire::<Older>::read(text.to_string().as_bytes()).unwrap();
        let raised = Older { epoch: 2, ..wire.value().clone() };
        let written = parse(&wire.clone().with(raised).to_json().unwrap());
        assert_eq!(
            (&written["epoch"], written.get("note"), &written["tier"]),
            (&json!(2), None, &json!("cold"))
        );
        let noted = Older { note: Some("n".to_owned()), ..wire.value().clone() };
        assert_eq!(parse(&wire.with(noted).to_json().unwrap())["note"], json!("n"));
    }

    #[test]
    fn a_job_of_a_newer_fleet_is_led_on_by_an_older_node_without_a_loss() {
        let window = Window { start: Duration::ZERO, end: Duration::from_secs(60) };
        let kind = Kind::Full { limit: Some(Amount::new(1000, 1 << 30)) };
        let mut text = serde_json::to_value(Job::accepted(kind, window, 7)).unwrap();
        text["proto"] = json!(2);
        text["window"]["zone"] = json!("UTC");
        text["kind"]["Full"]["burst"] = json!({"packets": 5});
        let wire = Wire::<Job>::read(text.to_string().as_bytes()).unwrap();
        let job = Job { phase: Phase::Running, epoch: 3, ..wire.value().clone() };
        let written = parse(&wire.with(job).to_json().unwrap());
        (text["phase"], text["epoch"]) = (json!("Running"), json!(3));
        assert_eq!(written, text);
    }

    #[test]
    fn a_record_without_what_is_needed_or_that_is_too_large_is_refused() {
        assert!(matches!(Wire::<Older>::read(b"{\"epoch\": 1}"), Err(WireError::Form(_))));
        let large = vec![b' '; RECORD_BYTES_MAX + 1];
        assert!(matches!(Wire::<Older>::read(&large), Err(WireError::TooLarge { .. })));
        let new = Wire::new(Host { name: "a".repeat(RECORD_BYTES_MAX), used: 0 });
        assert!(matches!(new.to_json(), Err(WireError::TooLarge { .. })));
    }
}
