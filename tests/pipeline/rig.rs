//! A capture host in a temporary directory whose queues are fed by [`Traffic`] instead of ports.

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use trawl::block::{BlockShare, Hugepages};
use trawl::deliver::{Manifest, Pace, Places, manifest_name};
use trawl::engine::{AccountBounds, Engine, Handle, Planes, Settings};
use trawl::history::{History, HistoryConfig};
use trawl::host::{DataPlane, DataPlaneConfig, OnWorker};
use trawl::job::Destination;
use trawl::job::{AccountId, CaptureId, ColoStyle, Job, Kind, Ledger, PortDrops, Request, Site};
use trawl::job::{ObjectInfo, ObjectRange};
use trawl::limits::BURST;
use trawl::matcher::{FilterV1, PrefixSet};
use trawl::ownership::BucketKeys;
use trawl::packet::{Burst, Source};
use trawl::pcap::Reader;
use trawl::spool::{Spool, SpoolConfig, WriteMode, judge, name_spool, spool_id};
use trawl::store::{Changes, Embedded, JobStore, StoreError, Stored};
use trawl::upload::{S3Config, Stores, StoresConfig};
use trawl::worker::{Sample, Timers, WhenIdle};

#[path = "../common/burst.rs"]
mod burst;
pub use burst::Frames;

/// One queue's made-up frames: 192.0.2.1 to 198.51.100.2, UDP, with a running number in the payload.
pub struct Traffic {
    bytes: usize,
    left: u64,
    per_second: Option<u64>,
    started: Instant,
    sent: u64,
    frames: Vec<Vec<u8>>,
    /// Whether frames carry their running number; those that a test made stay as they are, and are sent in turn.
    numbered: bool,
    /// How many bursts began with a marked frame; none if frames are not marked.
    marked: Option<u64>,
    last_burst: usize,
}

/// Where [`Traffic::marking`]'s frames go to.
pub const MARKED: &str = "203.0.113.9";

impl Traffic {
    fn new(bytes: usize, left: u64, per_second: Option<u64>) -> Self {
        let frames = (0..BURST).map(|_| frame(bytes)).collect();
        let started = Instant::now();
        Self {
            bytes,
            left,
            per_second,
            started,
            sent: 0,
            frames,
            numbered: true,
            marked: None,
            last_burst: 0,
        }
    }

    /// These frames in turn, so many a second.
    pub fn of(frames: &[Vec<u8>], per_second: u64) -> Self {
        let frames =
            frames.iter().cycle().take(frames.len() * BURST.div_ceil(frames.len())).cloned().collect();
        Self { frames, numbered: false, ..Self::paced(60, per_second) }
    }

    /// As fast as they are polled.
    pub fn endless(bytes: usize) -> Self {
        Self::new(bytes, u64::MAX, None)
    }

    /// So many, a second from now, then none.
    pub fn finite(bytes: usize, frames: u64) -> Self {
        // The host itself starts in this time too.
        let started = Instant::now() + Duration::from_millis(750);
        Self { started, ..Self::new(bytes, frames, Some(200_000)) }
    }

    /// The first frame of every burst goes to [`MARKED`], is short, and carries the number of the burst.
    pub fn marking(mut self) -> Self {
        self.frames[0] = frame(61);
        self.frames[0][30..34].copy_from_slice(&[203, 0, 113, 9]);
        Self { marked: Some(0), ..self }
    }

    /// So many a second.
    pub fn paced(bytes: usize, per_second: u64) -> Self {
        Self::new(bytes, u64::MAX, Some(per_second))
    }
}

/// A frame to port 53.
pub fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; bytes.max(50)];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    let total = u16::try_from(frame.len() - 14).unwrap().to_be_bytes();
    frame[16..18].copy_from_slice(&total);
    frame[22..24].copy_from_slice(&[64, 17]);
    frame[26..34].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, 2]);
    frame[34..38].copy_from_slice(&[0x30, 0x39, 0x00, 0x35]);
    let udp = u16::try_from(frame.len() - 34).unwrap().to_be_bytes();
    frame[38..40].copy_from_slice(&udp);
    frame
}

impl Source for Traffic {
    type Burst<'a> = Frames<&'a [Vec<u8>]>;

