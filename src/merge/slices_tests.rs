//! Slices merged side by side, against one thread.

use super::super::parallel::merge_as;
use super::super::slices::Grain;
use super::*;
use crate::merge::MergeInput;

/// Small enough that files of some packets are cut, and that cuts are searched for.
const FINE: Grain = Grain { slice_bytes: 400, scan_bytes: 300 };

/// Streams whose times mostly increase by little, so that many are equal; in some they go back now and then.
fn unruly_streams() -> impl Strategy<Value = Vec<Vec<Packet>>> {
    let step = prop_oneof![20 => Just(0_i64), 20 => 0..3_i64, 20 => 0..SECOND as i64, 1 => -2..0_i64];
    let stream = prop::collection::vec(step, 0..120);
    prop::collection::vec(stream, 1..6).prop_map(|streams| {
        let stream = |(queue, steps): (usize, Vec<i64>)| {
            let mut ns = 10 * SECOND;
            let packets = steps.into_iter().enumerate();
            packets.map(|(i, step)| (ns = ns.saturating_add_signed(step), packet(ns, queue, i)).1).collect()
        };
        streams.into_iter().enumerate().map(stream).collect()
    })
}

fn files(dir: &Path, streams: &[Vec<Packet>]) -> Vec<PathBuf> {
    let file = |(queue, packets): (usize, &Vec<Packet>)| segment(dir, queue, 0, packets).path;
    streams.iter().enumerate().map(file).collect()
}

/// A merge by threads, if it comes about: its totals and bytes.
fn sliced(files: &[PathBuf], output: &Path, threads: usize, grain: Grain) -> Option<(Totals, Vec<u8>)> {
    let inputs: Vec<_> = files.iter().cloned().map(MergeInput::File).collect();
    let totals = merge_as(&inputs, output, (threads, grain), &mut |_| {}).unwrap()?;
    Some((totals, std::fs::read(output).unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn slices_make_the_file_that_one_thread_makes(streams in unruly_streams(), threads in 2..5_usize) {
        let dir = TempDir::new().unwrap();
        let files = files(dir.path(), &streams);
        let [one, many] = ["one.pcap", "many.pcap"].map(|name| dir.path().join(name));
        let totals = merge_files(&files, &one).unwrap().totals;
        if let Some((sliced, bytes)) = sliced(&files, &many, threads, FINE) {
            prop_assert_eq!(sliced, totals);
            prop_assert!(bytes == std::fs::read(&one).unwrap(), "other bytes");
        } else {
            prop_assert!(!many.exists());
        }
        prop_assert_eq!(dir.path().read_dir().unwrap().count(), files.len() + 1 + usize::from(many.exists()));
    }
}

/// In 2023.
const BEGIN_NS: u64 = 1_700_000_000 * SECOND;

/// Streams in order of time, with equal times over all of them, and one without packets. What begins four bytes behind a record
/// looks like one too: its data go on with a large number.
fn orderly_streams(packets: u64) -> Vec<Vec<Packet>> {
    let stream = |queue: usize| {
        let time = |i: u64| BEGIN_NS + i / 3 * 1000;
        (0..packets).map(|i| packet(time(i), 0, 10_000 * (queue + 1) + i as usize)).collect()
    };
    let mut streams: Vec<Vec<Packet>> = (0..4).map(stream).collect();
    streams.push(Vec::new());
    streams
}

#[test]
fn files_of_this_program_are_cut_whatever_the_number_of_threads_and_slices() {
    let dir = TempDir::new().unwrap();
    let streams = orderly_streams(2000);
    let files = files(dir.path(), &streams);
    let output = dir.path().join("out.pcap");
    for threads in [2, 3, 8] {
        for slice_bytes in [1000, 40_000, 200_000] {
            let grain = Grain { slice_bytes, ..FINE };
            let (totals, bytes) = sliced(&files, &output, threads, grain).expect("it is cut");
            assert!(read(&bytes) == sorted(&streams), "{threads} threads, slices of {slice_bytes}");
            assert_eq!((totals.packets, totals.bytes, totals.disorder), (8000, bytes.len() as u64, 0));
        }
    }
    // Small files are not worth it.
    assert!(sliced(&files, &output, 8, Grain { slice_bytes: 1 << 30, ..FINE }).is_none());
    let options = MergeOptions { threads: 8, ..MergeOptions::default() };
    let inputs = files.into_iter().map(MergeInput::File).collect();
    assert_eq!(merge_inputs(inputs, &output, options, &mut |_| {}).unwrap().totals.packets, 8000);
}

#[test]
fn what_is_not_as_the_plan_takes_it_is_left_to_one_thread() {
    let dir = TempDir::new().unwrap();
    let good = files(dir.path(), &orderly_streams(500));
    let whole = std::fs::read(&good[0]).unwrap();
    let middle = 24
        + (250..).find_map(|i| whole[24 + i * 10..].starts_with(&whole[24..28]).then_some(i * 10)).unwrap();
    let odd = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut late = whole.clone();
    // One packet of a much later time between others: it holds those behind it back.
    late[middle..middle + 4].copy_from_slice(&1_700_000_009_u32.to_le_bytes());
    let mut longer = whole.clone();
    longer[middle + 8..middle + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut micro = whole.clone();
    micro[..4].copy_from_slice(&crate::pcap::format::MAGIC_US.to_le_bytes());
    let zeros = [&whole[..], &[0; 64]].concat();
    let packed = zstd::bulk::compress(&whole, 1).unwrap();
    let output = dir.path().join("out.pcap");
    for (name, bytes) in [
        ("late", &late[..]),
        ("longer", &longer),
        ("cut", &whole[..whole.len() - 5]),
        ("micro", &micro),
        ("zeros", &zeros),
        ("packed", &packed),
        ("short", &whole[..20]),
    ] {
        let mut inputs = good.clone();
        inputs.push(odd(name, bytes));
        assert!(sliced(&inputs, &output, 4, FINE).is_none() && !output.exists(), "{name}");
        let inputs = || inputs.iter().cloned().map(MergeInput::File).collect();
        let merged = |threads| {
            let options = MergeOptions { keep_going: true, threads, ..MergeOptions::default() };
            let merged = merge_inputs(inputs(), &output, options, &mut |_| {}).unwrap();
            let bytes = std::fs::read(&output).unwrap();
            std::fs::remove_file(&output).unwrap();
            (merged.totals, merged.findings.lines(), bytes)
        };
        assert!(merged(1) == merged(4), "{name}");
    }
}

#[test]
fn only_a_file_is_written_in_slices() {
    let dir = TempDir::new().unwrap();
    let files = files(dir.path(), &orderly_streams(500));
    assert!(sliced(&files, Path::new("/dev/null"), 4, FINE).is_none());
    let read_only = dir.path().join("none/out.pcap");
    let inputs: Vec<_> = files.into_iter().map(MergeInput::File).collect();
    let error = merge_as(&inputs, &read_only, (4, FINE), &mut |_| {}).unwrap_err();
    assert!(matches!(error, MergeError::Output { .. }), "{error}");
}
