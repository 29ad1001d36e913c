//! What the fleet publishes of a capture: the one file of a simple one, and the manifest over all hosts. Owns their form; when they are
//! published, and of which packets, is the lead's.
//!
//! ```text
//!  outcome, parts ─▶ pcap_<id>.pcap (simple) ─▶ pcap_<id>.json ─▶ pcap_<id>.json.sig
//! ```
//!
//! Invariant: any lead makes the same bytes of one outcome, because they follow from durable records alone.

use crate::bus::Bus;
use crate::deliver::{Limits, SigningKey, WHOLE_VERSION, manifest_name, object_name, signature_name};
use crate::fleet::record::{Member, Outcome, Remainder, Verdict};
use crate::fleet::sample::Packet;
use crate::fleet::shares::Amount;
use crate::job::{AccountId, CaptureId, Kind, Ledger, ObjectInfo, ObjectSums, PartId, Site, StopReason};
use crate::limits::SIMPLE_SNAPLEN;
use crate::matcher::FilterV1;
use crate::node::front::Reach;
use crate::node::keys::Names as _;
use crate::node::wire::{ETHERNET, Facts, Frame, JobRecord};
use crate::pcap::{ReadError, Reader, Writer};
use crate::upload::UploadError;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// So many times the manifest is brought to the customer's bucket, each so long at most.
const BRINGS: u32 = 3;
const BRING_MAX: Duration = Duration::from_secs(20);

/// Packets of the file: whose, and which.
pub(super) type Chosen = Vec<(u32, Packet, Frame)>;

/// What was published.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Published {
    pub objects: Vec<ObjectInfo>,
    pub ledger: Ledger,
    pub delivered: ObjectSums,
    /// Hosts that are in it for a part of the window only.
    pub early: Vec<(String, StopReason)>,
}

/// What is to be published.
pub(super) struct Issue {
    pub fleet: String,
    pub record: JobRecord,
    pub outcome: Outcome,
    /// Of a simple capture.
    pub chosen: Chosen,
    /// What delivered hosts say of their parts, by place.
    pub facts: BTreeMap<u32, Facts>,
}

#[derive(Serialize)]
struct HostLine<'a> {
    host: &'a str,
    colo: &'a str,
    /// What became of its part.
    verdict: Option<Verdict>,
    /// Its counts, if its packets are delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<Ledger>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<StopReason>,
    /// Its own manifest, in the customer's bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
}

#[derive(Serialize)]
struct Sample {
    method: &'static str,
    matched: u64,
    kept: u64,
}

/// What of a limit is not in the files.
#[derive(Serialize)]
struct Limit<'a> {
    delivered: Amount,
    /// Nobody was granted it.
    free: Amount,
    /// Hosts that did not end may have captured so much; of that, what they told.
    held: Vec<(&'a str, Amount, Amount)>,
    undelivered: Amount,
    unknown: Amount,
}

#[derive(Serialize)]
struct FleetManifest<'a> {
    version: u32,
    fleet: &'a str,
    id: &'a CaptureId,
    account: &'a AccountId,
    kind: Kind,
    filter_v1: &'a FilterV1,
    limits: Limits,
    submitted: Timestamp,
    window_start: Option<Timestamp>,
    window_end: Option<Timestamp>,
    stop_reason: StopReason,
    /// Every host's packets are here, of the whole window, and no host lost any.
    complete: bool,
    hosts: Vec<HostLine<'a>>,
    /// The sum of the hosts whose packets are delivered.
    ledger: Ledger,
    objects: &'a [ObjectInfo],
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<Sample>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit<'a>>,
}

fn time(since_epoch: Duration) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::try_from(since_epoch.as_nanos()).ok()?).ok()
}

impl Issue {
    fn id(&self) -> &CaptureId {
        &self.record.capture.id
    }

    /// Hosts whose packets are delivered and that ended before the fleet did.
    fn early(&self) -> Vec<(String, StopReason)> {
        let ended = |reason: &StopReason| {
            use StopReason::{ByteLimit, PacketLimit, StopRequested, TimeLimit};
            !matches!(reason, TimeLimit | PacketLimit | ByteLimit | StopRequested)
        };
        let hosts = self.record.job.hosts().iter().zip(0u32..);
        let delivered = hosts.filter(|(member, _)| member.verdict == Some(Verdict::Delivered));
        let reasons = delivered.filter_map(|(member, host)| {
            let reason = self.facts.get(&host)?.stop_reason.filter(ended)?;
            Some((member.identity.name.clone(), reason))
        });
        reasons.collect()
    }

    fn is_simple(&self) -> bool {
        self.record.capture.request.kind == Kind::Simple
    }

