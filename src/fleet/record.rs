//! What the fleet's store keeps: records with one writer each at a time. Owns their form, and how a capture's phases follow; not
//! when they are written. The wire form that older and newer nodes understand is the bus's, not this.
//!
//! Invariant: a phase, a verdict and a flag that is set never go back.

use super::held::{Answer, Op, Owned};
use super::sample::{Counts, Packet};
use super::shares::{Amount, Pool, Reached, UNLIMITED};
use super::{Colo, Epoch, Host, Kind, Window};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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
    /// Packets that a host gives, in so many records as they need.
    Chunk(Host, u32),
    /// A host of the registry.
    Registered(u32),
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
    /// Of [`Key::Chunk`].
    Chunk(Chunk),
    /// Of [`Key::Registered`].
    Registered(Registered),
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
records!(Claim, Job, Pool, Assignment, Part, Parts, Chunk, Registered);

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
        Answer::Read(revision, None) => Answer::Read(revision, None),
        Answer::Read(revision, Some(record)) => match R::try_from(record) {
            Ok(value) => Answer::Read(revision, Some(value)),
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
    pub epoch: Epoch,
    /// The holder, and which of its lives.
    pub holder: (u32, Epoch),
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
    /// It answered once, and is silent or never says what came of it.
    Lost,
}

/// Which host it is. One that lost its disk, and with it what it accepted, has another spool and is another host of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Unique in the fleet.
    pub name: String,
    /// Drawn when its spool was made.
    pub spool_id: u64,
}

/// A host of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The host.
    pub identity: Identity,
    /// Its data center.
    pub colo: Colo,
    /// Which of its lives, and what that drew to know its own entry.
    pub boot: Epoch,
    /// Of that life.
    pub nonce: u64,
}

/// A host of a capture: every one that was registered, also those that were silent then. Its place in the list is its number in all
/// records of the capture; the registry may change meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The host.
    pub identity: Identity,
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
    /// Lost otherwise: no block, a full spool, an error, after the end of the limit.
    pub lost: u64,
}

impl Tally {
    /// Whether each matching frame is counted once.
    #[must_use]
    pub fn check(&self) -> bool {
        let parts = [self.captured.packets, self.share, self.sampled, self.lost];
        parts.iter().try_fold(0u64, |sum, part| sum.checked_add(*part)) == Some(self.matched)
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            matched: self.matched.saturating_add(other.matched),
            captured: self.captured.plus(other.captured),
            share: self.share.saturating_add(other.share),
            sampled: self.sampled.saturating_add(other.sampled),
            lost: self.lost.saturating_add(other.lost),
        }
    }
}

/// What of a limit was not delivered. With what was, it adds up to the limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remainder {
    /// Nobody was granted it.
    pub free: Amount,
    /// What hosts or data centers that did not end may have captured and may still capture, by place in the pool; and of that, what
    /// they told to have captured.
    pub held: Vec<(u32, Amount, Amount)>,
    /// Captured by hosts that ended, and not delivered.
    pub undelivered: Amount,
    /// The record of the limit was lost, so nobody knows who had this.
    pub unknown: Amount,
}

/// What is published of a capture. Any lead publishes the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The sum of the delivered parts.
    pub tally: Tally,
    /// Why it ended, if not by time or stop.
    pub reached: Option<Reached>,
    /// What of a limit is not in the files, and who has it.
    pub limit: Option<Remainder>,
    /// Hosts whose packets are not in it, with why.
    pub absent: Vec<(Host, Verdict)>,
}

/// What nodes work out alike, and write down nowhere: first shares, levels, draws. Another number is another way to work it out.
pub const RULES: u16 = 1;

/// A capture of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Of the lead that wrote it; 0 by the front.
    pub epoch: Epoch,
    /// [`RULES`] of the node that accepted it. A node that has others does not touch it.
    pub rules: u16,
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
    /// Its window is over by the lead's clock, and hosts that still capture are to end.
    pub is_over: bool,
    /// Its limit has a record. One that is not found then is lost, and is not dealt a second time.
    pub has_pool: bool,
    /// The same for the shares of these data centers, where one host speaks for each.
    pub dealt: BTreeSet<Colo>,
    /// Once the lead has looked who is registered.
    pub members: Option<Vec<Member>>,
    /// One host of each data center speaks for it.
    pub is_branched: bool,
    /// Of a simple capture, once all counts are there.
    pub quotas: Option<Quotas>,
    /// Once every member has a verdict.
    pub outcome: Option<Outcome>,
}

impl Job {
    /// As the front writes it.
    #[must_use]
    pub fn accepted(kind: Kind, window: Window, seed: u64) -> Self {
        Self {
            epoch: 0,
            rules: RULES,
            kind,
            window,
            seed,
            is_stopped: false,
            phase: Phase::Pending,
            is_over: false,
            has_pool: false,
            dealt: BTreeSet::new(),
            members: None,
            is_branched: false,
            quotas: None,
            outcome: None,
        }
    }

