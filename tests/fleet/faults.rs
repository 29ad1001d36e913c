//! What fails on real servers: killed, stopped and lost ones, lost answers, lost streams. Each test counts: whatever was acknowledged
//! is there at the end, each revision has one writer.

use crate::cluster::{Cluster, NEWEST, VERSIONS, api};
use crate::wire::Wire;
use crate::{healthy, node};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use trawl::bus::{Bus, Table};
use trawl::fleet::held::{Answer, Revision};

/// Rounds of the faults that take long.
fn rounds() -> u32 {
    std::env::var("TRAWL_FLEET_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// What a writer was told of its writes.
#[derive(Clone, Copy, Default, Debug)]
struct Told {
    wrote: u64,
    uncertain: u64,
}

/// Writers that count up, each its own number in records that all of them write.
struct Writers {
    is_over: Arc<AtomicBool>,
    revisions: Arc<Mutex<BTreeSet<(String, Revision)>>>,
    tasks: tokio::task::JoinSet<(String, BTreeMap<String, Told>)>,
    last_write: Arc<Mutex<Instant>>,
    longest: Arc<Mutex<Duration>>,
}

const RECORDS: usize = 4;

static WRITERS: AtomicUsize = AtomicUsize::new(0);

type Counts = BTreeMap<String, u64>;

fn counts(value: Option<Vec<u8>>) -> Counts {
    value.map(|value| serde_json::from_slice(&value).unwrap()).unwrap_or_default()
}

impl Writers {
    fn start(nodes: &[Arc<dyn Bus>], each: usize) -> Self {
        let mut writers = Self {
            is_over: Arc::default(),
            revisions: Arc::default(),
            tasks: tokio::task::JoinSet::new(),
            last_write: Arc::new(Mutex::new(Instant::now())),
            longest: Arc::default(),
        };
        for number in 0..nodes.len() * each {
            let bus = Arc::clone(&nodes[number % nodes.len()]);
            // Writers of earlier rounds have counted in the same records.
            let name = format!("w{}", WRITERS.fetch_add(1, Ordering::SeqCst));
            let (is_over, revisions) = (Arc::clone(&writers.is_over), Arc::clone(&writers.revisions));
            let (last_write, longest) = (Arc::clone(&writers.last_write), Arc::clone(&writers.longest));
            writers.tasks.spawn(async move {
                let mut told: BTreeMap<String, Told> = BTreeMap::new();
                for turn in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    let key = format!("count.{}", (turn + number) % RECORDS);
                    let Some(answer) = count(&bus, &key, &name).await else { continue };
                    let told = told.entry(key.clone()).or_default();
                    match answer {
                        Answer::Wrote(revision) => {
                            told.wrote += 1;
                            assert!(
                                revisions.lock().unwrap().insert((key, revision)),
                                "two writers have {revision:?}"
                            );
                            let mut last = last_write.lock().unwrap();
                            let mut longest = longest.lock().unwrap();
                            *longest = last.elapsed().max(*longest);
                            *last = Instant::now();
                        }
                        Answer::Uncertain => told.uncertain += 1,
                        _ => {}
                    }
                }
                (name, told)
            });
        }
        writers
    }

    /// Ends them, and holds what they were told against what is there.
    async fn end(mut self, bus: &Arc<dyn Bus>, what: &str) {
        self.is_over.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        while let Some(done) = self.tasks.join_next().await {
            all.push(done.unwrap());
        }
        healthy(bus).await;
        let (mut wrote, mut uncertain) = (0, 0);
        for number in 0..RECORDS {
            let key = format!("count.{number}");
            let Answer::Read(_, value) = bus.read(Table::Jobs, &key).await else {
                panic!("{key} cannot be read")
            };
            let counts = counts(value);
            for (name, told) in &all {
                let Some(told) = told.get(&key) else { continue };
                let is = counts.get(name).copied().unwrap_or(0);
                assert!(is >= told.wrote, "{what}: {key}: {name} was told of {told:?}, and {is} are there");
                assert!(
                    is <= told.wrote + told.uncertain,
                    "{what}: {key}: {name}: {told:?}, and {is} are there"
                );
                (wrote, uncertain) = (wrote + told.wrote, uncertain + told.uncertain);
            }
        }
        let longest = *self.longest.lock().unwrap();
        println!(
            "{what}: {wrote} writes, {uncertain} uncertain, longest without one {:.1} s",
            longest.as_secs_f64()
        );
        assert!(wrote > 100, "{what}: {wrote}");
    }

    /// Waits for so many more writes.
    async fn more(&self, writes: usize) {
        let count = || self.revisions.lock().unwrap().len();
        let (wanted, began) = (count() + writes, Instant::now());
        while count() < wanted {
            assert!(began.elapsed() < Duration::from_secs(60), "{} of {wanted} writes", count());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One try to count up. None: it cannot be read.
async fn count(bus: &Arc<dyn Bus>, key: &str, name: &str) -> Option<Answer<Vec<u8>>> {
    let Answer::Read(revision, value) = bus.read(Table::Jobs, key).await else {
        tokio::time::sleep(Duration::from_millis(50)).await;
        return None;
    };
    let mut counts = counts(value);
    *counts.entry(name.to_owned()).or_default() += 1;
    Some(bus.write(Table::Jobs, key, revision, serde_json::to_vec(&counts).unwrap()).await)
}

async fn two(cluster: &Cluster) -> [Arc<dyn Bus>; 2] {
    [node(&cluster.way("api1")).await, node(&cluster.way("api2")).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_servers_lose_no_acknowledged_write() {
    let Some(mut cluster) = Cluster::start(VERSIONS[0]).await else { return };
    let nodes = two(&cluster).await;
    let admin = cluster.admin().await;
    for round in 0..rounds() {
        let writers = Writers::start(&nodes, 3);
        writers.more(50).await;
        let leader = cluster.leader(&admin, "KV_prod_jobs").await;
        cluster.kill(leader);
        writers.more(50).await;
        cluster.restart(leader);
        cluster.wait_until_well().await;
        writers.more(50).await;
        for server in 0..3 {
            cluster.kill(server);
        }
        for server in 0..3 {
            cluster.restart(server);
        }
        cluster.wait_until_well().await;
        writers.more(50).await;
        writers.end(&nodes[0], &format!("killed, round {round}")).await;
    }
    assert_eq!(crate::consumers(&cluster).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_left_and_its_old_state_decides_nothing() {
    let Some(cluster) = Cluster::start(NEWEST).await else { return };
    let nodes = two(&cluster).await;
    let admin = cluster.admin().await;
    for round in 0..rounds() {
        let writers = Writers::start(&nodes, 3);
        writers.more(50).await;
        let leader = cluster.leader(&admin, "KV_prod_jobs").await;
        cluster.signal(leader, Signal::STOP);
        writers.more(50).await;
        cluster.signal(leader, Signal::CONT);
        writers.more(100).await;
        cluster.wait_until_well().await;
        writers.end(&nodes[1], &format!("stopped, round {round}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_uncertain_and_a_read_tells_which() {
    let Some(cluster) = Cluster::start(NEWEST).await else { return };
    let wire = Wire::new(cluster.address(0)).await;
    let mut way = cluster.way("api1");
    way.servers = vec![wire.url.clone()];
    let bus = node(&way).await;
    let write =
        |expected, value: &'static str| bus.write(Table::Jobs, "a", expected, value.as_bytes().to_vec());
    let Answer::Wrote(first) = write(Revision::default(), "1").await else { panic!("refused") };

    wire.loses_answers.store(true, Ordering::SeqCst);
    assert_eq!(write(first, "2").await, Answer::Uncertain);
    wire.cut();
    healthy(&bus).await;
    let Answer::Read(second, Some(value)) = bus.read(Table::Jobs, "a").await else { panic!("unread") };
    assert!(second > first && value == b"2");
    assert_eq!(write(first, "x").await, Answer::Stale);

    wire.loses_requests.store(true, Ordering::SeqCst);
    assert_eq!(write(second, "3").await, Answer::Uncertain);
    wire.cut();
    healthy(&bus).await;
    assert_eq!(bus.read(Table::Jobs, "a").await, Answer::Read(second, Some(b"2".to_vec())));
    assert!(matches!(write(second, "4").await, Answer::Wrote(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_lost_its_line_tells_the_last_without_a_consumer() {
    let Some(cluster) = Cluster::start(NEWEST).await else { return };
    let wire = Wire::new(cluster.address(0)).await;
    let mut way = cluster.way("api2");
    way.servers = vec![wire.url.clone()];
    let (writer, watcher) = (node(&cluster.way("api1")).await, node(&way).await);
    let mut entries = watcher.watch(Table::Jobs, "a");
    let mut revision = Revision::default();
    for number in 0..20 * rounds() {
        wire.loses_answers.store(true, Ordering::SeqCst);
        let value = number.to_string().into_bytes();
        let Answer::Wrote(next) = writer.write(Table::Jobs, "a.b", revision, value.clone()).await else {
            panic!("refused")
        };
        revision = next;
        wire.cut();
        loop {
            let entry = tokio::time::timeout(Duration::from_secs(40), entries.recv()).await.unwrap().unwrap();
            if entry.revision == revision {
                assert_eq!(entry.value, Some(value));
                break;
            }
        }
    }
    assert_eq!(crate::consumers(&cluster).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_made_again_takes_no_old_revision() {
    let Some(cluster) = Cluster::start(NEWEST).await else { return };
    let [bus, other] = two(&cluster).await;
    let admin = cluster.admin().await;
    let mut entries = other.watch(Table::Jobs, "");
    let write =
        |expected, value: &'static str| bus.write(Table::Jobs, "a", expected, value.as_bytes().to_vec());
    let Answer::Wrote(first) = write(Revision::default(), "1").await else { panic!("refused") };
    assert_eq!(entries.recv().await.unwrap().revision, first);
    api(&admin, "STREAM.DELETE.KV_prod_jobs", "").await;
    assert!(matches!(write(first, "lost").await, Answer::Uncertain | Answer::Unavailable));
    cluster.init();
    healthy(&bus).await;
    // A node that knows the old one alone finds out by its first write.
    let again = loop {
        match other.write(Table::Jobs, "a", Revision::default(), b"2".to_vec()).await {
            Answer::Wrote(revision) => break revision,
            Answer::Uncertain | Answer::Unavailable => {}
            answer => panic!("{answer:?}"),
        }
    };
    // The same sequence, in another incarnation.
    assert_eq!((again.sequence, again.incarnation > first.incarnation), (first.sequence, true));
    let mut answer = write(first, "old").await;
    while matches!(answer, Answer::Uncertain | Answer::Unavailable) {
        answer = write(first, "old").await;
    }
    assert_eq!(answer, Answer::Stale);
    assert_eq!(bus.read(Table::Jobs, "a").await, Answer::Read(again, Some(b"2".to_vec())));
    let entry = tokio::time::timeout(Duration::from_secs(40), entries.recv()).await.unwrap().unwrap();
    assert_eq!(entry.revision, again);
    assert!(matches!(write(again, "3").await, Answer::Wrote(_)));
}
