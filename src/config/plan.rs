//! The config as it holds: validated, in the types that the rooms use, every default filled in. Owns what no room has a type
//! for; `load.rs` has the ways to get a plan, `resolve.rs` the rules.
//!
//! Invariant: nothing downstream checks a value again.

use super::reload::Written;
use crate::api::{Credential, Rules};
use crate::audit::AuditConfig;
use crate::block::{BlockShare, Hugepages};
use crate::deliver::PublicKey;
use crate::drivers::Bus;
use crate::history::HistoryConfig;
use crate::job::AccountId;
use crate::ownership::ProofRules;
use crate::pcap::ObjectFormat;
use crate::spool::SpoolConfig;
use crate::stamp::AuthorityConfig;
use crate::upload::StoresConfig;
use crate::worker::{Dealt, Sample, Timers, WhenIdle, Wish, deal};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that the process needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who this host is.
    pub host: HostPlan,
    /// What it is one of, if it does not stand alone.
    pub fleet: Option<FleetPlan>,
    /// Arguments of `rte_eal_init`, without the program's name.
    pub eal: Vec<String>,
    /// At least one, if the process captures.
    pub ports: Vec<PortPlan>,
    /// Which threads run where.
    pub cores: CoresPlan,
    /// The arena.
    pub blocks: BlocksPlan,
    /// What workers do with blocks.
    pub workers: WorkersPlan,
    /// Files on their way to the bucket. Its directory is absolute; segments are at least
    /// [`crate::limits::SEGMENT_BYTES_MIN`] and at most the quota.
    pub spool: SpoolConfig,
    /// Share of the spool's quota at which the alarm is raised, 1 to 95.
    pub high_water_percent: u64,
    /// The database of jobs.
    pub store: StorePlan,
    /// What a request may ask for.
    pub rules: Rules,
    /// How captures are done.
    pub capture: CapturePlan,
    /// What one account may take.
    pub shares: SharesPlan,
    /// What simple captures can look back into, if anything; it holds at least a segment and keeps at most
    /// [`crate::limits::HISTORY_HOURS_MAX`].
    pub history: Option<HistoryConfig>,
    /// How objects leave.
    pub upload: UploadPlan,
    /// How manifests are signed.
    pub manifest: ManifestPlan,
    /// Who did what, if that is kept.
    pub audit: Option<AuditConfig>,
    /// The HTTP server.
    pub api: ApiPlan,
    /// The dashboard.
    pub ui: UiPlan,
    /// Health and metrics.
    pub observe: ObservePlan,
    /// What is logged, and how.
    pub log: LogPlan,
    /// No id twice.
    pub accounts: Vec<Account>,
    /// SHA-256 of the tokens of those who may see the host.
    pub operators: Vec<[u8; 32]>,
    /// The file that it comes from.
    pub(super) written: Written,
}

/// Who this host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// 1 to 32 of `a-z 0-9 -`.
    pub id: String,
    /// 1 to 32 of `a-z 0-9 -`; a request's `colo_name` addresses every colo that begins with it.
    pub colo: String,
}

/// The fleet that a host is one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetPlan {
    /// 1 to 32 of `a-z 0-9 -`.
    pub name: String,
    /// Whether it serves the API to customers.
    pub serves: bool,
    /// Whether it captures: only then it has ports, cores and a spool.
    pub captures: bool,
    /// Who may start captures here; at least one, if it captures and has a bus.
    pub assignment_keys: Vec<PublicKey>,
    /// By which this node starts captures; there is one, if it serves and has a bus.
    pub signing_key_file: Option<PathBuf>,
    /// How long a silent host is waited for after the end of a capture.
    pub late: Duration,
    /// What its nodes share records by, if they do.
    pub nats: Option<NatsPlan>,
}

/// The servers of a fleet's bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsPlan {
    /// `tls://host:port`, or `nats://` of one on this host.
    pub servers: Vec<String>,
    /// The file with this node's key.
    pub nkey_file: PathBuf,
    /// Certificates that the servers' are signed by.
    pub ca_file: Option<PathBuf>,
    /// This node's certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Servers that have each record: 1, 3 or 5.
    pub replicas: u8,
    /// How long an answer is waited for.
    pub request_timeout: Duration,
}

