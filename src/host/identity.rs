//! The spool and the job store belong together. Owns that they are held to each other before a capture is taken up; what a spool's
//! name is, is `spool`'s.
//!
//! The store has the names of all directories of the spool in one text, with spaces between them, the home's first.
//!
//! Invariant: no unfinished capture is taken up from a spool that is not the one it was written to.

use super::serve::ServeError;
use crate::config::Plan;
use crate::job::{Status, StopReason};
use crate::spool::{Spool, SpoolError, name_spool, standing_of_all};
use crate::store::{Embedded, JobStore};

/// Before the spool is opened, which would make its directories: refuses one that the store does not know, unless it is to be
/// taken for a new one.
///
/// # Errors
/// [`SpoolError::Identity`] with what to do; or what cannot be read.
pub(super) fn check(plan: &Plan, jobs: &Embedded, take_new: bool) -> Result<(), ServeError> {
    let (known, dirs) = (jobs.spool()?.unwrap_or_default(), plan.spool.dirs().collect::<Vec<_>>());
    match standing_of_all(&dirs, &known.split_whitespace().collect::<Vec<_>>()) {
        Err(SpoolError::Identity(_)) if take_new => Ok(()),
        stands => Ok(stands?),
    }
}

/// Once the spool is open: names what of it is new, and has the store know it. Captures of another home end as failed, because an
/// empty one would end them as if they had seen nothing; without another directory they go on with what they have.
///
/// # Errors
/// When name or record cannot be written.
pub(super) fn settle(spool: &Spool, jobs: &Embedded) -> Result<(), ServeError> {
    let name = |dir: &std::path::Path| {
        name_spool(dir).map_err(|source| SpoolError::Dir { dir: dir.to_owned(), source })
    };
    let ids = spool.disks().iter().map(|disk| name(disk.dir())).collect::<Result<Vec<_>, _>>()?;
    let (home, all) = (ids[0].as_str(), ids.join(" "));
    let known = jobs.spool()?;
    if known.as_deref() == Some(all.as_str()) {
        return Ok(());
    }
    let names: Vec<_> = known.iter().flat_map(|known| known.split_whitespace()).collect();
    match names.first() {
        Some(first) if *first != home => {
            end_all(jobs, first)?;
            tracing::warn!(
                spool = all,
                before = known.as_deref(),
                "a new spool is taken, as --new-spool says"
            );
        }
        Some(_) => match names.iter().find(|name| !ids.iter().any(|id| id.as_str() == **name)) {
            Some(missing) => tracing::warn!(
                spool = all,
                missing = *missing,
                "the spool goes on without a directory, as --new-spool says: what captures had there is missing from them"
            ),
            None => tracing::info!(
                spool = all,
                before = known.as_deref(),
                "the spool has other directories beside those that it had"
            ),
        },
        None => tracing::info!(spool = all, "the job store takes this spool as its own"),
    }
    jobs.set_spool(&all)?;
    Ok(())
}

fn end_all(jobs: &Embedded, known: &str) -> Result<(), ServeError> {
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
    Ok(())
}
