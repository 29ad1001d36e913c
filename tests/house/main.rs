//! The house's rules, held against the code and the documents: which module may use which, how long files and functions are, where
//! unsafe code stands, which words are not used, and that every test that a document names exists. Reads files; needs nothing else.
//!
//! A *ratchet* is a constant that may only go down: the test fails above it, and once a quarter of it is gone it asks for a lower one.
// A test binary has no readers of its docs, and clippy.toml exempts only functions marked #[test].
#![allow(missing_docs, clippy::unwrap_used)]

mod code;
mod documents;
mod map;
#[path = "../common/skip.rs"]
#[allow(dead_code, reason = "what is held here is its verdict")]
mod skip;
mod source;
mod words;

/// Holds a count against its ratchet.
fn ratchet(what: &str, count: usize, most: usize) -> Result<(), String> {
    match count {
        _ if count > most => Err(format!("{what}: {count}, and it may be {most}")),
        _ if count < most * 3 / 4 => {
            Err(format!("{what}: {count} of {most} are left: lower the constant to {count}"))
        }
        _ => Ok(()),
    }
}

#[test]
fn a_ratchet_fails_above_and_asks_for_less_far_below() {
    assert!(ratchet("x", 8, 8).is_ok() && ratchet("x", 6, 8).is_ok() && ratchet("x", 0, 0).is_ok());
    assert!(ratchet("x", 9, 8).is_err() && ratchet("x", 5, 8).is_err());
}

#[test]
fn a_skip_is_a_failure_where_everything_is_required_unless_it_is_listed() {
    assert_eq!(skip::verdict(false, "weed", "why").unwrap(), "SKIPPED: weed: why");
    assert!(skip::verdict(true, "weed", "why").unwrap_err().contains("weed: why"));
    assert!(skip::verdict(true, "miri", "why").is_ok(), "it is in .config/may-lack");
}

#[test]
fn nothing_but_the_helper_says_that_a_test_is_skipped() {
    let word = ["\"SKIP", "PED"].concat();
    for file in source::tree(&["rs"]) {
        let own = ["tests/common/skip.rs", "tests/house/main.rs"].iter().any(|name| file.is(name));
        assert!(own || !file.text.contains(&word), "{}: use tests/common/skip.rs", file.name);
    }
}
