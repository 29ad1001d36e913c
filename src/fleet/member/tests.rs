//! One host alone: what its disk knows before anybody hears of it, and whose clock counts.

use super::{Effect, Ended, Input, Life, Local, Member, Meter};
use crate::fleet::held::{Answer, Op, Revision};
use crate::fleet::record::{
    Assigned, Assignment, Given, Identity, Key, Quotas, RULES, Record, Refusal, Stage,
};
use crate::fleet::settings::Settings;
use crate::fleet::shares::Amount;
use crate::fleet::{Kind, Now, Window};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const START: Duration = Duration::from_secs(1_700_000_000);
const LENGTH: Duration = Duration::from_secs(60);

fn me(spool_id: u64) -> Identity {
    Identity { name: "cap1".to_owned(), spool_id }
}

fn assignment() -> Assignment {
    Assignment {
        epoch: 1,
        serial: 1,
        rules: RULES,
        kind: Kind::Full { limit: Some(Amount::limit(Some(1000), None)) },
        window: Window { start: START, end: START + LENGTH },
        seed: 1,
        is_branched: false,
        hosts: vec![Assigned { host: 4, identity: me(7), share: Amount::new(100, 100_000) }],
        is_stopped: false,
        is_over: false,
        quotas: None,
        is_final: false,
    }
}

fn at(mono: Duration, wall: Duration) -> Now {
    Now { mono, wall }
}

fn kept(effects: &[Effect]) -> Option<Local> {
    effects
        .iter()
        .find_map(|effect| if let Effect::Keep(local) = effect { Some(*local.clone()) } else { None })
}

fn is_quiet(effects: &[Effect]) -> bool {
    !effects.iter().any(|effect| matches!(effect, Effect::Send(_) | Effect::Store(..)))
}

/// A host that captures, with this wall clock.
fn running(wall: Duration) -> Member {
    let now = at(HOUR, wall);
    let (mut member, _) = Member::accept(assignment(), &me(7), 1, Settings::default(), now).unwrap();
    member.step(Input::Kept, now);
    member.step(Input::Attached, now);
    member
}

fn ended(effects: &[Effect]) -> Option<Ended> {
    effects.iter().find_map(|effect| if let Effect::Detach(why) = effect { Some(*why) } else { None })
}

#[test]
fn a_refusal_is_on_the_disk_before_anybody_hears_of_it_and_outlives_a_restart() {
    let (settings, now) = (Settings::default(), at(HOUR, START));
    let (mut member, effects) =
        Member::refused(assignment(), &me(7), 1, Refusal::SpoolFull, settings, now).unwrap();
    let local = kept(&effects).expect("nothing is kept, and a restart would take the capture");
    assert!(is_quiet(&member.step(Input::Tick, now)));
    let told = member.step(Input::Kept, now);
    assert!(!is_quiet(&told));
    let (again, effects) = Member::recovered(local, 2, settings, &Meter::default());
    assert_eq!((again.stage(), again.part.refusal), (Stage::Refused, Some(Refusal::SpoolFull)));
    assert!(effects.iter().all(|effect| !matches!(effect, Effect::Attach { .. })));
}

#[test]
fn nothing_is_captured_before_the_disk_knows_of_it() {
    let now = at(HOUR, START);
    let captures = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Attach { .. }));
    let (mut member, effects) = Member::accept(assignment(), &me(7), 1, Settings::default(), now).unwrap();
    assert!(kept(&effects).is_some_and(|local| local.part.is_none()) && !captures(&effects));
    let more = Assignment { serial: 2, ..assignment() };
    for input in [Input::Tick, Input::Assigned(more), Input::Attached, Input::Turn(Meter::default())] {
        assert!(!captures(&member.step(input, now)));
    }
    assert!(captures(&member.step(Input::Kept, now)));
}

