//! One capture while the engine works on it. Owns its phase, its counts and its verdict; not what a change of phase brings
//! about.
//!
//! Invariant: the ledger that is read in any phase obeys its equations.

use super::super::adopt::PartStage;
use super::super::handle::Refusal;
use super::super::planes::ledger;
use super::adopt::Adopted;
use super::promise::Promise;
use super::{Effect, Now, ReplyId, Serial};
use crate::job::{Job, Kind, Ledger, ObjectRange, ObjectSums, PortDrops, Progress, Status, StopReason};
use crate::limits::{FULL_SNAPLEN, SIMPLE_SNAPLEN};
use crate::matcher::Filter;
use crate::pcap::{Counts, ObjectFormat};
use crate::spool::{Failure, Lost};
use crate::worker::{Ended, SlotTotals};
use jiff::Timestamp;
use std::time::Duration;

/// Where a capture stands. See [`super`] for what leads from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Phase {
    /// Its destination is being tried.
    Opening { reply: ReplyId },
    /// Its job is being recorded for the first time.
    Recording { reply: ReplyId },
    /// Its directory is being made.
    Placing { reply: ReplyId },
    /// Workers are taking it up.
    Attaching,
    /// Every worker has it.
    Running,
    /// Workers are letting it go.
    Detaching,
    /// Its counts are final; streams, merge and upload go on.
    Draining,
    /// Its manifest is being published.
    Closing,
    /// Its manifest is looked for in the bucket.
    Seeking,
    /// Its outcome is being recorded, as this version.
    Ending { version: u64, remove: bool },
    /// Its state is being recorded for the next process, as this version.
    Leaving { version: u64 },
    /// Its place in the spool is being given up.
    Removing,
}

/// What an operator is told of a delivery that ended without a success.
const DELIVERY_OVER: &str = "the delivery ended without success; the capture and this host's log say why";

/// What an operation that is tried again failed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// For the capture's owner.
    pub said: String,
    /// For operators: names nothing that is an account's.
    pub kind: &'static str,
}

/// How the delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    Done,
    /// Its packets stay in the spool.
    Failed(String),
    /// Its directory is gone, and what was not delivered with it.
    Gone(String),
    /// Every object is in the bucket, and the manifest cannot be.
    ManifestFailed(String),
    /// Somebody decided to give it up, for this reason: its packets do not stay in the spool.
    GivenUp(String),
    /// The next process goes on.
    Left,
}

/// What workers counted for one capture, and what ports lost since they were started.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Counted {
    pub totals: SlotTotals,
    pub ports: PortDrops,
}

/// What is known of a capture whose process died.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovered {
    /// Up to when its counts are known.
    pub known_until: Timestamp,
    /// Whether that is all of them.
    pub is_final: bool,
}

/// The writing of counts beside the segments: one at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notes {
    pub in_flight: bool,
    pub wanted: bool,
}

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Capture {
    pub serial: Serial,
    pub job: Job,
    pub phase: Phase,
    /// None for a capture that another process began.
    pub filter: Option<Filter>,
    /// Its slot, as long as a worker may have it.
    pub slot: Option<usize>,
    pub queues: usize,
    pub object_bytes_max: u64,
    pub format: ObjectFormat,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub(super) ends_at: Duration,
    pub(super) recovered: Option<Recovered>,
    /// What a retried operation failed with last.
    pub(super) trouble: Option<Trouble>,
    /// When that is tried again.
    pub(super) next_try: Option<Duration>,
    /// What the ports had lost when it was attached.
    pub(super) ports_from: PortDrops,
    /// Final counts.
    pub(super) counted: Option<(SlotTotals, PortDrops)>,
    pub(super) lost: Lost,
    /// Of these packets, those of streams that a disk refused, and those of streams that had no room.
    pub(super) lost_by_disk: u64,
    pub(super) lost_for_room: u64,
    /// What was captured and could not be read from the disk again.
    pub(super) unread: Lost,
    pub(super) failure: Option<Failure>,
    /// Segments that could not be published and stay on the disk.
    pub(super) unpublished: u64,
    /// Packets in published segments that no object holds, because the merge could not read them.
    pub(super) undelivered: u64,
    pub(super) streams_left: usize,
    pub(super) delivered: Option<Delivered>,
    /// Who waits for a decision about it to be durable.
    pub(super) promises: Vec<Promise>,
    /// Who wants to be gone whatever it leaves, decided when it had ended.
    pub(super) drops: Vec<Option<ReplyId>>,
    /// Objects that are complete behind one that never will be.
    pub(super) ahead: Vec<String>,
    /// What its complete objects come to.
    pub(super) delivered_sums: ObjectSums,
    /// Whether its final counts are in the job.
    pub(super) settled: bool,
    /// Whether its outcome is durable in the store.
    pub(super) is_recorded: bool,
    /// Of the last job that was handed to the store.
    pub(super) version: u64,
    /// Of the newest job that the store is known to have.
    pub(super) durable: u64,
    pub(super) notes: Notes,
    /// What another node decided, if it accepted the capture.
    pub adopted: Option<Adopted>,
    /// When it was asked for.
    pub(super) asked_at: Duration,
    /// When it began to wait for what a shutdown does not wait for.
    pub(super) waits_since: Duration,
}

