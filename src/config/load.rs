//! From a file to a plan. Owns the order: read, parse, resolve, and that every problem is reported once.
//!
//! Invariant: a plan without problems is the only one that leaves as [`Plan`].

use super::plan::Plan;
use super::problem::covered;
use super::{Problem, Problems, file, resolve};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The largest config file: thousands of accounts. What is larger is another file, or a device without an end.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    if read as u64 > CONFIG_BYTES_MAX {
        let message = format!("it has more than {CONFIG_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

impl Plan {
    /// Reads and validates a config file.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        match Self::draft(path) {
            (Some(plan), problems) if problems.is_empty() => Ok(plan),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// Validates the text of a config file.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        match Self::draft_of(text) {
            (Some(plan), problems) if problems.is_empty() => Ok(plan),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// As [`Plan::load`], but a plan in which defaults stand for whatever is wrong, so that the rest can still be held
    /// against the host. None when the file cannot be read as TOML at all.
    pub(super) fn draft(path: &Path) -> (Option<Self>, Vec<Problem>) {
        match read(path) {
            Ok(text) => Self::draft_of(&text),
            Err(source) => (None, vec![Problem::Unreadable { path: path.to_owned(), source }]),
        }
    }

    fn draft_of(text: &str) -> (Option<Self>, Vec<Problem>) {
        let (file, mut problems) = file::read(text);
        if problems.iter().any(|problem| problem.key().is_none()) {
            return (None, problems);
        }
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (plan, wrong) = resolve::resolve(&file, &host_name);
        // A key that was left out for its form would otherwise be reported a second time as missing.
        let new: Vec<Problem> = wrong.into_iter().filter(|one| !covered(one.key(), &problems)).collect();
        problems.extend(new);
        (Some(plan), problems)
    }
}
