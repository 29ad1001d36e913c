//! Properties of the ring and of looking back, on real files.

use super::ring::{OPEN_PREFIX, Ring};
use super::{Entry, History, HistoryConfig, Query, now_ns, query};
use crate::limits::{PCAP_FILE_HEADER_BYTES, PCAP_RECORD_HEADER_BYTES};
use crate::matcher::{Filter, FilterV1};
use crate::packet::{Key, flags};
use crate::pcap::{Reader, Writer};
use crate::spool::{Spool, SpoolCapture, SpoolConfig, WriteMode};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

/// A UDP frame from 192.0.2.1 to the last byte given.
fn frame(to: u8) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..18].copy_from_slice(&[0x45, 0, 0, 46]);
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..34].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, to]);
    frame
}

fn write(path: &Path, times: &[u64]) -> u64 {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, 160, 1).unwrap();
    for &ns in times {
        writer.write(ns, 60, &frame((ns % 4) as u8)).unwrap();
    }
    fs::write(path, &bytes).unwrap();
    bytes.len() as u64
}

/// A segment of the ring with records at these times.
fn segment(dir: &Path, queue: u16, times: &[u64]) -> Entry {
    let mut entry =
        Entry { first_ns: times[0], last_ns: *times.last().unwrap(), queue, one_in: 10, bytes: 0 };
    entry.bytes = write(&dir.join(entry.name()), times);
    entry
}

fn open(dir: &Path, bytes_max: u64, keep: Duration) -> Ring {
    Ring::open(dir, bytes_max, keep, 10).unwrap()
}

