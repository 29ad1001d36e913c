//! From a recorded job to the moment at which the last packet was taken. Owns attaching, deadlines and the reason of the end;
//! not what becomes of the packets.
//!
//! Invariant: a capture has one reason to stop, the first, and the wall clock is never one.

use super::capture::{Capture, Phase, Trouble, reason, refused};
use super::{Effect, Held, Machine, Now, ReplyId, SNAPSHOT_INTERVAL, Serial, promise};
use crate::engine::handle::Refusal;
use crate::job::{ClockState, ClockStates, ClockSteps, LostStream, Status, StopReason};
use crate::spool::Failure;
use crate::worker::Ended;
use std::time::Duration;

/// How long after its deadline a capture waits for the spool to say why it took the budget away.
const EXPLANATION_TIME_MAX: Duration = Duration::from_secs(1);

impl Machine {
    /// A version of a job is durable.
    pub(super) fn recorded(&mut self, now: Now, serial: Serial, version: u64, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else {
            return self.look_back_recorded(serial, version, out);
        };
        capture.keep_promises(version, out);
        match capture.phase {
            Phase::Recording { reply } => {
                capture.phase = Phase::Placing { reply };
                out.push(Effect::Place { serial });
            }
            Phase::Ending { version: wanted, .. } | Phase::Leaving { version: wanted }
                if version >= wanted =>
            {
                self.release(now, serial, out);
            }
            _ => {}
        }
    }

    pub(super) fn record_trouble(&mut self, serial: Serial, error: String) {
        if let Some(capture) = self.captures.get_mut(&serial) {
            tracing::warn!(capture = %capture.job.id, account = %capture.job.request.account, error, "a capture's state cannot be recorded");
            let said = "the state of this capture cannot be recorded; its operator finds the reason in this host's log";
            capture.trouble = Some(Trouble { said: said.to_owned(), kind: said });
        }
    }

    pub(super) fn placed(
        &mut self,
        now: Now,
        serial: Serial,
        made: Result<(), String>,
        out: &mut Vec<Effect>,
    ) {
        let is_ending = self.is_ending();
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        let Phase::Placing { reply } = capture.phase else { return };
        if let Err(error) = made {
            return self.fail_unplaced(now, serial, &Refusal::Store(error), None, out);
        }
        if is_ending {
            return self.fail_unplaced(now, serial, &Refusal::ShuttingDown, Some(StopReason::Shutdown), out);
        }
        tracing::info!(capture = %capture.job.id, account = %capture.job.request.account, "capture accepted");
        capture.started = Some(now.wall);
        capture.job.started = capture.started;
        capture.job.clock = self.clock.map(|start| ClockStates { start, end: None });
        capture.ends_at = now.mono.saturating_add(capture.window_left(now.mono));
        capture.phase = Phase::Attaching;
        out.push(Effect::Deliver { serial });
        if let Some(slot) = capture.slot {
            out.push(Effect::Attach { serial, slot });
        }
        out.push(Effect::Created { reply, answer: Ok(Box::new(capture.job.clone())) });
        // A list showed it already, and it may have been stopped there.
        let stopped = capture.job.stop_requested.map(|_| StopReason::StopRequested);
        if let Some(why) = stopped.or(capture.adopted.and_then(|adopted| adopted.ended)) {
            self.end(serial, why, out);
        }
    }

    /// Refuses a create whose job is recorded already: the job ends as failed.
    fn fail_unplaced(
        &mut self,
        now: Now,
        serial: Serial,
        refusal: &Refusal,
        why: Option<StopReason>,
        out: &mut Vec<Effect>,
    ) {
        self.forgive_interval(serial);
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        capture.refuse(refusal.clone(), out);
        (capture.slot, capture.job.keys, capture.job.proof) = (None, None, None);
        capture.job.stop_reason = why;
        capture.job.status = Status::Failed;
        capture.job.error_message = Some(match refusal {
            // It may name files of the host.
            Refusal::Store(detail) => {
                tracing::error!(capture = %capture.job.id, account = %capture.job.request.account, detail, "a capture could not begin");
                "the capture could not begin, because this host failed at its own files; ask its operator"
                    .to_owned()
            }
            refusal => refusal.to_string(),
        });
        self.ended.count(Status::Failed);
        let version = capture.record(out);
        // Nothing was captured: the directory, if there is one, holds no packet.
        capture.wait_in(now, Phase::Ending { version, remove: true });
    }

    pub(super) fn attached(&mut self, serial: Serial, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        if capture.phase == Phase::Attaching {
            capture.phase = Phase::Running;
            capture.job.status = Status::Running;
            capture.record(out);
        }
    }

