//! Checks objects in a directory or a bucket against their manifest. Owns the checks and the findings; not their printing.
//!
//! Each object is read once: its bytes are hashed on the way into the pcap reader, so files of any size cost bounded memory.
//!
//! Invariant: nothing in the manifest or in the files is trusted; whatever is wrong is a finding with the file's name.

use super::manifest::{
    MANIFEST_BYTES_MAX, Manifest, ManifestError, manifest_name, signature_name, stamp_name,
};
use super::sign::{PublicKey, SIGNATURE_BYTES};
use super::stamped::stamped;
use crate::job::{CaptureId, Imbalance, ObjectInfo, PartId};
use crate::pcap::{Compression, Container, ReadError, Reader, Unpacked};
use crate::stamp::{Anchors, Stamp, StampError};
use crate::upload::{ObjectStore, UploadError};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes per request to a bucket: large enough to hide the round trip, and the bound on memory.
const PIECE_BYTES: u64 = 8 << 20;
/// Smallest request.
const PIECE_BYTES_MIN: u64 = 256 << 10;

/// Why objects could not be checked at all.
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
    /// It is the manifest of another capture than its name says.
    #[error(
        "{} is the manifest of capture {id}, whose name is {expected}: it was renamed, or put in the place of another one; \
         nothing that it says counts for this name",
        path.display()
    )]
    Name {
        /// The file.
        path: PathBuf,
        /// The capture that it is of.
        id: CaptureId,
        /// The name that it must have.
        expected: String,
    },
    /// The file is no manifest.
    #[error("{}: {source}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ManifestError,
    },
}

/// A difference from the manifest.
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
    /// The object is no pcap or pcapng file, or stops being one.
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
    /// The manifest is not signed, and a signature is required.
    #[error("{name}: missing; the manifest is not signed, or its signature was removed")]
    Unsigned {
        /// The signature's file.
        name: String,
    },
    /// The signature is not of this manifest and this key.
    #[error("{name}: is not the signature of this manifest by this key; do not trust what the manifest says")]
    Signature {
        /// The signature's file.
        name: String,
    },
    /// The manifest is not time-stamped, and a time stamp is required.
    #[error("{name}: missing; the manifest was not time-stamped, or its time stamp was removed")]
    Unstamped {
        /// The time stamp's file.
        name: String,
    },
    /// The time stamp is not of this manifest and this authority.
    #[error("{name}: {source}")]
    Stamp {
        /// The time stamp's file.
        name: String,
        /// What is wrong.
        source: StampError,
    },
    /// A host's manifest is not there, is none, or says another thing than the fleet's.
    #[error("{name}: {why}")]
    Part {
        /// The host's manifest.
        name: String,
        /// Why it cannot be checked.
        why: String,
    },
    /// The ledger of a fleet is not the sum of its hosts'.
    #[error("the ledger is not the sum of the hosts' ledgers")]
    HostSum,
    /// The time stamp is of a time before the capture ended, which the manifest already tells of.
    #[error(
        "{name}: says {time}, and the manifest that was stamped then says that the capture ended at {ended}: the host's clock or the \
         authority's was wrong"
    )]
    Early {
        /// The time stamp's file.
        name: String,
        /// As the authority says.
        time: Timestamp,
        /// As the manifest says.
        ended: Timestamp,
    },
    /// The ledger contradicts itself.
    #[error("ledger: {0}")]
    Ledger(#[from] Imbalance),
}

/// Progress of a check.
#[derive(Debug)]
pub enum Step<'a> {
    /// Bytes that will be read, if the manifest is right.
    Begin(u64),
    /// Bytes read since the last report.
    Read(u64),
    /// An object is done; its findings, if any.
    Object(&'a ObjectInfo, &'a [Finding]),
}

/// The result of a check.
#[derive(Debug)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// Packets in the objects found.
    pub packets: u64,
    /// All findings; none if the capture is whole.
    pub findings: Vec<Finding>,
    /// What the manifest's time stamp says, if one was wanted and is right.
    pub stamp: Option<Stamp>,
}

/// Where a manifest and its objects are.
pub trait Place {
    /// A stream of the object's bytes; `NotFound` if there is none of that name.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn open<'a>(&'a self, name: &str) -> io::Result<Box<dyn Read + 'a>>;

