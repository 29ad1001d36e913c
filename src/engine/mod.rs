//! The engine: one task that owns every capture's state. Owns the state machine; the planes below do what it says.
//!
//! ```text
//! create ─▶ Opening ─▶ Attaching ─▶ Running ─▶ Detaching ─▶ Draining ─▶ Closing ─▶ gone (the job stays)
//! ```
//!
//! Invariant: nobody else changes a capture, and no step of it waits for another capture.

mod active;
mod format;
mod handle;
mod look_back;
mod overview;
mod planes;
mod pressure;
mod recording;
mod restart;

pub use handle::{Action, Handle, Refusal};
pub use overview::{CaptureView, Overview};
pub use planes::{Planes, ReadPorts};

use crate::block::Stage;
use crate::deliver::journal::Record;
use crate::deliver::{Outcome, Report, put_manifest};
use crate::history::HistoryError;
use crate::job::{AccountId, CaptureId, Job, Kind, Ledger, Progress, Request, Sealed, Status, StopReason};
use crate::limits::LIST_CAPTURES_MAX;
use crate::matcher::Filter;
use crate::spool::Feed;
use crate::spool::{Event, Spool, SpoolCapture};
use crate::store::{JobStore, StoreError};
use crate::upload::UploadError;
use crate::worker::{Attachment, Budget, ClockReading, Ended, Sample, Window};
use active::{Active, Phase, progress, reason, refused};
use jiff::Timestamp;
use planes::{Roster, Wanted, port_drops_since, sum_slot};
use pressure::Pressure;
use restart::Inheritance;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// How often limits are looked at and workers' answers collected.
const TURN: Duration = Duration::from_millis(5);

/// What the engine's own tasks tell it.
enum Note {
    /// A destination was tried.
    Opened { serial: u64, tried: Result<Option<Sealed>, UploadError> },
    /// A capture is recorded, as this revision, and has its place in the spool; or not.
    Prepared { serial: u64, feed: Arc<Feed>, made: Result<u64, Refusal> },
    /// A delivery has news.
    Delivery { serial: u64, report: Report },
    /// The manifest is written, or could not be.
    Closed { serial: u64, result: Outcome },
    /// A recording's place is made, or not.
    Recordable { serial: u64, budget: Arc<Budget>, made: Result<(), HistoryError> },
    /// A look back ended; without a status if it was never recorded.
    LookedBack { account: AccountId, status: Option<Status> },
}

/// See the module.
pub struct Engine {
    planes: Planes,
    roster: Roster,
    active: BTreeMap<u64, Active>,
    last_serial: u64,
    /// When each account last started a simple capture. In memory alone: a restart forgives at most one interval.
    simple_started: BTreeMap<AccountId, Instant>,
    events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    notes: (mpsc::UnboundedSender<Note>, mpsc::UnboundedReceiver<Note>),
    ending: Option<oneshot::Sender<()>>,
    inheritance: Inheritance,
    leaving: watch::Sender<bool>,
    pressure: Pressure,
    /// The last writing down of counts: when it began, and its task.
    snapshot: (Instant, Option<JoinHandle<()>>),
    recorder: Option<recording::Recorder>,
    look_backs: look_back::LookBacks,
    ended_captures: overview::Ended,
    /// Steps of the wall clock that were told.
    clock: ClockReading,
    stage: Arc<Stage>,
}

