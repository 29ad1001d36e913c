//! The journal after crashes and on damaged disks. Owns these expectations.

use super::*;
use crate::job::{CaptureId, PartId};
use crate::pcap::ObjectFormat;
use std::fs;

fn named(name: String, n: u64) -> Entry {
    Entry {
        object: ObjectInfo {
            name,
            bytes: n,
            packets: n,
            first_ns: 1,
            last_ns: 2,
            sha256: String::new(),
            ..ObjectInfo::default()
        },
        cuts: vec![Cut { sequence: n, offset: 24 }],
        is_last: n == 5,
        gaps: Vec::new(),
    }
}

/// Entry `n` as a delivery writes it.
fn entry(id: &CaptureId, n: u32) -> Entry {
    named(super::super::manifest::object_name(&PartId::alone(id), n, ObjectFormat::default()), u64::from(n))
}

#[test]
fn a_line_that_was_cut_by_a_crash_was_never_written_and_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |n: u64| named(format!("{n}"), n);
    let mut journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.start(1), Start::fresh(1));
    journal.append(entry(0)).unwrap();
    journal.append(entry(1)).unwrap();
    for name in [JOURNAL, COPY] {
        let path = dir.path().join(name);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 3]).unwrap();
    }
    let mut journal = Journal::open(dir.path()).unwrap();
    assert_eq!((Journal::read(dir.path()).unwrap(), journal.start(1).object), (vec![entry(0)], 1));
    journal.probe().unwrap();
    journal.append(entry(5)).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(Journal::read(dir.path()).unwrap(), [entry(0), entry(5)]);
    assert!(journal.is_complete());
}

/// A journal of six objects whose bytes `damage` changes.
fn damaged(damage: impl Fn(&str, &mut Vec<u8>)) -> (tempfile::TempDir, Vec<Entry>) {
    let (dir, id) = (tempfile::tempdir().unwrap(), CaptureId::random());
    let entries: Vec<Entry> = (0..6).map(|n| entry(&id, n)).collect();
    let mut journal = Journal::open(dir.path()).unwrap();
    entries.iter().for_each(|entry| journal.append(entry.clone()).unwrap());
    for name in [JOURNAL, COPY] {
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        damage(name, &mut bytes);
        fs::write(&path, bytes).unwrap();
    }
    (dir, entries)
}

fn line_start(bytes: &[u8], line: usize) -> usize {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(ends).nth(line).unwrap()
}

#[test]
fn a_damaged_line_hides_nothing_behind_it_and_is_read_from_the_copy() {
    for line in 0..6 {
        for newline_too in [false, true] {
            let (dir, entries) = damaged(|name, bytes| {
                let (from, to) = (line_start(bytes, line), line_start(bytes, line + 1));
                if name == JOURNAL {
                    bytes[from + 20..to - usize::from(!newline_too)].fill(0);
                }
            });
            let mut journal = Journal::open(dir.path()).unwrap();
            assert_eq!(Journal::read(dir.path()).unwrap(), entries, "line {line}");
            assert_eq!(objects(dir.path()).unwrap().len(), 6);
            assert!(journal.is_complete() && journal.missing().is_empty(), "line {line}");
            assert_eq!((journal.totals().packets, journal.next()), (15, 6));
            journal.append(entry(&CaptureId::random(), 6)).unwrap();
            assert_eq!(Journal::open(dir.path()).unwrap().next(), 7);
            assert_eq!(Journal::read(dir.path()).unwrap().len(), 7);
        }
    }
}

#[test]
fn an_object_whose_line_is_damaged_in_both_files_is_missing_and_the_rest_holds() {
    let (dir, entries) = damaged(|_, bytes| {
        let at = line_start(bytes, 2) + 30;
        bytes[at] ^= 1;
    });
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.missing(), [2]);
    assert_eq!(journal.start(1), Start { object: 6, cuts: entries[5].cuts.clone() });
    assert_eq!(Journal::read(dir.path()).unwrap().len(), 5);
}

#[test]
fn a_journal_without_a_copy_is_read_as_before_there_were_copies() {
    let (dir, entries) = damaged(|_, _| {});
    fs::remove_file(dir.path().join(COPY)).unwrap();
    assert_eq!(Journal::read(dir.path()).unwrap(), entries);
    fs::rename(dir.path().join(JOURNAL), dir.path().join(COPY)).unwrap();
    assert_eq!(Journal::read(dir.path()).unwrap(), entries, "and a copy without its journal counts");
}

#[test]
fn a_line_of_a_newer_program_is_read_and_one_of_an_older_program_too() {
    let dir = tempfile::tempdir().unwrap();
    let id = CaptureId::random();
    let name = |n| super::super::manifest::object_name(&PartId::alone(&id), n, ObjectFormat::default());
    let older = format!(
        r#"{{"object":{{"name":"{}","bytes":24,"packets":0,"first_ns":0,"last_ns":0,"sha256":""}},"cuts":[{{"sequence":1,"offset":0}}],"is_last":false}}"#,
        name(0)
    );
    let newer = format!(
        r#"{{"object":{{"name":"{}","bytes":24,"packets":0,"first_ns":0,"last_ns":0,"sha256":"","md5":"x"}},"cuts":[{{"sequence":2,"offset":0,"record":7}}],"is_last":true,"tier":{{"cold":true}}}}"#,
        name(1)
    );
    let text: String = [older, newer]
        .iter()
        .map(|json| format!("{:08x} {json}\n", crc_fast::crc32_iscsi(json.as_bytes())))
        .collect();
    fs::write(dir.path().join(JOURNAL), text).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert!(journal.is_complete() && journal.next() == 2, "{journal:?}");
}

#[test]
fn what_a_journal_holds_in_memory_does_not_grow_with_its_objects() {
    let (dir, id) = (tempfile::tempdir().unwrap(), CaptureId::random());
    let mut text = String::new();
    for n in 0..100_000 {
        text.push_str(&line(&entry(&id, n)).unwrap());
    }
    fs::write(dir.path().join(JOURNAL), &text).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!((journal.next(), journal.missing().len()), (100_000, 0));
    // All that it has of its entries is the last one and the sums.
    assert!(format!("{journal:?}").len() < 2_000, "{}", format!("{journal:?}").len());
}

#[test]
fn a_journal_that_waits_holds_no_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let held = || {
        let links = fs::read_dir("/proc/self/fd").unwrap();
        links
            .filter_map(|e| fs::read_link(e.unwrap().path()).ok())
            .filter(|p| p.starts_with(dir.path()))
            .count()
    };
    journal.append(named("0".to_owned(), 0)).unwrap();
    assert!(held() > 0);
    journal.close();
    assert_eq!(held(), 0);
    journal.append(named("5".to_owned(), 5)).unwrap();
    assert!(Journal::open(dir.path()).unwrap().is_complete());
}
