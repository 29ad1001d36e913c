//! What a host hears: assignments and messages of leads. Owns who is believed; members decide what follows.
//!
//! Invariant: an assignment counts only with the signature of a known key, for this fleet and data center, and never after a newer one.

use super::part::{self, Part};
use super::{Agent, Event};
use crate::bus::{Entry, Message};
use crate::engine::{PartStage, PartState};
use crate::fleet::Kind as FleetKind;
use crate::fleet::member::{Input, Member};
use crate::job::{CaptureId, Kind, ObjectSums};
use crate::node::keys::assignment_key;
use crate::node::wire::{Facts, SignedRecord, ToHost, Told, message};
use crate::seldom::Seldom;
use std::time::{Duration, Instant};

/// What nobody here believes, in the log.
static UNBELIEVED: Seldom = Seldom::new();
/// How long what was heard is remembered behind the end of its window: no older state of it comes later than that.
const REMEMBERED: Duration = Duration::from_secs(3600);

impl Agent {
    /// A record of the own data center.
    pub(super) fn hear(&mut self, entry: &Entry) {
        let Some(json) = &entry.value else { return };
        let Ok(signed) = serde_json::from_slice::<SignedRecord>(json) else { return };
        let is_known = |told: &Told| self.parts.get(&told.id).is_some_and(|part| part.signed == signed);
        if signed.unverified().is_some_and(|told| is_known(told.value())) {
            return;
        }
        let told = signed.verify(&self.config.keys).map(|told| told.value().clone());
        let (fleet, colo) = (&self.config.fleet, self.config.site.colo());
        let is_ours = |told: &Told| {
            told.fleet == *fleet && told.colo == colo && assignment_key(colo, &told.id) == entry.key
        };
        match told.filter(|told| is_ours(told) && is_sound(told)) {
            Some(told) => {
                let id = told.id.clone();
                self.assigned(&id, told, signed);
            }
            None if UNBELIEVED.may(Instant::now()) => tracing::warn!(
                key = entry.key,
                "an assignment has no signature that this host knows for it; more within a minute are not told"
            ),
            None => {}
        }
    }

    pub(super) fn assigned(&mut self, id: &CaptureId, told: Told, signed: SignedRecord) {
        if let Some(part) = self.parts.get_mut(id) {
            if part.told.assignment.serial < told.assignment.serial {
                let assignment = told.assignment.clone();
                (part.told, part.signed) = (told, signed);
                self.step(id, Input::Assigned(assignment));
            }
            return;
        }
        let now = self.now();
        let is_newest = |heard: &(Told, SignedRecord)| heard.0.assignment.serial > told.assignment.serial;
        if self.heard.get(id).is_some_and(is_newest) {
            return;
        }
        self.heard.retain(|_, (told, _)| is_remembered(told, now.wall));
        if is_remembered(&told, now.wall) {
            self.heard.insert(id.clone(), (told.clone(), signed.clone()));
        }
        let (Some(boot), false) = (self.boot, self.accepted.contains(id)) else { return };
        let assignment = told.assignment.clone();
        let begun = Member::accept(assignment, &self.me, boot, self.config.settings, now);
        let Some((member, effects)) = begun else { return };
        tracing::info!(capture = %id, account = %told.request.account, stage = ?member.stage(), "the fleet has a capture for this host");
        self.accepted.insert(id.clone());
        self.heard.remove(id);
        self.parts.insert(id.clone(), Part::new(told, signed, member, Facts::default()));
        self.perform(id, effects);
    }

    /// A message to this host.
    pub(super) fn told(&mut self, told: &Message) {
        if let Some(ToHost { id, down }) = message(&told.payload) {
            self.step(&id, Input::Told(down));
        }
    }

    pub(super) fn step(&mut self, id: &CaptureId, input: Input) {
        let now = self.now();
        let Some(part) = self.parts.get_mut(id) else { return };
        let effects = part.member.step(input, now);
        self.perform(id, effects);
    }

    /// The engine's counts are final.
    pub(super) fn counted(&mut self, id: &CaptureId, state: &PartState) {
        let Some(part) = self.parts.get_mut(id) else { return };
        part.facts.ledger = Some(state.ledger);
        part.facts.stop_reason = state.stop_reason;
        let kind = part.told.request.kind;
        if state.stage == PartStage::Failed && state.ledger.captured > 0 {
            part.facts.why.clone_from(&state.error_message);
        }
        let meter = part::last_meter(kind, &state.ledger);
        part.state = None;
        self.step(id, Input::Detached(meter));
        if kind == Kind::Simple && state.stage == PartStage::Failed && state.ledger.captured > 0 {
            self.events.send(Event::Input(id.clone(), Input::CannotGive));
        }
    }

    /// The engine has delivered, or cannot. A part without a packet has nothing to deliver.
    pub(super) fn delivered(&mut self, id: &CaptureId, end: Option<(Box<PartState>, Option<ObjectSums>)>) {
        let Some(part) = self.parts.get_mut(id) else { return };
        let captured = part.facts.ledger.map_or(0, |ledger| ledger.captured);
        let is_there = match end {
            Some((state, sums)) => {
                part.facts.delivered = sums;
                part.facts.ledger = part.facts.ledger.or(Some(state.ledger));
                let is_there = state.stage == PartStage::Delivered || captured == 0;
                part.facts.why = state.error_message.filter(|_| !is_there);
                is_there
            }
            None => captured == 0,
        };
        self.step(id, Input::Delivered(is_there));
    }
}

/// Whether the request and what is decided of it are of one kind.
fn is_sound(told: &Told) -> bool {
    let is_simple = matches!(told.assignment.kind, FleetKind::Simple { .. });
    is_simple == (told.request.kind == Kind::Simple) && told.request.offset_time.is_none()
}

fn is_remembered(told: &Told, wall: Duration) -> bool {
    told.assignment.window.end.saturating_add(REMEMBERED) > wall
}