/// What the spool keeps beside an open segment of which so many bytes are written: the boot, written, durable.
fn length(path: &Path, written: u64) {
    let mut bytes = fs::read("/proc/sys/kernel/random/boot_id").unwrap();
    bytes.resize(36, 0);
    bytes.resize(40, 0);
    bytes.extend(written.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

fn names(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_recording_that_no_worker_took_up_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Arc::new(
        Spool::open(SpoolConfig {
            dir: dir.path().to_owned(),
            bytes_max: 1 << 30,
            segment_bytes: 1 << 20,
            write: WriteMode::Auto,
            fsync_interval: DAY,
            pool_bytes: 0,
        })
        .unwrap(),
    );
    let config = HistoryConfig { sample: None, bytes_max: 1 << 20, keep: DAY, segment: DAY };
    let history = Arc::new(History::open(config, Arc::clone(&spool)).unwrap());
    let place = SpoolCapture {
        serial: 7,
        dir: history.open_dir(7),
        merge: history.record(7, 2).unwrap(),
        events: tokio::sync::mpsc::unbounded_channel().0,
        stop_workers: Box::new(|_| ()),
        refused: OnceLock::new(),
    };
    spool.register(place).unwrap();
    assert!(history.wait_for(u64::MAX, Duration::ZERO).is_err());
    history.finish(Duration::from_secs(60)).unwrap();
    assert!(!history.open_dir(7).exists());
}

proptest! {
    #[test]
    fn a_name_says_what_the_entry_is(
        first_ns: u64, last_ns: u64, queue in 0_u16..5000, one_in: u32, bytes: u64,
    ) {
        let entry = Entry { first_ns, last_ns, queue, one_in, bytes };
        prop_assert_eq!(Entry::parse(&entry.name(), bytes), Some(entry));
    }

    #[test]
    fn no_other_name_is_of_the_ring(name in "[0-9]{1,20}-[0-9]{1,20}-q[0-9]{1,4}-n[0-9]{1,3}(.pcap)?") {
        prop_assert!(Entry::parse(&name, 0).is_none_or(|entry| entry.name() == name));
    }

    /// Against a plain list: segments of several queues that overlap, any window, any limit.
    #[test]
    fn a_look_back_is_the_newest_of_what_a_plain_list_has(
        gaps in prop::collection::vec((0_u64..50, 0_u16..3), 1..120),
        start_ns in 0_u64..1500, length_ns in 0_u64..1500, packets_max in 1_usize..60, to in prop::option::of(0_u8..4),
    ) {
        let dir = TempDir::new().unwrap();
        let mut ns = 1;
        let all: Vec<(u64, u16)> = gaps.iter().map(|(gap, queue)| { ns += gap; (ns, *queue) }).collect();
        let mut entries = Vec::new();
        for queue in 0..3 {
            let times: Vec<u64> = all.iter().filter(|(_, of)| *of == queue).map(|(ns, _)| *ns).collect();
            // Not more than one segment of a queue begins and ends at the same time.
            let mut segments = times.chunk_by(|a, b| a / 40 == b / 40).collect::<Vec<_>>();
            segments.dedup();
            entries.extend(segments.iter().map(|times| segment(dir.path(), queue, times)));
        }
        let destination_address = to.map(|to| format!("198.51.100.{to}"));
        let filter = FilterV1 { destination_address, ..FilterV1::default() };
        let end_ns = start_ns + length_ns;
        let query = Query { start_ns, end_ns, filter: Filter::try_from(&filter).unwrap(), packets_max };
        let window = || all.iter().map(|(ns, _)| *ns).filter(|ns| (start_ns..=end_ns).contains(ns));
        let matching: Vec<u64> = window().filter(|ns| to.is_none_or(|to| ns % 4 == u64::from(to))).collect();
        let expected = &matching[matching.len().saturating_sub(packets_max)..];

        let answer = query::run(&query, dir.path(), &entries, true, &|_| true).unwrap();
        let mut reader = Reader::new(&answer.pcap[..]).unwrap();
        let mut found = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            prop_assert_eq!(record.data, &frame((record.ns % 4) as u8)[..]);
            found.push(record.ns);
        }
        prop_assert_eq!(&found[..], expected);
        prop_assert_eq!(
            (answer.seen, answer.matched, answer.captured),
            (window().count() as u64, matching.len() as u64, expected.len() as u64)
        );
    }
}

#[test]
fn what_an_account_may_not_see_is_neither_given_nor_counted() {
    let dir = TempDir::new().unwrap();
    let entries = [segment(dir.path(), 0, &[4, 5, 6, 7, 8])];
    let filter = Filter::default();
    let query = Query { start_ns: 0, end_ns: 100, filter, packets_max: 100 };
    let even = |key: &Key| key.flags() & flags::IPV4 != 0 && key.0[31].is_multiple_of(2);
    let answer = query::run(&query, dir.path(), &entries, true, &even).unwrap();
    assert_eq!((answer.seen, answer.matched, answer.captured), (3, 3, 3));
}

#[test]
fn the_oldest_segments_go_when_the_ring_is_full() {
    let dir = TempDir::new().unwrap();
    let now = now_ns();
    let made: Vec<Entry> =
        (0..10).map(|i| segment(dir.path(), i, &[now + u64::from(i), now + 100])).collect();
    let ring = open(dir.path(), 4 * made[0].bytes + 1, DAY);
    assert_eq!((ring.bytes(), names(dir.path()).len()), (4 * made[0].bytes, 4));
    assert_eq!(ring.between(0, u64::MAX), made[6..]);
}

#[test]
fn what_is_too_old_goes_however_little_it_is() {
    let dir = TempDir::new().unwrap();
    let now = now_ns();
    let hour_ns = 3_600_000_000_000;
    segment(dir.path(), 0, &[now - 3 * hour_ns, now - 2 * hour_ns]);
    let kept = segment(dir.path(), 1, &[now - 2 * hour_ns, now - 10]);
    let mut ring = open(dir.path(), 1 << 30, Duration::from_secs(3600));
    assert_eq!(ring.between(0, u64::MAX), [kept]);
    ring.trim(now + 2 * hour_ns);
    assert_eq!((ring.bytes(), names(dir.path()).len()), (0, 0));
}

#[test]
fn what_a_dead_process_left_is_taken_in_up_to_its_last_whole_record() {
    // Known up to the second record and behind it the remains of an older use, or without a word on how much is its own.
    for (length_known, packets) in [(true, 5), (false, 3)] {
        let dir = TempDir::new().unwrap();
        let left = dir.path().join(format!("{OPEN_PREFIX}7"));
        fs::create_dir(&left).unwrap();
        let now = now_ns();
        write(&left.join("q002-00000000.pcap"), &[now, now + 1, now + 2]);
        let whole = write(&left.join(".q002-00000001.pcap.open"), &[now + 3, now + 4, now + 5]);
        if length_known {
            length(&left.join(".q002-00000001.pcap.len"), whole - 1);
        }
        fs::write(dir.path().join(".part-x"), "half").unwrap();
        let ring = open(dir.path(), 1 << 30, DAY);
        let record = (PCAP_RECORD_HEADER_BYTES + 60) as u64;
        let files = if length_known { 2 } else { 1 };
        assert_eq!(ring.bytes(), files * PCAP_FILE_HEADER_BYTES as u64 + packets * record);
        assert_eq!(names(dir.path()).len() as u64, files);
        let again = open(dir.path(), 1 << 30, DAY);
        assert_eq!(again.between(0, u64::MAX), ring.between(0, u64::MAX));
        assert!(ring.between(0, u64::MAX).iter().all(|entry| entry.queue == 2));
    }
}
