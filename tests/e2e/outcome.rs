//! What a finished capture left in a folder. Owns the checks that every capture must pass.
//!
//! Invariant: an [`Outcome`] exists only if manifest, objects, ledger, `capinfos` and `trawl verify` agree.

use crate::frames;
use std::path::{Path, PathBuf};
use std::process::Command;
use trawl::deliver::Manifest;
use trawl::job::{CaptureId, ObjectInfo};

/// A capture in a folder.
pub struct Outcome {
    pub manifest: Manifest,
    /// All frames, in the order of the files, with their time stamps in ns.
    pub frames: Vec<(u64, Vec<u8>)>,
}

impl Outcome {
    /// Reads capture `id` from a folder and holds it together.
    #[track_caller]
    pub fn read(folder: &Path, id: &str) -> Self {
        let path = folder.join(format!("pcap_{id}.json"));
        let json = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let manifest = Manifest::parse(&json).unwrap();
        assert_eq!(manifest.id, CaptureId::parse(id).unwrap());
        manifest.ledger.check().unwrap();

        let mut frames = Vec::new();
        for object in &manifest.objects {
            frames.extend(read_object(&folder.join(&object.name), object));
        }
        assert_eq!(manifest.ledger.captured, frames.len() as u64);
        let bytes: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
        assert_eq!(manifest.ledger.captured_bytes, bytes as u64);
        assert!(frames.is_sorted_by_key(|(ns, _)| *ns), "packets are ordered by time over all objects");
        verify(&path);
        Self { manifest, frames }
    }

    /// Only the frames.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(|(_, frame)| frame.as_slice())
    }

    /// Holds that nothing was lost for want of speed or room: only the capture's own limit left frames out.
    #[track_caller]
    pub fn assert_lossless(&self) {
        let ledger = &self.manifest.ledger;
        assert_eq!(ledger.dropped.total(), ledger.dropped.limit, "{ledger:?}");
        assert_eq!(ledger.offered, ledger.rx, "{ledger:?}");
    }
}

fn read_object(path: &Path, object: &ObjectInfo) -> Vec<(u64, Vec<u8>)> {
    let bytes = path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display())).len();
    assert_eq!(bytes, object.bytes, "{}", object.name);
    let unpacked = frames::unpack(path);
    let path = unpacked.as_ref().map_or(path, |(_folder, path)| path.as_path());
    assert_eq!(unpacked.is_some(), object.content.is_some(), "{}", object.name);
    if let Some(content) = &object.content {
        assert_eq!(path.metadata().unwrap().len(), content.bytes, "{}", object.name);
    }
    assert_eq!(frames::capinfos_packets(path), object.packets, "{}", object.name);
    let frames = frames::read(path);
    assert_eq!(frames.len() as u64, object.packets, "{}", object.name);
    let stamp = |frame: Option<&(u64, Vec<u8>)>| frame.map_or(0, |(ns, _)| *ns);
    assert_eq!(
        (stamp(frames.first()), stamp(frames.last())),
        (object.first_ns, object.last_ns),
        "{}",
        object.name
    );
    frames
}

/// `trawl verify`, as a customer runs it.
#[track_caller]
fn verify(manifest: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_trawl")).arg("verify").arg(manifest).output().unwrap();
    assert!(output.status.success(), "trawl verify: {}", String::from_utf8_lossy(&output.stderr));
}

/// All files below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}
