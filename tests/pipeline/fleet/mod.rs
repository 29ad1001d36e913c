//! A fleet in one process: API nodes and capture hosts with real engines and workers, over a bus in memory. Only the frames are made up:
//! each host's have a length of their own, and each a running number.

mod captures;
mod faults;

use crate::rig::{Options, Rig, Traffic, request};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use trawl::api::{Captures, Results};
use trawl::bus::local::{Local, Shared};
use trawl::deliver::SigningKey;
use trawl::fleet::settings::Settings;
use trawl::job::{AccountId, CaptureId, Destination, Job, Kind, Request, Site};
use trawl::node::{Agent, AgentConfig, FleetResults, Front, FrontConfig, Leads, LeadsConfig, spool_number};
use trawl::pcap::Reader;
use trawl::spool::spool_id;
use trawl::worker::WhenIdle;

/// Everything goes faster than between real hosts.
fn settings() -> Settings {
    Settings {
        heartbeat: Duration::from_millis(200),
        late: Duration::from_secs(5),
        late_simple: Duration::from_secs(4),
        late_max: Duration::from_secs(60),
        grace: Duration::from_secs(1),
        reserve: Duration::from_secs(3),
        silent: Duration::from_secs(5),
        renew: Duration::from_millis(500),
        takeover: Duration::from_secs(2),
        ..Settings::default()
    }
}

/// Hosts of two data centers, with frames of these lengths.
const HOSTS: [(&str, &str, usize); 4] =
    [("tst01", "cap1", 101), ("tst01", "cap2", 102), ("tst02", "cap3", 103), ("tst02", "cap4", 104)];

pub struct Capturer {
    pub rig: Rig,
    pub bus: Arc<Local>,
    agent: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

pub struct Api {
    pub front: Front,
    pub results: FleetResults,
    pub bus: Arc<Local>,
    leads: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

pub struct Fleet {
    dir: TempDir,
    pub shared: Arc<Shared>,
    key: Arc<SigningKey>,
    pub hosts: Vec<Option<Capturer>>,
    pub apis: Vec<Option<Api>>,
    /// Reads may be old.
    pub is_disturbed: bool,
}

fn options(host: usize) -> Options {
    let (colo, name, _) = HOSTS[host];
    Options { colo, fleet_host: Some(name), when_idle: WhenIdle::Sleep, ..Options::default() }
}

/// Frames of a host, so many a second.
pub fn traffic(host: usize, per_second: u64) -> Vec<Traffic> {
    vec![Traffic::paced(HOSTS[host].2, per_second)]
}

impl Fleet {
    /// Two API nodes, and hosts with so many frames a second.
    pub async fn start(per_second: [u64; 4]) -> Self {
        let dir = crate::rig::new_dir();
        let key = Arc::new(SigningKey::create(&dir.path().join("key.pem")).unwrap());
        let mut fleet = Self {
            shared: Shared::new(),
            key,
            hosts: Vec::new(),
            apis: Vec::new(),
            is_disturbed: false,
            dir,
        };
        for (host, rate) in per_second.into_iter().enumerate() {
            let rig = Rig::with(options(host), traffic(host, rate));
            let host = fleet.host(host, rig);
            fleet.hosts.push(Some(host));
        }
        for _ in 0..2 {
            let api = fleet.node();
            fleet.apis.push(Some(api));
        }
        fleet.until_registered().await;
        fleet
    }

    fn host(&self, host: usize, rig: Rig) -> Capturer {
        let bus = Arc::new(Local::new(&self.shared));
        let (colo, name, _) = HOSTS[host];
        let config = AgentConfig {
            fleet: "f".to_owned(),
            site: Site::new(colo, name).unwrap(),
            spool_id: spool_number(&spool_id(&rig.spool()).unwrap().unwrap()),
            keys: vec![self.key.public()],
            dir: rig.dir().join("fleet"),
            simple_dir: rig.simple_dir(),
            settings: settings(),
        };
        let agent = Agent::new(config, bus.clone(), rig.handle().clone()).unwrap();
        let (stop, stops) = watch::channel(false);
        Capturer { rig, bus, agent: tokio::spawn(agent.run(stops)), stop }
    }

    fn node(&self) -> Api {
        let bus = Arc::new(Local::new(&self.shared));
        let config =
            LeadsConfig { fleet: "f".to_owned(), key: self.key.clone(), reach: None, settings: settings() };
        let leads = Leads::new(config, bus.clone()).unwrap();
        let (stop, stops) = watch::channel(false);
        let config = FrontConfig {
            settings: settings(),
            simple_interval: Duration::from_secs(60),
            full_per_account: 1,
            simple_one_in: 1,
        };
        Api {
            front: Front::new(config, bus.clone()),
            results: FleetResults(bus.clone()),
            bus,
            leads: tokio::spawn(leads.run(stops)),
            stop,
        }
    }

