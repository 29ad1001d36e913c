//! The thread that brings one recording's published segments into the ring. Owns the recording's end.
//!
//! Invariant: when a recording is closed, all that it published is in the ring or was reported as lost.

use super::{Entry, History};
use crate::spool::{Cut, Feed, Input};
use crate::worker::Sample;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::sync::Weak;
use std::time::Duration;

/// How often the ring is trimmed by age while nothing arrives.
const TRIM: Duration = Duration::from_secs(60);

/// Works until every queue has ended or whoever announces is gone.
pub(super) fn run(
    history: &History,
    serial: u64,
    queues: usize,
    announced: &Receiver<Input>,
    feed: &Weak<Feed>,
) {
    let (mut left, mut taken) = (queues, vec![Cut::default(); queues]);
    while left > 0 {
        match announced.recv_timeout(TRIM) {
            Ok(Input::Segment(queue, segment)) => {
                let entry = Entry {
                    first_ns: segment.first_ns,
                    last_ns: segment.last_ns,
                    queue: u16::try_from(queue).unwrap_or(u16::MAX),
                    one_in: history.config.sample.map_or(1, Sample::one_in),
                    bytes: segment.bytes,
                };
                if let Err(error) = history.adopt(&segment.path, entry) {
                    let segment = segment.path.display();
                    tracing::error!(%segment, %error, "a segment could not be taken into the history");
                }
                // Nobody asks for it again: a recording may last for months.
                if let (Some(cut), Some(feed)) = (taken.get_mut(queue), feed.upgrade()) {
                    cut.sequence = segment.sequence + 1;
                    feed.done(&taken);
                }
            }
            Ok(Input::Hole { .. } | Input::Watermark(..) | Input::Counts(_)) => {}
            Ok(Input::End(_)) => left -= 1,
            Err(RecvTimeoutError::Timeout) => history.trim(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    history.spool.forget(serial);
    history.close(serial);
}
