//! Captures that press, and deliveries that stand back, with readings and time as arguments. Owns these expectations.

use super::*;

const RULES: PaceRules = PaceRules { wait_percent: 25, high_water_percent: 80, share_percent: 50 };
const CALM_LOAD: Load = Load { waiting_percent: 0, spool_percent: 0 };
const PRESSING: Load = Load { waiting_percent: 26, ..CALM_LOAD };

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Takes a reading at that time and asks for a piece of work.
fn ask(state: &mut State, ms: u64, load: Load) -> bool {
    state.read(&RULES, at(ms), load);
    state.may_go(&RULES, at(ms), None)
}

/// Pieces of work that one delivery may do from one time to another if it asks each millisecond.
fn pieces(state: &mut State, from: u64, to: u64, load: Load) -> usize {
    (from..to).filter(|ms| ask(state, *ms, load)).count()
}

#[test]
fn deliveries_stand_back_above_the_mark_until_half_of_it() {
    let mut state = State { trickled: at(1000), ..State::default() };
    let with = |waiting_percent| Load { waiting_percent, ..CALM_LOAD };
    assert!(ask(&mut state, 1000, with(25)), "not above the mark");
    assert!(!ask(&mut state, 1001, with(26)));
    assert!(!ask(&mut state, 1020, with(13)), "not yet below half of the mark");
    assert!(!ask(&mut state, 1025, with(12)), "calm, but not for long enough");
    assert!(ask(&mut state, 1030, with(12)) && ask(&mut state, 1031, with(25)));
}

#[test]
fn captures_that_press_without_end_leave_deliveries_ten_pieces_of_work_a_second() {
    let mut state = State::default();
    let alone = pieces(&mut state, 0, 60_000, PRESSING);
    assert!((595..=601).contains(&alone), "{alone}");
    // However many there are: what they get together stays the same.
    let all: usize =
        (60_000..120_000).map(|ms| (0..20).filter(|_| ask(&mut state, ms, PRESSING)).count()).sum();
    assert!((595..=601).contains(&all), "{all}");
}

#[test]
fn deliveries_that_stand_back_take_turns_also_if_one_always_looks_first() {
    let mut state = State::default();
    let mut done = [0; 3];
    let mut numbers = [(); 3].map(|()| state.enter(at(0)));
    for ms in (0..60_000).step_by(5) {
        state.read(&RULES, at(ms), PRESSING);
        for (at_work, number) in numbers.iter_mut().enumerate() {
            if state.may_go(&RULES, at(ms), Some(*number)) {
                done[at_work] += 1;
                state.leave(at(ms), *number);
                *number = state.enter(at(ms));
            }
        }
    }
    assert!(done.iter().all(|pieces| (195..=205).contains(pieces)), "{done:?}");
}

#[test]
fn above_the_high_water_mark_deliveries_have_a_share_of_the_time() {
    let mut state = State::default();
    let filled = |spool_percent| Load { spool_percent, ..PRESSING };
    assert!(pieces(&mut state, 0, 1000, filled(79)) <= 11);
    let shared = pieces(&mut state, 1000, 11_000, filled(80));
    assert!((5000..=5200).contains(&shared), "half of the time and the trickle: {shared}");
    assert!(pieces(&mut state, 11_000, 12_000, filled(75)) >= 500, "it must fall further");
    assert!(pieces(&mut state, 12_000, 13_000, filled(74)) <= 11);
}

#[test]
fn the_log_tells_each_change_once_however_often_deliveries_look() {
    let mut state = State::default();
    let mut told = Vec::new();
    let mut look = |state: &mut State, from: u64, to: u64, load: Load| {
        for ms in from..to {
            told.extend(state.read(&RULES, at(ms), load).into_iter().flatten());
            // As a delivery does: it stands back, and does a piece of work now and then.
            let number = state.waiting.first().copied();
            match (state.may_go(&RULES, at(ms), number), number) {
                (true, Some(number)) => state.leave(at(ms), number),
                (false, None) => {
                    state.enter(at(ms));
                }
                _ => {}
            }
        }
    };
    look(&mut state, 0, 9_000, PRESSING);
    look(&mut state, 9_000, 9_100, CALM_LOAD);
    look(&mut state, 9_100, 40_000, PRESSING);
    look(&mut state, 40_000, 80_000, Load { spool_percent: 85, ..PRESSING });
    look(&mut state, 80_000, 120_000, Load { spool_percent: 50, ..PRESSING });
    look(&mut state, 120_000, 121_000, CALM_LOAD);
    use Change::{CapturesFirst, GoesOn, Shares, StandsBack};
    assert_eq!(told, [StandsBack, Shares, GoesOn, CapturesFirst, StandsBack, GoesOn]);
}

#[test]
fn the_time_that_deliveries_stood_back_is_that_in_which_at_least_one_did() {
    let mut state = State::default();
    let (first, second) = (state.enter(at(1000)), state.enter(at(1200)));
    assert_eq!(state.stood_back(at(1500)), at(500));
    state.leave(at(1700), first);
    state.leave(at(2000), second);
    assert_eq!(state.stood_back(at(9000)), at(1000));
}

#[test]
fn a_mark_of_100_percent_lets_deliveries_never_stand_back() {
    let rules = PaceRules { wait_percent: 100, ..RULES };
    let mut state = State::default();
    for ms in 0..1000 {
        state.read(&rules, at(ms), Load { waiting_percent: 100, ..CALM_LOAD });
        assert!(state.may_go(&rules, at(ms), None));
    }
}

#[tokio::test]
async fn a_delivery_that_stands_back_says_so_and_can_be_given_up() {
    let pace = Pace::standstill();
    let said = std::cell::Cell::new(0);
    let has_said_so = async {
        while said.get() < 3 {
            tokio::time::sleep(LOOK).await;
        }
        pace.read().standing_back
    };
    tokio::select! {
        () = pace.turn(|| said.set(said.get() + 1)) => panic!("captures press"),
        standing_back = has_said_so => assert_eq!(standing_back, 1),
    }
    let view = pace.read();
    assert_eq!((view.standing_back, view.shares), (0, false), "its turn was dropped: {view:?}");
    assert!(view.stood_back >= LOOK, "{view:?}");
}
