//! The config as it holds: validated, in the types that the rooms use, every default filled in. Owns those types and the
//! ways to get one; `resolve.rs` has the rules.
//!
//! Invariant: nothing downstream checks a value again.

use super::{Problem, Problems, file, resolve};
use crate::job::AccountId;
use crate::pcap::ObjectFormat;
use crate::upload::{GcsCredentials, S3Extras};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything that the process needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Who this host is.
    pub host: HostPlan,
    /// Arguments of `rte_eal_init`, without the program's name.
    pub eal: Vec<String>,
    /// At least one.
    pub ports: Vec<PortPlan>,
    /// Which threads run where.
    pub cores: CoresPlan,
    /// The arena.
    pub blocks: BlocksPlan,
    /// Files on their way to the bucket.
    pub spool: SpoolPlan,
    /// The database of jobs.
    pub store: StorePlan,
    /// What a request may ask for.
    pub capture: CapturePlan,
    /// What simple captures can look back into, if anything.
    pub history: Option<HistoryPlan>,
    /// How objects leave.
    pub upload: UploadPlan,
    /// How manifests are signed.
    pub manifest: ManifestPlan,
    /// The HTTP server.
    pub api: ApiPlan,
    /// Health and metrics.
    pub observe: ObservePlan,
    /// What is logged, and how.
    pub log: LogPlan,
    /// No id twice.
    pub accounts: Vec<Account>,
}

/// Who this host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// 1 to 32 of `a-z 0-9 -`.
    pub id: String,
    /// 1 to 32 of `a-z 0-9 -`; a request's `colo_name` addresses every colo that begins with it.
    pub colo: String,
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
}

impl PortPlan {
    /// The full PCI address (`0000:03:00.0`) if the device is given by one, with or without its domain.
    #[must_use]
    pub fn pci_address(&self) -> Option<String> {
        let address = self.device.split(',').next()?;
        let full =
            if address.len() == "03:00.0".len() { format!("0000:{address}") } else { address.to_owned() };
        let legal = full.len() == 12
            && full.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b':',
                10 => byte == b'.',
                _ => byte.is_ascii_hexdigit(),
            });
        legal.then(|| full.to_ascii_lowercase())
    }

    /// Name of the device: what stands before the first comma.
    #[must_use]
    pub fn name(&self) -> &str {
        self.device.split(',').next().unwrap_or(&self.device)
    }

    /// Values of the device argument `key`, in order.
    pub fn arguments<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.device.split(',').skip(1).filter_map(move |argument| {
            let (name, value) = argument.split_once('=')?;
            (name == key).then_some(value)
        })
    }
}

/// Which threads run where. No core is in both lists, none twice in one; control shares the writers' cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoresPlan {
    /// One worker on each; queues are dealt over them in order.
    pub workers: Vec<usize>,
    /// One writer on each; the runtime and all other threads run here too.
    pub writers: Vec<usize>,
}

/// Whether memory comes from hugepages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// If there are enough, otherwise from ordinary pages.
    Auto,
    /// Never.
    Never,
    /// Or the process does not start.
    Require,
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

/// How segments are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// `Direct` where the file system can, otherwise `Mapped`.
    Auto,
    /// `O_DIRECT`, or the process does not start.
    Direct,
    /// Through a file mapping.
    Mapped,
    /// Nowhere: for benches of what is before the disk.
    Discard,
    /// Nowhere, and full blocks do not leave the worker: for benches of what is before the rings to the writers.
    DiscardInWorker,
}

/// Files on their way to the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolPlan {
    /// Absolute.
    pub dir: PathBuf,
    /// Quota over all captures.
    pub bytes_max: u64,
    /// Share of the quota at which the alarm is raised, 1 to 95.
    pub high_water_percent: u64,
    /// Where segments and objects are cut; at least [`crate::limits::SEGMENT_BYTES_MIN`], at most the quota.
    pub segment_bytes: u64,
    /// How.
    pub write: WriteMode,
    /// Between two fsyncs of one segment.
    pub fsync_interval: Duration,
    /// What `Mapped` writes once at start, so that its segments are there before packets are.
    pub pool_bytes: u64,
    /// How long a frame waits in a block that fills slowly.
    pub flush_interval: Duration,
    /// Age at which a segment is cut.
    pub rotate: Duration,
}

/// The database of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePlan {
    /// Absolute.
    pub path: PathBuf,
    /// Encrypts buckets' access keys; none are kept without.
    pub key_file: Option<PathBuf>,
}

/// What a request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturePlan {
    /// Largest `time_limit` of a `full` capture, in seconds.
    pub time_limit_seconds_max: u64,
    /// Largest `packet_limit` of a `full` capture; any when none.
    pub packet_limit_max: Option<u64>,
    /// Largest `byte_limit`; any when none.
    pub byte_limit_max: Option<u64>,
    /// What objects of full captures are, unless the request says otherwise.
    pub format: ObjectFormat,
    /// Captures at once, up to [`crate::limits::CAPTURES_MAX`].
    pub captures_max: usize,
    /// Full captures of one account at once.
    pub full_per_account: usize,
    /// Largest `time_limit` of a `simple` capture, in seconds.
    pub simple_time_limit_seconds_max: u64,
    /// Largest `packet_limit` of a `simple` capture; at most [`crate::limits::SIMPLE_PACKETS_MAX`].
    pub simple_packet_limit_max: u64,
    /// Between two simple captures of one account; zero for no such rule.
    pub simple_interval: Duration,
    /// How long a `simple` capture can be downloaded.
    pub simple_retention: Duration,
    /// One in so many packets is considered by a `simple` capture; at least 1.
    pub simple_sample: u32,
}

