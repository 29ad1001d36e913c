//! What a reader gets of an object that is not the one of its manifest.

use super::*;

fn object(bytes: &[u8]) -> ObjectInfo {
    let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ObjectInfo {
        name: "pcap_x.pcap".to_owned(),
        bytes: bytes.len() as u64,
        packets: 0,
        frame_bytes: None,
        first_ns: 0,
        last_ns: 0,
        sha256,
        content: None,
    }
}

/// What a reader of `held` gets of an object that must be `expected`, and whether it was found right.
fn read(held: &[u8], expected: &[u8]) -> (Result<Vec<u8>, String>, usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let mut checked = Checked::new(held, &object(expected), Arc::clone(&count));
    let mut bytes = Vec::new();
    let read = checked.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.to_string());
    (read, count.load(SeqCst))
}

#[test]
fn an_object_ends_well_only_with_the_bytes_of_its_manifest() {
    assert_eq!(read(b"packets", b"packets"), (Ok(b"packets".to_vec()), 1));
    for (held, words) in [
        (&b"packetz"[..], "its SHA-256 is"),
        (b"packet", "it ends 1 bytes early"),
        (b"packets!", "longer"),
        (b"", "7 bytes early"),
    ] {
        let (read, count) = read(held, b"packets");
        let error = read.unwrap_err();
        assert!(error.contains(words) && error.contains("not the object of the manifest"), "{error}");
        assert_eq!(count, 0);
    }
}
