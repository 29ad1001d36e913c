//! The form of code: heads, lengths, unsafe, unwrap.

use super::ratchet;
use super::source::{File, blank, product, tree};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
/// Ratchet: lines of the longest file of the product.
const LONGEST_FILE: usize = 675;
/// Ratchet: `expect` in the product, where what it expects is a bug of ours.
const EXPECTS: usize = 3;
/// Where unsafe code may stand.
const UNSAFE: [&str; 3] = ["src/dpdk/", "src/block/", "src/spool/mapping.rs"];
/// Lines above an unsafe block or impl in which its SAFETY begins.
const SAFETY_LINES: usize = 14;

#[test]
fn every_file_opens_with_what_it_owns() {
    for file in tree(&["rs"]) {
        assert!(file.text.starts_with("//! "), "{}: it does not open with //!", file.name);
    }
    for file in tree(&["py"]) {
        let text = file.text.strip_prefix("#!/usr/bin/env python3\n").unwrap_or(&file.text);
        assert!(text.starts_with("\"\"\""), "{}: it does not open with a docstring", file.name);
    }
}

#[test]
fn no_file_is_longer_than_the_house_allows() {
    for file in tree(&["rs", "py", "sh", "c"]) {
        let lines = file.text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{}: {lines} lines", file.name);
    }
    let longest = product().into_iter().max_by_key(|file| file.text.lines().count()).unwrap();
    ratchet(&format!("lines of {}", longest.name), longest.text.lines().count(), LONGEST_FILE).unwrap();
}

/// Names and lines of a file's functions, with signature and braces.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name = code[at + 3..].split(['(', '<']).next().unwrap_or_default();
        let begins = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if !begins || name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let (mut depth, mut nested) = (0, 0);
        let end = code[at..].char_indices().find_map(|(offset, c)| {
            match c {
                '(' | '[' => nested += 1,
                ')' | ']' => nested -= 1,
                ';' if depth == 0 && nested == 0 => return Some(offset),
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (c == '}' && depth == 0).then_some(offset)
        });
        let lines = code[at..=at + end.unwrap_or(0)].lines().count();
        found.push((name.to_owned(), lines));
    }
    found
}

#[test]
fn no_function_is_longer_than_the_house_allows() {
    let mut wrong = Vec::new();
    for file in tree(&["rs"]) {
        let long = functions(&blank(&file.text)).into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
        wrong.extend(long.map(|(name, lines)| format!("{}: {name}: {lines} lines", file.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lengths_of_functions_are_counted_with_signature_and_braces() {
    let code = "fn a(x: [u8; 2]) -> u8 {\n  if x { 1 } else { 2 }\n}\nfn b();\nlet fn_c = 1;\n";
    assert_eq!(functions(code), [("a".to_owned(), 3), ("b".to_owned(), 1)]);
}

/// Lines of the code that contain `what`, numbered from 1.
fn lines_with(file: &File, what: &str) -> Vec<usize> {
    let code = file.code();
    let is_word = |line: &str| {
        line.match_indices(what).any(|(at, _)| {
            let bounds = [line[..at].chars().next_back(), line[at + what.len()..].chars().next()];
            !bounds.iter().flatten().any(|c| c.is_alphanumeric() || *c == '_')
        })
    };
    code.lines().zip(1..).filter(|(line, _)| is_word(line)).map(|(_, number)| number).collect()
}

#[test]
fn the_product_unwraps_nothing() {
    let mut expects = Vec::new();
    for file in product() {
        let code = file.code();
        assert!(!code.contains(".unwrap()"), "{}: an unwrap outside of tests", file.name);
        expects.extend(
            code.lines()
                .zip(1..)
                .filter(|(line, _)| line.contains(".expect("))
                .map(|(_, n)| format!("{}:{n}", file.name)),
        );
    }
    ratchet(&format!("expect( outside of tests: {expects:?}"), expects.len(), EXPECTS).unwrap();
}

#[test]
fn unsafe_code_stands_in_its_rooms_and_says_why_it_is_sound() {
    for file in product() {
        let lines: Vec<_> = file.text.lines().collect();
        for number in lines_with(&file, "unsafe") {
            let is_allowed = UNSAFE.iter().any(|place| file.name.starts_with(place));
            assert!(is_allowed, "{}:{number}: unsafe code belongs into {UNSAFE:?}", file.name);
            let line = lines[number - 1];
            // An unsafe function says in its docs what its caller must hold.
            let wanted = if line.contains("unsafe fn") || line.contains("unsafe extern") {
                "Safety"
            } else {
                "SAFETY"
            };
            let above = &lines[number.saturating_sub(SAFETY_LINES + 1)..number];
            let says = above.iter().any(|line| line.contains(wanted) || line.contains("SAFETY"));
            assert!(says, "{}:{number}: no SAFETY above it", file.name);
        }
    }
}
