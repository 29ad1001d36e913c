//! The order of objects that are on their way at once. Owns these expectations.

use super::*;
use crate::merge::Gap;
use tokio::sync::oneshot::Receiver;

/// Where object `number` begins: ten records behind the one before.
fn cuts(number: u64) -> Vec<Cut> {
    vec![Cut { sequence: 0, offset: number * 10 }]
}

fn start(number: u32) -> Start {
    Start { object: number, cuts: cuts(u64::from(number)) }
}

/// What object `number` of `last + 1` leaves behind it.
fn consumed(number: u32, last: u32) -> Consumed {
    Consumed { cuts: cuts(u64::from(number) + 1), is_last: number == last, ..Consumed::default() }
}

fn info(number: u32) -> ObjectInfo {
    ObjectInfo { name: number.to_string(), ..ObjectInfo::default() }
}

/// A line of four objects at work, of which the last is the capture's.
fn four() -> (LineUp, Vec<Receiver<()>>) {
    let mut line = LineUp::new(start(0), Left::default());
    let mut stopped = Vec::new();
    while let Some(want) = line.want(4) {
        match want {
            Want::Begin { start, .. } => stopped.push(line.begun(start, None)),
            Want::Foresee(from) if from.object == 3 => line.foreseen(from, Foreseen::Last),
            Want::Foresee(from) => {
                let end = cuts(u64::from(from.object) + 1);
                line.foreseen(from, Foreseen::At(end));
            }
        }
    }
    assert_eq!(stopped.len(), 4);
    (line, stopped)
}

fn ask(line: &mut LineUp, number: u32, consumed: &Consumed) -> Receiver<()> {
    let (reply, replied) = oneshot::channel();
    line.asks(number, Merged::of(consumed), reply);
    replied
}

fn may(replied: &mut Receiver<()>) -> Option<bool> {
    match replied.try_recv() {
        Ok(()) => Some(true),
        Err(oneshot::error::TryRecvError::Closed) => Some(false),
        Err(oneshot::error::TryRecvError::Empty) => None,
    }
}

/// Objects that can be journalled now.
fn journal(line: &mut LineUp) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((info, _)) = line.first_complete() {
        names.push(info.name.clone());
        line.journalled();
    }
    names
}

#[test]
fn the_first_object_begins_at_once_and_each_further_one_when_its_place_and_end_are_foreseen() {
    let mut line = LineUp::new(start(0), Left::default());
    assert_eq!(line.want(1), Some(Want::Begin { start: start(0), is_first: true }));
    let _stopped = line.begun(start(0), None);
    assert_eq!((line.want(1), line.want(2)), (None, Some(Want::Foresee(start(0)))));
    line.foreseen(start(0), Foreseen::At(cuts(1)));
    assert_eq!(line.want(2), Some(Want::Foresee(start(1))));
    line.foreseen(start(1), Foreseen::At(cuts(2)));
    assert_eq!(line.want(2), Some(Want::Begin { start: start(1), is_first: false }));
    let _stopped = line.begun(start(1), None);
    assert_eq!(line.want(2), None, "as many as may be");
    line.close();
    assert_eq!(line.want(9), None);
}

#[test]
fn no_object_becomes_visible_before_all_in_front_have_ended() {
    let (mut line, _stopped) = four();
    let mut asked: Vec<_> = [3, 1, 2].map(|number| ask(&mut line, number, &consumed(number, 3))).into();
    assert!(asked.iter_mut().all(|replied| may(replied).is_none()), "of the first nothing is known");
    let mut first = ask(&mut line, 0, &consumed(0, 3));
    assert!(asked.iter_mut().chain([&mut first]).all(|replied| may(replied) == Some(true)));
    for number in [2, 3, 1] {
        assert!(!line.ended(number, Some((info(number), consumed(number, 3)))));
        assert!(journal(&mut line).is_empty());
    }
    line.ended(0, Some((info(0), consumed(0, 3))));
    assert_eq!(journal(&mut line), ["0", "1", "2", "3"]);
    assert!(line.is_over() && line.want(4).is_none());
}

#[test]
fn what_begins_where_no_object_ends_is_stopped_and_begins_again_where_one_does() {
    let (mut line, mut stopped) = four();
    let mut asked = [2, 3].map(|number| ask(&mut line, number, &consumed(number, 3)));
    let elsewhere = Consumed { cuts: cuts(7), ..consumed(1, 3) };
    ask(&mut line, 0, &consumed(0, 3));
    let mut second = ask(&mut line, 1, &elsewhere);
    assert_eq!(
        (may(&mut second), may(&mut asked[0]), may(&mut asked[1])),
        (Some(true), Some(false), Some(false))
    );
    assert_eq!(stopped.iter_mut().map(may).collect::<Vec<_>>(), [None, None, Some(false), Some(false)]);
    assert_eq!(line.want(4), None, "not while those that stop are at work");
    assert!(line.ended(3, None) && line.ended(2, None));
    let again = Start { object: 2, cuts: cuts(7) };
    assert_eq!(line.want(4), Some(Want::Foresee(again)));
    // And behind the last one nothing is.
    let (mut line, mut stopped) = four();
    ask(&mut line, 0, &consumed(0, 0));
    assert_eq!(
        stopped.iter_mut().map(may).collect::<Vec<_>>(),
        [None, Some(false), Some(false), Some(false)]
    );
}

