//! From the file as written to the plan. Owns every rule about values and how they relate.
//!
//! Invariant: a plan always comes out; where a value is wrong a problem is recorded and a legal value stands in.

use super::file::{self, File};
use super::level::{LEVEL_ADVICE, is_filter};
use super::plan::*;
use super::reload::Written;
use super::rules::Rules;
use super::{ByteSize, Problem, accounts, evidence, fleet, ports::ports, tenancy, ui};
use crate::api;
use crate::audit::AuditConfig;
use crate::block::Hugepages;
use crate::history::HistoryConfig;
use crate::job::is_label;
use crate::limits;
use crate::limits::ZSTD_LEVEL_MAX;
use crate::ownership::ProofRules;
use crate::pcap::{Compression, Container, ObjectFormat};
use crate::spool::{SpoolConfig, WriteMode, part_of};
use crate::upload::{
    ClosedDir, GcsConfig, GcsCredentials, R2Config, S3Config, S3Encryption, S3Extras, StoresConfig,
};
use crate::worker::{Sample, Timers, WhenIdle};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Blocks that each worker needs: two streams in filling, the rest on their way to the disk and back.
const BLOCKS_PER_WORKER_MIN: usize = 8;

/// Where the spool is unless the file says otherwise.
const SPOOL_DIR: &str = "/var/lib/trawl/spool";

/// `CPU_SETSIZE - 1`: the highest core that an affinity mask of glibc names.
const CORE_MAX: u64 = 1023;

/// 1 in N packets.
const SAMPLE: (u64, u64) = (1, 1_000_000_000);
const SAMPLE_WHY: &str = "1 takes every packet, 1000000000 a packet every few minutes of the fastest ports";

/// Shorter would cry at every busy second of a small host.
const WATCHDOG_SECONDS_MIN: u64 = 2;

/// Peers that have to come together to take all connections.
const PEERS_AT_BOUND: u64 = 8;

/// The same of accounts, while they are few.
const ACCOUNTS_AT_BOUND: u64 = 4;

/// Requests a second of all accounts together, while they are few, and the least that one of them has.
const REQUESTS_PER_SECOND: u64 = 2000;
const REQUESTS_PER_SECOND_MIN: u64 = 100;

/// Connections of one peer or account, however few there are in all.
const CONNECTIONS_PER_PEER_MIN: u64 = 4;

/// A week: longer intervals are typing errors.
const SECONDS_MAX: u64 = 7 * 86_400;

/// Validates everything.
pub(super) fn resolve(file: &File, host_name: &str) -> (Plan, Vec<Problem>) {
    let mut rules = Rules::default();
    let cores = cores(&mut rules, &file.cores);
    let shares = tenancy::shares(&mut rules, file);
    let (spool, workers) = spool(&mut rules, &file.spool, &shares, file.account.len());
    let host = host(&mut rules, &file.host, host_name);
    let fleet = fleet::resolve(&mut rules, file, &host);
    let captures = fleet.as_ref().is_none_or(|fleet| fleet.captures);
    // Which data centers a fleet has its registry says, and nobody looks back into the hosts' histories yet.
    let is_alone = fleet.as_ref().is_none_or(|fleet| fleet.nats.is_none());
    let colo = is_alone.then(|| host.colo.clone());
    let history = history(&mut rules, &file.history, spool.segment_bytes);
    let store = store(&mut rules, &file.store);
    let audit = evidence::audit(&mut rules, &file.audit, &store.path);
    let closed = closed(&spool, &store.path, audit.as_ref());
    let capture = capture(&mut rules, &file.capture, file.history.enabled);
    let upload = upload(&mut rules, &file.upload, spool.segment_bytes, closed);
    let upload =
        tenancy::deliveries(&mut rules, &file.upload, (capture.captures_max, cores.delivery.len()), upload);
    let plan = Plan {
        eal: eal(&mut rules, &file.dpdk.eal),
        ports: if captures { ports(&mut rules, &file.port, &cores.workers) } else { Vec::new() },
        fleet,
        blocks: blocks(&mut rules, &file.blocks, cores.workers.len()),
        store,
        high_water_percent: high_water(&mut rules, &file.spool),
        rules: request_limits(&mut rules, file, colo, history.as_ref().filter(|_| is_alone)),
        capture,
        shares,
        history,
        upload,
        manifest: evidence::manifest(&mut rules, file),
        audit,
        api: api(&mut rules, &file.api, file.account.len()),
        ui: ui::resolve(&mut rules, &file.ui),
        observe: observe(&mut rules, &file.observe),
        log: log(&mut rules, &file.log),
        accounts: accounts::resolve(&mut rules, &file.account),
        operators: accounts::operators(&mut rules, &file.operator),
        host,
        cores,
        workers,
        spool,
        written: Written(Arc::new(file.clone())),
    };
    if captures {
        blocks_are_enough(&mut rules, &plan);
    }
    (plan, rules.problems)
}

