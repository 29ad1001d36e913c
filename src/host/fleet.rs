//! A node in its fleet: the way to the bus, and the parts of `node` that its roles need. Owns how a plan becomes these, and their end; what
//! they do is theirs.
//!
//! ```text
//!  role capture   engine ◀─ Agent ─┐
//!  role api       API ─▶ Front ────┼─▶ bus
//!                        Leads ────┘
//! ```
//!
//! Invariant: the host starts, captures and ends whether the bus is there or not.

use super::front::Behind;
use super::serve::ServeError;
use super::storage::{Storage, bucket_keys, contact_time_max};
use super::tasks::Tasks;
use crate::audit::Audit;
use crate::bus::Bus;
use crate::bus::nats::Nats;
use crate::config::{FleetPlan, Plan};
use crate::deliver::SigningKey;
use crate::engine::Handle;
use crate::fleet::settings::Settings;
use crate::node::{
    Agent, AgentConfig, AgentError, Buckets, FleetResults, Front, FrontConfig, Leads, LeadsConfig, Reach,
    spool_number,
};
use crate::observe::BusSource;
use crate::ownership::{BucketKeys, Ownership};
use crate::spool::{SpoolError, spool_id};
use crate::upload::Stores;
use crate::worker::Sample;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A customer of a simple capture waits for one small file.
const LATE_SIMPLE_MAX: Duration = Duration::from_secs(15);
/// At the end: how long the fleet is told what became of the host's parts. What is not told then, the next process tells.
const TELLING_MAX: Duration = Duration::from_secs(3);

/// A node's place in its fleet.
pub(super) struct Fleet {
    plan: FleetPlan,
    bus: Arc<dyn Bus>,
    /// Says that the node ends.
    stop: watch::Sender<bool>,
    /// Whether the agent has told everything.
    told: Option<watch::Receiver<bool>>,
    /// Of a node that serves the API.
    shown: Option<Shown>,
}

/// What an API node shows of its fleet.
#[derive(Clone)]
struct Shown {
    front: Front,
    keys: BucketKeys,
    ownership: Ownership,
}

/// How long a fleet waits for what.
fn settings(plan: &FleetPlan) -> Settings {
    let basis = Settings::default();
    Settings {
        late: plan.late,
        late_simple: plan.late.min(LATE_SIMPLE_MAX),
        late_max: basis.late_max.max(2 * plan.late),
        ..basis
    }
}

/// By which rules an API node accepts captures. Only for a plan with a fleet.
pub(super) fn front_config(plan: &Plan) -> FrontConfig {
    FrontConfig {
        settings: plan.fleet.as_ref().map_or_else(Settings::default, settings),
        simple_interval: plan.capture.simple_interval,
        full_per_account: plan.capture.full_per_account,
        simple_one_in: plan.capture.simple_sample.map_or(1, Sample::one_in),
    }
}

impl Fleet {
    /// Begins to connect; none without a bus. Within a runtime.
    ///
    /// # Errors
    /// The node's key or a server's address is of no use.
    pub async fn join(plan: &Plan) -> Result<Option<Self>, ServeError> {
        let (Some(fleet), Some(way)) = (&plan.fleet, plan.way()) else { return Ok(None) };
        let bus: Arc<dyn Bus> = Arc::new(Nats::connect(&way).await?);
        tracing::info!(
            fleet = fleet.name, node = way.node, serves = fleet.serves, captures = fleet.captures, servers = ?way.servers,
            "a node of a fleet"
        );
        let (plan, stop) = (fleet.clone(), watch::Sender::new(false));
        Ok(Some(Self { plan, bus, stop, told: None, shown: None }))
    }

    /// Takes parts of the fleet's captures from now on. `engine` has taken up what its spool has.
    ///
    /// # Errors
    /// What it accepted before cannot be read.
    pub fn capture(
        &mut self,
        plan: &Plan,
        storage: &Storage,
        engine: &Handle,
        tasks: &mut Tasks,
    ) -> Result<(), ServeError> {
        let home = &storage.spool.config().dir;
        let failed = |source| SpoolError::Dir { dir: home.clone(), source };
        let id = spool_id(home).map_err(failed)?.unwrap_or_default();
        let Some(site) = plan.site() else { return Ok(()) };
        let config = AgentConfig {
            fleet: self.plan.name.clone(),
            site,
            spool_id: spool_number(&id),
            keys: self.plan.assignment_keys.clone(),
            dir: plan.parts_dir(),
            simple_dir: storage.simple_dir(),
            settings: settings(&self.plan),
        };
        let agent = Agent::new(config, Arc::clone(&self.bus), engine.clone())?;
        self.told = Some(agent.has_told());
        tasks.spawn("fleet agent", agent.run(self.stop.subscribe()));
        Ok(())
    }

    /// Leads captures of the fleet, and shows all of them, from now on.
    ///
    /// # Errors
    /// A key cannot be read.
    pub fn serve(&mut self, plan: &Plan, stores: &Arc<Stores>, tasks: &mut Tasks) -> Result<(), ServeError> {
        let Some(path) = &self.plan.signing_key_file else { return Ok(()) };
        let key = Arc::new(SigningKey::load(path).map_err(ServeError::FleetKey)?);
        tracing::info!(
            public = key.public().to_hex(),
            "hosts know this node by its key: fleet.assignment_keys"
        );
        let buckets = Arc::new(Buckets::new(Arc::clone(&self.bus)));
        let (keys, within) = (bucket_keys(plan, buckets.clone())?, contact_time_max(plan));
        let ownership = Ownership::new(buckets, Arc::clone(stores), keys.clone(), within)
            .with_challenge_interval(plan.upload.challenge_interval);
        let reach = Reach { stores: Arc::clone(stores), keys: keys.clone(), within };
        let (fleet, settings) = (self.plan.name.clone(), settings(&self.plan));
        let config = LeadsConfig { fleet, key, reach: Some(reach.clone()), settings };
        let leads = Leads::new(config, Arc::clone(&self.bus)).ok_or(AgentError::Random)?;
        tasks.spawn("fleet leads", leads.run(self.stop.subscribe()));
        let front = Front::new(front_config(plan), Arc::clone(&self.bus)).reaching(reach);
        self.shown = Some(Shown { front, keys, ownership });
        Ok(())
    }

    /// What the API stands on, of a node that serves it.
    pub fn behind(&self, audit: Option<Audit>) -> Option<Behind> {
        let Shown { front, ownership, .. } = self.shown.clone()?;
        let results = Arc::new(FleetResults(Arc::clone(&self.bus)));
        Some(Behind { captures: Arc::new(front), results, ownership, history: None, audit })
    }

    /// What of it a reload changes.
    pub fn reloaded(&self) -> Option<(Front, BucketKeys)> {
        self.shown.clone().map(|shown| (shown.front, shown.keys))
    }

    /// Whether the bus is there.
    pub fn source(&self) -> BusSource {
        let bus = Arc::clone(&self.bus);
        BusSource {
            health: Box::new(move || bus.health().map_err(|away| away.to_string())),
            is_needed: self.plan.serves,
        }
    }

    /// Ends once the fleet knows what became of the host's parts, which have all ended, or that cannot be told now.
    pub async fn end(&self) {
        if let Some(mut told) = self.told.clone() {
            let telling = tokio::time::timeout(TELLING_MAX, told.wait_for(|told| *told));
            if !matches!(telling.await, Ok(Ok(_))) {
                tracing::warn!(
                    "the fleet does not know yet what became of this host's parts; the next start tells it"
                );
            }
        }
        self.stop.send_replace(true);
    }
}
