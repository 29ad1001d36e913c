//! The merge of slices side by side. Owns the threads, the check of each slice, and what becomes of a plan that was wrong; where
//! files are cut is in `slices`.
//!
//! Invariant: what is written is what one thread would write, or nothing is. Each slice is read from where the slice before ends
//! to where the next one begins, record by record: if both places and all times are as planned in every slice, then the first
//! slice proves the second one's beginning, and so on.

use super::file::identity;
use super::interfaces::{Encoder, Links};
use super::order::{Floors, Provenance, Sink, Span, account, forward};
use super::output::Output;
use super::part::Part;
use super::slices::{GRAIN, Grain, Plan, Whole};
use super::{MergeError, MergeInput, Totals};
use crate::pcap::{Container, Oddities, Place, Reader, Record, Tolerance};
use std::fs::File;
use std::io::{self, BufWriter, Chain, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Output buffered before a write.
const WRITE_BYTES: usize = 1 << 20;

/// An input's window at most: those of some inputs stay in a core's cache.
const WINDOW_BYTES_MAX: u64 = 128 << 10;

/// Of an input's part of a slice, its window: one in so many.
const WINDOW_SHARE: u64 = 4;

/// Time between two calls of who watches.
const WATCH_PAUSE: Duration = Duration::from_millis(100);

/// Why slices are not all merged.
#[derive(Debug)]
enum Stop {
    /// The plan, or an input, is not what it was taken for.
    Unfit,
    Failed(MergeError),
}

/// Merges files into a classic pcap file by as many threads. None: nothing was written, and one thread has to do it.
///
/// # Errors
/// [`MergeError::Output`].
pub(super) fn merge(
    inputs: &[MergeInput<'_>],
    output: &Path,
    threads: usize,
    descriptors_max: usize,
    watch: &mut dyn FnMut(u64),
) -> Result<Option<Totals>, MergeError> {
    let threads = threads.min(descriptors_max / inputs.len().max(1));
    if threads < 2 {
        return Ok(None);
    }
    merge_as(inputs, output, (threads, GRAIN), watch)
}

/// As [`merge`], of any grain.
pub(super) fn merge_as(
    inputs: &[MergeInput<'_>],
    output: &Path,
    (threads, grain): (usize, Grain),
    watch: &mut dyn FnMut(u64),
) -> Result<Option<Totals>, MergeError> {
    let failed = |source| MergeError::Output { path: output.to_owned(), source };
    let Output::File(path) = Output::resolve(output).map_err(failed)? else { return Ok(None) };
    let Some(plan) = Plan::new(inputs, threads, grain) else { return Ok(None) };
    let part = Part::create(&path).map_err(failed)?;
    let file = part.file().map_err(failed)?;
    let links = Links { link_type: plan.link_type, check_sequence_bits: None };
    let (_, header) = Encoder::new(Container::Pcap, links);
    file.write_all_at(&header, 0).map_err(failed)?;
    let work = Work {
        places: places(&plan, header.len() as u64),
        plan: &plan,
        file: &file,
        output,
        next: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        read: AtomicU64::new(0),
    };
    let mut merged = match work.run(threads, watch) {
        Ok(merged) => merged,
        Err(Stop::Unfit) => return Ok(None),
        Err(Stop::Failed(error)) => return Err(error),
    };
    merged.sort_unstable_by_key(|(slice, _)| *slice);
    let mut totals = Totals { objects: 1, bytes: header.len() as u64, ..Totals::default() };
    for (_, slice) in merged.iter().filter(|(_, slice)| slice.packets > 0) {
        let Totals { packets, first_ns, last_ns, disorder, .. } = *slice;
        let span = Span { packets, first_ns, last_ns, disorder };
        totals.disorder += account(&mut totals.packets, &mut totals.first_ns, &mut totals.last_ns, span);
        totals.bytes += slice.bytes;
    }
    part.publish().map_err(failed)?;
    Ok(Some(totals))
}

/// Where each slice begins in the output.
fn places(plan: &Plan, header_bytes: u64) -> Vec<u64> {
    let mut at = header_bytes;
    let place = |slice| {
        let place = at;
        at += plan.bytes(slice);
        place
    };
    (0..plan.ends_ns.len()).map(place).collect()
}

/// What the threads share.
struct Work<'a> {
    plan: &'a Plan,
    places: Vec<u64>,
    file: &'a File,
    output: &'a Path,
    /// The slice that is begun next.
    next: AtomicUsize,
    /// A thread has stopped, so that the others need not go on.
    is_over: AtomicBool,
    /// Bytes of the inputs.
    read: AtomicU64,
}

impl Work<'_> {
    /// Merges all slices; each with its number.
    fn run(&self, threads: usize, watch: &mut dyn FnMut(u64)) -> Result<Vec<(usize, Totals)>, Stop> {
        std::thread::scope(|scope| {
            let (tell, told) = channel::<()>();
            let mut running = Vec::with_capacity(threads);
            for number in 0..threads {
                let tell = tell.clone();
                let thread = std::thread::Builder::new().name(format!("merge-{number}"));
                let spawned = thread.spawn_scoped(scope, move || {
                    let merged = self.slices();
                    self.is_over.fetch_or(merged.is_err(), Ordering::Relaxed);
                    drop(tell);
                    merged
                });
                // Those that there are do the work of all; without any, one thread does it.
                let Ok(thread) = spawned else { break };
                running.push(thread);
            }
            if running.is_empty() {
                return Err(Stop::Unfit);
            }
            drop(tell);
            // It closes when the last thread ends.
            while let Err(RecvTimeoutError::Timeout) = told.recv_timeout(WATCH_PAUSE) {
                watch(self.read.load(Ordering::Relaxed));
            }
            let mut all = Ok(Vec::new());
            for thread in running {
                let merged = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                all = match (all, merged) {
                    (Ok(mut all), Ok(merged)) => {
                        all.extend(merged);
                        Ok(all)
                    }
                    // The error of one thread is the cause that the others are unfinished.
                    (Err(Stop::Failed(error)), _) | (_, Err(Stop::Failed(error))) => Err(Stop::Failed(error)),
                    _ => Err(Stop::Unfit),
                };
            }
            all
        })
    }

    /// Merges one slice after another until none is left.
    fn slices(&self) -> Result<Vec<(usize, Totals)>, Stop> {
        let mut merged = Vec::new();
        loop {
            let slice = self.next.fetch_add(1, Ordering::Relaxed);
            if slice >= self.places.len() {
                return Ok(merged);
            }
            merged.push((slice, self.slice(slice)?));
        }
    }

    fn slice(&self, slice: usize) -> Result<Totals, Stop> {
        let bytes = self.plan.bytes(slice);
        let window = (bytes / (self.plan.files.len() as u64 * WINDOW_SHARE)).min(WINDOW_BYTES_MAX) as usize;
        let mut streams = Vec::with_capacity(self.plan.files.len());
        for file in &self.plan.files {
            streams.push(Stream::open(file, slice, window, &self.read).map_err(|_| Stop::Unfit)?);
        }
        let begin_ns = slice.checked_sub(1).map_or(0, |before| self.plan.ends_ns[before]);
        let heads = streams.iter_mut().map(|stream| {
            stream.advance()?;
            let is_fit = stream.head.is_none_or(|head| head.ns >= begin_ns);
            if is_fit { Ok(()) } else { Err(Stop::Unfit) }
        });
        heads.collect::<Result<(), Stop>>()?;
        let at = At { file: self.file, at: self.places[slice] };
        let mut target =
            Target { writer: BufWriter::with_capacity(WRITE_BYTES, at), totals: Totals::default() };
        let failed = |source| Stop::Failed(MergeError::Output { path: self.output.to_owned(), source });
        self.merge(&mut streams, self.plan.ends_ns[slice], &mut target)?;
        target.writer.flush().map_err(failed)?;
        let is_clean = streams.iter().all(|stream| stream.reader.oddities() == Oddities::default());
        if is_clean && target.totals.bytes == bytes { Ok(target.totals) } else { Err(Stop::Unfit) }
    }

    /// Joins streams whose records are all older than `end_ns`.
    fn merge(&self, streams: &mut [Stream<'_>], end_ns: u64, target: &mut Target<'_>) -> Result<(), Stop> {
        let mut floors = Floors::default();
        floors.reset(streams.iter().enumerate().filter_map(|(i, stream)| Some((stream.head?.ns, i))));
        while let Some(i) = floors.lowest() {
            if self.is_over.load(Ordering::Relaxed) {
                return Err(Stop::Unfit);
            }
            let ns_max = floors.pop_lowest().min(end_ns - 1);
            let Stream { path, reader, head } = &mut streams[i];
            let Some(head) = head.take().filter(|head| head.ns < end_ns) else { return Err(Stop::Unfit) };
            forward((i, path.as_path()), reader, &head, (ns_max, usize::MAX), target).map_err(|error| {
                match error {
                    MergeError::Output { source, .. } => {
                        Stop::Failed(MergeError::Output { path: self.output.to_owned(), source })
                    }
                    _ => Stop::Unfit,
                }
            })?;
            streams[i].advance()?;
            if let Some(head) = &streams[i].head {
                floors.push(head.ns, i);
            }
        }
        Ok(())
    }
}

/// A part of a file as it is read.
struct Piece<'a> {
    file: File,
    at: u64,
    end: u64,
    read: &'a AtomicU64,
}

impl Read for Piece<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(into.len());
        let read = self.file.read_at(&mut into[..len], self.at)?;
        self.at += read as u64;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// One file's part of a slice, and its next record.
struct Stream<'a> {
    path: &'a PathBuf,
    reader: Reader<Chain<&'a [u8], Piece<'a>>>,
    head: Option<Place>,
}

