//! A real S3 server for tests: SeaweedFS in one process. Owns its start, its folder and its end; each test makes its buckets.
//!
//! Invariant: nothing of it is left when the value is dropped.

#![allow(dead_code, reason = "each test binary that shares this file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use crate::inherit;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The user that may do everything.
pub const ACCESS_KEY_ID: &str = "trawltest";
/// The secret of every user.
pub const SECRET_ACCESS_KEY: &str = "trawltestsecret";
/// The user that may only read.
pub const READER_KEY_ID: &str = "trawlreader";
/// The user that may only write.
pub const WRITER_KEY_ID: &str = "trawlwriter";

/// A running server.
pub struct Weed {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    server: Child,
    dir: TempDir,
}

impl Weed {
    /// Starts a server and waits until it answers; none, with a line that says so, where `weed` is not installed.
    pub async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let identity = |key: &str, actions: &[&str]| {
            serde_json::json!({
                "name": key,
                "credentials": [{"accessKey": key, "secretKey": SECRET_ACCESS_KEY}],
                "actions": actions,
            })
        };
        let users = serde_json::json!({"identities": [
            identity(ACCESS_KEY_ID, &["Admin", "Read", "Write", "List"]),
            identity(READER_KEY_ID, &["Read", "List"]),
            identity(WRITER_KEY_ID, &["Write"]),
        ]});
        let config = dir.path().join("s3.json");
        std::fs::write(&config, users.to_string()).unwrap();
        let ports = crate::ports::free_ports::<{ PORT_OPTIONS.len() }>();
        let mut command = inherit::program("weed");
        command
            .args(["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"])
            .args(["-master.volumeSizeLimitMB=64", "-volume.max=0", "-s3.autoCreateBucket=false"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-dir={}", dir.path().display()))
            .arg(format!("-s3.config={}", config.display()));
        for (option, port) in PORT_OPTIONS.iter().zip(&ports) {
            command.arg(format!("-{option}={port}"));
        }
        let log = std::fs::File::create(dir.path().join("weed.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        // Without a key of its own it refuses what is to be encrypted.
        command.env("WEED_S3_SSE_KEK", "0123456789abcdef".repeat(4));
        // Its own folder also as the working one: it writes there what it has no option for.
        command.current_dir(dir.path());
        let server = command.spawn().unwrap();
        let mut weed = Self { endpoint: format!("http://127.0.0.1:{}", ports[0]), server, dir };
        if !weed.is_installed_and_ready().await {
            crate::skip::skip("weed", "scripts/test.sh installs it");
            return None;
        }
        Some(weed)
    }

    /// Waits until it is ready, which is when an object can be written: the S3 part answers before the volumes can. False if there is
    /// no such program.
    async fn is_installed_and_ready(&mut self) -> bool {
        let client = self.client();
        let deadline = Instant::now() + Duration::from_secs(90);
        while Instant::now() < deadline {
            if let Some(status) = self.server.try_wait().unwrap() {
                if status.code() == Some(inherit::NO_PROGRAM) {
                    return false;
                }
                panic!("weed ended with {status}: {}", self.log());
            }
            // The second and later turns find the bucket there.
            let _exists_already = client.create_bucket().bucket("ready").send().await;
            if client.put_object().bucket("ready").key("x").body(vec![1].into()).send().await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("weed was not ready within 90 s: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("weed.log")).unwrap_or_default()
    }

    /// A client of the test's own, past the code under test.
    pub fn client(&self) -> Client {
        let http = aws_smithy_http_client::Builder::new().build_http();
        let keys = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new("us-east-1"))
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .credentials_provider(keys);
        Client::from_conf(config.build())
    }

    /// Makes a bucket.
    pub async fn create_bucket(&self, bucket: &str) {
        self.client().create_bucket().bucket(bucket).send().await.unwrap();
    }

    /// Removes a bucket with all that is in it. The server answers before it has done so: this waits until it has.
    pub async fn delete_bucket(&self, bucket: &str) {
        self.client().delete_bucket().bucket(bucket).send().await.unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while self.client().head_bucket().bucket(bucket).send().await.is_ok() {
            assert!(Instant::now() < until, "the bucket is still there: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.server.id() as i32) {
            let _ended_already = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _reaped = self.server.wait();
    }
}

/// The first is the S3 port.
const PORT_OPTIONS: [&str; 8] = [
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
];
