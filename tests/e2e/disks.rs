//! Disks that are full, slow, go read-only, stand still or die under a running host. After each the process lives, production has
//! gone on, every ledger balances, and what was durable is delivered.

use crate::bucket::{BUCKET, credentials, download};
use crate::disk::Disk;
use crate::frames::{self, real_pcap};
use crate::outcome::{Outcome, files_below};
use crate::recover::recover;
use crate::skip::skip;
use crate::trawl::{Setup, Trawl, free_address};
use crate::weed::Weed;
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trawl::job::{Status, StopReason};

const SOON: Duration = Duration::from_secs(30);

/// Frames that a source plays in one round, of which [`narrow`] takes one.
const ROUND: usize = 8192;

/// A host whose spool is on that disk, and promises itself more than the disk has.
fn host(disk: &Disk) -> Trawl {
    setup(disk).start()
}

fn setup(disk: &Disk) -> Setup {
    setup_of(disk, 1)
}

/// The same with so many of the frames that [`narrow`] takes in a round.
fn setup_of(disk: &Disk, wanted: usize) -> Setup {
    let source = disk.folder().join("source.pcap");
    let asks = frames::select(&real_pcap(), "udp.dstport == 53");
    let others: Vec<_> = frames::read(&real_pcap()).into_iter().map(|(_, frame)| frame).collect();
    let others = others.iter().filter(|frame| !asks.contains(*frame)).cycle().take(ROUND - wanted);
    frames::write(&source, others.chain(asks.iter().cycle().take(wanted)).map(Vec::as_slice));
    let spool_dir = Some(disk.spool());
    Setup { spool_dir, spool_bytes_max: "4GiB", segment_bytes: "16MiB", ..Setup::of_pcaps(&[&source]) }
}

