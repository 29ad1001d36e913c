//! A node that serves the API of a fleet and captures nothing: no DPDK, ports, blocks or spool. Owns the order of its start and end.
//!
//! Invariant: it keeps nothing on its own disk but its log of who did what, so that any other one can take its place.

use super::audit;
use super::fleet::Fleet;
use super::front;
use super::observation::{Observation, Viewers};
use super::reload::{Reached, Reloader};
use super::sandbox;
use super::serve::{self, Doors, ServeError, end_in};
use super::signals::{Heard, Signals};
use super::tasks::Tasks;
use crate::api;
use crate::audit::Audit;
use crate::config::Plan;
use crate::deliver::SigningKey;
use crate::upload::Stores;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};

/// How long an orderly end waits for threads that wait for a disk.
const LAST_READS_MAX: Duration = Duration::from_secs(2);

/// What outlives a connection.
struct Kept {
    stores: Arc<Stores>,
    audit: Option<Audit>,
}

/// Runs it until a signal ends it.
///
/// # Errors
/// When it could not start.
pub(super) fn serve(
    heard: Heard,
    (plan, path): (&Plan, PathBuf),
    runtime: Runtime,
    doors: Doors,
) -> Result<(), ServeError> {
    let stores = Arc::new(Stores::new(plan.upload.stores.clone())?);
    let signing_key = plan.manifest.signing_key_file.as_deref().map(SigningKey::load).transpose()?;
    let kept = Kept { stores, audit: audit::start(plan, signing_key.map(Arc::new), None)? };
    // All threads that begin at the start are there; later ones inherit it.
    sandbox::enter();
    let result = runtime.block_on(run(heard, (plan, path), doors, &kept));
    if let Err(error) = &result {
        tracing::error!(%error, "the node ends");
        end_in(serve::LAST_TIME_MAX);
    }
    audit::ended(kept.audit.as_ref(), result.as_ref().err().map(ToString::to_string).as_deref());
    runtime.shutdown_timeout(LAST_READS_MAX);
    tracing::info!("ended");
    result
}

async fn run(
    heard: Heard,
    (plan, path): (&Plan, PathBuf),
    doors: Doors,
    kept: &Kept,
) -> Result<(), ServeError> {
    let Doors { api: Some(listener), observed, tls } = doors else { return Ok(()) };
    let hang_up = Arc::new(Notify::new());
    let mut signals = Signals::take(heard, Arc::clone(&hang_up))
        .map_err(|source| ServeError::System { doing: "take signals", source })?;
    let mut tasks = Tasks::default();
    let Some(mut fleet) = Fleet::join(plan).await? else { return Ok(()) };
    fleet.serve(plan, &kept.stores, &mut tasks)?;
    let mut observation = Observation::of_api(plan, observed, kept.audit.clone())
        .map_err(|source| ServeError::System { doing: "start the watchdog", source })?;
    observation.reach(fleet.source());
    let listen = listener.local_addr().unwrap_or(plan.api.listen);
    let ui = front::ui(plan, tls.is_some(), listen);
    let viewers = Viewers { live: Arc::clone(&ui.live), streams: Arc::clone(&ui.streams) };
    let live = Arc::clone(&ui.live);
    let Some(behind) = fleet.behind(kept.audit.clone()) else { return Ok(()) };
    let state = front::state(plan, behind, ui);
    let (front, keys) = fleet.reloaded().unzip();
    let reached = Reached {
        stores: Arc::clone(&kept.stores),
        keys: keys.into_iter().collect(),
        history: None,
        audit: kept.audit.clone(),
        engine: None,
        front,
    };
    let plans = watch::Sender::new(Arc::new(plan.clone()));
    let told = observation.of_reloads();
    let reloader = Reloader::new((path, plans), reached, &state, tls.clone(), told);
    let router = observation.counted(state.terms.clone(), api::router(state));
    let observation = observation.serve(None, viewers, &mut tasks);
    let end_api = serve::open_api(listener, front::door(plan, router, tls), &mut tasks);
    let reload = tasks.spawn("reload", reloader.run(hang_up));
    tracing::info!(%listen, host = plan.host.id, "ready");
    let signal = tokio::select! {
        signal = signals.end() => signal,
        died = tasks.died() => return Err(died),
    };
    observation.begin(signal);
    audit::stops(kept.audit.as_ref(), signal);
    tracing::info!(signal, "ending: other nodes take over what this one leads");
    fleet.end().await;
    reload.abort();
    live.end();
    drop(end_api);
    observation.finish();
    tasks.finish(plan.api.request_timeout + serve::LAST_TIME_MAX).await
}
