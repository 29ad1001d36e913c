//! Records and messages as nodes of a fleet write them. Owns what stands in them beside what `fleet` decides by: the request, names, the
//! signature, packets; not what any of it means.
//!
//! A job, for instance, is the record of `fleet` and a member `capture` in one JSON object. What a newer node wrote into it stays when
//! this one writes it again ([`Wire`]).
//!
//! Invariant: what is read from the bus may be anybody's, and is of the right form or refused.

use super::keys::Names;
use crate::deliver::{PublicKey, SigningKey};
use crate::fleet::record::{Assignment, Chunk, Job, Part, Registered};
use crate::fleet::sample::Packet;
use crate::fleet::wire::{Wire, WireError};
use crate::fleet::{Down, Epoch, Up};
use crate::job::{BucketTerms, CaptureId, Ledger, ObjectInfo, ObjectSums, Request, Site, StopReason};
use crate::pcap::{Reader, Writer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Link type of captured frames: Ethernet.
pub(super) const ETHERNET: u16 = 1;

/// What a job's record has beside the job: what was accepted, and what was published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub id: CaptureId,
    pub request: Request,
    /// Under which the destination was accepted.
    #[serde(default, skip_serializing_if = "BucketTerms::is_empty")]
    pub terms: BucketTerms,
    pub submitted: Timestamp,
    /// When a stop was first asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_requested: Option<Timestamp>,
    /// Names of the data centers that members' numbers stand for; written with the members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub colos: Vec<String>,
    /// The file of a simple capture, once it is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectInfo>,
    /// The sum of the hosts whose packets are delivered, once that is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// Objects of full captures in the customer's bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<ObjectSums>,
    /// Hosts that are in it and took packets for a part of the window only, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub early: Vec<(String, StopReason)>,
    /// Every host was told of the end: nobody leads it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_closed: bool,
}

/// A job's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    #[serde(flatten)]
    pub job: Job,
    pub capture: Accepted,
}

impl Names for JobRecord {
    fn colo(&self, colo: u32) -> Option<&str> {
        self.capture.colos.get(colo as usize).map(String::as_str)
    }

    fn host(&self, host: u32) -> Option<&str> {
        self.job.hosts().get(host as usize).map(|member| member.identity.name.as_str())
    }
}

/// What an account started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct AccountRecord {
    /// Full captures that take packets, as far as it is known.
    #[serde(default)]
    pub full: BTreeMap<CaptureId, Active>,
    /// When it started its last simple capture.
    #[serde(default)]
    pub simple_at: Option<Timestamp>,
    /// Captures that are accepted and have no record of their own yet.
    #[serde(default)]
    pub intents: BTreeMap<CaptureId, JobRecord>,
    /// Newest first.
    #[serde(default)]
    pub recent: Vec<CaptureId>,
}

/// A full capture that takes packets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Active {
    pub since: Timestamp,
}

impl Active {
    /// Whether its own record may be gone, because it is that old.
    pub fn is_forgotten(&self, now: Timestamp) -> bool {
        now.duration_since(self.since).as_hours() > 24 * 90
    }
}

/// A host of the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HostRecord {
    #[serde(flatten)]
    pub registered: Registered,
    pub site: Site,
    #[serde(default)]
    pub version: String,
}

/// What operators say of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpsRecord {
    /// It takes no new captures.
    #[serde(default)]
    pub is_draining: bool,
    /// It is gone for good.
    #[serde(default)]
    pub is_retired: bool,
}

/// What the hosts of a data center are told, as it is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    /// Which fleet: what is signed for one means nothing in another.
    pub fleet: String,
    /// Whose hosts are told.
    pub colo: String,
    pub id: CaptureId,
    pub request: Request,
    /// Under which the destination was accepted.
    #[serde(default, skip_serializing_if = "BucketTerms::is_empty")]
    pub terms: BucketTerms,
    pub submitted: Timestamp,
    #[serde(flatten)]
    pub assignment: Assignment,
}

