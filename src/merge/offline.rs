//! The merge of files. Owns opening any number of inputs within fixed memory and descriptors, and their order.
//!
//! Invariant: no input is changed, and no output is seen before it is whole.

use super::file::{Source, Target, identity};
use super::order::{Floors, forward};
use super::{MergeError, Totals};
use crate::pcap::format::LINK_ETHERNET;
use crate::pcap::{Place, ReadError, Reader};
use std::path::{Path, PathBuf};

/// Inputs that hold a descriptor each; a quarter of the usual limit of 1024. The others reopen theirs for each read.
const HELD_MAX: usize = 256;

/// Read buffers of all inputs together, until the smallest useful one for each is more.
const BUFFERS_BYTES: usize = 256 << 20;

/// Output written between two calls of who watches.
const WATCH_BYTES: u64 = 8 << 20;

struct Input<'a> {
    path: &'a Path,
    reader: Reader<Source>,
    head: Option<Place>,
}

/// Merges pcap and pcapng files by time into one pcap file with nanosecond time stamps at `output` (`-`: standard
/// output). Equal times keep the order of the inputs.
///
/// # Errors
/// [`MergeError`] when an input cannot be read to its end, when link types differ, or when the output cannot be written;
/// then there is no output.
pub fn merge_files(inputs: &[PathBuf], output: &Path) -> Result<Totals, MergeError> {
    merge_files_watched(inputs, output, &mut |_| {})
}

/// As [`merge_files`]; tells `watch` every now and then how many bytes of the inputs are done.
///
/// # Errors
/// As [`merge_files`].
pub fn merge_files_watched(
    inputs: &[PathBuf],
    output: &Path,
    watch: &mut dyn FnMut(u64),
) -> Result<Totals, MergeError> {
    refuse_overwrite(inputs, output)?;
    let mut inputs = open(inputs)?;
    let mut target = Target::create(output, link_type(&inputs)?)?;
    let mut floors = Floors::default();
    let heads = inputs.iter().enumerate();
    floors.reset(heads.filter_map(|(i, input)| Some((input.head?.ns, i))));
    let mut watch_at = WATCH_BYTES;
    while let Some(i) = floors.lowest() {
        let ns_max = floors.pop_lowest();
        let Input { path, reader, head } = &mut inputs[i];
        let Some(place) = head else { continue };
        forward(reader, path, place, ns_max, &mut target)?;
        *head = advance(reader, path)?;
        if let Some(head) = head {
            floors.push(head.ns, i);
        }
        if target.totals.bytes >= watch_at {
            watch_at = target.totals.bytes + WATCH_BYTES;
            watch(inputs.iter().map(|input| input.reader.offset()).sum());
        }
    }
    target.finish()
}

fn refuse_overwrite(inputs: &[PathBuf], output: &Path) -> Result<(), MergeError> {
    if inputs.is_empty() {
        return Err(MergeError::NoInputs);
    }
    let Ok(metadata) = output.metadata() else { return Ok(()) };
    let same = |input: &PathBuf| input.metadata().is_ok_and(|input| identity(&input) == identity(&metadata));
    if metadata.is_file() && output != Path::new("-") && inputs.iter().any(same) {
        return Err(MergeError::OutputIsInput(output.to_owned()));
    }
    Ok(())
}

fn open(paths: &[PathBuf]) -> Result<Vec<Input<'_>>, MergeError> {
    let buffer_bytes = BUFFERS_BYTES / paths.len().max(1);
    let open = |(i, path): (usize, &'_ PathBuf)| {
        let source =
            Source::open(path, i < HELD_MAX).map_err(|source| ReadError::Open { path: path.clone(), source });
        source.and_then(|source| Reader::with_buffer(source, buffer_bytes))
    };
    let mut inputs = Vec::with_capacity(paths.len());
    for (i, path) in paths.iter().enumerate() {
        let mut reader = open((i, path)).map_err(|source| MergeError::Read { path: path.clone(), source })?;
        let head = advance(&mut reader, path)?;
        inputs.push(Input { path, reader, head });
    }
    Ok(inputs)
}

#[inline]
fn advance(reader: &mut Reader<Source>, path: &Path) -> Result<Option<Place>, MergeError> {
    reader.advance().map_err(|source| MergeError::Read { path: path.to_owned(), source })
}

/// The one link type of all inputs; Ethernet if none of them says.
fn link_type(inputs: &[Input<'_>]) -> Result<u16, MergeError> {
    let mut known = inputs.iter().filter_map(|input| Some((input.path, input.reader.link_type()?)));
    let Some((first_path, first)) = known.next() else { return Ok(LINK_ETHERNET) };
    match known.find(|(_, link_type)| *link_type != first) {
        None => Ok(first),
        Some((path, found)) => {
            let (first_path, path) = (first_path.to_owned(), path.to_owned());
            Err(MergeError::LinkTypes { first_path, first, path, found })
        }
    }
}
