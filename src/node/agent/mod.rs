//! The agent of a capture host: hears what the host is to capture, and carries out what its members decide. Owns one task, the host's
//! entry in the registry, and its heartbeats; the engine captures and delivers, and knows nothing of other nodes.
//!
//! ```text
//!  bus ─assignment─▶ signature ─▶ Member ─Keep─▶ own disk
//!                                   │ ▲  ─Attach, Raise, Lower, Detach, Deliver─▶ engine
//!                                   │ └──── counts, every turn ◀──────────────────┘
//!                                   └──Store, Send─▶ bus
//! ```
//!
//! Invariant: nothing is captured that no known key signed for this fleet, this data center and this host, and nothing before it is
//! on the own disk.

mod disk;
mod effects;
mod hear;
mod part;
mod sample;

use super::keys::{beat_subject, decoded, host_key, host_subject};
use super::wire::{Beat, BeatPart, HostRecord, SignedRecord, Told, to_bytes};
use super::{LOOK, TURN, fitted, now, random, stopped};
use crate::bus::{Bus, Entry, Message, Table};
use crate::deliver::PublicKey;
use crate::engine::{Handle, PartStage, PartState, Refusal};
use crate::fleet::held::{Answer, Op};
use crate::fleet::member::{Input, Life, Member};
use crate::fleet::record::{Identity, Record};
use crate::fleet::settings::Settings;
use crate::fleet::shares::Meter;
use crate::fleet::{Epoch, Now};
use crate::job::{CaptureId, Ledger, ObjectSums, Site};
use disk::{Disk, Note};
use part::Part;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How often time passes for a part that takes no packets.
const IDLE_TURN: Duration = Duration::from_millis(200);

