//! What a burst of 64-byte frames costs a worker before anything is captured: parsing, and evaluation of 1 and of 64
//! filters, also of accounts with few and with many prefixes. Divide by 64 for a packet; compare figures of one run only.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use std::hint::black_box;
use std::sync::Arc;
use trawl::limits::BURST;
use trawl::matcher::{Filter, FilterV1, Hits, PrefixSet, Program};
use trawl::packet::Key;

/// One filter of an account with so many prefixes of 20 to 24 bits.
fn scoped(count: u32, json: &str) -> Program {
    let prefixes: Vec<IpNet> = (0..count)
        .map(|n| {
            let network = u32::from_be_bytes([198, 19, 0, 0]).wrapping_add(n.wrapping_mul(0x9e37_7900));
            let length = 20 + (n % 5) as u8;
            IpNet::V4(Ipv4Net::new(network.into(), length).expect("at most 24").trunc())
        })
        .collect();
    Program::compile(&[(0, &filter(json), Some(&Arc::new(PrefixSet::new(&prefixes))))])
}

/// UDP from and to varying hosts and ports, 64 bytes with FCS.
fn frame(n: usize) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[12..24].copy_from_slice(&[0x08, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    let mixed = (n as u32).wrapping_mul(0x9e37_79b9).to_be_bytes();
    frame[26..30].copy_from_slice(&[198, 18, mixed[0], mixed[1]]);
    frame[30..34].copy_from_slice(&[198, 19, mixed[1], mixed[2]]);
    frame[34..38].copy_from_slice(&[mixed[2], mixed[3], mixed[0], mixed[2]]);
    frame
}

fn filter(json: &str) -> Filter {
    let sent: FilterV1 = serde_json::from_str(json).expect("a filter of this file");
    Filter::try_from(&sent).expect("a filter of this file")
}

fn program(count: usize, json: impl Fn(usize) -> String) -> Program {
    let filters: Vec<Filter> = (0..count).map(|n| filter(&json(n))).collect();
    let slots: Vec<_> = filters.iter().enumerate().map(|(slot, filter)| (slot, filter, None)).collect();
    Program::compile(&slots)
}

fn matcher(criterion: &mut Criterion) {
    let frames: Vec<[u8; 60]> = (0..BURST).map(frame).collect();
    let mut keys: Vec<Key> = frames.iter().map(|frame| Key::parse(frame, 60)).collect();
    let mut hits = Hits::default();
    let mut group = criterion.benchmark_group("burst of 64");
    group.throughput(Throughput::Elements(BURST as u64));

    group.bench_function("parse", |bench| {
        bench.iter(|| {
            for (key, frame) in keys.iter_mut().zip(&frames) {
                *key = Key::parse(black_box(frame), 60);
            }
            black_box(&mut keys);
        });
    });
    let five_tuple = |n: usize| {
        format!(
            r#"{{"source_address":"10.0.0.{n}","destination_address":"10.1.0.{n}","source_port":{n},
                "destination_port":443,"protocol":6}}"#
        )
    };
    // Every filter has a mask of its own: prefix lengths 1 to 32 at either end.
    let prefixes = |n: usize| {
        let member = if n < 32 { "source_address" } else { "destination_address" };
        let length = n % 32 + 1;
        let network = u32::from_be_bytes([10, 77, 88, 99]) & (u32::MAX << (32 - length));
        let [a, b, c, d] = network.to_be_bytes();
        format!(r#"{{"{member}":"{a}.{b}.{c}.{d}/{length}"}}"#)
    };
    let programs = [
        ("1 filter, none match", program(1, |_| r#"{"destination_port":443,"protocol":6}"#.to_owned())),
        ("1 filter, all match", program(1, |_| r#"{"protocol":17}"#.to_owned())),
        ("1 filter {}", program(1, |_| "{}".to_owned())),
        ("64 filters, none match", program(64, five_tuple)),
        ("64 filters with 64 masks", program(64, prefixes)),
        ("64 filters, all match", program(64, |_| r#"{"protocol":17}"#.to_owned())),
        ("1 filter {} of 2 prefixes", scoped(2, "{}")),
        ("1 filter {} of 5000 prefixes", scoped(5000, "{}")),
    ];
    for (name, program) in &programs {
        group.bench_function(format!("evaluate {name}"), |bench| {
            bench.iter(|| program.evaluate(black_box(&keys), black_box(&mut hits)));
        });
    }
    for (name, program) in [&programs[0], &programs[3]] {
        group.bench_function(format!("parse and evaluate {name}"), |bench| {
            bench.iter(|| {
                for (key, frame) in keys.iter_mut().zip(&frames) {
                    *key = Key::parse(black_box(frame), 60);
                }
                program.evaluate(black_box(&keys), black_box(&mut hits))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, matcher);
criterion_main!(benches);
