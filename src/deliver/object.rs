//! One object on its way: the merge on its thread, and its output into the store. Owns their coupling; not which object begins when
//! (`lineup`), nor what follows a failure (`delivery`).
//!
//! Invariant: what is complete in the store had its leave for that. A failure leaves a checkpoint, if the store took a part.

use super::delivery::{Delivery, Shared, lock, on_disk};
use super::journal::Journal;
use super::lineup::Merged;
use super::pace::Pace;
use super::places::Pulse;
use super::relay::{self, Leave, Noted, relay};
use crate::block::take_what_is_left;
use crate::job::ObjectInfo;
use crate::merge::{Consumed, MergeError, Output, Start, Totals, run_object};
use crate::spool::Cut;
use crate::upload::{COUNTS, Checkpoint, ObjectStore, Pending, UploadError};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// Chunks between merge and store: with chunks of about 1 MiB, what one object holds in memory beside its parts.
const CHUNKS_WAITING: usize = 8;

/// An object that is made asks whether it may become visible. It may not if the reply's channel closes.
pub(super) struct Asked {
    pub number: u32,
    pub merged: Merged,
    pub reply: oneshot::Sender<()>,
}

/// Why an object is not complete.
#[derive(Debug)]
pub(super) enum Fate {
    Upload(UploadError),
    Merge(MergeError),
    /// There is no thread for the merge.
    Thread(io::Error),
    /// The merge died.
    Died,
}

/// What the objects of one attempt share.
#[derive(Clone)]
pub(super) struct Work<'a> {
    pub delivery: &'a Delivery,
    pub store: &'a dyn ObjectStore,
    pub journal: Shared,
    pub pulse: Pulse,
    /// Segments that are taken as far as they can be read.
    pub damaged: HashSet<PathBuf>,
    /// The first object of the attempt.
    pub first: u32,
    /// Below this number the store may have objects that nobody recorded.
    pub begun_below: u32,
    /// Who has it waits for room beside captures: all objects of a delivery have one turn.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    pub leaving: watch::Receiver<bool>,
    pub asked: mpsc::UnboundedSender<Asked>,
}

/// What a merge makes, and how it ends.
type Merging = (mpsc::Receiver<Output>, oneshot::Receiver<Result<Totals, MergeError>>);

impl<'a> Work<'a> {
    /// Makes and sends the object that begins at `start`, and ends at `until` if it ended there before; its number, and the object
    /// once it is complete in the store.
    pub async fn object(
        self,
        (start, until): (Start, Option<Vec<Cut>>),
        kept: Option<Checkpoint>,
        stopped: oneshot::Receiver<()>,
    ) -> (u32, Result<(ObjectInfo, Consumed), Fate>) {
        let number = start.object;
        (number, self.send((start, until), kept, stopped).await)
    }

    async fn send(
        self,
        (start, until): (Start, Option<Vec<Cut>>),
        kept: Option<Checkpoint>,
        stopped: oneshot::Receiver<()>,
    ) -> Result<(ObjectInfo, Consumed), Fate> {
        let (delivery, number) = (self.delivery, start.object);
        let mut leaving = self.leaving.clone();
        let mut leave: Leave<'_> = Box::pin(async move {
            tokio::select! {
                _told_or_gone = leaving.wait_for(|leaving| *leaving) => {}
                _told_or_gone = stopped => {}
            }
        });
        let (merged, outcome) = self.merge(start, until)?;
        let (passed, guarded) = mpsc::channel(1);
        let probed = Arc::clone(&self.journal);
        let probe = move || lock(&probed).probe();
        let pace = (Arc::clone(&delivery.pace), self.pulse.clone(), Arc::clone(&self.turn));
        let guard = tokio::spawn(guard(merged, passed, probe, pace));
        let (store, format) = (self.store, delivery.shape.format);
        let mut sink = Sink { work: self, number, kept, complete: None };
        let object = (format, number);
        let delivered = relay((store, &delivery.part), object, guarded, &mut sink, None, &mut leave).await;
        let complete = sink.complete;
        if let Ok(Err(source)) = guard.await {
            return Err(Fate::Upload(delivery.unwritable(source)));
        }
        match (delivered, complete) {
            (Ok(()), Some(complete)) => Ok(complete),
            (Err(error), _) if !matches!(error, UploadError::Interrupted { .. }) => Err(Fate::Upload(error)),
            // A merge that failed closed the channel, which is told as an interruption: the cause is the merge's.
            (delivered, _) => match outcome.await {
                Ok(Err(error)) => Err(Fate::Merge(error)),
                Err(_gone) => Err(Fate::Died),
                Ok(Ok(_)) => {
                    let interrupted = UploadError::Interrupted { object: number as usize };
                    Err(Fate::Upload(delivered.err().unwrap_or(interrupted)))
                }
            },
        }
    }

    /// Starts the merge on a thread of its own: what it makes, and how it ends.
    fn merge(&self, start: Start, until: Option<Vec<Cut>>) -> Result<Merging, Fate> {
        let delivery = self.delivery;
        let (outputs, merged) = mpsc::channel(CHUNKS_WAITING);
        let (report, outcome) = oneshot::channel();
        let (shape, damaged) = (delivery.shape.clone(), self.damaged.clone());
        let inputs = delivery.feed.listen_from(&start.cuts, shape.object_bytes_needed());
        let cores = Arc::clone(&delivery.cores);
        // Where the first one begins a disk has said.
        let jumps = start.object != self.first;
        let merge = move || {
            // Packets that come now go before packets that are safe in the spool.
            let _refused_costs_speed_only = take_what_is_left();
            let _anywhere_then = stay_on(&cores);
            let merged = run_object(&start, &shape, (damaged, jumps), until, inputs, outputs);
            let _deliverer_gone = report.send(merged);
        };
        let thread = std::thread::Builder::new().name("merge".to_owned()).spawn(merge);
        thread.map_err(Fate::Thread)?;
        Ok((merged, outcome))
    }

    /// Forgets what the store holds of an object.
    pub fn forget(&self, number: u32) {
        let journal = Arc::clone(&self.journal);
        drop(tokio::task::spawn_blocking(move || lock(&journal).forget(number)));
    }
}

