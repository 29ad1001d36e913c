//! The threads that move packets, and the rings and memory between them. Owns their start and end; what they do is in
//! `worker` and `spool`.

use crate::block::{Arena, ArenaError, ArenaFacts, Block, BlockShare, Heartbeat, Hugepages, WriterEnd, lane};
use crate::packet::Source;
use crate::spool::{Message, Publisher, Spool, Writer};
use crate::worker::{
    ClockSteps, QueueCounters, Timers, WhenIdle, WorkerHandle, WorkerParts, lane_notices, worker,
};
use core_affinity::CoreId;
use std::any::Any;
use std::collections::BTreeSet;
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
    /// Cores of workers.
    pub worker_cores: Vec<usize>,
    /// The NUMA node of each of them, as far as it is known: its blocks lie there.
    pub worker_nodes: Vec<Option<u32>>,
    /// The worker of each queue. Those of which nothing stands here are dealt over the workers in order.
    pub queue_workers: Vec<usize>,
    /// Cores of writers.
    pub writer_cores: Vec<usize>,
    /// Blocks of the arena, dealt over the workers.
    pub blocks: usize,
    /// Accounts that share them.
    pub accounts: usize,
    /// Where the arena lies.
    pub hugepages: Hugepages,
    /// See [`Timers`].
    pub timers: Timers,
    /// What workers do while no packets come.
    pub when_idle: WhenIdle,
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
    /// What a worker has of its blocks: how many captures they are enough for.
    pub share: BlockShare,
    /// Of every thread.
    pub heartbeats: Vec<Arc<Heartbeat>>,
    /// Steps of the wall clock, as the first worker sees them.
    pub clock: Arc<ClockSteps>,
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
        Self::start_by(&mut spawn, config, sources, spool, on_worker)
    }

    fn start_by<S: Source + 'static>(
        spawn: &mut Spawn<'_>,
        config: &DataPlaneConfig,
        sources: Vec<S>,
        spool: &Arc<Spool>,
        on_worker: &OnWorker,
    ) -> Result<(Self, Vec<WorkerHandle>), HostError> {
        let workers = config.worker_cores.len().min(sources.len()).max(1);
        let (blocks, arena) = arenas(config, workers)?;
        let queues: Vec<_> = sources.iter().map(|_| Arc::new(QueueCounters::default())).collect();
        let (stop, clock) = (Arc::new(AtomicBool::new(false)), Arc::new(ClockSteps::default()));
        let mut dealt: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for (index, source) in sources.into_iter().enumerate() {
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            let worker = config.queue_workers.get(index).copied().unwrap_or(index);
            dealt[worker % workers].push((number, source, Arc::clone(&queues[index])));
        }
        let (threads, others, heartbeats) = (Vec::new(), Vec::new(), Vec::new());
        let queues_max = dealt.iter().map(Vec::len).max().unwrap_or(0);
        let share = BlockShare::of(blocks.iter().map(Vec::len).sum(), queues_max, workers);
        let mut plane = Self { queues, arena, share, heartbeats, clock, stop, workers: threads, others };
        let (parts, lanes) = plane.parts(config, spool, dealt, blocks);
        match plane.start_threads(spawn, config, spool, on_worker, parts, lanes) {
            Ok(handles) => Ok((plane, handles)),
            Err(error) => {
                // What was started polls its queues and waits for messages: it must not outlive this call.
                plane.stop();
                Err(error)
            }
        }
    }

    /// What the workers are made of, and the lanes of each writer.
    fn parts<S>(
        &mut self,
        config: &DataPlaneConfig,
        spool: &Spool,
        dealt: Vec<Vec<(u16, S, Arc<QueueCounters>)>>,
        blocks: Vec<Vec<Block>>,
    ) -> (Vec<WorkerParts<S>>, Vec<Lanes>) {
        let mut lanes_of_writers: Vec<Lanes> = config.writer_cores.iter().map(|_| Vec::new()).collect();
        let mut parts = Vec::new();
        for (i, (queues, blocks)) in dealt.into_iter().zip(blocks).enumerate() {
            let share = blocks.len();
            let lanes = lanes_of_writers.iter_mut().map(|ends| {
                let (worker_end, writer_end) = lane::<Message>(share, lane_notices());
                ends.push(writer_end);
                if config.bypasses_lanes { worker_end.bypassed() } else { worker_end }
            });
            parts.push(WorkerParts {
                queues,
                lanes: lanes.collect(),
                blocks,
                accounts: config.accounts,
                segment_bytes_max: spool.config().segment_bytes,
                timers: config.timers,
                when_idle: config.when_idle,
                stop: Arc::clone(&self.stop),
                heartbeat: self.heartbeat(format!("worker{i}"), share),
                clock_steps: (i == 0).then(|| Arc::clone(&self.clock)),
            });
        }
        (parts, lanes_of_writers)
    }

    /// Starts publishers, writers and workers, in this order. After an error some of them run.
    fn start_threads<S: Source + 'static>(
        &mut self,
        spawn: &mut Spawn<'_>,
        config: &DataPlaneConfig,
        spool: &Arc<Spool>,
        on_worker: &OnWorker,
        parts: Vec<WorkerParts<S>>,
        lanes: Vec<Lanes>,
    ) -> Result<Vec<WorkerHandle>, HostError> {
        let mut publishers = Vec::new();
        for disk in spool.disks() {
            let name = match spool.disks().len() {
                1 => "publisher".to_owned(),
                _ => format!("publisher{}", disk.index()),
            };
            let (publisher, handle) = Publisher::new(Arc::clone(disk), self.heartbeat(name.clone(), 0));
            publishers.push(handle);
            self.others.push(spawn(&name, None, Box::new(move || publisher.run()))?);
        }
        for (i, (lanes, &core)) in lanes.into_iter().zip(&config.writer_cores).enumerate() {
            let at = i % publishers.len();
            let (spool, disk, publisher) =
                (Arc::clone(spool), Arc::clone(&spool.disks()[at]), publishers[at].clone());
            let heartbeat = self.heartbeat(format!("writer{i}"), 0);
            let run = move || Writer::new(spool, disk, publisher, lanes, heartbeat).run();
            self.others.push(spawn(&format!("writer{i}"), Some(core), Box::new(run))?);
        }
        let mut handles = Vec::new();
        for (i, (parts, &core)) in parts.into_iter().zip(&config.worker_cores).enumerate() {
            let (worker, handle) = worker(parts);
            handles.push(handle);
            let on_worker = Arc::clone(on_worker);
            let run = move || {
                let _lives_as_long_as_the_thread = on_worker();
                worker.run();
            };
            self.workers.push(spawn(&format!("worker{i}"), Some(core), Box::new(run))?);
        }
        Ok(handles)
    }

    fn heartbeat(&mut self, name: String, blocks: usize) -> Arc<Heartbeat> {
        let heartbeat = Arc::new(Heartbeat::new(name, blocks));
        self.heartbeats.push(Arc::clone(&heartbeat));
        heartbeat
    }

    /// Ends the workers, then writers and publishers once everything is on disk.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.workers.into_iter().chain(self.others) {
            if thread.join().is_err() {
                tracing::error!("a data plane thread panicked");
            }
        }
    }
}

