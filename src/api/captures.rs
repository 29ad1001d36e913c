//! What the API asks of whatever does captures. Owns the trait, and that an engine's [`Handle`] is one; not what captures are.
//!
//! Invariant: no route knows whether one host answers or many.

use crate::engine::{Asked, Estimate, Handle, Listed, Refusal, Standing, Wanted};
use crate::job::{AccountId, CaptureId, Job, KeptSeries, ObjectRange, Progress, Request};
use std::future::Future;
use std::pin::Pin;

/// An answer on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// One host's engine, or the front of many hosts. A capture of another account is one that is not there ([`Refusal::NotFound`]).
pub trait Captures: Send + Sync {
    /// Starts a capture.
    fn create(&self, request: Request) -> Answer<'_, Job>;

    /// The account's captures, newest first, at most [`crate::limits::LIST_CAPTURES_MAX`].
    fn list(&self, account: AccountId) -> Answer<'_, Vec<Job>>;

    /// A page of the account's captures, newest first.
    fn page(&self, account: AccountId, wanted: Wanted) -> Answer<'_, Listed>;

    /// One capture with its counts up to now.
    fn get(&self, account: AccountId, id: CaptureId) -> Answer<'_, Job>;

    /// Ends a capture and keeps what it has. Stopping an ended one does nothing.
    fn stop(&self, account: AccountId, id: CaptureId) -> Answer<'_, ()>;

    /// What captures of the account that take no more packets have on hosts, in bytes, oldest first.
    fn held(&self, account: AccountId) -> Answer<'_, Vec<(CaptureId, u64)>>;

    /// Drops what of a capture is on hosts and not delivered.
    fn discard(&self, account: AccountId, id: CaptureId) -> Answer<'_, ()>;

    /// One capture's progress, with these of its objects.
    fn progress_with(&self, account: AccountId, id: CaptureId, range: ObjectRange) -> Answer<'_, Progress>;

    /// One capture's counts over time.
    fn series(&self, account: AccountId, id: CaptureId) -> Answer<'_, KeptSeries>;

    /// How many packets of the last seconds a filter takes. Ends when the caller does.
    fn estimate(&self, account: AccountId, asked: Asked) -> Answer<'_, Estimate>;

    /// What the account may start now.
    fn standing(&self, account: AccountId) -> Answer<'_, Standing>;
}

impl Captures for Handle {
    fn create(&self, request: Request) -> Answer<'_, Job> {
        Box::pin(self.create(request))
    }

    fn list(&self, account: AccountId) -> Answer<'_, Vec<Job>> {
        Box::pin(self.list(account))
    }

    fn page(&self, account: AccountId, wanted: Wanted) -> Answer<'_, Listed> {
        Box::pin(self.page(account, wanted))
    }

    fn get(&self, account: AccountId, id: CaptureId) -> Answer<'_, Job> {
        Box::pin(self.get(account, id))
    }

    fn stop(&self, account: AccountId, id: CaptureId) -> Answer<'_, ()> {
        Box::pin(self.stop(account, id))
    }

    fn held(&self, account: AccountId) -> Answer<'_, Vec<(CaptureId, u64)>> {
        Box::pin(self.held(account))
    }

    fn discard(&self, account: AccountId, id: CaptureId) -> Answer<'_, ()> {
        Box::pin(self.discard(account, id))
    }

    fn progress_with(&self, account: AccountId, id: CaptureId, range: ObjectRange) -> Answer<'_, Progress> {
        Box::pin(self.progress_with(account, id, range))
    }

    fn series(&self, account: AccountId, id: CaptureId) -> Answer<'_, KeptSeries> {
        Box::pin(self.series(account, id))
    }

    fn estimate(&self, account: AccountId, asked: Asked) -> Answer<'_, Estimate> {
        Box::pin(self.estimate(account, asked))
    }

    fn standing(&self, account: AccountId) -> Answer<'_, Standing> {
        Box::pin(self.standing(account))
    }
}
