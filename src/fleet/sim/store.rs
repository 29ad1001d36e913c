//! The fleet's store as nodes see it through its faults: one truth, compare-and-set by revision, and elections without an answer,
//! reads of an old state, answers that are lost. Owns the truth.
//!
//! Invariant: a write that is applied is the newest state of its key, and only one that expected the newest revision is applied.

use super::plan::{Mutant, Plan, SECOND, Time};
use crate::fleet::held::{Answer, Op, Revision};
use crate::fleet::record::{Key, Record};
use crate::fleet::sample::{Chance, Dice};
use std::collections::BTreeMap;

/// How old a stale read may be.
const STALE: Time = 5 * SECOND;

struct Version {
    at: Time,
    revision: Revision,
    /// None: it was purged.
    record: Option<Record>,
}

pub struct Store {
    versions: BTreeMap<Key, Vec<Version>>,
    /// The incarnation of each stream, and its last write.
    streams: BTreeMap<Stream, Revision>,
    busy_until: Time,
    pub writes: BTreeMap<&'static str, u64>,
    /// Bytes of the largest record, where it is measured.
    pub largest: u64,
    dice: Chance,
    forgot: usize,
}

/// Records that are lost and brought back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    Claims,
    Jobs,
    Shares,
    Assignments,
    Parts,
    Registry,
}

impl Stream {
    /// Those that something of a capture's hosts is lost with.
    pub const PARTS: [Self; 3] = [Self::Shares, Self::Assignments, Self::Parts];
}

pub fn stream(key: Key) -> Stream {
    match key {
        Key::Lead | Key::Branch(_) => Stream::Claims,
        Key::Job => Stream::Jobs,
        Key::Pool | Key::Shares(_) => Stream::Shares,
        Key::Assignment(_) => Stream::Assignments,
        Key::Part(_) | Key::Parts(_) | Key::Chunk(..) => Stream::Parts,
        Key::Registered(_) => Stream::Registry,
    }
}

pub fn name(key: Key) -> &'static str {
    match key {
        Key::Lead => "claim of a lead",
        Key::Branch(_) => "claim of a branch",
        Key::Job => "job",
        Key::Pool => "limit",
        Key::Shares(_) => "shares of a data center",
        Key::Assignment(_) => "assignment",
        Key::Part(_) => "part",
        Key::Parts(_) => "parts of a data center",
        Key::Chunk(..) => "chunk of a sample",
        Key::Registered(_) => "registry",
    }
}

impl Store {
    pub fn new(seed: u64) -> Self {
        Self {
            versions: BTreeMap::new(),
            streams: BTreeMap::new(),
            busy_until: 0,
            writes: BTreeMap::new(),
            largest: 0,
            dice: Chance::new(&[seed, 4]),
            forgot: 0,
        }
    }

    pub fn newest(&self, key: Key) -> Option<&Record> {
        self.versions.get(&key)?.last()?.record.as_ref()
    }

    pub fn revision(&self, key: Key) -> Revision {
        let none = Revision { sequence: 0, ..self.last(stream(key)) };
        self.versions.get(&key).and_then(|versions| versions.last()).map_or(none, |version| version.revision)
    }

    fn last(&self, stream: Stream) -> Revision {
        self.streams.get(&stream).copied().unwrap_or(Revision { incarnation: 1, sequence: 0 })
    }

    fn next(&mut self, stream: Stream) -> Revision {
        let last = self.last(stream);
        let next = Revision { sequence: last.sequence + 1, ..last };
        self.streams.insert(stream, next);
        next
    }

    /// Somebody removes a record.
    pub fn purge(&mut self, key: Key, now: Time) {
        let revision = self.next(stream(key));
        self.versions.entry(key).or_default().push(Version { at: now, revision, record: None });
    }

    /// Somebody removes a stream and creates it again.
    pub fn recreate(&mut self, lost: Stream) {
        self.versions.retain(|key, _| stream(*key) != lost);
        let incarnation = self.last(lost).incarnation + 1;
        self.streams.insert(lost, Revision { incarnation, sequence: 0 });
    }

    pub fn is_away(plan: &Plan, now: Time) -> bool {
        now < plan.quiet_at && plan.elections.iter().any(|(from, until)| *from <= now && now < *until)
    }

    /// When a write that arrives now is durable: one after another.
    pub fn durable_at(&mut self, plan: &Plan, now: Time) -> Time {
        self.busy_until = self.busy_until.max(now) + plan.write_time;
        self.busy_until
    }

    /// As some server has it.
    pub fn read(&mut self, plan: &Plan, key: Key, now: Time) -> (Revision, Option<Record>) {
        let is_stale = now < plan.quiet_at && self.dice.below(1000) < plan.stale_permille;
        let at = if is_stale { now.saturating_sub(self.dice.below(STALE)) } else { now };
        let none = Revision { sequence: 0, ..self.last(stream(key)) };
        let versions = self.versions.get(&key).into_iter().flatten().rev();
        let version = versions.into_iter().find(|version| version.at <= at);
        version.map_or((none, None), |version| (version.revision, version.record.clone()))
    }

    /// All parts, as some server has them.
    pub fn parts(&mut self, plan: &Plan, now: Time) -> Vec<(Key, Revision, Record)> {
        let is_listed = |key: &Key| matches!(key, Key::Part(_) | Key::Parts(_) | Key::Job);
        let keys: Vec<Key> = self.versions.keys().copied().filter(is_listed).collect();
        let read = |key| {
            let (revision, record) = self.read(plan, key, now);
            record.map(|record| (key, revision, record))
        };
        keys.into_iter().filter_map(read).collect()
    }

    /// A write is applied, or refused because its revision is not the newest. What was before comes back.
    pub fn write(
        &mut self,
        plan: &Plan,
        key: Key,
        op: Op<Record>,
        now: Time,
    ) -> (Answer<Record>, Option<Record>) {
        let Op::Write { expected, value } = op else { return (Answer::Unavailable, None) };
        self.forget(plan, now);
        let is_new = expected == Revision::default() && self.newest(key).is_none();
        let is_newest = is_new || expected == self.revision(key);
        if !is_newest && plan.mutant != Mutant::StoreIgnoresRevisions {
            return (Answer::Stale, None);
        }
        *self.writes.entry(name(key)).or_default() += 1;
        let revision = self.next(stream(key));
        let versions = self.versions.entry(key).or_default();
        let before = versions.last().and_then(|version| version.record.clone());
        let old = versions.iter().rposition(|version| version.at + STALE < now).unwrap_or(0);
        versions.drain(..old);
        versions.push(Version { at: now, revision, record: Some(value) });
        (Answer::Wrote(revision), before)
    }

    /// A mutant: an election loses the newest write of every key.
    fn forget(&mut self, plan: &Plan, now: Time) {
        let past = plan.elections.iter().filter(|(_, until)| *until <= now).count();
        if plan.mutant == Mutant::StoreForgetsWrites && past > self.forgot {
            self.forgot = past;
            for versions in self.versions.values_mut().filter(|versions| versions.len() > 1) {
                versions.pop();
            }
        }
    }

    pub fn loses_answer(&mut self, plan: &Plan, now: Time) -> bool {
        now < plan.quiet_at && self.dice.below(1000) < plan.lost_answer_permille
    }
}
