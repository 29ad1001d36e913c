//! One value of a create request: what it must be, and what is said when it is not. Owns the wording and the pointers; not
//! which members there are.
//!
//! Invariant: every message names the member, the value and what would be right, in a bounded number of characters.

use super::codes::Code;
use super::envelope::Problem;
use crate::matcher::{Filter, FilterV1};
use serde_json::{Map, Number, Value};

/// The largest integer that every SDK can carry: they hold numbers as doubles (RFC 8259, section 6).
const JSON_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Characters of a refused value that are repeated to the sender.
const VALUE_CHARS_MAX: usize = 64;

/// Problems that are listed. A body of nothing but unknown members would else be answered with many times its size.
const PROBLEMS_MAX: usize = 32;

/// Collects what is wrong. Its methods return a value only if it is right; what is not has been noted.
#[derive(Default)]
pub(super) struct Check {
    problems: Vec<Problem>,
}

impl Check {
    /// What was noted.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(super) fn note(&mut self, pointer: &str, code: Code, message: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::at(pointer, code, message));
        }
    }

    pub(super) fn unknown(&mut self, parent: &str, members: &Map<String, Value>) {
        for name in members.keys() {
            let shown = shortened(name);
            // RFC 6901, section 3.
            let pointer = format!("{parent}/{}", shown.replace('~', "~0").replace('/', "~1"));
            self.note(&pointer, Code::UnknownMember, format!("unknown member {shown:?}; leave it out"));
        }
    }

    pub(super) fn required<'a>(&mut self, pointer: &str, value: Option<&'a Value>) -> Option<&'a Value> {
        if value.is_none() {
            self.note(pointer, Code::MissingMember, format!("{} is required", name(pointer)));
        }
        value
    }

    pub(super) fn absent(&mut self, pointer: &str, value: Option<&Value>, kind: &str) {
        if value.is_some() {
            let message = format!("{} is not a member of {kind}; leave it out", name(pointer));
            self.note(pointer, Code::MemberNotAllowed, message);
        }
    }

    pub(super) fn one_of(
        &mut self,
        pointer: &str,
        value: Option<&Value>,
        allowed: &[&'static str],
    ) -> Option<&'static str> {
        let value = self.required(pointer, value)?;
        let found = allowed.iter().find(|allowed| value.as_str() == Some(**allowed)).copied();
        if found.is_none() {
            let message = format!("{} is {}, must be {}", name(pointer), shown(value), allowed.join(" or "));
            self.note(pointer, Code::InvalidValue, message);
        }
        found
    }

    /// A number of seconds; fractions count, because the API says "number".
    pub(super) fn seconds(&mut self, pointer: &str, value: Option<&Value>, max: u64) -> Option<f64> {
        let value = self.required(pointer, value)?;
        // Exact: a host's longest time is far below 2^53 seconds.
        let found = value.as_f64().filter(|seconds| (1.0..=max as f64).contains(seconds));
        if found.is_none() {
            let message =
                format!("{} is {}, must be a number of seconds from 1 to {max}", name(pointer), shown(value));
            self.note(pointer, Code::InvalidValue, message);
        }
        found
    }

    /// A whole number from 1; the Python SDK sends `100.0` for 100.
    pub(super) fn count(&mut self, pointer: &str, value: &Value, max: u64) -> Option<u64> {
        let found = value.as_number().and_then(whole).filter(|count| (1..=max).contains(count));
        if found.is_none() {
            let message =
                format!("{} is {}, must be a whole number from 1 to {max}", name(pointer), shown(value));
            self.note(pointer, Code::InvalidValue, message);
        }
        found
    }

    /// An optional limit under the host's bound, which holds when none was sent.
    pub(super) fn bounded(
        &mut self,
        pointer: &str,
        value: Option<&Value>,
        host_max: Option<u64>,
    ) -> Option<u64> {
        match value {
            Some(value) => self.count(pointer, value, host_max.unwrap_or(JSON_INTEGER_MAX)),
            None => host_max,
        }
    }

    pub(super) fn text<'a>(&mut self, pointer: &str, value: &'a Value) -> Option<&'a str> {
        let text = value.as_str();
        if text.is_none() {
            let message = format!("{} is {}, must be a string", name(pointer), shown(value));
            self.note(pointer, Code::InvalidValue, message);
        }
        text
    }

    /// `filter_v1`, each member alone first, so that all that is wrong is said and each error points to its member.
    pub(super) fn filter(&mut self, value: Option<&Value>) -> FilterV1 {
        let Some(value) = value else { return FilterV1::default() };
        let Some(sent) = value.as_object() else {
            let message = format!("filter_v1 is {}, must be an object", shown(value));
            self.note("/filter_v1", Code::InvalidValue, message);
            return FilterV1::default();
        };
        let mut right = Map::new();
        let mut unknown = Map::new();
        for (name, value) in sent {
            // The matcher owns the members' names; an absent one is right if it exists.
            if filter_of(Map::from_iter([(name.clone(), Value::Null)])).is_err() {
                unknown.insert(name.clone(), Value::Null);
            } else if !value.is_null() {
                let pointer = format!("/filter_v1/{name}");
                if self.filter_holds(&pointer, Map::from_iter([(name.clone(), value.clone())])).is_some() {
                    right.insert(name.clone(), value.clone());
                }
            }
        }
        self.unknown("/filter_v1", &unknown);
        self.filter_holds("/filter_v1", right).unwrap_or_default()
    }

    fn filter_holds(&mut self, pointer: &str, members: Map<String, Value>) -> Option<FilterV1> {
        let checked = filter_of(members)
            .map_err(|error| format!("{}: {}", name(pointer), shortened(&error.to_string())))
            .and_then(|filter| Filter::try_from(&filter).map(|_| filter).map_err(|error| error.to_string()));
        checked.map_err(|message| self.note(pointer, Code::InvalidValue, message)).ok()
    }
}

fn filter_of(members: Map<String, Value>) -> serde_json::Result<FilterV1> {
    serde_json::from_value(Value::Object(members))
}

/// A number that has no fraction, however it was written.
fn whole(number: &Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        // 2^53 and above, a double no longer says which integer was meant.
        (float.fract() == 0.0 && (0.0..=JSON_INTEGER_MAX as f64).contains(&float)).then_some(float as u64)
    })
}

/// The member that a pointer ends in.
pub(super) fn name(pointer: &str) -> &str {
    pointer.rsplit('/').next().unwrap_or(pointer)
}

/// A refused value, for its sender.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("{:?}", shortened(text)),
        plain => plain.to_string(),
    }
}

/// A request may carry megabytes; its answer need not.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
