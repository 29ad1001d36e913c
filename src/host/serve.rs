//! `trawl serve`: from a plan to a running host and back. Owns the order of start and end.
//!
//! Invariant: the first signal that ends the host ends captures, uploads what they have and exits with 0; the second exits at once. A
//! task that dies ends the process with an error.

use super::api_node;
use super::audit;
use super::backups;
use super::dataplane::{DataPlane, DataPlaneConfig, HostError, OnWorker};
use super::fleet::Fleet;
use super::front::{self, Behind};
use super::load;
use super::memory;
use super::observation::{Observation, Viewers};
use super::origin;
use super::port_counts::{Latest, Reader};
use super::ports::{self, PortsError};
use super::pruning;
use super::raise_open_files;
use super::reload::{Reached, Reloader};
use super::retention;
use super::runtime::with_workers;
use super::signals::{Heard, Signals};
use super::storage::Storage;
use super::tasks::Tasks;
use super::{privileges, sandbox};
use crate::api::{self, OwnResults};
use crate::audit::AuditError;
use crate::bus::nats::LinkError;
use crate::config::check::{Finding, Host, Severity, check_host, files_needed, lines};
use crate::config::{Account, Plan, Topology};
use crate::deliver::{KeyError, Pace, PaceRules, Places, SigningKey};
use crate::dpdk::Eal;
use crate::engine::{AccountBounds, Engine, Handle, Planes, Settings};
use crate::history::HistoryError;
use crate::http::{self, Door, Tls, TlsError};
use crate::job::AccountId;
use crate::matcher::PrefixSet;
use crate::node::AgentError;
use crate::observe;
use crate::ownership::{Ownership, VaultError};
use crate::spool::{Spool, SpoolError, SpoolLock};
use crate::stamp::{Authority, StampError};
use crate::store::StoreError;
use crate::upload::UploadError;
use crate::worker::{Dealt, WorkerHandle};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};

/// Actions that may wait for the engine.
const ACTIONS_WAITING: usize = 256;
/// How long an orderly end waits for threads that read a disk.
const READS_TIME_MAX: Duration = Duration::from_secs(2);
/// How long the end may take once a task has died, and tasks beyond the requests that are at work.
pub(super) const LAST_TIME_MAX: Duration = Duration::from_secs(10);
/// What a shell reports for a process that SIGTERM ended.
const EXIT_AT_ONCE: i32 = 143;