    /// Until all hosts are in the registry.
    async fn until_registered(&self) {
        use trawl::bus::{Bus as _, Table};
        let bus = Local::new(&self.shared);
        let deadline = Instant::now() + Duration::from_secs(20);
        while bus.list(Table::Hosts, "").await.unwrap().len() < HOSTS.len() {
            assert!(Instant::now() < deadline, "hosts do not register");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn api(&self, at: usize) -> &Api {
        self.apis[at].as_ref().unwrap()
    }

    pub fn front(&self, at: usize) -> &Front {
        &self.api(at).front
    }

    /// Goes away as a process that is killed.
    pub fn kill_api(&mut self, at: usize) {
        let api = self.apis[at].take().unwrap();
        api.bus.faults(|faults| faults.is_away = true);
        api.leads.abort();
    }

    pub fn bucket(&self) -> PathBuf {
        let bucket = self.dir.path().join("bucket");
        std::fs::create_dir_all(&bucket).unwrap();
        bucket
    }

    pub fn full(&self, seconds: f64, packets: Option<u64>) -> Request {
        let destination = Some(Destination::File { dir: self.bucket() });
        Request {
            packet_limit: packets,
            colo: Some("TST".to_owned()),
            destination,
            ..request(self.bucket(), seconds)
        }
    }

    pub fn simple(&self, seconds: f64, packets: u64) -> Request {
        let request = self.full(seconds, Some(packets));
        Request { kind: Kind::Simple, colo: None, destination: None, ..request }
    }

    /// Waits for a capture's end, as one of the nodes sees it.
    pub async fn end(&self, at: usize, id: &CaptureId) -> Job {
        self.until(at, id, |job| job.status.ended()).await
    }

    pub async fn until(&self, at: usize, id: &CaptureId, wanted: impl Fn(&Job) -> bool) -> Job {
        let deadline = Instant::now() + Duration::from_secs(150);
        let mut last = None;
        loop {
            // A node whose way to the bus is disturbed may not know for a moment.
            if let Ok(job) = self.front(at).get(account(), id.clone()).await {
                job.ledger.check().unwrap();
                let goes_back = |before: &Job| before.status as u8 > job.status as u8;
                assert!(self.is_disturbed || !last.as_ref().is_some_and(goes_back), "{last:?} {job:?}");
                if wanted(&job) {
                    return job;
                }
                last = Some(job);
            }
            assert!(Instant::now() < deadline, "capture is not as wanted: {last:?}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// The file of a simple capture, by one node.
    pub async fn download(&self, at: usize, job: &Job) -> PathBuf {
        use tokio::io::AsyncReadExt as _;
        let name = &job.objects[0].name;
        let (mut file, bytes) = self.api(at).results.open(name).await.unwrap();
        let mut whole = Vec::new();
        file.read_to_end(&mut whole).await.unwrap();
        assert_eq!((whole.len() as u64, bytes), (job.objects[0].bytes, job.objects[0].bytes));
        let path = self.dir.path().join(name);
        std::fs::write(&path, whole).unwrap();
        path
    }

    pub async fn stop(self) {
        for api in self.apis.into_iter().flatten() {
            api.stop.send_replace(true);
            api.leads.await.unwrap();
        }
        for host in self.hosts.into_iter().flatten() {
            host.down().await.stop().await;
        }
    }
}

impl Capturer {
    /// Ends the agent; the engine goes on.
    pub async fn down(self) -> Rig {
        self.stop.send_replace(true);
        self.agent.await.unwrap();
        self.rig
    }
}

pub fn account() -> AccountId {
    AccountId("a".to_owned())
}

/// Packets of files by host, each frame at most once, never back in time within a file.
pub fn packets(files: &[PathBuf]) -> BTreeMap<&'static str, Vec<(u64, u64)>> {
    let mut found: BTreeMap<&'static str, Vec<(u64, u64)>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for file in files {
        let mut reader = Reader::open(file).unwrap();
        let mut last = 0;
        while let Some(record) = reader.next_record().unwrap() {
            assert!(record.ns >= last, "time goes back in {}", file.display());
            last = record.ns;
            let number = u64::from_be_bytes(record.data[42..50].try_into().unwrap());
            let of = |host: &&(&str, &'static str, usize)| host.2 == record.wire_len as usize;
            let host = HOSTS.iter().find(of).unwrap().1;
            assert!(seen.insert((host, number)), "frame {number} of {host} is there twice");
            found.entry(host).or_default().push((record.ns, number));
        }
    }
    found
}

/// The packet files of a full capture.
pub fn files(bucket: &Path, id: &CaptureId) -> Vec<PathBuf> {
    let names = std::fs::read_dir(bucket).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(&format!("pcap_{id}")) && name.ends_with(".pcap")
    };
    names.filter(is_one).collect()
}
