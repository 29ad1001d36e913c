//! Changes of jobs as they are told to those who watch. Owns the order and the bound; not who writes.
//!
//! Invariant: the revisions of a job come in order, each once, and a watcher that is too slow is told so: it never believes
//! that it has seen what it has not.

use super::Stored;
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// The watcher was too slow: what it knows is old, and it should list the jobs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} changes of jobs were missed; list the jobs again")]
pub struct Missed(pub u64);

/// What [`super::JobStore::watch`] gives. Dropping it ends the watch.
#[derive(Debug)]
pub struct Changes(Receiver<Arc<Stored>>);

impl Changes {
    pub(super) fn new(changes: Receiver<Arc<Stored>>) -> Self {
        Self(changes)
    }

    /// The next written job; `None` once the store is gone. May be cancelled without losing one.
    ///
    /// # Errors
    /// [`Missed`] once after changes that came too fast; the ones after them follow.
    pub async fn next(&mut self) -> Result<Option<Arc<Stored>>, Missed> {
        match self.0.recv().await {
            Ok(stored) => Ok(Some(stored)),
            Err(RecvError::Closed) => Ok(None),
            Err(RecvError::Lagged(count)) => Err(Missed(count)),
        }
    }
}
