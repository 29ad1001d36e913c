//! Every decision about captures, as one pure state machine: events and the time go in, effects come out. Owns the states of
//! captures, look-backs and the recording; performs nothing. It has no thread, disk, clock or channel, so a
//! test can put it through any order of events (`sim`).
//!
//! ```text
//!  create ─▶ Opening ─▶ Recording ─▶ Placing ─▶ Attaching ─▶ Running ─▶ Detaching ─▶ Draining ─▶ Closing ─▶ Ending ─▶ Removing ─▶ gone
//!               │           │           │           └──────────────────────▲            ▲  │        │ ▲        ▲
//!               └─ refused ─┘           └─ no place ────────────────────────────────────┼──┼────────┼─┼────────┤
//!                                                                            inherited ─┘  │        │ │        │
//!                                                           inherited, spool empty ─▶ Seeking ──────┼─┴────────┘
//!                                                                                          └────────┴▶ Leaving ─▶ Removing
//! ```
//!
//! A part of a capture that another node accepted (`adopt`) goes the same way; its window, its share and its sample come from there.
//!
//! - *Opening → Recording*: the destination answered that it takes objects. A destination that refuses, or a host that shuts
//!   down meanwhile, refuses the create; nothing else was done by then.
//! - *Recording → Placing*: the job is durable in the store. If the store does not take it in time, the create is refused.
//! - *Placing → Attaching*: the directory in the spool exists. The create is answered, the delivery starts, and the workers
//!   are told. Without a directory the create is refused and the job ends as failed.
//! - *Attaching → Running*: every worker runs the capture.
//! - *Attaching or Running → Detaching*: a limit, a stop, a failure of the spool or of the delivery, a full spool or a
//!   shutdown. The first reason stays. Time limits are measured by the monotonic clock alone.
//! - *Detaching → Draining*: every worker has let the capture go. Its counts are final and its slot is free.
//! - *Draining → Closing*: every stream has ended and every object is complete in the bucket: the manifest is published.
//!   A delivery that failed skips the manifest and goes to *Ending*.
//! - *Draining or Closing → Leaving*: the process ends first. The next one goes on; the state is recorded for it.
//! - *Seeking*: a restart found the job unfinished and nothing of it in the spool. Only a manifest in the bucket can say that
//!   it was delivered; without one the job ends as interrupted, and nothing is published.
//! - *Closing → Ending*: the manifest is in the bucket. The outcome is now recorded, as often as it takes.
//! - *Ending → Removing*: the outcome is durable. Only now the directory goes, and only if everything in it was delivered.
//! - *Removing → gone*: the directory is removed or kept. The job stays in the store.
//!
//! Invariant: the outcome of a capture is durable before its directory is removed, and every accepted capture ends.

mod admit;
mod adopt;
mod capture;
mod close;
mod complete;
mod drain;
mod inherit;
mod kept;
mod look_back;
mod pressure;
mod promise;
mod recording;
mod run;
mod share;
mod shutdown;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod verdict;

pub(super) use capture::{Capture, Counted, progress};
pub(super) use inherit::{Inherited, Remains};
pub(super) use kept::Kept;
pub(super) use look_back::LookBack;
pub use share::AccountBounds;
pub(super) use share::Held;
pub(super) use verdict::{NO_MATCH, gone};

use super::adopt::Adoption;
use super::handle::Refusal;
use crate::deliver::{Manifest, Outcome, Report};
use crate::job::{
    AccountId, BucketTerms, CaptureId, ClockState, ClockSteps, Job, ObjectInfo, PortDrops, Request, Site,
    Status, StopReason,
};
use crate::pcap::{Counts, ObjectFormat};
use crate::spool::{Failure, Lost, common_bytes_max};
use crate::worker::{Ended, Share};
use jiff::Timestamp;
use pressure::Pressure;
use recording::Recording;
use share::{Relief, Shares};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The number of a capture, a look-back or a recording in this process's life. Never reused, never zero.
pub(super) type Serial = u64;
/// Identifies a caller who waits for an answer.
pub(super) type ReplyId = u64;

