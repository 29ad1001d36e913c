//! What one account may take of what all share: slots, and turns at the history.

use super::*;
use crate::limits::{LOOK_BACKS_MAX, LOOK_BACKS_PER_ACCOUNT_MAX};

#[test]
fn accounts_leave_a_slot_for_each_that_has_none() {
    let many = Config { slots: 6, admits: 6, accounts: 3, full_per_account: 6, ..config() };
    let mut bench = Bench::new(many.clone());
    // Two take whatever they get.
    let mut refused = 0;
    for account in ["a", "b", "a", "b", "a", "b", "a", "b"] {
        match bench.create(request(account, Kind::Full)).as_slice() {
            [one] if one == "try destination" => {}
            other => {
                assert_eq!(other, ["refused SlotsKept"]);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 3, "one slot is the third account's");
    assert_eq!(bench.create(request("c", Kind::Full)), ["try destination"]);
    assert_eq!(bench.create(request("c", Kind::Full)), ["refused NoSlot"]);

    // One account alone has all of them, also where the workers' blocks bound it.
    let mut bench = Bench::new(Config { accounts: 1, admits: 5, ..many.clone() });
    (0..5).for_each(|_| assert_eq!(bench.create(request("a", Kind::Full)), ["try destination"]));
    assert_eq!(bench.create(request("a", Kind::Full)), ["refused NoBlocks"]);

    // Where there are more accounts than slots, half of the slots stay usable for more than one capture.
    let mut bench = Bench::new(Config { accounts: 100, ..many });
    (0..3).for_each(|_| assert_eq!(bench.create(request("a", Kind::Full)), ["try destination"]));
    assert_eq!(bench.create(request("a", Kind::Full)), ["refused SlotsKept"]);
}

#[test]
fn the_account_that_reads_least_looks_back_next() {
    let mut bench = Bench::new(Config { has_history: true, ..config() });
    bench.tick();
    bench.step(Input::RecordingPlaced { serial: 1, made: Ok(()) });
    let asked = |bench: &mut Bench, account: &str| {
        let id = CaptureId::random();
        let request = Box::new(looking_back(account));
        bench.step(Input::Create { reply: 1, id, request, lags: false });
        let serial = bench.machine.last_serial;
        (serial, bench.step(Input::Recorded { serial, version: 1 }))
    };
    let reads = |effects: &[String]| effects.iter().any(|effect| effect.starts_with("look back"));
    let flood: Vec<_> = (0..LOOK_BACKS_PER_ACCOUNT_MAX).map(|_| asked(&mut bench, "a")).collect();
    assert_eq!(flood.iter().filter(|(_, effects)| reads(effects)).count(), LOOK_BACKS_MAX);
    let (others, effects) = asked(&mut bench, "b");
    assert!(!reads(&effects), "both places are taken");
    // The first that ends makes room for the other account, although the flood came before.
    bench.step(Input::LookedBack { serial: flood[0].0, result: Err(String::new()) });
    let looking = bench.machine.look_backs().filter(|look| look.is_looking());
    let looking: Vec<Serial> = looking.map(|look| look.serial).collect();
    assert_eq!(looking, [flood[1].0, others]);
    // Then the first account goes on, in its order.
    bench.step(Input::LookedBack { serial: others, result: Err(String::new()) });
    let looking = bench.machine.look_backs().filter(|look| look.is_looking());
    assert_eq!(looking.map(|look| look.serial).collect::<Vec<_>>(), [flood[1].0, flood[2].0]);
}
