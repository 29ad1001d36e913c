//! How much of an open segment is certainly its own. Owns the small file beside it that says so.
//!
//! A segment's file is longer than its contents: it is allocated ahead, pads its last page, may have holes where a write
//! was still in flight, and in `mapped` mode holds what was written for another capture. So two numbers are kept beside
//! it: what was written (good as long as the kernel lives) and what was fsynced (good after a power cut).
//!
//! Invariant: a number is raised only after the bytes that it speaks of are where it says.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// What tells one run of the kernel from the next: a UUID as text.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_BYTES: usize = 36;
const WRITTEN_AT: u64 = 40;
const DURABLE_AT: u64 = 48;
const BYTES: usize = 56;

/// See the module.
#[derive(Debug)]
pub(super) struct Length {
    file: File,
    written: AtomicU64,
}

impl Length {
    /// Begins at zero; before the segment itself is made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut bytes = [0; BYTES];
        bytes[..BOOT_BYTES].copy_from_slice(&boot());
        file.write_all_at(&bytes, 0)?;
        Ok(Self { file, written: AtomicU64::new(0) })
    }

    /// Everything before `bytes` is written.
    pub fn reached(&self, bytes: u64) {
        if self.written.fetch_max(bytes, Ordering::AcqRel) < bytes {
            // A number that stays low costs packets after a crash, which is no reason to end a capture.
            let _stays_low = self.file.write_all_at(&bytes.to_le_bytes(), WRITTEN_AT);
        }
    }

    /// What is written; to be read before an fsync and given to [`Length::synced`] after it.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Everything before `bytes` is on the disk.
    pub fn synced(&self, bytes: u64) -> io::Result<()> {
        self.file.write_all_at(&bytes.to_le_bytes(), DURABLE_AT)?;
        self.file.sync_data()
    }
}

/// What can be trusted of the segment that the file at `path` speaks of; none if there is no such file or it is cut.
pub(super) fn trusted(path: &Path) -> io::Result<Option<u64>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let number = |at: u64| {
        let at = usize::try_from(at).ok()?;
        bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
    };
    let known = boot();
    let same_boot = bytes.get(..BOOT_BYTES) == Some(&known[..]) && known != [0; BOOT_BYTES];
    Ok(if same_boot { number(WRITTEN_AT) } else { number(DURABLE_AT) })
}

/// This run of the kernel; zeros where it cannot be told.
fn boot() -> [u8; BOOT_BYTES] {
    let text = fs::read(BOOT_ID).unwrap_or_default();
    text.get(..BOOT_BYTES).and_then(|id| id.try_into().ok()).unwrap_or([0; BOOT_BYTES])
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn after_a_power_cut_only_what_was_synced_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("len");
        assert_eq!(trusted(&path).unwrap(), None);
        let length = Length::create(&path).unwrap();
        length.reached(4096);
        length.synced(length.written()).unwrap();
        length.reached(9000);
        length.reached(5000);
        assert_eq!(trusted(&path).unwrap(), Some(9000));
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(trusted(&path).unwrap(), Some(4096));
    }
}
