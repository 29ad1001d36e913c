//! The config file as written. Owns the keys, their defaults, and the reading of TOML; not what the values mean.
//!
//! Invariant: every key is optional here, so a file is legal when each of its keys alone is; [`read`] reports all
//! that are not, not the first.

use super::{Problem, size::ByteSize};
use crate::limits::ZSTD_LEVEL_DEFAULT;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use toml::{Table, Value};

/// The version of the config's form that this trawl reads, and that a file without the key has.
const VERSION: u64 = 1;

/// Declares sections: each field with its default, none with an unknown key.
macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        #[cfg(test)]
        impl Keys for $name {
            fn keys(path: &str, keys: &mut Vec<String>) {
                $({
                    let dot = if path.is_empty() { "" } else { "." };
                    <$type as Keys>::keys(&format!("{path}{dot}{}", stringify!($field)), keys);
                })*
            }
        }
    )*};
}

/// The paths of all keys, without the places of lists: `account.credential.role`.
#[cfg(test)]
pub(super) trait Keys {
    /// Adds those at `path`.
    fn keys(path: &str, keys: &mut Vec<String>);
}

#[cfg(test)]
impl<T: Keys> Keys for Vec<T> {
    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(path, keys);
    }
}

#[cfg(test)]
impl<T: Keys> Keys for Option<T> {
    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(path, keys);
    }
}

#[cfg(test)]
macro_rules! leaves {
    ($($type:ty),*) => {$(
        impl Keys for $type {
            fn keys(path: &str, keys: &mut Vec<String>) {
                keys.push(path.to_owned());
            }
        }
    )*};
}

#[cfg(test)]
leaves!(u64, bool, String, PathBuf, ByteSize);