/// A capture of the other account that needs next to no room: one frame of [`ROUND`], and when this returns, the first part of
/// its segment is on the disk.
fn narrow(trawl: &Trawl) -> String {
    let request = trawl.request(json!({"protocol": 17, "destination_port": 53})).to_string();
    let result = trawl.ask_as_other("POST", "", request.as_bytes()).result();
    let id = result["id"].as_str().unwrap().to_owned();
    let until = Instant::now() + SOON;
    while trawl.progress_of_other(&id).ledger.captured == 0 {
        assert!(Instant::now() < until, "no packet matches: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let has_room = |path: &PathBuf| path.metadata().is_ok_and(|file| file.blocks() > 0);
    while !files_below(&trawl.spool().join(&id)).iter().filter(|path| is_open(path)).any(has_room) {
        assert!(Instant::now() < until, "no segment is begun: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    id
}

fn is_open(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".open")
}

/// Frames are received now, which `id` shows, whose workers have it still.
#[track_caller]
fn assert_receives(trawl: &Trawl, id: &str) {
    let before = trawl.progress_of_other(id).ledger.rx;
    let until = Instant::now() + Duration::from_secs(5);
    while trawl.progress_of_other(id).ledger.rx <= before + 1000 {
        assert!(Instant::now() < until, "nothing is received: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Stops the other account's capture and waits for its end.
#[track_caller]
fn stop_other(trawl: &Trawl, id: &str) {
    assert_eq!(trawl.ask_as_other("PUT", &format!("/{id}/stop"), &[]).status, 204);
    let until = Instant::now() + SOON;
    while !trawl.progress_of_other(id).status.ended() {
        assert!(Instant::now() < until, "it does not end: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_full_disk_ends_the_capture_that_fills_it_and_the_other_goes_on() {
    let Some(disk) = Disk::new(160) else { return };
    // The other one's segment must not end while there is no room for a next one.
    let rotates_never =
        |config: String, _: &Path| config.replacen("[spool]\n", "[spool]\nrotate_seconds = 3600\n", 1);
    let trawl = setup(&disk).start_with(rotates_never);
    let other = narrow(&trawl);
    let id = trawl.create(&trawl.request(json!({})));
    trawl.until(&id, SOON, |progress| progress.stop_reason.is_some());
    assert_eq!(trawl.progress_of_other(&other).status, Status::Running);
    assert_receives(&trawl, &other);
    let progress = trawl.ended(&id);
    assert_eq!((progress.status, progress.stop_reason), (Status::Success, Some(StopReason::SpoolFull)));
    let shown = trawl.ask("GET", &format!("/{id}"), &[]).result();
    assert!(shown["error_message"].as_str().unwrap().contains("No space left"), "{shown}");
    let outcome = Outcome::read(&trawl.bucket(), &id);
    assert_eq!(outcome.manifest.ledger, progress.ledger);
    assert!(outcome.manifest.ledger.captured_bytes > 16 << 20, "{:?}", outcome.manifest.ledger);

    assert_eq!(trawl.progress_of_other(&other).status, Status::Running);
    assert_receives(&trawl, &other);
    stop_other(&trawl, &other);
    Outcome::read(&trawl.bucket(), &other).assert_lossless();
    trawl.finish();
}

#[test]
fn a_disk_that_goes_read_only_ends_captures_and_after_its_repair_they_are_delivered() {
    let Some(disk) = Disk::new(512) else { return };
    let mut trawl = host(&disk);
    let id = trawl.create(&trawl.request(json!({"protocol": 1})));
    trawl.until(&id, SOON, |progress| !progress.objects.is_empty());
    if let Err(reason) = disk.turn_read_only() {
        return skip("a disk that turns read-only", reason);
    }
    let progress = trawl.until(&id, SOON, |progress| progress.stop_reason.is_some());
    assert_eq!(progress.stop_reason, Some(StopReason::IoError), "{progress:?}");
    let had = progress.objects.len();

    // It ends as it always does, and its end is not a delivery's.
    trawl.signal(Signal::TERM);
    assert!(trawl.wait(SOON).success(), "{}", trawl.log());
    assert!(!trawl.log().contains("panicked"), "{}", trawl.log());
    disk.unmount();
    disk.mount().unwrap();
    trawl.restart();
    let progress = trawl.ended(&id);
    let outcome = Outcome::read(&trawl.bucket(), &id);
    assert_eq!(outcome.manifest.ledger, progress.ledger);
    assert_eq!((progress.status, progress.stop_reason), (Status::Success, Some(StopReason::IoError)));
    assert!(outcome.manifest.objects.len() >= had && !outcome.frames.is_empty());
    trawl.finish();
}

#[test]
fn while_a_disk_stands_still_frames_and_questions_go_on_and_every_frame_that_does_not_fit_is_counted() {
    let Some(disk) = Disk::new(2048) else { return };
    let trawl = Setup { blocks_bytes: "16MiB", history_sample: Some(10), ..setup(&disk) }.start();
    let other = narrow(&trawl);
    let id = trawl.create(&trawl.request(json!({"protocol": 17})));
    trawl.until(&id, SOON, |progress| progress.ledger.captured > 1000);
    let simple = json!({"system": "magic-transit", "type": "simple", "time_limit": 60, "packet_limit": 1});
    for _ in 0..6 {
        std::thread::scope(|scope| {
            disk.freeze();
            let frozen = Instant::now();
            assert_receives(&trawl, &other);
            // A capture that begins now waits for the disk, and nobody else waits for it.
            let begun = scope.spawn(|| trawl.create(&simple));
            std::thread::sleep(Duration::from_millis(700).saturating_sub(frozen.elapsed()));
            let answered = Instant::now();
            // A look back at the last second is accepted, and its recording is what waits.
            let mut back = simple.clone();
            (back["time_limit"], back["offset_time"]) = (json!(1), json!(jiff::Timestamp::now().to_string()));
            let back = trawl.create(&back);
            for path in ["", &format!("/{id}/progress"), &format!("/{back}")] {
                assert_eq!(trawl.ask("GET", path, &[]).status, 200);
            }
            assert!(answered.elapsed() < Duration::from_millis(500) && !begun.is_finished());
            assert!(!trawl.progress(&back).status.ended());
            disk.thaw();
            trawl.ended(&begun.join().unwrap());
            assert_eq!(trawl.ended(&back).status, Status::Success);
        });
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(trawl.progress(&id).stop_reason, None, "a slow disk is no reason to end");
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
    let progress = trawl.ended(&id);
    assert_eq!(progress.status, Status::Success);
    let outcome = Outcome::read(&trawl.bucket(), &id);
    let ledger = outcome.manifest.ledger;
    assert_eq!(ledger, progress.ledger);
    assert!(ledger.dropped.no_block > 0, "the pauses were longer than the blocks are large: {ledger:?}");
    assert_eq!(ledger.dropped.total(), ledger.dropped.no_block, "{ledger:?}");
    trawl.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_disk_stands_still_under_uploads_to_s3_every_question_is_answered() {
    const PROTOCOLS: [u8; 3] = [1, 6, 17];
    let Some(disk) = Disk::new(2048) else { return };
    let Some(weed) = Weed::start().await else { return };
    weed.create_bucket(BUCKET).await;
    let observe = free_address();
    let trawl = Setup {
        endpoint: Some(weed.endpoint.clone()),
        environment: credentials(),
        capture: "full_per_account = 3",
        spool_bytes_max: "1GiB",
        upload: "part_bytes = \"5MiB\"",
        more: format!("[observe]\nlisten = \"{observe}\"\n"),
        ..setup(&disk)
    };
    let trawl = trawl.start();
    let ids: Vec<_> = (0..3)
        .map(|n| {
            let mut request = trawl.request(json!({"protocol": PROTOCOLS[n]}));
            request["destination_conf"] = json!(format!("s3://{BUCKET}/{n}?region=us-east-1"));
            trawl.create(&request)
        })
        .collect();
    for id in &ids {
        trawl.until(id, SOON, |progress| !progress.objects.is_empty() || progress.stop_reason.is_some());
    }
    // Parts are confirmed and noted, objects end and are journalled, segments are freed: each of them waits for the disk.
    for _ in 0..3 {
        disk.freeze();
        for _ in 0..10 {
            for path in ["", &format!("/{}", ids[0]), &format!("/{}/progress", ids[1])] {
                assert_eq!(trawl.ask("GET", path, &[]).status, 200, "{path}");
            }
            crate::http::get_text(observe, "/healthz").unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        disk.thaw();
        std::thread::sleep(Duration::from_millis(100));
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
        assert_eq!(trawl.ended(id).status, Status::Success, "{}", trawl.log());
        let folder = tempfile::tempdir().unwrap();
        download(&weed, &format!("{n}/pcap_"), folder.path()).await;
        assert!(!Outcome::read(folder.path(), id).frames.is_empty());
    }
    trawl.finish();
}

#[test]
fn a_disk_that_is_slower_than_the_traffic_costs_only_frames_that_are_counted() {
    let Some(disk) = Disk::new(512) else { return };
    if let Err(reason) = disk.slow(8 << 20) {
        return skip("a slow disk", reason);
    }
    // Straight to the device: the page cache would take what the disk does not.
    let trawl = Setup { blocks_bytes: "16MiB", write: "direct", ..setup(&disk) }.start();
    let other = narrow(&trawl);
    let mut request = trawl.request(json!({}));
    request["time_limit"] = json!(4);
    let id = trawl.create(&request);
    for _ in 0..3 {
        assert_receives(&trawl, &other);
        std::thread::sleep(Duration::from_secs(1));
    }
    let progress = trawl.ended(&id);
    assert_eq!((progress.status, progress.stop_reason), (Status::Success, Some(StopReason::TimeLimit)));
    let outcome = Outcome::read(&trawl.bucket(), &id);
    let ledger = outcome.manifest.ledger;
    assert_eq!(ledger, progress.ledger);
    assert!(ledger.captured > 0 && ledger.dropped.no_block > 0, "{ledger:?}");
    assert_eq!(ledger.dropped.total(), ledger.dropped.no_block, "{ledger:?}");
    assert!(!outcome.manifest.complete, "it says that frames are missing");
    assert!(ledger.captured_bytes < 80 << 20, "the disk was not slow: {ledger:?}");
    assert_eq!(trawl.progress_of_other(&other).status, Status::Running);
    trawl.finish();
}

#[test]
fn a_capture_whose_segments_get_eio_ends_alone_and_the_one_beside_it_goes_on() {
    let (Some(disk), Some(bad)) = (Disk::new(512), Disk::new(256)) else { return };
    let trawl = Setup { write: "direct", ..setup(&disk) }.start();
    let other = narrow(&trawl);
    let id = trawl.create(&trawl.request(json!({"protocol": 1})));
    trawl.until(&id, SOON, |progress| progress.ledger.captured > 0);
    trawl.halt();
    let stand_in = bad.stand_in_for(&disk.spool().join(&id));
    trawl.signal(Signal::CONT);
    let _stand_in = match stand_in {
        Ok(stand_in) => stand_in,
        Err(reason) => {
            return skip("a disk for one capture", reason);
        }
    };
    let there = || std::fs::read_dir(bad.spool()).unwrap();
    let own = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        entry.file_type().unwrap().is_file() && entry.file_name().to_string_lossy().ends_with(".open")
    };
    let until = Instant::now() + SOON;
    while !there().any(own) {
        assert!(Instant::now() < until, "no segment is begun there: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Err(reason) = bad.die() {
        return skip("a disk that dies", reason);
    }
    let progress = trawl.until(&id, SOON, |progress| progress.stop_reason.is_some());
    assert_eq!(progress.stop_reason, Some(StopReason::IoError), "{progress:?}");
    assert!(trawl.log().contains("Input/output error"), "{}", trawl.log());

    assert_eq!(trawl.progress_of_other(&other).status, Status::Running);
    assert_receives(&trawl, &other);
    stop_other(&trawl, &other);
    let outcome = Outcome::read(&trawl.bucket(), &other);
    outcome.assert_lossless();
    trawl.finish();
}

#[test]
fn a_disk_that_dies_ends_captures_and_what_was_durable_is_recovered_from_it() {
    let Some(disk) = Disk::new(512) else { return };
    // About a megabyte in a second: a segment is open for longer than spool.fsync_interval_ms, and minutes of the load of other
    // tests do not fill the disk.
    let mut trawl = Setup { segment_bytes: "4MiB", ..setup_of(&disk, 32) }.start();
    let id = trawl.create(&trawl.request(json!({"protocol": 17, "destination_port": 53})));
    trawl.until(&id, Duration::from_secs(90), |progress| !progress.objects.is_empty());
    // Something of the open segment is durable too, as its length file says in its second number.
    let is_synced = |path: &PathBuf| {
        let length =
            path.extension().is_some_and(|end| end == "len").then(|| std::fs::read(path).unwrap_or_default());
        length.is_some_and(|length| length.get(48..56).is_some_and(|durable| durable != [0; 8]))
    };
    let until = Instant::now() + SOON;
    while !files_below(&trawl.spool().join(&id)).iter().any(is_synced) {
        assert!(Instant::now() < until, "nothing is synced: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Err(reason) = disk.die() {
        return skip("a disk that dies", reason);
    }
    let progress = trawl.until(&id, SOON, |progress| progress.stop_reason.is_some());
    assert_eq!(progress.stop_reason, Some(StopReason::IoError), "{progress:?}");
    // The process lives on, and says so.
    assert_eq!(trawl.ask("GET", "", &[]).status, 200);
    trawl.signal(Signal::TERM);
    assert!(trawl.wait(SOON).success(), "{}", trawl.log());
    assert!(!trawl.log().contains("panicked"), "{}", trawl.log());

    disk.unmount();
    disk.mount().unwrap();
    let out = trawl.folder().join("out");
    let rows = recover(&disk.spool(), &["--out", out.to_str().unwrap()]);
    assert_eq!(rows[0]["id"], json!(id), "{rows}");
    assert!(rows[0]["found"]["objects_delivered"].as_u64().unwrap() >= 1, "{rows}");
    let outcome = Outcome::read(&out, &id);
    assert_eq!(json!(outcome.frames.len()), rows[0]["found"]["packets"]);
    assert!(!outcome.frames.is_empty() && outcome.manifest.recovered);
}
