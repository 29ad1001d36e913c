//! The account that is attacked: it captures in a row and asks the API all the time. Owns what it was promised of its captures.
//!
//! What it captured is read once the siege is over: reading takes the processor that the host needs.

use super::host::Host;
use super::siege::{GoesOn, Restart};
use crate::bucket::download;
use crate::http;
use crate::outcome::Outcome;
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trawl::job::{Progress, Status};

const PACKETS: u64 = 5000;
/// Between two questions, and between two captures.
const PAUSE: Duration = Duration::from_millis(10);
const CAPTURE_PAUSE: Duration = Duration::from_millis(300);
/// What one capture may take, over the restart.
const CAPTURE_TIME_MAX: Duration = Duration::from_secs(60);

/// See the module.
pub struct Victim<'a> {
    host: &'a Host,
    /// Its captures, and whether the host restarted while each was at work.
    captures: Mutex<Vec<(String, bool)>>,
    /// The host's process.
    process: AtomicU64,
}

impl<'a> Victim<'a> {
    pub fn new(host: &'a Host) -> Self {
        let process = AtomicU64::new(u64::from(host.trawl().id()));
        Self { host, captures: Mutex::default(), process }
    }

    /// Asks for its list, for a capture's progress and for health again and again; how long each answer took.
    pub fn poll(&self, goes_on: &GoesOn) -> Vec<Duration> {
        let mut times = Vec::new();
        while goes_on.pause(PAUSE) {
            let _does_not_restart = self.host.trawl();
            let last = self.captures.lock().unwrap().last().map(|(id, _)| id.clone());
            let began = Instant::now();
            match last.filter(|_| times.len() % 2 == 0) {
                Some(id) => {
                    let answer = self.host.ask_as_victim("GET", &format!("/{id}/progress"), &[]);
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
                None => assert_eq!(self.host.ask_as_victim("GET", "", &[]).status, 200),
            }
            times.push(began.elapsed());
            if times.len() % 50 == 0 {
                assert!(
                    http::get_text(self.host.observe, "/healthz").unwrap().starts_with("HTTP/1.1 200"),
                    "{}",
                    self.host.trawl().log()
                );
            }
        }
        times
    }

    /// Captures in a row, each of so many packets.
    pub fn capture_in_a_row(&self, goes_on: &GoesOn) {
        while goes_on.pause(CAPTURE_PAUSE) {
            let request = json!({
                "system": "magic-transit", "type": "full", "time_limit": 60, "colo_name": "ord02", "filter_v1": {},
                "packet_limit": PACKETS, "destination_conf": self.host.destination,
            });
            let trawl = self.host.trawl();
            let process = u64::from(trawl.id());
            self.process.store(process, Ordering::Relaxed);
            let created = self.host.ask_as_victim("POST", "", request.to_string().as_bytes());
            drop(trawl);
            let id = created.result()["id"].as_str().unwrap().to_owned();
            self.captures.lock().unwrap().push((id.clone(), false));
            let deadline = Instant::now() + CAPTURE_TIME_MAX;
            while self.progress(&id).status != Status::Success {
                assert!(Instant::now() < deadline, "{:?}: {}", self.progress(&id), self.host.trawl().log());
                std::thread::sleep(Duration::from_millis(50));
            }
            if u64::from(self.host.trawl().id()) != process {
                self.captures.lock().unwrap().last_mut().unwrap().1 = true;
            }
        }
    }

    fn progress(&self, id: &str) -> Progress {
        let _does_not_restart = self.host.trawl();
        let result = self.host.ask_as_victim("GET", &format!("/{id}/progress"), &[]).result();
        let progress: Progress = serde_json::from_value(result).unwrap();
        progress.ledger.check().unwrap();
        assert!(!matches!(progress.status, Status::Failed), "{progress:?}: {}", self.host.trawl().log());
        progress
    }

    /// Every capture has each of its packets; one during which the host ended has all until then.
    pub async fn assert_whole(&self, restart: Restart) {
        let captures = std::mem::take(&mut *self.captures.lock().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let bucket = match &self.host.weed {
            Some(weed) => {
                download(weed, "victim/pcap_", folder.path()).await;
                folder.path().to_owned()
            }
            None => self.host.trawl().bucket(),
        };
        let mut cut = 0;
        for (id, is_over_restart) in &captures {
            let outcome = Outcome::read(&bucket, id);
            let ledger = &outcome.manifest.ledger;
            let is_ended_early = *is_over_restart && ledger.captured < PACKETS;
            cut += usize::from(is_ended_early);
            if !is_ended_early {
                assert_eq!(outcome.frames.len() as u64, PACKETS, "{id}: {ledger:?}");
            }
            // A process that was killed could not count to the end.
            if !is_ended_early || restart == Restart::Ordered {
                outcome.assert_lossless();
            }
        }
        assert!(captures.len() >= 8, "only {} captures", captures.len());
        println!("{} captures of {PACKETS} packets are whole; the restart ended {cut}", captures.len() - cut);
    }
}
