//! Nodes of a fleet as processes of the real program: API nodes without ports, and capture hosts on software devices, each in a folder
//! of its own. Owns their configs, their start, their faults and their end.
//!
//! Invariant: nothing of them is left when the value is dropped.

use crate::http::{self, Answer};
use crate::inherit;
use crate::ports::free_address;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

pub const ACCOUNT: &str = "acme";
pub const TOKEN: &str = "of-the-fleet";
/// Hosts with their data centers, and the frames that each gets a second.
pub const HOSTS: [(&str, &str, u32); 4] =
    [("cap1", "ord02", 400), ("cap2", "fra01", 800), ("cap3", "ord02", 1600), ("cap4", "fra01", 3200)];
/// How long a silent host is waited for.
const LATE_SECONDS: u64 = 5;
const SOON: Duration = Duration::from_secs(60);

/// What all nodes of a test's fleet share.
pub struct Place<'a> {
    pub dir: &'a Path,
    pub servers: Vec<String>,
    /// Public keys of API nodes.
    pub keys: Vec<String>,
}

/// A process.
pub struct Node {
    pub name: String,
    /// Where the API is served; by a capture host, nothing.
    pub listen: SocketAddr,
    observe: SocketAddr,
    dir: PathBuf,
    process: Child,
}

/// A frame of a host: its source address says whose.
fn frame(host: usize, number: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let payload = 40 + host;
    let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    let [high, low] = length(20 + 8 + payload);
    let host = u8::try_from(host + 1).unwrap();
    frame.extend([0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, host, 198, 51, 100, 1]);
    let [high, low] = length(8 + payload);
    frame.extend([0x12, 0x34, 0x12, 0xb5, high, low, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame.resize(14 + 20 + 8 + payload, 7);
    frame
}

/// Which host a frame is of.
pub fn host_of(frame: &[u8]) -> usize {
    usize::from(frame[29]) - 1
}

fn frames(path: &Path, host: usize) {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1]);
    for number in 0..4096 {
        let frame = frame(host, number);
        let length = u32::try_from(frame.len()).unwrap();
        file.extend(words(&[1_700_000_000, 0, length, length]));
        file.extend(frame);
    }
    std::fs::write(path, file).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

impl Place<'_> {
    fn common(&self, name: &str, dir: &Path, (listen, observe): (SocketAddr, SocketAddr)) -> String {
        format!(
            "[store]\npath = \"{dir}/trawl.db\"\n[api]\nlisten = \"{listen}\"\n[observe]\nlisten = \"{observe}\"\n\
             [capture]\nsimple_interval_seconds = 0\n[upload]\nallow_file = true\nrequire_validation = false\n\
             [[account]]\nid = \"{ACCOUNT}\"\n[[account.credential]]\ntoken_sha256 = \"{token}\"\n\
             [fleet.nats]\nservers = {servers:?}\nnkey_file = \"{shared}/{name}.nk\"\n",
            dir = dir.display(),
            token = hex(&Sha256::digest(TOKEN)),
            servers = self.servers,
            shared = self.dir.display(),
        )
    }

    /// A node that serves the API.
    pub fn api(&self, name: &str) -> Node {
        let key = self.dir.join(format!("{name}.pem"));
        let fleet = format!(
            "[host]\nid = \"{name}\"\n[fleet]\nname = \"prod\"\nroles = [\"api\"]\nsigning_key_file = {key:?}\n\
             late_seconds = {LATE_SECONDS}\n"
        );
        self.start(name, &fleet)
    }

    /// A capture host of [`HOSTS`].
    pub fn capture(&self, host: usize) -> Node {
        let (name, colo, rate) = HOSTS[host];
        let dir = self.dir.join(format!("of-{name}"));
        std::fs::create_dir_all(dir.join("spool")).unwrap();
        frames(&dir.join("frames.pcap"), host);
        let cores = core_affinity::get_core_ids().unwrap();
        let text = format!(
            "[host]\nid = \"{name}\"\ncolo = \"{colo}\"\n[fleet]\nname = \"prod\"\nroles = [\"capture\"]\n\
             assignment_keys = {keys:?}\nlate_seconds = {LATE_SECONDS}\n\
             [dpdk]\neal = [\"--no-pci\", \"--in-memory\", \"--no-huge\", \"-m\", \"128\"]\n\
             [[port]]\ndevice = \"net_pcap0,rx_pcap={dir}/frames.pcap,infinite_rx=1\"\npace_pps = {rate}\n\
             [cores]\nworkers = [{worker}]\nwriters = [{writer}]\nwhen_idle = \"sleep\"\n\
             [blocks]\nbytes_max = \"16MiB\"\nhugepages = \"never\"\n\
             [spool]\ndir = \"{dir}/spool\"\nbytes_max = \"256MiB\"\nsegment_bytes = \"8MiB\"\npool_bytes = \"16MiB\"\n\
             flush_interval_ms = 50\nfsync_interval_ms = 50\n",
            keys = self.keys,
            dir = dir.display(),
            worker = cores[1].id,
            writer = cores[0].id,
        );
        self.start(name, &text)
    }

    fn start(&self, name: &str, text: &str) -> Node {
        let dir = self.dir.join(format!("of-{name}"));
        std::fs::create_dir_all(&dir).unwrap();
        let (listen, observe) = (free_address(), free_address());
        let config = dir.join("trawl.toml");
        std::fs::write(&config, text.to_owned() + &self.common(name, &dir, (listen, observe))).unwrap();
        let process = spawn(&dir);
        Node { name: name.to_owned(), listen, observe, dir, process }
    }
}

