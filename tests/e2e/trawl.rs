//! A running `trawl serve` in a folder of its own. Owns its config, its start, its signals and its end.
//!
//! Invariant: nothing of it is left when the value is dropped, and no wait is without a bound.

use crate::frames::real_pcap;
use crate::http::{self, Answer};
use crate::inherit;
use ::trawl::job::Progress;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const ACCOUNT: &str = "023e105f4ecef8ad9ca31a8372d0c353";
pub const TOKEN: &str = "end-to-end";
/// Of the same account, as on Cloudflare's documentation page.
pub const EMAIL: &str = "user@example.com";
/// See [`EMAIL`].
pub const KEY: &str = "00000000000";
pub const OTHER_ACCOUNT: &str = "b23e105f4ecef8ad9ca31a8372d0c353";
pub const OTHER_TOKEN: &str = "another-customer";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What differs from test to test.
pub struct Setup {
    pub device: String,
    pub queues: u16,
    /// Frames a second that the port gives at most; as many as it has if 0.
    pub pace_pps: u64,
    pub blocks_bytes: &'static str,
    pub spool_bytes_max: &'static str,
    /// More of `[spool]`.
    pub spool: &'static str,
    pub segment_bytes: &'static str,
    pub write: &'static str,
    /// Instead of a folder beside the others, which goes with them.
    pub spool_dir: Option<PathBuf>,
    /// A second directory of the spool; a relative one is below the folder.
    pub second_spool: Option<PathBuf>,
    /// Whether a bucket must be proven before a capture goes there.
    pub require_validation: bool,
    /// Between two simple captures of one account.
    pub simple_interval_seconds: u64,
    /// More of `[capture]`.
    pub capture: &'static str,
    /// Of one address for one account, before it has to wait.
    pub failed_authentications_max: u32,
    /// What mapped writes fill at start.
    pub pool_bytes: &'static str,
    /// More lines of `[upload]`.
    pub upload: &'static str,
    /// For the whole of one request.
    pub request_timeout_seconds: u32,
    /// Whether it has a key that encrypts buckets' access keys.
    pub key_file: bool,
    /// For `[upload.r2]`, which is off without.
    pub r2_endpoint: Option<String>,
    /// One in so many packets goes into the history; there is none without.
    pub history_sample: Option<u32>,
    /// Of [`ACCOUNT`], in TOML.
    pub prefixes: &'static str,
    /// For `[upload.s3]`.
    pub endpoint: Option<String>,
    /// Of the process, beside the test's own.
    pub environment: Vec<(String, String)>,
    /// More of the config.
    pub more: String,
}

impl Setup {
    /// The recorded frames, again and again, on one queue.
    pub fn replay() -> Self {
        Self::of_pcaps(&[&real_pcap()])
    }

    /// One queue for each file, each played again and again.
    pub fn of_pcaps(files: &[&Path]) -> Self {
        let mut device = "net_pcap0".to_owned();
        for file in files {
            write!(device, ",rx_pcap={}", file.display()).unwrap();
        }
        device.push_str(",infinite_rx=1");
        Self {
            device,
            queues: files.len().try_into().unwrap(),
            pace_pps: 0,
            blocks_bytes: "64MiB",
            spool_bytes_max: "1GiB",
            spool: "",
            segment_bytes: "64MiB",
            write: "auto",
            spool_dir: None,
            second_spool: None,
            require_validation: false,
            simple_interval_seconds: 0,
            capture: "",
            failed_authentications_max: 10,
            pool_bytes: "256MiB",
            upload: "",
            request_timeout_seconds: 30,
            key_file: false,
            r2_endpoint: None,
            history_sample: None,
            prefixes: "[]",
            endpoint: None,
            environment: Vec::new(),
            more: String::new(),
        }
    }

    /// The whole config file.
    pub fn config(&self, dir: &Path, listen: SocketAddr) -> String {
        let mut text = self.data_plane(dir) + &self.control(dir, listen);
        if let Some(endpoint) = &self.r2_endpoint {
            write!(text, "[upload.r2]\nallow = true\nendpoint = \"{endpoint}\"\n").unwrap();
        }
        if let Some(sample) = self.history_sample {
            write!(text, "[history]\nenabled = true\nsample = {sample}\nsegment_seconds = 1\n").unwrap();
        }
        if let Some(endpoint) = &self.endpoint {
            write!(text, "[upload.s3]\nendpoint = \"{endpoint}\"\n").unwrap();
        }
        text + &self.more
    }

