//! How long the fleet waits for what, and how large a record may be. Owns the figures and their reasons; not what follows when the time
//! is over.
//!
//! Invariant: no right depends on any of them. They decide how soon something is done, never whether it is allowed.

use std::time::Duration;

/// Figures of one fleet, the same for all its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often a host tells that it lives.
    pub heartbeat: Duration,
    /// After the end of the window: how long a silent host is waited for.
    pub late: Duration,
    /// The same for a simple capture, whose customer waits for one small file.
    pub late_simple: Duration,
    /// The same for a host that lives and does not end.
    pub late_max: Duration,
    /// The same for the files of a host that lives: longer than its own delivery tries.
    pub delivery: Duration,
    /// After the end of the window: when hosts that go on are told that it is over.
    pub grace: Duration,
    /// A host asks for as much as it uses in this time, so that it rides out a change of lead.
    pub reserve: Duration,
    /// What a soft recall leaves to a host: what it uses in this time, longer than a round trip.
    pub keep: Duration,
    /// Asks that come within this time share one write.
    pub batch: Duration,
    /// When an ask, a recall or a report that was not answered is sent again.
    pub resend: Duration,
    /// How long a round of recalls waits for slow answers before what came back is dealt.
    pub patience: Duration,
    /// How long a host is silent before a limit is closed without what it holds.
    pub silent: Duration,
    /// How often a holder renews its claim.
    pub renew: Duration,
    /// How long a claim is seen unchanged before another node takes it over.
    pub takeover: Duration,
    /// How long an unavailable store is left alone.
    pub backoff: Duration,
    /// Parts of one data center that come within this time share one write.
    pub gather: Duration,
    /// Packets of a sample that a record of one host has at most: with 200 bytes of each, a record stays below 1 MiB.
    pub chunk: usize,
    /// The same where the parts of a whole data center, 256 hosts, are one record.
    pub chunk_branched: usize,
    /// Beyond so many hosts, one host of each data center speaks for it.
    pub branch_beyond: usize,
}

impl Settings {
    /// The same for a lead whose holders are data centers. An answer takes a round below and a write, and the host that speaks may
    /// change meanwhile: only after two takeovers nobody is left who would answer.
    #[must_use]
    pub fn for_branches(self) -> Self {
        Self { patience: 4 * self.patience, silent: self.silent + 2 * self.takeover, ..self }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            late: Duration::from_secs(60),
            late_simple: Duration::from_secs(15),
            late_max: Duration::from_secs(120),
            delivery: Duration::from_secs(25 * 3600),
            grace: Duration::from_secs(3),
            reserve: Duration::from_secs(15),
            keep: Duration::from_secs(1),
            batch: Duration::from_millis(20),
            resend: Duration::from_millis(500),
            patience: Duration::from_millis(500),
            silent: Duration::from_secs(10),
            renew: Duration::from_secs(3),
            takeover: Duration::from_secs(10),
            backoff: Duration::from_millis(200),
            gather: Duration::from_millis(200),
            chunk: 4096,
            chunk_branched: 16,
            branch_beyond: 256,
        }
    }
}
