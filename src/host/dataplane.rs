//! The threads that move packets, and the rings and memory between them. Owns their start and end; what they do is in
//! `worker` and `spool`.

use crate::block::{Arena, ArenaError, ArenaFacts, Hugepages, Stage, lane};
use crate::packet::Source;
use crate::spool::{Message, Publisher, Spool, Writer};
use crate::worker::{QueueCounters, Timers, WorkerHandle, WorkerParts, lane_notices, worker};
use core_affinity::CoreId;
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Runs on each worker thread before its first poll; what it returns lives as long as the thread.
pub type OnWorker = Arc<dyn Fn() -> Box<dyn Any> + Send + Sync>;

/// Why the data plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No memory for blocks.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// No thread.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        /// Its name.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// What the operator decided.
#[derive(Clone, Debug)]
pub struct DataPlaneConfig {
    /// Cores of workers; queues are dealt over them in order.
    pub worker_cores: Vec<usize>,
    /// Cores of writers.
    pub writer_cores: Vec<usize>,
    /// Blocks of the arena, dealt over the workers.
    pub blocks: usize,
    /// Where the arena lies.
    pub hugepages: Hugepages,
    /// See [`Timers`].
    pub timers: Timers,
    /// See [`crate::block::WorkerEnd::bypassed`].
    pub bypasses_lanes: bool,
}

/// The running threads.
#[derive(Debug)]
pub struct DataPlane {
    /// The counters of every queue, by number.
    pub queues: Vec<Arc<QueueCounters>>,
    /// What the arena turned out to be.
    pub arena: ArenaFacts,
    /// What every thread says of itself.
    pub stages: Vec<Arc<Stage>>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl DataPlane {
    /// Starts every thread. The engine takes the handles.
    ///
    /// # Errors
    /// When there is no memory or no thread to be had; then nothing runs.
    pub fn start<S: Source + 'static>(
        config: &DataPlaneConfig,
        sources: Vec<S>,
        spool: &Arc<Spool>,
        on_worker: &OnWorker,
    ) -> Result<(Self, Vec<WorkerHandle>), HostError> {
        let workers = config.worker_cores.len().min(sources.len()).max(1);
        let (mut blocks, arena) = Arena::map(config.blocks, config.hugepages)?;
        let stop = Arc::new(AtomicBool::new(false));
        let queues: Vec<_> = sources.iter().map(|_| Arc::new(QueueCounters::default())).collect();
        let mut dealt: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for (index, source) in sources.into_iter().enumerate() {
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            dealt[index % workers].push((number, source, Arc::clone(&queues[index])));
        }
        let share = blocks.len() / workers;
        let mut lanes_of_writers: Vec<Vec<_>> = config.writer_cores.iter().map(|_| Vec::new()).collect();
        let (workers, others, stages) = (Vec::new(), Vec::new(), Vec::new());
        let mut plane = Self { queues, arena, stages, stop, workers, others };
        let mut handles = Vec::new();
        let mut parts = Vec::new();
        for (i, queues) in dealt.into_iter().enumerate() {
            let lanes = lanes_of_writers.iter_mut().map(|ends| {
                let (worker_end, writer_end) = lane::<Message>(share, lane_notices());
                ends.push(writer_end);
                if config.bypasses_lanes { worker_end.bypassed() } else { worker_end }
            });
            parts.push(WorkerParts {
                queues,
                lanes: lanes.collect(),
                blocks: blocks.split_off(blocks.len() - share),
                segment_bytes_max: spool.config().segment_bytes,
                timers: config.timers,
                stop: Arc::clone(&plane.stop),
                stage: plane.stage(format!("worker{i}"), share),
            });
        }
        let stage = plane.stage("publisher".to_owned(), 0);
        let (publisher, to_publisher) = Publisher::new(Arc::clone(spool), stage);
        plane.others.push(spawn("publisher", None, move || publisher.run())?);
        for (i, (lanes, &core)) in lanes_of_writers.into_iter().zip(&config.writer_cores).enumerate() {
            let (spool, publisher) = (Arc::clone(spool), to_publisher.clone());
            let stage = plane.stage(format!("writer{i}"), 0);
            plane.others.push(spawn(&format!("writer{i}"), Some(core), move || {
                Writer::new(spool, publisher, lanes, stage).run();
            })?);
        }
        for (i, (parts, &core)) in parts.into_iter().zip(&config.worker_cores).enumerate() {
            let (worker, handle) = worker(parts);
            handles.push(handle);
            let on_worker = Arc::clone(on_worker);
            plane.workers.push(spawn(&format!("worker{i}"), Some(core), move || {
                let _lives_as_long_as_the_thread = on_worker();
                worker.run();
            })?);
        }
        Ok((plane, handles))
    }

    fn stage(&mut self, name: String, blocks: usize) -> Arc<Stage> {
        let stage = Arc::new(Stage::new(name, blocks));
        self.stages.push(Arc::clone(&stage));
        stage
    }

    /// Ends the workers, then writers and publisher once everything is on disk.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.workers.into_iter().chain(self.others) {
            if thread.join().is_err() {
                tracing::error!("a data plane thread panicked");
            }
        }
    }
}

fn spawn(
    name: &str,
    core: Option<usize>,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, HostError> {
    let pinned = move || {
        if let Some(id) = core
            && !core_affinity::set_for_current(CoreId { id })
        {
            tracing::warn!(core = id, "a data plane thread could not be pinned");
        }
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            // A host that goes on without one of these threads would lose packets in silence. What is in the spool stays.
            tracing::error!(
                "a data plane thread died: this is a bug; the process ends so that it is started again"
            );
            crate::observe::flush();
            std::process::abort();
        }
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(pinned);
    thread.map_err(|source| HostError::Thread { name: name.to_owned(), source })
}