/// How long a create waits for the store, and a shutdown for jobs that cannot be recorded.
pub(super) const RECORD_TIME_MAX: Duration = Duration::from_secs(5);
/// Interval at which counts are written beside the segments. A crash loses the counts since the last time.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// The time, as an argument. `mono` decides; `wall` is only written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub mono: Duration,
    pub wall: Timestamp,
}

/// Settings.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub host: String,
    pub colo: String,
    /// Both as names of objects have them, if this host is one of a fleet.
    pub site: Option<Site>,
    /// Slots for captures.
    pub slots: usize,
    /// Captures for which the workers have a block for every stream.
    pub admits: usize,
    /// Accounts of this host.
    pub accounts: usize,
    pub full_per_account: usize,
    pub simple_interval: Duration,
    pub look_back_interval: Duration,
    /// One in so many packets is considered by simple captures; every one if none.
    pub simple_one_in: Option<u32>,
    pub object_format: ObjectFormat,
    pub object_bytes_max: u64,
    pub queues: usize,
    /// Streams that every capture has; each of them ends once.
    pub streams: usize,
    pub spool_bytes_max: u64,
    pub account: AccountBounds,
    pub high_water_percent: u64,
    pub has_history: bool,
}

/// An event.
#[derive(Debug)]
pub(super) enum Input {
    /// A create request. `lags`: the history lacks the newest packets of the requested time.
    Create { reply: ReplyId, id: CaptureId, request: Box<Request>, lags: bool },
    /// A part of a capture that another node accepted. `known`: whether the store has a job of its id.
    Adopt { reply: ReplyId, adoption: Box<Adoption>, known: Result<bool, String> },
    /// A part may use more of its limits.
    Grant { serial: Serial, more: Share },
    /// What a part has not used of its share goes back, but for `keep`.
    Reclaim { serial: Serial, reply: ReplyId, keep: Share },
    /// A part takes one in so many packets from now on.
    Level { serial: Serial, one_in: u32 },
    /// The node that accepted a capture ends its part.
    EndPart { serial: Serial, why: StopReason },
    /// A stop request. Who waits for it is answered by `Promised`.
    Stop { serial: Serial, reply: Option<ReplyId> },
    /// The owner of a capture that takes no more packets does not want what of it is on the host. Answered by `Promised`.
    GiveUp { serial: Serial, reply: Option<ReplyId> },
    /// The same, of a capture that has ended.
    DropKept { account: AccountId, id: CaptureId, reply: Option<ReplyId> },
    /// A dead process's capture ended and left this.
    Kept(Box<Kept>),
    /// What an ended capture left is removed, or cannot be.
    KeptDropped { id: CaptureId, result: Result<(), String> },
    /// The process is to end; `reply` is answered when everything is done. None: all handles are gone.
    Shutdown { reply: Option<ReplyId> },
    /// A destination was tried.
    Opened { serial: Serial, tried: Result<BucketTerms, Refusal> },
    /// This version of a job is durable.
    Recorded { serial: Serial, version: u64 },
    /// A job is not durable yet; it is tried again.
    RecordTrouble { serial: Serial, error: String },
    /// A new job could not be recorded in time and never will be.
    Unrecordable { serial: Serial, error: String },
    /// The place in the spool is made, or cannot be.
    Placed { serial: Serial, made: Result<(), String> },
    /// Every worker runs the capture.
    Attached { serial: Serial },
    /// Every worker has let the capture go; its counts are final.
    Detached { serial: Serial, counted: Counted },
    /// The budget of a capture ended, for this reason.
    BudgetEnded { serial: Serial, ended: Ended },
    /// One stream is complete. So many segments of it could not be published and stay on the disk.
    StreamEnded { serial: Serial, lost: Lost, unpublished: u64, failure: Option<Failure> },
    /// One stream cannot go on; the others do.
    StreamFailed { serial: Serial, queue: u16, failure: Failure },
    /// The spool failed for a capture.
    SpoolFailed { serial: Serial, failure: Failure },
    /// A delivery reports.
    Delivery { serial: Serial, report: Report },
    /// The counts beside the segments are written down, or could not be.
    Noted { serial: Serial },
    /// The manifest is published, or could not be.
    Closed { serial: Serial, outcome: Outcome },
    /// The directory is removed or kept, with so many bytes, and the spool has forgotten the capture.
    Removed { serial: Serial, result: Result<(), String>, kept: u64 },
    /// The bucket was searched for a capture that has nothing in the spool.
    Sought { serial: Serial, found: Sought },
    /// Frame bytes that each capture that takes packets has captured.
    Weighed { captured: Vec<(Serial, u64)> },
    /// A capture that another process left.
    Inherited(Box<Inherited>),
    /// The place of a recording is made, or cannot be.
    RecordingPlaced { serial: Serial, made: Result<(), String> },
    /// The spool failed for a recording.
    RecordingFailed { serial: Serial },
    /// The wall clock was set: captures go on in the time in which they began, the history in the new time.
    ClockStepped(ClockSteps),
    /// What the kernel says of the wall clock.
    ClockSaid(ClockState),
    /// A look-back is over: the ended job, or why there is none.
    LookedBack { serial: Serial, result: Result<Box<Job>, String> },
    /// Time passed. `held`: bytes of packets in the spool, of several directories in the fullest; and what each account has.
    Tick { held: u64, of_accounts: Held },
}

