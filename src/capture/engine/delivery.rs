//! From published segments to the last object: the live merge on its thread, and the task that brings its output into the
//! store. Owns their coupling; not when a capture ends.
//!
//! Invariant: a segment is freed only after the objects that hold its packets are complete in the store.

use super::Note;
use crate::capture::{CaptureId, ObjectInfo};
use crate::merge::{self, Input};
use crate::spool::Spool;
use crate::upload::{self, ObjectStore};
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Chunks between merge and store: with chunks of about 1 MiB, what one capture holds in memory.
const CHUNKS_WAITING: usize = 8;

/// What a delivery needs to know.
pub(super) struct Delivery {
    pub serial: u64,
    pub id: CaptureId,
    pub queues: usize,
    pub snaplen: u32,
    pub object_bytes_max: u64,
    pub store: Arc<dyn ObjectStore>,
    pub spool: Arc<Spool>,
    pub notes: mpsc::UnboundedSender<Note>,
}

impl Delivery {
    /// Starts both sides; the merge takes its inputs from the returned channel until every queue has ended.
    pub fn start(self) -> Sender<Input> {
        let (inputs, merge_inputs) = unbounded();
        tokio::spawn(self.deliver(merge_inputs));
        inputs
    }

    async fn deliver(self, inputs: Receiver<Input>) {
        let (outputs, merged) = mpsc::channel(CHUNKS_WAITING);
        let (report, outcome) = oneshot::channel();
        let (queues, snaplen, object_bytes_max) = (self.queues, self.snaplen, self.object_bytes_max);
        let thread = std::thread::Builder::new().name("merge".to_owned()).spawn(move || {
            let _deliverer_gone =
                report.send(merge::run_live(queues, snaplen, object_bytes_max, inputs, outputs));
        });
        if let Err(e) = thread {
            self.done(Err(format!("cannot start the merge thread: {e}")));
            return;
        }
        let delivered = upload::deliver(&*self.store, &self.id, merged, |info, segments| {
            self.object(info, segments);
        })
        .await;
        // A merge that failed closed the channel, which delivery reports as an interruption: the cause is the merge's.
        let result = match (outcome.await, delivered) {
            (_, Err(e)) if !matches!(e, upload::UploadError::Interrupted { .. }) => Err(e.to_string()),
            (Ok(Err(e)), _) => Err(e.to_string()),
            (Err(_), _) => Err("the merge thread died".to_owned()),
            (Ok(Ok(_)), Err(e)) => Err(e.to_string()),
            (Ok(Ok(_)), Ok(_)) => Ok(()),
        };
        self.done(result);
    }

    fn object(&self, info: ObjectInfo, segments: Vec<std::path::PathBuf>) {
        let spool = Arc::clone(&self.spool);
        tokio::task::spawn_blocking(move || {
            for segment in segments {
                if let Err(error) = spool.free(&segment) {
                    tracing::warn!(segment = %segment.display(), %error, "a delivered segment could not be freed");
                }
            }
        });
        let _engine_gone = self.notes.send(Note::Object { serial: self.serial, info });
    }

    fn done(&self, result: Result<(), String>) {
        let _engine_gone = self.notes.send(Note::Delivered { serial: self.serial, result });
    }
}