/// Keeps the calling thread, and those that it starts, on these cores.
fn stay_on(cores: &[usize]) -> io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Where an object's progress is written down.
struct Sink<'a> {
    work: Work<'a>,
    number: u32,
    /// What the store holds of it.
    kept: Option<Checkpoint>,
    complete: Option<(ObjectInfo, Consumed)>,
}

impl Sink<'_> {
    /// The store confirmed something.
    fn confirmed(&self) {
        self.work.pulse.beat();
        COUNTS.confirmed();
    }

    fn note(&self, note: impl FnOnce(&mut Journal) + Send + 'static) -> Noted<'_> {
        let journal = Arc::clone(&self.work.journal);
        Box::pin(async move {
            // A journal that cannot be written says so itself.
            let _noted = on_disk(move || {
                note(&mut lock(&journal));
                Ok(())
            })
            .await;
        })
    }
}

impl relay::DeliveryRecord for Sink<'_> {
    fn complete(&mut self, info: ObjectInfo, consumed: Consumed) -> Pending<'_, ()> {
        self.confirmed();
        self.complete = Some((info, consumed));
        Box::pin(std::future::ready(Ok(())))
    }

    fn keeps(&self) -> bool {
        true
    }

    fn frees(&self) -> bool {
        !self.work.delivery.spool.recycles()
    }

    fn kept(&self, _number: u32) -> Option<Checkpoint> {
        self.kept.clone()
    }

    fn keep(&mut self, number: u32, checkpoint: Checkpoint) -> Noted<'_> {
        self.confirmed();
        self.note(move |journal| journal.keep(number, checkpoint))
    }

    fn forget(&mut self, number: u32) -> Noted<'_> {
        self.note(move |journal| journal.forget(number))
    }

    fn may_be_there(&self, number: u32, _first: bool) -> bool {
        number < self.work.begun_below
    }

    fn may_finish<'a>(&'a mut self, consumed: &'a Consumed) -> Pending<'a, ()> {
        let (reply, replied) = oneshot::channel();
        let asked = Asked { number: self.number, merged: Merged::of(consumed), reply };
        let _not_replied_then = self.work.asked.send(asked);
        Box::pin(async move { replied.await.map_err(|_refused| UploadError::Displaced) })
    }
}

/// Passes on what a merge makes: a chunk only when captures leave room for it, an object's end only while the journal can be
/// written. On a disk that fails the merge has not all that a repair brings back, and completing a truncated object without
/// journalling it would block the whole one after the repair.
pub(super) async fn guard(
    mut merged: mpsc::Receiver<Output>,
    passed: mpsc::Sender<Output>,
    probe: impl Fn() -> io::Result<()> + Send + 'static,
    (pace, pulse, turn): (Arc<Pace>, Pulse, Arc<tokio::sync::Mutex<()>>),
) -> io::Result<()> {
    let probe = Arc::new(Mutex::new(probe));
    loop {
        let output = tokio::select! {
            output = merged.recv() => output,
            // Nobody takes it, and the merge may wait for packets that never come.
            () = passed.closed() => None,
        };
        let Some(output) = output else { break };
        if matches!(output, Output::Chunk(_)) {
            // The merge stands back too, once what is between it and this is full. Standing back is no sign of a store that hangs.
            let room = async {
                let _turn = turn.lock().await;
                pace.turn(|| pulse.beat()).await;
            };
            tokio::select! {
                () = room => {}
                () = passed.closed() => break,
            }
        }
        if matches!(output, Output::End(..)) {
            let probe = Arc::clone(&probe);
            let probed =
                tokio::task::spawn_blocking(move || (probe.lock().unwrap_or_else(PoisonError::into_inner))());
            probed.await.unwrap_or(Ok(()))?;
        }
        if passed.send(output).await.is_err() {
            break;
        }
    }
    Ok(())
}