#[test]
fn what_cannot_be_kept_is_kept_again_and_told_only_then() {
    let now = at(HOUR, START);
    let (mut member, _) = Member::accept(assignment(), &me(7), 1, Settings::default(), now).unwrap();
    assert!(is_quiet(&member.step(Input::KeepFailed, now)));
    assert_eq!(member.part.refusal, Some(Refusal::Disk));
    let later = at(HOUR + Settings::default().backoff, START);
    let effects = member.step(Input::Tick, later);
    assert_eq!(kept(&effects).unwrap().part.unwrap().stage, Stage::Refused);
    assert!(is_quiet(&effects) && !is_quiet(&member.step(Input::Kept, later)));
}

#[test]
fn a_capture_that_cannot_begin_has_failed() {
    let now = at(HOUR, START);
    let (mut member, _) = Member::accept(assignment(), &me(7), 1, Settings::default(), now).unwrap();
    member.step(Input::Kept, now);
    let effects = member.step(Input::NotAttached, now);
    assert_eq!(kept(&effects).unwrap().part.unwrap().stage, Stage::Failed);
}

#[test]
fn a_host_with_another_disk_is_another_host() {
    let now = at(HOUR, START);
    assert!(Member::accept(assignment(), &me(8), 1, Settings::default(), now).is_none());
    let other = Identity { name: "cap2".to_owned(), spool_id: 7 };
    assert!(Member::accept(assignment(), &other, 1, Settings::default(), now).is_none());
}

#[test]
fn a_clock_that_is_behind_does_not_make_the_window_longer() {
    for wall in [Duration::ZERO, START - HOUR, START] {
        let mut member = running(wall);
        let after = |time: Duration| at(HOUR + time, wall + time);
        assert_eq!(ended(&member.step(Input::Turn(Meter::default()), after(LENGTH / 2))), None);
        assert_eq!(ended(&member.step(Input::Turn(Meter::default()), after(LENGTH))), Some(Ended::Time));
    }
}

#[test]
fn a_clock_that_steps_neither_ends_nor_prolongs_a_capture() {
    for wall in [START + 2 * HOUR, START - 2 * HOUR] {
        let mut member = running(START);
        let half = member.step(Input::Turn(Meter::default()), at(HOUR + LENGTH / 2, wall));
        assert_eq!(ended(&half), None);
        let end = member.step(Input::Turn(Meter::default()), at(HOUR + LENGTH, wall));
        assert_eq!(ended(&end), Some(Ended::Time));
    }
}

#[test]
fn a_host_whose_clock_is_past_the_window_says_so() {
    let now = at(HOUR, START + HOUR);
    let (member, effects) = Member::accept(assignment(), &me(7), 1, Settings::default(), now).unwrap();
    assert_eq!(kept(&effects).unwrap().part.unwrap().refusal, Some(Refusal::Clock));
    assert_eq!(member.stage(), Stage::Refused);
    let over = Assignment { is_over: true, ..assignment() };
    assert!(Member::accept(over, &me(7), 1, Settings::default(), now).is_none());
}

#[test]
fn the_lead_ends_a_part_whose_clock_does_not() {
    let mut member = running(START);
    let over = Assignment { serial: 2, is_over: true, ..assignment() };
    let effects = member.step(Input::Assigned(over), at(HOUR + LENGTH / 2, START));
    assert_eq!(ended(&effects), Some(Ended::Time));
}

#[test]
fn a_part_is_told_also_if_the_capture_is_over_by_then() {
    for is_branched in [false, true] {
        let (settings, now) = (Settings::default(), at(HOUR, START));
        let first = Assignment { is_branched, ..assignment() };
        let (mut member, _) = Member::accept(first, &me(7), 2, settings, now).unwrap();
        member.step(Input::Kept, now);
        member.step(Input::Attached, now);
        let last = Assignment { serial: 2, is_final: true, is_branched, ..assignment() };
        member.step(Input::Assigned(last), now);
        member.step(Input::Detached(Meter::default()), now);
        member.step(Input::Kept, now);
        member.step(Input::Delivered(true), now);
        let mut effects = member.step(Input::Kept, now);
        assert!(!member.is_gone(), "nobody knows yet that it is delivered");
        let written = loop {
            let op = effects.iter().find_map(|effect| match effect {
                Effect::Store(_, op) => Some(op.clone()),
                _ => None,
            });
            match op {
                // A read that it waits for.
                None | Some(Op::Read) => {
                    effects =
                        member.step(Input::Stored(Key::Part(4), Answer::Read(Revision::default(), None)), now)
                }
                Some(Op::Write { value: Record::Part(part), .. }) => break part,
                Some(Op::Write { value, .. }) => panic!("{value:?}"),
            }
        };
        assert_eq!(written.stage, Stage::Delivered);
        let effects = member
            .step(Input::Stored(Key::Part(4), Answer::Wrote(Revision { incarnation: 1, sequence: 1 })), now);
        assert!(member.is_gone() && kept(&effects).unwrap().is_gone);
        let (again, effects) = Member::recovered(kept(&effects).unwrap(), 3, settings, &Meter::default());
        assert!(again.is_gone() && effects.is_empty());
    }
}

