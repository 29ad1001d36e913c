//! Any bytes may lie in an open segment, and any in its length file: recovery publishes whole records alone, as many as the survey
//! before it counted, a second recovery finds the same, and what it published is a capture file that is read to its end. The first
//! byte chooses what the length file says: what the input's next two bytes say, something larger, or nothing that can be trusted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use trawl::pcap::Reader;
use trawl::spool::{recover, survey};

const SNAPLEN: u32 = 262_144;
/// Nanoseconds, version 2.4, that snap length, Ethernet.
const HEADER: [u8; 24] = *b"\x4d\x3c\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\x01\0\0\0";
const NAME: &str = ".q000-00000000.pcap";

/// A length file: which run of the kernel, what was written, what was synced.
fn length_file(written: u64) -> Vec<u8> {
    let mut bytes = fs::read("/proc/sys/kernel/random/boot_id").expect("Linux has it");
    bytes.resize(36, 0);
    bytes.extend([0; 4]);
    bytes.extend(written.to_le_bytes());
    bytes.extend(written.to_le_bytes());
    bytes
}

fuzz_target!(|input: &[u8]| {
    let [choice, low, high, segment @ ..] = input else { return };
    let dir = std::env::temp_dir().join(format!("trawl-fuzz-segment-{}", std::process::id()));
    let _not_there = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("a directory can be made");
    fs::write(dir.join(format!("{NAME}.open")), segment).expect("it can be written");
    let written = u64::from(u16::from_le_bytes([*low, *high]));
    let length = match choice % 4 {
        0 => length_file(written),
        1 => length_file(u64::MAX - written),
        2 => length_file(segment.len() as u64),
        _ => segment[..segment.len().min(60)].to_vec(),
    };
    fs::write(dir.join(format!("{NAME}.len")), length).expect("it can be written");

    let before = survey(&dir, 0).expect("it can be looked at");
    let counted: u64 = before.streams.values().flatten().map(|segment| segment.found.packets).sum();
    let first = recover(&dir, SNAPLEN, &[]).expect("it can be recovered");
    let again = recover(&dir, SNAPLEN, &[]).expect("it can be recovered again");
    assert_eq!(
        (&first.streams, &first.held),
        (&again.streams, &again.held),
        "a second recovery finds the same"
    );
    let recovered: u64 = first.streams.values().flatten().map(|segment| segment.packets).sum();
    assert_eq!(recovered, counted, "as many as were counted");
    for published in first.streams.values().flatten() {
        // The header is what the writers write; recovery takes it for one.
        let mut bytes = fs::read(&published.path).expect("it is there");
        assert!(bytes.len() as u64 == published.bytes && bytes.len() <= segment.len().max(24));
        bytes[..24].copy_from_slice(&HEADER);
        let mut reader = Reader::new(&bytes[..]).expect("it is a capture file");
        let mut packets = 0;
        while reader.next_record().expect("it is whole").is_some() {
            packets += 1;
        }
        assert_eq!(packets, published.packets);
    }
    fs::remove_dir_all(&dir).expect("it is there");
});
