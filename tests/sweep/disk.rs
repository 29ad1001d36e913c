//! What lies below a host's directory: the frames that are whole there, what is left over, and what counts on the quota.

use crate::scenario::FRAME_BYTES;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use trawl::job::CaptureId;
use trawl::pcap::{Reader, Unpacked};

/// A frame: its length on the wire, which tells the queue, and its number there.
pub type Frame = (u32, u64);

/// The frames of a file, in its order.
pub fn frames(path: &Path) -> Result<Vec<Frame>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{} cannot be read: {e}", path.display());
    let file = File::open(path).map_err(|e| failed(&e))?;
    let mut reader = Reader::new(Unpacked::new(file).map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
    let mut found = Vec::new();
    while let Some(record) = reader.next_record().map_err(|e| failed(&e))? {
        let number = record.data.get(42..50).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        match number {
            Some(number) if FRAME_BYTES.contains(&(record.wire_len as usize)) => {
                found.push((record.wire_len, number));
            }
            _ => return Err(format!("{} has a frame that nobody sent", path.display())),
        }
    }
    Ok(found)
}

/// The number of packets by `capinfos`, which reads the whole file.
pub fn capinfos_packets(path: &Path) -> u64 {
    let output = std::process::Command::new("capinfos").args(["-M", "-c", "-T", "-r"]).arg(path).output();
    let text = String::from_utf8(output.expect("capinfos is needed").stdout).unwrap();
    text.split('\t')
        .nth(1)
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("capinfos: {text}"))
}

/// Every file below `dir`, relative to it.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(folder) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            } else if let Ok(relative) = entry.path().strip_prefix(dir) {
                found.push(relative.to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The capture that a path below the host's directory is of.
pub fn capture_of(path: &Path) -> Option<CaptureId> {
    let text = path.to_str()?;
    let at = |start: usize| text.get(start..start + 32).and_then(CaptureId::parse);
    (0..text.len().saturating_sub(31)).find_map(at)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Whether it is a published segment of a capture.
pub fn is_segment(path: &Path) -> bool {
    let place = path.parent().and_then(Path::parent).is_some_and(|at| at == Path::new("spool"));
    place && name(path).starts_with('q') && name(path).ends_with(".pcap") && capture_of(path).is_some()
}

/// Whether it is a complete object of a capture.
pub fn is_object(path: &Path) -> bool {
    let place = path.starts_with("bucket") || path.starts_with("simple");
    place
        && name(path).starts_with("pcap_")
        && !name(path).ends_with(".json")
        && !name(path).ends_with(".sig")
}

/// The frames of each capture that are whole on the disk, in objects and published segments.
pub fn durable(state: &Path, complaints: &mut Vec<String>) -> BTreeMap<CaptureId, Vec<Frame>> {
    let mut found = BTreeMap::<_, Vec<Frame>>::new();
    for path in files(state).into_iter().filter(|path| is_segment(path) || is_object(path)) {
        let Some(id) = capture_of(&path) else { continue };
        match frames(&state.join(&path)) {
            Ok(frames) => found.entry(id).or_default().extend(frames),
            Err(error) => complaints.push(error),
        }
    }
    found
}

/// Whether the history's ring has it, or not yet; none if it is no file of the history.
fn in_history(path: &Path) -> Option<bool> {
    let below = path.strip_prefix("spool/history").ok()?;
    Some(below.components().count() == 1)
}

/// What stands on the spool's quota, as it counts itself at a start; and whether all of it is idle or none is mapped, so that
/// the number is exact.
pub fn quota_bytes(state: &Path) -> (u64, bool) {
    let (mut sum, mut pooled, mut of_captures) = (0, false, false);
    for path in files(state) {
        let bytes = std::fs::metadata(state.join(&path)).map_or(0, |meta| meta.len());
        if path.starts_with("spool/.pool") {
            (sum, pooled) = (sum + bytes, true);
        } else if (capture_of(&path).is_some() || in_history(&path) == Some(false))
            && (name(&path).ends_with(".pcap") || name(&path).ends_with(".open"))
            && path.starts_with("spool")
        {
            (sum, of_captures) = (sum + bytes, true);
        }
    }
    (sum, !(pooled && of_captures))
}

/// What must not be there once everything is delivered, but for the captures that `kept` names.
pub fn leftovers(state: &Path, kept: &[CaptureId]) -> Vec<PathBuf> {
    let mut found = files(state);
    found.retain(|path| {
        let ends = |ends: &[&str]| ends.iter().any(|end| name(path).ends_with(end));
        let kept = capture_of(path).is_some_and(|id| kept.contains(&id));
        // Of a capture that is kept, open segments too: `trawl recover` reads them.
        let temporary = ends(&[".part", ".pcap.copy", ".half", ".tmp"])
            || ends(&[".open", ".len"]) && !kept
            || name(path).starts_with(".part-");
        let own = path == Path::new("jobs")
            || path.starts_with("spool/.pool")
            || path.starts_with("spool/history") && !name(path).starts_with('.')
            || path.parent() == Some(Path::new("spool")) && name(path).starts_with('.')
            || (path.starts_with("bucket") || path.starts_with("simple")) && name(path).starts_with("pcap_")
            // What a look back leaves that dies is removed with the files of its time.
            || path.starts_with("simple") && name(path).starts_with(".pcap_")
            || path.starts_with("spool") && kept;
        temporary || !own
    });
    found
}
