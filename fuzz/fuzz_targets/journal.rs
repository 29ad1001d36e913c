//! Any bytes may lie in a journal: what is read of it is a whole beginning, opening it cuts off the rest and reads the same, an entry
//! that is added then is read back behind the others, and a host that looks at the spool gets an answer. A line of the input that
//! begins with `+` gets the checksum that belongs to it, and one that begins with `*` becomes an entry with numbers of its bytes, so
//! that what stands behind the checksum is met too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use std::path::Path;
use trawl::deliver::journal::Journal;
use trawl::deliver::orphan::Orphan;
use trawl::job::CaptureId;

/// CRC-32C, bit by bit: none of the code under test.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1));
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// An entry whose numbers are the bytes, eight for each.
fn entry(bytes: &[u8]) -> Vec<u8> {
    let mut numbers =
        bytes.chunks(8).map(|chunk| chunk.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)));
    let mut next = || numbers.next().unwrap_or(1);
    let object = serde_json::json!({
        "name": "o.pcap", "bytes": next(), "packets": next(), "first_ns": next(), "last_ns": next(), "sha256": "",
    });
    let cut = serde_json::json!({"sequence": next(), "offset": next()});
    serde_json::json!({"object": object, "cuts": [cut], "is_last": next() == 0}).to_string().into_bytes()
}

fn journal(input: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        let json = match bare.split_first() {
            Some((b'+', json)) => json.to_owned(),
            Some((b'*', numbers)) => entry(numbers),
            _ => {
                text.extend(line);
                continue;
            }
        };
        text.extend(format!("{:08x} ", crc32c(&json)).into_bytes());
        text.extend(json);
        text.push(b'\n');
    }
    text
}

fn check(dir: &Path, input: &[u8]) {
    let path = dir.join(".journal");
    let text = journal(input);
    fs::write(&path, &text).expect("it can be written");
    let id = CaptureId::parse("0123456789abcdef0123456789abcdef").expect("it is an id");
    let _an_answer = Orphan::look(id, vec![dir.to_path_buf()]);
    let Ok(read) = Journal::read(dir) else { return };
    let Ok(mut opened) = Journal::open(dir) else { return };
    assert_eq!(Journal::read(dir).expect("it is readable"), read, "opening changes nothing");
    let Some(entry) = read.first().cloned() else { return };
    opened.append(entry.clone()).expect("an entry can be added");
    drop(opened);
    let again = Journal::read(dir).expect("it is readable");
    assert!(again.contains(&entry), "what was added is there");
}

fuzz_target!(|input: &[u8]| {
    let dir = std::env::temp_dir().join(format!("trawl-fuzz-journal-{}", std::process::id()));
    let _not_there = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).expect("a directory can be made");
    check(&dir, input);
    fs::remove_dir_all(&dir).expect("it is there");
});