    /// Names that begin with `prefix`, sorted.
    ///
    /// # Errors
    /// Why they cannot be listed.
    fn list(&self, prefix: &str) -> io::Result<Vec<String>>;

    /// The place for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A directory.
pub struct Directory(PathBuf);

impl Directory {
    /// The directory of a file, and the file's name.
    #[must_use]
    pub fn of(path: &Path) -> (Self, String) {
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        (Self(dir.to_owned()), path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }
}

impl Place for Directory {
    fn open<'a>(&'a self, name: &str) -> io::Result<Box<dyn Read + 'a>> {
        Ok(Box::new(open_regular(&self.path(name))?))
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(prefix) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A store, for blocking code: each read waits on the given runtime.
pub struct Bucket<'a> {
    /// The store.
    pub store: &'a dyn ObjectStore,
    /// The runtime of its requests; never that of the reading thread.
    pub runtime: &'a tokio::runtime::Runtime,
    /// Its name in messages.
    pub uri: String,
}

impl Place for Bucket<'_> {
    fn open<'a>(&'a self, name: &str) -> io::Result<Box<dyn Read + 'a>> {
        self.stream(name, PIECE_BYTES)
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        self.runtime.block_on(self.store.list(prefix)).map_err(io::Error::other)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{name} in {}", self.uri))
    }
}

impl Bucket<'_> {
    /// A stream of the object's bytes, of which about `piece_bytes` are in memory; `NotFound` if there is none of that name.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn stream<'a>(&'a self, name: &str, piece_bytes: u64) -> io::Result<Box<dyn Read + 'a>> {
        let size = self.runtime.block_on(self.store.size(name)).map_err(io::Error::other)?;
        let size = size.ok_or(io::ErrorKind::NotFound)?;
        let piece_bytes = piece_bytes.clamp(PIECE_BYTES_MIN, PIECE_BYTES);
        Ok(Box::new(Stream {
            bucket: self,
            name: name.to_owned(),
            from: 0,
            size,
            piece_bytes,
            piece: Bytes::new(),
        }))
    }
}

/// An object read piece by piece.
struct Stream<'a> {
    bucket: &'a Bucket<'a>,
    name: String,
    from: u64,
    size: u64,
    piece_bytes: u64,
    piece: Bytes,
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.from < self.size {
            let read = self.bucket.store.read(&self.name, self.from, self.piece_bytes);
            self.piece = self.bucket.runtime.block_on(read).map_err(|error| match error {
                UploadError::NotFound { .. } => io::ErrorKind::NotFound.into(),
                error => io::Error::other(error),
            })?;
            self.from += self.piece.len() as u64;
        }
        let len = into.len().min(self.piece.len());
        into[..len].copy_from_slice(&self.piece.split_to(len));
        Ok(len)
    }
}

