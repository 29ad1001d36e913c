//! The recording that never ends. Owns when it is begun anew; not the ring (`history`), nor who looks back into it.
//!
//! What is in an open segment cannot be read. So when somebody looks back at the last seconds, the recording is begun
//! anew under another number, which makes the workers close all its segments, and the query waits until they are there.
//! Its place on the disk is made before, by somebody else: until then the recording before it goes on.
//!
//! Invariant: the recording has the last slot, and at most one place is being made for the next one.

use super::planes::Wanted;
use super::{Engine, Note};
use crate::history::{History, HistoryError};
use crate::limits::{CAPTURES_MAX, SIMPLE_SNAPLEN};
use crate::matcher::Filter;
use crate::spool::{Spool, SpoolCapture};
use crate::worker::{Attachment, Budget, Ended, Window};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The recording's slot; captures take theirs from the other end.
const SLOT: usize = CAPTURES_MAX - 1;
/// After a failure (quota, disk) the recording is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The recording.
pub(super) struct Recorder {
    history: Arc<History>,
    /// The number that workers record under.
    serial: u64,
    /// The number of the next recording, while its place is being made.
    next: Option<u64>,
    budget: Arc<Budget>,
    failed: Option<Instant>,
}

impl Recorder {
    pub fn new(history: Arc<History>) -> Self {
        let budget = Arc::new(Budget::new(None, None));
        // Until there is a recording, there is one to be tried again.
        budget.end(Ended::Revoked);
        Self { history, serial: 0, next: None, budget, failed: None }
    }

    pub fn history(&self) -> Arc<History> {
        Arc::clone(&self.history)
    }

    /// What was received up to now is in recordings below this number, if one is to begin; otherwise up to where the ring
    /// does not lag.
    pub fn newest(&self) -> u64 {
        self.next.unwrap_or(self.serial)
    }

    pub fn is_preparing(&self) -> bool {
        self.next.is_some()
    }
}

impl Engine {
    /// Has the recording begun, or begun anew; what it has so far then goes into the ring. One that is about to begin serves
    /// as well as one more.
    pub(super) fn record(&mut self) {
        let Some(recorder) = self.recorder.as_mut().filter(|r| !r.is_preparing()) else { return };
        if self.ending.is_some() {
            return;
        }
        self.last_serial += 1;
        let serial = self.last_serial;
        recorder.next = Some(serial);
        let (history, spool) = (recorder.history(), Arc::clone(&self.planes.spool));
        let (queues, budget) = (self.planes.queues.len(), Arc::new(Budget::new(None, None)));
        let (stopping, notes) = (Arc::clone(&budget), self.notes.0.clone());
        let made = tokio::task::spawn_blocking(move || prepare(&history, &spool, serial, queues, stopping));
        tokio::spawn(async move {
            let made = made.await.unwrap_or_else(|died| Err(HistoryError::Thread(io::Error::other(died))));
            let _engine_gone = notes.send(Note::Recordable { serial, budget, made });
        });
    }

    /// Has the workers record in the place that was made for it.
    pub(super) fn recordable(&mut self, serial: u64, budget: Arc<Budget>, made: Result<(), HistoryError>) {
        let Some(recorder) = &mut self.recorder else { return };
        (recorder.next, recorder.failed) = (None, None);
        match made {
            Ok(()) if self.ending.is_some() => self.planes.spool.forget(serial),
            Ok(()) => {
                (recorder.serial, recorder.budget) = (serial, Arc::clone(&budget));
                let config = recorder.history.config();
                let attachment = Attachment {
                    serial,
                    snaplen: SIMPLE_SNAPLEN,
                    window: Window::open(None),
                    budget,
                    sample: config.sample,
                    rotate: Some(config.segment),
                };
                self.roster.set(SLOT, Some(Wanted { filter: Filter::default(), scope: None, attachment }));
            }
            Err(error) => tracing::error!(%error, "the history's recording cannot be begun anew"),
        }
    }

    /// Looks after the recording: one that failed is tried again.
    pub(super) fn look_after_recording(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        if recorder.budget.ended().is_some() && !recorder.is_preparing() {
            let failed = *recorder.failed.get_or_insert_with(Instant::now);
            if failed.elapsed() >= RETRY {
                self.record();
            }
        }
    }

    /// Ends the recording: the workers close its segments.
    pub(super) fn end_recording(&mut self) {
        if self.recorder.is_some() {
            self.roster.set(SLOT, None);
        }
    }
}

/// Makes a recording's place. Waits for the disk.
fn prepare(
    history: &Arc<History>,
    spool: &Spool,
    serial: u64,
    queues: usize,
    budget: Arc<Budget>,
) -> Result<(), HistoryError> {
    let dir = history.open_dir(serial);
    let place = SpoolCapture {
        serial,
        dir: dir.clone(),
        merge: history.record(serial, queues)?,
        // What the spool says is said to the log by the closure below.
        events: mpsc::unbounded_channel().0,
        stop_workers: Box::new(move |failure| {
            if budget.ended().is_none() {
                tracing::error!(error = failure.message(), "the history is not recorded for a while");
            }
            budget.end(Ended::Revoked);
        }),
        refused: OnceLock::new(),
    };
    spool.register(place).map_err(|source| {
        spool.forget(serial);
        HistoryError::Dir { dir, source }
    })
}
