//! The past that this host can still show: a sample of all packets' heads in a bounded ring on disk, and looking back
//! into it. Owns the ring, its two bounds and the query; not the sampling (`worker`), nor the job that asks (`capture`).
//!
//! ```text
//! worker ─sampled─▶ segments in history/.open-N/ ─published─▶ intake ─rename─▶ ring of files ─▶ look back
//! ```
//!
//! What the ring holds is on its own account: a segment counts towards `spool.bytes_max` only until the ring has it.
//!
//! Invariant: the ring never holds more than `bytes_max` bytes nor a segment older than `keep`, whatever dies when: a file
//! of the ring says in its name what it holds, so a restart needs nothing but the directory.

mod intake;
mod query;
mod ring;
#[cfg(test)]
mod tests;

pub use query::{Answer, Query};
pub use ring::Entry;

use crate::spool::Feed;
use crate::spool::{Spool, WriteMode};
use crate::worker::Sample;
use ring::Ring;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

/// What an operator decides about history.
#[derive(Clone, Copy, Debug)]
pub struct HistoryConfig {
    /// 1 in N packets; every packet when none.
    pub sample: Option<Sample>,
    /// The most that the ring may hold, in bytes.
    pub bytes_max: u64,
    /// Age at which a segment is deleted.
    pub keep: Duration,
    /// Age at which a segment is cut.
    pub segment: Duration,
}

/// Why the history cannot be used, or not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The ring's directory.
    #[error(
        "cannot use the history in {dir}: {source}; it must be a directory that this process may write to"
    )]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread for the history: {0}")]
    Thread(io::Error),
    /// A segment of the ring.
    #[error("cannot read the history's segment {path}: {source}; delete the file if this lasts")]
    Segment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::pcap::ReadError,
    },
    /// What was just captured did not arrive on disk.
    #[error("the newest packets of the history did not reach the disk within {0:?}; try again")]
    Late(Duration),
}

/// Recordings that are not wholly in the ring, by their number: when each began, ns since the UNIX epoch.
type Open = BTreeMap<u64, u64>;

/// The history of one host.
#[derive(Debug)]
pub struct History {
    config: HistoryConfig,
    dir: PathBuf,
    spool: Arc<Spool>,
    ring: Mutex<Ring>,
    open: Mutex<Open>,
    closed: Condvar,
}

impl History {
    /// Opens the ring below `spool`'s directory; takes in what an earlier process left half way, and deletes what is too
    /// old or too much.
    ///
    /// # Errors
    /// [`HistoryError::Dir`] when the directory cannot be made or read.
    pub fn open(config: HistoryConfig, spool: Arc<Spool>) -> Result<Self, HistoryError> {
        let dir = spool.config().dir.join(crate::limits::HISTORY_DIR);
        let one_in = config.sample.map_or(1, Sample::one_in);
        let ring = Ring::open(&dir, config.bytes_max, config.keep, one_in);
        let ring = ring.map_err(|source| HistoryError::Dir { dir: dir.clone(), source })?;
        let (ring, open) = (Mutex::new(ring), Mutex::default());
        Ok(Self { config, dir, spool, ring, open, closed: Condvar::new() })
    }

    /// What the operator decided.
    #[must_use]
    pub fn config(&self) -> &HistoryConfig {
        &self.config
    }

    /// Where a recording's segments are written until the ring takes them.
    #[must_use]
    pub fn open_dir(&self, serial: u64) -> PathBuf {
        self.dir.join(format!("{}{serial}", ring::OPEN_PREFIX))
    }

