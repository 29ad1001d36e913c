//! Inputs of an offline merge that are open only while it is at their packets. Owns when each is opened and closed, and how much memory
//! it may have; an input's own matters are in `input`.
//!
//! ```text
//! waits (its first packet's time is known) ─▶ open ─▶ over (what was met in it)
//! ```
//!
//! Objects of a capture follow each other in time, so of thousands a few are open at once. Where the time of an input's first packet
//! is not known, the input is opened to find it; with few inputs it stays so.
//!
//! Invariant: an input is open before a packet that may come behind its first one is written, and closed behind its last.

use super::file::identity;
use super::input::{Input, Reading};
use super::interfaces::Links;
use super::{Findings, MergeError, MergeInput};
use crate::pcap::{Oddities, ReadError};
use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// Read buffers of all inputs together, until the smallest useful one for each is more.
const BUFFERS_BYTES: usize = 256 << 20;
/// Of so many files all are open at once.
const OPEN_MAX: usize = 64;
/// To find out when a file begins.
const PEEK_BYTES: usize = 64 << 10;

/// See the module.
pub(super) enum Turn<'a> {
    Waits {
        input: MergeInput<'a>,
        first_ns: u64,
        /// Device and inode of a file that was looked at.
        known: Option<(u64, u64)>,
    },
    Open(Box<Input<'a>>),
    Over(PathBuf, Oddities),
}

/// An input's name, its link type, and the bits of its check sequences.
pub(super) type LinkOf = (PathBuf, (u16, Option<u8>));

/// All of them.
pub(super) struct Turns<'a> {
    pub all: Vec<Turn<'a>>,
    reading: Reading,
    buffer_bytes: usize,
    /// Inputs that may hold their descriptor, and those that are open.
    held_max: usize,
    open: usize,
}

impl<'a> Turns<'a> {
    /// Opens or looks at them, in order; also what is known of their links.
    pub fn begin(
        inputs: Vec<MergeInput<'a>>,
        reading: Reading,
        held_max: usize,
        findings: &mut Findings,
    ) -> Result<(Self, Vec<LinkOf>), MergeError> {
        let buffer_bytes = BUFFERS_BYTES / open_at_once(&inputs).max(1);
        let is_many = inputs.len() > OPEN_MAX;
        let mut turns =
            Self { all: Vec::with_capacity(inputs.len()), reading, buffer_bytes, held_max, open: 0 };
        let mut links = Vec::new();
        for input in inputs {
            if let MergeInput::Stream { span: Some((first_ns, _)), .. } = input {
                turns.all.push(Turn::Waits { input, first_ns, known: None });
                continue;
            }
            if is_many && let Some((turn, link)) = turns.look(&input)? {
                links.extend(link);
                turns.all.push(turn);
                continue;
            }
            if let Some(input) = turns.open(input, findings)? {
                links.extend(input.links().map(|link| (input.path().to_owned(), link)));
                turns.all.push(Turn::Open(Box::new(input)));
            }
        }
        Ok((turns, links))
    }

    fn open(
        &mut self,
        input: MergeInput<'a>,
        findings: &mut Findings,
    ) -> Result<Option<Input<'a>>, MergeError> {
        let holds = self.open < self.held_max;
        let opened = Input::open(input, &self.reading, holds, self.buffer_bytes, findings)?;
        self.open += usize::from(opened.is_some());
        Ok(opened)
    }

    /// Finds out when a regular file begins, and closes it. None of one that has to stay open, and of one without a packet.
    fn look(&self, input: &MergeInput<'_>) -> Result<Option<(Turn<'a>, Option<LinkOf>)>, MergeError> {
        let MergeInput::File(path) = input else { return Ok(None) };
        let Some(known) = path.metadata().ok().filter(|metadata| metadata.is_file()) else { return Ok(None) };
        // What is met now is met again when it is opened to be read.
        let reading = Reading { bytes: Rc::new(Cell::new(0)), ..self.reading.clone() };
        let (file, mut unsaid) = (MergeInput::File(path.clone()), Findings::new(None));
        let Some(looked) = Input::open(file, &reading, false, PEEK_BYTES, &mut unsaid)? else {
            return Ok(None);
        };
        let Some(first_ns) = looked.head_ns() else { return Ok(None) };
        let link = looked.links().map(|link| (path.clone(), link));
        let (input, known) = (MergeInput::File(path.clone()), Some(identity(&known)));
        Ok(Some((Turn::Waits { input, first_ns, known }, link)))
    }

    /// When the next packet of each is, as far as it has one.
    pub fn heads(&self) -> impl Iterator<Item = (u64, usize)> {
        let head = |turn: &Turn<'_>| match turn {
            Turn::Waits { first_ns, .. } => Some(*first_ns),
            Turn::Open(input) => input.head_ns(),
            Turn::Over(..) => None,
        };
        self.all.iter().enumerate().filter_map(move |(i, turn)| Some((head(turn)?, i)))
    }

    /// It is the turn of one that waits. `links`: what a classic output says of all packets.
    #[cold]
    pub fn take_up(
        &mut self,
        i: usize,
        links: Option<&Links>,
        findings: &mut Findings,
    ) -> Result<(), MergeError> {
        let over = Turn::Over(PathBuf::new(), Oddities::default());
        let Turn::Waits { input, known, .. } = std::mem::replace(&mut self.all[i], over) else {
            return Ok(());
        };
        let path = input.name().to_owned();
        let is_other = |known| path.metadata().map_or(true, |now| identity(&now) != known);
        if known.is_some_and(is_other) {
            let source = io::Error::other("the file was replaced while it was being merged");
            return Err(MergeError::Read { path: path.clone(), source: ReadError::Open { path, source } });
        }
        let Some(input) = self.open(input, findings)? else { return Ok(()) };
        if let (Some(links), Some((found, _))) = (links, input.links())
            && found != links.link_type
        {
            let first_path = PathBuf::from("the inputs before it");
            return Err(MergeError::LinkTypes { first_path, first: links.link_type, path, found });
        }
        self.all[i] = Turn::Open(Box::new(input));
        Ok(())
    }

    /// Closes one that has no more packets.
    #[cold]
    pub fn close(&mut self, i: usize) {
        if let Turn::Open(input) = &self.all[i] {
            self.open -= 1;
            self.all[i] = Turn::Over(input.path().to_owned(), input.oddities());
        }
    }

    /// Adds what was met in all of them, in their order.
    pub fn tell(&self, findings: &mut Findings) {
        for turn in &self.all {
            match turn {
                Turn::Waits { .. } => {}
                Turn::Open(input) => findings.add(input.path(), &input.oddities()),
                Turn::Over(path, oddities) => findings.add(path, oddities),
            }
        }
    }
}

/// How many inputs may be open at once: of those whose times are known, as many as overlap.
fn open_at_once(inputs: &[MergeInput<'_>]) -> usize {
    let span = |input: &MergeInput<'_>| match input {
        MergeInput::Stream { span, .. } => *span,
        MergeInput::File(_) => None,
    };
    let mut edges: Vec<_> =
        inputs.iter().filter_map(span).flat_map(|(first, last)| [(first, false), (last, true)]).collect();
    let others = inputs.len() - edges.len() / 2;
    // At one moment those that begin come before those that end.
    edges.sort_unstable();
    let (mut open, mut most) = (0_usize, 0);
    for (_, is_end) in edges {
        open = if is_end { open.saturating_sub(1) } else { open + 1 };
        most = most.max(open);
    }
    others + most
}

#[cfg(test)]
#[cfg(not(miri))]
#[path = "turn_tests.rs"]
mod tests;
