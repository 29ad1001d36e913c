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
use std::time::{Duration, Instant};
use trawl::job::{Progress, Status};

const PACKETS: u64 = 5000;
/// Between two questions, and between two captures.
const PAUSE: Duration = Duration::from_millis(10);
const CAPTURE_PAUSE: Duration = Duration::from_millis(300);
/// What one capture may take, over the restart.
const CAPTURE_TIME_MAX: Duration = Duration::from_secs(60);

/// What the restart did to a capture.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It was over before, or began later.
    Untouched,
    /// It went over the restart: it may have ended early.
    OverRestart,
    /// It was killed before anything of it was on the disk.
    Killed,
}

/// See the module.
pub struct Victim<'a> {
    host: &'a Host,
    /// Its captures, and what became of each.
    captures: Mutex<Vec<(String, Fate)>>,
}

impl<'a> Victim<'a> {
    pub fn new(host: &'a Host) -> Self {
        Self { host, captures: Mutex::default() }
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
            let process = trawl.id();
            let created = self.host.ask_as_victim("POST", "", request.to_string().as_bytes());
            drop(trawl);
            let id = created.result()["id"].as_str().unwrap().to_owned();
            self.captures.lock().unwrap().push((id.clone(), Fate::Untouched));
            let deadline = Instant::now() + CAPTURE_TIME_MAX;
            let mut fate = Fate::Untouched;
            loop {
                let progress = self.progress(&id);
                if self.host.trawl().id() != process {
                    fate = Fate::OverRestart;
                }
                match progress.status {
                    Status::Success => break,
                    Status::Failed if fate == Fate::OverRestart && progress.ledger.captured == 0 => {
                        fate = Fate::Killed;
                        break;
                    }
                    Status::Failed => panic!("{progress:?}: {}", self.host.trawl().log()),
                    _ => assert!(Instant::now() < deadline, "{progress:?}: {}", self.host.trawl().log()),
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            self.captures.lock().unwrap().last_mut().unwrap().1 = fate;
        }
    }

    fn progress(&self, id: &str) -> Progress {
        let _does_not_restart = self.host.trawl();
        let result = self.host.ask_as_victim("GET", &format!("/{id}/progress"), &[]).result();
        let progress: Progress = serde_json::from_value(result).unwrap();
        progress.ledger.check().unwrap();
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
        for (id, fate) in &captures {
            if *fate == Fate::Killed {
                assert!(restart == Restart::Killed, "{id}: lost although the host was ended in order");
                cut += 1;
                continue;
            }
            let outcome = Outcome::read(&bucket, id);
            let ledger = &outcome.manifest.ledger;
            let is_ended_early = *fate == Fate::OverRestart && ledger.captured < PACKETS;
            cut += usize::from(is_ended_early);
            if !is_ended_early {
                assert_eq!(outcome.frames.len() as u64, PACKETS, "{id}: {ledger:?}");
            }
            // A process that was killed could not count to the end.
            if !is_ended_early || restart == Restart::Ordered {
                outcome.assert_lossless();
            }
        }
        assert!(captures.len() >= 5, "only {} captures", captures.len());
        println!("{} captures of {PACKETS} packets are whole; the restart ended {cut}", captures.len() - cut);
    }
}
