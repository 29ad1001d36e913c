//! `trawl merge`. Owns where inputs are, its progress bar and closing line; the merge itself is in `merge`.
//!
//! Invariant: standard output carries nothing but the merged file, if that is asked for.

use super::args::{CompressionArg, FormatArg, MergeArgs};
use super::stores;
use crate::deliver::Bucket;
use crate::merge::{MergeInput, Totals, merge_inputs};
use crate::pcap::{Compression, Container, ObjectFormat};
use crate::upload::ObjectStore;
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// A merge that takes less gets no progress bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// Merges the inputs by time into the output and says what came of it.
///
/// # Errors
/// What [`merge_inputs`] says, and when a bucket cannot be reached.
pub fn run(args: &MergeArgs) -> anyhow::Result<()> {
    let format = format(args);
    let to_terminal = args.output == Path::new("-") && std::io::stdout().is_terminal();
    anyhow::ensure!(!to_terminal, "the merged file would go to the terminal; name it with -o OUT");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let places = places(args, &runtime)?;
    let mut buckets = BTreeMap::new();
    for (uri, store) in &places {
        let bucket = Bucket { store: &**store, runtime: &runtime, uri: uri.clone() };
        buckets.insert(uri.clone(), bucket);
    }
    let (mut inputs, mut bytes) = (Vec::with_capacity(args.inputs.len()), 0);
    for text in &args.inputs {
        let (input, size) = match local(text) {
            Some(path) => {
                let size = path.metadata().map_or(0, |metadata| metadata.len());
                (MergeInput::File(path), size)
            }
            None => object(text, &buckets)?,
        };
        inputs.push(input);
        bytes += size;
    }
    let totals = watched(inputs, &args.output, format, bytes)?;
    let summary = describe(&totals)?;
    if args.output == Path::new("-") {
        eprintln!("{summary}");
    } else {
        println!("{}: {summary}", args.output.display());
    }
    Ok(())
}

fn watched(
    inputs: Vec<MergeInput<'_>>,
    output: &Path,
    format: ObjectFormat,
    bytes: u64,
) -> anyhow::Result<Totals> {
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
    let style = "{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    let started = Instant::now();
    let mut shown = false;
    let totals = merge_inputs(inputs, output, format, &mut |done_bytes| {
        if !shown && started.elapsed() >= BAR_AFTER {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            shown = true;
        }
        bar.set_position(done_bytes);
    });
    bar.finish_and_clear();
    Ok(totals?)
}

/// As typed, or as the output's name tells.
fn format(args: &MergeArgs) -> ObjectFormat {
    let name = args.output.to_string_lossy();
    let (inner, packed) = name.strip_suffix(".zst").map_or((&*name, false), |inner| (inner, true));
    let (container, compression) =
        (args.format.map(Container::from), args.compression.map(Compression::from));
    let by_name = if inner.ends_with(".pcapng") { Container::PcapNg } else { Container::Pcap };
    let packed = if packed { Compression::Zstd } else { Compression::None };
    ObjectFormat {
        container: container.unwrap_or(by_name),
        compression: compression.unwrap_or(packed),
        level: args.level,
    }
}

impl From<FormatArg> for Container {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Pcap => Self::Pcap,
            FormatArg::Pcapng => Self::PcapNg,
        }
    }
}

impl From<CompressionArg> for Compression {
    fn from(compression: CompressionArg) -> Self {
        match compression {
            CompressionArg::None => Self::None,
            CompressionArg::Zstd => Self::Zstd,
        }
    }
}

/// The file that is meant, unless it is an object in a bucket.
fn local(text: &str) -> Option<PathBuf> {
    match text.strip_prefix("file://") {
        Some(path) => Some(PathBuf::from(path)),
        None => (!text.contains("://")).then(|| PathBuf::from(text)),
    }
}

/// Opens each place of objects once, however many of them there are.
fn places(args: &MergeArgs, runtime: &Runtime) -> anyhow::Result<BTreeMap<String, Box<dyn ObjectStore>>> {
    let mut places = BTreeMap::new();
    for text in args.inputs.iter().filter(|text| local(text).is_none()) {
        let (uri, _) = split(text)?;
        if let Entry::Vacant(place) = places.entry(uri) {
            let store = runtime.block_on(stores::open(place.key(), &args.store))?;
            place.insert(store);
        }
    }
    Ok(places)
}

fn split(text: &str) -> anyhow::Result<(String, String)> {
    stores::split(text)
        .with_context(|| format!("{text}: write such as s3://BUCKET/DIRECTORY/pcap_ID.pcap?region=REGION"))
}

/// An object and its size.
fn object<'a>(
    text: &str,
    buckets: &'a BTreeMap<String, Bucket<'a>>,
) -> anyhow::Result<(MergeInput<'a>, u64)> {
    let (uri, name) = split(text)?;
    let bucket = buckets.get(&uri).context("every place was opened before")?;
    let size = bucket.runtime.block_on(bucket.store.size(&name))?;
    let size = size.with_context(|| format!("{text}: there is no such object"))?;
    let path = PathBuf::from(text.split('?').next().unwrap_or_default());
    let open = Box::new(move |bytes: usize| bucket.stream(&name, bytes as u64));
    Ok((MergeInput::Stream { name: path, open }, size))
}

fn describe(totals: &Totals) -> anyhow::Result<String> {
    let Totals { packets, bytes, first_ns, last_ns, disorder, .. } = *totals;
    let mut text = format!("{packets} packets, {bytes} bytes");
    if packets > 0 {
        let time = |ns: u64| jiff::Timestamp::from_nanosecond(i128::from(ns));
        text += &format!(", from {} to {}", time(first_ns)?, time(last_ns)?);
    }
    if disorder > 0 {
        text += &format!("; {disorder} of them are older than the one before, as in their inputs");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_has_packets_and_both_times_to_the_nanosecond() {
        let (first_ns, last_ns) = (1_700_000_000_000_000_001, 1_700_000_001_500_000_000);
        let totals = Totals { objects: 1, packets: 2, bytes: 176, first_ns, last_ns, disorder: 0 };
        let text = "2 packets, 176 bytes, from 2023-11-14T22:13:20.000000001Z to 2023-11-14T22:13:21.5Z";
        assert_eq!(describe(&totals).unwrap(), text);
        assert_eq!(describe(&Totals::default()).unwrap(), "0 packets, 0 bytes");
    }

    #[test]
    fn the_outputs_name_tells_the_format_unless_it_is_typed() {
        use clap::Parser;
        let format = |arguments: &[&str]| {
            let typed = ["trawl", "merge", "in"].iter().chain(arguments);
            match crate::cli::args::Cli::try_parse_from(typed).unwrap().command {
                crate::cli::args::Command::Merge(args) => super::format(&args).extension(),
                other => panic!("{other:?}"),
            }
        };
        for (arguments, extension) in [
            (&["-w", "x"][..], ".pcap"),
            (&["-o", "x.pcapng.zst"], ".pcapng.zst"),
            (&["-o", "x.pcapng"], ".pcapng"),
            (&["-o", "x.pcap.zst"], ".pcap.zst"),
            (&["--format", "pcapng", "--compression", "zstd"], ".pcapng.zst"),
            (&["-o", "x.pcapng.zst", "--format", "pcap", "--compression", "none"], ".pcap"),
        ] {
            assert_eq!(format(arguments), extension, "{arguments:?}");
        }
        assert_eq!(local("file:///a/b"), Some("/a/b".into()));
        assert_eq!(local("a/b"), Some("a/b".into()));
        assert_eq!(local("s3://a/b?region=r"), None);
    }
}
