//! What the fleet's store keeps: records with one writer each at a time. Owns their form, and how a capture's phases follow; not
//! when they are written. The wire form that older and newer nodes understand is the bus's, not this.
//!
//! Invariant: a phase, a verdict and a flag that is set never go back.

use super::held::{Answer, Op, Owned};
use super::sample::{Counts, Packet};
use super::shares::{Amount, Pool, Reached};
use super::{Colo, Host, Kind, Window};
use serde::{Deserialize, Serialize};

/// Names a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// Who leads a partition of the captures.
    Lead,
    /// Who speaks for a data center.
    Branch(Colo),
    /// A capture.
    Job,
    /// Its limit.
    Pool,
    /// What a data center holds of it.
    Shares(Colo),
    /// What the hosts of a data center are told.
    Assignment(Colo),
    /// A host's part.
    Part(Host),
    /// The parts of a data center's hosts, where one speaks for them.
    Parts(Colo),
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Of [`Key::Lead`] and [`Key::Branch`].
    Claim(Claim),
    /// Of [`Key::Job`].
    Job(Job),
    /// Of [`Key::Pool`] and [`Key::Shares`].
    Pool(Pool),
    /// Of [`Key::Assignment`].
    Assignment(Assignment),
    /// Of [`Key::Part`].
    Part(Part),
    /// Of [`Key::Parts`].
    Parts(Parts),
}

macro_rules! records {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Record {
            fn from(value: $kind) -> Self {
                Self::$kind(value)
            }
        }
        impl TryFrom<Record> for $kind {
            type Error = ();
            fn try_from(record: Record) -> Result<Self, ()> {
                if let Record::$kind(value) = record { Ok(value) } else { Err(()) }
            }
        }
    )*};
}
records!(Claim, Job, Pool, Assignment, Part, Parts);

/// The same operation on any record.
pub fn any<R: Into<Record>>(op: Op<R>) -> Op<Record> {
    match op {
        Op::Read => Op::Read,
        Op::Write { expected, value } => Op::Write { expected, value: value.into() },
    }
}

/// The same answer on one kind of record. A record of another kind under a key is none that we can use.
pub fn one<R: TryFrom<Record>>(answer: Answer<Record>) -> Answer<R> {
    match answer {
        Answer::Read(None) => Answer::Read(None),
        Answer::Read(Some((revision, record))) => match R::try_from(record) {
            Ok(value) => Answer::Read(Some((revision, value))),
            Err(_) => Answer::Unavailable,
        },
        Answer::Wrote(revision) => Answer::Wrote(revision),
        Answer::Stale => Answer::Stale,
        Answer::Uncertain => Answer::Uncertain,
        Answer::Unavailable => Answer::Unavailable,
    }
}

/// The right to act, as long as nobody takes it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Rises with each holder; safety comes from it alone.
    pub epoch: u64,
    /// The holder, and which of its lives.
    pub holder: (u32, u64),
    /// Rises with each renewal, so that a watcher sees that it lives.
    pub beat: u64,
}

/// How far a capture is. Later is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted.
    Pending,
    /// A host captures.
    Running,
    /// Every host is counted, refused, missing or lost.
    ConversionPending,
    /// Every host has its verdict; the outcome is being published.
    ConversionRunning,
    /// At least one packet was delivered.
    Success,
    /// None was.
    Failed,
}

impl Phase {
    /// Whether it is over.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

/// What came of a host's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// What it captured is delivered.
    Delivered,
    /// It captured and could not deliver.
    Failed,
    /// It did not take the capture.
    Refused,
    /// It never answered.
    Missing,
    /// It answered once and is silent.
    Lost,
}

/// A host of a capture: every one that was registered, also those that were silent then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its data center.
    pub colo: Colo,
    /// Once it is known.
    pub verdict: Option<Verdict>,
}

/// How many packets each host gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    /// Rises when they are drawn again, because a host is lost.
    pub round: u32,
    /// The fleet's level.
    pub level: u8,
    /// By host; none is one that is not in this draw, and in no later one.
    pub of: Vec<Option<u64>>,
}