    fn receive(&mut self) -> Frames<&[Vec<u8>]> {
        let due = match self.per_second {
            None => BURST as u64,
            Some(rate) => {
                // Sources start a quarter of a second late, so that a capture can be attached before the first frame.
                let elapsed = self.started.elapsed().saturating_sub(Duration::from_millis(250));
                (elapsed.as_nanos() as u64 * rate / 1_000_000_000).saturating_sub(self.sent)
            }
        };
        let count = due.min(self.left).min(BURST as u64) as usize;
        if !self.numbered {
            self.frames.rotate_left(std::mem::replace(&mut self.last_burst, count));
        }
        for frame in &mut self.frames[..count] {
            self.sent += 1;
            self.left -= 1;
            if self.numbered {
                frame[42..50].copy_from_slice(&self.sent.to_be_bytes());
            }
        }
        if let Some(bursts) = self.marked.as_mut().filter(|_| count > 0) {
            *bursts += 1;
            self.frames[0][42..50].copy_from_slice(&bursts.to_be_bytes());
        }
        debug_assert!(self.bytes > 0);
        Frames(&self.frames[..count])
    }
}

/// What stands in a capture's files.
#[derive(Debug, Default)]
pub struct Found {
    pub packets: u64,
    pub frame_bytes: u64,
    /// Frames whose running number is one above that of the last frame of the same length.
    pub in_sequence: u64,
    /// Running numbers that are not there between the first and the last of each length; without a meaning where two queues
    /// have frames of one length.
    pub missing: u64,
}

pub struct Rig {
    dir: TempDir,
    handle: Handle,
    plane: DataPlane,
    engine: JoinHandle<()>,
    history: Option<Arc<History>>,
    jobs: Arc<Jobs>,
}

/// A job store on a disk that is full at times.
pub struct Jobs {
    store: Arc<Embedded>,
    is_full: AtomicBool,
}

impl Jobs {
    /// Takes no write from now on, or takes them again.
    pub fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    #[allow(dead_code)] // the sweep puts the API on it
    pub fn store(&self) -> Arc<Embedded> {
        Arc::clone(&self.store)
    }

    fn room(&self) -> Result<(), StoreError> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(StoreError::Database(Box::new(redb::Error::PreviousIo))),
            false => Ok(()),
        }
    }
}

impl JobStore for Jobs {
    fn create(&self, job: &Job) -> Result<Stored, StoreError> {
        self.room().and_then(|()| self.store.create(job))
    }

    fn get(&self, account: &AccountId, id: &CaptureId) -> Result<Option<Stored>, StoreError> {
        self.store.get(account, id)
    }

    fn list(&self, account: &AccountId, count_max: usize) -> Result<Vec<Stored>, StoreError> {
        JobStore::list(&*self.store, account, count_max)
    }

    fn objects(
        &self,
        account: &AccountId,
        id: &CaptureId,
        range: ObjectRange,
    ) -> Result<Vec<ObjectInfo>, StoreError> {
        self.store.objects(account, id, range)
    }

    fn append_objects(&self, id: &CaptureId, first: u64, objects: &[ObjectInfo]) -> Result<(), StoreError> {
        self.room().and_then(|()| self.store.append_objects(id, first, objects))
    }

    fn unfinished(&self) -> Result<Vec<Stored>, StoreError> {
        self.store.unfinished()
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.room().and_then(|()| self.store.probe())
    }

    fn compare_and_set(&self, expected: u64, job: &Job) -> Result<Stored, StoreError> {
        self.room().and_then(|()| self.store.compare_and_set(expected, job))
    }

    fn watch(&self) -> Changes {
        self.store.watch()
    }
}

/// What differs between hosts.
#[derive(Clone, Copy)]
pub struct Options {
    pub write: WriteMode,
    pub bytes_max: u64,
    pub segment_bytes: u64,
    /// Directories of the spool: `spool`, `spool1` and so on, each with a writer.
    pub dirs: usize,
    pub history: Option<HistoryConfig>,
    pub simple_sample: Option<Sample>,
    pub upload_retention: Duration,
    pub simple_interval: Duration,
    pub full_per_account: usize,
    pub captures_max: usize,
    pub timers: Timers,
    pub upload_pause_max: Duration,
    /// Its name, if it is one of a fleet.
    pub fleet_host: Option<&'static str>,
    pub colo: &'static str,
    pub when_idle: WhenIdle,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            write: WriteMode::Auto,
            bytes_max: 8 << 30,
            segment_bytes: 4 << 20,
            dirs: 1,
            history: None,
            simple_sample: None,
            upload_retention: Duration::from_secs(3600),
            simple_interval: Duration::ZERO,
            full_per_account: 1,
            captures_max: 64,
            timers: Timers { flush: Duration::from_millis(50), rotate: Duration::from_secs(1) },
            upload_pause_max: Duration::from_secs(20),
            fleet_host: None,
            colo: "tst01",
            when_idle: WhenIdle::Spin,
        }
    }
}