#[test]
fn frames_that_were_lost_otherwise_are_not_without_a_share() {
    let mut member = running(START);
    member.step(Input::Turn(Meter::default()), at(HOUR + LENGTH, START));
    let (offered, used) = (Amount::new(10, 600), Amount::new(4, 240));
    let effects =
        member.step(Input::Detached(Meter { offered, used, lost: 5, ..Meter::default() }), at(HOUR, START));
    let tally = kept(&effects).unwrap().part.unwrap().tally;
    assert_eq!((tally.share, tally.lost), (1, 5));
    assert!(tally.check());
}

/// The one entry of the registry, and lives that contend for it.
struct Entry {
    revision: Revision,
    entry: Option<Record>,
    now: Duration,
}

impl Entry {
    fn new() -> Self {
        Self { revision: Revision { incarnation: 1, sequence: 0 }, entry: None, now: Duration::ZERO }
    }

    /// Ticks of a life for a minute; the answer to each write is lost if it says so.
    fn live(&mut self, life: &mut Life, loses_answers: bool) {
        for _ in 0..600 {
            self.now += Duration::from_millis(100);
            let now = at(self.now, self.now);
            let Some(op) = life.tick(now) else { continue };
            let answer = match op {
                Op::Read => Answer::Read(self.revision, self.entry.clone()),
                Op::Write { expected, value } if expected == self.revision => {
                    self.revision.sequence += 1;
                    self.entry = Some(value);
                    if loses_answers { Answer::Uncertain } else { Answer::Wrote(self.revision) }
                }
                Op::Write { .. } => Answer::Stale,
            };
            life.answered(answer, now);
        }
    }
}

fn life(nonce: u64, least: u32) -> Life {
    Life::new(me(7), 0, nonce, least, Settings::default())
}

#[test]
fn each_life_has_a_number_of_its_own_also_if_its_disk_goes_back() {
    for loses_answers in [false, true] {
        let mut registry = Entry::new();
        let (mut first, mut second, mut third) = (life(1, 0), life(2, 0), life(3, 40));
        registry.live(&mut first, loses_answers);
        assert_eq!(first.boot(), Some(1));
        registry.live(&mut second, loses_answers);
        assert_eq!(second.boot(), Some(2), "its disk remembers nothing");
        registry.live(&mut third, loses_answers);
        assert_eq!(third.boot(), Some(41), "the registry remembers less than its disk");
    }
}

#[test]
fn of_two_machines_with_one_name_the_later_one_goes_on() {
    let mut registry = Entry::new();
    let (mut first, mut copy) = (life(1, 0), life(2, 0));
    registry.live(&mut first, false);
    registry.live(&mut copy, false);
    registry.live(&mut first, false);
    assert!(first.is_over() && first.boot().is_none());
    registry.live(&mut copy, false);
    assert_eq!((copy.boot(), copy.is_over()), (Some(2), false));
}

#[test]
fn a_host_registers_again_when_the_registry_is_lost() {
    let mut registry = Entry::new();
    let mut host = life(1, 6);
    registry.live(&mut host, false);
    (registry.revision, registry.entry) = (Revision { incarnation: 2, sequence: 0 }, None);
    registry.live(&mut host, false);
    assert_eq!(host.boot(), Some(7));
    assert!(registry.entry.is_some());
}

