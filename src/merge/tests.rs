//! Properties of both merges against a plain sort, and mergecap's opinion where it is installed.

use super::*;
use crate::pcap::{Compression, Container, Counts, ObjectFormat, Origin};
use crate::pcap::{Reader, Writer};
use crate::spool::{Input, Segment};
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tempfile::TempDir;

type Packet = (u64, u32, Vec<u8>);

/// An object's bytes, its summary, and the segment files listed with it.
type Object = (Vec<u8>, Summary, Vec<PathBuf>);

const SECOND: u64 = 1_000_000_000;

/// Object that any packet fits into: headers and the longest data that [`packet`] makes.
const OBJECT_BYTES_MIN: u64 = 24 + 16 + 69;

/// A packet that tells where it came from.
fn packet(ns: u64, queue: usize, number: usize) -> Packet {
    let mut data = vec![queue as u8; 20 + number % 50];
    data[..8].copy_from_slice(&(number as u64).to_le_bytes());
    (ns, data.len() as u32 + queue as u32, data)
}

/// Streams whose times increase by little, so that many are equal.
fn streams() -> impl Strategy<Value = Vec<Vec<Packet>>> {
    let steps = prop::collection::vec(prop_oneof![Just(0u64), 0..3u64, 0..SECOND], 0..60);
    prop::collection::vec(steps, 1..6).prop_map(|streams| {
        let stream = |(queue, steps): (usize, Vec<u64>)| {
            let mut ns = 10 * SECOND;
            let packets = steps.into_iter().enumerate();
            packets.map(|(i, step)| (ns += step, packet(ns, queue, i)).1).collect()
        };
        streams.into_iter().enumerate().map(stream).collect()
    })
}

/// All packets by time; the sort is stable, so equal times stay in the order of their streams.
fn sorted(streams: &[Vec<Packet>]) -> Vec<Packet> {
    let mut all = streams.concat();
    all.sort_by_key(|packet| packet.0);
    all
}

fn pcap(packets: &[Packet]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), 262_144, 1).unwrap();
    for (ns, wire_len, data) in packets {
        writer.write(*ns, *wire_len, data).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Vec<Packet> {
    let mut reader = Reader::new(bytes).unwrap();
    let mut packets = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        packets.push((record.ns, record.wire_len, record.data.to_vec()));
    }
    packets
}

fn segment(dir: &Path, queue: usize, sequence: u64, packets: &[Packet]) -> Segment {
    let path = dir.join(format!("{queue}-{sequence}.pcap"));
    let bytes = pcap(packets);
    std::fs::write(&path, &bytes).unwrap();
    let (first, last) = (packets.first(), packets.last());
    let [first_ns, last_ns] = [first, last].map(|packet| packet.map_or(0, |packet| packet.0));
    Segment { path, sequence, bytes: bytes.len() as u64, packets: packets.len() as u64, first_ns, last_ns }
}

/// A live merge in its thread.
struct Running {
    inputs: crossbeam::channel::Sender<Input>,
    outputs: tokio::sync::mpsc::Receiver<Output>,
    thread: JoinHandle<Result<Totals, MergeError>>,
}

impl Running {
    fn start(queues: usize, object_bytes_max: u64) -> Self {
        let (inputs, taken) = crossbeam::channel::unbounded();
        let (made, outputs) = tokio::sync::mpsc::channel(1 << 16);
        let thread = std::thread::spawn(move || {
            run_live(&Start::fresh(queues), &Shape::plain(262_144, object_bytes_max), taken, made)
        });
        Self { inputs, outputs, thread }
    }

    fn tell(&self, input: Input) {
        self.inputs.send(input).unwrap();
    }

    /// Every object with its summary and list, and what the merge said.
    fn finish(mut self) -> (Vec<Object>, Result<Totals, MergeError>) {
        drop(self.inputs);
        let result = self.thread.join().unwrap();
        let mut objects = Vec::new();
        let (mut object, mut whole) = (Vec::new(), None);
        while let Some(output) = self.outputs.blocking_recv() {
            match output {
                Output::Begin(n) => assert_eq!((n as usize, object.len()), (objects.len(), 0)),
                Output::Whole(segment) => whole = Some(segment),
                Output::Chunk(chunk) => object.extend(chunk),
                Output::End(summary, consumed) => {
                    assert_is(&object, whole.take());
                    objects.push((std::mem::take(&mut object), summary, consumed.segments));
                }
            }
        }
        (objects, result)
    }
}

