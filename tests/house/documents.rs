//! What documents say of the code: the tests that they name exist, and their lines can be read.

use super::ratchet;
use super::source::{File, tree};
use std::collections::BTreeSet;

/// Ratchets: characters of the longest row of a table and of the longest other line.
const ROW_CHARS: usize = 318;
const LINE_CHARS: usize = 140;
/// Ratchet: lines of more than 140 characters.
const LONG_LINES: usize = 134;
const LONG: usize = 140;
/// A name of so many words in a document is a test's: keys and metrics are shorter or carry a dot or the program's name.
const WORDS_OF_A_TEST: usize = 5;

fn documents() -> Vec<File> {
    let mut files = tree(&["md"]);
    files.retain(|file| !file.name.starts_with("benches/"));
    files
}

/// Names of all test functions.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in tree(&["rs"]) {
        let mut is_test = false;
        for line in file.text.lines().map(str::trim_start) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let name = line
                .strip_prefix("async ")
                .unwrap_or(line)
                .strip_prefix("fn ")
                .and_then(|name| name.split(['(', '<']).next());
            if let Some(name) = name.filter(|_| std::mem::take(&mut is_test)) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn every_test_that_a_document_names_exists() {
    let tests = tests();
    let mut named = 0;
    for file in documents() {
        for line in file.text.lines() {
            // In the guarantees a row's last cell names tests, and nothing else.
            let cell = line.strip_suffix(" |").and_then(|row| row.rsplit_once(" | ")).map(|(_, cell)| cell);
            let guarantees = cell.filter(|_| file.is("docs/GUARANTEES.md")).into_iter().flat_map(quoted);
            let anywhere = quoted(line).filter(|name| {
                is_name(name) && name.split('_').count() >= WORDS_OF_A_TEST && !name.starts_with("trawl_")
            });
            for name in guarantees.chain(anywhere) {
                assert!(tests.contains(name), "{}: there is no test `{name}`", file.name);
                named += 1;
            }
        }
    }
    assert!(named > 60, "only {named} were found");
}

#[test]
fn every_guarantee_names_a_test() {
    let guarantees = documents().into_iter().find(|file| file.is("docs/GUARANTEES.md")).unwrap();
    let rows = guarantees.text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| **"));
    for row in rows.filter(|row| *row != "| guarantee | test |") {
        let cell = row.strip_suffix(" |").and_then(|row| row.rsplit_once(" | ")).map(|(_, cell)| cell);
        assert!(cell.is_some_and(|cell| quoted(cell).count() > 0), "no test: {row}");
    }
}

#[test]
fn lines_of_documents_can_be_read() {
    let documents = documents();
    let lines: Vec<_> = documents
        .iter()
        .flat_map(|file| file.text.lines())
        .map(|line| (line, line.chars().count()))
        .collect();
    let longest = |rows: bool| {
        let of = lines.iter().filter(|(line, _)| line.starts_with('|') == rows);
        of.map(|(_, chars)| *chars).max().unwrap_or(0)
    };
    ratchet("characters of the longest row of a table", longest(true), ROW_CHARS).unwrap();
    ratchet("characters of the longest other line", longest(false), LINE_CHARS).unwrap();
    ratchet(
        "lines of more than 140 characters",
        lines.iter().filter(|(_, chars)| *chars > LONG).count(),
        LONG_LINES,
    )
    .unwrap();
}