impl Capture {
    pub(super) fn new(serial: Serial, job: Job, phase: Phase) -> Self {
        Self {
            serial,
            job,
            phase,
            filter: None,
            slot: None,
            queues: 0,
            object_bytes_max: 0,
            format: ObjectFormat::default(),
            started: None,
            ended: None,
            ends_at: Duration::ZERO,
            recovered: None,
            trouble: None,
            next_try: None,
            ports_from: PortDrops::default(),
            counted: None,
            lost: Lost::default(),
            lost_by_disk: 0,
            lost_for_room: 0,
            unread: Lost::default(),
            failure: None,
            unpublished: 0,
            undelivered: 0,
            streams_left: 0,
            delivered: None,
            promises: Vec::new(),
            drops: Vec::new(),
            ahead: Vec::new(),
            delivered_sums: ObjectSums::default(),
            settled: false,
            is_recorded: false,
            version: 0,
            durable: 0,
            notes: Notes::default(),
            adopted: None,
            asked_at: Duration::ZERO,
            waits_since: Duration::ZERO,
        }
    }

    pub fn snaplen(&self) -> u32 {
        match self.job.request.kind {
            Kind::Simple => SIMPLE_SNAPLEN,
            Kind::Full => FULL_SNAPLEN,
        }
    }

    /// Whether it was accepted: before that nobody knows of it but who asked for it.
    pub fn is_accepted(&self) -> bool {
        !matches!(self.phase, Phase::Opening { .. } | Phase::Recording { .. })
    }

    /// Whether workers may append packets to it.
    pub fn takes_packets(&self) -> bool {
        matches!(self.phase, Phase::Attaching | Phase::Running)
    }

    /// How far it is, for the node that accepted it.
    pub fn part_stage(&self) -> PartStage {
        match self.phase {
            Phase::Opening { .. } | Phase::Recording { .. } | Phase::Placing { .. } | Phase::Attaching => {
                PartStage::Accepting
            }
            Phase::Running => PartStage::Running,
            Phase::Removing if self.is_recorded && self.job.status == Status::Success => PartStage::Delivered,
            Phase::Removing if self.is_recorded => PartStage::Failed,
            Phase::Closing | Phase::Ending { .. } => PartStage::Counted,
            _ if self.settled => PartStage::Counted,
            _ => PartStage::Ending,
        }
    }

