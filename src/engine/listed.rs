//! Pages of an account's captures. Owns what may be asked for; not the reading.

use crate::job::{CaptureId, Job, Kind, Status};

/// Which captures of an account a page has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only those that were submitted before this one.
    pub before: Option<CaptureId>,
    /// At most so many.
    pub count_max: usize,
    /// In one of these states; in any if empty.
    pub statuses: Vec<Status>,
    /// Of this kind alone.
    pub kind: Option<Kind>,
}

impl Wanted {
    /// Whether a job may be none of them.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.kind.is_some() || !self.statuses.is_empty()
    }

    /// Whether a job is one of them.
    #[must_use]
    pub fn admits(&self, job: &Job) -> bool {
        self.kind.is_none_or(|kind| job.request.kind == kind)
            && (self.statuses.is_empty() || self.statuses.contains(&job.status))
    }
}

/// A page, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// Its captures.
    pub jobs: Vec<Job>,
    /// The `before` of the next page, if there may be one.
    pub next: Option<CaptureId>,
    /// All captures of the account that are wanted, on this page or another.
    pub total: u64,
}
