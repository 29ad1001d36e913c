//! A capture's durable record: what was asked for and what became of it. Owns the types and the legal state changes.
//!
//! Invariant: a status only moves along `pending → running → conversion_pending → conversion_running → success | failed`.

use super::{KeptSeries, Ledger, ObjectSums, PartId, Site};
use crate::job::{BucketProof, Destination, Sealed};
use crate::matcher::FilterV1;
use crate::pcap::{Compression, Container, Content};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A capture's id: 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CaptureId(String);

impl CaptureId {
    /// A new random id (UUID version 4 without dashes).
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Reads an id as it stands in a path or file name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        hex.then(|| Self(text.to_owned()))
    }

    /// The 32 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CaptureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An account's id as it stands in the path; at most 32 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountId(pub String);

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `type` of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The first 160 bytes of each packet; kept on the host.
    Simple,
    /// Whole packets, into the customer's bucket.
    Full,
}

/// How the request named the data centre; answers echo it (`colo_name` alone is what the Go SDK can decode).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColoStyle {
    /// `colo_name`: OpenAPI and the SDKs.
    ColoName,
    /// `colo`: the documentation page's curl.
    Colo,
}

/// `offset_time` of a simple capture: the last moment of the time window that is looked back into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetTime {
    /// As sent; answers echo it.
    pub sent: String,
    /// What it says.
    pub at: Timestamp,
}

/// A validated request for a capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Whose capture it is.
    pub account: AccountId,
    /// `simple` or `full`.
    pub kind: Kind,
    /// As sent; `{}` takes every packet.
    pub filter: FilterV1,
    /// Seconds; echoed as sent.
    pub time_limit: f64,
    /// Packets, if limited.
    pub packet_limit: Option<u64>,
    /// Captured frame bytes, if limited.
    pub byte_limit: Option<u64>,
    /// The data centre as sent; `full` only.
    pub colo: Option<String>,
    /// Which member carried it.
    pub colo_style: ColoStyle,
    /// Where the objects go; none for `simple`.
    pub destination: Option<Destination>,
    /// Takes the packets from the history, `time_limit` seconds back from there; from now on if none. `simple` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_time: Option<OffsetTime>,
    /// What the objects are, instead of the host's choice. `full` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Container>,
    /// What they are compressed by, instead of the host's choice. `full` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

/// `status` of a capture, in Cloudflare's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted; not yet attached to the queues.
    Pending,
    /// Packets are being captured.
    Running,
    /// Packets are in the spool; nothing is merged yet.
    ConversionPending,
    /// Objects are being merged and uploaded.
    ConversionRunning,
    /// Every object and the manifest are in the bucket.
    Success,
    /// Ended without; `error_message` says why.
    Failed,
}

impl Status {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

/// Why a capture stopped taking packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// `time_limit` seconds passed.
    TimeLimit,
    /// `packet_limit` packets are captured.
    PacketLimit,
    /// The next packet would have passed `byte_limit`.
    ByteLimit,
    /// Somebody asked for it.
    StopRequested,
    /// The process was asked to end.
    Shutdown,
    /// `spool.bytes_max` or the disk was used up.
    SpoolFull,
    /// The disk refused a write.
    IoError,
    /// The process died while the capture was running.
    Interrupted,
    /// Its packets cannot be delivered: no retry would help.
    DeliveryFailed,
    /// A reason that this version does not know: a newer one wrote the record.
    #[serde(other)]
    Unknown,
}

/// How often the wall clock was set while a capture took packets. Its stamps are those of the clock before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSteps {
    /// How often.
    pub count: u64,
    /// By how much altogether, in ns; negative if it was set back.
    pub moved_ns: i64,
}

impl ClockSteps {
    /// These, and those that came before.
    #[must_use]
    pub fn after(self, before: Option<Self>) -> Self {
        let before = before.unwrap_or(Self { count: 0, moved_ns: 0 });
        Self {
            count: self.count.saturating_add(before.count),
            moved_ns: self.moved_ns.saturating_add(before.moved_ns),
        }
    }
}

