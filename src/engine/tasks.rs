//! Work that waits for others, away from the engine's task. Owns that each piece of it answers with exactly one input.
//!
//! Invariant: a task that panics answers too, with its failure: no capture waits for an answer that never comes.

use super::Engine;
use super::machine::{Input, Serial};
use std::future::Future;

impl Engine {
    /// Starts a task; `died` makes the answer of one that panicked.
    pub(super) fn spawn(
        &self,
        task: impl Future<Output = Input> + Send + 'static,
        died: impl FnOnce(String) -> Input + Send + 'static,
    ) {
        let tasks = self.tasks.0.clone();
        tokio::spawn(async move {
            let input = tokio::spawn(task).await.unwrap_or_else(|error| died(error.to_string()));
            let _engine_gone = tasks.send(input);
        });
    }

    /// Does something that waits for a disk on a thread that may.
    pub(super) fn spawn_blocking(
        &self,
        task: impl FnOnce() -> Input + Send + 'static,
        died: impl FnOnce(String) -> Input + Send + 'static,
    ) {
        let tasks = self.tasks.0.clone();
        tokio::spawn(async move {
            let input =
                tokio::task::spawn_blocking(task).await.unwrap_or_else(|error| died(error.to_string()));
            let _engine_gone = tasks.send(input);
        });
    }
}

/// What a removal that died comes to.
pub(super) fn removal_died(serial: Serial) -> impl FnOnce(String) -> Input {
    move |error| Input::Removed { serial, result: Err(error), kept: 0 }
}
