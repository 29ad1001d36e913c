//! Captures that are answered from the history. Owns how many there are, their order and their jobs; not the ring (`history`),
//! nor the recording (`recording`).
//!
//! Invariant: every look-back that was accepted ends, and so many read the disk at once as it can serve.

use super::{Effect, Machine, Now, ReplyId, Serial};
use crate::engine::handle::Refusal;
use crate::job::{AccountId, CaptureId, Job, Request, Status, StopReason};
use crate::limits::{LOOK_BACK_RETRY_SECONDS, LOOK_BACKS_MAX, LOOK_BACKS_PER_ACCOUNT_MAX};
use crate::matcher::Filter;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where a look-back stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its job is being recorded for the first time.
    Recording { reply: ReplyId },
    /// The recording of this number is about to begin, and closes what the one before has.
    Awaiting { next: Serial },
    /// Others read.
    Queued,
    /// It reads.
    Looking,
    /// Its outcome is being recorded, as this version.
    Ending { version: u64 },
}

/// See the module.
#[derive(Debug)]
pub(in super::super) struct LookBack {
    pub serial: Serial,
    pub job: Job,
    phase: Phase,
    /// Recordings below this number must be in the ring.
    complete_below: Serial,
    version: u64,
    waits_since: Duration,
}

impl LookBack {
    /// Whether it was accepted: before that nobody knows of it but who asked for it.
    pub fn is_accepted(&self) -> bool {
        !matches!(self.phase, Phase::Recording { .. })
    }

    #[cfg(test)]
    pub fn is_looking(&self) -> bool {
        self.phase == Phase::Looking
    }

    /// The job as customers see it now. An outcome is shown once it is durable.
    pub fn view(&self) -> Job {
        let status = if self.job.status.ended() { Status::ConversionRunning } else { self.job.status };
        let error_message = self.job.error_message.clone().filter(|_| !self.job.status.ended());
        Job { status, error_message, ..self.job.clone() }
    }
}

impl Machine {
    pub(super) fn accept_look_back(
        &mut self,
        now: Now,
        reply: ReplyId,
        id: CaptureId,
        request: Request,
        lags: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if self.is_ending() {
            return Err(Refusal::ShuttingDown);
        }
        if self.recording.is_none() {
            return Err(Refusal::NoHistory);
        }
        Filter::try_from(&request.filter).map_err(|e| Refusal::Filter(e.to_string()))?;
        self.admit_to_spool(&request.account)?;
        self.admit_look_back(now.mono, &request.account)?;
        if lags {
            self.restart_recording(out);
        }
        let serial = self.next_serial();
        let complete_below = self.recording.as_ref().map_or(0, super::Recording::newest);
        let look_back = LookBack {
            serial,
            job: Job { site: self.config.site.clone(), ..Job::accepted_as(id, now.wall, request, None) },
            phase: Phase::Recording { reply },
            complete_below,
            version: 1,
            waits_since: now.mono,
        };
        out.push(Effect::RecordNew { serial, version: 1, job: Box::new(look_back.job.clone()) });
        self.look_backs.insert(serial, look_back);
        Ok(())
    }

    /// Counts a look back against its account's rate: so many at once, and in the long run one in each interval.
    fn admit_look_back(&mut self, mono: Duration, account: &AccountId) -> Result<(), Refusal> {
        let of_account = self.look_backs.values().filter(|look| look.job.request.account == *account);
        if of_account.count() >= LOOK_BACKS_PER_ACCOUNT_MAX {
            let (max, seconds_left) = (LOOK_BACKS_PER_ACCOUNT_MAX, LOOK_BACK_RETRY_SECONDS);
            return Err(Refusal::TooManyLookBacks { max, seconds_left });
        }
        let interval = self.config.look_back_interval;
        let until = self.look_backs_until.get(account).map_or(mono, |until| mono.max(*until));
        let ahead = until.saturating_sub(mono) + interval;
        match ahead.checked_sub(interval * LOOK_BACKS_PER_ACCOUNT_MAX as u32).filter(|left| !left.is_zero()) {
            // Rounded up: after that many seconds the next one is admitted.
            Some(left) => Err(Refusal::LookBackTooSoon {
                interval_seconds: interval.as_secs_f64(),
                seconds_left: left.as_secs() + 1,
            }),
            None => {
                self.look_backs_until.insert(account.clone(), until + interval);
                Ok(())
            }
        }
    }

