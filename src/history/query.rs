//! Looking back: the newest packets of a time window that a filter takes, joined by time over segments and queues. Owns
//! the walk and the limit; not which segments there are.
//!
//! A segment that cannot be read costs what it holds: the answer is not covered. Only where none can be read there is no
//! answer.
//!
//! Invariant: what is in memory is bounded by the packet limit and by the segments that overlap at one moment.

use super::{Entry, HistoryError};
use crate::limits::{PCAP_RECORD_HEADER_BYTES, SIMPLE_SNAPLEN};
use crate::matcher::{Filter, Hits, Program};
use crate::packet::Key;
use crate::pcap::{Place, ReadError, Reader, file_header, record_header};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Times that a segment is opened before it counts as one that cannot be read.
const OPEN_TRIES: u32 = 3;
/// Read buffer of each segment that is open.
const BUFFER_BYTES: usize = 256 << 10;

/// What is asked of the past.
#[derive(Clone, Debug)]
pub struct Query {
    /// First moment of the window, ns since the UNIX epoch.
    pub start_ns: u64,
    /// Last moment of the window.
    pub end_ns: u64,
    /// Which packets.
    pub filter: Filter,
    /// How many at most; of more, the newest are taken.
    pub packets_max: usize,
}

/// What the past had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// A whole pcap file.
    pub pcap: Vec<u8>,
    /// Records of the window that the asker may see.
    pub seen: u64,
    /// Of those, taken by the filter.
    pub matched: u64,
    /// Of those, in the file.
    pub captured: u64,
    /// Their frame bytes.
    pub captured_bytes: u64,
    /// Time of the file's first record; zero if it has none.
    pub first_ns: u64,
    /// Time of the file's last record.
    pub last_ns: u64,
    /// One in so many packets were recorded: the coarsest rate of all segments that were read.
    pub one_in: u32,
    /// Whether the history reached back to the window's first moment.
    pub covered: bool,
}

/// One segment, opened when its first record is due.
pub(super) struct Stream {
    pub path: PathBuf,
    /// The reader, and the record that it stands at.
    pub head: Option<(Reader<File>, Place)>,
}

impl Stream {
    /// As [`Stream::open`], in several tries.
    pub fn open_again(&mut self, start_ns: u64) -> Result<bool, ReadError> {
        let mut tries = 1;
        loop {
            match self.open(start_ns) {
                Err(_) if tries < OPEN_TRIES => tries += 1,
                opened => return opened,
            }
        }
    }

    /// Opens the segment and goes to the first record of the window. `false`: it was trimmed since the ring was asked.
    fn open(&mut self, start_ns: u64) -> Result<bool, ReadError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(ReadError::Open { path: self.path.clone(), source }),
        };
        let mut reader = Reader::with_buffer(file, BUFFER_BYTES)?;
        while let Some(place) = reader.advance()? {
            if place.ns >= start_ns {
                self.head = Some((reader, place));
                break;
            }
        }
        Ok(true)
    }
}

/// The newest records, as they will stand in the file.
struct Newest {
    records: VecDeque<(u64, Vec<u8>)>,
    max: usize,
    matched: u64,
}

impl Newest {
    fn push(&mut self, ns: u64, wire_len: u32, data: &[u8]) {
        self.matched += 1;
        let full = self.records.len() >= self.max;
        let oldest = if full { self.records.pop_front() } else { None };
        let (_, mut bytes) = oldest.unwrap_or_default();
        // A record is at most SIMPLE_SNAPLEN bytes long: that is what the workers keep for the history.
        let kept = u32::try_from(data.len()).unwrap_or(u32::MAX);
        bytes.clear();
        bytes.extend_from_slice(&record_header(ns, kept, wire_len));
        bytes.extend_from_slice(data);
        self.records.push_back((ns, bytes));
    }
}

/// Walks the segments `entries` of `dir`.
pub(super) fn run(
    query: &Query,
    dir: &Path,
    entries: &[Entry],
    covered: bool,
    visible: &dyn Fn(&Key) -> bool,
) -> Result<Answer, HistoryError> {
    let program = Program::compile(&[(0, &query.filter, None)]);
    let mut hits = Hits::default();
    let path = |entry: &Entry| Stream { path: dir.join(entry.name()), head: None };
    let mut streams: Vec<Stream> = entries.iter().map(path).collect();
    // What is due next: (time, segment). A segment that is not open yet is due at its first record.
    let mut due: BinaryHeap<Reverse<(u64, usize)>> =
        entries.iter().enumerate().map(|(i, entry)| Reverse((entry.first_ns, i))).collect();
    let mut newest = Newest { records: VecDeque::new(), max: query.packets_max, matched: 0 };
    let (mut seen, mut covered) = (0, covered);
    let (mut opened, mut first_failure) = (0, None);
    let mut lose = |stream: &Stream, source: ReadError| {
        let path = stream.path.clone();
        tracing::error!(segment = %path.display(), error = %source, "a segment of the history cannot be read");
        first_failure.get_or_insert(HistoryError::Segment { path, source });
    };
    while let Some(Reverse((due_ns, i))) = due.pop() {
        let stream = &mut streams[i];
        let Some((mut reader, place)) = stream.head.take().filter(|_| due_ns <= query.end_ns) else {
            if due_ns <= query.end_ns {
                let is_read = stream.open_again(query.start_ns);
                opened += usize::from(is_read.is_ok());
                covered &= is_read.unwrap_or_else(|e| {
                    lose(stream, e);
                    false
                });
                due.extend(stream.head.iter().map(|(_, place)| Reverse((place.ns, i))));
            }
            continue;
        };
        let data = reader.data(&place);
        let key = Key::parse(data, place.wire_len);
        if visible(&key) {
            seen += 1;
            program.evaluate(&[key], &mut hits);
            if hits.packets() != 0 {
                newest.push(place.ns, place.wire_len, data);
            }
        }
        match reader.advance() {
            Ok(Some(next)) => {
                due.push(Reverse((next.ns, i)));
                stream.head = Some((reader, next));
            }
            Ok(None) => {}
            Err(e) => {
                lose(stream, e);
                covered = false;
            }
        }
    }
    if let Some(error) = first_failure.filter(|_| opened == 0) {
        return Err(error);
    }
    let one_in = entries.iter().map(|entry| entry.one_in).max().unwrap_or(1);
    Ok(answer(newest, seen, one_in, covered))
}

/// The file, in order of time.
fn answer(newest: Newest, seen: u64, one_in: u32, covered: bool) -> Answer {
    let Newest { records, matched, .. } = newest;
    let mut pcap = file_header(SIMPLE_SNAPLEN).to_vec();
    pcap.reserve_exact(records.iter().map(|(_, record)| record.len()).sum());
    for (_, record) in &records {
        pcap.extend_from_slice(record);
    }
    let captured_bytes: usize =
        records.iter().map(|(_, record)| record.len() - PCAP_RECORD_HEADER_BYTES).sum();
    Answer {
        seen,
        matched,
        captured: records.len() as u64,
        captured_bytes: captured_bytes as u64,
        first_ns: records.front().map_or(0, |(ns, _)| *ns),
        last_ns: records.back().map_or(0, |(ns, _)| *ns),
        one_in,
        covered,
        pcap,
    }
}
