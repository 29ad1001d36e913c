//! Every key of the file, and what a change of it means.

use super::*;
use crate::config::file::{self, Keys};
use serde_json::json;

/// Keys that need a restart: memory, threads, devices and listeners are made of them.
const FIXED: &[&str] = &[
    "version",
    "host.id",
    "host.colo",
    "dpdk.eal",
    "port.device",
    "port.queues",
    "port.rx_descriptors",
    "port.mbufs",
    "port.frame_bytes_max",
    "port.required",
    "port.workers",
    "port.pace_pps",
    "cores.workers",
    "cores.writers",
    "cores.delivery",
    "cores.when_idle",
    "fleet.name",
    "fleet.roles",
    "fleet.assignment_keys",
    "fleet.signing_key_file",
    "fleet.late_seconds",
    "fleet.nats.servers",
    "fleet.nats.nkey_file",
    "fleet.nats.ca_file",
    "fleet.nats.cert_file",
    "fleet.nats.key_file",
    "fleet.nats.replicas",
    "fleet.nats.request_timeout_ms",
    "blocks.bytes_max",
    "blocks.hugepages",
    "spool.dir",
    "spool.dirs",
    "spool.bytes_max",
    "spool.high_water_percent",
    "spool.segment_bytes",
    "spool.write",
    "spool.pool_bytes",
    "spool.fsync_interval_ms",
    "spool.flush_interval_ms",
    "spool.rotate_seconds",
    "store.path",
    "store.key_file",
    "capture.captures_max",
    "history.enabled",
    "history.sample",
    "history.bytes_max",
    "history.hours_max",
    "history.segment_seconds",
    "upload.deliveries_max",
    "upload.deliveries_per_account",
    "upload.objects_in_flight",
    "upload.turn_seconds",
    "upload.ending_seconds_max",
    "upload.wait_percent",
    "upload.share_percent",
    "audit.dir",
    "audit.bytes_max",
    "audit.file_bytes",
    "audit.required",
    "api.listen",
    "api.request_bytes_max",
    "api.request_timeout_seconds",
    "api.connections_max",
    "api.connections_per_peer_max",
    "api.connections_per_account_max",
    "api.trusted_proxies",
    "api.failed_authentications_max",
    "ui.hosts",
    "ui.origin",
    "ui.view_bytes_per_second",
    "observe.listen",
    "observe.watchdog_seconds",
    "log.format",
];

fn every_key() -> Vec<String> {
    let mut keys = Vec::new();
    File::keys("", &mut keys);
    keys
}

#[test]
fn every_key_of_the_file_is_reloaded_or_refused_by_name_and_none_is_both() {
    let keys = every_key();
    let forgotten: Vec<_> =
        keys.iter().filter(|key| !LIVE.contains(&key.as_str()) && !FIXED.contains(&key.as_str())).collect();
    assert!(forgotten.is_empty(), "decide whether a reload applies these: {forgotten:?}");
    let both: Vec<_> = LIVE.iter().filter(|key| FIXED.contains(key)).collect();
    assert!(both.is_empty(), "{both:?}");
    let gone: Vec<_> =
        LIVE.iter().chain(FIXED).filter(|key| !keys.iter().any(|known| known == *key)).collect();
    assert!(gone.is_empty(), "no such key: {gone:?}");
    assert!(keys.len() > 100, "{}", keys.len());
}

/// A file in which every list of tables has one entry.
fn whole() -> Value {
    let text = "[fleet]\n[fleet.nats]\n[[port]]\n[[account]]\n[[account.credential]]\n[[operator]]\n";
    let (file, problems) = file::read(text);
    assert!(problems.is_empty(), "{problems:?}");
    serde_json::to_value(file).unwrap()
}

/// The same with another value at `key`.
fn changed(key: &str) -> Value {
    let mut file = whole();
    let mut place = &mut file;
    for name in key.split('.') {
        if place.is_array() {
            place = &mut place[0];
        }
        place = place.get_mut(name).unwrap_or_else(|| panic!("{key}"));
    }
    *place = json!("another value");
    file
}

#[test]
fn each_key_that_needs_a_restart_is_named_when_it_changes_and_each_other_is_taken() {
    for key in every_key() {
        let changes = changes(&whole(), &changed(&key));
        let (named, other) = match FIXED.contains(&key.as_str()) {
            true => (changes.fixed, changes.live),
            false => (changes.live, changes.fixed),
        };
        assert_eq!((named, other), (vec![key], Vec::new()));
    }
}