sections! {
    /// The whole file. `config/trawl.toml` explains each key to operators.
    File {
        /// Of the config's form.
        version: u64 = VERSION,
        /// `[host]`
        host: Host = Host::default(),
        /// `[fleet]`; a host that stands alone when absent.
        fleet: Option<Fleet> = None,
        /// `[dpdk]`
        dpdk: Dpdk = Dpdk::default(),
        /// `[[port]]`
        port: Vec<Port> = Vec::new(),
        /// `[cores]`
        cores: Cores = Cores::default(),
        /// `[blocks]`
        blocks: Blocks = Blocks::default(),
        /// `[spool]`
        spool: Spool = Spool::default(),
        /// `[store]`
        store: Store = Store::default(),
        /// `[capture]`
        capture: Capture = Capture::default(),
        /// `[history]`
        history: History = History::default(),
        /// `[upload]`
        upload: Upload = Upload::default(),
        /// `[manifest]`
        manifest: Manifest = Manifest::default(),
        /// `[audit]`
        audit: Audit = Audit::default(),
        /// `[api]`
        api: Api = Api::default(),
        /// `[ui]`
        ui: Ui = Ui::default(),
        /// `[observe]`
        observe: Observe = Observe::default(),
        /// `[log]`
        log: Log = Log::default(),
        /// `[[account]]`
        account: Vec<Account> = Vec::new(),
        /// `[[operator]]`
        operator: Vec<Operator> = Vec::new(),
    }
    /// `[host]`
    Host {
        /// Name of this host in manifests and objects; the host name when absent.
        id: Option<String> = None,
        /// The data centre that requests address.
        colo: String = "local".to_owned(),
    }
    /// `[fleet]`
    Fleet {
        /// Of the fleet.
        name: String = String::new(),
        /// What this process does: `api`, `capture` or both.
        roles: Vec<String> = vec!["api".to_owned(), "capture".to_owned()],
        /// Public keys of those who may start captures here, in hexadecimal.
        assignment_keys: Vec<String> = Vec::new(),
        /// Secret key by which this node starts captures and signs their manifests.
        signing_key_file: Option<PathBuf> = None,
        /// How long a silent host is waited for after the end of a capture.
        late_seconds: u64 = 60,
        /// `[fleet.nats]`; a fleet without a bus when absent.
        nats: Option<FleetNats> = None,
    }
    /// `[fleet.nats]`
    FleetNats {
        /// `tls://host:port` of each server, or `nats://` of one on this host.
        servers: Vec<String> = Vec::new(),
        /// File with this node's key.
        nkey_file: Option<PathBuf> = None,
        /// Certificates that the servers' are signed by; the system's when absent.
        ca_file: Option<PathBuf> = None,
        /// This node's certificate, for servers that want one.
        cert_file: Option<PathBuf> = None,
        /// Its key.
        key_file: Option<PathBuf> = None,
        /// Servers that have each record.
        replicas: u64 = 3,
        /// How long an answer is waited for, in milliseconds.
        request_timeout_ms: u64 = 2000,
    }
    /// `[dpdk]`
    Dpdk {
        /// Arguments of `rte_eal_init`.
        eal: Vec<String> = Vec::new(),
    }
    /// `[[port]]`
    Port {
        /// A vdev string or a PCI address.
        device: String = String::new(),
        /// RX queues.
        queues: u64 = 1,
        /// RX descriptors of each queue.
        rx_descriptors: u64 = 1024,
        /// Packet buffers of each queue.
        mbufs: u64 = 4096,
        /// The longest frame that is received.
        frame_bytes_max: u64 = 9018,
        /// Whether the host does not start without it.
        required: bool = true,
        /// Cores that poll its queues; any of `cores.workers` when empty.
        workers: Vec<u64> = Vec::new(),
        /// Frames a second that are taken of a software device; as many as there are when zero.
        pace_pps: u64 = 0,
    }
    /// `[cores]`
    Cores {
        /// Cores that poll.
        workers: Vec<u64> = vec![1],
        /// Cores that write to disk.
        writers: Vec<u64> = vec![0],
        /// Cores that merge and send what was captured; those of `cores.writers` when empty.
        delivery: Vec<u64> = Vec::new(),
        /// `spin` or `sleep`.
        when_idle: String = "spin".to_owned(),
    }
    /// `[blocks]`
    Blocks {
        /// The arena between workers and writers.
        bytes_max: ByteSize = ByteSize(256 << 20),
        /// `auto`, `never` or `require`.
        hugepages: String = "auto".to_owned(),
    }
    /// `[spool]`
    Spool {
        /// Where segments wait for their upload; `/var/lib/trawl/spool` when absent.
        dir: Option<PathBuf> = None,
        /// Several such directories, each with a disk and a writer of its own, in place of `dir`.
        dirs: Vec<PathBuf> = Vec::new(),
        /// Quota, of each directory.
        bytes_max: ByteSize = ByteSize(200 << 30),
        /// Share of the quota at which it says that it fills up.
        high_water_percent: u64 = 80,
        /// Share of the quota that one account may have; 100 with one account and 50 with more when absent.
        account_percent: Option<u64> = None,
        /// Of that, in percent, what its failed captures may leave.
        failed_percent: u64 = 50,
        /// How long they leave it.
        failed_seconds_max: u64 = 604_800,
        /// Of its share, in percent, what the files of its simple captures may have.
        simple_percent: u64 = 10,
        /// Size at which segments and objects are cut.
        segment_bytes: ByteSize = ByteSize(256 << 20),
        /// `auto`, `direct`, `mapped`, `discard` or `discard-in-worker`.
        write: String = "auto".to_owned(),
        /// What `mapped` writes once at start, into each directory.
        pool_bytes: Option<ByteSize> = None,
        /// Most that a host crash can cost.
        fsync_interval_ms: u64 = 1000,
        /// How long a frame waits in a block that fills slowly.
        flush_interval_ms: u64 = 200,
        /// Age at which a segment is cut.
        rotate_seconds: u64 = 10,
    }
    /// `[store]`
    Store {
        /// The database of jobs.
        path: PathBuf = PathBuf::from("/var/lib/trawl/trawl.db"),
        /// Key that encrypts what is secret in the database.
        key_file: Option<PathBuf> = None,
        /// Ended captures of an account that are remembered.
        jobs_per_account_max: u64 = 10_000,
        /// How long they are.
        jobs_days_max: u64 = 90,
    }
    /// `[capture]`
    Capture {
        /// Largest `time_limit` of a `full` capture.
        time_limit_seconds_max: u64 = 86_400,
        /// Largest `packet_limit` of a `full` capture; any when absent.
        packet_limit_max: Option<u64> = None,
        /// Largest `byte_limit`; any when absent.
        byte_limit_max: Option<ByteSize> = None,
        /// `pcap` or `pcapng`.
        format: String = "pcap".to_owned(),
        /// `none` or `zstd`.
        compression: String = "none".to_owned(),
        /// Level of `zstd`.
        compression_level: u64 = ZSTD_LEVEL_DEFAULT as u64,
        /// Captures at once.
        captures_max: u64 = 64,
        /// Full captures of one account at once.
        full_per_account: u64 = 1,
        /// Captures of one account that have ended and wait for their upload.
        waiting_per_account: u64 = 16,
        /// Largest `time_limit` of a `simple` capture.
        simple_time_limit_seconds_max: u64 = 300,
        /// Largest `packet_limit` of a `simple` capture.
        simple_packet_limit_max: u64 = 10_000,
        /// Between two simple captures of one account.
        simple_interval_seconds: u64 = 60,
        /// How long a `simple` capture can be downloaded.
        simple_retention_seconds: u64 = 86_400,
        /// One in so many packets is considered by a `simple` capture.
        simple_sample: u64 = 1,
    }
    /// `[history]`
    History {
        /// Whether a sample of all packets is kept to look back into.
        enabled: bool = false,
        /// One in so many packets.
        sample: u64 = 1000,
        /// The most that it may hold.
        bytes_max: ByteSize = ByteSize(1 << 30),
        /// Age at which packets are deleted.
        hours_max: u64 = 24,
        /// Age at which a segment is cut.
        segment_seconds: u64 = 60,
    }
    /// `[upload]`
    Upload {
        /// Whether `file:///dir` is a destination.
        allow_file: bool = false,
        /// Directories that `file:///dir` must be in or below; empty: any.
        file_roots: Vec<PathBuf> = Vec::new(),
        /// Whether a bucket's ownership must be proven before a capture goes there.
        require_validation: bool = true,
        /// The same for `file:///dir`.
        require_file_validation: bool = false,
        /// Size of a multipart part.
        part_bytes: ByteSize = ByteSize(8 << 20),
        /// Parts of one object on their way at once.
        parts_in_flight: u64 = 4,
        /// Objects of one capture on their way at once; as many as cores deliver, at least four, when absent.
        objects_in_flight: Option<u64> = None,
        /// Deliveries at work on the host, beside those of captures that take packets.
        deliveries_max: u64 = 16,
        /// The same for one account.
        deliveries_per_account: u64 = 4,
        /// How long a delivery may get nowhere while others wait for its turn.
        turn_seconds: u64 = 90,
        /// How long uploads may go on once the process is to end.
        ending_seconds_max: u64 = 600,
        /// Blocks waiting for the disk, in percent, from which on deliveries stand back for captures; 100 for never.
        wait_percent: u64 = 25,
        /// Percent of the time that deliveries work although captures press, once the spool is above its high-water mark.
        share_percent: u64 = 50,
        /// Memory of all deliveries; enough for all parts of `deliveries_max` of them when absent.
        memory_bytes_max: Option<ByteSize> = None,
        /// Between two ownership challenges of one account for one bucket.
        challenge_interval_seconds: u64 = 10,
        /// How long a proof of ownership holds; 0 for all time.
        proof_seconds_max: u64 = 31_536_000,
        /// How long a failing store is tried again.
        retry_seconds_max: u64 = 900,
        /// How long an upload that fails is begun again.
        retention_seconds: u64 = 86_400,
        /// Longest pause between two tries.
        retry_pause_ms_max: u64 = 20_000,
        /// How long an answer is waited for.
        attempt_seconds_max: u64 = 30,
        /// An HTTP proxy on the way to buckets.
        proxy: Option<String> = None,
        /// Certificates that are trusted beside the system's.
        ca_file: Option<PathBuf> = None,
        /// `[upload.s3]`
        s3: S3 = S3::default(),
        /// `[upload.r2]`
        r2: R2 = R2::default(),
        /// `[upload.gcs]`
        gcs: Gcs = Gcs::default(),
    }
    /// `[upload.s3]`
    S3 {
        /// Replaces AWS's endpoint.
        endpoint: Option<String> = None,
        /// Bucket in the path instead of the host name; with an `endpoint` when absent.
        path_style: Option<bool> = None,
        /// `none`, `aes256` or `kms`.
        encryption: String = "none".to_owned(),
        /// The key of `kms`; the bucket's when absent.
        kms_key_id: Option<String> = None,
        /// Storage class of objects; the bucket's when absent.
        storage_class: Option<String> = None,
        /// Whether the bucket's owner gets all rights on objects.
        owner_full_control: bool = false,
    }
    /// `[upload.r2]`
    R2 {
        /// Whether `r2://bucket` is a destination.
        allow: bool = false,
        /// Replaces the account's endpoint.
        endpoint: Option<String> = None,
    }
    /// `[upload.gcs]`
    Gcs {
        /// Whether `gs://bucket` is a destination.
        allow: bool = false,
        /// Replaces Google's endpoint.
        endpoint: Option<String> = None,
        /// `default` or `none`.
        credentials: String = "default".to_owned(),
        /// The JSON key of a service account instead.
        credentials_file: Option<PathBuf> = None,
        /// Storage class of objects; the bucket's when absent.
        storage_class: Option<String> = None,
    }
    /// `[manifest]`
    Manifest {
        /// Secret key that signs manifests; not signed when absent.
        signing_key_file: Option<PathBuf> = None,
        /// Authority that stamps manifests (RFC 3161); nobody is asked when absent.
        timestamp_url: Option<String> = None,
        /// Certificates of which one must vouch for its answers.
        timestamp_ca_file: Option<PathBuf> = None,
        /// How long a manifest waits for its time stamp.
        timestamp_seconds_max: u64 = 60,
    }
    /// `[audit]`
    Audit {
        /// Directory of the log of who did what; not kept when absent.
        dir: Option<PathBuf> = None,
        /// Of all its files.
        bytes_max: ByteSize = ByteSize(1 << 30),
        /// At which the next file begins.
        file_bytes: ByteSize = ByteSize(64 << 20),
        /// Whether nothing is started, changed or handed out while it cannot be written.
        required: bool = true,
    }
    /// `[api]`
    Api {
        /// Address and port.
        listen: String = "127.0.0.1:8080".to_owned(),
        /// Largest request body.
        request_bytes_max: ByteSize = ByteSize(64 << 10),
        /// Longest time for one request.
        request_timeout_seconds: u64 = 30,
        /// Connections at once.
        connections_max: u64 = 1024,
        /// Of one peer; an eighth of all when absent.
        connections_per_peer_max: Option<u64> = None,
        /// Of one account; a quarter of all or less when absent.
        connections_per_account_max: Option<u64> = None,
        /// Networks of proxies that say in PROXY protocol whom they speak for.
        trusted_proxies: Vec<String> = Vec::new(),
        /// Failed authentications in a row, of one address.
        failed_authentications_max: u64 = 10,
        /// Requests a second of one account; its part of 1000 when absent.
        requests_per_second_max: Option<u64> = None,
        /// PEM file of the certificate chain; with `tls_key`.
        tls_cert: Option<PathBuf> = None,
        /// PEM file of the private key.
        tls_key: Option<PathBuf> = None,
    }
    /// `[ui]`
    Ui {
        /// Names under which the dashboard is asked for, beside the address of `api.listen`.
        hosts: Vec<String> = Vec::new(),
        /// `https://name[:port]` of a proxy that ends TLS in front of it.
        origin: Option<String> = None,
        /// How fast an object of a bucket is read for somebody who looks at it.
        view_bytes_per_second: ByteSize = ByteSize(32 << 20),
    }
    /// `[[operator]]`
    Operator {
        /// SHA-256 of the token, hexadecimal.
        token_sha256: String = String::new(),
    }
    /// `[observe]`
    Observe {
        /// Address and port of health and metrics; not served when absent.
        listen: Option<String> = None,
        /// How long a thread may go without progress.
        watchdog_seconds: u64 = 30,
    }
    /// `[log]`
    Log {
        /// `text` or `json`.
        format: String = "text".to_owned(),
        /// A level or filter directives.
        level: String = "info".to_owned(),
    }
    /// `[[account]]`
    Account {
        /// The account in the API's paths.
        id: String = String::new(),
        /// What it may see; empty for every packet.
        prefixes: Vec<String> = Vec::new(),
        /// `[[account.credential]]`
        credential: Vec<Credential> = Vec::new(),
    }
    /// `[[account.credential]]`
    Credential {
        /// With `key_sha256`.
        email: Option<String> = None,
        /// SHA-256 of the key, hexadecimal.
        key_sha256: Option<String> = None,
        /// SHA-256 of the token, hexadecimal.
        token_sha256: Option<String> = None,
        /// `read` or `write`.
        role: String = "write".to_owned(),
    }
}

