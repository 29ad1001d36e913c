//! `trawl capture fetch`: from a capture's id to one file, or to a reader. Owns the order: what the server says of the capture, its
//! manifest, the signature, and the objects joined by time while their hashes are checked; not the merge.
//!
//! Objects are read from the bucket once, with the credentials that other commands use there. A simple capture's file comes from the
//! server itself.
//!
//! Invariant: a file has its name only if every byte of every object is what the manifest says; a pipe that got other bytes ends
//! with an error.

use super::args::{DownloadArgs, FetchArgs, StoreArgs, WriteArgs};
use super::client::{Client, SignedManifest};
use super::{Error, Outcome, download, merge, naming, out, signals, stores};
use crate::chain::printable;
use crate::deliver::{
    Bucket, Finding, Manifest, PublicKey, VerifyError, manifest_name, manifests, read_manifest,
    signature_name,
};
use crate::host::on_this_thread;
use crate::job::{CaptureId, ObjectInfo, PartId};
use crate::limits::ZSTD_LEVEL_DEFAULT;
use crate::merge::{MergeInput, MergeOptions, Merged, is_standard_output, merge_inputs};
use crate::pcap::ObjectFormat;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Why a capture is not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It takes packets, or waits for its upload.
    #[error(
        "capture {id} is {status}: not all of it is in its bucket yet; `trawl capture watch {id}` waits for its end"
    )]
    NotEnded {
        /// The capture.
        id: String,
        /// As the server says.
        status: String,
    },
    /// There is no capture of that form.
    #[error("{0:?} is no capture's id: write 32 hexadecimal digits, as `trawl capture list` shows them")]
    Id(String),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] VerifyError),
    /// The signature.
    #[error("{0}")]
    Signature(Finding),
    /// It is somebody else's.
    #[error("the manifest of {id} is of account {found}, not of {wanted}: do not trust this bucket")]
    Account {
        /// The capture.
        id: CaptureId,
        /// As the manifest says.
        found: String,
        /// As asked for.
        wanted: String,
    },
    /// The server has it in one form.
    #[error(
        "capture {0} is a simple one, whose file comes as its host wrote it: plain pcap; fetch it so, and `trawl merge` writes other \
         formats of it"
    )]
    Plain(String),
    /// Nothing was captured.
    #[error("the manifest of capture {0} names no file: there is nothing to fetch")]
    Nothing(String),
    /// A bug: the merge left something out and said nothing.
    #[error("only {checked} of {all} objects were read to their end; nothing is kept")]
    Unread {
        /// Objects that are what the manifest says.
        checked: usize,
        /// All.
        all: usize,
    },
}

/// Fetches a capture.
///
/// # Errors
/// [`Error`]: what the server said, what is wrong in the bucket, or with the file.
pub async fn run(
    client: &Client,
    account: Option<&str>,
    args: FetchArgs,
    json: bool,
) -> Result<Outcome, Error> {
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("pcap_{}.pcap", args.id)));
    let write = WriteArgs {
        format: args.format,
        compression: args.compression,
        level: ZSTD_LEVEL_DEFAULT,
        keep_going: false,
    };
    let format = naming::format(&output, &write)?;
    merge::not_to_terminal(&output)?;
    if !args.force && !is_standard_output(&output) && output.symlink_metadata().is_ok() {
        return Err(download::FileError::Exists(output).into());
    }
    let key = args.public_key.as_deref().map(PublicKey::load).transpose()?;
    let capture = client.get(&args.id).await?;
    let text = |name: &str| capture.get(name).and_then(Value::as_str).map(str::to_owned);
    let status = text("status").unwrap_or_default();
    if !matches!(status.as_str(), "success" | "failed") {
        return Err(FetchError::NotEnded { id: args.id, status: printable(&status).into_owned() }.into());
    }
    let Some(uri) = text("destination_conf") else {
        if !format.is_plain() {
            return Err(FetchError::Plain(args.id).into());
        }
        let expected = match &key {
            Some(key) => {
                let signed = client.manifest(&args.id).await?;
                let object = vouched(&signed, (&args.id, account), key)?;
                out::note("trawl: the manifest's signature is right; the file is held against it");
                Some(object)
            }
            None => client.progress(&args.id).await?.objects.into_iter().next(),
        };
        let download = DownloadArgs { id: args.id, output: Some(output), force: args.force };
        return download::run(client, &download, expected.as_ref(), json).await;
    };
    let id = CaptureId::parse(&args.id).ok_or_else(|| FetchError::Id(args.id.clone()))?;
    let wanted =
        Wanted { id, account: account.map(str::to_owned), uri, store: args.store, key, output, format };
    // The merge waits for the bucket with a runtime of its own.
    let fetched = tokio::task::spawn_blocking(move || fetch(&wanted).map(|fetched| (wanted, fetched))).await;
    let (wanted, fetched) = fetched.map_err(|error| Error::Runtime(io::Error::other(error)))??;
    let Some((manifests, merged)) = fetched else { return Ok(Outcome::silent()) };
    told(&wanted, &manifests, &merged, json)
}

