//! `trawl filter test`. Owns running a filter over a capture file, with the parser and matcher that captures use; not
//! how the filter was typed.
//!
//! Invariant: nothing is said about packets that could not be read.

use crate::limits::FULL_SNAPLEN;
use crate::matcher::{Filter, FilterError, FilterV1, Hits, Program};
use crate::packet::Key;
use crate::pcap::format::LINK_ETHERNET;
use crate::pcap::{ReadError, Reader, Writer};
use serde::Serialize;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a filter could not be tried on a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is refused, as the API would.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The file could not be opened.
    #[error(transparent)]
    Open(ReadError),
    /// The file could not be read to its end.
    #[error("{}: {source}; {counts} in what could be read before", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What was read and matched before; that much is also in the output.
        counts: Counts,
        /// What is wrong.
        source: ReadError,
    },
    /// The packets are not Ethernet frames.
    #[error(
        "{} has packets of link type {found}; filters are tried on Ethernet (link type 1) only, as a port delivers it",
        path.display()
    )]
    LinkType {
        /// The file.
        path: PathBuf,
        /// Its link type (<https://www.tcpdump.org/linktypes.html>).
        found: u16,
    },
    /// Writing would destroy the input.
    #[error("{} is the file that is read; write to another", .0.display())]
    SameFile(PathBuf),
    /// The output could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What a filter takes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets that match.
    pub matched: u64,
    /// Packets read.
    pub packets: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matched, packets } = self;
        write!(f, "{matched} of {packets} packets match")
    }
}

/// Runs `filter` over the packets of the pcap or pcapng file `input`; what matches is written to `output`, if there is
/// one, as classic pcap with nanosecond time stamps. Displays as `N of M packets match`.
///
/// # Errors
/// [`Error`]. If `input` is cut or damaged, it has the counts up to there, and `output` the packets that match.
pub fn test(filter: &FilterV1, input: &Path, output: Option<&Path>) -> Result<Counts, Error> {
    let filter = Filter::try_from(filter)?;
    let mut reader = Reader::open(input).map_err(|source| match source {
        ReadError::Open { .. } => Error::Open(source),
        _ => Error::Read { path: input.to_owned(), counts: Counts::default(), source },
    })?;
    let is_ethernet = |found: Option<u16>| match found {
        None | Some(LINK_ETHERNET) => Ok(()),
        Some(found) => Err(Error::LinkType { path: input.to_owned(), found }),
    };
    // Before the output is touched, where the file tells already.
    is_ethernet(reader.link_type())?;
    let mut output = output.map(|path| Output::create(path, input)).transpose()?;

    let program = Program::compile(&[(0, &filter, None)]);
    let mut hits = Hits::default();
    let mut counts = Counts::default();
    let end = loop {
        let place = match reader.advance() {
            Ok(Some(place)) => place,
            end => break end,
        };
        is_ethernet(reader.link_type())?;
        let data = reader.data(&place);
        counts.packets += 1;
        program.evaluate(&[Key::parse(data, place.wire_len)], &mut hits);
        if hits.packets() == 0 {
            continue;
        }
        counts.matched += 1;
        if let Some(output) = &mut output {
            output.write(place.ns, place.wire_len, data)?;
        }
    };
    output.map_or(Ok(()), Output::finish)?;
    match end {
        Ok(_) => Ok(counts),
        Err(source) => Err(Error::Read { path: input.to_owned(), counts, source }),
    }
}

/// The file that takes what matches.
struct Output {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
}

impl Output {
    fn create(path: &Path, input: &Path) -> Result<Self, Error> {
        let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        if identity(path).is_some_and(|output| identity(input) == Some(output)) {
            return Err(Error::SameFile(path.to_owned()));
        }
        let writer = File::create(path)
            .and_then(|file| Writer::new(BufWriter::new(file), FULL_SNAPLEN, LINK_ETHERNET));
        let writer = writer.map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), writer })
    }

    fn write(&mut self, ns: u64, wire_len: u32, data: &[u8]) -> Result<(), Error> {
        let written = self.writer.write(ns, wire_len, data);
        written.map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    fn finish(self) -> Result<(), Error> {
        let Self { path, writer } = self;
        writer.finish().map(|_| ()).map_err(|source| Error::Write { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 frame of this protocol.
    fn frame(protocol: u8) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        frame[23] = protocol;
        frame
    }

    /// A file with a UDP packet after every two TCP packets.
    fn sample(path: &Path, link_type: u16, packets: u64) {
        let mut writer = Writer::new(File::create(path).unwrap(), 65535, link_type).unwrap();
        for n in 0..packets {
            writer.write(n, 60, &frame(if n % 3 == 2 { 17 } else { 6 })).unwrap();
        }
    }

    fn tcp() -> FilterV1 {
        FilterV1 { protocol: Some(6.into()), ..FilterV1::default() }
    }

    #[test]
    fn counts_and_writes_what_matches() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        sample(&input, LINK_ETHERNET, 100);
        let counts = test(&tcp(), &input, Some(&output)).unwrap();
        assert_eq!(counts.to_string(), "67 of 100 packets match");
        let mut reader = Reader::open(&output).unwrap();
        let mut times = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            assert_eq!((record.wire_len, record.data), (60, frame(6).as_slice()));
            times.push(record.ns);
        }
        assert_eq!(times, (0..100).filter(|n| n % 3 != 2).collect::<Vec<u64>>());
        assert_eq!(test(&FilterV1::default(), &input, None).unwrap().matched, 100);
    }

    #[test]
    fn a_cut_file_is_an_error_that_says_how_far_it_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        sample(&input, LINK_ETHERNET, 10);
        let whole = fs::read(&input).unwrap();
        fs::write(&input, &whole[..whole.len() - 1]).unwrap();
        let error = test(&tcp(), &input, Some(&output)).unwrap_err().to_string();
        assert!(error.ends_with("6 of 9 packets match in what could be read before"), "{error}");
        assert_eq!(test(&FilterV1::default(), &output, None).unwrap().packets, 6);
    }

    #[test]
    fn other_link_types_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        sample(&input, 113, 1);
        assert!(matches!(test(&tcp(), &input, Some(&output)), Err(Error::LinkType { found: 113, .. })));
        assert!(!output.exists());
    }

    #[test]
    fn the_input_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (input, link) = (dir.path().join("in.pcap"), dir.path().join("link.pcap"));
        sample(&input, LINK_ETHERNET, 3);
        std::os::unix::fs::symlink(&input, &link).unwrap();
        for output in [&input, &link] {
            assert!(matches!(test(&tcp(), &input, Some(output)), Err(Error::SameFile(_))));
        }
        assert_eq!(test(&tcp(), &input, None).unwrap().packets, 3);
    }

    #[test]
    fn a_refused_filter_a_missing_file_and_a_full_disk_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in.pcap");
        assert!(matches!(test(&tcp(), &input, None), Err(Error::Open(_))));
        sample(&input, LINK_ETHERNET, 1000);
        let wrong = FilterV1 { protocol: Some(256.into()), ..FilterV1::default() };
        assert!(matches!(test(&wrong, &input, None), Err(Error::Filter(_))));
        let full = Path::new("/dev/full");
        assert!(matches!(test(&tcp(), &input, Some(full)), Err(Error::Write { .. })));
    }
}