/// A queue that a capture went on without, because the disk that it was written to failed or was full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostStream {
    /// Its number.
    pub queue: u16,
    /// [`StopReason::SpoolFull`] or [`StopReason::IoError`].
    pub reason: StopReason,
    /// What happened.
    pub message: String,
}

/// What the kernel said of the wall clock at a moment (adjtimex(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockState {
    /// Whether something disciplined it: chrony, ntpd, PTP.
    pub synchronised: bool,
    /// The most that it could be off, in ns, as that said.
    pub max_error_ns: u64,
    /// How much it was off by the same estimate, in ns.
    pub estimated_error_ns: u64,
    /// What was still to be steered away, in ns.
    pub offset_ns: i64,
    /// Seconds that the end of that day added: 1, 0, or −1.
    #[serde(default)]
    pub leap_seconds: i8,
}

/// The wall clock at both ends of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStates {
    /// When the first worker took it up.
    pub start: ClockState,
    /// When the last one had let it go; none if the process died before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<ClockState>,
}

/// One object in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObjectInfo {
    /// File name below the destination's directory.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Packets in it.
    pub packets: u64,
    /// Bytes of their data; none in a plain pcap file, whose size tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_bytes: Option<u64>,
    /// Time stamp of its first packet, ns since the UNIX epoch; zero if it has none.
    pub first_ns: u64,
    /// Time stamp of its last packet.
    pub last_ns: u64,
    /// SHA-256 of the object, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// What it unpacks to, if it is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

impl ObjectInfo {
    /// Bytes of the packets' data.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        use crate::limits::{PCAP_FILE_HEADER_BYTES as FILE, PCAP_RECORD_HEADER_BYTES as RECORD};
        // A damaged journal or a manifest of somebody else's may claim any number of packets.
        let headers = self.packets.saturating_mul(RECORD as u64).saturating_add(FILE as u64);
        self.frame_bytes.unwrap_or_else(|| self.bytes.saturating_sub(headers))
    }
}

