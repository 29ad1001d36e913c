//! A delivery whose disk, memory, descriptors or segments fail. Owns these expectations.

use super::super::object::guard;
use super::super::pace::{Load, PaceRules};
use super::super::places::Pulse;
use super::super::record;
use super::super::retry::RetryBounds;
use super::*;
use crate::deliver::object_name;
use crate::job::{AccountId, BucketTerms, CaptureId, Site};
use crate::merge::{Output, Summary};
use crate::ownership::BucketKeys;
use crate::pcap::{ObjectFormat, Reader, Writer};
use crate::spool::{Input, Segment, SpoolConfig, WriteMode};
use crate::store::Embedded;
use crate::upload::{Stores, StoresConfig};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

const SECOND: u64 = 1_000_000_000;

/// A capture of one queue in a directory of its own, and the news of its delivery.
struct Rig {
    temp: tempfile::TempDir,
    spool: Arc<Spool>,
    feed: Arc<Feed>,
    id: CaptureId,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: Reporter,
    leaving: watch::Sender<bool>,
    time_is_up: watch::Sender<bool>,
    bounds: watch::Sender<RetryBounds>,
    given_up: watch::Sender<Option<String>>,
    places: Arc<Places>,
    pace: Arc<Pace>,
}

impl Rig {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let spool = Spool::open(SpoolConfig {
            dir: temp.path().join("spool"),
            more_dirs: Vec::new(),
            bytes_max: 1 << 30,
            share_bytes_max: u64::MAX,
            part_bytes: u64::MAX,
            segment_bytes: 1 << 20,
            write: WriteMode::Auto,
            fsync_interval: Duration::from_secs(1),
            pool_bytes: 0,
        });
        let (tell, reports) = mpsc::unbounded_channel();
        let reporter = Reporter::new(move |report| drop(tell.send(report)));
        let rig = Self {
            spool: Arc::new(spool.unwrap()),
            feed: Arc::new(Feed::new(1)),
            id: CaptureId::random(),
            reports,
            reporter,
            leaving: watch::Sender::new(false),
            time_is_up: watch::Sender::new(false),
            bounds: watch::Sender::new(RetryBounds {
                retention: Duration::from_secs(60),
                pause_max: Duration::from_millis(20),
            }),
            given_up: watch::Sender::new(None),
            places: Arc::new(Places::new(1, 1, Duration::from_secs(60))),
            pace: Arc::new(Pace::unhindered()),
            temp,
        };
        fs::create_dir_all(rig.dir()).unwrap();
        rig
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("spool").join(self.id.as_str())
    }

    fn bucket(&self) -> PathBuf {
        self.temp.path().join("bucket")
    }

    fn delivery(&self) -> Delivery {
        let jobs = Arc::new(Embedded::open(&self.temp.path().join("jobs")).unwrap());
        Delivery {
            part: PartId::alone(&self.id),
            dir: self.dir(),
            queues: 1,
            shape: Shape::plain(262_144, 1 << 20),
            route: Route {
                stores: Arc::new(Stores::new(StoresConfig::default()).unwrap()),
                account: AccountId("a".to_owned()),
                destination: None,
                keys: BucketKeys::new(jobs, None),
                kept: BucketTerms::default(),
                simple_dir: self.bucket(),
            },
            feed: Arc::clone(&self.feed),
            spool: Arc::clone(&self.spool),
            retry: RetryPolicy {
                bounds: self.bounds.subscribe(),
                leaving: self.leaving.subscribe(),
                time_is_up: self.time_is_up.subscribe(),
                given_up: self.given_up.subscribe(),
                reporter: self.reporter.clone(),
            },
            reporter: self.reporter.clone(),
            places: Arc::clone(&self.places),
            pace: Arc::clone(&self.pace),
            objects_max: 1,
            cores: Arc::new([]),
            capturing: watch::channel(true).1,
            frees: Mutex::default(),
        }
    }

    /// A published segment of `packets` packets.
    fn segment(&self, sequence: u64, packets: u64) -> Segment {
        let mut writer = Writer::new(Vec::new(), 262_144, 1).unwrap();
        let ns = |i: u64| (1_800_000_000 + sequence * 100 + i) * SECOND;
        (0..packets).for_each(|i| writer.write(ns(i), 84, &[sequence as u8; 84]).unwrap());
        let bytes = writer.finish().unwrap();
        let path = self.dir().join(format!("q000-{sequence:08}.pcap"));
        fs::write(&path, &bytes).unwrap();
        self.spool.count(&self.dir());
        let (first_ns, last_ns) = (ns(0), ns(packets - 1));
        Segment { path, sequence, bytes: bytes.len() as u64, packets, first_ns, last_ns }
    }

    /// Three segments of five packets, told.
    fn three_segments(&self) -> Vec<Segment> {
        let segments: Vec<_> = (0..3).map(|sequence| self.segment(sequence, 5)).collect();
        segments.iter().for_each(|segment| self.feed.tell(Input::Segment(0, segment.clone())));
        self.feed.tell(Input::End(0));
        segments
    }

    async fn report(&mut self) -> Report {
        tokio::time::timeout(Duration::from_secs(60), self.reports.recv()).await.unwrap().unwrap()
    }

    /// Waits until so many attempts have failed.
    async fn troubles(&mut self, count: usize) -> String {
        let mut last = String::new();
        for _ in 0..count {
            loop {
                match self.report().await {
                    Report::Trouble(error, _) => {
                        let dir = self.temp.path().display().to_string();
                        assert!(!error.customer().contains(&dir), "a customer reads {error:?}");
                        break last = error.to_string();
                    }
                    Report::Delivered(outcome) => panic!("ended: {outcome:?}"),
                    _ => {}
                }
            }
        }
        last
    }

    /// Waits for the end: what was lost, and the outcome.
    async fn end(&mut self) -> ((u64, u64), Outcome) {
        let mut lost = (0, 0);
        loop {
            match self.report().await {
                Report::Lost { packets, frame_bytes } => lost = (packets, frame_bytes),
                Report::Delivered(outcome) => return (lost, outcome),
                _ => {}
            }
        }
    }

    /// Packets in the bucket's objects.
    fn delivered(&self) -> u64 {
        let mut packets = 0;
        for entry in fs::read_dir(self.bucket()).unwrap() {
            let mut reader = Reader::open(&entry.unwrap().path()).unwrap();
            while reader.next_record().unwrap().is_some() {
                packets += 1;
            }
        }
        packets
    }

    async fn assert_whole(&mut self) {
        let (lost, outcome) = self.end().await;
        assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
        assert_eq!((lost, self.delivered()), ((0, 0), 15));
        assert!(record::remove(&self.spool, &self.dir()).unwrap(), "nothing is left in the spool");
    }
}

