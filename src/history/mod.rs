//! The history: a sample of all packets' heads in a bounded ring on disk, and queries of it (look-backs). Owns the ring, its two
//! bounds and the query; not the sampling (`worker`), nor the job (`engine`).
//!
//! ```text
//! worker ─sampled─▶ segments in history/.open-N/ ─published─▶ intake ─rename─▶ ring of files ─▶ look back
//! ```
//!
//! The ring has a quota of its own: a segment counts towards `spool.bytes_max` only until the ring has it.
//!
//! A failure costs at most the segment concerned: it is tried again, and if it is lost, every look-back at its time says that
//! this time is not covered. The recording goes on.
//!
//! Invariant: the ring never holds more than `bytes_max` bytes nor a segment older than `keep`, also after a crash,
//! unless the file system refuses to delete. The name of a ring's file tells its content, so a restart needs only the directory.

mod estimate;
mod intake;
mod query;
mod ring;
#[cfg(test)]
mod tests;

pub use estimate::{Estimate, Recent};
pub use query::{Answer, Query};
pub use ring::Entry;

use crate::spool::{Call, Feed, Spool, WhenSlow, WriteMode};
use crate::worker::Sample;
use ring::{Now, Ring};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

/// The history's settings.
#[derive(Clone, Copy, Debug)]
pub struct HistoryConfig {
    /// 1 in N packets; every packet when none.
    pub sample: Option<Sample>,
    /// Size limit of the ring, in bytes.
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
    /// The newest packets did not arrive on disk in time.
    #[error("the newest packets of the history did not reach the disk within {0:?}; try again")]
    Late(Duration),
}

/// Most gaps that are remembered; with one more, the oldest two are joined.
const GAPS_MAX: usize = 256;

/// A recording that is not wholly in the ring.
#[derive(Clone, Copy, Debug)]
struct Recording {
    /// When it began, ns since the UNIX epoch.
    began_ns: u64,
    /// Since when there is a newer one.
    replaced: Option<Instant>,
}

/// The history of one host.
#[derive(Debug)]
pub struct History {
    config: HistoryConfig,
    dir: PathBuf,
    spool: Arc<Spool>,
    ring: Mutex<Ring>,
    /// By their numbers.
    open: Mutex<BTreeMap<u64, Recording>>,
    closed: Condvar,
    /// Gaps: from when to when a segment is missing, ns since the UNIX epoch.
    gaps: Mutex<VecDeque<(u64, u64)>>,
    /// Segments that were copied into the ring and could not be freed.
    unfreed: Mutex<Vec<PathBuf>>,
}

impl History {
    /// Opens the ring below `spool`'s directory. Takes in the segments that an earlier process left, and deletes what is too old or
    /// too much.
    ///
    /// # Errors
    /// [`HistoryError::Dir`] when the directory cannot be made or read.
    pub fn open(config: HistoryConfig, spool: Arc<Spool>) -> Result<Self, HistoryError> {
        let dir = spool.config().dir.join(crate::limits::HISTORY_DIR);
        let one_in = config.sample.map_or(1, Sample::one_in);
        let files = spool.files().clone();
        let ring = Ring::open(&dir, config.bytes_max, config.keep, one_in, files, Now::get());
        let ring = ring.map_err(|source| HistoryError::Dir { dir: dir.clone(), source })?;
        Ok(Self {
            config,
            dir,
            spool,
            ring: Mutex::new(ring),
            open: Mutex::default(),
            closed: Condvar::new(),
            gaps: Mutex::default(),
            unfreed: Mutex::default(),
        })
    }

