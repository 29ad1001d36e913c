//! What a value must be. Owns how a rule that is broken is recorded and what stands in for the value; not which rules there are.
//!
//! Invariant: a legal value always comes out.

use super::{ByteSize, Problem};
use std::path::{Path, PathBuf};

/// The problems found so far.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) problems: Vec<Problem>,
}

impl Rules {
    /// Whether something is wrong with this key, or with one below it.
    pub(super) fn told(&self, key: &str) -> bool {
        self.problems.iter().filter_map(Problem::key).any(|wrong| wrong.starts_with(key))
    }

    /// Records a value that is wrong.
    pub(super) fn wrong(
        &mut self,
        key: impl Into<String>,
        value: impl std::fmt::Display,
        advice: impl Into<String>,
    ) {
        self.problems.push(Problem::Value {
            key: key.into(),
            value: value.to_string(),
            advice: advice.into(),
        });
    }

    /// `value` if it is within bounds, otherwise the nearest that is.
    pub(super) fn range(
        &mut self,
        key: impl Into<String>,
        value: u64,
        bounds: (u64, u64),
        why: &'static str,
    ) -> u64 {
        self.range_shown(key.into(), value, bounds, why, |number| number.to_string())
    }

    /// As [`Rules::range`], for sizes.
    pub(super) fn size(&mut self, key: &str, value: ByteSize, bounds: (u64, u64), why: &'static str) -> u64 {
        self.range_shown(key.to_owned(), value.0, bounds, why, |bytes| ByteSize(bytes).to_string())
    }

    fn range_shown(
        &mut self,
        key: String,
        value: u64,
        (min, max): (u64, u64),
        why: &'static str,
        show: fn(u64) -> String,
    ) -> u64 {
        if value < min || value > max {
            self.problems.push(Problem::Range {
                key,
                value: show(value),
                min: show(min),
                max: show(max),
                why,
            });
        }
        value.clamp(min, max)
    }

    /// What `value` names; the first choice if it names none.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, value: &str, choices: &[(&str, T)]) -> T {
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == value) {
            return *choice;
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        self.wrong(key, format!("{value:?}"), format!("write one of {}", names.join(", ")));
        choices[0].1
    }

    /// `path`, absolute.
    pub(super) fn path(&mut self, key: &str, path: &Path) -> PathBuf {
        std::path::absolute(path).unwrap_or_else(|error| {
            self.wrong(
                key,
                format!("{:?}", path.display().to_string()),
                format!("write an absolute path ({error})"),
            );
            path.to_owned()
        })
    }
}
