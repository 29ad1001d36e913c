//! What a merge met in its inputs. Owns the sums by kind, the inputs that are not whole, and the lines about both.
//!
//! Invariant: everything of an input that is not in the output is told here.

use super::MergeError;
use crate::pcap::{Container, Oddities, Oddity, ReadError};
use std::path::{Path, PathBuf};

/// What was met of one kind.
#[derive(Clone, Debug, Default)]
struct Tally {
    count: u64,
    files: u64,
    first: PathBuf,
}

/// An input that is not wholly in the output.
#[derive(Debug)]
pub struct Partial {
    /// The input.
    pub path: PathBuf,
    /// Packets that were read before.
    pub packets: u64,
    /// Why the rest, or all of it, is left out.
    pub cause: ReadError,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Findings {
    tallies: [Tally; Oddity::ALL.len()],
    partial: Vec<Partial>,
    /// What is written; none if nothing is.
    container: Option<Container>,
}

impl Findings {
    pub(crate) fn new(container: Option<Container>) -> Self {
        Self { container, ..Self::default() }
    }

    /// Inputs that are not wholly in the output.
    #[must_use]
    pub fn partial(&self) -> &[Partial] {
        &self.partial
    }

    /// How often this was met in all inputs.
    #[must_use]
    pub fn count(&self, oddity: Oddity) -> u64 {
        self.tallies[oddity as usize].count
    }

    pub(super) fn add_partial(&mut self, path: &Path, packets: u64, cause: ReadError) {
        self.partial.push(Partial { path: path.to_owned(), packets, cause });
    }

    /// The error of the first input that was left out, where all of them were.
    pub(crate) fn into_error(self) -> MergeError {
        match self.partial.into_iter().next() {
            Some(Partial { path, cause, .. }) => MergeError::Read { path, source: cause },
            None => MergeError::NoInputs,
        }
    }

    /// Adds what was met in one input.
    pub(super) fn add(&mut self, path: &Path, oddities: &Oddities) {
        for (oddity, tally) in Oddity::ALL.into_iter().zip(&mut self.tallies) {
            let count = oddities.count(oddity);
            if count > 0 {
                if tally.files == 0 {
                    tally.first = path.to_owned();
                }
                tally.files += 1;
                tally.count += count;
            }
        }
    }

    /// Lines for people: one for each input that is not whole, then one for each kind that was met.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.partial.iter().map(Partial::line).collect();
        let told = |oddity: &Oddity| oddity.is_put_right() || self.container.is_some();
        let met = |oddity: &Oddity| self.count(*oddity) > 0 && told(oddity);
        for oddity in Oddity::ALL.into_iter().filter(met) {
            let Tally { count, files, first } = &self.tallies[oddity as usize];
            let place = match files {
                1 => format!("{}", first.display()),
                _ => format!("{files} inputs, the first of them {}", first.display()),
            };
            lines.push(format!("{} ({place})", oddity.describe(*count)));
        }
        let would_be_kept = Oddity::ALL.into_iter().any(|oddity| met(&oddity) && oddity.is_kept_by_pcapng());
        if self.container == Some(Container::Pcap) && would_be_kept {
            lines.push(
                "a pcapng output (--format pcapng) keeps secrets, names, custom blocks and packet options"
                    .to_owned(),
            );
        }
        lines
    }
}

impl Partial {
    fn line(&self) -> String {
        let Self { path, packets, cause } = self;
        let path = path.display();
        match (cause, packets) {
            (ReadError::Open { source, .. }, _) => format!("{path}: skipped: it cannot be opened: {source}"),
            (ReadError::Truncated { .. }, 0) => {
                format!("{path}: skipped: it is empty, or cut off before the end of its first packet")
            }
            (_, 0) => format!("{path}: skipped: {cause}"),
            (ReadError::Truncated { .. }, _) => format!("{path}: {cause} and is left out"),
            (_, packets) => format!("{path}: only its first {packets} packets are taken: {cause}"),
        }
    }
}