fn host(rules: &mut Rules, host: &file::Host, host_name: &str) -> HostPlan {
    let own_name = label_of(host_name);
    let id = host.id.clone().unwrap_or_else(|| own_name.clone());
    if !is_label(&id) {
        rules.wrong("host.id", format!("{id:?}"), "write 1 to 32 of a-z, 0-9 and -");
    }
    // Requests name colos in either case (`ORD`, `ord02`), so one form is kept.
    let colo = host.colo.to_ascii_lowercase();
    if !is_label(&colo) {
        rules.wrong(
            "host.colo",
            format!("{:?}", host.colo),
            "write 1 to 32 of a-z, 0-9 and -, such as \"ord02\"",
        );
    }
    HostPlan { id: if is_label(&id) { id } else { own_name }, colo }
}

/// The nearest legal label to a host name.
fn label_of(host_name: &str) -> String {
    let lower = host_name.to_ascii_lowercase();
    let dashed: String =
        lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
    let label = dashed.trim_matches('-');
    if label.is_empty() { "trawl".to_owned() } else { label.to_owned() }
}

fn eal(rules: &mut Rules, arguments: &[String]) -> Vec<String> {
    for (at, argument) in arguments.iter().enumerate() {
        if argument.is_empty() || argument.contains('\0') {
            rules.wrong(
                format!("dpdk.eal[{at}]"),
                format!("{argument:?}"),
                "remove it or write one EAL argument",
            );
        }
    }
    arguments.to_vec()
}

fn cores(rules: &mut Rules, cores: &file::Cores) -> CoresPlan {
    let workers = core_list(rules, "cores.workers", &cores.workers);
    if workers.len() > limits::WORKERS_MAX {
        let advice = format!("at most {} cores can poll", limits::WORKERS_MAX);
        rules.wrong("cores.workers", workers.len(), advice);
    }
    let writers = core_list(rules, "cores.writers", &cores.writers);
    for core in workers.iter().filter(|core| writers.contains(core)) {
        let advice = "this core also polls (cores.workers) and a writer there would cost packets; give writers \
                      another one, which control shares";
        rules.wrong("cores.writers", core, advice);
    }
    let choices = [("spin", WhenIdle::Spin), ("sleep", WhenIdle::Sleep)];
    let when_idle = rules.choice("cores.when_idle", &cores.when_idle, &choices);
    if cores.delivery.is_empty() {
        return CoresPlan { workers, delivery: writers.clone(), writers, when_idle };
    }
    let delivery = core_list(rules, "cores.delivery", &cores.delivery);
    for core in workers.iter().filter(|core| delivery.contains(core)) {
        let advice = "this core also polls (cores.workers) and a merge there would cost packets; give delivery other cores, \
                      such as those of cores.writers";
        rules.wrong("cores.delivery", core, advice);
    }
    CoresPlan { workers, writers, delivery, when_idle }
}