/// The durable record of one capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: CaptureId,
    /// Which host of a fleet it is of; none of a host that stands alone. Its objects have the host in their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// What was asked for.
    pub request: Request,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// When it began to take packets. Of a look back: where its window begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it took no more packets. Of a look back: where its window ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Where it stands.
    pub status: Status,
    /// When a stop was first requested.
    pub stop_requested: Option<Timestamp>,
    /// Why it stopped taking packets, once it did.
    pub stop_reason: Option<StopReason>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// Its counts; final once it ended.
    pub ledger: Ledger,
    /// Complete objects, unless there are more than [`crate::limits::RECORD_OBJECTS_MAX`].
    pub objects: Vec<ObjectInfo>,
    /// The sums of those that stand beside the record, if they are too many for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects_beside: Option<ObjectSums>,
    /// One in so many packets was considered; every one if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_one_in: Option<u32>,
    /// Steps of the wall clock while it took packets, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_steps: Option<ClockSteps>,
    /// Queues of which a part is missing, because the disk that they were written to failed or was full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_streams: Vec<LostStream>,
    /// What the kernel said of the wall clock when it began and ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStates>,
    /// Why what of it is on the host is to go, once somebody decided so: a restart goes on with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
    /// The destination's access keys as they were when it was accepted, encrypted, until it ends: it goes on when its
    /// bucket's entry is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Sealed>,
    /// The proof of its bucket as it was when it was accepted, for the same reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<BucketProof>,
    /// Its counts over time, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<KeptSeries>,
    /// Members that a newer version wrote. They are kept when the record is written again.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Job {
    /// A request that is accepted now. `sample_one_in`: which packets it considers; every one if none.
    #[must_use]
    pub fn accepted(request: Request, sample_one_in: Option<u32>) -> Self {
        Self::accepted_as(CaptureId::random(), Timestamp::now(), request, sample_one_in)
    }

    /// As [`Job::accepted`], with this id and at this time.
    #[must_use]
    pub fn accepted_as(
        id: CaptureId,
        submitted: Timestamp,
        request: Request,
        sample_one_in: Option<u32>,
    ) -> Self {
        Self {
            id,
            site: None,
            request,
            submitted,
            started: None,
            ended: None,
            status: Status::Pending,
            stop_requested: None,
            stop_reason: None,
            error_message: None,
            ledger: Ledger::default(),
            objects: Vec::new(),
            objects_beside: None,
            sample_one_in,
            clock_steps: None,
            lost_streams: Vec::new(),
            clock: None,
            given_up: None,
            keys: None,
            proof: None,
            series: None,
            other: serde_json::Map::new(),
        }
    }

    /// What this host writes of the capture.
    #[must_use]
    pub fn part(&self) -> PartId {
        PartId { capture: self.id.clone(), site: self.site.clone() }
    }

    /// Its counts over time as they are recorded; none if there were counts and nobody kept them second by second.
    #[must_use]
    pub fn counts_over_time(&self) -> Option<KeptSeries> {
        let from_ns = u64::try_from(self.submitted.as_nanosecond()).unwrap_or(0);
        let has_none_yet = self.request.offset_time.is_none() && self.ledger == Ledger::default();
        self.series.clone().or_else(|| has_none_yet.then(|| KeptSeries::none(from_ns)))
    }

    /// What its complete objects come to.
    #[must_use]
    pub fn object_sums(&self) -> ObjectSums {
        self.objects_beside.unwrap_or_else(|| ObjectSums::of(&self.objects))
    }

    /// The record with the sums of these objects instead of the objects.
    #[must_use]
    pub fn with_objects_beside(&self, sums: ObjectSums) -> Self {
        Self { objects_beside: Some(sums), ..self.without_objects() }
    }

    /// The record without its list of objects.
    #[must_use]
    pub fn without_objects(&self) -> Self {
        let Self { id, site, request, error_message, lost_streams, given_up, .. } = self;
        let Self { keys, proof, series, other, .. } = self;
        Self {
            id: id.clone(),
            site: site.clone(),
            request: request.clone(),
            submitted: self.submitted,
            started: self.started,
            ended: self.ended,
            status: self.status,
            stop_requested: self.stop_requested,
            stop_reason: self.stop_reason,
            error_message: error_message.clone(),
            ledger: self.ledger,
            objects: Vec::new(),
            objects_beside: None,
            sample_one_in: self.sample_one_in,
            clock_steps: self.clock_steps,
            lost_streams: lost_streams.clone(),
            clock: self.clock,
            given_up: given_up.clone(),
            keys: keys.clone(),
            proof: proof.clone(),
            series: series.clone(),
            other: other.clone(),
        }
    }

    /// A simple capture of an account, for tests of what is done with jobs.
    #[cfg(test)]
    pub(crate) fn sample(account: &str, submitted_us: i64) -> Self {
        let request = Request {
            account: AccountId(account.to_owned()),
            kind: Kind::Simple,
            filter: FilterV1::default(),
            time_limit: 60.0,
            packet_limit: Some(100),
            byte_limit: None,
            colo: None,
            colo_style: ColoStyle::ColoName,
            destination: None,
            offset_time: None,
            format: None,
            compression: None,
        };
        let submitted = Timestamp::from_microsecond(submitted_us).unwrap_or_default();
        Self { submitted, ..Self::accepted(request, None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_newer_version_is_read_and_written_again_with_all_its_members() {
        let mut newer = serde_json::to_value(Job::sample("a", 1)).unwrap();
        newer["tier"] = serde_json::json!({"cold": [1, 2.5]});
        newer["ledger"]["offloaded"] = 3.into();
        let job: Job = serde_json::from_value(newer.clone()).unwrap();
        let again = serde_json::to_value(&job).unwrap();
        assert_eq!(again["tier"], newer["tier"]);
        assert_eq!(job.without_objects().other, job.other);
        newer["stop_reason"] = "reason_of_tomorrow".into();
        let job: Job = serde_json::from_value(newer).unwrap();
        assert_eq!(job.stop_reason, Some(StopReason::Unknown));
    }
}
