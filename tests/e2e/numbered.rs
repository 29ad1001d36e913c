//! Frames that carry a number: a source that plays them, and what of them is durable in a spool. Owns the form of a
//! numbered frame, and a reading of segments that shares no code with the spool.
//!
//! Invariant: a frame with number and queue in it has exactly the bytes that belong to them, or the test ends.

use crate::frames::write;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Frames of one round of a source.
const ROUND: u32 = 8192;
/// One frame in so many has a number; the others are not asked for.
const ONE_IN: u32 = 32;
/// UDP port of the numbered frames.
pub const PORT: u16 = 4789;
/// Numbers from 0 up to here come again and again.
pub const NUMBERS: u32 = ROUND / ONE_IN;
/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;

/// One frame in a file: when it came, on which queue, its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub ns: u64,
    pub queue: u8,
    pub number: u32,
}

fn frame(queue: u8, number: u32, port: u16) -> Vec<u8> {
    let payload = 200 + (number as usize % 7) * 64;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let length = u16::try_from(20 + 8 + payload).unwrap().to_be_bytes();
    frame.extend([0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    let udp = u16::try_from(8 + payload).unwrap().to_be_bytes();
    let port = port.to_be_bytes();
    frame.extend([port[0], port[1], port[0], port[1], udp[0], udp[1], 0, 0, queue]);
    frame.extend(number.to_be_bytes());
    let rest = HEADERS + payload - frame.len();
    frame.extend((0..rest).map(|at| (number as usize + at) as u8));
    frame
}

/// A file for each queue, to be played again and again.
pub fn sources(folder: &Path, queues: u8) -> Vec<PathBuf> {
    let source = |queue: u8| {
        let path = folder.join(format!("numbered{queue}.pcap"));
        let frames: Vec<_> = (0..ROUND)
            .map(|at| match at % ONE_IN {
                0 => frame(queue, at / ONE_IN, PORT),
                _ => frame(queue, 0, PORT + 1)[..60].to_vec(),
            })
            .collect();
        write(&path, frames.iter().map(Vec::as_slice));
        path
    };
    (0..queues).map(source).collect()
}

/// What a captured frame says, held to be wholly as it was sent.
pub fn read(ns: u64, bytes: &[u8]) -> Seen {
    let (queue, number) =
        (bytes[HEADERS], u32::from_be_bytes(bytes[HEADERS + 1..HEADERS + 5].try_into().unwrap()));
    assert!(bytes == frame(queue, number, PORT), "frame {number} of queue {queue} is not as it was sent");
    Seen { ns, queue, number }
}

/// All frames of a set of files, of which each stands there once.
pub fn read_once(frames: &[(u64, Vec<u8>)]) -> BTreeSet<Seen> {
    let seen: BTreeSet<_> = frames.iter().map(|(ns, frame)| read(*ns, frame)).collect();
    assert_eq!(seen.len(), frames.len(), "a frame is there twice");
    seen
}

/// How often a queue's next frame is not the one after the last.
pub fn gaps(frames: &BTreeSet<Seen>) -> usize {
    // In the order of the files: several frames of a queue have one time, so that the order of numbers is not theirs when
    // a round ends between them.
    let queues: BTreeSet<u8> = frames.iter().map(|seen| seen.queue).collect();
    let gaps_of = |queue: u8| {
        let mut last: Option<Seen> = None;
        let mut gaps = 0;
        let mut rest: Vec<Seen> = frames.iter().filter(|seen| seen.queue == queue).copied().collect();
        for burst in rest.chunk_by_mut(|one, other| one.ns == other.ns) {
            if burst.first().is_some_and(|seen| seen.number == 0)
                && let Some(turn) = burst.windows(2).position(|two| two[0].number + 1 != two[1].number)
            {
                burst.rotate_left(turn + 1);
            }
            for seen in burst {
                gaps += usize::from(last.is_some_and(|last| (last.number + 1) % NUMBERS != seen.number));
                last = Some(*seen);
            }
        }
        gaps
    };
    queues.into_iter().map(gaps_of).sum()
}

/// What a capture's directory in the spool certainly holds: published segments, and of open ones what was written.
pub fn durable(dir: &Path, into: &mut BTreeSet<Seen>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with('q') && name.ends_with(".pcap") {
            records(&fs::read(&path).unwrap(), into);
        } else if let Some(published) = name.strip_suffix(".open") {
            let length = fs::read(dir.join(format!("{published}.len"))).unwrap_or_default();
            // 36 bytes that name the boot, padding, and how far the segment is written.
            let Some(written) = length.get(40..48) else { continue };
            let written = usize::try_from(u64::from_le_bytes(written.try_into().unwrap())).unwrap();
            let bytes = fs::read(&path).unwrap();
            records(&bytes[..written.min(bytes.len())], into);
        }
    }
}

/// The whole records of a classic pcap file with nanoseconds.
pub fn records(bytes: &[u8], into: &mut BTreeSet<Seen>) {
    let mut rest = bytes.get(24..).unwrap_or_default();
    while let Some((header, after)) = rest.split_at_checked(16) {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (seconds, nanos, kept) = (u64::from(word(0)), u64::from(word(4)), word(8) as usize);
        let Some((frame, after)) = after.split_at_checked(kept).filter(|_| seconds > 0) else { return };
        into.insert(read(seconds * 1_000_000_000 + nanos, frame));
        rest = after;
    }
}