fn core_list(rules: &mut Rules, key: &str, cores: &[u64]) -> Vec<usize> {
    if cores.is_empty() {
        rules.wrong(key, "[]", "give at least one core");
    }
    let mut list = Vec::with_capacity(cores.len());
    for core in cores {
        let core =
            rules.range(key, *core, (0, CORE_MAX), "these are the cores that Linux's affinity masks name")
                as usize;
        if list.contains(&core) {
            rules.wrong(key, core, "this core is in the list twice; remove one");
        } else {
            list.push(core);
        }
    }
    list
}

fn blocks(rules: &mut Rules, blocks: &file::Blocks, workers: usize) -> BlocksPlan {
    let count_min = workers.max(1) * BLOCKS_PER_WORKER_MIN;
    let min = (count_min * limits::BLOCK_BYTES) as u64;
    let why = "eight blocks of 1 MiB for each worker, or bursts are dropped while the disk works";
    let bytes = rules.size("blocks.bytes_max", blocks.bytes_max, (min, 1 << 40), why);
    let choices = [("auto", Hugepages::Auto), ("never", Hugepages::Never), ("require", Hugepages::Require)];
    BlocksPlan {
        count: (bytes / limits::BLOCK_BYTES as u64) as usize,
        hugepages: rules.choice("blocks.hugepages", &blocks.hugepages, &choices),
    }
}

/// One capture must find its blocks, beside the history's recording.
fn blocks_are_enough(rules: &mut Rules, plan: &Plan) {
    let (share, least) = (plan.block_share(), 1 + usize::from(plan.history.is_some()));
    // What is wrong with one of these was said, and the plan holds a stand-in for it.
    let told = ["blocks.bytes_max", "cores.workers", "port"].map(|key| rules.told(key));
    if share.captures_max() < least && !told.contains(&true) {
        let needed = ByteSize((share.needed_in_all(least) * limits::BLOCK_BYTES) as u64);
        let text = format!(
            "use at least {needed}: a worker has up to {} queues, and a capture holds a block of 1 MiB for each of them{}",
            share.queues,
            if least > 1 { ", as the history does" } else { "" }
        );
        rules.wrong("blocks.bytes_max", ByteSize(plan.blocks.bytes()), text);
    }
}

fn spool(
    rules: &mut Rules,
    spool: &file::Spool,
    shares: &SharesPlan,
    accounts: usize,
) -> (SpoolConfig, WorkersPlan) {
    let bytes_max = rules.size(
        "spool.bytes_max",
        spool.bytes_max,
        (limits::SEGMENT_BYTES_MIN, 1 << 60),
        "it holds at least one segment of the smallest size",
    );
    let segment_bytes = rules.size(
        "spool.segment_bytes",
        spool.segment_bytes,
        (limits::SEGMENT_BYTES_MIN, bytes_max),
        "below, the file system's work outweighs the data's; above, the quota (spool.bytes_max) holds no segment",
    );
    let pool_default = ByteSize((bytes_max / 4).min(1 << 30));
    let why = "it is part of the quota, spool.bytes_max";
    let pool_bytes =
        rules.size("spool.pool_bytes", spool.pool_bytes.unwrap_or(pool_default), (0, bytes_max), why);
    let choices = [
        ("auto", (WriteMode::Auto, false)),
        ("direct", (WriteMode::Direct, false)),
        ("mapped", (WriteMode::Mapped, false)),
        ("discard", (WriteMode::Discard, false)),
        ("discard-in-worker", (WriteMode::Discard, true)),
    ];
    let mut interval = |key, ms, ms_max| {
        Duration::from_millis(rules.range(
            key,
            ms,
            (1, ms_max),
            "zero would never rest, longer would never be noticed",
        ))
    };
    let fsync_interval = interval("spool.fsync_interval_ms", spool.fsync_interval_ms, 600_000);
    let flush_interval = interval("spool.flush_interval_ms", spool.flush_interval_ms, 60_000);
    let why = "a segment is cut after a second at the earliest and a day at the latest";
    let rotate = rules.range("spool.rotate_seconds", spool.rotate_seconds, (1, 86_400), why);
    let (write, bypasses_lanes) = rules.choice("spool.write", &spool.write, &choices);
    let timers = Timers { flush: flush_interval, rotate: Duration::from_secs(rotate) };
    let (dir, more_dirs) = spool_dirs(rules, spool);
    let share_bytes_max = match shares.account_percent {
        100 => bytes_max,
        percent => bytes_max / 100 * percent,
    };
    let part_bytes = part_of(bytes_max, share_bytes_max, accounts);
    let config = SpoolConfig {
        dir,
        more_dirs,
        bytes_max,
        share_bytes_max,
        part_bytes,
        segment_bytes,
        write,
        fsync_interval,
        pool_bytes,
    };
    (config, WorkersPlan { timers, bypasses_lanes })
}

