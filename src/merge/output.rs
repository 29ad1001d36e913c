//! Where a merged file goes. Owns the resolution of what was typed: standard output, what is not a regular file, or a file.
//!
//! Invariant: only a regular file, or one that is not there yet, is ever replaced; a link stays a link.

use super::file::identity;
use super::part::{Part, directory};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Symbolic links followed, as many as Linux does.
const LINKS_MAX: usize = 40;

/// Where a merged file goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// `-`, or a name of this process's standard output.
    Standard,
    /// A device, a pipe, another descriptor of this process: written as it is.
    AsItIs(PathBuf),
    /// A regular file, whether it is there or not; no link.
    File(PathBuf),
}

/// Whether a name is one of standard output: `-`, `/dev/stdout`, `/dev/fd/1`.
#[must_use]
pub fn is_standard_output(path: &Path) -> bool {
    matches!(Output::resolve(path), Ok(Output::Standard))
}

impl Output {
    /// Follows links to what is meant.
    pub(super) fn resolve(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Standard);
        }
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            if is_descriptor(&path) {
                let is_standard = path.file_name().is_some_and(|name| name == "1");
                return Ok(if is_standard { Self::Standard } else { Self::AsItIs(path) });
            }
            match std::fs::read_link(&path) {
                Ok(target) => path = directory(&path).join(target),
                Err(_) => {
                    let is_special = path.metadata().is_ok_and(|metadata| !metadata.is_file());
                    return Ok(if is_special { Self::AsItIs(path) } else { Self::File(path) });
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "too many symbolic links"))
    }

    /// What to write to; a [`Part`] where the file gets its name at the end.
    pub(super) fn open(&self) -> io::Result<(File, Option<Part>)> {
        match self {
            Self::Standard => Ok((standard_output()?, None)),
            Self::AsItIs(path) => Ok((OpenOptions::new().write(true).open(path)?, None)),
            Self::File(path) => {
                let part = Part::create(path)?;
                Ok((part.file()?, Some(part)))
            }
        }
    }

    /// Device and inode, if it is a regular file that is there.
    pub(super) fn identity(&self) -> Option<(u64, u64)> {
        let metadata = match self {
            Self::Standard => standard_output().and_then(|file| file.metadata()),
            Self::AsItIs(path) | Self::File(path) => path.metadata(),
        };
        metadata.ok().filter(Metadata::is_file).map(|metadata| identity(&metadata))
    }
}

/// Standard output without the line buffer that the standard library puts before it.
fn standard_output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Whether a path stands in the directory of this process's descriptors.
fn is_descriptor(path: &Path) -> bool {
    let Ok(directory) = directory(path).canonicalize() else { return false };
    directory == Path::new(&format!("/proc/{}/fd", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_are_followed_to_what_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("real.pcap", at("link")).unwrap();
        symlink(at("link"), at("second")).unwrap();
        symlink("/dev/stdout", at("out")).unwrap();
        symlink("loop", at("loop")).unwrap();
        for name in ["link", "second", "real.pcap"] {
            assert_eq!(Output::resolve(&at(name)).unwrap(), Output::File(at("real.pcap")));
        }
        std::fs::write(at("real.pcap"), "there").unwrap();
        assert_eq!(Output::resolve(&at("second")).unwrap(), Output::File(at("real.pcap")));
        for path in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", at("out").to_str().unwrap()] {
            assert!(is_standard_output(Path::new(path)), "{path}");
        }
        for path in ["/dev/null", "/dev/stderr", "/dev/fd/2"] {
            assert!(matches!(Output::resolve(Path::new(path)), Ok(Output::AsItIs(_))), "{path}");
        }
        assert!(Output::resolve(&at("loop")).is_err());
    }
}