/// One DPDK port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// A PCI address or a vdev string (`net_pcap0,rx_pcap=…`).
    pub device: String,
    /// RX queues, 1 to [`crate::limits::QUEUES_MAX`].
    pub queues: u16,
    /// RX descriptors of each queue.
    pub rx_descriptors: u16,
    /// Packet buffers of each queue; more than `rx_descriptors` and two bursts.
    pub mbufs: u32,
    /// The longest frame that is received, in bytes without FCS.
    pub frame_bytes_max: u32,
    /// Whether the host does not start without it.
    pub required: bool,
    /// Cores that poll its queues, all of them in [`CoresPlan::workers`]; any when empty.
    pub workers: Vec<usize>,
    /// Frames a second that are taken of it, over all of its queues; as many as there are when zero.
    pub pace_pps: u64,
}

impl PortPlan {
    /// The full PCI address (`0000:03:00.0`) if the device is given by one, with or without its domain.
    #[must_use]
    pub fn pci_address(&self) -> Option<String> {
        match Bus::of(&self.device) {
            Bus::Pci(address) => Some(address),
            Bus::Other | Bus::Virtual => None,
        }
    }

    /// Name of the device: what stands before the first comma.
    #[must_use]
    pub fn name(&self) -> &str {
        self.device.split(',').next().unwrap_or(&self.device)
    }

    /// Driver of a software device: its name without the number.
    #[must_use]
    pub fn driver(&self) -> &str {
        self.name().trim_end_matches(|c: char| c.is_ascii_digit())
    }

    /// The interfaces that a software device of DPDK opens.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let keys: &[&str] = match self.driver() {
            "net_pcap" => &["iface", "rx_iface", "rx_iface_in"],
            "net_af_packet" | "eth_af_packet" | "net_af_xdp" => &["iface"],
            _ => &[],
        };
        keys.iter().flat_map(|key| self.arguments(key))
    }

    /// Values of the device argument `key`, in order.
    pub fn arguments<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.device.split(',').skip(1).filter_map(move |argument| {
            let (name, value) = argument.split_once('=')?;
            (name == key).then_some(value)
        })
    }
}

/// Which threads run where. No worker's core is in another list, none twice in one; control shares the writers' cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoresPlan {
    /// One worker on each; queues are dealt over them in order.
    pub workers: Vec<usize>,
    /// One writer on each; the runtime and all other threads run here too.
    pub writers: Vec<usize>,
    /// Merges run here. May be writers' cores.
    pub delivery: Vec<usize>,
    /// What workers do while no packets come.
    pub when_idle: WhenIdle,
}

/// The arena between workers and writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlocksPlan {
    /// Blocks of [`crate::limits::BLOCK_BYTES`], over all workers; at least eight for each.
    pub count: usize,
    /// Where they come from.
    pub hugepages: Hugepages,
}

impl BlocksPlan {
    /// Bytes of all blocks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.count * crate::limits::BLOCK_BYTES) as u64
    }
}

impl Plan {
    /// Every port's device, as written.
    #[must_use]
    pub fn devices(&self) -> Vec<&str> {
        self.ports.iter().map(|port| port.device.as_str()).collect()
    }

    /// What a worker has of the blocks.
    #[must_use]
    pub fn block_share(&self) -> BlockShare {
        let dealt = self.dealt();
        BlockShare::of(self.blocks.count, dealt.queues_max(), dealt.cores.len())
    }

    /// Which worker polls which queue.
    #[must_use]
    pub fn dealt(&self) -> Dealt {
        let wishes = self.ports.iter().map(|port| Wish { queues: port.queues, cores: &port.workers });
        deal(&wishes.collect::<Vec<_>>(), &self.cores.workers)
    }

    /// Captures that can be attached at once, with the history's recording.
    #[must_use]
    pub fn attached_max(&self) -> usize {
        self.capture.captures_max + usize::from(self.history.is_some())
    }
}

/// What workers do with blocks.
#[derive(Clone, Copy, Debug)]
pub struct WorkersPlan {
    /// When a block or a segment leaves that is not full.
    pub timers: Timers,
    /// Whether full blocks do not leave the worker: for benches of what is before the rings to the writers.
    pub bypasses_lanes: bool,
}

/// The database of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePlan {
    /// Absolute.
    pub path: PathBuf,
    /// Encrypts buckets' access keys; none are kept without.
    pub key_file: Option<PathBuf>,
}