/// Reads a config file's text. Keys that are unknown or of the wrong type are reported and left out.
pub(super) fn read(text: &str) -> (File, Vec<Problem>) {
    let table: Table = match toml::from_str(text) {
        Ok(table) => table,
        Err(error) => return (File::default(), vec![Problem::Syntax { text: syntax(text, &error) }]),
    };
    // Its other keys may be another version's, so nothing is said of them.
    if let Some(problem) = other_version(&table) {
        return (File::default(), vec![problem]);
    }
    if let Ok(file) = Value::Table(table.clone()).try_into() {
        return (file, Vec::new());
    }
    let mut problems = Vec::new();
    let kept = keep_legal(&table, &mut Vec::new(), &mut problems);
    let file = Value::Table(kept).try_into().unwrap_or_else(|_: toml::de::Error| {
        problems.push(Problem::Syntax { text: "its keys cannot be read together".to_owned() });
        File::default()
    });
    (file, problems)
}

/// What is wrong with the form of a file, and where. The parser's own display repeats the line, which may have a secret in it.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message().trim_end())
}

fn other_version(table: &Table) -> Option<Problem> {
    let found = table.get("version")?.as_integer()?;
    (found != i64::try_from(VERSION).ok()?).then_some(Problem::Version { found, known: VERSION })
}