fn descriptors_in(dir: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|to| to.starts_with(dir))
        .count()
}

fn merge_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.trim() == "merge")
        .count()
}

#[tokio::test]
async fn a_segment_that_cannot_be_opened_for_a_while_is_delivered_whole_later() {
    let mut rig = Rig::new();
    let segments = rig.three_segments();
    let away = rig.temp.path().join("away");
    fs::rename(&segments[1].path, &away).unwrap();
    tokio::spawn(rig.delivery().run());
    assert!(rig.troubles(2).await.contains("q000-00000001.pcap"));
    fs::rename(&away, &segments[1].path).unwrap();
    rig.assert_whole().await;
}

#[tokio::test]
async fn a_process_without_descriptors_for_a_while_delivers_everything_later() {
    let mut rig = Rig::new();
    rig.three_segments();
    let delivery = rig.delivery();
    // Blocking threads exist before there are no descriptors left.
    tokio::task::spawn_blocking(|| {}).await.unwrap();
    let mut held = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        held.push(file);
    }
    tokio::spawn(delivery.run());
    let error = rig.troubles(12).await;
    assert!(error.contains("os error 24"), "{error}");
    drop(held);
    rig.assert_whole().await;
}

#[tokio::test]
async fn a_journal_that_cannot_be_opened_is_tried_again() {
    for recovers in [false, true] {
        let mut rig = Rig::new();
        if recovers {
            (0..3).for_each(|sequence| drop(rig.segment(sequence, 5)));
        } else {
            rig.three_segments();
        }
        // A directory in its place.
        fs::create_dir(rig.dir().join(".journal")).unwrap();
        let delivery = rig.delivery();
        tokio::spawn(delivery.run_from(recovers));
        let error = rig.troubles(2).await;
        assert!(error.contains(".journal") || error.contains("the journal"), "{error}");
        fs::remove_dir(rig.dir().join(".journal")).unwrap();
        rig.assert_whole().await;
    }
}

