//! Where files can be cut in time, so that the pieces are merged side by side. Owns the choice of the cuts and the search for
//! them; not the merge of a slice (`parallel`).
//!
//! Slice `k` has of each file the records before the first one that is not older than the slice's end. A merge puts all of these
//! before all that come later, also where times go backwards within a slice, so the slices' outputs one after another are what
//! one thread writes. Records stay as long as they are, so each slice's place in the output is known from the places of the cuts.
//!
//! Invariant: nothing is taken for granted. Who merges a slice checks every time and every place in it, and a plan that turns out
//! wrong is thrown away.

use super::MergeInput;
use super::file::identity;
use crate::limits::{PCAP_FILE_HEADER_BYTES, PCAP_RECORD_HEADER_BYTES};
use crate::pcap::boundary::{guess, own_link_type, own_record};
use crate::pcap::format::NS_PER_S;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const HEADER: u64 = PCAP_FILE_HEADER_BYTES as u64;

/// A file's header and that of its first record.
const BEGIN_BYTES: usize = PCAP_FILE_HEADER_BYTES + PCAP_RECORD_HEADER_BYTES;

/// Bytes in which a record's beginning is looked for: first few, which are enough for usual frames; then enough for any.
const LOOK_BYTES: [usize; 2] = [16 << 10, 4 << 20];

/// How fine a plan is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grain {
    /// Slices have at least about so many bytes.
    pub(super) slice_bytes: u64,
    /// Looked through record by record when a cut is that close.
    pub(super) scan_bytes: u64,
}

/// Smaller slices cost more than they gain.
pub(super) const GRAIN: Grain = Grain { slice_bytes: 16 << 20, scan_bytes: 128 << 10 };

/// Slices for each thread, so that none waits long for the last one.
const SLICES_PER_THREAD: u64 = 8;

/// Places per slice at which an input tells its time, over all inputs.
const SAMPLES_PER_SLICE: u64 = 8;

/// A file that can be cut.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) path: PathBuf,
    /// Device and inode.
    pub(super) identity: (u64, u64),
    pub(super) header: [u8; PCAP_FILE_HEADER_BYTES],
    /// Where slice `k` begins, for each; then where the last one ends.
    pub(super) cuts: Vec<u64>,
}

/// How files are cut.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) files: Vec<Whole>,
    pub(super) link_type: u16,
    /// Where the times of each slice end; the last one's do not.
    pub(super) ends_ns: Vec<u64>,
}

impl Plan {
    /// Plans a merge by `threads` threads. None: one thread does it, because an input is no file, not as this program writes it,
    /// or small.
    pub(super) fn new(inputs: &[MergeInput<'_>], threads: usize, grain: Grain) -> Option<Self> {
        let mut opened = Vec::with_capacity(inputs.len());
        for input in inputs {
            let MergeInput::File(path) = input else { return None };
            opened.push(Opened::new(path.clone()).ok()??);
        }
        let link_type = own_link_type(&opened.first()?.header)?;
        if opened.iter().any(|file| own_link_type(&file.header) != Some(link_type)) {
            return None;
        }
        let bytes: u64 = opened.iter().map(|file| file.bytes - HEADER).sum();
        let slices = (bytes / grain.slice_bytes).min(threads as u64 * SLICES_PER_THREAD);
        if slices < 2 {
            return None;
        }
        let mut ends_ns = times(&opened, bytes, slices)?;
        let mut files = Vec::with_capacity(opened.len());
        for file in opened {
            files.push(file.cut(&ends_ns, grain).ok()??);
        }
        ends_ns.push(u64::MAX);
        Some(Self { files, link_type, ends_ns })
    }

    /// Bytes of the slice, over all files.
    pub(super) fn bytes(&self, slice: usize) -> u64 {
        self.files.iter().map(|file| file.cuts[slice + 1] - file.cuts[slice]).sum()
    }
}

/// A file that is being looked through. It holds its descriptor no longer than each look takes.
struct Opened {
    path: PathBuf,
    identity: (u64, u64),
    header: [u8; PCAP_FILE_HEADER_BYTES],
    bytes: u64,
    /// About the oldest time in it.
    ns_min: u64,
}

impl Opened {
    /// None: it is no regular file with the header of one.
    fn new(path: PathBuf) -> io::Result<Option<Self>> {
        let metadata = path.metadata()?;
        if !metadata.is_file() || metadata.len() < HEADER {
            return Ok(None);
        }
        let mut begin = Vec::with_capacity(BEGIN_BYTES);
        File::open(&path)?.take(BEGIN_BYTES as u64).read_to_end(&mut begin)?;
        let Some((header, records)) = begin.split_first_chunk() else { return Ok(None) };
        // Times go back by less; and a time of zero is no packet's but that of a run of zeros.
        let ns_min = own_record(records).map_or(1, |(ns, _)| ns.saturating_sub(NS_PER_S).max(1));
        Ok(Some(Self { path, identity: identity(&metadata), header: *header, bytes: metadata.len(), ns_min }))
    }

