//! Estimates against plain lists and against the truth that they are a sample of.

use super::super::tests::{DAY, segment};
use super::super::{HistoryConfig, now_ns};
use super::*;
use crate::matcher::FilterV1;
use crate::packet::flags;
use crate::spool::{Spool, SpoolConfig, WriteMode};
use std::fs;
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;

const SECOND_NS: u64 = 1_000_000_000;
/// What `config` takes until the ring has everything.
const SETTLED_NS: u64 = 6 * SECOND_NS;
const MINUTE: Duration = Duration::from_secs(60);

/// A history that records, and whose ring has segments with packets at these times, of these queues. Each is one of ten.
fn history(dir: &TempDir, segments: &[(u16, Vec<u64>)]) -> History {
    let ring = dir.path().join(crate::limits::HISTORY_DIR);
    fs::create_dir_all(&ring).unwrap();
    for (queue, times) in segments {
        segment(&ring, *queue, times);
    }
    let spool = SpoolConfig {
        dir: dir.path().to_owned(),
        bytes_max: 1 << 30,
        share_bytes_max: u64::MAX,
        part_bytes: u64::MAX,
        segment_bytes: 1 << 20,
        write: WriteMode::Auto,
        fsync_interval: DAY,
        pool_bytes: 0,
    };
    let config =
        HistoryConfig { sample: None, bytes_max: 1 << 30, keep: DAY, segment: Duration::from_secs(1) };
    let history = History::open(config, Arc::new(Spool::open(spool).unwrap())).unwrap();
    if !segments.is_empty() {
        history.begin(1, 1, Instant::now());
    }
    history
}

/// Seconds ago, in ns since the UNIX epoch.
fn ago(seconds: u64) -> u64 {
    now_ns() - seconds * SECOND_NS
}

fn recent(filter: FilterV1) -> Recent {
    Recent { filter: Filter::try_from(&filter).unwrap(), window: MINUTE }
}

/// So many packets, a millisecond apart, from then on. Packets go to the address that their time's last two bits say.
fn times(from_ns: u64, count: u64) -> Vec<u64> {
    (0..count).map(|n| from_ns + n * 1_000_001).collect()
}

fn all(history: &History, asked: &Recent) -> Option<Estimate> {
    history.estimate(asked, &|_| true, &|| false).unwrap()
}

#[test]
fn an_estimate_is_what_a_plain_list_of_the_window_has_times_the_rate() {
    let dir = TempDir::new().unwrap();
    let segments = [
        // Before the window, across its beginning, in it, and too new.
        (0, times(ago(100), 50)),
        (1, times(ago(67), 3_000)),
        (0, times(ago(40), 700)),
        (1, times(ago(30), 900)),
        (0, times(ago(8), 5_000)),
    ];
    let history = history(&dir, &segments);
    for to in [None, Some(1_u8)] {
        let destination_address = to.map(|to| format!("198.51.100.{to}"));
        let found = all(&history, &recent(FilterV1 { destination_address, ..FilterV1::default() })).unwrap();
        assert_eq!(found.to_ns - found.from_ns, 60 * SECOND_NS);
        assert!(now_ns() - found.to_ns < SETTLED_NS + 5 * SECOND_NS);
        let is_in = |ns: &&u64| (found.from_ns..=found.to_ns).contains(*ns);
        let wanted = segments.iter().flat_map(|(_, times)| times).filter(is_in);
        let k = wanted.filter(|ns| to.is_none_or(|to| **ns % 4 == u64::from(to))).count() as u64;
        assert!(k > 500, "{k}");
        assert_eq!((found.packets, found.bytes, found.sample_one_in), (10 * k, 600 * k, 10));
        let (low, high) = interval(k, 10);
        assert_eq!((found.packets_low, found.packets_high), (low.floor() as u64, high.ceil() as u64));
    }
}

#[test]
fn an_estimate_has_nothing_of_what_the_account_may_not_see() {
    let dir = TempDir::new().unwrap();
    let history = history(&dir, &[(0, times(ago(40), 1_000))]);
    let even = |key: &Key| key.flags() & flags::IPV4 != 0 && key.0[31].is_multiple_of(2);
    let found = history.estimate(&recent(FilterV1::default()), &even, &|| false).unwrap().unwrap();
    assert_eq!(found.packets, 5_000);
    let none = history.estimate(&recent(FilterV1::default()), &|_| false, &|| false).unwrap().unwrap();
    // As if the ring had no packet: the bound is that of nothing seen.
    assert_eq!((none.packets, none.packets_low, none.packets_high, none.bytes), (0, 0, 29, 0));
}