#[tokio::test]
async fn a_damaged_segment_is_delivered_up_to_its_damage_counted_and_kept() {
    let mut rig = Rig::new();
    let segments = rig.three_segments();
    let mut bytes = fs::read(&segments[1].path).unwrap();
    // Behind two whole records.
    bytes[24 + 2 * 100..][..16].fill(0xff);
    fs::write(&segments[1].path, &bytes).unwrap();
    tokio::spawn(rig.delivery().run());
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    assert_eq!((lost, rig.delivered()), ((3, 3 * 84), 12));
    assert!(
        !record::remove(&rig.spool, &rig.dir()).unwrap() && segments[1].path.exists(),
        "the file is kept"
    );
    assert!(!segments[0].path.exists() && !segments[2].path.exists(), "the others are freed");
    // Neither does the next process free it.
    rig.feed = Arc::new(Feed::new(1));
    tokio::spawn(rig.delivery().run_recovered());
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done) && lost == (0, 0), "{outcome:?}");
    assert!(segments[1].path.exists());
}

/// Segments as the spool makes them, each an object as it stands; their inodes.
fn whole_segments(rig: &Rig) -> (Vec<Segment>, Vec<u64>) {
    let segments: Vec<_> = (0..3).map(|sequence| rig.segment(sequence, 5)).collect();
    let inode = |segment: &Segment| {
        fs::set_permissions(&segment.path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::metadata(&segment.path).unwrap().ino()
    };
    let inodes = segments.iter().map(inode).collect();
    segments.iter().for_each(|segment| rig.feed.tell(Input::Segment(0, segment.clone())));
    rig.feed.tell(Input::End(0));
    (segments, inodes)
}

impl Rig {
    /// A delivery into objects as long as a segment.
    fn delivery_of_segments(&self) -> Delivery {
        Delivery { shape: Shape::plain(262_144, 24 + 5 * 100), ..self.delivery() }
    }

    /// What the bucket holds, by name.
    fn held(&self) -> Vec<PathBuf> {
        let mut held: Vec<_> =
            fs::read_dir(self.bucket()).unwrap().map(|entry| entry.unwrap().path()).collect();
        held.sort();
        held
    }
}

#[tokio::test]
async fn a_segment_that_is_an_object_becomes_it_without_a_copy_and_is_freed() {
    let mut rig = Rig::new();
    let (segments, inodes) = whole_segments(&rig);
    let bytes: Vec<_> = segments.iter().map(|segment| fs::read(&segment.path).unwrap()).collect();
    tokio::spawn(rig.delivery_of_segments().run());
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done) && lost == (0, 0), "{outcome:?}");
    let held = rig.held();
    assert_eq!(held.len(), 3, "{held:?}");
    for ((object, inode), bytes) in held.iter().zip(inodes).zip(bytes) {
        let metadata = fs::metadata(object).unwrap();
        assert_eq!(metadata.nlink(), 1, "{}", object.display());
        // Where the file system takes no direct writes, segments are used again instead.
        assert_eq!(metadata.ino() == inode, !rig.spool.recycles(), "{}", object.display());
        assert!(fs::read(object).unwrap() == bytes);
    }
    assert!(segments.iter().all(|segment| !segment.path.exists()));
    assert!(record::remove(&rig.spool, &rig.dir()).unwrap(), "nothing is left in the spool");
}

#[tokio::test]
async fn a_damaged_segment_is_never_an_object_as_it_stands() {
    let mut rig = Rig::new();
    let (segments, _) = whole_segments(&rig);
    let mut bytes = fs::read(&segments[1].path).unwrap();
    bytes[24 + 2 * 100..][..16].fill(0xff);
    fs::write(&segments[1].path, &bytes).unwrap();
    tokio::spawn(rig.delivery_of_segments().run());
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    assert_eq!((lost, rig.delivered()), ((3, 3 * 84), 12));
    assert_eq!(fs::read(&segments[1].path).unwrap(), bytes, "the file is kept as it was");
    assert_eq!(fs::metadata(&segments[1].path).unwrap().nlink(), 1);
    assert!(rig.held().iter().all(|object| fs::metadata(object).unwrap().nlink() == 1));
}

