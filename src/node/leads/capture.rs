//! One capture that this node leads: the lead that decides, and the records as they stand on the bus. Owns names and numbers, and what
//! records have beside what the lead decides by; decides nothing.
//!
//! Invariant: a record is written on the very text that its revision was read with, so nothing of a newer node's is lost.

use super::LeadsConfig;
use super::publish::{Chosen, Issue, Published};
use crate::bus::Table;
use crate::fleet::Epoch;
use crate::fleet::held::Revision;
use crate::fleet::lead::Lead;
use crate::fleet::record::{Assignment, Job, Key, Outcome, Record};
use crate::fleet::sample::Packet;
use crate::fleet::shares::Pool;
use crate::fleet::wire::Wire;
use crate::job::{AccountId, CaptureId};
use crate::node::keys::{Names as _, place};
use crate::node::wire::{
    ChunkRecord, Facts, Frame, JobRecord, PartRecord, SignedRecord, Told, to_bytes, unpack,
};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// States of a job's record that are remembered: those that a write can still replace.
const STATES: usize = 8;

/// A capture, led in one epoch.
pub(super) struct Leading {
    pub epoch: Epoch,
    pub account: AccountId,
    id: CaptureId,
    pub lead: Lead,
    /// Names of the data centers that the lead's registry numbers.
    colos: Vec<String>,
    jobs: BTreeMap<Revision, Wire<JobRecord>>,
    assignments: HashMap<u32, (Revision, Wire<Told>)>,
    pool: Option<(Revision, Wire<Pool>)>,
    /// What hosts say of their parts, by place.
    /// With the version of the part: an old read says nothing new.
    facts: BTreeMap<u32, (u64, Facts)>,
    frames: BTreeMap<(u32, Packet), Frame>,
    published: Option<Published>,
    /// When its records were last looked through.
    pub looked: Duration,
    /// Its last record is being written.
    pub is_closing: bool,
}

impl Leading {
    pub fn new(
        epoch: Epoch,
        (account, id): (AccountId, CaptureId),
        lead: Lead,
        colos: Vec<String>,
        now: Duration,
    ) -> Self {
        Self {
            epoch,
            account,
            id,
            lead,
            colos,
            jobs: BTreeMap::new(),
            assignments: HashMap::new(),
            pool: None,
            facts: BTreeMap::new(),
            frames: BTreeMap::new(),
            published: None,
            looked: now,
            is_closing: false,
        }
    }

    /// The newest state that is known of its record.
    pub fn record(&self) -> Option<&JobRecord> {
        self.jobs.last_key_value().map(|(_, wire)| wire.value())
    }

    /// The place of a host with this name and spool; with whatever spool, if none is given.
    pub fn host(&self, name: &str, spool_id: Option<u64>) -> Option<u32> {
        let hosts = self.record()?.job.hosts().iter().zip(0u32..);
        let is_it = |member: &crate::fleet::record::Member| {
            member.identity.name == name && spool_id.is_none_or(|id| member.identity.spool_id == id)
        };
        hosts.into_iter().find(|(member, _)| is_it(member)).map(|(_, host)| host)
    }

    /// The name of a host.
    pub fn name(&self, host: u32) -> Option<String> {
        self.record()?.host(host).map(str::to_owned)
    }

    /// Where a record stands.
    pub fn place(&self, key: Key) -> Option<(Table, String)> {
        match (key, self.record()) {
            (Key::Job, _) => Some((Table::Jobs, crate::node::keys::job_key(&self.account, &self.id))),
            (Key::Pool, _) => Some((Table::Shares, self.id.to_string())),
            (key, Some(record)) => place(key, &self.account, &self.id, record),
            (_, None) => None,
        }
    }

