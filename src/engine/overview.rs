//! The engine's state for operators. Owns the form of it; draws no conclusion.
//!
//! Invariant: every ledger in it obeys its equations, and each capture that has not ended is in it once.

use crate::deliver::PaceView;
use crate::job::{AccountId, CaptureId, ClockState, Kind, Ledger, Status};
use crate::worker::ClockReading;
use jiff::Timestamp;

/// Everything that the engine knows and operators watch.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Captures that have not ended, oldest first; at most those that run and those whose upload is not done.
    pub captures: Vec<CaptureView>,
    /// Captures that look back and have not ended.
    pub look_backs: Vec<CaptureView>,
    /// Every account of the host.
    pub accounts: Vec<AccountView>,
    /// Captures that ended with `success` since the process started.
    pub succeeded: u64,
    /// Captures that ended with `failed` since the process started.
    pub failed: u64,
    /// Whether the spool is above its high-water mark.
    pub spool_alarm: bool,
    /// How often it came there since the process started.
    pub spool_alarms: u64,
    /// A capture was ended for room, and the alarm is not over.
    pub spool_short: bool,
    /// Steps of the wall clock since the process started.
    pub clock: ClockReading,
    /// What the kernel says of it, if it does.
    pub clock_state: Option<ClockState>,
    /// How deliveries stand back for captures.
    pub pace: PaceView,
}

/// What an account may start now. It says nothing of others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Standing {
    /// Seconds until its next simple capture may start; zero for now.
    pub simple_seconds_left: f64,
    /// Its full captures that take packets.
    pub full_active: usize,
    /// Its look backs that have not ended.
    pub look_backs_active: usize,
    /// Whether the host takes captures at all.
    pub is_accepting: bool,
}

/// One account.
#[derive(Clone, Debug)]
pub struct AccountView {
    /// Which.
    pub account: AccountId,
    /// What metrics call it, as long as the process lives.
    pub number: u64,
    /// Its bytes on the spool.
    pub held_bytes: u64,
    /// Its captures that take no more packets and are not delivered.
    pub waiting: u64,
    /// Its deliveries that have a place.
    pub deliveries_at_work: u64,
    /// Its deliveries that wait for one.
    pub deliveries_waiting: u64,
}

/// One capture.
#[derive(Clone, Debug)]
pub struct CaptureView {
    /// Which.
    pub id: CaptureId,
    /// Whose.
    pub account: AccountId,
    /// Its kind.
    pub kind: Kind,
    /// Its state.
    pub status: Status,
    /// Its counts up to now.
    pub ledger: Ledger,
    /// Objects of it that are complete.
    pub objects: u64,
    /// Bytes of those.
    pub object_bytes: u64,
    /// Seconds until its time limit; zero once it stopped.
    pub seconds_left: f64,
    /// Its bytes on the spool in whole segments, which are not delivered yet.
    pub waiting_bytes: u64,
    /// When it took its last packets, once it takes none any more.
    pub stopped: Option<Timestamp>,
    /// What threatens it, as its progress says: words for its account alone, with names of its places.
    pub warnings: Vec<String>,
    /// What its delivery failed with last, in words that name nothing of its account.
    pub last_error: Option<&'static str>,
    /// Whether another process captured it: then not all of its counts are of this one.
    pub is_inherited: bool,
    /// Seconds until its delivery, which failed, is tried again.
    pub next_try_seconds: Option<f64>,
}