/// Frames of a part or a fleet, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Taken by the filter.
    pub matched: u64,
    /// In the files.
    pub captured: Amount,
    /// No share of the limit was there for them.
    pub share: u64,
    /// Left out by sampling.
    pub sampled: u64,
}

impl Tally {
    /// Whether each matching frame is counted once.
    #[must_use]
    pub fn check(&self) -> bool {
        self.matched == self.captured.packets + self.share + self.sampled
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            matched: self.matched + other.matched,
            captured: self.captured.plus(other.captured),
            share: self.share + other.share,
            sampled: self.sampled + other.sampled,
        }
    }
}

/// What is published of a capture. Any lead publishes the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The sum of the delivered parts.
    pub tally: Tally,
    /// Why it ended, if not by time or stop.
    pub reached: Option<Reached>,
    /// What hosts or data centers that did not answer held of the limit, by place in the pool.
    pub held: Vec<(u32, Amount)>,
    /// Hosts whose packets are not in it, with why.
    pub absent: Vec<(Host, Verdict)>,
}

/// A capture of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Of the lead that wrote it; 0 by the front.
    pub epoch: u64,
    /// What is captured.
    pub kind: Kind,
    /// When.
    pub window: Window,
    /// Of its random draws.
    pub seed: u64,
    /// The customer stopped it.
    pub is_stopped: bool,
    /// How far it is.
    pub phase: Phase,
    /// Once the lead has looked who is registered.
    pub members: Vec<Member>,
    /// One host of each data center speaks for it.
    pub is_branched: bool,
    /// Of a simple capture, once all counts are there.
    pub quotas: Option<Quotas>,
    /// Once every member has a verdict.
    pub outcome: Option<Outcome>,
}

impl Job {
    /// Rises with each change that hosts are to hear of.
    #[must_use]
    pub fn serial(&self) -> u64 {
        let round = self.quotas.as_ref().map_or(0, |quotas| quotas.round);
        1 + u64::from(self.is_stopped) + u64::from(round) + u64::from(self.phase.is_end())
    }
}

/// What a data center's hosts are to do. It only gains flags; hosts ignore a lower serial than they have seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Of the lead that wrote it.
    pub epoch: u64,
    /// Of the job.
    pub serial: u64,
    /// What is captured.
    pub kind: Kind,
    /// When.
    pub window: Window,
    /// Of random draws.
    pub seed: u64,
    /// Talk to the host that speaks for the data center, not to the lead.
    pub is_branched: bool,
    /// The hosts, with what each may use before it has asked.
    pub hosts: Vec<(Host, Amount)>,
    /// End now.
    pub is_stopped: bool,
    /// Of the same hosts: the round, the level, and how many packets each gives.
    pub quotas: Option<Quotas>,
    /// Nothing is asked any more: what is held for this capture can go.
    pub is_final: bool,
}

/// How far a part is. Later is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// It captures.
    Running,
    /// Nothing is captured any more; counts are final.
    Counted,
    /// Everything is in the customer's bucket.
    Delivered,
    /// It cannot be brought there.
    Failed,
    /// The host does not take the capture.
    Refused,
}

/// One host's part, written for it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which life of the host wrote it.
    pub epoch: u64,
    /// Whose it is.
    pub host: Host,
    /// Rises with each change, over restarts of the host too: its upper half is the life that wrote it.
    pub version: u64,
    /// How far it is.
    pub stage: Stage,
    /// A crash ended it; what was durable then is what it has.
    pub is_interrupted: bool,
    /// Final from [`Stage::Counted`] on.
    pub tally: Tally,
    /// Of a simple capture, from [`Stage::Counted`] on.
    pub counts: Option<Counts>,
    /// For this round of quotas, these packets.
    pub sample: Option<(u32, Vec<Packet>)>,
}

/// The parts of a data center's hosts, in the order of its assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Of the host that speaks for them.
    pub epoch: u64,
    /// Those that came.
    pub parts: Vec<Option<Part>>,
}

macro_rules! owned {
    ($($kind:ident),*) => {$(
        impl Owned for $kind {
            fn epoch(&self) -> u64 {
                self.epoch
            }
            fn in_epoch(self, epoch: u64) -> Self {
                Self { epoch, ..self }
            }
        }
    )*};
}
owned!(Claim, Job, Assignment, Part, Parts);
