//! The engine: one task that owns every capture's state. Owns the order in which events reach the state machine and effects
//! are begun; the decisions are the machine's, and the planes below do what it says.
//!
//! ```text
//! API ─Action─▶┐                                   ┌─▶ workers (assignments of slots)
//! spool ─Event─▶ Engine ─Input─▶ Machine ─Effect─▶ ┼─▶ disk, bucket, history: tasks and blocking threads ─Input─▶ Engine
//! clock ─tick─▶┘   (this task)     (pure)          └─▶ the store's writer ─Confirmation─▶ Engine
//! ```
//!
//! Invariant: nothing that this task does waits for a disk or a network, and every task that it starts answers with one input,
//! also when it panics.

mod adopt;
mod discard;
mod effects;
mod estimate;
mod handle;
mod listed;
mod look_back;
mod machine;
mod overview;
mod planes;
mod read;
mod recording;
mod restart;
mod roster;
mod series;
mod settings;
mod tasks;

pub use crate::history::Estimate;
pub use adopt::{Adoption, PartStage, PartState, Reclaimed, Steer};
pub use handle::{Action, Asked, Handle, Refusal};
pub use listed::{Listed, Wanted};
pub use machine::AccountBounds;
pub use overview::{AccountView, CaptureView, Overview, Standing};
pub use planes::{Planes, PortCounts, PortsRead, Settings};

use crate::block::{Heartbeat, discipline};
use crate::deliver::RetryBounds;
use crate::job::{AccountId, CaptureId, ClockState, ClockSteps, Job};
use crate::limits::{READS_MAX, READS_PER_ACCOUNT_MAX};
use crate::pcap::Origin;
use crate::spool::{Event, Feed};
use crate::store::{Confirmation, StoreError, Writer};
use crate::turns::Turns;
use crate::worker::{Budget, ClockReading, Sample};
use jiff::Timestamp;
use machine::{Config, Counted, Input, Machine, Now, ReplyId, Serial};
use planes::sum_slot;
use restart::Inheritance;
use roster::Assignments;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How often limits are looked at and workers' answers collected.
const TICK: Duration = Duration::from_millis(5);
/// How long the end of a capture waits for its ports to be read: a NIC that answers through its firmware may take two.
const PORTS_TIME_MAX: Duration = Duration::from_secs(3);
/// Steps of the wall clock that look backs are told of: more than a host that is being set up makes.
const CLOCK_STEPS_KEPT: usize = 64;
/// How long the end waits for sweeps of stores, which the next start begins again.
const SWEEPS_MAX: Duration = Duration::from_secs(3);

/// What of a capture is not a decision: the ends of threads and files.
struct Resources {
    budget: Arc<Budget>,
    /// What its merge is told.
    feed: Arc<Feed>,
    /// What its objects say, if they are pcapng.
    origin: Arc<Origin>,
    /// Where another process wrote its queues; none if this one writes them.
    dirs: Option<BTreeMap<u16, String>>,
    /// Whether it takes packets.
    capturing: watch::Sender<bool>,
    /// Why it is given up, once it is.
    given_up: watch::Sender<Option<String>>,
    /// Its counts over time, once it takes packets.
    series: Option<series::Began>,
    /// What is with it, once another node asked.
    part: Option<watch::Sender<adopt::PartState>>,
    /// The smallest frame that waits for a share.
    dry: Option<u64>,
}

/// A change that the workers have not all taken up yet.
#[derive(Clone, Copy)]
enum Change {
    Attach(Serial),
    Detach { serial: Serial, slot: usize },
}

/// Who waits for an answer.
enum Reply {
    Create(oneshot::Sender<Result<Job, Refusal>>),
    Promise(oneshot::Sender<Result<(), Refusal>>),
    Reclaim(oneshot::Sender<Result<Reclaimed, Refusal>>),
    Shutdown(oneshot::Sender<()>),
}

/// Both ends of a channel.
type Channel<T> = (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>);

