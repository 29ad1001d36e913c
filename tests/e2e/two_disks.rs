//! A spool of two disks: what is in the files when both are well, when one fails or is full, and when one is gone at a start.

use crate::disk::Disk;
use crate::numbered::{self, PORT, Seen};
use crate::outcome::Outcome;
use crate::recover::recover_all;
use crate::skip::skip;
use crate::trawl::{Setup, Trawl};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use trawl::job::{LostStream, Status, StopReason};

const SOON: Duration = Duration::from_secs(60);

/// Two queues of numbered frames, each of which is written to a disk of its own.
fn host(disks: &[Disk; 2], spool_bytes_max: &'static str) -> Trawl {
    let sources = numbered::sources(disks[0].folder(), 2);
    let sources: Vec<_> = sources.iter().map(std::path::PathBuf::as_path).collect();
    let setup = Setup {
        spool_dir: Some(disks[0].spool()),
        second_spool: Some(disks[1].spool()),
        spool_bytes_max,
        segment_bytes: "4MiB",
        // So that deliveries keep up on a machine that has other work too.
        pace_pps: 100_000,
        write: "direct",
        spool: "rotate_seconds = 1",
        // A delivery soon knows that a disk is gone.
        upload: "retry_pause_ms_max = 100",
        ..Setup::of_pcaps(&sources)
    };
    setup.start()
}

fn disks(mib: [u64; 2]) -> Option<[Disk; 2]> {
    Some([Disk::new(mib[0])?, Disk::new(mib[1])?])
}

fn numbered_frames(trawl: &Trawl) -> Value {
    trawl.request(json!({"protocol": 17, "destination_port": PORT}))
}

/// A host that was killed while a capture had segments on both disks and some of its objects were delivered.
fn killed(disks: &[Disk; 2]) -> (Trawl, String) {
    let mut trawl = host(disks, "400MiB");
    let id = trawl.create(&numbered_frames(&trawl));
    until_dealt(&trawl, &id);
    trawl.until(&id, SOON, |progress| progress.objects.len() > 1);
    trawl.kill();
    (trawl, id)
}

