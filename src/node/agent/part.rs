//! One part of a capture on this host: the member that decides, and the way to the engine. Owns the order in which the engine is told
//! of things, and what its counts mean to the member; decides nothing.
//!
//! Invariant: the engine hears of a part's rights in the order in which the member gave them.

use super::sample::STREAM;
use super::{Event, Events};
use crate::engine::{Adoption, Handle, PartStage, PartState, Reclaimed, Refusal, Steer};
use crate::fleet::member::{Ended, Input, Member};
use crate::fleet::shares::{Amount, Meter, Reached, Reclaim};
use crate::job::{AccountId, CaptureId, Kind, Ledger, StopReason};
use crate::node::wire::{Facts, SignedRecord, Told};
use crate::worker::Share;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What a part's task brings to the engine.
#[derive(Debug)]
pub(super) enum Step {
    Adopt(Box<Adoption>),
    Grant(Amount),
    Reclaim(Reclaim),
    End(StopReason),
}

/// A part that is not gone.
pub(super) struct Part {
    pub told: Told,
    pub signed: SignedRecord,
    pub member: Member,
    /// What the engine says of it, from its attachment on.
    pub state: Option<watch::Receiver<PartState>>,
    /// To the task that speaks to the engine, while there is one.
    pub steps: Option<mpsc::UnboundedSender<Step>>,
    pub facts: Facts,
    /// When time last passed for it.
    pub turned: Duration,
}

impl Part {
    pub fn new(told: Told, signed: SignedRecord, member: Member, facts: Facts) -> Self {
        Self { told, signed, member, state: None, steps: None, facts, turned: Duration::ZERO }
    }

    pub fn account(&self) -> &AccountId {
        &self.told.request.account
    }

    /// What is left to the engine, which may have ended it by itself.
    pub fn step(&self, step: Step) {
        if let Some(steps) = &self.steps {
            let _its_task_has_ended = steps.send(step);
        }
    }

    /// Its counts up to now, and whether they still grow.
    pub fn counts(&self) -> (Ledger, bool) {
        match &self.state {
            Some(state) => {
                let state = state.borrow();
                (state.ledger, state.stage < PartStage::Counted)
            }
            None => (self.facts.ledger.unwrap_or_default(), false),
        }
    }
}

/// As the member counts. Bytes of matching frames are not counted by anybody: they are as long as captured ones, on average.
pub(super) fn meter(ledger: &Ledger, dry: Option<u64>) -> Meter {
    let used = Amount::new(ledger.captured, ledger.captured_bytes);
    let bytes = u128::from(ledger.matched) * u128::from(used.bytes) / u128::from(ledger.captured.max(1));
    let dropped = ledger.dropped;
    Meter {
        offered: Amount::new(ledger.matched, u64::try_from(bytes).unwrap_or(u64::MAX)),
        used,
        lost: ledger.matched.saturating_sub(ledger.captured + dropped.share + dropped.sampled),
        refused: dry.map(|length| u32::try_from(length).unwrap_or(u32::MAX)),
        kept: Vec::new(),
    }
}

/// The final counts. All packets of a simple part were sampled at the first level: what thinning leaves follows from their tags.
pub(super) fn last_meter(kind: Kind, ledger: &Ledger) -> Meter {
    let kept = match kind {
        Kind::Simple => vec![(STREAM, 0, ledger.captured)],
        Kind::Full => Vec::new(),
    };
    Meter { kept, ..meter(ledger, None) }
}

fn share(amount: Amount) -> Share {
    Share { packets: amount.packets, bytes: amount.bytes }
}

fn amount(share: Share) -> Amount {
    Amount::new(share.packets, share.bytes)
}

/// Why, in the engine's words.
pub(super) fn reason(why: Ended) -> StopReason {
    match why {
        Ended::Time => StopReason::TimeLimit,
        Ended::Limit(Reached::Packets) => StopReason::PacketLimit,
        Ended::Limit(Reached::Bytes) => StopReason::ByteLimit,
        Ended::Stopped | Ended::Limit(Reached::Forgotten) => StopReason::StopRequested,
    }
}