/// The spool's directories: the first, and the others.
fn spool_dirs(rules: &mut Rules, spool: &file::Spool) -> (PathBuf, Vec<PathBuf>) {
    let first = spool.dir.as_deref().unwrap_or(Path::new(SPOOL_DIR));
    if spool.dirs.is_empty() {
        return (rules.path("spool.dir", first), Vec::new());
    }
    if spool.dir.is_some() {
        let advice = "remove spool.dir: spool.dirs names every directory, the first of them too";
        rules.wrong("spool.dirs", spool.dirs.len(), advice);
    }
    let named = spool.dirs.iter().enumerate();
    let mut dirs: Vec<_> = named.map(|(at, dir)| rules.path(&format!("spool.dirs[{at}]"), dir)).collect();
    for (at, dir) in dirs.iter().enumerate() {
        let mut others = dirs.iter().enumerate().filter(|(other, _)| *other != at);
        if others.any(|(_, other)| dir.starts_with(other)) {
            let advice = "each is a directory of its own, and none lies in another";
            rules.wrong(format!("spool.dirs[{at}]"), dir.display(), advice);
        }
    }
    let more = dirs.split_off(1);
    (dirs.swap_remove(0), more)
}

fn high_water(rules: &mut Rules, spool: &file::Spool) -> u64 {
    let bounds = (1, limits::SPOOL_END_PERCENT);
    rules.range("spool.high_water_percent", spool.high_water_percent, bounds, "above, captures already end")
}

/// What a request may ask for.
fn request_limits(
    rules: &mut Rules,
    file: &File,
    colo: Option<String>,
    history: Option<&HistoryConfig>,
) -> api::Rules {
    let (capture, upload) = (&file.capture, &file.upload);
    let some = "a limit of zero would refuse every capture; leave the key out for no limit";
    let mut limit = |key, limit: Option<u64>| limit.map(|max| rules.range(key, max, (1, u64::MAX), some));
    let packet_limit_max = limit("capture.packet_limit_max", capture.packet_limit_max);
    let byte_limit_max = limit("capture.byte_limit_max", capture.byte_limit_max.map(|size| size.0));
    let packets = (1, limits::SIMPLE_PACKETS_MAX);
    let why = "a look back holds its packets in memory";
    let simple_packet_limit_max =
        rules.range("capture.simple_packet_limit_max", capture.simple_packet_limit_max, packets, why);
    let mut seconds = |key, value| rules.range(key, value, (1, SECONDS_MAX), "a second to a week");
    api::Rules {
        colo,
        simple_time_limit_seconds_max: seconds(
            "capture.simple_time_limit_seconds_max",
            capture.simple_time_limit_seconds_max,
        ),
        simple_packet_limit_max,
        time_limit_seconds_max: seconds("capture.time_limit_seconds_max", capture.time_limit_seconds_max),
        packet_limit_max,
        byte_limit_max,
        allow_file: upload.allow_file,
        require_validation: upload.require_validation,
        require_file_validation: upload.require_file_validation,
        history: history.map(|history| history.keep),
    }
}

