//! The parser against a description of the frame, against etherparse, and against bytes that mean nothing.

use super::frames::{Facts, Frame, Ip, frame};
use super::{Key, flags};
use etherparse::{Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket};
use proptest::prelude::*;

fn key(bytes: &[u8]) -> Key {
    Key::parse(bytes, bytes.len() as u32)
}

/// What etherparse finds; none where it stops or knows a header that it does not look through.
fn reference(bytes: &[u8]) -> Option<Facts> {
    let packet = LaxSlicedPacket::from_ethernet(bytes).ok()?;
    let ether_type = packet.ether_payload()?.ether_type.0;
    let (source, destination, protocol, offset, fragment, payload) = match packet.net.as_ref()? {
        // etherparse goes by the version alone.
        LaxNetSlice::Ipv4(_) if ether_type != 0x0800 => return None,
        LaxNetSlice::Ipv6(_) if ether_type != 0x86dd => return None,
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let offset = header.fragments_offset().value();
            // etherparse takes the whole frame where the length is shorter than the header that it is in.
            if header.total_len() > 0 && usize::from(header.total_len()) < header.slice().len() {
                return None;
            }
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                header.protocol().0,
                offset,
                header.more_fragments() || offset > 0,
                ip.payload().payload,
            )
        }
        LaxNetSlice::Ipv6(ip) => {
            let (mut offset, mut fragment) = (0, false);
            for extension in ip.extensions().clone() {
                // etherparse goes on through a later fragment's data as if it were headers.
                if offset > 0 {
                    return None;
                }
                if let Ipv6ExtensionSlice::Fragment(header) = extension {
                    offset = header.fragment_offset().value();
                    fragment |= header.more_fragments() || offset > 0;
                }
            }
            let number = ip.payload().ip_number;
            if matches!(number.0, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
                return None;
            }
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            (source.into(), destination.into(), number.0, offset, fragment, ip.payload().payload)
        }
        LaxNetSlice::Arp(_) => return Some(Facts::default()),
    };
    let ports = payload.first_chunk::<4>().filter(|_| offset == 0 && [6, 17, 132].contains(&protocol));
    Some(Facts {
        source: Some(source),
        destination: Some(destination),
        protocol: Some(protocol),
        ports: ports.map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))),
        fragment,
    })
}

