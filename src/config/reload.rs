//! What of a config may change while the host runs. Owns the list of these keys and the comparison of two files; not the change
//! itself, which is `host::reload`'s.
//!
//! Invariant: a key that is not in [`LIVE`] is refused by name. A test holds [`LIVE`] and the fixed keys against every key of the
//! file, so that no new one is forgotten.

use super::Plan;
use super::file::File;
use super::plan::Account;
use crate::spool::part_of;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Keys that a reload applies. All others hold until the next start.
const LIVE: &[&str] = &[
    "account.id",
    "account.prefixes",
    "account.credential.email",
    "account.credential.key_sha256",
    "account.credential.token_sha256",
    "account.credential.role",
    "operator.token_sha256",
    "api.requests_per_second_max",
    "api.tls_cert",
    "api.tls_key",
    "capture.byte_limit_max",
    "capture.compression",
    "capture.compression_level",
    "capture.format",
    "capture.full_per_account",
    "capture.packet_limit_max",
    "capture.simple_interval_seconds",
    "capture.simple_packet_limit_max",
    "capture.simple_retention_seconds",
    "capture.simple_sample",
    "capture.simple_time_limit_seconds_max",
    "capture.time_limit_seconds_max",
    "capture.waiting_per_account",
    "log.level",
    "manifest.signing_key_file",
    "manifest.timestamp_ca_file",
    "manifest.timestamp_seconds_max",
    "manifest.timestamp_url",
    "spool.account_percent",
    "spool.failed_percent",
    "spool.failed_seconds_max",
    "spool.simple_percent",
    "store.jobs_days_max",
    "store.jobs_per_account_max",
    "upload.allow_file",
    "upload.attempt_seconds_max",
    "upload.ca_file",
    "upload.challenge_interval_seconds",
    "upload.file_roots",
    "upload.gcs.allow",
    "upload.gcs.credentials",
    "upload.gcs.credentials_file",
    "upload.gcs.endpoint",
    "upload.gcs.storage_class",
    "upload.memory_bytes_max",
    "upload.part_bytes",
    "upload.parts_in_flight",
    "upload.proof_seconds_max",
    "upload.proxy",
    "upload.r2.allow",
    "upload.r2.endpoint",
    "upload.require_file_validation",
    "upload.require_validation",
    "upload.retention_seconds",
    "upload.retry_pause_ms_max",
    "upload.retry_seconds_max",
    "upload.s3.encryption",
    "upload.s3.endpoint",
    "upload.s3.kms_key_id",
    "upload.s3.owner_full_control",
    "upload.s3.path_style",
    "upload.s3.storage_class",
];

/// A file as it was written, for the comparison with the next one. Its form for people is empty: it has hashes of secrets.
#[derive(Clone)]
pub(super) struct Written(pub(super) Arc<File>);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// The keys that differ between two plans, each once and without values, because some are hashes of secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that a reload applies.
    pub live: Vec<String>,
    /// Those that need a restart.
    pub fixed: Vec<String>,
}

impl Plan {
    /// This plan in the place of `before`, which holds now: an account's share that the file leaves to the host stays what it was at the
    /// start, because it follows the number of accounts, and with a lower one packets that are kept would go.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        let is_left_to_host = |plan: &Self| plan.written.0.spool.account_percent.is_none();
        if is_left_to_host(&self) && is_left_to_host(before) {
            self.shares.account_percent = before.shares.account_percent;
            self.spool.share_bytes_max = before.spool.share_bytes_max;
            self.spool.part_bytes =
                part_of(self.spool.bytes_max, self.spool.share_bytes_max, self.accounts.len());
        }
        self
    }

    /// What `next` says otherwise than this plan.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Changes {
        let of = |plan: &Self| serde_json::to_value(&*plan.written.0).unwrap_or_default();
        let mut changes = changes(&of(self), &of(next));
        // Written otherwise, and the same: a list in another order, a default that is said.
        changes.fixed.retain(|key| !is_same(self, next, key));
        changes.live.retain(|key| !is_same(self, next, key));
        let tls = "api.tls_cert";
        // A listener speaks TLS or it does not: its connections were made for one of them.
        if self.api.tls.is_some() != next.api.tls.is_some() {
            changes.live.retain(|key| !key.starts_with("api.tls_"));
            changes.fixed.push(format!("{tls} (TLS cannot be switched on or off)"));
        }
        changes
    }
}