/// A sample of all packets, kept to look back into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPlan {
    /// One in so many packets; at least 1.
    pub sample: u32,
    /// The most that it may hold, in bytes; at least a segment.
    pub bytes_max: u64,
    /// Age at which packets are deleted; at most [`crate::limits::HISTORY_HOURS_MAX`].
    pub keep: Duration,
    /// Age at which a segment is cut.
    pub segment: Duration,
}

/// How objects leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPlan {
    /// Whether `file:///absolute/dir` is a destination.
    pub allow_file: bool,
    /// Whether a bucket's ownership must be proven before a capture goes there.
    pub require_validation: bool,
    /// The same for `file:///absolute/dir`.
    pub require_file_validation: bool,
    /// Size of a multipart part; [`crate::limits::PARTS_MAX`] of them hold a segment's worth.
    pub part_bytes: u64,
    /// Parts of one object on their way at once.
    pub parts_in_flight: usize,
    /// How long a failing store is tried again.
    pub retry: Duration,
    /// How long a delivery that fails is begun again.
    pub retention: Duration,
    /// Longest pause between two tries.
    pub retry_pause: Duration,
    /// How long an answer to one try is waited for; to parts longer, by their size.
    pub attempt: Duration,
    /// `http://host:port` of a proxy on the way to buckets.
    pub proxy: Option<String>,
    /// Certificates in PEM that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// S3 and what speaks like it.
    pub s3: S3Plan,
    /// R2; its destinations are refused when none.
    pub r2: Option<R2Plan>,
    /// Google Cloud Storage; its destinations are refused when none.
    pub gcs: Option<GcsPlan>,
}

/// Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsPlan {
    /// An `http` or `https` URL without a trailing slash; Google's own when none.
    pub endpoint: Option<String>,
    /// Who this host is to Google.
    pub credentials: GcsCredentials,
    /// Storage class of objects; the bucket's when none.
    pub storage_class: Option<String>,
}

/// R2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct R2Plan {
    /// An `http` or `https` URL without a trailing slash; the account's own when none.
    pub endpoint: Option<String>,
}

/// S3 and what speaks like it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Plan {
    /// An `http` or `https` URL without a trailing slash; AWS's own when none.
    pub endpoint: Option<String>,
    /// Bucket in the path instead of the host name.
    pub path_style: bool,
    /// Server-side encryption, storage class and rights of objects.
    pub extras: S3Extras,
}

/// How manifests are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPlan {
    /// Secret key in PEM, absolute; manifests are not signed when none.
    pub signing_key_file: Option<PathBuf>,
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
    /// Failed authentications in a row, of one address for one account, before it has to wait.
    pub failed_authentications_max: u32,
    /// PEM files of the certificate chain and of the private key; plain HTTP when none.
    pub tls: Option<(PathBuf, PathBuf)>,
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

/// One way to prove to be an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What is presented.
    pub kind: CredentialKind,
    /// What it allows.
    pub role: Role,
}

/// What a caller presents. Only hashes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// `X-Auth-Email` and `X-Auth-Key`.
    Key {
        /// The e-mail address as written.
        email: String,
        /// SHA-256 of the key.
        sha256: [u8; 32],
    },
    /// `Authorization: Bearer`.
    Token {
        /// SHA-256 of the token.
        sha256: [u8; 32],
    },
}

/// What a credential allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// List, show, download.
    Read,
    /// Also start and stop.
    Write,
}

impl Plan {
    /// Reads and validates a config file.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        match Self::draft(path) {
            (Some(plan), problems) if problems.is_empty() => Ok(plan),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// Validates the text of a config file.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        match Self::draft_of(text) {
            (Some(plan), problems) if problems.is_empty() => Ok(plan),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// As [`Plan::load`], but a plan in which defaults stand for whatever is wrong, so that the rest can still be held
    /// against the host. None when the file cannot be read as TOML at all.
    pub(super) fn draft(path: &Path) -> (Option<Self>, Vec<Problem>) {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::draft_of(&text),
            Err(source) => (None, vec![Problem::Unreadable { path: path.to_owned(), source }]),
        }
    }

    fn draft_of(text: &str) -> (Option<Self>, Vec<Problem>) {
        let (file, mut problems) = file::read(text);
        if problems.iter().any(|problem| problem.key().is_none()) {
            return (None, problems);
        }
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (plan, wrong) = resolve::resolve(&file, &host_name);
        // A key that was left out for its form would otherwise be reported a second time as missing.
        let new: Vec<Problem> = wrong.into_iter().filter(|one| !covered(one.key(), &problems)).collect();
        problems.extend(new);
        (Some(plan), problems)
    }
}

/// Whether `key` is, holds, or lies below a key that `problems` name.
pub(super) fn covered(key: Option<&str>, problems: &[Problem]) -> bool {
    let below = |key: &str, holder: &str| {
        key.strip_prefix(holder).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    problems.iter().any(|problem| match (key, problem.key()) {
        (Some(key), Some(named)) => below(key, named) || below(named, key),
        _ => false,
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
