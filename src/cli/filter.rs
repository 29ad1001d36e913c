//! `trawl filter test`. Owns running a filter over a capture file, with the parser and matcher that captures use; files are
//! read and written as a merge does.
//!
//! Invariant: nothing is said about packets that could not be read.

use super::args::FilterTestArgs;
use super::{Error as CommandError, Outcome, merge, naming, out, request, signals};
use crate::limits::FULL_SNAPLEN;
use crate::matcher::{Filter, FilterError, FilterV1, Hits, Program};
use crate::merge::{
    Findings, Links, MergeError, MergeInput, MergeOptions, OpenInput, Reading, Target, refuse_overwrite,
};
use crate::packet::Key;
use crate::pcap::format::LINK_ETHERNET;
use crate::pcap::{Container, Tolerance};
use serde::Serialize;
use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Why a filter could not be tried on a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is refused, as the API would.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The file could not be read, or the output not be written.
    #[error(transparent)]
    File(#[from] MergeError),
    /// The file is damaged.
    #[error("{source}; {counts} in what could be read before; --keep-going takes that")]
    Damaged {
        /// What was read and matched before.
        counts: Counts,
        /// What is wrong.
        source: MergeError,
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

/// Tries the filter that was typed on the file.
///
/// # Errors
/// Wrong arguments, and what [`test`] says.
pub fn run(args: &FilterTestArgs) -> Result<Outcome, CommandError> {
    let filter = request::filter(&args.filter)?;
    let mut options = MergeOptions { keep_going: args.write.keep_going, ..MergeOptions::default() };
    let mut to_standard = false;
    if let Some(output) = &args.output {
        options.format = naming::format(output, &args.write)?;
        to_standard = merge::not_to_terminal(output)?;
        signals::end_process().map_err(CommandError::Runtime)?;
    }
    let input = merge::input(args.file.clone());
    let tested = match test(&filter, input, args.output.as_deref(), options) {
        Err(Error::File(error)) => merge::unless_left(Err(error))?,
        tested => Some(tested?),
    };
    let Some((counts, findings)) = tested else { return Ok(Outcome::silent()) };
    merge::tell(&findings);
    let mut outcome = Outcome::done(format!("{counts}\n"), &counts, args.json)?;
    outcome.is_partial = !findings.partial().is_empty();
    if to_standard {
        out::note(outcome.text.trim_end());
        outcome.text.clear();
    }
    Ok(outcome)
}

/// Runs `filter` over the packets of a file; what matches is written to `output`, if there is one. Of a file that is cut
/// off, the whole records are taken, and the findings tell it. Displays as `N of M packets match`.
///
/// # Errors
/// [`Error`]; then there is no output.
pub fn test(
    filter: &FilterV1,
    input: MergeInput<'_>,
    output: Option<&Path>,
    options: MergeOptions,
) -> Result<(Counts, Findings), Error> {
    let filter = Filter::try_from(filter)?;
    let MergeOptions { format, keep_going, .. } = options;
    let inputs = [input];
    if let Some(output) = output {
        refuse_overwrite(&inputs, output)?;
    }
    let [input] = inputs;
    let copies_blocks = output.is_some() && format.container == Container::PcapNg;
    let tolerance = Tolerance { copies_blocks };
    let reading = Reading { keep_going, tolerance, bytes: Rc::new(Cell::new(0)) };
    let mut findings = Findings::new(output.map(|_| format.container));
    let Some(mut input) = OpenInput::open(input, &reading, true, FULL_SNAPLEN as usize, &mut findings)?
    else {
        return Err(findings.into_error().into());
    };
    is_ethernet(&input)?;
    let (_, check_sequence_bits) = input.links().unwrap_or((LINK_ETHERNET, None));
    let links = Links { check_sequence_bits, ..Links::default() };
    let mut target = output.map(|path| Target::create(path, format, links)).transpose()?;
    let counts = sift(&filter, &mut input, target.as_mut(), &mut findings)?;
    input.tell(&mut findings);
    target.map_or(Ok(()), |target| target.finish().map(|_| ()))?;
    Ok((counts, findings))
}

fn is_ethernet(input: &OpenInput<'_>) -> Result<(), Error> {
    let found = match input.head() {
        Some((_, info)) => Some(info.link_type),
        None => input.links().map(|(link_type, _)| link_type),
    };
    match found {
        None | Some(LINK_ETHERNET) => Ok(()),
        Some(found) => Err(Error::LinkType { path: input.path().to_owned(), found }),
    }
}

/// Reads the input to its end.
fn sift(
    filter: &Filter,
    input: &mut OpenInput<'_>,
    mut target: Option<&mut Target>,
    findings: &mut Findings,
) -> Result<Counts, Error> {
    let program = Program::compile(&[(0, filter, None)]);
    let mut hits = Hits::default();
    let mut counts = Counts::default();
    loop {
        let carried = input.take_carried();
        let Some((record, _)) = input.head() else { return Ok(counts) };
        is_ethernet(input)?;
        counts.packets += 1;
        program.evaluate(&[Key::parse(record.data, record.wire_len)], &mut hits);
        let matches = hits.packets() > 0;
        counts.matched += u64::from(matches);
        if let Some(target) = &mut target {
            target.carry(&carried)?;
            if matches {
                input.write_head(target)?;
            }
        }
        input.advance(findings).map_err(|source| Error::Damaged { counts, source })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcap::{Reader, Writer};
    use std::fs::{self, File};

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

    fn test(filter: &FilterV1, input: &Path, output: Option<&Path>) -> Result<(Counts, Findings), Error> {
        super::test(filter, MergeInput::File(input.to_owned()), output, MergeOptions::default())
    }

    fn tcp() -> FilterV1 {
        FilterV1 { protocol: Some(6.into()), ..FilterV1::default() }
    }

    #[test]
    fn counts_and_writes_what_matches() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        sample(&input, LINK_ETHERNET, 100);
        let (counts, _) = test(&tcp(), &input, Some(&output)).unwrap();
        assert_eq!(counts.to_string(), "67 of 100 packets match");
        let mut reader = Reader::open(&output).unwrap();
        let mut times = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            assert_eq!((record.wire_len, record.data), (60, frame(6).as_slice()));
            times.push(record.ns);
        }
        assert_eq!(times, (0..100).filter(|n| n % 3 != 2).collect::<Vec<u64>>());
        assert_eq!(test(&FilterV1::default(), &input, None).unwrap().0.matched, 100);
    }

    #[test]
    fn a_cut_file_is_told_with_how_far_it_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        sample(&input, LINK_ETHERNET, 10);
        let whole = fs::read(&input).unwrap();
        fs::write(&input, &whole[..whole.len() - 1]).unwrap();
        let (counts, findings) = test(&tcp(), &input, Some(&output)).unwrap();
        assert_eq!(counts.to_string(), "6 of 9 packets match");
        assert!(findings.lines()[0].contains("9 whole records"), "{:?}", findings.lines());
        assert_eq!(test(&FilterV1::default(), &output, None).unwrap().0.packets, 6);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_says_how_far_it_was_read_unless_its_rest_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        sample(&input, LINK_ETHERNET, 10);
        let mut bytes = fs::read(&input).unwrap();
        bytes[24 + 9 * 76 + 8..][..4].copy_from_slice(&[0xff; 4]);
        fs::write(&input, &bytes).unwrap();
        let error = test(&tcp(), &input, Some(&output)).unwrap_err().to_string();
        assert!(error.contains("6 of 9 packets match in what could be read before"), "{error}");
        assert!(!output.exists());
        let options = MergeOptions { keep_going: true, ..MergeOptions::default() };
        let file = MergeInput::File(input);
        let (counts, findings) = super::test(&tcp(), file, Some(&output), options).unwrap();
        assert_eq!((counts.matched, counts.packets, findings.partial().len()), (6, 9, 1));
        assert_eq!(test(&FilterV1::default(), &output, None).unwrap().0.packets, 6);
    }

    #[test]
    fn every_format_that_a_merge_writes_is_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in.pcap");
        sample(&input, LINK_ETHERNET, 30);
        for name in ["a.pcapng", "b.pcap.zst", "c.pcapng.zst"] {
            let output = dir.path().join(name);
            let container = if name.contains("ng") { Container::PcapNg } else { Container::Pcap };
            let compression = if name.ends_with("zst") {
                crate::pcap::Compression::Zstd
            } else {
                crate::pcap::Compression::None
            };
            let format = crate::pcap::ObjectFormat { container, compression, level: 1 };
            super::test(&tcp(), MergeInput::File(input.clone()), Some(&output), format.into()).unwrap();
            assert_eq!(test(&tcp(), &output, None).unwrap().0, Counts { matched: 20, packets: 20 }, "{name}");
        }
    }

    #[test]
    fn a_time_after_2106_is_refused_where_the_output_cannot_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.pcapng"), dir.path().join("out.pcap"));
        let mut bytes = Vec::new();
        crate::pcap::blocks::section(&mut bytes, &Default::default());
        crate::pcap::blocks::interface(&mut bytes, LINK_ETHERNET, 0, "", "");
        let ns = 5_000_000_000 * 1_000_000_000;
        crate::pcap::blocks::packet(&mut bytes, 0, ns, 60, &frame(6));
        fs::write(&input, &bytes).unwrap();
        let error = test(&tcp(), &input, Some(&output)).unwrap_err().to_string();
        assert!(error.contains("after 2106"), "{error}");
        assert!(!output.exists());
        assert_eq!(test(&tcp(), &input, None).unwrap().0.matched, 1);
        let kept = dir.path().join("out.pcapng");
        let format = crate::pcap::ObjectFormat { container: Container::PcapNg, ..Default::default() };
        super::test(&tcp(), MergeInput::File(input), Some(&kept), format.into()).unwrap();
        let mut reader = Reader::open(&kept).unwrap();
        assert_eq!(reader.next_record().unwrap().unwrap().ns, ns);
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
            let error = test(&tcp(), &input, Some(output)).unwrap_err();
            assert!(matches!(error, Error::File(MergeError::OutputIsInput(_))), "{error}");
        }
        assert_eq!(test(&tcp(), &input, None).unwrap().0.packets, 3);
    }

    #[test]
    fn a_refused_filter_a_missing_file_and_a_full_disk_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in.pcap");
        assert!(matches!(test(&tcp(), &input, None), Err(Error::File(MergeError::Read { .. }))));
        sample(&input, LINK_ETHERNET, 1000);
        let wrong = FilterV1 { protocol: Some(256.into()), ..FilterV1::default() };
        assert!(matches!(test(&wrong, &input, None), Err(Error::Filter(_))));
        let full = Path::new("/dev/full");
        let error = test(&tcp(), &input, Some(full)).unwrap_err();
        assert!(matches!(error, Error::File(MergeError::Output { .. })), "{error}");
    }
}
