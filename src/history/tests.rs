//! Properties of the ring and of looking back, on real files.

use super::intake::Intake;
use super::ring::{Now, OPEN_PREFIX, Ring};
use super::{Entry, History, HistoryConfig, Query, now_ns, query};
use crate::limits::{PCAP_FILE_HEADER_BYTES, PCAP_RECORD_HEADER_BYTES};
use crate::matcher::{Filter, FilterV1};
use crate::packet::{Key, flags};
use crate::pcap::{Reader, Writer};
use crate::spool::{Call, Files, Input, Segment, Spool, SpoolCapture, SpoolConfig, WriteMode};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};
use tempfile::TempDir;

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A spool without shares.
pub(super) fn spool_config(dir: &Path) -> SpoolConfig {
    SpoolConfig {
        dir: dir.to_owned(),
        more_dirs: Vec::new(),
        bytes_max: 1 << 30,
        share_bytes_max: u64::MAX,
        part_bytes: u64::MAX,
        segment_bytes: 1 << 20,
        write: WriteMode::Auto,
        fsync_interval: DAY,
        pool_bytes: 0,
    }
}

/// A UDP frame from 192.0.2.1 to the last byte given.
pub(super) fn frame(to: u8) -> Vec<u8> {
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
pub(super) fn segment(dir: &Path, queue: u16, times: &[u64]) -> Entry {
    let mut entry =
        Entry { first_ns: times[0], last_ns: *times.last().unwrap(), queue, one_in: 10, number: 0, bytes: 0 };
    entry.bytes = write(&dir.join(entry.name()), times);
    entry
}

fn open(dir: &Path, bytes_max: u64, keep: Duration) -> Ring {
    Ring::open(dir, bytes_max, keep, 10, Files::default(), Now::get()).unwrap()
}

/// The moment that is so far away by both clocks.
fn after(time: Duration) -> Now {
    let now = Now::get();
    Now { wall_ns: now.wall_ns + super::ns(time), steady: now.steady + time }
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
    let spool = Arc::new(Spool::open(spool_config(dir.path())).unwrap());
    let config = HistoryConfig { sample: None, bytes_max: 1 << 20, keep: DAY, segment: DAY };
    let history = Arc::new(History::open(config, Arc::clone(&spool)).unwrap());
    let (feed, events) = (history.record(7, 2).unwrap(), tokio::sync::mpsc::unbounded_channel().0);
    let place = SpoolCapture::new(7, history.open_dir(7), 1, feed, events, Box::new(|_| ()));
    spool.register(place).unwrap();
    assert!(history.wait_for(u64::MAX, Duration::ZERO).is_err());
    history.finish(Duration::from_secs(60)).unwrap();
    assert!(!history.open_dir(7).exists());
}

proptest! {
    #[test]
    fn a_name_says_what_the_entry_is(
        first_ns: u64, last_ns: u64, queue in 0_u16..5000, one_in: u32,
        number in 0..u64::MAX / 2, bytes: u64,
    ) {
        let entry = Entry { first_ns, last_ns, queue, one_in, number, bytes };
        prop_assert_eq!(Entry::parse(&entry.name(), bytes), Some(entry));
    }

    #[test]
    fn a_number_that_leaves_none_for_the_next_is_of_no_segment(number in u64::MAX / 2..=u64::MAX, bytes: u64) {
        let entry = Entry { first_ns: 1, last_ns: 2, queue: 0, one_in: 1, number, bytes };
        prop_assert_eq!(Entry::parse(&entry.name(), bytes), None);
    }

    #[test]
    fn no_other_name_is_of_the_ring(name in "[0-9]{1,20}-[0-9]{1,20}-q[0-9]{1,4}-n[0-9]{1,3}(-i[0-9]{1,3})?(.pcap)?") {
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
    ring.trim(after(Duration::from_secs(7200)));
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

#[test]
fn a_step_of_the_clock_neither_empties_the_ring_nor_keeps_a_segment_for_good() {
    let (hour, day) = (Duration::from_secs(3600), super::ns(DAY));
    for is_ahead in [true, false] {
        let dir = TempDir::new().unwrap();
        let start = Now::get();
        let mut ring = Ring::open(dir.path(), 1 << 30, hour, 10, Files::default(), start).unwrap();
        let take_in = |ring: &mut Ring, now: Now| {
            let mut entry = Entry {
                number: ring.next_number(),
                ..segment(dir.path(), 0, &[now.wall_ns, now.wall_ns + 1])
            };
            fs::rename(dir.path().join(Entry { number: 0, ..entry }.name()), dir.path().join(entry.name()))
                .unwrap();
            entry.bytes = fs::metadata(dir.path().join(entry.name())).unwrap().len();
            ring.insert(entry, now);
            entry
        };
        let at = |minutes: u64, is_stepped: bool| {
            let time = Duration::from_secs(60 * minutes);
            let wall_ns = start.wall_ns + super::ns(time);
            let wall_ns = match (is_stepped, is_ahead) {
                (false, _) => wall_ns,
                (true, true) => wall_ns + day,
                (true, false) => wall_ns - day,
            };
            Now { wall_ns, steady: start.steady + time }
        };
        let before = take_in(&mut ring, at(1, false));
        let after = take_in(&mut ring, at(20, true));
        ring.trim(at(30, true));
        assert_eq!(ring.between(0, u64::MAX), [before, after], "ahead: {is_ahead}");
        ring.trim(at(63, true));
        assert_eq!(ring.between(0, u64::MAX), [after], "the first one is over an hour old");
        ring.trim(at(82, true));
        assert_eq!((ring.bytes(), names(dir.path()).len()), (0, 0));

        // Without room the one goes first that was taken in first, whatever the stamps say, also after a restart.
        let kept: Vec<_> =
            [(1, false), (2, true), (3, false)].map(|(m, s)| take_in(&mut ring, at(m, s))).into();
        drop(ring);
        let two = 2 * kept[0].bytes;
        let ring = Ring::open(dir.path(), two, 48 * hour, 10, Files::default(), at(4, false)).unwrap();
        let mut left = ring.between(0, u64::MAX);
        left.sort_by_key(|entry| entry.number);
        assert_eq!(left, kept[1..], "ahead: {is_ahead}");
    }
}

#[test]
fn a_segment_that_cannot_be_deleted_stays_in_the_ring_and_goes_later() {
    let dir = TempDir::new().unwrap();
    let now = now_ns();
    let made: Vec<Entry> =
        (0..10).map(|i| segment(dir.path(), i, &[now + u64::from(i), now + 100])).collect();
    let files = Files::default();
    let mut ring = Ring::open(dir.path(), 1 << 20, DAY, 10, files.clone(), Now::get()).unwrap();
    assert_eq!(ring.between(0, u64::MAX).len(), 10);
    drop(ring);
    let stuck = dir.path().join(made[0].name());
    files.fail(move |call, path| {
        (call == Call::Remove && path == stuck).then(|| io::Error::from_raw_os_error(1))
    });
    ring = Ring::open(dir.path(), 4 * made[0].bytes, DAY, 10, files.clone(), Now::get()).unwrap();
    // The bound holds all the same, and the file that is there can be read.
    let mut held = ring.between(0, u64::MAX);
    held.sort_by_key(|entry| entry.queue);
    assert_eq!(held, [made[0], made[7], made[8], made[9]]);
    files.fail(|call, _| (call == Call::Remove).then(|| io::Error::from_raw_os_error(30)));
    ring.trim(after(2 * DAY));
    assert_eq!(ring.between(0, u64::MAX).len(), 4, "nothing is forgotten that is there");
    files.heal();
    ring.trim(after(2 * DAY));
    assert_eq!((ring.bytes(), names(dir.path()).len()), (0, 0));
}

#[test]
fn what_cannot_be_taken_in_at_a_start_costs_that_segment_and_is_taken_in_at_the_next() {
    let dir = TempDir::new().unwrap();
    let left = dir.path().join(format!("{OPEN_PREFIX}7"));
    fs::create_dir(&left).unwrap();
    let now = now_ns();
    for (sequence, first) in [(0, now), (1, now + 10)] {
        write(&left.join(format!("q002-0000000{sequence}.pcap")), &[first, first + 1]);
    }
    let files = Files::default();
    files.fail(|call, path| {
        let is_first = path.file_name()?.to_str()?.contains("00000000.pcap");
        (call == Call::Rename && is_first).then(|| io::Error::from_raw_os_error(5))
    });
    let open = || Ring::open(dir.path(), 1 << 20, DAY, 10, files.clone(), Now::get()).unwrap();
    assert_eq!(open().between(0, u64::MAX).len(), 1);
    assert!(left.exists());
    files.heal();
    assert_eq!(open().between(0, u64::MAX).len(), 2);
    assert!(!left.exists());
}

/// A history of direct or mapped segments, and a directory of a recording that is registered with its spool.
fn history(write: WriteMode) -> (TempDir, Arc<History>, PathBuf) {
    let dir = TempDir::new().unwrap();
    let spool = Spool::open(SpoolConfig {
        segment_bytes: 4 << 20,
        write,
        fsync_interval: Duration::from_secs(1),
        ..spool_config(&dir.path().join("spool"))
    });
    let (sample, keep, segment) = (None, DAY, Duration::from_secs(10));
    let config = HistoryConfig { sample, bytes_max: 1 << 30, keep, segment };
    let history = Arc::new(History::open(config, Arc::new(spool.unwrap())).unwrap());
    let open = history.open_dir(7);
    fs::create_dir_all(&open).unwrap();
    (dir, history, open)
}

/// Announces a segment of that recording with two packets, the first of them at `ns`.
fn announced(open: &Path, sequence: u64, ns: u64) -> Input {
    let path = open.join(format!("q000-{sequence:08}.pcap"));
    let bytes = write(&path, &[ns, ns + 1]);
    Input::Segment(0, Segment { path, sequence, bytes, packets: 2, first_ns: ns, last_ns: ns + 1 })
}

fn covered(history: &History, start_ns: u64, end_ns: u64) -> bool {
    let query = Query { start_ns, end_ns, filter: Filter::default(), packets_max: 10 };
    history.look_back(&query, &|_| true).unwrap().covered
}

#[test]
fn a_segment_that_cannot_be_taken_in_is_tried_again_and_costs_no_other_one() {
    for write in [WriteMode::Auto, WriteMode::Mapped] {
        for kind in [Call::Rename, Call::Write, Call::Sync, Call::Remove] {
            let (_dir, history, open) = history(write);
            let (start, base) = (Instant::now(), now_ns());
            let mut intake = Intake::new(&history, 7, 1, start);
            let mut left = 3;
            history.spool.files().fail(move |call, _| {
                let fails = call == kind && left > 0;
                left -= i32::from(fails);
                fails.then(|| io::Error::from_raw_os_error(5))
            });
            for sequence in 0..3 {
                intake.take(announced(&open, sequence, base + 10 * sequence), start);
            }
            intake.take(Input::End(0), start);
            let mut now = start;
            while intake.is_open() {
                intake.turn(now);
                now += Duration::from_millis(50);
                assert!(now < start + Duration::from_secs(5), "{write:?} {kind:?}");
            }
            assert_eq!(history.ring().between(0, u64::MAX).len(), 3, "{write:?} {kind:?}");
            history.tidy();
            assert_eq!(names(&open).len(), 0, "{write:?} {kind:?}");
            assert!(covered(&history, base, base + 100));
        }
    }
}

#[test]
fn a_segment_lost_to_the_ring_makes_its_look_backs_uncovered_and_nothing_else() {
    let (_dir, history, open) = history(WriteMode::Auto);
    let (mut now, base) = (Instant::now(), now_ns());
    let mut intake = Intake::new(&history, 7, 1, now);
    history.spool.files().fail(|call, path| {
        let is_second = path.file_name()?.to_str()?.contains("00000001.pcap");
        (call == Call::Rename && is_second).then(|| io::Error::from_raw_os_error(5))
    });
    for sequence in 0..3 {
        intake.take(announced(&open, sequence, base + 1000 * sequence), now);
    }
    while history.ring().between(0, u64::MAX).len() < 2 {
        intake.turn(now);
        now += Duration::from_millis(500);
    }
    assert!(covered(&history, base, base + 900));
    assert!(!covered(&history, base, base + 1000));
    assert!(covered(&history, base + 1100, base + 3000));
    assert!(open.join("q000-00000001.pcap").exists(), "the next start takes it in");
}

#[test]
fn nobody_waits_for_a_recording_that_was_replaced_and_is_silent_and_what_it_sends_later_is_taken_in() {
    let (_dir, history, open) = history(WriteMode::Auto);
    let (start, base) = (Instant::now(), now_ns());
    history.begin(7, base, start);
    let mut intake = Intake::new(&history, 7, 1, start);
    intake.take(announced(&open, 0, base), start);
    intake.turn(start);
    history.begin(8, base + 1, start);
    assert!(history.wait_for(8, Duration::ZERO).is_err(), "it may still send what it has");
    intake.turn(start + Duration::from_secs(31));
    history.wait_for(8, Duration::ZERO).unwrap();
    assert!(!covered(&history, base, now_ns()), "what it had not sent is missing");
    intake.take(announced(&open, 1, base + 10), start);
    intake.turn(start);
    assert_eq!(history.ring().between(0, u64::MAX).len(), 2);
}

#[test]
fn after_the_clock_was_set_back_the_newest_recording_is_still_what_lags() {
    let (_dir, history, _) = history(WriteMode::Auto);
    let (base, hour) = (now_ns(), 3_600_000_000_000);
    history.begin(7, base, Instant::now());
    assert!(history.lags_at(base + 10, base + 20));
    assert!(!history.lags_at(base - 10, base + 20), "it began later");
    assert!(history.lags_at(base - hour, base - hour + 10));
}

#[test]
fn a_segment_that_cannot_be_read_costs_what_it_holds_and_the_answer_says_so() {
    let dir = TempDir::new().unwrap();
    let entries =
        [segment(dir.path(), 0, &[4, 5]), segment(dir.path(), 1, &[4, 6, 8]), segment(dir.path(), 2, &[7])];
    let query = Query { start_ns: 0, end_ns: 100, filter: Filter::default(), packets_max: 100 };
    let ask = |entries: &[Entry]| query::run(&query, dir.path(), entries, true, &|_| true);
    let answer = ask(&entries).unwrap();
    assert_eq!((answer.captured, answer.covered), (6, true));
    // No pcap at all; and one that ends inside its second record.
    fs::write(dir.path().join(entries[0].name()), [0xff; 100]).unwrap();
    let second = dir.path().join(entries[1].name());
    let whole = fs::read(&second).unwrap();
    let record = PCAP_RECORD_HEADER_BYTES + 60;
    fs::write(&second, &whole[..PCAP_FILE_HEADER_BYTES + record + 20]).unwrap();
    let answer = ask(&entries).unwrap();
    assert_eq!((answer.captured, answer.covered), (2, false));
    assert!(ask(&entries[..1]).is_err(), "nothing can be read");
}