    /// Whether it takes no more packets and is not delivered.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(
            self.phase,
            Phase::Detaching | Phase::Draining | Phase::Closing | Phase::Seeking | Phase::Leaving { .. }
        )
    }

    /// Whether its counts are read from the workers' counters.
    pub fn is_counting(&self) -> bool {
        matches!(self.phase, Phase::Attaching | Phase::Running | Phase::Detaching) && self.counted.is_none()
    }

    /// What its complete objects come to.
    pub fn object_sums(&self) -> ObjectSums {
        self.delivered_sums
    }

    /// Bytes of its complete objects.
    pub fn object_bytes(&self) -> u64 {
        self.delivered_sums.bytes
    }

    /// Its counts. `live` is asked only while its counts are not final.
    pub fn ledger(&self, live: impl FnOnce() -> Counted) -> Ledger {
        if self.recovered.is_some() || self.settled {
            return self.job.ledger;
        }
        let (counts, port) = match self.counted {
            Some(counted) => counted,
            None if self.is_counting() => {
                let Counted { totals, ports } = live();
                (totals, ports.since(self.ports_from))
            }
            None => return self.job.ledger,
        };
        let mut ledger = ledger(&counts, port);
        // While it runs, a stream's losses may be known before the counters that contain them are read.
        let lost = self.lost.packets.min(ledger.captured);
        ledger.captured -= lost;
        ledger.captured_bytes = ledger.captured_bytes.saturating_sub(self.lost.frame_bytes);
        let by_disk = match self.failure {
            Some(Failure::Io(_)) => lost.saturating_sub(self.lost_for_room),
            Some(Failure::Full(_)) | None => self.lost_by_disk.min(lost),
        };
        (ledger.dropped.io, ledger.dropped.spool) = (by_disk, lost - by_disk);
        lose(&mut ledger, self.unread);
        ledger
    }

    /// Books packets that are on the disk and that the merge could not read.
    pub(super) fn unreadable(&mut self, lost: Lost) {
        self.undelivered += lost.packets;
        if self.recovered.is_some() || self.settled {
            lose(&mut self.job.ledger, lost);
        } else {
            self.unread.packets += lost.packets;
            self.unread.frame_bytes += lost.frame_bytes;
        }
    }

    /// The job as customers see it now, as the store would have it. An outcome is shown once it is durable.
    pub fn view(&self, ledger: Ledger) -> Job {
        let job = self.flat_view(ledger);
        match self.objects_beside() {
            Some(sums) => job.with_objects_beside(sums),
            None => Job { objects: self.job.objects.clone(), ..job },
        }
    }

    /// As [`Capture::view`], without its objects.
    pub fn flat_view(&self, ledger: Ledger) -> Job {
        let mut job = self.flat_job(ledger);
        if matches!(self.phase, Phase::Ending { .. }) {
            job.status = Status::ConversionRunning;
            job.error_message = self.trouble.as_ref().map(|trouble| trouble.said.clone());
        }
        job
    }

    /// When its window began, which its time limit counts from.
    pub fn began_at(&self) -> Duration {
        self.ends_at.saturating_sub(Duration::from_secs_f64(self.job.request.time_limit))
    }

    /// Seconds until its time limit; zero once it stopped.
    pub fn seconds_left(&self, now: Duration) -> f64 {
        match self.phase {
            Phase::Opening { .. } | Phase::Recording { .. } | Phase::Placing { .. } => {
                self.job.request.time_limit
            }
            Phase::Attaching | Phase::Running => self.ends_at.saturating_sub(now).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// Until its delivery, which failed, is tried again.
    pub fn next_try(&self, now: Duration) -> Option<Duration> {
        self.trouble.as_ref().and(self.next_try).map(|at| at.saturating_sub(now))
    }

    /// What an upload that is tried again failed with, and what its ports were.
    pub fn warnings(&self, ledger: &Ledger) -> Vec<String> {
        let said = self.trouble.iter().map(|trouble| trouble.said.clone());
        let mut warnings: Vec<_> =
            said.chain(ledger.port.warning()).chain(self.lost_streams_said()).collect();
        if let Some(Delivered::Failed(error) | Delivered::Gone(error)) = &self.delivered {
            warnings.push(error.clone());
        }
        warnings
    }

    /// What of its delivery failed, in words that name no place.
    pub fn last_error(&self) -> Option<&'static str> {
        let is_over = matches!(&self.delivered, Some(Delivered::Failed(_) | Delivered::Gone(_)));
        self.trouble.as_ref().map(|trouble| trouble.kind).or(is_over.then_some(DELIVERY_OVER))
    }

    /// Whether another process captured it.
    pub fn is_inherited(&self) -> bool {
        self.recovered.is_some()
    }

    pub fn progress(&self, ledger: Ledger, now: Duration, range: ObjectRange) -> Progress {
        let (_in_the_store, objects) = self.objects(range);
        Progress {
            warnings: self.warnings(&ledger),
            seconds_left: self.seconds_left(now),
            objects,
            delivered: self.delivered_sums,
            ..progress(&self.flat_view(ledger), range)
        }
    }

    /// Whether everything that a process has to know of it is final.
    pub fn is_final(&self) -> bool {
        self.counted.is_some() && self.streams_left == 0
    }

    /// Hands the job to the store, without its objects unless it ended: they are in the journal, and a restart reads them there.
    pub(super) fn record(&mut self, out: &mut Vec<Effect>) -> u64 {
        self.version += 1;
        if let Phase::Leaving { version } = &mut self.phase {
            *version = self.version;
        }
        let (serial, version) = (self.serial, self.version);
        let objects = if self.job.status.ended() { self.job.objects.clone() } else { Vec::new() };
        let objects_beside = self.objects_beside();
        let job = Box::new(Job { objects, objects_beside, ..self.job.without_objects() });
        out.push(Effect::Record { serial, version, job });
        version
    }

    /// Has its counts written beside its segments; after the write that is under way, if there is one.
    pub(super) fn note(&mut self, out: &mut Vec<Effect>) {
        if self.notes.in_flight {
            self.notes.wanted = true;
        } else {
            self.notes = Notes { in_flight: true, wanted: false };
            out.push(Effect::Note { serial: self.serial });
        }
    }

    /// Enters a phase in which a shutdown waits for the store only so long.
    pub(super) fn wait_in(&mut self, now: Now, phase: Phase) {
        (self.phase, self.waits_since) = (phase, now.mono);
    }

    /// What the end of its last object says, if its form has a place for it.
    pub(super) fn counts(&self) -> Counts {
        let ledger = &self.job.ledger;
        Counts {
            offered: ledger.offered,
            port_drops: ledger.port.total(),
            matched: ledger.matched,
            host_drops: ledger.dropped.no_block + ledger.dropped.spool + ledger.dropped.io,
            captured: ledger.captured,
        }
    }

    /// Whether its directory holds nothing that is not in the bucket.
    pub(super) fn is_delivered(&self) -> bool {
        self.delivered == Some(Delivered::Done) && self.unpublished == 0 && self.undelivered == 0
    }

    /// Who waits for the answer to its create.
    pub fn reply(&self) -> Option<ReplyId> {
        match self.phase {
            Phase::Opening { reply } | Phase::Recording { reply } | Phase::Placing { reply } => Some(reply),
            _ => None,
        }
    }

    pub(super) fn refuse(&self, refusal: Refusal, out: &mut Vec<Effect>) {
        if let Some(reply) = self.reply() {
            out.push(Effect::Created { reply, answer: Err(refusal) });
        }
    }
}