    /// Somebody wants a capture to end, and is answered once that is durable.
    pub(super) fn stop(&mut self, now: Now, serial: Serial, reply: Option<ReplyId>, out: &mut Vec<Effect>) {
        let is_over = |phase| matches!(phase, Phase::Ending { .. } | Phase::Removing);
        let at_work = self.captures.get_mut(&serial).filter(|capture| !is_over(capture.phase));
        let Some(capture) = at_work else { return promise::answer(reply, &Ok(()), out) };
        let is_first = capture.job.stop_requested.is_none();
        capture.job.stop_requested.get_or_insert(now.wall);
        if capture.takes_packets() {
            self.end(serial, StopReason::StopRequested, out);
        } else if is_first {
            capture.record(out);
        }
        if let Some(capture) = self.captures.get_mut(&serial) {
            capture.promise(now, reply, out);
        }
    }

    /// Has the workers let a capture go; what it has will be delivered.
    pub(super) fn end(&mut self, serial: Serial, why: StopReason, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial).filter(|capture| capture.takes_packets()) else {
            return;
        };
        tracing::info!(capture = %capture.job.id, reason = ?why, "capture stops");
        capture.job.stop_reason = Some(why);
        capture.phase = Phase::Detaching;
        out.push(Effect::EndBudget { serial, ended: Ended::Revoked });
        if let Some(slot) = capture.slot {
            out.push(Effect::Detach { serial, slot });
        }
        capture.record(out);
    }

    pub(super) fn budget_ended(&mut self, now: Now, serial: Serial, ended: Ended, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get(&serial) else { return };
        let why = reason(ended, capture.failure.as_ref());
        let unexplained = now.mono.saturating_sub(capture.ends_at) >= EXPLANATION_TIME_MAX;
        if let Some(why) = why.or(unexplained.then_some(StopReason::TimeLimit)) {
            self.end(serial, why, out);
        }
    }

    pub(super) fn spool_failed(&mut self, serial: Serial, failure: Failure, out: &mut Vec<Effect>) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        // Each stream says so.
        if capture.failure.is_none() {
            // What customers read names no key: they cannot turn it.
            let keys = match failure {
                Failure::Full(_) => "spool.bytes_max, spool.account_percent",
                Failure::Io(_) => "spool.dir, spool.dirs",
            };
            tracing::error!(capture = %capture.job.id, account = %capture.job.request.account, error = failure.message(), keys, "capture cannot go on");
            capture.failure = Some(failure.clone());
        }
        self.end(serial, refused(&failure), out);
    }

    /// A stream of a capture ends with its disk, and the others go on.
    pub(super) fn stream_failed(
        &mut self,
        serial: Serial,
        queue: u16,
        failure: &Failure,
        out: &mut Vec<Effect>,
    ) {
        let Some(capture) = self.captures.get_mut(&serial) else { return };
        let is_known = capture.job.lost_streams.iter().any(|lost| lost.queue == queue);
        // What ended the whole capture says enough.
        if is_known || capture.failure.is_some() || capture.settled {
            return;
        }
        let (reason, message) = (refused(failure), failure.message().to_owned());
        tracing::error!(capture = %capture.job.id, account = %capture.job.request.account, queue, error = message, "a capture goes on without this queue");
        capture.job.lost_streams.push(LostStream { queue, reason, message });
        capture.record(out);
    }

    /// What the kernel says of the wall clock now: it stands in what begins or ends from now on.
    pub(super) fn clock_said(&mut self, said: ClockState) {
        self.clock = Some(said);
    }

    pub(super) fn clock_stepped(&mut self, steps: ClockSteps, out: &mut Vec<Effect>) {
        for capture in self.captures.values_mut().filter(|capture| capture.is_counting()) {
            capture.job.clock_steps = Some(steps.after(capture.job.clock_steps));
        }
        self.restart_recording(out);
    }

    pub(super) fn tick(&mut self, now: Now, held: u64, of_accounts: Held, out: &mut Vec<Effect>) {
        self.look_at_spool(now, held, of_accounts, out);
        for capture in self.captures.values().filter(|capture| capture.takes_packets()) {
            if now.mono >= capture.ends_at {
                out.push(Effect::EndBudget { serial: capture.serial, ended: Ended::Time });
            }
        }
        if now.mono.saturating_sub(self.noted_at) >= SNAPSHOT_INTERVAL {
            self.noted_at = now.mono;
            self.bound_kept(now, out);
            let noted = |capture: &&mut Capture| {
                matches!(
                    capture.phase,
                    Phase::Attaching | Phase::Running | Phase::Detaching | Phase::Draining
                ) && capture.recovered.is_none()
                    && !capture.settled
                    && !capture.notes.in_flight
            };
            for capture in self.captures.values_mut().filter(noted) {
                capture.note(out);
            }
        }
        self.look_after_recording(now, out);
        self.break_late_promises(now, out);
        self.give_up_waiting(now, out);
    }
}
