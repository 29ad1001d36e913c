//! The tasks without which the host is of no use, each with its name. Owns that the end of one is noticed at once, whatever the
//! others do; not what they do, nor what follows from it.
//!
//! Invariant: a task that ends before it was asked to, or panics, is told by name.

use super::serve::ServeError;
use futures_util::FutureExt;
use std::any::Any;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};

/// The named tasks.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<(&'static str, Result<(), String>)>);

impl Tasks {
    /// Runs one until it ends by itself.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.0.spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            (name, ended.map_err(|panic| words(&*panic)))
        })
    }

    /// Waits until one ends that was not asked to. Never, if there is none.
    pub async fn died(&mut self) -> ServeError {
        self.died_but(None).await
    }

    /// As [`Tasks::died`], but `asked` was asked to end, so that it ends by itself is no death; that it panics is.
    pub async fn died_but(&mut self, asked: Option<&str>) -> ServeError {
        loop {
            match self.0.join_next().await {
                Some(Ok((task, Ok(())))) if Some(task) == asked => {}
                Some(Ok((task, Ok(())))) => {
                    return ServeError::Died { task, how: "it ended by itself".to_owned() };
                }
                Some(Ok((task, Err(words)))) => {
                    return ServeError::Died { task, how: format!("it panicked: {words}") };
                }
                // Aborted, which only we do.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for the end of all, which were asked to end, at most `time_max`; then the rest is aborted.
    ///
    /// # Errors
    /// The first that panicked.
    pub async fn finish(mut self, time_max: Duration) -> Result<(), ServeError> {
        let mut result = Ok(());
        let all = async {
            while let Some(ended) = self.0.join_next().await {
                if let Ok((task, Err(words))) = ended
                    && result.is_ok()
                {
                    result = Err(ServeError::Died { task, how: format!("it panicked: {words}") });
                }
            }
        };
        if tokio::time::timeout(time_max, all).await.is_err() {
            tracing::warn!("tasks of the host were cut off at the end");
        }
        result
    }
}

/// One turn of work that waits for the disk and is done again and again; a panic is told, and the next turn tries again. Breaks
/// when the runtime ends.
pub(super) async fn turn_of(what: &str, work: impl FnOnce() + Send + 'static) -> ControlFlow<()> {
    match tokio::task::spawn_blocking(work).await {
        Err(error) if error.is_panic() => tracing::error!("{what} panicked"),
        Err(_runtime_ends) => return ControlFlow::Break(()),
        Ok(()) => {}
    }
    ControlFlow::Continue(())
}

/// What a panic said.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_and_an_early_end_are_told_with_the_task_s_name_while_the_others_run() {
        let mut tasks = Tasks::default();
        tasks.spawn("api", std::future::pending());
        tasks.spawn("engine", async { panic!("slot {} is taken", 3) });
        let died = tasks.died().await.to_string();
        assert!(died.contains("engine") && died.contains("it panicked: slot 3 is taken"), "{died}");
        tasks.spawn("retention", async {});
        let died = tasks.died().await.to_string();
        assert!(died.contains("retention") && died.contains("ended by itself"), "{died}");
    }

    #[tokio::test]
    async fn a_task_that_was_asked_to_end_dies_by_a_panic_alone() {
        let mut tasks = Tasks::default();
        tasks.spawn("engine", async {});
        tasks.spawn("api", std::future::pending());
        let none = tokio::time::timeout(Duration::from_millis(50), tasks.died_but(Some("engine"))).await;
        assert!(none.is_err(), "{none:?}");
        tasks.spawn("engine", async { panic!("late") });
        let died = tasks.died_but(Some("engine")).await.to_string();
        assert!(died.contains("engine") && died.contains("late"), "{died}");
    }

    #[tokio::test]
    async fn a_task_that_is_aborted_is_no_death_and_a_panic_at_the_end_is() {
        let mut tasks = Tasks::default();
        tasks.spawn("retention", std::future::pending()).abort();
        let none = tokio::time::timeout(Duration::from_millis(50), tasks.died()).await;
        assert!(none.is_err(), "{none:?}");
        tasks.spawn("api", async {});
        tasks.spawn("engine", async { panic!("late") });
        let died = tasks.finish(Duration::from_secs(20)).await.unwrap_err().to_string();
        assert!(died.contains("engine") && died.contains("late"), "{died}");
    }
}
