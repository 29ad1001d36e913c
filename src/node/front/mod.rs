//! What an API node shows of a fleet: captures of all hosts as one. Owns how an account's requests become records, and records answers;
//! leads and hosts do the rest.
//!
//! ```text
//!  create ─▶ registry: which hosts ─▶ account (compare-and-set: accepted) ─▶ job ─▶ a lead
//!  get, list, progress ◀── job, account, parts ◀─ bus ─▶ heartbeats, counts up to now
//! ```
//!
//! Invariant: a capture is accepted by one write of its account's record, and what was accepted is in every answer from then on, or the
//! answer is that the bus is away.

mod account;
mod beats;
mod reach;
mod show;

use super::keys::{account_key, id_of_job_key, job_key};
use super::registry::Registry;
use super::wire::{Accepted, AccountRecord, Active, JobRecord, PartRecord};
use super::{leads, now, random};
use crate::api::{Answer as Answering, Captures};
use crate::bus::{Away, Bus, Table};
use crate::engine::{Asked, Estimate, Listed, Refusal, Standing, Wanted};
use crate::fleet::held::{Answer, Revision};
use crate::fleet::record::{Job as FleetJob, Phase};
use crate::fleet::settings::Settings;
use crate::fleet::shares::Amount;
use crate::fleet::wire::Wire;
use crate::fleet::{Kind as FleetKind, Window};
use crate::job::{AccountId, BucketTerms, CaptureId, Job, KeptSeries, Kind, ObjectRange, Progress, Request};
use crate::limits::LIST_CAPTURES_MAX;
use crate::matcher::Filter;
use beats::Beats;
use jiff::Timestamp;
pub use reach::Reach;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// So many times a write is tried again that another one came before.
const TRIES: u32 = 8;
/// Between two of them, and times as many as were.
const PAUSE: Duration = Duration::from_millis(20);

/// By which rules captures are accepted.
#[derive(Clone, Copy, Debug)]
pub struct FrontConfig {
    /// How long what is waited for.
    pub settings: Settings,
    /// Between two simple captures of an account.
    pub simple_interval: Duration,
    /// Full captures of an account that take packets.
    pub full_per_account: usize,
    /// Hosts consider one in so many packets of a simple capture at first.
    pub simple_one_in: u32,
}

/// The front.
#[derive(Clone)]
pub struct Front {
    /// Of all clones.
    config: Arc<RwLock<FrontConfig>>,
    /// How destinations are tried out; they are not where there is none.
    reach: Option<Reach>,
    bus: Arc<dyn Bus>,
    beats: Beats,
}

fn away(why: impl ToString) -> Refusal {
    Refusal::FleetAway(why.to_string())
}

/// A record as it is on the bus now, if it is there.
type Known<T> = Option<(Revision, Wire<T>)>;

impl Front {
    /// Of a node that listens to heartbeats from now on.
    #[must_use]
    pub fn new(config: FrontConfig, bus: Arc<dyn Bus>) -> Self {
        let beats = Beats::listen(Arc::clone(&bus), config.settings.heartbeat);
        Self { config: Arc::new(RwLock::new(config)), reach: None, bus, beats }
    }

    /// The same that tries out destinations before a capture is accepted.
    #[must_use]
    pub fn reaching(self, reach: Reach) -> Self {
        Self { reach: Some(reach), ..self }
    }

