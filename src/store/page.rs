//! Pages of an account's jobs. Owns what is asked for and answered; not the reading.
//!
//! Invariant: one page looks at a bounded number of records, and so does the count beside it.

use super::{StoreError, Stored};
use crate::job::{CaptureId, Job};

/// Records that one page looks at. A customer makes them some KiB each, and others wait for their turn at the store meanwhile.
pub(super) const LOOKED_AT_MAX: usize = 1000;

impl PageQuery<'_> {
    /// # Errors
    /// [`StoreError::GivenUp`].
    pub(super) fn go_on(&self) -> Result<(), StoreError> {
        if (self.is_given_up)() { Err(StoreError::GivenUp) } else { Ok(()) }
    }

    pub(super) fn admits(&self, job: &Job) -> bool {
        self.is_wanted.is_none_or(|is_wanted| is_wanted(job))
    }
}

/// Which jobs a page has.
pub struct PageQuery<'a> {
    /// Only those that were submitted before this one, which is the account's own.
    pub before: Option<&'a Job>,
    /// At most so many.
    pub count_max: usize,
    /// Only those; all if none.
    pub is_wanted: Option<&'a dyn Fn(&Job) -> bool>,
    /// Whether nobody waits for the page any more; asked before each record.
    pub is_given_up: &'a dyn Fn() -> bool,
}

/// A page, newest first.
#[derive(Debug, Default, PartialEq)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Stored>,
    /// The last one that was looked at, if there are more behind it: the `before` of the next page.
    pub next: Option<CaptureId>,
    /// All jobs of the account that are wanted, before the page and behind it; of the newest [`LOOKED_AT_MAX`] if not all are.
    pub total: u64,
}