fn capture(rules: &mut Rules, capture: &file::Capture, with_history: bool) -> CapturePlan {
    let captures = (1, limits::CAPTURES_MAX as u64);
    let why = "a capture is one bit of a machine word";
    let captures_max = rules.range("capture.captures_max", capture.captures_max, captures, why);
    let full_per_account = rules.range("capture.full_per_account", capture.full_per_account, captures, why);
    let interval = (0, SECONDS_MAX);
    let why = "zero for no such rule, up to a week";
    let simple_interval =
        rules.range("capture.simple_interval_seconds", capture.simple_interval_seconds, interval, why);
    // The history is recorded in a slot of its own.
    let captures_max = captures_max.min(limits::CAPTURES_MAX as u64 - u64::from(with_history));
    let simple_sample = rules.range("capture.simple_sample", capture.simple_sample, SAMPLE, SAMPLE_WHY);
    let (key, seconds) = ("capture.simple_retention_seconds", capture.simple_retention_seconds);
    let simple_retention = rules.range(key, seconds, (1, SECONDS_MAX), "a second to a week");
    CapturePlan {
        format: format(rules, capture),
        captures_max: captures_max as usize,
        full_per_account: full_per_account as usize,
        simple_interval: Duration::from_secs(simple_interval),
        simple_retention: Duration::from_secs(simple_retention),
        simple_sample: Sample::new(simple_sample as u32),
    }
}

fn format(rules: &mut Rules, capture: &file::Capture) -> ObjectFormat {
    let (levels, why) =
        ((1, ZSTD_LEVEL_MAX as u64), "above 19 zstd takes hundreds of MiB and gains a percent");
    ObjectFormat {
        container: rules.choice(
            "capture.format",
            &capture.format,
            &[("pcap", Container::Pcap), ("pcapng", Container::PcapNg)],
        ),
        compression: rules.choice(
            "capture.compression",
            &capture.compression,
            &[("none", Compression::None), ("zstd", Compression::Zstd)],
        ),
        level: rules.range("capture.compression_level", capture.compression_level, levels, why) as i32,
    }
}

fn history(rules: &mut Rules, history: &file::History, segment_bytes: u64) -> Option<HistoryConfig> {
    let sample = rules.range("history.sample", history.sample, SAMPLE, SAMPLE_WHY);
    let bytes_min = if history.enabled { segment_bytes } else { 0 };
    let why = "it holds at least one segment (spool.segment_bytes)";
    let bytes_max = rules.size("history.bytes_max", history.bytes_max, (bytes_min, 1 << 60), why);
    let why = "the API lets nobody look further back than a day";
    let hours = rules.range("history.hours_max", history.hours_max, (1, limits::HISTORY_HOURS_MAX), why);
    let why = "a segment is cut after a second at the earliest and an hour at the latest";
    let segment = rules.range("history.segment_seconds", history.segment_seconds, (1, 3600), why);
    history.enabled.then(|| HistoryConfig {
        sample: Sample::new(sample as u32),
        bytes_max,
        keep: Duration::from_secs(hours * 3600),
        segment: Duration::from_secs(segment),
    })
}

/// What no customer's objects go into: the spool, the directory of the store's file, what is kept beside it, and the audit log.
fn closed(spool: &SpoolConfig, store: &Path, audit: Option<&AuditConfig>) -> Vec<ClosedDir> {
    let closed = |dir: &Path, with_below| ClosedDir { dir: dir.to_owned(), with_below };
    let spool = spool.dirs().map(|dir| closed(dir, true));
    let parts = closed(&fleet::parts_dir(store), true);
    let store = store.parent().map(|dir| closed(dir, false));
    spool.chain(store).chain([parts]).chain(audit.map(|audit| closed(&audit.dir, true))).collect()
}

