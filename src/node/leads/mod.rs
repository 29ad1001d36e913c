//! The captures that an API node leads: it contends for partitions, and drives the lead of each open capture in those that it holds.
//! Owns one task; what is decided is the leads'.
//!
//! ```text
//!  bus ─claims─▶ Contender (64) ─epoch─▶ Lead (each open capture) ─job, limit, assignments─▶ bus
//!  bus ─jobs, parts, heartbeats, reports─▶ │                       └─ outcome ─▶ publish ─▶ bus
//! ```
//!
//! Invariant: everything that is written carries the epoch of a claim and is held against its revision, so two nodes that believe they
//! lead do no harm.

mod capture;
mod intents;
mod publish;

use super::front::Reach;
use super::keys::{PARTITIONS, id_of_job_key, job_key, of_part_key, partition, partition_name};
use super::registry::Registry;
use super::wire::{Beat, JobRecord, ToHost, ToLead, message, to_bytes};
use super::{LOOK, LOOK_SOON, TURN, fitted, keys, now, random, stopped};
use crate::bus::{Away, Bus, Entry, Message, Table};
use crate::deliver::SigningKey;
use crate::fleet::held::{Answer, Op, Revision};
use crate::fleet::lead::{Contender, Effect, Input, Lead};
use crate::fleet::record::{Claim, Key, Record};
use crate::fleet::settings::Settings;
use crate::fleet::wire::Wire;
use crate::fleet::{Epoch, Now, Up};
use crate::job::{AccountId, CaptureId, Kind};
use capture::Leading;
use publish::{Places, Published};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

pub(super) use intents::{is_there, settle};
pub(super) use publish::stop_reason;

/// Nodes that start at once do not all ask for the same partitions first.
const PATIENCE_MAX: Duration = Duration::from_secs(2);

/// An API node as a lead.
#[derive(Clone, Debug)]
pub struct LeadsConfig {
    /// Name of the fleet: part of everything that is signed.
    pub fleet: String,
    /// Signs assignments and manifests.
    pub key: Arc<SigningKey>,
    /// How manifests come to customers' buckets; without, they are on the bus alone.
    pub reach: Option<Reach>,
    /// How long what is waited for.
    pub settings: Settings,
}

/// What was found of a capture that is to be led.
struct Found {
    job: (Revision, Vec<u8>),
    hosts: Vec<Entry>,
    parts: Vec<Entry>,
}

/// What happened beside the task.
enum Event {
    Claim(u8, Answer<Record>),
    Opened(CaptureId, Epoch, Result<Box<Found>, Away>),
    /// Of a record; with what was written.
    Stored(CaptureId, Epoch, Key, Answer<Vec<u8>>, Option<Vec<u8>>),
    Parts(CaptureId, Epoch, Vec<Entry>),
    Published(CaptureId, Epoch, Result<Published, String>),
    /// The file of a simple capture whose packets are lost is not there.
    NotFound(CaptureId, Epoch),
    Closed(CaptureId, bool),
    Jobs(Vec<Entry>),
}

/// What it listens to.
struct Ears {
    jobs: mpsc::Receiver<Entry>,
    parts: mpsc::Receiver<Entry>,
    beats: mpsc::Receiver<Message>,
    reports: mpsc::Receiver<Message>,
}

impl Ears {
    fn open(bus: &dyn Bus) -> Self {
        Self {
            jobs: bus.watch(Table::Jobs, ""),
            parts: bus.watch(Table::Parts, ""),
            beats: bus.subscribe("hb.>"),
            reports: bus.subscribe("lead.>"),
        }
    }

    fn is_closed(&self) -> bool {
        self.jobs.is_closed() || self.parts.is_closed() || self.beats.is_closed() || self.reports.is_closed()
    }
}

/// The leads of a node.
pub struct Leads {
    config: LeadsConfig,
    bus: Arc<dyn Bus>,
    started: Instant,
    claims: Vec<Contender>,
    /// In these epochs, by partition, another node has taken over.
    deposed: Vec<Epoch>,
    /// Captures that somebody is to lead, as far as it is known.
    open: BTreeMap<CaptureId, AccountId>,
    /// Being looked up, since when.
    opening: BTreeMap<CaptureId, Instant>,
    leading: BTreeMap<CaptureId, Leading>,
    events: mpsc::UnboundedSender<Event>,
    queue: mpsc::UnboundedReceiver<Event>,
    looked: Option<Instant>,
}