/// What the bucket says of a capture of which nothing is in the spool.
#[derive(Debug)]
pub(super) enum Sought {
    /// It was delivered.
    Manifest(Box<Manifest>),
    /// No manifest is there, or it cannot be found out, with the reason.
    Nothing(Option<String>),
    /// The process ends before it is known.
    Left,
}

/// An effect to carry out.
#[derive(Debug)]
pub(super) enum Effect {
    /// Answer a create.
    Created { reply: ReplyId, answer: Result<Box<Job>, Refusal> },
    /// Answer who decided something about a capture: it is durable, or it is not known to be.
    Promised { reply: ReplyId, answer: Result<(), Refusal> },
    /// Find out whether the capture's destination takes objects. Answered by `Opened`.
    TryDestination { serial: Serial },
    /// Record a new job. Answered by `Recorded` or, after [`RECORD_TIME_MAX`], by `Unrecordable`.
    RecordNew { serial: Serial, version: u64, job: Box<Job> },
    /// Record what a job is now, as often as it takes. Answered by `Recorded`; a newer version may stand for an older one.
    Record { serial: Serial, version: u64, job: Box<Job> },
    /// Record complete objects beside the job, of which the first one has this number, as often as it takes.
    RecordObjects { id: CaptureId, first: u64, objects: Arc<Vec<ObjectInfo>> },
    /// Make the place in the spool. Answered by `Placed`.
    Place { serial: Serial },
    /// Start the delivery of what the spool publishes from now on.
    Deliver { serial: Serial },
    /// Start the delivery of what a dead process left.
    DeliverLeft { serial: Serial },
    /// Have the workers take up the capture in this slot. Answered by `Attached`.
    Attach { serial: Serial, slot: usize },
    /// End the capture's budget. Answered by `BudgetEnded` with the reason that came first.
    EndBudget { serial: Serial, ended: Ended },
    /// Have the workers let the capture go. Answered by `Detached`.
    Detach { serial: Serial, slot: usize },
    /// Raise a part's share.
    Raise { serial: Serial, more: Share },
    /// Lower a part's share to at most `keep`, then answer by how much.
    Lower { serial: Serial, reply: ReplyId, keep: Share },
    /// Have the workers sample a capture as its job says now.
    Resample { serial: Serial, slot: usize },
    /// Have the spool drop a capture's unwritten data.
    RefuseWrites { serial: Serial, failure: Failure },
    /// Write the counts of now beside the segments. Answered by `Noted`.
    Note { serial: Serial },
    /// Keep the final counts for the end of the last pcapng object, then tell the merge.
    SettleCounts { serial: Serial, counts: Counts },
    /// Publish the manifest. Answered by `Closed`.
    Publish { serial: Serial, manifest: Box<Manifest> },
    /// Look for the manifest of a capture of which nothing is in the spool. Answered by `Sought`.
    Seek { serial: Serial },
    /// Remove the capture's directory and its place in the spool. Answered by `Removed`.
    Remove { serial: Serial },
    /// Give up the capture's place in the spool and keep its directory. Answered by `Removed`.
    Forget { serial: Serial },
    /// Remove the capture's directory with what was not delivered. Answered by `Removed`.
    Discard { serial: Serial },
    /// End the delivery of a capture, whatever it waits for: its end is answered as any other.
    GiveUp { serial: Serial, why: String },
    /// Remove what an ended capture left, and say so in its job. Answered by `KeptDropped`.
    DropKept { account: AccountId, id: CaptureId, why: String },
    /// Nothing is left of the capture here.
    Drop { serial: Serial },
    /// Tell the frame bytes of every capture that takes packets. Answered by `Weighed`.
    Weigh,
    /// End the pauses of all retries.
    StopRetrying,
    /// Make the place of a recording. Answered by `RecordingPlaced`.
    PlaceRecording { serial: Serial },
    /// Have the workers record; what they recorded until now is closed.
    AttachRecording { serial: Serial },
    /// Have the workers end the recording.
    DetachRecording,
    /// Give up the place of a recording that does not begin.
    ForgetRecording { serial: Serial },
    /// Look back. Recordings below `complete_below` must be in the ring. Answered by `LookedBack`.
    LookBack { serial: Serial, complete_below: Serial },
    /// Everything is done; those who asked for the shutdown are answered.
    Finish { replies: Vec<ReplyId> },
}

