//! Any bytes may be called a capture file, compressed or not: they are read to an end or an error, in bounded memory, and
//! what was read is never more than what is there. A tolerant reader gets at least as far as an exact one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Read;
use trawl::pcap::{Oddity, Reader, Tolerance, Unpacked};

/// Bytes that are unpacked at most: what little input can become.
const CONTENT_BYTES_MAX: u64 = 16 << 20;

fuzz_target!(|input: &[u8]| {
    let Ok(unpacked) = Unpacked::new(input) else { return };
    let is_plain = matches!(unpacked, Unpacked::Plain(_));
    let mut content = Vec::new();
    let _as_far_as_it_goes = unpacked.take(CONTENT_BYTES_MAX).read_to_end(&mut content);
    let exact = read(Reader::with_buffer(&content[..], 0), is_plain.then_some(input.len()));
    for copies_blocks in [false, true] {
        let reader = Reader::tolerant(&content[..], 0, Tolerance { copies_blocks });
        let tolerant = read(reader, is_plain.then_some(input.len()));
        let (Some((exact, _)), Some((tolerant, zero_tail))) = (exact, tolerant) else { continue };
        // What an exact reader takes for records of nothing is the tail of a preallocated file.
        assert!(tolerant + zero_tail / 16 >= exact, "{tolerant} records, {zero_tail} zeros, {exact} records");
    }
});

/// Records, and zero bytes behind them; none if it is no capture file.
fn read<R: Read, E>(reader: Result<Reader<R>, E>, bytes_max: Option<usize>) -> Option<(u64, u64)> {
    let mut reader = reader.ok()?;
    let (mut records, mut bytes) = (0, 0);
    while let Ok(Some(record)) = reader.next_record() {
        assert!(record.data.len() <= record.wire_len as usize);
        records += 1;
        bytes += record.data.len();
    }
    assert_eq!(reader.records(), records);
    assert!(bytes_max.is_none_or(|bytes_max| bytes <= bytes_max));
    Some((records, reader.oddities().count(Oddity::ZeroTail)))
}
