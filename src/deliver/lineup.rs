//! The objects of a capture that are on their way at once, in the order of their numbers. Owns which one begins next, which may become
//! visible and when each counts as delivered; not how one of them is made and sent (`object`).
//!
//! The first one begins where the journal ends. Each further one begins where the one before it was foreseen to end, which is only
//! believed until that one has ended: if it ended elsewhere, all behind it are thrown away.
//!
//! Invariant: an object becomes visible only when all before it have ended where the next one begins. They are journalled in order,
//! whichever was complete first. One that passed something over becomes visible only as the first: what could not be read may be
//! there again for the next process, and then this object is another one.

use crate::job::ObjectInfo;
use crate::merge::{Consumed, Foreseen, Start};
use crate::spool::Cut;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// An object that is complete in its store, and not journalled.
#[derive(Debug)]
struct Held {
    start: Vec<Cut>,
    info: ObjectInfo,
    consumed: Consumed,
}

/// What an attempt leaves to the next one.
#[derive(Debug, Default)]
pub(super) struct Left {
    held: BTreeMap<u32, Held>,
    ends: BTreeMap<u32, Vec<Cut>>,
}

impl Left {
    /// The objects that are complete in their store and not journalled.
    pub fn complete(&self) -> impl Iterator<Item = &ObjectInfo> {
        self.held.values().map(|held| &held.info)
    }
}

/// How an object's merge ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    cuts: Vec<Cut>,
    is_last: bool,
    /// Whether it passed nothing over.
    is_sound: bool,
}

impl Merged {
    pub fn of(consumed: &Consumed) -> Self {
        let Consumed { cuts, is_last, gaps, .. } = consumed;
        Self { cuts: cuts.clone(), is_last: *is_last, is_sound: gaps.is_empty() }
    }
}

#[derive(Debug)]
enum State {
    AtWork,
    /// It is made, and asks whether it may become visible.
    Asks(oneshot::Sender<()>),
    Complete(ObjectInfo, Consumed),
    Failed,
}

#[derive(Debug)]
struct Member {
    start: Start,
    /// How it ends: foreseen, then known.
    end: Option<Foreseen>,
    merged: Option<Merged>,
    state: State,
    /// Dropped to have it stop.
    _stop: Option<oneshot::Sender<()>>,
    /// Memory that it holds beside the first one's.
    room: Option<OwnedSemaphorePermit>,
}

/// What could be begun now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// The object that begins there. `is_first`: it needs no memory beside what each delivery has.
    Begin { start: Start, is_first: bool },
    /// To know where the object ends that begins there.
    Foresee(Start),
}

/// See the module.
#[derive(Debug)]
pub(super) struct LineUp {
    members: VecDeque<Member>,
    /// Where the journal ends.
    next: Start,
    /// How the next member will end, if that is foreseen.
    ahead: Option<(Start, Foreseen)>,
    /// Complete in an attempt before.
    held: BTreeMap<u32, Held>,
    /// Where objects ended in an attempt before: the next one may be visible.
    ends: BTreeMap<u32, Vec<Cut>>,
    /// Numbers of those that were told to stop and have not yet.
    stopping: BTreeSet<u32>,
    /// Of this number none begins before it is sure where.
    unsure: Option<u32>,
    /// Nothing more begins.
    is_closed: bool,
    /// The last object is journalled.
    is_over: bool,
}

impl LineUp {
    /// Goes on at `next`, where the journal ends; `left`: what [`LineUp::leave`] returned.
    pub fn new(next: Start, left: Left) -> Self {
        let (members, stopping) = (VecDeque::new(), BTreeSet::new());
        let Left { held, ends } = left;
        Self {
            members,
            next,
            ahead: None,
            held,
            ends,
            stopping,
            unsure: None,
            is_closed: false,
            is_over: false,
        }
    }

