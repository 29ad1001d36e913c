//! What every released version left on a host is opened, and delivered, by this one: `tests/data/released`, made by its `make.sh`.

use crate::frames::real_pcap;
use crate::http;
use crate::inherit;
use crate::outcome::Outcome;
use crate::trawl::free_address;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The job and the journal name it, so the state is unpacked here.
const HOME: &str = "/tmp/trawl-released";
const ACCOUNT: &str = "023e105f4ecef8ad9ca31a8372d0c353";
const LIMIT: Duration = Duration::from_secs(60);

fn versions() -> Vec<PathBuf> {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/released");
    let entries = std::fs::read_dir(released).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert!(!found.is_empty());
    found
}

/// The host of a version, with this program.
struct Host {
    process: Child,
    listen: SocketAddr,
}

impl Host {
    fn start(version: &Path) -> Self {
        let _left_by_a_run_that_died = std::fs::remove_dir_all(HOME);
        std::fs::create_dir(HOME).unwrap();
        let unpacked = Command::new("tar")
            .args(["-C", HOME, "--zstd", "-xf"])
            .arg(version.join("state.tar.zst"))
            .status()
            .unwrap();
        assert!(unpacked.success());
        let home = Path::new(HOME);
        std::fs::copy(real_pcap(), home.join("real.pcap")).unwrap();
        let listen = free_address();
        let config = std::fs::read_to_string(home.join("trawl.toml")).unwrap();
        let cores = core_affinity::get_core_ids().unwrap();
        let config = config
            .replace("127.0.0.1:18080", &listen.to_string())
            .replace("workers = [1]", &format!("workers = [{}]", cores[1].id))
            .replace("writers = [0]", &format!("writers = [{}]", cores[0].id));
        std::fs::write(home.join("trawl.toml"), config).unwrap();
        let log = std::fs::File::create(home.join("log")).unwrap();
        let process = inherit::program(env!("CARGO_BIN_EXE_trawl"))
            .args(["serve", "--config"])
            .arg(home.join("trawl.toml"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { process, listen }
    }

    fn try_ask(&self, path: &str) -> std::io::Result<http::Answer> {
        let path = format!("/client/v4/accounts/{ACCOUNT}/pcaps{path}");
        http::ask(self.listen, "GET", &path, &[("Authorization", "Bearer released")], &[])
    }

    /// The captures, once none is at work.
    fn ended(&mut self) -> Vec<Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let listed = self.try_ask("").ok().map(|answer| answer.result());
            let captures = listed.and_then(|result| result.as_array().cloned()).unwrap_or_default();
            let has_ended =
                |one: &Value| ["success", "failed"].contains(&one["status"].as_str().unwrap_or(""));
            if captures.len() == 3 && captures.iter().all(has_ended) {
                return captures;
            }
            let status = self.process.try_wait().unwrap();
            assert!(status.is_none() && Instant::now() < deadline, "{status:?} {captures:?}: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn log() -> String {
    std::fs::read_to_string(Path::new(HOME).join("log")).unwrap_or_default()
}

fn verify(manifest: &Path, key: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_trawl"))
        .arg("verify")
        .arg(manifest)
        .arg("--public-key")
        .arg(key)
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn what_a_killed_process_of_every_released_version_left_is_taken_up_and_delivered() {
    for version in versions() {
        let mut host = Host::start(&version);
        let captures = host.ended();
        let failed: Vec<_> = captures.iter().filter(|one| one["status"] != "success").collect();
        assert!(failed.is_empty(), "{failed:?}: {}", log());
        let bucket = Path::new(HOME).join("bucket");
        let has_manifest =
            |one: &&Value| bucket.join(format!("pcap_{}.json", one["id"].as_str().unwrap())).is_file();
        let delivered: Vec<_> = captures.iter().filter(has_manifest).collect();
        let [killed] = delivered[..] else { panic!("{delivered:?}: {}", log()) };
        let id = killed["id"].as_str().unwrap();
        let outcome = Outcome::read(&bucket, id);
        assert!(!outcome.frames.is_empty());
        verify(&bucket.join(format!("pcap_{id}.json")), &version.join("delivered/public.pem"));
        let simple = captures.iter().find(|one| one["type"] == "simple").unwrap()["id"].as_str().unwrap();
        let file = Command::new(env!("CARGO_BIN_EXE_trawl"))
            .args(["capture", "download", simple, "--output", "-", "--url"])
            .arg(format!("http://{}/client/v4", host.listen))
            .env("TRAWL_ACCOUNT", ACCOUNT)
            .env("TRAWL_TOKEN", "released")
            .output()
            .unwrap();
        assert!(file.status.success() && file.stdout.len() > 24, "{file:?}: {}", log());
        kill_process(Pid::from_child(&host.process), Signal::TERM).unwrap();
        assert!(host.process.wait().unwrap().success(), "{}", log());
        drop(host);
        std::fs::remove_dir_all(HOME).unwrap();
    }
}

#[test]
fn what_every_released_version_delivered_is_verified_with_its_signature() {
    for version in versions() {
        let delivered = version.join("delivered");
        let manifests: Vec<_> = std::fs::read_dir(&delivered)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        assert_eq!(manifests.len(), 1);
        verify(&manifests[0], &delivered.join("public.pem"));
    }
}
