//! Where an open segment's bytes go: a file under O_DIRECT, or a mapping. Owns allocation against the quota.
//!
//! Invariant: bytes are allocated, never sparse, before anything is written to them.

use super::mapping::MappedFile;
use super::{Failure, Spool};
use crate::limits::{EXTENT_BYTES, PAGE_BYTES};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// The largest step in which a segment's file grows.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// A segment's storage.
#[derive(Debug)]
pub enum Backing {
    /// A file opened with O_DIRECT, with this many bytes allocated and charged.
    Direct {
        /// The file.
        file: Arc<File>,
        /// Allocated bytes.
        allocated: u64,
    },
    /// A mapped segment, wholly allocated and charged.
    Mapped(MappedFile),
}

impl Backing {
    /// Storage at `path`.
    ///
    /// # Errors
    /// [`Failure::Full`] when quota or disk are used up.
    pub fn create(spool: &Spool, path: &Path) -> Result<Self, Failure> {
        if let Some(pool) = spool.pool() {
            let failed = |e: &std::io::Error| Failure::from_io("cannot make the segment", path, e);
            if let Some(mapped) = pool.reuse(path).map_err(|e| failed(&e))? {
                return Ok(Self::Mapped(mapped));
            }
            charge(spool, pool.segment_bytes())?;
            return pool.create(path).map(Self::Mapped).map_err(|e| {
                spool.quota().release(pool.segment_bytes());
                failed(&e)
            });
        }
        let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path);
        match file {
            Ok(file) => Ok(Self::Direct { file: Arc::new(file), allocated: 0 }),
            Err(e) => Err(Failure::from_io("cannot make the segment", path, &e)),
        }
    }

    /// Makes sure that the first `bytes` bytes are allocated.
    ///
    /// # Errors
    /// [`Failure::Full`] when quota or disk are used up.
    pub fn reach(&mut self, spool: &Spool, path: &Path, bytes: u64) -> Result<(), Failure> {
        let Self::Direct { file, allocated } = self else { return Ok(()) };
        while *allocated < bytes {
            let whole = spool.config().segment_bytes.next_multiple_of(PAGE_BYTES as u64);
            let wanted =
                (*allocated).clamp(EXTENT_BYTES, GROWTH_BYTES_MAX).min(whole.saturating_sub(*allocated));
            let needed = (bytes - *allocated).next_multiple_of(PAGE_BYTES as u64);
            let step = if wanted > needed && spool.quota().reserve(wanted) {
                wanted
            } else {
                charge(spool, needed)?;
                needed
            };
            if let Err(e) =
                rustix::fs::fallocate(&**file, rustix::fs::FallocateFlags::empty(), *allocated, step)
            {
                spool.quota().release(step);
                return Err(Failure::from_io("cannot allocate the segment", path, &e.into()));
            }
            *allocated += step;
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
}

fn charge(spool: &Spool, bytes: u64) -> Result<(), Failure> {
    if spool.quota().reserve(bytes) {
        return Ok(());
    }
    let (used, max) = (spool.quota().used(), spool.quota().bytes_max());
    Err(Failure::Full(format!(
        "the spool holds {used} of spool.bytes_max {max} bytes and {bytes} more were needed; raise it or let uploads finish"
    )))
}