    /// Ends with what is complete and not journalled, and where objects ended of which the next one may be.
    pub fn leave(self) -> Left {
        let (mut held, mut ends) = (self.held, self.ends);
        ends.retain(|number, _| *number >= self.next.object);
        let mut is_sure = true;
        for Member { start, state, merged, .. } in self.members {
            is_sure &= merged.is_some();
            if let Some(Merged { cuts, is_last: false, .. }) = merged
                && is_sure
            {
                ends.insert(start.object, cuts);
            }
            if let State::Complete(info, consumed) = state {
                held.insert(start.object, Held { start: start.cuts, info, consumed });
            }
        }
        Left { held, ends }
    }

    /// Where an object has to end, if it ended there before.
    pub fn end_of(&self, number: u32) -> Option<Vec<Cut>> {
        self.ends.get(&number).cloned()
    }

    /// Whether the last object is journalled.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Begins nothing more.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.settle();
    }

    /// What could be begun while at most `objects_max` are on their way.
    pub fn want(&mut self, objects_max: usize) -> Option<Want> {
        if self.is_closed || self.is_over || !self.stopping.is_empty() {
            return None;
        }
        loop {
            let start = match self.members.back() {
                None => self.next.clone(),
                Some(Member { start, end: None, .. }) => {
                    return (objects_max > 1).then(|| Want::Foresee(start.clone()));
                }
                Some(Member { end: Some(Foreseen::Last), .. }) => return None,
                Some(Member { start, end: Some(Foreseen::At(cuts)), .. }) => {
                    Start { object: start.object.saturating_add(1), cuts: cuts.clone() }
                }
            };
            if self.take_held(&start) {
                continue;
            }
            if self.members.is_empty() {
                return Some(Want::Begin { start, is_first: true });
            }
            let is_unsure = self.unsure == Some(start.object) && !self.is_sure(start.object);
            if is_unsure || self.members.len() >= objects_max {
                return None;
            }
            let is_ahead = self.ahead.as_ref().is_some_and(|(known, _)| *known == start);
            return Some(if is_ahead {
                Want::Begin { start, is_first: false }
            } else {
                Want::Foresee(start)
            });
        }
    }

    /// Takes an object that an attempt before has completed.
    fn take_held(&mut self, start: &Start) -> bool {
        match self.held.remove(&start.object) {
            Some(Held { start: began, info, consumed }) if began == start.cuts => {
                let mut member = Member::new(start.clone(), None);
                member.ended(Merged::of(&consumed));
                member.state = State::Complete(info, consumed);
                self.members.push_back(member);
                true
            }
            _none_or_of_another_beginning => false,
        }
    }

    /// An object is foreseen to end so.
    pub fn foreseen(&mut self, start: Start, end: Foreseen) {
        match self.members.iter_mut().find(|member| member.start == start) {
            Some(member) if member.end.is_none() => member.end = Some(end),
            Some(_it_has_ended) => {}
            None => self.ahead = Some((start, end)),
        }
    }

    /// The object that begins there is at work. It stops when the answer's channel closes.
    pub fn begun(&mut self, start: Start, room: Option<OwnedSemaphorePermit>) -> oneshot::Receiver<()> {
        let (stop, stopped) = oneshot::channel();
        let foreseen = self.ahead.take().filter(|(known, _)| *known == start).map(|(_, end)| end);
        let end = self.end_of(start.object).map(Foreseen::At).or(foreseen);
        self.members.push_back(Member { end, _stop: Some(stop), room, ..Member::new(start, None) });
        stopped
    }

    /// An object is made, and asks whether it may become visible.
    pub fn asks(&mut self, number: u32, merged: Merged, reply: oneshot::Sender<()>) {
        if let Some(member) = self.members.iter_mut().find(|member| member.start.object == number)
            && !self.stopping.contains(&number)
        {
            member.ended(merged);
            member.state = State::Asks(reply);
        }
        self.settle();
    }

    /// The work at an object has ended. Whether it was told to stop: then nothing of it is to be kept.
    pub fn ended(&mut self, number: u32, complete: Option<(ObjectInfo, Consumed)>) -> bool {
        if self.stopping.remove(&number) {
            return true;
        }
        if let Some(member) = self.members.iter_mut().find(|member| member.start.object == number) {
            member.room = None;
            member.state = match complete {
                Some((info, consumed)) => {
                    member.ended(Merged::of(&consumed));
                    State::Complete(info, consumed)
                }
                None => State::Failed,
            };
        }
        self.settle();
        false
    }

    /// Whether it is sure that an object begins there: all before it have ended, the last one there.
    fn is_sure(&self, number: u32) -> bool {
        let mut before = self.members.iter().take_while(|member| member.start.object < number);
        before.all(|member| member.merged.is_some())
    }

    /// The merge of an object failed. Whether that may be because it began where no record does: then it and those behind it are thrown
    /// away, and it begins again once that is sure.
    pub fn misled(&mut self, number: u32) -> bool {
        let place = self.members.iter().position(|member| member.start.object == number);
        let Some(place) = place.filter(|_| !self.stopping.contains(&number) && !self.is_sure(number)) else {
            return false;
        };
        self.throw_away(place + 1);
        self.members.truncate(place);
        self.unsure = Some(number);
        true
    }

    fn throw_away(&mut self, from: usize) {
        for member in self.members.drain(from..) {
            if matches!(member.state, State::AtWork | State::Asks(_)) {
                self.stopping.insert(member.start.object);
            }
        }
        self.ahead = None;
    }

    /// The first object, once it is complete.
    pub fn first_complete(&self) -> Option<(&ObjectInfo, &Consumed)> {
        match self.members.front() {
            Some(Member { state: State::Complete(info, consumed), .. }) => Some((info, consumed)),
            _ => None,
        }
    }

    /// The first object is journalled.
    pub fn journalled(&mut self) {
        if let Some(Member { state: State::Complete(_, consumed), start, .. }) = self.members.pop_front() {
            self.is_over = consumed.is_last;
            self.next = Start { object: start.object.saturating_add(1), cuts: consumed.cuts };
        }
        if let Some(first) = self.members.front_mut() {
            first.room = None;
        }
        self.settle();
    }

    /// Throws away what begins where nothing ended, and lets those become visible that may.
    fn settle(&mut self) {
        let pairs = self.members.iter().zip(self.members.iter().skip(1));
        let is_wrong = |(before, behind): (&Member, &Member)| {
            before.merged.as_ref().is_some_and(|it| it.is_last || it.cuts != behind.start.cuts)
        };
        if let Some(number) = pairs.map(is_wrong).position(|is_wrong| is_wrong) {
            self.throw_away(number + 1);
        }
        // Of those before: whether all have ended, and whether one has failed, or never will have ended.
        let (mut have_ended, mut has_failed, mut is_stuck) = (true, false, false);
        let is_closed = self.is_closed;
        for (place, member) in self.members.iter_mut().enumerate() {
            let is_sound = member.merged.as_ref().is_some_and(|merged| merged.is_sound);
            let may = have_ended && (place == 0 || is_sound);
            let never = is_closed && (is_stuck || has_failed && !is_sound);
            if matches!(member.state, State::Asks(_)) && (may || never) {
                let asked = std::mem::replace(&mut member.state, State::AtWork);
                if let (State::Asks(reply), true) = (asked, may) {
                    let _gone = reply.send(());
                }
            }
            let failed = matches!(member.state, State::Failed);
            have_ended &= member.merged.is_some();
            has_failed |= failed;
            is_stuck |= failed && member.merged.is_none();
        }
    }
}

impl Member {
    fn new(start: Start, end: Option<Foreseen>) -> Self {
        Self { start, end, merged: None, state: State::AtWork, _stop: None, room: None }
    }

    fn ended(&mut self, merged: Merged) {
        self.end = Some(if merged.is_last { Foreseen::Last } else { Foreseen::At(merged.cuts.clone()) });
        self.merged = Some(merged);
    }
}

#[cfg(test)]
#[path = "lineup_tests.rs"]
mod tests;
