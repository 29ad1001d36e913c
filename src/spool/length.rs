//! The trusted length of an open segment. Owns the small `.len` file beside it.
//!
//! A segment's file is longer than its contents: it is allocated ahead, pads its last page, may have holes where a write
//! was still in flight, and in `mapped` mode holds what was written for another capture. So two numbers are kept beside
//! it: what was written (good as long as the kernel lives) and what was fsynced (good after a power cut).
//!
//! Invariant: a number is raised only after its bytes are written, or fsynced.

use super::files::Files;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The kernel's boot id: a UUID as text.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_BYTES: usize = 36;
const WRITTEN_AT: usize = 40;
const DURABLE_AT: usize = 48;
const CHECK_AT: usize = 56;
const BYTES: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Length {
    file: File,
    path: PathBuf,
    files: Files,
    boot: [u8; BOOT_BYTES],
    written: AtomicU64,
    durable: AtomicU64,
    /// Held while the file is written: both numbers and their checksum go in one write.
    writing: Mutex<()>,
    /// An fsync of the segment is ordered and not answered.
    is_ordered: AtomicBool,
    /// An fsync of the segment failed: a later success does not cover the pages that this one lost.
    sync_failed: AtomicBool,
}

impl Length {
    /// Begins at zero; before the segment itself is made. A file of that name is of an earlier try.
    pub fn create(files: &Files, path: &Path) -> io::Result<Self> {
        let file = files.open(OpenOptions::new().write(true).create(true).truncate(true), path)?;
        let length = Self {
            file,
            path: path.to_owned(),
            files: files.clone(),
            boot: boot(),
            written: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            writing: Mutex::new(()),
            is_ordered: AtomicBool::new(false),
            sync_failed: AtomicBool::new(false),
        };
        length.write()?;
        Ok(length)
    }

    fn write(&self) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = encode(&self.boot, self.written(), self.durable());
        self.files.write_at(&self.file, &self.path, &bytes, 0)
    }

    /// Everything before `bytes` is written.
    pub fn reached(&self, bytes: u64) {
        if self.written.fetch_max(bytes, Ordering::AcqRel) < bytes {
            // A number that stays low costs packets after a crash, which is no reason to end a capture. The next one is higher.
            let _stays_low = self.write();
        }
    }

    /// What is written; to be read before an fsync and given to [`Length::synced`] after it.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// What is on the disk.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Everything before `bytes` is on the disk.
    pub fn synced(&self, bytes: u64) -> io::Result<()> {
        let before = self.durable.swap(bytes, Ordering::AcqRel);
        let kept = self.write().and_then(|()| self.files.sync_data(&self.file, &self.path));
        if kept.is_err() {
            // The file's number is what a crash keeps, so the segment counts as durable only up to it.
            self.durable.store(before, Ordering::Release);
        }
        kept
    }

    /// Notes that an fsync of the segment is ordered. `false`: one is under way.
    pub fn order(&self) -> bool {
        !self.is_ordered.swap(true, Ordering::AcqRel)
    }

    /// The fsync that was ordered is over.
    pub fn answered(&self) {
        self.is_ordered.store(false, Ordering::Release);
    }

    /// An fsync of the segment failed. `true`: for the first time.
    pub fn fail_sync(&self) -> bool {
        !self.sync_failed.swap(true, Ordering::AcqRel)
    }

    /// Whether an fsync of the segment failed.
    pub fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }
}

/// The file: boot, written, durable, and a checksum over them.
pub(super) fn encode(boot: &[u8; BOOT_BYTES], written: u64, durable: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..BOOT_BYTES].copy_from_slice(boot);
    bytes[WRITTEN_AT..DURABLE_AT].copy_from_slice(&written.to_le_bytes());
    bytes[DURABLE_AT..CHECK_AT].copy_from_slice(&durable.to_le_bytes());
    let check = checksum(&bytes[..CHECK_AT]);
    bytes[CHECK_AT..].copy_from_slice(&check.to_le_bytes());
    bytes
}

fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

/// What can be trusted of the segment that the file at `path` speaks of; none if there is no such file or it is damaged.
pub(super) fn trusted(path: &Path) -> io::Result<Option<u64>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let is_whole = match bytes.len() {
        // As versions before the checksum wrote it: at least a boot must be named.
        CHECK_AT => bytes[..BOOT_BYTES].iter().all(|b| b.is_ascii_hexdigit() || *b == b'-'),
        BYTES => number(CHECK_AT) == Some(checksum(&bytes[..CHECK_AT])),
        _ => false,
    };
    if !is_whole {
        return Ok(None);
    }
    let known = boot();
    let same_boot = bytes[..BOOT_BYTES] == known && known != [0; BOOT_BYTES];
    Ok(if same_boot { number(WRITTEN_AT) } else { number(DURABLE_AT) })
}

/// What would be trusted after a power cut.
#[cfg(test)]
pub(super) fn trusted_after_power_cut(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.get(DURABLE_AT..CHECK_AT).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// This run of the kernel; zeros where it cannot be told.
pub(super) fn boot() -> [u8; BOOT_BYTES] {
    let text = fs::read(BOOT_ID).unwrap_or_default();
    text.get(..BOOT_BYTES).and_then(|id| id.try_into().ok()).unwrap_or([0; BOOT_BYTES])
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    #[test]
    fn after_a_power_cut_only_what_was_synced_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("len");
        assert_eq!(trusted(&path).unwrap(), None);
        let length = Length::create(&Files::default(), &path).unwrap();
        length.reached(4096);
        length.synced(length.written()).unwrap();
        length.reached(9000);
        length.reached(5000);
        assert_eq!(trusted(&path).unwrap(), Some(9000));
        let mut other = boot();
        other[0] ^= 1;
        fs::write(&path, encode(&other, 9000, 4096)).unwrap();
        assert_eq!(trusted(&path).unwrap(), Some(4096));
    }

    #[test]
    fn a_damaged_length_is_no_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("len");
        let whole = encode(&boot(), 9000, 4096);
        fs::write(&path, whole).unwrap();
        assert_eq!(trusted(&path).unwrap(), Some(9000));
        for (at, _) in whole.iter().enumerate() {
            let mut damaged = whole;
            damaged[at] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            assert_eq!(trusted(&path).unwrap(), None, "byte {at}");
        }
        // What a file system may leave after a power cut.
        for bytes in [0, BOOT_BYTES, CHECK_AT, BYTES, 4096] {
            fs::write(&path, vec![0; bytes]).unwrap();
            assert_eq!(trusted(&path).unwrap(), None, "{bytes} zeros");
        }
    }
}
