//! Any text may be a config file: it becomes a plan, or problems that each say something, and the same file gets the same answer.
//! The first two bytes choose a line of the shipped file that the rest stands in place of; or the rest is the whole file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trawl::config::Plan;

const SHIPPED: &str = include_str!("../../config/trawl.toml");

fn file(choice: usize, text: &str) -> String {
    let lines: Vec<_> = SHIPPED.lines().collect();
    match choice % (lines.len() + 1) {
        0 => text.to_owned(),
        at => [&lines[..at - 1], &[text], &lines[at..]].concat().join("\n"),
    }
}

fuzz_target!(|input: &[u8]| {
    let [low, high, text @ ..] = input else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let file = file(usize::from(u16::from_le_bytes([*low, *high])), text);
    match (Plan::parse(&file), Plan::parse(&file)) {
        (Ok(_), Ok(_)) => {}
        (Err(problems), Err(again)) => {
            assert!(!problems.0.is_empty(), "refused without a reason");
            assert_eq!(problems.to_string(), again.to_string(), "the same file, another answer");
            assert!(problems.0.iter().all(|problem| !problem.to_string().is_empty()));
        }
        _ => panic!("the same file, another answer"),
    }
});