    /// The sum of the hosts whose packets are delivered; none while one of their parts is not here.
    fn ledger(&self) -> Option<Ledger> {
        let hosts = self.record.job.hosts().iter().zip(0u32..);
        let delivered = hosts.filter(|(member, _)| member.verdict == Some(Verdict::Delivered));
        let mut sum = Ledger::default();
        for (_, host) in delivered {
            sum = sum.plus(self.facts.get(&host)?.ledger?);
        }
        if self.is_simple() {
            // What the draw left out moves to what sampling left out.
            let kept = self.chosen.len() as u64;
            sum.dropped.sampled = sum.dropped.sampled.saturating_add(sum.captured.saturating_sub(kept));
            sum.captured = kept;
            sum.captured_bytes = self.chosen.iter().map(|(.., frame)| frame.data.len() as u64).sum();
        }
        Some(sum)
    }

    /// The file of a simple capture, by time.
    fn file(&mut self) -> std::io::Result<Option<(ObjectInfo, Vec<u8>)>> {
        if !self.is_simple() || self.chosen.is_empty() {
            return Ok(None);
        }
        self.chosen.sort_by_key(|(host, packet, frame)| (frame.ns, *host, *packet));
        let mut writer = Writer::new(Vec::new(), SIMPLE_SNAPLEN, ETHERNET)?;
        for (.., frame) in &self.chosen {
            writer.write(frame.ns, frame.wire_len, &frame.data)?;
        }
        let bytes = writer.finish()?;
        let ns = |at: Option<&(u32, Packet, Frame)>| at.map_or(0, |(.., frame)| frame.ns);
        let object = ObjectInfo {
            name: object_name(&PartId::alone(self.id()), 0, Default::default()),
            bytes: bytes.len() as u64,
            packets: self.chosen.len() as u64,
            frame_bytes: None,
            first_ns: ns(self.chosen.first()),
            last_ns: ns(self.chosen.last()),
            sha256: HEXLOWER.encode(&Sha256::digest(&bytes)),
            content: None,
        };
        Ok(Some((object, bytes)))
    }

    fn manifest(&self, ledger: Ledger, objects: &[ObjectInfo]) -> serde_json::Result<Vec<u8>> {
        let JobRecord { job, capture } = &self.record;
        let request = &capture.request;
        let hosts: Vec<HostLine<'_>> = (0u32..).zip(job.hosts()).map(|line| self.line(line)).collect();
        let is_whole = hosts.iter().all(|host| host.verdict == Some(Verdict::Delivered));
        let manifest = FleetManifest {
            version: WHOLE_VERSION,
            fleet: &self.fleet,
            id: &capture.id,
            account: &request.account,
            kind: request.kind,
            filter_v1: &request.filter,
            limits: Limits {
                time_limit: request.time_limit,
                packet_limit: request.packet_limit,
                byte_limit: request.byte_limit,
            },
            submitted: capture.submitted,
            window_start: time(job.window.start),
            window_end: time(job.window.end),
            stop_reason: stop_reason(&self.record),
            complete: is_whole && ledger.is_whole() && self.early().is_empty(),
            hosts,
            ledger,
            objects,
            sample: self.is_simple().then_some(Sample {
                method: "uniform over hosts and window",
                matched: ledger.matched,
                kept: ledger.captured,
            }),
            limit: self.outcome.limit.as_ref().map(|limit| self.limit(limit)),
        };
        let mut json = serde_json::to_vec_pretty(&manifest)?;
        json.push(b'\n');
        Ok(json)
    }

    fn line<'a>(&'a self, (host, member): (u32, &'a Member)) -> HostLine<'a> {
        let (name, colo) = (member.identity.name.as_str(), self.record.colo(member.colo).unwrap_or_default());
        let is_delivered = member.verdict == Some(Verdict::Delivered);
        let facts = self.facts.get(&host).filter(|_| is_delivered);
        let site = Site::new(colo, name);
        let part = site.map(|site| PartId { capture: self.id().clone(), site: Some(site) });
        HostLine {
            host: name,
            colo,
            verdict: member.verdict,
            ledger: facts.and_then(|facts| facts.ledger),
            stop_reason: facts.and_then(|facts| facts.stop_reason),
            manifest: part.filter(|_| is_delivered && !self.is_simple()).map(|part| manifest_name(&part)),
        }
    }

    fn limit<'a>(&'a self, limit: &Remainder) -> Limit<'a> {
        let held = limit
            .held
            .iter()
            .map(|(host, held, told)| (self.record.host(*host).unwrap_or_default(), *held, *told));
        Limit {
            delivered: self.outcome.tally.captured,
            free: limit.free,
            held: held.collect(),
            undelivered: limit.undelivered,
            unknown: limit.unknown,
        }
    }
}

