//! What the host itself has to say in the audit log: its start and end, the captures that it finds, reloads, copies of the store. Owns
//! these lines; not the log, nor what requests leave there (`api`).

use crate::audit::{Audit, AuditError, Entry, Outcome};
use crate::config::Plan;
use crate::deliver::SigningKey;
use crate::store::{Embedded, JobStore as _};
use serde_json::json;
use std::sync::Arc;

/// Starts the log, if the config has one. Its first lines say that the process started, and which captures it found that had not ended:
/// one whose request was never answered, because the last process died, has no other line.
///
/// # Errors
/// When there can be no log.
pub(super) fn start(
    plan: &Plan,
    signing_key: Option<Arc<SigningKey>>,
    jobs: Option<&Embedded>,
) -> Result<Option<Audit>, AuditError> {
    let Some(config) = plan.audit.clone() else { return Ok(None) };
    let audit = Audit::start(config, plan.host.id.clone(), signing_key)?;
    let about =
        json!({"version": env!("CARGO_PKG_VERSION"), "pid": std::process::id(), "colo": plan.host.colo});
    audit.tell(Entry::new("process.start").with(about));
    let Some(jobs) = jobs else { return Ok(Some(audit)) };
    match jobs.unfinished() {
        Ok(found) => {
            for job in found.into_iter().map(|stored| stored.job) {
                let about = json!({"status": job.status, "submitted": job.submitted});
                let (account, id) = (Some(job.request.account.0), Some(job.id.to_string()));
                audit.tell(Entry { account, id, ..Entry::new("capture.find") }.with(about));
            }
        }
        // Who needs the store finds out too, and ends the process.
        Err(error) => tracing::warn!(%error, "the audit log does not say which captures were found"),
    }
    Ok(Some(audit))
}

/// A signal that ends the process came.
pub(super) fn stops(audit: Option<&Audit>, signal: &str) {
    if let Some(audit) = audit {
        audit.tell(Entry::new("process.stop").with(json!({"signal": signal})));
    }
}

/// Why nothing may be changed or handed out, if `audit.required` says so.
pub(super) fn refuses(audit: Option<&Audit>) -> Option<&'static str> {
    let is_refused = audit.is_some_and(Audit::refuses);
    is_refused.then_some("the audit log cannot be written, and audit.required is set")
}

/// The config was read again, or was not: these keys changed, or this is why. Waits until that is durable.
pub(super) async fn reloaded(audit: Option<&Audit>, keys: Result<&[String], &str>) {
    let Some(audit) = audit else { return };
    let recorded = audit.record(match keys {
        Ok(keys) => Entry::new("config.reload").with(json!({"keys": keys})),
        Err(error) => {
            let entry = Entry { result: Outcome::Refused, ..Entry::new("config.reload") };
            entry.with(json!({"error": error}))
        }
    });
    if let Err(error) = recorded.await {
        tracing::error!(%error, "a reload has no line yet");
    }
}

/// Somebody on this host takes a copy of the job store. Waits until that is durable.
///
/// # Errors
/// When it is not, and `audit.required` says that nothing may be handed out then.
pub(super) async fn copied(audit: Option<&Audit>, uid: Option<u32>, outcome: Outcome) -> Result<(), String> {
    let Some(audit) = audit else { return Ok(()) };
    let entry = Entry { result: outcome, ..Entry::new("store.backup") };
    let recorded = audit.record(entry.with(json!({"uid": uid}))).await;
    if audit.is_required() { recorded.map_err(|error| error.to_string()) } else { Ok(()) }
}

/// The process ends.
pub(super) fn ended(audit: Option<&Audit>, error: Option<&str>) {
    let Some(audit) = audit else { return };
    audit.end(match error {
        None => Entry::new("process.end"),
        Some(error) => {
            let entry = Entry { result: Outcome::Failed, ..Entry::new("process.end") };
            entry.with(json!({"error": error}))
        }
    });
}