#[test]
fn all_that_needs_a_restart_is_named_at_once_beside_what_does_not() {
    let text = |more: &str, account: &str| {
        format!(
            "{more}[[port]]\ndevice = \"net_null0\"\n[[account]]\nid = \"{account}\"\n[[account.credential]]\ntoken_sha256 = \"{:064}\"\n",
            0
        )
    };
    let plan = |text: String| Plan::parse(&text).unwrap();
    let before = plan(text("", "a"));
    assert_eq!(before.changes(&plan(text("", "a"))), Changes::default());
    let more = "[blocks]\nbytes_max = \"1GiB\"\n[log]\nlevel = \"debug\"\n[[port]]\ndevice = \"net_null1\"\n";
    let changes = before.changes(&plan(text(more, "b")));
    assert_eq!(changes.fixed, ["blocks.bytes_max", "port"]);
    assert_eq!(changes.live, ["account.id", "log.level"]);
    let tls = "[api]\ntls_cert = \"/a\"\ntls_key = \"/b\"\n";
    let changes = before.changes(&plan(text(tls, "a")));
    assert!(changes.live.is_empty() && changes.fixed[0].starts_with("api.tls_cert ("), "{changes:?}");
    let another = "[api]\ntls_cert = \"/a\"\ntls_key = \"/c\"\n";
    let changes = plan(text(tls, "a")).changes(&plan(text(another, "a")));
    assert_eq!((changes.live, changes.fixed), (vec!["api.tls_key".to_owned()], Vec::new()));
}

#[test]
fn an_account_that_is_added_takes_nothing_from_the_share_of_one_that_is_there() {
    let text = |accounts: &[&str], spool: &str| {
        let hash = "0".repeat(64);
        let account = |id: &&str| {
            format!("[[account]]\nid = \"{id}\"\n[[account.credential]]\ntoken_sha256 = \"{hash}\"\n")
        };
        let accounts: String = accounts.iter().map(account).collect();
        let text =
            format!("[[port]]\ndevice = \"net_null0\"\n[spool]\nbytes_max = \"1GiB\"\n{spool}{accounts}");
        Plan::parse(&text).unwrap()
    };
    let (one, two) = (text(&["a"], ""), text(&["a", "b"], ""));
    let share = |plan: &Plan| (plan.shares.account_percent, plan.spool.share_bytes_max);
    assert_eq!((share(&one), share(&two)), ((100, 1 << 30), (50, (1 << 30) / 100 * 50)));
    let part = one.spool.part_bytes;
    let reloaded = text(&["a", "b"], "").after(&one);
    assert_eq!(share(&reloaded), (100, 1 << 30));
    assert!(reloaded.spool.part_bytes < part, "each has its part, all the same");
    assert_eq!(share(&text(&["a", "b"], "account_percent = 50\n").after(&one)), share(&two), "it is written");
}

#[test]
fn what_was_written_is_no_part_of_a_plan_s_form_for_people() {
    let hash = format!("{:064}", 7);
    let text = format!("[[port]]\ndevice = \"net_null0\"\n[[operator]]\ntoken_sha256 = \"{hash}\"\n");
    let plan = Plan::parse(&text).unwrap();
    assert!(!format!("{plan:?}").contains(&hash));
}

#[test]
fn what_is_written_otherwise_and_means_the_same_is_no_change() {
    let hash = |n: u32| format!("{n:064}");
    let (one, two) = (hash(1), hash(2));
    let before = format!(
        r#"
[[port]]
device = "net_null0"
[cores]
workers = [3]
delivery = [0, 1]
[spool]
dir = "/srv/spool"
bytes_max = "1GiB"
[ui]
hosts = ["a.example", "b.example"]
[api]
trusted_proxies = ["10.0.0.1/32", "10.1.0.0/16"]
[upload]
file_roots = ["/srv/a", "/srv/b"]
[[account]]
id = "a"
prefixes = ["192.0.2.0/24", "198.51.100.0/24"]
credential = [{{ token_sha256 = "{one}" }}, {{ token_sha256 = "{two}", role = "read" }}]
[[account]]
id = "b"
credential = [{{ token_sha256 = "{two}" }}]
"#
    );
    let after = format!(
        r#"
[[port]]
device = "net_null0"
queues = 1
[cores]
workers = [3]
delivery = [1, 0]
[spool]
dir = "/srv/spool/"
bytes_max = 1073741824
[blocks]
bytes_max = 268435456
[ui]
hosts = ["b.example", "a.example"]
[api]
trusted_proxies = ["10.1.0.0/16", "10.0.0.1/32"]
[upload]
file_roots = ["/srv/b", "/srv/a"]
[[account]]
id = "b"
credential = [{{ token_sha256 = "{two}" }}]
[[account]]
id = "a"
prefixes = ["198.51.100.0/24", "192.0.2.0/24"]
credential = [{{ role = "read", token_sha256 = "{two}" }}, {{ token_sha256 = "{one}" }}]
"#
    );
    let plan = |text: &str| Plan::parse(text).unwrap();
    assert_eq!(plan(&before).changes(&plan(&after)), Changes::default());
    // And what is the same set of words with another meaning is one.
    let other = after.replace("[1, 0]", "[1, 2]").replace("role = \"read\"", "role = \"write\"");
    let changes = plan(&before).changes(&plan(&other));
    assert_eq!(changes.fixed, ["cores.delivery"]);
    assert!(changes.live.contains(&"account.credential".to_owned()), "{changes:?}");
}