/// Why a capture took no more packets.
pub(in crate::node) fn stop_reason(record: &JobRecord) -> StopReason {
    use crate::fleet::shares::Reached;
    match record.job.outcome.as_ref().and_then(|outcome| outcome.reached) {
        Some(Reached::Packets) => StopReason::PacketLimit,
        Some(Reached::Bytes) => StopReason::ByteLimit,
        Some(Reached::Forgotten) => StopReason::Interrupted,
        None if record.job.is_stopped => StopReason::StopRequested,
        None => StopReason::TimeLimit,
    }
}

/// Where it is published, and who signs it.
pub(super) struct Places {
    pub bus: Arc<dyn Bus>,
    pub key: Arc<SigningKey>,
    /// The way to customers' buckets.
    pub reach: Option<Reach>,
}

/// Publishes: the file first, the manifest last, each if it is not there yet.
pub(super) async fn publish(to: &Places, mut issue: Issue) -> Result<Published, String> {
    let (bus, key) = (&to.bus, &to.key);
    let ledger = issue.ledger().ok_or("the part of a host that delivered is not here yet")?;
    let delivered =
        issue.facts.values().filter_map(|facts| facts.delivered).fold(ObjectSums::default(), |sum, of| {
            ObjectSums {
                objects: sum.objects.saturating_add(of.objects),
                bytes: sum.bytes.saturating_add(of.bytes),
                packets: sum.packets.saturating_add(of.packets),
            }
        });
    let mut objects = Vec::new();
    if let Some((object, bytes)) = issue.file().map_err(|error| error.to_string())? {
        keep(&**bus, &object.name, bytes).await?;
        objects.push(object);
    }
    let json = issue.manifest(ledger, &objects).map_err(|error| error.to_string())?;
    let part = PartId::alone(issue.id());
    let signature = key.sign(&json);
    keep(&**bus, &manifest_name(&part), json.clone()).await?;
    // Another lead's is as good, whose key is another one.
    let _is_own =
        bus.keep(&signature_name(&part), signature.clone()).await.map_err(|away| away.to_string())?;
    to.bring(&issue, json, signature).await;
    let delivered = if issue.is_simple() { ObjectSums::of(&objects) } else { delivered };
    Ok(Published { objects, ledger, delivered, early: issue.early() })
}

/// Publishes what is left to be where an earlier lead made the file, whose packets nobody has any more; none where there is no file.
pub(super) async fn find(to: &Places, mut issue: Issue) -> Result<Option<Published>, String> {
    let name = object_name(&PartId::alone(issue.id()), 0, Default::default());
    let Some(bytes) = to.bus.kept(&name).await.map_err(|away| away.to_string())? else { return Ok(None) };
    issue.chosen = chosen(&bytes).map_err(|error| format!("{name} cannot be read: {error}"))?;
    publish(to, issue).await.map(Some)
}

/// The packets of a file as they stand there: whose each is, only its place says.
fn chosen(file: &[u8]) -> Result<Chosen, ReadError> {
    let mut reader = Reader::new(file)?;
    let mut chosen = Chosen::new();
    while let Some(record) = reader.next_record()? {
        let packet = Packet { stream: 0, sequence: chosen.len() as u64 };
        chosen.push((
            0,
            packet,
            Frame { ns: record.ns, wire_len: record.wire_len, data: record.data.to_vec() },
        ));
    }
    Ok(chosen)
}

impl Places {
    /// Brings the manifest to the customer's bucket, beside those of the hosts. It is in the fleet's own results whatever the bucket
    /// says, so one that does not take it keeps no capture from its end.
    async fn bring(&self, issue: &Issue, json: Vec<u8>, signature: Vec<u8>) {
        let request = &issue.record.capture.request;
        let (Some(reach), Some(destination)) = (&self.reach, &request.destination) else { return };
        let part = PartId::alone(issue.id());
        let put = async || -> Result<(), UploadError> {
            let store = reach.open(&request.account, destination, &issue.record.capture.terms).await?;
            for (name, bytes) in [(signature_name(&part), &signature), (manifest_name(&part), &json)] {
                match store.put(&name, bytes.clone().into()).await {
                    // Another lead's, which is as good.
                    Ok(_) | Err(UploadError::Exists { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        for tries in 1..=BRINGS {
            let put = tokio::time::timeout(BRING_MAX, put()).await;
            let error = match put {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", BRING_MAX.as_secs()),
            };
            tracing::warn!(capture = %issue.id(), tries, error, "the manifest over all hosts is not in the customer's bucket");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn keep(bus: &dyn Bus, name: &str, bytes: Vec<u8>) -> Result<(), String> {
    match bus.keep(name, bytes).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{name} is there already, and is another one")),
        Err(away) => Err(away.to_string()),
    }
}
