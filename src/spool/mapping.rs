//! The one file that maps files: a pool of segments that were written once, stay mapped, and are used again. Owns the
//! mappings, each with its file's charge; not which stream a segment serves.
//!
//! Fresh file mappings cost about one core-second per GB (every page faults, is zeroed and written twice); a segment
//! whose pages are in place costs a quarter of that. So files are filled with zeros once and recycled.
//!
//! Invariant: a mapped file is never shorter than its mapping while anyone writes through it: files are allocated
//! before they are mapped, cut only after their last write, and grown back before they are used again. A file that has a
//! second name is never used again.
#![allow(unsafe_code)]

use super::account::Account;
use super::files::Files;
use super::quota::{Charge, Share};
use crate::block::copy_past_cache;
use memmap2::{MmapMut, MmapOptions};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that a file is filled with at a time. The page cache makes folios as large as the writes are, and after a write-back ext4
/// walks a whole folio's buffers for each page of it that is written again: 2.0 core-seconds for a GB with folios of 1 MiB, 0.6 to
/// 0.8 with folios of 64 to 256 KiB. Smaller ones cost more to fill.
const FILL_BYTES: usize = 128 << 10;

/// A segment file with its mapping.
#[derive(Debug)]
pub struct MappedFile {
    file: Arc<File>,
    map: MmapMut,
    charge: Charge,
}

