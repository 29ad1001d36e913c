//! Thousands of inputs: how many are open at once, and that the output is the same.

use super::*;
use crate::merge::{MergeOptions, merge_inputs};
use crate::pcap::{Reader, Writer};
use std::io::{Cursor, Read};
use std::path::Path;

const COUNT: u64 = 2000;

/// A small file whose packets are of these times.
fn file(times: &[u64]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), 262_144, 1).unwrap();
    times.iter().for_each(|ns| writer.write(*ns, 60, &[7; 60]).unwrap());
    writer.finish().unwrap()
}

/// The times of object `n` of two parts in turn, each of which overlaps the other's.
fn times(n: u64) -> [u64; 3] {
    let (part, number) = (n % 2, n / 2);
    [0, 1, 2].map(|packet| 1_000_000 + (number * 3 + packet) * 10 + part)
}

/// A stream that is counted while it is open.
struct Counted {
    bytes: Cursor<Vec<u8>>,
    open: Rc<Cell<(usize, usize)>>,
}

impl Counted {
    fn new(bytes: Vec<u8>, open: Rc<Cell<(usize, usize)>>) -> Self {
        let (now, most) = open.get();
        open.set((now + 1, most.max(now + 1)));
        Self { bytes: Cursor::new(bytes), open }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let (now, most) = self.open.get();
        self.open.set((now - 1, most));
    }
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(into)
    }
}

fn read(path: &Path) -> Vec<u64> {
    let mut reader = Reader::new(std::fs::File::open(path).unwrap()).unwrap();
    std::iter::from_fn(|| reader.advance().unwrap().map(|head| head.ns)).collect()
}

#[test]
fn of_two_thousand_objects_whose_times_are_known_as_many_are_open_as_overlap() {
    let (dir, open) = (tempfile::tempdir().unwrap(), Rc::new(Cell::new((0, 0))));
    let buffers = Rc::new(Cell::new(usize::MAX));
    let input = |n| {
        let (open, buffers) = (Rc::clone(&open), Rc::clone(&buffers));
        let opens = move |bytes: usize| -> io::Result<Box<dyn Read>> {
            buffers.set(buffers.get().min(bytes));
            Ok(Box::new(Counted::new(file(&times(n)), open)))
        };
        let [first, .., last] = times(n);
        MergeInput::Stream {
            name: format!("object {n}").into(),
            span: Some((first, last)),
            open: Box::new(opens),
        }
    };
    let output = dir.path().join("out.pcap");
    let merged = merge_inputs((0..COUNT).map(input).collect(), &output, MergeOptions::default(), &mut |_| {});
    assert_eq!(merged.unwrap().totals.packets, COUNT * 3);
    let mut expected: Vec<_> = (0..COUNT).flat_map(times).collect();
    expected.sort_unstable();
    assert_eq!(read(&output), expected);
    assert_eq!(open.get(), (0, 2), "open at the end, and at most");
    assert!(buffers.get() > 16 << 20, "two share the memory, and not two thousand: {}", buffers.get());
}

#[test]
fn thousands_of_files_are_merged_by_a_process_that_may_have_few_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let dir = tempfile::tempdir().unwrap();
    let path = |n: u64| dir.path().join(format!("{n:04}.pcap"));
    (0..COUNT).for_each(|n| std::fs::write(path(n), file(&times(n))).unwrap());
    std::fs::write(path(COUNT), file(&[])).unwrap();
    let inputs = || (0..=COUNT).map(path).map(MergeInput::File).collect::<Vec<_>>();
    let output = dir.path().join("out.pcap");
    let before = getrlimit(Resource::Nofile);
    // Tests beside this one may be threads of the same process.
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(open + 200), ..before }).unwrap();
    let merged = merge_inputs(inputs(), &output, MergeOptions::default(), &mut |_| {});
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(merged.unwrap().totals.packets, COUNT * 3);
    let mut expected: Vec<_> = (0..COUNT).flat_map(times).collect();
    expected.sort_unstable();
    assert_eq!(read(&output), expected);
    let mut turns = {
        let tolerance = crate::pcap::Tolerance { copies_blocks: false };
        let reading = Reading { keep_going: false, tolerance, bytes: Rc::new(Cell::new(0)) };
        Turns::begin(inputs(), reading, 8, &mut Findings::new(None)).unwrap().0
    };
    assert_eq!(turns.open, 1, "the one without a packet");
    turns.take_up(0, None, &mut Findings::new(None)).unwrap();
    assert_eq!(turns.open, 2);
    turns.close(0);
    assert_eq!(turns.open, 1);
    // Both are there for a moment, so that the other one is another inode.
    std::fs::write(path(9999), file(&times(8))).unwrap();
    std::fs::rename(path(9999), path(7)).unwrap();
    let other = turns.take_up(7, None, &mut Findings::new(None)).unwrap_err();
    assert!(other.to_string().contains("was replaced"), "{other}");
}