/// One step from the root of a file to a key.
#[derive(Clone)]
enum Step {
    Key(String),
    Index(usize),
}

/// A copy of `table` with the legal keys only; a key is legal when a file with nothing else in it is.
fn keep_legal(table: &Table, path: &mut Vec<Step>, problems: &mut Vec<Problem>) -> Table {
    let mut kept = Table::new();
    for (key, value) in table {
        path.push(Step::Key(key.clone()));
        if let Some(value) = keep_legal_value(value, path, problems) {
            kept.insert(key.clone(), value);
        }
        path.pop();
    }
    kept
}

fn keep_legal_value(value: &Value, path: &mut Vec<Step>, problems: &mut Vec<Problem>) -> Option<Value> {
    // The container is tried empty first: a section of an unknown name is one problem, not one for each of its keys.
    let container = match value {
        Value::Table(_) => Value::Table(Table::new()),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_table) => {
            Value::Array(vec![Value::Table(Table::new())])
        }
        leaf => leaf.clone(),
    };
    if let Err(error) = alone(container, path).try_into::<File>() {
        problems.push(Problem::Key {
            key: display(path),
            value: shown(path, value),
            text: expected(path, error.message().trim_end()),
        });
        return None;
    }
    match value {
        Value::Table(table) => Some(Value::Table(keep_legal(table, path, problems))),
        Value::Array(items) if items.iter().all(Value::is_table) => {
            let keep = |(index, item): (usize, &Value)| {
                path.push(Step::Index(index));
                let kept = item.as_table().map(|table| keep_legal(table, path, problems));
                path.pop();
                kept.map(Value::Table)
            };
            Some(Value::Array(items.iter().enumerate().filter_map(keep).collect()))
        }
        leaf => Some(leaf.clone()),
    }
}