/// How captures are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturePlan {
    /// What objects of full captures are, unless the request says otherwise.
    pub format: ObjectFormat,
    /// Captures at once, up to [`crate::limits::CAPTURES_MAX`].
    pub captures_max: usize,
    /// Full captures of one account at once.
    pub full_per_account: usize,
    /// Between two simple captures of one account; zero for no such rule.
    pub simple_interval: Duration,
    /// How long a `simple` capture can be downloaded.
    pub simple_retention: Duration,
    /// What of all packets is considered by a `simple` capture; everything when none.
    pub simple_sample: Option<Sample>,
}

/// What one account may take of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharesPlan {
    /// Of the spool, 1 to 100.
    pub account_percent: u64,
    /// Of its share, what its failed captures may leave.
    pub failed_percent: u64,
    /// How long they leave it.
    pub failed_time: Duration,
    /// Of its share, what the files of its simple captures may have.
    pub simple_percent: u64,
    /// Captures that have ended and wait for their upload; at least one.
    pub waiting_per_account: usize,
    /// Ended captures that are remembered.
    pub jobs_per_account_max: usize,
    /// How long they are.
    pub jobs_time: Duration,
    /// Between two look backs in the long run; zero for no such rule.
    pub look_back_interval: Duration,
}

/// How objects leave.
#[derive(Clone, Debug)]
pub struct UploadPlan {
    /// How to speak to stores. [`crate::limits::PARTS_MAX`] parts hold a segment's worth.
    pub stores: StoresConfig,
    /// How long a delivery that fails is begun again.
    pub retention: Duration,
    /// Longest pause between two tries.
    pub retry_pause: Duration,
    /// Objects of one capture on their way at once.
    pub objects_in_flight: usize,
    /// Deliveries at work, beside those of captures that take packets.
    pub deliveries_max: usize,
    /// The same for one account.
    pub deliveries_per_account: usize,
    /// How long a delivery may get nowhere while others wait.
    pub turn: Duration,
    /// Blocks waiting for the disk, in percent, from which on deliveries stand back for captures; 100 for never.
    pub wait_percent: u64,
    /// How long uploads may go on once the process is to end.
    pub ending_max: Duration,
    /// Percent of the time that deliveries work although captures press, once the spool is above its high-water mark.
    pub share_percent: u64,
    /// Memory of all deliveries at once.
    pub memory_bytes: u64,
    /// Between two ownership challenges of one account for one bucket; zero for no such rule.
    pub challenge_interval: Duration,
    /// Which destinations need a proof, and how long one holds.
    pub proofs: ProofRules,
}

/// How manifests are signed and time-stamped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPlan {
    /// Secret key in PEM, absolute; manifests are not signed when none.
    pub signing_key_file: Option<PathBuf>,
    /// Who stamps them; nobody if none.
    pub authority: Option<AuthorityConfig>,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiPlan {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Largest request body.
    pub request_bytes_max: usize,
    /// Longest time for one request.
    pub request_timeout: Duration,
    /// Connections at once.
    pub connections_max: usize,
    /// Of one peer, at most as many.
    pub connections_per_peer_max: usize,
    /// Of one account, from whatever peers.
    pub connections_per_account_max: usize,
    /// Proxies that say in PROXY protocol whom they speak for.
    pub trusted_proxies: Vec<IpNet>,
    /// Failed authentications in a row, of one address, before it has to wait for further ones.
    pub failed_authentications_max: u32,
    /// Requests a second of one account.
    pub requests_per_second_max: u32,
    /// PEM files of the certificate chain and of the private key; plain HTTP when none.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// The dashboard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UiPlan {
    /// Names that it answers to beside its address, in lower case.
    pub hosts: Vec<String>,
    /// `https://name[:port]` of a proxy in front of it.
    pub origin: Option<String>,
    /// How fast an object of a bucket is read for somebody who looks at it.
    pub view_bytes_per_second: u64,
}

/// Health and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservePlan {
    /// Where they are served, if they are.
    pub listen: Option<SocketAddr>,
    /// How long a thread may go without progress.
    pub watchdog: Duration,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people; coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// Its form.
    pub format: LogFormat,
    /// Filter directives of `tracing-subscriber`; a plain level is one.
    pub level: String,
}

/// One customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// As in the API's paths.
    pub id: AccountId,
    /// Only packets from or to these; every packet when empty.
    pub prefixes: Vec<IpNet>,
    /// At least one.
    pub credentials: Vec<Credential>,
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
