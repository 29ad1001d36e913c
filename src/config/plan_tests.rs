//! From text to plan: the manual's example, and everything that is refused.

use super::*;
use crate::config::Problem;
use crate::limits::WORKERS_MAX;
use std::path::Path;

/// The keys that scripts rely on, all at once.
const EXAMPLE: &str = r#"
[host]
id   = "cap1"
colo = "ord02"
[dpdk]
eal = ["--no-pci", "--in-memory", "-m", "1024"]
[[port]]
device = "net_pcap0,rx_pcap=/path/mix.pcap,infinite_rx=1"
queues = 1
[cores]
workers = [1]
writers = [0]
[spool]
dir = "/var/lib/trawl/spool"
bytes_max = "200GiB"
segment_bytes = "256MiB"
[store]
path = "/var/lib/trawl/trawl.db"
[api]
listen = "127.0.0.1:8080"
[upload]
allow_file = true
[upload.s3]
endpoint = "http://127.0.0.1:9000/"
[[account]]
id = "023e105f4ecef8ad9ca31a8372d0c353"
prefixes = ["192.0.2.0/24", "2001:db8::/32"]
[[account.credential]]
email = "user@example.com"
key_sha256 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
[[account.credential]]
token_sha256 = "FFfefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedecebeae9e8e7e6e5e4e3e2e1e0"
role = "read"
"#;

#[test]
fn the_example_resolves() {
    insta::assert_debug_snapshot!(Plan::parse(EXAMPLE).unwrap());
}

