//! The live merge's last stage. Owns compressing and hashing each object, and handing everything to the upload.
//!
//! A thread of its own: SHA-256 takes as long as all the rest of the merge together, also where the CPU has instructions
//! for it.
//!
//! Invariant: outputs leave in the order in which they come; the summary tells of the object as it leaves.

use super::compress::compressor;
use super::{MergeError, Output, Summary};
use crate::pcap::{Compression, Content, ObjectFormat};
use crossbeam::channel::Receiver;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;
use zstd::bulk::Compressor;

/// Outputs between the merge and this stage; chunks, mostly.
pub(super) const QUEUE: usize = 4;

/// Seals and passes on until the merge is done or nobody listens.
pub(super) fn seal(
    format: ObjectFormat,
    merged: &Receiver<Output>,
    outputs: &Sender<Output>,
) -> Result<(), MergeError> {
    let mut packing = match format.compression {
        Compression::None => None,
        Compression::Zstd => Some(Packing::new(format.level)?),
    };
    let mut hash = Sha256::new();
    for mut output in merged {
        match &mut output {
            Output::Begin(_) => hash = Sha256::new(),
            Output::Whole(_) => {}
            Output::Chunk(chunk) => {
                if let Some(packing) = &mut packing {
                    // Each chunk but the last of an object is as long as a frame's content.
                    *chunk = packing.pack(chunk)?.into();
                }
                hash.update(chunk);
            }
            Output::End(summary, _) => {
                if let Some(packing) = &mut packing {
                    packing.seal(summary);
                }
                summary.sha256 = hex(&mut hash);
            }
        }
        outputs.blocking_send(output).map_err(|_| MergeError::OutputClosed)?;
    }
    Ok(())
}

/// The object in progress.
struct Packing {
    compressor: Compressor<'static>,
    /// Of the content.
    hash: Sha256,
    /// As compressed.
    bytes: u64,
}

impl Packing {
    fn new(level: i32) -> Result<Self, MergeError> {
        let compressor = compressor(level).map_err(MergeError::Compression)?;
        Ok(Self { compressor, hash: Sha256::new(), bytes: 0 })
    }

    fn pack(&mut self, chunk: &[u8]) -> Result<Vec<u8>, MergeError> {
        self.hash.update(chunk);
        let frame = self.compressor.compress(chunk).map_err(MergeError::Compression)?;
        self.bytes += frame.len() as u64;
        Ok(frame)
    }

    fn seal(&mut self, summary: &mut Summary) {
        let bytes = std::mem::replace(&mut summary.bytes, std::mem::take(&mut self.bytes));
        summary.content = Some(Content { bytes, sha256: hex(&mut self.hash) });
    }
}

fn hex(hash: &mut Sha256) -> String {
    HEXLOWER.encode(&hash.finalize_reset())
}