fn upload(
    rules: &mut Rules,
    upload: &file::Upload,
    segment_bytes: u64,
    file_closed: Vec<ClosedDir>,
) -> UploadPlan {
    // An object ends at the first record past segment_bytes, so it may be one record longer.
    let object_bytes = segment_bytes + limits::FRAME_BYTES_MAX as u64 + 16;
    let part_min = limits::PART_BYTES_MIN.max(object_bytes.div_ceil(limits::PARTS_MAX));
    let why =
        "S3 refuses parts below 5 MiB, above 5 GiB, and more than 10000 in an object of spool.segment_bytes";
    let part_bytes =
        rules.size("upload.part_bytes", upload.part_bytes, (part_min, (5 << 30).max(part_min)), why);
    let why = "each part on its way is held in memory";
    let parts_in_flight = rules.range("upload.parts_in_flight", upload.parts_in_flight, (1, 64), why);
    let retry =
        rules.range("upload.retry_seconds_max", upload.retry_seconds_max, (0, SECONDS_MAX), "up to a week");
    let why = "a pause of 10 ms to an hour";
    let pause = rules.range("upload.retry_pause_ms_max", upload.retry_pause_ms_max, (10, 3_600_000), why);
    let why = "between a second and an hour";
    let attempt = rules.range("upload.attempt_seconds_max", upload.attempt_seconds_max, (1, 3600), why);
    let proxy = upload.proxy.as_deref().map(|url| endpoint(rules, "upload.proxy", url));
    let endpoint_r2 = upload.r2.endpoint.as_deref().map(|url| endpoint(rules, "upload.r2.endpoint", url));
    let extras = extras(rules, &upload.s3);
    let endpoint = upload.s3.endpoint.as_deref().map(|url| endpoint(rules, "upload.s3.endpoint", url));
    let (key, why) = ("upload.retention_seconds", "up to a year");
    let retention = rules.range(key, upload.retention_seconds, (0, 31_622_400), why);
    let ca_file = upload.ca_file.as_deref().map(|path| rules.path("upload.ca_file", path));
    let gcs = gcs(rules, &upload.gcs).map(|gcs| GcsConfig {
        chunk_bytes: part_bytes,
        retry_seconds_max: retry,
        attempt_seconds_max: attempt,
        pause_ms_max: pause,
        proxy: proxy.clone(),
        ca_file: ca_file.clone(),
        ..gcs
    });
    let s3 = S3Config {
        path_style: Some(upload.s3.path_style.unwrap_or(endpoint.is_some())),
        endpoint,
        part_bytes,
        parts_in_flight: parts_in_flight as usize,
        retry_seconds_max: retry,
        attempt_seconds_max: attempt,
        pause_ms_max: pause,
        extras,
        proxy,
        ca_file,
        credentials: None,
        parts_extra: 0,
    };
    let root = |path: &PathBuf| rules.path("upload.file_roots", path);
    let file_roots = upload.file_roots.iter().map(root).collect();
    let r2 = upload.r2.allow.then_some(R2Config { endpoint: endpoint_r2, credentials: None });
    UploadPlan {
        stores: StoresConfig { allow_file: upload.allow_file, file_roots, file_closed, s3, r2, gcs },
        retention: Duration::from_secs(retention),
        retry_pause: Duration::from_millis(pause),
        objects_in_flight: 1, // The rest is `tenancy`'s.
        deliveries_max: 1,
        deliveries_per_account: 1,
        turn: Duration::ZERO,
        wait_percent: 0,
        ending_max: Duration::ZERO,
        share_percent: 0,
        memory_bytes: 0,
        challenge_interval: Duration::ZERO,
        proofs: ProofRules::default(),
    }
}