/// See the module.
pub struct Engine {
    planes: Planes,
    machine: Machine,
    tenants: settings::Tenants,
    assignments: Assignments,
    /// Generations that are to be run by every worker, oldest first, and what that means.
    changes: VecDeque<(u64, Change)>,
    resources: BTreeMap<Serial, Resources>,
    recording: Option<recording::Recorder>,
    estimates: estimate::Estimates,
    /// Turns at the store.
    reads: Arc<Turns>,
    replies: HashMap<ReplyId, Reply>,
    last_reply: ReplyId,
    /// Parts of which the store is asked whether they were here before.
    adopting: BTreeSet<CaptureId>,
    /// What happened and did not reach the machine yet.
    inputs: VecDeque<Input>,
    tasks: Channel<Input>,
    events: Channel<Event>,
    /// None until the engine runs.
    writer: Option<Writer>,
    leaving: watch::Sender<bool>,
    /// Whether the end has taken as long as it may.
    time_is_up: watch::Sender<bool>,
    /// When it began.
    ending_since: Option<Instant>,
    /// How long and how often deliveries try again.
    retries: watch::Sender<RetryBounds>,
    /// Steps of the wall clock that were told.
    clock: ClockReading,
    /// The last of them: when, by the clock after it, and what they were.
    steps: VecDeque<(u64, ClockSteps)>,
    inheritance: Inheritance,
    /// Removals of what uploads of ended captures left in their stores.
    sweeps: JoinSet<()>,
    started: Instant,
    /// When the series of captures were extended last.
    extended_at: Duration,
    /// Since when the next end of a capture waits for its ports to be read.
    unread_since: Option<Instant>,
    finished: bool,
    heartbeat: Arc<Heartbeat>,
}

