//! One capture while the engine works on it. Owns its phase and the account of it; not the effects of a change of phase.
//!
//! Invariant: the ledger that is read in any phase obeys its equations.

use super::handle::Refusal;
use super::planes::{ledger, port_drops_since, sum_slot};
use crate::deliver::Route;
use crate::deliver::journal::Record;
use crate::deliver::{Limits, MANIFEST_VERSION, Manifest};
use crate::job::{Job, Kind, Ledger, PortDrops, Progress, Status, StopReason};
use crate::limits::{FULL_SNAPLEN, SIMPLE_SNAPLEN};
use crate::matcher::Filter;
use crate::pcap::{ObjectFormat, Origin};
use crate::spool::Feed;
use crate::spool::{Failure, Lost};
use crate::worker::{Budget, QueueCounters, SlotTotals};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// In the words of Cloudflare's OpenAPI.
pub(super) const NO_MATCH: &str =
    "No packets matched the filter in the time limit given. Please modify the filter or try again.";

/// Where a capture stands inside the engine.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its destination is being tried; the create call waits for the answer.
    Opening(oneshot::Sender<Result<Job, Refusal>>),
    /// Workers are taking it up.
    Attaching { generation: u64 },
    /// Every worker has it.
    Running,
    /// Workers are letting it go.
    Detaching { generation: u64 },
    /// Its counts are final; streams, merge and upload go on.
    Draining,
    /// The manifest is being written.
    Closing,
}

/// See the module.
pub(super) struct Active {
    pub job: Job,
    pub revision: u64,
    pub serial: u64,
    pub slot: usize,
    /// None for a capture that another process began.
    pub filter: Option<Filter>,
    pub budget: Arc<Budget>,
    pub phase: Phase,
    pub ends_at: Instant,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub route: Route,
    pub queues: usize,
    pub object_bytes_max: u64,
    pub format: ObjectFormat,
    /// What its objects say, if they are pcapng.
    pub origin: Arc<Origin>,
    /// What its merge is told, until it was told everything.
    pub feed: Option<Arc<Feed>>,
    /// Of a capture whose process died: up to when its counts are known, and whether that is all of them.
    pub recovered: Option<(Timestamp, bool)>,
    /// What an upload that is tried again failed with.
    pub trouble: Option<String>,
    /// The process ends before it is delivered.
    pub left: bool,
    /// The ports' losses when it was attached.
    pub ports_from: PortDrops,
    /// Counts and port losses, once they are final.
    pub counted: Option<(SlotTotals, PortDrops)>,
    pub lost: Lost,
    pub failure: Option<Failure>,
    pub streams_left: usize,
    pub delivered: Option<Result<(), String>>,
}

impl Active {
    pub fn snaplen(&self) -> u32 {
        match self.job.request.kind {
            Kind::Simple => SIMPLE_SNAPLEN,
            Kind::Full => FULL_SNAPLEN,
        }
    }

    /// Whether it has taken its last packet, or is about to.
    pub fn stopping(&self) -> bool {
        self.job.stop_reason.is_some()
    }

    /// The counts up to now.
    pub fn ledger(&self, queues: &[Arc<QueueCounters>], ports: impl Fn() -> PortDrops) -> Ledger {
        if self.recovered.is_some() {
            return self.job.ledger;
        }
        let (counts, port) = match (&self.counted, &self.phase) {
            (Some(counted), _) => *counted,
            (None, Phase::Opening(_)) => Default::default(),
            (None, _) => {
                (sum_slot(queues, self.slot, self.serial), port_drops_since(ports(), self.ports_from))
            }
        };
        let mut ledger = ledger(&counts, port);
        // While it runs, a stream's losses may be known before the counters that contain them are read.
        let lost = self.lost.packets.min(ledger.captured);
        ledger.captured -= lost;
        ledger.captured_bytes = ledger.captured_bytes.saturating_sub(self.lost.frame_bytes);
        match self.failure {
            Some(Failure::Io(_)) => ledger.dropped.io = lost,
            _ => ledger.dropped.spool = lost,
        }
        ledger
    }

    /// The job as it is now.
    pub fn view(&self, ledger: Ledger) -> Job {
        Job { ledger, ..self.job.clone() }
    }

    /// What is kept beside its segments.
    pub fn record(&self, ledger: Ledger) -> Record {
        Record {
            job: self.view(ledger),
            queues: self.queues,
            snaplen: self.snaplen(),
            object_bytes_max: self.object_bytes_max,
            format: self.format,
            origin: Origin::clone(&self.origin),
            started: self.started,
            ended: self.ended,
            known_until: Timestamp::now(),
            is_final: self.counted.is_some() && self.streams_left == 0,
        }
    }

