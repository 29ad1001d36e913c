//! What the engine commands: workers, counters, ports, spool, stores, jobs. Owns the reading of counters; not what they are
//! used for.
//!
//! Invariant: counts are read under their sequence locks, and a ledger made of them obeys its equations.

use super::machine::AccountBounds;
use crate::deliver::RetryBounds;
use crate::deliver::{Pace, Places, SigningKey};
use crate::history::History;
use crate::job::{AccountId, Ledger, PortDrops, Site};
use crate::matcher::PrefixSet;
use crate::ownership::BucketKeys;
use crate::pcap::{ObjectFormat, Origin};
use crate::spool::Spool;
use crate::stamp::Authority;
use crate::store::JobStore;
use crate::upload::Stores;
use crate::worker::{ClockSteps, QueueCounters, Sample, SlotTotals, WorkerHandle};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What all ports lost since they were started, as it was last read. Reading a port may take a driver seconds, so nobody waits
/// for it here.
pub trait PortCounts: Send {
    /// The last reading.
    fn latest(&self) -> PortsRead;

    /// Asks for another one soon.
    fn ask(&self) {}
}

/// One reading of all ports.
#[derive(Clone, Copy, Debug)]
pub struct PortsRead {
    /// What they lost since they were started.
    pub drops: PortDrops,
    /// When the reading began: what was lost before is in it.
    pub begun: Instant,
}

/// Counts that can be had at any time.
impl<F: Fn() -> PortDrops + Send> PortCounts for F {
    fn latest(&self) -> PortsRead {
        let begun = Instant::now();
        PortsRead { drops: self(), begun }
    }
}

/// What may change while the engine runs: [`super::Action::TakeUp`].
pub struct Settings {
    /// The accounts of this host.
    pub accounts: Vec<AccountId>,
    /// What accounts may see; one that is not in here may see every packet.
    pub scopes: HashMap<AccountId, Arc<PrefixSet>>,
    /// The bounds of each account.
    pub account: AccountBounds,
    /// Full captures of one account at once.
    pub full_per_account: usize,
    /// Between the starts of two simple captures of one account.
    pub simple_interval: Duration,
    /// Between two look backs of one account in the long run; as many as may be under way can be asked for at once.
    pub look_back_interval: Duration,
    /// Which packets `simple` captures consider; every one when none.
    pub simple_sample: Option<Sample>,
    /// What objects of `full` captures are, unless the request says otherwise.
    pub object_format: ObjectFormat,
    /// How long an upload that fails is tried again.
    pub upload_retention: Duration,
    /// The longest pause between two tries of an upload.
    pub upload_pause_max: Duration,
    /// Signs manifests, if the host signs.
    pub signing_key: Option<Arc<SigningKey>>,
    /// Stamps them, if the host has an authority.
    pub authority: Option<Arc<Authority>>,
}

impl Settings {
    /// How long and how often deliveries try again.
    pub(super) fn retries(&self) -> RetryBounds {
        RetryBounds { retention: self.upload_retention, pause_max: self.upload_pause_max }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({} accounts)", self.accounts.len())
    }
}

/// The planes below the engine.
pub struct Planes {
    /// One handle per worker thread.
    pub workers: Vec<WorkerHandle>,
    /// The counters of every queue, in the order of their numbers.
    pub queues: Vec<Arc<QueueCounters>>,
    /// See [`PortCounts`].
    pub ports: Box<dyn PortCounts>,
    /// Steps of the wall clock, as the workers saw them.
    pub clock: Arc<ClockSteps>,
    /// Where segments lie.
    pub spool: Arc<Spool>,
    /// Where objects go.
    pub stores: Arc<Stores>,
    /// With which access keys.
    pub keys: BucketKeys,
    /// How long a destination may take to show that it can be used: somebody waits for the answer.
    pub contact_time_max: Duration,
    /// Where jobs are kept.
    pub jobs: Arc<dyn JobStore>,
    /// Where `simple` captures' objects are kept on this host.
    pub simple_dir: PathBuf,
    /// This host's id.
    pub host: String,
    /// This host's colo.
    pub colo: String,
    /// Both as names of objects have them, if this host is one of a fleet.
    pub site: Option<Site>,
    /// What may change while the engine runs.
    pub settings: Settings,
    /// How long deliveries may go on once the engine is to end.
    pub ending_max: Duration,
    /// Captures that may be attached at once; at most [`crate::limits::CAPTURES_MAX`].
    pub captures_max: usize,
    /// Captures for which every worker has a block for each stream; see [`crate::block::BlockShare`].
    pub admits: usize,
    /// Share of the spool's quota at which it says that it fills up, in percent.
    pub high_water_percent: u64,
    /// What those in pcapng say of this host: comments on the capture are added.
    pub origin: Origin,
    /// Where deliveries wait for their turn.
    pub places: Arc<Places>,
    /// Objects of one capture that are on their way at once, at most.
    pub objects_in_flight: usize,
    /// Where merges run; anywhere if empty.
    pub delivery_cores: Arc<[usize]>,
    /// When they stand back for captures.
    pub pace: Arc<Pace>,
    /// Told when the files of simple captures have become more.
    pub simple_written: Arc<Notify>,
    /// What `simple` captures can look back into. It is recorded in the last slot.
    pub history: Option<Arc<History>>,
}

impl fmt::Debug for Planes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Planes({} workers, {} queues)", self.workers.len(), self.queues.len())
    }
}

/// What all queues counted for one capture in one slot.
pub(super) fn sum_slot(queues: &[Arc<QueueCounters>], slot: usize, serial: u64) -> SlotTotals {
    let mut sum = SlotTotals { serial, ..SlotTotals::default() };
    for totals in queues.iter().map(|q| q.slot(slot)).filter(|t| t.serial == serial) {
        sum.rx += totals.rx;
        sum.matched += totals.matched;
        sum.captured += totals.captured;
        sum.captured_bytes += totals.captured_bytes;
        sum.no_block += totals.no_block;
        sum.limit += totals.limit;
        sum.sampled += totals.sampled;
        sum.share += totals.share;
    }
    sum
}

/// The ledger of counts by workers and ports; what the spool lost is moved by the caller.
pub(super) fn ledger(counts: &SlotTotals, port: PortDrops) -> Ledger {
    let mut ledger = Ledger {
        offered: counts.rx + port.total(),
        port,
        rx: counts.rx,
        unmatched: counts.rx - counts.matched,
        matched: counts.matched,
        captured: counts.captured,
        captured_bytes: counts.captured_bytes,
        ..Ledger::default()
    };
    ledger.dropped.no_block = counts.no_block;
    ledger.dropped.limit = counts.limit;
    ledger.dropped.sampled = counts.sampled;
    ledger.dropped.share = counts.share;
    ledger
}