fn of_queue(frames: &BTreeSet<Seen>, queue: u8) -> BTreeSet<Seen> {
    frames.iter().filter(|seen| seen.queue == queue).copied().collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// Waits until each directory has a segment of its own queue and none of the other one's.
#[track_caller]
fn until_dealt(trawl: &Trawl, id: &str) {
    let until = Instant::now() + SOON;
    let has = |spool: &Path, queue: usize| {
        names(&spool.join(id)).iter().any(|name| name.contains(&format!("q00{queue}-")))
    };
    loop {
        let found: Vec<_> = trawl.spools().map(|spool| (has(spool, 0), has(spool, 1))).collect();
        assert!(!found[0].1 && !found[1].0, "a segment lies where it does not belong: {found:?}");
        if found[0].0 && found[1].1 {
            return;
        }
        assert!(Instant::now() < until, "nothing is written: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_disks_have_a_queue_each_and_the_objects_every_frame_of_both() {
    let Some(disks) = disks([512, 512]) else { return };
    let trawl = host(&disks, "400MiB");
    let mut request = numbered_frames(&trawl);
    request["packet_limit"] = json!(30_000);
    let id = trawl.create(&request);
    until_dealt(&trawl, &id);
    let progress = trawl.ended(&id);
    let outcome = Outcome::read(&trawl.bucket(), &id);
    assert_eq!((progress.status, progress.ledger), (Status::Success, outcome.manifest.ledger));
    assert!(outcome.manifest.lost_streams.is_empty());
    let seen = numbered::read_once(&outcome.frames);
    if outcome.manifest.complete {
        assert_eq!((numbered::gaps(&seen), seen.len()), (0, 30_000));
    }
    assert!((0..2).all(|queue| !of_queue(&seen, queue).is_empty()));
    let until = Instant::now() + SOON;
    while trawl.spools().any(|spool| spool.join(&id).exists()) {
        assert!(Instant::now() < until, "a directory stays: {}", trawl.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    trawl.finish();
}

/// What a capture that lost queue 1 at some moment must say and hold.
#[track_caller]
fn assert_lost_queue_1(trawl: &Trawl, id: &str, reason: StopReason) -> Outcome {
    let progress = trawl.ended(id);
    let outcome = Outcome::read(&trawl.bucket(), id);
    let manifest = &outcome.manifest;
    assert_eq!((progress.status, progress.ledger), (Status::Success, manifest.ledger), "{}", trawl.log());
    assert_eq!(manifest.stop_reason, Some(StopReason::StopRequested));
    let lost: Vec<_> =
        manifest.lost_streams.iter().map(|LostStream { queue, reason, .. }| (*queue, *reason)).collect();
    assert_eq!((lost, manifest.complete), (vec![(1, reason)], false));
    let shown = trawl.ask("GET", &format!("/{id}"), &[]).result();
    let said = shown["error_message"].as_str().unwrap();
    assert!(said.contains("of 1 of 2 queues (1) a part is missing"), "{said}");
    let frames = numbered::read_once(&outcome.frames);
    let of_first = of_queue(&frames, 0);
    assert!(!of_first.is_empty());
    if manifest.ledger.dropped.no_block == 0 {
        assert_eq!(numbered::gaps(&of_first), 0, "{:?}", manifest.ledger);
    }
    // Until then it has every frame too.
    let (last, of_second) = (of_first.last().unwrap().ns, of_queue(&frames, 1));
    assert!(of_second.last().is_none_or(|seen| seen.ns < last));
    outcome
}

/// Queue 1 is lost, and a second later the capture still takes packets.
#[track_caller]
fn goes_on(trawl: &Trawl, id: &str) {
    let said = |progress: &trawl::job::Progress| {
        progress.warnings.iter().any(|warning| warning.contains("a part is missing"))
    };
    let lost = trawl.until(id, SOON, said);
    assert_eq!(lost.stop_reason, None, "{}", trawl.log());
    let more = lost.ledger.rx + 10_000;
    trawl.until(id, SOON, |progress| progress.ledger.rx > more && progress.stop_reason.is_none());
    let objects = trawl.progress(id).delivered.objects;
    trawl.until(id, SOON, |progress| progress.delivered.objects > objects + 1);
    assert_eq!(trawl.ask("PUT", &format!("/{id}/stop"), &[]).status, 204);
}

#[test]
fn a_disk_that_dies_costs_a_capture_its_queue_and_the_other_queue_goes_on_to_the_last_frame() {
    let Some(disks) = disks([2048, 512]) else { return };
    let mut trawl = host(&disks, "400MiB");
    let id = trawl.create(&numbered_frames(&trawl));
    until_dealt(&trawl, &id);
    trawl.until(&id, SOON, |progress| progress.objects.len() > 1);
    if let Err(reason) = disks[1].die() {
        return skip("a disk that dies", reason);
    }
    goes_on(&trawl, &id);
    let outcome = assert_lost_queue_1(&trawl, &id, StopReason::IoError);
    assert!(outcome.manifest.ledger.dropped.io > 0, "{:?}", outcome.manifest.ledger);
    // One that begins now has the queue of the disk that is well.
    let id = trawl.create(&numbered_frames(&trawl));
    goes_on(&trawl, &id);
    let outcome = assert_lost_queue_1(&trawl, &id, StopReason::IoError);
    assert!(outcome.frames.iter().all(|(ns, frame)| numbered::read(*ns, frame).queue == 0));
    trawl.signal(Signal::TERM);
    assert!(trawl.wait(SOON).success(), "{}", trawl.log());
    assert!(!trawl.log().contains("panicked"), "{}", trawl.log());
}

#[test]
fn a_full_disk_costs_a_capture_its_queue_and_the_other_one_goes_on() {
    let Some(disks) = disks([2048, 64]) else { return };
    let trawl = host(&disks, "1500MiB");
    let id = trawl.create(&numbered_frames(&trawl));
    until_dealt(&trawl, &id);
    // Somebody else takes all that is there, and what is freed.
    let (file, mut taken) = (std::fs::File::create(disks[1].spool().join("fill")).unwrap(), 0);
    let until = Instant::now() + SOON;
    while trawl.progress(&id).warnings.iter().all(|warning| !warning.contains("a part is missing")) {
        let free = rustix::fs::statvfs(disks[1].spool()).unwrap();
        let more = free.f_bavail * free.f_frsize;
        if more > 0 && rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), taken, more).is_ok()
        {
            taken += more;
        }
        assert!(Instant::now() < until, "it is never full: {}", trawl.log());
    }
    goes_on(&trawl, &id);
    let outcome = assert_lost_queue_1(&trawl, &id, StopReason::SpoolFull);
    assert!(outcome.manifest.ledger.dropped.spool > 0, "{:?}", outcome.manifest.ledger);
    trawl.finish();
}

#[test]
fn a_start_without_one_of_the_disks_is_refused_and_goes_on_without_it_if_it_is_told_so() {
    let Some(disks) = disks([512, 512]) else { return };
    let (mut trawl, id) = killed(&disks);
    let mut durable = BTreeSet::new();
    numbered::durable(&disks[0].spool().join(&id), &mut durable);
    disks[1].unmount();
    trawl.launch();
    assert!(!trawl.wait(SOON).success());
    let log = trawl.log();
    assert!(
        log.contains("is not the spool that the job store knows") && log.contains("--new-spool"),
        "{log}"
    );
    trawl.launch_with(&["--new-spool"]);
    trawl.await_answer();
    let progress = trawl.ended(&id);
    let outcome = Outcome::read(&trawl.bucket(), &id);
    assert_eq!((progress.status, progress.ledger), (Status::Success, outcome.manifest.ledger));
    assert!(outcome.manifest.recovered && !outcome.manifest.complete);
    let lost: Vec<_> = outcome.manifest.lost_streams.iter().map(|lost| lost.queue).collect();
    assert_eq!(lost, [1], "{:?}", outcome.manifest.lost_streams);
    let seen = numbered::read_once(&outcome.frames);
    assert!(durable.is_subset(&seen), "what was on the disk that is there is delivered");
    trawl.finish();
    disks[1].mount().unwrap();
}

#[test]
fn what_two_disks_have_of_a_capture_is_recovered_from_both() {
    let Some(disks) = disks([512, 512]) else { return };
    let (trawl, id) = killed(&disks);
    let mut durable = BTreeSet::new();
    trawl.spools().for_each(|spool| numbered::durable(&spool.join(&id), &mut durable));
    let out = trawl.folder().join("out");
    // In any order: the journal says which one is the home.
    let spools: Vec<_> = trawl.spools().map(Path::to_owned).collect();
    let rows = recover_all(&[&spools[1], &spools[0]], &["--out", out.to_str().unwrap(), "--remove"]);
    assert_eq!(rows[0]["id"], json!(id), "{rows}");
    let outcome = Outcome::read(&out, &id);
    let seen = numbered::read_once(&outcome.frames);
    assert!(seen.is_subset(&durable) && (0..2).all(|queue| !of_queue(&seen, queue).is_empty()));
    assert!(spools.iter().all(|spool| !spool.join(&id).exists()), "{rows}");
}