impl Engine {
    /// An engine over these planes. Captures that a dead process left unfinished are ended and delivered. Waits for the disk.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn new(mut planes: Planes) -> Result<Self, StoreError> {
        let inheritance = restart::inherit(&planes)?;
        let assignments = Assignments::new(std::mem::take(&mut planes.workers));
        let retries = watch::Sender::new(planes.settings.retries());
        Ok(Self {
            retries,
            machine: Machine::new(config(&planes, assignments.streams())),
            tenants: settings::Tenants::new(&planes.settings.accounts),
            recording: planes.history.clone().map(recording::Recorder::new),
            planes,
            estimates: estimate::Estimates::default(),
            reads: Turns::new(READS_MAX, READS_PER_ACCOUNT_MAX),
            extended_at: Duration::ZERO,
            assignments,
            changes: VecDeque::new(),
            resources: BTreeMap::new(),
            replies: HashMap::new(),
            last_reply: 0,
            adopting: BTreeSet::new(),
            inputs: VecDeque::new(),
            tasks: mpsc::unbounded_channel(),
            events: mpsc::unbounded_channel(),
            writer: None,
            leaving: watch::channel(false).0,
            time_is_up: watch::Sender::new(false),
            ending_since: None,
            clock: ClockReading::default(),
            steps: VecDeque::new(),
            inheritance,
            sweeps: JoinSet::new(),
            started: Instant::now(),
            unread_since: None,
            finished: false,
            heartbeat: Arc::new(Heartbeat::new("engine", 0)),
        })
    }

    /// Its heartbeat, for the watchdog.
    #[must_use]
    pub fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    /// Works until [`Action::Shutdown`] is done, or, once every handle is gone, until every capture has ended.
    pub async fn run(mut self, mut actions: mpsc::Receiver<Action>) {
        self.start_writer();
        self.take_over();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut is_asked = true;
        while !self.finished {
            tokio::select! {
                action = actions.recv(), if is_asked => match action {
                    Some(action) => self.act(action),
                    None => {
                        is_asked = false;
                        self.feed(Input::Shutdown { reply: None });
                    }
                },
                Some(event) = self.events.1.recv() => self.event(event),
                Some(input) = self.tasks.1.recv() => self.feed(input),
                _ = tick.tick() => self.tick(),
            }
        }
        let sweeps = async { while self.sweeps.join_next().await.is_some() {} };
        let _the_next_start_goes_on = tokio::time::timeout(SWEEPS_MAX, sweeps).await;
        if let Some(writer) = self.writer.take() {
            writer.close().await;
        }
    }

    fn start_writer(&mut self) {
        let tasks = self.tasks.0.clone();
        let confirm = move |confirmation| {
            let input = match confirmation {
                Confirmation::Recorded { ticket, version } => Input::Recorded { serial: ticket, version },
                Confirmation::Trouble { ticket, error } => Input::RecordTrouble { serial: ticket, error },
                Confirmation::Refused { ticket, error } => Input::Unrecordable { serial: ticket, error },
            };
            let _engine_gone = tasks.send(input);
        };
        self.writer = Some(Writer::start(Arc::clone(&self.planes.jobs), confirm));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Create(request, reply) => {
                if self.tenants.is_gone(&request.account) {
                    let _caller_gone = reply.send(Err(Refusal::AccountGone));
                    return;
                }
                let lags = self.history_lags(&request);
                let reply = self.reply(Reply::Create(reply));
                self.feed(Input::Create { reply, id: CaptureId::random(), request, lags });
            }
            Action::Adopt(adoption, reply) => self.adopt(adoption, reply),
            Action::Steer(account, id, steer, reply) => self.steer((&account, id), steer, reply),
            Action::Reclaim(account, id, keep, reply) => self.reclaim((&account, id), keep, reply),
            Action::Part(account, id, reply) => self.part(account, id, reply),
            Action::Shutdown(reply) => {
                let reply = self.reply(Reply::Shutdown(reply));
                self.feed(Input::Shutdown { reply: Some(reply) });
            }
            Action::Stop(account, id, reply) => match self.find(&account, &id) {
                Some(serial) => {
                    let reply = Some(self.reply(Reply::Promise(reply)));
                    self.feed(Input::Stop { serial, reply });
                }
                None => self.stored(account, id, reply, |_| Ok(())),
            },
            Action::Held(account, reply) => drop(reply.send(self.held(&account))),
            Action::Drop(account, id, reply) => self.discard(account, id, reply),
            Action::Page(account, wanted, reply) => self.page(account, wanted, reply),
            Action::List(account, reply) => self.list(account, reply),
            Action::Get(account, id, reply) => self.get(account, id, reply),
            Action::Progress(account, id, range, reply) => self.progress(account, id, range, reply),
            Action::Series(account, id, reply) => self.series(account, id, reply),
            Action::Estimate(account, asked, reply) => self.estimate(&account, asked, reply),
            Action::Standing(account, reply) => drop(reply.send(self.machine.standing(self.now(), &account))),
            Action::Overview(reply) => drop(reply.send(self.overview())),
            Action::TakeUp(settings, reply) => {
                self.take_up(*settings);
                let _caller_gone = reply.send(());
            }
        }
    }

    fn reply(&mut self, reply: Reply) -> ReplyId {
        self.last_reply += 1;
        self.replies.insert(self.last_reply, reply);
        self.last_reply
    }

    fn event(&mut self, event: Event) {
        self.feed(match event {
            Event::Failed { serial, failure } => Input::SpoolFailed { serial, failure },
            Event::StreamFailed { serial, queue, failure } => Input::StreamFailed { serial, queue, failure },
            Event::StreamEnded { serial, lost, unpublished, failure, .. } => {
                Input::StreamEnded { serial, lost, unpublished: u64::from(unpublished), failure }
            }
        });
    }

    /// Hands what happened to the machine and begins what it asks for, until nothing follows any more.
    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        let mut effects = Vec::new();
        while let Some(input) = self.inputs.pop_front() {
            if let Input::Adopt { adoption, .. } = &input {
                self.adopting.remove(&adoption.id);
            }
            let now = self.now();
            self.machine.step(now, input, &mut effects);
            for effect in effects.drain(..) {
                self.perform(effect);
            }
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.started.elapsed(), wall: Timestamp::now() }
    }

    fn tick(&mut self) {
        self.heartbeat.beat(0, 0);
        self.look_at_end();
        self.look_at_clock();
        self.extend_series();
        self.assignments.tick();
        while let Some(&(generation, change)) = self.changes.front() {
            let is_ready = self.assignments.runs(generation)
                && (matches!(change, Change::Attach(_)) || self.ports_are_read());
            if !is_ready {
                break;
            }
            self.changes.pop_front();
            let input = match change {
                Change::Attach(serial) => Input::Attached { serial },
                Change::Detach { serial, slot } => {
                    if let Some(resources) = self.resources.get(&serial) {
                        resources.capturing.send_replace(false);
                    }
                    Input::Detached { serial, counted: self.counted(serial, slot) }
                }
            };
            self.feed(input);
        }
        for capture in self.machine.captures().filter(|capture| capture.takes_packets()) {
            let serial = capture.serial;
            if let Some(ended) = self.resources.get(&serial).and_then(|resources| resources.budget.ended()) {
                self.inputs.push_back(Input::BudgetEnded { serial, ended });
            }
        }
        // What one directory lacks no other one has.
        let (spool, held) = (&self.planes.spool, self.planes.spool.fullest().held_bytes());
        let of_accounts =
            spool.holdings().into_iter().map(|(tenant, held)| (AccountId(tenant), held)).collect();
        self.feed(Input::Tick { held, of_accounts });
        self.tell_parts();
    }

    /// Ends uploads that still go on when the end has taken as long as it may: a bucket that confirms a little now and then would
    /// hold it up without end.
    fn look_at_end(&mut self) {
        if !self.machine.is_ending() || *self.time_is_up.borrow() {
            return;
        }
        let max = self.planes.ending_max;
        if self.ending_since.get_or_insert_with(Instant::now).elapsed() < max {
            return;
        }
        self.time_is_up.send_replace(true);
        let spool = &self.planes.spool;
        for capture in self.machine.captures() {
            let bytes = spool.bytes_below(&spool.config().dir.join(capture.job.id.as_str()));
            tracing::warn!(
                capture = %capture.job.id, account = %capture.job.request.account, bytes_in_spool = bytes,
                "its upload takes longer than the end may (upload.ending_seconds_max): it stops where it is, what is in the spool \
                 stays there, and the next start goes on with it"
            );
        }
    }

    /// Tells of a step of the wall clock. Begins a new recording for the history, in the new time, because the old one never ends.
    fn look_at_clock(&mut self) {
        if let Some(said) = clock_state() {
            self.feed(Input::ClockSaid(said));
        }
        let clock = self.planes.clock.read();
        let Some((count, moved_ns)) = clock.since(&self.clock) else { return };
        self.clock = clock;
        tracing::warn!(
            steps = count,
            moved_seconds = moved_ns as f64 / 1e9,
            "the wall clock was set: captures that run keep the time in which they began, later ones have the new time"
        );
        let steps = ClockSteps { count, moved_ns };
        if self.steps.len() >= CLOCK_STEPS_KEPT {
            self.steps.pop_front();
        }
        self.steps.push_back((clock.at_ns, steps));
        self.feed(Input::ClockStepped(steps));
    }

    fn counted(&self, serial: Serial, slot: usize) -> Counted {
        let mut read = self.planes.ports.latest();
        read.drops.uncounted |= read.begun.elapsed() > PORTS_TIME_MAX;
        Counted { totals: sum_slot(&self.planes.queues, slot, serial), ports: read.drops }
    }

    /// Whether the ports were read after the workers let the next capture go: what was lost while it ran is in its counts.
    fn ports_are_read(&mut self) -> bool {
        let since = *self.unread_since.get_or_insert_with(|| {
            self.planes.ports.ask();
            Instant::now()
        });
        let is_read = self.planes.ports.latest().begun >= since || since.elapsed() > PORTS_TIME_MAX;
        if is_read {
            self.unread_since = None;
        }
        is_read
    }
}

fn config(planes: &Planes, streams: usize) -> Config {
    let settings = &planes.settings;
    Config {
        host: planes.host.clone(),
        colo: planes.colo.clone(),
        site: planes.site.clone(),
        slots: planes.captures_max,
        admits: planes.admits,
        accounts: settings.accounts.len(),
        full_per_account: settings.full_per_account,
        account: settings.account,
        simple_interval: settings.simple_interval,
        look_back_interval: settings.look_back_interval,
        simple_one_in: settings.simple_sample.map(Sample::one_in),
        object_format: settings.object_format,
        object_bytes_max: planes.spool.config().segment_bytes,
        queues: planes.queues.len(),
        streams,
        spool_bytes_max: planes.spool.home().quota().bytes_max(),
        high_water_percent: planes.high_water_percent,
        has_history: planes.history.is_some(),
    }
}

/// What the kernel says of the wall clock now.
pub(crate) fn clock_state() -> Option<ClockState> {
    let said = discipline()?;
    Some(ClockState {
        synchronised: said.is_synchronised,
        max_error_ns: said.max_error_ns,
        estimated_error_ns: said.estimated_error_ns,
        offset_ns: said.offset_ns,
        leap_seconds: said.leap_seconds,
    })
}
