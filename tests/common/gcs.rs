//! A server that speaks Google's JSON API, for tests: `gcp-storage-emulator`, which knows resumable sessions, but neither
//! preconditions nor cancellation. Owns its start and its end.
//!
//! Invariant: nothing of it is left when the value is dropped.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server.
pub struct Gcs {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    server: Child,
}

impl Gcs {
    /// Starts a server and waits until it answers; none, with a line that says so, where it is not installed.
    pub async fn start() -> Option<Self> {
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let port = crate::ports::free_address().port();
        let mut command = command(port)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let gcs = Self { endpoint: format!("http://127.0.0.1:{port}"), server: command.spawn().unwrap() };
        let deadline = Instant::now() + Duration::from_secs(60);
        while reqwest::get(format!("{}/storage/v1/b?project=p", gcs.endpoint)).await.is_err() {
            assert!(Instant::now() < deadline, "the server was not ready within 60 s");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(gcs)
    }

    /// Makes a bucket.
    pub async fn create_bucket(&self, bucket: &str) {
        let url = format!("{}/storage/v1/b?project=p", self.endpoint);
        let request = reqwest::Client::new().post(url).json(&serde_json::json!({"name": bucket}));
        assert!(request.send().await.unwrap().status().is_success());
    }

    /// The object as the server describes it, past the code under test.
    pub async fn describe(&self, bucket: &str, key: &str) -> serde_json::Value {
        let url = format!("{}/storage/v1/b/{bucket}/o/{}", self.endpoint, key.replace('/', "%2F"));
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }
}

fn command(port: u16) -> Option<Command> {
    let Some(python) = std::env::var_os("TRAWL_TEST_PYTHON") else {
        crate::skip::skip("gcp-storage-emulator", "TRAWL_TEST_PYTHON is not set; scripts/test.sh sets it");
        return None;
    };
    let found = Command::new(&python).args(["-c", "import gcp_storage_emulator"]).output().unwrap();
    if !found.status.success() {
        crate::skip::skip("gcp-storage-emulator", "scripts/test.sh installs it");
        return None;
    }
    let mut command = crate::inherit::program(python);
    command.args(["-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1", "--in-memory", "-q"]);
    command.args(["--port", &port.to_string()]);
    Some(command)
}

impl Drop for Gcs {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.server.id() as i32) {
            let _ended_already = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _reaped = self.server.wait();
    }
}