    /// Where each of the slices begins, and where the last one ends. None: it cannot be told.
    fn cut(self, ends_ns: &[u64], grain: Grain) -> io::Result<Option<Whole>> {
        let file = File::open(&self.path)?;
        let mut cuts = vec![HEADER];
        for ns in ends_ns {
            let from = cuts.last().copied().unwrap_or(HEADER);
            let Some(cut) = self.first_from(&file, from, *ns, grain)? else { return Ok(None) };
            cuts.push(cut);
        }
        cuts.push(self.bytes);
        Ok(Some(Whole { path: self.path, identity: self.identity, header: self.header, cuts }))
    }

    /// Adds what times it has at `count` places, each standing for as many bytes.
    fn sample(&self, count: u64, samples: &mut Vec<(u64, u64)>) -> io::Result<()> {
        let (file, step) = (File::open(&self.path)?, (self.bytes - HEADER) / count);
        for number in 0..count {
            if let Some((_, ns)) = self.probe(&file, HEADER + number * step)? {
                samples.push((ns, step));
            }
        }
        Ok(())
    }

    /// Place and time of the first record behind `from`, as far as can be guessed.
    fn probe(&self, file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
        for look in LOOK_BYTES {
            let bytes = read(file, from, self.bytes, look)?;
            if let Some((at, ns)) = guess(&bytes, self.ns_min) {
                return Ok(Some((from + at as u64, ns)));
            }
            if bytes.len() < look {
                break;
            }
        }
        Ok(None)
    }

    /// The place of the first record from `low` on that is not older than `ns`, or the end. A record begins at `low`.
    fn first_from(&self, file: &File, mut low: u64, ns: u64, grain: Grain) -> io::Result<Option<u64>> {
        let mut high = self.bytes;
        while high.saturating_sub(low) > grain.scan_bytes {
            let middle = low + (high - low) / 2;
            match self.probe(file, middle)? {
                Some((at, found_ns)) if found_ns < ns => low = at,
                Some(_) => high = middle,
                None => return Ok(None),
            }
        }
        scan(file, low, self.bytes, ns)
    }
}

/// Times that cut the inputs into slices of about the same size; each later than the one before.
fn times(files: &[Opened], bytes: u64, slices: u64) -> Option<Vec<u64>> {
    let mut samples = Vec::new();
    for file in files {
        let share = u128::from(file.bytes - HEADER) * u128::from(slices * SAMPLES_PER_SLICE);
        file.sample((share / u128::from(bytes.max(1))).max(1) as u64, &mut samples).ok()?;
    }
    samples.sort_unstable();
    let sampled: u64 = samples.iter().map(|(_, bytes)| bytes).sum();
    let (mut times, mut before) = (Vec::<u64>::new(), 0);
    for (ns, bytes) in samples {
        let due = sampled * (times.len() as u64 + 1) / slices;
        if before >= due && times.last().is_none_or(|last| *last < ns) && (times.len() as u64) < slices - 1 {
            times.push(ns);
        }
        before += bytes;
    }
    (!times.is_empty()).then_some(times)
}

fn read(file: &File, from: u64, end: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(usize::MAX).min(bytes_max)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// As [`Opened::first_from`], record by record.
fn scan(file: &File, mut at: u64, end: u64, ns: u64) -> io::Result<Option<u64>> {
    let mut look = LOOK_BYTES[0];
    while at < end {
        let bytes = read(file, at, end, look)?;
        let mut seen = 0;
        while let Some((found_ns, len)) = own_record(&bytes[seen..]) {
            if found_ns >= ns {
                return Ok(Some(at + seen as u64));
            }
            if seen + len > bytes.len() {
                break;
            }
            seen += len;
        }
        match seen {
            0 if look == LOOK_BYTES[1] || bytes.len() < look => return Ok(None),
            0 => look = LOOK_BYTES[1],
            _ => at += seen as u64,
        }
    }
    Ok(Some(end))
}