/// What is fetched, and how.
struct Wanted {
    id: CaptureId,
    account: Option<String>,
    uri: String,
    store: StoreArgs,
    key: Option<PublicKey>,
    output: PathBuf,
    format: ObjectFormat,
}

/// None where the output's reader has left.
fn fetch(wanted: &Wanted) -> Result<Option<(Vec<Manifest>, Merged)>, Error> {
    let runtime = on_this_thread().map_err(Error::Runtime)?;
    signals::end_process().map_err(Error::Runtime)?;
    let store = runtime.block_on(stores::open(&wanted.uri, &wanted.store)).map_err(anyhow::Error::from)?;
    let bucket = Bucket { store: &*store, runtime: &runtime, uri: wanted.uri.clone() };
    let whole = manifest_name(&PartId::alone(&wanted.id));
    let names = manifests(&bucket, &whole).map_err(FetchError::from)?;
    let manifests = names.iter().map(|name| manifest(&bucket, name, wanted));
    let manifests = manifests.collect::<Result<Vec<_>, _>>()?;
    let objects = || manifests.iter().flat_map(|manifest| &manifest.objects);
    let checked = Arc::new(AtomicUsize::new(0));
    let inputs: Vec<_> = objects().map(|object| input(&bucket, object, Arc::clone(&checked))).collect();
    let options = MergeOptions { format: wanted.format, keep_going: false, threads: 1 };
    let merged = merge_inputs(inputs, &wanted.output, options, &mut |_bytes| ());
    let Some(merged) = merge::unless_left(merged)? else { return Ok(None) };
    let (checked, all) = (checked.load(SeqCst), objects().count());
    if checked != all {
        if !is_standard_output(&wanted.output) {
            let _said_below = std::fs::remove_file(&wanted.output);
        }
        return Err(FetchError::Unread { checked, all }.into());
    }
    Ok(Some((manifests, merged)))
}

/// A manifest of the capture, held to its name, its account and its signature. Where hosts of a fleet wrote the capture, each has one.
fn manifest(bucket: &Bucket<'_>, name: &str, wanted: &Wanted) -> Result<Manifest, Error> {
    let (manifest, finding) = read_manifest(bucket, name, wanted.key.as_ref()).map_err(FetchError::from)?;
    if let Some(finding) = finding {
        return Err(FetchError::Signature(finding).into());
    }
    Ok(of_account(manifest, wanted.account.as_deref())?)
}

fn of_account(manifest: Manifest, wanted: Option<&str>) -> Result<Manifest, FetchError> {
    let found = manifest.account.as_ref().map(|account| account.0.clone());
    match (wanted, found) {
        (Some(wanted), Some(found)) if wanted != found => {
            let (id, found) = (manifest.id, printable(&found).into_owned());
            Err(FetchError::Account { id, found, wanted: wanted.to_owned() })
        }
        _ => Ok(manifest),
    }
}