    /// By these rules from now on, also clones of this.
    pub fn take_up(&self, config: FrontConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn config(&self) -> FrontConfig {
        *self.config.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        table: Table,
        key: &str,
    ) -> Result<Known<T>, Refusal> {
        match self.bus.read(table, key).await {
            Answer::Read(revision, Some(json)) => {
                let wire = Wire::read(&json).map_err(|error| Refusal::Store(error.to_string()))?;
                Ok(Some((revision, wire)))
            }
            Answer::Read(_, None) => Ok(None),
            _ => Err(away("its records cannot be read")),
        }
    }

    async fn account(&self, account: &AccountId) -> Result<Known<AccountRecord>, Refusal> {
        self.read(Table::Accounts, &account_key(account)).await
    }

    /// A capture's record, or what it will be.
    async fn record(&self, account: &AccountId, id: &CaptureId) -> Result<JobRecord, Refusal> {
        if let Some((_, wire)) = self.read::<JobRecord>(Table::Jobs, &job_key(account, id)).await? {
            return Ok(wire.value().clone());
        }
        let intent = self.account(account).await?.and_then(|(_, wire)| wire.value().intents.get(id).cloned());
        intent.ok_or_else(|| Refusal::NotFound(id.clone()))
    }

    async fn registry(&self) -> Result<Registry, Refusal> {
        self.bus.list(Table::Hosts, "").await.map(|hosts| Registry::of(&hosts)).map_err(away)
    }

    async fn start(&self, request: Request) -> Result<Job, Refusal> {
        if request.offset_time.is_some() {
            return Err(Refusal::NoHistory);
        }
        Filter::try_from(&request.filter).map_err(|error| Refusal::Filter(error.to_string()))?;
        let registry = self.registry().await?;
        let colo = request.colo.as_deref().filter(|_| request.kind == Kind::Full);
        if registry.matching(colo).is_empty() {
            let there = registry.colos().join(", ");
            return Err(Refusal::NoColo { sent: colo.unwrap_or("any").to_owned(), there });
        }
        let terms = match &self.reach {
            Some(reach) => reach.try_out(&request).await?,
            None => BucketTerms::default(),
        };
        let record = self.accepted(request, terms).ok_or_else(|| away("no random numbers"))?;
        self.accept(&record).await?;
        let (bus, intent) = (Arc::clone(&self.bus), record.clone());
        let account = account_key(&record.capture.request.account);
        // It is accepted, whatever becomes of this: a lead finishes what is left.
        let made = leads::is_there(&*bus, &intent).await;
        if made {
            tokio::spawn(async move { leads::settle(&*bus, &account).await });
        }
        Ok(show::job(&record, None))
    }

    /// The record of a request that is accepted now.
    fn accepted(&self, request: Request, terms: BucketTerms) -> Option<JobRecord> {
        let wall = now(Instant::now()).wall;
        let length = Duration::try_from_secs_f64(request.time_limit).unwrap_or_default();
        let window = Window { start: wall, end: wall.saturating_add(length) };
        let kind = match request.kind {
            Kind::Simple => FleetKind::Simple {
                packets: request.packet_limit.unwrap_or(0),
                one_in: self.config().simple_one_in.max(1),
            },
            Kind::Full => {
                let limits = (request.packet_limit, request.byte_limit);
                let is_limited = limits != (None, None);
                FleetKind::Full { limit: is_limited.then(|| Amount::limit(limits.0, limits.1)) }
            }
        };
        let capture = Accepted {
            id: CaptureId::random(),
            request,
            terms,
            submitted: Timestamp::now(),
            stop_requested: None,
            colos: Vec::new(),
            objects: Vec::new(),
            ledger: None,
            delivered: None,
            early: Vec::new(),
            is_closed: false,
        };
        Some(JobRecord { job: FleetJob::accepted(kind, window, random()?), capture })
    }

    /// Asks for the end of a capture, by its own record.
    async fn end(&self, account: &AccountId, id: &CaptureId) -> Result<(), Refusal> {
        let key = job_key(account, id);
        for tries in 1..=TRIES {
            let Some((revision, wire)) = self.read::<JobRecord>(Table::Jobs, &key).await? else {
                let intent = self.record(account, id).await?;
                leads::is_there(&*self.bus, &intent).await;
                tokio::time::sleep(PAUSE * tries).await;
                continue;
            };
            let mut record = wire.value().clone();
            if record.job.is_stopped || record.job.phase.is_end() {
                return Ok(());
            }
            record.job.is_stopped = true;
            record.capture.stop_requested = Some(Timestamp::now());
            let json = wire.with(record).to_json().map_err(|error| Refusal::Store(error.to_string()))?;
            match self.bus.write(Table::Jobs, &key, revision, json).await {
                Answer::Wrote(_) => return Ok(()),
                Answer::Stale => {}
                // It may be written: the next read says so, and a second one does no harm.
                _ => tokio::time::sleep(10 * PAUSE).await,
            }
            tokio::time::sleep(PAUSE * tries).await;
        }
        Err(away("the stop could not be recorded"))
    }

    /// The account's captures, newest first. Those that it started last are there, whatever server answers.
    async fn all(&self, account: &AccountId) -> Result<Vec<JobRecord>, Refusal> {
        let prefix = account_key(account);
        let entries = self.bus.list(Table::Jobs, &prefix).await.map_err(away)?;
        let mut found: BTreeMap<CaptureId, JobRecord> = BTreeMap::new();
        for entry in entries {
            let wire = entry.value.and_then(|json| Wire::<JobRecord>::read(&json).ok());
            if let (Some(id), Some(wire)) = (id_of_job_key(&entry.key), wire) {
                found.insert(id, wire.value().clone());
            }
        }
        let started = self.account(account).await?.map(|(_, wire)| wire.value().clone()).unwrap_or_default();
        for (id, intent) in started.intents {
            found.entry(id).or_insert(intent);
        }
        for id in started.recent {
            if let std::collections::btree_map::Entry::Vacant(place) = found.entry(id.clone()) {
                match self.record(account, &id).await {
                    Ok(record) => drop(place.insert(record)),
                    // It is older than what is kept.
                    Err(Refusal::NotFound(_)) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
        }
        let mut all: Vec<JobRecord> = found.into_values().collect();
        all.sort_by(|one, other| {
            let of = |record: &JobRecord| (record.capture.submitted, record.capture.id.clone());
            of(other).cmp(&of(one))
        });
        Ok(all)
    }

    fn shown(&self, record: &JobRecord) -> Job {
        show::job(record, Some(self.beats.of(record)))
    }

    async fn pages(&self, account: &AccountId, wanted: Wanted) -> Result<Listed, Refusal> {
        let jobs: Vec<Job> = self.all(account).await?.iter().map(|record| self.shown(record)).collect();
        let from = match &wanted.before {
            None => 0,
            Some(before) => {
                let at = jobs.iter().position(|job| job.id == *before);
                at.ok_or_else(|| Refusal::NotFound(before.clone()))? + 1
            }
        };
        let is_wanted = |job: &&Job| wanted.admits(job);
        let total = jobs.iter().filter(is_wanted).count() as u64;
        let mut rest = jobs.iter().skip(from).filter(is_wanted);
        let page: Vec<Job> = rest.by_ref().take(wanted.count_max).cloned().collect();
        let next = rest.next().and_then(|_| page.last().map(|job| job.id.clone()));
        Ok(Listed { jobs: page, next, total })
    }

    async fn progress(
        &self,
        account: &AccountId,
        id: &CaptureId,
        range: ObjectRange,
    ) -> Result<Progress, Refusal> {
        let record = self.record(account, id).await?;
        let parts = self.bus.list(Table::Parts, id.as_str()).await.map_err(away)?;
        let parts = parts
            .iter()
            .filter_map(|entry| serde_json::from_slice::<PartRecord>(entry.value.as_deref()?).ok());
        let parts: Vec<PartRecord> = parts.collect();
        let wall = now(Instant::now()).wall;
        Ok(show::progress(&record, &self.beats.of(&record), &parts, range, wall))
    }

    async fn stands(&self, account: &AccountId) -> Result<Standing, Refusal> {
        let record = self.account(account).await?.map(|(_, wire)| wire.value().clone()).unwrap_or_default();
        let left = account::simple_wait(&record, self.config().simple_interval, Timestamp::now());
        let active = self.active(account, &record).await?;
        Ok(Standing {
            simple_seconds_left: left.as_secs_f64(),
            full_active: active.len(),
            look_backs_active: 0,
            is_accepting: self.bus.health().is_ok(),
        })
    }

    /// Its full captures that take packets, as far as anybody knows.
    async fn active(
        &self,
        account: &AccountId,
        record: &AccountRecord,
    ) -> Result<BTreeMap<CaptureId, Active>, Refusal> {
        let mut active = BTreeMap::new();
        for (id, one) in &record.full {
            let job = self.read::<JobRecord>(Table::Jobs, &job_key(account, id)).await?;
            // One that is not found is not there yet, as this server has it, unless it is older than what is kept.
            let takes_packets = job.map_or_else(
                || !one.is_forgotten(Timestamp::now()),
                |(_, wire)| wire.value().job.phase < Phase::ConversionPending,
            );
            if takes_packets {
                active.insert(id.clone(), *one);
            }
        }
        Ok(active)
    }
}

impl From<Away> for Refusal {
    fn from(why: Away) -> Self {
        away(why)
    }
}

impl Captures for Front {
    fn create(&self, request: Request) -> Answering<'_, Job> {
        Box::pin(self.start(request))
    }

    fn list(&self, account: AccountId) -> Answering<'_, Vec<Job>> {
        Box::pin(async move {
            let all = self.all(&account).await?;
            Ok(all.iter().take(LIST_CAPTURES_MAX).map(|record| self.shown(record)).collect())
        })
    }

    fn page(&self, account: AccountId, wanted: Wanted) -> Answering<'_, Listed> {
        Box::pin(async move { self.pages(&account, wanted).await })
    }

