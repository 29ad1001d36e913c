//! Answers that promise something: each comes once what it promises is durable.

use super::super::*;
use super::{Bench, bare, config, detached, stream_ended};
use crate::deliver::Words;
use crate::job::{ObjectInfo, StopReason};

#[test]
fn a_stop_is_answered_once_the_next_process_would_know_of_it() {
    let mut bench = Bench::new(config());
    let serial = bench.running("a");
    let asked = bench.step(Input::Stop { serial, reply: Some(70) });
    assert_eq!(asked, ["end budget Revoked", "detach 0", "record Running"]);
    assert!(bench.job(serial).stop_requested.is_some());
    let newest = bench.machine.capture(serial).unwrap().version;
    assert!(
        bench.step(Input::Recorded { serial, version: newest - 1 }).is_empty(),
        "an older one is durable"
    );
    assert_eq!(bench.step(Input::Recorded { serial, version: newest }), ["kept 70"]);
    assert_eq!(bench.step(Input::Stop { serial, reply: Some(71) }), ["kept 71"], "it is durable already");
    let serial = bench.drained("b");
    bench.recorded(serial);
    bench.step(Input::Stop { serial, reply: Some(72) });
    assert_eq!(bench.step(Input::Stop { serial: 999, reply: Some(73) }), ["kept 73"]);
}

#[test]
fn a_drop_is_answered_once_it_is_durable_and_the_next_process_carries_it_out() {
    let mut bench = Bench::new(config());
    let serial = bench.drained("a");
    let asked = bench.step(Input::GiveUp { serial, reply: Some(70) });
    assert_eq!(asked, [format!("give up {serial}"), "record ConversionRunning".to_owned()]);
    assert!(bench.step(Input::GiveUp { serial, reply: Some(71) }).is_empty(), "not durable yet");
    assert_eq!(bench.recorded(serial), ["kept 70", "kept 71"]);
    let durable = bench.job(serial).clone();
    assert!(durable.given_up.as_deref().unwrap().contains("its owner dropped it"));

    let mut next = Bench::new(config());
    let serial = next.machine.serial_for_inherited();
    let read = serde_json::from_str(&serde_json::to_string(&durable).unwrap()).unwrap();
    let inherited = Inherited { serial, job: read, remains: bare(2) };
    let begun = next.step(Input::Inherited(Box::new(inherited)));
    assert_eq!(begun, ["record ConversionRunning", "give up 1", "deliver left"], "given up before it begins");
    next.delivered(serial, Outcome::Failed(Words::alike("its owner dropped it")));
    next.assert_says(serial, &["its owner dropped it"]);
    assert_eq!(next.recorded(serial), ["discard"]);
}

#[test]
fn objects_ahead_of_their_turn_are_said_to_be_there_when_their_capture_is_given_up_or_fails() {
    let info = |name: &str| ObjectInfo { name: name.to_owned(), packets: 1, ..ObjectInfo::default() };
    for is_dropped in [true, false] {
        let mut bench = Bench::new(config());
        let serial = bench.drained("a");
        bench.step(Input::Delivery { serial, report: Report::Object(info("pcap_x.pcap")) });
        if is_dropped {
            bench.step(Input::GiveUp { serial, reply: None });
        }
        let ahead = vec![info("pcap_x_0002.pcap"), info("pcap_x_0003.pcap")];
        bench.step(Input::Delivery { serial, report: Report::Ahead(ahead) });
        bench.delivered(serial, Outcome::Failed(Words::alike("no")));
        let there =
            "2 behind one that is missing are complete there too, from pcap_x_0002.pcap to pcap_x_0003.pcap";
        bench.assert_says(serial, &[there]);
        if is_dropped {
            bench.assert_says(serial, &["1 of its objects are complete in their store, one after the other"]);
        }
    }
}

#[test]
fn who_waits_too_long_or_for_a_process_that_ends_is_told_that_nothing_is_sure() {
    let mut bench = Bench::new(config());
    let serial = bench.drained("a");
    bench.step(Input::GiveUp { serial, reply: Some(70) });
    bench.mono += RECORD_TIME_MAX - Duration::from_millis(1);
    assert!(bench.tick().iter().all(|effect| !effect.contains("70")));
    bench.mono += Duration::from_millis(1);
    assert!(bench.tick().contains(&"70 refused Undurable".to_owned()));
    let serial = bench.drained("b");
    bench.step(Input::Shutdown { reply: None });
    bench.delivered(serial, Outcome::Left);
    bench.step(Input::GiveUp { serial, reply: Some(71) });
    assert!(bench.job(serial).given_up.is_some(), "the next process does it");
    let older = bench.machine.capture(serial).unwrap().version - 1;
    assert!(bench.step(Input::Recorded { serial, version: older }).is_empty(), "it waits for the decision");
    assert_eq!(bench.recorded(serial), ["kept 71", "forget"]);
}

#[test]
fn what_is_dropped_while_its_outcome_is_recorded_goes_once_it_has_ended() {
    let mut bench = Bench::new(config());
    let serial = bench.drained("a");
    bench.delivered(serial, Outcome::Failed(Words::alike("403")));
    assert!(bench.step(Input::GiveUp { serial, reply: Some(70) }).is_empty());
    assert_eq!(bench.recorded(serial), ["forget"]);
    let id = bench.job(serial).id.clone();
    let removed = bench.step(Input::Removed { serial, result: Ok(()), kept: 300 });
    assert_eq!(removed, [format!("drop kept {}", id.as_str().trim_start_matches('0')), "drop".to_owned()]);
    assert_eq!(bench.step(Input::KeptDropped { id, result: Ok(()) }), ["kept 70"]);
}

#[test]
fn what_an_ended_capture_keeps_is_dropped_before_the_answer_or_the_answer_says_that_it_is_not() {
    for result in [Ok(()), Err("no".to_owned())] {
        let mut bench = Bench::new(config());
        let serial = bench.running("a");
        bench.step(Input::Stop { serial, reply: None });
        bench.step(detached(serial, 10));
        (0..2).for_each(|_| drop(bench.step(stream_ended(serial, 0, 0))));
        bench.step(Input::Noted { serial });
        bench.delivered(serial, Outcome::Failed(Words::alike("403")));
        assert_eq!(bench.job(serial).stop_reason, Some(StopReason::StopRequested));
        bench.recorded(serial);
        let (account, id) = (AccountId("a".to_owned()), bench.job(serial).id.clone());
        bench.step(Input::Removed { serial, result: Ok(()), kept: 300 });
        let dropped = bench.step(Input::DropKept { account, id: id.clone(), reply: Some(70) });
        assert_eq!(dropped.len(), 1, "no answer yet: {dropped:?}");
        let said = if result.is_ok() { "kept 70" } else { "70 refused Store" };
        assert_eq!(bench.step(Input::KeptDropped { id, result }), [said]);
    }
}
