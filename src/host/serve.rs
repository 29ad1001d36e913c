//! `trawl serve`: from a plan to a running host and back. Owns the order of start and end, and the signals.
//!
//! Invariant: the first SIGTERM or SIGINT ends captures, uploads what they have and exits 0; the second exits at once.

use super::dataplane::{DataPlane, DataPlaneConfig, HostError, OnWorker};
use super::memory;
use super::observation::Observation;
use super::origin;
use super::ports::{self, PortsError};
use super::privileges;
use super::retention;
use crate::api::{self, Accounts, ApiState, Credential, Role, Rules, Secret};
use crate::block::Hugepages;
use crate::config::{self, Account, CredentialKind, Plan};
use crate::deliver::{KeyError, SigningKey};
use crate::dpdk::Eal;
use crate::engine::{Engine, Handle, Planes};
use crate::history::{History, HistoryConfig, HistoryError};
use crate::http::{self, Bounds, TlsError};
use crate::job::AccountId;
use crate::matcher::PrefixSet;
use crate::ownership::{BucketKeys, Ownership};
use crate::ownership::{Vault, VaultError};
use crate::spool::{Spool, SpoolConfig, SpoolError, WriteMode};
use crate::store::{Embedded, StoreError};
use crate::upload::{GcsConfig, R2Config, S3Config, Stores, StoresConfig, UploadError};
use crate::worker::{Sample, Timers};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// Actions that may wait for the engine.
const ACTIONS_WAITING: usize = 256;
/// How long somebody waits at most to hear whether a destination can be used. A store that works answers in a second.
const CONTACT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the end waits for the last segments of the history.
const HISTORY_PATIENCE: Duration = Duration::from_secs(5);
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
    /// Cores, signals, the runtime.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Runs a capture host until a signal ends it.
///
/// # Errors
/// When it could not start; then nothing was captured.
pub fn serve(plan: Plan) -> Result<(), ServeError> {
    privileges::at_start();
    let tls = plan.api.tls.as_ref().map(|(cert, key)| http::tls(cert, key)).transpose()?;
    let stores = Arc::new(Stores::new(stores(&plan))?);
    let spool = Arc::new(Spool::open(spool(&plan))?);
    let history = history(&plan, &spool)?;
    let jobs = Arc::new(Embedded::open(&plan.store.path)?);
    let signing_key = plan.manifest.signing_key_file.as_deref().map(SigningKey::load).transpose()?;
    let signing_key = signing_key.map(Arc::new);
    let keys = bucket_keys(&plan, &jobs)?;
    let ports = ports::start(&plan.eal, &plan.ports)?;
    stay_off_worker_cores(&plan.cores.writers)?;
    let runtime = runtime(&plan)?;
    // Before the first packet is polled: an address in use is the likeliest reason not to start.
    let (listener, observed) = listeners(&plan, &runtime)?;
    let on_worker = on_worker(ports.eal.clone());
    let (plane, workers) = DataPlane::start(&data_plane(&plan), ports.queues, &spool, &on_worker)?;
    let arena = plane.arena;
    tracing::info!(
        queues = plane.queues.len(), blocks_bytes = arena.bytes, hugepages = arena.hugepages, locked = arena.locked,
        write = ?spool.config().write, spool_bytes_used = spool.quota().used(), "data plane is up"
    );
    memory::settle(&plan, &plane, spool.config().write);
    let started = Arc::new(ports.started);
    let (counted, looked_at) = (Arc::clone(&started), Arc::clone(&started));
    let (spool_seen, jobs_seen) = (Arc::clone(&spool), jobs.clone());
    let contact_time_max = contact_time_max(&plan);
    let ownership = Ownership::new(jobs.clone(), Arc::clone(&stores), keys.clone(), contact_time_max);
    let simple_dir = spool.config().dir.join("simple");
    let recorded = history.clone();
    let engine = Engine::new(Planes {
        workers,
        queues: plane.queues.clone(),
        ports: Box::new(move || ports::drops(&started)),
        simple_dir: simple_dir.clone(),
        spool,
        stores,
        keys,
        contact_time_max,
        jobs,
        host: plan.host.id.clone(),
        colo: plan.host.colo.clone(),
        scopes: scopes(&plan.accounts),
        captures_max: plan.capture.captures_max,
        upload_retention: plan.upload.retention,
        upload_pause_max: plan.upload.retry_pause,
        high_water_percent: plan.spool.high_water_percent,
        object_format: plan.capture.format,
        origin: origin::of_host(&plan.ports),
        signing_key,
        full_per_account: plan.capture.full_per_account,
        simple_interval: plan.capture.simple_interval,
        simple_sample: Sample::new(plan.capture.simple_sample),
        history,
    })?;
    let observation =
        Observation::start(&plan, observed, looked_at, &plane, engine.stage(), spool_seen, jobs_seen)
            .map_err(|source| ServeError::System { doing: "start the watchdog", source })?;
    let result = runtime.block_on(run(&plan, engine, listener, tls, ownership, simple_dir, observation));
    plane.stop();
    ports::log_counters(&counted);
    take_in(recorded.as_deref());
    tracing::info!("ended");
    result
}