impl<'a> Stream<'a> {
    fn open(whole: &'a Whole, slice: usize, window: usize, read: &'a AtomicU64) -> io::Result<Self> {
        let Whole { path, identity: known, header, cuts } = whole;
        let file = File::open(path)?;
        if identity(&file.metadata()?) != *known {
            return Err(io::Error::other("the file was replaced while it was being merged"));
        }
        let _only_a_hint = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        let piece = Piece { file, at: cuts[slice], end: cuts[slice + 1], read };
        let reader = Reader::tolerant(header[..].chain(piece), window, Tolerance::default());
        Ok(Self { path, reader: reader.map_err(io::Error::other)?, head: None })
    }

    /// Finds the next record. What is no whole record at the piece's end is no place to cut.
    fn advance(&mut self) -> Result<(), Stop> {
        self.head = self.reader.advance().map_err(|_| Stop::Unfit)?;
        Ok(())
    }
}

/// Writes to a place in a file.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A slice's place in the output.
struct Target<'a> {
    writer: BufWriter<At<'a>>,
    totals: Totals,
}

impl Sink for Target<'_> {
    #[inline]
    fn room(&mut self, _record_bytes: usize) -> Result<usize, MergeError> {
        Ok(usize::MAX)
    }

    #[inline]
    fn run(&mut self, _from: Provenance<'_>, records: &[u8], span: Span) -> Result<(), MergeError> {
        let Totals { packets, first_ns, last_ns, .. } = &mut self.totals;
        self.totals.disorder += account(packets, first_ns, last_ns, span);
        self.totals.bytes += records.len() as u64;
        // The path is not known here.
        let written = self.writer.write_all(records);
        written.map_err(|source| MergeError::Output { path: PathBuf::new(), source })
    }

    /// A record that had to be put right: the plan did not count on it.
    fn record(&mut self, from: Provenance<'_>, record: &Record<'_>) -> Result<(), MergeError> {
        Err(MergeError::Time { path: from.path.to_owned(), ns: record.ns })
    }
}