#[test]
fn a_large_sample_is_told_once_all_its_chunks_are_durable_also_after_a_restart() {
    let settings = Settings { chunk: 3, ..Settings::default() };
    let now = at(HOUR, START);
    let kind = Kind::Simple { packets: 10, one_in: 1 };
    let (mut member, _) =
        Member::accept(Assignment { kind, ..assignment() }, &me(7), 1, settings, now).unwrap();
    member.step(Input::Kept, now);
    member.step(Input::Attached, now);
    let over = Assignment { serial: 2, kind, is_over: true, ..assignment() };
    member.step(Input::Assigned(over.clone()), now);
    let meter = Meter { offered: Amount::new(20, 0), kept: vec![(0, 0, 20)], ..Meter::default() };
    member.step(Input::Detached(meter), now);
    member.step(Input::Kept, now);
    let quotas = Some(Quotas { round: 1, level: 0, of: vec![Some(10)] });
    let effects = member.step(Input::Assigned(Assignment { serial: 3, quotas, ..over }), now);
    let local = kept(&effects).unwrap();
    assert_eq!(local.part.as_ref().unwrap().sample, Some(Given { round: 1, packets: vec![], chunks: 4 }));
    let (again, first) = Member::recovered(local, 2, settings, &Meter::default());
    let mut told = Vec::new();
    for (mut member, effects, epoch) in [(member, Vec::new(), 1), (again, first, 2)] {
        let (mut chunks, mut queue) = (Vec::new(), effects);
        queue.extend(member.step(Input::Kept, now));
        for turn in 1..60 {
            let mut next = Vec::new();
            for effect in std::mem::take(&mut queue) {
                let Effect::Store(key, op) = effect else { continue };
                let sequence = turn;
                let answer = match op {
                    Op::Read => Answer::Read(Revision { incarnation: 1, sequence: 0 }, None),
                    Op::Write { value: Record::Chunk(chunk), .. } => {
                        assert_eq!((key, chunk.epoch), (Key::Chunk(4, chunks.len() as u32), epoch));
                        chunks.push(chunk.packets);
                        Answer::Wrote(Revision { incarnation: 1, sequence })
                    }
                    Op::Write { value: Record::Part(part), .. } => {
                        let is_whole = part.sample.is_none() || chunks.len() == 4;
                        assert!(is_whole, "the part says so after {} chunks", chunks.len());
                        Answer::Wrote(Revision { incarnation: 1, sequence })
                    }
                    Op::Write { value, .. } => panic!("{value:?}"),
                };
                next.extend(member.step(Input::Stored(key, answer), now));
            }
            next.extend(member.step(Input::Tick, now));
            queue = next;
        }
        told.push(chunks.concat());
    }
    assert_eq!(told[0].len(), 10);
    assert_eq!(told[0], told[1], "a restarted host gives the same packets");
}

#[test]
fn a_host_refuses_a_capture_of_other_rules() {
    let now = at(HOUR, START);
    let other = Assignment { rules: RULES + 1, ..assignment() };
    let (member, _) = Member::accept(other, &me(7), 1, Settings::default(), now).unwrap();
    assert_eq!(member.part.refusal, Some(Refusal::Rules));
}

#[test]
fn a_host_attaches_with_what_it_was_granted_when_it_accepted() {
    let now = at(HOUR, START);
    let (mut member, _) = Member::accept(assignment(), &me(7), 1, Settings::default(), now).unwrap();
    let share = Amount::new(900, 900_000);
    let hosts = vec![Assigned { host: 4, identity: me(7), share }];
    member.step(Input::Assigned(Assignment { serial: 2, hosts, ..assignment() }), now);
    let effects = member.step(Input::Kept, now);
    let budget = effects.iter().find_map(|effect| match effect {
        Effect::Attach { budget, .. } => *budget,
        _ => None,
    });
    assert_eq!(budget, Some(Amount::new(100, 100_000)), "another assignment grants more than it knows of");
}
