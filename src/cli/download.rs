//! `trawl capture download`. Owns the file on its way and the second and later attempts; not the requests.
//!
//! Invariant: the file has its name only when it is whole and on the disk; until then it grows under a hidden name that
//! carries the capture's id, so that a later call goes on where this one stopped.

use super::args::DownloadArgs;
use super::client::{self, Client, Download};
use super::signals::Ending;
use super::{Error, Outcome, naming, out};
use crate::job::ObjectInfo;
use crate::merge::is_standard_output;
use data_encoding::HEXLOWER;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Attempts without a single new byte before it is given up.
const ATTEMPTS_MAX: u32 = 5;

/// Before the second attempt; the next ones wait twice as long each.
const PAUSE: Duration = Duration::from_millis(500);

/// Read at once for a hash.
const HASH_BYTES: usize = 256 << 10;

/// What can be wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The name is taken.
    #[error("{} is there already; name another file with --output, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// A device, a pipe or a directory.
    #[error("{} is no regular file; name one with --output, or - for standard output", .0.display())]
    NotRegular(PathBuf),
    /// The system refuses.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Packets would vanish.
    #[error("standard output is closed; name a file with --output")]
    NoOutput,
    /// Another process downloads the same.
    #[error("another command downloads this capture into {} now; let it end, or name another file with --output", .0.display())]
    Busy(PathBuf),
    /// It is not what the server said of it.
    #[error("the file that came is not the one of capture {id}: {what}; nothing is kept")]
    Altered {
        /// The capture.
        id: String,
        /// How it differs.
        what: String,
    },
    /// The connection ended early, again and again.
    #[error(
        "the server sent {held} of {total} bytes; what came is kept, so the same command goes on from there"
    )]
    Short {
        /// Bytes that came.
        held: u64,
        /// Bytes of the whole.
        total: u64,
    },
}

/// Fetches the file of a simple capture, which must be `expected` if that is known.
///
/// # Errors
/// [`Error`]: what the server said, or what is wrong with the file.
pub async fn run(
    client: &Client,
    args: &DownloadArgs,
    expected: Option<&ObjectInfo>,
    json: bool,
) -> Result<Outcome, Error> {
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("pcap_{}.pcap", args.id)));
    if is_standard_output(&path) {
        if out::is_closed() {
            return Err(FileError::NoOutput.into());
        }
        return to_stdout(client, &args.id, expected).await;
    }
    naming::plain(&path)?;
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(FileError::NotRegular(path).into());
    }
    if !args.force && path.symlink_metadata().is_ok() {
        return Err(FileError::Exists(path).into());
    }
    // What a link names is replaced, and not the link.
    let path = path.canonicalize().unwrap_or(path);
    let mut ending = Ending::catch().map_err(Error::Runtime)?;
    let mut part = Part::open(&path, &args.id)?;
    tokio::select! {
        fetched = fetch(client, &args.id, &mut part) => fetched?,
        signal = ending.next() => return Err(Error::Interrupted { signal, what: part.left() }),
    }
    if let Some(expected) = expected {
        part.hold(&args.id, expected)?;
    }
    let bytes = part.publish(args.force)?;
    let shown = path.display().to_string();
    Outcome::done(
        format!("{shown}: {bytes} bytes\n"),
        &json!({"id": args.id, "file": shown, "bytes": bytes}),
        json,
    )
}

/// Nothing can be taken back from a pipe, so there is one attempt.
async fn to_stdout(client: &Client, id: &str, expected: Option<&ObjectInfo>) -> Result<Outcome, Error> {
    let mut download = client.download(id, 0).await?;
    let (mut held, mut hash) = (0, Sha256::new());
    while let Some(chunk) = download.chunk().await? {
        hash.update(&chunk);
        if !out::bytes(&chunk) {
            return Ok(Outcome::silent());
        }
        held += chunk.len() as u64;
    }
    if let Some(total) = download.total.filter(|total| *total != held) {
        return Err(FileError::Short { held, total }.into());
    }
    match expected.and_then(|expected| difference(expected, held, hash)) {
        Some(what) => Err(FileError::Altered { id: id.to_owned(), what }.into()),
        None => Ok(Outcome::silent()),
    }
}

/// How so many bytes with that hash differ from what is expected.
fn difference(expected: &ObjectInfo, bytes: u64, hash: Sha256) -> Option<String> {
    let found = HEXLOWER.encode(&hash.finalize());
    let is_same = (bytes, &found) == (expected.bytes, &expected.sha256);
    (!is_same).then(|| {
        format!(
            "it has {bytes} bytes and the SHA-256 {found}, and {} bytes with {} are expected",
            expected.bytes, expected.sha256
        )
    })
}