impl MappedFile {
    fn map(file: File, charge: Charge) -> Result<Self, (io::Error, Charge)> {
        // SAFETY: the file is ours (0600 in a 0700 directory, made by `Pool::create`), wholly allocated, and by the module's invariant never
        // cut while this mapping is written.
        match unsafe { MmapOptions::new().populate().map_mut(&file) } {
            Ok(map) => Ok(Self { file: Arc::new(file), map, charge }),
            Err(e) => Err((e, charge)),
        }
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Unmaps it: the file and its charge.
    pub(super) fn unmap(self) -> (Arc<File>, Charge) {
        (self.file, self.charge)
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
fn fill(files: &Files, file: &File, path: &Path, from: u64, to: u64) -> io::Result<()> {
    if to > from {
        files.allocate(file, path, from, to - from)?;
        let zeros = vec![0_u8; FILL_BYTES];
        let mut at = from;
        while at < to {
            let step = (to - at).min(zeros.len() as u64);
            files.write_at(file, path, &zeros[..usize::try_from(step).unwrap_or(zeros.len())], at)?;
            at += step;
        }
    }
    Ok(())
}

/// What there is for a new segment.
#[derive(Debug)]
pub(super) enum Reused {
    /// An idle one.
    Mapped(MappedFile),
    /// Its tenant has no room for one.
    ShareFull,
    /// None is idle.
    None,
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
    account: Arc<Account>,
    state: Mutex<State>,
}

impl Pool {
    /// An empty pool in `dir`, which does not exist.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub(super) fn open(dir: PathBuf, segment_bytes: u64, account: Arc<Account>) -> io::Result<Self> {
        fs::create_dir(&dir)?;
        Ok(Self { dir, segment_bytes, account, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that one segment of this pool occupies.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// An idle segment, moved to `path` and charged to `share`.
    ///
    /// # Errors
    /// When it cannot be renamed; it is then still idle.
    pub(super) fn reuse(&self, path: &Path, share: Option<&Arc<Share>>) -> io::Result<Reused> {
        let Some((idle, mut mapped)) = self.state().idle.pop() else { return Ok(Reused::None) };
        if share.is_some_and(|share| !mapped.charge.try_assign(share)) {
            self.state().idle.push((idle, mapped));
            return Ok(Reused::ShareFull);
        }
        if let Err(e) = self.account.files().rename(&idle, path) {
            mapped.charge.assign(None);
            self.state().idle.push((idle, mapped));
            return Err(e);
        }
        Ok(Reused::Mapped(mapped))
    }

    /// Makes the published segments below `dir` a tenant's.
    pub(super) fn assign(&self, dir: &Path, share: &Arc<Share>) {
        let mut state = self.state();
        for (_, mapped) in state.published.iter_mut().filter(|(path, _)| path.starts_with(dir)) {
            mapped.charge.assign(Some(Arc::clone(share)));
        }
    }

    /// Bytes of published segments below `dir`.
    pub(super) fn bytes_below(&self, dir: &Path) -> u64 {
        let state = self.state();
        let below = state.published.iter().filter(|(path, _)| path.starts_with(dir));
        below.map(|(_, mapped)| mapped.charge.bytes()).sum()
    }

    /// A new segment at `path`, which `charge` pays for.
    ///
    /// # Errors
    /// When the disk is full or refuses; then there is no file.
    pub(super) fn create(&self, path: &Path, charge: Charge) -> io::Result<MappedFile> {
        let files = self.account.files();
        let file = files.open(OpenOptions::new().read(true).write(true).create_new(true), path)?;
        let filled = fill(files, &file, path, 0, self.segment_bytes);
        let made = match filled {
            Ok(()) => MappedFile::map(file, charge),
            Err(e) => Err((e, charge)),
        };
        made.map_err(|(e, charge)| {
            self.account.discard(path.to_owned(), Some(charge));
            e
        })
    }

    /// Writes one more idle segment. `false`: the quota has no room for it.
    ///
    /// # Errors
    /// When the disk is full or refuses.
    pub fn fill(&self) -> io::Result<bool> {
        let mut charge = Charge::none(self.account.quota());
        if !charge.grow(self.segment_bytes) {
            return Ok(false);
        }
        let path = self.idle_path();
        let mapped = self.create(&path, charge)?;
        self.state().idle.push((path, mapped));
        Ok(true)
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

    /// Keeps the mapping of a segment of `bytes` bytes that is now published under `path`.
    pub fn keep(&self, path: PathBuf, mut mapped: MappedFile, bytes: u64) {
        mapped.charge.set(bytes);
        self.state().published.insert(path, mapped);
    }

    /// Lets go of the mappings of segments below `dir`, whose charges go to the caller.
    pub(super) fn let_go(&self, dir: &Path) -> Vec<(PathBuf, Charge)> {
        let below = self.state().published.extract_if(|path, _| path.starts_with(dir)).collect::<Vec<_>>();
        below.into_iter().map(|(path, mapped)| (path, mapped.unmap().1)).collect()
    }

    /// Frees a published segment: it is idle again, or gone where it cannot be. `false`: it is not of this pool.
    ///
    /// # Errors
    /// When it can be neither moved nor removed; it is then published still.
    pub fn recycle(&self, path: &Path) -> io::Result<bool> {
        let Some(mut mapped) = self.state().published.remove(path) else { return Ok(false) };
        let (idle, files) = (self.idle_path(), self.account.files());
        if files.rename(path, &idle).is_err() {
            return match files.remove(path) {
                Ok(()) => Ok(true),
                Err(e) => {
                    self.state().published.insert(path.to_owned(), mapped);
                    Err(e)
                }
            };
        }
        mapped.charge.assign(None);
        // Under another name it is somebody's object. From here on nobody can give it one: its own is not known to others. This is a
        // second look: where segments are used again, deliveries link none (`Spool::recycles`). So one that cannot be had costs nothing.
        let is_ours_alone = !mapped.file.metadata().is_ok_and(|metadata| metadata.nlink() > 1);
        // The tail that was cut off when it was published.
        let bytes = mapped.charge.bytes();
        let has_room = is_ours_alone && mapped.charge.grow(self.segment_bytes.saturating_sub(bytes));
        if has_room && fill(files, &mapped.file, &idle, bytes, self.segment_bytes).is_ok() {
            self.state().idle.push((idle, mapped));
            return Ok(true);
        }
        // One that cannot be removed either stays charged for what it has.
        let has = mapped.file.metadata().map_or(self.segment_bytes, |metadata| metadata.len());
        mapped.charge.set(has);
        self.account.discard(idle, Some(mapped.unmap().1));
        Ok(true)
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::super::quota::Quota;
    use super::*;

    #[test]
    fn a_recycled_segment_keeps_its_mapping_and_is_whole_again() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Arc::new(Quota::new(1 << 20, 1 << 20, 1 << 20));
        let account = Account::open(dir.path(), Arc::clone(&quota), Files::default()).unwrap();
        let pool = Pool::open(dir.path().join("pool"), 8192, Arc::new(account)).unwrap();
        let path = dir.path().join("a");
        let mut mapped = pool.create(&path, Charge::of_file(&quota, 8192)).unwrap();
        mapped.write(4096, b"hello").unwrap();
        assert!(mapped.write(8190, b"hello").is_err());
        assert_eq!(&fs::read(&path).unwrap()[4096..4101], b"hello");
        mapped.file().set_len(4101).unwrap();
        pool.keep(path.clone(), mapped, 4101);
        assert_eq!((pool.idle_bytes(), quota.used()), (0, 4101));
        assert!(pool.recycle(&path).unwrap() && !pool.recycle(&path).unwrap());
        assert_eq!((pool.idle_bytes(), quota.used()), (8192, 8192));
        let again = dir.path().join("b");
        let share = quota.share("a");
        let Reused::Mapped(mut mapped) = pool.reuse(&again, Some(&share)).unwrap() else {
            panic!("none is idle")
        };
        assert_eq!(share.used(), 8192);
        assert!(matches!(pool.reuse(&path, None).unwrap(), Reused::None));
        mapped.write(8187, b"again").unwrap();
        let bytes = fs::read(&again).unwrap();
        assert_eq!((bytes.len(), &bytes[8187..]), (8192, &b"again"[..]));
        drop(mapped);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn a_segment_that_has_another_name_too_is_never_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Arc::new(Quota::new(1 << 20, 1 << 20, 1 << 20));
        let account = Account::open(dir.path(), Arc::clone(&quota), Files::default()).unwrap();
        let pool = Pool::open(dir.path().join("pool"), 8192, Arc::new(account)).unwrap();
        let (path, object) = (dir.path().join("a"), dir.path().join("object"));
        let mut mapped = pool.create(&path, Charge::of_file(&quota, 8192)).unwrap();
        mapped.write(0, b"hello").unwrap();
        mapped.file().set_len(5).unwrap();
        pool.keep(path.clone(), mapped, 5);
        fs::hard_link(&path, &object).unwrap();
        assert!(pool.recycle(&path).unwrap());
        assert_eq!((pool.idle_bytes(), quota.used()), (0, 0));
        assert!(matches!(pool.reuse(&path, None).unwrap(), Reused::None));
        assert_eq!(
            (fs::read(&object).unwrap(), fs::metadata(&object).unwrap().nlink()),
            (b"hello".to_vec(), 1)
        );
    }
}