/// An object that was said to be a segment is that file.
fn assert_is(object: &[u8], whole: Option<Segment>) {
    if let Some(segment) = whole {
        assert!(object == std::fs::read(&segment.path).unwrap(), "{}", segment.path.display());
    }
}

/// What the inputs of a live merge may be: streams cut into segments, told in any order of the queues.
fn schedule(dir: &Path, streams: &[Vec<Packet>], choices: &[Index]) -> Vec<Input> {
    let mut choices = choices.iter().cycle();
    let mut choose = |below: usize| choices.next().unwrap().index(below);
    let mut left: Vec<(usize, u64, &[Packet])> =
        streams.iter().enumerate().map(|(queue, packets)| (queue, 0, &packets[..])).collect();
    let mut inputs = Vec::new();
    while !left.is_empty() {
        let i = choose(left.len());
        let (queue, sequence, packets) = &mut left[i];
        let (now, later) = packets.split_at(choose(packets.len() + 1));
        inputs.push(Input::Segment(*queue, segment(dir, *queue, *sequence, now)));
        let next_ns = later.first().map_or(u64::MAX, |packet| packet.0);
        if choose(2) == 0 {
            inputs.push(Input::Watermark(*queue, next_ns - choose(3) as u64));
        }
        (*sequence, *packets) = (*sequence + 1, later);
        if later.is_empty() {
            inputs.push(Input::End(*queue));
            left.swap_remove(i);
        }
    }
    inputs
}

fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn live_merge_is_the_sort_of_all_packets_cut_into_whole_objects(
        streams in streams(),
        choices in prop::collection::vec(any::<Index>(), 64),
        bytes_max in OBJECT_BYTES_MIN..6000,
    ) {
        let dir = TempDir::new().unwrap();
        let running = Running::start(streams.len(), bytes_max);
        let inputs = schedule(dir.path(), &streams, &choices);
        inputs.iter().for_each(|input| running.tell(input.clone()));
        let (objects, totals) = running.finish();
        let totals = totals.unwrap();

        let merged: Vec<Packet> = objects.iter().flat_map(|(bytes, ..)| read(bytes)).collect();
        let expected = sorted(&streams);
        prop_assert_eq!(&merged, &expected);
        prop_assert_eq!(totals.objects as usize, objects.len());
        prop_assert_eq!(totals.packets as usize, expected.len());
        prop_assert_eq!(totals.disorder, 0);
        prop_assert_eq!(totals.bytes, objects.iter().map(|(bytes, ..)| bytes.len() as u64).sum::<u64>());
        for (i, (bytes, summary, _)) in objects.iter().enumerate() {
            let packets = read(bytes);
            let size = |packet: &Packet| 16 + packet.2.len() as u64;
            prop_assert!(bytes.len() as u64 <= bytes_max);
            let next = objects.get(i + 1).map(|(bytes, ..)| size(&read(bytes)[0]));
            prop_assert!(next.is_none_or(|next| bytes.len() as u64 + next > bytes_max), "cut too early");
            let times = [packets.first(), packets.last()].map(|packet| packet.map_or(0, |packet| packet.0));
            prop_assert_eq!([summary.first_ns, summary.last_ns], times);
            prop_assert_eq!((summary.packets, summary.bytes), (packets.len() as u64, bytes.len() as u64));
            prop_assert_eq!(&summary.sha256, &sha256(bytes));
        }
        consumed_is_covered(&objects, &inputs)?;
    }

    #[test]
    fn offline_merge_is_the_sort_of_all_packets(streams in streams()) {
        let dir = TempDir::new().unwrap();
        let inputs: Vec<PathBuf> = streams.iter().enumerate()
            .map(|(queue, packets)| segment(dir.path(), queue, 0, packets).path).collect();
        let output = dir.path().join("out.pcap");
        let totals = merge_files(&inputs, &output).unwrap().totals;
        let bytes = std::fs::read(&output).unwrap();
        let expected = sorted(&streams);
        prop_assert_eq!(&read(&bytes), &expected);
        let [first_ns, last_ns] = [expected.first(), expected.last()].map(|packet| packet.map_or(0, |p| p.0));
        let (packets, bytes) = (expected.len() as u64, bytes.len() as u64);
        prop_assert_eq!(totals, Totals { objects: 1, packets, bytes, first_ns, last_ns, disorder: 0 });
    }
}

