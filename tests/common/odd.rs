//! Frames that ways through a kernel change or lose: what comes of each is compared byte by byte. Owns their bytes.
//!
//! Invariant: no two frames are equal, and a veth pair with an MTU of 9000 carries each.

/// IEEE 802's ethertype for experiments: no kernel sends or answers it.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
const IPV4: [u8; 2] = [0x08, 0x00];

/// A mix of them; `round` tells those of one call from those of another.
pub fn odd_frames(round: u32) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (n, bytes) in [0, 1, 5, 45, 46, 47, 1000, 1500, 8000, 8986].into_iter().enumerate() {
        frames.push(ethernet(&EXPERIMENT, &filler(round, n, bytes)));
    }
    let inner = ethernet(&EXPERIMENT, &filler(round, 20, 100));
    for tags in [
        &[(0x8100, 7)][..],
        &[(0x88a8, 7)],
        &[(0x8100, 0xf00a)],
        &[(0x8100, 0)],
        &[(0x88a8, 100), (0x8100, 7)],
        &[(0x8100, 100), (0x8100, 7)],
        &[(0x88a8, 100), (0x88a8, 7)],
        &[(0x9100, 100), (0x8100, 7)],
        &[(0x88a8, 1), (0x8100, 2), (0x8100, 3)],
    ] {
        frames.push(tagged(&inner, tags));
    }
    // A length in place of an ethertype: 802.3 with LLC (a spanning tree's), and with SNAP.
    frames.push(ethernet(&[0, 38], &[&[0x42, 0x42, 3][..], &filler(round, 30, 43)].concat()));
    frames.push(ethernet(&[0, 60], &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &filler(round, 31, 52)].concat()));
    // A datagram in three fragments, one of which is its end, and one fragment that lacks the others.
    let payload = filler(round, 40, 4000);
    for (at, part) in payload.chunks(1480).enumerate() {
        let more = (at + 1) * 1480 < payload.len();
        frames.push(ipv4(round, (at * 1480 / 8) as u16 | u16::from(more) << 13, 17, part, 0));
    }
    frames.push(ipv4(round ^ 0x5555, 185 | 1 << 13, 17, &filler(round, 41, 1480), 0));
    // The same in a tag, and with a wrong checksum in the header.
    frames.push(tagged(&ipv4(round ^ 0x3333, 1 << 13, 17, &filler(round, 42, 800), 0), &[(0x8100, 9)]));
    frames.push(ipv4(round, 0, 6, &filler(round, 43, 400), 0x1234));
    // Segments of one TCP stream, one behind the other: what GRO joins.
    for segment in 0..8_u32 {
        let payload = filler(round, 50 + segment as usize, 1000);
        frames.push(ipv4(round, 1 << 14, 6, &tcp(round, 1 + segment * 1000, &payload), 0));
    }
    frames
}

fn filler(round: u32, n: usize, bytes: usize) -> Vec<u8> {
    let mut filler = (round << 8 | n as u32).to_be_bytes().to_vec();
    filler.extend((4..bytes).map(|at| (at * 31 + n * 7 + (at >> 8)) as u8));
    filler.truncate(bytes);
    filler
}

fn ethernet(kind: &[u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    // The shortest frames differ by their source.
    frame[11] = payload.len() as u8;
    frame.extend(kind);
    frame.extend(payload);
    frame
}

fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags = tags.iter().flat_map(|(kind, tag)| [kind.to_be_bytes(), tag.to_be_bytes()].concat());
    let tags: Vec<u8> = tags.collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}

/// `spoil` is taken from the checksum.
fn ipv4(id: u32, fragment: u16, protocol: u8, payload: &[u8], spoil: u16) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend((id as u16).to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    let sum = checksum(&header).wrapping_sub(spoil);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    ethernet(&IPV4, &[header, payload.to_vec()].concat())
}

fn tcp(round: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut segment =
        [1000 + (round as u16 & 0xff), 443].iter().flat_map(|port| port.to_be_bytes()).collect::<Vec<_>>();
    segment.extend(sequence.to_be_bytes());
    segment.extend(1_u32.to_be_bytes());
    segment.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    let length = u16::try_from(segment.len()).unwrap().to_be_bytes();
    let pseudo = [&[192, 0, 2, 1, 192, 0, 2, 2, 0, 6, length[0], length[1]][..], &segment].concat();
    let sum = checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
