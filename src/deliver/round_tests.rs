//! Objects of a capture that are merged and sent at once. Owns these expectations.

use super::*;
use crate::upload::S3Config;
use std::collections::BTreeMap;

const QUEUES: usize = 3;
/// Objects of about five hundred packets.
const OBJECT_BYTES_MAX: u64 = 50_000;

impl Rig {
    /// A capture of three queues in segments, all of which are told.
    fn of_three_queues() -> Self {
        let rig = Self { feed: Arc::new(Feed::new(QUEUES)), ..Self::new() };
        for queue in 0..QUEUES {
            for sequence in 0..5_u64 {
                let segment = rig.segment_of(queue, sequence);
                rig.feed.tell(Input::Segment(queue, segment));
            }
            rig.feed.tell(Input::End(queue));
        }
        rig
    }

    fn segment_of(&self, queue: usize, sequence: u64) -> Segment {
        let mut writer = Writer::new(Vec::new(), 262_144, 1).unwrap();
        let ns = |i: u64| 1_800_000_000 * SECOND + (sequence * 300 + i) / 2 * (2 + queue as u64) * 1000;
        let data = [[queue as u8; 40], [sequence as u8; 40]].concat();
        (0..300).for_each(|i| writer.write(ns(i), 90, &data[..60 + (i % 20) as usize]).unwrap());
        let bytes = writer.finish().unwrap();
        let path = self.dir().join(format!("q{queue:03}-{sequence:08}.pcap"));
        fs::write(&path, &bytes).unwrap();
        self.spool.count(&self.dir());
        let (first_ns, last_ns) = (ns(0), ns(299));
        Segment { path, sequence, bytes: bytes.len() as u64, packets: 300, first_ns, last_ns }
    }

    /// A delivery of them, so many objects at once.
    fn delivery_at_once(&self, objects_max: usize) -> Delivery {
        let mut delivery = self.delivery();
        let s3 = S3Config { parts_extra: 64, ..S3Config::default() };
        delivery.route.stores =
            Arc::new(Stores::new(StoresConfig { s3, ..StoresConfig::default() }).unwrap());
        let shape = Shape::plain(262_144, OBJECT_BYTES_MAX);
        Delivery { queues: QUEUES, shape, objects_max, ..delivery }
    }

    /// The objects in the bucket, by number.
    fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let number = |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.replace(self.id.as_str(), "")
        };
        self.held().iter().map(|path| (number(path), fs::read(path).unwrap())).collect()
    }
}

/// Two deliveries gave the same objects.
fn assert_same(given: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>, which: usize) {
    assert!(given.keys().eq(expected.keys()), "{which}: {:?} {:?}", given.keys(), expected.keys());
    for ((name, given), expected) in given.iter().zip(expected.values()) {
        let differs = given.iter().zip(expected).position(|(given, expected)| given != expected);
        let lengths = (given.len(), expected.len());
        assert!(given == expected, "{which}: {name} differs at {differs:?}, lengths {lengths:?}");
    }
}

/// What one object after the other makes.
async fn one_by_one() -> BTreeMap<String, Vec<u8>> {
    let mut rig = Rig::of_three_queues();
    tokio::spawn(rig.delivery_at_once(1).run());
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done) && lost == (0, 0), "{outcome:?}");
    let objects = rig.objects();
    assert!(objects.len() > 6, "{}", objects.len());
    objects
}

#[tokio::test]
async fn objects_at_once_are_those_of_one_after_the_other() {
    let expected = one_by_one().await;
    for objects_max in [2, 4, 64] {
        let mut rig = Rig::of_three_queues();
        tokio::spawn(rig.delivery_at_once(objects_max).run());
        let mut names = Vec::new();
        loop {
            match rig.report().await {
                Report::Object(info) => names.push(info.name),
                Report::Delivered(outcome) => break assert!(matches!(outcome, Outcome::Done), "{outcome:?}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(names.is_sorted() && names.len() == expected.len(), "{names:?}");
        assert_same(&rig.objects(), &expected, objects_max);
        assert!(record::remove(&rig.spool, &rig.dir()).unwrap(), "nothing is left in the spool");
    }
}

#[tokio::test]
async fn several_objects_are_at_work_while_one_is() {
    let mut rig = Rig::of_three_queues();
    // Each piece of work waits for its turn, so that what is begun can be seen.
    let load = Load { waiting_percent: 90, ..Load::default() };
    let rules = PaceRules { wait_percent: 10, high_water_percent: 80, share_percent: 50 };
    rig.pace = Arc::new(Pace::new(rules, move || load));
    tokio::spawn(rig.delivery_at_once(4).run());
    let all_at_work = async {
        while merge_threads() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_at_work).await.unwrap();
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done) && lost == (0, 0), "{outcome:?}");
}

#[tokio::test]
async fn a_delivery_that_died_anywhere_leaves_what_the_next_one_completes_with_the_same_bytes() {
    let expected = one_by_one().await;
    for after in 0..12_u64 {
        let mut rig = Rig::of_three_queues();
        // Of its own runtime, whose end waits for what is at the disk just then.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dies = runtime.spawn(rig.delivery_at_once(4).run());
        // Until so many objects are in the bucket, visible or not.
        let files = || fs::read_dir(rig.bucket()).map_or(0, Iterator::count);
        while files() < after as usize / 2 && !dies.is_finished() {
            tokio::time::sleep(Duration::from_micros(100 * (after % 3))).await;
        }
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
        rig.feed.hang_up();
        while merge_threads() > 0 {
            tokio::task::yield_now().await;
        }
        rig.feed = Arc::new(Feed::new(QUEUES));
        while rig.reports.try_recv().is_ok() {}
        tokio::spawn(rig.delivery_at_once([1, 4][after as usize % 2]).run_recovered());
        let (lost, outcome) = rig.end().await;
        assert!(matches!(outcome, Outcome::Done) && lost == (0, 0), "{after}: {outcome:?}");
        assert_same(&rig.objects(), &expected, after as usize);
        assert!(record::remove(&rig.spool, &rig.dir()).unwrap(), "{after}: nothing is left in the spool");
    }
}

#[tokio::test]
async fn a_segment_that_is_damaged_under_several_objects_costs_its_own_packets_alone() {
    let mut rig = Rig::of_three_queues();
    let path = rig.dir().join("q001-00000002.pcap");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at..].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    tokio::spawn(rig.delivery_at_once(4).run());
    let ((lost, _), outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    assert!((140..160).contains(&lost), "{lost}");
    assert_eq!(lost + rig.delivered(), QUEUES as u64 * 5 * 300);
    assert!(path.exists());
}

#[tokio::test]
async fn objects_begin_while_their_packets_arrive_and_are_the_same() {
    let expected = one_by_one().await;
    let mut rig = Rig { feed: Arc::new(Feed::new(QUEUES)), ..Rig::new() };
    tokio::spawn(rig.delivery_at_once(4).run());
    for sequence in 0..5 {
        for queue in [2, 0, 1] {
            let segment = rig.segment_of(queue, sequence);
            rig.feed.tell(Input::Watermark(queue, segment.last_ns));
            rig.feed.tell(Input::Segment(queue, segment));
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    (0..QUEUES).for_each(|queue| rig.feed.tell(Input::End(queue)));
    let (lost, outcome) = rig.end().await;
    assert!(matches!(outcome, Outcome::Done) && lost == (0, 0), "{outcome:?}");
    assert_same(&rig.objects(), &expected, 0);
}
