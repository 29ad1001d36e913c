//! Any text may be sent as a filter: it is refused, or compiles to a program that answers. First the JSON, then, behind
//! a zero byte, a frame that the filter is tried on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trawl::matcher::{Filter, FilterV1, Hits, Program};
use trawl::packet::Key;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (json, frame) = (&input[..end], input.get(end + 1..).unwrap_or(&[]));
    let Ok(sent) = serde_json::from_slice::<FilterV1>(json) else { return };
    let echoed = serde_json::to_vec(&sent).expect("a filter is JSON");
    assert_eq!(serde_json::from_slice::<FilterV1>(&echoed).ok().as_ref(), Some(&sent), "echoed as sent");
    let Ok(filter) = Filter::try_from(&sent) else { return };
    let program = Program::compile(&[(0, &filter, None), (63, &filter, None)]);
    let mut hits = Hits::default();
    let keys = [Key::parse(frame, frame.len() as u32)];
    program.evaluate(&keys, &mut hits);
    assert_eq!(hits.packets(), hits.of(0));
    assert_eq!(hits.of(0), hits.of(63));
    assert!(!filter.takes_everything() || hits.of(0) == 1);
});
