//! Any text may be a config file: it becomes a plan, or problems that each say something. The first two bytes choose a line of the
//! shipped file, without its comments, that the rest stands in place of; or the rest is the whole file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trawl::config::Plan;

const SHIPPED: &str = include_str!("../../config/trawl.toml");

fn file(choice: usize, text: &str) -> String {
    let lines: Vec<_> = SHIPPED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    match choice % (lines.len() + 1) {
        0 => text.to_owned(),
        at => [&lines[..at - 1], &[text], &lines[at..]].concat().join("\n"),
    }
}

fuzz_target!(|input: &[u8]| {
    let [low, high, text @ ..] = input else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let file = file(usize::from(u16::from_le_bytes([*low, *high])), text);
    if let Err(problems) = Plan::parse(&file) {
        assert!(!problems.0.is_empty(), "refused without a reason");
        assert!(problems.0.iter().all(|problem| !problem.to_string().is_empty()));
    }
});