/// Why the host could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// DPDK.
    #[error(transparent)]
    Ports(#[from] PortsError),
    /// Threads or memory.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The job store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object stores.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The key that signs manifests.
    #[error("manifest.signing_key_file: {0}")]
    SigningKey(#[from] KeyError),
    /// The key by which a node starts captures of its fleet.
    #[error("fleet.signing_key_file: {0}")]
    FleetKey(KeyError),
    /// The way to the fleet's bus.
    #[error(transparent)]
    Bus(#[from] LinkError),
    /// The host's parts of the fleet's captures.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The time-stamping authority.
    #[error(transparent)]
    Stamp(#[from] StampError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The key that encrypts what is secret in the database.
    #[error("store.key_file: {0}; {advice}", advice = .0.advice())]
    KeyFile(#[from] VaultError),
    /// The API's address, or that of health and metrics.
    #[error("cannot listen on {key} {listen}: {source}; choose another address or end what uses it")]
    Listen {
        /// The key.
        key: &'static str,
        /// As configured.
        listen: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// TLS of the API.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The log.
    #[error(transparent)]
    Log(#[from] observe::Error),
    /// What `trawl check` finds too.
    #[error("this host is not ready:\n{}", lines(.0))]
    NotReady(Vec<Finding>),
    /// A task without which the host is of no use.
    #[error(
        "the task {task} died: {how}. This is a bug: keep the log and restart trawl; what is in the spool is kept"
    )]
    Died {
        /// Its name.
        task: &'static str,
        /// What it ended of.
        how: String,
    },
    /// Cores, signals, the runtime.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Runs a host, or a node of a fleet, until a signal ends it. `heard`: what the process heard before. `path`: where `plan` is from,
/// and is read again. `new_spool`: takes the spool also if the job store knows another one.
///
/// # Errors
/// When it could not start; then nothing was captured.
pub fn serve(heard: Heard, plan: Plan, path: PathBuf, new_spool: bool) -> Result<(), ServeError> {
    let refused = privileges::at_start();
    observe::init(&plan.log, &plan.cores.writers)?;
    refused.log();
    tracing::info!(open_files = raise_open_files(), open_files_needed = files_needed(&plan), "limits");
    if !plan.captures() {
        judge(&plan)?;
        let runtime = runtime(&plan)?;
        let doors = Doors::open(&plan, &runtime)?;
        return api_node::serve(heard, (&plan, path), runtime, doors);
    }
    // A process that was killed a moment ago holds its addresses and the job store too until it is gone.
    plan.spool.dirs().try_for_each(SpoolLock::wait_until_free).map_err(SpoolError::from)?;
    judge(&plan)?;
    let mut storage = Storage::open(&plan, new_spool)?;
    let ports = ports::start(&plan.eal, &plan.ports)?;
    privileges::after_eal();
    stay_off_worker_cores(&plan.cores.writers)?;
    storage.audit = audit::start(&plan, storage.signing_key.clone(), Some(&storage.jobs))?;
    let runtime = runtime(&plan)?;
    // Before the first packet is polled: an address in use is the likeliest reason not to start.
    let mut doors = Doors::open(&plan, &runtime)?;
    let dpdk = ports.eal.version();
    let on_worker = on_worker(ports.eal.clone());
    let (plane, workers) =
        DataPlane::start(&data_plane(&plan, plan.dealt()), ports.queues, &storage.spool, &on_worker)?;
    log_plane(&plane, &storage.spool);
    memory::settle(&plan, &plane, &storage.spool);
    let counts = Reader::start(ports.places, &plane.queues)
        .map_err(|source| ServeError::System { doing: "start the thread that reads the ports", source })?;
    let engine = Engine::new(planes(&plan, &storage, &plane, workers, counts.latest()))?;
    let observed = doors.observed.take();
    let observation =
        Observation::start(&plan, observed, counts.latest(), &plane, engine.heartbeat(), &storage, dpdk)
            .map_err(|source| ServeError::System { doing: "start the watchdog", source })?;
    // All threads that begin at the start are there; later ones inherit it.
    sandbox::enter();
    let result = runtime.block_on(run(heard, (&plan, path), engine, doors, &storage, observation));
    let mut left = Some(runtime);
    if let Err(error) = &result {
        tracing::error!(%error, "the host ends");
        // What the dead task waited for, or others wait for of it, may never come.
        left.take().into_iter().for_each(Runtime::shutdown_background);
        end_in(LAST_TIME_MAX);
    }
    plane.stop();
    ports::log_counters(&counts.finish());
    storage.take_in();
    audit::ended(storage.audit.as_ref(), result.as_ref().err().map(ToString::to_string).as_deref());
    if let Some(runtime) = left {
        // Everything is written. A thread that still reads for somebody who is gone keeps nobody.
        runtime.shutdown_timeout(READS_TIME_MAX);
    }
    tracing::info!("ended");
    result
}

fn log_plane(plane: &DataPlane, spool: &Spool) {
    let arena = plane.arena;
    tracing::info!(
        queues = plane.queues.len(), blocks_bytes = arena.bytes, hugepages = arena.hugepages, locked = arena.locked,
        write = ?spool.config().write, spool_bytes_used = spool.used_bytes(), "data plane is up"
    );
    for disk in spool.disks().iter().filter(|_| spool.disks().len() > 1) {
        let (dir, write) = (disk.dir().display(), disk.config().write);
        tracing::info!(%dir, ?write, bytes_used = disk.quota().used(), "a directory of the spool");
    }
}

/// What the engine stands on.
fn planes(
    plan: &Plan,
    storage: &Storage,
    plane: &DataPlane,
    workers: Vec<WorkerHandle>,
    ports: Latest,
) -> Planes {
    Planes {
        workers,
        queues: plane.queues.clone(),
        clock: Arc::clone(&plane.clock),
        ports: Box::new(ports),
        simple_dir: storage.simple_dir(),
        spool: Arc::clone(&storage.spool),
        stores: Arc::clone(&storage.stores),
        keys: storage.keys.clone(),
        contact_time_max: storage.contact_time_max,
        jobs: storage.jobs.clone(),
        host: plan.host.id.clone(),
        colo: plan.host.colo.clone(),
        site: plan.site(),
        settings: settings(plan, (storage.signing_key.clone(), storage.authority.clone())),
        ending_max: plan.upload.ending_max,
        captures_max: plan.capture.captures_max,
        admits: plan.block_share().captures_max().saturating_sub(usize::from(storage.history.is_some())),
        high_water_percent: plan.high_water_percent,
        origin: origin::of_host(&plan.ports, plan.site().as_ref()),
        places: places(plan),
        objects_in_flight: plan.upload.objects_in_flight,
        delivery_cores: plan.cores.delivery.clone().into(),
        pace: pace(plan, storage, plane),
        simple_written: Arc::clone(&storage.simple_written),
        history: storage.history.clone(),
    }
}

/// What of a plan the engine takes up while it runs.
pub(super) fn settings(
    plan: &Plan,
    (signing_key, authority): (Option<Arc<SigningKey>>, Option<Arc<Authority>>),
) -> Settings {
    Settings {
        accounts: plan.accounts.iter().map(|account| account.id.clone()).collect(),
        scopes: scopes(&plan.accounts),
        account: account_bounds(plan),
        full_per_account: plan.capture.full_per_account,
        simple_interval: plan.capture.simple_interval,
        look_back_interval: plan.shares.look_back_interval,
        simple_sample: plan.capture.simple_sample,
        object_format: plan.capture.format,
        upload_retention: plan.upload.retention,
        upload_pause_max: plan.upload.retry_pause,
        signing_key,
        authority,
    }
}

/// What each account may take.
fn account_bounds(plan: &Plan) -> AccountBounds {
    let shares = &plan.shares;
    AccountBounds {
        waiting: shares.waiting_per_account,
        kept_bytes: plan.spool.share_bytes_max / 100 * shares.failed_percent,
        kept_time: shares.failed_time,
        share: plan.spool.share_bytes_max,
        ..AccountBounds::of(plan.spool.bytes_max, shares.account_percent, plan.accounts.len())
    }
}

fn pace(plan: &Plan, storage: &Storage, plane: &DataPlane) -> Arc<Pace> {
    let rules = PaceRules {
        wait_percent: plan.upload.wait_percent,
        high_water_percent: plan.high_water_percent,
        share_percent: plan.upload.share_percent,
    };
    Arc::new(Pace::new(rules, load::of(&plane.heartbeats, &storage.spool)))
}

fn places(plan: &Plan) -> Arc<Places> {
    let upload = &plan.upload;
    Arc::new(Places::new(upload.deliveries_max, upload.deliveries_per_account, upload.turn))
}

/// Holds the host to what `trawl check` holds it to; EAL and the ports speak for themselves when they are started.
fn judge(plan: &Plan) -> Result<(), ServeError> {
    let (errors, others): (Vec<_>, Vec<_>) =
        check_host(plan, &Host::real(), None).into_iter().partition(|one| one.severity == Severity::Error);
    for Finding { severity, subject, text, advice } in others {
        match severity {
            Severity::Notice => tracing::info!(advice, "{subject} {text}"),
            _ => tracing::warn!(advice, "{subject} {text}"),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ServeError::NotReady(errors)) }
}

/// Ends the process after that time, whatever it waits for then.
pub(super) fn end_in(time: Duration) {
    let end = move || {
        std::thread::sleep(time);
        tracing::error!("what was still to be written does not end; the process does");
        observe::flush();
        std::process::exit(1);
    };
    if std::thread::Builder::new().name("end".to_owned()).spawn(end).is_err() {
        std::process::exit(1);
    }
}

/// Where the node can be reached.
pub(super) struct Doors {
    /// None: it serves no API.
    pub api: Option<TcpListener>,
    /// Of health and metrics.
    pub observed: Option<TcpListener>,
    pub tls: Option<Arc<Tls>>,
}

impl Doors {
    fn open(plan: &Plan, runtime: &Runtime) -> Result<Self, ServeError> {
        let bind = |key, listen| {
            let bound = runtime.block_on(TcpListener::bind(listen));
            bound.map_err(|source| ServeError::Listen { key, listen, source })
        };
        let tls = plan.api.tls.as_ref().filter(|_| plan.serves());
        let tls = tls.map(|(cert, key)| Tls::load(cert, key).map(Arc::new)).transpose()?;
        let observed = plan.observe.listen.map(|listen| bind("observe.listen", listen)).transpose()?;
        let api = plan.serves().then(|| bind("api.listen", plan.api.listen)).transpose()?;
        Ok(Self { api, observed, tls })
    }
}

fn runtime(plan: &Plan) -> Result<Runtime, ServeError> {
    with_workers(plan.cores.writers.len().max(2), privileges::on_runtime_thread)
        .map_err(|source| ServeError::System { doing: "start the runtime", source })
}

fn on_worker(eal: Eal) -> OnWorker {
    Arc::new(move || match eal.register_thread() {
        Ok(registered) => Box::new(registered),
        Err(error) => {
            tracing::warn!(%error, "a worker has no lcore id and so no mbuf cache");
            Box::new(())
        }
    })
}

async fn run(
    heard: Heard,
    (plan, path): (&Plan, PathBuf),
    engine: Engine,
    doors: Doors,
    storage: &Storage,
    mut observation: Observation,
) -> Result<(), ServeError> {
    let Doors { api: listener, tls, .. } = doors;
    let hang_up = Arc::new(Notify::new());
    let mut signals = Signals::take(heard, Arc::clone(&hang_up))
        .map_err(|source| ServeError::System { doing: "take signals", source })?;
    let (handle, actions) = Handle::channel(ACTIONS_WAITING);
    let mut tasks = Tasks::default();
    tasks.spawn("engine", engine.run(actions));
    let fleet = join(plan, storage, &handle, &mut tasks).await?;
    let plans = watch::Sender::new(Arc::new(plan.clone()));
    let mut upkeep = upkeep(plan, storage, &plans, &mut tasks);
    let listen = listener.as_ref().and_then(|listener| listener.local_addr().ok()).unwrap_or(plan.api.listen);
    let ui = front::ui(plan, tls.is_some(), listen);
    let viewers = Viewers { live: Arc::clone(&ui.live), streams: Arc::clone(&ui.streams) };
    let live = Arc::clone(&ui.live);
    let shown = fleet.as_ref().and_then(|fleet| fleet.behind(storage.audit.clone()));
    let swept = shown.is_none().then(|| tokio::spawn(sweep(plan, storage.ownership())));
    let state = front::state(plan, shown.unwrap_or_else(|| behind(&handle, storage)), ui);
    if let Some(fleet) = &fleet {
        observation.reach(fleet.source());
    }
    let (reached, told) = (reached(&handle, storage, fleet.as_ref()), observation.of_reloads());
    let reloader = Reloader::new((path, plans), reached, &state, tls.clone(), told);
    let router = observation.counted(state.terms.clone(), api::router(state));
    let observation = observation.serve(Some(handle.clone()), viewers, &mut tasks);
    let end_api = listener.map(|listener| open_api(listener, front::door(plan, router, tls), &mut tasks));
    upkeep.push(tasks.spawn("reload", reloader.run(hang_up)));
    tracing::info!(%listen, host = plan.host.id, colo = plan.host.colo, serves = plan.serves(), "ready");
    let signal = tokio::select! {
        signal = signals.end() => signal,
        died = tasks.died() => return Err(died),
    };
    observation.begin(signal);
    audit::stops(storage.audit.as_ref(), signal);
    tracing::info!(signal, "ending: captures stop and are uploaded; a second signal ends at once");
    let ended = async {
        handle.shutdown().await;
        if let Some(fleet) = &fleet {
            fleet.end().await;
        }
    };
    tokio::select! {
        biased;
        () = ended => {}
        signal = signals.end() => {
            tracing::warn!(signal, "second signal: ending at once; what is in the spool stays there");
            observe::flush();
            std::process::exit(EXIT_AT_ONCE);
        }
        // The engine ends with its answer, which may come between the look above and this one.
        died = tasks.died_but(Some("engine")) => return Err(died),
    }
    upkeep.iter().for_each(AbortHandle::abort);
    swept.iter().for_each(JoinHandle::abort);
    live.end();
    drop(end_api);
    drop(handle);
    observation.finish();
    tasks.finish(plan.api.request_timeout + LAST_TIME_MAX).await
}

/// Serves the API until what this returns is dropped.
pub(super) fn open_api(listener: TcpListener, door: Door, tasks: &mut Tasks) -> oneshot::Sender<()> {
    let (end, ends) = oneshot::channel::<()>();
    let ended = async {
        let _dropped = ends.await;
    };
    tasks.spawn("api", http::serve(listener, door, ended));
    end
}

/// Takes the host's place in its fleet, if it has one.
async fn join(
    plan: &Plan,
    storage: &Storage,
    handle: &Handle,
    tasks: &mut Tasks,
) -> Result<Option<Fleet>, ServeError> {
    let Some(mut fleet) = Fleet::join(plan).await? else { return Ok(None) };
    fleet.capture(plan, storage, handle, tasks)?;
    if plan.serves() {
        fleet.serve(plan, &storage.stores, tasks)?;
    }
    Ok(Some(fleet))
}

/// What keeps the host's disks in order while it runs.
fn upkeep(
    plan: &Plan,
    storage: &Storage,
    plans: &watch::Sender<Arc<Plan>>,
    tasks: &mut Tasks,
) -> Vec<AbortHandle> {
    let backups = backups::serve(Arc::clone(&storage.jobs), plan.store.path.clone(), storage.audit.clone());
    vec![
        tasks.spawn("retention", retention::keep(plans.subscribe(), storage)),
        tasks.spawn("pruning", pruning::keep(plans.subscribe(), storage)),
        tasks.spawn("backups", backups),
    ]
}

/// What a reload reaches.
fn reached(handle: &Handle, storage: &Storage, fleet: Option<&Fleet>) -> Reached {
    let (front, of_fleet) = fleet.and_then(Fleet::reloaded).unzip();
    Reached {
        stores: Arc::clone(&storage.stores),
        keys: of_fleet.into_iter().chain([storage.keys.clone()]).collect(),
        history: storage.history.clone(),
        audit: storage.audit.clone(),
        engine: Some(handle.clone()),
        front,
    }
}

/// What probes left that a dead process had begun.
fn sweep(plan: &Plan, ownership: Ownership) -> impl Future<Output = ()> + use<> {
    let accounts: Vec<_> = plan.accounts.iter().map(|account| account.id.clone()).collect();
    async move { ownership.sweep(&accounts).await }
}

/// Every thread that is started from here on inherits this: control never runs on a worker's core.
pub(super) fn stay_off_worker_cores(cores: &[usize]) -> Result<(), ServeError> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    let doing = "run on the cores of cores.writers";
    sched_setaffinity(None, &set).map_err(|e| ServeError::System { doing, source: e.into() })
}

/// `dealt`: which worker polls which queue.
pub(super) fn data_plane(plan: &Plan, dealt: Dealt) -> DataPlaneConfig {
    let topology = Topology::read(Path::new("/"));
    DataPlaneConfig {
        worker_nodes: dealt.cores.iter().map(|core| topology.of_core(*core)).collect(),
        worker_cores: dealt.cores,
        queue_workers: dealt.workers,
        writer_cores: writer_cores(plan),
        blocks: plan.blocks.count,
        accounts: plan.accounts.len(),
        hugepages: plan.blocks.hugepages,
        timers: plan.workers.timers,
        when_idle: plan.cores.when_idle,
        bypasses_lanes: plan.workers.bypasses_lanes,
    }
}

/// The core of each writer: with fewer cores than directories, which have a writer each, some share one.
fn writer_cores(plan: &Plan) -> Vec<usize> {
    let writers = plan.cores.writers.len().max(plan.spool.dirs().count());
    plan.cores.writers.iter().copied().cycle().take(writers).collect()
}

/// What each account that has prefixes may see.
fn scopes(accounts: &[Account]) -> HashMap<AccountId, Arc<PrefixSet>> {
    let restricted = accounts.iter().filter(|account| !account.prefixes.is_empty());
    restricted.map(|account| (account.id.clone(), Arc::new(PrefixSet::new(&account.prefixes)))).collect()
}

/// What the API of a host stands on that shows its own captures.
fn behind(handle: &Handle, storage: &Storage) -> Behind {
    let results = Arc::new(OwnResults(storage.simple_dir()));
    let (history, audit) = (storage.history.clone(), storage.audit.clone());
    Behind { captures: Arc::new(handle.clone()), results, ownership: storage.ownership(), history, audit }
}
