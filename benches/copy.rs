//! What the writer's copy of a block into a mapped segment costs, by ordinary stores and by stores past the cache. The blocks
//! are in the cache; the target is larger than any and was written before. Compare figures of one run only.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use trawl::block::copy_past_cache;
use trawl::limits::BLOCK_BYTES;

/// The target: larger than the last level of any cache that we know.
const TARGET_BYTES: usize = 2 << 30;
/// Blocks between a worker and a writer that keeps up.
const BLOCKS: usize = 4;

/// A way to copy, by name.
type Way = (&'static str, fn(&mut [u8], &[u8]));

fn copy(criterion: &mut Criterion) {
    let mut target = vec![1_u8; TARGET_BYTES];
    let blocks: Vec<Vec<u8>> = (2..).take(BLOCKS).map(|n| vec![n; BLOCK_BYTES]).collect();
    let mut group = criterion.benchmark_group("a block into a mapped segment");
    group.throughput(Throughput::Bytes(BLOCK_BYTES as u64));
    let ways: [Way; 2] = [("ordinary", <[u8]>::copy_from_slice), ("past the cache", copy_past_cache)];
    for (name, way) in ways {
        let (mut at, mut block) = (0, 0);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                at = (at + BLOCK_BYTES) % TARGET_BYTES;
                block = (block + 1) % BLOCKS;
                way(&mut target[at..at + BLOCK_BYTES], black_box(&blocks[block]));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, copy);
criterion_main!(benches);
