//! The watchdog over the stages (threads). Owns the definition of no progress and its log, and whether a new process would help; not
//! the reaction.
//!
//! A stage is stalled when its heartbeat stops, or when work waits for it and none gets done: a writer whose disk never answers
//! loops on. Of these a new process helps a worker and the engine: they wait for no disk. A writer or the publisher that stalls
//! waits for the disk, and so would the next one.
//!
//! Invariant: only time in which the watchdog itself ran counts, so a stopped process or a suspended host is no stall.

use crate::block::{Heartbeat, HeartbeatReading};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Between two looks. A look that is later by more than this counts for this much.
const PERIOD: Duration = Duration::from_millis(200);

/// The watchdog's verdict for each stage: why it is stalled, if it is.
#[derive(Debug, Default)]
pub struct Verdicts {
    stalled: Mutex<Vec<Option<String>>>,
    /// Whether a stage is stalled that a new process would help.
    restart_helps: AtomicBool,
    looks: AtomicU64,
    /// The host ends, and nobody looks any more.
    ended: AtomicBool,
}

impl Verdicts {
    /// One place for each stage, in the stages' order.
    #[must_use]
    pub fn read(&self) -> Vec<Option<String>> {
        self.stalled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, stalled: Vec<Option<String>>, restart_helps: bool) {
        *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = stalled;
        self.restart_helps.store(restart_helps, Ordering::Relaxed);
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// For one who tells a service manager that the process is alive.
#[derive(Debug)]
pub struct Alive {
    verdicts: Arc<Verdicts>,
    looks: u64,
}

impl Alive {
    /// Reads these verdicts.
    #[must_use]
    pub fn new(verdicts: Arc<Verdicts>) -> Self {
        Self { verdicts, looks: 0 }
    }

    /// Whether the process should live on: the watchdog has looked since the last call, and no stage is stalled that a new process
    /// would help. While the host ends this is always so: how long that may take is decided elsewhere.
    pub fn look(&mut self) -> bool {
        if self.verdicts.ended.load(Ordering::Relaxed) {
            return true;
        }
        let looks = self.verdicts.looks.load(Ordering::Relaxed);
        let has_looked = looks != self.looks;
        self.looks = looks;
        has_looked && !self.verdicts.restart_helps.load(Ordering::Relaxed)
    }
}

/// Stages that wait for no disk and no network.
fn restart_helps(stage: &str) -> bool {
    stage == "engine" || stage.starts_with("worker")
}

#[derive(Debug)]
struct Watched {
    stage: Arc<Heartbeat>,
    last: HeartbeatReading,
    /// On the watchdog's clock: its last beat.
    turned: Duration,
    /// On the watchdog's clock: when waiting work last progressed, or none waited.
    moved: Duration,
    stalled: bool,
}

impl Watched {
    /// Why it is stalled, if it is.
    fn look(&mut self, clock: Duration, limit: Duration) -> Option<String> {
        let now = self.stage.read();
        if now.beats != self.last.beats {
            self.turned = clock;
        }
        let waiting = now.queued + now.in_flight;
        if now.done != self.last.done || waiting == 0 {
            self.moved = clock;
        }
        self.last = now;
        let (idle, stuck) = (clock - self.turned, clock - self.moved);
        if idle >= limit {
            Some(format!("its thread has not moved for {} s", idle.as_secs()))
        } else if stuck >= limit {
            let HeartbeatReading { queued, in_flight, .. } = now;
            let seconds = stuck.as_secs();
            Some(format!(
                "{queued} messages wait and {in_flight} writes are in flight, and none got done for {seconds} s"
            ))
        } else {
            None
        }
    }
}

#[derive(Debug)]
struct Look {
    stages: Vec<Watched>,
    limit: Duration,
    clock: Duration,
    verdicts: Arc<Verdicts>,
}

impl Look {
    fn new(stages: &[Arc<Heartbeat>], limit: Duration) -> Self {
        let watch = |stage: &Arc<Heartbeat>| Watched {
            stage: Arc::clone(stage),
            last: stage.read(),
            turned: Duration::ZERO,
            moved: Duration::ZERO,
            stalled: false,
        };
        let verdicts = Verdicts { stalled: Mutex::new(vec![None; stages.len()]), ..Verdicts::default() };
        let verdicts = Arc::new(verdicts);
        Self { stages: stages.iter().map(watch).collect(), limit, clock: Duration::ZERO, verdicts }
    }

    fn look(&mut self, elapsed: Duration) {
        self.clock += elapsed.min(2 * PERIOD);
        let mut verdicts = Vec::with_capacity(self.stages.len());
        let mut helps = false;
        for watched in &mut self.stages {
            let verdict = watched.look(self.clock, self.limit);
            let stage = watched.stage.name();
            match (&verdict, watched.stalled) {
                (Some(reason), false) => tracing::error!(
                    stage,
                    reason,
                    "a stage stands still; /healthz fails until it goes on. If it does not, restart trawl: what is in the spool is kept"
                ),
                (None, true) => tracing::warn!(stage, "a stage that stood still goes on"),
                _ => {}
            }
            watched.stalled = verdict.is_some();
            helps |= watched.stalled && restart_helps(stage);
            verdicts.push(verdict);
        }
        self.verdicts.set(verdicts, helps);
    }
}

/// A running watchdog.
#[derive(Debug)]
pub struct Watchdog {
    verdicts: Arc<Verdicts>,
    end: Sender<()>,
    ended: Option<oneshot::Receiver<()>>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    /// Watches `stages`; one that makes no progress for `limit` is logged, once.
    ///
    /// A thread and no task: it must still run when the runtime's threads do not.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(stages: &[Arc<Heartbeat>], limit: Duration) -> std::io::Result<Self> {
        let look = Look::new(stages, limit);
        let verdicts = Arc::clone(&look.verdicts);
        let (end, asked) = bounded(0);
        let (lives, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            let _until_it_ends_or_panics = lives;
            watch(look, &asked);
        })?;
        Ok(Self { verdicts, end, ended: Some(ended), thread })
    }

