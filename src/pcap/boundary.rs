//! Where records begin in the middle of a classic file. Owns the guess; not its proof.
//!
//! A classic file has no marks between records. Behind an arbitrary place, a record probably begins where [`CHAIN`] possible
//! headers follow one another, each behind the data of the one before it, in order of time.
//!
//! Invariant: a guess is a guess. Who uses one reads the file from a place that is known, and must arrive there.

use super::classic::Classic;
use super::format::{LINK_ETHERNET, MAGIC_NS};
use super::place::word;
use crate::limits::{PCAP_FILE_HEADER_BYTES as FILE_HEADER, PCAP_RECORD_HEADER_BYTES as RECORD_HEADER};

/// Headers that must follow one another. A packet's data that looks like a header leads into the middle of other data.
const CHAIN: usize = 8;

/// The link type of a file whose header is as this program writes it.
pub(crate) fn own_link_type(header: &[u8; FILE_HEADER]) -> Option<u16> {
    let (magic, version, link) = (word(header, 0, false), word(header, 4, false), word(header, 20, false));
    (magic == MAGIC_NS && version == 0x0004_0002).then(|| u16::try_from(link).ok()).flatten()
}

/// Time and length, header included, of the record that `bytes` begins with, in a file as this program writes it. None if it is
/// cut off or no record.
pub(crate) fn own_record(bytes: &[u8]) -> Option<(u64, usize)> {
    let (ns, _, len) = Classic::own(LINK_ETHERNET).parse(bytes, 0).ok()??;
    Some((ns, RECORD_HEADER + len as usize))
}

/// Place and time of the first record in `bytes` that is not older than `ns_min`, if there is one with enough records behind it.
///
/// With a time of today `ns_min` also tells records from what begins four bytes behind each: fractions of a second taken for
/// seconds grow too, and come before 2001.
pub(crate) fn guess(bytes: &[u8], ns_min: u64) -> Option<(usize, u64)> {
    let places = 0..bytes.len().saturating_sub(RECORD_HEADER);
    places.into_iter().find_map(|at| Some((at, chained(&bytes[at..], ns_min)?)))
}

/// Time of the first of a chain of records.
fn chained(mut bytes: &[u8], ns_min: u64) -> Option<u64> {
    let (first_ns, _) = own_record(bytes)?;
    let mut ns_before = ns_min;
    for _ in 0..CHAIN {
        let (ns, len) = own_record(bytes)?;
        if ns < ns_before {
            return None;
        }
        ns_before = ns;
        bytes = bytes.get(len..)?;
    }
    Some(first_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcap::Writer;
    use proptest::prelude::*;

    /// In 2023.
    const BEGIN_NS: u64 = 1_700_000_000 * 1_000_000_000;

    /// A file, and where its records begin.
    fn file(lens: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut writer, mut places) = (Writer::new(Vec::new(), 262_144, 1).unwrap(), Vec::new());
        let mut at = FILE_HEADER;
        for (number, len) in lens.iter().enumerate() {
            let data: Vec<u8> = (0..*len).map(|i| (i * 31 + number) as u8).collect();
            writer.write(BEGIN_NS + number as u64 * 1000, *len as u32, &data).unwrap();
            places.push(at);
            at += RECORD_HEADER + len;
        }
        (writer.finish().unwrap(), places)
    }

    proptest! {
        #[test]
        fn a_record_is_found_behind_any_place_that_has_enough_of_them_behind_it(
            lens in prop::collection::vec(0..1500_usize, CHAIN + 1..60),
            from: prop::sample::Index,
        ) {
            let (bytes, places) = file(&lens);
            let from = from.index(bytes.len());
            let found = guess(&bytes[from..], BEGIN_NS).map(|(at, ns)| (from + at, ns));
            let number = places.partition_point(|place| *place < from);
            if number + CHAIN <= places.len() {
                prop_assert_eq!(found, Some((places[number], BEGIN_NS + number as u64 * 1000)));
            } else {
                prop_assert_eq!(found, None);
            }
        }
    }

    #[test]
    fn a_header_is_own_only_as_this_program_writes_it() {
        let header = crate::pcap::file_header(262_144);
        assert_eq!(own_link_type(&header), Some(1));
        for at in [0, 4, 6, 22, 23] {
            let mut other = header;
            other[at] ^= 0x10;
            assert_eq!(own_link_type(&other), None, "{at}");
        }
    }
}
