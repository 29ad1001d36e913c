//! A fleet of real processes: three servers, two API nodes, four capture hosts in two data centers. What one node accepts every node
//! shows, all hosts are one capture, and of those that die none is missing in silence.

use crate::cluster::{Cluster, NEWEST, trawl};
use crate::host::{ACCOUNT, HOSTS, Node, Place, TOKEN, host_of};
use crate::skip::skip;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use trawl::job::Ledger;
use trawl::pcap::Reader;

/// The nodes of a fleet.
struct Nodes {
    apis: Vec<Node>,
    hosts: Vec<Node>,
    dir: PathBuf,
}

fn signing_key(dir: &Path, name: &str) -> String {
    trawl(&["fleet", "signing-key", dir.join(format!("{name}.pem")).to_str().unwrap()]).trim().to_owned()
}

impl Nodes {
    fn start(cluster: &Cluster) -> Self {
        let dir = cluster.dir().to_owned();
        let keys = ["api1", "api2"].map(|name| signing_key(&dir, name)).to_vec();
        let place = Place { dir: &dir, servers: cluster.urls(), keys };
        let mut hosts: Vec<Node> = (0..HOSTS.len()).map(|host| place.capture(host)).collect();
        let mut apis: Vec<Node> = ["api1", "api2"].map(|name| place.api(name)).into();
        hosts.iter_mut().chain(&mut apis).for_each(Node::until_ready);
        let nodes = Self { apis, hosts, dir };
        nodes.until_registered();
        nodes
    }

    /// Every host is in the registry, as `trawl fleet hosts` says.
    fn until_registered(&self) {
        let began = Instant::now();
        loop {
            let config = self.dir.join("of-api1/trawl.toml");
            let said = trawl(&["fleet", "hosts", "--json", "--config", config.to_str().unwrap()]);
            let hosts: Value = serde_json::from_str(&said).unwrap();
            let alive = hosts["hosts"].as_array().unwrap().iter().filter(|host| host["state"] == "alive");
            if alive.count() == HOSTS.len() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{said}");
        }
    }

    fn bucket(&self, name: &str) -> PathBuf {
        let bucket = self.dir.join(name);
        std::fs::create_dir_all(&bucket).unwrap();
        bucket
    }

    /// Starts a capture; says its id.
    #[track_caller]
    fn create(&self, api: usize, request: &Value) -> String {
        let answer = self.apis[api].ask("POST", "", &request.to_string());
        answer.result()["id"].as_str().unwrap().to_owned()
    }

    fn full(&self, bucket: &Path, colo: &str, seconds: u64) -> Value {
        json!({"system": "magic-transit", "type": "full", "time_limit": seconds, "colo_name": colo,
               "destination_conf": format!("file://{}", bucket.display())})
    }
}

fn simple(seconds: u64, packets: u64) -> Value {
    json!({"system": "magic-transit", "type": "simple", "time_limit": seconds, "packet_limit": packets})
}

/// Packets of files by host.
fn packets(files: &[PathBuf]) -> BTreeMap<&'static str, u64> {
    let mut found = BTreeMap::new();
    for file in files {
        let mut reader = Reader::open(file).unwrap();
        let mut last = 0;
        while let Some(record) = reader.next_record().unwrap() {
            assert!(record.ns >= last, "time goes back in {}", file.display());
            last = record.ns;
            *found.entry(HOSTS[host_of(record.data)].0).or_default() += 1;
        }
    }
    found
}

fn objects(bucket: &Path, id: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(bucket).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(&format!("pcap_{id}")) && name.ends_with(".pcap")
    };
    all.filter(is_one).collect()
}

/// A fleet's manifest, whose ledger is held to its equations and to the sum of its hosts'.
fn manifest(bucket: &Path, id: &str) -> Value {
    let json = std::fs::read(bucket.join(format!("pcap_{id}.json"))).unwrap();
    let manifest: Value = serde_json::from_slice(&json).unwrap();
    let ledger = |value: &Value| serde_json::from_value::<Ledger>(value.clone()).unwrap();
    let whole = ledger(&manifest["ledger"]);
    whole.check().unwrap();
    let hosts = manifest["hosts"].as_array().unwrap();
    let parts = hosts.iter().filter(|host| !host["ledger"].is_null()).map(|host| ledger(&host["ledger"]));
    assert_eq!(parts.fold(Ledger::default(), |sum, part| sum.plus(part)), whole, "{manifest}");
    manifest
}

