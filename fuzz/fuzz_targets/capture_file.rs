//! Any bytes may be called a capture file, compressed or not: they are read to an end or an error, in bounded memory, and
//! what was read is never more than what is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trawl::pcap::{Reader, Unpacked};

/// Bytes that are unpacked at most: what little input can become.
const CONTENT_BYTES_MAX: u64 = 16 << 20;

fuzz_target!(|input: &[u8]| {
    let Ok(unpacked) = Unpacked::new(input) else { return };
    let is_plain = matches!(unpacked, Unpacked::Plain(_));
    let content = std::io::Read::take(unpacked, CONTENT_BYTES_MAX);
    let Ok(mut reader) = Reader::with_buffer(content, 0) else { return };
    let (mut records, mut bytes) = (0, 0);
    while let Ok(Some(record)) = reader.next_record() {
        assert!(record.data.len() <= record.wire_len as usize);
        records += 1;
        bytes += record.data.len();
    }
    assert_eq!(reader.records(), records);
    assert!(!is_plain || bytes <= input.len());
});
