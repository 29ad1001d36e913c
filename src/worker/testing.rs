//! A worker with everything around it that a test needs: queues whose frames the test gives, blocks, and the other ends of the
//! lanes.

use super::{
    ClockSteps, QueueCounters, Timers, WhenIdle, Worker, WorkerHandle, WorkerParts, lane_notices, worker,
};
use crate::block::{Arena, Heartbeat, Hugepages, WriterEnd, lane};
use crate::packet::{Burst, Source};
use crate::spool::Message;
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[path = "../../tests/common/burst.rs"]
mod burst;
pub(crate) use burst::Frames;

/// A burst that owns its frames.
pub(crate) type OwnedBurst = Frames<Vec<Vec<u8>>>;

/// A queue that delivers one burst after the other, and then none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bursts(pub Arc<Mutex<VecDeque<OwnedBurst>>>);

impl Source for Bursts {
    type Burst<'a> = OwnedBurst;

    fn receive(&mut self) -> OwnedBurst {
        self.0.lock().unwrap().pop_front().unwrap_or_default()
    }
}

/// A worker that does not run yet.
pub(crate) struct Rig {
    pub worker: Worker<Bursts>,
    /// What its queues deliver.
    pub queues: Vec<Bursts>,
    pub counters: Vec<Arc<QueueCounters>>,
    /// The writer's ends of its lanes.
    pub lanes: Vec<WriterEnd<Message>>,
    pub stop: Arc<AtomicBool>,
    pub clock_steps: Arc<ClockSteps>,
}

impl Rig {
    /// One with so many queues, one lane, and so many blocks.
    pub fn new(queues: u16, blocks: usize) -> (WorkerHandle, Self) {
        let (blocks_free, _) = Arena::map(blocks, Hugepages::Never).unwrap();
        let (worker_end, writer_end) = lane(blocks, lane_notices());
        let bursts: Vec<_> = (0..queues).map(|_| Bursts::default()).collect();
        let counters: Vec<_> = (0..queues).map(|_| Arc::new(QueueCounters::default())).collect();
        let (stop, clock_steps) = (Arc::new(AtomicBool::new(false)), Arc::new(ClockSteps::default()));
        let numbered = bursts.iter().zip(&counters).zip(0..);
        let parts = WorkerParts {
            queues: numbered.map(|((source, to), index)| (index, source.clone(), Arc::clone(to))).collect(),
            blocks: blocks_free,
            accounts: 0,
            lanes: vec![worker_end],
            segment_bytes_max: 1 << 30,
            timers: Timers { flush: Duration::from_millis(200), rotate: Duration::from_secs(10) },
            when_idle: WhenIdle::Spin,
            stop: Arc::clone(&stop),
            heartbeat: Arc::new(Heartbeat::new("worker0", blocks)),
            clock_steps: Some(Arc::clone(&clock_steps)),
        };
        let (worker, handle) = worker(parts);
        (handle, Self { worker, queues: bursts, counters, lanes: vec![writer_end], stop, clock_steps })
    }
}
