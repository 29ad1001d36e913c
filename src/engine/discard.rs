//! The removal of what was not delivered, by decision. Owns the files' end and what the job then says; the decision is the
//! machine's.
//!
//! Invariant: a job that says that its packets are on the host is put right before they go.

use super::Engine;
use super::machine::{Input, Serial, gone};
use super::tasks::removal_died;
use crate::deliver::discard;
use crate::job::{AccountId, CaptureId};
use crate::store::{JobStore, StoreError};
use std::sync::Arc;

/// Attempts to put a job right: somebody else may write it meanwhile.
const ATTEMPTS: u32 = 3;

impl Engine {
    /// Removes the directory of a capture that was given up.
    pub(super) fn discard_dir(&self, serial: Serial) {
        self.tell_part(serial);
        let Some(capture) = self.machine.capture(serial) else { return };
        let spool = Arc::clone(&self.planes.spool);
        let dir = spool.config().dir.join(capture.job.id.as_str());
        let task = move || {
            let result = discard(&spool, &dir).map_err(|error| format!("{}: {error}", dir.display()));
            spool.forget(serial);
            let kept = spool.bytes_left(&dir);
            Input::Removed { serial, result, kept }
        };
        self.spawn_blocking(task, removal_died(serial));
    }

    /// Removes what an ended capture left, once its job says so.
    pub(super) fn drop_kept(&self, account: AccountId, id: CaptureId, why: String) {
        let (spool, jobs) = (Arc::clone(&self.planes.spool), Arc::clone(&self.planes.jobs));
        let dir = spool.config().dir.join(id.as_str());
        let of_a_death = id.clone();
        let task = move || {
            let said = say(&*jobs, &account, &id, &why).map_err(|error| error.to_string());
            let result = said
                .and_then(|()| discard(&spool, &dir).map_err(|error| format!("{}: {error}", dir.display())));
            Input::KeptDropped { id, result }
        };
        self.spawn_blocking(task, move |error| Input::KeptDropped { id: of_a_death, result: Err(error) });
    }
}

/// Has the job say that its packets are gone, and why.
fn say(jobs: &dyn JobStore, account: &AccountId, id: &CaptureId, why: &str) -> Result<(), StoreError> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        // One that was pruned needs no word.
        let Some(stored) = jobs.get(account, id)? else { return Ok(()) };
        let mut job = stored.job;
        job.error_message = Some(gone(job.error_message.as_deref().unwrap_or_default(), id, why));
        match jobs.compare_and_set(stored.revision, &job) {
            Err(StoreError::Stale { .. }) if left > 0 => {}
            written => return written.map(drop),
        }
    }
}
