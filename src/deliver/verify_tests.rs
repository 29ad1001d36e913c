//! A whole capture passes; every single fault is found and named.

use super::*;
use crate::deliver::manifest::tests::empty;
use crate::deliver::object_name;
use crate::job::{CaptureId, Ledger};
use crate::pcap::ObjectFormat;
use crate::pcap::Writer;
use tempfile::TempDir;

/// Ethernet (<https://www.tcpdump.org/linktypes.html>).
const ETHERNET: u16 = 1;

struct Capture {
    dir: TempDir,
    manifest: Manifest,
}

impl Capture {
    /// A capture with one object per list of packet times, each packet of 60 bytes.
    fn of(objects: &[&[u64]]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = empty(&CaptureId::random());
        for (index, times) in (0u32..).zip(objects) {
            let mut writer = Writer::new(Vec::new(), 262_144, ETHERNET).unwrap();
            for ns in *times {
                writer.write(*ns, 1500, &[0xab; 60]).unwrap();
            }
            let bytes = writer.finish().unwrap();
            let name = object_name(&manifest.part(), index, ObjectFormat::default());
            fs::write(dir.path().join(&name), &bytes).unwrap();
            manifest.objects.push(ObjectInfo {
                name,
                bytes: bytes.len() as u64,
                packets: times.len() as u64,
                first_ns: times.first().copied().unwrap_or(0),
                last_ns: times.last().copied().unwrap_or(0),
                sha256: Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
                ..ObjectInfo::default()
            });
        }
        let packets = objects.iter().map(|times| times.len() as u64).sum();
        manifest.ledger = Ledger {
            offered: packets + 3,
            rx: packets + 3,
            unmatched: 3,
            matched: packets,
            captured: packets,
            captured_bytes: 60 * packets,
            ..Ledger::default()
        };
        Self { dir, manifest }
    }

    /// The same, compressed.
    fn packed(mut self) -> Self {
        self.manifest.compression = Compression::Zstd;
        for object in &mut self.manifest.objects {
            let content = fs::read(self.dir.path().join(&object.name)).unwrap();
            fs::remove_file(self.dir.path().join(&object.name)).unwrap();
            let bytes = zstd::bulk::compress(&content, 3).unwrap();
            object.content = Some(crate::pcap::Content {
                bytes: object.bytes,
                sha256: std::mem::replace(&mut object.sha256, hex(Sha256::new_with_prefix(&bytes))),
            });
            (object.bytes, object.frame_bytes) = (bytes.len() as u64, Some(60 * object.packets));
            object.name += ".zst";
            fs::write(self.dir.path().join(&object.name), bytes).unwrap();
        }
        self
    }

    fn object(&self, index: usize) -> PathBuf {
        self.dir.path().join(&self.manifest.objects[index].name)
    }

    fn verify(&self) -> Verified {
        let path = self.dir.path().join(manifest_name(&self.manifest.part()));
        fs::write(&path, self.manifest.to_json().unwrap()).unwrap();
        verify(&path, &mut |_| ()).unwrap()
    }

    fn findings(&self) -> Vec<String> {
        self.verify().findings.iter().map(Finding::to_string).collect()
    }
}

#[track_caller]
fn assert_found(findings: &[String], words: &[&str]) {
    assert!(
        findings.iter().any(|text| words.iter().all(|word| text.contains(word))),
        "{words:?} not in {findings:?}"
    );
}

#[test]
fn a_whole_capture_has_no_findings() {
    for objects in [&[&[5, 6, 6][..], &[6, 9][..]][..], &[&[][..]][..], &[][..]] {
        let capture = Capture::of(objects);
        let verified = capture.verify();
        assert!(verified.findings.is_empty(), "{:?}", verified.findings);
        assert_eq!(verified.packets, capture.manifest.ledger.captured);
    }
}

#[test]
fn every_byte_of_an_object_counts() {
    let capture = Capture::of(&[&[5, 6]]);
    let path = capture.object(0);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        assert_found(&capture.findings(), &[&capture.manifest.objects[0].name, "sha256"]);
    }
    for len in 0..good.len() {
        fs::write(&path, &good[..len]).unwrap();
        assert_found(&capture.findings(), &[&capture.manifest.objects[0].name, "size in bytes"]);
    }
    let longer = [&good[..], &[0]].concat();
    fs::write(&path, &longer).unwrap();
    assert_found(&capture.findings(), &["size in bytes"]);
}

#[test]
fn missing_foreign_and_odd_files_are_named() {
    let capture = Capture::of(&[&[5], &[6]]);
    let foreign = object_name(&capture.manifest.part(), 2, ObjectFormat::default());
    fs::write(capture.dir.path().join(&foreign), "x").unwrap();
    fs::write(capture.dir.path().join("pcap_of_somebody_else.pcap"), "x").unwrap();
    assert_eq!(capture.findings(), [format!("{foreign}: is not in the manifest")]);
    fs::remove_file(capture.object(1)).unwrap();
    assert_found(&capture.findings(), &[&capture.manifest.objects[1].name, "missing"]);
    assert_found(&capture.findings(), &["hold 1 packets", "says 2"]);
    fs::create_dir(capture.object(1)).unwrap();
    assert_found(&capture.findings(), &[&capture.manifest.objects[1].name, "not a regular file"]);
}

#[test]
fn time_runs_forward_within_and_across_objects() {
    let capture = Capture::of(&[&[5, 9, 7, 8, 3], &[8]]);
    let findings = capture.findings();
    assert_found(&findings, &["2 packets are older", "first packet 3"]);
    assert_found(&findings, &["begins at 8 ns", "at 9 ns"]);
    assert_eq!(findings.len(), 2);
}