impl Leads {
    /// Of a node that starts. None if the system gives no random numbers.
    #[must_use]
    pub fn new(config: LeadsConfig, bus: Arc<dyn Bus>) -> Option<Self> {
        let config = LeadsConfig { settings: fitted(config.settings), ..config };
        let life = random()?;
        let me = ((life >> 32) as u32, life as u32);
        let (events, queue) = mpsc::unbounded_channel();
        let claim = |partition: u8| {
            let turn =
                life.rotate_left(u32::from(partition)) % u64::try_from(PATIENCE_MAX.as_millis()).unwrap_or(1);
            Contender::new(me, Duration::from_millis(turn), config.settings)
        };
        Some(Self {
            claims: (0..PARTITIONS).map(claim).collect(),
            deposed: vec![0; usize::from(PARTITIONS)],
            config,
            bus,
            started: Instant::now(),
            open: BTreeMap::new(),
            opening: BTreeMap::new(),
            leading: BTreeMap::new(),
            events,
            queue,
            looked: None,
        })
    }

    /// Runs until `stop` says so; another node takes over then.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ears = Ears::open(&*self.bus);
        let intents = tokio::spawn(intents::finish(Arc::clone(&self.bus)));
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(event) = self.queue.recv() => self.happen(event),
                Some(entry) = ears.jobs.recv() => self.saw_job(&entry),
                Some(entry) = ears.parts.recv() => self.saw_part(&entry),
                Some(beat) = ears.beats.recv() => self.heard(&beat),
                Some(report) = ears.reports.recv() => self.told(&report),
                _ = turn.tick() => {
                    if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                        self.looked = Some(Instant::now());
                        if ears.is_closed() {
                            ears = Ears::open(&*self.bus);
                        }
                        self.look();
                    }
                    self.turn();
                }
            }
        }
        intents.abort();
    }

    fn now(&self) -> Now {
        now(self.started)
    }

    fn spawn(&self, task: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let _node_has_ended = events.send(task.await);
        });
    }

    /// The epoch in which it leads a partition.
    fn holds(&self, partition: u8) -> Option<Epoch> {
        let at = usize::from(partition);
        self.claims[at].holds(self.now()).filter(|epoch| *epoch > self.deposed[at])
    }

    fn turn(&mut self) {
        self.contend();
        let held: Vec<Option<Epoch>> = (0..PARTITIONS).map(|partition| self.holds(partition)).collect();
        let epoch = |id: &CaptureId| held[usize::from(partition(id))];
        self.leading.retain(|id, leading| epoch(id) == Some(leading.epoch));
        let is_led = |id: &CaptureId| self.leading.contains_key(id) || self.is_opening(id);
        let wanted = self.open.iter().filter(|(id, _)| !is_led(id));
        let wanted: Vec<_> =
            wanted.filter_map(|(id, account)| Some((id.clone(), account.clone(), epoch(id)?))).collect();
        wanted.into_iter().for_each(|(id, account, epoch)| self.look_up(id, account, epoch));
        let now = self.now();
        let ids: Vec<CaptureId> = self.leading.keys().cloned().collect();
        for id in ids {
            self.step(&id, Input::Tick);
            let Some(leading) = self.leading.get_mut(&id) else { continue };
            if now.mono >= leading.looked + LOOK_SOON {
                leading.looked = now.mono;
                let epoch = leading.epoch;
                self.look_at_parts(&id, epoch);
            }
            self.close(&id);
        }
    }

    fn is_opening(&self, id: &CaptureId) -> bool {
        self.opening.get(id).is_some_and(|since| since.elapsed() < Duration::from_secs(1))
    }

    fn contend(&mut self) {
        let now = self.now();
        for partition in 0..PARTITIONS {
            let Some(op) = self.claims[usize::from(partition)].tick(now) else { continue };
            let (bus, key) = (Arc::clone(&self.bus), partition_name(partition));
            self.spawn(async move {
                let answer = match op {
                    Op::Read => bus.read(Table::Claims, &key).await,
                    Op::Write { expected, value: Record::Claim(claim) } => {
                        bus.write(Table::Claims, &key, expected, to_bytes(&claim)).await
                    }
                    Op::Write { .. } => Answer::Unavailable,
                };
                let answer = keys::decoded(answer, |_, json| {
                    serde_json::from_slice::<Claim>(json).ok().map(Record::from)
                });
                Event::Claim(partition, answer)
            });
        }
    }

    /// Reads what it takes to lead a capture.
    fn look_up(&mut self, id: CaptureId, account: AccountId, epoch: Epoch) {
        self.opening.insert(id.clone(), Instant::now());
        let bus = Arc::clone(&self.bus);
        self.spawn(async move {
            let found = look_up(&*bus, &account, &id).await;
            Event::Opened(id, epoch, found.map(Box::new))
        });
    }

    fn opened(&mut self, id: CaptureId, epoch: Epoch, found: Result<Box<Found>, Away>) {
        self.opening.remove(&id);
        let found = match found {
            Ok(found) => found,
            Err(away) => {
                // Not before a second has passed.
                self.opening.insert(id.clone(), Instant::now());
                return tracing::debug!(capture = %id, %away, "a capture cannot be led yet");
            }
        };
        let account = self.open.get(&id).cloned();
        let Some(account) = account.filter(|_| self.holds(partition(&id)) == Some(epoch)) else { return };
        let Ok(wire) = Wire::<JobRecord>::read(&found.job.1) else { return };
        let request = &wire.value().capture.request;
        let colo = request.colo.as_deref().filter(|_| request.kind == Kind::Full);
        let (registry, colos) = Registry::of(&found.hosts).numbered(colo);
        let now = self.now();
        let lead = Lead::new(epoch, registry, self.config.settings);
        let mut leading = Leading::new(epoch, (account, id.clone()), lead, colos, now.mono);
        leading.decode(Key::Job, found.job.0, &found.job.1);
        tracing::info!(capture = %id, epoch, "this node leads a capture");
        self.leading.insert(id.clone(), leading);
        found.parts.iter().for_each(|entry| self.saw_part(entry));
    }

    fn step(&mut self, id: &CaptureId, input: Input) {
        let now = self.now();
        let Some(leading) = self.leading.get_mut(id) else { return };
        let effects = leading.lead.step(input, now);
        if let Some(by) = leading.lead.deposed_by() {
            let at = usize::from(partition(id));
            self.deposed[at] = self.deposed[at].max(leading.epoch);
            self.claims[at].at_least(by);
            self.leading.remove(id);
            return;
        }
        effects.into_iter().for_each(|effect| self.carry_out(id, effect));
    }

    fn carry_out(&mut self, id: &CaptureId, effect: Effect) {
        let Some(leading) = self.leading.get(id) else { return };
        let epoch = leading.epoch;
        match effect {
            Effect::Store(key, op) => self.store(id, key, op),
            Effect::Send(holder, down) => {
                let Some(host) = leading.name(holder) else { return };
                let (bus, bytes) = (Arc::clone(&self.bus), to_bytes(&ToHost { id: id.clone(), down }));
                tokio::spawn(async move {
                    // It says a state, and is said again until it is answered.
                    let _may_be_lost = bus.publish(&keys::host_subject(&host), bytes).await;
                });
            }
            Effect::Publish(outcome, samples) => {
                let issue = leading.issue(&self.config.fleet, *outcome, samples);
                let (to, id) = (self.places(), id.clone());
                self.spawn(async move {
                    let published = match issue {
                        Some(issue) => publish::publish(&to, issue).await,
                        None => Err("not all packets are here yet".to_owned()),
                    };
                    Event::Published(id, epoch, published)
                });
            }
            Effect::Find(outcome) => {
                let issue = leading.issue(&self.config.fleet, *outcome, Vec::new());
                let (to, id) = (self.places(), id.clone());
                self.spawn(async move {
                    let found = match issue {
                        Some(issue) => publish::find(&to, issue).await,
                        None => Err("the capture's record is not here yet".to_owned()),
                    };
                    match found.transpose() {
                        Some(published) => Event::Published(id, epoch, published),
                        None => Event::NotFound(id, epoch),
                    }
                });
            }
        }
    }

    fn places(&self) -> Places {
        let LeadsConfig { key, reach, .. } = &self.config;
        Places { bus: Arc::clone(&self.bus), key: Arc::clone(key), reach: reach.clone() }
    }

    fn store(&mut self, id: &CaptureId, key: Key, op: Op<Record>) {
        let Some(leading) = self.leading.get(id) else { return };
        let epoch = leading.epoch;
        let place = leading.place(key);
        let op = match op {
            Op::Read => place.map(|place| (place, None)),
            Op::Write { expected, value } => place.and_then(|place| {
                Some((place, Some((expected, leading.encode(&self.config, key, expected, value)?))))
            }),
        };
        let (bus, id) = (Arc::clone(&self.bus), id.clone());
        self.spawn(async move {
            match op {
                None => Event::Stored(id, epoch, key, Answer::Unavailable, None),
                Some(((table, name), None)) => {
                    Event::Stored(id, epoch, key, bus.read(table, &name).await, None)
                }
                Some(((table, name), Some((expected, json)))) => {
                    let answer = bus.write(table, &name, expected, json.clone()).await;
                    Event::Stored(id, epoch, key, answer, Some(json))
                }
            }
        });
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Claim(partition, answer) => {
                let now = self.now();
                self.claims[usize::from(partition)].answered(answer, now);
            }
            Event::Opened(id, epoch, found) => self.opened(id, epoch, found),
            Event::Stored(id, epoch, key, answer, written) => self.stored(&id, epoch, key, answer, written),
            Event::Parts(id, epoch, entries) => {
                if self.leading.get(&id).is_some_and(|leading| leading.epoch == epoch) {
                    entries.iter().for_each(|entry| self.saw_part(entry));
                }
            }
            Event::Published(id, epoch, published) => {
                let Some(leading) = self.leading.get_mut(&id).filter(|leading| leading.epoch == epoch) else {
                    return;
                };
                let input = match published {
                    Ok(published) => {
                        leading.published(published);
                        Input::Published
                    }
                    Err(error) => {
                        tracing::warn!(capture = %id, error, "what came of a capture could not be published; it is tried again");
                        Input::NotPublished
                    }
                };
                self.step(&id, input);
            }
            Event::NotFound(id, epoch) => {
                if self.leading.get(&id).is_some_and(|leading| leading.epoch == epoch) {
                    self.step(&id, Input::NotFound);
                }
            }
            Event::Closed(id, true) => {
                self.open.remove(&id);
                self.leading.remove(&id);
            }
            Event::Closed(id, false) => {
                if let Some(leading) = self.leading.get_mut(&id) {
                    leading.is_closing = false;
                }
            }
            Event::Jobs(entries) => entries.iter().for_each(|entry| self.saw_job(entry)),
        }
    }

    fn stored(
        &mut self,
        id: &CaptureId,
        epoch: Epoch,
        key: Key,
        answer: Answer<Vec<u8>>,
        written: Option<Vec<u8>>,
    ) {
        let Some(leading) = self.leading.get_mut(id).filter(|leading| leading.epoch == epoch) else { return };
        if let (Answer::Wrote(revision), Some(json)) = (&answer, &written) {
            // It is what this node wrote, so it has the form.
            leading.decode(key, *revision, json);
        }
        let answer = keys::decoded(answer, |revision, json| leading.decode(key, revision, json));
        self.step(id, Input::Stored(key, answer));
    }

    fn saw_job(&mut self, entry: &Entry) {
        let Some(id) = id_of_job_key(&entry.key) else { return };
        let wire = entry.value.as_deref().and_then(|json| Wire::<JobRecord>::read(json).ok());
        let Some(record) = wire.as_ref().map(Wire::value).filter(|record| !record.capture.is_closed) else {
            self.open.remove(&id);
            return;
        };
        let account = record.capture.request.account.clone();
        if job_key(&account, &id) != entry.key || record.capture.id != id {
            return;
        }
        self.open.insert(id.clone(), account);
        let Some(leading) = self.leading.get_mut(&id) else { return };
        let json = entry.value.as_deref().unwrap_or_default();
        if let Some(record) = leading.decode(Key::Job, entry.revision, json) {
            self.step(&id, Input::Saw(Key::Job, entry.revision, record));
        }
    }

    fn saw_part(&mut self, entry: &Entry) {
        let Some((id, host)) = of_part_key(&entry.key) else { return };
        let (Some(leading), Some(json)) = (self.leading.get_mut(&id), &entry.value) else { return };
        let Some(host) = leading.host(host, None) else { return };
        if let Some(record) = leading.decode(Key::Part(host), entry.revision, json) {
            self.step(&id, Input::Saw(Key::Part(host), entry.revision, record));
        }
    }

    fn heard(&mut self, told: &Message) {
        let Some(beat) = message::<Beat>(&told.payload) else { return };
        if keys::beat_subject(&beat.site) != told.subject {
            return;
        }
        for part in &beat.parts {
            let leading = self.leading.get(&part.id);
            let host = leading.and_then(|leading| leading.host(beat.site.host(), Some(beat.spool_id)));
            if let Some(host) = host {
                self.step(&part.id, Input::Heard(host, true));
            }
        }
    }

    fn told(&mut self, told: &Message) {
        let Some(ToLead { id, spool_id, up: Up::Share(report) }) = message(&told.payload) else { return };
        let Some(name) = told.subject.rsplit('.').next() else { return };
        let host = self.leading.get(&id).and_then(|leading| leading.host(name, Some(spool_id)));
        if let Some(host) = host.filter(|_| keys::lead_subject(&id, name) == told.subject) {
            self.step(&id, Input::Told(host, report));
        }
    }

    fn look(&self) {
        let bus = Arc::clone(&self.bus);
        self.spawn(async move {
            // What cannot be read now is looked for again.
            Event::Jobs(bus.list(Table::Jobs, "").await.unwrap_or_default())
        });
    }

    fn look_at_parts(&self, id: &CaptureId, epoch: Epoch) {
        let (bus, id) = (Arc::clone(&self.bus), id.clone());
        self.spawn(async move {
            let parts = bus.list(Table::Parts, id.as_str()).await.unwrap_or_default();
            Event::Parts(id, epoch, parts)
        });
    }

    /// All is done and told: nobody needs to lead it any more, and the record says so.
    fn close(&mut self, id: &CaptureId) {
        let Some(leading) = self.leading.get_mut(id).filter(|leading| leading.lead.is_done()) else { return };
        if std::mem::replace(&mut leading.is_closing, true) {
            return;
        }
        let (bus, id) = (Arc::clone(&self.bus), id.clone());
        let key = job_key(&leading.account, &id);
        self.spawn(async move {
            let is_closed = close(&*bus, &key).await;
            if !is_closed {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Event::Closed(id, is_closed)
        });
    }
}

async fn look_up(bus: &dyn Bus, account: &AccountId, id: &CaptureId) -> Result<Found, Away> {
    let key = job_key(account, id);
    let Answer::Read(revision, Some(job)) = bus.read(Table::Jobs, &key).await else {
        return Err(Away::Unavailable("the capture's record is not there yet".to_owned()));
    };
    let hosts = bus.list(Table::Hosts, "").await?;
    let parts = bus.list(Table::Parts, id.as_str()).await?;
    Ok(Found { job: (revision, job), hosts, parts })
}

/// Writes that a capture is closed, if it is not by now.
async fn close(bus: &dyn Bus, key: &str) -> bool {
    let Answer::Read(revision, Some(json)) = bus.read(Table::Jobs, key).await else { return false };
    let Ok(wire) = Wire::<JobRecord>::read(&json) else { return false };
    let mut record = wire.value().clone();
    if record.capture.is_closed {
        return true;
    }
    record.capture.is_closed = true;
    let Ok(json) = wire.with(record).to_json() else { return false };
    matches!(bus.write(Table::Jobs, key, revision, json).await, Answer::Wrote(_))
}
