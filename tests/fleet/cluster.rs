//! Three real NATS servers on loopback, one cluster. Owns their configs, which `trawl fleet nats-config` makes the users of, their
//! start, their faults and their end.
//!
//! Invariant: nothing of them is left when the value is dropped.

use crate::inherit;
use crate::ports::free_ports;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trawl::bus::nats::Way;
use trawl::bus::nats::key::Key;

/// The oldest and the newest that trawl is tested with; `scripts/install-deps.sh` installs both.
pub const VERSIONS: [&str; 2] = ["2.12.8", "2.15.1"];
/// The newest.
pub const NEWEST: &str = VERSIONS[1];
/// Of the fleet in all tests.
pub const FLEET: &str = "prod";
/// Nodes of the list, with roles and data center.
const NODES: [(&str, &str, &str); 7] = [
    ("api1", "api", ""),
    ("api2", "api", ""),
    ("cap1", "capture", "ord02"),
    ("cap2", "capture", "fra01"),
    ("cap3", "capture", "ord02"),
    ("cap4", "capture", "fra01"),
    ("ops", "operator", ""),
];

struct Server {
    client_port: u16,
    monitor_port: u16,
    config: PathBuf,
    process: Child,
}

/// A running cluster.
pub struct Cluster {
    program: String,
    scheme: &'static str,
    servers: Vec<Server>,
    dir: TempDir,
}

