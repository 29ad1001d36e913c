//! What a manifest says of the wall clock.

use super::*;
use crate::job::{ClockState, ClockStates};

#[test]
fn a_manifest_says_what_the_kernel_said_of_the_clock_when_the_capture_began_and_ended() {
    let mut bench = Bench::new(config());
    let unasked = bench.running("a");
    let said = |synchronised, max_error_ns| ClockState {
        synchronised,
        max_error_ns,
        estimated_error_ns: 7,
        offset_ns: -3,
        leap_seconds: 0,
    };
    bench.step(Input::ClockSaid(said(false, 16_000_000_000)));
    let serial = bench.running("b");
    bench.step(Input::ClockSaid(said(true, 500)));
    bench.step(Input::Stop { serial, reply: None });
    bench.step(detached(serial, 10));
    bench.step(Input::ClockSaid(said(true, 900)));
    let manifest = bench.machine.capture(serial).unwrap().manifest("h", "c");
    let (start, end) = (said(false, 16_000_000_000), Some(said(true, 500)));
    assert_eq!(manifest.clock, Some(ClockStates { start, end }));
    assert_eq!(Manifest::parse(&manifest.to_json().unwrap()).unwrap().clock, manifest.clock);
    let unasked = bench.machine.capture(unasked).unwrap().manifest("h", "c");
    assert!(
        unasked.clock.is_none()
            && !String::from_utf8(unasked.to_json().unwrap()).unwrap().contains("\"clock\"")
    );
}
