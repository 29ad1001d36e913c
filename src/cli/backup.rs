//! `trawl store backup`. Owns the way to the copy: from the process that has the store, or of the file where none has it; and the file on
//! its way.
//!
//! Invariant: the file has its name only when all of the copy is in it and on the disk.

use super::args::BackupArgs;
use super::{Error, Outcome};
use crate::config::Plan;
use crate::store::{BackupError, Embedded, HiddenFile, StoreError, backup_socket};
use data_encoding::HEXLOWER;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A copy of a large store takes its time before the first byte.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);
const PIECE_BYTES: usize = 256 << 10;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The copy's file, or the store.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// No store.
    #[error("there is no job store at {}; name its config with --config", .0.display())]
    NoStore(PathBuf),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process that has the store made none.
    #[error("trawl could not make a copy: {0}")]
    Refused(String),
    /// It did not come.
    #[error("the copy did not come from {}: {source}; run this as trawl's user or root, and try again", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// Makes the copy.
///
/// # Errors
/// [`Problem`]; then there is no file of that name.
pub fn run(args: &BackupArgs) -> Result<Outcome, Error> {
    let path = &args.config.config;
    let plan = Plan::load(path).map_err(|problems| Error::Config { path: path.clone(), problems })?;
    backup(&plan.store.path, &args.file)?;
    let bytes = args.file.metadata().map_or(0, |metadata| metadata.len());
    let file = args.file.display().to_string();
    Outcome::done(format!("{file}: {bytes} bytes\n"), &json!({"file": file, "bytes": bytes}), args.json)
}

fn backup(store: &Path, target: &Path) -> Result<(), Problem> {
    let socket = backup_socket(store);
    match UnixStream::connect(&socket) {
        Ok(stream) => receive(stream, target, &socket),
        // Nobody has the store, or not this trawl: then opening it says so.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            if let Err(error) = store.metadata()
                && error.kind() == io::ErrorKind::NotFound
            {
                return Err(Problem::NoStore(store.to_owned()));
            }
            Ok(Embedded::open(store)?.backup(target)?)
        }
        Err(source) => Err(Problem::Broken { path: socket, source }),
    }
}

fn receive(stream: UnixStream, target: &Path, socket: &Path) -> Result<(), Problem> {
    let broken = |source| Problem::Broken { path: socket.to_owned(), source };
    let (hidden, mut file) = HiddenFile::create(target)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).map_err(broken)?;
    let mut stream = BufReader::with_capacity(PIECE_BYTES, stream);
    let mut head = String::new();
    stream.read_line(&mut head).map_err(broken)?;
    let words: Vec<&str> = head.split_whitespace().collect();
    let (bytes, expected) = match words[..] {
        ["ok", bytes, hash] => (bytes.parse::<u64>().unwrap_or(0), hash.to_owned()),
        ["error", ..] => return Err(Problem::Refused(head.trim_start_matches("error ").trim().to_owned())),
        _ => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
    };
    let (mut left, mut hash, mut piece) = (bytes, Sha256::new(), vec![0; PIECE_BYTES]);
    while left > 0 {
        let read = stream.read(&mut piece).map_err(broken)?;
        if read == 0 || read as u64 > left {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        hash.update(&piece[..read]);
        let written = file.write_all(&piece[..read]);
        written.map_err(|source| BackupError::Write { path: target.to_owned(), source })?;
        left -= read as u64;
    }
    let found = HEXLOWER.encode(&hash.finalize());
    if found != expected {
        return Err(broken(io::Error::other("its bytes are not those that were sent")));
    }
    Ok(hidden.publish()?)
}
