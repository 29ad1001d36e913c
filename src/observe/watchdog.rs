//! The watchdog over the stages (threads). Owns the definition of no progress and its log; not the reaction.
//!
//! A stage is stalled when its heartbeat stops, or when work waits for it and none gets done: a writer whose disk never answers
//! loops on.
//!
//! Invariant: only time in which the watchdog itself ran counts, so a stopped process or a suspended host is no stall.

use crate::block::{Heartbeat, HeartbeatReading};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Between two looks. A look that is later by more than this counts for this much.
const PERIOD: Duration = Duration::from_millis(200);

/// The watchdog's verdict for each stage: why it is stalled, if it is.
#[derive(Debug, Default)]
pub struct Verdicts(Mutex<Vec<Option<String>>>);

impl Verdicts {
    /// One place for each stage, in the stages' order.
    #[must_use]
    pub fn read(&self) -> Vec<Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
        let verdicts = Arc::new(Verdicts(Mutex::new(vec![None; stages.len()])));
        Self { stages: stages.iter().map(watch).collect(), limit, clock: Duration::ZERO, verdicts }
    }

    fn look(&mut self, elapsed: Duration) {
        self.clock += elapsed.min(2 * PERIOD);
        let mut verdicts = Vec::with_capacity(self.stages.len());
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
            verdicts.push(verdict);
        }
        *self.verdicts.0.lock().unwrap_or_else(PoisonError::into_inner) = verdicts;
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
}