#[tokio::test]
async fn a_segment_that_never_comes_back_costs_its_own_packets_only() {
    let mut rig = Rig::new();
    let segments = rig.three_segments();
    fs::remove_file(&segments[1].path).unwrap();
    tokio::spawn(rig.delivery().run());
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    assert_eq!((lost, rig.delivered()), ((5, 5 * 84), 10));
}

#[tokio::test]
async fn what_a_dead_process_left_with_a_gap_is_delivered() {
    let mut rig = Rig::new();
    for sequence in [0, 2, 5] {
        rig.segment(sequence, 5);
    }
    // It could not be published, and nothing tells how much of it can be trusted.
    let open = rig.dir().join(".q000-00000001.pcap.open");
    fs::write(&open, [0; 100]).unwrap();
    tokio::spawn(rig.delivery().run_recovered());
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    assert_eq!((lost, rig.delivered()), ((0, 0), 15));
    assert!(!record::remove(&rig.spool, &rig.dir()).unwrap() && open.exists());
}

#[tokio::test]
async fn damaged_counts_and_a_journal_of_fewer_queues_hold_up_no_delivery() {
    let mut rig = Rig::new();
    rig.three_segments();
    rig.feed = Arc::new(Feed::new(3));
    fs::write(rig.dir().join(".counts.json"), "{\"offered\":").unwrap();
    let object = ObjectInfo {
        name: crate::deliver::object_name(&PartId::alone(&rig.id), 0, Default::default()),
        ..Default::default()
    };
    let entry = Entry { object, cuts: vec![Default::default()], is_last: false, gaps: Vec::new() };
    Journal::open(&rig.dir()).unwrap().append(entry).unwrap();
    tokio::spawn(Delivery { queues: 3, ..rig.delivery() }.run_recovered());
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    assert_eq!(lost, (0, 0));
    assert_eq!(Journal::open(&rig.dir()).unwrap().totals().packets, 15);
}

#[tokio::test]
async fn of_a_damaged_segment_a_recovery_counts_the_bytes_of_its_whole_packets() {
    let mut rig = Rig::new();
    for (sequence, damage) in [(0, vec![0; 500]), (1, vec![0xff; 16]), (2, Vec::new())] {
        let segment = rig.segment(sequence, 5);
        let mut bytes = fs::read(&segment.path).unwrap();
        bytes.extend(damage);
        fs::write(&segment.path, bytes).unwrap();
    }
    fs::write(rig.dir().join("q000-00000003.pcap"), [0; 4096]).unwrap();
    tokio::spawn(rig.delivery().run_recovered());
    let Report::Recovered(found) = rig.report().await else { panic!("what was found comes first") };
    assert_eq!((found.packets, found.frame_bytes), (15, 15 * 84));
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    assert_eq!((lost, rig.delivered()), ((0, 0), 15));
}

#[tokio::test]
async fn a_journal_that_is_lost_is_read_from_its_copy_over_a_recovery() {
    let mut rig = Rig::new();
    // The first one is in a complete object, and freed.
    let id = rig.id.clone();
    let name = |number| crate::deliver::object_name(&PartId::alone(&id), number, Default::default());
    let object = ObjectInfo { name: name(0), packets: 5, ..Default::default() };
    let cuts = vec![crate::spool::Cut { sequence: 1, offset: 0 }];
    let entry = Entry { object, cuts, is_last: false, gaps: Vec::new() };
    Journal::open(&rig.dir()).unwrap().append(entry).unwrap();
    for sequence in [1, 2] {
        rig.segment(sequence, 5);
    }
    fs::write(rig.dir().join(".journal"), "").unwrap();
    tokio::spawn(rig.delivery().run_recovered());
    let Report::Recovered(found) = rig.report().await else { panic!("what was found comes first") };
    assert_eq!((found.objects.len(), found.packets), (1, 15));
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    let names: Vec<_> =
        crate::deliver::journal::objects(&rig.dir()).unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!((lost, names), ((0, 0), vec![name(0), name(1)]));
}