/// Whether etherparse read every header up to the transport's without a complaint.
fn is_read_by_reference(bytes: &[u8]) -> bool {
    LaxSlicedPacket::from_ethernet(bytes)
        .is_ok_and(|packet| packet.stop_err.is_none() && packet.net.is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_frame_is_read_as_it_was_written(frame in frame()) {
        let bytes = frame.bytes();
        let key = key(&bytes);
        prop_assert_eq!(Facts::from(&key), frame.facts());
        prop_assert_eq!(&key.0[40..44], &(bytes.len() as u32).to_be_bytes());
    }

    #[test]
    fn a_frame_is_read_as_etherparse_reads_it(frame in frame()) {
        let bytes = frame.bytes();
        if is_read_by_reference(&bytes) && let Some(expected) = reference(&bytes) {
            prop_assert_eq!(Facts::from(&key(&bytes)), expected);
        }
    }

    #[test]
    fn damaged_frames_are_read_as_etherparse_reads_them(
        frame in frame(),
        damage in prop::collection::vec((0_usize..80, any::<u8>()), 0..3),
        keep in 0_usize..160,
    ) {
        let mut bytes = frame.bytes();
        for (at, byte) in damage {
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
        }
        bytes.truncate(keep);
        if is_read_by_reference(&bytes) && let Some(expected) = reference(&bytes) {
            prop_assert_eq!(Facts::from(&key(&bytes)), expected);
        }
    }

    #[test]
    fn a_shorter_head_tells_less_and_nothing_else(frame in frame()) {
        let bytes = frame.bytes();
        let whole = key(&bytes);
        for keep in 0..bytes.len() {
            let cut = Key::parse(&bytes[..keep], bytes.len() as u32);
            prop_assert_eq!(cut.flags() & !whole.flags(), 0, "cut at {}", keep);
            for (cut, whole) in cut.0.iter().zip(&whole.0).take(37) {
                prop_assert!(*cut == 0 || cut == whole, "cut at {}", keep);
            }
        }
    }
}

/// What every key keeps, whatever the frame.
fn assert_unflagged_is_zero(key: &Key) {
    let has = |flag| key.flags() & flag != 0;
    assert!(!(has(flags::IPV4) && has(flags::IPV6)));
    assert!(has(flags::IPV4) || has(flags::IPV6) || key.0[..40] == [0; 40]);
    assert!(has(flags::PORTS) || key.0[32..36] == [0; 4]);
    assert!(has(flags::PROTOCOL) || (key.0[36] == 0 && !has(flags::PORTS)));
    assert_eq!(key.0[38..40], [0; 2]);
    assert_eq!(key.0[44..], [0; 20]);
}

#[test]
fn no_bytes_make_it_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // The bytes that lead into the deeper headers.
    let starts: [&[u8]; 6] = [
        &[],
        &[0x08, 0x00, 0x45],
        &[0x08, 0x00],
        &[0x86, 0xdd, 0x60],
        &[0x81, 0x00],
        &[0x91, 0x00, 0, 1, 0x86, 0xdd],
    ];
    let next_headers = [0_u8, 6, 17, 43, 44, 50, 51, 60, 132, 135, 139, 140];
    for _ in 0..200_000 {
        let mut bytes: Vec<u8> = (0..16).flat_map(|_| random().to_le_bytes()).collect();
        let start = starts[random() as usize % starts.len()];
        bytes[12..12 + start.len()].copy_from_slice(start);
        for at in [20, 23, 54, 62, 70, 78] {
            if random() % 4 != 0 {
                bytes[at] = next_headers[random() as usize % next_headers.len()];
                bytes[at + 1] &= 3;
            }
        }
        bytes.truncate(random() as usize % (bytes.len() + 1));
        assert_unflagged_is_zero(&key(&bytes));
    }
}

#[test]
fn padding_of_the_link_is_not_taken_for_ports() {
    let ip = Ip::V4 {
        source: [192, 0, 2, 1].into(),
        destination: [192, 0, 2, 2].into(),
        option_words: 0,
        offset: 0,
        more: false,
    };
    let mut bytes = Frame { vlans: vec![], ip: Some(ip), protocol: 17, ports: (1, 2) }.bytes();
    assert_eq!(Facts::from(&key(&bytes)).ports, Some((1, 2)));
    bytes[16..18].copy_from_slice(&23_u16.to_be_bytes());
    assert_eq!(Facts::from(&key(&bytes)).ports, None);
    bytes[16..18].copy_from_slice(&0_u16.to_be_bytes());
    assert_eq!(Facts::from(&key(&bytes)).ports, Some((1, 2)));
}

#[test]
fn frames_of_nothing_but_tags_or_extensions_end_the_search() {
    let tags: Vec<u8> = [2; 12].into_iter().chain([0x81, 0, 0, 1].into_iter().cycle().take(8000)).collect();
    assert_eq!(key(&tags).flags(), 0);
    let mut extensions = vec![2; 12];
    extensions.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 60, 64]);
    extensions.extend([1; 32]);
    extensions.extend([60, 0, 0, 0, 0, 0, 0, 0].into_iter().cycle().take(8000));
    assert_eq!(key(&extensions).flags(), flags::IPV6);
}

#[test]
fn a_truncated_header_leaves_its_fields_unflagged() {
    assert_eq!(key(&[]).flags(), 0);
    let mut bytes = vec![2; 12];
    bytes.extend([0x08, 0x00, 0x45]);
    bytes.resize(33, 0);
    assert_eq!(key(&bytes).flags(), 0, "19 of 20 bytes");
    bytes.push(0);
    assert_eq!(key(&bytes).flags(), flags::IPV4 | flags::PROTOCOL);
}