/// What a part is before it uses more.
pub(super) fn adoption(told: &Told, budget: Option<Amount>, remaining: Duration) -> Box<Adoption> {
    let one_in = match told.assignment.kind {
        crate::fleet::Kind::Simple { one_in, .. } => Some(one_in),
        crate::fleet::Kind::Full { .. } => None,
    };
    Box::new(Adoption {
        id: told.id.clone(),
        request: Box::new(told.request.clone()),
        terms: told.terms.clone(),
        submitted: told.submitted,
        remaining,
        share: budget.map(share),
        one_in,
    })
}

/// What ends a wait for the final counts: a simple part's files are counted, and read.
fn is_final(kind: Kind, stage: PartStage) -> bool {
    stage >= if kind == Kind::Simple { PartStage::Delivered } else { PartStage::Counted }
}

/// Speaks to the engine for one part, one thing after another, until the part is forgotten or the engine has ended.
pub(super) async fn speak(
    engine: Handle,
    account: AccountId,
    id: CaptureId,
    mut steps: mpsc::UnboundedReceiver<Step>,
    events: Events,
) {
    while let Some(step) = steps.recv().await {
        match step {
            Step::Adopt(adoption) => {
                let kind = adoption.request.kind;
                let attached = match engine.adopt(*adoption).await {
                    Ok(_) => engine.part(account.clone(), id.clone()).await,
                    Err(refusal) => Err(refusal),
                };
                match attached {
                    Ok(state) => {
                        events.send(Event::Attached(id.clone(), state.clone()));
                        tokio::spawn(follow(state, kind, id.clone(), events.clone()));
                    }
                    Err(Refusal::ShuttingDown) => return,
                    Err(refusal) => events.send(Event::NotAttached(id.clone(), refusal)),
                }
            }
            // One that has ended by itself hears nothing more, and its final counts are on their way.
            Step::Grant(more) => {
                let granted = Steer::Grant(share(more));
                let _it_has_ended = engine.steer(account.clone(), id.clone(), granted).await;
            }
            Step::End(why) => {
                let _it_has_ended = engine.steer(account.clone(), id.clone(), Steer::End(why)).await;
            }
            Step::Reclaim(Reclaim { round, keep }) => {
                let reclaimed = engine.reclaim(account.clone(), id.clone(), share(keep)).await;
                if let Ok(Reclaimed { taken, used }) = reclaimed {
                    let input = Input::Reclaimed { round, taken: amount(taken), used: amount(used) };
                    events.send(Event::Input(id.clone(), input));
                }
            }
        }
    }
}

/// Waits for a part's final counts.
async fn follow(mut state: watch::Receiver<PartState>, kind: Kind, id: CaptureId, events: Events) {
    let last = state.wait_for(|state| is_final(kind, state.stage)).await.map(|state| state.clone());
    // Otherwise the engine has ended first, and the next process goes on.
    if let Ok(state) = last {
        events.send(Event::Counted(id, Box::new(state)));
    }
}

/// What the engine found of a part that an earlier process had; none of one that it does not know, which took no packet.
pub(super) async fn recovered(engine: &Handle, account: &AccountId, id: &CaptureId) -> Option<PartState> {
    loop {
        match engine.part(account.clone(), id.clone()).await {
            Ok(mut state) => {
                let last = state.wait_for(|state| state.stage >= PartStage::Delivered).await;
                if let Ok(state) = last {
                    return Some(state.clone());
                }
            }
            Err(Refusal::NotFound(_)) => {
                if let Err(Refusal::NotFound(_)) = engine.get(account.clone(), id.clone()).await {
                    return None;
                }
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until the engine has delivered a part, or cannot.
pub(super) async fn delivered(engine: Handle, account: AccountId, id: CaptureId, events: Events) {
    let Some(state) = recovered(&engine, &account, &id).await else {
        return events.send(Event::Delivered(id, None));
    };
    let sums = engine.get(account, id.clone()).await.map(|job| job.object_sums()).ok();
    events.send(Event::Delivered(id, Some((Box::new(state), sums))));
}