async fn fetch(client: &Client, id: &str, part: &mut Part) -> Result<(), Error> {
    let bar = bar();
    let (mut attempt, mut pause) = (0, PAUSE);
    loop {
        let held = part.bytes;
        let result = attempt_once(client, id, part, &bar).await;
        if part.bytes > held {
            (attempt, pause) = (0, PAUSE);
        }
        attempt += 1;
        let failure = match result {
            Ok(None) => break,
            Ok(Some(total)) => Error::File(FileError::Short { held: part.bytes, total }),
            Err(Error::Client(error)) if error.is_transient() => Error::Client(error),
            Err(error) => return Err(error),
        };
        if attempt == ATTEMPTS_MAX {
            return Err(failure);
        }
        bar.suspend(|| out::note(&format!("{failure}; trying again")));
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    bar.finish_and_clear();
    Ok(())
}

/// One request from where the file stands; none if the file is then whole, otherwise what it must grow to.
async fn attempt_once(
    client: &Client,
    id: &str,
    part: &mut Part,
    bar: &ProgressBar,
) -> Result<Option<u64>, Error> {
    let mut download: Download<'_> = match client.download(id, part.bytes).await {
        Err(client::Error::Refused { status: 416, .. }) => client.download(id, 0).await?,
        download => download?,
    };
    if download.from != Some(part.bytes) && !(download.from.is_none() && download.total == Some(part.bytes)) {
        // A server without ranges, or another file than the part was of: from the start.
        part.truncate()?;
        if download.from != Some(0) {
            download = client.download(id, 0).await?;
        }
    }
    if let Some(total) = download.total {
        bar.set_length(total);
    }
    bar.set_position(part.bytes);
    while let Some(chunk) = download.chunk().await? {
        part.append(&chunk)?;
        bar.inc(chunk.len() as u64);
    }
    Ok(download.total.filter(|total| *total != part.bytes))
}

fn bar() -> ProgressBar {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    match ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The file before it is whole, locked against other processes. Kept when something fails.
struct Part {
    file: File,
    path: PathBuf,
    part: PathBuf,
    bytes: u64,
}

impl Part {
    fn open(path: &Path, id: &str) -> Result<Self, FileError> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{id}.part"));
        let part = path.with_file_name(name);
        let failed = |source| FileError::Write { path: part.clone(), source };
        loop {
            // Packets are nobody else's business.
            let file =
                OpenOptions::new().append(true).create(true).mode(0o600).open(&part).map_err(failed)?;
            // A file system without locks has another error.
            if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                return Err(FileError::Busy(path.to_owned()));
            }
            let held = file.metadata().map_err(failed)?;
            // The one who had it may have given it its name in the meantime.
            if part.metadata().is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino())) {
                return Ok(Self { file, path: path.to_owned(), part, bytes: held.len() });
            }
        }
    }

    fn failed(&self, source: io::Error) -> FileError {
        FileError::Write { path: self.part.clone(), source }
    }

    fn truncate(&mut self) -> Result<(), FileError> {
        self.bytes = 0;
        self.file.set_len(0).map_err(|source| self.failed(source))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// What an interrupted download leaves: the bytes that came, for the next attempt. No bytes, no file.
    fn left(self) -> String {
        if self.bytes > 0 {
            let part = self.part.display();
            return format!("{} bytes are kept in {part}; the same command goes on from there", self.bytes);
        }
        match std::fs::remove_file(&self.part) {
            Ok(()) => "nothing had come yet".to_owned(),
            Err(error) => format!("{} is empty and cannot be removed: {error}", self.part.display()),
        }
    }

    /// Removes the file unless it is `expected`.
    fn hold(&self, id: &str, expected: &ObjectInfo) -> Result<(), FileError> {
        let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; HASH_BYTES]);
        let mut file = File::open(&self.part).map_err(|source| self.failed(source))?;
        loop {
            let read = file.read(&mut piece).map_err(|source| self.failed(source))?;
            if read == 0 {
                break;
            }
            hash.update(&piece[..read]);
            bytes += read as u64;
        }
        let Some(what) = difference(expected, bytes, hash) else { return Ok(()) };
        std::fs::remove_file(&self.part).map_err(|source| self.failed(source))?;
        Err(FileError::Altered { id: id.to_owned(), what })
    }

    fn publish(self, force: bool) -> Result<u64, FileError> {
        self.file.sync_all().map_err(|source| self.failed(source))?;
        let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &self.part, CWD, &self.path, flags).map_err(|error| match error {
            Errno::EXIST => FileError::Exists(self.path.clone()),
            error => FileError::Write { path: self.path.clone(), source: error.into() },
        })?;
        let directory =
            self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| FileError::Write { path: directory.to_owned(), source })?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
