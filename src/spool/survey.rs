//! What is left in a capture's directory, only looked at. Owns finding the segments and how much of each can be trusted; to
//! bring the directory in order is `recover`'s.
//!
//! Invariant: nothing in the directory is changed, and nothing is presented that was not certainly written for its segment:
//! an open one counts as far as its length file says, and no record from before the capture or out of its order does.

use super::recover::{is_file, names, place};
use super::salvage::{Salvaged, whole_records, whole_records_since};
use super::{Segment, length};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// One segment, as far as it can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftSegment {
    /// Its file; longer than `found.bytes` if something had to be left out.
    pub path: PathBuf,
    /// Place in its stream, from 0.
    pub sequence: u64,
    /// Its whole records.
    pub found: Salvaged,
    /// Whether it was never published.
    pub is_open: bool,
    /// Bytes behind its last whole record that a published segment would not have.
    pub cut_bytes: u64,
}

impl LeftSegment {
    /// As the merge takes it, under a number of its own.
    #[must_use]
    pub fn numbered(&self, sequence: u64) -> Segment {
        let Salvaged { bytes, packets, first_ns, last_ns, .. } = self.found;
        Segment { path: self.path.clone(), sequence, bytes, packets, first_ns, last_ns }
    }
}

/// What is left of one queue: its segments in order, which may have gaps.
pub type LeftStream = Vec<LeftSegment>;

/// What is left of a capture.
#[derive(Debug, Default)]
pub struct Survey {
    /// For each queue that has any.
    pub streams: BTreeMap<usize, LeftStream>,
    /// Open segments without a word on how much of them is theirs: nothing of them is presented.
    pub distrusted: Vec<PathBuf>,
}

/// Looks at the segments of `dir`. No record of them is from before `since_ns`, ns since the UNIX epoch.
///
/// # Errors
/// When the directory cannot be read; or a segment, named in the error.
pub fn survey(dir: &Path, since_ns: u64) -> io::Result<Survey> {
    let mut survey = Survey::default();
    for path in names(dir)? {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let open = name.strip_prefix('.').and_then(|n| n.strip_suffix(".open"));
        let Some((queue, sequence)) = place(open.unwrap_or(name)) else { continue };
        let failed = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let is_open = open.is_some();
        // A copy took its place: what bears a published name is complete.
        if let Some(published) = open
            && is_file(&dir.join(published))?
        {
            continue;
        }
        let file = File::open(&path).map_err(failed)?;
        let held = file.metadata().map_err(failed)?.len();
        let own = if is_open { length::trusted(&length_path(&path)).map_err(failed)? } else { Some(held) };
        let Some(own) = own.map(|own| own.min(held)) else {
            survey.distrusted.push(path);
            continue;
        };
        let found = whole_records_since(&file, own, since_ns).map_err(failed)?;
        let segment =
            LeftSegment { sequence, found, is_open, cut_bytes: own - found.bytes, path: path.clone() };
        survey.streams.entry(queue).or_default().push(segment);
    }
    survey.streams.values_mut().for_each(|stream| stream.sort_by_key(|segment| segment.sequence));
    survey.distrusted.sort();
    Ok(survey)
}

/// The whole records of an open segment, as far as its length file says; none if there is no such file.
///
/// # Errors
/// When either cannot be read.
pub fn whole_records_of_open(path: &Path) -> io::Result<Option<Salvaged>> {
    let Some(own) = length::trusted(&length_path(path))? else { return Ok(None) };
    let file = File::open(path)?;
    whole_records(&file, own.min(file.metadata()?.len())).map(Some)
}

/// The length file of an open segment: `.len` in place of `.open`.
fn length_path(open: &Path) -> PathBuf {
    open.with_extension("len")
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::super::files::Files;
    use super::super::length::Length;
    use super::*;
    use crate::pcap::Writer;
    use std::fs;

    fn pcap(packets: u64, second: u64) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), 262_144, 1).unwrap();
        for i in 0..packets {
            writer.write(second * 1_000_000_000 + i, 84, &[7; 84]).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn records_from_before_the_capture_and_out_of_order_are_left_out_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (pcap(100, 1_700_000_000), pcap(10, 1_800_000_000));
        let mut recycled = old.clone();
        recycled[..new.len()].copy_from_slice(&new);
        for (sequence, bytes) in [(0, &recycled), (1, &old)] {
            let name = format!(".q003-{sequence:08}.pcap");
            fs::write(dir.path().join(format!("{name}.open")), bytes).unwrap();
            // The worst case: a length that is too large.
            Length::create(&Files::default(), &dir.path().join(format!("{name}.len")))
                .unwrap()
                .reached(bytes.len() as u64);
        }
        fs::write(dir.path().join("q003-00000002.pcap"), &new[..new.len() - 1]).unwrap();
        fs::write(dir.path().join(".q003-00000003.pcap.open"), &new).unwrap();
        let before = names(dir.path()).unwrap().len();
        let found = survey(dir.path(), 1_790_000_000_000_000_000).unwrap();
        let stream = &found.streams[&3];
        let packets: Vec<_> = stream.iter().map(|s| (s.sequence, s.is_open, s.found.packets)).collect();
        assert_eq!(packets, [(0, true, 10), (1, true, 0), (2, false, 9)]);
        assert_eq!(stream[0].found.bytes, new.len() as u64);
        assert_eq!(stream[2].cut_bytes, 99);
        assert_eq!(found.distrusted, [dir.path().join(".q003-00000003.pcap.open")]);
        assert_eq!(names(dir.path()).unwrap().len(), before);
        assert_eq!(fs::read(&stream[0].path).unwrap(), recycled);
        let open = whole_records_of_open(&stream[0].path).unwrap().unwrap();
        assert_eq!(open.packets, 10, "the older records behind it are out of order");
    }
}