fn verdicts(manifest: &Value) -> BTreeMap<&str, &str> {
    let hosts = manifest["hosts"].as_array().unwrap();
    hosts.iter().map(|host| (host["host"].as_str().unwrap(), host["verdict"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_of_processes_is_one_product_and_names_who_dies() {
    let Some(cluster) = Cluster::start(NEWEST).await else { return };
    let mut nodes = Nodes::start(&cluster);
    a_simple_capture_over_all_is_one_file_that_every_node_has(&nodes);
    a_full_capture_is_a_file_of_each_host_and_one_manifest(&nodes);
    a_host_that_is_drained_takes_nothing_new(&nodes, &cluster);
    a_host_that_is_killed_is_named_and_the_sums_are_right(&mut nodes);
    a_node_that_is_killed_is_followed_by_the_other(&mut nodes);
    cloudflare_s_sdk_finds_one_api_behind_two_nodes(&nodes);
    say_how_long_it_takes(&nodes);
    for node in nodes.hosts.into_iter().chain(nodes.apis) {
        node.finish();
    }
}

fn a_simple_capture_over_all_is_one_file_that_every_node_has(nodes: &Nodes) {
    let id = nodes.create(0, &simple(3, 600));
    // What one node accepted the other shows at once.
    let listed = nodes.apis[1].ask("GET", "", "").result();
    assert_eq!(listed[0]["id"], json!(id), "{listed}");
    let job = nodes.apis[1].ended(&id);
    assert_eq!(job["status"], "success", "{job}");
    let path = format!("/{id}/download");
    let ((head, one), (_, other)) = (nodes.apis[0].download(&path), nodes.apis[1].download(&path));
    assert!(head.starts_with("HTTP/1.1 200") && one == other, "{head}");
    let file = nodes.dir.join("simple.pcap");
    std::fs::write(&file, one).unwrap();
    let found = packets(&[file]);
    assert_eq!((found.len(), found.values().sum()), (4, 600), "{found:?}");
    // By their traffic, 1 : 2 : 4 : 8.
    assert!(found["cap4"] > 2 * found["cap1"], "{found:?}");
    let progress = nodes.apis[0].ask("GET", &format!("/{id}/progress"), "").result();
    let ledger: Ledger = serde_json::from_value(progress["ledger"].clone()).unwrap();
    ledger.check().unwrap();
    assert_eq!(ledger.captured, 600);
}

fn a_full_capture_is_a_file_of_each_host_and_one_manifest(nodes: &Nodes) {
    let bucket = nodes.bucket("full");
    let id = nodes.create(1, &nodes.full(&bucket, "ORD", 3));
    // Another node keeps to the account's one full capture.
    let refused = nodes.apis[0].ask("POST", "", &nodes.full(&bucket, "FRA", 3).to_string());
    assert_eq!(refused.status, 409, "{refused:?}");
    let job = nodes.apis[0].ended(&id);
    assert_eq!((&job["status"], &job["error_message"]), (&json!("success"), &Value::Null), "{job}");
    let found = packets(&objects(&bucket, &id));
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["cap1", "cap3"]);
    let manifest = manifest(&bucket, &id);
    assert_eq!(manifest["ledger"]["captured"].as_u64(), Some(found.values().sum()), "{manifest}");
    assert_eq!(verdicts(&manifest), BTreeMap::from([("cap1", "Delivered"), ("cap3", "Delivered")]));
    let said = trawl(&["verify", bucket.join(format!("pcap_{id}.json")).to_str().unwrap()]);
    assert!(said.contains("2 of 2 hosts"), "{said}");
    // One that lacks a packet is no longer what it says.
    let one = &objects(&bucket, &id)[0];
    std::fs::write(one, &std::fs::read(one).unwrap()[..200]).unwrap();
    let mut verify = Command::new(env!("CARGO_BIN_EXE_trawl"));
    let bad = verify.arg("verify").arg(bucket.join(format!("pcap_{id}.json"))).output().unwrap();
    assert!(!bad.status.success(), "{}", String::from_utf8_lossy(&bad.stdout));
}

fn a_host_that_is_drained_takes_nothing_new(nodes: &Nodes, cluster: &Cluster) {
    let (config, key) = (nodes.dir.join("of-api1/trawl.toml"), cluster.dir().join("ops.nk"));
    let run = |command: &str| {
        let (config, key) = (config.to_str().unwrap(), key.to_str().unwrap());
        trawl(&["fleet", command, "cap2", "--config", config, "--nkey-file", key, "--name", "ops"])
    };
    run("drain");
    let bucket = nodes.bucket("drained");
    let id = nodes.create(0, &nodes.full(&bucket, "fra01", 1));
    assert_eq!(nodes.apis[0].ended(&id)["status"], "success");
    assert_eq!(verdicts(&manifest(&bucket, &id)), BTreeMap::from([("cap4", "Delivered")]));
    run("undrain");
}

fn a_host_that_is_killed_is_named_and_the_sums_are_right(nodes: &mut Nodes) {
    let bucket = nodes.bucket("killed");
    let id = nodes.create(0, &nodes.full(&bucket, "fra", 5));
    let running = |job: &Value| job["status"] == "running";
    nodes.apis[1].until(&id, Duration::from_secs(20), running);
    std::thread::sleep(Duration::from_secs(1));
    nodes.hosts[1].kill();
    let job = nodes.apis[1].ended(&id);
    let message = job["error_message"].as_str().unwrap().to_owned();
    assert_eq!(job["status"], "success", "{job}");
    assert!(message.contains("1 of 2 hosts") && message.contains("cap2 (fra01) was lost"), "{message}");
    let of_fleet = manifest(&bucket, &id);
    assert_eq!(of_fleet["complete"], json!(false));
    assert_eq!(verdicts(&of_fleet), BTreeMap::from([("cap2", "Lost"), ("cap4", "Delivered")]));
    let found = packets(&objects(&bucket, &id));
    assert_eq!(Some(found["cap4"]), of_fleet["ledger"]["captured"].as_u64());
    let said = trawl(&["verify", bucket.join(format!("pcap_{id}.json")).to_str().unwrap()]);
    assert!(said.contains("1 of 2 hosts") && said.contains("cap2"), "{said}");
    // What it had on its disk comes later, under its own name.
    nodes.hosts[1].restart();
    nodes.hosts[1].until_ready();
    let began = Instant::now();
    while packets(&objects(&bucket, &id)).len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", nodes.hosts[1].log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn cloudflare_s_sdk_finds_one_api_behind_two_nodes(nodes: &Nodes) {
    let python = std::env::var("TRAWL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = Command::new(&python).args(["-c", "import cloudflare"]).output();
    if !import.is_ok_and(|output| output.status.success()) {
        return skip("cloudflare for Python", format!("{python} has no such package"));
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fleet/two_nodes.py");
    let bucket = format!("file://{}", nodes.bucket("sdk").display());
    let urls = [0, 1].map(|api| format!("http://{}/client/v4", nodes.apis[api].listen));
    let mut command = Command::new(python);
    command.arg(script).args(urls).args([ACCOUNT, TOKEN, &bucket]).env("NO_PROXY", "127.0.0.1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout.ends_with(b"DONE\n"), "{said}");
}

/// Until a create is answered, and from the end of a window to the file.
fn say_how_long_it_takes(nodes: &Nodes) {
    let mut creates = Vec::new();
    for at in 0..40 {
        let began = Instant::now();
        nodes.create(at % 2, &simple(1, 10));
        creates.push(began.elapsed());
    }
    creates.sort_unstable();
    let began = Instant::now();
    let id = nodes.create(0, &simple(2, 1000));
    nodes.apis[1].ended(&id);
    let file = began.elapsed().saturating_sub(Duration::from_secs(2));
    println!(
        "a create: median {} ms, most {} ms; from the end of the window to the file {} ms",
        creates[20].as_millis(),
        creates[39].as_millis(),
        file.as_millis()
    );
}

/// The API node that leads a capture, as logs say.
fn leader(nodes: &Nodes, id: &str) -> usize {
    let is_it = |line: &str| line.contains("this node leads a capture") && line.contains(id);
    let leads = |node: &Node| node.log().lines().any(is_it);
    nodes.apis.iter().position(leads).expect("somebody leads it")
}

fn a_node_that_is_killed_is_followed_by_the_other(nodes: &mut Nodes) {
    let bucket = nodes.bucket("lead");
    let id = nodes.create(0, &nodes.full(&bucket, "ord", 6));
    nodes.apis[1].until(&id, Duration::from_secs(20), |job| job["status"] == "running");
    let lead = leader(nodes, &id);
    nodes.apis[lead].kill();
    let began = Instant::now();
    let job = nodes.apis[1 - lead].ended(&id);
    println!("the other node ended it {} ms after the kill", began.elapsed().as_millis());
    assert_eq!((&job["status"], &job["error_message"]), (&json!("success"), &Value::Null), "{job}");
    let of_fleet = manifest(&bucket, &id);
    let found: u64 = packets(&objects(&bucket, &id)).values().sum();
    assert_eq!((of_fleet["ledger"]["captured"].as_u64(), &of_fleet["complete"]), (Some(found), &json!(true)));
    nodes.apis[lead].restart();
    nodes.apis[lead].until_ready();
    assert_eq!(nodes.apis[lead].ended(&id)["status"], "success");
}

#[test]
fn nodes_start_without_their_servers_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["api1", "cap1"] {
        trawl(&["fleet", "key", dir.path().join(format!("{name}.nk")).to_str().unwrap()]);
    }
    let keys = vec![signing_key(dir.path(), "api1")];
    let place = Place { dir: dir.path(), servers: vec!["nats://127.0.0.1:9".to_owned()], keys };
    let (mut api, mut host) = (place.api("api1"), place.capture(0));
    let (of_api, of_host) = (api.ready(), host.ready());
    assert_eq!((of_api.status, of_host.status), (503, 200), "{of_api:?} {of_host:?}");
    for said in [of_api, of_host] {
        let checks = said.body["checks"].as_array().unwrap().clone();
        let fleet = checks.iter().find(|check| check["name"] == "fleet").unwrap();
        assert!(fleet["reason"].as_str().unwrap().contains("cannot be reached"), "{fleet}");
    }
    let refused = api.ask("POST", "", &simple(1, 10).to_string());
    assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (503, &json!(1070)), "{refused:?}");
    let (head, _) = api.download("");
    assert!(head.starts_with("HTTP/1.1 503") && head.to_lowercase().contains("retry-after: 5"), "{head}");
    api.finish();
    host.finish();
}