/// Those of the API, and of health and metrics.
fn listeners(plan: &Plan, runtime: &Runtime) -> Result<(TcpListener, Option<TcpListener>), ServeError> {
    let bind = |key, listen| {
        let bound = runtime.block_on(TcpListener::bind(listen));
        bound.map_err(|source| ServeError::Listen { key, listen, source })
    };
    let observed = plan.observe.listen.map(|listen| bind("observe.listen", listen));
    Ok((bind("api.listen", plan.api.listen)?, observed.transpose()?))
}

/// Waits for what the workers had of the history when they ended.
fn take_in(history: Option<&History>) {
    let Some(history) = history else { return };
    if let Err(error) = history.wait_for(u64::MAX, HISTORY_PATIENCE) {
        tracing::warn!(%error, "the last segments of the history are taken in at the next start");
    }
}

fn runtime(plan: &Plan) -> Result<Runtime, ServeError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plan.cores.writers.len().max(2))
        .on_thread_start(privileges::on_runtime_thread)
        .enable_all()
        .build()
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
    plan: &Plan,
    engine: Engine,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    ownership: Ownership,
    simple_dir: PathBuf,
    observation: Observation,
) -> Result<(), ServeError> {
    let on = |kind| signal(kind).map_err(|source| ServeError::System { doing: "take signals", source });
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let (handle, actions) = Handle::channel(ACTIONS_WAITING);
    let engine = tokio::spawn(engine.run(actions));
    let retention = tokio::spawn(retention::keep(
        simple_dir.clone(),
        plan.spool.dir.clone(),
        plan.capture.simple_retention,
    ));
    let swept = tokio::spawn(sweep(plan, ownership.clone()));
    let router = api::router(ApiState {
        ownership,
        simple_dir,
        captures: handle.clone(),
        accounts: accounts(plan),
        rules: rules(plan),
        request_bytes_max: plan.api.request_bytes_max,
        request_time_max: plan.api.request_timeout,
    });
    let router = observation.counted(router);
    let observation = observation.serve(handle.clone());
    let bounds = Bounds::new(plan.api.connections_max, plan.api.request_timeout);
    let (end_api, api_ends) = oneshot::channel::<()>();
    let listen = listener.local_addr().unwrap_or(plan.api.listen);
    let server = tokio::spawn(http::serve(listener, router, bounds, tls, async {
        let _ended_or_dropped = api_ends.await;
    }));
    tracing::info!(%listen, host = plan.host.id, colo = plan.host.colo, "ready");
    one_of(&mut terminate, &mut interrupt).await;
    observation.begin();
    tracing::info!("ending: captures stop and are uploaded; a second signal ends at once");
    tokio::select! {
        () = handle.shutdown() => {}
        () = one_of(&mut terminate, &mut interrupt) => {
            tracing::warn!("second signal: ending at once; what is in the spool stays there");
            std::process::exit(EXIT_AT_ONCE);
        }
    }
    retention.abort();
    swept.abort();
    let _api_gone = end_api.send(());
    drop(handle);
    for task in [engine, server] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task of the host died");
        }
    }
    observation.finish();
    Ok(())
}

/// What probes left that a dead process had begun.
fn sweep(plan: &Plan, ownership: Ownership) -> impl Future<Output = ()> + use<> {
    let accounts: Vec<_> = plan.accounts.iter().map(|account| account.id.clone()).collect();
    async move { ownership.sweep(&accounts).await }
}

