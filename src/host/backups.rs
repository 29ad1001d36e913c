//! Copies of the job store for who asks on this host. Owns the socket beside the store, and one copy at a time; not the copy itself.
//!
//! The socket's directory and its mode let only trawl's user and root in: a copy has the captures of all accounts. An operator's token
//! gives none, because it sees counts alone.
//!
//! A reader gets `ok BYTES SHA256`, a line feed and the bytes, or `error`, a space, the reason and a line feed.
//!
//! Invariant: a copy is made before its first byte is sent, so that no reader's pace holds the store.

use super::audit;
use crate::audit::{Audit, Outcome};
use crate::store::{Embedded, backup_socket};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A reader that takes nothing for so long has gone.
const READER_TIME_MAX: Duration = Duration::from_secs(60);
const PIECE_BYTES: usize = 256 << 10;

/// Answers who asks for a copy, for as long as it is polled.
///
/// That there is no socket is told and ends nothing.
pub(super) async fn serve(jobs: Arc<Embedded>, store: PathBuf, log: Option<Audit>) {
    let path = backup_socket(&store);
    // The store is locked by this process: a socket that is there is a dead one's.
    let _none_there = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(socket = %path.display(), %error, "no copy of the job store can be made while trawl runs");
            return std::future::pending().await;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                let (jobs, store) = (Arc::clone(&jobs), store.clone());
                let copied = tokio::task::spawn_blocking(move || copy(&jobs, &store)).await;
                let copied = copied.unwrap_or_else(|_| Err("the copy died".to_owned()));
                let is_made = copied.is_ok();
                let answered = answer(stream, copied).await;
                let is_done = is_made && answered.is_ok();
                audit::copied(log.as_ref(), uid, if is_done { Outcome::Done } else { Outcome::Failed });
                if let Err(error) = answered {
                    tracing::warn!(%error, "a copy of the job store did not reach its reader");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the socket for copies of the job store fails");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// A copy without a name, its size and its hash.
fn copy(jobs: &Embedded, store: &Path) -> Result<(File, u64, String), String> {
    let mut name = store.as_os_str().to_owned();
    name.push(".copy");
    let path = PathBuf::from(name);
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    jobs.backup(&path).map_err(|error| error.to_string())?;
    let mut file = File::open(&path).map_err(failed)?;
    std::fs::remove_file(&path).map_err(failed)?;
    let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
        bytes += read as u64;
    }
    file.rewind().map_err(failed)?;
    let hash = HEXLOWER.encode(&hash.finalize());
    Ok((file, bytes, hash))
}

async fn answer(mut stream: UnixStream, copied: Result<(File, u64, String), String>) -> io::Result<()> {
    let (file, head) = match copied {
        Ok((file, bytes, hash)) => (Some(file), format!("ok {bytes} {hash}\n")),
        Err(error) => (None, format!("error {}\n", error.replace('\n', " "))),
    };
    send(&mut stream, head.as_bytes()).await?;
    if let Some(file) = file {
        let mut file = tokio::fs::File::from_std(file);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = file.read(&mut piece).await?;
            if read == 0 {
                break;
            }
            send(&mut stream, &piece[..read]).await?;
        }
        tracing::info!("a copy of the job store was handed over");
    }
    stream.shutdown().await
}

async fn send(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    let sent = tokio::time::timeout(READER_TIME_MAX, stream.write_all(bytes)).await;
    sent.unwrap_or_else(|_| {
        let message = format!("its reader took nothing for {} s", READER_TIME_MAX.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}