    /// Waits for the end of its thread, whatever it ends of. For one who waits, once.
    pub fn ended(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let ended = self.ended.take();
        async move {
            if let Some(ended) = ended {
                let _thread_is_gone = ended.await;
            }
        }
    }

    /// What it thinks.
    #[must_use]
    pub fn verdicts(&self) -> Arc<Verdicts> {
        Arc::clone(&self.verdicts)
    }

    /// Ends it, before the stages that it watches end.
    pub fn stop(self) {
        self.verdicts.ended.store(true, Ordering::Relaxed);
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the watchdog panicked");
        }
    }
}

fn watch(mut look: Look, ended: &Receiver<()>) {
    let mut last = Instant::now();
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(PERIOD) {
        look.look(last.elapsed());
        last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    fn seconds(look: &mut Look, seconds: u32, mut meanwhile: impl FnMut()) -> Option<String> {
        for _ in 0..seconds * 5 {
            meanwhile();
            look.look(PERIOD);
        }
        look.verdicts.read().swap_remove(0)
    }

    #[test]
    fn a_thread_that_does_not_turn_is_named_until_it_goes_on() {
        let stage = Arc::new(Heartbeat::new("worker0", 1));
        let mut look = Look::new(&[Arc::clone(&stage)], LIMIT);
        assert_eq!(seconds(&mut look, 10, || stage.beat(0, 0)), None);
        assert_eq!(seconds(&mut look, 1, || {}), None);
        let reason = seconds(&mut look, 2, || {}).unwrap();
        assert!(reason.contains("has not moved for 3 s"), "{reason}");
        assert_eq!(seconds(&mut look, 1, || stage.beat(0, 0)), None);
    }

    #[test]
    fn a_thread_that_turns_while_nothing_of_what_waits_gets_done_stands_still() {
        let stage = Arc::new(Heartbeat::new("writer0", 0));
        let mut look = Look::new(&[Arc::clone(&stage)], LIMIT);
        let reason = seconds(&mut look, 3, || stage.beat(7, 8)).unwrap();
        assert!(reason.starts_with("7 messages wait and 8 writes are in flight"), "{reason}");
        let works = || {
            stage.beat(7, 8);
            stage.done(1);
        };
        assert_eq!(seconds(&mut look, 3, works), None);
    }

    #[test]
    fn time_in_which_the_watchdog_did_not_run_accuses_nobody() {
        let stage = Arc::new(Heartbeat::new("worker0", 1));
        let mut look = Look::new(&[Arc::clone(&stage)], LIMIT);
        look.look(Duration::from_secs(3600));
        assert_eq!(look.verdicts.read(), [None]);
    }

    #[test]
    fn a_process_is_alive_while_a_writer_waits_for_its_disk_and_not_while_a_worker_or_the_engine_hangs() {
        let stages =
            ["worker0", "writer0", "publisher", "engine"].map(|name| Arc::new(Heartbeat::new(name, 1)));
        let mut look = Look::new(&stages, LIMIT);
        let mut alive = Alive::new(Arc::clone(&look.verdicts));
        for (held, lives) in
            [(None, true), (Some(1), true), (Some(2), true), (Some(0), false), (None, true), (Some(3), false)]
        {
            let others = stages.iter().enumerate().filter(|(at, _)| Some(*at) != held);
            let others: Vec<_> = others.map(|(_, stage)| stage).collect();
            seconds(&mut look, 4, || others.iter().for_each(|stage| stage.beat(1, 1)));
            let stalled = held.map(|at: usize| look.verdicts.read()[at].is_some());
            assert_eq!((alive.look(), stalled.unwrap_or(true)), (lives, true), "held: {held:?}");
            stages.iter().for_each(|stage| stage.done(1));
        }
    }

    #[test]
    fn a_watchdog_that_does_not_look_any_more_says_of_nothing_that_it_is_alive_unless_the_host_ends() {
        let stage = Arc::new(Heartbeat::new("worker0", 1));
        let mut look = Look::new(&[Arc::clone(&stage)], LIMIT);
        let mut alive = Alive::new(Arc::clone(&look.verdicts));
        assert!(!alive.look(), "it has not looked yet");
        look.look(PERIOD);
        assert_eq!([alive.look(), alive.look()], [true, false]);
        look.verdicts.ended.store(true, Ordering::Relaxed);
        assert!(alive.look());
    }
}