/// The blocks of each worker, in the memory of its own node. Workers of one node share a mapping.
fn arenas(config: &DataPlaneConfig, workers: usize) -> Result<(Vec<Vec<Block>>, ArenaFacts), ArenaError> {
    let node_of = |worker: usize| config.worker_nodes.get(worker).copied().flatten();
    let share = config.blocks / workers;
    let mut blocks: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    let mut facts = ArenaFacts { hugepages: true, locked: true, bytes: 0 };
    let nodes: BTreeSet<_> = (0..workers).map(node_of).collect();
    for node in nodes {
        let of_node: Vec<_> = (0..workers).filter(|worker| node_of(*worker) == node).collect();
        let (mut mapped, arena) = Arena::map_near(share * of_node.len(), config.hugepages, node)?;
        facts.hugepages &= arena.hugepages;
        facts.locked &= arena.locked;
        facts.bytes += arena.bytes;
        for worker in of_node {
            blocks[worker] = mapped.split_off(mapped.len() - share);
        }
    }
    Ok((blocks, facts))
}

/// The lanes of one writer.
type Lanes = Vec<WriterEnd<Message>>;

/// Starts a thread of that name on that core.
type Spawn<'a> =
    dyn FnMut(&str, Option<usize>, Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>, HostError> + 'a;

fn spawn(
    name: &str,
    core: Option<usize>,
    body: Box<dyn FnOnce() + Send>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{SpoolConfig, WriteMode};
    use crate::worker::testing::Bursts;
    use std::time::Duration;

    /// Whichever thread cannot be started: the error says which, and those before it have ended, with all that they held.
    #[test]
    fn when_a_thread_cannot_be_started_those_before_it_end() {
        for failing in ["publisher", "writer0", "writer1", "worker0", "worker1", "worker2"] {
            let dir = tempfile::tempdir().unwrap();
            let spool = Spool::open(SpoolConfig {
                dir: dir.path().join("spool"),
                more_dirs: Vec::new(),
                bytes_max: 64 << 20,
                share_bytes_max: u64::MAX,
                part_bytes: u64::MAX,
                segment_bytes: 4 << 20,
                write: WriteMode::Discard,
                fsync_interval: Duration::from_secs(1),
                pool_bytes: 0,
            });
            let config = DataPlaneConfig {
                worker_cores: vec![0, 0, 0],
                worker_nodes: vec![Some(0), None, Some(0)],
                queue_workers: vec![2, 0, 1],
                writer_cores: vec![0, 0],
                blocks: 6,
                accounts: 1,
                hugepages: Hugepages::Never,
                timers: Timers { flush: Duration::from_secs(1), rotate: Duration::from_secs(1) },
                when_idle: WhenIdle::Spin,
                bypasses_lanes: false,
            };
            let bursts = Bursts::default();
            let sources = vec![bursts.clone(), bursts.clone(), bursts.clone()];
            let on_worker: OnWorker = Arc::new(|| Box::new(()));
            let mut spawn_others = |name: &str, core: Option<usize>, body: Box<dyn FnOnce() + Send>| {
                if name == failing {
                    let (name, source) = (name.to_owned(), io::Error::from_raw_os_error(11));
                    return Err(HostError::Thread { name, source });
                }
                spawn(name, core, body)
            };
            let (spool, started) = (Arc::new(spool.unwrap()), Arc::clone(&bursts.0));
            let failed =
                DataPlane::start_by(&mut spawn_others, &config, sources, &spool, &on_worker).err().unwrap();
            assert!(failed.to_string().contains(failing), "{failed}");
            drop(bursts);
            assert_eq!(Arc::strong_count(&started), 1, "a worker still polls although {failing} failed");
            assert_eq!(
                Arc::strong_count(&spool),
                1,
                "a thread still has the spool although {failing} failed"
            );
        }
    }
}