    fn data_plane(&self, dir: &Path) -> String {
        let spool = self.spool_dir.clone().unwrap_or_else(|| dir.join("spool"));
        let [writer, worker] = two_cores();
        format!(
            r#"
[host]
id = "test1"
colo = "ord02"
[dpdk]
eal = ["--no-pci", "--in-memory", "--no-huge", "-m", "256"]
[[port]]
device = "{device}"
queues = {queues}
pace_pps = {pace_pps}
[cores]
workers = [{worker}]
writers = [{writer}]
[blocks]
bytes_max = "{blocks_bytes}"
hugepages = "never"
[spool]
{dirs}
bytes_max = "{spool_bytes_max}"
{more}
segment_bytes = "{segment_bytes}"
write = "{write}"
pool_bytes = "{pool_bytes}"
"#,
            device = self.device,
            queues = self.queues,
            pace_pps = self.pace_pps,
            blocks_bytes = self.blocks_bytes,
            dirs = match &self.second_spool {
                Some(second) => format!("dirs = [{spool:?}, {:?}]", dir.join(second)),
                None => format!("dir = {spool:?}"),
            },
            spool_bytes_max = self.spool_bytes_max,
            more = self.spool,
            segment_bytes = self.segment_bytes,
            write = self.write,
            pool_bytes = self.pool_bytes,
        )
    }

    fn control(&self, dir: &Path, listen: SocketAddr) -> String {
        let dir = dir.display();
        format!(
            r#"
[capture]
simple_interval_seconds = {interval}
{capture}
[store]
path = "{dir}/trawl.db"
{key_file}
[api]
listen = "{listen}"
failed_authentications_max = {failures}
request_timeout_seconds = {timeout}
[[account]]
id = "{ACCOUNT}"
prefixes = {prefixes}
[[account.credential]]
token_sha256 = "{token}"
[[account.credential]]
email = "{EMAIL}"
key_sha256 = "{key}"
[[account]]
id = "{OTHER_ACCOUNT}"
[[account.credential]]
token_sha256 = "{other}"
[upload]
allow_file = true
require_validation = {validation}
{upload}
"#,
            interval = self.simple_interval_seconds,
            capture = self.capture,
            key_file = if self.key_file { format!("key_file = \"{dir}/store.key\"") } else { String::new() },
            failures = self.failed_authentications_max,
            timeout = self.request_timeout_seconds,
            prefixes = self.prefixes,
            token = hex(&Sha256::digest(TOKEN)),
            key = hex(&Sha256::digest(KEY)),
            other = hex(&Sha256::digest(OTHER_TOKEN)),
            validation = self.require_validation,
            upload = self.upload,
        )
    }

    /// Starts it below another program, which runs it with its own arguments behind those given here, and waits until the API
    /// answers.
    #[track_caller]
    pub fn start_with_program(self, program: &str, arguments: &[&str]) -> Trawl {
        let (dir, listen) = self.folder(|config, _| config);
        let mut command = inherit::program(program);
        command.args(arguments).arg(env!("CARGO_BIN_EXE_trawl")).arg("serve").env("TMPDIR", dir.path());
        let process = spawn(command, dir.path(), &self.environment);
        let second = self.second_spool.map(|second| dir.path().join(second));
        let spool = self.spool_dir.unwrap_or_else(|| dir.path().join("spool"));
        let mut trawl = Trawl { dir, spool, second, listen, process, environment: self.environment };
        trawl.await_answer();
        trawl
    }

    /// Starts it and waits until the API answers.
    #[track_caller]
    pub fn start(self) -> Trawl {
        self.start_with(|config, _| config)
    }

    /// The same with a config that the test has changed.
    #[track_caller]
    pub fn start_with(self, change: impl FnOnce(String, &Path) -> String) -> Trawl {
        let mut trawl = self.launch(change);
        trawl.await_answer();
        trawl
    }

    /// The same without waiting.
    pub fn launch(self, change: impl FnOnce(String, &Path) -> String) -> Trawl {
        let (dir, listen) = self.folder(change);
        let process = launch(dir.path(), &self.environment);
        let second = self.second_spool.map(|second| dir.path().join(second));
        let spool = self.spool_dir.unwrap_or_else(|| dir.path().join("spool"));
        Trawl { dir, spool, second, listen, process, environment: self.environment }
    }

    /// What `trawl check` says of a config, whether `trawl serve` then answers, and what both print.
    #[track_caller]
    pub fn judged(self, change: impl FnOnce(String, &Path) -> String) -> (bool, bool, String) {
        let (dir, listen) = self.folder(change);
        let mut check = Command::new("timeout");
        check.args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_trawl"), "check", "--config"]);
        let checked =
            check.arg(dir.path().join("trawl.toml")).envs(self.environment.iter().cloned()).output();
        let checked = checked.unwrap();
        let process = launch(dir.path(), &self.environment);
        let (spool, second) = (dir.path().join("spool"), None);
        let mut trawl = Trawl { dir, spool, second, listen, process, environment: self.environment };
        let deadline = Instant::now() + START_TIMEOUT;
        let serves = loop {
            if let Some(status) = trawl.process.try_wait().unwrap() {
                assert_eq!(status.code(), Some(1), "{}", trawl.log());
                break false;
            }
            // A host whose API speaks TLS or listens elsewhere is told by its log.
            if trawl.log().contains(" ready ") {
                break true;
            }
            assert!(Instant::now() < deadline, "neither ready nor ended: {}", trawl.log());
            std::thread::sleep(POLL);
        };
        let printed = String::from_utf8_lossy(&checked.stdout).into_owned() + &trawl.log();
        (checked.status.success(), serves, printed)
    }