    pub(super) fn look_back_recorded(&mut self, serial: Serial, version: u64, out: &mut Vec<Effect>) {
        let next = self.recording.as_ref().and_then(super::Recording::next);
        let Some(look) = self.look_backs.get_mut(&serial) else { return };
        match look.phase {
            Phase::Recording { reply } => {
                tracing::info!(capture = %look.job.id, account = %look.job.request.account, "look back accepted");
                out.push(Effect::Created { reply, answer: Ok(Box::new(look.job.clone())) });
                // If that recording began or failed meanwhile, there is nothing to wait for.
                look.phase = match next.filter(|next| *next == look.complete_below) {
                    Some(next) => Phase::Awaiting { next },
                    None => Phase::Queued,
                };
                self.look(out);
            }
            Phase::Ending { version: wanted } if version >= wanted => {
                let (job, ledger) = (&look.job, &look.job.ledger);
                tracing::info!(
                    capture = %job.id, status = ?job.status, seen = ledger.rx, captured = ledger.captured, "look back ended"
                );
                self.ended.count(job.status);
                self.look_backs.remove(&serial);
                out.push(Effect::Drop { serial });
            }
            _ => {}
        }
    }

    pub(super) fn look_back_unrecordable(&mut self, serial: Serial, error: String, out: &mut Vec<Effect>) {
        let Some(look) = self.look_backs.get(&serial) else { return };
        if let Phase::Recording { reply } = look.phase {
            out.push(Effect::Created { reply, answer: Err(Refusal::Store(error)) });
            self.look_backs.remove(&serial);
            out.push(Effect::Drop { serial });
        }
    }

    /// A recording began, or could not: those who waited for it go on. If it could not begin, the newest packets are missing,
    /// which the look-back finds out by itself and says.
    pub(super) fn look_backs_go_on(&mut self, placed: Serial, began: bool, out: &mut Vec<Effect>) {
        for look in self.look_backs.values_mut() {
            if !began && look.complete_below == placed {
                // Everything older is closed already.
                look.complete_below = 0;
            }
            if look.phase == (Phase::Awaiting { next: placed }) {
                look.phase = Phase::Queued;
            }
        }
        self.look(out);
    }

    /// Lets the next ones read: of the account that reads least, of equal ones of the one that had its turn longest ago. Within
    /// an account the first come is the first served.
    fn look(&mut self, out: &mut Vec<Effect>) {
        loop {
            let mut reading = BTreeMap::<&AccountId, usize>::new();
            let at_work = self.look_backs.values().filter(|look| look.phase == Phase::Looking);
            at_work.for_each(|look| *reading.entry(&look.job.request.account).or_default() += 1);
            if reading.values().sum::<usize>() >= LOOK_BACKS_MAX {
                return;
            }
            let turn = |look: &&LookBack| -> (usize, u64, Serial) {
                let account = &look.job.request.account;
                let served = self.look_backs_served.get(account).copied().unwrap_or(0);
                (reading.get(account).copied().unwrap_or(0), served, look.serial)
            };
            let queued = self.look_backs.values().filter(|look| look.phase == Phase::Queued);
            let Some(serial) = queued.min_by_key(turn).map(|look| look.serial) else { return };
            let Some(look) = self.look_backs.get_mut(&serial) else { return };
            look.phase = Phase::Looking;
            self.look_backs_turns += 1;
            self.look_backs_served.insert(look.job.request.account.clone(), self.look_backs_turns);
            out.push(Effect::LookBack { serial, complete_below: look.complete_below });
        }
    }

    pub(super) fn looked_back(
        &mut self,
        now: Now,
        serial: Serial,
        result: Result<Box<Job>, String>,
        out: &mut Vec<Effect>,
    ) {
        let Some(look) = self.look_backs.get_mut(&serial).filter(|look| look.phase == Phase::Looking) else {
            return;
        };
        match result {
            Ok(job) => look.job = *job,
            Err(message) => (look.job.status, look.job.error_message) = (Status::Failed, Some(message)),
        }
        look.job.stop_reason.get_or_insert(StopReason::TimeLimit);
        look.version += 1;
        (look.phase, look.waits_since) = (Phase::Ending { version: look.version }, now.mono);
        out.push(Effect::Record { serial, version: look.version, job: Box::new(look.job.clone()) });
        self.look(out);
    }

    /// A shutdown waits no longer for look-backs whose job cannot be recorded: the next start ends them as interrupted.
    pub(super) fn give_up_look_backs(&mut self, late: impl Fn(Duration) -> bool, out: &mut Vec<Effect>) {
        let waiting = self.look_backs.values().filter(|look| late(look.waits_since));
        let waiting =
            waiting.filter(|look| matches!(look.phase, Phase::Recording { .. } | Phase::Ending { .. }));
        let waiting: Vec<Serial> = waiting.map(|look| look.serial).collect();
        for serial in waiting {
            let Some(look) = self.look_backs.remove(&serial) else { continue };
            if let Phase::Recording { reply } = look.phase {
                out.push(Effect::Created { reply, answer: Err(Refusal::ShuttingDown) });
            }
            out.push(Effect::Drop { serial });
        }
    }
}
