//! What can be wrong with a config file. Owns the messages; each names the key, the value and what to do.
//!
//! Invariant: no message repeats a value that could be a secret.

use std::{fmt, io, path::PathBuf};

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; name the config file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("not a TOML file: {}; correct the line and run `trawl check` again", text.trim_end())]
    Syntax {
        /// The parser's words, with the place.
        text: String,
    },
    /// It is written for another trawl.
    #[error(
        "version = {found}: this trawl reads version {known} of the config, which is also what a file without the key has; run the trawl that the file is for, or write the file again by this one's example (docs/UPGRADING.md)"
    )]
    Version {
        /// The file's.
        found: i64,
        /// The only one that can be read.
        known: u64,
    },
    /// There is no such key, or its value is of the wrong type.
    #[error("{key} = {value}: {text}")]
    Key {
        /// Path of the key.
        key: String,
        /// As written.
        value: String,
        /// What was expected.
        text: String,
    },
    /// A number outside its bounds.
    #[error("{key} = {value}: use {min} to {max}: {why}")]
    Range {
        /// Path of the key.
        key: String,
        /// As written, or as a size.
        value: String,
        /// Smallest legal value.
        min: String,
        /// Largest legal value.
        max: String,
        /// Where the bounds come from.
        why: &'static str,
    },
    /// A value of the wrong form, or one that contradicts another.
    #[error("{key} = {value}: {advice}")]
    Value {
        /// Path of the key.
        key: String,
        /// As written.
        value: String,
        /// What to write.
        advice: String,
    },
    /// A key that has no default.
    #[error("{key} is missing: {advice}")]
    Missing {
        /// Path of the key.
        key: String,
        /// What to write.
        advice: String,
    },
}

impl Problem {
    /// Path of the key; none when the file as a whole is wrong.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Unreadable { .. } | Self::Syntax { .. } | Self::Version { .. } => None,
            Self::Key { key, .. }
            | Self::Range { key, .. }
            | Self::Value { key, .. }
            | Self::Missing { key, .. } => Some(key),
        }
    }
}

/// Everything that is wrong with a config file; never empty.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "problem" } else { "problems" };
        write!(f, "the config has {} {noun}:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// Whether `key` is, holds, or lies below a key that `problems` name.
pub(super) fn covered(key: Option<&str>, problems: &[Problem]) -> bool {
    let below = |key: &str, holder: &str| {
        key.strip_prefix(holder).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    problems.iter().any(|problem| match (key, problem.key()) {
        (Some(key), Some(named)) => below(key, named) || below(named, key),
        _ => false,
    })
}
