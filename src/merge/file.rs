//! Files of the offline merge. Owns inputs that do not each hold a descriptor, and outputs that appear only when whole.
//!
//! Invariant: an output that is a regular file is complete under its name, or not there.

use super::MergeError;
use super::Totals;
use super::order::{Sink, Span, account};
use crate::limits::FULL_SNAPLEN;
use crate::pcap::format::file_header_of;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Output buffered before a write.
const WRITE_BYTES: usize = 1 << 20;

/// An input file. One that lets go is opened anew for each of the reader's big reads, so that any number can be merged.
#[derive(Debug)]
pub(super) enum Source {
    /// Holds its descriptor.
    Held(File),
    /// Holds none between reads.
    Reopened {
        path: PathBuf,
        /// Device and inode: another file under the name is not read.
        identity: (u64, u64),
        offset: u64,
    },
}

impl Source {
    pub(super) fn open(path: &Path, hold: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if hold || !metadata.is_file() {
            let _only_a_hint = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
            return Ok(Self::Held(file));
        }
        Ok(Self::Reopened { path: path.to_owned(), identity: identity(&metadata), offset: 0 })
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Held(file) => file.read(into),
            Self::Reopened { path, identity: known, offset } => {
                let file = File::open(path)?;
                if identity(&file.metadata()?) != *known {
                    return Err(io::Error::other("the file was replaced while it was being merged"));
                }
                let read = file.read_at(into, *offset)?;
                *offset += read as u64;
                Ok(read)
            }
        }
    }
}

/// What tells whether two names are of one file.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The file that a merge makes.
pub(super) struct Target {
    writer: BufWriter<Box<dyn Write>>,
    path: PathBuf,
    /// Where a regular file grows until it is whole.
    part: Option<Part>,
    pub(super) totals: Totals,
}

/// A file under a temporary name, removed unless renamed.
struct Part {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Target {
    /// Begins the file: standard output for `-`, a device or pipe as it is, anything else under a temporary name.
    pub(super) fn create(path: &Path, link_type: u16) -> Result<Self, MergeError> {
        let failed = |source| MergeError::Output { path: path.to_owned(), source };
        let mut part = None;
        let sink: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            Box::new(OpenOptions::new().write(true).open(path).map_err(failed)?)
        } else {
            let created = Part::create(path).map_err(failed)?;
            let file = created.file.try_clone().map_err(failed)?;
            part = Some(created);
            Box::new(file)
        };
        let mut writer = BufWriter::with_capacity(WRITE_BYTES, sink);
        let header = file_header_of(FULL_SNAPLEN, link_type);
        writer.write_all(&header).map_err(failed)?;
        let totals = Totals { objects: 1, bytes: header.len() as u64, ..Totals::default() };
        Ok(Self { writer, path: path.to_owned(), part, totals })
    }

    /// Makes the file durable and visible.
    pub(super) fn finish(mut self) -> Result<Totals, MergeError> {
        let path = self.path.clone();
        self.publish().map_err(|source| MergeError::Output { path, source })?;
        Ok(self.totals)
    }

    fn publish(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        let Some(part) = &mut self.part else { return Ok(()) };
        part.file.sync_all()?;
        std::fs::rename(&part.path, &self.path)?;
        part.kept = true;
        File::open(directory(&self.path))?.sync_all()
    }
}

impl Sink for Target {
    #[inline]
    fn room(&mut self, _record_bytes: usize) -> Result<usize, MergeError> {
        Ok(usize::MAX)
    }

    #[inline]
    fn append(&mut self, head: &[u8], tail: &[u8], span: Span) -> Result<(), MergeError> {
        let Totals { packets, bytes, first_ns, last_ns, disorder, .. } = &mut self.totals;
        *disorder += account(packets, first_ns, last_ns, span);
        *bytes += (head.len() + tail.len()) as u64;
        let written = self.writer.write_all(head).and_then(|()| self.writer.write_all(tail));
        written.map_err(|source| MergeError::Output { path: self.path.clone(), source })
    }
}

impl Part {
    fn create(path: &Path) -> io::Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no file name"));
        };
        let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let path = directory(path).join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Self { path, file, kept: false })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            let _nothing_more_can_be_done = std::fs::remove_file(&self.path);
        }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