/// Whether two plans mean the same by a key that their files say otherwise.
fn is_same(one: &Plan, other: &Plan, key: &str) -> bool {
    let is_same = |of: &dyn Fn(&Plan) -> String| of(one) == of(other);
    match key {
        "host.id" => one.host.id == other.host.id,
        "cores.workers" => one.cores.workers == other.cores.workers,
        "cores.writers" => one.cores.writers == other.cores.writers,
        "cores.delivery" => alike(&one.cores.delivery, &other.cores.delivery),
        "spool.dir" | "spool.dirs" => one.spool.dirs().eq(other.spool.dirs()),
        "spool.pool_bytes" => one.spool.pool_bytes == other.spool.pool_bytes,
        "spool.account_percent" => one.shares.account_percent == other.shares.account_percent,
        "store.path" => one.store.path == other.store.path,
        "store.key_file" => one.store.key_file == other.store.key_file,
        "upload.objects_in_flight" => one.upload.objects_in_flight == other.upload.objects_in_flight,
        "upload.memory_bytes_max" => one.upload.memory_bytes == other.upload.memory_bytes,
        "upload.file_roots" => alike(&one.upload.stores.file_roots, &other.upload.stores.file_roots),
        "api.listen" => one.api.listen == other.api.listen,
        "api.trusted_proxies" => alike(&one.api.trusted_proxies, &other.api.trusted_proxies),
        "api.connections_per_peer_max" => {
            one.api.connections_per_peer_max == other.api.connections_per_peer_max
        }
        "api.connections_per_account_max" => {
            one.api.connections_per_account_max == other.api.connections_per_account_max
        }
        "api.requests_per_second_max" => one.api.requests_per_second_max == other.api.requests_per_second_max,
        "ui.hosts" => alike(&one.ui.hosts, &other.ui.hosts),
        "observe.listen" => one.observe.listen == other.observe.listen,
        _ if key.starts_with("history.") => is_same(&|plan| format!("{:?}", plan.history)),
        _ if key.starts_with("audit.") => is_same(&|plan| format!("{:?}", plan.audit)),
        _ if key.starts_with("fleet.") => is_same(&|plan| format!("{:?}", plan.fleet)),
        _ if key == "port" || key.starts_with("port.") => one.ports == other.ports,
        _ if key == "account" || key.starts_with("account.") => same_accounts(&one.accounts, &other.accounts),
        _ if key == "operator" || key.starts_with("operator.") => alike(&one.operators, &other.operators),
        _ => false,
    }
}

/// Whether two lists whose order means nothing have the same members.
fn alike<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.len() == other.len() && one.iter().all(|member| other.contains(member))
}

/// Whether the accounts are the same, in whatever order.
fn same_accounts(one: &[Account], other: &[Account]) -> bool {
    let is_same = |a: &Account, b: &Account| {
        a.id == b.id && alike(&a.prefixes, &b.prefixes) && alike(&a.credentials, &b.credentials)
    };
    one.len() == other.len() && one.iter().all(|a| other.iter().any(|b| is_same(a, b)))
}

fn changes(one: &Value, other: &Value) -> Changes {
    let mut keys = BTreeSet::new();
    differences(one, other, String::new(), &mut keys);
    let (live, fixed) = keys.into_iter().partition(|key| is_live(key));
    Changes { live, fixed }
}

/// Whether a reload applies a key, or all keys of a list such as `account`.
fn is_live(key: &str) -> bool {
    LIVE.iter()
        .any(|live| live.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Notes each key at which two files differ; of lists of tables that have different lengths, the list.
fn differences(one: &Value, other: &Value, key: String, keys: &mut BTreeSet<String>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let of =
                    |table: &serde_json::Map<String, Value>| table.get(name).cloned().unwrap_or_default();
                differences(&of(a), &of(b), below(name), keys);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().all(Value::is_object) => {
            a.iter().zip(b).for_each(|(one, other)| differences(one, other, key.clone(), keys));
        }
        _ if one == other => {}
        _ => {
            keys.insert(key);
        }
    }
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
