//! `kill -9` at random moments of capture, rotation, merge, upload, shutdown and of the recovery from it. Before the first
//! restart the test reads what is durable in the spool and what is in the bucket; in the end the objects must hold exactly
//! that, frame by frame, and nothing twice.
//!
//! `TRAWL_KILLS` sets how many times a test kills, `TRAWL_KILLS_SEED` repeats a run.

use crate::bucket::{self, BUCKET};
use crate::frames;
use crate::numbered::{self, PORT, Seen};
use crate::outcome::{Outcome, files_below};
use crate::proxy::{Fault, Proxy};
use crate::trawl::{Setup, Trawl};
use crate::weed::Weed;
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use trawl::job::StopReason;

/// Of each test of a folder. With the two below, two hundred in all.
const KILLS: u64 = 67;
/// Of two directories.
const KILLS_TWO: u64 = 30;
/// On the way to S3, where every other kill waits for an object that is half sent.
const KILLS_S3: u64 = 36;
/// Of fewer on that way it may well be that none came between two parts of an object.
const KILLS_RESUMED_MIN: u64 = KILLS_S3;
/// Of compressed pcapng: what is recovered does not depend on it, what is merged a second time does.
const KILLS_NG: u64 = 30;

/// SplitMix64: enough to choose moments, and the seed is one number.
struct Moments(u64);

impl Moments {
    fn from_environment() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = number("TRAWL_KILLS_SEED", clock);
        eprintln!("TRAWL_KILLS_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn sleep(&mut self, ms_below: u64) {
        std::thread::sleep(Duration::from_millis(self.below(ms_below)));
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// How long things last, so that kills meet all of it.
#[derive(Clone, Copy)]
struct Pace {
    packets_min: u64,
    packets_below: u64,
    capture_ms_below: u64,
    recovery_ms_below: u64,
}

/// Captures of up to three of the objects below, which arrive at once.
const QUICK: Pace =
    Pace { packets_min: 1000, packets_below: 26_000, capture_ms_below: 500, recovery_ms_below: 700 };
/// Captures of up to one object of several parts, each of which takes a while.
const SLOW: Pace =
    Pace { packets_min: 15_000, packets_below: 70_000, capture_ms_below: 3000, recovery_ms_below: 1400 };
/// Requests that send a part.
const PART: &[&str] = &["PUT ", "partNumber="];
/// What each part takes on a slow line.
const PART_TIME: Duration = Duration::from_millis(250);

/// Where the objects go.
enum Place<'a> {
    Folder,
    Bucket(&'a Weed, tokio::runtime::Handle, &'a Proxy),
}

impl Place<'_> {
    fn destination(&self, trawl: &Trawl) -> String {
        match self {
            Self::Folder => format!("file://{}", trawl.bucket().display()),
            Self::Bucket(..) => format!("s3://{BUCKET}?region=us-east-1"),
        }
    }

    /// What is there of a capture, in a folder.
    fn read(&self, trawl: &Trawl, id: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        match self {
            Self::Folder => {
                let ours = |path: &&std::path::PathBuf| name(path).starts_with(&format!("pcap_{id}"));
                for path in files_below(&trawl.bucket()).iter().filter(ours) {
                    std::fs::copy(path, folder.path().join(name(path))).unwrap();
                }
            }
            Self::Bucket(weed, runtime, _) => {
                runtime.block_on(bucket::download(weed, &format!("pcap_{id}"), folder.path()));
            }
        }
        folder
    }

    /// Parts that were begun up to now.
    fn parts(&self) -> usize {
        match self {
            Self::Folder => 0,
            Self::Bucket(_, _, proxy) => proxy.seen("partNumber=").len(),
        }
    }