/// A file that holds `value` at `path` and nothing else.
fn alone(value: Value, path: &[Step]) -> Value {
    path.iter().rev().fold(value, |value, step| match step {
        Step::Key(key) => Value::Table(Table::from_iter([(key.clone(), value)])),
        Step::Index(_) => Value::Array(vec![value]),
    })
}

/// `account[0].credential[1].role`; indices count from 0.
fn display(path: &[Step]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Key(key) if text.is_empty() => key.clone(),
        Step::Key(key) => format!("{text}.{key}"),
        Step::Index(index) => format!("{text}[{index}]"),
    })
}

/// Whether somebody may have put a secret there, also under a wrong name.
fn may_be_secret(path: &[Step]) -> bool {
    matches!(path.first(), Some(Step::Key(key)) if key == "account" || key == "operator")
}

/// The value for an error message; left out where it may be a secret.
fn shown(path: &[Step], value: &Value) -> String {
    match may_be_secret(path) {
        true => format!("({}, not shown)", value.type_str()),
        false => value.to_string().trim_end().to_owned(),
    }
}

/// What the parser says of a value; where that may be a secret, only what it expected.
fn expected(path: &[Step], said: &str) -> String {
    match said.rsplit_once("expected ") {
        // Only names stand in that.
        _ if said.starts_with("unknown field") => said.to_owned(),
        Some((_, expected)) if may_be_secret(path) => format!("expected {expected}"),
        None if may_be_secret(path) => "it cannot be used".to_owned(),
        _ => said.to_owned(),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
