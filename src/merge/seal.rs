//! The live merge's last stage. Owns hashing each object and handing everything to the upload.
//!
//! A thread of its own: SHA-256 takes as long as all the rest of the merge together, also where the CPU has instructions
//! for it.
//!
//! Invariant: outputs leave as they come; only the summary's hash is added.

use super::{MergeError, Output};
use crossbeam::channel::Receiver;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use tokio::sync::mpsc::Sender;

/// Outputs between the merge and this stage; chunks, mostly.
pub(super) const QUEUE: usize = 4;

/// Hashes and passes on until the merge is done or nobody listens.
pub(super) fn seal(merged: &Receiver<Output>, outputs: &Sender<Output>) -> Result<(), MergeError> {
    let mut hash = Sha256::new();
    for mut output in merged {
        match &mut output {
            Output::Begin(_) => hash = Sha256::new(),
            Output::Chunk(chunk) => hash.update(chunk),
            Output::End(summary, _) => {
                for byte in hash.finalize_reset() {
                    write!(summary.sha256, "{byte:02x}").expect("a String takes everything");
                }
            }
        }
        outputs.blocking_send(output).map_err(|_| MergeError::OutputClosed)?;
    }
    Ok(())
}
