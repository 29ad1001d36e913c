//! A node of a fleet: what drives the logic of `fleet` over a bus. Owns the agent of a capture host, the driver of the captures that an
//! API node leads, and the front that an API node shows to its customers; decides nothing that `fleet` decides.
//!
//! ```text
//!  customer ─▶ Front ─account, job─▶ bus ─▶ Leads ─assignment, signed─▶ bus ─▶ Agent ─adopt, steer─▶ engine
//!                 ▲                            ▲  │ share, recall                │  ▲                  │
//!                 │ heartbeats, parts          │  └───────────── messages ───────┘  └── counts, files ─┘
//!                 └──────────── bus ◀──────────┴── parts, reports, sample ◀── Agent
//!                                bus ◀── one file, one manifest ── Leads
//! ```
//!
//! Each of them is one task. What waits for the bus, a disk or the engine is done beside it and comes back as an event, so a bus that
//! is away delays nothing else.
//!
//! Invariant: a host goes on without the bus; nothing is decided from a read or a message alone.

mod agent;
mod buckets;
mod front;
mod keys;
mod leads;
mod overview;
mod registry;
mod results;
mod wire;

pub use agent::{Agent, AgentConfig, AgentError};
pub use buckets::Buckets;
pub use front::{Front, FrontConfig, Reach};
pub use leads::{Leads, LeadsConfig};
pub use overview::{FleetView, HostState, HostView, OpsError, drain, look};
pub use results::FleetResults;

use crate::fleet::Now;
use crate::fleet::settings::Settings;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// How often what is due is done while there is something to do.
const TURN: Duration = Duration::from_millis(20);
/// How often a node looks through a table whose watch may have ended in silence.
const LOOK: Duration = Duration::from_secs(30);
/// The same for what a capture under way is waiting for.
const LOOK_SOON: Duration = Duration::from_secs(5);

/// Packets of a sample in one record: 160 bytes of each, in base64, and what names it, stay far below 1 MiB.
const CHUNK_PACKETS_MAX: usize = 2048;

/// The time since a node's start, and UTC.
fn now(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: started.elapsed(), wall }
}

/// Until a node is to end, also because nobody can say so any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _stops = stop.wait_for(|stops| *stops).await;
}

/// A number that nobody else draws.
fn random() -> Option<u64> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut bits = [0; 8];
    SystemRandom::new().fill(&mut bits).ok()?;
    Some(u64::from_le_bytes(bits))
}

/// A spool's name as a number, by which hosts of one name are told from each other.
#[must_use]
pub fn spool_number(id: &str) -> u64 {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(id);
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// How a node waits and cuts. Packets stand in records as text here, so fewer fit one; and no host speaks for others yet.
fn fitted(settings: Settings) -> Settings {
    Settings { chunk: settings.chunk.min(CHUNK_PACKETS_MAX), branch_beyond: usize::MAX, ..settings }
}
