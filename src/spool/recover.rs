//! What a process that died left in a capture's directory. Owns cutting open segments back to whole records and giving
//! them their published names; not what becomes of them.
//!
//! Invariant: nothing is presented that was not certainly written for this segment; a second recovery finds the same.

use super::salvage::Salvaged;
use super::{Cut, Input, Segment, length, salvage};
use crate::pcap::file_header;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Times that an open segment is tried, and the pause between them.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(50);

/// The streams of a capture, as they can be merged.
#[derive(Debug, Default)]
pub struct Recovery {
    /// For each queue that has any: its segments, in order, which may have gaps.
    pub streams: BTreeMap<usize, Vec<Segment>>,
    /// Bytes behind the whole records of damaged segments, by queue and sequence.
    pub torn: BTreeMap<(usize, u64), u64>,
    /// Segments that were open.
    pub opened: u64,
    /// Bytes of files that were given back to the file system.
    pub freed_bytes: u64,
    /// Open segments that are left as they are: nothing of them is in `streams`.
    pub held: Vec<HeldSegment>,
    /// Directories of the capture, beside its home, that cannot be read: nothing of them is here.
    pub unread: Vec<(PathBuf, io::Error)>,
}

/// An open segment that is left as it is.
#[derive(Debug, PartialEq, Eq)]
pub struct HeldSegment {
    /// The file.
    pub path: PathBuf,
    /// Why it stays.
    pub why: String,
    /// Whether the disk is why, and may be well again.
    pub is_passing: bool,
    /// What is whole in it, and in no count of what is lost: nothing where that cannot be told.
    pub found: Salvaged,
}

/// What a merge is told of a queue, beginning with the segment of number `first`: `segments`, which are in order, and a hole
/// for each one that is missing between them.
pub fn with_holes(
    queue: usize,
    first: u64,
    segments: impl IntoIterator<Item = Segment>,
) -> impl Iterator<Item = Input> {
    let mut next = first;
    segments.into_iter().flat_map(move |segment| {
        let holes = (next..segment.sequence).map(move |sequence| Input::Hole { queue, sequence });
        next = segment.sequence + 1;
        holes.chain([Input::Segment(queue, segment)])
    })
}

/// Cuts and publishes what is in `dir`. `snaplen` is for the header of a segment of which nothing was written. Complete
/// objects end at `cuts`, one for each queue: a segment before its cut that is open still was never published, so it is in
/// no object and stays as it is.
///
/// # Errors
/// When the file system refuses; a second try finds the same.
pub fn recover(dir: &Path, snaplen: u32, cuts: &[Cut]) -> io::Result<Recovery> {
    let mut recovery = Recovery::default();
    for path in names(dir)? {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        // The journal has a copy too.
        if name.ends_with(".pcap.copy") {
            fs::remove_file(&path)?;
            continue;
        }
        let Some(published) = name.strip_prefix('.').and_then(|n| n.strip_suffix(".open")) else { continue };
        let Some((queue, sequence)) = place(published) else { continue };
        let to = dir.join(published);
        if is_file(&to)? {
            // A copy took its place: what bears a published name is complete.
            fs::remove_file(&path)?;
        } else if cuts.get(queue).is_some_and(|cut| sequence < cut.sequence) {
            // Counted as lost when objects went on.
            let why = "it could not be published, and objects went on without it".to_owned();
            recovery.held.push(HeldSegment { path, why, is_passing: false, found: Salvaged::default() });
        } else if let Err(unpublished) = recovery.publish(&path, &to, snaplen) {
            let is_passing = matches!(unpublished, Unpublished::Disk(_));
            let found = if is_passing { whole(&path).unwrap_or_default() } else { Salvaged::default() };
            recovery.held.push(HeldSegment { path, why: unpublished.to_string(), is_passing, found });
        }
    }
    for path in names(dir)? {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        if name.ends_with(".len") {
            if !is_file(&path.with_extension("open"))? {
                fs::remove_file(&path)?;
            }
        } else if let Some((queue, sequence)) = place(name)
            && is_file(&path)?
        {
            let (file, bytes) = (File::open(&path)?, fs::metadata(&path)?.len());
            let found = salvage::whole_records(&file, bytes)?;
            if found.bytes < bytes {
                recovery.torn.insert((queue, sequence), bytes - found.bytes);
            }
            let (packets, first_ns, last_ns) = (found.packets, found.first_ns, found.last_ns);
            let segment = Segment { path, sequence, bytes, packets, first_ns, last_ns };
            recovery.streams.entry(queue).or_default().push(segment);
        }
    }
    for stream in recovery.streams.values_mut() {
        stream.sort_by_key(|segment| segment.sequence);
    }
    File::open(dir)?.sync_all()?;
    Ok(recovery)
}