/// An assignment's record: the exact text that is signed, and its signature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SignedRecord {
    told: String,
    signature: String,
}

impl SignedRecord {
    /// Signs what is told.
    pub fn sign(told: &Wire<Told>, key: &SigningKey) -> Result<Self, WireError> {
        let told = String::from_utf8(told.to_json()?).unwrap_or_default();
        let signature = STANDARD.encode(key.sign(told.as_bytes()));
        Ok(Self { told, signature })
    }

    /// What is told, if one of these keys signed it.
    pub fn verify(&self, keys: &[PublicKey]) -> Option<Wire<Told>> {
        let signature = STANDARD.decode(&self.signature).ok()?;
        let is_signed = keys.iter().any(|key| key.verifies(self.told.as_bytes(), &signature));
        if is_signed { Wire::read(self.told.as_bytes()).ok() } else { None }
    }

    /// What is told, by any signature: for a node that signs it again.
    pub fn unverified(&self) -> Option<Wire<Told>> {
        Wire::read(self.told.as_bytes()).ok()
    }
}

/// What a host says of its part beside what decides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Its counts, once they are final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// Why it took no more packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
    /// Why it is refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it delivered to the customer's bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<ObjectSums>,
}

/// A host's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PartRecord {
    #[serde(flatten)]
    pub part: Part,
    pub site: Site,
    pub facts: Facts,
    /// The packets that it gives, a pcap file in base64, in the order of the part's list.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub packets: String,
}

/// More packets that a host gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChunkRecord {
    #[serde(flatten)]
    pub chunk: Chunk,
    /// As in [`PartRecord`], under a name that the chunk's own list does not have.
    pub frames: String,
}

/// One packet of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub ns: u64,
    pub wire_len: u32,
    pub data: Vec<u8>,
}

/// Frames as text.
pub(super) fn pack(frames: &[Frame]) -> std::io::Result<String> {
    let mut writer = Writer::new(Vec::new(), crate::limits::SIMPLE_SNAPLEN, ETHERNET)?;
    frames.iter().try_for_each(|frame| writer.write(frame.ns, frame.wire_len, &frame.data))?;
    Ok(STANDARD.encode(writer.finish()?))
}

/// Frames of such a text, if they are as many as packets that they are of.
pub(super) fn unpack(text: &str, of: &[Packet]) -> Option<Vec<(Packet, Frame)>> {
    if of.is_empty() {
        return Some(Vec::new());
    }
    let bytes = STANDARD.decode(text).ok()?;
    let mut reader = Reader::new(bytes.as_slice()).ok()?;
    let mut frames = Vec::with_capacity(of.len());
    for packet in of {
        let record = reader.next_record().ok()??;
        let data = record.data.to_vec();
        frames.push((*packet, Frame { ns: record.ns, wire_len: record.wire_len, data }));
    }
    reader.next_record().ok()?.is_none().then_some(frames)
}

/// That a host lives, and how far its parts are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Beat {
    pub site: Site,
    pub spool_id: u64,
    pub boot: Epoch,
    pub parts: Vec<BeatPart>,
}

/// A part as a heartbeat has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BeatPart {
    pub id: CaptureId,
    /// Its counts up to now.
    pub ledger: Ledger,
    /// It takes packets.
    pub is_running: bool,
}

/// From a host to the lead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ToLead {
    pub id: CaptureId,
    /// Of the host: another one of its name is another host.
    pub spool_id: u64,
    pub up: Up,
}

/// From the lead to a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ToHost {
    pub id: CaptureId,
    pub down: Down,
}

