//! The one file that maps files: a pool of segments that were written once, stay mapped, and are used again. Owns the
//! mappings; not the quota, nor which stream a segment serves.
//!
//! Fresh file mappings cost about one core-second per GB (every page faults, is zeroed and written twice); a segment
//! whose pages are in place costs a quarter of that. So files are filled with zeros once and recycled.
//!
//! Invariant: a mapped file is never shorter than its mapping while anyone writes through it: files are allocated
//! before they are mapped, cut only after their last write, and grown back before they are used again.
#![allow(unsafe_code)]

use crate::block::copy_past_cache;
use memmap2::{MmapMut, MmapOptions};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A segment file with its mapping.
#[derive(Debug)]
pub struct MappedFile {
    file: Arc<File>,
    map: MmapMut,
}

impl MappedFile {
    fn create(path: &Path, bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        fill(&file, 0, bytes)?;
        // SAFETY: the file is ours (0600 in a 0700 directory, created above), wholly allocated, and by the module's invariant never cut while
        // this mapping is written.
        let map = unsafe { MmapOptions::new().populate().map_mut(&file) }?;
        Ok(Self { file: Arc::new(file), map })
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// When they do not fit the mapping.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let target = usize::try_from(offset)
            .ok()
            .and_then(|start| self.map.get_mut(start..)?.get_mut(..bytes.len()))
            .ok_or_else(|| {
                io::Error::other(format!("{} bytes at {offset} are outside the segment", bytes.len()))
            })?;
        // A segment is larger than the cache, and read only once it is published.
        copy_past_cache(target, bytes);
        Ok(())
    }
}

/// Allocates and writes `from..to`, so that the mapping's pages exist and ENOSPC is an error here, not a signal later.
fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    if to > from {
        rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, to - from)?;
        let zeros = vec![0_u8; 1 << 20];
        let mut at = from;
        while at < to {
            let step = (to - at).min(zeros.len() as u64);
            file.write_all_at(&zeros[..usize::try_from(step).unwrap_or(zeros.len())], at)?;
            at += step;
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<(PathBuf, MappedFile)>,
    published: HashMap<PathBuf, MappedFile>,
    created: u64,
}

/// The segments of one spool that are mapped, idle or published.
#[derive(Debug)]
pub struct Pool {
    dir: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
}

impl Pool {
    /// An empty pool in `dir`, whose scratch files of an earlier run are deleted.
    ///
    /// # Errors
    /// When the directory cannot be made or cleaned.
    pub fn open(dir: PathBuf, segment_bytes: u64) -> io::Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir(&dir)?;
        Ok(Self { dir, segment_bytes, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that one segment of this pool occupies.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// An idle segment, moved to `path`.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn reuse(&self, path: &Path) -> io::Result<Option<MappedFile>> {
        let Some((old, mapped)) = self.state().idle.pop() else { return Ok(None) };
        fs::rename(old, path)?;
        Ok(Some(mapped))
    }

    /// A new segment at `path`; the caller has charged the quota.
    ///
    /// # Errors
    /// When the disk is full or refuses.
    pub fn create(&self, path: &Path) -> io::Result<MappedFile> {
        MappedFile::create(path, self.segment_bytes).inspect_err(|_| {
            let _nothing_there = fs::remove_file(path);
        })
    }

    /// Writes one more idle segment; the caller has charged the quota.
    ///
    /// # Errors
    /// When the disk is full or refuses.
    pub fn fill(&self) -> io::Result<()> {
        let path = self.idle_path();
        let mapped = self.create(&path)?;
        self.state().idle.push((path, mapped));
        Ok(())
    }

    /// Bytes of segments that wait to be used.
    #[must_use]
    pub fn idle_bytes(&self) -> u64 {
        self.state().idle.len() as u64 * self.segment_bytes
    }

    fn idle_path(&self) -> PathBuf {
        let mut state = self.state();
        state.created += 1;
        self.dir.join(format!("{:08}", state.created))
    }

    /// Keeps the mapping of a segment that is now published under `path`.
    pub fn keep(&self, path: PathBuf, mapped: MappedFile) {
        self.state().published.insert(path, mapped);
    }

    /// Makes a published segment idle again. `false`: it is not of this pool.
    ///
    /// # Errors
    /// When it cannot be renamed or grown back; it is then gone from the pool.
    pub fn recycle(&self, path: &Path) -> io::Result<bool> {
        let Some(mapped) = self.state().published.remove(path) else { return Ok(false) };
        let idle_path = self.idle_path();
        fs::rename(path, &idle_path)?;
        let bytes = mapped.file.metadata()?.len();
        fill(&mapped.file, bytes, self.segment_bytes)?;
        self.state().idle.push((idle_path, mapped));
        Ok(true)
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_segment_keeps_its_mapping_and_is_whole_again() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::open(dir.path().join("pool"), 8192).unwrap();
        let path = dir.path().join("a");
        let mut mapped = pool.create(&path).unwrap();
        mapped.write(4096, b"hello").unwrap();
        assert!(mapped.write(8190, b"hello").is_err());
        assert_eq!(&fs::read(&path).unwrap()[4096..4101], b"hello");
        mapped.file().set_len(4101).unwrap();
        pool.keep(path.clone(), mapped);
        assert_eq!(pool.idle_bytes(), 0);
        assert!(pool.recycle(&path).unwrap() && !pool.recycle(&path).unwrap());
        assert_eq!(pool.idle_bytes(), 8192);
        let again = dir.path().join("b");
        let mut mapped = pool.reuse(&again).unwrap().unwrap();
        assert!(pool.reuse(&path).unwrap().is_none());
        mapped.write(8187, b"again").unwrap();
        let bytes = fs::read(&again).unwrap();
        assert_eq!((bytes.len(), &bytes[8187..]), (8192, &b"again"[..]));
    }
}