fn extras(rules: &mut Rules, s3: &file::S3) -> S3Extras {
    const CHOICES: [(&str, u8); 3] = [("none", 0), ("aes256", 1), ("kms", 2)];
    let encryption = match rules.choice("upload.s3.encryption", &s3.encryption, &CHOICES) {
        0 => None,
        1 => Some(S3Encryption::Aes256),
        _ => Some(S3Encryption::Kms { key_id: s3.kms_key_id.clone() }),
    };
    if s3.kms_key_id.is_some() && !matches!(encryption, Some(S3Encryption::Kms { .. })) {
        rules.wrong("upload.s3.kms_key_id", "(set)", "a key is used with encryption = \"kms\" only");
    }
    storage_class(rules, "upload.s3.storage_class", s3.storage_class.as_deref(), "STANDARD_IA");
    S3Extras {
        encryption,
        storage_class: s3.storage_class.clone(),
        owner_full_control: s3.owner_full_control,
    }
}

fn storage_class(rules: &mut Rules, key: &'static str, class: Option<&str>, example: &str) {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if let Some(class) = class
        && (class.is_empty() || !class.bytes().all(plain))
    {
        rules.wrong(key, format!("{class:?}"), format!("write it as the store does, such as \"{example}\""));
    }
}

fn gcs(rules: &mut Rules, gcs: &file::Gcs) -> Option<GcsConfig> {
    const CHOICES: [(&str, bool); 2] = [("default", true), ("none", false)];
    let endpoint = gcs.endpoint.as_deref().map(|url| endpoint(rules, "upload.gcs.endpoint", url));
    let known = rules.choice("upload.gcs.credentials", &gcs.credentials, &CHOICES);
    let file = gcs.credentials_file.as_deref();
    let file = file.map(|path| rules.path("upload.gcs.credentials_file", path));
    let credentials = match file {
        Some(path) if known => GcsCredentials::File(path),
        None if known => GcsCredentials::Default,
        Some(_) => {
            rules.wrong(
                "upload.gcs.credentials_file",
                "(set)",
                "a key is not used with credentials = \"none\"",
            );
            GcsCredentials::None
        }
        None => {
            if endpoint.is_none() {
                let advice =
                    "Google knows nobody without credentials; this is for an emulator at upload.gcs.endpoint";
                rules.wrong("upload.gcs.credentials", "\"none\"", advice);
            }
            GcsCredentials::None
        }
    };
    storage_class(rules, "upload.gcs.storage_class", gcs.storage_class.as_deref(), "NEARLINE");
    gcs.allow.then(|| GcsConfig {
        endpoint,
        credentials,
        storage_class: gcs.storage_class.clone(),
        ..GcsConfig::default()
    })
}

fn endpoint(rules: &mut Rules, key: &'static str, url: &str) -> String {
    let legal = reqwest::Url::parse(url).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if !legal {
        let advice = "write http://host:port or https://host; credentials come from the AWS chain (AWS_ACCESS_KEY_ID, ...)";
        rules.wrong(key, "(not shown)", advice);
    }
    url.trim_end_matches('/').to_owned()
}

fn store(rules: &mut Rules, store: &file::Store) -> StorePlan {
    let key_file = store.key_file.as_deref();
    StorePlan {
        path: rules.path("store.path", &store.path),
        key_file: key_file.map(|path| rules.path("store.key_file", path)),
    }
}

fn address(rules: &mut Rules, key: &str, text: &str) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        let advice = "write an address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"";
        rules.wrong(key, format!("{text:?}"), advice);
    }
    address
}

/// One peer's share of all connections, and no less than an SDK may have at once.
fn peer_share(connections_max: u64) -> u64 {
    (connections_max / PEERS_AT_BOUND).max(CONNECTIONS_PER_PEER_MIN).min(connections_max)
}

/// One account's share of all connections: all of them together leave half to strangers, because
/// a customer's new connection has none at first either, and strangers displace each other.
fn account_share(connections_max: u64, accounts: usize) -> u64 {
    let shares = (2 * accounts as u64).max(ACCOUNTS_AT_BOUND);
    (connections_max / shares).max(CONNECTIONS_PER_PEER_MIN).min(connections_max)
}