    /// A folder with the config and what it names, and the API's address.
    fn folder(&self, change: impl FnOnce(String, &Path) -> String) -> (TempDir, SocketAddr) {
        let dir = tempfile::tempdir().unwrap();
        let listen = free_address();
        for name in ["spool", "bucket"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let config = change(self.config(dir.path(), listen), dir.path());
        let config_file = dir.path().join("trawl.toml");
        std::fs::write(&config_file, config).unwrap();
        std::fs::set_permissions(&config_file, Permissions::from_mode(0o600)).unwrap();
        let key_file = dir.path().join("store.key");
        std::fs::write(&key_file, [7; 32]).unwrap();
        std::fs::set_permissions(&key_file, Permissions::from_mode(0o600)).unwrap();
        (dir, listen)
    }
}

/// Starts the process; its log goes on in the same file.
fn launch(dir: &Path, environment: &[(String, String)]) -> Child {
    let mut command = inherit::program(env!("CARGO_BIN_EXE_trawl"));
    command.arg("serve");
    spawn(command, dir, environment)
}

fn spawn(mut command: Command, dir: &Path, environment: &[(String, String)]) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    command
        .arg("--config")
        .arg(dir.join("trawl.toml"))
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A running server.
pub struct Trawl {
    dir: TempDir,
    spool: PathBuf,
    /// See [`Setup::second_spool`].
    second: Option<PathBuf>,
    listen: SocketAddr,
    process: Child,
    environment: Vec<(String, String)>,
}

impl Trawl {
    #[track_caller]
    pub fn await_answer(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.try_ask("GET", "", &[]).is_err() {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("trawl ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "trawl does not answer: {}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// `kill -9`; nothing runs when it returns.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGSTOP; when it returns every thread stands.
    #[track_caller]
    pub fn halt(&self) {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + END_TIMEOUT;
        let stands = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat"));
            // A thread that has ended in the meantime stands too.
            stat.map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
        };
        let tasks = || std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        while !tasks().all(stands) {
            assert!(Instant::now() < deadline, "it does not stand");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `kill -9` in a moment in which a segment of that capture is open; nothing runs when it returns.
    #[track_caller]
    pub fn kill_with_an_open_segment(&mut self, id: &str) {
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            self.halt();
            let mut names =
                std::fs::read_dir(self.spool.join(id)).unwrap().map(|entry| entry.unwrap().file_name());
            if names.any(|name| name.to_string_lossy().ends_with(".open")) {
                return self.kill();
            }
            self.signal(Signal::CONT);
            assert!(Instant::now() < deadline, "no segment is open: {}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A new process in the same folder, which is not waited for.
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// The same with more arguments.
    pub fn launch_with(&mut self, arguments: &[&str]) {
        let mut command = inherit::program(env!("CARGO_BIN_EXE_trawl"));
        command.arg("serve").args(arguments);
        self.process = spawn(command, self.dir.path(), &self.environment);
    }

    /// A new process in the same folder, once the last one has ended.
    pub fn restart(&mut self) {
        self.launch();
        self.await_answer();
    }

    /// `kill -9`, and a new process in the same folder.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    pub fn try_ask(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        let path = format!("/client/v4/accounts/{ACCOUNT}/pcaps{path}");
        let token = format!("Bearer {TOKEN}");
        self.send(method, &path, &[("Authorization", &token)], body)
    }

    /// One request. Whatever it is about: no answer tells a path of the host or a secret.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let answer = http::ask(self.listen, method, path, headers, body)?;
        let said = answer.body.to_string();
        let of_host = ["trawl.db", "trawl.toml", "store.key", "log"].map(|name| self.dir.path().join(name));
        for hidden in of_host.iter().chain([&self.spool]).chain(&self.second) {
            let hidden = hidden.to_str().unwrap();
            // The customer's own words may come back.
            let is_asked = String::from_utf8_lossy(body).contains(hidden);
            assert!(is_asked || !said.contains(hidden), "{method} {path} tells {hidden}: {said}");
        }
        let hashes = [TOKEN, OTHER_TOKEN, KEY].map(|secret| hex(&Sha256::digest(secret)));
        let is_told = |secret: &str| said.contains(secret);
        let tells = [TOKEN, OTHER_TOKEN].into_iter().any(is_told) || hashes.iter().any(|hash| is_told(hash));
        assert!(!tells, "{method} {path} tells a credential: {said}");
        Ok(answer)
    }

    /// One request below `/accounts/{account}/pcaps`.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.try_ask(method, path, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}: {}", self.log()))
    }

    /// The same without credentials or account, as a stranger.
    pub fn ask_as(&self, headers: &[(&str, &str)], path: &str) -> Answer {
        self.send("GET", path, headers, &[]).unwrap()
    }

    /// A valid request for a full capture of 60 s into the bucket folder; change what the test is about.
    pub fn request(&self, filter: Value) -> Value {
        json!({
            "system": "magic-transit", "type": "full", "time_limit": 60, "colo_name": "ord02",
            "destination_conf": format!("file://{}", self.bucket().display()), "filter_v1": filter,
        })
    }

    /// Starts a capture; gives its id.
    #[track_caller]
    pub fn create(&self, request: &Value) -> String {
        let result = self.ask("POST", "", request.to_string().as_bytes()).result();
        result["id"].as_str().unwrap().to_owned()
    }

    /// The same for the other account.
    #[track_caller]
    pub fn ask_as_other(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let path = format!("/client/v4/accounts/{OTHER_ACCOUNT}/pcaps{path}");
        let token = format!("Bearer {OTHER_TOKEN}");
        self.send(method, &path, &[("Authorization", &token)], body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}: {}", self.log()))
    }

    /// As [`Trawl::progress`], of the other account's capture.
    #[track_caller]
    pub fn progress_of_other(&self, id: &str) -> Progress {
        let result = self.ask_as_other("GET", &format!("/{id}/progress"), &[]).result();
        let progress: Progress = serde_json::from_value(result).unwrap();
        progress.ledger.check().unwrap();
        progress
    }

    /// One reading of a capture, held to the ledger's equations.
    #[track_caller]
    pub fn progress(&self, id: &str) -> Progress {
        let result = self.ask("GET", &format!("/{id}/progress"), &[]).result();
        let progress: Progress = serde_json::from_value(result).unwrap();
        progress.ledger.check().unwrap();
        progress
    }

    /// Reads a capture until `done` says so.
    #[track_caller]
    pub fn until(&self, id: &str, limit: Duration, mut done: impl FnMut(&Progress) -> bool) -> Progress {
        let deadline = Instant::now() + limit;
        loop {
            let progress = self.progress(id);
            if done(&progress) {
                return progress;
            }
            assert!(Instant::now() < deadline, "still {progress:?}: {}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Whether an open segment of the capture has bytes on the disk that a recovery counts: those that its `.len` file speaks
    /// of.
    pub fn has_written(&self, id: &str) -> bool {
        let files = std::fs::read_dir(self.spool().join(id)).into_iter().flatten().flatten();
        let mut lengths =
            files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "len"));
        lengths.any(|path| {
            std::fs::read(path).is_ok_and(|bytes| bytes.get(40..48).is_some_and(|written| written != [0; 8]))
        })
    }

    /// Waits until nothing more will happen to a capture.
    #[track_caller]
    pub fn ended(&self, id: &str) -> Progress {
        self.until(id, Duration::from_secs(90), |progress| progress.status.ended())
    }

    /// Where the API is served.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// `http://address`.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub fn bucket(&self) -> PathBuf {
        self.dir.path().join("bucket")
    }

    /// The folder that holds its log, database and spool.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Its spool's directories.
    pub fn spools(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.spool).chain(&self.second).map(PathBuf::as_path)
    }

    pub fn spool(&self) -> PathBuf {
        self.spool.clone()
    }

    /// The thread of that name.
    pub fn thread(&self, name: &str) -> u32 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let mut ids = threads.map(|thread| thread.unwrap().path());
        let found =
            ids.find(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name));
        found
            .and_then(|path| path.file_name()?.to_str()?.parse().ok())
            .unwrap_or_else(|| panic!("no thread {name}"))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Waits until its log has these words.
    #[track_caller]
    pub fn until_log(&self, words: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.log().contains(words) {
            assert!(Instant::now() < deadline, "no word of {words:?}: {}", self.log());
            std::thread::sleep(POLL);
        }
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("trawl.toml")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for its end, at most `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "trawl does not end: {}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Ends it as an operator does: it must exit with 0 and must not have panicked.
    #[track_caller]
    pub fn finish(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait(END_TIMEOUT);
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

impl Drop for Trawl {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
        if std::thread::panicking() {
            eprintln!("trawl's log:\n{}", self.log());
        }
    }
}

/// The first two cores that this process may use: one writes, one polls.
fn two_cores() -> [usize; 2] {
    let cores = core_affinity::get_core_ids().unwrap();
    assert!(cores.len() >= 2, "these tests need two cores");
    [cores[0].id, cores[1].id]
}

pub use crate::ports::free_address;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
