//! Where an open segment's bytes go: a file under O_DIRECT, or a mapping. Owns allocation against the quota.
//!
//! Invariant: bytes are allocated, never sparse, before anything is written to them; the charge is what is allocated.

use super::Failure;
use super::disk::Disk;
use super::mapping::{MappedFile, Reused};
use super::quota::Charge;
use crate::limits::{EXTENT_BYTES, PAGE_BYTES};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// The largest step in which a segment's file grows.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// A segment's storage.
#[derive(Debug)]
pub(super) enum Backing {
    /// A file opened with O_DIRECT, charged for what is allocated.
    Direct {
        /// The file.
        file: Arc<File>,
        /// Its charge.
        charge: Charge,
    },
    /// A mapped segment, wholly allocated and charged.
    Mapped(MappedFile),
}

impl Backing {
    /// Storage at `path`. Where that fails, there is no file.
    ///
    /// # Errors
    /// [`Failure::Full`] when quota or disk are used up.
    pub fn create(disk: &Disk, path: &Path) -> Result<Self, Failure> {
        let failed = |e: &std::io::Error| Failure::from_io("cannot make the segment", path, e);
        let mut charge = disk.account().charge(path);
        if let Some(pool) = disk.pool() {
            match pool.reuse(path, charge.share()).map_err(|e| failed(&e))? {
                Reused::Mapped(mapped) => return Ok(Self::Mapped(mapped)),
                Reused::ShareFull => return Err(full(&charge, disk, pool.segment_bytes())),
                Reused::None => {}
            }
            grow(&mut charge, disk, pool.segment_bytes())?;
            return pool.create(path, charge).map(Self::Mapped).map_err(|e| failed(&e));
        }
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).custom_flags(flags);
        let file = disk.account().files().open(&mut options, path).map_err(|e| failed(&e))?;
        Ok(Self::Direct { file: Arc::new(file), charge })
    }

    /// Makes sure that the first `bytes` bytes are allocated.
    ///
    /// # Errors
    /// [`Failure::Full`] when quota or disk are used up.
    pub fn reach(&mut self, disk: &Disk, path: &Path, bytes: u64) -> Result<(), Failure> {
        let Self::Direct { file, charge } = self else { return Ok(()) };
        while charge.bytes() < bytes {
            let (whole, allocated) =
                (disk.config().segment_bytes.next_multiple_of(PAGE_BYTES as u64), charge.bytes());
            let wanted = allocated.clamp(EXTENT_BYTES, GROWTH_BYTES_MAX).min(whole.saturating_sub(allocated));
            let needed = (bytes - allocated).next_multiple_of(PAGE_BYTES as u64);
            if !(wanted > needed && charge.grow(wanted)) {
                grow(charge, disk, needed)?;
            }
            let step = charge.bytes() - allocated;
            if let Err(e) = disk.account().files().allocate(file, path, allocated, step) {
                // A full file system may have given a part of it, which is no use to this segment and still takes room.
                charge.set(file.metadata().map_or(allocated, |meta| meta.len().max(allocated)));
                return Err(Failure::from_io("cannot allocate the segment", path, &e));
            }
        }
        Ok(())
    }

    /// The file, for fsync and truncation.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        match self {
            Self::Direct { file, .. } => file,
            Self::Mapped(mapped) => mapped.file(),
        }
    }

    /// What is charged for the file; a mapping is gone.
    pub fn into_charge(self) -> Charge {
        match self {
            Self::Direct { charge, .. } => charge,
            Self::Mapped(mapped) => mapped.unmap().1,
        }
    }
}

fn grow(charge: &mut Charge, disk: &Disk, bytes: u64) -> Result<(), Failure> {
    if charge.grow(bytes) {
        return Ok(());
    }
    Err(full(charge, disk, bytes))
}

fn full(charge: &Charge, disk: &Disk, bytes: u64) -> Failure {
    let (used, max) = (disk.quota().used(), disk.quota().bytes_max());
    if let Some(share) = charge.share().filter(|share| share.used().saturating_add(bytes) > share.bytes_max())
    {
        return Failure::Full(format!(
            "account {} holds {} of its {} bytes of {} and {bytes} more were needed; let uploads finish, or drop a capture that \
             waits for its upload",
            share.tenant(),
            share.used(),
            share.bytes_max(),
            disk.words(),
        ));
    }
    let limit = charge.limit(bytes);
    if limit < max && used.saturating_add(bytes) <= max {
        return Failure::Full(format!(
            "{} has {used} of {max} bytes in use, {bytes} more were needed, and beyond {limit} it is for accounts \
             that have no more than their part; narrow the filter, give it a byte limit, or let uploads finish",
            disk.words(),
        ));
    }
    Failure::Full(format!(
        "{} is full: {used} of {max} bytes are in use and {bytes} more were needed; narrow the filter, give the \
         capture a byte limit, or let uploads finish",
        disk.words(),
    ))
}