impl Engine {
    /// An engine over these planes. Captures that a dead process left unfinished are ended and delivered.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn new(mut planes: Planes) -> Result<Self, StoreError> {
        let inheritance = restart::inherit(&planes)?;
        let roster = Roster::new(std::mem::take(&mut planes.workers));
        let recorder = planes.history.clone().map(recording::Recorder::new);
        Ok(Self {
            pressure: Pressure::new(planes.spool.quota().bytes_max(), planes.high_water_percent),
            planes,
            roster,
            inheritance,
            leaving: watch::channel(false).0,
            snapshot: (Instant::now(), None),
            active: BTreeMap::new(),
            last_serial: 0,
            simple_started: BTreeMap::new(),
            events: mpsc::unbounded_channel(),
            notes: mpsc::unbounded_channel(),
            ending: None,
            recorder,
            look_backs: look_back::LookBacks::new(),
            ended_captures: overview::Ended::default(),
            clock: ClockReading::default(),
            stage: Arc::new(Stage::new("engine", 0)),
        })
    }

    /// What it says of itself.
    #[must_use]
    pub fn stage(&self) -> Arc<Stage> {
        Arc::clone(&self.stage)
    }

    /// Works until [`Action::Shutdown`] is done. Returns when nothing is left to do.
    pub async fn run(mut self, mut actions: mpsc::Receiver<Action>) {
        self.take_over();
        self.record();
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                action = actions.recv() => match action {
                    Some(action) => self.act(action),
                    None => self.shut_down(),
                },
                Some(event) = self.events.1.recv() => self.event(event),
                Some(note) = self.notes.1.recv() => self.note(note),
                _ = turn.tick() => self.turn(),
            }
            if self.is_idle()
                && let Some(done) = self.ending.take()
            {
                let _nobody_waits = done.send(());
                return;
            }
        }
    }

    /// Whether nothing is under way that would still tell it something.
    fn is_idle(&self) -> bool {
        let preparing = self.recorder.as_ref().is_some_and(recording::Recorder::is_preparing);
        self.active.is_empty() && self.look_backs.is_empty() && !preparing
    }

    fn act(&mut self, action: Action) {
        // A caller that went away needs no answer.
        match action {
            Action::Create(request, reply) => self.create(*request, reply),
            Action::List(account, reply) => drop(reply.send(self.list(&account))),
            Action::Get(account, id, reply) => drop(reply.send(self.get(&account, &id))),
            Action::Progress(account, id, reply) => drop(reply.send(self.progress(&account, &id))),
            Action::Stop(account, id, reply) => drop(reply.send(self.stop(&account, &id))),
            Action::Overview(reply) => drop(reply.send(self.overview())),
            Action::Shutdown(reply) => {
                self.ending = Some(reply);
                self.shut_down();
            }
        }
    }

    fn shut_down(&mut self) {
        self.end_recording();
        // What cannot be delivered now stays in the spool, and the next process goes on with it.
        self.leaving.send_replace(true);
        for serial in self.serials() {
            self.end(serial, StopReason::Shutdown);
        }
    }

    fn create(&mut self, request: Request, reply: oneshot::Sender<Result<Job, Refusal>>) {
        if request.offset_time.is_some() {
            return self.look_back(request, reply);
        }
        match self.admit(&request) {
            Err(refusal) => drop(reply.send(Err(refusal))),
            Ok((slot, filter)) => self.open(request, slot, filter, reply),
        }
    }

    /// Whether a capture may begin now: its slot and its validated filter.
    fn admit(&self, request: &Request) -> Result<(usize, Filter), Refusal> {
        if self.ending.is_some() {
            return Err(Refusal::ShuttingDown);
        }
        match request.kind {
            Kind::Full => self.admit_full(request)?,
            Kind::Simple => self.admit_simple(request)?,
        }
        let taken = self.active.values().filter(|a| a.counted.is_none()).map(|a| a.slot);
        let taken: Vec<usize> = taken.collect();
        let slot = (0..self.planes.captures_max)
            .find(|slot| !taken.contains(slot) && self.roster.is_free(*slot))
            .ok_or(Refusal::NoSlot(self.planes.captures_max))?;
        let filter = Filter::try_from(&request.filter).map_err(|e| Refusal::Filter(e.to_string()))?;
        Ok((slot, filter))
    }

    fn admit_full(&self, request: &Request) -> Result<(), Refusal> {
        // One whose packets are counted takes no more of them: that its upload lasts keeps nobody from the next one.
        let mut others = self.active.values().filter(|a| {
            a.counted.is_none()
                && a.job.request.kind == Kind::Full
                && a.job.request.account == request.account
        });
        match others.nth(self.planes.full_per_account.saturating_sub(1)) {
            Some(other) => Err(Refusal::FullCaptureActive(other.job.id.clone())),
            None => Ok(()),
        }
    }

    fn admit_simple(&self, request: &Request) -> Result<(), Refusal> {
        let interval = self.planes.simple_interval;
        let since = self.simple_started.get(&request.account).map(Instant::elapsed);
        match since.and_then(|since| interval.checked_sub(since)).filter(|left| !left.is_zero()) {
            // Rounded up: whoever waits so long is let in.
            Some(left) => Err(Refusal::SimpleTooSoon {
                interval_seconds: interval.as_secs(),
                seconds_left: left.as_secs() + 1,
            }),
            None => Ok(()),
        }
    }

    fn open(
        &mut self,
        request: Request,
        slot: usize,
        filter: Filter,
        reply: oneshot::Sender<Result<Job, Refusal>>,
    ) {
        self.last_serial += 1;
        let serial = self.last_serial;
        if request.kind == Kind::Simple {
            self.simple_started.insert(request.account.clone(), Instant::now());
        }
        let sample = self.planes.simple_sample.filter(|_| request.kind == Kind::Simple);
        let sample_one_in = sample.map(Sample::one_in);
        let job = Job::accepted(request, sample_one_in);
        let (notes, route) = (self.notes.0.clone(), self.route(&job));
        let (mut route_tried, time_max) = (route.clone(), self.planes.contact_time_max);
        tokio::spawn(async move {
            let tried = route_tried.try_out(time_max).await;
            let _engine_gone = notes.send(Note::Opened { serial, tried });
        });
        let budget = Arc::new(Budget::new(job.request.packet_limit, job.request.byte_limit));
        let (format, origin) = (self.format(&job.request), Arc::new(self.origin(&job)));
        let active = Active {
            job,
            revision: 0,
            serial,
            slot,
            filter: Some(filter),
            budget,
            phase: Phase::Opening(reply),
            ends_at: Instant::now(),
            started: None,
            ended: None,
            route,
            queues: self.planes.queues.len(),
            object_bytes_max: self.planes.spool.config().segment_bytes,
            format,
            origin,
            feed: None,
            recovered: None,
            trouble: None,
            left: false,
            ports_from: Default::default(),
            counted: None,
            lost: Default::default(),
            failure: None,
            streams_left: self.roster.streams(),
            delivered: None,
        };
        self.active.insert(serial, active);
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Opened { serial, tried } => self.opened(serial, tried),
            Note::Prepared { serial, feed, made } => self.prepared(serial, feed, made),
            Note::Delivery { serial, report } => self.reported(serial, report),
            Note::Closed { serial, result } => self.closed(serial, result),
            Note::Recordable { serial, budget, made } => self.recordable(serial, budget, made),
            Note::LookedBack { account, status } => self.looked_back(&account, status),
        }
    }

    fn reported(&mut self, serial: u64, report: Report) {
        match report {
            Report::Recovered(found) => self.recovered(serial, found),
            Report::Trouble(error) => self.trouble(serial, error),
            Report::Object(info) => {
                if let Some(active) = self.active.get_mut(&serial) {
                    active.job.objects.push(info);
                    (active.trouble, active.job.error_message) = (None, None);
                }
            }
            Report::Delivered(result) => {
                if let Some(active) = self.active.get_mut(&serial) {
                    match result {
                        Outcome::Done => active.delivered = Some(Ok(())),
                        Outcome::Failed(e) => active.delivered = Some(Err(e)),
                        Outcome::Left => active.left = true,
                    }
                }
                self.close_if_drained(serial);
            }
        }
    }

    fn opened(&mut self, serial: u64, tried: Result<Option<Sealed>, UploadError>) {
        let Some(active) = self.active.get_mut(&serial) else { return };
        match tried {
            Err(e @ UploadError::Unreachable { .. }) => {
                self.refuse(serial, Refusal::DestinationSilent(e.to_string()));
            }
            Err(e) => self.refuse(serial, Refusal::Destination(e.to_string())),
            Ok(_) if self.ending.is_some() => self.refuse(serial, Refusal::ShuttingDown),
            Ok(keys) => {
                (active.job.keys, active.route.kept) = (keys.clone(), keys);
                self.prepare(serial);
            }
        }
    }

    /// Has a capture recorded, and its place in the spool made. Both wait for disks, so somebody else does it.
    fn prepare(&mut self, serial: u64) {
        let Some(active) = self.active.get_mut(&serial) else { return };
        active.started = Some(Timestamp::now());
        let record = active.record(Ledger::default());
        let (feed, budget) = (Arc::new(Feed::new(active.queues)), Arc::clone(&active.budget));
        let place = SpoolCapture {
            serial,
            dir: self.planes.spool.config().dir.join(active.job.id.as_str()),
            merge: Arc::clone(&feed),
            events: self.events.0.clone(),
            stop_workers: Box::new(move |_| budget.end(Ended::Revoked)),
            refused: OnceLock::new(),
        };
        let (jobs, spool, notes) =
            (Arc::clone(&self.planes.jobs), Arc::clone(&self.planes.spool), self.notes.0.clone());
        let made = tokio::task::spawn_blocking(move || prepare(&*jobs, &spool, place, &record));
        tokio::spawn(async move {
            let made = made.await.unwrap_or_else(|died| Err(Refusal::Store(died.to_string())));
            let _engine_gone = notes.send(Note::Prepared { serial, feed, made });
        });
    }

    fn prepared(&mut self, serial: u64, feed: Arc<Feed>, made: Result<u64, Refusal>) {
        let revision = match made {
            Ok(revision) => revision,
            Err(refusal) => return self.refuse(serial, refusal),
        };
        let Some(mut active) = self.active.remove(&serial) else { return };
        active.revision = revision;
        if let Phase::Opening(reply) = self.begin(&mut active, feed) {
            tracing::info!(capture = %active.job.id, account = %active.job.request.account, "capture accepted");
            let _caller_gone = reply.send(Ok(active.job.clone()));
        }
        let stopped = active.job.stop_requested.is_some();
        self.active.insert(serial, active);
        // What was asked of everything, or of what a list already showed, while it waited for the disk.
        if self.ending.is_some() {
            self.end(serial, StopReason::Shutdown);
        } else if stopped {
            self.end(serial, StopReason::StopRequested);
        }
    }

    /// Answers a create whose capture does not begin.
    fn refuse(&mut self, serial: u64, refusal: Refusal) {
        let Some(active) = self.active.remove(&serial) else { return };
        if active.job.request.kind == Kind::Simple {
            // Nothing was started. What stood here before had run out, or this one had not been let in.
            self.simple_started.remove(&active.job.request.account);
        }
        if let Phase::Opening(reply) = active.phase {
            let _caller_gone = reply.send(Err(refusal));
        }
    }

    /// Starts a capture's delivery, and has the workers take it up. Returns the phase that it leaves.
    fn begin(&mut self, active: &mut Active, feed: Arc<Feed>) -> Phase {
        active.feed = Some(Arc::clone(&feed));
        tokio::spawn(self.delivery(active, feed).run());
        active.ports_from = (self.planes.ports)();
        let limit = Duration::from_secs_f64(active.job.request.time_limit);
        let window = Window::open(Some(limit));
        active.started = Some(Timestamp::now());
        active.ends_at = window.ends().unwrap_or(active.ends_at);
        let attachment = Attachment {
            serial: active.serial,
            snaplen: active.snaplen(),
            window,
            budget: Arc::clone(&active.budget),
            sample: active.job.sample_one_in.and_then(Sample::new),
            rotate: None,
        };
        let scope = self.planes.scopes.get(&active.job.request.account).cloned();
        let wanted = active.filter.map(|filter| Wanted { filter, scope, attachment });
        let attaching = Phase::Attaching { generation: self.roster.set(active.slot, wanted) };
        std::mem::replace(&mut active.phase, attaching)
    }

    fn stop(&mut self, account: &AccountId, id: &CaptureId) -> Result<(), Refusal> {
        let found = self.active.values_mut().find(|a| a.job.request.account == *account && a.job.id == *id);
        let Some(active) = found else { return self.stored(account, id).map(|_| ()) };
        active.job.stop_requested.get_or_insert_with(Timestamp::now);
        let serial = active.serial;
        self.end(serial, StopReason::StopRequested);
        Ok(())
    }

    /// Has the workers let a capture go; what it has will be delivered.
    fn end(&mut self, serial: u64, why: StopReason) {
        let Some(active) = self.active.get_mut(&serial) else { return };
        if active.stopping() || matches!(active.phase, Phase::Opening(_)) {
            return;
        }
        active.job.stop_reason = Some(why);
        active.budget.end(Ended::Revoked);
        active.phase = Phase::Detaching { generation: self.roster.set(active.slot, None) };
        tracing::info!(capture = %active.job.id, reason = ?why, "capture stops");
        if let Some(active) = self.active.remove(&serial) {
            self.keep(active);
        }
    }

    fn turn(&mut self) {
        self.stage.turn(0, 0);
        self.roster.turn();
        self.relieve();
        self.snapshot();
        self.look_at_clock();
        self.look_after_recording();
        for serial in self.serials() {
            let Some(active) = self.active.get(&serial) else { continue };
            match active.phase {
                Phase::Attaching { generation } if self.roster.runs(generation) => self.running(serial),
                Phase::Detaching { generation } if self.roster.runs(generation) => self.detached(serial),
                Phase::Attaching { .. } | Phase::Running => {
                    if Instant::now() >= active.ends_at {
                        active.budget.end(Ended::Time);
                    }
                    let ended = active.budget.ended();
                    if let Some(why) = ended.and_then(|ended| reason(ended, active.failure.as_ref())) {
                        self.end(serial, why);
                    }
                }
                _ => {}
            }
        }
    }

    /// Tells of a step of the wall clock. Begins a new recording for the history, in the new time, because the old one never ends.
    fn look_at_clock(&mut self) {
        let clock = self.planes.clock.read();
        let Some((steps, moved_ns)) = clock.since(&self.clock) else { return };
        self.clock = clock;
        tracing::warn!(
            steps,
            moved_seconds = moved_ns as f64 / 1e9,
            "the wall clock was set: captures that run keep the time in which they began, later ones have the new time"
        );
        self.record();
    }

    fn running(&mut self, serial: u64) {
        if let Some(mut active) = self.active.remove(&serial) {
            active.phase = Phase::Running;
            active.job.status = Status::Running;
            self.keep(active);
        }
    }

    /// Every worker has let it go: its counts are final and its slot is free.
    fn detached(&mut self, serial: u64) {
        let Some(mut active) = self.active.remove(&serial) else { return };
        let counts = sum_slot(&self.planes.queues, active.slot, serial);
        active.counted = Some((counts, port_drops_since((self.planes.ports)(), active.ports_from)));
        active.phase = Phase::Draining;
        active.ended = Some(Timestamp::now());
        active.job.status = Status::ConversionPending;
        self.keep(active);
        self.close_if_drained(serial);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Failed { serial, failure } => {
                if let Some(active) = self.active.get_mut(&serial) {
                    tracing::error!(capture = %active.job.id, error = failure.message(), "capture cannot go on");
                    active.failure.get_or_insert(failure.clone());
                }
                self.end(serial, refused(&failure));
            }
            Event::StreamEnded { serial, lost, .. } => {
                if let Some(active) = self.active.get_mut(&serial) {
                    active.lost.packets += lost.packets;
                    active.lost.frame_bytes += lost.frame_bytes;
                    active.streams_left -= 1;
                }
                self.close_if_drained(serial);
            }
        }
    }

    /// Writes the manifest once counts, streams and objects are all final.
    fn close_if_drained(&mut self, serial: u64) {
        let Some(mut active) = self.active.remove(&serial) else { return };
        if matches!(active.phase, Phase::Draining) && active.streams_left == 0 {
            active.job.ledger = active.ledger(&self.planes.queues, &self.planes.ports);
            self.tell_counts(&mut active);
            if active.left {
                self.leave(active);
                return;
            }
            if active.delivered.is_none() {
                active.job.status = Status::ConversionRunning;
            } else {
                active.phase = Phase::Closing;
                self.write_manifest(&active);
            }
            self.keep(active);
        } else {
            self.active.insert(serial, active);
        }
    }

    fn write_manifest(&self, active: &Active) {
        let (serial, notes) = (active.serial, self.notes.0.clone());
        if !matches!(active.delivered, Some(Ok(()))) {
            let _engine_gone = notes.send(Note::Closed { serial, result: Outcome::Done });
            return;
        }
        let manifest = active.manifest(&self.planes.host, &self.planes.colo);
        let (route, dir, retry) = (active.route.clone(), self.dir(active), self.retry_policy(serial));
        let key = self.planes.signing_key.clone();
        tokio::spawn(async move {
            let result = put_manifest(route, dir, manifest, key, retry).await;
            let _engine_gone = notes.send(Note::Closed { serial, result });
        });
    }

    fn closed(&mut self, serial: u64, result: Outcome) {
        let Some(mut active) = self.active.remove(&serial) else { return };
        match result {
            Outcome::Done => {}
            Outcome::Failed(e) => active.delivered = Some(Err(e)),
            Outcome::Left => return self.leave(active),
        }
        if let Err(imbalance) = active.job.ledger.check() {
            tracing::error!(capture = %active.job.id, %imbalance, "ledger does not balance");
        }
        (active.job.status, active.job.error_message) = active.verdict();
        self.ended_captures.note(active.job.status);
        self.persist(&mut active);
        // Only now: until the job has ended, its directory is what a restart goes on with.
        if matches!(active.delivered, Some(Ok(()))) {
            match self.planes.spool.remove_capture_dir(&self.dir(&active)) {
                Ok(true) => {}
                Ok(false) => tracing::warn!(
                    capture = %active.job.id, dir = %self.dir(&active).display(),
                    "a capture's directory stays in the spool, because it has segments that could not be published"
                ),
                Err(error) => {
                    tracing::warn!(capture = %active.job.id, %error, "a delivered capture's directory could not be removed")
                }
            }
        }
        self.planes.spool.forget(serial);
        let (job, ledger) = (&active.job, &active.job.ledger);
        tracing::info!(
            capture = %job.id, status = ?job.status, reason = ?job.stop_reason, offered = ledger.offered, rx = ledger.rx,
            matched = ledger.matched, captured = ledger.captured, dropped = ledger.dropped.total(), objects = job.objects.len(),
            "capture ended"
        );
    }

    /// Keeps a changed capture, in memory and on disk.
    fn keep(&mut self, mut active: Active) {
        self.persist(&mut active);
        self.active.insert(active.serial, active);
    }

    /// A change that cannot be recorded is logged: the capture goes on, and its next change is tried again.
    fn persist(&self, active: &mut Active) {
        if active.job.status.ended() {
            active.job.keys = None;
        }
        match self.planes.jobs.compare_and_set(active.revision, &active.job) {
            Ok(stored) => active.revision = stored.revision,
            Err(error) => {
                tracing::error!(capture = %active.job.id, %error, "a capture's state could not be recorded")
            }
        }
    }

    fn serials(&self) -> Vec<u64> {
        self.active.keys().copied().collect()
    }

    fn find(&self, account: &AccountId, id: &CaptureId) -> Option<(&Active, Ledger)> {
        // The account first: another's capture is passed over like one that has another id.
        let of_account = |a: &&Active| a.job.request.account == *account && a.job.id == *id;
        let active =
            self.active.values().find(of_account).filter(|a| !matches!(a.phase, Phase::Opening(_)))?;
        Some((active, active.ledger(&self.planes.queues, &self.planes.ports)))
    }

    fn stored(&self, account: &AccountId, id: &CaptureId) -> Result<Job, Refusal> {
        match self.planes.jobs.get(account, id) {
            Ok(Some(stored)) => Ok(stored.job),
            Ok(None) => Err(Refusal::NotFound(id.clone())),
            Err(e) => Err(Refusal::Store(e.to_string())),
        }
    }

    fn get(&self, account: &AccountId, id: &CaptureId) -> Result<Job, Refusal> {
        match self.find(account, id) {
            Some((active, ledger)) => Ok(active.view(ledger)),
            None => self.stored(account, id),
        }
    }

    fn progress(&self, account: &AccountId, id: &CaptureId) -> Result<Progress, Refusal> {
        match self.find(account, id) {
            Some((active, ledger)) => {
                let mut progress = active.progress(ledger);
                progress.warnings.extend(self.pressure.warning(self.planes.spool.held_bytes()));
                Ok(progress)
            }
            None => self.stored(account, id).map(|job| progress(&job, 0.0)),
        }
    }

    fn list(&self, account: &AccountId) -> Vec<Job> {
        match self.planes.jobs.list(account, LIST_CAPTURES_MAX) {
            Ok(jobs) => jobs
                .into_iter()
                .map(|stored| {
                    self.find(account, &stored.job.id)
                        .map_or(stored.job, |(active, ledger)| active.view(ledger))
                })
                .collect(),
            Err(error) => {
                tracing::error!(%error, "the list of captures could not be read");
                Vec::new()
            }
        }
    }
}

/// Records a capture and makes its place in the spool; the record's revision. What cannot be made is recorded as failed.
fn prepare(jobs: &dyn JobStore, spool: &Spool, place: SpoolCapture, record: &Record) -> Result<u64, Refusal> {
    let stored = jobs.create(&record.job).map_err(|e| Refusal::Store(e.to_string()))?;
    let (serial, dir) = (place.serial, place.dir.clone());
    let Err(e) = spool.register(place).and_then(|()| record.write(&dir)) else { return Ok(stored.revision) };
    spool.forget(serial);
    let message = format!("cannot make a directory in the spool: {e}");
    let failed = Job {
        status: Status::Failed,
        error_message: Some(message.clone()),
        keys: None,
        ..record.job.clone()
    };
    if let Err(error) = jobs.compare_and_set(stored.revision, &failed) {
        tracing::error!(capture = %failed.id, %error, "a capture's state could not be recorded");
    }
    Err(Refusal::Store(message))
}