/// The one object of a simple capture, if the key vouches for the manifest that the server gave.
fn vouched(
    signed: &SignedManifest,
    (id, account): (&str, Option<&str>),
    key: &PublicKey,
) -> Result<ObjectInfo, FetchError> {
    let part = PartId::alone(&CaptureId::parse(id).ok_or_else(|| FetchError::Id(id.to_owned()))?);
    let (name, path) = (signature_name(&part), PathBuf::from(manifest_name(&part)));
    let Some(signature) = &signed.signature else {
        return Err(FetchError::Signature(Finding::Unsigned { name }));
    };
    let signature = STANDARD.decode(signature).unwrap_or_default();
    if !key.verifies(signed.text.as_bytes(), &signature) {
        return Err(FetchError::Signature(Finding::Signature { name }));
    }
    let manifest = Manifest::parse(signed.text.as_bytes())
        .map_err(|source| VerifyError::Manifest { path: path.clone(), source })?;
    if manifest.id.as_str() != id.to_lowercase() {
        let expected = manifest_name(&manifest.part());
        return Err(VerifyError::Name { path, id: manifest.id, expected }.into());
    }
    let manifest = of_account(manifest, account)?;
    manifest.objects.into_iter().next().ok_or_else(|| FetchError::Nothing(id.to_owned()))
}

fn input<'a>(bucket: &'a Bucket<'a>, object: &ObjectInfo, checked: Arc<AtomicUsize>) -> MergeInput<'a> {
    let object = object.clone();
    // Without packets it has no times, and is looked at first.
    let span = (object.packets > 0).then_some((object.first_ns, object.last_ns));
    let name = Path::new(&object.name).to_owned();
    let open = move |bytes: usize| -> io::Result<Box<dyn Read + 'a>> {
        let source = bucket.stream(&object.name, bytes as u64)?;
        Ok(Box::new(Checked::new(source, &object, checked)))
    };
    MergeInput::Stream { name, span, open: Box::new(open) }
}

/// An object's bytes, held to its manifest: the read that ends it fails unless all of them were right.
struct Checked<R> {
    source: R,
    hash: Sha256,
    left: u64,
    expected: String,
    /// How many objects were right.
    count: Arc<AtomicUsize>,
    is_checked: bool,
}

impl<R: Read> Checked<R> {
    fn new(source: R, object: &ObjectInfo, count: Arc<AtomicUsize>) -> Self {
        let (left, expected) = (object.bytes, object.sha256.clone());
        Self { source, hash: Sha256::new(), left, expected, count, is_checked: false }
    }

    fn wrong(what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{what}; it is not the object of the manifest"))
    }

    /// All bytes of the manifest have been read.
    fn check(&mut self) -> io::Result<()> {
        let found = std::mem::take(&mut self.hash).finalize();
        let found = HEXLOWER.encode(&found);
        if found != self.expected {
            return Err(Self::wrong(&format!("its SHA-256 is {found}, and {} is expected", self.expected)));
        }
        self.is_checked = true;
        self.count.fetch_add(1, SeqCst);
        Ok(())
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        if read == 0 && !into.is_empty() && self.left > 0 {
            return Err(Self::wrong(&format!("it ends {} bytes early", self.left)));
        }
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| Self::wrong("it is longer than its manifest says"))?;
        self.hash.update(&into[..read]);
        if self.left == 0 && !self.is_checked {
            self.check()?;
        }
        Ok(read)
    }
}

fn told(wanted: &Wanted, manifests: &[Manifest], merged: &Merged, json: bool) -> Result<Outcome, Error> {
    merge::tell(&merged.findings);
    if manifests.iter().any(|manifest| !manifest.complete) {
        out::note("trawl: packets were lost while it was captured; the manifest's ledger has their number");
    }
    let checked = if wanted.key.is_some() {
        "signature and hashes are right"
    } else {
        "hashes are right; no --public-key, so no signature was checked"
    };
    let objects: usize = manifests.iter().map(|manifest| manifest.objects.len()).sum();
    let totals = &merged.totals;
    let summary = format!("{objects} objects, {} packets, {} bytes: {checked}", totals.packets, totals.bytes);
    if is_standard_output(&wanted.output) {
        out::note(&summary);
        return Ok(Outcome::silent());
    }
    let file = wanted.output.display().to_string();
    let value = json!({"id": wanted.id, "file": file, "objects": objects, "packets": totals.packets, "bytes": totals.bytes, "signed": wanted.key.is_some()});
    Outcome::done(format!("{file}: {summary}\n"), &value, json)
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
