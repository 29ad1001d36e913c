//! `trawl merge`. Owns where inputs are, its progress bar and closing line; the merge itself is in `merge`.
//!
//! Invariant: standard output carries nothing but the merged file, if that is asked for.

use super::args::MergeArgs;
use super::{Error, Outcome, naming, out, signals, stores};
use crate::deliver::{Bucket, Directory, is_manifest, objects};
use crate::host::on_this_thread;
use crate::merge::{
    Findings, MergeError, MergeInput, MergeOptions, Merged, Totals, is_standard_output, merge_inputs,
};
use crate::upload::ObjectStore;
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// A merge that takes less gets no progress bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

/// Threads at most, if nobody says how many: the disk or the file system is the limit before.
const THREADS_MAX: usize = 8;

/// Merges the inputs by time into the output and says what came of it.
///
/// # Errors
/// What [`merge_inputs`] says, and when a bucket cannot be reached.
pub fn run(args: &MergeArgs) -> Result<Outcome, Error> {
    let format = naming::format(&args.output, &args.write)?;
    once(&args.inputs)?;
    let to_standard = not_to_terminal(&args.output)?;
    let runtime = on_this_thread().map_err(Error::Runtime)?;
    signals::end_process().map_err(Error::Runtime)?;
    let places = places(args, &runtime)?;
    let mut buckets = BTreeMap::new();
    for (uri, store) in &places {
        let bucket = Bucket { store: &**store, runtime: &runtime, uri: uri.clone() };
        buckets.insert(uri.clone(), bucket);
    }
    let (mut inputs, mut bytes) = (Vec::with_capacity(args.inputs.len()), 0);
    for text in expand(&args.inputs, &buckets)? {
        let (input, size) = match local(&text) {
            Some(path) => {
                let size = path.metadata().map_or(0, |metadata| metadata.len());
                (input(path), size)
            }
            None => object(&text.to_string_lossy(), &buckets)?,
        };
        inputs.push(input);
        bytes += size;
    }
    let threads = args.threads.map_or_else(threads, usize::from);
    let options = MergeOptions { format, keep_going: args.write.keep_going, threads };
    let Some(Merged { totals, findings }) = unless_left(watched(inputs, &args.output, options, bytes)?)?
    else {
        return Ok(Outcome::silent());
    };
    tell(&findings);
    let mut outcome = Outcome::silent();
    outcome.is_partial = !findings.partial().is_empty();
    let summary = describe(&totals)?;
    if to_standard {
        out::note(&summary);
    } else {
        outcome.text = format!("{}: {summary}\n", args.output.display());
    }
    Ok(outcome)
}

/// Threads if nobody says how many: the CPUs that this process may use.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX)
}

/// Whether an output is standard output, which is then no terminal.
pub(super) fn not_to_terminal(output: &Path) -> anyhow::Result<bool> {
    let to_standard = is_standard_output(output);
    let to_terminal = to_standard && io::stdout().is_terminal();
    anyhow::ensure!(!(to_standard && out::is_closed()), "standard output is closed; name a file with -o OUT");
    anyhow::ensure!(!to_terminal, "the packets would go to the terminal; name a file with -o OUT");
    Ok(to_standard)
}

/// Standard input is one stream: two readers of it would each get a part of every packet.
fn once(inputs: &[OsString]) -> anyhow::Result<()> {
    let times = inputs.iter().filter(|input| *input == "-").count();
    anyhow::ensure!(times < 2, "- names standard input {times} times, and it can be read once");
    Ok(())
}

/// A file, or standard input.
pub(super) fn input<'a>(path: PathBuf) -> MergeInput<'a> {
    if path != Path::new("-") {
        return MergeInput::File(path);
    }
    let open = |_: usize| {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Box::new(File::from(input)) as Box<dyn io::Read>)
    };
    MergeInput::Stream { name: "standard input".into(), span: None, open: Box::new(open) }
}

