//! The merge of files. Owns their order, and how descriptors are shared; when each is open is in `turn`, its own matters in `input`.
//!
//! Invariant: no input is changed, and no output is seen before it is whole.

use super::file::{Target, identity};
use super::input::Reading;
use super::interfaces::Links;
use super::order::Floors;
use super::output::Output;
use super::parallel;
use super::turn::{LinkOf, Turn, Turns};
use super::{Findings, MergeError, MergeInput, Totals};
use crate::pcap::{Container, ObjectFormat, Oddities, Oddity, Tolerance};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Inputs that hold a descriptor each, at most. The others open their file again for each read.
const HELD_MAX: u64 = 256;

/// Of the descriptors that the process may have, those for inputs: one in so many.
const HELD_SHARE: u64 = 4;

/// Output written between two calls of who watches.
const WATCH_BYTES: u64 = 8 << 20;

/// How files are merged.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeOptions {
    /// What is written.
    pub format: ObjectFormat,
    /// Leaves out an input that cannot be opened, and of a damaged one the rest, instead of failing.
    pub keep_going: bool,
    /// How many threads merge, where the files allow more than one. Zero is one.
    pub threads: usize,
}

impl From<ObjectFormat> for MergeOptions {
    fn from(format: ObjectFormat) -> Self {
        Self { format, ..Self::default() }
    }
}

/// What a merge of files came to.
#[derive(Debug)]
pub struct Merged {
    /// What was written.
    pub totals: Totals,
    /// What is not in it, or not as it was.
    pub findings: Findings,
}

/// Merges files by time into one classic pcap file at `output` (`-`: standard output), as [`merge_inputs`] does.
///
/// # Errors
/// As [`merge_inputs`].
pub fn merge_files(inputs: &[PathBuf], output: &Path) -> Result<Merged, MergeError> {
    let inputs = inputs.iter().cloned().map(MergeInput::File).collect();
    merge_inputs(inputs, output, MergeOptions::default(), &mut |_| {})
}

/// Merges pcap and pcapng files by time into one file with nanosecond time stamps at `output` (`-`: standard output).
/// Equal times keep the order of the inputs. Tells `watch` every now and then how many bytes of the inputs are read.
///
/// With more than one thread, and where every input is a file as this program writes it and the output a plain one, the inputs
/// are cut in time and the pieces are merged side by side. The output is the same, byte for byte.
///
/// Of an input that is cut off, the whole records are taken. What Wireshark reads although it is wrong is put right. The
/// findings tell both.
///
/// # Errors
/// [`MergeError`] when an input cannot be read, when link types differ and the output is classic pcap, or when the output
/// cannot be written; then there is no output.
pub fn merge_inputs(
    inputs: Vec<MergeInput<'_>>,
    output: &Path,
    options: impl Into<MergeOptions>,
    watch: &mut dyn FnMut(u64),
) -> Result<Merged, MergeError> {
    let MergeOptions { format, keep_going, threads } = options.into();
    refuse_overwrite(&inputs, output)?;
    if format.is_plain()
        && let Some(totals) = parallel::merge(&inputs, output, threads, held_max(), watch)?
    {
        return Ok(Merged { totals, findings: Findings::new(Some(format.container)) });
    }
    let tolerance = Tolerance { copies_blocks: format.container == Container::PcapNg };
    let reading = Reading { keep_going, tolerance, bytes: Rc::new(Cell::new(0)) };
    let mut findings = Findings::new(Some(format.container));
    let read = Rc::clone(&reading.bytes);
    let (mut turns, known) = Turns::begin(inputs, reading, held_max(), &mut findings)?;
    if turns.all.is_empty() {
        return Err(findings.into_error());
    }
    let links = match format.container {
        Container::Pcap => Some(links(&known, &mut findings)?),
        Container::PcapNg => None,
    };
    let mut target = Target::create(output, format, links.unwrap_or_default())?;
    let mut floors = Floors::default();
    floors.reset(turns.heads());
    for turn in &mut turns.all {
        if let Turn::Open(input) = turn {
            target.carry(&input.take_carried())?;
        }
    }
    let mut watch_at = WATCH_BYTES;
    while let Some(i) = floors.lowest() {
        let ns_max = floors.pop_lowest();
        match &mut turns.all[i] {
            Turn::Open(input) => {
                input.forward(i, ns_max, &mut target)?;
                input.advance(&mut findings)?;
            }
            _ => turns.take_up(i, links.as_ref(), &mut findings)?,
        }
        let Turn::Open(input) = &mut turns.all[i] else { continue };
        target.carry(&input.take_carried())?;
        match input.head_ns() {
            Some(ns) => floors.push(ns, i),
            None => turns.close(i),
        }
        if target.totals.bytes >= watch_at {
            watch_at = target.totals.bytes + WATCH_BYTES;
            watch(read.get());
        }
    }
    turns.tell(&mut findings);
    Ok(Merged { totals: target.finish()?, findings })
}

/// Refuses an output that is one of the inputs.
pub(crate) fn refuse_overwrite(inputs: &[MergeInput<'_>], output: &Path) -> Result<(), MergeError> {
    if inputs.is_empty() {
        return Err(MergeError::NoInputs);
    }
    let failed = |source| MergeError::Output { path: output.to_owned(), source };
    let Some(written) = Output::resolve(output).map_err(failed)?.identity() else { return Ok(()) };
    let same = |input: &MergeInput<'_>| match input {
        MergeInput::File(path) => path.metadata().is_ok_and(|input| identity(&input) == written),
        MergeInput::Stream { .. } => false,
    };
    if inputs.iter().any(same) {
        return Err(MergeError::OutputIsInput(output.to_owned()));
    }
    Ok(())
}

/// Inputs that may hold their descriptor.
fn held_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    (limit.unwrap_or(u64::MAX) / HELD_SHARE).min(HELD_MAX) as usize
}

/// The one link type of all inputs, Ethernet if none of them says; also how long their check sequences are, if they agree.
fn links(known: &[LinkOf], findings: &mut Findings) -> Result<Links, MergeError> {
    let Some((first_path, (link_type, check_sequence_bits))) = known.first() else {
        return Ok(Links::default());
    };
    let mut links = Links { link_type: *link_type, check_sequence_bits: *check_sequence_bits };
    for (path, (found, bits)) in known {
        if found != link_type {
            let (first_path, path) = (first_path.clone(), path.clone());
            return Err(MergeError::LinkTypes { first_path, first: *link_type, path, found: *found });
        }
        if bits != check_sequence_bits {
            links.check_sequence_bits = None;
        }
    }
    if links.check_sequence_bits.is_none() {
        let mut lost = Oddities::default();
        lost.add(Oddity::CheckSequence, 1);
        let said = known.iter().filter(|(_, (_, bits))| bits.is_some());
        said.for_each(|(path, _)| findings.add(path, &lost));
    }
    Ok(links)
}