async fn one_of(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
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

fn bucket_keys(plan: &Plan, buckets: &Arc<Embedded>) -> Result<BucketKeys, VaultError> {
    let vault = plan.store.key_file.as_deref().map(Vault::load).transpose()?;
    Ok(BucketKeys::new(buckets.clone(), vault.map(Arc::new)))
}

/// Half of what a request has, so that it is answered whatever a customer's store does, and no longer than a store takes that
/// works.
fn contact_time_max(plan: &Plan) -> Duration {
    (plan.api.request_timeout / 2).min(CONTACT_TIME_MAX)
}

pub(super) fn data_plane(plan: &Plan) -> DataPlaneConfig {
    DataPlaneConfig {
        worker_cores: plan.cores.workers.clone(),
        writer_cores: plan.cores.writers.clone(),
        blocks: plan.blocks.count,
        hugepages: match plan.blocks.hugepages {
            config::Hugepages::Auto => Hugepages::Auto,
            config::Hugepages::Never => Hugepages::Never,
            config::Hugepages::Require => Hugepages::Require,
        },
        timers: Timers { flush: plan.spool.flush_interval, rotate: plan.spool.rotate },
        bypasses_lanes: plan.spool.write == config::WriteMode::DiscardInWorker,
    }
}

pub(super) fn spool(plan: &Plan) -> SpoolConfig {
    SpoolConfig {
        dir: plan.spool.dir.clone(),
        bytes_max: plan.spool.bytes_max,
        segment_bytes: plan.spool.segment_bytes,
        write: match plan.spool.write {
            config::WriteMode::Auto => WriteMode::Auto,
            config::WriteMode::Direct => WriteMode::Direct,
            config::WriteMode::Mapped => WriteMode::Mapped,
            config::WriteMode::Discard | config::WriteMode::DiscardInWorker => WriteMode::Discard,
        },
        fsync_interval: plan.spool.fsync_interval,
        pool_bytes: plan.spool.pool_bytes,
    }
}

fn stores(plan: &Plan) -> StoresConfig {
    let upload = &plan.upload;
    StoresConfig {
        allow_file: upload.allow_file,
        s3: S3Config {
            endpoint: upload.s3.endpoint.clone(),
            path_style: Some(upload.s3.path_style),
            part_bytes: upload.part_bytes,
            parts_in_flight: upload.parts_in_flight,
            retry_seconds_max: upload.retry.as_secs(),
            attempt_seconds_max: upload.attempt.as_secs(),
            pause_ms_max: u64::try_from(upload.retry_pause.as_millis()).unwrap_or(u64::MAX),
            extras: upload.s3.extras.clone(),
            proxy: upload.proxy.clone(),
            ca_file: upload.ca_file.clone(),
            ..S3Config::default()
        },
        r2: upload.r2.clone().map(|r2| R2Config { endpoint: r2.endpoint, credentials: None }),
        gcs: upload.gcs.clone().map(|gcs| GcsConfig {
            endpoint: gcs.endpoint,
            credentials: gcs.credentials,
            storage_class: gcs.storage_class,
            chunk_bytes: upload.part_bytes,
            retry_seconds_max: upload.retry.as_secs(),
            pause_ms_max: u64::try_from(upload.retry_pause.as_millis()).unwrap_or(u64::MAX),
            proxy: upload.proxy.clone(),
            ca_file: upload.ca_file.clone(),
            ..GcsConfig::default()
        }),
    }
}

fn rules(plan: &Plan) -> Rules {
    Rules {
        colo: plan.host.colo.clone(),
        simple_time_limit_seconds_max: plan.capture.simple_time_limit_seconds_max,
        simple_packet_limit_max: plan.capture.simple_packet_limit_max,
        time_limit_seconds_max: plan.capture.time_limit_seconds_max,
        packet_limit_max: plan.capture.packet_limit_max,
        byte_limit_max: plan.capture.byte_limit_max,
        allow_file: plan.upload.allow_file,
        require_validation: plan.upload.require_validation,
        require_file_validation: plan.upload.require_file_validation,
        history: plan.history.map(|history| history.keep),
    }
}

/// What each account that has prefixes may see.
fn scopes(accounts: &[Account]) -> HashMap<AccountId, Arc<PrefixSet>> {
    let restricted = accounts.iter().filter(|account| !account.prefixes.is_empty());
    restricted.map(|account| (account.id.clone(), Arc::new(PrefixSet::new(&account.prefixes)))).collect()
}

fn history(plan: &Plan, spool: &Arc<Spool>) -> Result<Option<Arc<History>>, HistoryError> {
    let Some(plan) = &plan.history else { return Ok(None) };
    let config = HistoryConfig {
        sample: Sample::new(plan.sample),
        bytes_max: plan.bytes_max,
        keep: plan.keep,
        segment: plan.segment,
    };
    let history = History::open(config, Arc::clone(spool))?;
    tracing::info!(
        bytes = history.bytes(),
        bytes_max = plan.bytes_max,
        one_in = plan.sample,
        "history is open"
    );
    Ok(Some(Arc::new(history)))
}

fn accounts(plan: &Plan) -> Accounts {
    let accounts = plan.accounts.iter().map(|account| {
        let credentials = account.credentials.iter().map(|credential| Credential {
            secret: match &credential.kind {
                CredentialKind::Key { email, sha256 } => {
                    Secret::Key { email: email.clone(), key_sha256: *sha256 }
                }
                CredentialKind::Token { sha256 } => Secret::Token { token_sha256: *sha256 },
            },
            role: match credential.role {
                config::Role::Read => Role::Read,
                config::Role::Write => Role::Write,
            },
        });
        (account.id.clone(), credentials.collect())
    });
    Accounts::new(accounts, plan.api.failed_authentications_max)
}