#[tokio::test]
async fn a_capture_whose_directory_is_gone_is_no_empty_capture() {
    let mut rig = Rig::new();
    fs::remove_dir(rig.dir()).unwrap();
    tokio::spawn(rig.delivery().run_recovered());
    let (_, outcome) = rig.end().await;
    assert!(matches!(&outcome, Outcome::Gone(e) if e.to_string().contains("mounted")), "{outcome:?}");
    assert!(!rig.bucket().exists() && !rig.dir().exists());
}

#[tokio::test]
async fn a_directory_that_is_removed_under_a_delivery_ends_it_and_one_that_is_away_with_its_spool_does_not() {
    for is_removed in [true, false] {
        let mut rig = Rig::new();
        crate::spool::name_spool(&rig.spool.config().dir).unwrap();
        rig.three_segments();
        tokio::spawn(rig.delivery().run());
        let (spool, away) = (rig.temp.path().join("spool"), rig.temp.path().join("away"));
        match is_removed {
            true => fs::remove_dir_all(rig.dir()).unwrap(),
            false => fs::rename(&spool, &away).unwrap(),
        }
        if !is_removed {
            rig.troubles(3).await;
            fs::rename(&away, &spool).unwrap();
            rig.assert_whole().await;
            continue;
        }
        let (lost, outcome) = rig.end().await;
        assert!(matches!(outcome, Outcome::Gone(_)), "{outcome:?}");
        assert_eq!(lost, (15, 15 * 84));
    }
}

#[tokio::test]
async fn leftovers_that_an_earlier_attempt_noted_are_forgotten_once_the_store_holds_none() {
    let mut rig = Rig::new();
    record::note_leftovers(&rig.dir()).unwrap();
    let left = rig.bucket().join(format!(".pcap_{}_0001.pcap.1", rig.id));
    fs::create_dir_all(rig.bucket()).unwrap();
    fs::write(&left, "half an object").unwrap();
    assert!(!record::remove(&rig.spool, &rig.dir()).unwrap(), "only the directory knows of them");
    rig.three_segments();
    tokio::spawn(rig.delivery().run());
    rig.assert_whole().await;
    assert!(!left.exists());
}

#[tokio::test]
async fn hosts_that_deliver_one_capture_to_one_place_leave_each_other_s_names_and_uploads_alone() {
    let capture = CaptureId::random();
    let bucket = tempfile::tempdir().unwrap();
    let stem = |host: &str| PartId { capture: capture.clone(), site: Site::new("ord02", host) }.stem();
    let left = |stem: String| bucket.path().join(format!(".{stem}_0001.pcap.1"));
    for (host, own, others) in
        [("cap1", "cap1", ["cap2", "cap3"]), ("cap2", "cap2", ["cap1", "cap3"]), ("", "", ["cap1", "cap2"])]
    {
        let stem = |host: &str| if host.is_empty() { format!("pcap_{capture}") } else { stem(host) };
        for host in [own, others[0], others[1]] {
            fs::write(left(stem(host)), "half an object").unwrap();
        }
        let mut rig = Rig::new();
        rig.three_segments();
        let mut delivery = rig.delivery();
        delivery.part.capture = capture.clone();
        delivery.part.site = Site::new("ord02", host);
        delivery.route.simple_dir = bucket.path().to_owned();
        tokio::spawn(delivery.run());
        let (_, outcome) = rig.end().await;
        assert!(matches!(outcome, Outcome::Done), "{host}: {outcome:?}");
        assert!(!left(stem(own)).exists() && others.iter().all(|other| left(stem(other)).exists()), "{host}");
        assert!(bucket.path().join(format!("{}.pcap", stem(own))).exists(), "{host}");
    }
}

