//! What a process that died left in a capture's directory. Owns cutting open segments back to whole records and giving
//! them their published names; not what becomes of them.
//!
//! Invariant: nothing is presented that was not certainly written for this segment; a second recovery finds the same.

use super::{Segment, length, salvage};
use crate::pcap::file_header;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The streams of a capture, as they can be merged.
#[derive(Debug, Default)]
pub struct Recovery {
    /// For each queue that has any: its segments, in order.
    pub streams: BTreeMap<usize, Vec<Segment>>,
    /// Segments that were open.
    pub opened: u64,
    /// Bytes of files that were given back to the file system.
    pub freed_bytes: u64,
    /// Files without a word on how much of them is theirs; they are left as they are.
    pub distrusted: Vec<PathBuf>,
}

/// Cuts and publishes what is in `dir`. `snaplen` is for the header of a segment of which nothing was written.
///
/// # Errors
/// When the file system refuses.
pub fn recover(dir: &Path, snaplen: u32) -> io::Result<Recovery> {
    let mut recovery = Recovery::default();
    for path in names(dir)? {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        if let Some(published) = name.strip_prefix('.').and_then(|n| n.strip_suffix(".open")) {
            recovery.publish(dir, &path, published, snaplen)?;
        }
    }
    for path in names(dir)? {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        if name.ends_with(".len") && !dir.join(name.replace(".len", ".open")).exists() {
            fs::remove_file(&path)?;
        } else if let Some((queue, sequence)) = place(name) {
            let (file, bytes) = (File::open(&path)?, fs::metadata(&path)?.len());
            let found = salvage::whole_records(&file, bytes)?;
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
    fn publish(&mut self, dir: &Path, open: &Path, name: &str, snaplen: u32) -> io::Result<()> {
        let Some(trusted) = length::trusted(&dir.join(format!(".{name}.len")))? else {
            self.distrusted.push(open.to_owned());
            return Ok(());
        };
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
        fs::rename(open, dir.join(name))?;
        self.opened += 1;
        self.freed_bytes += before.saturating_sub(after);
        Ok(())
    }
}

pub(super) fn names(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// Queue and sequence in a published name.
pub(super) fn place(name: &str) -> Option<(usize, u64)> {
    let (queue, sequence) = name.strip_prefix('q')?.strip_suffix(".pcap")?.split_once('-')?;
    Some((queue.parse().ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::super::length::Length;
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
        let length = Length::create(&dir.path().join(".q000-00000000.pcap.len")).unwrap();
        // In the middle of the tenth record.
        length.reached(mine.len() as u64 - 5);
        let recovery = recover(dir.path(), 262_144).unwrap();
        let stream = &recovery.streams[&0];
        assert_eq!((stream.len(), stream[0].packets, recovery.opened), (1, 9, 1));
        assert_eq!(fs::read(&stream[0].path).unwrap(), mine[..mine.len() - 100]);
        let again = recover(dir.path(), 262_144).unwrap();
        assert_eq!((again.streams, again.opened), (recovery.streams, 0));
        assert_eq!(names(dir.path()).unwrap().len(), 1, "only the published segment is left");
    }

    #[test]
    fn a_segment_of_unknown_length_is_left_alone_and_one_of_none_becomes_an_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        recycled(dir.path(), 10);
        assert_eq!(recover(dir.path(), 160).unwrap().distrusted.len(), 1);
        Length::create(&dir.path().join(".q000-00000000.pcap.len")).unwrap();
        let recovery = recover(dir.path(), 160).unwrap();
        assert_eq!((recovery.streams[&0][0].packets, recovery.distrusted.len()), (0, 0));
        assert_eq!(fs::read(&recovery.streams[&0][0].path).unwrap(), file_header(160));
    }
}