#[test]
fn an_estimate_of_a_time_that_the_ring_does_not_have_is_none_and_gaps_shorten_it() {
    let dir = TempDir::new().unwrap();
    let empty = history(&dir, &[]);
    let asked = recent(FilterV1::default());
    assert_eq!(all(&empty, &asked), None);
    // Recorded since ten seconds before the newest that is settled: nothing was seen.
    empty.begin(1, ago(16), Instant::now());
    let found = all(&empty, &asked).unwrap();
    assert!((9..=11).contains(&((found.to_ns - found.from_ns) / SECOND_NS)) && found.packets == 0);

    let dir = TempDir::new().unwrap();
    let (first, last) = (ago(60), ago(30));
    let history = history(&dir, &[(0, times(first, 100)), (0, times(last, 100))]);
    assert_eq!(all(&history, &asked).map(|found| (found.from_ns, found.packets)), Some((first, 2_000)));
    // The recording ended, and another one began a while later.
    history.close(1);
    assert_eq!(all(&history, &asked), None);
    history.begin(2, ago(20), Instant::now());
    let found = all(&history, &asked).unwrap();
    assert!(found.packets == 0 && found.from_ns >= ago(21), "{found:?}");
    history.miss(ago(10), ago(1));
    assert_eq!(all(&history, &asked), None);
}

#[test]
fn a_time_of_which_a_segment_was_deleted_is_not_estimated() {
    let dir = TempDir::new().unwrap();
    let (old, new) = (ago(50), ago(45));
    let history = history(&dir, &[(0, times(old, 3_000)), (1, times(new, 9_000))]);
    let asked = recent(FilterV1::default());
    assert_eq!(all(&history, &asked).unwrap().from_ns, old);
    {
        let mut ring = history.ring();
        // The oldest goes.
        let less = ring.bytes() - 1;
        ring.trim_to(less, Now::get());
    }
    let last = *times(old, 3_000).last().unwrap();
    let found = all(&history, &asked).unwrap();
    assert_eq!(found.from_ns, last + 1);
    let left = times(new, 9_000).iter().filter(|ns| **ns > last).count() as u64;
    assert_eq!(found.packets, 10 * left);
}

#[test]
fn an_estimate_that_nobody_waits_for_ends() {
    let dir = TempDir::new().unwrap();
    let history = history(&dir, &[(0, times(ago(40), 20_000))]);
    let looks = std::cell::Cell::new(0);
    let is_gone = || looks.replace(looks.get() + 1) == 2;
    let seen = std::cell::Cell::new(0_u64);
    let visible = |_: &Key| {
        seen.set(seen.get() + 1);
        true
    };
    assert_eq!(history.estimate(&recent(FilterV1::default()), &visible, &is_gone).unwrap(), None);
    assert_eq!(seen.get(), 2 * RECORDS_PER_LOOK);
}

#[test]
fn a_segment_that_cannot_be_read_is_an_error_and_not_a_smaller_number() {
    let dir = TempDir::new().unwrap();
    let history = history(&dir, &[(0, times(ago(40), 100)), (1, times(ago(30), 100))]);
    for found in fs::read_dir(dir.path().join(crate::limits::HISTORY_DIR)).unwrap() {
        let path = found.unwrap().path();
        if path.to_string_lossy().contains("q001") {
            fs::write(&path, b"no pcap file at all, and long enough to be one").unwrap();
        }
    }
    assert!(history.estimate(&recent(FilterV1::default()), &|_| true, &|| false).is_err());
}

/// How many of `packets` are kept, each with probability 1/N: SplitMix64 and inversion, as the workers do it.
fn sampled(packets: u64, one_in: u32, state: &mut u64) -> u64 {
    let scale = 1.0 / (-1.0 / f64::from(one_in)).ln_1p();
    let (mut at, mut kept) = (0_u64, 0);
    loop {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = *state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let uniform = ((word >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        at = at.saturating_add((uniform.ln() * scale) as u64).saturating_add(1);
        if at > packets {
            return kept;
        }
        kept += 1;
    }
}

#[test]
fn the_interval_has_the_truth_in_at_least_94_of_100_samples() {
    for one_in in [2, 10, 100, 10_000] {
        for mean in [0.4, 2.0, 6.5, 41.0, 900.0] {
            let truth = (mean * f64::from(one_in)) as u64;
            let mut state = u64::from(one_in) ^ truth;
            let covers = |_: &u32| {
                let k = sampled(truth, one_in, &mut state);
                let (low, high) = interval(k, one_in);
                assert!(low >= k as f64 && low <= high && high.is_finite(), "{k}");
                low.floor() as u64 <= truth && truth <= high.ceil() as u64
            };
            let covered = (0..1000).filter(covers).count();
            assert!(covered >= 940, "{covered} of 1000 at {truth} packets, one in {one_in}");
        }
    }
}

#[test]
fn nothing_seen_is_at_most_three_times_the_rate_and_every_packet_is_a_count() {
    assert_eq!([0, 7].map(|k| interval(k, 1)), [(0.0, 0.0), (7.0, 7.0)]);
    let (low, high) = interval(0, 10_000);
    assert!(low == 0.0 && (29_950.0..30_000.0).contains(&high), "{high}");
}

#[test]
fn segments_of_two_rates_are_made_whole_each_by_its_own() {
    let seen = |packets| Seen { packets, bytes: packets * 100 };
    let both = estimate(1, 2, &BTreeMap::from([(1, seen(500)), (100, seen(50))]), 1);
    assert_eq!((both.packets, both.bytes, both.sample_one_in), (5_500, 550_000, 100));
    let (low, high) = interval(50, 100);
    assert_eq!(
        (both.packets_low, both.packets_high),
        ((500.0 + low).floor() as u64, (500.0 + high).ceil() as u64)
    );
}
