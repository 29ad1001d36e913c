//! Where the next object of a capture will end, before it is merged, so that the object behind it can be merged beside it. Owns the
//! search; who merges the object finds out whether it was right.
//!
//! Records of one stream stand in order of time. So a record that is looked up in the middle of each stream divides all of them:
//! either all before the oldest of these records are in the object, or none from the newest on is. Some dozens of small reads
//! leave a stretch that is short enough to be walked through record by record.
//!
//! Invariant: nothing here is taken for granted. A wrong answer costs the work that was begun on it, and no packet.

use super::Shape;
use crate::limits::PCAP_FILE_HEADER_BYTES;
use crate::pcap::Container;
use crate::pcap::boundary::{guess, own_record};
use crate::spool::{Ahead, Cut, Segment};
use rustix::fs::{Advice, fadvise};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const HEADER: u64 = PCAP_FILE_HEADER_BYTES as u64;
/// Bytes in which a record's beginning is looked for: first few, which are enough for usual frames; then enough for any.
const LOOK_BYTES: [u64; 2] = [16 << 10, 1 << 20];
/// A stretch of a stream that is not divided any more.
const STRETCH_BYTES: u64 = 16 << 10;
/// Bytes that are walked through at most.
const WALK_BYTES_MAX: u64 = 16 << 20;
/// Bytes read at a time on the way.
const STEP_BYTES: u64 = 32 << 10;

/// How an object ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Foreseen {
    /// The next object begins there.
    At(Vec<Cut>),
    /// It is the capture's last one.
    Last,
}

/// How the object that begins at `start` will end, if that can be told. Not of pcapng objects: how long a record is in them is
/// not known from its place.
pub(crate) fn foresee(start: &[Cut], ahead: Vec<Ahead>, shape: &Shape) -> Option<Foreseen> {
    if shape.format.container != Container::Pcap {
        return None;
    }
    let room = shape.object_bytes_max.saturating_sub(HEADER);
    let mut tracks: Vec<Track> =
        start.iter().zip(ahead).map(|(cut, ahead)| Track::new(*cut, ahead)).collect();
    let bytes: u64 = tracks.iter().map(Track::bytes).sum();
    if bytes <= room {
        return tracks.iter().all(|track| track.is_all).then_some(Foreseen::Last);
    }
    narrow(&mut tracks, room).ok()?;
    walk(&mut tracks, room).ok()?.then(|| Foreseen::At(tracks.iter().map(Track::cut).collect()))
}

/// Leaves of each track a short stretch in which the object ends.
fn narrow(tracks: &mut [Track], room: u64) -> io::Result<()> {
    for track in &mut *tracks {
        track.divide()?;
    }
    loop {
        let before: u64 = tracks.iter().map(|track| track.low).sum();
        let left = room.saturating_sub(before);
        let halves: u64 = tracks.iter().filter_map(|track| Some(track.middle?.0 - track.low)).sum();
        let whole = |track: &Track| if track.middle.is_none() { track.high - track.low } else { 0 };
        let undivided: u64 = tracks.iter().map(whole).sum();
        let middles = tracks.iter().enumerate().filter_map(|(queue, track)| Some((track.middle?, queue)));
        let middles = middles.map(|((at, ns), queue)| ((ns, queue), at));
        if left < halves {
            // All before the middles come before the newest of these, and have no room.
            let Some(((_, queue), at)) = middles.max() else { return Ok(()) };
            tracks[queue].high = at;
            tracks[queue].divide()?;
        } else if left >= halves + undivided {
            // All that comes before the oldest has room.
            let Some(((_, queue), at)) = middles.min() else { return Ok(()) };
            tracks[queue].low = at;
            tracks[queue].divide()?;
        } else {
            return Ok(());
        }
    }
}

/// Goes on record by record to the one that has no room. Whether all records that come before it are known.
fn walk(tracks: &mut [Track], room: u64) -> io::Result<bool> {
    let mut used: u64 = tracks.iter().map(|track| track.low).sum();
    let end = used.saturating_add(WALK_BYTES_MAX);
    let mut heads = BinaryHeap::new();
    for (queue, track) in tracks.iter_mut().enumerate() {
        heads.extend(track.record()?.map(|(ns, bytes)| Reverse((ns, queue, bytes))));
    }
    while let Some(Reverse((ns, queue, bytes))) = heads.pop() {
        if used > 0 && used + bytes > room {
            let may_come = |(other, track): (usize, &Track)| {
                !track.is_all && track.low == track.bytes() && (track.floor_ns, other) < (ns, queue)
            };
            return Ok(!tracks.iter().enumerate().any(may_come));
        }
        used += bytes;
        if used > end {
            return Ok(false);
        }
        tracks[queue].low += bytes;
        heads.extend(tracks[queue].record()?.map(|(ns, bytes)| Reverse((ns, queue, bytes))));
    }
    Ok(false)
}