#[test]
fn the_files_that_are_shipped_are_valid() {
    for text in [include_str!("../../config/trawl.toml"), include_str!("../../config/demo.toml")] {
        Plan::parse(text).unwrap();
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = r#"
[host]
id = "Cap 1"
colo = ""
[dpdk]
eal = [""]
[[port]]
queues = 65
mbufs = 1024
frame_bytes_max = 65536
[[port]]
device = "03:00.0"
[[port]]
device = "0000:03:00.0"
rx_descriptors = 3
[cores]
workers = [1, 1, 2, 9999]
writers = [2]
[blocks]
bytes_max = "1MiB"
hugepages = "maybe"
[spool]
bytes_max = "8MiB"
segment_bytes = "1MiB"
write = "fast"
fsync_interval_ms = 0
[capture]
captures_max = 65
packet_limit_max = 0
simple_packet_limit_max = 100001
simple_time_limit_seconds_max = 0
[upload]
part_bytes = "1MiB"
parts_in_flight = 0
[upload.s3]
endpoint = "s3://user:secret@host"
[api]
listen = "localhost"
[log]
level = "loud"
format = "xml"
[[account]]
id = "a b"
prefixes = ["10.1.2.3/8", "10.0.0.1", "x"]
[[account]]
id = "a"
[[account.credential]]
token_sha256 = "my secret token"
[[account.credential]]
email = "x"
[[account]]
id = "a"
[[account.credential]]
email = "not an address"
key_sha256 = "0"
role = "admin"
"#;
    let problems = Plan::parse(text).unwrap_err().to_string();
    assert!(!problems.contains("secret@") && !problems.contains("my secret"), "{problems}");
    insta::assert_snapshot!(problems);
}

#[test]
fn an_empty_file_lacks_only_a_port() {
    let problems = Plan::parse("").unwrap_err().0;
    assert_eq!(problems.iter().map(Problem::key).collect::<Vec<_>>(), [Some("port")]);
}

#[test]
fn a_key_of_the_wrong_type_is_not_reported_twice() {
    let problems = Plan::parse("[port]\ndevice = \"net_null0\"\n[cores]\nworkers = \"1\"\n").unwrap_err().0;
    assert_eq!(problems.iter().map(Problem::key).collect::<Vec<_>>(), [Some("cores.workers"), Some("port")]);
}

#[test]
fn more_workers_than_a_budget_tells_apart_are_refused() {
    let keys = |workers: usize| {
        let cores: Vec<String> = (2..2 + workers).map(|core| core.to_string()).collect();
        let text = format!(
            "[[port]]\ndevice = \"net_null0\"\n[blocks]\nbytes_max = \"64GiB\"\n[cores]\nworkers = [{}]\n",
            cores.join(", ")
        );
        let problems = Plan::parse(&text).err().map_or_else(Vec::new, |problems| problems.0);
        problems.iter().filter_map(Problem::key).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!keys(WORKERS_MAX).contains(&"cores.workers".to_owned()));
    assert!(keys(WORKERS_MAX + 1).contains(&"cores.workers".to_owned()));
}

#[test]
fn a_missing_file_names_the_flag() {
    let problems = Plan::load(Path::new("/nowhere/trawl.toml")).unwrap_err().to_string();
    assert!(problems.contains("/nowhere/trawl.toml") && problems.contains("--config"), "{problems}");
}

#[test]
fn pci_addresses_are_told_from_vdevs() {
    let address = |device: &str| {
        let plan = Plan::parse(&format!("[[port]]\ndevice = {device:?}\n")).unwrap();
        plan.ports[0].pci_address()
    };
    assert_eq!(address("0000:03:00.0").as_deref(), Some("0000:03:00.0"));
    assert_eq!(address("AF:00.1,mprq_en=1").as_deref(), Some("0000:af:00.1"));
    assert_eq!(address("net_pcap0,rx_pcap=/a:b.c"), None);
    assert_eq!(address("net_né0"), None);
}

#[test]
fn a_peer_and_an_account_have_their_share_of_the_connections_unless_it_is_said_otherwise() {
    let api = |text: &str| Plan::parse(&format!("[api]\n{text}\n[[port]]\ndevice = \"net_null0\"\n"));
    for (text, expected) in [
        ("", 128),
        ("connections_max = 64", 8),
        ("connections_max = 16", 4),
        ("connections_max = 2", 2),
        ("connections_max = 16\nconnections_per_peer_max = 1", 1),
    ] {
        assert_eq!(api(text).unwrap().api.connections_per_peer_max, expected, "{text}");
    }
    let refused = |text: &str| api(text).unwrap_err().to_string();
    assert!(
        refused("connections_max = 16\nconnections_per_peer_max = 17")
            .contains("connections_per_peer_max = 17")
    );
    let port = "[[port]]\ndevice = \"net_null0\"\n";
    let account = |id: u32| {
        format!("[[account]]\nid = \"a{id}\"\n[[account.credential]]\ntoken_sha256 = \"{:064}\"\n", 0)
    };
    for (accounts, text, expected) in [
        (1, "", 256),
        (2, "", 256),
        (20, "", 25),
        (1000, "", 4),
        (2, "connections_max = 2", 2),
        (2, "connections_per_account_max = 9", 9),
    ] {
        let accounts: String = (0..accounts).map(account).collect();
        let plan = Plan::parse(&format!("[api]\n{text}\n{port}{accounts}")).unwrap();
        assert_eq!(plan.api.connections_per_account_max, expected, "{text}");
    }
    let text = refused("connections_max = 16\nconnections_per_account_max = 17");
    assert!(text.contains("connections_per_account_max = 17"), "{text}");
    assert!(refused("trusted_proxies = [\"10.0.0.0/8\", \"10.1.2.3/8\"]").contains("api.trusted_proxies[1]"));
    assert!(refused("trusted_proxies = [\"proxy.example\"]").contains("api.trusted_proxies[0]"));
}

#[test]
fn a_ports_cores_are_those_of_workers_and_each_once() {
    let plan = |workers: &str| {
        let text = EXAMPLE.replace("queues = 1", &format!("queues = 2\nworkers = {workers}"));
        Plan::parse(&text.replace("workers = [1]", "workers = [1, 2, 3]"))
    };
    let dealt = plan("[3, 2]").unwrap().dealt();
    assert_eq!((dealt.cores, dealt.workers), (vec![2, 3], vec![0, 1]));
    for (workers, words) in [("[7]", "no worker runs there"), ("[2, 2]", "twice")] {
        let problems = plan(workers).unwrap_err().to_string();
        assert!(problems.contains("port[0].workers") && problems.contains(words), "{problems}");
    }
}

#[test]
fn a_config_without_a_core_for_workers_is_refused_in_words_and_panics_nowhere() {
    let problems = Plan::parse(&EXAMPLE.replace("workers = [1]", "workers = []")).unwrap_err().to_string();
    assert!(problems.contains("cores.workers") && problems.contains("at least one core"), "{problems}");
}

#[test]
fn a_spool_is_one_directory_or_several_that_lie_apart() {
    let with = |lines: &str| Plan::parse(&EXAMPLE.replace("dir = \"/var/lib/trawl/spool\"", lines));
    let dirs = |plan: Plan| plan.spool.dirs().map(Path::to_owned).collect::<Vec<_>>();
    assert_eq!(dirs(with("").unwrap()), [Path::new("/var/lib/trawl/spool")]);
    assert_eq!(dirs(with("dirs = [\"/a/spool\"]").unwrap()), [Path::new("/a/spool")]);
    let plan = with("dirs = [\"/b\", \"/a\", \"/aa\"]").unwrap();
    assert_eq!(plan.upload.stores.file_closed[2].dir, Path::new("/aa"));
    assert_eq!(dirs(plan), ["/b", "/a", "/aa"].map(Path::new));
    for (wrong, says) in [
        ("dir = \"/a\"\ndirs = [\"/b\"]", "remove spool.dir"),
        ("dirs = [\"/a\", \"/a\"]", "none lies in another"),
        ("dirs = [\"/a\", \"/b\", \"/a/b\"]", "spool.dirs[2]"),
    ] {
        let problems = with(wrong).unwrap_err().to_string();
        assert!(problems.contains(says), "{problems}");
    }
}