#[tokio::test]
async fn a_delivery_that_waits_holds_neither_threads_nor_descriptors() {
    let mut rig = Rig::new();
    // The stream has not ended: the merge would wait for more.
    let segment = rig.segment(0, 5);
    rig.feed.tell(Input::Segment(0, segment));
    rig.feed.tell(Input::Watermark(0, 1_900_000_000 * SECOND));
    fs::write(rig.bucket(), "").unwrap();
    let delivery = rig.delivery();
    rig.bounds.send_modify(|bounds| bounds.pause_max = Duration::from_secs(3600));
    let running = tokio::spawn(delivery.run());
    rig.troubles(1).await;
    // Threads that were told to end are seen for a moment more.
    while merge_threads() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(descriptors_in(&rig.dir()), 0);
    rig.leaving.send(true).unwrap();
    running.await.unwrap();
    assert!(matches!(rig.end().await.1, Outcome::Left));
}

/// The runtime has one thread: whatever waits there for a disk stops the clock too.
#[tokio::test]
async fn a_disk_that_stands_still_holds_up_no_runtime_thread() {
    let mut rig = Rig::new();
    rig.three_segments();
    // Opening a pipe waits until somebody opens its other end.
    let pipe = rig.dir().join(".journal");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    tokio::spawn(rig.delivery().run());
    tokio::time::sleep(Duration::from_millis(50)).await;
    // It moves on, and refuses.
    let mut moving = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            _ = rig.troubles(1) => break,
            _ = moving.tick() => drop(fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap()),
        }
    }
    fs::remove_file(&pipe).unwrap();
    rig.assert_whole().await;
}

#[tokio::test]
async fn a_delivery_that_went_well_for_longer_than_the_retention_is_not_given_up_at_its_first_failure() {
    let rig = Rig::new();
    let mut delivery = rig.delivery();
    rig.bounds.send_modify(|bounds| bounds.retention = Duration::from_millis(1));
    let mut attempts = Attempts::new(&delivery.retry);
    std::thread::sleep(Duration::from_millis(5));
    assert!(delivery.retry.pause(&mut attempts, Words::alike("first")).await.is_none());
    std::thread::sleep(Duration::from_millis(5));
    let outcome = delivery.retry.pause(&mut attempts, Words::alike("second")).await;
    assert!(matches!(outcome, Some(Outcome::Failed(e)) if e.to_string().contains("second")));
    // The operator gives it more time: what is under way has that too.
    rig.bounds.send_modify(|bounds| bounds.retention = Duration::from_secs(60));
    assert!(delivery.retry.pause(&mut attempts, Words::alike("third")).await.is_none());
}