fn spawn(dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = inherit::program(env!("CARGO_BIN_EXE_trawl"));
    command.args(["serve", "--config"]).arg(dir.join("trawl.toml"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

impl Node {
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// What `/readyz` says, once the node listens.
    #[track_caller]
    pub fn ready(&mut self) -> Answer {
        let began = Instant::now();
        loop {
            if let Ok(answer) = http::ask(self.observe, "GET", "/readyz", &[], &[]) {
                return answer;
            }
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("{} ended with {status}: {}", self.name, self.log());
            }
            assert!(began.elapsed() < SOON, "{} does not answer: {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it is ready.
    #[track_caller]
    pub fn until_ready(&mut self) {
        let began = Instant::now();
        loop {
            let answer = self.ready();
            let fleet =
                answer.body["checks"].as_array().unwrap().iter().find(|check| check["name"] == "fleet");
            if answer.status == 200 && fleet.unwrap().get("reason").is_none() {
                return;
            }
            assert!(began.elapsed() < SOON, "{} is not ready: {answer:?}", self.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One request of the account.
    pub fn try_ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let path = format!("/client/v4/accounts/{ACCOUNT}/pcaps{path}");
        let token = format!("Bearer {TOKEN}");
        http::ask(self.listen, method, &path, &[("Authorization", &token)], body.as_bytes())
    }

    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.try_ask(method, path, body);
        answer.unwrap_or_else(|error| panic!("{method} {path} of {}: {error}: {}", self.name, self.log()))
    }

    /// The head and the bytes of a file.
    pub fn download(&self, path: &str) -> (String, Vec<u8>) {
        use std::io::{Read as _, Write as _};
        let mut stream = TcpStream::connect(self.listen).unwrap();
        let path = format!("/client/v4/accounts/{ACCOUNT}/pcaps{path}");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n",
            self.listen
        )
        .unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes.split_off(end + 4))
    }

    /// A capture as this node shows it, once it is as wanted.
    #[track_caller]
    pub fn until(&self, id: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.ask("GET", &format!("/{id}"), "");
            if answer.status == 200 && wanted(&answer.body["result"]) {
                return answer.body["result"].clone();
            }
            assert!(began.elapsed() < limit, "{}: {answer:?}: {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[track_caller]
    pub fn ended(&self, id: &str) -> Value {
        self.until(id, Duration::from_secs(90), |job| {
            ["success", "failed"].iter().any(|end| job["status"] == *end)
        })
    }

    /// At once, without a chance to write anything.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// A new process in the same folder.
    pub fn restart(&mut self) {
        self.process = spawn(&self.dir);
    }

    /// Ends it as an operator does.
    #[track_caller]
    pub fn finish(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let began = Instant::now();
        while began.elapsed() < SOON {
            if let Some(status) = self.process.try_wait().unwrap() {
                let log = self.log();
                assert!(
                    status.success() && !log.contains("panicked"),
                    "{} ended with {status}: {log}",
                    self.name
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} does not end: {}", self.name, self.log());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.log());
        }
    }
}
