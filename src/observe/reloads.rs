//! What became of reloads of the config. Owns their counts and the words about the last one; not a reload itself.
//!
//! Invariant: the words name keys and no values, and no account.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub struct Reloads {
    done: AtomicU64,
    refused: AtomicU64,
    last: Mutex<Option<String>>,
}

impl Reloads {
    /// One was done: it changed these keys.
    pub fn done(&self, at: &str, keys: &[String]) {
        let keys = if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
        self.done.fetch_add(1, Relaxed);
        self.say(format!("config reloaded at {at}: {keys} changed"));
    }

    /// One was refused.
    pub fn refused(&self, at: &str, why: &str) {
        self.refused.fetch_add(1, Relaxed);
        self.say(format!("config of {at} refused, the old one holds: {why}"));
    }

    fn say(&self, words: String) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    }

    /// What became of the last one.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many there were, by their result.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 2] {
        [("done", self.done.load(Relaxed)), ("refused", self.refused.load(Relaxed))]
    }
}
