//! Copies of the job store for who asks on this host. Owns the socket beside the store, and that one copy is made at a time; not how.
//!
//! The socket's directory and its mode let only trawl's user and root in: a copy has the captures of all accounts. An operator's token
//! gives none, because it sees counts alone.
//!
//! A reader gets `ok BYTES SHA256`, a line feed and the bytes, or `error`, a space, the reason and a line feed.
//!
//! Invariant: a copy is made, and its line in the audit log written, before its first byte is sent, so that no reader's pace holds the
//! store or the next reader.

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
use tokio::task::JoinSet;

/// A reader that takes nothing for so long has gone.
const READER_TIME_MAX: Duration = Duration::from_secs(60);
/// Readers at a time; the next one waits for the first of them.
const READERS_MAX: usize = 8;
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
    let mut readers = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while readers.try_join_next().is_some() {}
                if readers.len() >= READERS_MAX {
                    let _has_its_copy = readers.join_next().await;
                }
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                let copied = recorded(&jobs, &store, log.as_ref(), uid).await;
                readers.spawn(async move {
                    if let Err(error) = answer(stream, copied).await {
                        tracing::warn!(%error, "a copy of the job store did not reach its reader");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the socket for copies of the job store fails");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// A copy whose line in the log is written.
async fn recorded(
    jobs: &Arc<Embedded>,
    store: &Path,
    log: Option<&Audit>,
    uid: Option<u32>,
) -> Result<Copy, String> {
    if let Some(why) = audit::refuses(log) {
        let _waits_for_the_disk = audit::copied(log, uid, Outcome::Refused).await;
        return Err(format!("{why}: no copy is handed out meanwhile"));
    }
    let (jobs, store) = (Arc::clone(jobs), store.to_owned());
    let copied = tokio::task::spawn_blocking(move || copy(&jobs, &store)).await;
    let copied = copied.unwrap_or_else(|_| Err("the copy died".to_owned()));
    let outcome = if copied.is_ok() { Outcome::Done } else { Outcome::Failed };
    audit::copied(log, uid, outcome).await?;
    copied
}

/// Without a name, its size and its hash.
type Copy = (File, u64, String);

fn copy(jobs: &Embedded, store: &Path) -> Result<Copy, String> {
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

async fn answer(mut stream: UnixStream, copied: Result<Copy, String>) -> io::Result<()> {
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

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;
    use crate::audit::{AuditConfig, Entry};

    #[tokio::test]
    async fn no_copy_is_handed_out_and_nothing_reloaded_while_a_required_log_cannot_be_written() {
        let temp = tempfile::tempdir().unwrap();
        let (store, dir) = (temp.path().join("jobs"), temp.path().join("audit"));
        let jobs = Arc::new(Embedded::open(&store).unwrap());
        let (bytes_max, file_bytes) = (2 << 20, 1 << 20);
        let config = AuditConfig { dir: dir.clone(), bytes_max, file_bytes, required: true, head_file: None };
        let log = Audit::start(config, "cap1".to_owned(), None).unwrap();
        let file = dir.join("audit-000000000001.jsonl");
        let (_, bytes, _) = recorded(&jobs, &store, Some(&log), Some(7)).await.unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(bytes > 0 && text.contains("store.backup") && text.contains("\"uid\":7"), "{text}");
        std::fs::rename(&file, dir.join("elsewhere")).unwrap();
        let error = recorded(&jobs, &store, Some(&log), Some(7)).await.unwrap_err();
        assert!(error.contains("is not there any more"), "{error}");
        let error = recorded(&jobs, &store, Some(&log), Some(7)).await.unwrap_err();
        assert!(error.contains("no copy is handed out") && audit::refuses(Some(&log)).is_some(), "{error}");
        std::fs::rename(dir.join("elsewhere"), &file).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while log.refuses() && std::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        recorded(&jobs, &store, Some(&log), Some(7)).await.unwrap();
        log.end(Entry::new("process.end"));
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches("store.backup").count(), 4, "{text}");
    }
}
