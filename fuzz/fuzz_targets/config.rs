//! Any text may be a config file: it becomes a plan, or problems that each say something, and never both. What is told of a
//! problem holds no line break, so that a log line stays one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trawl::config::Plan;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match (Plan::parse(text), Plan::parse(text)) {
        (Ok(_), Ok(_)) => {}
        (Err(problems), Err(again)) => {
            assert!(!problems.0.is_empty(), "refused without a reason");
            assert_eq!(problems.to_string(), again.to_string(), "the same file, another answer");
            assert!(problems.0.iter().all(|problem| !problem.to_string().is_empty()));
        }
        _ => panic!("the same file, another answer"),
    }
});
