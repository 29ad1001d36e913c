//! Objects held against their manifest. Owns what is checked and the findings; not how they are printed.
//!
//! Each object is read once: its bytes are hashed on the way into the pcap reader, so files of any size cost bounded memory.
//!
//! Invariant: nothing in the manifest or in the files is trusted; whatever is wrong is a finding with the file's name.

use super::manifest::{Manifest, ManifestError, manifest_name};
use crate::capture::{Imbalance, ObjectInfo};
use crate::pcap::{ReadError, Reader};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest manifest that is read: a million objects' worth.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// Why objects could not be held against a manifest at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The manifest or its folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The manifest is none.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ManifestError,
    },
}

/// Something that is not as the manifest says.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// The object is not beside the manifest.
    #[error("{name}: missing; fetch it from the bucket")]
    Missing {
        /// The object.
        name: String,
    },
    /// The object cannot be opened or read.
    #[error("{name}: cannot be read: {source}")]
    Unreadable {
        /// The object.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The object is no pcap file, or stops being one.
    #[error("{name}: {source}")]
    Pcap {
        /// The object.
        name: String,
        /// Where and how.
        source: ReadError,
    },
    /// A figure of an object differs.
    #[error("{name}: {what} is {held}, the manifest says {expected}")]
    Differs {
        /// The object.
        name: String,
        /// What was compared.
        what: &'static str,
        /// As found.
        held: String,
        /// As the manifest says.
        expected: String,
    },
    /// Packets inside an object are out of order.
    #[error("{name}: {records} packets are older than the one before them, first packet {first}")]
    Disorder {
        /// The object.
        name: String,
        /// How many.
        records: u64,
        /// The first of them, from 1.
        first: u64,
    },
    /// An object begins before the last one ended.
    #[error("{name}: begins at {first_ns} ns, before the end of the objects before it at {end_ns} ns")]
    Overlap {
        /// The object.
        name: String,
        /// Its first packet's time.
        first_ns: u64,
        /// The newest packet before it.
        end_ns: u64,
    },
    /// A file has the capture's name and is not in the manifest.
    #[error("{name}: is not in the manifest")]
    Foreign {
        /// The file.
        name: String,
    },
    /// The objects' sum differs from the ledger.
    #[error("the objects hold {held} {what}, the ledger says {expected}")]
    Sum {
        /// `packets` or `frame bytes`.
        what: &'static str,
        /// As found.
        held: u64,
        /// As the ledger says.
        expected: u64,
    },
    /// The ledger contradicts itself.
    #[error("ledger: {0}")]
    Ledger(#[from] Imbalance),
}

/// What happens during a check, for those who watch.
#[derive(Debug)]
pub enum Step<'a> {
    /// So many bytes will be read, if the manifest is right.
    Begin(u64),
    /// So many more bytes are read.
    Read(u64),
    /// An object is done; its findings, if any.
    Object(&'a ObjectInfo, &'a [Finding]),
}

/// The result of a check.
#[derive(Debug)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// Packets in the objects that were there.
    pub packets: u64,
    /// Everything that is wrong; nothing if the capture is whole.
    pub findings: Vec<Finding>,
}

/// Holds the objects beside a manifest against it.
///
/// # Errors
/// [`VerifyError`] when there is no readable manifest. What is wrong with objects is a finding, not an error.
pub fn verify(path: &Path, watch: &mut dyn FnMut(Step<'_>)) -> Result<Verified, VerifyError> {
    let unreadable = |source| VerifyError::Read { path: path.to_owned(), source };
    let mut json = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MANIFEST_BYTES_MAX).read_to_end(&mut json))
        .map_err(unreadable)?;
    let manifest =
        Manifest::parse(&json).map_err(|source| VerifyError::Manifest { path: path.to_owned(), source })?;
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    watch(Step::Begin(manifest.objects.iter().fold(0, |sum: u64, object| sum.saturating_add(object.bytes))));

    let mut findings = Vec::new();
    let (mut packets, mut frame_bytes, mut end_ns) = (0, 0, 0);
    for object in &manifest.objects {
        let from = findings.len();
        if let Some(found) = examine(dir, object, &mut findings, watch) {
            packets += found.packets;
            frame_bytes += found.frame_bytes;
            if found.packets > 0 && found.first_ns < end_ns {
                findings.push(Finding::Overlap {
                    name: object.name.clone(),
                    first_ns: found.first_ns,
                    end_ns,
                });
            }
            end_ns = end_ns.max(found.newest_ns);
        }
        watch(Step::Object(object, &findings[from..]));
    }
    foreign(dir, path, &manifest, &mut findings)?;
    let ledger = &manifest.ledger;
    for (what, held, expected) in
        [("packets", packets, ledger.captured), ("frame bytes", frame_bytes, ledger.captured_bytes)]
    {
        if held != expected {
            findings.push(Finding::Sum { what, held, expected });
        }
    }
    if let Err(imbalance) = ledger.check() {
        findings.push(imbalance.into());
    }
    Ok(Verified { manifest, packets, findings })
}

