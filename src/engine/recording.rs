//! What the recording needs of disk and workers. Owns its places and its assignment; when it is replaced is the machine's.
//!
//! Invariant: the recording has the last slot.

use super::Engine;
use super::machine::{Input, Serial};
use super::roster::Desired;
use crate::history::{History, HistoryError};
use crate::job::Request;
use crate::limits::{CAPTURES_MAX, SIMPLE_SNAPLEN};
use crate::matcher::Filter;
use crate::spool::{Failure, Spool, SpoolCapture};
use crate::worker::{Attachment, Budget, Ended, Payer, Window};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The recording's slot; captures take theirs from the other end.
const SLOT: usize = CAPTURES_MAX - 1;

/// The history, and the budgets of recordings whose place is being made.
pub(super) struct Recorder {
    pub history: Arc<History>,
    budgets: BTreeMap<Serial, Arc<Budget>>,
}

impl Recorder {
    pub fn new(history: Arc<History>) -> Self {
        Self { history, budgets: BTreeMap::new() }
    }
}

impl Engine {
    /// Whether the history lacks the newest packets of the time that is asked for.
    pub(super) fn history_lags(&self, request: &Request) -> bool {
        let (Some(recorder), Some(offset)) = (&self.recording, &request.offset_time) else { return false };
        recorder.history.lags(u64::try_from(offset.at.as_nanosecond()).unwrap_or(0))
    }

    pub(super) fn place_recording(&mut self, serial: Serial) {
        let Some(recorder) = &mut self.recording else { return };
        let budget = Arc::new(Budget::new(None, None));
        recorder.budgets.insert(serial, Arc::clone(&budget));
        let (history, spool) = (Arc::clone(&recorder.history), Arc::clone(&self.planes.spool));
        let (queues, tasks) = (self.planes.queues.len(), self.tasks.0.clone());
        let task = move || {
            let made = prepare(&history, &spool, serial, queues, budget, tasks);
            Input::RecordingPlaced { serial, made: made.map_err(|error| error.to_string()) }
        };
        self.spawn_blocking(task, move |error| Input::RecordingPlaced { serial, made: Err(error) });
    }

    pub(super) fn attach_recording(&mut self, serial: Serial) {
        let Some(recorder) = &mut self.recording else { return };
        let Some(budget) = recorder.budgets.remove(&serial) else { return };
        recorder.budgets.clear();
        let config = recorder.history.config();
        let attachment = Attachment {
            serial,
            payer: Payer::HOST,
            snaplen: SIMPLE_SNAPLEN,
            window: Window::open(None),
            budget,
            sample: config.sample,
            rotate: Some(config.segment),
        };
        self.assignments.set(SLOT, Some(Desired { filter: Filter::default(), scope: None, attachment }));
    }

    /// The workers close its segments.
    pub(super) fn detach_recording(&mut self) {
        if self.recording.is_some() {
            self.assignments.set(SLOT, None);
        }
    }

    pub(super) fn forget_recording(&mut self, serial: Serial) {
        if let Some(recorder) = &mut self.recording {
            recorder.budgets.remove(&serial);
        }
        let spool = Arc::clone(&self.planes.spool);
        tokio::task::spawn_blocking(move || spool.forget(serial));
    }
}

/// Makes a recording's place. Waits for the disk.
fn prepare(
    history: &Arc<History>,
    spool: &Spool,
    serial: Serial,
    queues: usize,
    budget: Arc<Budget>,
    tasks: mpsc::UnboundedSender<Input>,
) -> Result<(), HistoryError> {
    let dir = history.open_dir(serial);
    let stop = Box::new(move |failure: &Failure| {
        if budget.ended().is_none() {
            tracing::error!(error = failure.message(), "the history is not recorded for a while");
        }
        budget.end(Ended::Revoked);
        let _engine_gone = tasks.send(Input::RecordingFailed { serial });
    });
    // The closure tells the engine and the log.
    let (feed, events) = (history.record(serial, queues)?, mpsc::unbounded_channel().0);
    // The ring takes its segments by their names, so all of them are on its file system.
    let place = SpoolCapture::new(serial, dir.clone(), 1, feed, events, stop);
    spool.register(place).map_err(|source| {
        spool.forget(serial);
        HistoryError::Dir { dir, source }
    })
}