impl Options {
    fn spool(&self, dir: &Path) -> SpoolConfig {
        SpoolConfig {
            dir: dir.to_owned(),
            more_dirs: (1..self.dirs).map(|n| dir.with_file_name(format!("spool{n}"))).collect(),
            bytes_max: self.bytes_max,
            share_bytes_max: u64::MAX,
            part_bytes: u64::MAX,
            segment_bytes: self.segment_bytes,
            write: self.write,
            fsync_interval: Duration::from_millis(200),
            pool_bytes: 8 << 20,
        }
    }
}

/// The threads and tasks of a host whose files lie below one directory.
pub struct Host {
    pub handle: Handle,
    pub plane: DataPlane,
    pub engine: JoinHandle<()>,
    pub history: Option<Arc<History>>,
    #[allow(dead_code)] // the sweep reads its quota
    pub spool: Arc<Spool>,
    pub jobs: Arc<Jobs>,
}

impl Host {
    /// Starts a host as `serve` does, in the same order.
    pub fn open<S: Source + 'static>(
        dir: &Path,
        options: Options,
        sources: Vec<S>,
        on_worker: &OnWorker,
        scopes: HashMap<AccountId, Arc<PrefixSet>>,
    ) -> anyhow::Result<Self> {
        let (store, spool_dir) = (Arc::new(Embedded::open(&dir.join("jobs"))?), dir.join("spool"));
        let spool = spool(&store, &spool_dir, &options)?;
        let history = options.history.map(|config| History::open(config, Arc::clone(&spool)));
        let history = history.transpose()?.map(Arc::new);
        let config = DataPlaneConfig {
            worker_cores: vec![1],
            worker_nodes: Vec::new(),
            queue_workers: Vec::new(),
            writer_cores: vec![0; options.dirs],
            blocks: 64,
            accounts: 0,
            hugepages: Hugepages::Never,
            timers: options.timers,
            when_idle: options.when_idle,
            bypasses_lanes: false,
        };
        let (plane, workers) = DataPlane::start(&config, sources, &spool, on_worker)?;
        let jobs = Arc::new(Jobs { store: Arc::clone(&store), is_full: AtomicBool::new(false) });
        let engine = Engine::new(Planes {
            site: options.fleet_host.and_then(|host| Site::new(options.colo, host)),
            workers,
            queues: plane.queues.clone(),
            clock: Arc::clone(&plane.clock),
            ports: Box::new(PortDrops::default),
            spool: Arc::clone(&spool),
            stores: Arc::new(stores()?),
            keys: BucketKeys::new(store, None),
            contact_time_max: Duration::from_secs(10),
            jobs: jobs.clone(),
            simple_dir: dir.join("simple"),
            host: options.fleet_host.unwrap_or("rig").to_owned(),
            colo: options.colo.to_owned(),
            settings: Settings {
                accounts: options.fleet_host.map(|_| AccountId("a".to_owned())).into_iter().collect(),
                scopes,
                account: AccountBounds::of(options.bytes_max, 100, 1),
                full_per_account: options.full_per_account,
                simple_interval: options.simple_interval,
                look_back_interval: Duration::ZERO,
                simple_sample: options.simple_sample,
                object_format: Default::default(),
                upload_retention: options.upload_retention,
                upload_pause_max: options.upload_pause_max,
                authority: None,
                signing_key: None,
            },
            captures_max: options.captures_max,
            admits: BlockShare::dealt(64, plane.queues.len(), 1).captures_max()
                - usize::from(history.is_some()),
            high_water_percent: 80,
            origin: Default::default(),
            places: Arc::new(Places::new(16, 16, Duration::from_secs(90))),
            ending_max: Duration::from_secs(600),
            objects_in_flight: 4,
            delivery_cores: Arc::new([]),
            pace: Arc::new(Pace::unhindered()),
            simple_written: Arc::default(),
            history: history.clone(),
        })?;
        let (handle, actions) = Handle::channel(16);
        let engine = tokio::spawn(engine.run(actions));
        Ok(Self { handle, plane, engine, history, spool, jobs })
    }
}

pub fn new_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Nothing to do on a worker.
pub fn nothing() -> OnWorker {
    Arc::new(|| Box::new(()) as Box<dyn Any>)
}

/// Times and lengths on the wire of a file's packets.
pub fn records(path: &Path) -> Vec<(u64, u32)> {
    let mut reader = Reader::open(path).unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        found.push((record.ns, record.wire_len));
    }
    found
}