/// One account's share of the requests a second: a page of the dashboard needs some ten at once and few later.
fn rate_share(accounts: usize) -> u64 {
    (REQUESTS_PER_SECOND / accounts.max(1) as u64).max(REQUESTS_PER_SECOND_MIN)
}

fn api(rules: &mut Rules, api: &file::Api, accounts: usize) -> ApiPlan {
    let listen = address(rules, "api.listen", &api.listen).unwrap_or_else(|| ([127, 0, 0, 1], 8080).into());
    let why = "a request has at least a kilobyte of room and never needs more than 16 MiB";
    let bytes = rules.size("api.request_bytes_max", api.request_bytes_max, (1 << 10, 16 << 20), why);
    let why = "a second to an hour";
    let timeout = rules.range("api.request_timeout_seconds", api.request_timeout_seconds, (1, 3600), why);
    let why = "each connection costs a file descriptor";
    let connections = rules.range("api.connections_max", api.connections_max, (1, 65_536), why);
    let per_peer = api.connections_per_peer_max.unwrap_or_else(|| peer_share(connections));
    let why = "one peer has at least one connection, and at most api.connections_max";
    let per_peer = rules.range("api.connections_per_peer_max", per_peer, (1, connections), why);
    let per_account = api.connections_per_account_max.unwrap_or_else(|| account_share(connections, accounts));
    let why = "one account has at least one connection, and at most api.connections_max";
    let per_account = rules.range("api.connections_per_account_max", per_account, (1, connections), why);
    let proxies = api.trusted_proxies.iter().enumerate();
    let proxies = proxies
        .filter_map(|(at, text)| accounts::prefix(rules, format!("api.trusted_proxies[{at}]"), text))
        .collect();
    let why = "one must be looked at; beyond a million there is no limit worth the name";
    let range = (1, 1_000_000);
    let failures = rules.range("api.failed_authentications_max", api.failed_authentications_max, range, why);
    let why =
        "an account asks at least one request a second; beyond a million there is no limit worth the name";
    let rate = api.requests_per_second_max.unwrap_or_else(|| rate_share(accounts));
    let rate = rules.range("api.requests_per_second_max", rate, range, why);
    let tls = match (&api.tls_cert, &api.tls_key) {
        (Some(cert), Some(key)) => Some((rules.path("api.tls_cert", cert), rules.path("api.tls_key", key))),
        (None, None) => None,
        (cert, _) => {
            let key = if cert.is_some() { "api.tls_key" } else { "api.tls_cert" };
            let advice = "TLS needs certificate and key; give both, or neither for plain HTTP";
            rules.problems.push(Problem::Missing { key: key.to_owned(), advice: advice.to_owned() });
            None
        }
    };
    ApiPlan {
        tls,
        listen,
        request_bytes_max: bytes as usize,
        request_timeout: Duration::from_secs(timeout),
        connections_max: connections as usize,
        connections_per_peer_max: per_peer as usize,
        connections_per_account_max: per_account as usize,
        trusted_proxies: proxies,
        failed_authentications_max: failures as u32,
        requests_per_second_max: rate as u32,
    }
}

fn observe(rules: &mut Rules, observe: &file::Observe) -> ObservePlan {
    let why = "every thread moves at least twice a second; an hour is as good as never";
    let bounds = (WATCHDOG_SECONDS_MIN, 3600);
    let seconds = rules.range("observe.watchdog_seconds", observe.watchdog_seconds, bounds, why);
    ObservePlan {
        listen: observe.listen.as_deref().and_then(|text| address(rules, "observe.listen", text)),
        watchdog: Duration::from_secs(seconds),
    }
}

fn log(rules: &mut Rules, log: &file::Log) -> LogPlan {
    let level = if is_filter(&log.level) {
        log.level.clone()
    } else {
        rules.wrong("log.level", format!("{:?}", log.level), LEVEL_ADVICE);
        "info".to_owned()
    };
    let choices = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    LogPlan { format: rules.choice("log.format", &log.format, &choices), level }
}