impl Recovery {
    /// Adds what was found in another directory of the capture.
    pub(super) fn join(&mut self, other: Self) {
        for (queue, segments) in other.streams {
            let stream = self.streams.entry(queue).or_default();
            stream.extend(segments);
            stream.sort_by_key(|segment| segment.sequence);
        }
        self.torn.extend(other.torn);
        self.opened += other.opened;
        self.freed_bytes += other.freed_bytes;
        self.held.extend(other.held);
        self.unread.extend(other.unread);
    }

    /// Publishes an open segment as far as it can be trusted; tries again, because what fails for good costs a segment.
    fn publish(&mut self, open: &Path, to: &Path, snaplen: u32) -> Result<(), Unpublished> {
        let mut tries = 1;
        let freed_bytes = loop {
            match publish(open, to, snaplen) {
                Ok(Some(freed_bytes)) => break freed_bytes,
                Ok(None) => return Err(Unpublished::UnknownLength),
                Err(e) if tries == TRIES => return Err(e.into()),
                Err(_) => std::thread::sleep(PAUSE),
            }
            tries += 1;
        };
        self.opened += 1;
        self.freed_bytes += freed_bytes;
        Ok(())
    }
}

/// Why an open segment could not be published.
#[derive(Debug, thiserror::Error)]
enum Unpublished {
    #[error("its length file is missing or damaged")]
    UnknownLength,
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// What is whole in an open segment.
fn whole(open: &Path) -> io::Result<Salvaged> {
    let Some(trusted) = length::trusted(&open.with_extension("len"))? else { return Ok(Salvaged::default()) };
    let file = File::open(open)?;
    let bytes = file.metadata()?.len();
    salvage::whole_records(&file, trusted.min(bytes))
}

/// Cuts an open segment and gives it its name; the bytes that were given back. None: nothing says how much of it is its own.
fn publish(open: &Path, to: &Path, snaplen: u32) -> io::Result<Option<u64>> {
    let Some(trusted) = length::trusted(&open.with_extension("len"))? else { return Ok(None) };
    let mut file = OpenOptions::new().read(true).write(true).open(open)?;
    let before = file.metadata()?.len();
    let found = salvage::whole_records(&file, trusted.min(before))?;
    file.set_len(found.bytes)?;
    let mut after = found.bytes;
    if found.bytes == 0 {
        // A complete file of no records: the stream's numbers stay without a gap.
        file = OpenOptions::new().write(true).truncate(true).open(open)?;
        file.write_all(&file_header(snaplen))?;
        after = crate::limits::PCAP_FILE_HEADER_BYTES as u64;
    }
    file.sync_all()?;
    fs::rename(open, to)?;
    Ok(Some(before.saturating_sub(after)))
}

/// Whether there is a file of that name. What cannot be found out is an error and no "no": files are removed for a "no".
pub(super) fn is_file(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_file()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}

pub(super) fn names(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// Queue and sequence in a published name. Larger numbers than the spool writes are somebody else's name.
pub(crate) fn place(name: &str) -> Option<(usize, u64)> {
    let (queue, sequence) = name.strip_prefix('q')?.strip_suffix(".pcap")?.split_once('-')?;
    let (queue, sequence): (u16, u32) = (queue.parse().ok()?, sequence.parse().ok()?);
    Some((queue.into(), sequence.into()))
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::super::files::Files;
    use super::super::length::Length;
    use super::super::survey::survey;
    use super::*;
    use crate::pcap::Writer;

    /// A recycled file: `mine` packets of now over the whole records of an earlier use.
    fn recycled(dir: &Path, mine: u64) -> Vec<u8> {
        let pcap = |packets: u64, second: u64| {
            let mut writer = Writer::new(Vec::new(), 262_144, 1).unwrap();
            for i in 0..packets {
                writer.write(second * 1_000_000_000 + i, 84, &[7; 84]).unwrap();
            }
            writer.finish().unwrap()
        };
        let (old, new) = (pcap(100, 1_700_000_000), pcap(mine, 1_800_000_000));
        let mut bytes = old;
        bytes[..new.len()].copy_from_slice(&new);
        fs::write(dir.join(".q000-00000000.pcap.open"), &bytes).unwrap();
        new
    }

    #[test]
    fn stale_bytes_of_a_recycled_segment_are_never_presented() {
        let dir = tempfile::tempdir().unwrap();
        let mine = recycled(dir.path(), 10);
        let length = Length::create(&Files::default(), &dir.path().join(".q000-00000000.pcap.len")).unwrap();
        // In the middle of the tenth record.
        length.reached(mine.len() as u64 - 5);
        let recovery = recover(dir.path(), 262_144, &[]).unwrap();
        let stream = &recovery.streams[&0];
        assert_eq!((stream.len(), stream[0].packets, recovery.opened), (1, 9, 1));
        assert_eq!(fs::read(&stream[0].path).unwrap(), mine[..mine.len() - 100]);
        let again = recover(dir.path(), 262_144, &[]).unwrap();
        assert_eq!((again.streams, again.opened), (recovery.streams, 0));
        assert_eq!(names(dir.path()).unwrap().len(), 1, "only the published segment is left");
    }

    #[test]
    fn a_segment_that_cannot_be_looked_at_is_an_error_and_neither_missing_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let segment = recycled(dir.path(), 10);
        let open = dir.path().join(".q000-00000000.pcap.open");
        let published = dir.path().join("q000-00000000.pcap");
        // A link to itself answers neither yes nor no.
        std::os::unix::fs::symlink("q000-00000000.pcap", &published).unwrap();
        assert!(recover(dir.path(), 262_144, &[]).is_err(), "{published:?} may be a whole copy");
        assert!(survey(dir.path(), 0).is_err());
        assert!(fs::read(&open).unwrap().starts_with(&segment));
        fs::remove_file(&open).unwrap();
        assert!(recover(dir.path(), 262_144, &[]).is_err(), "its packets are in no stream");
        assert!(survey(dir.path(), 0).is_err());
        fs::remove_file(&published).unwrap();
        let length = Length::create(&Files::default(), &open.with_extension("len")).unwrap();
        length.reached(1024);
        std::os::unix::fs::symlink(".q000-00000000.pcap.open", &open).unwrap();
        assert!(!recover(dir.path(), 262_144, &[]).is_ok_and(|recovery| recovery.held.is_empty()));
        assert!(open.with_extension("len").try_exists().unwrap(), "it says how much of the segment counts");
    }

    #[test]
    fn a_segment_of_unknown_length_is_left_alone_and_one_of_none_becomes_an_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        recycled(dir.path(), 10);
        assert_eq!(recover(dir.path(), 160, &[]).unwrap().held.len(), 1);
        Length::create(&Files::default(), &dir.path().join(".q000-00000000.pcap.len")).unwrap();
        let recovery = recover(dir.path(), 160, &[]).unwrap();
        assert_eq!((recovery.streams[&0][0].packets, recovery.held.len()), (0, 0));
        assert_eq!(fs::read(&recovery.streams[&0][0].path).unwrap(), file_header(160));
    }

