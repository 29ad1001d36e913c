//! The spool and the job store belong together. Owns that they are held to each other before a capture is taken up; what a spool's
//! name is, is `spool`'s.
//!
//! Invariant: no unfinished capture is taken up from a spool that is not the one it was written to.

use super::serve::ServeError;
use crate::config::Plan;
use crate::job::{Status, StopReason};
use crate::spool::{Spool, SpoolError, name_spool, standing};
use crate::store::{Embedded, JobStore};

/// Before the spool is opened, which would make its directory: refuses one that the store does not know, unless it is to be
/// taken for a new one.
///
/// # Errors
/// [`SpoolError::Identity`] with what to do; or what cannot be read.
pub(super) fn check(plan: &Plan, jobs: &Embedded, take_new: bool) -> Result<(), ServeError> {
    match standing(&plan.spool.dir, jobs.spool()?.as_deref()) {
        Err(SpoolError::Identity(_)) if take_new => Ok(()),
        stands => Ok(stands.map(drop)?),
    }
}

/// Once the spool is open: names it if it is new, and has the store know it. Captures of another spool end as failed, because an
/// empty one would end them as if they had seen nothing.
///
/// # Errors
/// When name or record cannot be written.
pub(super) fn settle(spool: &Spool, jobs: &Embedded) -> Result<(), ServeError> {
    let dir = &spool.config().dir;
    let id = name_spool(dir).map_err(|source| SpoolError::Dir { dir: dir.clone(), source })?;
    let known = jobs.spool()?;
    if known.as_deref() == Some(id.as_str()) {
        return Ok(());
    }
    if let Some(known) = known {
        for stored in jobs.unfinished()? {
            let mut job = stored.job;
            tracing::warn!(capture = %job.id, spool = known, "the capture ends as failed: its packets are in another spool");
            job.status = Status::Failed;
            job.stop_reason.get_or_insert(StopReason::Interrupted);
            job.error_message = Some(
                "this host lost the disk that held the packets of this capture; what was delivered before is whole"
                    .to_owned(),
            );
            job.keys = None;
            jobs.compare_and_set(stored.revision, &job)?;
        }
        tracing::warn!(spool = id, before = known, "a new spool is taken, as --new-spool says");
    } else {
        tracing::info!(spool = id, "the job store takes this spool as its own");
    }
    jobs.set_spool(&id)?;
    Ok(())
}