    /// Rises with each change that hosts are to hear of.
    #[must_use]
    pub fn serial(&self) -> u64 {
        let round = self.quotas.as_ref().map_or(0, |quotas| quotas.round);
        let flags = [self.is_stopped, self.is_over, self.phase.is_end()];
        1 + u64::from(round) + flags.into_iter().map(u64::from).sum::<u64>()
    }

    /// Its hosts, as far as they are known.
    #[must_use]
    pub fn hosts(&self) -> &[Member] {
        self.members.as_deref().unwrap_or_default()
    }
}

/// A host of an assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// Its place in the capture's list.
    pub host: Host,
    /// Who it is.
    pub identity: Identity,
    /// What it may use before it has asked.
    pub share: Amount,
}

/// What a data center's hosts are to do. It only gains flags; hosts ignore a lower serial than they have seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Of the lead that wrote it.
    pub epoch: Epoch,
    /// Of the job.
    pub serial: u64,
    /// Of the job.
    pub rules: u16,
    /// What is captured.
    pub kind: Kind,
    /// When.
    pub window: Window,
    /// Of random draws.
    pub seed: u64,
    /// Talk to the host that speaks for the data center, not to the lead.
    pub is_branched: bool,
    /// The hosts.
    pub hosts: Vec<Assigned>,
    /// End now.
    pub is_stopped: bool,
    /// The window is over, whatever a host's clock says.
    pub is_over: bool,
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

/// Why a host does not take a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// By its clock the window is over: it heard too late, or its clock is wrong.
    Clock,
    /// It cannot write down that it accepted.
    Disk,
    /// As many captures as it can run are running.
    NoSlot,
    /// It does not know the customer.
    UnknownAccount,
    /// No room for packets.
    SpoolFull,
    /// It works out samples in another way than the fleet's.
    Rules,
}

/// One host's part, written for it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which life of the host wrote it.
    pub epoch: Epoch,
    /// Whose it is.
    pub host: Host,
    /// Rises with each change, over restarts of the host too: its upper half is the life that wrote it.
    pub version: u64,
    /// How far it is.
    pub stage: Stage,
    /// Of [`Stage::Refused`].
    pub refusal: Option<Refusal>,
    /// A crash ended it; what was durable then is what it has.
    pub is_interrupted: bool,
    /// Final from [`Stage::Counted`] on.
    pub tally: Tally,
    /// Of a simple capture, from [`Stage::Counted`] on.
    pub counts: Option<Counts>,
    /// Of a simple capture, once its quota was asked for.
    pub sample: Option<Given>,
}

/// The packets that a host gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Of the quotas.
    pub round: u32,
    /// All of them, if they are few.
    pub packets: Vec<Packet>,
    /// Otherwise so many records have them, which are durable before this is.
    pub chunks: u32,
}

/// Some of the packets that a host gives. No record is larger than a message of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Which life of the host wrote it.
    pub epoch: Epoch,
    /// Of the quotas.
    pub round: u32,
    /// Different ones, and others than those of other chunks.
    pub packets: Vec<Packet>,
}

impl Part {
    /// Whether its numbers can be true. One that says otherwise is as good as none: its host failed, and keeps what it holds.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let is_ended = matches!(self.stage, Stage::Counted | Stage::Delivered);
        let is_balanced = !is_ended || self.tally.check();
        let is_counted = self
            .counts
            .as_ref()
            .is_none_or(|counts| counts.is_possible() && counts.matched == self.tally.matched);
        let is_sampled = self.sample.as_ref().is_none_or(|given| {
            let different: BTreeSet<&Packet> = given.packets.iter().collect();
            different.len() == given.packets.len() && (given.chunks == 0 || given.packets.is_empty())
        });
        self.tally.matched <= UNLIMITED && is_balanced && is_counted && is_sampled
    }

    /// The same in a capture of this kind: nothing can be drawn from a host without counts, and a host of a simple capture gives its
    /// packets to the lead and delivers nothing.
    #[must_use]
    pub fn is_possible_in(&self, kind: Kind) -> bool {
        let is_of_kind = match (kind, self.stage) {
            (Kind::Simple { .. }, Stage::Counted) => self.counts.is_some(),
            (Kind::Simple { .. }, stage) => stage != Stage::Delivered,
            (Kind::Full { .. }, _) => true,
        };
        is_of_kind && self.is_possible()
    }
}

/// The parts of a data center's hosts, in the order of its assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Of the host that speaks for them.
    pub epoch: Epoch,
    /// Those that came.
    pub parts: Vec<Option<Part>>,
}

macro_rules! owned {
    ($($kind:ident),*) => {$(
        impl Owned for $kind {
            fn epoch(&self) -> Epoch {
                self.epoch
            }
            fn in_epoch(self, epoch: Epoch) -> Self {
                Self { epoch, ..self }
            }
        }
    )*};
}
owned!(Claim, Job, Assignment, Part, Parts, Chunk);