#[test]
fn the_ledger_is_held_against_itself_and_against_the_objects() {
    let mut capture = Capture::of(&[&[5, 6]]);
    capture.manifest.ledger.captured += 1;
    let findings = capture.findings();
    assert_found(&findings, &["hold 2 packets", "says 3"]);
    assert_found(&findings, &["matched = captured + dropped"]);
    let mut capture = Capture::of(&[&[5, 6]]);
    capture.manifest.ledger.captured_bytes -= 1;
    assert_found(&capture.findings(), &["hold 120 frame bytes", "says 119"]);
    let mut capture = Capture::of(&[&[5, 6]]);
    capture.manifest.objects[0].packets = 1;
    capture.manifest.objects[0].first_ns = 4;
    capture.manifest.objects[0].last_ns = 7;
    for words in ["number of packets is 2", "first packet's time in ns is 5", "last packet's time in ns is 6"]
    {
        assert_found(&capture.findings(), &[words]);
    }
}

#[test]
fn without_a_manifest_nothing_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pcap_x.json");
    assert!(matches!(verify(&path, &mut |_| ()), Err(VerifyError::Read { .. })));
    fs::write(&path, "{}").unwrap();
    assert!(matches!(verify(&path, &mut |_| ()), Err(VerifyError::Manifest { .. })));
}

#[test]
fn those_who_watch_see_every_byte_and_object() {
    let capture = Capture::of(&[&[5, 6], &[7]]);
    capture.verify();
    let (mut total, mut read, mut objects) = (0, 0, 0);
    let path = capture.dir.path().join(manifest_name(&capture.manifest.part()));
    verify(&path, &mut |step| match step {
        Step::Begin(bytes) => total = bytes,
        Step::Read(bytes) => read += bytes,
        Step::Object(_, findings) => objects += usize::from(findings.is_empty()),
    })
    .unwrap();
    assert_eq!((read, objects), (total, 2));
}

#[test]
fn a_signature_is_asked_for_with_a_key_and_must_be_of_this_manifest() {
    let capture = Capture::of(&[&[5, 6]]);
    let key = crate::deliver::SigningKey::create(&capture.dir.path().join("key.pem")).unwrap();
    let part = &capture.manifest.part();
    let (path, sig) =
        (capture.dir.path().join(manifest_name(part)), capture.dir.path().join(signature_name(part)));
    fs::write(&path, capture.manifest.to_json().unwrap()).unwrap();
    let findings = |key: &PublicKey| -> Vec<String> {
        verify_file(&path, Some(key), &mut |_| ()).unwrap().findings.iter().map(Finding::to_string).collect()
    };
    assert_found(&findings(&key.public()), &[".sig", "not signed"]);
    fs::write(&sig, key.sign(&fs::read(&path).unwrap())).unwrap();
    assert!(findings(&key.public()).is_empty());
    assert!(capture.findings().is_empty(), "without a key the signature is no foreign file");
    let other = crate::deliver::SigningKey::create(&capture.dir.path().join("other.pem")).unwrap();
    assert_found(&findings(&other.public()), &["do not trust"]);
    let json = String::from_utf8(capture.manifest.to_json().unwrap()).unwrap();
    fs::write(&path, json.replace("cap1", "cap2")).unwrap();
    assert_found(&findings(&key.public()), &["do not trust"]);
}

#[test]
fn a_store_is_held_to_its_manifest_as_a_directory_is() {
    let capture = Capture::of(&[&[5, 6], &[7]]);
    let name = manifest_name(&capture.manifest.part());
    fs::write(capture.dir.path().join(&name), capture.manifest.to_json().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = crate::upload::FileStore::new(capture.dir.path().to_owned());
    let bucket = Bucket { store: &store, runtime: &runtime, uri: "file:///x".to_owned() };
    let findings = || -> Vec<String> {
        let verified = verify_at(&bucket, &name, &Wanted::default(), &mut |_| ()).unwrap();
        verified.findings.iter().map(Finding::to_string).collect()
    };
    assert!(findings().is_empty());
    fs::write(
        capture.dir.path().join(object_name(&capture.manifest.part(), 2, ObjectFormat::default())),
        "x",
    )
    .unwrap();
    assert_found(&findings(), &["is not in the manifest"]);
    let good = fs::read(capture.object(0)).unwrap();
    fs::write(capture.object(0), &good[..good.len() - 1]).unwrap();
    assert_found(&findings(), &["size in bytes"]);
    fs::remove_file(capture.object(1)).unwrap();
    assert_found(&findings(), &["missing"]);
}

#[test]
fn a_compressed_object_is_held_against_what_is_stored_and_against_what_it_unpacks_to() {
    let mut capture = Capture::of(&[&[5, 6, 7], &[7]]).packed();
    assert_eq!(capture.findings(), [""; 0]);
    let (path, bytes) = (capture.object(0), fs::read(capture.object(0)).unwrap());
    let name = capture.manifest.objects[0].name.clone();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        fs::write(&path, flipped).unwrap();
        assert_found(&capture.findings(), &[&name, "sha256 is"]);
    }
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_found(&capture.findings(), &[&name, "size in bytes"]);
    fs::write(&path, &bytes).unwrap();
    capture.manifest.objects[0].content.as_mut().unwrap().bytes += 1;
    assert_found(&capture.findings(), &[&name, "unpacked size"]);
    capture.manifest.objects[0].content.as_mut().unwrap().bytes -= 1;
    capture.manifest.objects[0].content.as_mut().unwrap().sha256.replace_range(..1, "x");
    assert_found(&capture.findings(), &[&name, "unpacks to"]);
}
