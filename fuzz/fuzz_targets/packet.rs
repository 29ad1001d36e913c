//! Any bytes are a legal frame: parsing neither panics nor vouches for what is not there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trawl::packet::{Key, flags};

fuzz_target!(|frame: &[u8]| {
    let key = Key::parse(frame, frame.len() as u32);
    let has = |flag| key.flags() & flag != 0;
    assert!(!(has(flags::IPV4) && has(flags::IPV6)));
    assert!(has(flags::IPV4) || has(flags::IPV6) || key.0[..40] == [0; 40]);
    assert!(has(flags::PROTOCOL) || (key.0[36] == 0 && !has(flags::PORTS)));
    assert!(has(flags::PORTS) || key.0[32..36] == [0; 4]);
    // A shorter head tells less, and nothing else.
    let cut = Key::parse(&frame[..frame.len() / 2], frame.len() as u32);
    assert!(cut.0.iter().zip(&key.0).take(37).all(|(cut, whole)| *cut == 0 || cut == whole));
});