pub fn request(dir: PathBuf, seconds: f64) -> Request {
    Request {
        account: AccountId("a".to_owned()),
        kind: Kind::Full,
        filter: FilterV1::default(),
        time_limit: seconds,
        packet_limit: None,
        byte_limit: None,
        colo: Some("tst01".to_owned()),
        colo_style: ColoStyle::ColoName,
        destination: Some(Destination::File { dir }),
        offset_time: None,
        format: None,
        compression: None,
    }
}

impl Rig {
    pub fn start(write: WriteMode, traffic: Vec<Traffic>) -> Self {
        Self::with_quota(write, traffic, 8 << 30)
    }

    pub fn with_quota(write: WriteMode, traffic: Vec<Traffic>, bytes_max: u64) -> Self {
        Self::with(Options { write, bytes_max, ..Options::default() }, traffic)
    }

    pub fn with(options: Options, traffic: Vec<Traffic>) -> Self {
        Self::build(new_dir(), options, traffic, &nothing(), HashMap::new())
    }

    pub fn counted(write: WriteMode, traffic: Vec<Traffic>, on_worker: &OnWorker) -> Self {
        Self::build(new_dir(), Options { write, ..Options::default() }, traffic, on_worker, HashMap::new())
    }

    /// A host whose accounts see their own prefixes only.
    pub fn scoped(traffic: Vec<Traffic>, scopes: HashMap<AccountId, Arc<PrefixSet>>) -> Self {
        Self::build(new_dir(), Options::default(), traffic, &nothing(), scopes)
    }

    /// The same with other options.
    pub fn scoped_with(
        options: Options,
        traffic: Vec<Traffic>,
        scopes: HashMap<AccountId, Arc<PrefixSet>>,
    ) -> Self {
        Self::build(new_dir(), options, traffic, &nothing(), scopes)
    }

    fn build(
        dir: TempDir,
        options: Options,
        traffic: Vec<Traffic>,
        on_worker: &OnWorker,
        scopes: HashMap<AccountId, Arc<PrefixSet>>,
    ) -> Self {
        let host = Host::open(dir.path(), options, traffic, on_worker, scopes).unwrap();
        let Host { handle, plane, engine, history, jobs, .. } = host;
        Self { dir, handle, plane, engine, history, jobs }
    }