    /// A record as the lead knows it. None: it is of another form.
    pub fn decode(&mut self, key: Key, revision: Revision, json: &[u8]) -> Option<Record> {
        match key {
            Key::Job => {
                let wire = Wire::<JobRecord>::read(json).ok()?;
                let job = wire.value().job.clone();
                self.jobs.insert(revision, wire);
                while self.jobs.len() > STATES {
                    self.jobs.pop_first();
                }
                Some(job.into())
            }
            Key::Assignment(colo) => {
                let told = serde_json::from_slice::<SignedRecord>(json).ok()?.unverified()?;
                let assignment = told.value().assignment.clone();
                if self.assignments.get(&colo).is_none_or(|(known, _)| *known <= revision) {
                    self.assignments.insert(colo, (revision, told));
                }
                Some(assignment.into())
            }
            Key::Pool => {
                let wire = Wire::<Pool>::read(json).ok()?;
                let pool = wire.value().clone();
                if self.pool.as_ref().is_none_or(|(known, _)| *known <= revision) {
                    self.pool = Some((revision, wire));
                }
                Some(pool.into())
            }
            Key::Part(host) => {
                let mut of: PartRecord = serde_json::from_slice(json).ok()?;
                if let Some(given) = &mut of.part.sample {
                    match unpack(&of.packets, &given.packets) {
                        Some(frames) => self.took(host, frames),
                        // It says that it gave what it did not.
                        None => of.part.sample = None,
                    }
                }
                let version = of.part.version;
                if of.part.host == host && self.facts.get(&host).is_none_or(|(known, _)| *known <= version) {
                    self.facts.insert(host, (version, of.facts));
                }
                Some(of.part.into())
            }
            Key::Chunk(host, _) => {
                let of: ChunkRecord = serde_json::from_slice(json).ok()?;
                let frames = unpack(&of.frames, &of.chunk.packets)?;
                self.took(host, frames);
                Some(of.chunk.into())
            }
            Key::Lead | Key::Branch(_) | Key::Shares(_) | Key::Parts(_) | Key::Registered(_) => None,
        }
    }

    fn took(&mut self, host: u32, frames: Vec<(Packet, Frame)>) {
        self.frames.extend(frames.into_iter().map(|(packet, frame)| ((host, packet), frame)));
    }

    /// The text of a record that the lead writes. None: it cannot be written now.
    pub fn encode(
        &self,
        config: &LeadsConfig,
        key: Key,
        expected: Revision,
        record: Record,
    ) -> Option<Vec<u8>> {
        match (key, record) {
            (Key::Job, Record::Job(job)) => self.encode_job(expected, job),
            (Key::Assignment(colo), Record::Assignment(assignment)) => {
                self.encode_assignment(config, colo, expected, assignment)
            }
            (Key::Pool, Record::Pool(pool)) => match &self.pool {
                Some((revision, wire)) if *revision == expected => wire.clone().with(pool).to_json().ok(),
                _ => Some(to_bytes(&pool)),
            },
            _ => None,
        }
    }

    fn encode_job(&self, expected: Revision, job: Job) -> Option<Vec<u8>> {
        let wire = self.jobs.get(&expected)?.clone();
        let mut capture = wire.value().capture.clone();
        if job.members.is_some() && wire.value().job.members.is_none() {
            capture.colos.clone_from(&self.colos);
        }
        if let Some(Published { objects, ledger, delivered, early }) = &self.published {
            capture.objects.clone_from(objects);
            capture.early.clone_from(early);
            (capture.ledger, capture.delivered) = (Some(*ledger), Some(*delivered));
        }
        wire.with(JobRecord { job, capture }).to_json().ok()
    }

    fn encode_assignment(
        &self,
        config: &LeadsConfig,
        colo: u32,
        expected: Revision,
        assignment: Assignment,
    ) -> Option<Vec<u8>> {
        let record = self.record()?;
        let told = Told {
            fleet: config.fleet.clone(),
            colo: record.colo(colo)?.to_owned(),
            id: self.id.clone(),
            request: record.capture.request.clone(),
            terms: record.capture.terms.clone(),
            submitted: record.capture.submitted,
            assignment,
        };
        let wire = match self.assignments.get(&colo) {
            Some((revision, wire)) if *revision == expected => wire.clone().with(told),
            _ => Wire::new(told),
        };
        let signed = SignedRecord::sign(&wire, &config.key).ok()?;
        Some(to_bytes(&signed))
    }

    /// What is to be published. None: packets of it are not here.
    pub fn issue(&self, fleet: &str, outcome: Outcome, samples: Vec<(u32, Vec<Packet>)>) -> Option<Issue> {
        let record = self.record()?.clone();
        let mut chosen: Chosen = Vec::new();
        for (host, packets) in samples {
            for packet in packets {
                chosen.push((host, packet, self.frames.get(&(host, packet))?.clone()));
            }
        }
        let facts = self.facts.iter().map(|(host, (_, facts))| (*host, facts.clone())).collect();
        Some(Issue { fleet: fleet.to_owned(), record, outcome, chosen, facts })
    }

    pub fn published(&mut self, published: Published) {
        self.published = Some(published);
        self.frames.clear();
    }
}