/// A message; none if it is of another form.
pub(super) fn message<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// A message's bytes.
pub(super) fn to_bytes<T: Serialize>(message: &T) -> Vec<u8> {
    // Every one of them has a JSON form.
    serde_json::to_vec(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Kind, Window};
    use crate::job::{AccountId, ColoStyle};
    use crate::matcher::FilterV1;
    use std::time::Duration;

    fn request() -> Request {
        Request {
            account: AccountId("a".to_owned()),
            kind: crate::job::Kind::Simple,
            filter: FilterV1::default(),
            time_limit: 1.0,
            packet_limit: Some(10),
            byte_limit: None,
            colo: None,
            colo_style: ColoStyle::ColoName,
            destination: None,
            offset_time: None,
            format: None,
            compression: None,
        }
    }

    fn window() -> Window {
        Window { start: Duration::ZERO, end: Duration::from_secs(1) }
    }

    #[test]
    fn a_job_of_a_newer_node_keeps_what_this_one_does_not_know_inside_and_outside_of_the_capture() {
        let job = Job::accepted(Kind::Simple { packets: 10, one_in: 1 }, window(), 7);
        let capture = Accepted {
            id: CaptureId::random(),
            request: request(),
            terms: BucketTerms::default(),
            submitted: Timestamp::now(),
            stop_requested: None,
            colos: vec!["ord02".to_owned()],
            objects: Vec::new(),
            ledger: None,
            delivered: None,
            early: Vec::new(),
            is_closed: false,
        };
        let mut json = serde_json::to_value(JobRecord { job, capture }).unwrap();
        json["tier"] = 3.into();
        json["capture"]["request"]["ring"] = "x".into();
        let wire = Wire::<JobRecord>::read(json.to_string().as_bytes()).unwrap();
        let mut record = wire.value().clone();
        record.job.is_stopped = true;
        let written: serde_json::Value =
            serde_json::from_slice(&wire.with(record).to_json().unwrap()).unwrap();
        json["is_stopped"] = true.into();
        assert_eq!(written, json);
    }

    #[test]
    fn an_assignment_is_believed_only_with_the_signature_of_a_known_key_on_this_very_text() {
        let dir = tempfile::tempdir().unwrap();
        let key = |name: &str| SigningKey::create(&dir.path().join(name)).unwrap();
        let (one, other) = (key("one"), key("other"));
        let assignment = Assignment {
            epoch: 1,
            serial: 1,
            rules: 1,
            kind: Kind::Full { limit: None },
            window: window(),
            seed: u64::MAX,
            is_branched: false,
            hosts: Vec::new(),
            is_stopped: false,
            is_over: false,
            quotas: None,
            is_final: false,
        };
        let (fleet, colo) = ("f".to_owned(), "ord02".to_owned());
        let (id, submitted) = (CaptureId::random(), Timestamp::now());
        let (request, terms) = (request(), BucketTerms::default());
        let told = Told { fleet, colo, id, request, terms, submitted, assignment };
        let signed = SignedRecord::sign(&Wire::new(told.clone()), &one).unwrap();
        assert_eq!(signed.verify(&[other.public(), one.public()]).unwrap().value(), &told);
        assert!(signed.verify(&[other.public()]).is_none() && signed.verify(&[]).is_none());
        let forged = SignedRecord { told: signed.told.replace("ord02", "ord03"), ..signed };
        assert!(forged.verify(&[one.public()]).is_none() && forged.unverified().is_some());
    }

    #[test]
    fn frames_come_back_as_they_were_and_as_many_as_packets_or_not_at_all() {
        let frame = |ns: u64| Frame { ns, wire_len: 1500, data: vec![ns as u8; 160] };
        let packet = |sequence| Packet { stream: 0, sequence };
        let text = pack(&[frame(5), frame(2)]).unwrap();
        let of = [packet(9), packet(4)];
        assert_eq!(unpack(&text, &of).unwrap(), [(of[0], frame(5)), (of[1], frame(2))]);
        assert!(unpack(&text, &of[..1]).is_none() && unpack(&text, &[of, of].concat()).is_none());
        assert!(unpack("", &of).is_none() && unpack("AAAA", &of).is_none());
        assert_eq!(unpack("", &[]), Some(Vec::new()));
    }
}