    /// Waits until an object is half-sent, if there is one to be sent: of two parts on their way at once one is confirmed when
    /// the third begins.
    fn until_half_sent(&self, parts_before: usize) {
        let until = Instant::now() + Duration::from_secs(3);
        while self.parts() < parts_before + 3 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Names of what uploads left behind.
    fn leftovers(&self, trawl: &Trawl) -> Vec<String> {
        match self {
            Self::Folder => files_below(&trawl.bucket())
                .iter()
                .map(|path| name(path))
                .filter(|n| n.starts_with('.'))
                .collect(),
            Self::Bucket(weed, runtime, _) => runtime.block_on(bucket::uploads_under_way(weed)),
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Over all captures of a test. A stall is a finding, also where nothing is lost.
#[derive(Debug, Default)]
struct Sums {
    slowest_start: Duration,
    slowest_end: Duration,
    /// Frames that were durable.
    frames: usize,
}

/// Kills one capture once in its life and some times in its recovery; how often in all.
fn kill_one(trawl: &mut Trawl, place: &Place<'_>, pace: Pace, moments: &mut Moments, sums: &mut Sums) -> u64 {
    let mut request = trawl.request(json!({"protocol": 17, "destination_port": PORT}));
    // Some end by their limit while they are still uploading, some are still capturing.
    request["packet_limit"] = json!(pace.packets_min + moments.below(pace.packets_below - pace.packets_min));
    request["destination_conf"] = json!(place.destination(trawl));
    let (id, parts) = (trawl.create(&request), place.parts());
    let meets_upload = |moments: &mut Moments| matches!(place, Place::Bucket(..)) && moments.below(2) == 0;
    if meets_upload(moments) {
        trawl.until(&id, Duration::from_secs(30), |progress| progress.stop_reason.is_some());
        place.until_half_sent(parts);
        moments.sleep(PART_TIME.as_millis() as u64);
    } else {
        moments.sleep(pace.capture_ms_below);
    }
    if moments.below(4) == 0 {
        trawl.signal(Signal::TERM);
        moments.sleep(150);
    }
    trawl.kill();
    let mut expected = BTreeSet::new();
    trawl.spools().for_each(|spool| numbered::durable(&spool.join(&id), &mut expected));
    let before = place.read(trawl, &id);
    for path in files_below(before.path()).iter().filter(|path| name(path).contains(".pcap")) {
        let unpacked = frames::unpack(path);
        let frames = frames::read(unpacked.as_ref().map_or(path, |(_folder, path)| path));
        expected.extend(frames.iter().map(|(ns, frame)| numbered::read(*ns, frame)));
    }
    let mut kills = 1;
    let mut parts = place.parts();
    trawl.launch();
    while moments.below(5) < 3 {
        if meets_upload(moments) {
            place.until_half_sent(parts);
            moments.sleep(PART_TIME.as_millis() as u64);
        } else {
            moments.sleep(pace.recovery_ms_below);
        }
        parts = place.parts();
        trawl.kill();
        trawl.launch();
        kills += 1;
    }
    let began = Instant::now();
    trawl.await_answer();
    sums.slowest_start = sums.slowest_start.max(began.elapsed());
    let began = Instant::now();
    let progress = trawl.ended(&id);
    sums.slowest_end = sums.slowest_end.max(began.elapsed());
    assert_holds(trawl, place, &id, &expected);
    sums.frames += expected.len();
    assert!(progress.stop_reason.is_some(), "{progress:?}");
    kills
}

/// The capture's objects are what was expected, and nothing else is left of it.
fn assert_holds(trawl: &Trawl, place: &Place<'_>, id: &str, expected: &BTreeSet<Seen>) {
    let progress = trawl.progress(id);
    let folder = place.read(trawl, id);
    if !folder.path().join(format!("pcap_{id}.json")).exists() {
        panic!("no manifest of {progress:?}: {}", trawl.log());
    }
    let outcome = Outcome::read(folder.path(), id);
    assert_eq!(outcome.manifest.ledger, progress.ledger);
    assert!(progress.stop_reason != Some(StopReason::Interrupted) || outcome.manifest.recovered);
    let seen = numbered::read_once(&outcome.frames);
    let (missing, foreign) = (expected.difference(&seen).count(), seen.difference(expected).count());
    assert_eq!((missing, foreign), (0, 0), "of {} frames; {:?}", expected.len(), outcome.manifest.ledger);
    if outcome.manifest.complete {
        assert_eq!(numbered::gaps(&seen), 0, "{:?}", outcome.manifest.ledger);
    }
    assert_eq!(
        files_below(folder.path()).len(),
        outcome.manifest.objects.len() + 1,
        "objects and manifest only"
    );
    assert_eq!(place.leftovers(trawl), Vec::<String>::new());
    let until = Instant::now() + Duration::from_secs(5);
    let left = || -> Vec<_> {
        let files = trawl.spools().flat_map(files_below);
        files.filter(|path| path.to_string_lossy().contains(id)).collect()
    };
    while !left().is_empty() {
        assert!(Instant::now() < until, "the spool keeps {:?}", left());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How often it killed, and how many uploads went on behind parts that a store had confirmed.
fn kill_at_random_moments(setup: Setup, place: &Place<'_>, pace: Pace, kills_min: u64) -> (u64, usize) {
    let folder = tempfile::tempdir().unwrap();
    let sources = numbered::sources(folder.path(), 2);
    let of_sources = Setup::of_pcaps(&sources.iter().map(std::path::PathBuf::as_path).collect::<Vec<_>>());
    let mut trawl = Setup { device: of_sources.device, queues: of_sources.queues, ..setup }.start();
    let (mut moments, mut sums) = (Moments::from_environment(), Sums::default());
    let (mut kills, mut captures) = (0, 0);
    while kills < number("TRAWL_KILLS", kills_min) {
        kills += kill_one(&mut trawl, place, pace, &mut moments, &mut sums);
        captures += 1;
    }
    let resumed = trawl.log().matches("upload continues behind what the store holds").count();
    eprintln!("{kills} kills in {captures} captures, {resumed} uploads resumed; {sums:?}");
    assert!(sums.frames > 0, "nothing was ever durable");
    trawl.finish();
    (kills, resumed)
}

#[test]
fn kill_9_at_random_moments_loses_nothing_durable_direct() {
    let setup = Setup { write: "direct", segment_bytes: "4MiB", ..Setup::replay() };
    kill_at_random_moments(setup, &Place::Folder, QUICK, KILLS);
}

#[test]
fn kill_9_at_random_moments_loses_nothing_durable_mapped() {
    let setup = Setup { write: "mapped", segment_bytes: "4MiB", pool_bytes: "32MiB", ..Setup::replay() };
    kill_at_random_moments(setup, &Place::Folder, QUICK, KILLS);
}

#[test]
fn kill_9_at_random_moments_loses_nothing_durable_in_two_directories() {
    let second_spool = Some("spool1".into());
    let setup = Setup { write: "direct", segment_bytes: "4MiB", second_spool, ..Setup::replay() };
    kill_at_random_moments(setup, &Place::Folder, QUICK, KILLS_TWO);
}

#[test]
fn kill_9_at_random_moments_loses_nothing_durable_on_the_way_to_s3() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(weed) = runtime.block_on(Weed::start()) else { return };
    runtime.block_on(weed.create_bucket(BUCKET));
    let proxy = runtime.block_on(Proxy::start(&weed.endpoint, PART, Fault::Delay(PART_TIME), u32::MAX));
    let setup = Setup {
        segment_bytes: "32MiB",
        // Two parts at once: some kills leave a gap behind the confirmed ones.
        upload: "part_bytes = \"5MiB\"\nparts_in_flight = 2\nretry_seconds_max = 2\nretry_pause_ms_max = 200",
        endpoint: Some(proxy.endpoint.clone()),
        environment: bucket::credentials(),
        ..Setup::replay()
    };
    let place = Place::Bucket(&weed, runtime.handle().clone(), &proxy);
    let (kills, resumed) = kill_at_random_moments(setup, &place, SLOW, KILLS_S3);
    // A run of a few kills (TRAWL_KILLS) asks what they lose, not what they meet.
    assert!(resumed > 0 || kills < KILLS_RESUMED_MIN, "no kill came between two parts of an object");
}

#[test]
fn kill_9_at_random_moments_loses_nothing_durable_in_compressed_pcapng() {
    let capture = "format = \"pcapng\"\ncompression = \"zstd\"";
    let setup = Setup { segment_bytes: "4MiB", capture, ..Setup::replay() };
    kill_at_random_moments(setup, &Place::Folder, QUICK, KILLS_NG);
}