/// A capture host in its fleet.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of the fleet: part of everything that is signed.
    pub fleet: String,
    /// The host and its data center.
    pub site: Site,
    /// Drawn when its spool was made.
    pub spool_id: u64,
    /// Who may start captures here.
    pub keys: Vec<PublicKey>,
    /// What of parts is known stands here.
    pub dir: PathBuf,
    /// Where the engine puts files of simple captures.
    pub simple_dir: PathBuf,
    /// How long what is waited for.
    pub settings: Settings,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// What it accepted before is not known.
    #[error("what this host accepted from its fleet cannot be read from {}: {source}; restore it, or ask the fleet's operator before removing it", dir.display())]
    Disk {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// What happened beside the agent's task.
enum Event {
    Life(Answer<Record>),
    /// This number of the host's life is durable on its own disk, or is not.
    Boot(Epoch, bool),
    Input(CaptureId, Input),
    Attached(CaptureId, watch::Receiver<PartState>),
    NotAttached(CaptureId, Refusal),
    Counted(CaptureId, Box<PartState>),
    Delivered(CaptureId, Option<(Box<PartState>, Option<ObjectSums>)>),
    /// The engine knows what became of a part of an earlier process.
    Recovered(Box<Note>, Meter),
    Looked(Vec<Entry>),
}

/// Where events go.
#[derive(Clone)]
struct Events(mpsc::UnboundedSender<Event>);

impl Events {
    fn send(&self, event: Event) {
        let _agent_has_ended = self.0.send(event);
    }
}

/// The agent.
pub struct Agent {
    config: AgentConfig,
    bus: Arc<dyn Bus>,
    engine: Handle,
    disk: Disk,
    started: Instant,
    me: Identity,
    life: Life,
    /// The number of this life, once it is durable here and in the registry.
    boot: Option<Epoch>,
    keeps_boot: bool,
    parts: BTreeMap<CaptureId, Part>,
    /// Parts of an earlier process whose counts are known, until there is a number for this life.
    known: Vec<(Note, Meter)>,
    /// Parts of an earlier process that are not taken up yet.
    recovering: BTreeSet<CaptureId>,
    /// All that were ever accepted here, as far as anybody knows of them.
    accepted: BTreeSet<CaptureId>,
    /// The newest that was heard of captures that this host has no part of.
    heard: BTreeMap<CaptureId, (Told, SignedRecord)>,
    /// Notes in the order in which they are to be written.
    notes: mpsc::UnboundedSender<Box<Note>>,
    events: Events,
    queue: mpsc::UnboundedReceiver<Event>,
    looked: Option<Instant>,
    beaten: Option<Instant>,
    told: watch::Sender<bool>,
}

impl Agent {
    /// Reads what the host accepted before. `engine` has taken up what its spool has.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn new(config: AgentConfig, bus: Arc<dyn Bus>, engine: Handle) -> Result<Self, AgentError> {
        let config = AgentConfig { settings: fitted(config.settings), ..config };
        let started = Instant::now();
        let failed = |source| AgentError::Disk { dir: config.dir.clone(), source };
        let disk = Disk::open(config.dir.clone()).map_err(failed)?;
        let (least, notes) = disk.load(now(started).wall).map_err(failed)?;
        let nonce = random().ok_or(AgentError::Random)?;
        let me = Identity { name: config.site.host().to_owned(), spool_id: config.spool_id };
        let (events, queue) = mpsc::unbounded_channel();
        let events = Events(events);
        let (to_disk, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write_notes(disk.clone(), waiting, events.clone()));
        let mut agent = Self {
            life: Life::new(me.clone(), 0, nonce, least, config.settings),
            config,
            bus,
            engine,
            disk,
            started,
            me,
            boot: None,
            keeps_boot: false,
            parts: BTreeMap::new(),
            known: Vec::new(),
            recovering: BTreeSet::new(),
            accepted: notes.iter().map(|note| note.id.clone()).collect(),
            heard: BTreeMap::new(),
            notes: to_disk,
            events,
            queue,
            looked: None,
            beaten: None,
            told: watch::Sender::new(true),
        };
        notes.into_iter().filter(|note| !note.local.is_gone).for_each(|note| agent.recover(note));
        Ok(agent)
    }

    /// Whether the fleet knows all that this host can say of its parts, from now on.
    #[must_use]
    pub fn has_told(&self) -> watch::Receiver<bool> {
        self.told.subscribe()
    }

    /// Runs until `stop` says so. Captures go on in the engine, and the next life of the host takes them up.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let (mut assignments, mut messages) = (self.watch(), self.listen());
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                Some(event) = self.queue.recv() => self.happen(event),
                Some(entry) = assignments.recv() => self.hear(&entry),
                Some(message) = messages.recv() => self.told(&message),
                _ = turn.tick() => {
                    if assignments.is_closed() && self.is_time_to_look() {
                        assignments = self.watch();
                    }
                    if messages.is_closed() && self.is_time_to_look() {
                        messages = self.listen();
                    }
                    self.turn();
                }
            }
        }
    }

    fn watch(&self) -> mpsc::Receiver<Entry> {
        self.bus.watch(Table::Assignments, self.config.site.colo())
    }

    fn listen(&self) -> mpsc::Receiver<Message> {
        self.bus.subscribe(&host_subject(self.config.site.host()))
    }

    fn now(&self) -> Now {
        now(self.started)
    }

    fn is_time_to_look(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= LOOK)
    }

    fn turn(&mut self) {
        self.live();
        if self.is_time_to_look() {
            self.looked = Some(Instant::now());
            self.look();
        }
        if self.beaten.is_none_or(|beaten| beaten.elapsed() >= self.config.settings.heartbeat) {
            self.beaten = Some(Instant::now());
            self.beat();
        }
        let now = self.now();
        let ids: Vec<CaptureId> = self.parts.keys().cloned().collect();
        for id in ids {
            let Some(part) = self.parts.get_mut(&id) else { continue };
            let meter = part.state.as_ref().and_then(|state| {
                let state = state.borrow();
                let meter = part::meter(&state.ledger, state.dry);
                (state.stage < PartStage::Counted).then_some(meter)
            });
            let is_due = meter.is_some() || now.mono >= part.turned + IDLE_TURN;
            if is_due {
                part.turned = now.mono;
                self.step(&id, meter.map_or(Input::Tick, Input::Turn));
            }
        }
        let is_told = self.recovering.is_empty() && self.parts.values().all(|part| part.member.is_told());
        self.told.send_if_modified(|told| std::mem::replace(told, is_told) != is_told);
    }

    /// The number of this life, and whether another machine goes on in this name.
    fn live(&mut self) {
        if let Some(op) = self.life.tick(self.now()) {
            self.register(op);
        }
        let number = self.life.boot();
        if number.is_none() && self.boot.take().is_some() {
            tracing::error!(
                host = self.config.site.host(),
                "another machine goes on in this host's name; this one takes no more captures of the fleet"
            );
        }
        if let Some(boot) = number.filter(|_| self.boot.is_none() && !self.keeps_boot) {
            self.keeps_boot = true;
            let (disk, events) = (self.disk.clone(), self.events.clone());
            tokio::task::spawn_blocking(move || {
                let kept = disk.keep_boot(boot);
                if let Err(error) = &kept {
                    tracing::error!(%error, "the number of this life of the host could not be written down");
                }
                events.send(Event::Boot(boot, kept.is_ok()));
            });
        }
    }

    fn register(&self, op: Op<Record>) {
        let (bus, events) = (Arc::clone(&self.bus), self.events.clone());
        let site = self.config.site.clone();
        tokio::spawn(async move {
            let key = host_key(&site);
            let answer = match op {
                Op::Read => bus.read(Table::Hosts, &key).await,
                Op::Write { expected, value: Record::Registered(registered) } => {
                    let version = env!("CARGO_PKG_VERSION").to_owned();
                    let record = HostRecord { registered, site, version };
                    bus.write(Table::Hosts, &key, expected, to_bytes(&record)).await
                }
                Op::Write { .. } => return,
            };
            events.send(Event::Life(decoded(answer, |_, json| {
                serde_json::from_slice::<HostRecord>(json).ok().map(|record| record.registered.into())
            })));
        });
    }

    fn look(&self) {
        let (bus, events) = (Arc::clone(&self.bus), self.events.clone());
        let colo = self.config.site.colo().to_owned();
        tokio::spawn(async move {
            match bus.list(Table::Assignments, &colo).await {
                Ok(entries) => events.send(Event::Looked(entries)),
                Err(away) => tracing::debug!(%away, "assignments could not be looked through"),
            }
        });
    }

    fn beat(&self) {
        let Some(boot) = self.boot else { return };
        let of = |(id, part): (&CaptureId, &Part)| {
            let (ledger, is_running) = part.counts();
            BeatPart { id: id.clone(), ledger, is_running }
        };
        let waits =
            |id: &CaptureId| BeatPart { id: id.clone(), ledger: Ledger::default(), is_running: false };
        let parts = self.parts.iter().map(of).chain(self.recovering.iter().map(waits)).collect();
        let beat = Beat { site: self.config.site.clone(), spool_id: self.config.spool_id, boot, parts };
        self.publish(beat_subject(&self.config.site), to_bytes(&beat));
    }

    /// Says something that may get lost.
    fn publish(&self, subject: String, bytes: Vec<u8>) {
        let bus = Arc::clone(&self.bus);
        tokio::spawn(async move {
            if let Err(away) = bus.publish(&subject, bytes).await {
                tracing::debug!(%away, subject, "a message was not sent");
            }
        });
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Life(answer) => self.life.answered(answer, self.now()),
            Event::Boot(boot, is_kept) => {
                self.keeps_boot = false;
                if is_kept && self.life.boot() == Some(boot) {
                    self.boot = Some(boot);
                    self.take_up(boot);
                }
            }
            Event::Input(id, input) => self.step(&id, input),
            Event::Attached(id, state) => {
                if let Some(part) = self.parts.get_mut(&id) {
                    part.state = Some(state);
                    self.step(&id, Input::Attached);
                }
            }
            Event::NotAttached(id, refusal) => {
                tracing::warn!(capture = %id, %refusal, "this host cannot take its part of a capture of the fleet");
                if let Some(part) = self.parts.get_mut(&id) {
                    part.facts.why = Some(refusal.to_string());
                    self.step(&id, Input::NotAttached);
                }
            }
            Event::Counted(id, state) => self.counted(&id, &state),
            Event::Delivered(id, end) => self.delivered(&id, end),
            Event::Recovered(note, meter) => match self.boot {
                Some(boot) => self.recovered(*note, &meter, boot),
                None => self.known.push((*note, meter)),
            },
            Event::Looked(entries) => entries.iter().for_each(|entry| self.hear(entry)),
        }
    }

    /// There is a number for this life: what waited for it goes on.
    fn take_up(&mut self, boot: Epoch) {
        for (note, meter) in std::mem::take(&mut self.known) {
            self.recovered(note, &meter, boot);
        }
        for (id, (told, signed)) in self.heard.clone() {
            self.assigned(&id, told, signed);
        }
    }

    /// Finds out what became of a part that an earlier process accepted.
    fn recover(&mut self, note: Note) {
        self.recovering.insert(note.id.clone());
        let (engine, events) = (self.engine.clone(), self.events.clone());
        tokio::spawn(async move {
            let mut note = note;
            let request = match note.signed.unverified() {
                Some(told) => told.value().request.clone(),
                None => return,
            };
            // Of one whose counts were final nothing more is asked here.
            let state = match &note.local.part {
                Some(_) => None,
                None => part::recovered(&engine, &request.account, &note.id).await,
            };
            let meter = match state {
                Some(state) => {
                    note.facts.ledger = Some(state.ledger);
                    note.facts.stop_reason = state.stop_reason;
                    part::last_meter(request.kind, &state.ledger)
                }
                None => Meter::default(),
            };
            events.send(Event::Recovered(Box::new(note), meter));
        });
    }

    fn recovered(&mut self, note: Note, meter: &Meter, boot: Epoch) {
        self.recovering.remove(&note.id);
        let Some(told) = note.signed.unverified() else { return };
        let told = Told { assignment: note.local.assignment.clone(), ..told.value().clone() };
        let (member, effects) = Member::recovered(note.local, boot, self.config.settings, meter);
        self.parts.insert(note.id.clone(), Part::new(told, note.signed, member, note.facts));
        self.perform(&note.id, effects);
        if let Some((told, signed)) = self.heard.remove(&note.id) {
            self.assigned(&note.id, told, signed);
        }
    }
}

/// Writes notes one after another.
async fn write_notes(disk: Disk, mut notes: mpsc::UnboundedReceiver<Box<Note>>, events: Events) {
    while let Some(note) = notes.recv().await {
        let (disk, id) = (disk.clone(), note.id.clone());
        let kept = tokio::task::spawn_blocking(move || disk.keep(&note)).await;
        let kept = kept.unwrap_or_else(|died| Err(io::Error::other(died)));
        if let Err(error) = &kept {
            tracing::error!(capture = %id, %error, "what this host knows of a part could not be written down");
        }
        let input = if kept.is_ok() { Input::Kept } else { Input::KeepFailed };
        events.send(Event::Input(id, input));
    }
}