    /// Begins a recording of `queues` queues under a number that no other one of this process had; returns where its
    /// published segments are to be announced. It is over once every queue has ended, or the last holder lets go of that.
    ///
    /// # Errors
    /// [`HistoryError::Thread`].
    pub fn record(self: &Arc<Self>, serial: u64, queues: usize) -> Result<Arc<Feed>, HistoryError> {
        let feed = Arc::new(Feed::new(queues));
        let (announced, told) = (feed.listen(), Arc::downgrade(&feed));
        let history = Arc::clone(self);
        self.opened().insert(serial, now_ns());
        let thread = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            intake::run(&history, serial, queues, &announced, &told);
        });
        match thread {
            Ok(_runs_until_every_queue_ended) => Ok(feed),
            Err(e) => {
                self.close(serial);
                Err(HistoryError::Thread(e))
            }
        }
    }

    fn close(&self, serial: u64) {
        self.opened().remove(&serial);
        self.closed.notify_all();
    }

    /// Whether the ring may lack packets up to `end_ns` until the newest recording is ended and another one begun.
    #[must_use]
    pub fn lags(&self, end_ns: u64) -> bool {
        // A segment is on disk within this time after it is cut, or the disk does not keep up at all.
        const PUBLISHED_WITHIN: Duration = Duration::from_secs(5);
        let settled = ns(self.config.segment + PUBLISHED_WITHIN);
        let newest_began = self.opened().values().last().copied();
        newest_began.is_some_and(|began| began <= end_ns) && now_ns().saturating_sub(end_ns) < settled
    }

    /// Waits until every recording with a number below `serial` is in the ring. Blocks.
    ///
    /// # Errors
    /// [`HistoryError::Late`] when it takes too long.
    pub fn wait_for(&self, serial: u64, patience: Duration) -> Result<(), HistoryError> {
        let deadline = Instant::now() + patience;
        let mut open = self.opened();
        while open.range(..serial).next().is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(HistoryError::Late(patience));
            }
            open = self.closed.wait_timeout(open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Waits for what the workers had when they ended. Only once writers and publisher have ended too: nothing more is announced,
    /// and a recording that no worker had taken up yet would never be told its end. Blocks.
    ///
    /// # Errors
    /// [`HistoryError::Late`] when it takes too long.
    pub fn finish(&self, patience: Duration) -> Result<(), HistoryError> {
        let serials: Vec<u64> = self.opened().keys().copied().collect();
        // The feed goes with the registration; what it was told before is still taken in.
        serials.into_iter().for_each(|serial| self.spool.forget(serial));
        self.wait_for(u64::MAX, patience)
    }

    /// Takes the packets of a time window that `visible` and the filter admit out of the ring. Blocks.
    ///
    /// # Errors
    /// [`HistoryError::Segment`].
    pub fn look_back(
        &self,
        query: &Query,
        visible: &dyn Fn(&crate::packet::Key) -> bool,
    ) -> Result<Answer, HistoryError> {
        let (entries, oldest_ns) = {
            let mut ring = self.ring();
            ring.trim(now_ns());
            (ring.between(query.start_ns, query.end_ns), ring.oldest_ns())
        };
        let covered = oldest_ns.is_some_and(|oldest| oldest <= query.start_ns);
        query::run(query, &self.dir, &entries, covered, visible)
    }

    /// Bytes in the ring.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ring().bytes()
    }

    /// Time of the oldest packet in the ring, ns since the UNIX epoch.
    #[must_use]
    pub fn oldest_ns(&self) -> Option<u64> {
        self.ring().oldest_ns()
    }

    fn trim(&self) {
        self.ring().trim(now_ns());
    }

    /// Takes a published segment into the ring and off the spool's account.
    fn adopt(&self, path: &Path, entry: Entry) -> io::Result<()> {
        let to = self.dir.join(entry.name());
        if self.spool.config().write == WriteMode::Mapped {
            // A mapped segment is written again and again: what stays here is a copy.
            let part = self.dir.join(format!("{}{}", ring::PART_PREFIX, entry.name()));
            fs::copy(path, &part)?;
            fs::File::open(&part)?.sync_all()?;
            fs::rename(&part, &to)?;
            self.spool.free(path)?;
        } else {
            fs::rename(path, &to)?;
            self.spool.quota().release(entry.bytes);
        }
        let mut ring = self.ring();
        ring.insert(entry);
        ring.trim(now_ns());
        Ok(())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn now_ns() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}