/// Checks the objects beside a manifest in a directory.
///
/// # Errors
/// [`VerifyError`] when there is no readable manifest. A damaged object is a finding, not an error.
pub fn verify(path: &Path, watch: &mut dyn FnMut(Step<'_>)) -> Result<Verified, VerifyError> {
    verify_file(path, None, watch)
}

/// As [`verify`]; with a key, the manifest must also be signed by it.
///
/// # Errors
/// As [`verify`].
pub fn verify_file(
    path: &Path,
    key: Option<&PublicKey>,
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<Verified, VerifyError> {
    let (dir, name) = Directory::of(path);
    verify_at(&dir, &name, &Wanted { key, anchors: None }, watch)
}

/// Who must vouch for a manifest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// It must be signed by this key.
    pub key: Option<&'a PublicKey>,
    /// It must be time-stamped by an authority for which one of these vouches.
    pub anchors: Option<&'a Anchors>,
}

/// Checks the objects of a place against its manifest `name`, which must also be vouched for.
///
/// # Errors
/// As [`verify`].
pub fn verify_at(
    place: &dyn Place,
    name: &str,
    wanted: &Wanted<'_>,
    watch: &mut dyn FnMut(Step<'_>),
) -> Result<Verified, VerifyError> {
    let (manifest, json) = read(place, name)?;
    let fault = wanted.key.and_then(|key| signed(place, &manifest.part(), &json, key));
    let stamped = wanted.anchors.map(|anchors| stamped(place, &manifest, &json, anchors));
    let (stamp, unstamped) = match stamped {
        Some(Ok(stamp)) => (Some(stamp), None),
        Some(Err(finding)) => (None, Some(finding)),
        None => (None, None),
    };
    watch(Step::Begin(manifest.objects.iter().fold(0, |sum: u64, object| sum.saturating_add(object.bytes))));

    let mut findings: Vec<_> = fault.into_iter().chain(unstamped).collect();
    let (mut packets, mut frame_bytes, mut end_ns) = (0, 0, 0);
    for object in &manifest.objects {
        let from = findings.len();
        if let Some(found) =
            examine(place, (manifest.format, manifest.compression), object, &mut findings, watch)
        {
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
    foreign(place, name, &manifest, &mut findings)?;
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
    Ok(Verified { manifest, packets, findings, stamp })
}

/// The manifest `name` of a place; with a key, also the fault of its signature.
///
/// # Errors
/// [`VerifyError`] when it cannot be read, is none, or is of another name.
pub fn read_manifest(
    place: &dyn Place,
    name: &str,
    key: Option<&PublicKey>,
) -> Result<(Manifest, Option<Finding>), VerifyError> {
    let (manifest, json) = read(place, name)?;
    let fault = key.and_then(|key| signed(place, &manifest.part(), &json, key));
    Ok((manifest, fault))
}

/// The text of a manifest.
pub(super) fn read_text(place: &dyn Place, name: &str) -> Result<Vec<u8>, VerifyError> {
    let mut json = Vec::new();
    place
        .open(name)
        .and_then(|file| file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut json))
        .and_then(|bytes| {
            let message = format!("it has more than the {MANIFEST_BYTES_MAX} bytes that a manifest may have");
            if bytes as u64 > MANIFEST_BYTES_MAX { Err(io::Error::other(message)) } else { Ok(()) }
        })
        .map_err(|source| VerifyError::Read { path: place.path(name), source })?;
    Ok(json)
}

/// A manifest with its text, which is read once: a bucket's owner may answer otherwise the next time.
fn read(place: &dyn Place, name: &str) -> Result<(Manifest, Vec<u8>), VerifyError> {
    let (path, json) = (|| place.path(name), read_text(place, name)?);
    let manifest = Manifest::parse(&json).map_err(|source| VerifyError::Manifest { path: path(), source })?;
    let expected = manifest_name(&manifest.part());
    if name != expected {
        return Err(VerifyError::Name { path: path(), id: manifest.id, expected });
    }
    Ok((manifest, json))
}

/// The signature's fault, if it has one.
pub(super) fn signed(place: &dyn Place, part: &PartId, json: &[u8], key: &PublicKey) -> Option<Finding> {
    let name = signature_name(part);
    let mut signature = Vec::new();
    let read = place.open(&name).and_then(|file| {
        // One byte more than any signature has, so that a longer one is none.
        file.take(SIGNATURE_BYTES as u64 + 1).read_to_end(&mut signature)
    });
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Finding::Unsigned { name }),
        Err(source) => Some(Finding::Unreadable { name, source }),
        Ok(_) if key.verifies(json, &signature) => None,
        Ok(_) => Some(Finding::Signature { name }),
    }
}

/// The figures of an object, as read.
#[derive(Debug, Default)]
pub(super) struct Found {
    container: Container,
    compression: Compression,
    pub packets: u64,
    pub frame_bytes: u64,
    first_ns: u64,
    last_ns: u64,
    /// The newest packet's time: the last one's if they are in order.
    newest_ns: u64,
    disorder: u64,
    disorder_first: u64,
}

/// Reads an object once and compares everything; none if it is not there.
pub(super) fn examine(
    place: &dyn Place,
    format: (Container, Compression),
    object: &ObjectInfo,
    findings: &mut Vec<Finding>,
    watch: &mut dyn FnMut(Step<'_>),
) -> Option<Found> {
    let name = &object.name;
    let file = match place.open(name) {
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
    let mut content = object.content.is_some().then(|| (Sha256::new(), 0));
    if let Err(source) = read_records(&mut bytes, &mut content, &mut found) {
        findings.push(Finding::Pcap { name: name.clone(), source });
    }
    // The bytes after a pcap error also count for size and checksum.
    if let Err(source) = io::copy(&mut bytes, &mut io::sink()) {
        findings.push(Finding::Unreadable { name: name.clone(), source });
        return Some(found);
    }
    let (held_bytes, sha256) = (bytes.bytes, hex(bytes.digest));
    differ(
        object,
        findings,
        [
            ("size in bytes", held_bytes.to_string(), object.bytes.to_string()),
            ("sha256", sha256, object.sha256.clone()),
            ("number of packets", found.packets.to_string(), object.packets.to_string()),
            ("first packet's time in ns", found.first_ns.to_string(), object.first_ns.to_string()),
            ("last packet's time in ns", found.last_ns.to_string(), object.last_ns.to_string()),
            ("format", format!("{:?}", found.container), format!("{:?}", format.0)),
            ("compression", format!("{:?}", found.compression), format!("{:?}", format.1)),
        ],
    );
    if let Some(expected) = object.frame_bytes {
        let (held, expected) = (found.frame_bytes.to_string(), expected.to_string());
        differ(object, findings, [("number of frame bytes", held, expected)]);
    }
    if let (Some(expected), Some((digest, held_bytes))) = (&object.content, content) {
        differ(
            object,
            findings,
            [
                ("unpacked size in bytes", held_bytes.to_string(), expected.bytes.to_string()),
                ("sha256 of what it unpacks to", hex(digest), expected.sha256.clone()),
            ],
        );
    }
    if found.disorder > 0 {
        let (records, first) = (found.disorder, found.disorder_first);
        findings.push(Finding::Disorder { name: name.clone(), records, first });
    }
    Some(found)
}

/// Adds a finding for every figure that differs from the manifest.
fn differ<const N: usize>(
    object: &ObjectInfo,
    findings: &mut Vec<Finding>,
    figures: [(&'static str, String, String); N],
) {
    for (what, held, expected) in figures {
        if held != expected {
            findings.push(Finding::Differs { name: object.name.clone(), what, held, expected });
        }
    }
}

fn hex(digest: Sha256) -> String {
    HEXLOWER.encode(&digest.finalize())
}

/// Hash and size of what an object unpacks to, if that is asked for.
type ContentSum = Option<(Sha256, u64)>;

/// The unpacked bytes of an object, for the reader.
struct Content<'a, R> {
    source: R,
    sum: &'a mut ContentSum,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(into)?;
        if let Some((digest, bytes)) = self.sum {
            digest.update(&into[..len]);
            *bytes += len as u64;
        }
        Ok(len)
    }
}

fn read_records(bytes: impl Read, sum: &mut ContentSum, found: &mut Found) -> Result<(), ReadError> {
    let source = Unpacked::new(bytes).map_err(|source| ReadError::Io { offset: 0, source })?;
    if let Unpacked::Zstd(_) = source {
        found.compression = Compression::Zstd;
    }
    let mut reader = Reader::new(Content { source, sum })?;
    if reader.is_pcapng() {
        found.container = Container::PcapNg;
    }
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

/// Opens a regular file only: a pipe could block.
fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// Files with the capture's name that are not in the manifest, and of no other host's part either.
fn foreign(
    place: &dyn Place,
    manifest_file: &str,
    manifest: &Manifest,
    findings: &mut Vec<Finding>,
) -> Result<(), VerifyError> {
    let prefix = format!("pcap_{}", manifest.id);
    let part = manifest.part();
    let own = [manifest_name(&part), signature_name(&part), stamp_name(&part), manifest_file.to_owned()];
    let mut known: HashSet<&str> = manifest.objects.iter().map(|object| &*object.name).collect();
    known.extend(own.iter().map(String::as_str));
    let names =
        place.list(&prefix).map_err(|source| VerifyError::Read { path: place.path(&prefix), source })?;
    let is_of_another =
        |name: &str| manifest.is_part && PartId::parse(name).is_some_and(|(other, _)| other != part);
    let foreign = names.into_iter().filter(|name| !known.contains(&**name) && !is_of_another(name));
    findings.extend(foreign.map(|name| Finding::Foreign { name }));
    Ok(())
}

/// Hashes and counts what is read through it.
struct Hashed<'a> {
    source: Box<dyn Read + 'a>,
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