#[tokio::test]
async fn a_delivery_gets_on_while_captures_press_and_one_that_stands_back_is_given_up_at_once() {
    let mut rig = Rig::new();
    let rules = PaceRules { wait_percent: 25, high_water_percent: 80, share_percent: 50 };
    rig.pace = Arc::new(Pace::new(rules, || Load { waiting_percent: 100, ..Load::default() }));
    rig.three_segments();
    tokio::spawn(rig.delivery().run());
    rig.assert_whole().await;

    let mut rig = Rig::new();
    rig.pace = Arc::new(Pace::standstill());
    rig.three_segments();
    tokio::spawn(rig.delivery().run());
    let stands_back = async {
        while rig.pace.read().standing_back == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stands_back).await.unwrap();
    assert!(rig.reports.try_recv().is_err(), "standing back is no trouble");
    rig.given_up.send_replace(Some("somebody drops it".to_owned()));
    let (_, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    let stands_no_more = async {
        while rig.pace.read().standing_back > 0 || merge_threads() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stands_no_more).await.unwrap();
}

#[tokio::test]
async fn no_object_is_completed_that_could_not_be_journalled() {
    for writable in [true, false] {
        let (merge, merged) = mpsc::channel(8);
        let summary = Summary {
            bytes: 3,
            packets: 1,
            frame_bytes: 0,
            first_ns: 1,
            last_ns: 1,
            sha256: String::new(),
            content: None,
        };
        for output in [
            Output::Begin(0),
            Output::Chunk(bytes::Bytes::from_static(b"one")),
            Output::End(summary, Consumed::default()),
        ] {
            merge.send(output).await.unwrap();
        }
        drop(merge);
        let (passed, mut guarded) = mpsc::channel(8);
        let pace = (Arc::new(Pace::unhindered()), Pulse::new(), Arc::default());
        let probe =
            move || if writable { Ok(()) } else { Err(std::io::ErrorKind::ReadOnlyFilesystem.into()) };
        assert_eq!(guard(merged, passed, probe, pace).await.is_ok(), writable);
        let mut outputs = 0;
        while guarded.recv().await.is_some() {
            outputs += 1;
        }
        assert_eq!(outputs, if writable { 3 } else { 2 });
    }
}

#[path = "round_tests.rs"]
mod rounds;

#[tokio::test]
async fn a_delivery_of_a_store_that_never_stops_is_left_to_the_next_process_when_time_is_up() {
    let mut rig = Rig::new();
    rig.pace = Arc::new(Pace::standstill());
    rig.three_segments();
    tokio::spawn(rig.delivery().run());
    rig.leaving.send_replace(true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.reports.try_recv().is_err(), "what has not failed goes on at the end of the process");
    rig.time_is_up.send_replace(true);
    assert!(matches!(rig.end().await.1, Outcome::Left));
    // The next process has all of it.
    rig.pace = Arc::new(Pace::unhindered());
    (rig.leaving, rig.time_is_up) = (watch::Sender::new(false), watch::Sender::new(false));
    rig.feed = Arc::new(Feed::new(1));
    tokio::spawn(rig.delivery().run_recovered());
    rig.assert_whole().await;
}

#[tokio::test]
async fn objects_that_are_complete_behind_one_that_is_given_up_are_told_by_name() {
    let mut rig = Rig::new();
    let bytes = rig.three_segments()[0].bytes;
    let mut delivery = rig.delivery();
    (delivery.objects_max, delivery.shape) = (4, Shape::plain(262_144, bytes));
    let name = |number: u32| object_name(&PartId::alone(&rig.id), number, ObjectFormat::default());
    fs::create_dir_all(rig.bucket()).unwrap();
    fs::write(rig.bucket().join(name(0)), "somebody else's").unwrap();
    let names = [name(1), name(2)];
    tokio::spawn(delivery.run());
    while !names.iter().all(|name| rig.bucket().join(name).exists()) {
        rig.troubles(1).await;
    }
    rig.troubles(2).await;
    rig.given_up.send_replace(Some("somebody drops it".to_owned()));
    let mut told = Vec::new();
    loop {
        match rig.report().await {
            Report::Ahead(objects) => told.extend(objects.into_iter().map(|object| object.name)),
            Report::Delivered(outcome) => {
                break assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
            }
            Report::Object(object) => panic!("{object:?} is not in order"),
            _ => {}
        }
    }
    assert_eq!(told, names);
}

#[tokio::test]
async fn what_a_dead_process_delivered_is_told_also_of_a_capture_that_was_given_up_before_it_died() {
    let mut rig = Rig::new();
    rig.three_segments();
    // It dies behind its first object.
    let first = rig.segment(0, 5);
    let mut delivery = rig.delivery();
    delivery.shape = Shape::plain(262_144, first.bytes);
    let running = tokio::spawn(delivery.run());
    while !matches!(rig.report().await, Report::Object(_)) {}
    running.abort();
    assert!(running.await.is_err_and(|error| error.is_cancelled()));
    // What a thread had begun for it ends.
    tokio::time::sleep(Duration::from_millis(200)).await;
    while rig.reports.try_recv().is_ok() {}
    let there = |rig: &Rig| {
        let names = fs::read_dir(rig.bucket()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.as_encoded_bytes().starts_with(b"pcap_")).count()
    };
    let before = there(&rig);
    rig.feed = Arc::new(Feed::new(1));
    rig.given_up.send_replace(Some("its owner dropped it".to_owned()));
    tokio::spawn(rig.delivery().run_recovered());
    let mut found = None;
    let outcome = loop {
        match rig.report().await {
            Report::Recovered(recovered) => found = Some(recovered.objects.len()),
            Report::Delivered(outcome) => break outcome,
            Report::Object(object) => panic!("{object:?} leaves the host"),
            _ => {}
        }
    };
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    assert!(found.is_some_and(|objects| objects > 0), "{found:?}");
    assert_eq!(there(&rig), before, "nothing more");
}