    /// Its settings.
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
    /// published segments are to be announced. It ends once every queue has ended, or the last holder drops the feed.
    ///
    /// # Errors
    /// [`HistoryError::Thread`].
    pub fn record(self: &Arc<Self>, serial: u64, queues: usize) -> Result<Arc<Feed>, HistoryError> {
        let feed = Arc::new(Feed::without_merge());
        let told = feed.listen_with(WhenSlow::Keep);
        let history = Arc::clone(self);
        self.begin(serial, now_ns(), Instant::now());
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || intake::run(&history, serial, queues, &told));
        match thread {
            Ok(_runs_until_every_queue_ended) => Ok(feed),
            Err(e) => {
                self.close(serial);
                Err(HistoryError::Thread(e))
            }
        }
    }

    fn begin(&self, serial: u64, began_ns: u64, now: Instant) {
        let newest_ns = {
            let mut ring = self.ring();
            ring.begin(began_ns);
            ring.newest_ns()
        };
        let mut open = self.opened();
        // Since the last one ended, or an earlier process did, nothing was recorded.
        if let Some(newest_ns) = newest_ns.filter(|newest| open.is_empty() && *newest < began_ns) {
            self.miss(newest_ns + 1, began_ns);
        }
        for (_, older) in open.range_mut(..serial) {
            older.replaced.get_or_insert(now);
        }
        open.insert(serial, Recording { began_ns, replaced: None });
    }

    /// No look-back waits for this recording any more.
    fn close(&self, serial: u64) {
        self.opened().remove(&serial);
        self.closed.notify_all();
    }

    /// Since when a recording that is waited for is replaced.
    fn replaced(&self, serial: u64) -> Option<Instant> {
        self.opened().get(&serial).and_then(|recording| recording.replaced)
    }

    /// Whether the ring may lack packets up to `end_ns` until the newest recording is ended and another one begun.
    #[must_use]
    pub fn lags(&self, end_ns: u64) -> bool {
        self.lags_at(end_ns, now_ns())
    }

    /// A segment is in the ring so long after its first packet, or the disk does not keep up at all.
    fn settled(&self) -> Duration {
        const PUBLISHED_WITHIN: Duration = Duration::from_secs(5);
        self.config.segment + PUBLISHED_WITHIN
    }

    fn lags_at(&self, end_ns: u64, now_ns: u64) -> bool {
        let settled = ns(self.settled());
        let newest = self.opened().values().last().copied();
        // A recording that begins in the future began before the clock was set back.
        newest.is_some_and(|newest| newest.began_ns <= end_ns || newest.began_ns > now_ns)
            && now_ns.saturating_sub(end_ns) < settled
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

    /// Waits for the workers' last segments. Call it only once writers and publisher have ended too: nothing more is announced then,
    /// and a recording that no worker had started would never receive its end. Blocks.
    ///
    /// # Errors
    /// [`HistoryError::Late`] when it takes too long.
    pub fn finish(&self, patience: Duration) -> Result<(), HistoryError> {
        let serials: Vec<u64> = self.opened().keys().copied().collect();
        // The feed is dropped with the registration; earlier messages are still taken in.
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
            ring.trim(Now::get());
            (ring.between(query.start_ns, query.end_ns), ring.oldest_ns())
        };
        let covered = oldest_ns.is_some_and(|oldest| oldest <= query.start_ns)
            && !self.lacks(query.start_ns, query.end_ns);
        query::run(query, &self.dir, &entries, covered, visible)
    }

    /// Remembers a gap: segments of this time are lost to the ring.
    fn miss(&self, from_ns: u64, to_ns: u64) {
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.push_back((from_ns, to_ns));
        if gaps.len() > GAPS_MAX
            && let (Some(first), Some(second)) = (gaps.pop_front(), gaps.pop_front())
        {
            gaps.push_front((first.0.min(second.0), first.1.max(second.1)));
        }
    }

    /// The end of the last gap that begins up to `to_ns`.
    fn gap_before(&self, to_ns: u64) -> Option<u64> {
        let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.iter().filter(|(first, _)| *first <= to_ns).map(|(_, last)| *last).max()
    }

    /// Whether segments of this time are lost to the ring.
    fn lacks(&self, from_ns: u64, to_ns: u64) -> bool {
        let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.iter().any(|(first, last)| *first <= to_ns && *last >= from_ns)
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

    /// Housekeeping: deletes segments that are too old, and frees those that could not be freed.
    fn tidy(&self) {
        self.ring().trim(Now::get());
        let mut unfreed = self.unfreed.lock().unwrap_or_else(PoisonError::into_inner);
        unfreed.retain(|path| self.spool.free(path).is_err());
    }

    /// Takes a published segment into the ring and off the spool's account.
    fn adopt(&self, path: &Path, mut entry: Entry) -> io::Result<()> {
        entry.number = self.ring().next_number();
        let to = self.dir.join(entry.name());
        if self.spool.config().write == WriteMode::Mapped {
            // The file of a mapped segment is reused, so the ring keeps a copy.
            self.copy(path, &to, &entry)?;
            if let Err(error) = self.spool.free(path) {
                tracing::warn!(segment = %path.display(), %error, "a segment of the spool cannot be freed; it is tried again");
                self.unfreed.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
            }
        } else {
            self.spool.hand_over(path, &to)?;
        }
        let (mut ring, now) = (self.ring(), Now::get());
        ring.insert(entry, now);
        ring.trim(now);
        Ok(())
    }

    fn copy(&self, path: &Path, to: &Path, entry: &Entry) -> io::Result<()> {
        let files = self.spool.files();
        let part = self.dir.join(format!("{}{}", ring::PART_PREFIX, entry.name()));
        let copied = files
            .call(Call::Write, &part, || fs::copy(path, &part).map(drop))
            .and_then(|()| files.sync(&fs::File::open(&part)?, &part))
            .and_then(|()| files.rename(&part, to));
        if copied.is_err() {
            let _the_next_start_removes_it = files.remove(&part);
        }
        copied
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<u64, Recording>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn now_ns() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}
