//! What a delivery tells the one that started it. Owns the messages; not what is made of them.
//!
//! Invariant: a delivery tells of each object once, and of its end once, as the last thing.

use super::inherit::Found;
use super::retry::Outcome;
use super::words::Words;
use crate::job::ObjectInfo;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// News of one delivery.
#[derive(Debug)]
pub(crate) enum Report {
    /// What a dead process left is known.
    Recovered(Found),
    /// An attempt failed and will be repeated after so long.
    Trouble(Words, Duration),
    /// An object is complete.
    Object(ObjectInfo),
    /// The delivery ends, and these objects are complete behind one that is not. Comes once, before the end, if there are any.
    Ahead(Vec<ObjectInfo>),
    /// So many packets that were captured could not be read from the disk again and are in no object. Comes once, before the
    /// end, if there are any.
    Lost {
        /// How many.
        packets: u64,
        /// Their frame bytes.
        frame_bytes: u64,
    },
    /// Everything is delivered, or it cannot be.
    Delivered(Outcome),
}

/// Takes the news of one delivery.
#[derive(Clone)]
pub(crate) struct Reporter(Arc<dyn Fn(Report) + Send + Sync>);

impl Reporter {
    pub fn new(tell: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub fn tell(&self, report: Report) {
        (self.0)(report);
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
