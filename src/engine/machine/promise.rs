//! Answers to those who decided something about a capture. Owns who waits for which version of its job, and how long; the decisions
//! are made elsewhere.
//!
//! ```text
//! stop, drop ─▶ decided, carried out ─▶ recorded ─▶ answered
//!                                  └─ not in time ─▶ refused: it may be forgotten
//! ```
//!
//! Invariant: who is told that something will be so can rely on it: the next process knows of it too.

use super::capture::{Capture, Phase};
use super::{Effect, Machine, Now, RECORD_TIME_MAX, ReplyId, Serial};
use crate::engine::handle::Refusal;
use std::time::Duration;

/// Somebody who waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    reply: ReplyId,
    /// Of the job that has to be durable.
    version: u64,
    since: Duration,
}

/// Answers all of them alike.
pub(super) fn answer(
    replies: impl IntoIterator<Item = ReplyId>,
    answer: &Result<(), Refusal>,
    out: &mut Vec<Effect>,
) {
    let effect = |reply| Effect::Promised { reply, answer: answer.clone() };
    out.extend(replies.into_iter().map(effect));
}

impl Capture {
    /// Has somebody answered once what was handed to the store last is durable.
    pub(super) fn promise(&mut self, now: Now, reply: Option<ReplyId>, out: &mut Vec<Effect>) {
        if self.durable >= self.version {
            return answer(reply, &Ok(()), out);
        }
        let (version, since) = (self.version, now.mono);
        self.promises.extend(reply.map(|reply| Promise { reply, version, since }));
    }

    /// This version of its job is durable.
    pub(super) fn keep_promises(&mut self, durable: u64, out: &mut Vec<Effect>) {
        self.durable = self.durable.max(durable);
        let kept = self.promises.extract_if(.., |promise| promise.version <= durable);
        answer(kept.map(|promise| promise.reply), &Ok(()), out);
    }

    /// Refuses those who wait since then.
    pub(super) fn break_promises(
        &mut self,
        is_over: impl Fn(Duration) -> bool,
        why: &Refusal,
        out: &mut Vec<Effect>,
    ) {
        let broken = self.promises.extract_if(.., |promise| is_over(promise.since));
        answer(broken.map(|promise| promise.reply), &Err(why.clone()), out);
    }
}

impl Machine {
    /// Who waited as long as a store may take is told that nothing is sure.
    pub(super) fn break_late_promises(&mut self, now: Now, out: &mut Vec<Effect>) {
        let is_late = |since: Duration| now.mono.saturating_sub(since) >= RECORD_TIME_MAX;
        for capture in self.captures.values_mut() {
            capture.break_promises(is_late, &Refusal::Undurable, out);
        }
    }

    /// Its owner wants nothing of it that is on the host.
    pub(super) fn owner_drops(
        &mut self,
        now: Now,
        serial: Serial,
        reply: Option<ReplyId>,
        out: &mut Vec<Effect>,
    ) {
        let Some(capture) = self.captures.get_mut(&serial) else {
            // A look back has nothing on the spool.
            return answer(reply, &Ok(()), out);
        };
        if matches!(capture.phase, Phase::Ending { .. } | Phase::Removing) {
            // What it leaves is known once it has ended.
            return capture.drops.push(reply);
        }
        self.give_up(serial, "its owner dropped it before its upload was complete".to_owned(), out);
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        if capture.job.given_up.is_some() {
            capture.promise(now, reply, out);
        } else {
            answer(reply, &Err(Refusal::StillCapturing(capture.job.id.clone())), out);
        }
    }
}