    #[test]
    fn a_segment_without_a_sound_length_is_held_and_the_rest_is_told_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join(".q000-00000001.pcap.open");
        recycled(dir.path(), 10);
        fs::rename(dir.path().join(".q000-00000000.pcap.open"), &open).unwrap();
        // Damaged, not missing.
        fs::write(open.with_extension("len"), [0; 56]).unwrap();
        for sequence in [0, 2] {
            fs::write(dir.path().join(format!("q000-0000000{sequence}.pcap")), file_header(160)).unwrap();
        }
        for _ in 0..2 {
            let recovery = recover(dir.path(), 160, &[]).unwrap();
            let held: Vec<_> = recovery.held.iter().map(|held| held.path.clone()).collect();
            assert_eq!(held, std::slice::from_ref(&open));
            let told: Vec<_> = with_holes(0, 0, recovery.streams[&0].clone()).collect();
            let [Input::Segment(0, first), hole, Input::Segment(0, last)] = &told[..] else {
                panic!("{told:?}")
            };
            assert_eq!((first.sequence, last.sequence), (0, 2));
            assert_eq!(*hole, Input::Hole { queue: 0, sequence: 1 });
            assert!(open.exists() && open.with_extension("len").exists());
        }
    }

    #[test]
    fn an_open_segment_before_a_cut_is_in_no_object_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        recycled(dir.path(), 10);
        let open = dir.path().join(".q000-00000000.pcap.open");
        Length::create(&Files::default(), &open.with_extension("len")).unwrap().reached(1184);
        let recovery = recover(dir.path(), 160, &[Cut { sequence: 1, offset: 0 }]).unwrap();
        assert_eq!((recovery.held.len(), recovery.opened, recovery.streams.len()), (1, 0, 0));
        assert!(open.exists());
        let recovery = recover(dir.path(), 160, &[Cut { sequence: 0, offset: 0 }]).unwrap();
        assert_eq!((recovery.held.len(), recovery.streams[&0][0].packets), (0, 10));
    }

    #[test]
    fn names_that_the_spool_never_gives_are_no_segments() {
        assert_eq!(place("q007-00000012.pcap"), Some((7, 12)));
        assert_eq!(place("q65535-4294967295.pcap"), Some((65_535, 4_294_967_295)));
        for name in
            ["q65536-0.pcap", "q0-4294967296.pcap", "q-1-0.pcap", "q0.pcap", "q18446744073709551615-0.pcap"]
        {
            assert_eq!(place(name), None, "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("q18446744073709551615-00000000.pcap"), file_header(160)).unwrap();
        assert!(super::super::survey(dir.path(), 0).unwrap().streams.is_empty());
    }

    #[test]
    fn a_published_copy_outranks_the_open_file_that_it_replaced() {
        let dir = tempfile::tempdir().unwrap();
        recycled(dir.path(), 10);
        let open = dir.path().join(".q000-00000000.pcap.open");
        Length::create(&Files::default(), &open.with_extension("len")).unwrap().reached(24);
        fs::write(dir.path().join(".q000-00000001.pcap.copy"), "half").unwrap();
        let copy = dir.path().join(".journal.copy");
        fs::write(&copy, "a line").unwrap();
        let published = dir.path().join("q000-00000000.pcap");
        fs::write(&published, file_header(160)).unwrap();
        let recovery = recover(dir.path(), 160, &[]).unwrap();
        assert_eq!((recovery.streams[&0].len(), recovery.held.len()), (1, 0));
        assert_eq!(fs::read(&published).unwrap(), file_header(160));
        assert_eq!(fs::read(&copy).unwrap(), b"a line", "the journal's");
        fs::remove_file(&copy).unwrap();
        assert_eq!(names(dir.path()).unwrap(), [published]);
    }
}
