//! Properties of the reader and the writer together, and second opinions from Wireshark's tools where installed.

use super::format::{MAGIC_NS, MAGIC_US, RECORD_BYTES_MAX};
use super::*;
use proptest::prelude::*;
use std::io::Read;
use std::process::Command;

type Packet = (u64, u32, Vec<u8>);

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let time_ns = 0..u64::from(u32::MAX) * 1_000_000_000;
    let packet = (time_ns, 0u32..2000, prop::collection::vec(any::<u8>(), 0..200));
    prop::collection::vec(packet.prop_map(|(ns, more, data)| (ns, data.len() as u32 + more, data)), 0..40)
}

fn written(packets: &[Packet]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), 262_144, 1).unwrap();
    for (ns, wire_len, data) in packets {
        writer.write(*ns, *wire_len, data).unwrap();
    }
    writer.finish().unwrap()
}

/// Classic pcap of any kind, written naively.
fn classic(packets: &[Packet], big_endian: bool, magic: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let put = |file: &mut Vec<u8>, value: u32| {
        file.extend(if big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    };
    put(&mut file, magic);
    file.extend(if big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
    for value in [0, 0, 65535, 1] {
        put(&mut file, value);
    }
    for (ns, wire_len, data) in packets {
        let unit_ns = if magic == MAGIC_NS { 1 } else { 1000 };
        let fraction = (ns % 1_000_000_000) / unit_ns;
        for value in [(ns / 1_000_000_000) as u32, fraction as u32, data.len() as u32, *wire_len] {
            put(&mut file, value);
        }
        file.extend(data);
    }
    file
}

/// pcapng with one nanosecond interface, written naively.
fn ng(packets: &[Packet], big_endian: bool) -> Vec<u8> {
    let u32b = |value| u32_bytes(value, big_endian);
    let resolution = [&u16_bytes(9, big_endian)[..], &u16_bytes(1, big_endian), &[9, 0, 0, 0]].concat();
    let unknown = block(0x7777, &[1; 8], big_endian);
    let mut file = [section(big_endian), interface(1, 0, &resolution, big_endian), unknown].concat();
    for (ns, wire_len, data) in packets {
        let padding = vec![0; data.len().next_multiple_of(4) - data.len()];
        let fields = [0, (ns >> 32) as u32, *ns as u32, data.len() as u32, *wire_len].map(u32b);
        file.extend(block(6, &[&fields.concat()[..], data, &padding].concat(), big_endian));
    }
    file
}

fn u32_bytes(value: u32, big_endian: bool) -> [u8; 4] {
    if big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn u16_bytes(value: u16, big_endian: bool) -> [u8; 2] {
    if big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn block(kind: u32, body: &[u8], big_endian: bool) -> Vec<u8> {
    let bytes = u32_bytes(body.len() as u32 + 12, big_endian);
    [&u32_bytes(kind, big_endian)[..], &bytes, body, &bytes].concat()
}

fn section(big_endian: bool) -> Vec<u8> {
    let version = [u16_bytes(1, big_endian), [0, 0]].concat();
    block(0x0a0d_0d0a, &[&u32_bytes(0x1a2b_3c4d, big_endian)[..], &version, &[0xff; 8]].concat(), big_endian)
}

fn interface(link_type: u16, snaplen: u32, options: &[u8], big_endian: bool) -> Vec<u8> {
    let link_type = [u16_bytes(link_type, big_endian), [0, 0]].concat();
    block(1, &[&link_type[..], &u32_bytes(snaplen, big_endian), options, &[0; 4]].concat(), big_endian)
}

fn read<R: Read>(source: R) -> Result<Vec<Packet>, ReadError> {
    let mut reader = Reader::new(source)?;
    let mut packets = Vec::new();
    while let Some(record) = reader.next_record()? {
        packets.push((record.ns, record.wire_len, record.data.to_vec()));
    }
    Ok(packets)
}

/// Gives one to seven bytes a call, as a slow pipe would.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 % 7 + 1;
        let len = self.1.min(into.len());
        Read::read(&mut self.0, &mut into[..len])
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(packets in packets()) {
        let file = written(&packets);
        prop_assert_eq!(&read(&file[..]).unwrap(), &packets);
        prop_assert_eq!(&read(Trickle(&file, 0)).unwrap(), &packets);
        prop_assert_eq!(classic(&packets, false, MAGIC_NS)[24..].to_vec(), file[24..].to_vec());
    }

    #[test]
    fn every_kind_of_file_gives_the_same_packets(packets in packets(), big_endian: bool) {
        prop_assert_eq!(&read(&classic(&packets, big_endian, MAGIC_NS)[..]).unwrap(), &packets);
        prop_assert_eq!(&read(Trickle(&ng(&packets, big_endian), 0)).unwrap(), &packets);
        let whole_us: Vec<_> = packets.iter().map(|(ns, w, d)| (ns / 1000 * 1000, *w, d.clone())).collect();
        prop_assert_eq!(&read(&classic(&packets, big_endian, MAGIC_US)[..]).unwrap(), &whole_us);
    }

    #[test]
    fn a_cut_file_gives_its_whole_records_and_their_end(packets in packets(), cut in 0usize..10_000) {
        let file = written(&packets);
        let cut = cut % (file.len() + 1);
        let mut reader = match Reader::new(&file[..cut]) {
            Ok(reader) => reader,
            Err(ReadError::Truncated { records: 0, offset: 0 }) if cut < 24 => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let mut end = 24;
        for (_, _, data) in &packets {
            if end + 16 + data.len() > cut {
                break;
            }
            prop_assert_eq!(reader.next_record().unwrap().unwrap().data, &data[..]);
            end += 16 + data.len();
        }
        for _ in 0..2 {
            match reader.next_record() {
                Ok(None) => prop_assert_eq!(end, cut),
                Err(ReadError::Truncated { records, offset }) => {
                    prop_assert!(end < cut);
                    prop_assert_eq!((records, offset), (reader.records(), end as u64));
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        }
    }
}

#[test]
fn damaged_files_never_panic_nor_yield_impossible_records() {
    let packets: Vec<Packet> =
        (0..12u64).map(|i| (i << 32, 90 + i as u32, vec![i as u8; 3 * i as usize])).collect();
    let mut seeds = vec![written(&packets), classic(&packets, true, MAGIC_US)];
    seeds.extend([ng(&packets, false), ng(&packets, true)]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
    for round in 0..50_000 {
        let mut file = seeds[round % seeds.len()].clone();
        for _ in 0..=random(4) {
            let at = random(file.len());
            match random(4) {
                0 => file[at] = random(256) as u8,
                1 => file[at] = EDGES[random(EDGES.len())],
                2 => file.truncate(at.max(1)),
                _ => file.copy_within(at.., at / 2),
            }
        }
        let Ok(mut reader) = Reader::with_buffer(&file[..], 0) else { continue };
        while let Ok(Some(record)) = reader.next_record() {
            assert!(record.data.len() <= record.wire_len as usize && record.data.len() <= file.len());
        }
        assert!(reader.records() <= file.len() as u64 / 16 && reader.offset() <= file.len() as u64);
    }
}

#[test]
fn lengths_that_cannot_be_are_named_with_their_limit() {
    let mut file = written(&[(5, 60, vec![7; 60])]);
    file[24 + 8..24 + 12].copy_from_slice(&61u32.to_le_bytes());
    let error = read(&file[..]).unwrap_err();
    assert!(matches!(error, ReadError::Field { offset: 24, value: 61, limit: 60, .. }), "{error}");
    file[24 + 8..24 + 16].copy_from_slice(&[0xff; 8]);
    let error = read(&file[..]).unwrap_err();
    let limit_max = u64::from(RECORD_BYTES_MAX);
    assert!(
        matches!(error, ReadError::Field { value: 0xffff_ffff, limit, .. } if limit == limit_max),
        "{error}"
    );
}

#[test]
fn other_files_are_refused_by_their_first_bytes() {
    assert!(matches!(read(&b"PK\x03\x04 and more"[..]), Err(ReadError::Magic([b'P', b'K', 3, 4]))));
    assert!(matches!(read(&b""[..]), Err(ReadError::Truncated { records: 0, offset: 0 })));
    let mut old = written(&[]);
    old[4] = 1;
    assert!(matches!(read(&old[..]), Err(ReadError::Version { major: 1, minor: 4 })));
}

#[test]
fn a_record_of_the_largest_size_fits_the_smallest_window() {
    let packet = (1, RECORD_BYTES_MAX, vec![9; RECORD_BYTES_MAX as usize]);
    let file = written(&[(0, 60, vec![1; 60]), packet.clone()]);
    let mut reader = Reader::with_buffer(&file[..], 0).unwrap();
    reader.next_record().unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().data, packet.2);
    assert!(Writer::new(Vec::new(), 0, 1).unwrap().write(0, u32::MAX, &vec![0; packet.2.len() + 1]).is_err());
}

#[test]
fn pcapng_times_follow_their_interface_and_sections_their_byte_order() {
    let offset = [&[14, 0, 8, 0][..], &100u64.to_le_bytes()].concat();
    let half_seconds = [9, 0, 1, 0, 0x81, 0, 0, 0];
    let enhanced = |interface: u32, time: u32| {
        block(6, &[interface, 0, time, 4, 9, 0x0403_0201].map(u32::to_le_bytes).concat(), false)
    };
    let obsolete = block(2, &[1 | 7 << 16, 0, 3, 4, 9, 0x0403_0201].map(u32::to_le_bytes).concat(), false);
    let simple = block(3, &[9u32, 0x0403_0201].map(u32::to_le_bytes).concat(), false);
    let file = [
        section(false),
        interface(1, 4, &offset, false),
        interface(1, 0, &half_seconds, false),
        enhanced(0, 7),
        enhanced(1, 5),
        obsolete,
        simple,
        ng(&[(77, 9, vec![1, 2, 3, 4])], true),
    ]
    .concat();
    let packet = |ns| (ns, 9, vec![1, 2, 3, 4]);
    let times = [100_000_007_000, 2_500_000_000, 1_500_000_000, 0, 77];
    assert_eq!(read(&file[..]).unwrap(), times.map(packet));
}

#[test]
fn pcapng_of_two_link_types_is_refused_at_the_packet_that_differs() {
    let packet = |interface: u32| block(6, &[interface, 0, 1, 0, 0].map(u32::to_le_bytes).concat(), false);
    let start = [section(false), interface(101, 0, &[], false), interface(1, 0, &[], false)].concat();
    let mut reader = Reader::new(&start[..]).unwrap();
    assert_eq!((reader.link_type(), reader.next_record().unwrap()), (None, None));
    let file = [start, packet(0), packet(1)].concat();
    let mut reader = Reader::new(&file[..]).unwrap();
    assert_eq!(reader.link_type(), Some(101));
    assert!(reader.next_record().unwrap().is_some());
    let error = reader.next_record().unwrap_err();
    assert!(matches!(error, ReadError::LinkType { first: 101, found: 1, .. }), "{error}");
}

#[test]
fn wireshark_reads_what_is_written_and_we_read_what_it_writes() {
    if Command::new("tshark").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let second = 1_700_000_000_000_000_000;
    let packets: Vec<Packet> =
        (0..50u64).map(|i| (second + i * 1001, 1000, vec![i as u8; 60 + i as usize])).collect();
    let path = dir.path().join("written.pcap");
    std::fs::write(&path, written(&packets)).unwrap();
    let fields = ["-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len"];
    let tshark = Command::new("tshark").arg("-n").arg("-r").arg(&path).args(fields).output().unwrap();
    let seen = String::from_utf8(tshark.stdout).unwrap();
    let expected: String = packets
        .iter()
        .map(|(ns, wire, data)| {
            format!("{}.{:09}\t{wire}\t{}\n", ns / 1_000_000_000, ns % 1_000_000_000, data.len())
        })
        .collect();
    assert_eq!(seen, expected);
    for format in ["pcapng", "nsecpcap"] {
        let converted = dir.path().join(format);
        let status =
            Command::new("editcap").args(["-F", format]).arg(&path).arg(&converted).status().unwrap();
        assert!(status.success());
        let mut reader = Reader::open(&converted).unwrap();
        assert_eq!(reader.link_type(), Some(format::LINK_ETHERNET));
        for (ns, wire_len, data) in &packets {
            let record = reader.next_record().unwrap().unwrap();
            assert_eq!(record, Record { ns: *ns, wire_len: *wire_len, data });
        }
        assert_eq!(reader.next_record().unwrap(), None);
    }
}
