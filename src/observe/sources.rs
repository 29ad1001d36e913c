//! Where health and metrics come from. Owns the reading of everything at one time; not the counters themselves, nor how
//! they are shown.
//!
//! Invariant: a reading waits a bounded time for others, and nothing of the data plane waits for it: its counters are read
//! under their sequence lock, whose writer never waits.

use super::lines;
use super::open_files::OpenFiles;
use super::reloads::Reloads;
use super::requests::{Kind, Requests};
use super::watchdog::Verdicts;
use crate::audit::{Audit, AuditCounts};
use crate::block::{Heartbeat, HeartbeatReading};
use crate::engine::{Handle, Overview};
use crate::http::connections_cut;
use crate::job::AccountId;
use crate::spool::{Disk, Spool};
use crate::stamp::{StampCounts, stamp_counts};
use crate::store::JobStore;
use crate::upload::{UploadCounts, upload_counts};
use crate::worker::{QueueCounters, QueueTotals};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;

/// How long the engine may take for an answer. Its turn is 5 ms; a write of the job store comes on top.
const ENGINE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long the job store may take for a write.
const TRY_TIME_MAX: Duration = Duration::from_secs(5);
/// A write of the job store is tried so often at most, however often somebody asks.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// What one port says.
#[derive(Clone, Debug)]
pub struct PortReading {
    /// Its device, without arguments.
    pub port: String,
    /// Whether the host does not start without it.
    pub is_required: bool,
    /// Whether its device is there.
    pub is_there: bool,
    /// Its counters; none when they cannot be read.
    pub counters: Option<PortCounters>,
    /// Whether its driver counts what it loses.
    pub counts_losses: bool,
    /// Whether its link is up.
    pub link_up: bool,
    /// Speed of the link in Mbit/s, if known.
    pub link_mbps: Option<u32>,
    /// Times that its link went up or down.
    pub link_changes: u64,
    /// How long its link has been up without a frame.
    pub quiet_seconds: u64,
    /// Times that its device was gone or reset.
    pub gaps: u64,
    /// How long that was, all of it.
    pub gap_seconds: u64,
    /// All that its driver counts, by the driver's names; at most [`crate::limits::PORT_XSTATS_MAX`].
    pub xstats: Arc<Vec<(String, u64)>>,
}

/// What a port counted since it was started.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortCounters {
    /// Frames delivered.
    pub rx: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Frames lost because a queue was full.
    pub imissed: u64,
    /// Frames that were damaged or too long.
    pub ierrors: u64,
    /// Times that no buffer was free.
    pub rx_nombuf: u64,
    /// Frames lost by other counters of the driver.
    pub discarded: u64,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct QueueSource {
    /// Its port's device, without arguments.
    pub port: String,
    /// What its worker counts.
    pub counters: Arc<QueueCounters>,
}

/// What a host captures with.
pub struct CaptureSource {
    /// The engine.
    pub engine: Handle,
    /// The spool.
    pub spool: Arc<Spool>,
    /// The job store.
    pub jobs: Arc<dyn JobStore>,
}

/// The way to what nodes of a fleet share.
pub struct BusSource {
    /// Whether it is there, and why not.
    pub health: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Whether the node is of no use without it: it serves the API.
    pub is_needed: bool,
}