/// A listed segment's packets are all in the objects so far, and every segment is listed once.
fn consumed_is_covered(objects: &[Object], inputs: &[Input]) -> Result<(), TestCaseError> {
    let mut seen = Vec::new();
    let mut listed = Vec::new();
    for (bytes, _, consumed) in objects {
        seen.extend(read(bytes));
        for path in consumed {
            let held = read(&std::fs::read(path).unwrap());
            prop_assert!(held.iter().all(|packet| seen.contains(packet)), "{} too early", path.display());
            listed.push(path.clone());
        }
    }
    let segment = |input: &Input| match input {
        Input::Segment(_, segment) => Some(segment.path.clone()),
        _ => None,
    };
    let mut published: Vec<PathBuf> = inputs.iter().filter_map(segment).collect();
    published.sort();
    listed.sort();
    prop_assert_eq!(listed, published);
    Ok(())
}

#[test]
fn a_capture_without_packets_is_one_object_of_a_header() {
    let running = Running::start(2, 1 << 20);
    running.tell(Input::End(0));
    running.tell(Input::End(1));
    let (objects, totals) = running.finish();
    assert_eq!(objects[0].0, crate::pcap::file_header(262_144));
    assert_eq!((objects.len(), totals.unwrap().objects, objects[0].1.first_ns), (1, 1, 0));
}