impl Capture {
    /// The job as it is written beside the segments: its objects are in the journal.
    pub fn flat_job(&self, ledger: Ledger) -> Job {
        Job { ledger, ..self.job.without_objects() }
    }
}

/// A job's progress, with these of its objects; nothing of it is left to come.
pub(in super::super) fn progress(job: &Job, range: ObjectRange) -> Progress {
    Progress {
        id: job.id.clone(),
        status: job.status,
        stop_reason: job.stop_reason,
        ledger: job.ledger,
        seconds_left: 0.0,
        packet_limit: job.request.packet_limit,
        byte_limit: job.request.byte_limit,
        started: job.started,
        ended: job.ended,
        objects: range.of(&job.objects).to_vec(),
        delivered: job.object_sums(),
        warnings: Vec::new(),
        sample_one_in: job.sample_one_in,
        clock_steps: job.clock_steps,
        spool: None,
    }
}

/// Why a capture stops whose budget is used up. None yet if the spool took it away: the spool's event, which comes after the
/// workers were told, says why.
pub(super) fn reason(ended: Ended, failure: Option<&Failure>) -> Option<StopReason> {
    match (ended, failure) {
        (Ended::Time, _) => Some(StopReason::TimeLimit),
        (Ended::Packets, _) => Some(StopReason::PacketLimit),
        (Ended::Bytes, _) => Some(StopReason::ByteLimit),
        (Ended::Revoked, Some(failure)) => Some(refused(failure)),
        (Ended::Revoked, None) => None,
    }
}

/// Why a capture stops that the spool takes nothing more of.
pub(super) fn refused(failure: &Failure) -> StopReason {
    match failure {
        Failure::Full(_) => StopReason::SpoolFull,
        Failure::Io(_) => StopReason::IoError,
    }
}

/// Moves captured packets to what the disk lost.
fn lose(ledger: &mut Ledger, lost: Lost) {
    let packets = lost.packets.min(ledger.captured);
    ledger.captured -= packets;
    ledger.captured_bytes = ledger.captured_bytes.saturating_sub(lost.frame_bytes);
    ledger.dropped.io += packets;
}