/// None where the output's reader has left, as `head` does: it has what it wanted.
pub(super) fn unless_left<T>(result: Result<T, MergeError>) -> Result<Option<T>, MergeError> {
    match result {
        Err(MergeError::Output { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(None),
        result => result.map(Some),
    }
}

/// Says what is not in the output, or not as it was in the inputs.
pub(super) fn tell(findings: &Findings) {
    findings.lines().iter().for_each(|line| out::note(&format!("trawl: {line}")));
}

fn watched(
    inputs: Vec<MergeInput<'_>>,
    output: &Path,
    options: MergeOptions,
    bytes: u64,
) -> anyhow::Result<Result<Merged, MergeError>> {
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
    let style = "{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    let started = Instant::now();
    let mut shown = false;
    let merged = merge_inputs(inputs, output, options, &mut |done_bytes| {
        if !shown && started.elapsed() >= BAR_AFTER {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            shown = true;
        }
        bar.set_position(done_bytes);
    });
    bar.finish_and_clear();
    Ok(merged)
}

/// The file that is meant, unless it is an object in a bucket.
fn local(text: &OsStr) -> Option<PathBuf> {
    if let Some(path) = text.as_bytes().strip_prefix(b"file://") {
        return Some(OsString::from_vec(path.to_vec()).into());
    }
    let is_object = text.to_str().is_some_and(|text| text.contains("://"));
    (!is_object).then(|| PathBuf::from(text))
}

/// Opens each place of objects once, however many of them there are.
fn places(args: &MergeArgs, runtime: &Runtime) -> anyhow::Result<BTreeMap<String, Box<dyn ObjectStore>>> {
    let mut places = BTreeMap::new();
    for text in args.inputs.iter().filter(|text| local(text).is_none()) {
        let (uri, _) = split(&text.to_string_lossy())?;
        if let Entry::Vacant(place) = places.entry(uri) {
            let store = runtime.block_on(stores::open(place.key(), &args.store))?;
            place.insert(store);
        }
    }
    Ok(places)
}

/// The inputs, with their objects in place of manifests.
fn expand(texts: &[OsString], buckets: &BTreeMap<String, Bucket<'_>>) -> anyhow::Result<Vec<OsString>> {
    let mut inputs = Vec::with_capacity(texts.len());
    for text in texts {
        match local(text) {
            Some(path) if path.file_name().and_then(OsStr::to_str).is_some_and(is_manifest) => {
                let (dir, name) = Directory::of(&path);
                let beside = |object: String| path.with_file_name(object).into_os_string();
                inputs.extend(objects(&dir, &name)?.into_iter().map(beside));
            }
            Some(_) => inputs.push(text.clone()),
            None => {
                let text = text.to_string_lossy();
                let (uri, name) = split(&text)?;
                let bucket = buckets.get(&uri).context("every place was opened before")?;
                match is_manifest(&name) {
                    true => inputs.extend(
                        objects(bucket, &name)?.iter().map(|object| stores::join(&uri, object).into()),
                    ),
                    false => inputs.push(text.into_owned().into()),
                }
            }
        }
    }
    Ok(inputs)
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
    Ok((MergeInput::Stream { name: path, span: None, open }, size))
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
    fn a_manifest_stands_for_its_objects_beside_it_and_a_file_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        let id = crate::job::CaptureId::random();
        let mut manifest = crate::deliver::Manifest { is_part: true, ..crate::deliver::empty_manifest(&id) };
        let stem = manifest.part().stem();
        let object = |ending: &str| crate::job::ObjectInfo {
            name: format!("{stem}{ending}.pcap"),
            ..Default::default()
        };
        manifest.objects = vec![object(""), object("_0001")];
        std::fs::write(dir.path().join(format!("{stem}.json")), manifest.to_json().unwrap()).unwrap();
        let path = |name: String| dir.path().join(name).into_os_string();
        let inputs = [path("x.json".to_owned()), path(format!("pcap_{id}.json"))];
        let expanded = expand(&inputs, &BTreeMap::new()).unwrap();
        assert_eq!(
            expanded,
            [inputs[0].clone(), path(format!("{stem}.pcap")), path(format!("{stem}_0001.pcap"))]
        );
    }

    #[test]
    fn what_has_no_scheme_is_a_file_whatever_its_bytes() {
        let local = |text: &[u8]| super::local(OsStr::from_bytes(text));
        assert_eq!(local(b"file:///a/b"), Some("/a/b".into()));
        assert_eq!(local(b"a/b"), Some("a/b".into()));
        assert_eq!(local(b"s3://a/b?region=r"), None);
        let latin = OsString::from_vec(b"Ger\xe4t://x".to_vec());
        assert_eq!(local(latin.as_bytes()), Some(latin.into()));
    }
}