/// Runs the real program, which must succeed.
pub fn trawl(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_trawl")).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

impl Cluster {
    /// Starts a cluster and makes the fleet's streams; none, with a line that says so, where the program is not installed.
    pub async fn start(version: &str) -> Option<Self> {
        let cluster = Self::start_empty(version).await?;
        cluster.init();
        Some(cluster)
    }

    /// The same without streams.
    pub async fn start_empty(version: &str) -> Option<Self> {
        Self::start_with(version, false).await
    }

    /// The same, with servers that speak TLS alone and want a certificate of each node, in `ca.pem`, `node.pem` and `node.key`.
    pub async fn start_tls(version: &str) -> Option<Self> {
        Self::start_with(version, true).await
    }

    async fn start_with(version: &str, has_tls: bool) -> Option<Self> {
        let program = format!("nats-server-{version}");
        if Command::new(&program).arg("--version").stdout(Stdio::null()).status().is_err() {
            crate::skip::skip("nats-server", format!("scripts/test.sh installs {program}"));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        write_users(dir.path());
        if has_tls {
            write_certificates(dir.path());
        }
        let routes = free_ports::<3>();
        let servers = (0..3).map(|number| {
            let [client_port, monitor_port] = free_ports();
            let config = write_config(dir.path(), number, (client_port, monitor_port), &routes, has_tls);
            let process = spawn(&program, &config);
            Server { client_port, monitor_port, config, process }
        });
        let servers = servers.collect();
        let scheme = if has_tls { "tls" } else { "nats" };
        let cluster = Self { program, scheme, servers, dir };
        cluster.wait_until_well().await;
        Some(cluster)
    }

    /// Where the cluster's files lie.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The client address of a server.
    pub fn address(&self, server: usize) -> String {
        format!("127.0.0.1:{}", self.servers[server].client_port)
    }

    pub fn urls(&self) -> Vec<String> {
        (0..3).map(|server| format!("{}://{}", self.scheme, self.address(server))).collect()
    }

    /// How a node of the list reaches all servers.
    pub fn way(&self, node: &str) -> Way {
        Way {
            fleet: FLEET.to_owned(),
            node: node.to_owned(),
            servers: self.urls(),
            nkey_file: Some(self.dir().join(format!("{node}.nk"))),
            ca_file: None,
            certificate: None,
            request_timeout: Duration::from_secs(2),
            is_capture: node.starts_with("cap"),
        }
    }

    /// The config of a node for the real program.
    pub fn node_config(&self, node: &str) -> PathBuf {
        let path = self.dir().join(format!("{node}.toml"));
        let text = format!(
            "[host]\nid = \"{node}\"\n[fleet]\nname = \"{FLEET}\"\nroles = [\"api\"]\nsigning_key_file = {:?}\n[fleet.nats]\nservers = {:?}\nnkey_file = {:?}\n",
            self.dir().join(format!("{node}.pem")),
            self.urls(),
            self.dir().join(format!("{node}.nk"))
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Makes the streams with the real program, as an operator; says what it said.
    pub fn init(&self) -> Value {
        let (config, key) = (self.node_config("api1"), self.dir().join("ops.nk"));
        let said = trawl(&[
            "fleet",
            "init",
            "--json",
            "--config",
            config.to_str().unwrap(),
            "--nkey-file",
            key.to_str().unwrap(),
            "--name",
            "ops",
        ]);
        serde_json::from_str(&said).unwrap()
    }

    /// A client that may do everything, beside the fleet's nodes.
    pub async fn admin(&self) -> async_nats::Client {
        let seed = std::fs::read_to_string(self.dir().join("admin.nk")).unwrap();
        let options =
            async_nats::ConnectOptions::with_nkey(seed.trim().to_owned()).retry_on_initial_connect();
        options.connect(self.urls()).await.unwrap()
    }

    /// The number of the server that leads a stream.
    pub async fn leader(&self, admin: &async_nats::Client, stream: &str) -> usize {
        for _ in 0..100 {
            let info = api(admin, &format!("STREAM.INFO.{stream}"), "").await;
            if let Some(number) = info["cluster"]["leader"].as_str().and_then(|name| name.strip_prefix('n')) {
                return number.parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{stream} has no leader");
    }

    /// Kills a server at once, without a chance to write anything.
    pub fn kill(&mut self, server: usize) {
        self.servers[server].process.kill().unwrap();
        self.servers[server].process.wait().unwrap();
    }

    /// Starts a server that was killed, on its old files.
    pub fn restart(&mut self, server: usize) {
        self.servers[server].process = spawn(&self.program, &self.servers[server].config);
    }

    /// Stops or continues a server.
    pub fn signal(&self, server: usize, signal: Signal) {
        let pid = Pid::from_child(&self.servers[server].process);
        kill_process(pid, signal).unwrap();
    }

    /// Waits until every server says that it and its streams are well.
    pub async fn wait_until_well(&self) {
        let began = Instant::now();
        let is_well =
            |server: &Server| http(server.monitor_port, "/healthz").is_ok_and(|body| body.contains("\"ok\""));
        while !self.servers.iter().all(is_well) {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the servers are not well: see {}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn logs(&self) -> String {
        let read = |number: usize| {
            std::fs::read_to_string(self.dir().join(format!("n{number}.log"))).unwrap_or_default()
        };
        (0..3).map(|number| format!("--- n{number}\n{}", read(number))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.process.kill();
            let _ = server.process.wait();
        }
    }
}

/// One request of JetStream's API; null if nobody answers.
pub async fn api(client: &async_nats::Client, what: &str, question: &str) -> Value {
    let answer = client.request(format!("$JS.API.{what}"), question.to_owned().into()).await;
    answer.map_or(Value::Null, |answer| serde_json::from_slice(&answer.payload).unwrap_or_default())
}

/// A key for each node, and the users that the real program makes of them. One more may do everything: the tests themselves.
fn write_users(dir: &Path) {
    let mut list = format!("fleet = \"{FLEET}\"\n");
    for (name, role, colo) in NODES {
        let file = dir.join(format!("{name}.nk"));
        let public = trawl(&["fleet", "key", file.to_str().unwrap()]);
        list += &format!(
            "[[node]]\nname = \"{name}\"\nroles = [\"{role}\"]\ncolo = \"{colo}\"\nnkey = \"{}\"\n",
            public.trim()
        );
    }
    let nodes = dir.join("nodes.toml");
    std::fs::write(&nodes, list).unwrap();
    let users = trawl(&["fleet", "nats-config", nodes.to_str().unwrap()]);
    let admin = Key::make(&dir.join("admin.nk")).unwrap();
    let users =
        users.replacen("\"users\": [", &format!("\"users\": [{{\"nkey\": \"{}\"}},", admin.public()), 1);
    assert!(users.contains(admin.public()));
    std::fs::write(dir.join("users.conf"), users).unwrap();
}

/// An authority, and what it vouches for: the servers' address, and a node.
fn write_certificates(dir: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    for (name, subject) in [("server", "127.0.0.1"), ("node", "node")] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![subject.to_owned()]).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &authority).unwrap().pem())
            .unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn write_config(
    dir: &Path,
    number: usize,
    (client, monitor): (u16, u16),
    routes: &[u16; 3],
    has_tls: bool,
) -> PathBuf {
    let all: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
    let dir_shown = dir.display();
    let tls = format!(
        "tls {{ cert_file: \"{dir_shown}/server.pem\", key_file: \"{dir_shown}/server.key\", \
         ca_file: \"{dir_shown}/ca.pem\", verify: true }}\n"
    );
    let text = format!(
        "server_name: n{number}\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
         log_file: \"{dir_shown}/n{number}.log\"\n{}\
         jetstream {{ store_dir: \"{dir_shown}/n{number}\", sync_interval: always, max_file_store: 64GB }}\n\
         cluster {{ name: test, listen: \"127.0.0.1:{}\", routes: [{}] }}\n\
         include users.conf\n",
        if has_tls { &tls } else { "" },
        routes[number],
        all.join(", "),
    );
    let path = dir.join(format!("n{number}.conf"));
    std::fs::write(&path, text).unwrap();
    path
}

fn spawn(program: &str, config: &Path) -> Child {
    let mut command = inherit::program(program);
    command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn http(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
