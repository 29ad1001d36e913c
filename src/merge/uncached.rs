//! Reading a file once without keeping it in the page cache. Owns what is given back and when.
//!
//! Read-ahead stays, because the merge reads one stream while the disk fetches the next bytes of it. `O_DIRECT` would have to
//! replace it by threads and buffers of its own.
//!
//! Invariant: only what was read through this reader, and what the system read ahead of it, leaves the page cache.

use crate::limits::PAGE_BYTES;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::num::NonZeroU64;

/// Bytes read between two returns.
const STEP_BYTES: u64 = 8 << 20;

/// Reads bytes of a file.
#[derive(Debug)]
pub(super) struct Uncached {
    file: Take<File>,
    read: u64,
    /// Pages before this place are given back.
    returned: u64,
}

impl Uncached {
    /// Of a file that was just opened, its first `bytes` bytes from a place on.
    pub(super) fn behind(mut file: File, at: u64, bytes: u64) -> io::Result<Self> {
        let _only_a_hint = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        file.seek(SeekFrom::Start(at))?;
        let returned = at - at % PAGE_BYTES as u64;
        Ok(Self { file: file.take(bytes.saturating_sub(at)), read: at, returned })
    }

    /// Gives back the pages from the last return up to `end`; none: to the file's end.
    fn give_back(&mut self, end: Option<u64>) {
        let len = end.map_or(Some(None), |end| NonZeroU64::new(end - self.returned).map(Some));
        if let Some(len) = len {
            let file = self.file.get_ref();
            let _only_a_hint = rustix::fs::fadvise(file, self.returned, len, rustix::fs::Advice::DontNeed);
        }
        self.returned = end.unwrap_or(self.read);
    }
}

impl Read for Uncached {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.read += read as u64;
        if self.read - self.returned >= STEP_BYTES {
            self.give_back(Some(self.read - self.read % PAGE_BYTES as u64));
        }
        Ok(read)
    }
}

impl Drop for Uncached {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    use std::io::IoSliceMut;
    use std::path::Path;

    /// Whether a page is in the page cache; none if the file system does not tell.
    fn is_cached(file: &File, at: u64) -> Option<bool> {
        let mut page = [0; PAGE_BYTES];
        let read = preadv2(file, &mut [IoSliceMut::new(&mut page)], at, ReadWriteFlags::NOWAIT);
        match read {
            Ok(_) => Some(true),
            Err(Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    #[test]
    fn what_was_read_once_leaves_the_page_cache() {
        // A file of memory never leaves it, and temporary ones may be that.
        let dir = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).unwrap();
        let path = dir.path().join("segment");
        let bytes = 2 * STEP_BYTES + 100_000;
        std::fs::write(&path, vec![7; bytes as usize]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        if is_cached(&file, 0) != Some(true) {
            crate::skip::skip("a file system that tells what is cached", "put target/ on ext4, xfs or btrfs");
            return;
        }
        let mut uncached = Uncached::behind(File::open(&path).unwrap(), 0, bytes - 10).unwrap();
        let mut all = Vec::new();
        uncached.by_ref().take(STEP_BYTES + 5).read_to_end(&mut all).unwrap();
        assert_eq!(is_cached(&file, 0), Some(false), "while it is read");
        uncached.read_to_end(&mut all).unwrap();
        assert_eq!((all.len() as u64, all.iter().all(|byte| *byte == 7)), (bytes - 10, true));
        drop(uncached);
        assert_eq!(is_cached(&file, STEP_BYTES + 40_960), Some(false), "at the end");
    }
}
