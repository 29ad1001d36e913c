//! What a scenario's process tells the process that judges it: one JSON file, written after the last call that counts.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use trawl::job::{CaptureId, Job};

/// What a process is asked to do; it stands in [`ORDER`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// A scenario's name.
    pub scenario: String,
    /// Everything that counts lies below it.
    pub dir: PathBuf,
    /// Where the facts go.
    pub facts: PathBuf,
    /// How long a capture's end is waited for.
    pub patience_ms: u64,
    /// Whether the fault lasts, so that what is asked for may never come.
    pub lasts: bool,
}

/// The environment variable with a process's [`Order`].
pub const ORDER: &str = "TRAWL_SWEEP_ORDER";

/// One create.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The answer, if it was no capture.
    pub refused: Option<String>,
    /// The capture.
    pub id: Option<CaptureId>,
    /// As it was last seen in this process.
    pub job: Option<Job>,
    /// Whether the workers had it before the first frame came.
    pub ran: bool,
}

/// What became of a scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Why the host did not start.
    pub start_refused: Option<String>,
    /// In the order of the creates.
    pub asked: Vec<Asked>,
    /// The account's captures at the end, as the host lists them.
    pub jobs: Vec<Job>,
    /// Bytes on the spool's quota after the end.
    pub quota_bytes: Option<u64>,
    /// What went wrong beside that.
    pub complaints: Vec<String>,
}

impl Facts {
    pub fn write(&self, path: &Path) {
        std::fs::write(path, serde_json::to_vec(self).unwrap()).unwrap();
    }

    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}
