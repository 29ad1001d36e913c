//! The end of the process. Owns what a shutdown waits for and what it leaves to the next process.
//!
//! Invariant: a shutdown ends once every capture is delivered or left, however long the store takes nothing.

use super::capture::Phase;
use super::{Effect, Machine, Now, RECORD_TIME_MAX, ReplyId, Serial};
use crate::engine::handle::Refusal;
use crate::job::StopReason;
use std::time::Duration;

/// A shutdown that is under way.
#[derive(Debug)]
pub(super) struct Shutdown {
    replies: Vec<ReplyId>,
    since: Duration,
    finished: bool,
}

impl Machine {
    pub(super) fn shut_down(&mut self, now: Now, reply: Option<ReplyId>, out: &mut Vec<Effect>) {
        if let Some(ending) = &mut self.ending {
            ending.replies.extend(reply);
            return;
        }
        self.ending =
            Some(Shutdown { replies: reply.into_iter().collect(), since: now.mono, finished: false });
        if self.recording.is_some() {
            out.push(Effect::DetachRecording);
        }
        // What cannot be delivered now stays in the spool, and the next process goes on with it.
        out.push(Effect::StopRetrying);
        let serials: Vec<Serial> = self.captures.keys().copied().collect();
        for serial in serials {
            self.end(serial, StopReason::Shutdown, out);
        }
    }

    /// A shutdown waits only so long for a store that takes no job: the spool has everything that the next process needs.
    pub(super) fn give_up_waiting(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(since) = self.ending.as_ref().map(|ending| ending.since) else { return };
        let late = |waits_since: Duration| now.mono.saturating_sub(since.max(waits_since)) >= RECORD_TIME_MAX;
        let waiting: Vec<Serial> = self
            .captures
            .values()
            .filter(|capture| late(capture.waits_since))
            .filter(|capture| {
                matches!(
                    capture.phase,
                    Phase::Recording { .. } | Phase::Ending { .. } | Phase::Leaving { .. }
                )
            })
            .map(|capture| capture.serial)
            .collect();
        for serial in waiting {
            let Some(capture) = self.captures.get_mut(&serial) else { continue };
            if let Phase::Recording { .. } = capture.phase {
                self.refuse(serial, Refusal::ShuttingDown, out);
                continue;
            }
            if capture.notes.in_flight {
                continue;
            }
            tracing::error!(
                capture = %capture.job.id,
                "its state could not be recorded before the end; the next start finds it in the spool and goes on"
            );
            // Not removed: the next process must find what it can deliver or check again.
            capture.phase = Phase::Removing;
            out.push(Effect::Forget { serial });
        }
        self.give_up_look_backs(late, out);
    }

    /// Whether nothing is under way that would still answer.
    fn is_idle(&self) -> bool {
        let is_preparing = self.recording.as_ref().is_some_and(super::Recording::is_preparing);
        self.captures.is_empty() && self.look_backs.is_empty() && !is_preparing
    }

    pub(super) fn finish_if_idle(&mut self, out: &mut Vec<Effect>) {
        if self.is_idle()
            && let Some(ending) = self.ending.as_mut().filter(|ending| !ending.finished)
        {
            ending.finished = true;
            out.push(Effect::Finish { replies: std::mem::take(&mut ending.replies) });
        }
    }
}
