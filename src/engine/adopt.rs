//! What another node says to this host's part of a capture, and what it is told of it. Owns these words and the looking up of a part
//! that was here before; the decisions are the machine's.
//!
//! Invariant: a share is lowered before anybody hears by how much, and of a part's state the newest is never lost.

use super::machine::{Capture, Input, Serial};
use super::{Engine, Refusal, Reply};
use crate::job::{AccountId, BucketTerms, CaptureId, Job, Ledger, Request, Status, StopReason};
use crate::worker::Share;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// A part of a capture that another node accepted. The limits of the account are its affair.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// Of the capture, on all hosts.
    pub id: CaptureId,
    /// As it was accepted.
    pub request: Box<Request>,
    /// Under which terms its destination was.
    pub terms: BucketTerms,
    /// When it was.
    pub submitted: Timestamp,
    /// What is left of its window.
    pub remaining: Duration,
    /// What this host may use of the limits before more is granted; without limit if none.
    pub share: Option<Share>,
    /// A simple capture considers one in so many packets at first; every one if none.
    pub one_in: Option<u32>,
}

/// What is said to a part that may still take packets. Of one that does not nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// It may use more.
    Grant(Share),
    /// One in so many packets from now on; the segments are cut there.
    Level(u32),
    /// It ends, for this reason.
    End(StopReason),
}

/// What a share was lowered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    /// Nobody here can use it any more.
    pub taken: Share,
    /// What was counted as captured by then.
    pub used: Share,
}

/// How far a part is. Later is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartStage {
    /// It is not attached everywhere.
    Accepting,
    /// Every worker captures.
    Running,
    /// No worker begins to capture any more; counts may still change.
    Ending,
    /// Counts are final.
    Counted,
    /// Everything is in the store, and that is recorded.
    Delivered,
    /// It ended otherwise, and that is recorded.
    Failed,
}

/// What is with a part now.
#[derive(Clone, Debug, PartialEq)]
pub struct PartState {
    /// How far it is.
    pub stage: PartStage,
    /// Its counts. `captured` is what it used of its share.
    pub ledger: Ledger,
    /// What is left of its share, if it has one.
    pub left: Option<Share>,
    /// Captured length of the smallest frame that found no share, as long as it would find none now.
    pub dry: Option<u64>,
    /// Why it stopped, once it did.
    pub stop_reason: Option<StopReason>,
    /// Why it failed.
    pub error_message: Option<String>,
}

impl PartState {
    /// Of a job that has ended.
    fn ended(job: &Job) -> Self {
        Self {
            stage: if job.status == Status::Success { PartStage::Delivered } else { PartStage::Failed },
            ledger: job.ledger,
            left: None,
            dry: None,
            stop_reason: job.stop_reason,
            error_message: job.error_message.clone(),
        }
    }
}

/// The smallest frame that waits for a share: one that waited before and would still find none, or a new one.
fn waits(before: Option<u64>, refused: Option<u64>, left: Share) -> Option<u64> {
    let still = |length: &u64| left.packets == 0 || left.bytes < *length;
    [before, refused].into_iter().flatten().filter(still).min()
}

impl Engine {
    /// Looks up whether the part was here before, which only the store knows, and then has the machine decide.
    pub(super) fn adopt(&mut self, adoption: Box<Adoption>, reply: oneshot::Sender<Result<Job, Refusal>>) {
        let (account, id) = (&adoption.request.account, &adoption.id);
        let refusal = if !self.planes.settings.accounts.contains(account) {
            Some(Refusal::UnknownAccount(account.clone()))
        } else if self.machine.has(id) || self.adopting.contains(id) {
            Some(Refusal::Adopted(id.clone()))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let _caller_gone = reply.send(Err(refusal));
            return;
        }
        self.adopting.insert(id.clone());
        let reply = self.reply(Reply::Create(reply));
        let (jobs, of_a_death) = (Arc::clone(&self.planes.jobs), adoption.clone());
        let task = move || {
            let known = jobs.get(&adoption.request.account, &adoption.id);
            let known = known.map(|stored| stored.is_some()).map_err(|error| error.to_string());
            Input::Adopt { reply, adoption, known }
        };
        let died = move |error| Input::Adopt { reply, adoption: of_a_death, known: Err(error) };
        self.spawn_blocking(task, died);
    }

    pub(super) fn steer(
        &mut self,
        (account, id): (&AccountId, CaptureId),
        steer: Steer,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        let Some(serial) = self.find_part(account, &id) else {
            let _caller_gone = reply.send(Err(Refusal::NotFound(id)));
            return;
        };
        self.feed(match steer {
            Steer::Grant(more) => Input::Grant { serial, more },
            Steer::Level(one_in) => Input::Level { serial, one_in },
            Steer::End(why) => Input::EndPart { serial, why },
        });
        let _caller_gone = reply.send(Ok(()));
    }

