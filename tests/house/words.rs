//! Words that are not used, and paths of one machine.

use super::source::{root, tree};

const TEXTS: [&str; 7] = ["rs", "md", "sh", "py", "toml", "c", "h"];

/// Private or archaic words. Say it as a network engineer reads it once: "again" for the first, "forever" or "until …" for the
/// second, and a subject with a verb for the rest.
const WORDS: [&str; 9] =
    ["anew", "for ever", "whomever", "whoever", "brothers", "shall", "aloud", "of itself", "of themselves"];

/// Whether a line has the word by itself, and not as the name of a function.
fn has(line: &str, word: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        let joins = |c: char| c.is_alphanumeric() || c == '_';
        !before.is_some_and(joins) && !after.is_some_and(|c| joins(c) || c == '(')
    })
}

#[test]
fn private_words_are_not_used() {
    let files = tree(&TEXTS);
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.name.starts_with("tests/house/")) {
        for (line, number) in file.text.lines().zip(1..) {
            let words = WORDS.iter().filter(|word| has(line, word));
            wrong.extend(words.map(|word| format!("{}:{number}: {word}", file.name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    // In two parts, or this file named them.
    let mut paths = vec![["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/Us", "ers/"].concat()];
    paths.push(format!("{}/", root().display()));
    for file in tree(&TEXTS) {
        for path in &paths {
            let at = file.text.lines().position(|line| line.contains(path));
            assert!(at.is_none(), "{}:{}: {path}", file.name, at.unwrap_or(0) + 1);
        }
    }
}