    pub fn progress(&self, ledger: Ledger) -> Progress {
        let seconds_left = match (&self.phase, self.stopping()) {
            (Phase::Opening(_), _) => self.job.request.time_limit,
            (_, true) => 0.0,
            (_, false) => self.ends_at.saturating_duration_since(Instant::now()).as_secs_f64(),
        };
        Progress {
            warnings: self.trouble.iter().cloned().collect(),
            ..progress(&self.view(ledger), seconds_left)
        }
    }

    pub fn manifest(&self, host: &str, colo: &str) -> Manifest {
        let job = &self.job;
        let ledger = job.ledger;
        let port = ledger.port.imissed + ledger.port.rx_nombuf + ledger.port.ierrors;
        Manifest {
            version: MANIFEST_VERSION,
            id: job.id.clone(),
            account: Some(job.request.account.clone()),
            host: host.to_owned(),
            colo: colo.to_owned(),
            kind: job.request.kind,
            filter_v1: job.request.filter.clone(),
            limits: Limits {
                time_limit: job.request.time_limit,
                packet_limit: job.request.packet_limit,
                byte_limit: job.request.byte_limit,
            },
            submitted: job.submitted,
            started: self.started,
            ended: self.ended,
            stop_reason: job.stop_reason,
            complete: self.recovered.is_none_or(|(_, all)| all)
                && port == 0
                && ledger.dropped.total() == ledger.dropped.limit + ledger.dropped.sampled,
            snaplen: self.snaplen(),
            format: self.format.container,
            compression: self.format.compression,
            objects: job.objects.clone(),
            ledger,
            queues: u32::try_from(self.queues).unwrap_or(u32::MAX),
            recovered: self.recovered.is_some(),
            counted_until: self.recovered.map(|(until, _)| until),
            sample_one_in: job.sample_one_in,
            offset_time: None,
        }
    }

    /// What became of it, once everything is delivered: the status and what there is to say.
    pub fn verdict(&self) -> (Status, Option<String>) {
        let ledger = &self.job.ledger;
        let kept = || format!("its packets are kept on the host in the spool directory {}", self.job.id);
        match (&self.delivered, &self.failure) {
            (Some(Err(e)), _) => (Status::Failed, Some(format!("{e}; {}", kept()))),
            (_, Some(failure)) if ledger.captured == 0 => {
                (Status::Failed, Some(failure.message().to_owned()))
            }
            (_, Some(failure)) => (Status::Success, Some(failure.message().to_owned())),
            _ if ledger.matched == 0 => (Status::Failed, Some(NO_MATCH.to_owned())),
            _ if ledger.captured == 0 => (
                Status::Failed,
                Some(format!(
                    "{} packets matched and none could be captured: {:?}",
                    ledger.matched, ledger.dropped
                )),
            ),
            _ => (Status::Success, None),
        }
    }
}

/// A job's progress.
pub(super) fn progress(job: &Job, seconds_left: f64) -> Progress {
    Progress {
        id: job.id.clone(),
        status: job.status,
        stop_reason: job.stop_reason,
        ledger: job.ledger,
        seconds_left,
        packet_limit: job.request.packet_limit,
        byte_limit: job.request.byte_limit,
        objects: job.objects.clone(),
        warnings: Vec::new(),
        sample_one_in: job.sample_one_in,
    }
}

/// Why the engine ends a capture whose budget is used up. None yet if the spool took it away: why, its event says, which comes
/// after the workers were told.
pub(super) fn reason(ended: crate::worker::Ended, failure: Option<&Failure>) -> Option<StopReason> {
    use crate::worker::Ended;
    match (ended, failure) {
        (Ended::Time, _) => Some(StopReason::TimeLimit),
        (Ended::Packets, _) => Some(StopReason::PacketLimit),
        (Ended::Bytes, _) => Some(StopReason::ByteLimit),
        (Ended::Revoked, Some(failure)) => Some(refused(failure)),
        (Ended::Revoked, None) => None,
    }
}

/// Why the engine ends a capture that the spool takes no more of.
pub(super) fn refused(failure: &Failure) -> StopReason {
    match failure {
        Failure::Full(_) => StopReason::SpoolFull,
        Failure::Io(_) => StopReason::IoError,
    }
}
