//! The watchdog over the threads of a running host, and the listener for health and metrics. Owns where each value comes from;
//! not its evaluation (`observe`).

use super::dataplane::DataPlane;
use super::notify::{self, Manager, Patience};
use super::port_counts::Latest;
use super::storage::Storage;
use super::tasks::Tasks;
use crate::api::{self, CurrentTerms};
use crate::audit::Audit;
use crate::block::Heartbeat;
use crate::config::Plan;
use crate::dashboard::{Live, StreamPlaces};
use crate::engine::Handle;
use crate::http::{self, Door};
use crate::observe::{
    self, Alive, BusSource, CaptureSource, QueueSource, Reloads, Requests, Sources, Status, Watchdog,
};
use crate::spool::Spool;
use crate::store::Embedded;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Who is shown what is looked at.
pub(super) struct Viewers {
    pub live: Arc<Live>,
    pub streams: Arc<StreamPlaces>,
}

/// See the module.
pub(super) struct Observation {
    sources: Sources,
    watchdog: Watchdog,
    listener: Option<TcpListener>,
    /// Where what is captured is kept, of a host that captures.
    kept: Option<(Arc<Spool>, Arc<Embedded>)>,
    manager: Arc<Manager>,
    /// How long stores may confirm nothing before the end waits no longer for them.
    patience: Patience,
}

impl Observation {
    /// Starts the watchdog, and what tells the service manager of it.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(
        plan: &Plan,
        listener: Option<TcpListener>,
        ports: Latest,
        plane: &DataPlane,
        engine: Arc<Heartbeat>,
        storage: &Storage,
        dpdk: String,
    ) -> io::Result<Self> {
        let mut stages = plane.heartbeats.clone();
        stages.push(engine);
        let of_ports = plan.ports.iter().flat_map(|port| (0..port.queues).map(|_| port.name().to_owned()));
        let queues = plane.queues.iter().zip(of_ports);
        let queues =
            queues.map(|(counters, port)| QueueSource { port, counters: Arc::clone(counters) }).collect();
        let observation = Self::of(plan, listener, stages, storage.audit.clone())?;
        let sources = Sources {
            ports: Box::new(move || ports.readings()),
            queues,
            queue_workers: plan.dealt().workers,
            dpdk,
            ..observation.sources
        };
        let kept = Some((Arc::clone(&storage.spool), Arc::clone(&storage.jobs)));
        Ok(Self { sources, kept, ..observation })
    }

    /// The same of a node that captures nothing.
    ///
    /// # Errors
    /// As [`Observation::start`].
    pub fn of_api(plan: &Plan, listener: Option<TcpListener>, audit: Option<Audit>) -> io::Result<Self> {
        Self::of(plan, listener, Vec::new(), audit)
    }

    fn of(
        plan: &Plan,
        listener: Option<TcpListener>,
        stages: Vec<Arc<Heartbeat>>,
        audit: Option<Audit>,
    ) -> io::Result<Self> {
        let watchdog = Watchdog::start(&stages, plan.observe.watchdog)?;
        let manager = Arc::new(Manager::of_this_process());
        if let Some(time) = notify::watchdog_time().filter(|_| manager.listens()) {
            notify::keep_alive(Arc::clone(&manager), time, Alive::new(watchdog.verdicts()))?;
        }
        let sources = Sources {
            ports: Box::new(Vec::new),
            queues: Vec::new(),
            queue_workers: Vec::new(),
            stages,
            verdicts: watchdog.verdicts(),
            capture: None,
            bus: None,
            requests: Arc::new(Requests::default()),
            authentication_failures: api::authentication_failures,
            refused_requests: Box::new(Vec::new),
            started: SystemTime::now(),
            dpdk: "none".to_owned(),
            connections_max: plan.api.connections_max,
            high_water_percent: plan.high_water_percent,
            reloads: Arc::default(),
            audit,
            ending: Arc::new(AtomicBool::new(false)),
        };
        Ok(Self {
            sources,
            watchdog,
            listener,
            kept: None,
            manager,
            patience: Patience { turn: plan.upload.turn, whole: plan.upload.ending_max },
        })
    }

    /// Who is told of reloads, and who counts them.
    pub fn of_reloads(&self) -> (Arc<Manager>, Arc<Reloads>) {
        (Arc::clone(&self.manager), Arc::clone(&self.sources.reloads))
    }

    /// `router`, with its requests counted, and those that these terms refused.
    pub fn counted(&mut self, terms: CurrentTerms, router: axum::Router) -> axum::Router {
        self.sources.refused_requests = Box::new(move || terms.refused_requests());
        observe::counted(router, api::PREFIX, Arc::clone(&self.sources.requests))
    }

    /// The same of a node of a fleet.
    pub fn reach(&mut self, bus: BusSource) {
        self.sources.bus = Some(bus);
    }

    /// Serves health and metrics, if there is a listener for them, as one of the tasks; and what ends all of this. `engine`: of a host
    /// that captures.
    pub fn serve(self, engine: Option<Handle>, viewers: Viewers, tasks: &mut Tasks) -> Ending {
        let Self { mut sources, mut watchdog, listener, kept, manager, patience } = self;
        sources.capture =
            engine.zip(kept).map(|(engine, (spool, jobs))| CaptureSource { engine, spool, jobs });
        let sources = Arc::new(sources);
        let looking = observe::keep_looking(Arc::clone(&sources), viewers.live, viewers.streams);
        let looking = tasks.spawn("live answers", looking);
        tasks.spawn("watchdog", watchdog.ended());
        let ending = Arc::clone(&sources.ending);
        let status = Status::new(Arc::clone(&sources));
        let telling = notify::keep_telling(Arc::clone(&manager), status, patience);
        let telling = manager.listens().then(|| tasks.spawn("service manager", telling));
        let server = listener.map(|listener| {
            let listen = listener.local_addr().ok();
            tracing::info!(?listen, "health and metrics are served");
            let router = observe::router(sources);
            let bounds = observe::bounds();
            let door = Door { router, answer: api::fault, bounds, tls: None, proxies: Vec::new() };
            let server = http::serve(listener, door, pending());
            tasks.spawn("health and metrics", server)
        });
        Ending { ending, watchdog, server, looking, telling, manager }
    }
}

/// Ends an observation.
pub(super) struct Ending {
    ending: Arc<AtomicBool>,
    watchdog: Watchdog,
    server: Option<AbortHandle>,
    looking: AbortHandle,
    telling: Option<AbortHandle>,
    manager: Arc<Manager>,
}

impl Ending {
    /// From now on the host is not ready, because of this signal.
    pub fn begin(&self, why: &str) {
        self.ending.store(true, Ordering::Relaxed);
        self.manager.ending(why);
    }

    /// The engine has ended: there is nothing left to look at.
    pub fn finish(self) {
        self.looking.abort();
        if let Some(telling) = self.telling {
            telling.abort();
        }
        self.manager.nearly_ended();
        if let Some(server) = self.server {
            server.abort();
        }
        self.watchdog.stop();
    }
}
