//! The merge of files. Owns opening any number of inputs within fixed memory and descriptors, and their order.
//!
//! Invariant: no input is changed, and no output is seen before it is whole.

use super::file::{Source, Target, identity};
use super::order::{Floors, forward};
use super::{MergeError, Totals};
use crate::pcap::format::LINK_ETHERNET;
use crate::pcap::{Container, ObjectFormat};
use crate::pcap::{Place, ReadError, Reader, Unpacked};
use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Inputs that hold a descriptor each; a quarter of the usual limit of 1024. The others reopen theirs for each read.
const HELD_MAX: usize = 256;

/// Read buffers of all inputs together, until the smallest useful one for each is more.
const BUFFERS_BYTES: usize = 256 << 20;

/// Output written between two calls of who watches.
const WATCH_BYTES: u64 = 8 << 20;

/// Opens what is not a file, given how many bytes it may hold in memory.
pub type OpenStream<'a> = Box<dyn FnOnce(usize) -> io::Result<Box<dyn Read + 'a>> + 'a>;

/// What is merged: pcap or pcapng, as it is or compressed by zstd.
pub enum MergeInput<'a> {
    /// A file.
    File(PathBuf),
    /// Anything else.
    Stream {
        /// What messages call it.
        name: PathBuf,
        /// Opens it.
        open: OpenStream<'a>,
    },
}

impl MergeInput<'_> {
    fn name(&self) -> &Path {
        match self {
            Self::File(name) | Self::Stream { name, .. } => name,
        }
    }
}

impl fmt::Debug for MergeInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MergeInput({})", self.name().display())
    }
}

type InputReader<'a> = Reader<Unpacked<Counted<'a>>>;

struct Input<'a> {
    path: PathBuf,
    reader: InputReader<'a>,
    head: Option<Place>,
}

/// Counts what is read of the inputs as they are stored.
struct Counted<'a> {
    source: Box<dyn Read + 'a>,
    bytes: Rc<Cell<u64>>,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// Merges files by time into one classic pcap file at `output` (`-`: standard output), as [`merge_inputs`] does.
///
/// # Errors
/// As [`merge_inputs`].
pub fn merge_files(inputs: &[PathBuf], output: &Path) -> Result<Totals, MergeError> {
    let inputs = inputs.iter().cloned().map(MergeInput::File).collect();
    merge_inputs(inputs, output, ObjectFormat::default(), &mut |_| {})
}

/// Merges pcap and pcapng files by time into one file with nanosecond time stamps at `output` (`-`: standard output).
/// Equal times keep the order of the inputs. Tells `watch` every now and then how many bytes of the inputs are read.
///
/// # Errors
/// [`MergeError`] when an input cannot be read to its end, when link types differ and the output is classic pcap, or when
/// the output cannot be written; then there is no output.
pub fn merge_inputs(
    inputs: Vec<MergeInput<'_>>,
    output: &Path,
    format: ObjectFormat,
    watch: &mut dyn FnMut(u64),
) -> Result<Totals, MergeError> {
    refuse_overwrite(&inputs, output)?;
    let bytes = Rc::new(Cell::new(0));
    let mut inputs = open(inputs, &bytes)?;
    let link_type = match format.container {
        Container::Pcap => link_type(&inputs)?,
        Container::PcapNg => {
            inputs.iter_mut().for_each(|input| input.reader.allow_mixed_links());
            LINK_ETHERNET
        }
    };
    let mut target = Target::create(output, format, link_type)?;
    let mut floors = Floors::default();
    let heads = inputs.iter().enumerate();
    floors.reset(heads.filter_map(|(i, input)| Some((input.head?.ns, i))));
    let mut watch_at = WATCH_BYTES;
    while let Some(i) = floors.lowest() {
        let ns_max = floors.pop_lowest();
        let Input { path, reader, head } = &mut inputs[i];
        let Some(place) = head else { continue };
        forward((i, path), reader, place, ns_max, &mut target)?;
        *head = advance(reader, path)?;
        if let Some(head) = head {
            floors.push(head.ns, i);
        }
        if target.totals.bytes >= watch_at {
            watch_at = target.totals.bytes + WATCH_BYTES;
            watch(bytes.get());
        }
    }
    target.finish()
}

fn refuse_overwrite(inputs: &[MergeInput<'_>], output: &Path) -> Result<(), MergeError> {
    if inputs.is_empty() {
        return Err(MergeError::NoInputs);
    }
    let Ok(metadata) = output.metadata() else { return Ok(()) };
    let same = |input: &MergeInput<'_>| match input {
        MergeInput::File(path) => path.metadata().is_ok_and(|input| identity(&input) == identity(&metadata)),
        MergeInput::Stream { .. } => false,
    };
    if metadata.is_file() && output != Path::new("-") && inputs.iter().any(same) {
        return Err(MergeError::OutputIsInput(output.to_owned()));
    }
    Ok(())
}

fn open<'a>(inputs: Vec<MergeInput<'a>>, bytes: &Rc<Cell<u64>>) -> Result<Vec<Input<'a>>, MergeError> {
    let buffer_bytes = BUFFERS_BYTES / inputs.len().max(1);
    let mut opened = Vec::with_capacity(inputs.len());
    for (i, input) in inputs.into_iter().enumerate() {
        let path = input.name().to_owned();
        let mut reader = open_one(input, i < HELD_MAX, buffer_bytes, bytes)
            .map_err(|source| MergeError::Read { path: path.clone(), source })?;
        let head = advance(&mut reader, &path)?;
        opened.push(Input { path, reader, head });
    }
    Ok(opened)
}

fn open_one<'a>(
    input: MergeInput<'a>,
    hold: bool,
    buffer_bytes: usize,
    bytes: &Rc<Cell<u64>>,
) -> Result<InputReader<'a>, ReadError> {
    let path = input.name().to_owned();
    // Of a stream's share, half is for what it has on its way here.
    let (source, buffer_bytes) = match input {
        MergeInput::File(path) => {
            (Source::open(&path, hold).map(|source| Box::new(source) as Box<dyn Read>), buffer_bytes)
        }
        MergeInput::Stream { open, .. } => (open(buffer_bytes / 2), buffer_bytes / 2),
    };
    let source = source.map_err(|source| ReadError::Open { path, source })?;
    let counted = Counted { source, bytes: Rc::clone(bytes) };
    let unpacked = Unpacked::new(counted).map_err(|source| ReadError::Io { offset: 0, source })?;
    Reader::with_buffer(unpacked, buffer_bytes)
}

#[inline]
fn advance(reader: &mut InputReader<'_>, path: &Path) -> Result<Option<Place>, MergeError> {
    reader.advance().map_err(|source| MergeError::Read { path: path.to_owned(), source })
}

/// The one link type of all inputs; Ethernet if none of them says.
fn link_type(inputs: &[Input<'_>]) -> Result<u16, MergeError> {
    let mut known = inputs.iter().filter_map(|input| Some((&input.path, input.reader.link_type()?)));
    let Some((first_path, first)) = known.next() else { return Ok(LINK_ETHERNET) };
    match known.find(|(_, link_type)| *link_type != first) {
        None => Ok(first),
        Some((path, found)) => {
            let (first_path, path) = (first_path.clone(), path.clone());
            Err(MergeError::LinkTypes { first_path, first, path, found })
        }
    }
}