/// See the module.
pub(super) struct Machine {
    config: Config,
    captures: BTreeMap<Serial, Capture>,
    look_backs: BTreeMap<Serial, LookBack>,
    last_serial: Serial,
    /// When each account last started a simple capture. In memory alone: a restart forgives at most one interval.
    simple_started: BTreeMap<AccountId, Duration>,
    /// Until when the look backs that each account asked for would take at their rate. In memory alone.
    look_backs_until: BTreeMap<AccountId, Duration>,
    /// Turns at the history that were given, and the last one of each account.
    look_backs_turns: u64,
    look_backs_served: BTreeMap<AccountId, u64>,
    recording: Option<Recording>,
    pressure: Pressure,
    shares: Shares,
    relief: Relief,
    kept: Vec<Kept>,
    ending: Option<shutdown::Shutdown>,
    noted_at: Duration,
    /// What the kernel last said of the wall clock.
    clock: Option<ClockState>,
    ended: EndedCounts,
}

/// Captures and look-backs that ended since the process started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EndedCounts {
    pub succeeded: u64,
    pub failed: u64,
}

impl EndedCounts {
    fn count(&mut self, status: Status) {
        match status {
            Status::Success => self.succeeded += 1,
            Status::Failed => self.failed += 1,
            _ => {}
        }
    }
}

impl Machine {
    /// Goes on with other settings. What was accepted by the old ones stays accepted.
    pub fn reconfigure(&mut self, config: Config) {
        self.pressure.set_common(common_bytes_max(config.spool_bytes_max, config.account.part));
        self.shares.set_bounds(config.account, config.spool_bytes_max);
        self.config = config;
    }

    pub fn new(config: Config) -> Self {
        Self {
            pressure: Pressure::new(
                config.spool_bytes_max,
                common_bytes_max(config.spool_bytes_max, config.account.part),
                config.high_water_percent,
            ),
            shares: Shares::new(config.account, config.spool_bytes_max),
            relief: Relief::default(),
            kept: Vec::new(),
            recording: config.has_history.then(Recording::default),
            config,
            captures: BTreeMap::new(),
            look_backs: BTreeMap::new(),
            last_serial: 0,
            simple_started: BTreeMap::new(),
            look_backs_until: BTreeMap::new(),
            look_backs_turns: 0,
            look_backs_served: BTreeMap::new(),
            ending: None,
            noted_at: Duration::ZERO,
            clock: None,
            ended: EndedCounts::default(),
        }
    }