    pub fn history(&self) -> &Arc<History> {
        self.history.as_ref().unwrap()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn simple_dir(&self) -> PathBuf {
        self.dir.path().join("simple")
    }

    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Starts a host in a directory that another one left.
    pub fn up(dir: TempDir, options: Options, traffic: Vec<Traffic>) -> Self {
        Self::build(dir, options, traffic, &nothing(), HashMap::new())
    }

    /// Ends the host; what is left of it.
    pub async fn down(self) -> TempDir {
        let Self { dir, handle, plane, engine, .. } = self;
        handle.shutdown().await;
        engine.await.unwrap();
        plane.stop();
        dir
    }

    /// Goes away without a word, as everybody does who could ask for anything.
    pub async fn abandon(self) -> TempDir {
        let Self { dir, handle, plane, engine, .. } = self;
        drop(handle);
        engine.await.unwrap();
        plane.stop();
        dir
    }

    /// Ends the host and starts another one in the same directory.
    pub async fn restart(self, options: Options, traffic: Vec<Traffic>) -> Self {
        let Self { dir, handle, plane, engine, history, jobs } = self;
        drop(jobs);
        handle.shutdown().await;
        engine.await.unwrap();
        plane.stop();
        if let Some(history) = history {
            history.finish(Duration::from_secs(5)).unwrap();
        }
        Self::build(dir, options, traffic, &nothing(), HashMap::new())
    }

    pub fn spool(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    pub fn bucket(&self) -> PathBuf {
        self.dir.path().join("bucket")
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub async fn capture(&self, request: Request) -> Job {
        let job = self.handle.create(request).await.unwrap();
        self.wait(&job).await
    }

    /// Waits for a capture's end.
    pub async fn wait(&self, job: &Job) -> Job {
        self.until(job, |job| job.status.ended()).await
    }

    /// Waits until a capture is as wanted; on the way its ledger must balance every time that it is read.
    pub async fn until(&self, job: &Job, wanted: impl Fn(&Job) -> bool) -> Job {
        // For a hang: half a gigabyte is merged by an unoptimised build behind everything else.
        let deadline = Instant::now() + Duration::from_secs(150);
        loop {
            let now = self.handle.get(job.request.account.clone(), job.id.clone()).await.unwrap();
            now.ledger.check().unwrap();
            if wanted(&now) {
                return now;
            }
            assert!(Instant::now() < deadline && !now.status.ended(), "capture is not as wanted: {now:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops a capture once its counts are as wanted, and waits for its end.
    pub async fn stop_when(&self, job: &Job, wanted: impl Fn(&Ledger) -> bool) -> Job {
        self.until(job, |job| wanted(&job.ledger)).await;
        self.handle.stop(job.request.account.clone(), job.id.clone()).await.unwrap();
        self.wait(job).await
    }

    pub fn segments(&self, job: &Job) -> Vec<PathBuf> {
        let dir = self.dir.path().join("spool").join(job.id.as_str());
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        names.filter(|p| !p.file_name().unwrap().to_str().unwrap().starts_with('.')).collect()
    }

    /// Holds the files against the manifest and the manifest against the job; nothing may be left in the spool.
    pub fn verify(&self, job: &Job) -> Found {
        let found = verify(&self.bucket(), job);
        self.assert_freed(job);
        found
    }

    /// Waits until nothing of a capture is left in the spool.
    pub fn assert_freed(&self, job: &Job) {
        let left = self.dir.path().join("spool").join(job.id.as_str());
        let gone_by = Instant::now() + Duration::from_secs(5);
        while left.exists() && std::fs::read_dir(&left).unwrap().next().is_some() {
            assert!(Instant::now() < gone_by, "delivered segments are still in the spool");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub async fn stop(self) {
        self.handle.shutdown().await;
        self.engine.await.unwrap();
        self.plane.stop();
    }

    /// Ends the host as SIGTERM does; returns the job as the next process would find it.
    pub async fn shut_down_and_reopen(self, job: &Job) -> Job {
        let Self { dir, handle, plane, engine, jobs, .. } = self;
        drop(jobs);
        handle.shutdown().await;
        engine.await.unwrap();
        plane.stop();
        let jobs = Embedded::open(&dir.path().join("jobs")).unwrap();
        let stored = jobs.get(&job.request.account, &job.id).unwrap().unwrap();
        verify(&dir.path().join("bucket"), &stored.job);
        stored.job
    }
}

/// Holds the files of a folder against their manifest and that against the job.
pub fn verify(bucket: &Path, job: &Job) -> Found {
    job.ledger.check().unwrap();
    let manifest = Manifest::parse(&std::fs::read(bucket.join(manifest_name(&job.part()))).unwrap()).unwrap();
    assert_eq!((manifest.ledger, &manifest.objects), (job.ledger, &job.objects));
    let mut found = Found::default();
    let mut last_ns = 0;
    let mut numbers = HashMap::new();
    for object in &job.objects {
        let path = bucket.join(&object.name);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), object.bytes);
        let mut reader = Reader::open(&path).unwrap();
        let mut packets = 0;
        while let Some(record) = reader.next_record().unwrap() {
            assert!(record.ns >= last_ns, "time goes back in {}", object.name);
            last_ns = record.ns;
            packets += 1;
            found.frame_bytes += record.data.len() as u64;
            let number = u64::from_be_bytes(record.data[42..50].try_into().unwrap());
            let last = numbers.insert(record.wire_len, number).unwrap_or(number.wrapping_sub(1));
            found.in_sequence += u64::from(number == last.wrapping_add(1));
            let skipped = number.wrapping_sub(last).wrapping_sub(1);
            found.missing = found.missing.wrapping_add(skipped);
        }
        assert_eq!(packets, object.packets);
        found.packets += packets;
    }
    assert_eq!((found.packets, found.frame_bytes), (job.ledger.captured, job.ledger.captured_bytes));
    found
}

/// The spool, which the store knows from then on.
fn spool(store: &Embedded, dir: &Path, options: &Options) -> anyhow::Result<Arc<Spool>> {
    let known = store.spool()?;
    judge(dir, known.as_deref(), spool_id(dir)?.as_deref())?;
    let spool = Arc::new(Spool::open(options.spool(dir))?);
    let id = name_spool(dir)?;
    if known.as_ref() != Some(&id) {
        store.set_spool(&id)?;
    }
    Ok(spool)
}

/// Writes into any directory. A process of the sweep names its own by a link that the kernel makes.
fn stores() -> anyhow::Result<Stores> {
    let file_roots = vec!["/proc/self/cwd".into(), "/".into()];
    let s3 = S3Config { parts_extra: 64, ..S3Config::default() };
    Ok(Stores::new(StoresConfig { allow_file: true, file_roots, s3, ..StoresConfig::default() })?)
}
