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

#[test]
fn a_simple_capture_is_fetched_only_by_a_manifest_that_the_key_vouches_for() {
    let dir = tempfile::tempdir().unwrap();
    let key = |name: &str| crate::deliver::SigningKey::create(&dir.path().join(name)).unwrap();
    let (own, other) = (key("own"), key("other"));
    let id = CaptureId::random();
    let manifest = |objects: Vec<ObjectInfo>| Manifest { objects, ..crate::deliver::empty_manifest(&id) };
    let signed = |manifest: &Manifest, key: &crate::deliver::SigningKey| {
        let text = String::from_utf8(manifest.to_json().unwrap()).unwrap();
        let signature = Some(STANDARD.encode(key.sign(text.as_bytes())));
        SignedManifest { text, signature }
    };
    let name = crate::deliver::object_name(&PartId::alone(&id), 0, ObjectFormat::default());
    let packets = ObjectInfo { name, ..object(b"packets") };
    let right = signed(&manifest(vec![packets.clone()]), &own);
    let ask = |signed: &SignedManifest, id: &CaptureId| vouched(signed, (id.as_str(), None), &own.public());
    assert_eq!(ask(&right, &id).unwrap(), packets);
    let forged = signed(&manifest(vec![packets]), &other);
    assert!(matches!(ask(&forged, &id), Err(FetchError::Signature(Finding::Signature { .. }))));
    let changed = SignedManifest { text: right.text.replace(':', " :"), signature: right.signature.clone() };
    assert!(matches!(ask(&changed, &id), Err(FetchError::Signature(Finding::Signature { .. }))));
    let unsigned = SignedManifest { text: right.text.clone(), signature: None };
    assert!(matches!(ask(&unsigned, &id), Err(FetchError::Signature(Finding::Unsigned { .. }))));
    assert!(matches!(ask(&right, &CaptureId::random()), Err(FetchError::Manifest(_))), "of another capture");
    assert!(matches!(ask(&signed(&manifest(Vec::new()), &own), &id), Err(FetchError::Nothing(_))));
    let account = vouched(&right, (id.as_str(), Some("somebody")), &own.public());
    let is_of = crate::deliver::empty_manifest(&id).account.is_some();
    assert_eq!(matches!(account, Err(FetchError::Account { .. })), is_of);
}