/// Everything that is looked at.
pub struct Sources {
    /// What every port said last.
    pub ports: Box<dyn Fn() -> Vec<PortReading> + Send + Sync>,
    /// Every queue, in the order of their numbers.
    pub queues: Vec<QueueSource>,
    /// The worker of each of them.
    pub queue_workers: Vec<usize>,
    /// Who did what, if that is kept.
    pub audit: Option<Audit>,
    /// Every stage, in the order of `verdicts`.
    pub stages: Vec<Arc<Heartbeat>>,
    /// What the watchdog thinks of them.
    pub verdicts: Arc<Verdicts>,
    /// What captures here; none of a node that only serves the API.
    pub capture: Option<CaptureSource>,
    /// Whether a fleet's node reaches what its fleet shares.
    pub bus: Option<BusSource>,
    /// What the API answered.
    pub requests: Arc<Requests>,
    /// Authentications that failed, by how they were answered.
    pub authentication_failures: fn() -> [(&'static str, u64); 2],
    /// Requests of each account that were refused because it had asked more than its rate.
    pub refused_requests: Box<dyn Fn() -> Vec<(AccountId, u64)> + Send + Sync>,
    /// When the process started.
    pub started: SystemTime,
    /// DPDK's name and version.
    pub dpdk: String,
    /// Connections that the API takes.
    pub connections_max: usize,
    /// Share of the spool's quota at which the alarm is raised.
    pub high_water_percent: u64,
    /// What became of reloads of the config.
    pub reloads: Arc<Reloads>,
    /// Set once the host is ending.
    pub ending: Arc<AtomicBool>,
}

/// A stage, read.
#[derive(Clone, Debug)]
pub(super) struct StageView {
    pub name: String,
    pub blocks: u64,
    pub reading: HeartbeatReading,
    pub stalled: Option<String>,
}

/// A directory of the spool, read.
#[derive(Clone, Debug)]
pub(super) struct DiskView {
    pub dir: String,
    pub used: u64,
    pub held: u64,
    pub max: u64,
    /// What its file system has left; none if it does not answer.
    pub free: Option<u64>,
    pub failures: u64,
}

impl DiskView {
    fn of(disk: &Disk) -> Self {
        Self {
            dir: disk.dir().display().to_string(),
            used: disk.quota().used(),
            held: disk.held_bytes(),
            max: disk.quota().bytes_max(),
            free: disk.free_bytes().ok(),
            failures: disk.failures(),
        }
    }
}

/// Everything, read at about one time.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub started: SystemTime,
    pub ports: Vec<PortReading>,
    pub queues: Vec<(String, QueueTotals)>,
    pub queue_workers: Vec<usize>,
    pub stages: Vec<StageView>,
    pub spool_used: u64,
    pub spool_held: u64,
    pub spool_max: u64,
    pub disks: Vec<DiskView>,
    pub account_max: u64,
    pub uploads: UploadCounts,
    pub log_lines_dropped: u64,
    pub reloads: [(&'static str, u64); 2],
    pub stamps: StampCounts,
    /// None: there is no audit log.
    pub audit: Option<AuditCounts>,
    pub requests: Vec<(Kind, u64)>,
    pub authentication_failures: Vec<(&'static str, u64)>,
    pub refused_requests: Vec<(AccountId, u64)>,
    pub connections_cut: Vec<(&'static str, u64)>,
    pub open_files: OpenFiles,
    /// None: the engine did not answer in time, has ended, or there is none.
    pub engine: Option<Overview>,
    /// Whether there is an engine.
    pub captures: bool,
    /// Whether the fleet's bus is reached, of a node that has one.
    pub bus_up: Option<bool>,
}

/// The last tries of what only a write tells.
#[derive(Debug, Default)]
pub(super) struct Tried {
    store: Last,
    spool: Last,
}

/// When it was last tried, and what came of it.
type Last = Mutex<Option<(Instant, Result<(), String>)>>;

/// Asks the engine.
async fn overview(captures: &Handle) -> Result<Overview, String> {
    match tokio::time::timeout(ENGINE_TIME_MAX, captures.overview()).await {
        Ok(answer) => answer.map_err(|refusal| refusal.to_string()),
        Err(_) => Err(format!("the engine gave no answer in {} s", ENGINE_TIME_MAX.as_secs())),
    }
}

impl Sources {
    pub(super) fn stages(&self) -> Vec<StageView> {
        let view = |(stage, stalled): (&Arc<Heartbeat>, Option<String>)| StageView {
            name: stage.name().to_owned(),
            blocks: stage.blocks(),
            reading: stage.read(),
            stalled,
        };
        self.stages.iter().zip(self.verdicts.read()).map(view).collect()
    }

    /// What the engine says; none without one.
    pub(super) async fn overview(&self) -> Option<Result<Overview, String>> {
        match &self.capture {
            Some(capture) => Some(overview(&capture.engine).await),
            None => None,
        }
    }

    /// The spool's directories.
    pub(super) fn disks(&self) -> &[Arc<Disk>] {
        self.capture.as_ref().map_or(&[], |capture| capture.spool.disks())
    }

    pub(super) async fn read(&self) -> Snapshot {
        // The engine first: what it knows of a capture was counted by queues before.
        let engine = self.overview().await.and_then(Result::ok);
        let of_spool =
            |get: fn(&Spool) -> u64| self.capture.as_ref().map_or(0, |capture| get(&capture.spool));
        Snapshot {
            started: self.started,
            ports: (self.ports)(),
            queues: self.queues.iter().map(|queue| (queue.port.clone(), queue.counters.totals())).collect(),
            queue_workers: self.queue_workers.clone(),
            stages: self.stages(),
            spool_used: of_spool(Spool::used_bytes),
            spool_held: of_spool(Spool::held_bytes),
            spool_max: of_spool(Spool::bytes_max),
            disks: self.disks().iter().map(|disk| DiskView::of(disk)).collect(),
            account_max: self.disks().iter().map(|disk| disk.quota().share_bytes_max()).sum(),
            uploads: upload_counts(),
            log_lines_dropped: lines::dropped(),
            reloads: self.reloads.counts(),
            stamps: stamp_counts(),
            audit: self.audit.as_ref().map(Audit::counts),
            requests: self.requests.read(),
            authentication_failures: (self.authentication_failures)().into(),
            refused_requests: (self.refused_requests)(),
            connections_cut: connections_cut().into(),
            open_files: OpenFiles::read().await,
            engine,
            captures: self.capture.is_some(),
            bus_up: self.bus.as_ref().map(|bus| (bus.health)().is_ok()),
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

/// Whether the job store takes a write.
pub(super) async fn try_store(jobs: &Arc<dyn JobStore>, tried: &Tried) -> Result<(), String> {
    let jobs = Arc::clone(jobs);
    let probe = move || jobs.probe().map_err(|error| error.to_string());
    try_once(&tried.store, "the job store", probe).await
}

/// Whether every directory of the spool is in its place and takes a write.
pub(super) async fn try_spool(spool: &Arc<Spool>, tried: &Tried) -> Result<(), String> {
    let spool = Arc::clone(spool);
    let probe = move || {
        spool.disks().iter().try_for_each(|disk| {
            disk.probe()
                .map_err(|error| format!("{} of the spool takes no write: {error}", disk.dir().display()))
        })
    };
    try_once(&tried.spool, "the spool", probe).await
}

/// Tries what may wait for a disk, at most once in [`TRY_INTERVAL`].
async fn try_once(
    last: &Last,
    what: &str,
    probe: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    // The lock is held during the try: requests that come meanwhile get the same answer.
    let mut last = last.lock().await;
    if let Some((when, result)) = &*last
        && when.elapsed() < TRY_INTERVAL
    {
        return result.clone();
    }
    let result = match tokio::time::timeout(TRY_TIME_MAX, tokio::task::spawn_blocking(probe)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(format!("{what} died: {error}")),
        Err(_) => Err(format!("{what} took no write in {} s", TRY_TIME_MAX.as_secs())),
    };
    *last = Some((Instant::now(), result.clone()));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{AccountId, CaptureId, Job, ObjectInfo};
    use crate::store::{Changes, StoreError, Stored};
    use std::sync::atomic::AtomicUsize;

    /// Refuses the first write.
    #[derive(Default)]
    struct Weak(AtomicUsize);

    impl JobStore for Weak {
        fn probe(&self) -> Result<(), StoreError> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Err(StoreError::BucketsFull(7)),
                _ => Ok(()),
            }
        }

        fn create(&self, _: &Job) -> Result<Stored, StoreError> {
            unreachable!("a probe writes no job")
        }

        fn get(&self, _: &AccountId, _: &CaptureId) -> Result<Option<Stored>, StoreError> {
            unreachable!("a probe reads no job")
        }

        fn append_objects(&self, _: &CaptureId, _: u64, _: &[ObjectInfo]) -> Result<(), StoreError> {
            unreachable!("a probe writes no objects")
        }

        fn list(&self, _: &AccountId, _: usize) -> Result<Vec<Stored>, StoreError> {
            unreachable!("a probe reads no job")
        }

        fn unfinished(&self) -> Result<Vec<Stored>, StoreError> {
            unreachable!("a probe reads no job")
        }

        fn compare_and_set(&self, _: u64, _: &Job) -> Result<Stored, StoreError> {
            unreachable!("a probe writes no job")
        }

        fn watch(&self) -> Changes {
            unreachable!("a probe watches no job")
        }
    }

    #[tokio::test]
    async fn a_store_that_refuses_is_said_and_is_not_tried_more_than_once_a_second() {
        let store = Arc::new(Weak::default());
        let (jobs, tried): (Arc<dyn JobStore>, _) = (store.clone(), Tried::default());
        for _ in 0..5 {
            let refused = try_store(&jobs, &tried).await.unwrap_err();
            assert!(refused.contains("7 buckets"), "{refused}");
        }
        assert_eq!(store.0.load(Ordering::Relaxed), 1);
        tokio::time::sleep(TRY_INTERVAL).await;
        assert_eq!(try_store(&jobs, &tried).await, Ok(()));
    }

    #[tokio::test]
    async fn a_directory_of_the_spool_that_is_away_is_told_and_tried_no_more_than_once_a_second() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("spool");
        let (spool, tried) = (Arc::new(Spool::in_dir(&dir)), Tried::default());
        assert_eq!(try_spool(&spool, &tried).await, Ok(()));
        std::fs::rename(&dir, root.path().join("away")).unwrap();
        assert_eq!(try_spool(&spool, &tried).await, Ok(()), "as it was just now");
        tokio::time::sleep(TRY_INTERVAL).await;
        let refused = try_spool(&spool, &tried).await.unwrap_err();
        assert!(refused.contains("spool of the spool takes no write"), "{refused}");
        std::fs::create_dir(&dir).unwrap();
        tokio::time::sleep(TRY_INTERVAL).await;
        let refused = try_spool(&spool, &tried).await.unwrap_err();
        assert!(refused.contains("was unmounted"), "{refused}");
    }
}