    /// Handles an event and adds its effects to `out`, in the order in which they must begin.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Create { reply, id, request, lags } => self.create(now, reply, id, *request, lags, out),
            Input::Adopt { reply, adoption, known } => self.adopt(now, reply, *adoption, known, out),
            Input::Grant { serial, more } => self.grant(serial, more, out),
            Input::Reclaim { serial, reply, keep } => self.reclaim(serial, reply, keep, out),
            Input::Level { serial, one_in } => self.level(serial, one_in, out),
            Input::EndPart { serial, why } => self.end_part(serial, why, out),
            Input::Stop { serial, reply } => self.stop(now, serial, reply, out),
            Input::GiveUp { serial, reply } => self.owner_drops(now, serial, reply, out),
            Input::DropKept { account, id, reply } => self.drop_kept(now, &account, &id, reply, out),
            Input::Kept(kept) => self.keep(now, *kept),
            Input::KeptDropped { id, result } => self.kept_dropped(now, &id, result, out),
            Input::Shutdown { reply } => self.shut_down(now, reply, out),
            Input::Opened { serial, tried } => self.opened(now, serial, tried, out),
            Input::Recorded { serial, version } => self.recorded(now, serial, version, out),
            Input::RecordTrouble { serial, error } => self.record_trouble(serial, error),
            Input::Unrecordable { serial, error } => self.unrecordable(serial, error, out),
            Input::Placed { serial, made } => self.placed(now, serial, made, out),
            Input::Attached { serial } => self.attached(serial, out),
            Input::Detached { serial, counted } => self.detached(now, serial, counted, out),
            Input::BudgetEnded { serial, ended } => self.budget_ended(now, serial, ended, out),
            Input::StreamEnded { serial, lost, unpublished, failure } => {
                self.stream_ended(now, serial, (lost, failure.as_ref()), unpublished, out);
            }
            Input::StreamFailed { serial, queue, failure } => {
                self.stream_failed(serial, queue, &failure, out)
            }
            Input::SpoolFailed { serial, failure } => self.spool_failed(serial, failure, out),
            Input::Delivery { serial, report } => self.delivery(now, serial, report, out),
            Input::Noted { serial } => self.noted(now, serial, out),
            Input::Closed { serial, outcome } => self.closed(now, serial, outcome, out),
            Input::Removed { serial, result, kept } => self.removed(now, serial, result, kept, out),
            Input::Sought { serial, found } => self.sought(now, serial, found, out),
            Input::Weighed { captured } => self.weighed(&captured, out),
            Input::Inherited(inherited) => self.inherit(*inherited, out),
            Input::RecordingPlaced { serial, made } => self.recording_placed(now, serial, made, out),
            Input::RecordingFailed { serial } => self.recording_failed(now, serial),
            Input::ClockStepped(steps) => self.clock_stepped(steps, out),
            Input::ClockSaid(said) => self.clock_said(said),
            Input::LookedBack { serial, result } => self.looked_back(now, serial, result, out),
            Input::Tick { held, of_accounts } => self.tick(now, held, of_accounts, out),
        }
        self.finish_if_idle(out);
    }

    /// A capture that has not ended, or whose end is being recorded.
    pub fn capture(&self, serial: Serial) -> Option<&Capture> {
        self.captures.get(&serial)
    }

    /// All of them, oldest first.
    pub fn captures(&self) -> impl Iterator<Item = &Capture> {
        self.captures.values()
    }

    /// A look-back that has not ended.
    pub fn look_back(&self, serial: Serial) -> Option<&LookBack> {
        self.look_backs.get(&serial)
    }

    /// All of them, oldest first.
    pub fn look_backs(&self) -> impl Iterator<Item = &LookBack> {
        self.look_backs.values()
    }

    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    pub fn ended(&self) -> EndedCounts {
        self.ended
    }

    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Notes what the ports had lost when the workers were told of a capture.
    pub fn begin_counting(&mut self, serial: Serial, ports: PortDrops) {
        if let Some(capture) = self.captures.get_mut(&serial) {
            capture.ports_from = ports;
        }
    }

    fn next_serial(&mut self) -> Serial {
        self.last_serial += 1;
        self.last_serial
    }
}
