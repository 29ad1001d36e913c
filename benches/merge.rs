//! Merge throughput. Owns its inputs, made afresh on tmpfs where there is one; mergecap runs on the same files.
//!
//! Compare the ratios within one run, not the figures of two machines.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use trawl::merge::{Shape, Start, merge_files, run_live};
use trawl::pcap::Writer;
use trawl::spool::{Input, Segment};

const BYTES: u64 = 256 << 20;
/// 7 : 4 : 1 packets of 64, 594 and 1514 bytes: simple IMIX.
const IMIX: [usize; 12] = [64, 64, 64, 64, 64, 64, 64, 594, 594, 594, 594, 1514];

/// One queue's segment; `burst` packets have the same time.
fn segment(dir: &Path, queue: usize, bytes_max: u64, burst: u64) -> Segment {
    let path = dir.join(format!("{queue}.pcap"));
    let mut writer = Writer::new(BufWriter::new(File::create(&path).unwrap()), 262_144, 1).unwrap();
    let first_ns = 1_700_000_000_000_000_000 + queue as u64;
    let (mut packets, mut bytes, mut last_ns) = (0, 24, first_ns);
    while bytes < bytes_max {
        let data = vec![packets as u8; IMIX[packets as usize % IMIX.len()]];
        last_ns = first_ns + packets / burst * burst * 1000;
        writer.write(last_ns, data.len() as u32, &data).unwrap();
        bytes += 16 + data.len() as u64;
        packets += 1;
    }
    writer.finish().unwrap();
    Segment { path, sequence: 0, bytes, packets, first_ns, last_ns }
}

fn live(segments: &[Segment]) {
    let (inputs, taken) = crossbeam::channel::unbounded();
    let (made, mut outputs) = tokio::sync::mpsc::channel(8);
    for (queue, segment) in segments.iter().enumerate() {
        inputs.send(Input::Segment(queue, segment.clone())).unwrap();
        inputs.send(Input::End(queue)).unwrap();
    }
    let upload = std::thread::spawn(move || while outputs.blocking_recv().is_some() {});
    run_live(&Start::fresh(segments.len()), &Shape::plain(262_144, 1 << 30), taken, made).unwrap();
    upload.join().unwrap();
}

fn merges(criterion: &mut Criterion) {
    let shared_memory = Path::new("/dev/shm");
    let root = if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
    let with_mergecap = Command::new("mergecap").arg("--version").output().is_ok();
    for (queues, burst) in [(1, 1), (4, 32), (4, 1), (64, 1)] {
        let dir = tempfile::tempdir_in(&root).unwrap();
        let segments: Vec<Segment> =
            (0..queues).map(|queue| segment(dir.path(), queue, BYTES / queues as u64, burst)).collect();
        let inputs: Vec<PathBuf> = segments.iter().map(|segment| segment.path.clone()).collect();
        let output = dir.path().join("out.pcap");
        let mut group = criterion.benchmark_group(format!("{queues} queues, bursts of {burst}"));
        group
            .sample_size(10)
            .throughput(Throughput::Bytes(segments.iter().map(|segment| segment.bytes).sum()));
        group.bench_function("live", |bencher| bencher.iter(|| live(&segments)));
        group.bench_function("offline", |bencher| bencher.iter(|| merge_files(&inputs, &output).unwrap()));
        if with_mergecap {
            let mut command = Command::new("mergecap");
            command.args(["-F", "nsecpcap", "-w"]).arg(&output).args(&inputs);
            group.bench_function("mergecap", |bencher| {
                bencher.iter(|| assert!(command.status().unwrap().success()));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, merges);
criterion_main!(benches);