    pub(super) fn reclaim(
        &mut self,
        (account, id): (&AccountId, CaptureId),
        keep: Share,
        reply: oneshot::Sender<Result<Reclaimed, Refusal>>,
    ) {
        let has_share = |serial: &Serial| self.machine.capture(*serial).is_some_and(Capture::has_share);
        match self.find_part(account, &id).filter(has_share) {
            None => drop(reply.send(Err(Refusal::NotFound(id)))),
            Some(serial) => {
                let reply = self.reply(Reply::Reclaim(reply));
                self.feed(Input::Reclaim { serial, reply, keep });
            }
        }
    }

    /// Also before it is accepted: rights may come at any time.
    fn find_part(&self, account: &AccountId, id: &CaptureId) -> Option<Serial> {
        let is_it = |capture: &&Capture| capture.job.request.account == *account && capture.job.id == *id;
        self.machine.captures().find(is_it).map(|capture| capture.serial)
    }

    /// Raises a share.
    pub(super) fn raise(&self, serial: Serial, more: Share) {
        if let Some(resources) = self.resources.get(&serial) {
            resources.budget.grant(more);
        }
    }

    /// Lowers a share, then says by how much.
    pub(super) fn lower(&mut self, serial: Serial, reply: u64, keep: Share) {
        let Some(Reply::Reclaim(reply)) = self.replies.remove(&reply) else { return };
        let (Some(resources), Some(capture)) = (self.resources.get(&serial), self.machine.capture(serial))
        else {
            return;
        };
        let taken = resources.budget.reclaim(keep);
        let ledger = self.ledger(capture);
        let used = Share { packets: ledger.captured, bytes: ledger.captured_bytes };
        let _caller_gone = reply.send(Ok(Reclaimed { taken, used }));
    }

    /// What is with a part, from now on; one that has ended says how.
    pub(super) fn part(
        &mut self,
        account: AccountId,
        id: CaptureId,
        reply: oneshot::Sender<Result<watch::Receiver<PartState>, Refusal>>,
    ) {
        match self.find_part(&account, &id) {
            None => self.stored(account, id, reply, |job| match job.status.ended() {
                true => Ok(watch::channel(PartState::ended(&job)).1),
                false => Err(Refusal::NotFound(job.id)),
            }),
            Some(serial) => {
                let Some(state) = self.part_state(serial) else {
                    let _caller_gone = reply.send(Err(Refusal::NotFound(id)));
                    return;
                };
                let Some(resources) = self.resources.get_mut(&serial) else { return };
                let sender = resources.part.get_or_insert_with(|| watch::Sender::new(state));
                let _caller_gone = reply.send(Ok(sender.subscribe()));
            }
        }
    }

    fn part_state(&self, serial: Serial) -> Option<PartState> {
        let (capture, resources) = (self.machine.capture(serial)?, self.resources.get(&serial)?);
        let stage = capture.part_stage();
        Some(PartState {
            stage,
            ledger: self.ledger(capture),
            left: capture.has_share().then(|| resources.budget.left()),
            dry: resources.dry,
            stop_reason: capture.job.stop_reason,
            error_message: capture.job.error_message.clone().filter(|_| stage == PartStage::Failed),
        })
    }

    /// Tells all who look at parts what is with these now.
    pub(super) fn tell_parts(&mut self) {
        for resources in self.resources.values_mut().filter(|resources| resources.part.is_some()) {
            resources.dry = waits(resources.dry, resources.budget.refused(), resources.budget.left());
        }
        let watched = self.resources.iter().filter(|(_, resources)| resources.part.is_some());
        watched.for_each(|(serial, _)| self.tell_part(*serial));
    }

    pub(super) fn tell_part(&self, serial: Serial) {
        let part = self.resources.get(&serial).and_then(|resources| resources.part.as_ref());
        if let (Some(part), Some(state)) = (part, self.part_state(serial)) {
            part.send_if_modified(|before| {
                let is_new = *before != state;
                *before = state;
                is_new
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_found_no_share_waits_until_there_is_room_for_it() {
        let left = |packets, bytes| Share { packets, bytes };
        assert_eq!(waits(None, Some(60), left(0, 1000)), Some(60));
        assert_eq!(waits(Some(60), None, left(0, 1000)), Some(60));
        assert_eq!(waits(Some(60), Some(1500), left(5, 59)), Some(60));
        assert_eq!(waits(Some(60), Some(1500), left(5, 60)), Some(1500));
        assert_eq!(waits(Some(60), None, left(1, 60)), None);
    }
}
