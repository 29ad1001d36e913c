//! SIGHUP: the config is read again, and what of it may change takes effect while captures run. Owns the order of that; which keys
//! may change, `config` says.
//!
//! Whatever can fail is made before anything changes: the plan, the certificate, the ways to stores, the signing key. Then the engine
//! takes up the new settings, and after it the API, so that no request is let in for an account that the engine does not know.
//!
//! Invariant: a reload takes effect whole or not at all, and captures of accounts that stay lose no packet by it.

use super::audit;
use super::fleet::front_config;
use super::front;
use super::notify::Manager;
use super::serve::settings;
use super::storage::authority;
use crate::api::{ApiState, CurrentTerms};
use crate::audit::Audit;
use crate::config::{Changes, Plan, Problems};
use crate::dashboard::Sessions;
use crate::deliver::{KeyError, SigningKey};
use crate::engine::{Handle, Refusal};
use crate::history::History;
use crate::http::{Pair, Tls, TlsError};
use crate::job::AccountId;
use crate::named;
use crate::node::Front;
use crate::observe::{self, Reloads};
use crate::ownership::{BucketKeys, Ownership};
use crate::stamp::{Authority, StampError};
use crate::upload::{Stores, UploadError, Ways};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Between two reloads: a loop of signals must not keep the runtime busy.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// The file.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The file is none.
    #[error("{}: {source}", path.display())]
    File {
        /// The config.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Keys that need a restart.
    #[error("{} cannot change while trawl runs; restart it to use the new config, or take this back", .0.join(", "))]
    Fixed(Vec<String>),
    /// A file that is cut off, more likely than a host that nobody is to use.
    #[error(
        "the file has no [[account]], and the captures of all accounts would end; is it whole? To take all accounts out, restart"
    )]
    NoAccount,
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The ways to stores.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The key of manifests.
    #[error("manifest.signing_key_file: {0}")]
    SigningKey(#[from] KeyError),
    /// The time-stamping authority.
    #[error(transparent)]
    Stamp(#[from] StampError),
    /// The log.
    #[error(transparent)]
    Log(#[from] observe::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] Refusal),
    /// No line could tell of it.
    #[error("{0}: nothing is changed meanwhile")]
    Unrecorded(&'static str),
    /// A bug.
    #[error("reading the config died: this is a bug; keep the log")]
    Died,
}

/// What a plan needs of the disk, ready to be used.
struct Prepared {
    plan: Plan,
    changes: Changes,
    pair: Option<Pair>,
    ways: Ways,
    signing_key: Option<Arc<SigningKey>>,
    authority: Option<Arc<Authority>>,
}

/// What the reload of a config reaches beside the API.
pub(super) struct Reached {
    pub stores: Arc<Stores>,
    pub keys: Vec<BucketKeys>,
    pub history: Option<Arc<History>>,
    pub audit: Option<Audit>,
    pub engine: Option<Handle>,
    pub front: Option<Front>,
}

/// What the reload of a config reaches.
pub(super) struct Reloader {
    path: PathBuf,
    /// The plan that holds.
    plan: watch::Sender<Arc<Plan>>,
    tls: Option<Arc<Tls>>,
    stores: Arc<Stores>,
    keys: Vec<BucketKeys>,
    history: Option<Arc<History>>,
    ownership: Ownership,
    /// The engine of a host that captures.
    engine: Option<Handle>,
    /// Of a node that shows a fleet.
    front: Option<Front>,
    terms: CurrentTerms,
    sessions: Arc<Sessions>,
    manager: Arc<Manager>,
    reloads: Arc<Reloads>,
    audit: Option<Audit>,
}

impl Reloader {
    /// Of the config at `path`, which `plan` has read.
    pub fn new(
        (path, plan): (PathBuf, watch::Sender<Arc<Plan>>),
        reached: Reached,
        api: &ApiState,
        tls: Option<Arc<Tls>>,
        (manager, reloads): (Arc<Manager>, Arc<Reloads>),
    ) -> Self {
        let Reached { stores, keys, history, audit, engine, front } = reached;
        Self {
            path,
            plan,
            tls,
            stores,
            keys,
            history,
            ownership: api.ownership.clone(),
            engine,
            front,
            terms: api.terms.clone(),
            sessions: Arc::clone(&api.ui.sessions),
            manager,
            reloads,
            audit,
        }
    }

    /// Reads the config again each time that `asked` says so, for as long as it is polled.
    pub async fn run(self, asked: Arc<Notify>) {
        loop {
            asked.notified().await;
            self.manager.reloading();
            self.reload().await;
            self.manager.reloaded();
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn reload(&self) {
        let at = format!("{:.0}", Timestamp::now());
        match self.try_reload().await {
            Ok(changes) => {
                self.reloads.done(&at, &changes.live);
                audit::reloaded(self.audit.as_ref(), Ok(&changes.live)).await;
                tracing::info!(changed = ?changes.live, config = %self.path.display(), "SIGHUP: the config is read again");
            }
            Err(error) => {
                self.reloads.refused(&at, &error.to_string());
                audit::reloaded(self.audit.as_ref(), Err(&error.to_string())).await;
                tracing::error!(%error, config = %self.path.display(), "SIGHUP: the config is refused; the old one holds, and nothing changes");
            }
        }
    }

    async fn try_reload(&self) -> Result<Changes, ReloadError> {
        if let Some(why) = audit::refuses(self.audit.as_ref()) {
            return Err(ReloadError::Unrecorded(why));
        }
        let (path, now) = (self.path.clone(), Arc::clone(&self.plan.borrow()));
        let before = Arc::clone(&now);
        let prepared = tokio::task::spawn_blocking(move || prepare(&path, &now));
        let Prepared { plan, changes, pair, ways, signing_key, authority } =
            prepared.await.map_err(|_| ReloadError::Died)??;
        let plan = Arc::new(plan);
        observe::refilter(&plan.log)?;
        if let Some(engine) = &self.engine {
            engine.take_up(settings(&plan, (signing_key.clone(), authority))).await?;
        }
        if let Some(front) = &self.front {
            front.take_up(front_config(&plan));
        }
        if let Some(audit) = &self.audit {
            audit.sign_with(signing_key);
        }
        self.keys.iter().for_each(|keys| keys.require(plan.upload.proofs));
        self.ownership.set_challenge_interval(plan.upload.challenge_interval);
        self.stores.replace(ways);
        self.terms.replace(front::terms(&plan, self.history.as_ref()));
        self.terms.end_sessions(&self.sessions);
        if let (Some(tls), Some(pair)) = (&self.tls, pair) {
            tls.replace(pair);
        }
        tell_accounts(&before, &plan);
        self.plan.send_replace(plan);
        Ok(changes)
    }
}

/// Reads and makes all that a new plan needs. Waits for the disk.
fn prepare(path: &std::path::Path, now: &Plan) -> Result<Prepared, ReloadError> {
    // A pipe under its name would hold up this reload and every later one.
    named::open(path).map_err(|source| ReloadError::File { path: path.to_owned(), source })?;
    let plan = Plan::load(path)?.after(now);
    if plan.accounts.is_empty() && !now.accounts.is_empty() {
        return Err(ReloadError::NoAccount);
    }
    let changes = now.changes(&plan);
    if !changes.fixed.is_empty() {
        return Err(ReloadError::Fixed(changes.fixed));
    }
    let pair = plan.api.tls.as_ref().map(|(cert, key)| Pair::load(cert, key)).transpose()?;
    let ways = Ways::new(plan.upload.stores.clone())?;
    let signing_key = plan.manifest.signing_key_file.as_deref().map(SigningKey::load).transpose()?;
    let (signing_key, authority) = (signing_key.map(Arc::new), authority(&plan)?);
    Ok(Prepared { plan, changes, pair, ways, signing_key, authority })
}

fn tell_accounts(before_plan: &Plan, now_plan: &Plan) {
    let ids =
        |plan: &Plan| -> BTreeSet<AccountId> { plan.accounts.iter().map(|one| one.id.clone()).collect() };
    let (before, now) = (ids(before_plan), ids(now_plan));
    if before_plan.accounts.len() != now_plan.accounts.len() {
        tracing::info!(
            percent = now_plan.shares.account_percent,
            "an account's share of the spool (spool.account_percent; what the host chose holds until it is restarted)"
        );
    }
    for account in now.difference(&before) {
        tracing::info!(%account, "an account is new");
    }
    for account in before.difference(&now) {
        tracing::warn!(%account, "an account is gone: its captures end and are delivered, and nobody can ask for them");
    }
}