    fn get(&self, account: AccountId, id: CaptureId) -> Answering<'_, Job> {
        Box::pin(async move { Ok(self.shown(&self.record(&account, &id).await?)) })
    }

    fn stop(&self, account: AccountId, id: CaptureId) -> Answering<'_, ()> {
        Box::pin(async move { self.end(&account, &id).await })
    }

    /// What hosts hold is theirs to tell.
    fn held(&self, _: AccountId) -> Answering<'_, Vec<(CaptureId, u64)>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn discard(&self, account: AccountId, id: CaptureId) -> Answering<'_, ()> {
        Box::pin(async move {
            self.record(&account, &id).await?;
            Err(Refusal::NotOffered(
                "hosts of a fleet drop what they hold of a capture by themselves, once it is delivered or given up",
            ))
        })
    }

    fn progress_with(
        &self,
        account: AccountId,
        id: CaptureId,
        range: ObjectRange,
    ) -> Answering<'_, Progress> {
        Box::pin(async move { self.progress(&account, &id, range).await })
    }

    fn series(&self, account: AccountId, id: CaptureId) -> Answering<'_, KeptSeries> {
        Box::pin(async move {
            self.record(&account, &id).await?;
            Err(Refusal::NotOffered(
                "counts over time are kept by each host of a fleet, and are not summed up",
            ))
        })
    }

    fn estimate(&self, _: AccountId, _: Asked) -> Answering<'_, Estimate> {
        let refused = Refusal::NoEstimate("each host of a fleet keeps its own past packets");
        Box::pin(std::future::ready(Err(refused)))
    }

    fn standing(&self, account: AccountId) -> Answering<'_, Standing> {
        Box::pin(async move { self.stands(&account).await })
    }
}