#[test]
fn an_object_that_passed_something_over_becomes_visible_as_the_first_alone() {
    let (mut line, _stopped) = four();
    let gap = Gap { queue: 0, sequence: 0, offset: 13 };
    let gaps = Consumed { gaps: vec![gap], ..consumed(1, 3) };
    ask(&mut line, 0, &consumed(0, 3));
    let (mut second, mut third) = (ask(&mut line, 1, &gaps), ask(&mut line, 2, &consumed(2, 3)));
    assert_eq!((may(&mut second), may(&mut third)), (None, Some(true)));
    line.ended(0, Some((info(0), consumed(0, 3))));
    assert_eq!((journal(&mut line), may(&mut second)), (vec!["0".to_owned()], Some(true)));
}

#[test]
fn what_is_complete_behind_an_object_that_failed_is_not_made_again() {
    let (mut line, _stopped) = four();
    for number in [0, 1, 2] {
        ask(&mut line, number, &consumed(number, 3));
    }
    line.ended(1, Some((info(1), consumed(1, 3))));
    line.ended(0, None);
    line.close();
    line.ended(2, Some((info(2), consumed(2, 3))));
    line.ended(3, None);
    let left = line.leave();
    assert_eq!(left.complete().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    let mut line = LineUp::new(start(0), left);
    assert_eq!(line.end_of(0), Some(cuts(1)), "the next one is visible, and begins there");
    assert_eq!((line.end_of(2), line.end_of(3)), (Some(cuts(3)), None));
    assert_eq!(line.want(4), Some(Want::Begin { start: start(0), is_first: true }));
    let _stopped = line.begun(start(0), None);
    line.foreseen(start(0), Foreseen::At(cuts(1)));
    assert_eq!(line.want(4), Some(Want::Foresee(start(3))), "the two between are held");
    ask(&mut line, 0, &consumed(0, 3));
    line.ended(0, Some((info(0), consumed(0, 3))));
    assert_eq!(journal(&mut line), ["0", "1", "2"]);
    assert_eq!(line.want(4), Some(Want::Begin { start: start(3), is_first: true }));
}

#[test]
fn after_a_failure_nobody_waits_for_what_will_never_be() {
    let (mut line, _stopped) = four();
    let gap = Gap { queue: 0, sequence: 0, offset: 13 };
    let gaps = Consumed { gaps: vec![gap], ..consumed(2, 3) };
    let (mut third, mut last) = (ask(&mut line, 2, &gaps), ask(&mut line, 3, &consumed(3, 3)));
    ask(&mut line, 1, &consumed(1, 3));
    ask(&mut line, 0, &consumed(0, 3));
    assert_eq!((may(&mut third), may(&mut last)), (None, Some(true)));
    line.ended(0, None);
    line.close();
    assert_eq!(may(&mut third), Some(false), "it is never the first in this attempt");
    // One whose merge has not ended tells nothing of those behind it.
    let (mut line, _stopped) = four();
    let mut second = ask(&mut line, 1, &consumed(1, 3));
    line.ended(0, None);
    assert_eq!(may(&mut second), None);
    line.close();
    assert_eq!(may(&mut second), Some(false));
}

#[test]
fn an_object_that_may_have_begun_amid_a_record_is_no_failure_before_that_is_known() {
    let (mut line, mut stopped) = four();
    assert!(!line.misled(0), "the first one begins where the journal ends");
    assert!(line.misled(2));
    assert_eq!(stopped.iter_mut().map(may).collect::<Vec<_>>(), [None, None, Some(false), Some(false)]);
    assert!(line.ended(3, None));
    assert_eq!(line.want(4), None, "not before the one in front of it has ended");
    ask(&mut line, 0, &consumed(0, 3));
    ask(&mut line, 1, &consumed(1, 3));
    assert_eq!(line.want(4), Some(Want::Foresee(start(2))));
    line.foreseen(start(2), Foreseen::At(cuts(3)));
    assert_eq!(line.want(4), Some(Want::Begin { start: start(2), is_first: false }));
    let _stopped = line.begun(start(2), None);
    assert!(!line.misled(2), "now it is known");
}