#[test]
fn a_record_larger_than_an_object_has_one_of_its_own() {
    let dir = TempDir::new().unwrap();
    let packets: Vec<Packet> = (0..3).map(|i| packet(SECOND, 0, i)).collect();
    let running = Running::start(1, 30);
    running.tell(Input::Segment(0, segment(dir.path(), 0, 0, &packets)));
    running.tell(Input::End(0));
    let (objects, totals) = running.finish();
    assert_eq!(totals.unwrap().objects, 3);
    assert_eq!(objects.iter().map(|(bytes, ..)| read(bytes).len()).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn time_going_backwards_keeps_the_streams_order_and_is_counted() {
    let dir = TempDir::new().unwrap();
    let times = |queue: usize, seconds: &[u64]| -> Vec<Packet> {
        seconds.iter().enumerate().map(|(i, s)| packet(s * SECOND, queue, i)).collect()
    };
    let streams = [times(0, &[1, 5, 3, 6]), times(1, &[2, 4, 7])];
    let running = Running::start(2, 1 << 20);
    for (queue, packets) in streams.iter().enumerate() {
        running.tell(Input::Segment(queue, segment(dir.path(), queue, 0, packets)));
        running.tell(Input::End(queue));
    }
    let (objects, totals) = running.finish();
    let merged = read(&objects[0].0);
    assert_eq!(merged.iter().map(|packet| packet.0 / SECOND).collect::<Vec<_>>(), [1, 2, 4, 5, 3, 6, 7]);
    assert_eq!(totals.unwrap().disorder, 1);
}

#[test]
fn a_segment_that_is_not_as_published_ends_the_merge_by_name() {
    let dir = TempDir::new().unwrap();
    let packets: Vec<Packet> = (0..3).map(|i| packet(SECOND, 0, i)).collect();
    let good = segment(dir.path(), 0, 0, &packets);
    let failure = |segment: Segment| {
        let running = Running::start(1, 1 << 20);
        running.tell(Input::Segment(0, segment));
        running.tell(Input::End(0));
        running.finish().1.unwrap_err()
    };
    let name = good.path.display().to_string();
    for wrong in [Segment { packets: 4, ..good.clone() }, Segment { bytes: good.bytes + 1, ..good.clone() }] {
        let error = failure(wrong);
        assert!(matches!(error, MergeError::Segment { .. }) && error.to_string().contains(&name), "{error}");
    }
    // No more is read of it than was published, and that ends inside a record.
    let error = failure(Segment { bytes: good.bytes - 1, ..good.clone() });
    assert!(matches!(error, MergeError::Read { .. }) && error.to_string().contains(&name), "{error}");
    let error = failure(Segment { sequence: 1, ..good.clone() });
    assert!(matches!(error, MergeError::Sequence { expected: 0, found: 1, .. }), "{error}");
    let bytes = std::fs::read(&good.path).unwrap();
    std::fs::write(&good.path, &bytes[..bytes.len() - 1]).unwrap();
    let error = failure(Segment { bytes: good.bytes - 1, ..good });
    assert!(matches!(error, MergeError::Read { .. }) && error.to_string().contains(&name), "{error}");
}

#[test]
fn holes_are_passed_over_and_everything_around_them_is_delivered() {
    let dir = TempDir::new().unwrap();
    let part = |sequence: u64| {
        let packets: Vec<Packet> =
            (0..3).map(|i| packet((10 * sequence + i + 1) * SECOND, 0, i as usize)).collect();
        (segment(dir.path(), 0, sequence, &packets), packets)
    };
    let ((second, in_second), (fourth, in_fourth)) = (part(1), part(3));
    let running = Running::start(1, 1 << 20);
    for input in [
        Input::Hole { queue: 0, sequence: 0 },
        Input::Segment(0, second.clone()),
        Input::Hole { queue: 0, sequence: 2 },
        Input::Segment(0, fourth.clone()),
        Input::Hole { queue: 0, sequence: 4 },
        Input::End(0),
    ] {
        running.tell(input);
    }
    let (objects, totals) = running.finish();
    assert_eq!(totals.unwrap().packets, 6);
    assert_eq!(read(&objects[0].0), [in_second, in_fourth].concat());
    assert_eq!(objects[0].2, [second.path, fourth.path]);
}

#[test]
fn a_hole_where_the_last_object_ended_is_passed_over_and_counts_in_the_next_cut() {
    let dir = TempDir::new().unwrap();
    let packets = [packet(SECOND, 0, 0)];
    let (inputs, taken) = crossbeam::channel::unbounded();
    let (made, mut outputs) = tokio::sync::mpsc::channel(1 << 16);
    for input in [
        Input::Hole { queue: 0, sequence: 5 },
        Input::Segment(0, segment(dir.path(), 0, 6, &packets)),
        Input::End(0),
    ] {
        inputs.send(input).unwrap();
    }
    let start = Start { object: 2, cuts: vec![Cut { sequence: 5, offset: 140 }] };
    assert_eq!(run_live(&start, &Shape::plain(262_144, 1 << 20), taken, made).unwrap().packets, 1);
    let mut cuts = Vec::new();
    while let Some(output) = outputs.blocking_recv() {
        if let Output::End(_, consumed) = output {
            cuts.push(consumed.cuts);
        }
    }
    assert_eq!(cuts, [[Cut { sequence: 7, offset: 0 }]]);
}

#[test]
fn a_segment_that_is_known_to_be_damaged_is_delivered_up_to_its_damage_and_is_not_given_back() {
    let dir = TempDir::new().unwrap();
    let packets = |second: u64| -> Vec<Packet> {
        (0..5).map(|i| packet((second + i) * SECOND, 0, i as usize)).collect()
    };
    let parts = [packets(1), packets(11), packets(21)];
    let segments: Vec<Segment> =
        (0..).zip(&parts).map(|(sequence, packets)| segment(dir.path(), 0, sequence, packets)).collect();
    let whole = std::fs::read(&segments[1].path).unwrap();
    // The third record begins behind two of headers and 20 and 21 bytes of data.
    let third = 24 + 2 * 16 + 20 + 21;
    let mut overwritten = whole.clone();
    overwritten[third..third + 16].fill(0xff);
    let damages: [(Option<Vec<u8>>, usize, u64); 4] = [
        (Some(whole[..third + 7].to_vec()), 2, third as u64),
        (Some(overwritten), 2, third as u64),
        (Some(Vec::new()), 0, 0),
        (None, 0, 0),
    ];
    for (damaged, kept, offset) in damages {
        match damaged {
            Some(bytes) => std::fs::write(&segments[1].path, bytes).unwrap(),
            None => std::fs::remove_file(&segments[1].path).unwrap(),
        }
        let inputs = segments.iter().map(|segment| Input::Segment(0, segment.clone()));
        let inputs: Vec<_> = inputs.chain([Input::End(0)]).collect();
        let (told, taken) = crossbeam::channel::unbounded();
        inputs.into_iter().for_each(|input| told.send(input).unwrap());
        let (made, mut outputs) = tokio::sync::mpsc::channel(1 << 16);
        let shape = Shape::plain(262_144, 1 << 20);
        let damaged = [segments[1].path.clone()].into_iter().collect();
        run_live_past(&Start::fresh(1), &shape, damaged, taken, made).unwrap();
        let mut bytes = Vec::new();
        while let Some(output) = outputs.blocking_recv() {
            match output {
                Output::Chunk(chunk) => bytes.extend(chunk),
                Output::End(_, Consumed { segments: freed, cuts, gaps, .. }) => {
                    assert_eq!(freed, [segments[0].path.clone(), segments[2].path.clone()]);
                    assert_eq!(cuts, [Cut { sequence: 3, offset: 0 }]);
                    assert_eq!(gaps, [Gap { queue: 0, sequence: 1, offset }]);
                }
                Output::Begin(_) => {}
                Output::Whole(segment) => panic!("{segment:?} is not all of the object"),
            }
        }
        assert_eq!(read(&bytes), [&parts[0][..], &parts[1][..kept], &parts[2]].concat());
    }
}

/// Which objects of one stream are said to be segments.
fn wholes(inputs: &[Input], shape: &Shape, damaged: &[&Segment]) -> Vec<u32> {
    let (told, taken) = crossbeam::channel::unbounded();
    let (made, mut outputs) = tokio::sync::mpsc::channel(1 << 16);
    inputs.iter().for_each(|input| told.send(input.clone()).unwrap());
    told.send(Input::Counts(None)).unwrap();
    let damaged = damaged.iter().map(|segment| segment.path.clone()).collect();
    run_live_past(&Start::fresh(1), shape, damaged, taken, made).unwrap();
    let (mut wholes, mut number, mut bytes, mut whole) = (Vec::new(), 0, Vec::new(), None);
    while let Some(output) = outputs.blocking_recv() {
        match output {
            Output::Begin(begun) => (number, bytes) = (begun, Vec::new()),
            Output::Whole(segment) => {
                wholes.push(number);
                whole = Some(segment);
            }
            Output::Chunk(chunk) => bytes.extend(chunk),
            Output::End(..) => assert_is(&bytes, whole.take()),
        }
    }
    wholes
}

#[test]
fn objects_that_are_segments_as_they_stand_are_told_and_no_others() {
    let dir = TempDir::new().unwrap();
    let packets = |first: usize, count: usize| -> Vec<Packet> {
        (first..first + count).map(|i| (SECOND + i as u64, 84, vec![i as u8; 84])).collect()
    };
    let parts = [(0, 5), (5, 5), (10, 5), (15, 2), (17, 5)];
    let segments: Vec<Segment> = (0..)
        .zip(parts)
        .map(|(sequence, (first, count))| segment(dir.path(), 0, sequence, &packets(first, count)))
        .collect();
    let told = |segments: &[Segment], is_ended: bool| -> Vec<Input> {
        let told = segments.iter().map(|segment| Input::Segment(0, segment.clone()));
        told.chain(is_ended.then_some(Input::End(0))).collect()
    };
    let shape = Shape::plain(262_144, 24 + 5 * 100);
    // The fourth ends early, so the object that begins with it goes on in the fifth.
    assert_eq!(wholes(&told(&segments, true), &shape, &[]), [0, 1, 2]);
    assert_eq!(
        wholes(&told(&segments[..4], true), &shape, &[]),
        [0, 1, 2, 3],
        "the last one ends with the stream"
    );
    // What follows a damaged one may fit.
    assert_eq!(wholes(&told(&segments, true), &shape, &[&segments[1]]), [2]);
    for other in [
        Shape { snaplen: 65_535, ..shape.clone() },
        Shape { object_bytes_max: shape.object_bytes_max + 100, ..shape.clone() },
        Shape { object_bytes_max: shape.object_bytes_max - 100, ..shape.clone() },
    ] {
        assert_eq!(wholes(&told(&segments[..3], true), &other, &[]).len(), 0, "{other:?}");
    }
    for format in formats().filter(|format| !format.is_plain()) {
        assert_eq!(wholes(&told(&segments, true), &Shape { format, ..shape.clone() }, &[]).len(), 0);
    }
}

#[test]
fn a_hole_out_of_its_order_is_an_error() {
    let running = Running::start(1, 1 << 20);
    running.tell(Input::Hole { queue: 0, sequence: 1 });
    running.tell(Input::End(0));
    assert!(matches!(running.finish().1, Err(MergeError::Hole { expected: 0, found: 1, .. })));
}

#[test]
fn a_closed_channel_ends_the_merge_with_an_error() {
    let running = Running::start(2, 1 << 20);
    running.tell(Input::End(0));
    assert!(matches!(running.finish().1, Err(MergeError::InputClosed { queue: 1 })));
    let Running { inputs, outputs, thread } = Running::start(2, 1 << 20);
    drop(outputs);
    inputs.send(Input::Watermark(0, 1)).unwrap();
    assert!(matches!(thread.join().unwrap(), Err(MergeError::OutputClosed)));
}

#[test]
fn more_inputs_than_descriptors_are_merged() {
    let dir = TempDir::new().unwrap();
    let streams: Vec<Vec<Packet>> = (0..600)
        .map(|q| (0..3).map(|i| packet((i as u64 * 600 + 599 - q as u64) * 1000, q, i)).collect())
        .collect();
    let inputs: Vec<PathBuf> =
        streams.iter().enumerate().map(|(q, packets)| segment(dir.path(), q, 0, packets).path).collect();
    let peak = AtomicU64::new(0);
    let output = dir.path().join("out.pcap");
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    std::thread::scope(|scope| {
        let merge = scope.spawn(|| merge_files(&inputs, &output).unwrap());
        while !merge.is_finished() {
            peak.fetch_max(open(), Ordering::Relaxed);
        }
        assert_eq!(merge.join().unwrap().totals.packets, 1800);
    });
    assert!(peak.into_inner() < 256 + 100, "inputs hold too many descriptors");
    assert_eq!(read(&std::fs::read(&output).unwrap()), sorted(&streams));
}

#[test]
fn an_offline_merge_that_fails_leaves_every_file_as_it_was() {
    let dir = TempDir::new().unwrap();
    let good = segment(dir.path(), 0, 0, &[packet(SECOND, 0, 0)]).path;
    let other = dir.path().join("raw-ip.pcap");
    std::fs::write(&other, Writer::new(Vec::new(), 100, 101).unwrap().finish().unwrap()).unwrap();
    let damaged = dir.path().join("damaged.pcap");
    let mut bytes = pcap(&[packet(2 * SECOND, 0, 0), packet(3 * SECOND, 0, 1)]);
    bytes[60 + 8..][..4].fill(0xff);
    std::fs::write(&damaged, bytes).unwrap();
    let output = dir.path().join("out.pcap");
    std::fs::write(&output, "before").unwrap();
    let list = || {
        let mut names: Vec<_> =
            dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = list();
    let merge = |inputs: &[&PathBuf], output: &Path| {
        merge_files(&inputs.iter().copied().cloned().collect::<Vec<_>>(), output).unwrap_err()
    };
    let error = merge(&[&good, &other], &output);
    assert!(matches!(error, MergeError::LinkTypes { first: 1, found: 101, .. }), "{error}");
    assert!(matches!(merge(&[&good, &damaged], &output), MergeError::Read { .. }));
    assert!(matches!(merge(&[&good], &dir.path().join("./0-0.pcap")), MergeError::OutputIsInput(_)));
    assert!(matches!(merge(&[], &output), MergeError::NoInputs));
    assert_eq!((list(), std::fs::read(&output).unwrap()), (before, b"before".to_vec()));
}

#[test]
fn mergecap_makes_the_same_file() {
    if Command::new("mergecap").arg("--version").output().is_err() {
        return;
    }
    let dir = TempDir::new().unwrap();
    // no equal times: mergecap does not say how it orders those
    let streams: Vec<Vec<Packet>> = (0..5u64)
        .map(|q| {
            (0..400)
                .map(|i| packet(SECOND + (i * 7919 + q * 31) * 1000 + q, q as usize, i as usize))
                .collect()
        })
        .collect();
    let mut inputs = Vec::new();
    for (queue, packets) in streams.iter().enumerate() {
        let path = segment(dir.path(), queue, 0, packets).path;
        let converted =
            dir.path().join(format!("{queue}.{}", if queue % 2 == 0 { "pcapng" } else { "pcap" }));
        let format = if queue % 2 == 0 { "pcapng" } else { "nsecpcap" };
        let status = Command::new("editcap").args(["-F", format]).arg(&path).arg(&converted).status();
        assert!(status.unwrap().success());
        inputs.push(converted);
    }
    let [ours, theirs] = ["ours.pcap", "theirs.pcap"].map(|name| dir.path().join(name));
    merge_files(&inputs, &ours).unwrap();
    let status = Command::new("mergecap").args(["-F", "nsecpcap", "-w"]).arg(&theirs).args(&inputs).status();
    assert!(status.unwrap().success());
    assert_eq!(std::fs::read(&ours).unwrap(), std::fs::read(&theirs).unwrap());
}

#[test]
fn a_merge_that_begins_where_any_object_ended_makes_the_same_objects_as_the_first_one() {
    let dir = TempDir::new().unwrap();
    let mut inputs = Vec::new();
    for queue in 0..3 {
        for sequence in 0..4 {
            let time = |i: usize| (1 + sequence * 20 + i as u64) * SECOND + (i % 2) as u64 * queue as u64;
            let packets: Vec<Packet> = (0..20).map(|i| packet(time(i), queue, i)).collect();
            inputs.push(Input::Segment(queue, segment(dir.path(), queue, sequence, &packets)));
        }
        inputs.push(Input::End(queue));
    }
    for format in formats() {
        let shape = Shape { format, ..Shape::plain(262_144, 2000) };
        let whole = run_all(&inputs, &Start::fresh(3), &shape);
        assert!(whole.len() > 5 && whole.last().unwrap().2.is_last);
        for object in 1..whole.len() {
            let cuts = whole[object - 1].2.cuts.clone();
            let rest = run_all(&inputs, &Start { object: object as u32, cuts }, &shape);
            assert!(rest == whole[object..], "{format:?}, object {object}");
        }
    }
}

/// Every format that objects can have.
fn formats() -> impl Iterator<Item = ObjectFormat> {
    [Container::Pcap, Container::PcapNg].into_iter().flat_map(|container| {
        [Compression::None, Compression::Zstd].map(|compression| ObjectFormat {
            container,
            compression,
            ..ObjectFormat::default()
        })
    })
}

const COUNTS: Counts = Counts { offered: 1009, port_drops: 7, matched: 900, host_drops: 3, captured: 240 };

/// A merge of inputs from a start on, told of [`COUNTS`]: every object with its bytes.
fn run_all(inputs: &[Input], start: &Start, shape: &Shape) -> Vec<(Vec<u8>, Summary, Consumed)> {
    let (told, taken) = crossbeam::channel::unbounded();
    let (made, mut outputs) = tokio::sync::mpsc::channel(1 << 16);
    for input in inputs {
        let before = |queue: usize, segment: &Segment| segment.sequence < start.cuts[queue].sequence;
        if !matches!(input, Input::Segment(queue, segment) if before(*queue, segment)) {
            told.send(input.clone()).unwrap();
        }
    }
    told.send(Input::Counts(Some(COUNTS))).unwrap();
    run_live(start, shape, taken, made).unwrap();
    let (mut objects, mut bytes, mut whole) = (Vec::new(), Vec::new(), None);
    while let Some(output) = outputs.blocking_recv() {
        match output {
            Output::Begin(_) => bytes.clear(),
            Output::Whole(segment) => whole = Some(segment),
            Output::Chunk(chunk) => bytes.extend(chunk),
            Output::End(summary, consumed) => {
                assert_is(&bytes, whole.take());
                objects.push((std::mem::take(&mut bytes), summary, consumed));
            }
        }
    }
    objects
}

#[path = "format_tests.rs"]
mod formats;

#[path = "foreign_tests.rs"]
mod foreign;

#[path = "slices_tests.rs"]
mod slices;

#[path = "foresee_tests.rs"]
mod foresee;