/// What an object turned out to hold.
#[derive(Debug, Default)]
struct Found {
    packets: u64,
    frame_bytes: u64,
    first_ns: u64,
    last_ns: u64,
    /// The newest packet's time: the last one's if they are in order.
    newest_ns: u64,
    disorder: u64,
    disorder_first: u64,
}

/// Reads an object once and compares everything; none if it is not there.
fn examine(
    dir: &Path,
    object: &ObjectInfo,
    findings: &mut Vec<Finding>,
    watch: &mut dyn FnMut(Step<'_>),
) -> Option<Found> {
    let name = &object.name;
    let file = match open_regular(&dir.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.push(Finding::Missing { name: name.clone() });
            return None;
        }
        Err(source) => {
            findings.push(Finding::Unreadable { name: name.clone(), source });
            return None;
        }
    };
    let mut bytes = Hashed { source: file, digest: Sha256::new(), bytes: 0, watch };
    let mut found = Found::default();
    if let Err(source) = read_records(&mut bytes, &mut found) {
        findings.push(Finding::Pcap { name: name.clone(), source });
    }
    // What the pcap reader left behind an error also belongs to the size and the checksum.
    if let Err(source) = io::copy(&mut bytes, &mut io::sink()) {
        findings.push(Finding::Unreadable { name: name.clone(), source });
        return Some(found);
    }
    let sha256: String = bytes.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    for (what, held, expected) in [
        ("size in bytes", bytes.bytes.to_string(), object.bytes.to_string()),
        ("sha256", sha256, object.sha256.clone()),
        ("number of packets", found.packets.to_string(), object.packets.to_string()),
        ("first packet's time in ns", found.first_ns.to_string(), object.first_ns.to_string()),
        ("last packet's time in ns", found.last_ns.to_string(), object.last_ns.to_string()),
    ] {
        if held != expected {
            findings.push(Finding::Differs { name: name.clone(), what, held, expected });
        }
    }
    if found.disorder > 0 {
        let (records, first) = (found.disorder, found.disorder_first);
        findings.push(Finding::Disorder { name: name.clone(), records, first });
    }
    Some(found)
}

fn read_records(bytes: impl Read, found: &mut Found) -> Result<(), ReadError> {
    let mut reader = Reader::new(bytes)?;
    while let Some(record) = reader.next_record()? {
        found.packets += 1;
        found.frame_bytes += record.data.len() as u64;
        if found.packets == 1 {
            found.first_ns = record.ns;
        } else if record.ns < found.last_ns {
            found.disorder += 1;
            if found.disorder == 1 {
                found.disorder_first = found.packets;
            }
        }
        found.last_ns = record.ns;
        found.newest_ns = found.newest_ns.max(record.ns);
    }
    Ok(())
}

/// Opens a file, and nothing that only looks like one: a pipe would be waited for.
fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// Files of the capture's name that the manifest does not know.
fn foreign(
    dir: &Path,
    path: &Path,
    manifest: &Manifest,
    findings: &mut Vec<Finding>,
) -> Result<(), VerifyError> {
    let prefix = format!("pcap_{}", manifest.id);
    let own = manifest_name(&manifest.id);
    let unreadable = |source| VerifyError::Read { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let known = |name: &str| name == own || manifest.objects.iter().any(|object| object.name == name);
        if Some(name.as_os_str()) == path.file_name() {
            continue;
        }
        let name = name.to_string_lossy();
        if name.starts_with(&prefix) && !known(&name) {
            names.push(name.into_owned());
        }
    }
    names.sort();
    findings.extend(names.into_iter().map(|name| Finding::Foreign { name }));
    Ok(())
}

/// Hashes and counts what is read through it.
struct Hashed<'a> {
    source: File,
    digest: Sha256,
    bytes: u64,
    watch: &'a mut dyn FnMut(Step<'_>),
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(buffer)?;
        self.digest.update(&buffer[..len]);
        self.bytes += len as u64;
        (self.watch)(Step::Read(len as u64));
        Ok(len)
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
