//! What of a broken segment is whole. Owns the walk over a file's records; not what is done with the answer.
//!
//! Invariant: nothing after the first record that is not wholly inside the given length, or cannot be one of this segment, is
//! counted.

use crate::limits::{FULL_SNAPLEN, PCAP_FILE_HEADER_BYTES, PCAP_RECORD_HEADER_BYTES};
use crate::pcap::format::MAGIC_NS;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

/// The whole records at the head of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Length of the file up to the end of the last whole record; zero if not even the file header is there.
    pub bytes: u64,
    /// Whole records.
    pub packets: u64,
    /// Frame bytes in them.
    pub frame_bytes: u64,
    /// Time of the first one, ns since the UNIX epoch.
    pub first_ns: u64,
    /// Time of the last one.
    pub last_ns: u64,
}

/// Walks the first `bytes` bytes of a segment that the workers wrote: little-endian, nanosecond, classic pcap. A record that
/// is older than the one before it is not of this segment: times never decrease within a stream.
///
/// # Errors
/// When the file cannot be read.
pub fn whole_records(file: &File, bytes: u64) -> io::Result<Salvaged> {
    whole_records_since(file, bytes, 0)
}

/// As [`whole_records`]; a record from before `since_ns`, ns since the UNIX epoch, is not of this segment either.
pub(super) fn whole_records_since(mut file: &File, bytes: u64, since_ns: u64) -> io::Result<Salvaged> {
    file.rewind()?;
    let mut reader = BufReader::with_capacity(1 << 20, file).take(bytes);
    let mut found = Salvaged::default();
    let mut file_header = [0; PCAP_FILE_HEADER_BYTES];
    match reader.read_exact(&mut file_header) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(found),
        read => read?,
    }
    // Bytes that were allocated and never written have no records either.
    if file_header[..4] != MAGIC_NS.to_le_bytes() {
        return Ok(found);
    }
    found.bytes = PCAP_FILE_HEADER_BYTES as u64;
    let mut header = [0; PCAP_RECORD_HEADER_BYTES];
    loop {
        match reader.read_exact(&mut header) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(found),
            Err(e) => return Err(e),
        }
        let word = |i: usize| {
            u64::from(u32::from_le_bytes([
                header[4 * i],
                header[4 * i + 1],
                header[4 * i + 2],
                header[4 * i + 3],
            ]))
        };
        let (seconds, nanos, captured, wire) = (word(0), word(1), word(2), word(3));
        // A zero second cannot be a time stamp of ours: these are bytes that were allocated and never written.
        let ns = seconds * 1_000_000_000 + nanos;
        let possible = seconds != 0 && nanos < 1_000_000_000 && captured <= wire.min(u64::from(FULL_SNAPLEN));
        if !possible || ns < found.last_ns.max(since_ns) || !skip(&mut reader, captured)? {
            return Ok(found);
        }
        found.bytes += PCAP_RECORD_HEADER_BYTES as u64 + captured;
        found.packets += 1;
        found.frame_bytes += captured;
        found.last_ns = ns;
        if found.packets == 1 {
            found.first_ns = found.last_ns;
        }
    }
}

fn skip(reader: &mut impl Read, bytes: u64) -> io::Result<bool> {
    Ok(io::copy(&mut reader.take(bytes), &mut io::sink())? == bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_cut_record_and_unwritten_bytes_are_left_out() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&crate::pcap::file_header(160)).unwrap();
        for n in 1..=3_u32 {
            for word in [n, 5, 100, 100] {
                file.write_all(&word.to_le_bytes()).unwrap();
            }
            file.write_all(&[0xab; 100]).unwrap();
        }
        let whole = (24 + 3 * 116) as u64;
        file.write_all(&[0; 500]).unwrap();
        let walk = |bytes| whole_records(&file, bytes).unwrap();
        let all = Salvaged {
            bytes: whole,
            packets: 3,
            frame_bytes: 300,
            first_ns: 1_000_000_005,
            last_ns: 3_000_000_005,
        };
        assert_eq!(walk(whole + 500), all);
        assert_eq!(walk(whole), all);
        assert_eq!(walk(whole - 1).packets, 2);
        assert_eq!(walk(whole - 1).bytes, whole - 116);
        assert_eq!(walk(23), Salvaged::default());
    }
}
