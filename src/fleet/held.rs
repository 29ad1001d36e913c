//! One record of the fleet's store as its writer sees it. Owns compare-and-set: what is known durable, what to do when an answer is
//! lost, and when a writer is deposed; not what the record means.
//!
//! Invariant: a write follows only on the revision that its writer decided by, so of any number of writers that believe they are
//! the one, each revision has one. A read alone decides nothing: it may be old.

use super::{Epoch, Now};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A record that knows who wrote it.
pub trait Owned: Clone {
    /// Of the writer. A writer with a larger one deposes those before it.
    fn epoch(&self) -> Epoch;
    /// The same record, written in this epoch.
    fn in_epoch(self, epoch: Epoch) -> Self;
}

/// Which state of a record: later is larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// Of the stream that has the record: when it was created. A stream that is created again counts its writes again, so all of
    /// them are later than those of the last one. It is part of the stream's name, so that the store compares it too.
    pub incarnation: u64,
    /// Of the write; 0 if there was none. What is purged has the number of the purge.
    pub sequence: u64,
}

/// What to do in the store; each is answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<R> {
    /// Read the record.
    Read,
    /// Write it if its revision is this one still. The first of all revisions stands for no record, in whatever stream.
    Write {
        /// The revision that is replaced.
        expected: Revision,
        /// What it becomes.
        value: R,
    },
}

/// What the store said, or that it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<R> {
    /// The revision as some server has it, perhaps an old one, and its record; none if it has none.
    Read(Revision, Option<R>),
    /// The write is durable with this revision.
    Wrote(Revision),
    /// The revision was another one: nothing was written.
    Stale,
    /// No answer came: it may be written, or be written later.
    Uncertain,
    /// The store cannot be reached: nothing was done.
    Unavailable,
}

/// So many times the pause between reads, an older state than is known is taken for an old read.
const OLDER: u32 = 100;

/// The writer's view.
#[derive(Clone, Debug)]
pub struct Held<R> {
    epoch: Epoch,
    /// Durable, as far as it is known.
    revision: Revision,
    value: Option<R>,
    writing: Option<R>,
    has_written: bool,
    is_known: bool,
    is_busy: bool,
    /// The epoch of the writer that took it over.
    deposed_by: Option<Epoch>,
    /// Since when reads show nothing or an older state than is known.
    older_since: Option<Duration>,
    retry_at: Duration,
    /// The newest revision that a watch told of.
    told: Revision,
}

impl<R: Owned> Held<R> {
    /// Of a writer with this epoch, which knows nothing yet.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            revision: Revision::default(),
            value: None,
            writing: None,
            has_written: false,
            is_known: false,
            is_busy: false,
            deposed_by: None,
            older_since: None,
            retry_at: Duration::ZERO,
            told: Revision::default(),
        }
    }

    /// The same, where nothing can be there yet: saves the first read. If that is wrong, the first write is refused.
    #[must_use]
    pub fn absent(epoch: Epoch) -> Self {
        Self { is_known: true, ..Self::new(epoch) }
    }

    /// Whether its writer may decide by [`Self::value`] now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_known && !self.is_busy && !self.is_deposed()
    }

    /// Whether a later writer took it over. It stays so.
    #[must_use]
    pub fn is_deposed(&self) -> bool {
        self.deposed_by.is_some()
    }

    /// The epoch of that writer.
    #[must_use]
    pub fn deposed_by(&self) -> Option<Epoch> {
        self.deposed_by
    }

    fn meet(&mut self, epoch: Epoch) {
        // One in the same epoch that this writer did not write is by another writer: the claims were lost, and it was given out again.
        if epoch > self.epoch || (epoch == self.epoch && !self.has_written) {
            self.deposed_by = self.deposed_by.max(Some(epoch));
        }
    }

    /// What is durable.
    #[must_use]
    pub fn value(&self) -> Option<&R> {
        self.value.as_ref()
    }

    /// Whether what is durable was written by this writer.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.value().is_some_and(|value| value.epoch() == self.epoch)
    }

    /// The read that is due, if one is.
    pub fn poll(&mut self, now: Now) -> Option<Op<R>> {
        let is_due = !self.is_known && !self.is_busy && !self.is_deposed() && now.mono >= self.retry_at;
        is_due.then(|| {
            self.is_busy = true;
            Op::Read
        })
    }

    /// Writes; only if it is ready.
    #[must_use]
    pub fn write(&mut self, value: R) -> Op<R> {
        assert!(self.is_ready(), "a write needs a known record and no other write under way");
        let value = value.in_epoch(self.epoch);
        (self.is_busy, self.has_written) = (true, true);
        self.writing = Some(value.clone());
        Op::Write { expected: self.revision, value }
    }

    /// Takes an answer; whether something is known to be durable now that was not before.
    pub fn answered(&mut self, answer: Answer<R>, now: Now, backoff: Duration) -> bool {
        self.is_busy = false;
        let written = self.writing.take();
        match (answer, written) {
            (Answer::Wrote(revision), Some(value)) => {
                (self.revision, self.value) = (revision, Some(value));
                // A watch told of a later one while this one was under way.
                self.is_known = self.told <= revision;
                true
            }
            (Answer::Read(revision, found), _) => self.read(revision, found, now, backoff),
            (Answer::Stale, _) => {
                self.is_known = false;
                self.retry_at = now.mono;
                false
            }
            // A write that is under way may land after a read: the next write's revision decides between them.
            (Answer::Uncertain | Answer::Unavailable | Answer::Wrote(_), _) => {
                self.is_known = false;
                self.retry_at = now.mono + backoff;
                false
            }
        }
    }

    fn read(&mut self, revision: Revision, found: Option<R>, now: Now, backoff: Duration) -> bool {
        if revision < self.revision {
            // No server is behind for so long: the store was brought back to an older state. The next write says so for sure.
            let since = *self.older_since.get_or_insert(now.mono);
            if now.mono < since + backoff * OLDER {
                self.retry_at = now.mono + backoff;
                return false;
            }
            self.told = revision;
        }
        self.older_since = None;
        self.is_known = true;
        if let Some(value) = &found {
            self.meet(value.epoch());
        }
        let is_new = revision != self.revision;
        (self.revision, self.value) = (revision, found);
        is_new
    }

    /// Nothing was found where something must be: that was an old state, so it is read again.
    pub fn look_again(&mut self, now: Now, backoff: Duration) {
        if self.is_ready() && self.value.is_none() {
            self.is_known = false;
            self.retry_at = now.mono + backoff;
        }
    }

    /// A watch tells of a revision. Only a newer one counts; while an operation is under way it is noted, and read afterwards.
    pub fn saw(&mut self, revision: Revision, value: &R) {
        self.told = self.told.max(revision);
        if !self.is_busy && revision > self.revision {
            self.meet(value.epoch());
            (self.revision, self.value) = (revision, Some(value.clone()));
        }
    }
}
