//! One host alone: what its disk knows before anybody hears of it, and whose clock counts.

use super::{Effect, Ended, Input, Local, Member, Meter};
use crate::fleet::held::{Answer, Op};
use crate::fleet::record::{Assigned, Assignment, Identity, Record, Refusal, Stage};
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
    !effects.iter().any(|effect| matches!(effect, Effect::Send(_) | Effect::Store(_)))
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
                Effect::Store(op) => Some(op.clone()),
                _ => None,
            });
            match op {
                // A read that it waits for.
                None | Some(Op::Read) => effects = member.step(Input::Stored(Answer::Read(None)), now),
                Some(Op::Write { value: Record::Part(part), .. }) => break part,
                Some(Op::Write { value, .. }) => panic!("{value:?}"),
            }
        };
        assert_eq!(written.stage, Stage::Delivered);
        let effects = member.step(Input::Stored(Answer::Wrote(1)), now);
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