/// A segment, or the rest of one.
struct Piece {
    path: PathBuf,
    sequence: u64,
    /// Where it begins in the file.
    from: u64,
    /// Where it begins on the track, and where it ends.
    begin: u64,
    end: u64,
    first_ns: u64,
}

impl Piece {
    /// Bytes from a place on the track on.
    fn read(&self, at: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = File::open(&self.path)?;
        let _only_a_hint = fadvise(&file, 0, None, Advice::Random);
        let mut bytes = vec![0; usize::try_from((self.end - at).min(bytes_max)).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, self.from + (at - self.begin))?;
        Ok(bytes)
    }
}

/// The records of a stream behind the start, one behind the other.
struct Track {
    start: Cut,
    pieces: Vec<Piece>,
    /// What comes behind them is not older.
    floor_ns: u64,
    next: u64,
    is_all: bool,
    /// The object ends from here on.
    low: u64,
    /// And not behind this.
    high: u64,
    /// A record in the middle, and its time. None: it is too short to be divided.
    middle: Option<(u64, u64)>,
    /// What was read on the way, and where.
    step: (u64, Vec<u8>),
}

impl Track {
    fn new(start: Cut, ahead: Ahead) -> Self {
        let Ahead { segments, floor_ns, next, is_all } = ahead;
        let (mut pieces, mut begin) = (Vec::with_capacity(segments.len()), 0);
        for Segment { path, sequence, bytes, packets, first_ns, .. } in segments {
            let from = if sequence == start.sequence { start.offset.max(HEADER) } else { HEADER };
            if packets > 0 && bytes > from {
                let end = begin + (bytes - from);
                pieces.push(Piece { path, sequence, from, begin, end, first_ns });
                begin = end;
            }
        }
        let (low, high, middle, step) = (0, begin, None, (0, Vec::new()));
        Self { start, pieces, floor_ns, next, is_all, low, high, middle, step }
    }

    fn bytes(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.end)
    }

    /// The piece that has the record at a place.
    fn piece(&self, at: u64) -> Option<&Piece> {
        let number = self.pieces.partition_point(|piece| piece.end <= at);
        self.pieces.get(number)
    }

    /// Looks for a record in the middle of what is left.
    fn divide(&mut self) -> io::Result<()> {
        self.middle = None;
        if self.high - self.low > STRETCH_BYTES {
            let found = self.behind(self.low + (self.high - self.low) / 2)?;
            self.middle = found.filter(|(at, _)| (self.low + 1..self.high).contains(at));
        }
        Ok(())
    }

    /// Place and time of a record at or behind a place.
    fn behind(&self, at: u64) -> io::Result<Option<(u64, u64)>> {
        let Some(piece) = self.piece(at) else { return Ok(None) };
        if piece.begin == at && piece.from == HEADER {
            return Ok(Some((at, piece.first_ns)));
        }
        for look in LOOK_BYTES {
            let bytes = piece.read(at, look)?;
            if let Some((found, ns)) = guess(&bytes, piece.first_ns) {
                return Ok(Some((at + found as u64, ns)));
            }
            if (bytes.len() as u64) < look {
                break;
            }
        }
        let end = piece.end;
        Ok(self.piece(end).map(|next| (next.begin, next.first_ns)))
    }

    /// Time and length of the record at the lowest place.
    fn record(&mut self) -> io::Result<Option<(u64, u64)>> {
        let at = self.low;
        let is_there = |(from, bytes): &(u64, Vec<u8>)| {
            let seen = usize::try_from(at.checked_sub(*from)?).ok()?;
            own_record(bytes.get(seen..)?)
        };
        let mut found = is_there(&self.step);
        if found.is_none() {
            let Some(piece) = self.piece(at) else { return Ok(None) };
            self.step = (at, piece.read(at, STEP_BYTES)?);
            found = is_there(&self.step);
        }
        let (ns, bytes) = found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Some((ns, bytes as u64)))
    }

    /// The lowest place, as the merge says it.
    fn cut(&self) -> Cut {
        let number = self.pieces.partition_point(|piece| piece.end <= self.low);
        match self.pieces.get(number) {
            Some(Piece { sequence, from: HEADER, begin, .. }) if *begin == self.low => {
                Cut { sequence: *sequence, offset: 0 }
            }
            Some(Piece { sequence, from, begin, .. }) => {
                Cut { sequence: *sequence, offset: from + (self.low - begin) }
            }
            None if self.next == self.start.sequence => self.start,
            None => Cut { sequence: self.next, offset: 0 },
        }
    }
}
